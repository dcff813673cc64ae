"""The API's calls: a table with one small function for each. They get parameters, never a request."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from stand_ins.stripe import ledger as decide
from stand_ins.stripe.ledger import Change, Ledger, NewId
from stand_ins.stripe.parameters import (
    INTENT_CANCEL,
    INTENT_CAPTURE,
    INTENT_CREATE,
    INTENT_LIST,
    ONLY_EXPAND,
    REFUND_CREATE,
    SESSION_CREATE,
    Fields,
)
from stand_ins.stripe.records import SESSION_MAXIMUM_SECONDS, TEST_METHODS, Charge, Intent, Session, StripeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    ledger: Ledger
    object_id: str
    params: dict[str, Any]
    now: int
    new_id: NewId


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    records: tuple[Intent, ...]
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call; `name` is the Python SDK's (`payment_intents.capture`)."""

    name: str
    method: str
    path: str
    fields: Fields
    act: Callable[[Call], Change | Listing]


def create_session(call: Call) -> Change:
    items = [(item["price_data"], item["quantity"]) for item in call.params["line_items"]]
    currencies = {price["currency"] for price, _ in items}
    if len(currencies) != 1:
        raise StripeError("Checkout Sessions need one or more line items, all of one currency.", param="line_items")
    payment = call.params.get("payment_intent_data", {})
    session = Session(
        id=call.new_id("cs_test"),
        created=call.now,
        expires_at=call.params.get("expires_at", call.now + SESSION_MAXIMUM_SECONDS),
        amount=sum(price["unit_amount"] * quantity for price, quantity in items),
        currency=currencies.pop(),
        item_name=", ".join(price["product_data"]["name"] for price, _ in items),
        success_url=call.params["success_url"],
        cancel_url=call.params.get("cancel_url"),
        client_reference_id=call.params.get("client_reference_id"),
        customer_email=call.params.get("customer_email"),
        submit_message=call.params.get("custom_text", {}).get("submit", {}).get("message"),
        metadata=call.params.get("metadata", {}),
        capture_method=payment.get("capture_method", "automatic_async"),
        intent_metadata=payment.get("metadata", {}),
        intent_description=payment.get("description"),
    )
    return decide.open_session(session)


def retrieve_session(call: Call) -> Change:
    return Change(answer=_session(call))


def expire_session(call: Call) -> Change:
    session = _session(call)
    return decide.expire(session, call.ledger.find_intent(session), now=call.now)


def create_intent(call: Call) -> Change:
    method = call.params["payment_method"]
    if method not in TEST_METHODS:
        raise _missing_error("PaymentMethod", method, param="payment_method", status=400)
    intent = Intent(
        id=call.new_id("pi"),
        created=call.now,
        amount=call.params["amount"],
        currency=call.params["currency"],
        capture_method=call.params.get("capture_method", "automatic_async"),
        metadata=call.params.get("metadata", {}),
        description=call.params.get("description"),
    )
    return decide.open_intent(intent, TEST_METHODS[method], now=call.now, new_id=call.new_id)


def retrieve_intent(call: Call) -> Change:
    return Change(answer=_intent(call))


def capture_intent(call: Call) -> Change:
    intent = _intent(call)
    return decide.capture(intent, call.ledger.find_charge(intent), call.params.get("amount_to_capture"))


def cancel_intent(call: Call) -> Change:
    intent = _intent(call)
    session = call.ledger.sessions[intent.session_id] if intent.session_id else None
    return decide.cancel(intent, session, reason=call.params.get("cancellation_reason"), now=call.now)


def list_intents(call: Call) -> Listing:
    bounds = call.params.get("created", {})
    # Newest first: intents are kept in the order of creation, which also decides between those of one second.
    found = [
        intent
        for intent in reversed(call.ledger.intents.values())
        if bounds.get("gte", 0) <= intent.created <= bounds.get("lte", intent.created)
        and bounds.get("gt", -1) < intent.created < bounds.get("lt", intent.created + 1)
    ]
    if after := call.params.get("starting_after"):
        ids = [intent.id for intent in found]
        if after not in ids:
            raise _missing_error("payment_intent", after, param="starting_after", status=400)
        found = found[ids.index(after) + 1 :]
    limit = call.params.get("limit", 10)
    return Listing(records=tuple(found[:limit]), has_more=len(found) > limit)


def create_refund(call: Call) -> Change:
    return decide.refund(
        _charge_to_refund(call),
        amount=call.params.get("amount"),
        reason=call.params.get("reason"),
        metadata=call.params.get("metadata", {}),
        now=call.now,
        new_id=call.new_id,
    )


OPERATIONS: Final = tuple(
    Operation(name=name, method=method, path=path, fields=fields, act=act)
    for name, method, path, fields, act in (
        ("checkout.sessions.create", "POST", "/v1/checkout/sessions", SESSION_CREATE, create_session),
        ("checkout.sessions.retrieve", "GET", "/v1/checkout/sessions/{id}", ONLY_EXPAND, retrieve_session),
        ("checkout.sessions.expire", "POST", "/v1/checkout/sessions/{id}/expire", ONLY_EXPAND, expire_session),
        ("payment_intents.create", "POST", "/v1/payment_intents", INTENT_CREATE, create_intent),
        ("payment_intents.list", "GET", "/v1/payment_intents", INTENT_LIST, list_intents),
        ("payment_intents.retrieve", "GET", "/v1/payment_intents/{id}", ONLY_EXPAND, retrieve_intent),
        ("payment_intents.capture", "POST", "/v1/payment_intents/{id}/capture", INTENT_CAPTURE, capture_intent),
        ("payment_intents.cancel", "POST", "/v1/payment_intents/{id}/cancel", INTENT_CANCEL, cancel_intent),
        ("refunds.create", "POST", "/v1/refunds", REFUND_CREATE, create_refund),
    )
)


def _session(call: Call) -> Session:
    session = call.ledger.sessions.get(call.object_id)
    if session is None:
        raise _missing_error("checkout.session", call.object_id, param="session")
    return session


def _intent(call: Call) -> Intent:
    intent = call.ledger.intents.get(call.object_id)
    if intent is None:
        raise _missing_error("payment_intent", call.object_id, param="intent")
    return intent


def _charge_to_refund(call: Call) -> Charge:
    # A missing object is 404 if the path names it, and 400 if a parameter does.
    if ("payment_intent" in call.params) == ("charge" in call.params):
        raise StripeError("One of the following params should be provided for this request: payment_intent or charge.")
    if "charge" in call.params:
        charge = call.ledger.charges.get(call.params["charge"])
        if charge is None:
            raise _missing_error("charge", call.params["charge"], param="charge", status=400)
        return charge
    intent = call.ledger.intents.get(call.params["payment_intent"])
    if intent is None:
        raise _missing_error("payment_intent", call.params["payment_intent"], param="payment_intent", status=400)
    charge = call.ledger.find_charge(intent)
    if charge is None:
        raise StripeError(f"This PaymentIntent ({intent.id}) does not have a successful charge to refund.")
    return charge


def _missing_error(kind: str, object_id: str, *, param: str, status: int = 404) -> StripeError:
    return StripeError(f"No such {kind}: '{object_id}'", status=status, code="resource_missing", param=param)
