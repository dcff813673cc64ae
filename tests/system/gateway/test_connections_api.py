"""Does @connections answer an unmodified boto3 as API Gateway's management API does?"""

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from local.gateway import Limits
from tests.aws import aws_client
from tests.system.gateway.clients import SOON, ask, close_code, management, raw_upgrade, station


def test_connections_api_posts_describes_and_deletes(backend, url):
    client = management(url)
    with station(url, user_agent_header="charger/1.0") as connection:
        connection_id = backend.next_event("CONNECT")["requestContext"]["connectionId"]
        client.post_to_connection(ConnectionId=connection_id, Data='[2,"ü"]'.encode())
        assert connection.recv(SOON) == '[2,"ü"]'

        found = client.get_connection(ConnectionId=connection_id)
        assert found["Identity"] == {"SourceIp": "127.0.0.1", "UserAgent": "charger/1.0"}
        assert found["ConnectedAt"] <= found["LastActiveAt"]
        assert datetime.now(UTC) - found["LastActiveAt"] < timedelta(seconds=SOON)

        client.delete_connection(ConnectionId=connection_id)
        assert close_code(connection) == 1000
    ended = backend.next_event("DISCONNECT")["requestContext"]
    assert (ended["disconnectStatusCode"], ended["disconnectReason"]) == (1000, "Connection Closed Normally")

    for call in (client.get_connection, client.delete_connection):
        with pytest.raises(client.exceptions.GoneException):
            call(ConnectionId=connection_id)
    with pytest.raises(client.exceptions.GoneException):
        client.post_to_connection(ConnectionId=connection_id, Data=b"too late")


def test_closing_connection_is_gone_and_dropped(backend):
    with backend.serve(Limits(close_seconds=0.5)) as url:
        client = management(url)
        deaf = raw_upgrade(url)
        assert deaf.getresponse().status == 101
        connection_id = backend.next_event("CONNECT")["requestContext"]["connectionId"]
        client.delete_connection(ConnectionId=connection_id)

        with pytest.raises(client.exceptions.GoneException):
            client.get_connection(ConnectionId=connection_id)
        assert backend.next_event("DISCONNECT")["requestContext"]["disconnectStatusCode"] == 1000
        deaf.close()


def test_post_over_128_kb_is_refused(backend, url):
    client = management(url)
    with station(url) as connection:
        connection_id = backend.next_event("CONNECT")["requestContext"]["connectionId"]
        with pytest.raises(client.exceptions.PayloadTooLargeException):
            client.post_to_connection(ConnectionId=connection_id, Data=b"x" * 131_073)
        client.post_to_connection(ConnectionId=connection_id, Data=b"x" * 131_072)

        assert len(connection.recv(SOON)) == 131_072


def test_wrong_stage_or_unsigned_is_forbidden(backend, url):
    client = aws_client("apigatewaymanagementapi", f"{url}/production")
    with station(url):
        connection_id = backend.next_event("CONNECT")["requestContext"]["connectionId"]
        with pytest.raises(client.exceptions.ForbiddenException):
            client.get_connection(ConnectionId=connection_id)

        assert ask(url, "GET", f"/ocpp/@connections/{quote(connection_id)}")[0] == 403
