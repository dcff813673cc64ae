"""The addresses that stations connect to, and the result of each. The edge function in Node and the local gateway over
a socket are tested with the same table."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Address:
    """A request, and its result: the cp that $connect gets, or the status that is answered without it."""

    path: str
    answer: str | int
    query: str = ""
    upgrade: bool = True


ADDRESSES: Final = (
    Address("/ocpp/CP001", "CP001"),
    Address("/ocpp/CP001/", "CP001"),
    Address("/ocpp//CP001", "CP001"),
    Address("/ocpp/1.6/CP001", "CP001"),
    Address("/ocpp/2.0.1/CP001/", "CP001"),
    Address("/ocpp/1.6", "1.6"),
    # Decoded exactly once.
    Address("/ocpp/CP%20001", "CP 001"),
    Address("/ocpp/caf%C3%A9", "café"),
    Address("/ocpp/A%2FB", "A/B"),
    Address("/ocpp/100%25", "100%"),
    Address("/ocpp/A%252FB", "A%2FB"),
    Address("/ocpp/" + "%E2%82%AC" * 48, "€" * 48),
    # Characters that are plain in a path and special in a query.
    Address("/ocpp/A+B", "A+B"),
    Address("/ocpp/A&cp=evil", "A&cp=evil"),
    Address("/ocpp/A=B;C", "A=B;C"),
    # A station cannot choose its cp.
    Address("/ocpp/CP001", "CP001", query="cp=evil"),
    Address("/ocpp/CP001", "CP001", query="cp=evil&cp=worse&x=1"),
    Address("/ocpp/CP001", "CP001", query="cp[]=evil&CP=evil"),
    Address("/ocpp/", 404, query="cp=evil"),
    Address("/ocpp", 404, query="cp=evil"),
    # Invalid escapes.
    Address("/ocpp/100%", 400),
    Address("/ocpp/%zz", 400),
    Address("/ocpp/CP%2", 400),
    # No identity, or more than one.
    Address("/", 404),
    Address("/ocpp", 404),
    Address("/ocpp/", 404),
    Address("/ocpp//", 404),
    Address("/ocpp/CP001/CP002", 404),
    Address("/ocpp/CP001/ocpp/CP002", 404),
    Address("/ocpp/1.5/CP001", 404),
    Address("/ocpp/1.6/CP001/1", 404),
    Address("/ocpp/CP001//", 404),
    Address("/OCPP/CP001", 404),
    Address("/other/ocpp/CP001", 404),
    Address("/ocppCP001", 404),
    Address("/ocpp/" + "%F0%9F%94%8C" * 48, "🔌" * 48),
    Address("/ocpp/" + "x" * 576, "x" * 576),
    Address("/ocpp/" + "x" * 577, 400),
    Address("/ocpp/1.6/" + "x" * 2000, 400),
    # Characters that are special in an address, encoded.
    Address("/ocpp/%22%23%3F%5C%60%5E%7B%7D%3C%3E%25", '"#?\\`^{}<>%'),
    # A request without an upgrade is refused; an address that does not exist is refused as such first.
    Address("/ocpp/CP001", 426, upgrade=False),
    Address("/ocpp/CP001", 426, query="cp=evil", upgrade=False),
    Address("/ocpp/%zz", 400, upgrade=False),
    Address("/ocpp/", 404, upgrade=False),
)
