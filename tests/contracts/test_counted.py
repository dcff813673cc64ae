"""Is what the cost model multiplies still what the product does? Everything is counted afresh, in a process of its
own, and compared with bench/counted.json. After a change that is meant: `make count`, `make docs`, and look at what
moved."""

import copy
import json
import subprocess
import sys

import pytest

from bench import counted, counts
from csms.model import EffectKind
from infra import routes
from local import database
from local.stack import ROOT


@pytest.fixture(scope="module")
def fresh() -> counts.Counted:
    if not database.DYNOXIDE.exists():
        pytest.skip("dynoxide has no binary for this platform")
    command = [sys.executable, "-m", "bench.counted", "--print"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert 0 == run.returncode, run.stderr
    answer: counts.Counted = json.loads(run.stdout)
    return answer


def test_every_action_route_and_owed_call_is_counted(fresh):
    assert [] == counted.missing(fresh), "add each to a chapter of bench/chapters.py, then `make count` and `make docs`"


def test_what_is_counted_afresh_is_what_the_cost_model_multiplies(fresh):
    assert [] == counts.differences(counts.load(), fresh), "if it is meant: `make count` and `make docs`"


def test_the_engine_bills_what_we_compute(fresh):
    def units_of(prefix: str) -> dict[tuple[str, str], tuple[float, float]]:
        return {
            (chapter, kind): (row.get(f"{prefix}read_units", 0), row.get(f"{prefix}write_units", 0))
            for chapter, kinds in fresh.items()
            for kind, row in kinds.items()
        }

    assert units_of("engine_") == units_of("")


def test_a_capture_mails_its_receipt(fresh):
    assert 1 == fresh["session"]["perform capture"]["requests"]["SendEmail"]


def test_a_checkout_asks_the_provider_once_and_a_capture_with_its_receipt_twice(fresh):
    asked = [fresh["session"][kind]["provider_calls"] for kind in ("POST /payments/create", "perform capture")]

    assert [1, 2] == asked


def test_a_warm_heartbeat_is_one_request_and_one_write_unit(fresh):
    row = fresh["heartbeat"]["Heartbeat"]

    assert ({"UpdateItem": 1}, 1.0, 0) == (row["requests"], row["write_units"], row.get("read_units", 0))


@pytest.mark.parametrize(
    "kind", ["POST /payments/create", "StartTransaction", f"perform {EffectKind.CAPTURE}", "$connect", "sweep"]
)
def test_what_no_chapter_reaches_is_named(kind):
    without = {chapter: {k: v for k, v in kinds.items() if k != kind} for chapter, kinds in counts.load().items()}

    assert [kind] == counted.missing(without)


def test_a_new_route_is_named_until_somebody_counts_it(monkeypatch):
    new = routes.Route("GET", "/payments/weather/{reservationId}", "payments")
    monkeypatch.setattr(routes, "HTTP", (*routes.HTTP, new))

    assert ["GET /payments/weather/{reservationId}"] == counted.missing(counts.load())


def test_a_kind_that_came_or_went_is_one_difference():
    kept = counts.load()
    less = copy.deepcopy(kept)
    del less["heartbeat"]["Heartbeat"]

    assert ["heartbeat, Heartbeat: is not kept yet"] == counts.differences(less, kept)
    assert ["heartbeat, Heartbeat: does not come any more"] == counts.differences(kept, less)


def test_a_unit_more_is_a_difference_and_a_digit_more_is_none():
    kept = counts.load()
    changed = copy.deepcopy(kept)
    changed["heartbeat"]["Heartbeat"]["write_units"] += 1
    changed["heartbeat"]["Heartbeat"]["log_bytes"] += 2

    assert ["heartbeat, Heartbeat: write_units was 1.0, is 2.0"] == counts.differences(kept, changed)
