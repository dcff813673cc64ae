"""Operators' answers about connections that were refused: of unknown stations, and in the name of registered ones."""

from __future__ import annotations

from datetime import datetime

from csms.model import RefusedConnections, UnknownStation
from csms.views.public import Json, format_optional_time


def unknown_station(of: UnknownStation) -> Json:
    """A station that tried to connect and is not registered. `steady` says that it offered an OCPP sub-protocol and
    came back; the rest is of its last attempt that was noted."""
    return {
        "stationId": of.station_id,
        "identity": of.identity,
        "steady": of.is_steady,
        "firstSeenAt": format_optional_time(of.first_seen_at or of.last_seen_at),
        "lastSeenAt": format_optional_time(of.last_seen_at),
        "times": of.times,
        "subprotocols": list(of.subprotocols),
        "path": of.path,
        "address": of.address,
        "userAgent": of.user_agent,
        "reasons": list(of.reasons),
    }


def refused_connection_counts(of: RefusedConnections | None, now: datetime) -> list[Json]:
    """How often connections in a station's name were refused, for each reason, the latest first."""
    if of is None or of.expires_at <= now:
        return []
    return [
        {
            "reason": count.reason,
            "times": count.times,
            "firstAt": format_optional_time(count.first_at),
            "lastAt": format_optional_time(count.last_at),
        }
        for count in of.counts
    ]


def refused_connections(of: RefusedConnections | None, now: datetime) -> Json:
    """The refused connections in a station's name: their counts, and the latest that were noted."""
    counts = refused_connection_counts(of, now)
    return {
        "counts": counts,
        "latest": [
            {
                "at": format_optional_time(attempt.at),
                "reason": attempt.reason,
                "subprotocols": list(attempt.subprotocols),
                "path": attempt.path,
                "address": attempt.address,
                "userAgent": attempt.user_agent,
            }
            for attempt in (of.latest if of is not None and counts else ())
        ],
    }
