"""The payment providers' secrets: which of a function's settings each fills, and with which of its fields. Plain
values, no CDK."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentSecret:
    """One provider's keys, by its name in `csms.payment_providers`; the field by each setting that it fills.

    The operator puts the keys in. The last field has a generated value until then, so that no webhook has a signature
    that fits.
    """

    provider: str
    fields: Mapping[str, str]

    @property
    def title(self) -> str:
        """The provider as the stack names what belongs to it. Never change it: it would be another secret, and what the
        operator put in would be gone."""
        return self.provider.title()

    @property
    def resource(self) -> str:
        """The secret in infra.permissions."""
        return f"secret/{self.provider}"


PAYMENT_SECRETS: Final = (
    PaymentSecret(provider="stripe", fields={"STRIPE_API_KEY": "api_key", "STRIPE_WEBHOOK_SECRET": "webhook_secret"}),
)

SETTINGS: Final = tuple(setting for secret in PAYMENT_SECRETS for setting in secret.fields)
"""The settings that the secrets fill."""
