"""What a function that mails receipts needs besides."""

from __future__ import annotations

from typing import Final

import boto3
from botocore.config import Config

from csms.adapters.ses import Mailer
from csms.config import Settings

# Short timeouts: a slow mail is put off to the next sweep, so that it does not delay this one.
MAIL_CLIENT_CONFIG: Final = Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 1})


def build_mailer(settings: Settings) -> Mailer | None:
    """The mailer for receipts; None if RECEIPT_SENDER is empty."""
    if not settings.receipt_sender:
        return None
    return Mailer(boto3.client("sesv2", config=MAIL_CLIENT_CONFIG), settings.receipt_sender)
