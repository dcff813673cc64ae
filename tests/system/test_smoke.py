"""The smoke test on the stack on this machine: every fact that can be checked here holds, one that does not is reported
with what to change, and all stations are deleted again."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest

from local import database, stack, story
from local.client import Api, ClientError
from local.gateway import AWS, Gateway, Limits
from local.stack import Options, Stack, run_stack
from smoke import charge, checks, verdicts
from smoke.__main__ import check_facts, main, table
from smoke.facts import FACTS
from smoke.site import Site
from smoke.verdicts import DoesNotHold, Fact, NotTestable, Verdict, Where
from tests.app.stack import TOKEN, build_options

ENVIRONMENT = {"TOKEN": TOKEN}


def options() -> Options:
    return build_options(sweep=timedelta(seconds=2), speed=60)


@pytest.fixture(scope="module")
def local_stack() -> Iterator[Stack]:
    with run_stack(options()) as it:
        yield it


@pytest.fixture
def site(local_stack: Stack) -> Iterator[Site]:
    it = Site(url=local_stack.ocpp_url, api=Api(url=local_stack.url, token=TOKEN), say=lambda _: None)
    yield it
    assert [] == it.clean_up()


def addresses(local_stack: Stack) -> list[str]:
    return ["--url", f"{local_stack.ocpp_url}/", "--api", local_stack.url]


def stations(local_stack: Stack) -> list[Any]:
    listed: list[Any] = Api(url=local_stack.url, token=TOKEN).request_ok("GET", "/operations/stations")["stations"]
    return listed


def build_fact(name: str, check: Any, **more: Any) -> Fact:
    return Fact(name=name, asks="Is it so?", check=check, otherwise="Change this.", **more)


def test_every_fact_holds_or_is_untestable(local_stack, capsys):
    status = main(addresses(local_stack), ENVIRONMENT)

    told = capsys.readouterr().out
    rows = {
        name: verdict
        for verdict, name in re.findall(r"^(holds|DOES NOT HOLD|not testable here) +(\d+\w?) ", told, re.M)
    }
    only_there = {"3b", "3c", "5", "8", "10", "12", "12b", "15"}
    assert {fact.name.split()[0] for fact in FACTS} == set(rows)
    assert dict.fromkeys(only_there, "not testable here") | dict.fromkeys(set(rows) - only_there, "holds") == rows
    assert "0.5 kWh, €0.80 captured" in told
    assert (0, []) == (status, stations(local_stack))
    assert (
        [] == Api(url=local_stack.url, token=TOKEN).request_ok("GET", "/operations/unknown-stations")["unknownStations"]
    )


Handlers = dict[str, Any]
Sabotage = Callable[[Handlers], Handlers]


def drop_sub_protocol(handlers: Handlers) -> Handlers:
    return {**handlers, "ws_connect": lambda *event: {**handlers["ws_connect"](*event), "headers": {}}}


def answer_401_to_all(handlers: Handlers) -> Handlers:
    def connect(event: Any, context: Any) -> Any:
        answer = handlers["ws_connect"](event, context)
        return answer if answer["statusCode"] == 200 else {"statusCode": 401}

    return {**handlers, "ws_connect": connect}


def encode_identity_twice(handlers: Handlers) -> Handlers:
    def connect(event: Any, context: Any) -> Any:
        query = event.get("queryStringParameters")
        if query is not None:
            event = {**event, "queryStringParameters": {"cp": quote(query["cp"])}}
        return handlers["ws_connect"](event, context)

    return {**handlers, "ws_connect": connect}


def send_empty_frames(handlers: Handlers) -> Handlers:
    return {**handlers, "ws_message": lambda *event: {"body": " ", **handlers["ws_message"](*event)}}


def answer_errors_to_non_calls(handlers: Handlers) -> Handlers:
    def message(event: Any, context: Any) -> Any:
        if not event["body"].startswith("[2"):
            raise RuntimeError("no route")
        return handlers["ws_message"](event, context)

    return {**handlers, "ws_message": message}


def drop_disconnects(handlers: Handlers) -> Handlers:
    def connect(event: Any, context: Any) -> Any:
        gone = event["requestContext"]["eventType"] == "DISCONNECT"
        return {"statusCode": 200} if gone else handlers["ws_connect"](event, context)

    return {**handlers, "ws_connect": connect}


def drop_boots(handlers: Handlers) -> Handlers:
    answer = {"status": "Accepted", "currentTime": "2026-01-01T00:00:00Z", "interval": 300}

    def message(event: Any, context: Any) -> Any:
        frame = json.loads(event["body"])
        booting = frame[0] == 2 and frame[2] == "BootNotification"
        said = {"statusCode": 200, "body": json.dumps([3, frame[1], answer])}
        return said if booting else handlers["ws_message"](event, context)

    return {**handlers, "ws_message": message}


def subtract_watt_hour(handlers: Handlers) -> Handlers:
    def message(event: Any, context: Any) -> Any:
        less = event["body"].replace("13000", "12999")
        return handlers["ws_message"]({**event, "body": less}, context)

    return {**handlers, "ws_message": message}


@pytest.mark.parametrize(
    ("check", "cripple", "settings", "limits"),
    [
        (checks.check_identity_encoding, encode_identity_twice, {}, AWS),
        (checks.check_sub_protocol, drop_sub_protocol, {}, AWS),
        (checks.check_refusals, answer_401_to_all, {}, AWS),
        (checks.check_station_context, drop_boots, {}, AWS),
        (checks.check_silent_answers, send_empty_frames, {}, AWS),
        (checks.check_every_frame, answer_errors_to_non_calls, {}, AWS),
        (checks.check_long_frame, dict, {}, Limits(frame_bytes=64 * 1024)),
        (checks.check_long_message, dict, {}, Limits(message_bytes=64 * 1024)),
        (checks.check_disconnect_event, drop_disconnects, {}, AWS),
        (checks.check_posted_calls, dict, {"WEBSOCKET_API_URL": "http://127.0.0.1:9/ocpp"}, AWS),
        (charge.check_charge, subtract_watt_hour, {}, AWS),
    ],
)
def test_broken_stack_fails_its_fact(monkeypatch, check, cripple, settings, limits):
    functions = stack.load_functions

    @contextmanager
    def crippled(environment: Any) -> Iterator[Any]:
        with functions({**environment, **settings}) as handlers:
            yield cripple(dict(handlers))

    monkeypatch.setattr(stack, "load_functions", crippled)
    monkeypatch.setattr(stack, "Gateway", partial(Gateway, limits=limits))
    fact = next(row for row in FACTS if row.check is check)
    with run_stack(options()) as there:
        told: list[str] = []
        site = Site(url=there.ocpp_url, api=Api(url=there.url, token=TOKEN), say=told.append, patience_s=5)
        (finding,) = check_facts(site, [fact])
        left = site.clean_up()

    assert (Verdict.DOES_NOT_HOLD, []) == (finding.verdict, left), finding.seen
    assert fact.otherwise in table([finding])


def test_http_api_that_lets_everybody_in_fails(local_stack, site):
    """The gateway of this machine sends the origin secret for everybody."""
    site.direct_api = local_stack.url

    with pytest.raises(DoesNotHold, match="it answered"):
        checks.check_http_origin_secret(site)


def test_functions_refuse_another_origin_secret(monkeypatch):
    functions = stack.load_functions
    monkeypatch.setattr(stack, "load_functions", lambda settings: functions({**settings, "ORIGIN_SECRET": "other"}))
    with run_stack(options()) as there:
        driver, operator = Api(url=there.url), Api(url=there.url, token=TOKEN)
        site = Site(url=there.ocpp_url, api=operator, say=print, direct_api=there.url)
        listed = operator.ask("GET", "/operations/stations", x_origin_verify="other")
        webhook = driver.ask("POST", "/payments/webhook", b"{}", x_origin_verify="other")

        assert "refused with 403" == checks.check_http_origin_secret(site)
    assert [(403, "Forbidden")] * 2 == [(it.status, it.body["status"]) for it in (listed, webhook)]


def test_missing_webhook_is_looked_up_and_reported(monkeypatch):
    functions = stack.load_functions
    monkeypatch.setattr(
        stack, "load_functions", lambda settings: functions({**settings, "STRIPE_WEBHOOK_SECRET": "other"})
    )
    monkeypatch.setattr(charge, "WEBHOOK_S", 0.5)
    with run_stack(options()) as there:
        site = Site(url=there.ocpp_url, api=Api(url=there.url, token=TOKEN), say=print, patience_s=10)

        seen = charge.check_charge(site)

        assert [] == site.clean_up()
    assert "looking it up: no webhook came" in seen


def test_connection_ends_are_awaited_and_reported(monkeypatch):
    limits = Limits(idle_seconds=1, life_seconds=3)
    monkeypatch.setattr(stack, "Gateway", partial(Gateway, limits=limits))
    for name, seconds in {"IDLE_S": 1, "LIFE_S": 3, "PROGRESS_S": 0.5, "PING_S": 0.3}.items():
        monkeypatch.setattr(checks, name, seconds)
    told: list[str] = []
    with run_stack(options()) as there:
        site = Site(url=there.ocpp_url, api=Api(url=there.url, token=TOKEN), say=told.append)

        assert checks.check_idle_timeout(site).endswith("with 1001 Going away")
        assert checks.check_connection_lifetime(site).endswith("with 1001 Going away")
        # This machine's gateway does not count pings; what AWS does is asked there.
        with pytest.raises(ClientError, match="closed"):
            checks.check_pings(site)

        assert [] == site.clean_up()
    assert any("has been connected for" in line for line in told)
    assert any("Pinging for" in line for line in told)


def test_unimportant_fact_fails_nothing(local_stack, capsys):
    def broken(_: Site) -> str:
        raise DoesNotHold("it is otherwise")

    assert 0 == main(addresses(local_stack), ENVIRONMENT, [build_fact("a", broken, matters=False)])
    assert 1 == main(
        addresses(local_stack), ENVIRONMENT, [build_fact("a", broken, matters=False), build_fact("b", broken)]
    )

    told = capsys.readouterr().out
    assert "Does not hold: b." in told
    assert told.count("it is otherwise") == 2 * 3  # as it was seen, and in the table


def test_long_and_aws_facts_are_skipped(local_stack):
    def never(_: Site) -> str:
        raise AssertionError("it was asked")

    at_home = Site(url=local_stack.ocpp_url, api=Api(url=local_stack.url), say=print, long=True)
    on_aws = Site(url="wss://csms.example/ocpp", api=Api(url="https://csms.example"), say=print)
    slow, theirs = build_fact("a", never, where=Where.LONG, minutes=11), build_fact("b", never, where=Where.AWS)

    assert ["only AWS can show it"] * 2 == [verdicts.check_fact(fact, at_home).seen for fact in (slow, theirs)]
    assert "it takes 11 minutes: LONG=1" == verdicts.check_fact(slow, on_aws).seen


def test_untestable_check_says_why(site):
    def nothing(_: Site) -> str:
        raise NotTestable("nothing is there")

    found = verdicts.check_fact(build_fact("a", nothing), site)

    assert (Verdict.NOT_TESTABLE, "nothing is there", False) == (found.verdict, found.seen, found.is_failure)


def test_interrupted_run_removes_its_stations(local_stack, capsys):
    def interrupted(site: Site) -> str:
        known = site.register_station()
        with site.connect_station(known) as socket:
            checks.boot_station(socket)
            site.driver.request_ok("POST", "/payments/create", {"chargePointId": known.identity, "connectorId": 1})
            raise KeyboardInterrupt

    assert 1 == main(addresses(local_stack), ENVIRONMENT, [build_fact("a", interrupted)])
    assert [] == stations(local_stack)
    assert "Interrupted." in capsys.readouterr().out


def test_payment_by_hand_is_awaited(local_stack, site):
    known = site.register_station()
    with site.connect_station(known) as socket:
        checks.boot_station(socket)
        created = site.driver.request_ok(
            "POST", "/payments/create", {"chargePointId": known.identity, "connectorId": 1}
        )
        page = "https://checkout.example/c/pay/cs_test_1"
        told: list[str] = []

        def say(line: str) -> None:
            told.append(line)
            if line.startswith("Waiting for the payment"):
                threading.Thread(target=story.pay, args=(created["checkoutUrl"],)).start()

        site.say = say
        paid_by = charge._await_payment(site, page, f"{local_stack.url}/payments/status/{created['reservationId']}")

    assert "hand" == paid_by
    assert f"Please pay with card 4242 4242 4242 4242, any date to come, any code: {page}" == told[0]


def test_unpaid_smoke_run_gives_up(local_stack, site):
    known = site.register_station()
    with site.connect_station(known) as socket:
        checks.boot_station(socket)
        created = site.driver.request_ok(
            "POST", "/payments/create", {"chargePointId": known.identity, "connectorId": 1}
        )
    site.pay_minutes = 0.01

    with pytest.raises(DoesNotHold, match=r"nobody paid within 0.01 minutes"):
        charge._await_payment(
            site, "https://checkout.example/1", f"{local_stack.url}/payments/status/{created['reservationId']}"
        )

    assert [] == site.clean_up()
    assert [] == stations(local_stack)


@pytest.mark.parametrize(
    ("arguments", "environ", "why"),
    [
        (["--url", "", "--api", "https://a.example"], ENVIRONMENT, "URL must be wss://..., not ''"),
        (["--url", "https://a.example", "--api", "https://a.example"], ENVIRONMENT, "URL must be wss://"),
        (["--url", "wss://a.example/ocpp", "--api", "a.example"], ENVIRONMENT, "API must be https://"),
        (["--url", "wss://a.example:x/", "--api", "https://a.example"], ENVIRONMENT, "URL must be wss://"),
        (["--url", "wss://a.example", "--api", "https://a.example"], {}, "TOKEN must be an operator's token"),
        (["--url", "wss://a.example", "--api", "https://a.example", "--pay-minutes", "0"], ENVIRONMENT, "more than 0"),
        (["--api", "https://a.example"], ENVIRONMENT, "required: --url"),
    ],
)
def test_wrong_argument_exits_with_2(capsys, arguments, environ, why):
    with pytest.raises(SystemExit) as ended:
        main(arguments, environ)

    told = capsys.readouterr()
    assert (2, "", 1) == (ended.value.code, told.out, told.err.count("\n"))
    assert why in told.err


def test_refused_token_or_absent_api_exits_1(local_stack, capsys):
    nobody = f"http://127.0.0.1:{database.free_port()}"

    assert 1 == main(addresses(local_stack), {"TOKEN": "wrong"})
    assert 1 == main(["--url", "ws://127.0.0.1/ocpp", "--api", nobody], ENVIRONMENT)

    refused, absent = capsys.readouterr().err.splitlines()
    assert f"smoke: {local_stack.url} does not take the TOKEN: 401" in refused
    assert f"no answer from {nobody}" in absent


def test_running_transaction_is_closed_before_deletion(local_stack):
    def left_running(site: Site) -> str:
        with site.connect_station(site.register_station()) as socket:
            checks.boot_station(socket)
            begun = {"idTag": "CARD", "meterStart": 0, "timestamp": "2026-01-01T00:00:00Z"}
            return str(socket.call("StartTransaction", connectorId=1, **begun)["transactionId"])

    assert 0 == main(addresses(local_stack), ENVIRONMENT, [build_fact("a", left_running)])
    assert [] == stations(local_stack)


def test_undeletable_station_is_named(local_stack, site):
    known = site.register_station()
    unauthorized_site = Site(
        url=local_stack.ocpp_url, api=Api(url=local_stack.url, token="wrong"), say=print, registered=[known]
    )

    (problem,) = unauthorized_site.clean_up()

    assert problem.startswith(f"{known.identity} is still registered: ")


def test_each_fact_has_question_and_remedy():
    numbers = {re.match(r"\d+", fact.name)[0] for fact in FACTS}  # type: ignore[index]

    assert {str(number) for number in range(1, 13)} <= numbers
    assert len(FACTS) == len({fact.name for fact in FACTS})
    assert [] == [fact.name for fact in FACTS if not fact.asks.endswith("?") or not fact.otherwise.endswith(".")]


def test_gateway_error_is_no_ocpp_frame(site, monkeypatch):
    with site.connect_station(site.register_station()) as socket:
        monkeypatch.setattr(type(socket), "receive_text", lambda *_: '{"message": "Forbidden", "connectionId": "x"}')

        with pytest.raises(ClientError, match="not an OCPP frame"):
            socket.call("Heartbeat")
