"""The check of each fact. It returns what was seen if the fact holds, and raises DoesNotHold if it does not, or
NotTestable if it cannot be checked here."""

import json
import time
from typing import Final

from websockets.exceptions import InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from local.client import OCPP16, Api, ClientError, Socket, connect_station
from smoke.site import BOOT, TARIFF, RegisteredStation, Site
from smoke.verdicts import DoesNotHold, NotTestable

FRAME_LIMIT: Final = 32 * 1024
LARGE: Final = 100 * 1024
FRAGMENT: Final = 16 * 1024
TOO_BIG: Final = 1009
IDLE_S: Final = 600
PING_S: Final = 60
LIFE_S: Final = 7200
PROGRESS_S: Final = 60
NOBODY_ASKED: Final = "nobody-asked-this"


def check_identity_encoding(site: Site) -> str:
    """Basic credentials and an identity that needs percent-encoding reach $connect, decoded once."""
    station = site.register_station(" &+%é")
    with site.connect_station(station) as socket:
        boot_station(socket)
    return f"{station.identity!r} was let in"


def check_query_identity(site: Site) -> str:
    """A station that names another one in its query is still identified by its path."""
    mine, other = site.register_station("-q"), site.register_station("-r")
    with connect_station(site.url, mine.identity, mine.password, query=f"?cp={other.identity}") as socket:
        boot_station(socket)
    if site.count_timeline_entries(other, "Connected"):
        raise DoesNotHold("the query chose the station")
    return "the query was ignored"


def check_sub_protocol(site: Site) -> str:
    """From a list with spaces the station gets back the protocol that both speak, through the edge."""
    with site.connect_station(site.register_station("-p"), protocols=("ocpp9.9", OCPP16)) as socket:
        chosen = socket.connection.subprotocol
    if chosen != OCPP16:
        raise DoesNotHold(f"the sub-protocol in the answer is {chosen}")
    return f"ocpp9.9 and {OCPP16} were offered, {chosen} came back"


def check_refusals(site: Site) -> str:
    """A station sees the status with which $connect refuses it."""
    station = site.register_station("-s")
    unknown_station = RegisteredStation(identity=f"{site.name}-t", password="nobody's password")  # noqa: S106 - of a station that is none
    site.registered.append(unknown_station)
    seen = {
        "unknown": _refusal_status(site, unknown_station.identity, unknown_station.password),
        "wrong password": _refusal_status(site, station.identity, "not the password"),
        "no credentials": _refusal_status(site, station.identity, None),
        "no common sub-protocol": _refusal_status(site, station.identity, station.password, protocols=("ocpp9.9",)),
    }
    expected = {"unknown": 404, "wrong password": 401, "no credentials": 401, "no common sub-protocol": 400}
    # An accepted station leaves the inbox and can be deleted; otherwise it would stay there for a month.
    site.api.request_ok(
        "POST", f"/operations/unknown-stations/{unknown_station.identity}/accept", {"connectors": [1], "tariff": TARIFF}
    )
    if seen != expected:
        raise DoesNotHold(f"expected {expected}, and saw {seen}")
    return ", ".join(f"{what}: {status}" for what, status in seen.items())


def check_origin_secret(site: Site) -> str:
    """The WebSocket API itself refuses connections without the edge's secret."""
    if site.direct is None:
        raise NotTestable("DIRECT=wss://<api>.execute-api... is not given")
    station = site.register_station("-d")
    try:
        with connect_station(site.direct, "", None, query=f"?cp={station.identity}"):
            raise DoesNotHold("it was let in")
    except InvalidStatus as refused:
        status = refused.response.status_code
    if status != 401:
        raise DoesNotHold(f"it was refused with {status}, not 401")
    return "refused with 401"


def check_http_origin_secret(site: Site) -> str:
    """The HTTP API itself refuses requests without the edge's secret, and with a wrong one."""
    if site.direct_api is None:
        raise NotTestable("DIRECT_API=https://<api>.execute-api... is not given")
    around = Api(url=site.direct_api)
    path = "/payments/status/none"
    answers = [around.ask("GET", path), around.ask("GET", path, x_origin_verify="guessed")]
    if any((answer.status, answer.body.get("status")) != (403, "Forbidden") for answer in answers):
        raise DoesNotHold(f"it answered {', '.join(f'{answer.status} {answer.body}' for answer in answers)}")
    return "refused with 403"


def check_station_context(site: Site) -> str:
    """A frame is attributed to the station of its socket, without an authorizer or a header."""
    station = site.register_station("-k")
    with site.connect_station(station) as socket:
        boot_station(socket)
    vendor = site.api.request_ok("GET", station.path)["vendor"]
    if vendor != BOOT["chargePointVendor"]:
        raise DoesNotHold(f"the station's vendor is {vendor}")
    return "what it said at its boot is known of it"


