"""Records, errors and events as Stripe's JSON objects. Decides nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from stand_ins.stripe.records import Charge, Decline, Intent, Record, Refund, Session, SessionStatus, StripeError

API_VERSION: Final = "2026-10-28.endive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Renderer:
    """Records as Stripe's JSON objects; `site` is the address of the checkout pages."""

    site: str
    find: Callable[[str], Record | None] = field(repr=False)

    def object(self, record: Record, expand: tuple[str, ...] = ()) -> dict[str, Any]:
        """The record's object, with the paths in `expand` (`payment_intent.latest_charge`) inlined."""
        match record:
            case Session():
                rendered = _session(record, self.site)
            case Intent():
                rendered = _intent(record)
            case Charge():
                rendered = _charge(record)
            case Refund():
                rendered = _refund(record)
        for path in expand:
            self._expand(rendered, path, path.split("."))
        return rendered

    def _expand(self, rendered: dict[str, Any], path: str, segments: list[str]) -> None:
        name, *rest = segments
        if (rendered["object"], name) not in _EXPANDABLE:
            raise StripeError(f"This property cannot be expanded ({path}).", param="expand")
        if isinstance(rendered[name], str):
            found = self.find(rendered[name])
            rendered[name] = self.object(found) if found else None
        if rest and rendered[name] is not None:
            self._expand(rendered[name], path, rest)

    def listing(
        self, records: tuple[Record, ...], *, url: str, has_more: bool, expand: tuple[str, ...]
    ) -> dict[str, Any]:
        """A list object; the paths of its members begin with `data.` (`data.latest_charge`)."""
        for path in expand:
            if not path.startswith("data."):
                raise StripeError(f"This property cannot be expanded ({path}).", param="expand")
        inner = tuple(path.removeprefix("data.") for path in expand)
        data = [self.object(record, inner) for record in records]
        return {"object": "list", "url": url, "has_more": has_more, "data": data}

    def error(self, refusal: StripeError) -> dict[str, Any]:
        """The body of a refusal: `{"error": {"type", "message", "code"?, "param"?, "payment_intent"?}}`."""
        error: dict[str, Any] = {"type": refusal.kind, "message": refusal.message}
        if refusal.code:
            error |= {"code": refusal.code, "doc_url": f"https://stripe.com/docs/error-codes/{refusal.code}"}
        if refusal.param:
            error["param"] = refusal.param
        if refusal.intent:
            error["payment_intent"] = self.object(refusal.intent)
        return {"error": error}


_EXPANDABLE: Final = frozenset(
    {
        ("checkout.session", "payment_intent"),
        ("payment_intent", "latest_charge"),
        ("charge", "payment_intent"),
        ("refund", "charge"),
        ("refund", "payment_intent"),
    }
)


def _session(it: Session, site: str) -> dict[str, Any]:
    return {
        "id": it.id,
        "object": "checkout.session",
        "amount_subtotal": it.amount,
        "amount_total": it.amount,
        "cancel_url": it.cancel_url,
        "client_reference_id": it.client_reference_id,
        "created": it.created,
        "currency": it.currency,
        "customer": None,
        "customer_details": {"email": it.payer_email} if it.payer_email else None,
        "customer_email": it.customer_email,
        "expires_at": it.expires_at,
        "livemode": False,
        "metadata": it.metadata,
        "mode": "payment",
        "payment_intent": it.intent_id,
        "payment_method_types": ["card"],
        # A held amount is not paid; only a captured one is.
        "payment_status": "paid" if it.paid else "unpaid",
        "status": it.status.value,
        "success_url": it.success_url,
        "ui_mode": "hosted_page",
        "url": f"{site}/checkout/{it.id}" if it.status is SessionStatus.OPEN else None,
    }


def _intent(it: Intent) -> dict[str, Any]:
    return {
        "id": it.id,
        "object": "payment_intent",
        "amount": it.amount,
        "amount_capturable": it.amount_capturable,
        "amount_received": it.amount_received,
        "canceled_at": it.canceled_at,
        "cancellation_reason": it.cancellation_reason,
        "capture_method": it.capture_method,
        "created": it.created,
        "currency": it.currency,
        "customer": None,
        "description": it.description,
        "last_payment_error": _decline(it.last_error) if it.last_error else None,
        "latest_charge": it.charge_id,
        "livemode": False,
        "metadata": it.metadata,
        "payment_method_types": [it.method],
        "status": it.status.value,
    }


def _charge(it: Charge) -> dict[str, Any]:
    return {
        "id": it.id,
        "object": "charge",
        "amount": it.amount,
        "amount_captured": it.amount_captured,
        "amount_refunded": it.amount_refunded,
        "captured": it.captured,
        "created": it.created,
        "currency": it.currency,
        "failure_code": it.failure.code if it.failure else None,
        "failure_message": it.failure.message if it.failure else None,
        "livemode": False,
        "metadata": it.metadata,
        "paid": it.failure is None,
        "payment_intent": it.intent_id,
        "payment_method_details": {it.method: _method_details(it), "type": it.method},
        "refunded": 0 < it.amount_captured == it.amount_refunded,
        "status": "failed" if it.failure else "succeeded",
    }


def _method_details(it: Charge) -> dict[str, Any]:
    """The details of the charge's payment method."""
    match it.method:
        case "link":
            return {"country": "DE"}
        case "sepa_debit":
            return {"bank_code": "37040044", "country": "DE", "last4": it.last4}
    card: dict[str, Any] = {"brand": it.brand, "funding": "credit", "last4": it.last4, "network": it.brand}
    if it.capture_before is not None:
        card["capture_before"] = it.capture_before
    return card


def _refund(it: Refund) -> dict[str, Any]:
    return {
        "id": it.id,
        "object": "refund",
        "amount": it.amount,
        "charge": it.charge_id,
        "created": it.created,
        "currency": it.currency,
        "metadata": it.metadata,
        "payment_intent": it.intent_id,
        "reason": it.reason,
        "status": "failed" if it.failed else "succeeded",
        **({"failure_reason": "lost_or_stolen_card"} if it.failed else {}),
    }


def _decline(it: Decline) -> dict[str, Any]:
    error = {"type": "card_error", "code": it.code, "message": it.message}
    return error | {"decline_code": it.decline_code} if it.decline_code else error
