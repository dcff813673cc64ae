"""Is a receipt mailed once, to an address that nobody keeps?"""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from csms.model import OutboxItem
from tests.app.in_process import InProcessApp


@pytest.fixture
def app() -> InProcessApp:
    return InProcessApp().register()


def test_receipt_is_mailed_once_without_storing_address(app: InProcessApp) -> None:
    rid = app.bring_online().finish_session()
    app.clock.move(timedelta(hours=1))
    app.sweep()

    ((address, mail),) = app.mailer.sent
    assert "driver@example.com" == address
    assert f"https://charge.example/receipt/{rid}" in mail.text
    assert "Total: EUR 6.45" in mail.text
    assert "ReceiptSent" in [audit_entry["event"] for audit_entry in app.status(rid)["steps"]]
    assert "driver@example.com" not in repr(app.store.entities()) + json.dumps(app.drivers.receipt(rid))


def test_failed_receipt_mail_is_retried(app: InProcessApp) -> None:
    app.mailer.unreachable = True
    rid = app.bring_online().finish_session()
    assert "captured" == app.status(rid)["money"]

    app.mailer.unreachable = False
    app.clock.move(timedelta(hours=1))
    app.sweep()

    assert 1 == len(app.mailer.sent)


def test_driver_without_address_gets_no_mail(app: InProcessApp) -> None:
    app.email = None
    rid = app.bring_online().finish_session()

    assert ([], 645) == (app.mailer.sent, app.drivers.receipt(rid)["total"])
    assert [] == [e for e in app.store.entities() if isinstance(e, OutboxItem)]
