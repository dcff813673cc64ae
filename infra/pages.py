"""The CloudFront Function that serves the pages of routes.PAGES: infra/edge/pages.js with its table filled in."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

TEMPLATE: Final = Path(__file__).with_name("edge") / "pages.js"
EMPTY_TABLE: Final = "const PAGES = [];"


def pages_function(pages: Mapping[str, str]) -> str:
    """The source of the function; each {placeholder} of an address stands for one path segment."""
    rows = [[f"^{re.sub(r'{[^}]+}', '[^/]+', address)}/?$", f"/assets/{file}"] for address, file in pages.items()]
    source = TEMPLATE.read_text(encoding="utf-8")
    if EMPTY_TABLE not in source:
        raise ValueError(f"{TEMPLATE} has lost its table")
    return source.replace(EMPTY_TABLE, f"const PAGES = {json.dumps(rows)};")
