"""How each fact is asked: what was seen where it holds, DoesNotHold where it does not, NotTestable where it cannot be
asked."""

import json
import time
from typing import Final

from websockets.exceptions import InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from local.client import OCPP16, ClientError, Socket, dialled
from smoke.site import BOOT, TARIFF, Known, Site
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


def passes_the_edge(site: Site) -> str:
    """Basic credentials and an identity that needs percent-encoding reach $connect, decoded once."""
    known = site.station(" &+%é")
    with site.dialled(known) as socket:
        booted(socket)
    return f"{known.identity!r} was let in"


def query_is_not_believed(site: Site) -> str:
    """Who dials as itself and names another in the query is itself."""
    mine, other = site.station("-q"), site.station("-r")
    with dialled(site.url, mine.identity, mine.password, query=f"?cp={other.identity}") as socket:
        booted(socket)
    if site.timeline(other, "Connected"):
        raise DoesNotHold("the query chose the station")
    return "the query was ignored"


def sub_protocol(site: Site) -> str:
    """Of a list with spaces the protocol that both speak comes back, through the edge."""
    with site.dialled(site.station("-p"), protocols=("ocpp9.9", OCPP16)) as socket:
        chosen = socket.connection.subprotocol
    if chosen != OCPP16:
        raise DoesNotHold(f"the sub-protocol in the answer is {chosen}")
    return f"ocpp9.9 and {OCPP16} were offered, {chosen} came back"


def refusals(site: Site) -> str:
    """What $connect refuses, the station sees with the status that $connect gave."""
    known = site.station("-s")
    stranger = Known(identity=f"{site.name}-t", password="nobody's password")  # noqa: S106 - of a station that is none
    site.registered.append(stranger)
    seen = {
        "unknown": _refusal(site, stranger.identity, stranger.password),
        "wrong password": _refusal(site, known.identity, "not the password"),
        "no credentials": _refusal(site, known.identity, None),
        "no common sub-protocol": _refusal(site, known.identity, known.password, protocols=("ocpp9.9",)),
    }
    expected = {"unknown": 404, "wrong password": 401, "no credentials": 401, "no common sub-protocol": 400}
    # Who is accepted leaves the inbox of strangers, and can be deleted; otherwise it would stand there for a month.
    site.api.good("POST", f"/operations/strangers/{stranger.identity}/accept", {"connectors": [1], "tariff": TARIFF})
    if seen != expected:
        raise DoesNotHold(f"expected {expected}, and saw {seen}")
    return ", ".join(f"{what}: {status}" for what, status in seen.items())


def around_the_edge(site: Site) -> str:
    """The WebSocket API itself lets nobody in who comes without the edge's secret."""
    if site.direct is None:
        raise NotTestable("DIRECT=wss://<api>.execute-api... is not given")
    known = site.station("-d")
    try:
        with dialled(site.direct, "", None, query=f"?cp={known.identity}"):
            raise DoesNotHold("it was let in")
    except InvalidStatus as refused:
        status = refused.response.status_code
    if status != 401:
        raise DoesNotHold(f"it was refused with {status}, not 401")
    return "refused with 401"


def knows_its_station(site: Site) -> str:
    """A frame is answered for the station whose socket it came on, with no authorizer and no header to say so."""
    known = site.station("-k")
    with site.dialled(known) as socket:
        booted(socket)
    vendor = site.api.good("GET", known.path)["vendor"]
    if vendor != BOOT["chargePointVendor"]:
        raise DoesNotHold(f"the station's vendor is {vendor}")
    return "what it said at its boot is known of it"


def client_certificates(_: Site) -> str:
    """Client certificates at the edge."""
    raise NotTestable("nothing is deployed for them")


def silence(site: Site) -> str:
    """An answer without a body sends nothing, and one with a body exactly that."""
    with site.dialled(site.station("-e")) as socket:
        socket.send([3, NOBODY_ASKED, {"status": "Accepted"}])
        heard = socket.heard(site.quiet_s)
        if heard is not None:
            raise DoesNotHold(f"a CALLRESULT was answered with {heard!r}")
        socket.send([2, "exactly-this", "Heartbeat", {}])
        text = socket.heard(socket.patience) or ""
        frame = json.loads(text)
    if frame[:2] != [3, "exactly-this"] or set(frame[2]) != {"currentTime"}:
        raise DoesNotHold(f"a Heartbeat was answered with {text!r}")
    return f"nothing for {site.quiet_s:.0f} s after a CALLRESULT, then {text}"


