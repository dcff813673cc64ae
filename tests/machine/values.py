"""The station, the tags and the values that several machines share."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Final

from hypothesis import strategies as st

from csms.model import IdTag, Policy, TagStatus
from csms.stations import credentials
from tests import builders as b

POLICY: Final = Policy()
CONNECTOR_IDS: Final = (1, 2)
PASSWORD: Final = b"password"
AUTHORIZATION: Final = "Basic " + base64.b64encode(b"CP-1:" + PASSWORD).decode()
STATION: Final = b.station(version=0, password_hash=credentials.hash_password(PASSWORD, salt=b"salt"))
CARD: Final = IdTag(tag="CARD", status=TagStatus.ACCEPTED)
STAFF: Final = IdTag(tag="STAFF", status=TagStatus.ACCEPTED, free=True)
ACCEPTED: Final = {"status": "Accepted"}
PAUSES: Final = [timedelta(**pause) for pause in ({"seconds": 1}, {"seconds": 40}, {"minutes": 2}, {"minutes": 6})]
UNUSUAL: Final[list[dict[str, timedelta]]] = [
    *(
        {name: timedelta(0)}
        for name in (
            "reservation_timeout",
            "status_freshness",
            "status_release",
            "implied_stop_grace",
            "session_limit",
        )
    ),
    {"reservation_timeout": timedelta(minutes=8)},
    {"status_freshness": timedelta(hours=3)},
    {"start_window": timedelta(minutes=45)},
    {"session_limit": timedelta(minutes=50)},
]
"""Unusual settings of an operator: each limit switched off, or set to a value at which it matters."""
METERS: Final = st.sampled_from([1000, 1001, 1500, 9000, 12_000, 90_000]) | st.integers(-(2**53), 2**53)
VALUES: Final = METERS.map(str) | st.sampled_from(["2,5", "1.5", "", "NaN", "1E999999", "1E99"])
