"""What is known of makes and models: the quirks and the power that a station's BootNotification suggests, from the
table `quirks.toml`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final

from csms.model import DecisionContext, Quirk, Snapshot, Station

TABLE: Final = Path(__file__).with_name("quirks.toml")


class Handling(StrEnum):
    """What csms does about a quirk."""

    ACTED_ON = "acted on"
    COPED_WITH = "coped with at every make"
    KNOWN = "only known"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What stations with a quirk do, in one sentence, and what csms does about it."""

    handling: Handling
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is reported of a make: the names of its quirks, the most power of one connector in W if the model says it,
    and the reports as "owner/repository#number".

    `vendor` and `model` hold texts of which one is contained in what the station says, with nothing but letters and
    digits, case-folded; an empty one matches only a station that says nothing. `firmware` holds beginnings. An empty
    tuple matches any station.
    """

    make: str
    vendor: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    firmware: tuple[str, ...] = ()
    quirks: tuple[str, ...] = ()
    max_power_w: int | None = None
    sources: tuple[str, ...]


MEANINGS: Final[Mapping[Quirk, Meaning]] = {
    Quirk.STARTS_BY_ITSELF: Meaning(
        Handling.ACTED_ON, "Starts by itself on purpose; a start with an unknown tag, answered Invalid, is not stopped."
    ),
    Quirk.START_NEEDS_PLUG: Meaning(
        Handling.ACTED_ON, "Accepts a start without a cable and forgets it; a start is asked for once it is plugged in."
    ),
    Quirk.HEXADECIMAL_TAG: Meaning(
        Handling.ACTED_ON, "Accepts only a hexadecimal idTag; web tags, which are hexadecimal anyway, have whole bytes."
    ),
    Quirk.TAG_UP_TO_19: Meaning(
        Handling.ACTED_ON, "Refuses or spoils a longer idTag; web tags have at most 19 characters."
    ),
    Quirk.TAG_UP_TO_18: Meaning(
        Handling.ACTED_ON, "Refuses or spoils a longer idTag; web tags have at most 18 characters."
    ),
    Quirk.TAG_UP_TO_16: Meaning(
        Handling.ACTED_ON, "Refuses or spoils a longer idTag; web tags have at most 16 characters."
    ),
    Quirk.CLOSES_SILENT_SOCKET: Meaning(
        Handling.ACTED_ON, "Closes a socket that is silent for two minutes; a Heartbeat is asked for every minute."
    ),
    Quirk.STARTS_FROM_FINISHING: Meaning(
        Handling.ACTED_ON,
        "Goes from Preparing to Finishing when the plug-in times out, and accepts a start there; it is started there.",
    ),
    Quirk.APPENDS_TO_TAG: Meaning(
        Handling.COPED_WITH, "Appends an underscore and its serial number to the idTag; a web tag is read up to it."
    ),
    Quirk.REPEATS_START_REGISTER: Meaning(
        Handling.COPED_WITH, "Sends the register twice in a message, the second time as it was at the start."
    ),
    Quirk.FIRST_REGISTER_IS_ZERO: Meaning(
        Handling.COPED_WITH, "Starts with meterStart 0 while the meter is not ready, and then sends the lifetime value."
    ),
    Quirk.READINGS_FROM_ZERO: Meaning(Handling.COPED_WITH, "Counts the readings of each transaction from 0."),
    Quirk.STOP_BELOW_START: Meaning(Handling.COPED_WITH, "Sends a meterStop that is one Wh below meterStart."),
    Quirk.SECOND_START_FOR_STOP: Meaning(
        Handling.COPED_WITH, "Sends a second StartTransaction instead of a StopTransaction."
    ),
    Quirk.REJECTS_REMOTE_STOP: Meaning(Handling.COPED_WITH, "Rejects a RemoteStopTransaction and charges on."),
    Quirk.AVAILABLE_BEFORE_STOP: Meaning(
        Handling.COPED_WITH, "Reports Available some seconds before its StopTransaction."
    ),
    Quirk.STORED_READINGS_AT_ONCE: Meaning(
        Handling.COPED_WITH, "Sends all stored readings at once, without waiting for the answers."
    ),
    Quirk.DROPS_SOCKET_AFTER_START: Meaning(
        Handling.COPED_WITH, "Drops the socket after the answer to StartTransaction, boots, and starts again."
    ),
    Quirk.CLOCK_IS_SET_BACK: Meaning(
        Handling.COPED_WITH, "Sends local times without a zone, or a clock that is hours ahead and then right."
    ),
    Quirk.NUMERIC_VALUES: Meaning(Handling.COPED_WITH, "Sends sampled values as numbers instead of texts."),
    Quirk.METER_VALUE_IS_OBJECT: Meaning(Handling.COPED_WITH, "Sends meterValue as an object instead of a list."),
    Quirk.EMPTY_SAMPLES: Meaning(Handling.COPED_WITH, "Sends an empty list of sampled values."),
    Quirk.LEADING_COMMA: Meaning(Handling.COPED_WITH, "Sends JSON with a comma before the first sampled value."),
    Quirk.NO_ERROR_CODE: Meaning(Handling.COPED_WITH, "Sends StatusNotification without errorCode."),
    Quirk.NO_VENDOR: Meaning(Handling.COPED_WITH, "Sends BootNotification with an empty vendor."),
    Quirk.LONG_SERIAL_NUMBER: Meaning(
        Handling.COPED_WITH, "Sends a serial number that is longer than OCPP allows (26 or 33 characters)."
    ),
}


@cache
def load_table() -> tuple[Row, ...]:
    """The rows of the table, read at the first call."""
    import tomllib  # Most cold starts need no table.

    return tuple(map(_read_row, tomllib.loads(TABLE.read_text(encoding="utf-8"))["make"]))


def find_rows(vendor: str | None, model: str | None, firmware: str | None) -> tuple[Row, ...]:
    """The rows that match what a station says of itself."""
    said = _keep(vendor, str.isalnum), _keep(model, str.isalnum), _keep(firmware, _is_visible)
    return tuple(row for row in load_table() if _matches(row, *said))


def suggest(vendor: str | None, model: str | None, firmware: str | None) -> tuple[str, ...]:
    """The quirks to expect of a station that says this of itself, in the order of their enumeration."""
    named = {name for row in find_rows(vendor, model, firmware) for name in row.quirks}
    return tuple(quirk.value for quirk in Quirk if quirk in named)


def renew_suggestion(snapshot: Snapshot, context: DecisionContext) -> Snapshot:
    """Store what the table suggests for the station now, with a timeline entry if that has changed."""
    station = snapshot.station
    suggested = suggest(station.vendor, station.model, station.firmware)
    if suggested == station.suggested_quirks:
        return snapshot
    known = replace(snapshot, station=replace(station, suggested_quirks=suggested))
    return known.add_timeline_entry("QuirksSuggested", context, quirks=list(suggested))


def suggest_power(station: Station) -> int | None:
    """The most power in W of one connector according to the model; None if no row says it. It is shown and not used,
    because one model name often stands for variants of different power."""
    rows = find_rows(station.vendor, station.model, station.firmware)
    return max((row.max_power_w for row in rows if row.max_power_w is not None), default=None)


def find_sources(station: Station, quirk: str) -> tuple[str, ...]:
    """The reports because of which the quirk is suggested for the station."""
    rows = find_rows(station.vendor, station.model, station.firmware)
    return tuple(dict.fromkeys(source for row in rows if quirk in row.quirks for source in row.sources))


def _read_row(row: dict[str, Any]) -> Row:
    """A row of the table. Raises TypeError for a key that no row has."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    return Row(**values)


def _matches(row: Row, vendor: str, model: str, firmware: str) -> bool:
    return (
        _contains_any(vendor, row.vendor)
        and _contains_any(model, row.model)
        and (not row.firmware or firmware.startswith(row.firmware))
    )


def _contains_any(said: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(pattern in said if pattern else not said for pattern in patterns)


def _keep(text: str | None, is_kept: Callable[[str], bool]) -> str:
    """The text in lower case with only the characters that are kept; makes are spelled with and without hyphens, blanks
    and padding."""
    return "".join(filter(is_kept, (text or "").casefold()))


def _is_visible(character: str) -> bool:
    return character.isprintable() and not character.isspace()
