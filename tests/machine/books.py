"""The payment provider of the money machine: the stand-in for Stripe with ordered faults. The service uses it in
Stripe's wire format, and the machine reads its records directly."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

from csms.adapters.stripe import INTENT_STATUSES, StripePayments
from csms.errors import PaymentRefused, PaymentUnavailable
from csms.model import OutboxKind
from csms.ports.payments import Order, Payment, PaymentStatus
from stand_ins.stripe import Account, InProcess, ledger, sequential_ids
from stand_ins.stripe.records import IntentStatus, SessionStatus
from tests.fakes import Clock

API_KEY: Final = "sk_test_machine"
SECRET: Final = "whsec_machine"
CARD: Final = "4242424242424242"
DECLINED: Final = "4000000000000002"
DRIVER: Final = "ada@example.com"
FINAL_STATUS: Final = 402
"""The only fault that the service may treat as final."""
COUNTED_KINDS: Final = frozenset(
    {OutboxKind.CAPTURE, OutboxKind.RELEASE, OutboxKind.REFUND, OutboxKind.EXPIRE_CHECKOUT}
)
"""The outbox items whose failed attempts are counted."""
EXPIRED_REASON: Final = "expired"
OPERATION_BY_NAME: Final = {
    "open": "checkout.sessions.create",
    "payment": "checkout.sessions.retrieve",
    "expire": "checkout.sessions.expire",
    "capture": "payment_intents.capture",
    "release": "payment_intents.cancel",
    "look": "payment_intents.retrieve",
    "refund": "refunds.create",
}
"""The service's operations, by the stand-in's names for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The result of the next call of the operation; without a status nothing is answered."""

    operation: str
    status: int | None
    acted: bool = False


class FaultyClient(InProcess):
    """A connection to the account that is interrupted once, before or after one of its calls."""

    def __init__(self, account: Account, heard: Callable[[str, Fault | None, int | None], None]) -> None:
        super().__init__(account)
        self.down = False
        self.requests = 0
        self.faults: list[Fault] = []
        self._account = account
        self._record_answer = heard
        self._trouble: tuple[int, bool, Callable[[], None]] | None = None

    def interrupt(self, ahead: int, *, after: bool, what: Callable[[], None]) -> None:
        """Let `what` happen at the call after so many others."""
        self._trouble = (ahead, after, what)

    def clear_faults(self) -> None:
        """Drop every fault that has not happened."""
        self.down = False
        self.faults.clear()
        self._trouble = None

    def request(self, method: str, url: str, headers: Any, post_data: Any = None, **_: Any) -> tuple[str, int, Any]:
        """The account's answer, unless a fault was ordered."""
        self.requests += 1
        what, after = self._take_interruption()
        if what is not None and not after:
            what()
        fault = self._take_fault(method, url)
        if fault is not None and fault.status is None:
            self._account.hang_next(acted=fault.acted)
        elif fault is not None:
            self._account.fail_next(status=fault.status, acted=fault.acted)
        status: int | None = None
        try:
            answer = super().request(method, url, headers, post_data)
            status = answer[1]
        finally:
            self._record_answer(f"{url}?{post_data}", fault, status)
        if what is not None and after:
            what()
        return answer

    def _take_fault(self, method: str, url: str) -> Fault | None:
        if self.down:
            return Fault(operation="", status=None)
        asked = _operation_name(method, url)
        found = next((fault for fault in self.faults if fault.operation == asked), None)
        if found is not None:
            self.faults.remove(found)
        return found

    def _take_interruption(self) -> tuple[Callable[[], None] | None, bool]:
        if self._trouble is None:
            return None, False
        ahead, after, what = self._trouble
        self._trouble = (ahead - 1, after, what) if ahead else None
        return (None, False) if ahead else (what, after)


