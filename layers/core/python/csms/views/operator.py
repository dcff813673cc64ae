"""What an operator is told. `state` is what an action on the thing expects to be told back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any

from csms import occupancy
from csms.charging import operations
from csms.model import (
    CommandRecord,
    CommandResult,
    Connector,
    LiveStatus,
    Lock,
    Moment,
    OpenTransaction,
    OutboundCall,
    PersistedStatus,
    Reservation,
    Snapshot,
    Step,
    Stranger,
    Tariff,
    TimelineEntry,
    Transaction,
)
from csms.views.public import Json, price, reservation, utc


def station(snapshot: Snapshot, moment: Moment) -> Json:
    """A station as a line of the list: `states` are what the list can be filtered by."""
    known, seen = snapshot.station, snapshot.presence
    return {
        "stationId": known.station_id,
        "identity": known.identity,
        "state": operations.presence_state(snapshot, moment),
        "states": list(states(snapshot, moment)),
        "lastSeenAt": utc(seen.last_seen_at) if seen is not None else None,
        "connectors": [_connector_line(snapshot, number, moment) for number in known.connectors],
    }


def states(snapshot: Snapshot, moment: Moment) -> tuple[str, ...]:
    """online or offline; busy with a connector that cannot be started for another reason; faulted with one that says
    so."""
    reasons = {
        reason
        for number in snapshot.station.connectors
        for reason in occupancy.busy_reasons(snapshot, number, now=moment.now, policy=moment.policy)
    }
    held = {
        "busy": bool(reasons - {occupancy.CHARGER_OFFLINE}),
        "faulted": any(reason.endswith(":Faulted") for reason in reasons),
    }
    return operations.presence_state(snapshot, moment).lower(), *(state for state, holds in held.items() if holds)


def station_in_full(snapshot: Snapshot, moment: Moment) -> Json:
    """All that is known of a station but its password."""
    known, seen = snapshot.station, snapshot.presence
    return station(snapshot, moment) | {
        "free": known.free,
        "timeZone": known.time_zone,
        "tariff": _tariff(known.tariff),
        "vendor": known.vendor,
        "model": known.model,
        "serialNumber": known.serial_number,
        "firmware": known.firmware,
        "bootedAt": utc(known.booted_at),
        "protocol": seen.protocol if seen is not None else None,
        "connectedAt": utc(seen.connected_at) if seen is not None else None,
        "leaseUntil": utc(seen.lease_until) if seen is not None else None,
        "calls": [_call(call) for call in snapshot.calls],
    }


def stranger(of: Stranger) -> Json:
    """A station that tried to connect and that nobody registered."""
    return {"stationId": of.station_id, "identity": of.identity, "lastSeenAt": utc(of.last_seen_at)}


def transaction(of: Transaction) -> Json:
    """A transaction as it is recorded."""
    return {
        "transactionId": of.transaction_id,
        "state": operations.transaction_state(of),
        "stationId": of.station_id,
        "connectorId": of.connector_id,
        "reservationId": of.reservation_id,
        "startedAt": utc(of.started_at),
        "stoppedAt": utc(of.stopped_at),
        "energyWh": of.energy_wh,
        "reason": of.reason,
        "flags": list(of.flags),
    }


def reservation_audited(held: Reservation, steps: Iterable[Step], now: datetime) -> Json:
    """A reservation as the public sees it, with its state by its own name, its transaction, and who did what in its
    audit trail."""
    audited = {"state": held.state, "transactionId": held.transaction_id, "steps": _trail(steps)}
    return reservation(held, now=now) | audited


def payment(held: Reservation) -> Json:
    """A payment as a line of the list; amounts in minor units. `money` is what an action on it expects."""
    return {
        "reservationId": held.reservation_id,
        "identity": held.identity,
        "connectorId": held.connector_id,
        "money": held.money,
        "state": held.state,
        "review": held.review,
        "currency": held.tariff.currency,
        "authorisedAmount": held.authorised_amount,
        "authorisedAt": utc(held.authorised_at),
        "captureBefore": utc(held.capture_before),
        "amount": held.amount,
        "capturedAmount": held.captured_amount,
        "refundedAmount": held.refunded_amount,
        "endedAt": utc(held.ended_at),
        "paymentId": held.payment_id,
        "flags": list(held.flags),
    }


def payment_audited(held: Reservation, steps: Iterable[Step]) -> Json:
    """A payment with its audit trail: every attempt, and who did what."""
    return payment(held) | {"steps": _trail(steps)}


def occupancy_explained(
    snapshot: Snapshot,
    connector_id: int,
    steps: Iterable[Step],
    timeline: Iterable[TimelineEntry],
    moment: Moment,
) -> Json:
    """Why a connector is busy or not, as one answer; ages are in seconds."""
    bay = snapshot.connector(connector_id)
    findings = occupancy.explain(snapshot, connector_id, now=moment.now, policy=moment.policy)
    reasons = [finding.reason for finding in findings if finding.reason is not None]
    return {
        "stationId": snapshot.station.station_id,
        "identity": snapshot.station.identity,
        "connectorId": connector_id,
        "at": utc(moment.now),
        "startable": not reasons,
        "reason": reasons[0] if reasons else None,
        "reasons": reasons,
        "findings": [_finding(finding, moment) for finding in findings],
        "presence": {"state": operations.presence_state(snapshot, moment)},
        "status": {
            "state": operations.status_state(snapshot, connector_id, moment),
            "live": _live(bay, snapshot, moment),
            "persisted": _persisted(bay.persisted, moment),
            "station": _live(snapshot.connector(0), snapshot, moment),
        },
        "transaction": _running(bay.transaction),
        "reservation": _holder(bay.lock, snapshot.reservation, steps, moment),
        "timeline": [{"at": utc(e.at), "kind": e.kind, "detail": _plain(e.detail)} for e in timeline],
    }


def _trail(steps: Iterable[Step]) -> list[Json]:
    return [{"at": utc(s.at), "event": s.event, "state": s.state, "money": s.money, "detail": s.detail} for s in steps]


def _tariff(of: Tariff) -> Json:
    """A tariff as it is registered: without `maxAmount` only the maximum energy limits it."""
    limits = {"maxEnergyWh": of.max_energy_wh, "maxAmount": of.max_amount, "minimumAmount": of.minimum_amount}
    return price(of) | limits


def _connector_line(snapshot: Snapshot, number: int, moment: Moment) -> Json:
    reasons = occupancy.busy_reasons(snapshot, number, now=moment.now, policy=moment.policy)
    return {
        "connectorId": number,
        "status": occupancy.shown_status(snapshot, number, now=moment.now, policy=moment.policy),
        "startable": not reasons,
        "reasons": list(reasons),
    }


def _finding(finding: occupancy.Finding, moment: Moment) -> Json:
    return {
        "predicate": finding.predicate,
        "reason": finding.reason,
        "value": finding.value,
        "source": finding.source,
        "since": utc(finding.since),
        "ageSeconds": _age(finding.since, moment),
        "clears": finding.clears,
        "clearsBy": utc(finding.until),
    }


def _live(bay: Connector, snapshot: Snapshot, moment: Moment) -> Json | None:
    """What the station said of it; `counts` only in the station's present epoch."""
    said: LiveStatus | None = bay.live
    if said is None:
        return None
    return {
        "raw": said.raw,
        "status": occupancy.coarse(said.state),
        "reportedAt": utc(said.reported_at),
        "ageSeconds": _age(said.reported_at, moment),
        "chargerAt": utc(said.charger_at),
        "counts": snapshot.presence is not None and said.epoch == snapshot.presence.epoch,
    }


