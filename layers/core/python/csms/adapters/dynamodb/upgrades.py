"""How an item of one format becomes an item of the next: a pure function for each format. It leaves alone what already
has the new form, because an older release writes a newer item back under its own format number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

Item = dict[str, Any]

STATES: Final[Mapping[str, str]] = {
    "Available": "available",
    "Preparing": "plugged",
    "Charging": "charging",
    "SuspendedEV": "suspended by car",
    "SuspendedEVSE": "suspended by station",
    "Finishing": "finishing",
    "Reserved": "reserved",
    "Occupied": "occupied",
    "Unavailable": "unavailable",
    "Faulted": "faulted",
}
"""The meaning of each status that format 1 stored without one."""


def upgrade_to_format_2(item: Item) -> Item:
    """Format 2: statuses have their meaning, transaction ids are text, commands have a payload of their own."""
    match item.get("type"):
        case "Connector":
            parts = {"live": _add_state, "persisted": _add_state, "transaction": _convert_transaction_id}
            return item | {name: step(item[name]) for name, step in parts.items() if isinstance(item.get(name), dict)}
        case "Transaction" | "MeterSample":
            return _convert_transaction_id(item)
        case "Reservation":
            return _add_start_command_id(_convert_transaction_id(item))
        case "OutboundCall" if isinstance(item.get("command"), str):
            return _convert_command(item)
        case _:
            return item


def _convert_transaction_id(item: Item) -> Item:
    number = item.get("transaction_id")
    return item | {"transaction_id": str(int(number))} if isinstance(number, int | Decimal) else item


def _add_state(status: Item) -> Item:
    return {"state": STATES.get(str(status.get("raw")), "unknown")} | status


def _add_start_command_id(item: Item) -> Item:
    """Give a requested start a command id where none was stored; the next command repeats it."""
    if item.get("state") != "StartRequested" or item.get("start_command_id") is not None:
        return item
    return item | {"start_command_id": f"start of {item['reservation_id']}"}


def _convert_command(item: Item) -> Item:
    facts = {"connector_id": item.get("connector_id")}
    match item["command"]:
        case "RemoteStart":
            facts["id_token"] = {"value": item.get("id_tag"), "type": None}
        case "RemoteStop":
            facts = {"transaction_id": str(int(item.get("transaction_id") or 0))}
    old = {"connector_id", "id_tag", "transaction_id", "command", "repeats"}
    kept = {name: value for name, value in item.items() if name not in old}
    again = {"repeats": item["call_id"]} if item.get("repeats") is True else {}
    return {"asked_at": item.get("send_at")} | kept | {"command": {"kind": item["command"], **facts}} | again


UPGRADES: Final[Mapping[int, Callable[[Item], Item]]] = {1: upgrade_to_format_2}
