"""What this project assumes about AWS and could not prove on a laptop, each with its check and with what to change if
it does not hold. Up to 12 the numbers are those of the list that the design was based on."""

from typing import Final

from smoke import checks
from smoke.charge import check_charge
from smoke.verdicts import Fact, Where

FACTS: Final = (
    Fact(
        name="1 identity and credentials",
        asks="Do Authorization and an identity that needs encoding reach $connect through the edge?",
        check=checks.check_identity_encoding,
        otherwise="Copy Authorization to a header of our own in infra/edge/ocpp_path.js, and read it in ws_connect.",
    ),
    Fact(
        name="1b the query",
        asks="Does the edge replace what a station writes into its query?",
        check=checks.check_query_identity,
        otherwise="Stop: a station may pose as another. infra/edge/ocpp_path.js must replace the whole query.",
    ),
    Fact(
        name="2 sub-protocol",
        asks="Does Sec-WebSocket-Protocol come back through the edge, chosen out of a list with spaces?",
        check=checks.check_sub_protocol,
        otherwise="Answer it in a viewer-response function, or dial API Gateway's own domain name.",
    ),
    Fact(
        name="3 refusals",
        asks="Does a station see the status that $connect refused it with?",
        check=checks.check_refusals,
        otherwise="Note what is seen in docs/reference.md; stations that must see 401 need an authorizer.",
    ),
    Fact(
        name="3b around the edge",
        asks="Is a connection refused that does not come through the edge?",
        check=checks.check_origin_secret,
        otherwise="Stop: anybody may name a station. Look at ORIGIN_SECRET and the distribution's custom header.",
    ),
    Fact(
        name="3c HTTP around the edge",
        asks="Is a request refused that does not come through the edge?",
        check=checks.check_http_origin_secret,
        otherwise="WAF can be walked around. Look at ORIGIN_SECRET of the functions and the distribution's header.",
    ),
    Fact(
        name="4 whose frame",
        asks="Is the connection id enough to know whose frame it is?",
        check=checks.check_station_context,
        otherwise="Use an authorizer's context in MESSAGE events instead of CONNECTION# items.",
    ),
    Fact(
        name="5 client certificates",
        asks="Do upgrades and viewer certificates go together (security profile 3)?",
        check=checks.check_client_certificates,
        otherwise="Security profile 3 needs the container gateway.",
        matters=False,
    ),
    Fact(
        name="6 silence",
        asks="Does an answer without a body send no frame, and one with a body exactly that?",
        check=checks.check_silent_answers,
        otherwise="Take the route response off $default, and post answers through @connections.",
    ),
    Fact(
        name="7 every frame",
        asks="Does every shape of frame go to $default?",
        check=checks.check_every_frame,
        otherwise="Set the route selection expression to one that never selects, such as $request.body.none.",
    ),
    Fact(
        name="8 pings",
        asks="Do pings alone keep a connection open?",
        check=checks.check_pings,
        otherwise="Nothing: HEARTBEAT_SECONDS is at most 540 for this reason.",
        matters=False,
        where=Where.LONG,
        minutes=11,
    ),
    Fact(
        name="9 window bits",
        asks="Is a station served that offers compression with window bits?",
        check=checks.check_window_bits,
        otherwise="Strip Sec-WebSocket-Extensions in infra/edge/ocpp_path.js; beyond that it takes a container.",
    ),
    Fact(
        name="10 overload",
        asks="What does a station hear while the function is throttled or late?",
        check=checks.check_overload,
        otherwise="Keep concurrency in reserve for ws_message.",
        matters=False,
    ),
    Fact(
        name="11 a long frame",
        asks="Does a frame of more than 32 KB end the connection with 1009?",
        check=checks.check_long_frame,
        otherwise="Put what is seen into local/gateway/limits.py.",
        matters=False,
    ),
    Fact(
        name="11b a long message",
        asks="Is a message of 100 KB taken that comes in small frames?",
        check=checks.check_long_message,
        otherwise="Keep MeterValues short: MeterValuesSampledData, StopTxnSampledData.",
    ),
    Fact(
        name="12 idle",
        asks="Is a silent connection ended after ten minutes, and with which code?",
        check=checks.check_idle_timeout,
        otherwise="Put what is seen into local/gateway/limits.py.",
        matters=False,
        where=Where.LONG,
        minutes=11,
    ),
    Fact(
        name="12b two hours",
        asks="Is every connection ended after two hours, and with which code?",
        check=checks.check_connection_lifetime,
        otherwise="Put what is seen into local/gateway/limits.py.",
        matters=False,
        where=Where.LONG,
        minutes=121,
    ),
    Fact(
        name="12c $disconnect",
        asks="Does $disconnect come when a station hangs up?",
        check=checks.check_disconnect_event,
        otherwise="The lease makes the station offline later; look whether the route is deployed.",
    ),
    Fact(
        name="13 a reconnect",
        asks="Is a station as it was when it comes back without a boot?",
        check=checks.check_reconnect_within_lease,
        otherwise="Look at the lease and the epoch in the station's PRESENCE item.",
    ),
    Fact(
        name="14 operators",
        asks="Does the authorizer take the pool's ID token, and refuse everybody else?",
        check=checks.check_operator_authorizer,
        otherwise="Look at the authorizer's audience and issuer.",
    ),
    Fact(
        name="15 request ids",
        asks="Does an HTTP answer carry API Gateway's request id through the edge?",
        check=checks.check_request_ids,
        otherwise="Take the id from the access log instead.",
        matters=False,
        where=Where.AWS,
    ),
    Fact(
        name="16 @connections",
        asks="Does a CALL of ours reach the station?",
        check=checks.check_posted_calls,
        otherwise="Look at WEBSOCKET_API_URL (the stage's, not the edge's) and at execute-api:ManageConnections.",
    ),
    Fact(
        name="17 a charge",
        asks="Is a paid charge billed to the cent, and the connector free again?",
        check=check_charge,
        otherwise="The lines above show where it differed; `make explain` says why a connector is busy.",
    ),
)
