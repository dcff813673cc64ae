"""Every minute: end what ran out of time and perform what is owed. Every day: compare the provider's books with ours.
When asked by name: perform one owed payment call now."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any, Final

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

from csms.config import Settings
from csms.gateway import Gateway
from csms.mail import Mailer
from csms.model import EffectKind
from csms.receipt import Issuer
from csms.secrets import revealed
from csms.service import Maintenance, Work
from csms.store import Store
from csms.stripe_payments import StripePayments
from csms_observer import observer

# A mail waits for the next sweep rather than the sweep for a mail.
IMPATIENT: Final = Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 1})

settings = Settings.load(revealed(os.environ, boto3.client("secretsmanager")))
logger = Logger(service="maintenance")
metrics = Metrics(namespace="csms", service="maintenance")
mailer = Mailer(boto3.client("sesv2", config=IMPATIENT), settings.receipt_sender) if settings.receipt_sender else None
maintenance = Maintenance(
    Work(
        store=Store(boto3.client("dynamodb"), settings.table_name),
        gateway=Gateway(boto3.client("apigatewaymanagementapi", endpoint_url=settings.websocket_api_url)),
        provider=StripePayments(
            api_key=settings.stripe_api_key,
            webhook_secret=settings.stripe_webhook_secret,
            api_base=settings.stripe_api_base,
        ),
        mailer=mailer,
        issuer=Issuer(
            name=settings.operator_name,
            address=settings.operator_address,
            vat_number=settings.operator_vat_number,
            contact=settings.operator_contact,
        ),
        policy=settings.policy,
        public_url=settings.public_url,
        observe=observer(logger, metrics),
    )
)


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """What was done; raising makes AWS try an asked-for call again, and the next sweep does so anyway."""
    wanted = event.get("perform")
    if wanted is not None:
        became = maintenance.perform(wanted["reservationId"], EffectKind(wanted["kind"]))
        metrics.add_metric("Performed", MetricUnit.Count, 1)
        logger.info("performed", extra={**wanted, "became": became})
        return {"became": became}
    if event.get("reconcile"):
        found = maintenance.reconcile()
        if found.differences:
            metrics.add_metric("ReconciliationDifferences", MetricUnit.Count, found.differences)
        logger.info("reconciled", extra=asdict(found))
        return asdict(found)
    report = maintenance.sweep(dry_run=bool(event.get("dryRun")))
    # Nothing is no news, and a metric is paid for in every hour in which it is sent.
    if report.done:
        metrics.add_metric("Swept", MetricUnit.Count, sum(report.done.values()))
    if report.failed:
        metrics.add_metric("SweepFailures", MetricUnit.Count, len(report.failed))
    logger.info("swept", extra=asdict(report))
    return asdict(report)
