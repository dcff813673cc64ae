"""The receipt, end to end: after a real charge the mail is in the folder, and API, page and mail agree."""

import email
import email.policy
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from email.message import EmailMessage
from pathlib import Path

import pytest

from local import story
from local.stack import Stack, run_stack


@dataclass(frozen=True, kw_only=True)
class ChargedStack:
    """A stack on which the story was lived through, and how it ended."""

    stack: Stack
    ending: story.Ending
    mails: Path

    def get(self, path: str) -> story.Answer:
        return story.request("GET", f"{self.stack.url}{path}")


@pytest.fixture(scope="module")
def charged_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChargedStack]:
    data = tmp_path_factory.mktemp("receipt")
    told = story.options(data, lambda _identity, _event: None)
    (site,) = told.sites
    tariff = replace(story.TARIFF, vat_percent=Decimal(19))
    with run_stack(replace(told, sites=(replace(site, tariff=tariff),))) as stack:
        yield ChargedStack(stack=stack, ending=story.run_story(stack, lambda _line: None), mails=data / "mail")


def read_mail(folder: Path) -> EmailMessage:
    """The one mail that lies there, as soon as it does."""
    until = time.monotonic() + story.PATIENCE_S
    while not (found := list(folder.glob("*.eml"))):
        assert time.monotonic() < until, "no mail came"
        time.sleep(story.POLL_S)
    mail = email.message_from_bytes(found[0].read_bytes(), policy=email.policy.default)
    assert isinstance(mail, EmailMessage)
    return mail


def test_receipt_mail_shows_captured_amount(charged_stack: ChargedStack) -> None:
    mail = read_mail(charged_stack.mails)
    text = mail.get_content()

    number = charged_stack.ending.receipt["number"]
    assert ("driver@example.com", f"Receipt {number}") == (mail["To"], mail["Subject"])
    assert "Example Charging\n1 Example Street\n12345 Example Town\n" in text
    assert "Energy, 13 kWh at EUR 0.595 per kWh: EUR 7.74\nSession fee: EUR 0.50\nTotal: EUR 8.24\n" in text
    assert "of which 19 % VAT: EUR 1.32\nnet: EUR 6.92\nCharged to your card (Visa ending in 4242): EUR 8.24\n" in text
    assert f"{charged_stack.stack.url}/receipt/{charged_stack.ending.receipt['reservationId']}" in text
    assert 1 == len(list(charged_stack.mails.iterdir()))


@pytest.mark.note("F65")
def test_receipt_shows_captured_amount(charged_stack: ChargedStack) -> None:
    receipt = charged_stack.ending.receipt

    assert (charged_stack.ending.captured, charged_stack.ending.captured) == (
        receipt["total"],
        receipt["capturedAmount"],
    )
    assert {"brand": "visa", "last4": "4242"} == receipt["card"]
    assert f"/receipt/{receipt['reservationId']}" == charged_stack.get(
        f"/payments/status/{receipt['reservationId']}"
    ).body.get("receiptUrl")


def test_receipt_page_is_served(charged_stack: ChargedStack) -> None:
    assert 200 == charged_stack.get(f"/receipt/{charged_stack.ending.receipt['reservationId']}").status
    assert 200 == charged_stack.get("/assets/driver/receipt.css").status


def test_unknown_session_has_no_receipt(charged_stack: ChargedStack) -> None:
    answer = charged_stack.get(f"/payments/receipt/{'0' * 32}")

    assert (404, "UnknownReservation") == (answer.status, answer.body["status"])
