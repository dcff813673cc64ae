"""Does csms use SES as an unmodified boto3 client must? Against the laptop's stand-in over a real socket; and unsigned
requests are refused."""

import email
import email.policy
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from csms.adapters.ses import Mailer
from csms.errors import Unreachable
from csms.pricing.receipt import Mail
from local import mail as standin
from local.database import CREDENTIALS, free_port
from local.gateway import Gateway, run_gateway
from local.invoke import REGION
from tests.aws import sign

SENDER = "Beispiel Laden <receipts@example.com>"
RECEIPT = Mail(subject="Receipt 20260301-ÄÖ", text="Straße 1\n\nTotal: EUR 6.45, “so”\n")
ROUTE = "/v2/email/outbound-emails"


@dataclass(frozen=True, kw_only=True)
class MailStandIn:
    """The stand-in, and the folder it writes to."""

    url: str
    folder: Path

    def mailer(self, sender: str = SENDER) -> Mailer:
        return mailer(self.url, sender)

    def mails(self) -> list[EmailMessage]:
        parsed = [
            email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in self.folder.iterdir()
        ]
        return [mail for mail in parsed if isinstance(mail, EmailMessage)]


def mailer(url: str, sender: str = SENDER) -> Mailer:
    client = boto3.client(
        "sesv2",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=Config(proxies={}, retries={"total_max_attempts": 1}),
    )
    return Mailer(client, sender)


@pytest.fixture
def post(tmp_path: Path) -> Iterator[MailStandIn]:
    folder = tmp_path / "mail"
    handlers = {standin.ROUTE: standin.mail_handler(folder)}
    with run_gateway(
        Gateway({}, origin_secret="", web=tmp_path, websocket={}, http=(), pages={}, extra=handlers)
    ) as url:
        yield MailStandIn(url=url, folder=folder)


def test_sent_mail_is_stored_unchanged(post: MailStandIn) -> None:
    post.mailer().send("driver@example.com", RECEIPT)

    (mail,) = post.mails()
    assert (SENDER, "driver@example.com", RECEIPT.subject, RECEIPT.text) == (
        mail["From"],
        mail["To"],
        mail["Subject"],
        mail.get_content(),
    )
    assert [".eml"] == [path.suffix for path in post.folder.iterdir()]


def test_two_mails_make_two_files(post: MailStandIn) -> None:
    for _ in range(2):
        post.mailer().send("driver@example.com", RECEIPT)

    assert 2 == len(post.mails())


def test_refused_mail_hides_recipient_address(post: MailStandIn) -> None:
    with pytest.raises(Unreachable) as refused:
        post.mailer(sender="receipts@example.com\nBcc: all@example.com").send("driver@example.com", RECEIPT)

    assert "driver@example.com" not in refused.value.message
    assert not post.folder.exists()


def test_silent_mail_service_is_unreachable() -> None:
    with pytest.raises(Unreachable):
        mailer(f"http://127.0.0.1:{free_port()}").send("driver@example.com", RECEIPT)


@pytest.mark.parametrize(
    ("is_signed", "status", "error"),
    [(False, 403, "MissingAuthenticationTokenException"), (True, 400, "BadRequestException")],
    ids=["a page in a browser", "a mail that is none"],
)
def test_unsigned_or_invalid_mail_is_refused(post: MailStandIn, is_signed: bool, status: int, error: str) -> None:
    body = json.dumps({"FromEmailAddress": "a@example.com", "Content": {"Raw": {"Data": ""}}}).encode()
    url = post.url + ROUTE
    headers = sign("ses", "POST", url, body) if is_signed else {}
    request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310 - our own address
    opener: Any = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(request)

    assert (status, error) == (refused.value.code, refused.value.headers["x-amzn-ErrorType"])
    assert not post.folder.exists()
