"""What the outside is told, as JSON-ready dictionaries: first the public, then the operator. No id tag, no provider id,
no error text of a provider, no password hash (note F71)."""

from csms.views.operator import (
    command,
    occupancy_explanation,
    payment,
    payment_with_audit_trail,
    reservation_with_audit_trail,
    station,
    station_details,
    station_states,
    transaction,
    unknown_station,
)
from csms.views.public import Json, connector, format_optional_time, free_session, price, redirect, reservation

__all__ = [
    "Json",
    "command",
    "connector",
    "format_optional_time",
    "free_session",
    "occupancy_explanation",
    "payment",
    "payment_with_audit_trail",
    "price",
    "redirect",
    "reservation",
    "reservation_with_audit_trail",
    "station",
    "station_details",
    "station_states",
    "transaction",
    "unknown_station",
]
