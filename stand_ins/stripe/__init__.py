"""A stand-in for Stripe: checkout, manual capture, refunds and signed webhooks. It moves no money.

The unmodified `stripe` package talks to it: over loopback (`PaymentStandIn`, `base_addresses={"api": url}`), or without
a socket (`Account` behind `InProcess`, `http_client=`).
"""

from stand_ins.stripe.account import Account, sequential_ids
from stand_ins.stripe.server import PaymentStandIn
from stand_ins.stripe.transport import InProcess

__all__ = ["Account", "InProcess", "PaymentStandIn", "sequential_ids"]
