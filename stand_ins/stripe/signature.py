"""The signature of an event."""

import hashlib
import hmac
import json
import time
from typing import Any


def sign(event: dict[str, Any], secret: str, *, at: float | None = None) -> tuple[bytes, str]:
    """The event's body and its `Stripe-Signature`: HMAC-SHA256 over `<timestamp>.<body>`
    (https://docs.stripe.com/webhooks#verify-manually).

    The time is the real one unless given, not that of the stand-in's clock, because the receiver compares it with the
    real clock.
    """
    body = json.dumps(event, indent=2).encode()
    stamp = int(time.time() if at is None else at)
    digest = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return body, f"t={stamp},v1={digest}"
