"""Database engines: each is started once per test worker, when a test first asks for it; each test gets a fresh
table."""

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
from tests.tables import ENGINES, REFEREE, Table, Tables, create_unique_table

# The same examples in every run, so that a red run is about the change at hand. HYPOTHESIS_PROFILE=search looks for new
# ones, and is worth an hour now and then.
hypothesis.settings.register_profile("steady", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("search", deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

Engines = Callable[[str], database.Database]


def pytest_report_header() -> list[str]:
    """Which engines and which payment providers sit the exams."""
    referee = "" if "dynamodb-local" in ENGINES else f" (not DynamoDB Local: {REFEREE} does not name its jar)"
    stripe = (
        ""
        if os.environ.get("STRIPE_API_KEY", "").startswith("sk_test_")
        else " (not Stripe itself: STRIPE_API_KEY is no test key)"
    )
    return [f"database engines: {', '.join(ENGINES)}{referee}", f"payment provider: the stand-in{stripe}"]


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """A running engine by its name; skips what this machine does not have."""
    with ExitStack() as started:

        @cache
        def running(name: str) -> database.Database:
            return started.enter_context(database.start(name))

        def engine(name: str) -> database.Database:
            if name == "dynoxide" and not database.DYNOXIDE.exists():
                pytest.skip("dynoxide has no binary for this platform")
            return running(name)

        yield engine


@pytest.fixture(scope="module")
def tables(engines: Engines) -> Iterator[Tables]:
    """Fresh tables, each under a name of its own; moto begins with the first that is asked of it and ends with the
    module, because beginning takes it half a second."""
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
