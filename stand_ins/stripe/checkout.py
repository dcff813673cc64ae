"""The routes of the checkout pages. Their forms are plain POSTs, so that an HTTP client can pay like a person."""

import re
import secrets

from aiohttp import web

from stand_ins.stripe import page
from stand_ins.stripe.account import Account
from stand_ins.stripe.cards import find_card
from stand_ins.stripe.records import AUTHENTICATION_FAILED, TEST_CARDS, CardOutcome, Session, SessionStatus, StripeError


def add_routes(app: web.Application, account: Account) -> None:
    pages = _Pages(account)
    app.router.add_get("/checkout/{id}", pages.show)
    app.router.add_post("/checkout/{id}/pay", pages.pay)
    app.router.add_get("/checkout/{id}/authenticate", pages.ask)
    app.router.add_post("/checkout/{id}/authenticate", pages.authenticate)


class _Pages:
    def __init__(self, account: Account) -> None:
        self._account = account

    async def show(self, request: web.Request) -> web.Response:
        session = self._session(request)
        if session.status is not SessionStatus.OPEN:
            return _closed_response(session)
        return _html_response(page.pay_page(session, nonce=(nonce := _nonce())), nonce)

    async def pay(self, request: web.Request) -> web.Response:
        """303 to success_url or to the authentication step; 402 and the page after a decline; 410 if the session
        expired.

        A form without the field for the e-mail address gives none.
        """
        # Read the form before the session, which could change while the form is awaited.
        form = await request.post()
        typed = str(form.get("card_number", ""))
        address = str(form["email"]).strip() if "email" in form else None
        session = self._session(request)
        if session.status is SessionStatus.COMPLETE:
            # A second click on Pay finds the payment complete, and is redirected like the first.
            return _see_other_response(_success_url(session))
        if session.status is SessionStatus.EXPIRED:
            return _closed_response(session)
        try:
            outcome = self._account.pay(session.id, typed, address=address)
        except StripeError as refusal:
            return _problem_response(session, refusal.message, typed, address)
        match outcome:
            case CardOutcome.APPROVE:
                return _see_other_response(_success_url(session))
            case CardOutcome.CHALLENGE:
                return _see_other_response(f"/checkout/{session.id}/authenticate")
            case CardOutcome.DECLINE:
                decline = find_card(typed).decline
                return _problem_response(session, decline.message if decline else "", typed, address)

    async def ask(self, request: web.Request) -> web.Response:
        session = self._session(request)
        if session.status is not SessionStatus.OPEN:
            return _closed_response(session)
        return _html_response(page.authentication_page(session, nonce=(nonce := _nonce())), nonce)

    async def authenticate(self, request: web.Request) -> web.Response:
        passed = (await request.post()).get("outcome") == "pass"
        session = self._session(request)
        if session.status is not SessionStatus.OPEN:
            return _closed_response(session)
        if session.intent_id is None:
            return _see_other_response(f"/checkout/{session.id}")
        try:
            self._account.authenticate(session.id, passed=passed)
        except StripeError as refusal:
            return _problem_response(session, refusal.message)
        if passed:
            return _see_other_response(_success_url(session))
        return _problem_response(session, AUTHENTICATION_FAILED.message)

    def _session(self, request: web.Request) -> Session:
        try:
            return self._account.session(request.match_info["id"])
        except StripeError:
            nonce = _nonce()
            text = "This checkout does not exist. It may be from before the last fresh start."
            raise web.HTTPNotFound(
                text=page.notice_page("Unknown checkout", text, nonce=nonce),
                content_type="text/html",
                headers=_headers(nonce),
            ) from None


def _closed_response(session: Session) -> web.Response:
    nonce = _nonce()
    if session.status is SessionStatus.COMPLETE:
        text = "This payment is complete. You were not charged a second time."
        link = _success_url(session)
        return _html_response(page.notice_page("Payment complete", text, nonce=nonce, link=link), nonce)
    text = "This checkout has expired. No money was held. Please start again."
    shown = page.notice_page("Checkout expired", text, nonce=nonce, link=session.cancel_url, link_text="Go back")
    return _html_response(shown, nonce, status=410)


def _problem_response(
    session: Session, problem: str, typed: str = TEST_CARDS[0].number, address: str | None = None
) -> web.Response:
    nonce = _nonce()
    number = re.sub(r"[^0-9]", "", typed)[:19]
    shown = page.pay_page(session, nonce=nonce, problem=problem, card_number=number, address=address)
    return _html_response(shown, nonce, status=402)


def _success_url(session: Session) -> str:
    return session.success_url.replace("{CHECKOUT_SESSION_ID}", session.id)


def _see_other_response(location: str) -> web.Response:
    return web.Response(status=303, headers={"Location": location, "Cache-Control": "no-store"})


def _nonce() -> str:
    return secrets.token_urlsafe(16)


def _html_response(text: str, nonce: str, *, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, content_type="text/html", headers=_headers(nonce))


def _headers(nonce: str) -> dict[str, str]:
    # No form-action: browsers apply it to redirects too, and a payment ends on another origin.
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    return {"Content-Security-Policy": policy, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
