"""Presence: a station connects, boots, sends messages and disconnects. Only a station with valid credentials displaces
a connection, every message proves its connection, and the end of an old connection does not affect a newer one (notes
F16 to F19)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from csms.charging import settlement, status
from csms.commands import calls
from csms.errors import BadRequest, ConnectionSuperseded, Unauthorized
from csms.model import (
    Connection,
    DecisionContext,
    Outcome,
    Policy,
    Presence,
    Quirk,
    Renew,
    Save,
    Snapshot,
    Station,
    Write,
    build_outcome,
    cut_text,
    fold,
)
from csms.stations import credentials, quirks

RENEW_AFTER: Final = timedelta(minutes=1)
SHORT_HEARTBEAT: Final = timedelta(minutes=1)
LONGEST_NAME: Final = 128
"""The most characters that are stored of what a station says of its hardware; OCPP allows 50."""

LONGEST_CONNECTION: Final = timedelta(hours=3)
TICK: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What a station reports of itself in its BootNotification."""

    vendor: str
    model: str
    serial_number: str | None = None
    firmware: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """The sub-protocol agreed on, spelled as the station offered it, and the connection that this one displaced."""

    subprotocol: str
    displaced_id: str | None


def connect(
    before: Snapshot,
    connection_id: str,
    context: DecisionContext,
    *,
    identity: str,
    authorization: str | None,
    offered: Iterable[str],
    spoken: Iterable[str],
    seen: Presence | None,
    verify: Callable[[bytes, str], bool],
) -> Outcome:
    """Accept the station's new connection if its credentials are valid, and reply with `Connected`; the first
    sub-protocol that the station offers and csms supports is taken (note F48), in capitals too, and then answered in
    capitals, because a client must fail if it is answered what it did not offer (RFC 6455 section 4.1). `seen` is the
    presence as it was when the connection was first decided on; `verify` compares a password with a stored text.

    Raises Unauthorized, BadRequest without a common sub-protocol, or ConnectionSuperseded if another connection was
    accepted since `seen`.
    """
    password = credentials.read_basic_password(authorization, identity)
    if password is None or not verify(password, before.station.password_hash):
        raise Unauthorized("Wrong user name or password.")
    known = tuple(spoken)
    subprotocol, protocol = next(
        ((offer.strip(), p) for offer in offered for p in known if p == fold(offer.strip())), (None, None)
    )
    if subprotocol is None or protocol is None:
        raise BadRequest(
            f"No common sub-protocol: offer one of {', '.join(known)} in Sec-WebSocket-Protocol.", code="NoSubprotocol"
        )
    old, now = before.presence, context.now
    if _is_superseded(seen, old):
        raise ConnectionSuperseded("Another connection of this station was accepted at the same time.")
    # Later than that of every connection before, even where the clocks of two environments differ.
    connected_at = max(now, old.connected_at + TICK) if old is not None else now
    here = Presence(
        station_id=before.station.station_id,
        connection_id=connection_id,
        protocol=protocol,
        epoch=old.epoch if old is not None and now < old.lease_until else context.new_ids.epoch,
        connected_at=connected_at,
        last_seen_at=now,
        lease_until=now + context.policy.presence_lease,
        away_since=_find_away_since(old, now),
        back_at=now if old is not None else None,
        version=old.version if old is not None else 0,
    )
    socket = Connection(
        connection_id=connection_id,
        station_id=here.station_id,
        protocol=protocol,
        expires_at=connected_at + LONGEST_CONNECTION,
    )
    connected = calls.renew_after_reconnect(
        replace(before, presence=here).add_records(socket), context, after=status.SELF_REPORT
    )
    after = status.ask_after_connect(connected, context).add_timeline_entry("Connected", context, protocol=protocol)
    displaced_id = old.connection_id if old is not None else None
    return build_outcome(before, after, Connected(subprotocol=subprotocol, displaced_id=displaced_id))


def _find_away_since(old: Presence | None, now: datetime) -> datetime | None:
    """Since when the station was away that is back now; None if it has never been here. Between two absences it may not
    have had the time to send what it queued: then they count as one."""
    if old is None or old.away_since is None or old.back_at is None:
        return None if old is None else old.last_seen_at
    return old.away_since if now - old.back_at <= settlement.QUEUE_FLUSH else old.last_seen_at


def _is_superseded(seen: Presence | None, present: Presence | None) -> bool:
    """Whether a connection was accepted since the presence was `seen`. Nothing else changes `connected_at`."""
    return present is not None and (seen is None or present.connected_at != seen.connected_at)


