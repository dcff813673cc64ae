"""The smoke test, over the stack on this machine: every fact that can be asked here holds, and one that does not is
told, with what to change. What it registers it takes away."""

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
from local.stack import Options, Secrets, Stack, running
from smoke import charge, checks, verdicts
from smoke.__main__ import findings, main, table
from smoke.facts import FACTS
from smoke.site import Site
from smoke.verdicts import DoesNotHold, Fact, NotTestable, Verdict, Where

TOKEN = "the-operators-token"
ENVIRONMENT = {"TOKEN": TOKEN}


def options() -> Options:
    secrets = Secrets(origin="the-edge", webhook="whsec_local", operator=TOKEN)
    return Options(sites=(), secrets=secrets, engine="dynoxide", sweep=timedelta(seconds=2))


@pytest.fixture(scope="module")
def here() -> Iterator[Stack]:
    if not database.DYNOXIDE.exists():
        pytest.skip("dynoxide has no binary for this platform")
    with running(options()) as it:
        yield it


@pytest.fixture
def site(here: Stack) -> Iterator[Site]:
    it = Site(url=here.ocpp_url, api=Api(url=here.url, token=TOKEN), say=lambda _: None)
    yield it
    assert [] == it.clean_up()


def addresses(here: Stack) -> list[str]:
    return ["--url", f"{here.ocpp_url}/", "--api", here.url]


def stations(here: Stack) -> list[Any]:
    listed: list[Any] = Api(url=here.url, token=TOKEN).good("GET", "/operations/stations")["stations"]
    return listed


def row(name: str, check: Any, **more: Any) -> Fact:
    return Fact(name=name, asks="Is it so?", check=check, otherwise="Change this.", **more)


def test_every_fact_holds_or_is_untestable(here, capsys):
    status = main(addresses(here), ENVIRONMENT)

    told = capsys.readouterr().out
    rows = {
        name: verdict
        for verdict, name in re.findall(r"^(holds|DOES NOT HOLD|not testable here) +(\d+\w?) ", told, re.M)
    }
    only_there = {"3b", "5", "8", "10", "12", "12b", "15"}
    assert {fact.name.split()[0] for fact in FACTS} == set(rows)
    assert dict.fromkeys(only_there, "not testable here") | dict.fromkeys(set(rows) - only_there, "holds") == rows
    assert "0.5 kWh, €0.80 captured" in told
    assert (0, []) == (status, stations(here))
    assert [] == Api(url=here.url, token=TOKEN).good("GET", "/operations/strangers")["strangers"]


Handlers = dict[str, Any]
Cripple = Callable[[Handlers], Handlers]


def without_sub_protocol(handlers: Handlers) -> Handlers:
    return {**handlers, "ws_connect": lambda *event: {**handlers["ws_connect"](*event), "headers": {}}}


def with_401_for_all(handlers: Handlers) -> Handlers:
    def connect(event: Any, context: Any) -> Any:
        answer = handlers["ws_connect"](event, context)
        return answer if answer["statusCode"] == 200 else {"statusCode": 401}

    return {**handlers, "ws_connect": connect}


def with_a_name_encoded_twice(handlers: Handlers) -> Handlers:
    def connect(event: Any, context: Any) -> Any:
        query = event.get("queryStringParameters")
        if query is not None:
            event = {**event, "queryStringParameters": {"cp": quote(query["cp"])}}
        return handlers["ws_connect"](event, context)

    return {**handlers, "ws_connect": connect}


def with_empty_frames(handlers: Handlers) -> Handlers:
    return {**handlers, "ws_message": lambda *event: {"body": " ", **handlers["ws_message"](*event)}}


def with_errors_for_what_is_no_call(handlers: Handlers) -> Handlers:
    def message(event: Any, context: Any) -> Any:
        if not event["body"].startswith("[2"):
            raise RuntimeError("no route")
        return handlers["ws_message"](event, context)

    return {**handlers, "ws_message": message}


def without_disconnects(handlers: Handlers) -> Handlers:
    def connect(event: Any, context: Any) -> Any:
        gone = event["requestContext"]["eventType"] == "DISCONNECT"
        return {"statusCode": 200} if gone else handlers["ws_connect"](event, context)

    return {**handlers, "ws_connect": connect}


def without_boots(handlers: Handlers) -> Handlers:
    answer = {"status": "Accepted", "currentTime": "2026-01-01T00:00:00Z", "interval": 300}

    def message(event: Any, context: Any) -> Any:
        frame = json.loads(event["body"])
        booting = frame[0] == 2 and frame[2] == "BootNotification"
        said = {"statusCode": 200, "body": json.dumps([3, frame[1], answer])}
        return said if booting else handlers["ws_message"](event, context)

    return {**handlers, "ws_message": message}


