"""The values of OCPP 1.6: its framing and spelling, its actions, and how statuses, tokens, transaction ids, times and
meter readings are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any, Final

from csms.model import LONGEST_TAG as LONGEST_STORED_TAG
from csms.model import ConnectorState, DecisionContext, IdToken, Reading, TagStatus, cut_text
from csms.ocpp.framing import ErrorCode, Framing
from csms.ocpp.schemas import SchemaSet

Payload = dict[str, Any]

FRAMING: Final = Framing(
    spelling=MappingProxyType(
        {
            ErrorCode.FORMAT_VIOLATION: "FormationViolation",
            ErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION: "OccurenceConstraintViolation",
            ErrorCode.MESSAGE_TYPE_NOT_SUPPORTED: "GenericError",
            ErrorCode.RPC_FRAMEWORK_ERROR: "FormationViolation",
        }
    )
)
"""1.6 itself misspells the first two (J 1.6 section 4.2.3; errata section 5, "will not be fixed"); the last two are new
in 2.0.1."""

_CORE: Final = """
    Authorize BootNotification ChangeAvailability ChangeConfiguration ClearCache DataTransfer GetConfiguration Heartbeat
    MeterValues RemoteStartTransaction RemoteStopTransaction Reset StartTransaction StatusNotification StopTransaction
    UnlockConnector
"""
_OTHER_PROFILES: Final = """
    DiagnosticsStatusNotification FirmwareStatusNotification GetDiagnostics UpdateFirmware
    GetLocalListVersion SendLocalList CancelReservation ReserveNow
    ClearChargingProfile GetCompositeSchedule SetChargingProfile TriggerMessage
"""
_SECURITY_WHITEPAPER: Final = """
    CertificateSigned DeleteCertificate ExtendedTriggerMessage GetInstalledCertificateIds GetLog InstallCertificate
    LogStatusNotification SecurityEventNotification SignCertificate SignedFirmwareStatusNotification
    SignedUpdateFirmware
"""
_EXPENDABLE: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "MeterValues": frozenset(
            {
                "connectorId",
                "meterValue",
                "meterValue/*",
                "meterValue/*/timestamp",
                "meterValue/*/sampledValue/*",
            }
        ),
        "StartTransaction": frozenset({"connectorId", "meterStart", "timestamp"}),
        "StatusNotification": frozenset({"connectorId", "errorCode"}),
        "StopTransaction": frozenset(
            {
                "meterStop",
                "timestamp",
                "transactionData/*",
                "transactionData/*/timestamp",
                "transactionData/*/sampledValue/*",
                "transactionId",
            }
        ),
    }
)
"""What a station's message may lack, because it still says what has happened (note F41): the time is then that of
receipt, a start without a register counts from 0 until the readings show another one, the energy is judged by the
readings, and the other readings count; the connector or the transaction is looked for among those that are known."""
SCHEMAS: Final = SchemaSet(
    actions=frozenset((_CORE + _OTHER_PROFILES + _SECURITY_WHITEPAPER).split()),
    folder="v16/schemas",
    request_name="{}.json",
    response_name="{}Response.json",
    expendable=_EXPENDABLE,
)


STATES: Final[Mapping[str, ConnectorState]] = MappingProxyType(
    {
        "Available": ConnectorState.AVAILABLE,
        "Preparing": ConnectorState.PLUGGED,
        "Charging": ConnectorState.CHARGING,
        "SuspendedEV": ConnectorState.SUSPENDED_BY_CAR,
        "SuspendedEVSE": ConnectorState.SUSPENDED_BY_STATION,
        "Finishing": ConnectorState.FINISHING,
        "Reserved": ConnectorState.RESERVED,
        "Occupied": ConnectorState.OCCUPIED,
        "Unavailable": ConnectorState.UNAVAILABLE,
        "Faulted": ConnectorState.FAULTED,
    }
)
"""ChargePointStatus (OCPP 1.6 7.7); Occupied comes from OCPP 1.5, and some stations still send it."""

UNPLUGGED: Final = "EVDisconnected"
"""The stop reason that means that the cable is unplugged (OCPP 1.6 7.36)."""

LONGEST_TAG: Final = 20
ENERGY: Final = "Energy.Active.Import.Register"
POWER: Final = "Power.Active.Import"
START_CONTEXT: Final = "Transaction.Begin"
"""The context of the register at the start, which some stations repeat in every message beside the present one."""

OUTLET: Final = "Outlet"
"""The place where a session is metered, and the default (OCPP 1.6 7.31); the inlet and the car measure something
else."""

MAX_READING: Final = Decimal(10) ** 12
"""No meter reads as much; a number like 1E999999 is a mistake, and too long to compute with."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SINCE_1970: Final = re.compile("[0-9]{10}([0-9]{3})?([.,][0-9]{1,18})?")
_FIRST_MILLISECONDS: Final = 10**12