def is_displaced(presence: Presence | None, connection: Connection) -> bool:
    """Whether a newer connection of the station was accepted, so that this one must be closed if it is still open.

    It is when it was displaced before its own $connect had returned: until then API Gateway does not close it (410).
    """
    if presence is None or presence.connection_id == connection.connection_id:
        return False
    return connection.expires_at - LONGEST_CONNECTION < presence.connected_at


def boot(snapshot: Snapshot, hardware: Hardware, context: DecisionContext) -> Snapshot:
    """Record the boot and the quirks that it suggests: begin a new epoch, in which no older live status counts, and
    request the status of each connector that the station does not report by itself (note F21)."""
    station = replace(
        snapshot.station,
        vendor=_cut(hardware.vendor),
        model=_cut(hardware.model),
        serial_number=_cut(hardware.serial_number),
        firmware=_cut(hardware.firmware),
        booted_at=context.now,
    )
    presence = snapshot.presence and replace(
        snapshot.presence,
        epoch=context.new_ids.epoch,
        last_seen_at=context.now,
        lease_until=context.now + context.policy.presence_lease,
    )
    booted = replace(snapshot, station=station, presence=presence).add_timeline_entry(
        "Booted", context, vendor=station.vendor, model=station.model, firmware=station.firmware
    )
    known = quirks.renew_suggestion(booted, context)
    return calls.ask_status(known, context, station.connectors, after=status.SELF_REPORT)


def _cut(text: str | None) -> str | None:
    return None if text is None else cut_text(text, LONGEST_NAME)


def heartbeat(station: Station, policy: Policy) -> timedelta:
    """How often the station is to send a Heartbeat: more often if it closes a socket on which it hears nothing."""
    closes = station.has_quirk(Quirk.CLOSES_SILENT_SOCKET)
    return min(policy.heartbeat, SHORT_HEARTBEAT) if closes else policy.heartbeat


def restore_presence(before: Snapshot, connection: Connection, context: DecisionContext) -> Snapshot:
    """Make the station online again, because it sent a message over a connection that counted as lost or whose lease
    had ended. Another connection is never displaced by that (note F16)."""
    presence = before.presence
    if presence is None or presence.connection_id not in {None, connection.connection_id}:
        return before
    if presence.closed_id == connection.connection_id:
        return before  # The connection is closed: this message is handled after its end.
    lost, over = presence.connection_id is None, context.now >= presence.lease_until
    if not lost and not over:
        return before
    here = replace(
        presence,
        connection_id=connection.connection_id,
        protocol=connection.protocol,
        epoch=context.new_ids.epoch if lost and over else presence.epoch,
        last_seen_at=context.now,
        lease_until=context.now + context.policy.presence_lease,
        away_since=_find_away_since(presence, context.now),
        back_at=context.now,
    )
    waiting = calls.make_queued_calls_due(replace(before, presence=here), context)
    return status.ask_after_connect(waiting, context).add_timeline_entry(
        "FoundConnected", context, protocol=here.protocol
    )


def lose(
    before: Snapshot, connection_id: str, context: DecisionContext, *, closed: bool, unsent_id: str = ""
) -> Outcome:
    """Remove this connection, unless the station has another one by now (notes F16, F18). With `closed`, later messages
    over it do not make the station online again; the CALL `unsent_id` could not be sent over it, and is queued
    again."""
    presence = before.presence
    if presence is None or presence.connection_id not in {connection_id, None}:
        return Outcome()
    closed_id = connection_id if closed else presence.closed_id
    gone = replace(before, presence=replace(presence, connection_id=None, closed_id=closed_id))
    gone = calls.return_unsent(gone, unsent_id)
    was_here = presence.connection_id is not None
    return build_outcome(before, gone.add_timeline_entry("Disconnected", context) if was_here else gone)


def renew(connection: Connection, context: DecisionContext) -> Renew:
    """The renewal of the lease: one write without a read."""
    return Renew(
        station_id=connection.station_id,
        connection_id=connection.connection_id,
        last_seen_at=context.now,
        lease_until=context.now + context.policy.presence_lease,
    )


def renew_when_due(
    connection: Connection, before: Snapshot, outcome: Outcome, context: DecisionContext
) -> tuple[Write, ...]:
    """The renewal of the lease, at most once a minute; nothing if the outcome writes the presence anyway, or the
    station has another connection."""
    presence = before.presence
    if presence is None or presence.connection_id != connection.connection_id:
        return ()
    if context.now - presence.last_seen_at < RENEW_AFTER:
        return ()
    if any(isinstance(write, Save) and isinstance(write.entity, Presence) for write in outcome.writes):
        return ()
    return (renew(connection, context),)
