"""WAF for both distributions, as a stack of its own, because web ACLs for CloudFront must be in us-east-1."""

from typing import Any, Final

from aws_cdk import Stack
from aws_cdk import aws_wafv2 as wafv2
from constructs import Construct

from infra.options import Options
from infra.routes import WEBHOOK

FIVE_MINUTES: Final = 300

# The payment provider calls from a dozen addresses on behalf of all drivers. One address alone cannot use up the
# webhook's own throttle (infra.stack.apis), which by default lets 30,000 requests through in five minutes.
WEBHOOK_REQUESTS: Final = 10_000


class Guard(Stack):
    """One web ACL, which counts requests by address and blocks an address that makes too many."""

    def __init__(self, scope: Construct, construct_id: str, *, options: Options, **arguments: Any) -> None:
        super().__init__(scope, construct_id, **arguments)
        ocpp, webhook = _path_statement("/ocpp/", "STARTS_WITH"), _path_statement(WEBHOOK, "EXACTLY")
        limits = (
            ("Connections", options.ocpp_requests, ocpp),
            ("Requests", options.web_requests, _negate(_either(ocpp, webhook))),
            ("Webhook", options.web_requests and max(options.web_requests, WEBHOOK_REQUESTS), webhook),
        )
        self.web_acl = wafv2.CfnWebACL(
            self,
            "WebAcl",
            scope="CLOUDFRONT",
            default_action=wafv2.CfnWebACL.DefaultActionProperty(allow={}),
            visibility_config=_visibility("WebAcl"),
            rules=[_rate_rule(name, n, limit, where) for n, (name, limit, where) in enumerate(limits) if limit],
        )


def _rate_rule(name: str, priority: int, limit: int, where: wafv2.CfnWebACL.StatementProperty) -> Any:
    return wafv2.CfnWebACL.RuleProperty(
        name=name,
        priority=priority,
        action=wafv2.CfnWebACL.RuleActionProperty(block={}),
        statement=wafv2.CfnWebACL.StatementProperty(
            rate_based_statement=wafv2.CfnWebACL.RateBasedStatementProperty(
                aggregate_key_type="IP", limit=limit, evaluation_window_sec=FIVE_MINUTES, scope_down_statement=where
            )
        ),
        visibility_config=_visibility(name),
    )


def _path_statement(path: str, constraint: str) -> wafv2.CfnWebACL.StatementProperty:
    """The statement for a path. WAF sees it before a CloudFront Function changes it."""
    return wafv2.CfnWebACL.StatementProperty(
        byte_match_statement=wafv2.CfnWebACL.ByteMatchStatementProperty(
            field_to_match=wafv2.CfnWebACL.FieldToMatchProperty(uri_path={}),
            positional_constraint=constraint,
            search_string=path,
            text_transformations=[wafv2.CfnWebACL.TextTransformationProperty(priority=0, type="NONE")],
        )
    )


def _either(*statements: wafv2.CfnWebACL.StatementProperty) -> wafv2.CfnWebACL.StatementProperty:
    return wafv2.CfnWebACL.StatementProperty(
        or_statement=wafv2.CfnWebACL.OrStatementProperty(statements=list(statements))
    )


def _negate(statement: wafv2.CfnWebACL.StatementProperty) -> wafv2.CfnWebACL.StatementProperty:
    return wafv2.CfnWebACL.StatementProperty(not_statement=wafv2.CfnWebACL.NotStatementProperty(statement=statement))


def _visibility(name: str) -> wafv2.CfnWebACL.VisibilityConfigProperty:
    return wafv2.CfnWebACL.VisibilityConfigProperty(
        cloud_watch_metrics_enabled=True, metric_name=name, sampled_requests_enabled=True
    )
