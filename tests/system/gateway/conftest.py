"""The functions of a test, and the address of a gateway before them."""

from collections.abc import Iterator

import pytest

from tests.system.gateway.backend import Backend


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def url(backend: Backend) -> Iterator[str]:
    with backend.serve() as base:
        yield base
