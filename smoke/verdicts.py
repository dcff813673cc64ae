"""A fact, its check, and the findings."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from websockets.exceptions import ConnectionClosed, InvalidStatus

from local.client import ClientError
from smoke.site import Site


class Verdict(StrEnum):
    """The result of checking a fact."""

    HOLDS = "holds"
    DOES_NOT_HOLD = "DOES NOT HOLD"
    NOT_TESTABLE = "not testable here"


class Where(StrEnum):
    """Where a fact can be checked; the value says why not elsewhere."""

    ANYWHERE = ""
    AWS = "only AWS can show it"
    LONG = "it takes {minutes} minutes: LONG=1"


class DoesNotHold(Exception):
    """The fact does not hold; the message says what was seen instead."""


class NotTestable(Exception):
    """The fact cannot be checked here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One row: `asks` is the question, `check` returns what it saw or raises, `otherwise` is what to change if the fact
    does not hold. A fact that does not matter is reported, and does not fail the smoke test."""

    name: str
    asks: str
    check: Callable[[Site], str]
    otherwise: str
    matters: bool = True
    where: Where = Where.ANYWHERE
    minutes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The verdict on a fact, and what was seen."""

    fact: Fact
    verdict: Verdict
    seen: str

    @property
    def is_failure(self) -> bool:
        return self.fact.matters and self.verdict is Verdict.DOES_NOT_HOLD


def check_fact(fact: Fact, site: Site) -> Finding:
    """Run the check and return the finding. Any unexpected error means that the fact does not hold."""
    if fact.where is not Where.ANYWHERE and site.is_local:
        return Finding(fact=fact, verdict=Verdict.NOT_TESTABLE, seen=Where.AWS.value)
    if fact.where is Where.LONG and not site.long:
        return Finding(fact=fact, verdict=Verdict.NOT_TESTABLE, seen=Where.LONG.format(minutes=fact.minutes))
    try:
        return Finding(fact=fact, verdict=Verdict.HOLDS, seen=fact.check(site))
    except NotTestable as why:
        return Finding(fact=fact, verdict=Verdict.NOT_TESTABLE, seen=str(why))
    except InvalidStatus as refused:
        return Finding(fact=fact, verdict=Verdict.DOES_NOT_HOLD, seen=f"refused with {refused.response.status_code}")
    except (DoesNotHold, ClientError, ConnectionClosed, OSError) as failed:
        return Finding(fact=fact, verdict=Verdict.DOES_NOT_HOLD, seen=str(failed))
