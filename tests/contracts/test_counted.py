"""Does every operation take what bench/budgets.md says, no more and no less? Everything is counted again, in a process
of its own. After an intended change: `make count`, `make docs`, and look at the differences."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from bench import budgets, counted
from bench.budgets import Bill, Budget
from csms.model import OutboxKind
from infra import routes
from local.stack import ROOT
from tests.tables import skip_without_dynoxide

ADVICE = "If it is meant, `make count` writes it down; then `make docs`."


@pytest.fixture(scope="module")
def measured_bills() -> budgets.BillsByChapter:
    skip_without_dynoxide()
    command = [sys.executable, "-m", "bench.counted", "--json"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert 0 == run.returncode, run.stderr
    return {
        chapter: {operation: [Bill.from_json(row) for row in rows] for operation, rows in kinds.items()}
        for chapter, kinds in json.loads(run.stdout).items()
    }


def test_every_operation_is_counted(measured_bills):
    reached = {operation for kinds in measured_bills.values() for operation in kinds}

    assert [] == counted.find_missing(reached), f"Add each to a chapter of bench/chapters.py. {ADVICE}"


def test_every_operation_has_a_budget():
    assert [] == counted.find_missing(budgets.operations(budgets.load())), ADVICE


def test_each_operation_takes_exactly_its_budget(measured_bills):
    differences = budgets.compare(budgets.load(), measured_bills)

    assert not differences, "\n".join((*differences, ADVICE))


def test_computed_units_match_engine(measured_bills):
    for chapter, kinds in measured_bills.items():
        for operation, bills in kinds.items():
            engine = [(bill.engine_read_units, bill.engine_write_units) for bill in bills]
            ours = [(bill.read_units, bill.write_units) for bill in bills]
            assert engine == ours, f"{chapter}, {operation}"


def test_capture_sends_one_receipt_mail(measured_bills):
    (capture,) = measured_bills["session"]["perform capture"]

    assert 1 == capture.requests["SendEmail"]


def test_checkout_calls_provider_once_capture_twice(measured_bills):
    asked = [
        sum(bill.provider_calls for bill in measured_bills["session"][operation])
        for operation in ("POST /payments/create", "perform capture")
    ]

    assert [1, 2] == asked


def test_warm_heartbeat_costs_one_write_unit(measured_bills):
    (bill,) = measured_bills["heartbeat"]["Heartbeat"]

    assert ({"UpdateItem": 1}, 1.0, 0) == (bill.requests, bill.write_units, bill.read_units)


@pytest.mark.parametrize(
    "kind", ["POST /payments/create", "StartTransaction", f"perform {OutboxKind.CAPTURE}", "$connect", "sweep"]
)
def test_uncounted_operation_is_named(kind):
    assert [kind] == counted.find_missing(budgets.operations(budgets.load()) - {kind})


def test_uncounted_new_route_is_named(monkeypatch):
    new = routes.Route("GET", "/payments/weather/{reservationId}", "payments")
    monkeypatch.setattr(routes, "HTTP", (*routes.HTTP, new))

    assert ["GET /payments/weather/{reservationId}"] == counted.find_missing(budgets.operations(budgets.load()))


BILL = Bill(requests=Counter(Query=1), read_units=1.0, write_units=2.0, log_bytes=600, metrics={"ws_message Frames"})
TABLE = [Budget(operation="Heartbeat", when={"heartbeat": 1, "session": 2}, bill=BILL)]


def counts_with(*bills: Bill) -> budgets.BillsByChapter:
    """A count in which the last Heartbeats of the session took this, and all others their budget."""
    in_session = [*[BILL] * (2 - len(bills)), *bills]
    return {"heartbeat": {"Heartbeat": [BILL]}, "session": {"Heartbeat": in_session}}


def test_added_or_removed_operation_is_one_difference():
    assert ["heartbeat, Heartbeat: has no budget", "session, Heartbeat: has no budget"] == budgets.compare(
        [], counts_with()
    )
    assert ["heartbeat, Heartbeat: does not come any more"] == budgets.compare(
        TABLE, {"session": counts_with()["session"]}
    )


def test_more_frequent_operation_is_a_difference():
    more = counts_with(BILL, BILL, BILL)

    assert ["session, Heartbeat: comes 3 times, the budget is for 2"] == budgets.compare(TABLE, more)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"write_units": 3.0}, "write units: 3, budget 2, over the budget"),
        ({"write_units": 1.0}, "write units: 1, budget 2, lower the budget"),
        ({"read_units": 1.5}, "read units: 1.5, budget 1, over the budget"),
        ({"requests": Counter(Query=2)}, "Query requests: 2, budget 1, over the budget"),
        ({"requests": Counter()}, "Query requests: 0, budget 1, lower the budget"),
        ({"requests": Counter(Query=1, Invoke=1)}, "Invoke requests: 1, budget 0, over the budget"),
        ({"provider_calls": 1}, "provider calls: 1, budget 0, over the budget"),
        ({"metrics": set()}, "metric ws_message Frames: 0, budget 1, lower the budget"),
        ({"log_bytes": 700}, "log_bytes: 1300, budget 1200, over the budget"),
        ({"bytes_kept": 25}, "bytes_kept: 25, budget 0, over the budget"),
    ],
)
def test_difference_names_operation_number_and_budget(change, told):
    assert [f"session, Heartbeat: {told}"] == budgets.compare(TABLE, counts_with(replace(BILL, **change)))


def test_opposite_differences_do_not_cancel_out():
    changed = counts_with(replace(BILL, write_units=1.0), replace(BILL, write_units=3.0))

    assert [
        "session, Heartbeat: write units: 1, budget 2, lower the budget",
        "session, Heartbeat: write units: 3, budget 2, over the budget",
    ] == budgets.compare(TABLE, changed)


def test_small_byte_change_is_no_difference():
    assert [] == budgets.compare(TABLE, counts_with(replace(BILL, log_bytes=602, bytes_kept=24)))


def test_equal_invocations_share_one_line():
    dearer = replace(BILL, write_units=3.0)

    lines = budgets.group(counts_with(replace(BILL, log_bytes=606), dearer))

    assert [{"heartbeat": 1, "session": 1}, {"session": 1}] == [line.when for line in lines]
    assert [replace(BILL, log_bytes=603), dearer] == [line.bill for line in lines]


def test_saved_budgets_load_unchanged(tmp_path):
    path, lines = tmp_path / "budgets.md", budgets.load()

    budgets.save(lines, path)

    assert lines == budgets.load(path)
    assert budgets.FILE.read_text() == path.read_text()


def test_recount_rewrites_only_changed_lines():
    other = Budget(operation="Authorize", when={"session": 1}, bill=replace(BILL, log_bytes=610))
    dearer = replace(BILL, read_units=2.0)
    measured_bills = {"heartbeat": {"Heartbeat": [dearer]}, "session": {"Authorize": [BILL]}}

    changed = Budget(operation="Heartbeat", when={"heartbeat": 1}, bill=dearer)
    assert [other, changed] == budgets.renew([other, *TABLE], measured_bills)


def test_contradictory_budget_line_is_refused(tmp_path):
    path = tmp_path / "budgets.md"
    budgets.save(TABLE, path)
    path.write_text(path.read_text().replace("|        1 |", "|        2 |"))

    with pytest.raises(ValueError, match="Heartbeat: 2 \\+ 0 requests are not Query"):
        budgets.load(path)
