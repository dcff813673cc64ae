"""What a sweep gets done whatever else is due, and what a dry run says that it would do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import count, islice
from typing import Final

import pytest

from csms.model import Effect, EffectKind, Reservation, ReservationState, Save
from csms.service.maintenance import MOST_FAILED
from csms.store import DUE_SHARDS, to_item
from tests import builders as b
from tests.fakes import EPOCH
from tests.unit.test_service import World

LONG_AGO: Final = EPOCH - timedelta(days=400)


@pytest.fixture
def world() -> World:
    return World()


def shard(entity: Effect | Reservation) -> str:
    return str(to_item(entity)["due_shard"])


def abandoned(number: int) -> Reservation:
    """A reservation that nobody paid in time, at a station that is not known any more."""
    return replace(
        b.reservation_in(b.created()),
        reservation_id=f"abandoned-{number}",
        expires_at=EPOCH - timedelta(minutes=1),
        version=0,
    )


def poison(*, like: Reservation) -> Iterator[Effect]:
    """Owed calls of reservations that nobody has, older than it and in its shard: each fails in every sweep."""
    endless = (
        Effect(reservation_id=f"nobodys-{number}", kind=EffectKind.CAPTURE, due_at=LONG_AGO) for number in count()
    )
    return (effect for effect in endless if shard(effect) == shard(like))


def stored(world: World, *entities: Effect | Reservation) -> None:
    for entity in entities:
        world.store.commit([Save(entity)])


def ended(world: World) -> list[str]:
    """The reservations that were ended."""
    found = (e for e in world.store.entities() if isinstance(e, Reservation))
    return [held.reservation_id for held in found if held.state is ReservationState.CANCELLED]


def test_f73_more_rows_that_always_fail_than_a_sweep_may_do_do_not_starve_what_is_due_behind_them(world: World) -> None:
    held = abandoned(1)
    stored(world, held, *islice(poison(like=held), 150))

    report = world.maintenance.sweep()

    assert ({"Reservation": 1}, 150) == (report.done, len(report.failed))
    assert [held.reservation_id] == ended(world)


def test_f73_a_sweep_does_no_more_than_its_limit_in_each_shard_and_what_failed_is_none_of_it(world: World) -> None:
    many = [abandoned(number) for number in range(60)]
    stored(world, *many, *islice(poison(like=many[0]), 5))
    assert all(sum(shard(held) == f"DUE#{number}" for held in many) > 3 for number in range(DUE_SHARDS))

    report = world.maintenance.sweep(limit=3)

    assert ({"Reservation": 3 * DUE_SHARDS}, 5) == (report.done, len(report.failed))


def test_f73_a_sweep_ends_however_much_fails_and_leaves_the_rest_of_that_shard_to_the_next(world: World) -> None:
    many = [abandoned(number) for number in range(20)]
    behind = [held for held in many if shard(held) == shard(many[0])]
    elsewhere = [held for held in many if held not in behind]
    stored(world, *many, *islice(poison(like=many[0]), MOST_FAILED))

    report = world.maintenance.sweep()

    assert MOST_FAILED == len(report.failed)
    assert sorted(held.reservation_id for held in elsewhere) == ended(world)


def test_f73_the_shards_take_turns_so_that_none_waits_until_another_is_done(world: World) -> None:
    many = [abandoned(number) for number in range(60)]
    stored(world, *many)
    shards = {held.reservation_id: shard(held) for held in many}

    planned = world.maintenance.sweep(dry_run=True).planned

    first = [shards[line.split()[1].rstrip(":")] for line in planned[:DUE_SHARDS]]
    assert [f"DUE#{number}" for number in range(DUE_SHARDS)] == first
    assert len(many) == len(planned)
