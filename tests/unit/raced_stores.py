"""Tables in which others are faster than whoever is tested."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from csms.errors import Conflict
from csms.model import ReadSet, Reservation, Save, Snapshot, Write
from csms.service.unit_of_work import ATTEMPTS
from tests.fakes import FakeStore


class InterruptedStore(FakeStore):
    """A table in which something happens, once, after a station was read and before its reservation is."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] | None = None

    def complete(self, snapshot: Snapshot, read_set: ReadSet) -> Snapshot:
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            happens()
        return super().complete(snapshot, read_set)


class OutrunStore(FakeStore):
    """A table in which others are faster than every reservation, and, before the fourth attempt, something happens."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0
        self.happens: Callable[[], object] = lambda: None

    def commit(self, writes: Iterable[Write]) -> None:
        wanted = list(writes)
        if any(isinstance(write, Save) and isinstance(write.entity, Reservation) for write in wanted):
            self.lost += 1
            if self.lost == ATTEMPTS:
                self.happens()
            raise Conflict("Somebody else was first.")
        super().commit(wanted)
