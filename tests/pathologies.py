"""True charging sessions, and what stations with known faults tell of them.

Each fault is one that the public reports of running systems name (docs/field-notes.md F58). Energy in Wh, power in W,
times in seconds since the start of the transaction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Final

from csms.charging import energy
from csms.charging.energy import Judgement, Limits, Observation

BEGUN: Final = 1_780_000_000_000

CHARGERS: Final = ((3_680, 3_680), (7_360, 11_000), (11_000, 11_000), (22_000, 22_000), (50_000, 50_000))
"""What the car takes, and what the connector can give."""


@dataclass(frozen=True, slots=True)
class Told:
    """A reading as the station tells it: the register in Wh, and the power in W if it sends that."""

    at: int
    register_wh: int
    power_w: int | None


@dataclass(frozen=True, slots=True)
class Session:
    """A session as it was, and as it is told. `delivered_wh` and `max_power_w` are true; `meter_stop` is None if the
    stop lacks it. With `knows_power` the operator has registered the maximum power."""

    delivered_wh: int
    duration: int
    max_power_w: int
    interval: int
    meter_start: int
    readings: tuple[Told, ...]
    meter_stop: int | None
    knows_power: bool = True


def draw_session(random: Random) -> Session:
    """A session that is told truly: a steady car, or one that tapers off or pauses, on an AC or DC connector; with or
    without measured power and a known maximum power."""
    takes_w, max_power_w = random.choice(CHARGERS)
    interval = random.choice((10, 30, 60, 60, 300, 900))
    duration = interval * random.choice(
        (random.randint(6, 40), random.randint(6, 40), random.randint(100, 150))
    ) + random.randint(0, interval - 1)
    begins, tapers = random.choice((0, 0, 5, 90)), random.choice((False, False, True))
    measures = random.random() < 0.7
    start = random.choice((0, random.randint(1, 9_999), random.randint(10_000, 9_999_999)))

    def power(at: int) -> float:
        if at < begins:
            return 0.0
        return takes_w * (1 - 0.7 * at / duration if tapers else 1)

    delivered, readings = 0.0, list[Told]()
    for at in range(duration):
        if at and not at % interval:
            readings.append(Told(at, start + int(delivered), int(power(at)) if measures else None))
        delivered += power(at) / 3600
    return Session(
        delivered_wh=int(delivered),
        duration=duration,
        max_power_w=max_power_w,
        interval=interval,
        meter_start=start,
        readings=tuple(readings),
        meter_stop=start + int(delivered),
        knows_power=random.random() < 0.5,
    )


def tell_truly(_random: Random, session: Session) -> Session:
    return session


def start_before_meter_is_ready(random: Random, session: Session) -> Session:
    """meterStart 0, then the lifetime register (FoxESS, Alfen): the first reading comes after a second."""
    lifetime = session.meter_start + 2_000_000
    first = Told(1, lifetime, None)
    readings = (
        (first, *_move(session.readings, 2_000_000)) if random.random() < 0.7 else _move(session.readings, 2_000_000)
    )
    return replace(session, meter_start=0, readings=readings, meter_stop=_add(session.meter_stop, 2_000_000))


def start_before_meter_is_ready_without_readings(_random: Random, session: Session) -> Session:
    return replace(session, meter_start=0, readings=(), meter_stop=_add(session.meter_stop, 2_000_000))


def count_readings_from_0(_random: Random, session: Session) -> Session:
    """The readings count the session; start and stop are the lifetime register (MicroOcpp)."""
    lifetime = session.meter_start + 2_000_000
    readings = _move(session.readings, -session.meter_start)
    return replace(session, meter_start=lifetime, readings=readings, meter_stop=lifetime + session.delivered_wh)


def count_readings_and_stop_from_0(_random: Random, session: Session) -> Session:
    """The start alone is the lifetime register."""
    readings = _move(session.readings, -session.meter_start)
    return replace(
        session, meter_start=session.meter_start + 2_000_000, readings=readings, meter_stop=session.delivered_wh
    )


def change_to_lifetime_register(random: Random, session: Session) -> Session:
    """A session register that becomes the lifetime register on the way."""
    cut = random.randint(1, len(session.readings) - 1)
    here = _move(session.readings, -session.meter_start)
    readings = (*here[:cut], *_move(here[cut:], 3_000_000))
    return replace(session, meter_start=0, readings=readings, meter_stop=3_000_000 + session.delivered_wh)


def change_to_session_register(random: Random, session: Session) -> Session:
    """A lifetime register that becomes a session register on the way."""
    cut = random.randint(1, len(session.readings) - 1)
    here = _move(session.readings, -session.meter_start)
    readings = (*_move(here[:cut], 3_000_000), *here[cut:])
    return replace(session, meter_start=3_000_000, readings=readings, meter_stop=session.delivered_wh)


def glitch_up(random: Random, session: Session) -> Session:
    return _glitch(random, session, random.choice((1_000, 8_000, 90_000, 5_000_000)), 1)


def glitch_up_twice(random: Random, session: Session) -> Session:
    return _glitch(random, session, random.choice((8_000, 90_000, 5_000_000)), 2)


def glitch_to_0(random: Random, session: Session) -> Session:
    return _glitch(random, session, None, 1)


def glitch_to_0_for_a_while(random: Random, session: Session) -> Session:
    return _glitch(random, session, None, random.randint(2, 4))


def glitch_at_stop(random: Random, session: Session) -> Session:
    return replace(session, meter_stop=_add(session.meter_stop, random.choice((30_000, 900_000, 6_820_000))))


def small_glitch_at_stop(random: Random, session: Session) -> Session:
    """A stop that is too high by less than the connector could deliver since the last reading, or a little more."""
    return replace(session, meter_stop=_add(session.meter_stop, random.choice((1_000, 3_000, 5_000))))


def stop_below_readings(random: Random, session: Session) -> Session:
    return replace(session, meter_stop=session.meter_start + session.delivered_wh // random.randint(2, 5))


def stop_at_0(_random: Random, session: Session) -> Session:
    return replace(session, meter_stop=0)


def stop_without_meter(_random: Random, session: Session) -> Session:
    return replace(session, meter_stop=None)


def restart_from_0(random: Random, session: Session) -> Session:
    """The station reboots, and its session register counts from 0 again."""
    cut = random.randint(len(session.readings) // 2 + 1, len(session.readings) - 1)
    here = _move(session.readings, -session.meter_start)
    lost = here[cut - 1].register_wh
    return replace(
        session,
        meter_start=0,
        readings=(*here[:cut], *_move(here[cut:], -lost)),
        meter_stop=session.delivered_wh - lost,
    )


def tell_garbage(random: Random, session: Session) -> Session:
    """Values that have nothing to do with the session."""
    readings = tuple(replace(told, register_wh=random.randint(0, 10**7)) for told in session.readings)
    return replace(session, readings=readings, meter_stop=random.randint(0, 10**7))


def count_whole_kwh(_random: Random, session: Session) -> Session:
    """A register that shows whole kWh."""
    readings = tuple(replace(told, register_wh=told.register_wh // 1000 * 1000) for told in session.readings)
    start, stop = session.meter_start // 1000 * 1000, (session.meter_stop or 0) // 1000 * 1000
    return replace(session, meter_start=start, readings=readings, meter_stop=stop, delivered_wh=stop - start)


def _add(register_wh: int | None, more: int) -> int | None:
    return None if register_wh is None else register_wh + more


def _move(readings: tuple[Told, ...], by_wh: int) -> tuple[Told, ...]:
    return tuple(replace(told, register_wh=told.register_wh + by_wh) for told in readings)


def _glitch(random: Random, session: Session, by_wh: int | None, count: int) -> Session:
    """Some readings in a row that are too high by so much, or 0."""
    first = random.randint(1, len(session.readings) - count)
    readings = tuple(
        replace(told, register_wh=0 if by_wh is None else told.register_wh + by_wh)
        if first <= n < first + count
        else told
        for n, told in enumerate(session.readings)
    )
    return replace(session, readings=readings)


def tell(session: Session, default_power_w: int = 400_000) -> Judgement:
    """What is judged of the session's energy, in the order in which a station tells it; csms hears of it 300 ms
    later."""
    limits = Limits(session.max_power_w if session.knows_power else default_power_w, 25)
    evidence = energy.begin(session.meter_start, BEGUN, BEGUN)
    for told in session.readings:
        at = BEGUN + told.at * 1000
        evidence = energy.follow(evidence, [Observation(told.register_wh, at, at + 300, told.power_w)], limits)
    at = BEGUN + session.duration * 1000
    if session.meter_stop is not None and session.meter_stop > 0:
        evidence = energy.conclude(evidence, Observation(session.meter_stop, at, at + 300), limits)
    return energy.judge(evidence, limits, at=at, heard_at=at + 300)