def with_a_watt_hour_less(handlers: Handlers) -> Handlers:
    def message(event: Any, context: Any) -> Any:
        less = event["body"].replace("13000", "12999")
        return handlers["ws_message"]({**event, "body": less}, context)

    return {**handlers, "ws_message": message}


@pytest.mark.parametrize(
    ("check", "cripple", "settings", "limits"),
    [
        (checks.passes_the_edge, with_a_name_encoded_twice, {}, AWS),
        (checks.sub_protocol, without_sub_protocol, {}, AWS),
        (checks.refusals, with_401_for_all, {}, AWS),
        (checks.knows_its_station, without_boots, {}, AWS),
        (checks.silence, with_empty_frames, {}, AWS),
        (checks.every_frame_is_heard, with_errors_for_what_is_no_call, {}, AWS),
        (checks.long_frame, dict, {}, Limits(frame_bytes=64 * 1024)),
        (checks.long_message, dict, {}, Limits(message_bytes=64 * 1024)),
        (checks.goodbye, without_disconnects, {}, AWS),
        (checks.reaches_stations, dict, {"WEBSOCKET_API_URL": "http://127.0.0.1:9/ocpp"}, AWS),
        (charge.charged, with_a_watt_hour_less, {}, AWS),
    ],
)
def test_broken_stack_fails_its_fact(monkeypatch, check, cripple, settings, limits):
    functions = stack.functions

    @contextmanager
    def crippled(environment: Any) -> Iterator[Any]:
        with functions({**environment, **settings}) as handlers:
            yield cripple(dict(handlers))

    monkeypatch.setattr(stack, "functions", crippled)
    monkeypatch.setattr(stack, "Gateway", partial(Gateway, limits=limits))
    fact = next(row for row in FACTS if row.check is check)
    with running(options()) as there:
        told: list[str] = []
        site = Site(url=there.ocpp_url, api=Api(url=there.url, token=TOKEN), say=told.append, patience_s=5)
        (finding,) = findings(site, [fact])
        left = site.clean_up()

    assert (Verdict.DOES_NOT_HOLD, []) == (finding.verdict, left), finding.seen
    assert fact.otherwise in table([finding])


def test_missing_webhook_is_looked_up_and_reported(monkeypatch):
    functions = stack.functions
    monkeypatch.setattr(stack, "functions", lambda settings: functions({**settings, "STRIPE_WEBHOOK_SECRET": "other"}))
    monkeypatch.setattr(charge, "WEBHOOK_S", 0.5)
    with running(options()) as there:
        site = Site(url=there.ocpp_url, api=Api(url=there.url, token=TOKEN), say=print, patience_s=10)

        seen = charge.charged(site)

        assert [] == site.clean_up()
    assert "looking it up: no webhook came" in seen


def test_connection_ends_are_awaited_and_reported(monkeypatch):
    limits = Limits(idle_seconds=1, life_seconds=3)
    monkeypatch.setattr(stack, "Gateway", partial(Gateway, limits=limits))
    for name, seconds in {"IDLE_S": 1, "LIFE_S": 3, "PROGRESS_S": 0.5, "PING_S": 0.3}.items():
        monkeypatch.setattr(checks, name, seconds)
    told: list[str] = []
    with running(options()) as there:
        site = Site(url=there.ocpp_url, api=Api(url=there.url, token=TOKEN), say=told.append)

        assert checks.idle_close(site).endswith("with 1001 Going away")
        assert checks.life_close(site).endswith("with 1001 Going away")
        # This machine's gateway does not count pings; what AWS does is asked there.
        with pytest.raises(ClientError, match="closed"):
            checks.pings(site)

        assert [] == site.clean_up()
    assert any("has been connected for" in line for line in told)
    assert any("Pinging for" in line for line in told)


def test_unimportant_fact_fails_nothing(here, capsys):
    def broken(_: Site) -> str:
        raise DoesNotHold("it is otherwise")

    assert 0 == main(addresses(here), ENVIRONMENT, [row("a", broken, matters=False)])
    assert 1 == main(addresses(here), ENVIRONMENT, [row("a", broken, matters=False), row("b", broken)])

    told = capsys.readouterr().out
    assert "Does not hold: b." in told
    assert told.count("it is otherwise") == 2 * 3  # as it was seen, and in the table


