"""OCPP 1.6: which timestamps are read, and which are none."""

from __future__ import annotations

from datetime import timedelta

import pytest

from csms.ocpp.v16.values import parse_time
from tests.builders import NOW


@pytest.mark.note("F60")
@pytest.mark.parametrize(
    "text",
    [
        "2026-03-01T12:00:00Z",
        "2026-03-01T12:00:00",
        "2026-03-01 12:00:00",
        " 2026-03-01T12:00:00Z\n",
        "2026-03-01T12:00Z",
        "2026-03-01T12:00:00.0Z",
        "2026-03-01T12:00:00.000Z",
        "2026-03-01T12:00:00.000000Z",
        "2026-03-01T12:00:00.000000000Z",
        "2026-03-01T12:00:00,000Z",
        "2026-03-01T12:00:00+00:00",
        "2026-03-01T12:00:00-00:00",
        "2026-03-01T14:00:00+02:00",
        "2026-03-01T14:00:00.000000000+02:00",
        "2026-03-01T14:00:00+0200",
        "2026-03-01T14:00:00+02",
        "2026-03-01T06:30:00-05:30",
        "2026-03-02T02:00:00+14:00",
        "20260301T120000Z",
        "1772366400",
        "1772366400.0",
        "1772366400,000",
        "1772366400000",
    ],
)
def test_timestamp_formats_are_read(text: str) -> None:
    assert NOW == parse_time(text)


@pytest.mark.note("F60")
@pytest.mark.parametrize("digits", range(1, 10))
def test_one_to_nine_fraction_digits_are_read(digits: int) -> None:
    fraction = "123456789"[:digits]

    assert NOW + timedelta(microseconds=int(fraction.ljust(6, "0")[:6])) == parse_time(
        f"2026-03-01T12:00:00.{fraction}Z"
    )


@pytest.mark.note("F60")
@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "now",
        "17723664000",
        "-1772366400",
        "2026-02-30T12:00:00Z",
        "2026-03-01T25:00:00Z",
        "01.03.2026 12:00",
        "2026-03-01T12:00:00+25:00",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "\ud800",
    ],
)
def test_invalid_timestamp_is_none(text: str | None) -> None:
    assert parse_time(text) is None


@pytest.mark.note("F60")
def test_milliseconds_are_no_basic_date() -> None:
    assert timedelta(milliseconds=345) == parse_time("1712123112345") - parse_time("1712123112")  # type: ignore[operator]
