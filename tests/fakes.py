"""What stands in for the outside in tests: a table, the stations' sockets, a payment provider, a clock, fresh ids.

Each keeps its state for the test to look at, and sits the same exam as the real one (tests/contracts). What a test
orders to go wrong goes wrong once.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from threading import Lock
from typing import Any, Final

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from csms.adapters.dynamodb import (
    MAX_WRITES,
    Due,
    Item,
    Key,
    Store,
    build_key,
    from_item,
    read_due_item,
    read_item,
    skim_item,
    to_item,
)
from csms.errors import (
    BadRequest,
    Conflict,
    ConnectionGone,
    PaymentRefused,
    PaymentUnavailable,
    StoreUnavailable,
    Unreachable,
)
from csms.model import Append, CommandRecord, Drop, NewIds, Renew, Require, Save, TimelineEntry, UnknownStation, Write
from csms.ports.payments import Checkout, Order, Payment, PaymentStatus, ProviderEvent
from csms.pricing.receipt import Mail

START: Final = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
HOLD: Final = timedelta(days=7)
"""How long the fake provider's authorisations can be captured."""


@dataclass(slots=True)
class Clock:
    """The time, which stands still until it is moved."""

    at: datetime = START

    def __call__(self) -> datetime:
        return self.at

    def move(self, by: timedelta) -> None:
        """It is that much later now."""
        self.at += by


@dataclass(slots=True)
class SequentialIds:
    """Ids in the order in which they were asked for; `name` keeps two sources apart."""

    name: str = ""
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def __call__(self) -> NewIds:
        number = next(self.numbers)
        reservation_id = hashlib.sha256(f"{self.name}{number}".encode()).hexdigest()[:32]
        return NewIds(
            reservation_id=reservation_id,
            id_tag=f"W{reservation_id[:19]}".upper(),
            transaction_id=str(number),
            call_id=f"call-{self.name}{number}",
            epoch=f"epoch-{self.name}{number}",
        )


class FakeStore(Store):
    """The table in memory: Store's own questions, answered by a dictionary of items that were through DynamoDB's types.

    `unavailable` makes it silent, as a table that does not answer.
    """

    def __init__(self) -> None:
        self.unavailable = False
        self._items: dict[Key, Item] = {}
        self._lock = Lock()

    def entities(self) -> list[Any]:
        """All that is stored, in the order of the keys."""
        return [from_item(item) for _, item in sorted(self._current_items().items())]

    def items(self) -> list[Item]:
        """All items as plain values, in the order of the keys."""
        return [item for _, item in sorted(self._current_items().items())]

    def commit(self, writes: Iterable[Write]) -> None:
        """All of the writes, or Conflict and none of them."""
        wanted = list(writes)
        if not wanted:
            return
        self._require_available()
        keys = [_write_key(write) for write in wanted]
        if len(set(keys)) < len(keys) or len(wanted) > MAX_WRITES:
            raise StoreUnavailable("The database answered ValidationException.")
        with self._lock:
            changed = dict(self._items)
            for key, write in zip(keys, wanted, strict=True):
                self._apply(changed, key, write, alone=len(wanted) == 1)
            self._items = changed

    def put(self, item: Item) -> None:
        """An item that no entity made, such as one of another release."""
        with self._lock:
            self._items = self._items | {(item["PK"], item["SK"]): _round_trip(item)}

    def due_items(self, now: datetime, *, shard: int, page: int) -> Iterator[Due]:  # noqa: ARG002 - it has no pages
        """What is due by now in the shard, oldest first; a page is all there is."""
        self._require_available()
        mine = [item for item in self._current_items().values() if item.get("due_shard") == f"DUE#{shard}"]
        waiting = [item for item in mine if datetime.fromisoformat(item["due_at"]) <= now]
        for item in sorted(waiting, key=lambda item: str(item["due_at"])):
            yield read_due_item(item)

    def timeline(self, station_id: str, *, limit: int) -> tuple[TimelineEntry, ...]:
        """The station's latest timeline entries, newest first."""
        newest = reversed(list(self._query(f"TIMELINE#{station_id}")))
        return tuple(entry for entry in newest if isinstance(entry, TimelineEntry))[:limit]

    def commands(self, station_id: str, *, limit: int) -> tuple[CommandRecord, ...]:
        """The station's commands that are over, newest first."""
        newest = reversed(list(self._query(f"COMMANDS#{station_id}")))
        return tuple(record for record in newest if isinstance(record, CommandRecord))[:limit]

    def unknown_stations(self, *, limit: int) -> tuple[UnknownStation, ...]:
        """Stations that nobody registered, last name first."""
        return tuple(one for one in reversed(list(self._query("STRANGERS"))) if isinstance(one, UnknownStation))[:limit]

    def _read_directory(self, name: str, limit: int, after: str | None) -> tuple[list[str], str | None]:
        """A page of a directory's keys, and where the next one begins; None after the last."""
        self._require_available()
        rows = [
            i for i in self._current_items().values() if str(i.get("directory_shard", "")).rpartition("#")[0] == name
        ]
        rows.sort(key=lambda item: (item["directory_shard"], item["directory_key"]))
        keys = [str(item["directory_key"]) for item in rows]
        start = keys.index(after) + 1 if after is not None else 0
        page = keys[start : start + limit]
        return page, page[-1] if len(page) == limit else None

    def _apply(self, items: dict[Key, Item], key: Key, write: Write, *, alone: bool) -> None:
        standing = items.get(key)
        match write:
            case Save(entity):
                wanted = _round_trip(to_item(replace(entity, version=entity.version + 1)))
                if not (alone and standing == wanted):
                    _require_version(standing, entity.version)
                items[key] = wanted
            case Drop(entity):
                _require_version(standing, entity.version)
                items.pop(key, None)
            case Require(entity):
                _require_version(standing, entity.version)
            case Append(record, once):
                wanted = _round_trip(to_item(record))
                if once and standing is not None and not (alone and standing == wanted):
                    raise Conflict("Somebody else changed it first.")
                items[key] = wanted
            case Renew():
                mine = standing is not None and standing.get("connection_id") == write.connection_id
                if (
                    standing is None
                    or not mine
                    or datetime.fromisoformat(standing["lease_until"]) <= write.last_seen_at
                ):
                    raise Conflict("Somebody else changed it first.")
                items[key] = standing | {
                    "last_seen_at": write.last_seen_at.isoformat(),
                    "lease_until": write.lease_until.isoformat(),
                }

    def _get(self, key: Key) -> Any:
        self._require_available()
        item = self._current_items().get(key)
        return read_item(item) if item else None

    def _batch_get(self, keys: list[Key]) -> list[Any]:
        return [found for key in keys if (found := self._get(key)) is not None]

    def _query(self, pk: str) -> Iterator[Any]:
        self._require_available()
        yield from (skim_item(item) for key, item in sorted(self._current_items().items()) if key[0] == pk)

    def _current_items(self) -> dict[Key, Item]:
        """The items as they are now; a commit puts a new dictionary in its place."""
        with self._lock:
            return self._items

    def _require_available(self) -> None:
        if self.unavailable:
            raise StoreUnavailable("The database answered nothing.")