def check_client_certificates(_: Site) -> str:
    """Client certificates at the edge."""
    raise NotTestable("nothing is deployed for them")


def check_silent_answers(site: Site) -> str:
    """An answer without a body sends no frame, and one with a body sends exactly that."""
    with site.connect_station(site.register_station("-e")) as socket:
        socket.send([3, NOBODY_ASKED, {"status": "Accepted"}])
        heard = socket.receive_text(site.quiet_s)
        if heard is not None:
            raise DoesNotHold(f"a CALLRESULT was answered with {heard!r}")
        socket.send([2, "exactly-this", "Heartbeat", {}])
        text = socket.receive_text(socket.patience) or ""
        frame = json.loads(text)
    if frame[:2] != [3, "exactly-this"] or set(frame[2]) != {"currentTime"}:
        raise DoesNotHold(f"a Heartbeat was answered with {text!r}")
    return f"nothing for {site.quiet_s:.0f} s after a CALLRESULT, then {text}"


def check_every_frame(site: Site) -> str:
    """Our function answers frames of any shape: API Gateway's own {"message": ...} is never sent."""
    shapes = (
        json.dumps([3, NOBODY_ASKED, {"status": "Accepted"}]),
        json.dumps([4, NOBODY_ASKED, "GenericError", "", {}]),
        json.dumps([2, "unknown", "NoSuchAction", {}]),
        json.dumps({"action": "Heartbeat"}),
        "this is not JSON",
    )
    with site.connect_station(site.register_station("-f")) as socket:
        for shape in shapes:
            socket.send(shape)
        # Every frame until the answer must be an OCPP frame; `call` raises an error for any other.
        socket.call("Heartbeat")
    return f"{len(shapes)} shapes of frames, and no word of API Gateway's own"


def check_pings(site: Site) -> str:
    """Pings alone keep a socket open for longer than the idle timeout."""
    with site.connect_station(site.register_station("-i")) as socket:
        begun, next_told = time.monotonic(), 0.0
        while (age := time.monotonic() - begun) < IDLE_S + PING_S:
            if age >= next_told:
                site.say(f"Pinging for {age / 60:.0f} of {(IDLE_S + PING_S) / 60:.0f} minutes.")
                next_told += PROGRESS_S
            socket.connection.ping().wait(PING_S)
            if socket.receive_text(PING_S) is not None:
                raise DoesNotHold("an unexpected frame came")
        socket.call("Heartbeat")
    return f"open after {(IDLE_S + PING_S) / 60:.0f} minutes of pings"


def check_window_bits(site: Site) -> str:
    """A station that offers compression with its own window bits is served."""
    offer = ClientPerMessageDeflateFactory(server_max_window_bits=12, client_max_window_bits=12)
    with site.connect_station(site.register_station("-w"), extensions=[offer]) as socket:
        boot_station(socket)
        socket.call("Heartbeat")
        agreed = (
            socket.connection.response.headers.get("Sec-WebSocket-Extensions") if socket.connection.response else ""
        )
    return f"served, {f'with {agreed}' if agreed else 'without compression'}"


def check_overload(_: Site) -> str:
    """What a station receives while the function is throttled or late."""
    raise NotTestable(
        "it breaks the installation: `aws lambda put-function-concurrency --reserved-concurrent-executions 0`, "
        "send a Heartbeat, look at the frame, take it back"
    )


def check_long_frame(site: Site) -> str:
    """One frame of more than 32 KB ends the connection with 1009."""
    with site.connect_station(site.register_station("-l")) as socket:
        socket.send(_sized_data_transfer(FRAME_LIMIT + 1024))
        code = _close_code(socket)
    if code != TOO_BIG:
        raise DoesNotHold(f"the connection {'stayed open' if code is None else f'ended with {code}'}")
    return f"{FRAME_LIMIT // 1024 + 1} KB in a frame: {code}"


def check_long_message(site: Site) -> str:
    """A message of 100 KB in frames of 16 KB is accepted and answered."""
    text = _sized_data_transfer(LARGE)
    with site.connect_station(site.register_station("-m")) as socket:
        socket.connection.send(text[start : start + FRAGMENT] for start in range(0, len(text), FRAGMENT))
        heard = socket.receive_text(socket.patience)
    if heard is None or json.loads(heard)[1] != "large":
        raise DoesNotHold(f"it was answered with {heard!r}")
    return f"{LARGE // 1024} KB in {len(text) // FRAGMENT + 1} frames were answered"


def check_idle_timeout(site: Site) -> str:
    """A silent connection is closed after ten minutes."""
    return _await_close(site, site.register_station("-o"), IDLE_S, speaks=False)


