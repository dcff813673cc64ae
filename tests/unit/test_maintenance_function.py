"""functions/maintenance as Lambda runs it, what it says and counts, and what the other functions log and count."""

from dataclasses import replace
from datetime import timedelta
from importlib import import_module

import pytest

from csms.model import OutboxItem, Reservation, Save
from stand_ins.stripe.records import OTHER_METHODS
from tests.app.handlers import capture_logs
from tests.unit.deployed_functions import (
    CREATE_REQUEST,
    broken_cloud,
    cloud,
    deployed_functions,
    forget_functions,
    reload_functions,
)

__all__ = ["broken_cloud", "cloud", "deployed_functions"]


@pytest.mark.note("F40")
def test_failed_frame_is_logged_and_counted(cloud, capsys):
    line, metrics = capture_logs("ws_message", capsys, lambda: cloud.send_frame('[2,"1","Heartbeat",{}]', over="x="))

    assert ("failed", "ERROR") == (line["message"], line["level"])
    assert ([1.0], [1.0]) == (metrics["Frames"], metrics["FrameFailed"])


def test_maintenance_performs_outbox_item_once(cloud):
    reservation_id, transaction_id = cloud.bring_online().start_session()
    cloud.stop_transaction(transaction_id, 14_000, at="2026-11-23T10:00:00Z")
    owed = cloud.find_only(OutboxItem)
    asked = {"perform": {"reservationId": reservation_id, "kind": owed.kind}}

    assert {"became": "done"} == cloud.invoke("maintenance", asked)
    assert {"became": "nothing owed"} == cloud.invoke("maintenance", asked)

    _, told = cloud.ask("GET", f"/payments/status/{reservation_id}")
    assert ("Completed", "captured", 824) == (told["status"], told["money"], told["capturedAmount"])


@pytest.mark.note("F65")
def test_captured_session_has_receipt_naming_operator(cloud, monkeypatch):
    reload_functions(monkeypatch, OPERATOR_NAME="Example Charging", OPERATOR_VAT_NUMBER="XX 1")
    reservation_id, transaction_id = cloud.bring_online().start_session()
    address = f"/payments/receipt/{reservation_id}"
    cloud.stop_transaction(transaction_id, 14_000, at="2026-11-23T10:00:00Z")
    before = cloud.ask("GET", address)
    cloud.invoke(
        "maintenance", {"perform": {"reservationId": reservation_id, "kind": cloud.find_only(OutboxItem).kind}}
    )

    status, receipt = cloud.ask("GET", address)

    assert (404, "NoReceiptYet") == (before[0], before[1]["status"])
    assert (200, {"name": "Example Charging", "vatNumber": "XX 1"}, 824, 824, {"brand": "visa", "last4": "4242"}) == (
        status,
        receipt["operator"],
        receipt["total"],
        receipt["capturedAmount"],
        receipt["card"],
    )


@pytest.mark.note("F66")
def test_uncharged_session_has_no_receipt(cloud):
    reservation_id, transaction_id = cloud.bring_online().start_session()
    cloud.stop_transaction(transaction_id, 1000, at="2026-11-23T10:00:00Z")

    status, said = cloud.ask("GET", f"/payments/receipt/{reservation_id}")

    assert (404, "NothingCharged") == (status, said["status"])


def test_link_payment_receipt_names_no_card(cloud):
    created = cloud.bring_online().create()
    cloud.pay_with_link(created)
    cloud.ask("POST", "/payments/confirm", {"reservationId": created["reservationId"]})
    transaction_id = cloud.start_transaction(cloud.read_id_tag())
    cloud.stop_transaction(transaction_id, 14_000, at="2026-11-23T10:00:00Z")
    owed = {"reservationId": created["reservationId"], "kind": cloud.find_only(OutboxItem).kind}

    assert {"became": "done"} == cloud.invoke("maintenance", {"perform": owed})

    status, receipt = cloud.ask("GET", f"/payments/receipt/{created['reservationId']}")
    assert (200, 824) == (status, receipt["capturedAmount"])
    assert "card" not in receipt


