"""Do the adapter and the stand-in use the API version of the pinned `stripe` package? Every parameter that the adapter
sends, and every one that the stand-in accepts, exists in the package's types. No request is sent."""

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from importlib import import_module
from inspect import getmembers, isfunction, signature
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin
from urllib.parse import urlsplit

import pytest
import stripe
from stripe import _request_options
from stripe._api_version import _ApiVersion
from stripe._stripe_object import UntypedStripeObject
from typing_extensions import get_type_hints, is_typeddict

from csms.adapters import stripe as stripe_adapter
from csms.adapters.stripe import StripePayments
from csms.errors import PaymentRefused
from csms.ports.payments import Order, PaymentProvider
from stand_ins.stripe import Account, InProcess, objects, sequential_ids
from stand_ins.stripe.api import OPERATIONS
from stand_ins.stripe.parameters import AnyKey, Choice, Fields, ListOf, Reader, decode_form
from stand_ins.stripe.records import OTHER_METHODS
from tests.fakes import Clock

API_KEY: Final = "sk_test_types"
CARD: Final = "4242424242424242"
ASKED_BY_TESTS_ONLY: Final = {"payment_intents.create"}
METHODS_WITHOUT_A_CALL: Final = {"read_webhook", "read_event"}

Form = dict[str, Any]


# The version


def test_pinned_version_equals_package_version():
    assert _ApiVersion.CURRENT == stripe_adapter.API_VERSION


def test_stand_in_has_pinned_version():
    assert stripe_adapter.API_VERSION == objects.API_VERSION


# What the adapter sends


class RecordingClient(InProcess):
    """Keeps each call as it goes over the wire: its name in the package, its version and its parameters."""

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self.calls: list[tuple[str, str, Form]] = []

    def request(self, method: str, url: str, headers: Any, post_data: Any = None, **options: Any) -> Any:
        parts = urlsplit(url)
        form = decode_form(parts.query if method.upper() == "GET" else post_data or "")
        self.calls.append((find_operation(method.upper(), parts.path), headers["Stripe-Version"], form))
        return super().request(method, url, headers, post_data, **options)


def find_operation(method: str, path: str) -> str:
    (name,) = (
        it.name
        for it in OPERATIONS
        if it.method == method and re.fullmatch(re.sub(r"{\w+}", "[^/]+", it.path), path) is not None
    )
    return name


