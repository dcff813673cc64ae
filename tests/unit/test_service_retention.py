"""How long is what accumulates kept?"""

from __future__ import annotations

from datetime import timedelta

import pytest

from csms.adapters.dynamodb import to_item
from csms.errors import NotFound
from csms.model import (
    Connection,
    IdempotencyRecord,
    IdTag,
    MeterSample,
    ProcessedWebhook,
    TimelineEntry,
    UnknownStation,
)
from tests.app.in_process import InProcessApp


@pytest.fixture
def app() -> InProcessApp:
    return InProcessApp().register()


KEPT = {
    Connection: timedelta(hours=3),
    ProcessedWebhook: timedelta(days=30),
    IdTag: timedelta(days=30),
    IdempotencyRecord: timedelta(days=90),
    MeterSample: timedelta(days=90),
    UnknownStation: timedelta(days=30),
    TimelineEntry: timedelta(days=90),
}
"""How long what accumulates is kept."""


@pytest.mark.note("F76")
@pytest.mark.parametrize("kind", KEPT)
def test_accumulating_item_has_ttl(app: InProcessApp, kind: type) -> None:
    with pytest.raises(NotFound):
        app.stations.connect("New-1", authorization=None, offered=(), connection_id="Z")
    app.bring_online()
    rid = app.create_paid_reservation()
    app.drivers.receive_webhook(*app.provider.build_webhook(rid))
    number = app.start_transaction(app.reservation(rid).id_tag, meter=0, at="2026-11-23T09:00:10Z")
    app.send_meter_values(number, 100, at="2026-11-23T09:10:00Z")

    kept = [to_item(e)["ttl"] for e in app.store.entities() if isinstance(e, kind)]

    assert {int((app.clock() + KEPT[kind]).timestamp())} == set(kept)


@pytest.mark.note("F76")
def test_other_items_have_no_ttl(app: InProcessApp) -> None:
    app.bring_online()
    app.create_paid_reservation()

    assert [] == [e for e in app.store.entities() if type(e) not in KEPT and "ttl" in to_item(e)]