def test_reconciliation_skips_unrelated_payments(cloud):
    created = cloud.bring_online().create()
    cloud.pay_with_link(created)
    cloud.ask("POST", "/payments/confirm", {"reservationId": created["reservationId"]})
    before = cloud.invoke("maintenance", {"reconcile": True})

    for method in OTHER_METHODS:
        cloud.stand_in.receive(method)
    cloud.stand_in.receive("link", manual=True)

    assert before == cloud.invoke("maintenance", {"reconcile": True})
    assert 1 == before["reservations"]
    assert [] == before["missing"]


def test_mailer_exists_only_with_sender(cloud, monkeypatch):
    assert import_module("functions.maintenance.app").maintenance._dependencies.mailer is None

    reload_functions(monkeypatch, RECEIPT_SENDER="receipts@example.com")
    assert import_module("functions.maintenance.app").maintenance._dependencies.mailer is not None
    forget_functions()


@pytest.mark.note("F73")
def test_sweep_continues_past_poisoned_row(cloud):
    cloud.bring_online().create()
    held = cloud.find_only(Reservation)
    cloud.table.store.commit([Save(replace(held, expires_at=held.created_at - timedelta(minutes=1)))])
    poison = {"type": "Effect", "due_at": "2026-01-01T00:00:00.000000Z", "SK": "EFFECT#x"}
    for shard in range(4):
        cloud.table.put(poison | {"PK": f"RESERVATION#poison{shard}", "due_shard": f"DUE#{shard}"})

    report = cloud.sweep()

    assert 4 == len(report["failed"])
    assert {"Reservation": 1} == report["done"]
    _, told = cloud.ask("GET", f"/payments/status/{held.reservation_id}")
    assert ("Cancelled", "PaymentTimeout") == (told["status"], told["failureCode"])
    assert cloud.ask("GET", "/payments/connectors/CP1/1")[1]["startable"]


def test_refused_create_logs_predicates_and_counts(cloud, capsys):
    line, metrics = capture_logs("payments", capsys, lambda: cloud.ask("POST", "/payments/create", CREATE_REQUEST))

    (decision,) = line["decisions"]
    assert ("cp1", 1, "busy", "ChargerOffline") == tuple(
        decision[name] for name in ("station", "connector", "verdict", "headline")
    )
    assert {"offline": "ChargerOffline"} == {name: said for name, said in decision["predicates"].items() if said}
    assert 5 == len(decision["predicates"])
    assert ([1.0], [1.0]) == (metrics["Decision:busy"], metrics["Headline:ChargerOffline"])


def test_status_triggered_start_logs_decision(cloud, capsys):
    created = cloud.bring_online().create()
    cloud.report_status(1, "Finishing")
    cloud.pay(created["reservationId"])
    cloud.ask("POST", "/payments/confirm", {"reservationId": created["reservationId"]})

    line, metrics = capture_logs("ws_message", capsys, lambda: cloud.report_status(1, "Preparing"))

    assert ["startable"] == [decision["verdict"] for decision in line["decisions"]]
    assert [1.0] == metrics["Decision:startable"]
    assert [] == [name for name in metrics if name.startswith("Headline:")]


def test_decision_stays_in_its_own_invocation(cloud, capsys):
    cloud.ask("POST", "/payments/create", CREATE_REQUEST)

    line, metrics = capture_logs("payments", capsys, lambda: cloud.ask("GET", "/payments/connectors/CP1/1"))

    assert "decisions" not in line
    assert [] == [name for name in metrics if name.startswith("Decision:")]


def test_empty_sweep_counts_nothing(cloud, capsys):
    app = import_module("functions.maintenance.app")
    app.metrics.clear_metrics()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("POWERTOOLS_METRICS_DISABLED", "false")
        cloud.sweep()

    assert "Swept" not in capsys.readouterr().out