def read_state(status: str) -> ConnectorState:
    """The meaning of a status; an unknown status is UNKNOWN and counts as not Available (note F12)."""
    return STATES.get(status, ConnectorState.UNKNOWN)


def read_token(id_tag: str) -> IdToken:
    """The token in an idTag, which has no type; one that is too long is cut, and belongs to no one."""
    return IdToken(value=cut_text(id_tag, LONGEST_STORED_TAG))


def write_token(token: IdToken) -> str:
    """The idTag of a token: 20 characters at most (OCPP 1.6 7.28)."""
    return token.value[:LONGEST_TAG]


def read_transaction_id(number: int | None) -> str | None:
    """The transaction id, or None for a number that cannot be one (note F50)."""
    return str(number) if number is not None and number > 0 else None


def write_tag_status(status: TagStatus) -> Payload:
    """The idTagInfo of an answer."""
    return {"idTagInfo": {"status": str(status)}}


def parse_time(text: str | None) -> datetime | None:
    """A station's time, in UTC: no zone means UTC, any offset and any number of fraction digits are read, and so are
    seconds and milliseconds since 1970; None if it is missing or unreadable (note F60)."""
    text = (text or "").strip()
    if _SINCE_1970.fullmatch(text):  # Before ISO 8601, which reads some of them as a date and a time.
        number = Decimal(text.replace(",", "."))
        return _EPOCH + timedelta(microseconds=int(number * (1000 if number >= _FIRST_MILLISECONDS else 1_000_000)))
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):  # The year 1 east of Greenwich has no UTC.
        return None


def read_meter(meter_values: Iterable[Payload], context: DecisionContext) -> tuple[Reading, ...]:
    """The readings in MeterValue elements (OCPP 1.6 7.30): energy register in Wh, power in W."""
    return tuple(
        Reading(
            at=parse_time(entry.get("timestamp")) or context.now,
            energy_wh=_read_quantity(entry["sampledValue"], ENERGY),
            power_w=_read_quantity(entry["sampledValue"], POWER),
        )
        for entry in meter_values
    )


def _read_quantity(samples: Iterable[Payload], measurand: str) -> int | None:
    """The measurand in its base unit (Wh or W): the value without a phase, else the sum of the phases. Kilo units are
    converted, in capitals too. Present values at the outlet count before those of the start and of other places (note
    F58)."""
    readable = [
        (sample, value * (1000 if str(sample.get("unit", "")).lower().startswith("k") else 1))
        for sample in samples
        if sample.get("measurand", ENERGY) == measurand and (value := _parse_decimal(sample["value"])) is not None
    ]
    best = max((_rank_sample(sample) for sample, _ in readable), default=None)
    found = [(sample.get("phase"), value) for sample, value in readable if _rank_sample(sample) == best]
    whole = [value for phase, value in found if phase is None]
    if whole:
        return int(whole[-1])
    return int(sum(value for _, value in found)) if found else None


def _rank_sample(sample: Payload) -> tuple[bool, bool]:
    """How well a sample says what the outlet has delivered by now: the higher the better."""
    return sample.get("context") != START_CONTEXT, sample.get("location", OUTLET) == OUTLET


def _parse_decimal(text: Any) -> Decimal | None:
    """The number in a sampled value, with a decimal point or comma; None for anything that is no finite number, such as
    signed data, or too large."""
    try:
        value = Decimal(str(text).strip().replace(",", "."))
    except InvalidOperation:
        return None
    return value if value.is_finite() and -MAX_READING < value < MAX_READING else None
