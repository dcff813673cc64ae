"""The settings: their names, defaults and error messages."""

from __future__ import annotations

import sys
from dataclasses import fields, make_dataclass
from datetime import timedelta
from importlib.util import find_spec, module_from_spec
from typing import Any

import pytest

from csms.config import Settings
from csms.errors import BadRequest
from csms.model import Policy
from infra import payment_secrets

NAMES = {
    "TABLE_NAME",
    "WEBSOCKET_API_URL",
    "PUBLIC_URL",
    "ORIGIN_SECRET",
    "NEXT_ORIGIN_SECRET",
    "MAINTENANCE_FUNCTION",
    "TIMER_QUEUE_URL",
    "PAYMENT_PROVIDER",
    *payment_secrets.SETTINGS,
    "STRIPE_API_BASE",
    "STATUS_FRESHNESS_MINUTES",
    "RESERVATION_TIMEOUT_MINUTES",
    "STATUS_RELEASE_MINUTES",
    "CHECKOUT_MINUTES",
    "START_WINDOW_MINUTES",
    "HEARTBEAT_SECONDS",
    "IMPLIED_STOP_GRACE_MINUTES",
    "SESSION_LIMIT_MINUTES",
    "DISCONNECT_LIMIT_MINUTES",
    "SETTLE_MARGIN_MINUTES",
    "LATE_START_MINUTES",
    "STOP_MARGIN_WH",
    "MAX_POWER_KW",
    "POWER_TOLERANCE_PERCENT",
    "PREPARING_IS_STARTABLE",
    "START_NEEDS_PLUG",
    "OPERATOR_NAME",
    "OPERATOR_ADDRESS",
    "OPERATOR_VAT_NUMBER",
    "OPERATOR_CONTACT",
    "RECEIPT_SENDER",
}
MINUTES = timedelta(minutes=1)


def load(**environ: str) -> Settings:
    return Settings.load({"TABLE_NAME": "table", **environ})


def test_settings_are_exactly_the_known_names() -> None:
    assert NAMES == {field.alias for field in Settings.model_fields.values()}


@pytest.mark.note("F08", "F72")
def test_defaults_match_seed_values() -> None:
    assert (
        Policy(
            status_freshness=30 * MINUTES,
            reservation_timeout=60 * MINUTES,
            status_release=240 * MINUTES,
            checkout_window=30 * MINUTES,
            start_window=10 * MINUTES,
            heartbeat=5 * MINUTES,
        )
        == load().policy
    )


def change_value(default: Any) -> Any:
    """Another default of the same type."""
    match default:
        case bool():
            return not default
        case str():
            return f"another {default}"
    return default * 2


@pytest.mark.note("F03", "F08", "F72", "F77")
def test_every_default_comes_from_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whether receipts are mailed is no setting: it follows from who sends them.
    rows = [row for row in fields(Policy) if row.name != "email_receipts"]
    other = make_dataclass(
        "Policy",
        [(row.name, row.type, change_value(row.default)) for row in rows],
        bases=(Policy,),
        frozen=True,
        slots=True,
        kw_only=True,
    )
    monkeypatch.setattr("csms.model.Policy", other)
    # As if csms.config were imported where Policy has these defaults.
    spec = find_spec("csms.config")
    assert spec is not None
    assert spec.loader is not None
    config = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "csms.config", config)
    spec.loader.exec_module(config)

    policy = config.Settings.load({"TABLE_NAME": "table"}).policy

    assert {row.name: change_value(row.default) for row in rows} == {
        row.name: getattr(policy, row.name) for row in rows
    }


def test_empty_value_counts_as_unset() -> None:
    assert load() == load(STATUS_FRESHNESS_MINUTES="", PUBLIC_URL="")


