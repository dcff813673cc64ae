"""A stand-in for Stripe: checkout, manual capture, refunds, signed webhooks. It moves no money.

The unmodified `stripe` package talks to it: over loopback (`PaymentStandIn`, `base_addresses={"api": url}`), or without
a socket (`Account` behind `InProcess`, `http_client=`).
"""

from local.payments.account import Account, numbered
from local.payments.server import PaymentStandIn
from local.payments.transport import InProcess

__all__ = ["Account", "InProcess", "PaymentStandIn", "numbered"]