def _write_key(write: Write) -> Key:
    match write:
        case Renew():
            return f"STATION#{write.station_id}", "PRESENCE"
        case Append(record):
            return build_key(record)
        case Save(entity) | Drop(entity) | Require(entity):
            return build_key(entity)


def _require_version(standing: Item | None, version: int | None) -> None:
    """Conflict unless the item is as it was read; version 0 was never stored, None is there and has none."""
    if version is None and standing is not None and "version" not in standing:
        return
    known = int(standing["version"]) if standing is not None and "version" in standing else 0
    if known != version or (version == 0 and standing is not None):
        raise Conflict("Somebody else changed it first.")


def _round_trip(item: Item) -> Item:
    there, back = TypeSerializer(), TypeDeserializer()
    return {name: back.deserialize(there.serialize(value)) for name, value in item.items()}


@dataclass(slots=True)
class FakeGateway:
    """The stations' sockets: `sent` is every frame that was taken, `closed` every socket that was closed."""

    sent: list[tuple[str, str]] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    unreachable: bool = False

    @property
    def frames(self) -> list[Any]:
        """The frames that were taken, read."""
        return [json.loads(frame) for _, frame in self.sent]

    def post(self, connection_id: str, frame: str) -> None:
        """The frame was taken; ConnectionGone or Unreachable if it was not."""
        if self.unreachable:
            raise Unreachable("The frame was not taken: as ordered.")
        if connection_id in self.gone:
            raise ConnectionGone("The station's socket is closed.")
        self.sent.append((connection_id, frame))

    def is_connected(self, connection_id: str) -> bool:
        """Whether the socket is there; Unreachable if it cannot be asked."""
        if self.unreachable:
            raise Unreachable("Nobody knows of the socket: as ordered.")
        return connection_id not in self.gone

    def close(self, connection_id: str) -> None:
        """The socket is closed, if it was not already."""
        if self.unreachable:
            raise Unreachable("The socket was not closed: as ordered.")
        if connection_id not in self.gone:
            self.closed.append(connection_id)
            self.gone.add(connection_id)


