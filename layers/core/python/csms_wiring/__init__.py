"""How a function is assembled: its settings, its log and its dependencies.

It is beside csms in the layer, because a function is deployed with its own folder and the layers only. Each function
calls only what it needs: a client exists only where the role permits its calls (infra.permissions), and unneeded
modules are not imported. Payments are in `csms_wiring.paying`, mail in `csms_wiring.mailing`.
"""

from __future__ import annotations

import os
from functools import cache
from threading import Lock
from typing import Final

import boto3
from aws_lambda_powertools import Logger, Metrics

from csms.adapters.apigateway import Gateway, MaintenanceTrigger
from csms.adapters.dynamodb import Store
from csms.adapters.sqs import Timer
from csms.config import Settings
from csms.ocpp.versions import DIALECTS
from csms.service import Dependencies
from csms.service.dependencies import SetTimer
from csms_observer import observer, write_log_line

OPENING: Final = Lock()
"""Held while a client is created after the import: on a laptop the functions share a process and its threads."""


def read_settings() -> Settings:
    """The settings in this environment. Raises BadRequest, which names the first invalid one."""
    return Settings.load(os.environ)


def open_log(function: str) -> tuple[Logger, Metrics]:
    """The function's logger and metrics."""
    return Logger(service=function, json_serializer=write_log_line), Metrics(namespace="csms", service=function)


def read_origin_secrets(settings: Settings) -> tuple[str, ...]:
    """The origin secrets that are accepted: the current one, and the next, so that a rotation loses no request."""
    return tuple(it for it in (settings.origin_secret, settings.next_origin_secret) if it)


def build_dependencies(
    settings: Settings,
    logger: Logger,
    metrics: Metrics,
    *,
    trigger_maintenance: MaintenanceTrigger | None = None,
    set_timer: SetTimer | None = None,
) -> Dependencies:
    """The dependencies of a function that calls no payment provider; owed payment calls are left to
    `trigger_maintenance`, or to the sweep, and unanswered CALLs to `set_timer`, or to the sweep."""
    return Dependencies(
        store=Store(boto3.client("dynamodb"), settings.table_name),
        dialects=DIALECTS,
        gateway=Gateway(boto3.client("apigatewaymanagementapi", endpoint_url=settings.websocket_api_url)),
        trigger_maintenance=trigger_maintenance,
        set_timer=set_timer,
        policy=settings.policy,
        observe=observer(logger, metrics),
    )


def build_maintenance_trigger(settings: Settings) -> MaintenanceTrigger:
    """The trigger that invokes the maintenance function to make an owed payment call now."""
    return MaintenanceTrigger(boto3.client("lambda"), settings.maintenance_function)


def build_timer(settings: Settings) -> SetTimer | None:
    """What sets timers in the queue; None if TIMER_QUEUE_URL is empty. Few invocations set one, so the client is
    created with the first timer and does not delay the start."""
    if not settings.timer_queue_url:
        return None

    @cache
    def open_timer() -> Timer:
        return Timer(boto3.client("sqs"), settings.timer_queue_url)

    def set_timer(station_id: str, *, seconds: int, call_id: str | None = None) -> None:
        with OPENING:
            timer = open_timer()
        timer(station_id, seconds=seconds, call_id=call_id)

    return set_timer