@pytest.mark.note("F72", "F77")
def test_durations_use_units_and_allow_fractions() -> None:
    policy = load(
        STATUS_FRESHNESS_MINUTES="1.5",
        RESERVATION_TIMEOUT_MINUTES="2",
        STATUS_RELEASE_MINUTES="3",
        CHECKOUT_MINUTES="45",
        START_WINDOW_MINUTES="4",
        HEARTBEAT_SECONDS="60",
        DISCONNECT_LIMIT_MINUTES="5",
        SESSION_LIMIT_MINUTES="6",
        SETTLE_MARGIN_MINUTES="0",
        LATE_START_MINUTES="-1",
        STOP_MARGIN_WH="500",
        MAX_POWER_KW="150",
        POWER_TOLERANCE_PERCENT="10",
    ).policy

    assert (6 * MINUTES, timedelta(0)) == (policy.session_limit, policy.late_start)
    assert (150_000, 10) == (policy.max_power_w, policy.power_tolerance_percent)
    assert (5 * MINUTES, timedelta(0), 500) == (policy.disconnect_limit, policy.settle_margin, policy.stop_margin_wh)
    assert (1.5 * MINUTES, 2 * MINUTES, 3 * MINUTES, 45 * MINUTES, 4 * MINUTES, MINUTES) == (
        policy.status_freshness,
        policy.reservation_timeout,
        policy.status_release,
        policy.checkout_window,
        policy.start_window,
        policy.heartbeat,
    )
    assert 3 * MINUTES == policy.presence_lease


@pytest.mark.note("F72")
@pytest.mark.parametrize("text", ["0", "-1", "-0.5", "-0"])
def test_zero_or_negative_duration_disables(text: str) -> None:
    policy = load(
        STATUS_FRESHNESS_MINUTES=text,
        RESERVATION_TIMEOUT_MINUTES=text,
        STATUS_RELEASE_MINUTES=text,
        IMPLIED_STOP_GRACE_MINUTES=text,
        SESSION_LIMIT_MINUTES=text,
    ).policy

    assert {timedelta(0)} == {
        policy.status_freshness,
        policy.reservation_timeout,
        policy.status_release,
        policy.implied_stop_grace,
        policy.session_limit,
    }


@pytest.mark.note("F03", "F32")
@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("false", False), ("0", False)])
def test_boolean_setting_accepts_words_and_digits(text: str, value: bool) -> None:
    policy = load(PREPARING_IS_STARTABLE=text, START_NEEDS_PLUG=text).policy

    assert (value, value) == (policy.preparing_is_startable, policy.start_needs_plug)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(
            (name, text)
            for name in sorted(NAMES)
            if name.endswith("_MINUTES")
            for text in ("ten", "inf", "nan", "1e300")
        ),
        ("HEARTBEAT_SECONDS", "1\n2"),
        ("HEARTBEAT_SECONDS", "9"),
        ("HEARTBEAT_SECONDS", "541"),
        ("CHECKOUT_MINUTES", "29"),
        ("CHECKOUT_MINUTES", "1381"),
        ("START_WINDOW_MINUTES", "0"),
        ("START_WINDOW_MINUTES", "-1"),
        ("START_WINDOW_MINUTES", "600000"),
        ("START_NEEDS_PLUG", "perhaps"),
        ("DISCONNECT_LIMIT_MINUTES", "0"),
        ("SETTLE_MARGIN_MINUTES", "-1"),
        ("MAX_POWER_KW", "0"),
        ("MAX_POWER_KW", "many"),
        ("POWER_TOLERANCE_PERCENT", "-1"),
        ("STOP_MARGIN_WH", "-1"),
        ("STOP_MARGIN_WH", "0.5"),
        *(("RECEIPT_SENDER", text) for text in ("receipts", "a@b", "a b@example.com", "a@example.com\nBcc: b@c.de")),
    ],
)
def test_bad_value_error_names_the_setting(name: str, text: str) -> None:
    with pytest.raises(BadRequest) as refused:
        load(**{name: text})

    assert refused.value.message.startswith(f"Setting {name}: ")
    assert 1 == len(refused.value.message.splitlines())


@pytest.mark.parametrize("sender", ["receipts@example.com", "Example Charging <receipts@example.com>"])
def test_receipts_mailed_only_with_sender(sender: str) -> None:
    assert (True, sender) == (
        load(RECEIPT_SENDER=sender).policy.email_receipts,
        load(RECEIPT_SENDER=sender).receipt_sender,
    )
    assert load().policy.email_receipts is False


def test_missing_table_name_is_named_in_error() -> None:
    with pytest.raises(BadRequest, match=r"^Setting TABLE_NAME: Field required$"):
        Settings.load({})


@pytest.mark.note("F71")
def test_settings_repr_hides_secrets() -> None:
    shown = repr(
        load(ORIGIN_SECRET="hush1", NEXT_ORIGIN_SECRET="hush4", STRIPE_API_KEY="hush2", STRIPE_WEBHOOK_SECRET="hush3")
    )

    assert "hush" not in shown
    assert "table" in shown


def test_unknown_environment_variables_are_ignored() -> None:
    assert load() == load(HOME="/somewhere", PATH="/bin")
