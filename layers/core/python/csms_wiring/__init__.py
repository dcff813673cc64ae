"""How a function is assembled: its settings, its log and its dependencies.

It is beside csms in the layer, because a function is deployed with its own folder and the layers only. Each function
calls only what it needs: a client exists only where the role permits its calls (infra.permissions), and unneeded
modules are not imported. Payments are in `csms_wiring.paying`, mail in `csms_wiring.mailing`.
"""

from __future__ import annotations

import os

import boto3
from aws_lambda_powertools import Logger, Metrics

from csms.adapters.apigateway import Gateway, MaintenanceTrigger
from csms.adapters.dynamodb import Store
from csms.config import Settings
from csms.ocpp.versions import DIALECTS
from csms.service import Dependencies
from csms_observer import observer


def read_settings() -> Settings:
    """The settings in this environment. Raises BadRequest, which names the first invalid one."""
    return Settings.load(os.environ)


def open_log(function: str) -> tuple[Logger, Metrics]:
    """The function's logger and metrics."""
    return Logger(service=function), Metrics(namespace="csms", service=function)


def build_dependencies(
    settings: Settings, logger: Logger, metrics: Metrics, *, trigger_maintenance: MaintenanceTrigger | None = None
) -> Dependencies:
    """The dependencies of a function that calls no payment provider; owed payment calls are left to
    `trigger_maintenance`, or to the sweep."""
    return Dependencies(
        store=Store(boto3.client("dynamodb"), settings.table_name),
        dialects=DIALECTS,
        gateway=Gateway(boto3.client("apigatewaymanagementapi", endpoint_url=settings.websocket_api_url)),
        trigger_maintenance=trigger_maintenance,
        policy=settings.policy,
        observe=observer(logger, metrics),
    )


def build_maintenance_trigger(settings: Settings) -> MaintenanceTrigger:
    """The trigger that invokes the maintenance function to make an owed payment call now."""
    return MaintenanceTrigger(boto3.client("lambda"), settings.maintenance_function)
