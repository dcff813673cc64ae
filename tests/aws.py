"""An unmodified boto3 client for the local stand-ins of AWS services."""

from typing import Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from local.database import CREDENTIALS
from local.invoke import REGION


def aws_client(service: str, endpoint: str) -> Any:
    """A client of the service at the endpoint, without retries."""
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=Config(proxies={}, retries={"total_max_attempts": 1}),
    )


def sign(
    service: str, method: str, url: str, body: bytes = b"", *, secret: str = CREDENTIALS["AWS_SECRET_ACCESS_KEY"]
) -> dict[str, str]:
    """The headers that sign such a request."""
    request = AWSRequest(method=method, url=url, data=body)
    SigV4Auth(Credentials(CREDENTIALS["AWS_ACCESS_KEY_ID"], secret), service, REGION).add_auth(request)
    return {name: str(value) for name, value in request.headers.items() if name != "Content-Length"}
