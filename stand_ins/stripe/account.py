"""One Stripe account in test mode: authentication, idempotency keys and faults that a test orders. `ledger` decides
about payments. Knows no socket and no page."""

import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final
from urllib.parse import unquote

from stand_ins.stripe import ledger as decide
from stand_ins.stripe.api import OPERATIONS, Call, Listing, Operation
from stand_ins.stripe.cards import CHALLENGE_CARD, find_card
from stand_ins.stripe.faults import Fault, Faults
from stand_ins.stripe.idempotency import Answer, Keys
from stand_ins.stripe.ledger import Change, Ledger, NewId
from stand_ins.stripe.objects import API_VERSION, Renderer
from stand_ins.stripe.parameters import decode_form, email, read
from stand_ins.stripe.records import OTHER_METHODS, Card, CardOutcome, Intent, Session, StripeError
from stand_ins.stripe.signature import sign

Event = dict[str, Any]

_PATHS: Final = tuple((re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", o.path)), o) for o in OPERATIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An incoming call. `text` is its form: the body of a POST or the query of a GET."""

    method: str
    path: str
    headers: Mapping[str, str]
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    status: int
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedCall:
    """A call that was authenticated and whose parameters were read."""

    operation: Operation
    object_id: str
    path: str
    params: dict[str, Any]
    id: str
    key: str | None
    fault: Fault | None
    replay: Answer | None = field(default=None)

    @property
    def canonical_params(self) -> str:
        """The parameters in one canonical spelling, for comparison."""
        return json.dumps(self.params, sort_keys=True)


def random_id(prefix: str) -> str:
    """A new id, different in every run."""
    return f"{prefix}_{secrets.token_hex(12)}"


def sequential_ids() -> NewId:
    """New ids in sequence, the same in every run."""
    numbers = count(1)
    return lambda prefix: f"{prefix}_{next(numbers):024x}"


class Account:
    """The account with its one secret key, and `pay` for the driver's part.

    `clock` is the time for payments, and may be replaced: sessions and authorizations expire by it at the next call or
    `sweep`. `events` are all events so far, oldest first; `sign_event` signs one as for a webhook. `site` is the
    address of the checkout pages.
    """

    def __init__(
        self,
        *,
        api_key: str,
        webhook_secret: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_id: NewId = random_id,
    ) -> None:
        if not api_key.startswith("sk_test_"):
            raise ValueError("The payment stand-in takes test keys (sk_test_…) only.")
        self.site = "https://checkout.invalid"
        self.clock = clock
        self.new_id = new_id
        self.ledger = Ledger()
        self.events: list[Event] = []
        self._api_key = api_key
        self._webhook_secret = webhook_secret
        self._keys = Keys()
        self._faults = Faults()

    def fail_next(
        self, operation: str | None = None, *, status: int, code: str | None = None, acted: bool = False
    ) -> None:
        """Answer the next call of `operation` (`payment_intents.capture`; any if None) with `status`, and with Stripe's
        usual code for it unless one is given.

        Without `acted` the call has no effect, and its key stays unused. With `acted` the call takes effect, and as at
        Stripe its idempotency key gives the error from then on.
        """
        self._faults.ordered.append(Fault(operation=operation, status=status, code=code, acted=acted))

    def hang_next(self, operation: str | None = None, *, acted: bool = False) -> None:
        """Never answer the next call of `operation`. With `acted` the call takes effect, and its key gives the answer
        later."""
        self._faults.ordered.append(Fault(operation=operation, status=None, acted=acted))

    def recover(self) -> None:
        """Drop the faults that were ordered and have not happened."""
        self._faults.ordered.clear()

    def now(self) -> int:
        return int(self.clock().timestamp())

    def sweep(self) -> None:
        """Do what is due by the clock: expire sessions and let authorizations lapse."""
        for change in self.ledger.overdue_changes(self.now()):
            self.commit(change)

    def sign_event(self, event: Event, *, at: float | None = None) -> tuple[bytes, str]:
        """The event's body and its `Stripe-Signature`, for the time `at` or the real one: the receiver compares it with
        the real clock."""
        return sign(event, self._webhook_secret, at=at)

    def pay(self, session_id: str, card_number: str, *, address: str | None = None) -> CardOutcome:
        """Pay the session with a card, and return the outcome. `address` is the e-mail address that the payer typed, if
        any.

        Raises:
            StripeError: the session is not open, or the form is invalid.
        """
        session = self.session(session_id)
        card = find_card(card_number)
        # An address given with the session is in the field already.
        typed = session.customer_email if address is None else email(address, "email")
        return self._pay(replace(session, payer_email=typed), card)

    def pay_otherwise(self, session_id: str, method: str) -> CardOutcome:
        """Pay the session with one of OTHER_METHODS, whatever methods it was opened for.

        Raises:
            StripeError: the session is not open, or its hold is impossible with this method.
        """
        return self._pay(self.session(session_id), OTHER_METHODS[method])

    def receive(
        self, method: str, *, amount: int = 500, metadata: Mapping[str, str] | None = None, manual: bool = False
    ) -> str:
        """Create a payment with one of OTHER_METHODS and without a session, as a web shop or a Terminal of the same
        account does, and return its id. With `manual` it is held, not captured.

        Raises:
            StripeError: payments by the method cannot be held.
        """
        intent = Intent(
            id=self.new_id("pi"),
            created=self.now(),
            amount=amount,
            currency="eur",
            capture_method="manual" if manual else "automatic",
            metadata=dict(metadata or {}),
        )
        self.commit(decide.open_intent(intent, OTHER_METHODS[method], now=self.now(), new_id=self.new_id))
        return intent.id

    def authenticate(self, session_id: str, *, passed: bool) -> None:
        """Complete the authentication with the payer's bank.

        Raises:
            StripeError: the session is not open any more, or waits for no authentication.
        """
        session = self.session(session_id)
        intent = self.ledger.find_intent(session)
        if intent is None:
            raise StripeError("This payment is not waiting for authentication.")
        change = decide.authenticate(session, intent, CHALLENGE_CARD, passed=passed, now=self.now(), new_id=self.new_id)
        self.commit(change)

    def bounce(self, refund_id: str) -> None:
        """Let the payer's bank send the refund back."""
        refund = self.ledger.refunds[refund_id]
        self.commit(decide.bounce(refund, self.ledger.charges[refund.charge_id]))

    def session(self, session_id: str) -> Session:
        """The session as it stands now."""
        self.sweep()
        if session_id not in self.ledger.sessions:
            raise StripeError(f"No such checkout.session: '{session_id}'", status=404, code="resource_missing")
        return self.ledger.sessions[session_id]

    def answer(self, request: Request) -> Reply | None:
        """The reply to the call, or None if a fault was ordered that gives none."""
        begun = self.begin(request)
        return begun if isinstance(begun, Reply) else self.finish(begun)

    def begin(self, request: Request) -> ReceivedCall | Reply:
        """Read the call and take its key; `finish` executes it. Or return its refusal."""
        request_id = self.new_id("req")
        key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        try:
            operation, object_id = _route(request)
            self._authenticate(request)
            _require_version(request)
            _require_form(request)
            received = ReceivedCall(
                operation=operation,
                object_id=object_id,
                path=request.path,
                params=read(operation.fields, decode_form(request.text)),
                id=request_id,
                key=key,
                fault=self._faults.take(operation.name),
            )
            if key is None or (received.fault and not received.fault.acted):
                return received
            kept = self._keys.begin(key, path=request.path, params=received.canonical_params, now=self.now())
            return replace(received, replay=kept)
        except StripeError as refusal:
            return _reply(self._refusal_answer(refusal, request_id), key)

    def finish(self, received: ReceivedCall) -> Reply | None:
        """Execute a call that was begun and return the reply, or None if a fault was ordered that gives none."""
        fault, key = received.fault, received.key
        if fault and not fault.acted:
            return _reply(_failure(fault, received.id), key) if fault.status is not None else None
        if received.replay:
            if fault:
                return _reply(_failure(fault, received.id), key) if fault.status is not None else None
            replayed = {"Idempotent-Replayed": "true", "Original-Request": received.replay.request_id}
            return _reply(replace(received.replay, request_id=received.id), key, replayed)
        answer = self._execute(received)
        kept = _failure(fault, received.id) if fault and fault.status is not None else answer
        if key:
            self._keys.finish(key, kept)
        if received.operation.method == "POST":
            self.save()
        if fault is None:
            return _reply(answer, key)
        # Stripe sends this header when another attempt with the key would only replay the stored answer.
        return _reply(kept, key, {"Stripe-Should-Retry": "false"}) if fault.status is not None else None

    def commit(self, change: Change, *, request_id: str | None = None, key: str | None = None) -> None:
        """Store the change's records, emit its events, and save the state."""
        self._keep(change, request_id=request_id, key=key)
        self.save()

    def emit(self, event: Event) -> None:
        """Record the event. Subclasses that deliver events extend this."""
        self.events.append(event)

    def save(self) -> None:
        """Save the state. Subclasses that keep it beyond this process extend this."""

    def _pay(self, session: Session, card: Card) -> CardOutcome:
        intent = self.ledger.find_intent(session)
        self.commit(decide.pay(session, intent, card, now=self.now(), new_id=self.new_id))
        return card.outcome

    def _execute(self, received: ReceivedCall) -> Answer:
        self.sweep()
        render = self._renderer()
        expand = tuple(received.params.get("expand", ()))
        call = Call(
            ledger=self.ledger,
            object_id=received.object_id,
            params=received.params,
            now=self.now(),
            new_id=self.new_id,
        )
        try:
            decided = received.operation.act(call)
            if isinstance(decided, Listing):
                body = render.listing(decided.records, url=received.path, has_more=decided.has_more, expand=expand)
                return Answer(status=200, body=body, request_id=received.id)
            # A path that cannot be expanded is refused before anything is changed.
            render.object(decided.answer, expand)
        except StripeError as refusal:
            return self._refusal_answer(refusal, received.id)
        self._keep(decided, request_id=received.id, key=received.key)
        return Answer(status=200, body=render.object(decided.answer, expand), request_id=received.id)

    def _keep(self, change: Change, *, request_id: str | None, key: str | None) -> None:
        self.ledger.keep(change.records)
        render = self._renderer()
        for event_type, record in change.events:
            self.emit(
                {
                    "id": self.new_id("evt"),
                    "object": "event",
                    "api_version": API_VERSION,
                    "created": self.now(),
                    "data": {"object": render.object(record)},
                    "livemode": False,
                    "pending_webhooks": 1,
                    "request": {"id": request_id, "idempotency_key": key},
                    "type": event_type,
                }
            )

    def _authenticate(self, request: Request) -> None:
        scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not presented:
            raise StripeError("You did not provide an API key in the Authorization header (Bearer).", status=401)
        if not hmac.compare_digest(presented.encode(), self._api_key.encode()):
            raise StripeError(f"Invalid API Key provided: {presented[:7]}****{presented[-4:]}", status=401)

    def _refusal_answer(self, refusal: StripeError, request_id: str) -> Answer:
        return Answer(status=refusal.status, body=self._renderer().error(refusal), request_id=request_id)

    def _renderer(self) -> Renderer:
        return Renderer(site=self.site, find=self.ledger.find)


def _route(request: Request) -> tuple[Operation, str]:
    for path, operation in _PATHS:
        if operation.method == request.method and (found := path.fullmatch(request.path)):
            return operation, unquote(found.groupdict().get("id", ""))
    raise StripeError(f"Unrecognized request URL ({request.method}: {request.path}).", status=404)


def _require_version(request: Request) -> None:
    # Stripe answers in every API version it ever had, the stand-in in one. Without the header the account's own
    # applies.
    given = request.headers.get("Stripe-Version", API_VERSION)
    if given != API_VERSION:
        raise StripeError(f"Invalid Stripe API version: {given}")


def _require_form(request: Request) -> None:
    given = request.headers.get("Content-Type", "").partition(";")[0]
    if request.text and request.method != "GET" and given != "application/x-www-form-urlencoded":
        raise StripeError("Invalid request (check that your POST content type is application/x-www-form-urlencoded).")


def _reply(answer: Answer, key: str | None, headers: Mapping[str, str] | None = None) -> Reply:
    sent = {"Request-Id": answer.request_id, "Stripe-Version": API_VERSION, **(headers or {})}
    if key:
        sent["Idempotency-Key"] = key
    return Reply(status=answer.status, body=answer.body, headers=sent)


_DEFAULT_ERRORS: Final[Mapping[int, tuple[str, str | None]]] = {
    400: ("invalid_request_error", "parameter_invalid_integer"),
    401: ("invalid_request_error", "api_key_expired"),
    402: ("card_error", "card_declined"),
    403: ("invalid_request_error", None),
    404: ("invalid_request_error", "resource_missing"),
    409: ("idempotency_error", "idempotency_key_in_use"),
    429: ("invalid_request_error", "rate_limit"),
}
"""The error type and code of a status (docs.stripe.com/api/errors); any other is an `api_error`."""


def _failure(fault: Fault, request_id: str) -> Answer:
    status = fault.status or 500
    kind, code = _DEFAULT_ERRORS.get(status, ("api_error", None))
    error = {"type": kind, "message": f"The stand-in was told to answer {status}."}
    if code := fault.code or code:
        error["code"] = code
    return Answer(status=status, body={"error": error}, request_id=request_id)