class TrackingStripePayments(StripePayments):
    """A PaymentProvider that remembers on which payments it had a fault, and which attempts failed."""

    def __init__(self, clock: Clock) -> None:
        self.account = Account(api_key=API_KEY, webhook_secret=SECRET, clock=lambda: clock.at, new_id=sequential_ids())
        self.wire = FaultyClient(self.account, self._record_answer)
        super().__init__(api_key=API_KEY, webhook_secret=SECRET, http_client=self.wire)
        self.hold = timedelta(days=7)
        self.refused: set[str] = set()
        self.silent: Counter[str] = Counter()
        self.failures: Counter[tuple[str, OutboxKind]] = Counter()
        self.refund_keys: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
        self.paid_at: dict[str, datetime] = {}
        self._notices = count(1)

    # For the service

    def capture(self, payment_id: str, amount: int, *, key: str) -> Payment:
        """Capture the amount."""
        with self._count_failures(OutboxKind.CAPTURE, payment_id):
            return super().capture(payment_id, amount, key=key)

    def release(self, payment_id: str, *, key: str) -> Payment:
        """Release the hold."""
        with self._count_failures(OutboxKind.RELEASE, payment_id):
            return super().release(payment_id, key=key)

    def refund(self, payment_id: str, amount: int, *, key: str) -> Payment:
        """Refund up to this total amount."""
        self.refund_keys[payment_id, amount].add(key)
        with self._count_failures(OutboxKind.REFUND, payment_id):
            return super().refund(payment_id, amount, key=key)

    def expire_checkout(self, checkout_id: str, *, key: str) -> Payment:
        """Expire the checkout."""
        with self._count_failures(OutboxKind.EXPIRE_CHECKOUT, checkout_id):
            return super().expire_checkout(checkout_id, key=key)

    # For the machine

    @property
    def checkouts(self) -> dict[str, str]:
        """The reservation of each checkout."""
        return {one.id: one.metadata["reservation_id"] for one in self.account.ledger.sessions.values()}

    @property
    def calls(self) -> list[tuple[str, str, int]]:
        """The checkouts that were opened, as the fake provider lists its calls."""
        return [("open_checkout", rid, 0) for rid in self.checkouts.values()]

    def payments(self) -> list[Payment]:
        """Every payment for which a card was used, however it ended."""
        self.account.sweep()
        return [self._read_payment(pid) for pid in self.account.ledger.intents]

    def find_payment(self, checkout_id: str) -> Payment:
        """The payment as the stand-in stores it."""
        session = self.account.session(checkout_id)
        expired = session.status is SessionStatus.EXPIRED
        if session.intent_id is None or expired:
            status = PaymentStatus.EXPIRED if expired else PaymentStatus.OPEN
            return Payment(status=status, reservation_id=session.metadata["reservation_id"])
        return self._read_payment(session.intent_id)

    def pay(self, checkout_id: str, card: str = CARD) -> None:
        """Pay with a card as the driver. A hold lasts for `hold`."""
        self.account.pay(checkout_id, card, address=DRIVER)
        book = self.account.ledger
        intent = book.intents[book.sessions[checkout_id].intent_id or ""]
        charge = book.charges[intent.charge_id or ""]
        if charge.capture_before is not None:  # A declined card holds nothing.
            self.paid_at.setdefault(intent.id, datetime.fromtimestamp(self.account.now(), UTC))
            book.keep((replace(charge, capture_before=self.account.now() + int(self.hold.total_seconds())),))

    def lapse(self, checkout_id: str) -> None:
        """End an open checkout or an authorization, as the bank or the provider's clock does."""
        session, now = self.account.session(checkout_id), self.account.now()
        intent = self.account.ledger.find_intent(session)
        charge = self.account.ledger.find_charge(intent) if intent is not None else None
        held = intent is not None and intent.status is IntentStatus.REQUIRES_CAPTURE
        if intent is not None and charge is not None and held:
            self.account.commit(ledger.lapse(intent, charge, now=now))
        else:
            self.account.commit(ledger.expire(session, intent, now=now))
        self.refused |= {checkout_id, intent.id if intent is not None else checkout_id}

    def lapse_overdue(self) -> None:
        """Record the payments that lapsed by time without a sweep, so that they count as faults of the provider."""
        self.account.sweep()
        intents = self.account.ledger.intents.values()
        self.refused |= {intent.id for intent in intents if intent.cancellation_reason == EXPIRED_REASON}

    def clear_faults(self) -> None:
        """Drop every fault that has not happened."""
        self.wire.clear_faults()

    def hold_for_nobody(self, order: Order) -> str:
        """Let a driver pay for an order that csms does not know, and return the payment's id."""
        checkout_id = self.open_checkout(order, key=f"{order.reservation_id}:open_checkout").checkout_id
        self.pay(checkout_id)
        return self.find_payment(checkout_id).payment_id or ""

    def build_webhook(self, reservation_id: str | None) -> tuple[bytes, str]:
        """A webhook about the reservation, whose body claims a higher amount than was paid."""
        subject = {"metadata": {"reservation_id": reservation_id}, "status": "requires_capture"}
        lie = {"object": "payment_intent", "amount": 10**6, "amount_capturable": 10**6, "amount_received": 10**6}
        return self.account.sign_event(
            {
                "id": f"evt_made_up_{next(self._notices)}",
                "object": "event",
                "type": "payment_intent.amount_capturable_updated",
                "data": {"object": subject | lie},
            }
        )

    def settle_by_hand(self, payment_id: str, kept: int) -> int:
        """Settle the payment in the provider's dashboard, so that at most `kept` stays paid, and return what is
        paid."""
        book, now = self.account.ledger, self.account.now()
        intent = book.intents[payment_id]
        charge = book.charges[intent.charge_id or ""]
        if intent.status is IntentStatus.REQUIRES_CAPTURE and kept >= ledger.MINIMUM_AMOUNT[intent.currency]:
            self.account.commit(ledger.capture(intent, charge, kept))
        elif intent.status is IntentStatus.REQUIRES_CAPTURE:
            self.account.commit(ledger.cancel(intent, None, reason=None, now=now))
        elif charge.captured and (over := charge.amount_captured - charge.amount_refunded - kept) > 0:
            new_id = self.account.new_id
            self.account.commit(ledger.refund(charge, amount=over, reason=None, metadata={}, now=now, new_id=new_id))
        payment = self._read_payment(payment_id)
        return payment.captured_amount - payment.refunded_amount

    def _read_payment(self, payment_id: str) -> Payment:
        intent = self.account.ledger.intents[payment_id]
        charge = self.account.ledger.find_charge(intent)
        captured = charge is not None and charge.captured
        return Payment(
            status=INTENT_STATUSES.get(intent.status, PaymentStatus.OPEN),
            payment_id=payment_id,
            reservation_id=intent.metadata["reservation_id"],
            authorised_amount=intent.amount,
            captured_amount=charge.amount_captured if charge is not None and captured else 0,
            refunded_amount=charge.amount_refunded if charge is not None else 0,
            capture_before=_to_datetime(charge.capture_before) if charge is not None else None,
        )

    @contextmanager
    def _count_failures(self, kind: OutboxKind, what: str) -> Iterator[None]:
        """Count the attempt if the service gets a failure for it."""
        book = self.account.ledger
        known = book.find(what)
        try:
            yield
        except (PaymentRefused, PaymentUnavailable):
            self.failures[(known.metadata["reservation_id"] if known is not None else "", kind)] += 1
            raise

    def _record_answer(self, asked: str, fault: Fault | None, status: int | None) -> None:
        """Record the payment that the answer was about, if the answer was final or unusable."""
        book = self.account.ledger
        named = {one for one in (*book.intents, *book.sessions) if one in asked}
        if fault is not None and fault.status == FINAL_STATUS and not fault.acted:
            self.refused |= named
        if status is None or status == 409 or status == 429 or status >= 500:
            self.silent.update(named)


def _operation_name(method: str, url: str) -> str:
    """The stand-in's name of the operation."""
    path = url.partition("?")[0].partition("/v1/")[2].split("/")
    match method.upper(), path:
        case "POST", ["checkout", "sessions"]:
            return "checkout.sessions.create"
        case "GET", ["checkout", "sessions", _]:
            return "checkout.sessions.retrieve"
        case "POST", ["refunds"]:
            return "refunds.create"
        case "GET", ["payment_intents", _]:
            return "payment_intents.retrieve"
        case _:
            return ".".join((*path[:-2], path[-1]))


def _to_datetime(timestamp: int | None) -> datetime | None:
    return datetime.fromtimestamp(timestamp, UTC) if timestamp is not None else None
