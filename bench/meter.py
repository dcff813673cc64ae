"""What each invocation of a function takes: requests, request units and bytes, counted where botocore sends them.

A handler does everything in its own thread, so each request is billed to the invocation of the thread that sends it.
"""

from __future__ import annotations

import io
import json
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Final, TextIO

import boto3
import stripe

from bench import units
from bench.budgets import Bill, BillsByChapter
from local.gateway import Handler

WRITES: Final = frozenset({"PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems"})
EMF_MARKER: Final = '"_aws"'
WAIT_S: Final = 15.0
LOG_LINE_OVERHEAD: Final = 26
"""Bytes that CloudWatch adds to each line."""

Json = dict[str, Any]
Image = tuple[Json, Json | None]


class CountError(Exception):
    """The count is invalid. The message is one line."""


@dataclass(slots=True)
class Meter:
    """The bills of all invocations, by chapter and kind; nothing is recorded outside of a chapter. `table` are
    CreateTable's arguments, and `look` is a client of the database that is not counted."""

    table: Mapping[str, Any]
    look: Any
    chapter: str | None = None
    bills: BillsByChapter = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    failed: list[str] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)
    commands: dict[str, str] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    turn: threading.Lock = field(default_factory=threading.Lock)
    local: threading.local = field(default_factory=threading.local)

    def listen(self) -> None:
        """Count the requests of Stripe's client, and of all clients that boto3's default session creates from now
        on."""
        boto3.setup_default_session()
        heard = boto3.DEFAULT_SESSION.events
        heard.register("provide-client-params.dynamodb", self._before_call)
        heard.register("after-call.dynamodb", self._after_call)
        heard.register("before-send", self._count_attempt)
        heard.register("provide-client-params.apigatewaymanagementapi.PostToConnection", self._count_post)
        stripe.RequestsClient.request = self._count_provider_calls(stripe.RequestsClient.request)

    def wrap(self, name: str, handler: Handler) -> Handler:
        """The handler, with each invocation billed."""

        def measure_invocation(event: Json, context: Any) -> Json | None:
            bill = Bill(bytes_in=len((event.get("body") or "").encode()))
            kind = self._invocation_kind(name, event)
            try:
                # One invocation at a time: Powertools keeps a process's metrics in one place, so parallel functions
                # would mix theirs.
                with self.turn:
                    self.local.bill = bill
                    answer = handler(event, context)
            except Exception as failure:
                self.failed.append(f"{kind}: {failure!r}")
                raise
            finally:
                self.local.bill = None
            if kind == "$default":
                self.failed.append(f"{kind}: a frame that is neither a CALL nor an answer: {event.get('body')}")
            if (answer or {}).get("statusCode", 200) != 200:
                if kind != "$connect":
                    self.failed.append(f"{kind}: {answer}")
                kind = f"{kind}, refused"
            said = (answer or {}).get("body")
            bill.bytes_out = len((said or "").encode())
            self._keep(kind, bill)
            return answer

        return measure_invocation

    def wait_for(self, kind: str, times: int) -> None:
        """Wait until so many invocations of the kind have ended. Raises CountError after WAIT_S seconds."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.ended[kind] >= times, WAIT_S):
                raise CountError(f"waited {WAIT_S:.0f} s for {kind}, time {times}; came: {dict(self.ended)}")

    @contextmanager
    def record_chapter(self, chapter: str) -> Iterator[None]:
        """Record what happens in the block under this chapter."""
        self.chapter = chapter
        yield
        self.chapter = None

    def capture_log(self, passed_on: TextIO) -> TextIO:
        """A standard output that counts the functions' log lines, as CloudWatch would bill them, and passes on all
        other output."""
        return _LogStream(self, passed_on)

    def _invocation_kind(self, name: str, event: Mapping[str, Any]) -> str:
        match name:
            case "ws_connect":
                return "$connect" if event["requestContext"]["eventType"] == "CONNECT" else "$disconnect"
            case "ws_message":
                frame = json.loads(event["body"])
                if frame[0] == 2:
                    return str(frame[2])
                return f"answer to {self.commands[frame[1]]}" if frame[1] in self.commands else "$default"
            case "maintenance":
                if "perform" in event:
                    return f"perform {event['perform']['kind']}"
                if "Records" in event:
                    return "wake"
                return "reconcile" if event.get("reconcile") else "sweep"
            case _:
                return str(event["routeKey"])

    def _keep(self, kind: str, bill: Bill) -> None:
        with self.changed:
            self.ended[kind] += 1
            if self.chapter is not None:
                self.bills[self.chapter][kind].append(bill)
            self.changed.notify_all()

    @property
    def _bill(self) -> Bill | None:
        bill: Bill | None = getattr(self.local, "bill", None)
        return bill

    def _before_call(self, params: Json, model: Any, **_: Any) -> Json | None:
        if self._bill is None:
            return None
        self.local.asked = params
        self.local.before = self._read_images(params, model.name)
        return params | {"ReturnConsumedCapacity": "TOTAL"}

    def _count_attempt(self, event_name: str, **_: Any) -> None:
        if self._bill is not None:
            self._bill.requests[event_name.rpartition(".")[2]] += 1

    def _after_call(self, http_response: Any, parsed: Json, model: Any, **_: Any) -> None:
        bill = self._bill
        if bill is None:
            return
        if http_response.status_code >= 300:
            self.failed.append(f"{model.name}: {parsed.get('Error', {}).get('Code')}")
            return
        consumed = parsed.get("ConsumedCapacity", [])
        answered = sum(it["CapacityUnits"] for it in (consumed if isinstance(consumed, list) else [consumed]))
        if model.name in WRITES:
            self._add_write_units(model.name, bill)
            bill.engine_write_units += answered
        else:
            bill.read_units += self._read_units(model.name, parsed)
            bill.engine_read_units += answered

    def _count_post(self, params: Json, **_: Any) -> None:
        if self._bill is None:
            return
        frame = json.loads(params["Data"])
        self.commands[frame[1]] = frame[2]
        self._bill.bytes_posted += len(params["Data"])

    def _count_provider_calls(self, request: Callable[..., Any]) -> Any:
        """The method by which Stripe's client sends, with its calls counted."""

        @wraps(request)
        def count_request(*arguments: Any, **named: Any) -> Any:
            if self._bill is not None:
                self._bill.provider_calls += 1
            return request(*arguments, **named)

        return count_request

    def _read_units(self, operation: str, answer: Json) -> float:
        asked = self.local.asked
        match operation:
            case "GetItem":
                return units.get_units(answer.get("Item"), consistent=asked.get("ConsistentRead", False))
            case "Query":
                return units.query_units(answer["Items"], consistent=asked.get("ConsistentRead", False))
            case "BatchGetItem":
                name = self.table["TableName"]
                wanted, found = asked["RequestItems"][name], answer["Responses"].get(name, [])
                missing: list[Json | None] = [None] * (len(wanted["Keys"]) - len(found))
                consistent = wanted.get("ConsistentRead", False)
                return sum(units.get_units(item, consistent=consistent) for item in (*found, *missing))
        raise CountError(f"{operation}: bench.meter does not know what it is billed")

    def _add_write_units(self, operation: str, bill: Bill) -> None:
        transaction = operation == "TransactWriteItems"
        for key, before in self.local.before:
            after = self._read_item(key)
            bill.write_units += units.write_units(before, after, transaction=transaction)
            bill.write_units += sum(
                units.index_units(before, after, index, self._table_keys) for index in self._indexes
            )
            more = units.stored_size(after) - units.stored_size(before)
            if "ttl" in (after or before or {}):
                bill.bytes_kept_for_a_time += more
            else:
                bill.bytes_kept += more

    def _read_images(self, params: Json, operation: str) -> list[Image]:
        """The items now stored under the keys that are about to be written."""
        if operation not in WRITES:
            return []
        elements = params.get("TransactItems", [{operation: params}])
        keys = [self._key(arguments) for element in elements for arguments in element.values()]
        return [(key, self._read_item(key)) for key in keys]

    def _key(self, arguments: Json) -> Json:
        if "Key" in arguments:
            return dict(arguments["Key"])
        return {name: arguments["Item"][name] for name in self._table_keys}

    def _read_item(self, key: Json) -> Json | None:
        found = self.look.get_item(TableName=self.table["TableName"], Key=key, ConsistentRead=True)
        item: Json | None = found.get("Item")
        return item

    @property
    def _table_keys(self) -> units.Keys:
        return tuple(row["AttributeName"] for row in self.table["KeySchema"])

    @property
    def _indexes(self) -> list[units.Index]:
        return [units.Index.from_definition(index) for index in self.table["GlobalSecondaryIndexes"]]


class _LogStream(io.TextIOBase):
    """Counts the output of invocations on their bills, and passes on all other output."""

    def __init__(self, meter: Meter, passed_on: TextIO) -> None:
        self._meter = meter
        self._passed_on = passed_on

    def write(self, text: str) -> int:
        bill: Bill | None = getattr(self._meter.local, "bill", None)
        if bill is None:
            return self._passed_on.write(text)
        bill.log_bytes += len(text.encode()) + LOG_LINE_OVERHEAD * text.count("\n")
        if EMF_MARKER in text:
            counted = json.loads(text)
            directives = counted["_aws"]["CloudWatchMetrics"]
            bill.metrics |= {f"{counted['service']} {it['Name']}" for one in directives for it in one["Metrics"]}
        return len(text)

    def flush(self) -> None:
        self._passed_on.flush()
