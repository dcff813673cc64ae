"""Public and operator answers as JSON-ready dictionaries. None contains an idTag, an error text of the provider or a
password hash; only operators see provider ids (note F71)."""

from csms.views.operator import (
    command,
    kept_message,
    meter,
    occupancy_explanation,
    payment,
    payment_with_audit_trail,
    reservation_with_audit_trail,
    station,
    station_details,
    station_states,
    transaction,
)
from csms.views.public import Json, connector, format_optional_time, free_session, price, redirect, reservation
from csms.views.refusals import refused_connection_counts, refused_connections, unknown_station

__all__ = [
    "Json",
    "command",
    "connector",
    "format_optional_time",
    "free_session",
    "kept_message",
    "meter",
    "occupancy_explanation",
    "payment",
    "payment_with_audit_trail",
    "price",
    "redirect",
    "refused_connection_counts",
    "refused_connections",
    "reservation",
    "reservation_with_audit_trail",
    "station",
    "station_details",
    "station_states",
    "transaction",
    "unknown_station",
]
