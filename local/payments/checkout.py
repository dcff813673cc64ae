"""The checkout pages as routes. The forms are plain POSTs, so an HTTP client can pay as a person does."""

import re
import secrets
from typing import TYPE_CHECKING, Final

from aiohttp import web

from local.payments import ledger as decide
from local.payments import page
from local.payments.records import (
    AUTHENTICATION_FAILED,
    NOT_A_TEST_CARD,
    TEST_CARDS,
    Card,
    CardOutcome,
    Session,
    SessionStatus,
    StripeError,
)

if TYPE_CHECKING:
    from local.payments.server import PaymentStandIn

_CHALLENGE_CARD: Final = next(card for card in TEST_CARDS if card.outcome is CardOutcome.CHALLENGE)


def add_routes(app: web.Application, stand_in: "PaymentStandIn") -> None:
    pages = _Pages(stand_in)
    app.router.add_get("/checkout/{id}", pages.show)
    app.router.add_post("/checkout/{id}/pay", pages.pay)
    app.router.add_get("/checkout/{id}/authenticate", pages.ask)
    app.router.add_post("/checkout/{id}/authenticate", pages.authenticate)


class _Pages:
    def __init__(self, stand_in: "PaymentStandIn") -> None:
        self._stand_in = stand_in

    async def show(self, request: web.Request) -> web.Response:
        session = self._session(request)
        if session.status is not SessionStatus.OPEN:
            return _closed(session)
        return _html(page.pay_page(session, nonce=(nonce := _nonce())), nonce)

    async def pay(self, request: web.Request) -> web.Response:
        """303 to success_url or to the authentication step; 402 and the page after a decline; 410 when expired."""
        # The form is read before the session: whoever waits in between may find the session changed.
        typed = str((await request.post()).get("card_number", ""))
        session = self._session(request)
        if session.status is SessionStatus.COMPLETE:
            # A second click on Pay finds the payment made, and is led on as the first was.
            return _see_other(_success_url(session))
        if session.status is SessionStatus.EXPIRED:
            return _closed(session)
        try:
            card = _card(typed)
        except StripeError as refusal:
            return _problem(session, refusal.message, typed)
        intent = self._stand_in.ledger.intent_of(session)
        change = decide.pay(session, intent, card, now=self._stand_in.now(), new_id=self._stand_in.new_id)
        self._stand_in.commit(change)
        match card.outcome:
            case CardOutcome.APPROVE:
                return _see_other(_success_url(session))
            case CardOutcome.CHALLENGE:
                return _see_other(f"/checkout/{session.id}/authenticate")
            case CardOutcome.DECLINE:
                return _problem(session, card.decline.message if card.decline else "", typed)

    async def ask(self, request: web.Request) -> web.Response:
        session = self._session(request)
        if session.status is not SessionStatus.OPEN:
            return _closed(session)
        return _html(page.authentication_page(session, nonce=(nonce := _nonce())), nonce)

    async def authenticate(self, request: web.Request) -> web.Response:
        passed = (await request.post()).get("outcome") == "pass"
        session = self._session(request)
        if session.status is not SessionStatus.OPEN:
            return _closed(session)
        intent = self._stand_in.ledger.intent_of(session)
        if intent is None:
            return _see_other(f"/checkout/{session.id}")
        try:
            change = decide.authenticate(
                session,
                intent,
                _CHALLENGE_CARD,
                passed=passed,
                now=self._stand_in.now(),
                new_id=self._stand_in.new_id,
            )
        except StripeError as refusal:
            return _problem(session, refusal.message, TEST_CARDS[0].number)
        self._stand_in.commit(change)
        if passed:
            return _see_other(_success_url(session))
        return _problem(session, AUTHENTICATION_FAILED.message, TEST_CARDS[0].number)

    def _session(self, request: web.Request) -> Session:
        self._stand_in.sweep()
        session = self._stand_in.ledger.sessions.get(request.match_info["id"])
        if session is None:
            nonce = _nonce()
            text = "This checkout does not exist. It may be from before the last fresh start."
            raise web.HTTPNotFound(
                text=page.notice_page("Unknown checkout", text, nonce=nonce),
                content_type="text/html",
                headers=_headers(nonce),
            )
        return session


def _card(typed: str) -> Card:
    """The test card behind what was typed; a well-formed number of no test card is declined."""
    number = re.sub(r"[\s-]", "", typed)
    if not re.fullmatch(r"[0-9]{12,19}", number):
        raise StripeError("Your card number is incomplete.", code="incomplete_number")
    if not _luhn(number):
        raise StripeError("Your card number is invalid.", code="incorrect_number")
    known = {card.number: card for card in TEST_CARDS}
    other = Card(number=number, brand="unknown", title="", outcome=CardOutcome.DECLINE, decline=NOT_A_TEST_CARD)
    return known.get(number, other)


def _luhn(number: str) -> bool:
    doubled = [int(digit) * (1 + index % 2) for index, digit in enumerate(reversed(number))]
    return sum(digit // 10 + digit % 10 for digit in doubled) % 10 == 0


def _closed(session: Session) -> web.Response:
    nonce = _nonce()
    if session.status is SessionStatus.COMPLETE:
        text = "This payment is complete. You were not charged a second time."
        link = _success_url(session)
        return _html(page.notice_page("Payment complete", text, nonce=nonce, link=link), nonce)
    text = "This checkout has expired. No money was held. Please start again."
    shown = page.notice_page("Checkout expired", text, nonce=nonce, link=session.cancel_url, link_text="Go back")
    return _html(shown, nonce, status=410)


def _problem(session: Session, problem: str, typed: str) -> web.Response:
    nonce = _nonce()
    number = re.sub(r"[^0-9]", "", typed)[:19]
    return _html(page.pay_page(session, nonce=nonce, problem=problem, card_number=number), nonce, status=402)


def _success_url(session: Session) -> str:
    return session.success_url.replace("{CHECKOUT_SESSION_ID}", session.id)


def _see_other(location: str) -> web.Response:
    return web.Response(status=303, headers={"Location": location, "Cache-Control": "no-store"})


def _nonce() -> str:
    return secrets.token_urlsafe(16)


def _html(text: str, nonce: str, *, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, content_type="text/html", headers=_headers(nonce))


def _headers(nonce: str) -> dict[str, str]:
    # No form-action: browsers apply it to redirects too, and a payment ends on another origin.
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    return {"Content-Security-Policy": policy, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
