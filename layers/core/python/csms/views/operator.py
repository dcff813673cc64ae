"""Answers for operators. An action on a station, connector, transaction or reservation expects its present `state`
back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from csms import occupancy
from csms.charging import operations
from csms.charging.transaction import MANY_UNKNOWN_TAGS
from csms.model import (
    AuditEntry,
    CommandRecord,
    CommandResult,
    Connector,
    DecisionContext,
    KeptMessage,
    LiveStatus,
    Lock,
    MeterSample,
    OpenTransaction,
    OperatorClose,
    OutboundCall,
    PersistedStatus,
    Quirk,
    Reservation,
    Snapshot,
    Station,
    StopRequest,
    Tariff,
    TimelineEntry,
    Transaction,
)
from csms.stations import bounds, quirks
from csms.views.public import Json, format_optional_time, price, reservation

LONGEST_SERIES: Final = 500


def station(snapshot: Snapshot, context: DecisionContext) -> Json:
    """A station as a row of the list; the list can be filtered by `states`."""
    known, seen = snapshot.station, snapshot.presence
    return {
        "stationId": known.station_id,
        "identity": known.identity,
        "state": operations.presence_state(snapshot, context),
        "states": list(station_states(snapshot, context)),
        "lastSeenAt": format_optional_time(seen.last_seen_at) if seen is not None else None,
        "connectors": [_connector_line(snapshot, number, context) for number in known.connectors],
    }


def station_states(snapshot: Snapshot, context: DecisionContext) -> tuple[str, ...]:
    """online or offline; busy if a connector cannot be started for a reason besides being offline; faulted if a
    connector is reported Faulted; refusing if the station does not stop a transaction that it was asked to stop."""
    reasons = {
        reason
        for number in snapshot.station.connectors
        for reason in occupancy.busy_reasons(snapshot, number, now=context.now, policy=context.policy)
    }
    held = {
        "busy": bool(reasons - {occupancy.CHARGER_OFFLINE}),
        "faulted": any(reason.endswith(":Faulted") for reason in reasons),
        "refusing": any(
            connector.stop_request is not None and connector.stop_request.refused_at is not None
            for connector in snapshot.connectors.values()
        ),
    }
    return operations.presence_state(snapshot, context).lower(), *(state for state, holds in held.items() if holds)


def station_details(snapshot: Snapshot, context: DecisionContext) -> Json:
    """All that is known of a station except its password."""
    known, seen = snapshot.station, snapshot.presence
    return station(snapshot, context) | {
        "free": known.free,
        "timeZone": known.time_zone,
        "maxPowerW": known.max_power_w,
        "suggestedMaxPowerW": quirks.suggest_power(known),
        "quirks": None if known.quirks is None else list(known.quirks),
        "suggestedQuirks": [_quirk(name, known) for name in known.known_quirks],
        "effectiveQuirks": list(known.effective_quirks),
        "unknownTags": _unknown_tags(known, context),
        "tariff": _tariff(known.tariff),
        "vendor": known.vendor,
        "model": known.model,
        "serialNumber": known.serial_number,
        "firmware": known.firmware,
        "bootedAt": format_optional_time(known.booted_at),
        "protocol": seen.protocol if seen is not None else None,
        "connectedAt": format_optional_time(seen.connected_at) if seen is not None else None,
        "leaseUntil": format_optional_time(seen.lease_until) if seen is not None else None,
        "unregisteredConnectors": [_unregistered_connector(c) for c in bounds.find_unregistered(snapshot)],
        "forgottenConnectors": known.forgotten_connectors,
        "calls": [_call(call) for call in snapshot.calls],
    }


def _unregistered_connector(of: Connector) -> Json:
    """A connector that the station reported and nobody registered."""
    last = of.live or of.persisted
    running = of.transaction
    return {
        "connectorId": of.connector_id,
        "raw": last.raw if last is not None else None,
        "transactionId": running.transaction_id if running is not None else None,
    }


def transaction(of: Transaction, closing: OperatorClose | None = None) -> Json:
    """A transaction as it is recorded. `closesBy` is when it is closed for an operator at the latest, while that waits
    for the station's stop."""
    return {
        "transactionId": of.transaction_id,
        "state": operations.transaction_state(of),
        "stationId": of.station_id,
        "connectorId": of.connector_id,
        "reservationId": of.reservation_id,
        "startedAt": format_optional_time(of.started_at),
        "stoppedAt": format_optional_time(of.stopped_at),
        "energyWh": of.energy_wh,
        "reason": of.reason,
        "closesBy": format_optional_time(closing.due_at) if closing is not None else None,
        "flags": list(of.flags),
    }


