"""What the functions watch the product with: csms itself neither logs nor counts.

It stands beside csms in the layer, as csms_http does, and is all that the stations' functions need of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit


def observer(logger: Logger, metrics: Metrics) -> Callable[[str, Mapping[str, Any]], None]:
    """What happened becomes a key of the invocation's one log line; each decision of the busy rule is in its list of
    `decisions`, and counted by its verdict and by its headline reason. Money that a human must look at is counted too,
    because an alarm waits for it."""

    def observe(what: str, facts: Mapping[str, Any]) -> None:
        if what == "needsReview":
            metrics.add_metric("NeedsReview", MetricUnit.Count, 1)
        if what != "decision":
            logger.append_keys(**{what: dict(facts)})
            return
        earlier = logger.get_current_keys().get("decisions", ())
        logger.append_keys(decisions=[*earlier, dict(facts)])
        metrics.add_metric(f"Decision:{facts['verdict']}", MetricUnit.Count, 1)
        if facts["headline"] is not None:
            metrics.add_metric(f"Headline:{facts['headline']}", MetricUnit.Count, 1)

    return observe