@dataclass(slots=True)
class FakeMailer:
    """Drivers' mail boxes: `sent` is every mail that was taken, with its address."""

    sent: list[tuple[str, Mail]] = field(default_factory=list)
    unreachable: bool = False

    def send(self, address: str, mail: Mail) -> None:
        """The mail was taken; Unreachable if it was not."""
        if self.unreachable:
            raise Unreachable("The mail was not taken: as ordered.")
        self.sent.append((address, mail))


@dataclass(slots=True)
class _CheckoutRecord:
    """One checkout and its payment, as the provider keeps them; `paid_at` is when the driver paid."""

    order: Order
    checkout: Checkout
    payment: Payment
    paid_at: datetime | None = None
    email: str | None = None


@dataclass(slots=True)
class _Fault:
    operation: str
    error: Exception
    acted: bool


class FakeProvider:
    """A PaymentProvider without a network, as strict as a real one; `pay` is the driver's hand, `now` its own clock.

    A key used again gives the first answer, and is refused for anything else. `calls` are the operations that took
    effect.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: START) -> None:
        self.calls: list[tuple[str, str, int]] = []
        self._now = now
        self._secret = b"whsec_fake"
        self._notices = count(1)
        self._paying: dict[str, _CheckoutRecord] = {}
        self._answers: dict[str, tuple[Any, Any]] = {}
        self._faults: list[_Fault] = []
        self._lock = Lock()

    def fail_next(self, operation: str, error: Exception | None = None, *, acted: bool = False) -> None:
        """The next call of the operation (a method's name) raises (PaymentUnavailable, if nothing else is given); with
        acted it took effect all the same."""
        self._faults.append(_Fault(operation=operation, error=error or PaymentUnavailable("As ordered."), acted=acted))

    def pay(self, checkout_id: str, *, email: str | None = None) -> None:
        """The driver pays; a checkout that is not open cannot be paid."""
        paying = self._paying[checkout_id]
        if paying.payment.status is not PaymentStatus.OPEN:
            raise PaymentRefused(f"The checkout is {paying.payment.status}.")
        paying.email = email
        paying.paid_at = self._now()
        paying.payment = replace(
            paying.payment,
            status=PaymentStatus.AUTHORISED,
            payment_id=checkout_id.replace("checkout", "payment"),
            authorised_amount=paying.order.amount,
            capture_before=paying.paid_at + HOLD,
            card_brand="visa",
            card_last4="4242",
        )

    def add_checkout(self, order: Order, checkout: Checkout, payment: Payment) -> None:
        """A checkout from before the test, with its payment as it stands."""
        self._paying[checkout.checkout_id] = _CheckoutRecord(
            order=order, checkout=checkout, payment=payment, paid_at=self._now() if payment.payment_id else None
        )

    def build_webhook(
        self, reservation_id: str | None, kind: str = "payment.authorised", *, event_id: str | None = None
    ) -> tuple[bytes, str]:
        """A webhook's body and its signature, of a new event unless its id is given."""
        event = {"id": event_id or f"event-{next(self._notices)}", "kind": kind, "reservation": reservation_id}
        body = json.dumps(event).encode()
        return body, self._signature(body)

    def captured_amounts(self) -> list[int]:
        """The amounts that were captured, payment by payment."""
        standing = [paying.payment for paying in self._paying.values()]
        return [p.captured_amount for p in standing if p.status is PaymentStatus.CAPTURED]

    def refunded_amount(self) -> int:
        """What went back, over all payments, in minor units."""
        return sum(paying.payment.refunded_amount for paying in self._paying.values())

    def held_amount(self) -> int:
        """What is authorised and neither captured nor released, over all payments, in minor units."""
        standing = [paying.payment for paying in self._paying.values()]
        return sum(p.authorised_amount for p in standing if p.status is PaymentStatus.AUTHORISED)

    def open_checkout(self, order: Order, *, key: str) -> Checkout:
        """A checkout for the order."""

        def act() -> Checkout:
            checkout_id = f"checkout-{order.reservation_id}-{len(self._paying) + 1}"
            checkout = Checkout(checkout_id=checkout_id, url=f"https://pay.example/{checkout_id}")
            payment = Payment(status=PaymentStatus.OPEN, reservation_id=order.reservation_id)
            self._paying[checkout_id] = _CheckoutRecord(order=order, checkout=checkout, payment=payment)
            return checkout

        return self._run_once("open_checkout", key, order, act, order.reservation_id, order.amount)

    def payment(self, checkout_id: str) -> Payment:
        """How the checkout's payment stands."""
        self._raise_fault("payment", acted=False)
        return self._find_checkout(checkout_id).payment

    def expire_checkout(self, checkout_id: str, *, key: str) -> Payment:
        """The payment after the checkout was closed, if it was still open."""

        def act() -> Payment:
            paying = self._find_checkout(checkout_id)
            if paying.payment.status is PaymentStatus.OPEN:
                paying.payment = replace(paying.payment, status=PaymentStatus.EXPIRED)
            return paying.payment

        return self._run_once("expire_checkout", key, checkout_id, act, checkout_id)

    def capture(self, payment_id: str, amount: int, *, key: str) -> Payment:
        """The payment after this much was captured; found so if it was before."""

        def act() -> Payment:
            paying = self._find_payment(payment_id)
            if paying.payment.status is PaymentStatus.AUTHORISED and not 0 < amount <= paying.payment.authorised_amount:
                raise PaymentRefused("The payment provider refused: amount_too_large.")
            return self._change_status(paying, PaymentStatus.CAPTURED, captured_amount=amount)

        return self._run_once("capture", key, (payment_id, amount), act, payment_id, amount)

    def release(self, payment_id: str, *, key: str) -> Payment:
        """The payment after its authorisation was let go; found so if it was before."""
        return self._run_once(
            "release",
            key,
            payment_id,
            lambda: self._change_status(self._find_payment(payment_id), PaymentStatus.RELEASED),
            payment_id,
        )

    def refund(self, payment_id: str, amount: int, *, key: str) -> Payment:
        """The payment after this much went back in all; found so if it did before."""

        def act() -> Payment:
            paying = self._find_payment(payment_id)
            if paying.payment.refunded_amount >= amount:
                return paying.payment
            if paying.payment.status is not PaymentStatus.CAPTURED or amount > paying.payment.captured_amount:
                raise PaymentRefused("The payment provider refused: InvalidRequestError.")
            paying.payment = replace(paying.payment, refunded_amount=amount)
            return paying.payment

        return self._run_once("refund", key, (payment_id, amount), act, payment_id, amount)

    def authorisations(self, since: datetime) -> Iterator[Payment]:
        """Every payment made since then that is authorised, newest first."""
        self._raise_fault("authorisations", acted=False)
        for paying in reversed(list(self._paying.values())):
            recent = paying.paid_at is not None and paying.paid_at >= since
            if recent and paying.payment.status is PaymentStatus.AUTHORISED:
                yield paying.payment

    def email_address(self, checkout_id: str) -> str | None:
        """The address that the driver paid with."""
        self._raise_fault("email_address", acted=False)
        return self._find_checkout(checkout_id).email

    def read_webhook(self, body: bytes, signature: str) -> ProviderEvent:
        """The event in a body signed by `notice`."""
        if not hmac.compare_digest(signature, self._signature(body)):
            raise BadRequest("The signature does not fit the body.", code="InvalidSignature")
        return self.read_event(json.loads(body))

    def read_event(self, detail: Mapping[str, Any]) -> ProviderEvent:
        """The event in what `notice` wrote."""
        match detail:
            case {"id": str(event_id), "kind": str(kind), "reservation": reservation_id}:
                return ProviderEvent(event_id=event_id, kind=kind, reservation_id=reservation_id)
        raise BadRequest("This is no event of the payment provider.", code="InvalidEvent")

    def _run_once(
        self, operation: str, key: str, asked: Any, act: Callable[[], Any], what: str, amount: int = 0
    ) -> Any:
        with self._lock:
            self._raise_fault(operation, acted=False)
            first, answer = self._answers.get(key, (None, None))
            if first is not None and first != (operation, asked):
                raise PaymentRefused("The payment provider refused: idempotency_error.")
            if first is None:
                answer = act()
                self._answers[key] = ((operation, asked), answer)
                self.calls.append((operation, what, amount))
            self._raise_fault(operation, acted=True)
            return answer

    def _raise_fault(self, operation: str, *, acted: bool) -> None:
        fault = next((f for f in self._faults if f.operation == operation), None)
        if fault is not None and fault.acted is acted:
            self._faults.remove(fault)
            raise fault.error

    def _change_status(self, paying: _CheckoutRecord, status: PaymentStatus, *, captured_amount: int = 0) -> Payment:
        if paying.payment.status is PaymentStatus.AUTHORISED:
            paying.payment = replace(paying.payment, status=status, captured_amount=captured_amount)
        if paying.payment.status is not status:
            raise PaymentRefused(f"The payment is {paying.payment.status}, not {status}.")
        return paying.payment

    def _find_checkout(self, checkout_id: str) -> _CheckoutRecord:
        if checkout_id not in self._paying:
            raise PaymentRefused("The payment provider refused: resource_missing.")
        return self._paying[checkout_id]

    def _find_payment(self, payment_id: str) -> _CheckoutRecord:
        for paying in self._paying.values():
            if paying.payment.payment_id == payment_id:
                return paying
        raise PaymentRefused("The payment provider refused: resource_missing.")

    def _signature(self, body: bytes) -> str:
        return hmac.new(self._secret, body, hashlib.sha256).hexdigest()
