"""The mail service in memory."""

from dataclasses import dataclass, field

from csms.errors import Unreachable
from csms.pricing.receipt import Mail


@dataclass(slots=True)
class FakeMailer:
    """Drivers' mail boxes: `sent` is every mail that was taken, with its address."""

    sent: list[tuple[str, Mail]] = field(default_factory=list)
    unreachable: bool = False

    def send(self, address: str, mail: Mail) -> None:
        """The mail was taken; Unreachable if it was not."""
        if self.unreachable:
            raise Unreachable("The mail was not taken: as ordered.")
        self.sent.append((address, mail))
