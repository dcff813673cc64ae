"""What the function is put together with that mails receipts."""

from __future__ import annotations

from typing import Final

import boto3
from botocore.config import Config

from csms.adapters.ses import Mailer
from csms.config import Settings

# A mail waits for the next sweep rather than the sweep for a mail.
MAIL_CLIENT_CONFIG: Final = Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 1})


def build_mailer(settings: Settings) -> Mailer | None:
    """What mails receipts; None where nobody sends them."""
    if not settings.receipt_sender:
        return None
    return Mailer(boto3.client("sesv2", config=MAIL_CLIENT_CONFIG), settings.receipt_sender)
