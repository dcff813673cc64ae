"""What a driver is told for each reason, one text per language, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from csms.occupancy.explanation import IN_USE, NOT_READY, SHARED_TEXTS

ENGLISH: Final = "en"
MAX_LANGUAGES: Final = 20
"""Of one header; browsers send fewer."""

CONTENDED: Final = "Contended"
"""Others kept changing the connector, which can be started all the same: no reason of the busy rule."""

TEXTS: Final[Mapping[str, Mapping[str, str]]] = {
    ENGLISH: {
        "ChargerOffline": "This connector is offline. Please try again when it is available.",
        "ActiveReservation": "This connector is temporarily reserved during checkout."
        " If it is your session, continue in the same browser or choose another connector.",
        IN_USE: "This connector is currently in use. Please stop the active session first or choose another connector.",
        NOT_READY: "This connector is not ready right now. Please choose another connector.",
        CONTENDED: "Others want this connector at the same moment. Please try again.",
        "Plug": "Plug the cable into your car.",
    },
    "de": {
        "ChargerOffline": "Dieser Anschluss ist nicht erreichbar. Bitte versuchen Sie es später noch einmal.",
        "ActiveReservation": "Dieser Anschluss ist während einer Bezahlung kurz reserviert."
        " Ist es Ihre, fahren Sie im selben Browser fort, oder wählen Sie einen anderen Anschluss.",
        IN_USE: "Dieser Anschluss wird gerade benutzt."
        " Bitte beenden Sie erst den laufenden Ladevorgang, oder wählen Sie einen anderen Anschluss.",
        NOT_READY: "Dieser Anschluss ist gerade nicht bereit. Bitte wählen Sie einen anderen.",
        CONTENDED: "Andere wollen diesen Anschluss im selben Augenblick. Bitte versuchen Sie es noch einmal.",
        "Plug": "Stecken Sie das Kabel in Ihr Auto.",
    },
}


def reason_text(code: str, language: str = ENGLISH) -> str:
    """The text for a reason; one nobody wrote a text for is told as not ready."""
    known = TEXTS.get(language, TEXTS[ENGLISH])
    return known.get(SHARED_TEXTS.get(code, code), known[NOT_READY])


def choose_language(accept_language: str) -> str:
    """The language to answer in, for an Accept-Language header (RFC 9110 12.5.4): the first that has texts here, by
    weight and then by order; English if none has."""
    from babel.core import negotiate_locale  # 16 ms of CPU, which only an answer with a text needs.

    wishes: list[tuple[float, int, str]] = []
    for order, part in enumerate(accept_language.split(",")[:MAX_LANGUAGES]):
        name, _, weight = part.partition(";")
        wishes.append((-_weight(weight), order, name.strip().lower()))
    names = [name for weight, _, name in sorted(wishes) if weight < 0 and name]
    return negotiate_locale(names, TEXTS, sep="-") or ENGLISH


def _weight(parameter: str) -> float:
    """The q of one language; 1 where there is none, 0 for what is no number."""
    name, _, number = parameter.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        weight = float(number)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0
