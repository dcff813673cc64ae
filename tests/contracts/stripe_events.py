"""Events as Stripe writes them."""

from typing import Any


def event(kind: str = "payment_intent.succeeded", **subject: Any) -> dict[str, Any]:
    """An event of this kind about a payment."""
    return {"id": "evt_1", "object": "event", "type": kind, "data": {"object": {"id": "pi_1", **subject}}}
