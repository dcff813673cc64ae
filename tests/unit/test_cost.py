"""The cost model: cases small enough to be computed by hand, and that it has a price for everything that is counted."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from bench import budgets, cost, cost_model
from bench.budgets import Bill, Budget
from bench.cost_model import Assumptions, cost_of_quantity

ROOT = Path(__file__).parents[2]

HEARTBEAT = Bill(requests=Counter(UpdateItem=1), write_units=1.0, bytes_in=25, bytes_out=50, log_bytes=500)
POLL = Bill(requests=Counter(Query=2), read_units=2.0, bytes_out=1100)
METER = replace(HEARTBEAT, write_units=7.0, bytes_kept_for_a_time=400)
SWEEP = Bill(requests=Counter(Query=4), read_units=2.0)

# No cold starts, and nothing around a frame, so that only what is counted is left.
PLAIN = Assumptions(stations=1000, heartbeat=730, cold_share=0, frame_overhead=0, http_overhead=0)


def build_budget(chapter: str, operation: str, bill: Bill) -> Budget:
    return Budget(operation=operation, when={chapter: 1}, bill=bill)


HEARTBEATS = [build_budget("heartbeat", "Heartbeat", HEARTBEAT)]


def serverless_costs(*lines: Budget, a: Assumptions = PLAIN) -> cost_model.Costs:
    return cost_model.serverless_costs(replace(a, alarms=0, dashboards=0, secrets=0, page_requests=0), lines)


def test_heartbeat_cost_counts_messages_invocation_and_write():
    # Every 730 s: 3,600 a month and station, so 3.6 million of 1,000 stations; half a GB of memory.
    # An invocation: 1 request x (1.5 ms CPU x 3.5 + 6 ms wait) = 11.25 ms.
    costs = serverless_costs(*HEARTBEATS)

    assert 7.2 == pytest.approx(costs["API Gateway: WebSocket messages"])
    assert 3.6 * 0.625 == pytest.approx(costs["DynamoDB: writes"])
    assert 3.6 * 0.20 + 3.6e6 * 0.01125 * 0.5 * 13.3334e-6 == pytest.approx(costs["Lambda"])
    assert 3.6e6 * 500 / 1e9 * 0.50 == pytest.approx(costs["CloudWatch: logs"])
    assert 0 == costs["DynamoDB: reads"]


def test_connection_minutes_cost_regardless_of_traffic():
    assert 1000 * 730 * 60 * 0.25e-6 == pytest.approx(serverless_costs()["API Gateway: connection minutes"])


def test_session_cost_scales_with_length_and_watching():
    a = replace(PLAIN, stations=1, sessions=24, session_minutes=60, meter=60, watched_minutes=3, poll=2)
    path = "GET /payments/status/{reservationId}"

    # 24 sessions a day are 730 a month: 60 MeterValues and 90 looks each.
    costs = serverless_costs(build_budget("session", "MeterValues", METER), build_budget("session", path, POLL), a=a)

    assert 730 * 60 * 7 * 0.625e-6 == pytest.approx(costs["DynamoDB: writes"])
    assert 730 * 90 * 2 * 0.125e-6 == pytest.approx(costs["DynamoDB: reads"])
    assert 730 * 90 * 1e-6 == pytest.approx(costs["API Gateway: HTTP requests"])
    # Of the year, what is kept for a time lies there for the last three months: at 0.25 and 0.20 a GB.
    assert 730 * 60 * 400 * 3 / 1e9 * 0.45 == pytest.approx(costs["DynamoDB: storage and backup"])


def test_budget_lines_share_operation_count():
    a = replace(PLAIN, stations=1, sessions=24)
    first, later = METER, replace(METER, write_units=4.0)
    later_twice = Budget(operation="MeterValues", when={"session": 2}, bill=later)

    costs = serverless_costs(build_budget("session", "MeterValues", first), later_twice, a=a)

    # A third of the 60 MeterValues of each of 730 sessions is as the first was.
    assert 730 * (20 * 7 + 40 * 4) * 0.625e-6 == pytest.approx(costs["DynamoDB: writes"])


def test_shared_metrics_are_paid_once():
    lines = [
        build_budget("heartbeat", it, replace(HEARTBEAT, metrics={"ws_message Frames", f"{it} own"}))
        for it in ("A", "B")
    ]

    assert 3 == cost_model.count_custom_metrics(PLAIN, lines)
    assert 0 == cost_model.count_custom_metrics(PLAIN, [build_budget("unknown_station", "A", lines[0].bill)])


def test_sweep_cost_ignores_station_count():
    one, many = (
        serverless_costs(build_budget("sweep", "sweep", SWEEP), a=replace(PLAIN, stations=n)) for n in (1, 1000)
    )

    assert 730 * 60 * 2 * 0.125e-6 == pytest.approx(one["DynamoDB: reads"])
    assert one["DynamoDB: reads"] == many["DynamoDB: reads"]
    # An invocation a minute: 4 requests x (1.5 ms CPU x 3.5 + 6 ms wait) = 45 ms.
    assert 730 * 60 * (0.20e-6 + 0.045 * 0.5 * 13.3334e-6) == pytest.approx(one["Lambda"])


def test_idle_queue_costs_its_polling():
    # Five requests of 20 s at a time are 657,000 in 730 hours.
    assert 657_000 * 0.40e-6 == pytest.approx(serverless_costs(a=replace(PLAIN, stations=0))["SQS: timers"])


def test_timer_costs_three_requests_and_its_wake():
    a = replace(PLAIN, stations=1, boots=24, pollers=0)
    sets_two = Bill(requests=Counter(Query=1, SendMessage=2), read_units=1.0)
    wake = Bill(requests=Counter(Query=1), read_units=3.0)

    costs = serverless_costs(
        build_budget("arrival", "BootNotification", sets_two), build_budget("timer", "wake", wake), a=a
    )

    # 24 boots a day are 730 a month, each with two timers.
    assert 730 * 2 * 3 * 0.40e-6 == pytest.approx(costs["SQS: timers"])
    assert 730 * (1 + 2 * 3) * 0.125e-6 == pytest.approx(costs["DynamoDB: reads"])
    assert 0 == serverless_costs(build_budget("timer", "wake", wake), a=a)["Lambda"]


@pytest.mark.parametrize(("chapter", "operation"), [("sweep", "sweep"), ("reconciliation", "reconcile")])
def test_scheduled_work_sends_no_websocket_messages(chapter, operation):
    assert 0 == serverless_costs(build_budget(chapter, operation, SWEEP))["API Gateway: WebSocket messages"]


def test_tiered_prices_apply_per_tier():
    assert 1000 == pytest.approx(cost_of_quantity("websocket_message", 1e9))
    assert 1000 + 800 == pytest.approx(cost_of_quantity("websocket_message", 2e9))
    assert 0 == cost_of_quantity("schedule_run", 14e6)
    assert 1 == pytest.approx(cost_of_quantity("schedule_run", 15e6))


def test_container_pays_hours_not_websocket_usage():
    small = cost_model.container_costs(replace(PLAIN, stations=1), HEARTBEATS, zones=1)
    two = cost_model.container_costs(replace(PLAIN, stations=1), HEARTBEATS, zones=2)

    assert 730 * (0.5 * 0.03238 + 1 * 0.00356) == pytest.approx(small["Fargate"])
    assert 2 * small["Fargate"] == pytest.approx(two["Fargate"])
    # An address for the balancer in each zone, and one for each task.
    assert (2 * 730 * 0.005, 4 * 730 * 0.005) == pytest.approx(
        (small["Public IPv4 addresses"], two["Public IPv4 addresses"])
    )
    assert 730 * (0.0225 + 0.006 / 3000) == pytest.approx(small["Network Load Balancer"])
    assert not [service for service in small if service.startswith("API Gateway: ") and "HTTP" not in service]
    assert 0 == small["Lambda"]


@pytest.mark.parametrize(("stations", "tasks"), [(1, 1), (5_000, 1), (5_001, 2), (50_000, 10)])
def test_tasks_scale_with_open_sockets(stations, tasks):
    costs = cost_model.container_costs(replace(PLAIN, stations=stations), (), zones=1)

    assert tasks * 730 * (0.5 * 0.03238 + 0.00356) == pytest.approx(costs["Fargate"])


def test_tasks_scale_with_cpu_use():
    # A Heartbeat a second is 1.5 ms of CPU a second; half a vCPU at 60 % is 300 ms, so 200 stations fill a task.
    costs = [
        cost_model.container_costs(replace(PLAIN, stations=n, heartbeat=1), HEARTBEATS, zones=1) for n in (200, 201)
    ]

    assert 2 * costs[0]["Fargate"] == pytest.approx(costs[1]["Fargate"])


def test_container_break_even_is_where_bills_cross():
    a, lines = Assumptions(), budgets.load()
    for zones in (1, 2):
        at = cost_model.break_even_stations(a, lines, zones=zones)

        assert at is not None
        before, after = (replace(a, stations=n) for n in (at * 0.9, at))
        assert sum(cost_model.serverless_costs(after, lines).values()) > sum(
            cost_model.container_costs(after, lines, zones=zones).values()
        )
        assert sum(cost_model.serverless_costs(before, lines).values()) < sum(
            cost_model.container_costs(before, lines, zones=zones).values()
        )


def test_frequencies_match_counted_chapters_exactly():
    assert {*cost_model.FREQUENCY, *cost_model.INSTALLATION_FREQUENCY} == {
        chapter for line in budgets.load() for chapter in line.when
    }


def test_within_session_operations_are_all_counted():
    assert set(cost_model.SESSION_FREQUENCY) <= {line.operation for line in budgets.load() if "session" in line.when}


def test_prices_have_date_source_and_unit():
    listed = cost_model.prices()

    assert re.fullmatch(r"\d{4}-\d\d-\d\d", listed["read"])
    assert [] == [name for name, price in listed["prices"].items() if not price["source"] or not price["unit"]]


def test_poll_interval_matches_driver_page():
    script = (ROOT / "web/driver/decisions.js").read_text()

    assert f"REFRESH_MS = {Assumptions().poll * 1000:_.0f};" in script


def test_report_shows_bill_and_container_threshold(capsys):
    assert 0 == cost.main(["--stations", "50", "--sessions", "4", "--heartbeat", "540"])
    told = capsys.readouterr().out

    assert "50 stations, each 4 sessions of 60 minutes a day, a Heartbeat every 540 s" in told
    assert re.search(r"^together +\d+\.\d\d +\d\.\d{4} +100%$", told, re.MULTILINE)
    assert re.search(r"cheaper from about [\d,]+ stations on in one zone, and from about [\d,]+ in two", told)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--stations", "-1"], "--stations"),
        (["--sessions", "many"], "--sessions"),
        (["--heartbeat", "0"], "--heartbeat must be more than 0"),
        (["--stations", "nan"], "--stations"),
        (["--colour", "red"], "unrecognized arguments: --colour red"),
    ],
)
def test_wrong_argument_exits_2_with_one_line(capsys, arguments, why):
    with pytest.raises(SystemExit) as ended:
        cost.main(arguments)

    told = capsys.readouterr()
    assert (2, "", 1) == (ended.value.code, told.out, told.err.count("\n"))
    assert why in told.err
