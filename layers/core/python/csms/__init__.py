"""csms: the decisions of a charging back end, and the little I/O they need."""

from typing import Final

__version__: Final = "0.6.0"
"""The release, by semantic versioning; CHANGELOG.md says what it brought, tests/releases what it stores."""
