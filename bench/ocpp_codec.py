"""The CPU time of an OCPP message: ours compared with the `ocpp` package's own, in the same run.

`python -m bench.ocpp_codec` takes a few seconds. Trust the ratios first; the microseconds are those of this machine.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "layers/core/python"))

import ocpp.messages

from csms.ocpp import framing, schemas
from csms.ocpp.v16.values import FRAMING, SCHEMAS

CORE = sys.path[0]
ROUNDS = 15
ROUND_SECONDS = 0.02
NOW = "2026-03-01T12:00:00Z"
SAMPLES = [
    {"value": f"{230 + n}.5", "context": "Sample.Periodic", "measurand": "Voltage", "phase": "L1", "unit": "V"}
    for n in range(10)
]
MESSAGES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "Heartbeat": ("Heartbeat", {}, {"currentTime": NOW}),
    "StatusNotification": (
        "StatusNotification",
        {"connectorId": 1, "errorCode": "NoError", "status": "Charging", "timestamp": NOW},
        {},
    ),
    "MeterValues x10": (
        "MeterValues",
        {"connectorId": 1, "transactionId": 7, "meterValue": [{"timestamp": NOW, "sampledValue": SAMPLES}]},
        {},
    ),
    "StartTransaction": (
        "StartTransaction",
        {"connectorId": 1, "idTag": "WEB0123456789", "meterStart": 1_000, "timestamp": NOW},
        {"transactionId": 7, "idTagInfo": {"status": "Accepted"}},
    ),
    "StartTransaction, sloppy": (
        "StartTransaction",
        {"connectorId": "1", "idTag": "WEB0123456789", "meterStart": 1_000, "timestamp": NOW, "reservationId": None},
        {"transactionId": 7, "idTagInfo": {"status": "Accepted"}},
    ),
}

HOSTILE = {"all commas": ",", "all brackets": "[", "all quotes": '"', "all backslashes": "\\", "leading zeros": "01,"}
LARGEST = 128 * 1024


def process_with_csms(frame: str, answer: dict[str, Any]) -> str:
    call = framing.decode(frame, FRAMING)
    assert isinstance(call, framing.Call)
    accepted = schemas.accept(SCHEMAS, call.action, call.payload)
    assert isinstance(accepted, schemas.Accepted)
    schemas.check(SCHEMAS, call.action, answer, response=True)
    return framing.encode(framing.CallResult(call.unique_id, answer), FRAMING)


async def process_with_ocpp_package(frame: str, answer: dict[str, Any]) -> str:
    call = ocpp.messages.unpack(frame)
    await ocpp.messages.validate_payload(call, "1.6")
    result = call.create_call_result(answer)
    await ocpp.messages.validate_payload(result, "1.6")
    return str(ocpp.messages.pack(result))


def microseconds(action: Callable[[], object]) -> float:
    """CPU time of one call in microseconds: the best of several rounds, because other load on the machine can only add
    to it."""
    best = float("inf")
    for _ in range(ROUNDS):
        calls, started = 0, time.process_time()
        while (elapsed := time.process_time() - started) < ROUND_SECONDS:
            for _ in range(10):
                action()
            calls += 10
        best = min(best, elapsed / calls)
    return best * 1e6


def decode_milliseconds(text: str) -> float:
    """CPU time of decoding one large text, in milliseconds: the best of three."""
    times = []
    for _ in range(3):
        started = time.process_time()
        framing.decode(text, FRAMING)
        times.append(time.process_time() - started)
    return min(times) * 1e3


def import_milliseconds(statement: str) -> float:
    """CPU time of an import in a fresh interpreter, in milliseconds: the best of five."""
    script = f"import time; t = time.process_time(); {statement}; print((time.process_time() - t) * 1e3)"
    command, environment = [sys.executable, "-c", script], os.environ | {"PYTHONPATH": CORE}
    return min(
        float(subprocess.run(command, env=environment, capture_output=True, check=True).stdout) for _ in range(5)
    )


def main() -> None:
    # In favor of the package: its default would add a thread hop to each validation.
    ocpp.messages.ASYNC_VALIDATION = False
    loop = asyncio.new_event_loop()
    print(f"{'message and its answer':<26}{'csms µs':>9}{'ocpp µs':>9}{'ratio':>8}")
    for name, (action, payload, answer) in MESSAGES.items():
        frame = framing.encode(framing.Call("c0ffee", action, payload), FRAMING)
        mine = microseconds(lambda frame=frame, answer=answer: process_with_csms(frame, answer))
        try:
            package = microseconds(
                lambda frame=frame, answer=answer: loop.run_until_complete(process_with_ocpp_package(frame, answer))
            )
        except ocpp.messages.OCPPError:
            print(f"{name:<26}{mine:>9.1f}{'refused':>9}")
            continue
        print(f"{name:<26}{mine:>9.1f}{package:>9.0f}{package / mine:>7.0f}x")
    loop.close()
    print(f"\n{'no JSON, by its size':<26}{'64 KB ms':>9}{'128 KB ms':>10}{'ratio':>7}")
    for name, piece in HOSTILE.items():
        half, whole = (
            decode_milliseconds('[2,"1","A",[' + piece * (size // len(piece))) for size in (LARGEST // 2, LARGEST)
        )
        print(f"{name:<26}{half:>9.1f}{whole:>10.1f}{whole / half:>7.1f}")
    print()
    for statement in ("import csms.ocpp.framing, csms.ocpp.schemas", "import ocpp.v16"):
        print(f"{statement:<35}{import_milliseconds(statement):>6.0f} ms")


if __name__ == "__main__":
    main()
