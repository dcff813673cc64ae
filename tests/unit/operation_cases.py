"""An operator's command, a transaction whose stop does not come, and what a command leaves in writing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from csms.charging.operations import OperatorCommand
from csms.model import AuditEntry, CommandKind, Snapshot, TimelineEntry
from tests import builders as b
from tests.builders import connector, open_transaction, snapshot

WHO = "eve@example.org"
REASON = "The bay is empty."
OFFLINE = b.presence(connection_id=None)


def operator_command(expected: str) -> OperatorCommand:
    return OperatorCommand(who=WHO, reason=REASON, expected=expected)


def orphaned_transaction_snapshot(**changes: Any) -> Snapshot:
    """A transaction of a driver with a card, whose stop does not come."""
    changed_connector = connector(transaction=open_transaction(energy_wh=5000))
    return replace(snapshot(changed_connector, connector(2)).with_transaction(b.transaction()), **changes)


def audit_entries(after: Snapshot) -> list[AuditEntry]:
    return [append.record for append in after.records if isinstance(append.record, AuditEntry)]


def queued_commands(after: Snapshot) -> list[tuple[CommandKind, int | None]]:
    return [(call.kind, call.connector_id) for call in after.calls]


def timeline_kinds(after: Snapshot) -> list[str]:
    return [append.record.kind for append in after.records if isinstance(append.record, TimelineEntry)]
