"""What is logged and counted of a decision: everything in the invocation's one log line, and verdict and headline
reason as metrics."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics

from csms import occupancy
from csms.model import Policy, Snapshot
from csms_observer import observer
from tests import builders as b
from tests.builders import NOW, build_live_status, connector, open_transaction, snapshot


def verdict(seen: Snapshot) -> dict[str, Any]:
    return occupancy.verdict(seen, 1, now=NOW, policy=Policy())


FREE = verdict(snapshot())
FAULTED = verdict(snapshot(connector(live=build_live_status("Faulted"), transaction=open_transaction())))
OFFLINE = verdict(snapshot(presence=b.presence(connection_id=None)))


def observe_verdicts(*seen: tuple[str, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The log line of an invocation that saw this, and what it counted."""
    lines = StringIO()
    logger = Logger(service=uuid4().hex, stream=lines)  # One of its own, because a logger is found by its name.
    metrics = EphemeralMetrics(namespace="csms", service="observed")
    observe = observer(logger, metrics)
    for what, facts in seen:
        observe(what, facts)
    logger.info("answered")
    (line,) = lines.getvalue().splitlines()
    return json.loads(line), {name: sum(metric["Value"]) for name, metric in metrics.metric_set.items()}


def test_log_line_lists_decisions_in_order() -> None:
    line, _ = observe_verdicts(("decision", FREE), ("decision", FAULTED))

    assert [FREE, FAULTED] == line["decisions"]


def test_decision_counts_by_verdict_and_headline() -> None:
    _, counted = observe_verdicts(*(("decision", said) for said in (FREE, FAULTED, OFFLINE, FREE, FAULTED)))

    assert {
        "Decision:startable": 2,
        "Decision:busy": 3,
        "Headline:LiveStatus:Faulted": 2,
        "Headline:ChargerOffline": 1,
    } == counted


def test_other_observations_are_logged_not_counted() -> None:
    line, counted = observe_verdicts(("occupancy", FAULTED), ("conflict", {"attempt": 1}), ("conflict", {"attempt": 2}))

    assert (FAULTED, {"attempt": 2}) == (line["occupancy"], line["conflict"])
    assert "decisions" not in line
    assert {} == counted


@pytest.mark.note("F63")
def test_payment_review_is_counted_and_logged() -> None:
    line, counted = observe_verdicts(("needsReview", {"reservation": "r1", "kind": "capture", "why": "card_declined"}))

    assert {"reservation": "r1", "kind": "capture", "why": "card_declined"} == line["needsReview"]
    assert {"NeedsReview": 1} == counted


def test_stop_not_obeyed_is_counted() -> None:
    line, counted = observe_verdicts(("stopNotObeyed", {"station": "cp1", "unpaidWh": 2500}))

    assert {"StopNotObeyed": 1} == counted
    assert 2500 == line["stopNotObeyed"]["unpaidWh"]
