"""The main job, end to end over real sockets: one charge from plug to bill, on each engine that a laptop may have."""

from pathlib import Path

import pytest

from local import story
from local.stack import run_stack


@pytest.mark.parametrize("engine", ["dynoxide", "ministack"])
def test_charge_is_billed_and_frees_connector(tmp_path: Path, engine: str) -> None:
    heard: list[str] = []
    with run_stack(story.options(tmp_path, lambda _identity, event: heard.append(event), engine=engine)) as stack:
        ending = story.run_story(stack, lambda _line: None)

    assert (824, 824, 0) == (ending.expected, ending.captured, ending.still_held)
    assert ending.free_again
    assert story.ENERGY_WH == ending.status["energyWh"]
    assert 824 == ending.status["capturedAmount"]
    spoken = [event.split()[1] for event in heard if event.startswith("sent") and "answer" not in event]
    in_order = [
        "BootNotification",
        "StatusNotification",
        "Authorize",
        "StartTransaction",
        "MeterValues",
        "StopTransaction",
    ]
    assert in_order == [action for action in dict.fromkeys(spoken) if action in in_order]


@pytest.mark.note("F70")
def test_half_cent_is_rounded_up() -> None:
    assert 774 + 50 == story.expected_amount(13_000)