def test_long_and_aws_facts_are_skipped(here):
    def never(_: Site) -> str:
        raise AssertionError("it was asked")

    at_home = Site(url=here.ocpp_url, api=Api(url=here.url), say=print, long=True)
    on_aws = Site(url="wss://csms.example/ocpp", api=Api(url="https://csms.example"), say=print)
    slow, theirs = row("a", never, where=Where.LONG, minutes=11), row("b", never, where=Where.AWS)

    assert ["only AWS can show it"] * 2 == [verdicts.asked(fact, at_home).seen for fact in (slow, theirs)]
    assert "it takes 11 minutes: LONG=1" == verdicts.asked(slow, on_aws).seen


def test_untestable_check_says_why(site):
    def nothing(_: Site) -> str:
        raise NotTestable("nothing is there")

    found = verdicts.asked(row("a", nothing), site)

    assert (Verdict.NOT_TESTABLE, "nothing is there", False) == (found.verdict, found.seen, found.fails)


def test_interrupted_run_removes_its_stations(here, capsys):
    def interrupted(site: Site) -> str:
        known = site.station()
        with site.dialled(known) as socket:
            checks.booted(socket)
            site.driver.good("POST", "/payments/create", {"chargePointId": known.identity, "connectorId": 1})
            raise KeyboardInterrupt

    assert 1 == main(addresses(here), ENVIRONMENT, [row("a", interrupted)])
    assert [] == stations(here)
    assert "Interrupted." in capsys.readouterr().out


def test_payment_by_hand_is_awaited(here, site):
    known = site.station()
    with site.dialled(known) as socket:
        checks.booted(socket)
        created = site.driver.good("POST", "/payments/create", {"chargePointId": known.identity, "connectorId": 1})
        page = "https://checkout.example/c/pay/cs_test_1"
        told: list[str] = []

        def say(line: str) -> None:
            told.append(line)
            if line.startswith("Waiting for the payment"):
                threading.Thread(target=story.pay, args=(created["checkoutUrl"],)).start()

        site.say = say
        paid_by = charge._paid(site, page, f"{here.url}/payments/status/{created['reservationId']}")

    assert "hand" == paid_by
    assert f"Please pay with card 4242 4242 4242 4242, any date to come, any code: {page}" == told[0]


def test_unpaid_smoke_run_gives_up(here, site):
    known = site.station()
    with site.dialled(known) as socket:
        checks.booted(socket)
        created = site.driver.good("POST", "/payments/create", {"chargePointId": known.identity, "connectorId": 1})
    site.pay_minutes = 0.01

    with pytest.raises(DoesNotHold, match=r"nobody paid within 0.01 minutes"):
        charge._paid(site, "https://checkout.example/1", f"{here.url}/payments/status/{created['reservationId']}")

    assert [] == site.clean_up()
    assert [] == stations(here)


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


def test_refused_token_or_absent_api_exits_1(here, capsys):
    nobody = f"http://127.0.0.1:{database.free_port()}"

    assert 1 == main(addresses(here), {"TOKEN": "wrong"})
    assert 1 == main(["--url", "ws://127.0.0.1/ocpp", "--api", nobody], ENVIRONMENT)

    refused, absent = capsys.readouterr().err.splitlines()
    assert f"smoke: {here.url} does not take the TOKEN: 401" in refused
    assert f"no answer from {nobody}" in absent


def test_running_transaction_is_closed_before_deletion(here):
    def left_running(site: Site) -> str:
        with site.dialled(site.station()) as socket:
            checks.booted(socket)
            begun = {"idTag": "CARD", "meterStart": 0, "timestamp": "2026-01-01T00:00:00Z"}
            return str(socket.call("StartTransaction", connectorId=1, **begun)["transactionId"])

    assert 0 == main(addresses(here), ENVIRONMENT, [row("a", left_running)])
    assert [] == stations(here)


def test_undeletable_station_is_named(here, site):
    known = site.station()
    stranger = Site(url=here.ocpp_url, api=Api(url=here.url, token="wrong"), say=print, registered=[known])

    (problem,) = stranger.clean_up()

    assert problem.startswith(f"{known.identity} is still registered: ")


def test_each_fact_has_question_and_remedy():
    numbers = {re.match(r"\d+", fact.name)[0] for fact in FACTS}  # type: ignore[index]

    assert {str(number) for number in range(1, 13)} <= numbers
    assert len(FACTS) == len({fact.name for fact in FACTS})
    assert [] == [fact.name for fact in FACTS if not fact.asks.endswith("?") or not fact.otherwise.endswith(".")]


def test_gateway_error_is_no_ocpp_frame(site, monkeypatch):
    with site.dialled(site.station()) as socket:
        monkeypatch.setattr(type(socket), "heard", lambda *_: '{"message": "Forbidden", "connectionId": "x"}')

        with pytest.raises(ClientError, match="not an OCPP frame"):
            socket.call("Heartbeat")