def every_frame_is_heard(site: Site) -> str:
    """Whatever a frame looks like, our function answers it: API Gateway's own {"message": ...} never comes."""
    shapes = (
        json.dumps([3, NOBODY_ASKED, {"status": "Accepted"}]),
        json.dumps([4, NOBODY_ASKED, "GenericError", "", {}]),
        json.dumps([2, "unknown", "NoSuchAction", {}]),
        json.dumps({"action": "Heartbeat"}),
        "this is not JSON",
    )
    with site.dialled(site.station("-f")) as socket:
        for shape in shapes:
            socket.send(shape)
        # Every frame that comes until the answer must be OCPP's; `call` says so of one that is not.
        socket.call("Heartbeat")
    return f"{len(shapes)} shapes of frames, and no word of API Gateway's own"


def pings(site: Site) -> str:
    """Pings alone keep a socket open for longer than the idle time."""
    with site.dialled(site.station("-i")) as socket:
        begun, next_told = time.monotonic(), 0.0
        while (age := time.monotonic() - begun) < IDLE_S + PING_S:
            if age >= next_told:
                site.say(f"Pinging for {age / 60:.0f} of {(IDLE_S + PING_S) / 60:.0f} minutes.")
                next_told += PROGRESS_S
            socket.connection.ping().wait(PING_S)
            if socket.heard(PING_S) is not None:
                raise DoesNotHold("a frame came that nobody asked for")
        socket.call("Heartbeat")
    return f"open after {(IDLE_S + PING_S) / 60:.0f} minutes of pings"


def window_bits(site: Site) -> str:
    """A station that offers compression with window bits of its own is served."""
    offer = ClientPerMessageDeflateFactory(server_max_window_bits=12, client_max_window_bits=12)
    with site.dialled(site.station("-w"), extensions=[offer]) as socket:
        booted(socket)
        socket.call("Heartbeat")
        agreed = (
            socket.connection.response.headers.get("Sec-WebSocket-Extensions") if socket.connection.response else ""
        )
    return f"served, {f'with {agreed}' if agreed else 'without compression'}"


def overload(_: Site) -> str:
    """What a station hears while the function is throttled or late."""
    raise NotTestable(
        "it breaks the installation: `aws lambda put-function-concurrency --reserved-concurrent-executions 0`, "
        "send a Heartbeat, look at the frame, take it back"
    )


def long_frame(site: Site) -> str:
    """One frame of more than 32 KB ends the connection with 1009."""
    with site.dialled(site.station("-l")) as socket:
        socket.send(_of_size(FRAME_LIMIT + 1024))
        code = _close_code(socket)
    if code != TOO_BIG:
        raise DoesNotHold(f"the connection {'stayed open' if code is None else f'ended with {code}'}")
    return f"{FRAME_LIMIT // 1024 + 1} KB in a frame: {code}"


def long_message(site: Site) -> str:
    """A message of 100 KB in frames of 16 KB is taken and answered."""
    text = _of_size(LARGE)
    with site.dialled(site.station("-m")) as socket:
        socket.connection.send(text[start : start + FRAGMENT] for start in range(0, len(text), FRAGMENT))
        heard = socket.heard(socket.patience)
    if heard is None or json.loads(heard)[1] != "large":
        raise DoesNotHold(f"it was answered with {heard!r}")
    return f"{LARGE // 1024} KB in {len(text) // FRAGMENT + 1} frames were answered"


def idle_close(site: Site) -> str:
    """A silent connection is ended after ten minutes."""
    return _ended(site, site.station("-o"), IDLE_S, speaks=False)


def life_close(site: Site) -> str:
    """A connection that speaks is ended after two hours all the same."""
    return _ended(site, site.station("-y"), LIFE_S, speaks=True)


def goodbye(site: Site) -> str:
    """$disconnect comes after a station has hung up."""
    known = site.station("-g")
    with site.dialled(known) as socket:
        booted(socket)
    begun = time.monotonic()
    site.until("$disconnect", lambda: site.timeline(known, "Disconnected") > 0)
    return f"in the timeline after {time.monotonic() - begun:.1f} s"


