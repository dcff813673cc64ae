"""Whether the adapter and the stand-in speak the API version of the pinned `stripe` package. Nobody is asked."""

from stripe._api_version import _ApiVersion

from csms import stripe_payments
from local.payments import objects


def test_pinned_version_is_the_packages():
    assert _ApiVersion.CURRENT == stripe_payments.API_VERSION


def test_stand_in_has_the_pinned_version():
    assert stripe_payments.API_VERSION == objects.API_VERSION
