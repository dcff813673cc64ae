"""How the functions log and count what happens; csms itself does neither.

It is beside csms in the layer, as csms_http is, because the stations' functions need only this.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit


def escape(text: str) -> str:
    """The text with every character escaped, as in JSON, that is not printed as itself: control characters, line and
    paragraph separators, and those that change the direction of the text."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else json.dumps(character)[1:-1] for character in text)


def write_log_line(entry: Mapping[str, Any]) -> str:
    """The log entry as one line of JSON that can be shown on a terminal."""
    return escape(json.dumps(entry, default=str, separators=(",", ":"), ensure_ascii=False))


def observer(logger: Logger, metrics: Metrics) -> Callable[[str, Mapping[str, Any]], None]:
    """The function that csms calls with what happened. It becomes a key of the invocation's one log line. Decisions of
    the busy rule are collected in `decisions`, and counted by verdict and by headline reason. Payments that need review
    are counted, because an alarm watches that metric, and so are frames that failed in line and transactions that a
    station does not stop."""

    def observe(what: str, facts: Mapping[str, Any]) -> None:
        if what == "needsReview":
            metrics.add_metric("NeedsReview", MetricUnit.Count, 1)
        if what == "stopNotObeyed":
            metrics.add_metric("StopNotObeyed", MetricUnit.Count, 1)
        if what == "frameFailed":
            metrics.add_metric("FrameFailed", MetricUnit.Count, 1)
        if what != "decision":
            logger.append_keys(**{what: dict(facts)})
            return
        earlier = logger.get_current_keys().get("decisions", ())
        logger.append_keys(decisions=[*earlier, dict(facts)])
        metrics.add_metric(f"Decision:{facts['verdict']}", MetricUnit.Count, 1)
        if facts["headline"] is not None:
            metrics.add_metric(f"Headline:{facts['headline']}", MetricUnit.Count, 1)

    return observe
