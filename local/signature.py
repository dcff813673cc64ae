"""AWS's signature of a request (Signature Version 4), verified as AWS does: whoever made it knows the secret key."""

import hmac
import re
from typing import Final

from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/, ]+)/\d{8}/(?P<region>[^/, ]+)/(?P<service>[^/, ]+)/aws4_request, "
    r"SignedHeaders=(?P<names>[^, ]+), Signature=(?P<signature>[0-9a-f]{64})"
)


def is_signed(request: web.Request, body: bytes, secret: str) -> bool:
    """Whether the request is signed with this secret key. Its age is not looked at."""
    shown = AUTHORIZATION.fullmatch(request.headers.get("Authorization", ""))
    at = request.headers.get("X-Amz-Date", "")
    if shown is None or not at:
        return False
    headers = {name: request.headers[name] for name in shown["names"].split(";") if name in request.headers}
    same = AWSRequest(method=request.method, url=f"http://{request.host}{request.raw_path}", headers=headers, data=body)
    same.context["timestamp"] = at
    signer = SigV4Auth(Credentials(shown["key"], secret), shown["service"], shown["region"])
    expected: str = signer.signature(signer.string_to_sign(same, signer.canonical_request(same)), same)
    return hmac.compare_digest(expected, shown["signature"])
