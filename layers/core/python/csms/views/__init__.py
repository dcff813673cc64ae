"""What the outside is told, as JSON-ready dictionaries: first the public, then the operator. No id tag, no provider id,
no error text of a provider, no password hash (note F71)."""

from csms.views.operator import (
    command,
    occupancy_explained,
    payment,
    payment_audited,
    reservation_audited,
    states,
    station,
    station_in_full,
    stranger,
    transaction,
)
from csms.views.public import Json, connector, follow, price, redirect, reservation, utc

__all__ = [
    "Json",
    "command",
    "connector",
    "follow",
    "occupancy_explained",
    "payment",
    "payment_audited",
    "price",
    "redirect",
    "reservation",
    "reservation_audited",
    "states",
    "station",
    "station_in_full",
    "stranger",
    "transaction",
    "utc",
]