class Desk:
    """The adapter, whose calls are recorded, and the account behind it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.account = Account(api_key=API_KEY, webhook_secret="whsec_types", clock=self.clock, new_id=sequential_ids())
        self.wire = RecordingClient(self.account)
        self.provider = StripePayments(api_key=API_KEY, webhook_secret="whsec_types", http_client=self.wire)

    def open_checkout(self, name: str) -> str:
        order = Order(
            reservation_id=name,
            amount=1820,
            currency="EUR",
            description="EV charging at CP1, connector 1",
            success_url="https://csms.example/session/r1?checkout=done",
            cancel_url="https://csms.example/session/r1?checkout=cancelled",
            expires_at=self.clock() + timedelta(minutes=32),
        )
        return self.provider.open_checkout(order, key=f"{name}:open").checkout_id

    def pay_checkout(self, name: str) -> str:
        checkout_id = self.open_checkout(name)
        self.account.pay(checkout_id, CARD, address="ada@example.com")
        return self.provider.payment(checkout_id).payment_id or ""

    def capture_payment(self, name: str) -> str:
        payment_id = self.pay_checkout(name)
        self.provider.capture(payment_id, 824, key=f"{name}:capture")
        return payment_id

    def capture_too_much(self) -> None:
        """The intent is looked up after the refusal."""
        with pytest.raises(PaymentRefused):
            self.provider.capture(self.pay_checkout("too-much"), 1821, key="too-much:capture")

    def list_two_pages(self) -> None:
        for name in ("first", "second"):
            self.pay_checkout(name)
        assert 2 <= len(list(self.provider.authorizations(self.clock() - timedelta(days=1))))


CALLS: Final[Mapping[str, Callable[[Desk], object]]] = {
    "open_checkout": lambda desk: desk.open_checkout("open"),
    "payment": lambda desk: desk.provider.payment(desk.open_checkout("look")),
    "expire_checkout": lambda desk: desk.provider.expire_checkout(desk.open_checkout("expire"), key="expire"),
    "capture": Desk.capture_too_much,
    "release": lambda desk: desk.provider.release(desk.pay_checkout("release"), key="release"),
    "refund": lambda desk: desk.provider.refund(desk.capture_payment("refund"), 300, key="refund"),
    "authorizations": Desk.list_two_pages,
    "email_address": lambda desk: desk.provider.email_address(desk.open_checkout("email")),
}


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    """The adapter after each of its calls was made."""
    monkeypatch.setattr(stripe_adapter, "PAGE", 1)
    desk = Desk()
    for call in CALLS.values():
        call(desk)
    return desk


def test_every_provider_call_is_recorded(desk):
    methods = {name for name, _ in getmembers(PaymentProvider, isfunction) if not name.startswith("_")}

    assert methods - METHODS_WITHOUT_A_CALL == set(CALLS)
    assert {it.name for it in OPERATIONS} - ASKED_BY_TESTS_ONLY == {name for name, _, _ in desk.wire.calls}


def test_every_call_sends_pinned_version(desk):
    assert {stripe_adapter.API_VERSION} == {version for _, version, _ in desk.wire.calls}


def test_newer_package_still_sends_pinned_version(monkeypatch):
    monkeypatch.setattr(_ApiVersion, "CURRENT", "2027-01-27.next")
    desk = Desk()

    desk.open_checkout("r1")

    assert [stripe_adapter.API_VERSION] == [version for _, version, _ in desk.wire.calls]


def test_sent_parameters_exist_in_package_types(desk):
    found = [(name, it) for name, _, form in desk.wire.calls for it in find_unknown_in_form(form, params_type(name))]

    assert [] == found


# What the stand-in takes


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda it: it.name)
def test_accepted_parameters_exist_in_package_types(operation):
    assert [] == find_unknown_in_schema(operation.fields, params_type(operation.name))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda it: it.name)
def test_removed_parameters_are_absent_from_package(operation):
    assert set() == set(operation.fields.removed) & set(members(params_type(operation.name)))


# What the stand-in answers


RENDERED: Final = {
    "checkout.session": stripe.checkout.Session,
    "payment_intent": stripe.PaymentIntent,
    "charge": stripe.Charge,
    "refund": stripe.Refund,
}


def test_rendered_fields_exist_in_package_classes(desk):
    desk.account.pay(desk.open_checkout("declined"), "4000000000000002")
    desk.account.bounce(next(iter(desk.account.ledger.refunds)))
    for method in OTHER_METHODS:
        desk.account.receive(method)
    rendered = [event["data"]["object"] for event in desk.account.events]

    assert RENDERED.keys() == {it["object"] for it in rendered}
    assert [] == [
        name for it in rendered for name in find_unknown_in_object(it, [RENDERED[it["object"]]], it["object"])
    ]
    assert [] == [name for it in desk.account.events for name in find_unknown_in_object(it, [stripe.Event], "event")]


def find_unknown_in_object(it: Any, kinds: list[Any], name: str) -> list[str]:
    """What the object has and none of its classes does."""
    if not isinstance(it, dict):
        return []
    classes = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, stripe.StripeObject)]
    if not classes:
        # Metadata and the data of an event are the sender's own.
        return [] if {dict, UntypedStripeObject} & set(map(get_origin, kinds)) else [name]
    (known,) = [fields(one) for one in classes]
    return [
        found
        for key, value in it.items()
        for found in (
            find_unknown_in_object(value, alternatives(known[key]), nested_name(name, key))
            if key in known
            else [nested_name(name, key)]
        )
    ]


def fields(kind: type) -> dict[str, Any]:
    """The fields of a class with their types, of which only the classes nested in it are of interest."""
    return {name: it for base in kind.__mro__ for name, it in vars(base).get("__annotations__", {}).items()}


# That the comparison itself finds what is wrong


@pytest.mark.parametrize(
    ("form", "found"),
    [
        ("payment_method_types[0]=card", ["payment_method_types"]),
        ("allowed_payment_method_types[0]=crad", ["allowed_payment_method_types[0]=crad"]),
        ("allowed_payment_method_types=card", ["allowed_payment_method_types=card"]),
        ("line_items[0][price_data][color]=red", ["line_items[0][price_data][color]"]),
        ("line_items[0][price_data][product_data][names]=x", ["line_items[0][price_data][product_data][names]"]),
        ("line_items[quantity]=1", ["line_items"]),
        ("payment_intent_data[capture_method]=by_hand", ["payment_intent_data[capture_method]=by_hand"]),
        ("payment_intent_data=x", ["payment_intent_data=x"]),
        ("adaptive_pricing[enabled]=no", ["adaptive_pricing[enabled]=no"]),
        ("metadata[a][b]=x", ["metadata"]),
        ("expires_at=soon", ["expires_at=soon"]),
        ("idempotency_key=x", ["idempotency_key"]),
        ("metadata[anything]=x&line_items[0][price_data][product_data][name]=x&expires_at=1", []),
    ],
)
def test_unknown_form_parameter_is_found(form, found):
    assert found == find_unknown_in_form(decode_form(form), params_type("checkout.sessions.create"))


def read_anything(value: str, _name: str) -> str:
    return value


@pytest.mark.parametrize(
    ("known", "found"),
    [
        ({"payment_method_types": ListOf(item=Choice(("card",)))}, ["payment_method_types"]),
        ({"allowed_payment_method_types": ListOf(item=Choice(("card", "crad")))}, ["allowed_payment_method_types[]"]),
        ({"adaptive_pricing": Fields(known={"on": Choice(("true",))})}, ["adaptive_pricing[on]"]),
        (
            {"custom_text": Fields(known={"submit": Fields(known={"text": read_anything})})},
            ["custom_text[submit][text]"],
        ),
        ({"line_items": ListOf(item=Fields(known={"amount": read_anything}))}, ["line_items[][amount]"]),
        ({"line_items": Fields(known={"quantity": read_anything})}, ["line_items"]),
        ({"locale": ListOf(item=read_anything)}, ["locale"]),
        ({"payment_intent_data": Fields(known=AnyKey())}, ["payment_intent_data"]),
        ({"metadata": Fields(known=AnyKey()), "mode": Choice(("payment", "setup"))}, []),
    ],
)
def test_unknown_schema_parameter_is_found(known, found):
    assert found == find_unknown_in_schema(Fields(known=known), params_type("checkout.sessions.create"))


# The package's types


def params_type(operation: str) -> Any:
    """The TypedDict of an operation's parameters, as the package's own method names it."""
    method = attrgetter(operation)(stripe.StripeClient(API_KEY).v1)
    (name,) = re.findall(r"\w+Params", str(signature(method).parameters["params"].annotation))
    *packages, _service, _method = operation.split(".")
    return getattr(import_module(".".join(("stripe.params", *packages))), name)


def members(kind: Any) -> dict[str, Any]:
    """The members of a TypedDict with their types; options of the request are no parameters."""
    # Every TypedDict of parameters inherits the options, whose types are named in another module.
    names = vars(_request_options) | {"StripeContext": stripe.StripeContext}
    types = get_type_hints(kind, localns=names)
    return {name: it for name, it in types.items() if name not in stripe.RequestOptions.__annotations__}


def alternatives(kind: Any) -> list[Any]:
    if get_origin(kind) in {Union, UnionType}:
        return [it for one in get_args(kind) for it in alternatives(one)]
    return [kind]


def words(kinds: list[Any]) -> set[str]:
    """The words that the package knows for a value. It takes any other text too, for methods that Stripe may add."""
    # An empty text is how a value is unset.
    return {word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)} - {""}


def is_value(text: str, kinds: list[Any]) -> bool:
    if known := words(kinds):
        return text in known
    return (
        str in kinds
        or (int in kinds and re.fullmatch(r"-?[0-9]+", text) is not None)
        or (bool in kinds and text in {"true", "false"})
    )


def find_unknown_in_form(sent: Any, kind: Any, name: str = "") -> list[str]:
    """What was sent and does not exist in the type, spelled as on the wire."""
    kinds = alternatives(kind)
    if isinstance(sent, str):
        return [] if is_value(sent, kinds) else [f"{name}={sent}"]
    for one in kinds:
        if is_typeddict(one):
            known = members(one)
            return [
                it
                for key, value in sent.items()
                for it in (
                    find_unknown_in_form(value, known[key], nested_name(name, key))
                    if key in known
                    else [nested_name(name, key)]
                )
            ]
        if get_origin(one) is list and all(key.isdecimal() for key in sent):
            (item,) = get_args(one)
            return [
                it for key, value in sent.items() for it in find_unknown_in_form(value, item, nested_name(name, key))
            ]
        if get_origin(one) is dict and all(isinstance(value, str) for value in sent.values()):
            return []
    return [name]


def find_unknown_in_schema(schema: Reader | Fields | ListOf, kind: Any, name: str = "") -> list[str]:
    """What the table takes and does not exist in the type."""
    kinds = alternatives(kind)
    match schema:
        case Fields(known=AnyKey()):
            return [] if dict in map(get_origin, kinds) else [name]
        case Fields():
            known = next((members(one) for one in kinds if is_typeddict(one)), None)
            if known is None:
                return [name]
            return [
                it
                for key, value in schema.known.items()
                for it in (
                    find_unknown_in_schema(value, known[key], nested_name(name, key))
                    if key in known
                    else [nested_name(name, key)]
                )
            ]
        case ListOf():
            items = [item for one in kinds if get_origin(one) is list for item in get_args(one)]
            return find_unknown_in_schema(schema.item, items[0], nested_name(name, "")) if items else [name]
        case Choice():
            return [] if all(is_value(word, kinds) for word in schema.allowed) else [name]
    scalars = {str, int, bool, NoneType}
    return [] if scalars & set(kinds) or words(kinds) else [name]


def nested_name(name: str, key: str) -> str:
    return f"{name}[{key}]" if name else key
