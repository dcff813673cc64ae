"""Calls that are to go wrong, ordered by a test beforehand."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to the next call of operation (any when None): an answer of status, or no answer when that is None.

    acted says whether the call took effect before it went wrong.
    """

    operation: str | None
    status: int | None
    acted: bool
    code: str | None = None


@dataclass(slots=True, kw_only=True)
class Faults:
    ordered: list[Fault] = field(default_factory=list)

    def take(self, operation: str) -> Fault | None:
        """The first fault ordered for operation, which is then used up."""
        for index, fault in enumerate(self.ordered):
            if fault.operation in {None, operation}:
                return self.ordered.pop(index)
        return None
