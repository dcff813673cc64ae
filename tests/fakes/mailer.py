"""The mail service in memory."""

from dataclasses import dataclass, field

from csms.errors import Unreachable
from csms.pricing.receipt import Mail


@dataclass(slots=True)
class FakeMailer:
    """Drivers' mailboxes: `sent` has every accepted mail with its address."""

    sent: list[tuple[str, Mail]] = field(default_factory=list)
    unreachable: bool = False

    def send(self, address: str, mail: Mail) -> None:
        """Accept the mail. Raises Unreachable if the test ordered it."""
        if self.unreachable:
            raise Unreachable("The mail was not taken: as ordered.")
        self.sent.append((address, mail))