def _persisted(last: PersistedStatus | None, moment: Moment) -> Json | None:
    if last is None:
        return None
    return {
        "raw": last.raw,
        "status": occupancy.coarse(last.state),
        "at": utc(last.at),
        "ageSeconds": _age(last.at, moment),
        "source": last.source,
        "releaseAt": utc(last.release_at),
    }


def _running(of: OpenTransaction | None) -> Json | None:
    if of is None:
        return None
    return {
        "transactionId": of.transaction_id,
        "state": operations.OPEN,
        "reservationId": of.reservation_id,
        "startedAt": utc(of.started_at),
        "receivedAt": utc(of.received_at),
        "meteredAt": utc(of.metered_at),
        "energyWh": of.energy_wh,
        "powerW": of.power_w,
        "stopImpliedAt": utc(of.idle_until),
        "endsAt": utc(of.ends_at),
    }


def _holder(lock: Lock | None, held: Reservation | None, steps: Iterable[Step], moment: Moment) -> Json | None:
    """The reservation whose lock stands on the connector; `holds` says whether it still does."""
    if lock is None or held is None:
        return None
    return reservation_audited(held, steps, moment.now) | {"holds": occupancy.holding(lock, moment.now)}


def _call(call: OutboundCall) -> Json:
    return {
        "command": call.kind,
        "connectorId": call.connector_id,
        "state": call.state,
        "sendAt": utc(call.send_at),
        "expiresAt": utc(call.expires_at),
    }


def command(of: OutboundCall | CommandRecord) -> Json:
    """A command with who asked for it and why; `result` is None while it waits, and `repeats` names the first CALL of
    one that was sent before."""
    named = {name: value for name, value in asdict(of.command).items() if name not in {"kind", "id_token"}}
    return {
        "commandId": of.call_id,
        "command": of.command.kind,
        "payload": {_camel(name): value for name, value in named.items()},
        "askedBy": of.asked_by,
        "reason": of.reason,
        "reservationId": of.reservation_id,
        "repeats": of.repeats,
        "askedAt": utc(of.asked_at),
        "result": _result(of.result, of.told_at) if isinstance(of, CommandRecord) else None,
    }


def _result(result: CommandResult, told_at: datetime | None) -> Json:
    return {
        "outcome": result.outcome,
        "status": result.status,
        "errorCode": result.error_code,
        "answer": result.values,
        "at": utc(result.at),
        "toldAt": utc(told_at),
    }


def _plain(detail: Json) -> Json:
    """A timeline entry's detail as JSON can say it: the database's numbers are decimals."""
    return {_camel(name): _numbers_as_json(value) for name, value in sorted(detail.items())}


def _numbers_as_json(value: Any) -> Any:
    """The value with its decimals, at any depth, as JSON has numbers."""
    match value:
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case dict():
            return {name: _numbers_as_json(inner) for name, inner in value.items()}
        case list():
            return [_numbers_as_json(inner) for inner in value]
        case _:
            return value


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.title() for part in others)


def _age(since: datetime | None, moment: Moment) -> int | None:
    return None if since is None else int((moment.now - since).total_seconds())
