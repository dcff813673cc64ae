"""Fields that were renamed in 0.3.0 are answered under their old names until 0.4.0."""

from __future__ import annotations

import pytest

from csms import views
from csms.errors import NotFound
from tests import builders as b
from tests.app.in_process import InProcessApp


def test_payment_keeps_its_old_names() -> None:
    shown = views.payment(b.get_reservation(b.charging_snapshot()))

    assert shown["authorizedAmount"] == shown["authorisedAmount"] > 0
    assert shown["authorizedAt"] == shown["authorisedAt"] is not None


@pytest.mark.parametrize("expired", [False, True], ids=["active", "expired"])
def test_occupancy_keeps_the_name_holds(expired: bool) -> None:
    before = b.pending_payment_snapshot()
    context = b.decision_context(b.NOW + b.HOUR if expired else b.NOW)

    shown = views.occupancy_explanation(before, 1, (), (), context)["reservation"]

    assert (not expired, not expired) == (shown["locksConnector"], shown["holds"])


def test_inbox_keeps_the_name_strangers() -> None:
    app = InProcessApp()
    with pytest.raises(NotFound):
        app.stations.connect("CP8", authorization=None, offered=(), connection_id="B")

    shown = app.operators.unknown_stations()

    assert ["CP8"] == [row["identity"] for row in shown["unknownStations"]]
    assert shown["unknownStations"] == shown["strangers"]