def back_without_boot(site: Site) -> str:
    """A station that comes back within its lease says nothing, and its connector is startable as before."""
    known = site.station("-b")
    with site.dialled(known) as socket:
        booted(socket)
    with site.dialled(known):
        seen = site.occupancy(known)
    if not seen["startable"]:
        raise DoesNotHold(f"after a reconnect the connector is busy: {', '.join(seen['reasons'])}")
    return "startable at once"


def operators_only(site: Site) -> str:
    """The authorizer lets in who shows the pool's token, and says 401 in its own words to others."""
    path = "/operations/stations?limit=1"
    site.api.good("GET", path)
    refused = site.driver.ask("GET", path)
    if (refused.status, refused.body) != (401, {"message": "Unauthorized"}):
        raise DoesNotHold(f"without a token: {refused.status} {refused.body}")
    if "bearer" not in refused.headers.get("www-authenticate", "").lower():
        raise DoesNotHold(f"the 401 has no WWW-Authenticate: Bearer, but {refused.headers}")
    return "with the token 200, without it 401"


def request_ids(site: Site) -> str:
    """API Gateway numbers its answers, for a question to its support."""
    answer = site.driver.ask("GET", "/payments/status/none")
    if "apigw-requestid" not in answer.headers:
        raise DoesNotHold(f"headers: {', '.join(sorted(answer.headers))}")
    return f"apigw-requestid: {answer.headers['apigw-requestid']}"


def reaches_stations(site: Site) -> str:
    """A CALL that the functions post reaches the station's socket, and its answer comes back."""
    known = site.station("-c")
    with site.dialled(known) as socket:
        booted(socket)
        order = {"reason": "The smoke test asks.", "expected": "Online"}
        site.api.good("POST", f"{known.path}/trigger-status", order)
        socket.accept("TriggerMessage")
        _available(socket)
        site.until("the answer to be noted", lambda: not site.api.good("GET", known.path)["calls"])
    return "TriggerMessage came, and its answer was heard"


def booted(socket: Socket) -> None:
    """The station has booted, and its connector is Available."""
    answer = socket.call("BootNotification", **BOOT)
    if answer["status"] != "Accepted":
        raise DoesNotHold(f"BootNotification was answered with {answer}")
    _available(socket)


def _available(socket: Socket) -> None:
    socket.call("StatusNotification", connectorId=1, errorCode="NoError", status="Available")


def _refusal(site: Site, identity: str, password: str | None, protocols: tuple[str, ...] = (OCPP16,)) -> int:
    """The status of the refusal, 101 if there was none."""
    try:
        with dialled(site.url, identity, password, protocols=protocols):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def _of_size(size: int) -> str:
    """A DataTransfer of about this many bytes."""
    return json.dumps([2, "large", "DataTransfer", {"vendorId": "csms", "data": "x" * size}])


def _close_code(socket: Socket) -> int | None:
    """The code that the connection ends with now, None if it does not."""
    try:
        while socket.heard(socket.patience) is not None:
            continue
    except ClientError:
        return socket.connection.close_code
    return None


def _ended(site: Site, known: Known, seconds: int, *, speaks: bool) -> str:
    """When and how the other side ended the connection; DoesNotHold if it did not."""
    with site.dialled(known) as socket:
        begun = time.monotonic()
        while (age := time.monotonic() - begun) < seconds + PROGRESS_S:
            site.say(f"{known.identity} has been connected for {age / 60:.0f} of {seconds / 60:.0f} minutes.")
            try:
                if speaks:
                    socket.call("Heartbeat")
                socket.heard(PROGRESS_S)
            except ClientError:
                code, reason = socket.connection.close_code, socket.connection.close_reason
                if time.monotonic() - begun < seconds - PROGRESS_S:
                    raise DoesNotHold(f"ended after {age / 60:.1f} minutes with {code} {reason}") from None
                return f"ended after {(time.monotonic() - begun) / 60:.1f} minutes with {code} {reason}"
    raise DoesNotHold(f"open after {seconds / 60:.0f} minutes")
