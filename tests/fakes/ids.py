"""New ids in a sequence that repeats in every run, where the product takes random ones."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from csms.model import NewIds


@dataclass(slots=True)
class SequentialIds:
    """New ids in sequence; `name` distinguishes two sources."""

    name: str = ""
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def __call__(self) -> NewIds:
        number = next(self.numbers)
        reservation_id = hashlib.sha256(f"{self.name}{number}".encode()).hexdigest()[:32]
        return NewIds(
            reservation_id=reservation_id,
            id_tag=f"W{reservation_id[:19]}".upper(),
            transaction_id=str(number),
            call_id=f"call-{self.name}{number}",
            epoch=f"epoch-{self.name}{number}",
        )
