"""A stand-in for Stripe on loopback: checkout, manual capture, refunds, signed webhooks. It moves no money.

The unmodified `stripe` package talks to it: `stripe.StripeClient(key, base_addresses={"api": url})`.
"""

from local.payments.server import PaymentStandIn

__all__ = ["PaymentStandIn"]