def reservation_with_audit_trail(held: Reservation, audit_entries: Iterable[AuditEntry], now: datetime) -> Json:
    """A reservation as the public sees it, with its state as `state`, its transaction, and its audit trail with
    details."""
    audited = {"state": held.state, "transactionId": held.transaction_id, "steps": _audit_trail(audit_entries)}
    return reservation(held, now=now) | audited


def payment(held: Reservation) -> Json:
    """A payment as a row of the list; amounts in minor units. An action on it expects its present `money` back."""
    return {
        "reservationId": held.reservation_id,
        "identity": held.identity,
        "connectorId": held.connector_id,
        "money": held.money,
        "state": held.state,
        "review": held.review,
        "currency": held.tariff.currency,
        "authorizedAmount": held.authorised_amount,
        "authorizedAt": format_optional_time(held.authorised_at),
        "captureBefore": format_optional_time(held.capture_before),
        "energyWh": held.energy_wh,
        "supportedWh": max(0, held.energy_wh - held.unsupported_wh),
        "decideBy": format_optional_time(held.decide_by),
        "amount": held.amount,
        "capturedAmount": held.captured_amount,
        "refundedAmount": held.refunded_amount,
        "endedAt": format_optional_time(held.ended_at),
        "paymentId": held.payment_id,
        "flags": list(held.flags),
    }


def payment_with_audit_trail(held: Reservation, audit_entries: Iterable[AuditEntry]) -> Json:
    """A payment with its audit trail: every attempt, and who did what."""
    return payment(held) | {"steps": _audit_trail(audit_entries)}


def meter(of: Transaction | None, samples: Iterable[MeterSample]) -> Json:
    """What a transaction's meter has shown: its values at start and stop, and its last LONGEST_SERIES readings, with
    energy registers in Wh and power in W."""
    readings = [reading for sample in samples for reading in sample.readings]
    return {
        "meter": {
            "startWh": of.meter_start_wh if of is not None else None,
            "stopWh": of.meter_stop_wh if of is not None else None,
            "readings": [
                {"at": format_optional_time(r.at), "registerWh": r.energy_wh, "powerW": r.power_w}
                for r in readings[-LONGEST_SERIES:]
            ],
        }
    }


def occupancy_explanation(
    snapshot: Snapshot,
    connector_id: int,
    audit_entries: Iterable[AuditEntry],
    timeline: Iterable[TimelineEntry],
    context: DecisionContext,
) -> Json:
    """Why a connector is busy or startable; ages are in seconds."""
    connector = snapshot.connector(connector_id)
    findings = occupancy.explain(snapshot, connector_id, now=context.now, policy=context.policy)
    reasons = [finding.reason for finding in findings if finding.reason is not None]
    return {
        "stationId": snapshot.station.station_id,
        "identity": snapshot.station.identity,
        "connectorId": connector_id,
        "at": format_optional_time(context.now),
        "startable": not reasons,
        "reason": reasons[0] if reasons else None,
        "reasons": reasons,
        "findings": [_finding(finding, context) for finding in findings],
        "presence": {"state": operations.presence_state(snapshot, context)},
        "status": {
            "state": operations.status_state(snapshot, connector_id, context),
            "live": _live_status(connector, snapshot, context),
            "persisted": _persisted_status(connector.persisted, context),
            "station": _live_status(snapshot.connector(0), snapshot, context),
        },
        "transaction": _running_transaction(connector.transaction),
        "stopRequest": _stop_request(connector.stop_request),
        "reservation": _locking_reservation(connector.lock, snapshot.reservation, audit_entries, context),
        "timeline": [
            {"at": format_optional_time(e.at), "kind": e.kind, "detail": _format_detail(e.detail)} for e in timeline
        ],
    }


