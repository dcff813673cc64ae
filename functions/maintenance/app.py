"""Every minute, the sweep: end what has timed out and perform what is owed. Every day, the reconciliation. On request,
perform one outbox item now. When a timer goes off, give up the CALL that a station has not answered."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any, Final

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from csms.model import OutboxKind
from csms.service import Maintenance
from csms_wiring import open_log
from csms_wiring.mailing import build_mailer
from csms_wiring.paying import build_payment_dependencies, read_settings_and_secrets

TIME_TO_END_MS: Final = 15_000
"""The time that a sweep leaves for the item that it has begun: eight attempts against others who change the same data,
and a slow answer of the payment provider."""

settings = read_settings_and_secrets()
logger, metrics = open_log("maintenance")
maintenance = Maintenance(replace(build_payment_dependencies(settings, logger, metrics), mailer=build_mailer(settings)))


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Run the sweep, the reconciliation, one outbox item or the timers of a queue's messages, and return what was done.
    An error makes AWS repeat the request for one item, and the next sweep performs it anyway."""
    if "Records" in event:
        failed = [record["messageId"] for record in event["Records"] if not _wake(record)]
        logger.info("woken", extra={"timers": len(event["Records"]), "failed": failed})
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}
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
    report = maintenance.sweep(
        dry_run=bool(event.get("dryRun")),
        is_time_up=lambda: context.get_remaining_time_in_millis() < TIME_TO_END_MS,
    )
    # No metric without a change, because each hour in which a metric is sent costs money.
    if report.done:
        metrics.add_metric("Swept", MetricUnit.Count, sum(report.done.values()))
    if report.over_share or not report.is_complete:
        metrics.add_metric("SweepsCutShort", MetricUnit.Count, 1)
    if report.failed:
        metrics.add_metric("SweepFailures", MetricUnit.Count, len(report.failed))
    logger.info("swept", extra=asdict(report))
    return asdict(report)


def _wake(record: dict[str, Any]) -> bool:
    """Do what the timer of this message was set for; return whether that succeeded."""
    try:
        wake = json.loads(record["body"])["wake"]
        maintenance.wake(wake["stationId"], wake.get("callId"))
    except Exception:  # Whatever this timer raises, the others in the batch have gone off too.
        logger.exception("failed", extra={"messageId": record["messageId"], "timer": record["body"]})
        metrics.add_metric("TimerFailures", MetricUnit.Count, 1)
        return False
    return True
