"""Every minute, the sweep: end what has timed out and perform what is owed. Every day, the reconciliation. On request,
perform one outbox item now."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from csms.model import OutboxKind
from csms.service import Maintenance
from csms_wiring import open_log
from csms_wiring.mailing import build_mailer
from csms_wiring.paying import build_payment_dependencies, read_settings_and_secrets

settings = read_settings_and_secrets()
logger, metrics = open_log("maintenance")
maintenance = Maintenance(replace(build_payment_dependencies(settings, logger, metrics), mailer=build_mailer(settings)))


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Run the sweep, the reconciliation or one outbox item, and return what was done. An error makes AWS repeat the
    request for one item, and the next sweep performs it anyway."""
    wanted = event.get("perform")
    if wanted is not None:
        became = maintenance.perform(wanted["reservationId"], OutboxKind(wanted["kind"]))
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
    # No metric without a change, because each hour in which a metric is sent costs money.
    if report.done:
        metrics.add_metric("Swept", MetricUnit.Count, sum(report.done.values()))
    if report.failed:
        metrics.add_metric("SweepFailures", MetricUnit.Count, len(report.failed))
    logger.info("swept", extra=asdict(report))
    return asdict(report)