def _audit_trail(audit_entries: Iterable[AuditEntry]) -> list[Json]:
    return [
        {"at": format_optional_time(s.at), "event": s.event, "state": s.state, "money": s.money, "detail": s.detail}
        for s in audit_entries
    ]


def _unknown_tags(of: Station, context: DecisionContext) -> Json | None:
    """How many tags were nobody's today (UTC), an estimate beyond the first; None for none."""
    known = of.unknown_tags
    if known is None or known.day != context.now.date():
        return None
    return {"day": known.day.isoformat(), "count": known.count, "many": known.count >= MANY_UNKNOWN_TAGS}


def _quirk(name: str, of: Station) -> Json:
    """A suggested quirk with its meaning and the reports behind it; another release's quirk has neither. A learnt one
    says what it was learnt from."""
    meaning = quirks.MEANINGS[Quirk(name)] if name in set(Quirk) else None
    return {
        "quirk": name,
        "meaning": meaning.text if meaning is not None else None,
        "handling": meaning.handling if meaning is not None else None,
        "sources": [*quirks.find_sources(of, name), *_find_lesson(name, of)],
    }


def _find_lesson(name: str, of: Station) -> tuple[str, ...]:
    if of.learnt_at is None or name not in of.learnt_quirks:
        return ()
    return (f"learnt from a rejection on {of.learnt_at.date().isoformat()}",)


def _tariff(of: Tariff) -> Json:
    """A tariff as it is registered; `maxAmount` is None if only `maxEnergyWh` limits the session."""
    limits = {"maxEnergyWh": of.max_energy_wh, "maxAmount": of.max_amount, "minimumAmount": of.minimum_amount}
    return price(of) | limits


def _connector_line(snapshot: Snapshot, number: int, context: DecisionContext) -> Json:
    reasons = occupancy.busy_reasons(snapshot, number, now=context.now, policy=context.policy)
    return {
        "connectorId": number,
        "status": occupancy.public_status(snapshot, number, now=context.now, policy=context.policy),
        "startable": not reasons,
        "reasons": list(reasons),
    } | _refused_stop(snapshot.connector(number).stop_request)


def _refused_stop(request: StopRequest | None) -> Json:
    """Since when the station has been asked to stop a transaction, if it does not obey, and the energy in Wh that it
    has delivered and nobody pays."""
    refused = request if request is not None and request.refused_at is not None else None
    return {
        "stopRefusedSince": format_optional_time(refused.asked_at) if refused is not None else None,
        "unpaidWh": refused.unpaid_wh if refused is not None else None,
    }


def _stop_request(request: StopRequest | None) -> Json | None:
    """The transaction that the station was asked to stop and goes on with, whether it obeys in time or not."""
    if request is None or request.dormant:
        return None
    return {
        "transactionId": request.transaction_id,
        "askedAt": format_optional_time(request.asked_at),
        "lastAskedAt": format_optional_time(request.last_asked_at),
        "refusedAt": format_optional_time(request.refused_at),
        "unpaidWh": request.unpaid_wh,
    }


def _finding(finding: occupancy.Finding, context: DecisionContext) -> Json:
    return {
        "predicate": finding.predicate,
        "reason": finding.reason,
        "value": finding.value,
        "source": finding.source,
        "since": format_optional_time(finding.since),
        "ageSeconds": _age(finding.since, context),
        "clears": finding.clears,
        "clearsBy": format_optional_time(finding.until),
    }


def _live_status(connector: Connector, snapshot: Snapshot, context: DecisionContext) -> Json | None:
    """What the station reported; `counts` only in its present epoch."""
    said: LiveStatus | None = connector.live
    if said is None:
        return None
    return {
        "raw": said.raw,
        "status": occupancy.coarse_status(said.state),
        "reportedAt": format_optional_time(said.reported_at),
        "ageSeconds": _age(said.reported_at, context),
        "chargerAt": format_optional_time(said.charger_at),
        "counts": snapshot.presence is not None and said.epoch == snapshot.presence.epoch,
    }


