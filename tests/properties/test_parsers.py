"""Properties of reading what chargers send: it never raises, and unambiguous values are read correctly."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from csms.model import MeterSample, OpenTransaction
from csms.ocpp.v16 import core
from csms.ocpp.v16.values import parse_time
from csms.stations import quirks
from csms.stations.credentials import read_basic_password
from tests import builders as b

ANYTHING = st.text(st.characters())  # lone surrogates too: JSON can carry them
NUMBERS = (
    st.integers(-(10**13), 10**13).map(str)
    | st.decimals().map(str)
    | st.floats().map(str)
    | st.from_regex(r"[+-]?[0-9_.,]{0,9}([eE][+-]?[0-9]{1,9})?", fullmatch=True)
    | ANYTHING
)
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(timezones=st.just(UTC) | ZONES)
UNITS = st.sampled_from(["Wh", "kWh", "W", "kW", "", "K", "percent"])
MEASURANDS = st.sampled_from(["Energy.Active.Import.Register", "Power.Active.Import", "Voltage", ""])
SAMPLES = st.fixed_dictionaries(
    {"value": NUMBERS},
    optional={"unit": UNITS, "measurand": MEASURANDS, "phase": st.sampled_from(["L1", "L2", "L3", "N"])},
)


def find_transaction(seen: Any) -> OpenTransaction:
    found = seen.connector(1).transaction
    assert isinstance(found, OpenTransaction)
    return found


@pytest.mark.note("F60")
@given(text=st.none() | ANYTHING | TIMES.map(str) | TIMES.map(datetime.isoformat))
@example(text="0001-01-01T00:00:00+14:00")
@example(text="9999-12-31T23:59:59-14:00")
def test_time_parsing_is_total_and_utc(text: str | None) -> None:
    at = parse_time(text)

    assert at is None or timedelta(0) == at.utcoffset()


@pytest.mark.note("F60")
@given(at=st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=ZONES))  # noqa: DTZ001 - the zone is drawn
def test_parsed_time_is_same_instant(at: datetime) -> None:
    assert at == parse_time(at.isoformat())


@pytest.mark.note("F58")
@given(samples=st.lists(SAMPLES, max_size=4), time=ANYTHING)
@example(samples=[{"value": "1E999999999"}], time="")
@example(samples=[{"value": "9" * 400, "unit": "kWh"}], time="")
@example(samples=[{"value": "-1E999999", "unit": "kWh"}], time="")
@example(samples=[{"value": "sNaN"}], time="")
def test_meter_parsing_is_total_and_bounded(samples: list[dict[str, str]], time: str) -> None:
    before = b.charging_snapshot()
    entry = {"timestamp": time, "sampledValue": samples}

    after, answer = core.meter_values(before, {"connectorId": 1, "meterValue": [entry]}, b.decision_context())

    ((reading,),) = [a.record.readings for a in after.records if isinstance(a.record, MeterSample)]
    most = 4 * 10**15
    assert {} == answer
    assert reading.energy_wh is None or -most <= reading.energy_wh <= most
    assert reading.power_w is None or -most <= reading.power_w <= most
    assert 0 <= find_transaction(before).energy_wh <= find_transaction(after).energy_wh


@pytest.mark.note("F58")
@given(energy_wh=st.integers(0, 10**9))
def test_energy_is_equal_in_every_spelling(energy_wh: int) -> None:
    whole, rest = divmod(energy_wh, 1000)
    spellings = [
        {"value": str(energy_wh)},
        {"value": f"{energy_wh}.0", "unit": "Wh"},
        {"value": f"{whole},{rest:03d}", "unit": "kWh"},
        {"value": f" {whole}.{rest:03d} ", "unit": "kWh"},
    ]
    entries = [{"timestamp": "", "sampledValue": [spelling]} for spelling in spellings]

    after, _ = core.meter_values(b.charging_snapshot(), {"connectorId": 1, "meterValue": entries}, b.decision_context())

    (readings,) = [a.record.readings for a in after.records if isinstance(a.record, MeterSample)]
    assert [energy_wh] * 4 == [reading.energy_wh for reading in readings]


@pytest.mark.note("F47")
@given(header=st.none() | ANYTHING | ANYTHING.map("Basic ".__add__), identity=ANYTHING)
def test_credential_parsing_is_total(header: str | None, identity: str) -> None:
    assert isinstance(read_basic_password(header, identity), bytes | None)


@pytest.mark.note("F47")
@given(identity=st.text(min_size=1), password=st.binary())
def test_password_is_everything_after_identity(identity: str, password: bytes) -> None:
    header = "Basic " + b64encode(identity.encode() + b":" + password).decode()

    assert password == read_basic_password(header, identity)


@pytest.mark.note("F47")
@given(identity=st.text(min_size=1), user=st.text(), password=st.binary())
def test_other_identity_yields_no_password(identity: str, user: str, password: bytes) -> None:
    header = "Basic " + b64encode(user.encode() + b":" + password).decode()

    found = read_basic_password(header, identity)

    sent = user.encode() + b":" + password
    assert found is None or sent.lower() == identity.encode().lower() + b":" + found.lower()


@given(vendor=st.none() | ANYTHING, model=st.none() | ANYTHING, firmware=st.none() | ANYTHING)
def test_suggestion_of_quirks_is_total(vendor: str | None, model: str | None, firmware: str | None) -> None:
    assert set(quirks.suggest(vendor, model, firmware)) <= set(quirks.Quirk)


@given(
    row=st.sampled_from(quirks.load_table()),
    padding=st.text("\x00 \t-_.", max_size=3),
    spell=st.sampled_from([str.upper, str.title, str.lower]),
)
def test_quirks_ignore_case_and_padding(row: quirks.Row, padding: str, spell: Callable[[str], str]) -> None:
    vendor, model = (padding.join(("", *spell(next(iter(patterns), "")), "")) for patterns in (row.vendor, row.model))

    assert row in quirks.find_rows(vendor, model, next(iter(row.firmware), None))