def check_connection_lifetime(site: Site) -> str:
    """A connection in use is closed after two hours as well."""
    return _await_close(site, site.register_station("-y"), LIFE_S, speaks=True)


def check_disconnect_event(site: Site) -> str:
    """$disconnect is sent after a station closes its connection."""
    station = site.register_station("-g")
    with site.connect_station(station) as socket:
        boot_station(socket)
    begun = time.monotonic()
    site.wait_until("$disconnect", lambda: site.count_timeline_entries(station, "Disconnected") > 0)
    return f"in the timeline after {time.monotonic() - begun:.1f} s"


def check_reconnect_within_lease(site: Site) -> str:
    """A station that reconnects within its lease reports nothing, and its connector is startable as before."""
    station = site.register_station("-b")
    with site.connect_station(station) as socket:
        boot_station(socket)
    with site.connect_station(station):
        seen = site.occupancy(station)
    if not seen["startable"]:
        raise DoesNotHold(f"after a reconnect the connector is busy: {', '.join(seen['reasons'])}")
    return "startable at once"


def check_operator_authorizer(site: Site) -> str:
    """The authorizer accepts the pool's token, and answers 401 of its own to requests without one."""
    path = "/operations/stations?limit=1"
    site.api.request_ok("GET", path)
    refused = site.driver.ask("GET", path)
    if (refused.status, refused.body) != (401, {"message": "Unauthorized"}):
        raise DoesNotHold(f"without a token: {refused.status} {refused.body}")
    if "bearer" not in refused.headers.get("www-authenticate", "").lower():
        raise DoesNotHold(f"the 401 has no WWW-Authenticate: Bearer, but {refused.headers}")
    return "with the token 200, without it 401"


def check_request_ids(site: Site) -> str:
    """API Gateway sends a request id with its answers, which its support asks for."""
    answer = site.driver.ask("GET", "/payments/status/none")
    if "apigw-requestid" not in answer.headers:
        raise DoesNotHold(f"headers: {', '.join(sorted(answer.headers))}")
    return f"apigw-requestid: {answer.headers['apigw-requestid']}"


def check_posted_calls(site: Site) -> str:
    """A CALL that the functions post reaches the station's socket, and its answer comes back."""
    station = site.register_station("-c")
    with site.connect_station(station) as socket:
        boot_station(socket)
        order = {"reason": "The smoke test asks.", "expected": "Online"}
        site.api.request_ok("POST", f"{station.path}/trigger-status", order)
        socket.accept_call("TriggerMessage")
        _report_available(socket)
        site.wait_until("the answer to be noted", lambda: not site.api.request_ok("GET", station.path)["calls"])
    return "TriggerMessage came, and its answer was heard"


def boot_station(socket: Socket) -> None:
    """Boot the station, and report its connector Available."""
    answer = socket.call("BootNotification", **BOOT)
    if answer["status"] != "Accepted":
        raise DoesNotHold(f"BootNotification was answered with {answer}")
    _report_available(socket)


def _report_available(socket: Socket) -> None:
    socket.call("StatusNotification", connectorId=1, errorCode="NoError", status="Available")


def _refusal_status(site: Site, identity: str, password: str | None, protocols: tuple[str, ...] = (OCPP16,)) -> int:
    """The status of the refusal, or 101 if the connection was accepted."""
    try:
        with connect_station(site.url, identity, password, protocols=protocols):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def _sized_data_transfer(size: int) -> str:
    """A DataTransfer of about `size` bytes."""
    return json.dumps([2, "large", "DataTransfer", {"vendorId": "csms", "data": "x" * size}])


def _close_code(socket: Socket) -> int | None:
    """The code with which the connection is closed now, or None if it stays open."""
    try:
        while socket.receive_text(socket.patience) is not None:
            continue
    except ClientError:
        return socket.connection.close_code
    return None


def _await_close(site: Site, station: RegisteredStation, seconds: int, *, speaks: bool) -> str:
    """When and how the other side closed the connection. Raises DoesNotHold if it did not."""
    with site.connect_station(station) as socket:
        begun = time.monotonic()
        while (age := time.monotonic() - begun) < seconds + PROGRESS_S:
            site.say(f"{station.identity} has been connected for {age / 60:.0f} of {seconds / 60:.0f} minutes.")
            try:
                if speaks:
                    socket.call("Heartbeat")
                socket.receive_text(PROGRESS_S)
            except ClientError:
                code, reason = socket.connection.close_code, socket.connection.close_reason
                if time.monotonic() - begun < seconds - PROGRESS_S:
                    raise DoesNotHold(f"ended after {age / 60:.1f} minutes with {code} {reason}") from None
                return f"ended after {(time.monotonic() - begun) / 60:.1f} minutes with {code} {reason}"
    raise DoesNotHold(f"open after {seconds / 60:.0f} minutes")