def _persisted_status(last: PersistedStatus | None, context: DecisionContext) -> Json | None:
    if last is None:
        return None
    return {
        "raw": last.raw,
        "status": occupancy.coarse_status(last.state),
        "at": format_optional_time(last.at),
        "ageSeconds": _age(last.at, context),
        "source": last.source,
        "releaseAt": format_optional_time(last.release_at),
    }


def _running_transaction(of: OpenTransaction | None) -> Json | None:
    if of is None:
        return None
    return {
        "transactionId": of.transaction_id,
        "state": operations.OPEN,
        "reservationId": of.reservation_id,
        "startedAt": format_optional_time(of.started_at),
        "receivedAt": format_optional_time(of.received_at),
        "meteredAt": format_optional_time(of.metered_at),
        "energyWh": of.energy_wh,
        "powerW": of.power_w,
        "stopImpliedAt": format_optional_time(of.idle_until),
        "endsAt": format_optional_time(of.ends_at),
        "closesBy": format_optional_time(of.closing.due_at) if of.closing is not None else None,
    }


def _locking_reservation(
    lock: Lock | None, held: Reservation | None, audit_entries: Iterable[AuditEntry], context: DecisionContext
) -> Json | None:
    """The reservation whose lock is on the connector; `locksConnector` says whether the lock is still active."""
    if lock is None or held is None:
        return None
    is_active = occupancy.is_lock_active(lock, context.now)
    shown = reservation_with_audit_trail(held, audit_entries, context.now)
    return shown | {"locksConnector": is_active}


def _call(call: OutboundCall) -> Json:
    return {
        "command": call.kind,
        "connectorId": call.connector_id,
        "state": call.state,
        "sendAt": format_optional_time(call.send_at),
        "expiresAt": format_optional_time(call.expires_at),
    }


def command(of: OutboundCall | CommandRecord) -> Json:
    """A command with who requested it and why. `result` is None while it waits; `repeats` is the first CALL of a
    command that was sent before."""
    named = {name: value for name, value in asdict(of.command).items() if name not in {"kind", "id_token"}}
    return {
        "commandId": of.call_id,
        "command": of.command.kind,
        "payload": {_to_camel_case(name): value for name, value in named.items()},
        "askedBy": of.asked_by,
        "reason": of.reason,
        "reservationId": of.reservation_id,
        "repeats": of.repeats,
        "askedAt": format_optional_time(of.asked_at),
        "result": _result(of.result, of.told_at) if isinstance(of, CommandRecord) else None,
    }


def kept_message(of: KeptMessage) -> Json:
    """A message of a station as it was received, and what is irregular in it."""
    return {
        "messageId": of.message_id,
        "action": of.action,
        "state": "Quarantined" if of.is_quarantined else "Irregular",
        "reasons": list(of.reasons),
        "text": of.text,
        "truncated": of.is_cut,
        "receivedAt": format_optional_time(of.at),
        "expiresAt": format_optional_time(of.expires_at),
    }


def _result(result: CommandResult, told_at: datetime | None) -> Json:
    return {
        "outcome": result.outcome,
        "status": result.status,
        "errorCode": result.error_code,
        "answer": result.values,
        "at": format_optional_time(result.at),
        "toldAt": format_optional_time(told_at),
    }


def _format_detail(detail: Json) -> Json:
    """A timeline entry's detail as JSON; the database's numbers are decimals."""
    return {_to_camel_case(name): _convert_decimals(value) for name, value in sorted(detail.items())}


def _convert_decimals(value: Any) -> Any:
    """The value with its decimals, at any depth, as JSON numbers."""
    match value:
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case dict():
            return {name: _convert_decimals(inner) for name, inner in value.items()}
        case list():
            return [_convert_decimals(inner) for inner in value]
        case _:
            return value


def _to_camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.title() for part in others)


def _age(since: datetime | None, context: DecisionContext) -> int | None:
    return None if since is None else int((context.now - since).total_seconds())
