"""Faults that a test orders for later calls."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The fault of the next call of `operation` (any if None): an answer with `status`, or no answer if it is None.

    `acted` tells whether the call takes effect before it fails.
    """

    operation: str | None
    status: int | None
    acted: bool
    code: str | None = None


@dataclass(slots=True, kw_only=True)
class Faults:
    ordered: list[Fault] = field(default_factory=list)

    def take(self, operation: str) -> Fault | None:
        """The first fault ordered for `operation`, which is then removed."""
        for index, fault in enumerate(self.ordered):
            if fault.operation in {None, operation}:
                return self.ordered.pop(index)
        return None
