"""Database engines: each is started once per test worker, when a test first needs it. Each test gets a fresh table."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any

import boto3
import hypothesis
import pytest
from moto import mock_aws

from local import database
from local.invoke import REGION
from tests.tables import ENGINES, REFEREE, Table, Tables, create_unique_table, skip_without_dynoxide

# The examples are the same in every run, so that a failure is caused by the change at hand. HYPOTHESIS_PROFILE=search
# looks for new ones; run it for an hour now and then.
hypothesis.settings.register_profile("steady", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("search", deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

Engines = Callable[[str], database.Database]


def pytest_report_header() -> list[str]:
    """Report which engines and payment providers the tests use."""
    referee = "" if "dynamodb-local" in ENGINES else f" (not DynamoDB Local: {REFEREE} does not name its jar)"
    stripe = (
        ""
        if os.environ.get("STRIPE_API_KEY", "").startswith("sk_test_")
        else " (not Stripe itself: STRIPE_API_KEY is no test key)"
    )
    return [f"database engines: {', '.join(ENGINES)}{referee}", f"payment provider: the stand-in{stripe}"]


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """A running engine by its name. Skips the test if this machine does not have the engine."""
    with ExitStack() as started:

        @cache
        def running(name: str) -> database.Database:
            return started.enter_context(database.start(name))

        def engine(name: str) -> database.Database:
            if name == "dynoxide":
                skip_without_dynoxide()
            return running(name)

        yield engine


@pytest.fixture(scope="module")
def tables(engines: Engines) -> Iterator[Tables]:
    """Fresh tables with unique names. moto is started with the first table that needs it and stopped after the module,
    because starting takes half a second."""
    with ExitStack() as mocks:

        @cache
        def moto() -> Any:
            mocks.enter_context(mock_aws())
            return boto3.client("dynamodb", region_name=REGION)

        def table(name: str) -> Table:
            if name == "moto":
                return create_unique_table(moto())
            endpoint = engines(name).endpoint
            return create_unique_table(database.client(endpoint), endpoint)

        yield table
