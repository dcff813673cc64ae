"""What the functions that call the payment provider need besides."""

from __future__ import annotations

import os
from dataclasses import replace

import boto3
from aws_lambda_powertools import Logger, Metrics

from csms.config import Settings
from csms.payment_providers import find_provider, open_provider
from csms.pricing.receipt import Issuer
from csms.service import Dependencies
from csms_wiring import build_dependencies, build_timer
from csms_wiring.secrets import resolve_secrets


def read_settings_and_secrets() -> Settings:
    """The settings in this environment, with the values of the secrets that it names. Raises BadRequest, which names
    the first invalid one."""
    return Settings.load(resolve_secrets(os.environ, boto3.client("secretsmanager")))


def build_payment_dependencies(settings: Settings, logger: Logger, metrics: Metrics) -> Dependencies:
    """The dependencies of a function that calls the configured payment provider and issues receipts."""
    return replace(
        build_dependencies(settings, logger, metrics, set_timer=build_timer(settings)),
        provider=open_provider(settings.policy.payment_provider, settings),
        issuer=Issuer(
            name=settings.operator_name,
            address=settings.operator_address,
            vat_number=settings.operator_vat_number,
            contact=settings.operator_contact,
        ),
        public_url=settings.public_url,
    )


def signature_header(settings: Settings) -> str:
    """The header, in lower case, in which the configured payment provider signs its webhooks."""
    return find_provider(settings.policy.payment_provider).signature_header
