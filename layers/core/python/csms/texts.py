"""The texts for drivers: one per reason and language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from csms.occupancy import REPLUG
from csms.occupancy.explanation import IN_USE, NOT_READY, SHARED_TEXTS

ENGLISH: Final = "en"
MAX_LANGUAGES: Final = 20
"""The most languages read from one Accept-Language header; browsers send fewer."""

CONTENDED: Final = "Contended"
"""The code for a startable connector that others kept changing at the same moment; it is no reason of the busy rule."""

TEXTS: Final[Mapping[str, Mapping[str, str]]] = {
    ENGLISH: {
        "ChargerOffline": "This connector is offline. Please try again when it is available.",
        "ActiveReservation": "This connector is temporarily reserved during checkout."
        " If it is your session, continue in the same browser or choose another connector.",
        IN_USE: "This connector is currently in use. Please stop the active session first or choose another connector.",
        NOT_READY: "This connector is not ready right now. Please choose another connector.",
        CONTENDED: "Others want this connector at the same moment. Please try again.",
        "Plug": "Plug the cable into your car.",
        REPLUG: "The car that is plugged in was not started in time. If it is yours, unplug it and plug it in again.",
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
        REPLUG: "Das eingesteckte Auto wurde nicht rechtzeitig gestartet."
        " Ist es Ihres, ziehen Sie das Kabel ab, und stecken Sie es noch einmal ein.",
    },
}


def reason_text(code: str, language: str = ENGLISH) -> str:
    """The driver's text for a reason; for a reason without a text, the text for a connector that is not ready."""
    known = TEXTS.get(language, TEXTS[ENGLISH])
    return known.get(SHARED_TEXTS.get(code, code), known[NOT_READY])


def choose_language(accept_language: str) -> str:
    """The language of the answer to an Accept-Language header (RFC 9110 12.5.4): the supported one with the highest
    weight, the first of equal ones, English if none is supported."""
    from babel.core import negotiate_locale  # 16 ms of CPU, which only an answer with a text needs.

    wishes: list[tuple[float, int, str]] = []
    for order, part in enumerate(accept_language.split(",")[:MAX_LANGUAGES]):
        name, _, weight = part.partition(";")
        wishes.append((-_weight(weight), order, name.strip().lower()))
    names = [name for weight, _, name in sorted(wishes) if weight < 0 and name]
    return negotiate_locale(names, TEXTS, sep="-") or ENGLISH


def _weight(parameter: str) -> float:
    """The weight (q) of one language; 1 if it is missing, 0 if it is not a number from 0 to 1."""
    name, _, number = parameter.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        weight = float(number)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0
