"""The pages that a payer sees, as strings of HTML; every value is escaped here."""

from decimal import Decimal
from html import escape
from pathlib import Path
from string import Template
from typing import Final

from stand_ins.stripe.records import TEST_CARDS, Session

# https://docs.stripe.com/currencies#zero-decimal and #three-decimal
_EXPONENT: Final = {
    **dict.fromkeys(("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv"), 0),
    **dict.fromkeys(("xaf", "xof", "xpf"), 0),
    **dict.fromkeys(("bhd", "jod", "kwd", "omr", "tnd"), 3),
}
EXAMPLE_ADDRESS: Final = "driver@example.com"
_SYMBOL: Final = {"eur": "€", "gbp": "£", "usd": "$"}
_PAGES: Final = {
    path.stem: Template(path.read_text(encoding="utf-8")) for path in (Path(__file__).parent / "pages").glob("*.html")
}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def format_amount(amount: int, currency: str) -> str:
    """The amount of minor units as text: `€18.20`, `JPY 1820`, `BHD 1.820`."""
    major = Decimal(amount).scaleb(-_EXPONENT.get(currency, 2))
    return f"{_SYMBOL.get(currency, currency.upper() + ' ')}{major:,f}"


def pay_page(
    session: Session,
    *,
    nonce: str,
    problem: str | None = None,
    card_number: str = TEST_CARDS[0].number,
    address: str | None = None,
) -> str:
    """The page with the amount, the form and, after a decline, the problem."""
    amount = format_amount(session.amount, session.currency)
    manual = session.capture_method == "manual"
    hold = f"This is a hold of at most {amount}. You pay only what you use; the rest is released."
    cards = "".join(
        _fill("card", digits=_group_digits(card.number), last4=card.last4, title=card.title) for card in TEST_CARDS
    )
    return _shell(
        f"Pay {amount}",
        nonce=nonce,
        content=_fill(
            "pay",
            session_id=session.id,
            item=session.item_name,
            amount=amount,
            label="Authorize up to" if manual else "Pay",
            explanation=hold if manual else "The amount is charged at once.",
            message=_fill("message", text=session.submit_message) if session.submit_message else Markup(),
            problem=_fill("problem", text=problem) if problem else Markup(),
            email=address or session.payer_email or session.customer_email or EXAMPLE_ADDRESS,
            card_number=_group_digits(card_number),
            cards=Markup(cards),
            button=f"Authorize {amount}" if manual else f"Pay {amount}",
            cancel=_link(session.cancel_url, "Cancel and go back") if session.cancel_url else Markup(),
            nonce=nonce,
        ),
    )


def authentication_page(session: Session, *, nonce: str) -> str:
    """The page on which the payer's bank asks for authentication."""
    amount = format_amount(session.amount, session.currency)
    content = _fill("authenticate", session_id=session.id, amount=amount, item=session.item_name)
    return _shell("Confirm with your bank", nonce=nonce, content=content)


def notice_page(title: str, text: str, *, nonce: str, link: str | None = None, link_text: str = "Continue") -> str:
    """A page with a message, and a link if there is a next page."""
    content = _fill("notice", title=title, text=text, link=_link(link, link_text) if link else Markup())
    return _shell(title, nonce=nonce, content=content)


def _shell(title: str, *, nonce: str, content: Markup) -> str:
    return _fill("shell", title=title, nonce=nonce, content=content)


def _fill(page: str, **values: str) -> Markup:
    escaped = {name: value if isinstance(value, Markup) else escape(value) for name, value in values.items()}
    return Markup(_PAGES[page].substitute(escaped))


def _link(url: str, text: str) -> Markup:
    # A session's addresses were checked to be http(s) when it was created, so none can be a script.
    return _fill("link", url=url, text=text)


def _group_digits(number: str) -> str:
    return " ".join(number[index : index + 4] for index in range(0, len(number), 4))
