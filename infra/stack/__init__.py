"""The whole product as one CloudFormation stack: table, functions, two APIs, schedules, and the distributions before
them.

It is one stack because its parts work together only if they come from one commit: one deployment updates all of them,
and one rollback restores them. What must outlive it (table, operators) is retained and protected. Only WAF is a stack
of its own (infra.stack.waf), because CloudFormation creates it only in us-east-1.
"""

from typing import Any

from aws_cdk import CfnOutput, Stack
from aws_cdk import aws_apigatewayv2_authorizers as authorizers
from constructs import Construct

from csms.config import secret_reference
from infra import routes
from infra.layers import Layers
from infra.options import Options
from infra.payment_secrets import PAYMENT_SECRETS
from infra.stack import alarms, apis, distributions, operators, schedules, secrets, stripe_events, timers
from infra.stack.functions import ISSUER_SETTINGS, FunctionDependencies, functions
from infra.stack.table import table


class Csms(Stack):
    """Everything in one Region."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        layers: Layers,
        options: Options | None = None,
        web_acl_arn: str | None = None,
        **arguments: Any,
    ) -> None:
        options = options or Options()
        super().__init__(scope, construct_id, stack_name=options.stack_name, **arguments)
        self.table = table(self, options.table_name)
        stage = apis.websocket_stage(self, options)
        http = apis.http_stage(self, options)
        pool = operators.operator_pool(self, options)
        console = operators.console_client(pool)
        paying = [(row, secrets.payment_secret(self, row)) for row in PAYMENT_SECRETS]
        # Resolved at deployment and not at run time, because CloudFront's configuration contains it anyway.
        origin, next_origin = (
            secrets.origin_secret(self, generation).secret_value.unsafe_unwrap()
            for generation in (options.origin_secret, options.origin_secret + 1)
        )
        ocpp = distributions.ocpp_distribution(
            self, options, api=stage.api, origin_secret=origin, web_acl_arn=web_acl_arn
        )
        web = distributions.web_distribution(self, options, api=http.api, origin_secret=origin, web_acl_arn=web_acl_arn)
        public_url = f"https://{distributions.public_domain(web, options.web_domain)}"
        letters = schedules.dead_letters(self)
        queue = timers.timer_queue(self, letters)
        self.functions = functions(
            self,
            FunctionDependencies(
                options=options,
                table=self.table,
                stage=stage,
                secrets={row.resource: secret for row, secret in paying},
                dead_letters=letters,
                timers=queue,
                layers=layers,
                values={
                    "TABLE_NAME": self.table.table_name,
                    "WEBSOCKET_API_URL": stage.callback_url,
                    "TIMER_QUEUE_URL": queue.queue_url,
                    "PUBLIC_URL": public_url,
                    "ORIGIN_SECRET": origin,
                    "NEXT_ORIGIN_SECRET": next_origin,
                    **{
                        setting: secret_reference(secret.secret_arn, field)
                        for row, secret in paying
                        for setting, field in row.fields.items()
                    },
                    **{name: options.settings.get(name, "") for name in (*ISSUER_SETTINGS, "RECEIPT_SENDER")},
                },
            ),
        )
        # CloudFront sends a secret before the functions require it: they change when all its locations have.
        for name, front in (("ws_connect", ocpp), ("payments", web), ("operations", web)):
            self.functions[name].node.add_dependency(front)
        apis.add_websocket_routes(stage.api, self.functions)
        apis.add_http_routes(
            http,
            options,
            self.functions,
            authorizers.HttpUserPoolAuthorizer("OperatorsOnly", pool, user_pool_clients=[console]),
        )
        schedules.add_schedules(self, self.functions, letters)
        timers.add_timer_source(self, queue, self.functions[routes.TIMERS.function])
        if options.stripe_event_source:
            source = options.stripe_event_source
            stripe_events.stripe_bus(self, source, function=self.functions["payments"], letters=letters)
        monitored = alarms.add_monitoring(self, options, functions=self.functions, table=self.table, letters=letters)
        outputs = {
            "OcppUrl": f"wss://{distributions.public_domain(ocpp, options.ocpp_domain)}/{apis.STAGE}/",
            "PublicUrl": public_url,
            "WebhookUrl": f"{public_url}{routes.WEBHOOK}",
            "TableName": self.table.table_name,
            "OperatorPoolId": pool.user_pool_id,
            "OperatorClientId": console.user_pool_client_id,
            **{f"{row.title}SecretArn": secret.secret_arn for row, secret in paying},
            "AlarmTopicArn": monitored.topic_arn,
            "DeadLettersUrl": letters.queue_url,
            "OcppTarget": ocpp.distribution_domain_name,
            "WebTarget": web.distribution_domain_name,
        }
        for name, value in outputs.items():
            CfnOutput(self, name, value=value)
