"""What CloudFront adds to a request: the proof that it came through CloudFront, and the viewer's address.

API Gateway's own `sourceIp` is CloudFront's address, and X-Forwarded-For begins with whatever the viewer sent. So
neither is read: a CloudFront Function writes the address into a header of its own (infra/edge).
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from ipaddress import IPv6Address, ip_address
from typing import Final

ORIGIN_HEADER: Final = "x-origin-verify"
"""The header with the origin secret. CloudFront replaces it if the viewer sent one."""

VIEWER_HEADER: Final = "x-viewer-address"
"""The header with the viewer's address, which infra/edge sets, whatever the viewer sent."""


def came_through_cloudfront(headers: Mapping[str, str], secrets: Iterable[str]) -> bool:
    """Whether the request has one of these origin secrets, in headers whose names may be in any case. False if there
    are no secrets; an empty one is none."""
    shown = (_only_value(headers, ORIGIN_HEADER) or "").encode(errors="surrogatepass")
    return any(hmac.compare_digest(shown, secret.encode()) for secret in secrets if secret)


def read_viewer_address(headers: Mapping[str, str], secrets: Iterable[str]) -> str | None:
    """The address that the viewer had at CloudFront, in its canonical form; an IPv4 address within an IPv6 one is the
    IPv4 address. None if the request did not come through CloudFront, or the header is no address."""
    if not came_through_cloudfront(headers, secrets):
        return None
    try:
        address = ip_address(_only_value(headers, VIEWER_HEADER) or "")
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        address = address.ipv4_mapped or address
    return str(address)


def _only_value(headers: Mapping[str, str], name: str) -> str | None:
    """The header's value; None if there is no such header, or several in different case."""
    values = [value for key, value in headers.items() if key.lower() == name]
    return values[0] if len(values) == 1 else None
