"""WAF for both distributions, as a stack of its own, because web ACLs for CloudFront must be in us-east-1."""

from typing import Any

from aws_cdk import Stack
from aws_cdk import aws_wafv2 as wafv2
from constructs import Construct

from infra.options import Options

FIVE_MINUTES: int = 300


class Guard(Stack):
    """One web ACL, which counts requests by address and blocks an address that makes too many."""

    def __init__(self, scope: Construct, construct_id: str, *, options: Options, **arguments: Any) -> None:
        super().__init__(scope, construct_id, **arguments)
        limits = (
            ("Connections", options.ocpp_requests, _ocpp_path_statement()),
            ("Requests", options.web_requests, _negate(_ocpp_path_statement())),
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


def _ocpp_path_statement() -> wafv2.CfnWebACL.StatementProperty:
    """The statement for OCPP paths. WAF sees the path before the edge function turns it into cp."""
    return wafv2.CfnWebACL.StatementProperty(
        byte_match_statement=wafv2.CfnWebACL.ByteMatchStatementProperty(
            field_to_match=wafv2.CfnWebACL.FieldToMatchProperty(uri_path={}),
            positional_constraint="STARTS_WITH",
            search_string="/ocpp/",
            text_transformations=[wafv2.CfnWebACL.TextTransformationProperty(priority=0, type="NONE")],
        )
    )


def _negate(statement: wafv2.CfnWebACL.StatementProperty) -> wafv2.CfnWebACL.StatementProperty:
    return wafv2.CfnWebACL.StatementProperty(not_statement=wafv2.CfnWebACL.NotStatementProperty(statement=statement))


def _visibility(name: str) -> wafv2.CfnWebACL.VisibilityConfigProperty:
    return wafv2.CfnWebACL.VisibilityConfigProperty(
        cloud_watch_metrics_enabled=True, metric_name=name, sampled_requests_enabled=True
    )
