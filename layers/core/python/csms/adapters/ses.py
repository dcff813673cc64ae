"""Mails to drivers, through Amazon SES."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from csms.errors import Unreachable
from csms.pricing.receipt import Mail


class Mailer:
    """Sends mails from one address; `client` is a boto3 sesv2 client."""

    def __init__(self, client: Any, sender: str) -> None:
        self._client = client
        self._sender = sender

    def send(self, address: str, mail: Mail) -> None:
        """Hand the mail to SES for delivery. Raises Unreachable if SES does not accept it."""
        body = {"Text": {"Data": mail.text, "Charset": "UTF-8"}}
        content = {"Simple": {"Subject": {"Data": mail.subject, "Charset": "UTF-8"}, "Body": body}}
        try:
            self._client.send_email(
                FromEmailAddress=self._sender, Destination={"ToAddresses": [address]}, Content=content
            )
        except (ClientError, BotoCoreError) as failed:
            raise Unreachable(f"The mail was not taken: {type(failed).__name__}.") from failed
