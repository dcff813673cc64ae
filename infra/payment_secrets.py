"""The payment providers' secrets: which settings of a function each fills, and from which of its fields. Plain values,
no CDK."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentSecret:
    """One provider's keys, by its name in `csms.payment_providers`, with the field for each setting.

    The operator stores the keys. Until then the last field has a generated value, so that no webhook signature is
    valid.
    """

    provider: str
    fields: Mapping[str, str]

    @property
    def title(self) -> str:
        """The provider's name in the names of its resources. Never change it: CloudFormation would create another
        secret and delete the operator's keys."""
        return self.provider.title()

    @property
    def resource(self) -> str:
        """The secret's name in infra.permissions."""
        return f"secret/{self.provider}"


PAYMENT_SECRETS: Final = (
    PaymentSecret(provider="stripe", fields={"STRIPE_API_KEY": "api_key", "STRIPE_WEBHOOK_SECRET": "webhook_secret"}),
)

SETTINGS: Final = tuple(setting for secret in PAYMENT_SECRETS for setting in secret.fields)
"""The settings that the secrets fill."""
