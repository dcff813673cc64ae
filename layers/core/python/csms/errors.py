"""The errors as one small tree. Each edge translates them once: csms_http to HTTP, functions/ws_message to OCPP.

* CsmsError
    * BadRequest           - the request is invalid
    * NotFound             - what the request names does not exist
    * Unauthorized         - the credentials are missing or wrong
    * TooManyGuesses       - they are wrong, as they were often of late: wait
    * Forbidden            - the request did not come through CloudFront
    * Conflict             - somebody else changed it first: load again and retry
    * IllegalTransition    - it exists, but its state does not allow this
    * ConnectorBusy        - the busy rule refuses the start, with every reason
    * ChargerOffline       - the station has no live connection
    * ConnectionGone       - the station's WebSocket connection is closed
    * ConnectionSuperseded - another connection of the station was accepted while this one was decided
    * Unreachable          - an AWS service did not accept a message now: it stays owed and is sent later
    * PaymentRefused       - the provider answered and refused
    * PaymentUnavailable   - the provider gave no usable answer: try again later
    * StoreUnavailable     - the database gave no usable answer: try again later
"""

from __future__ import annotations


class CsmsError(Exception):
    """The base of every error that csms raises; `code` is the stable name in public answers."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).__name__


class BadRequest(CsmsError):
    """The request is invalid."""


class NotFound(CsmsError):
    """What the request names does not exist; `code` says what: UnknownStation, UnknownConnector, UnknownReservation."""


class Unauthorized(CsmsError):
    """The credentials are missing or wrong."""


class Forbidden(CsmsError):
    """The request did not come through CloudFront: use the public address."""


class TooManyGuesses(CsmsError):
    """The password is wrong, as it was often of late for the same station from the same address; `wait_seconds` is how
    long to wait. A right password is never refused."""

    def __init__(self, message: str, *, wait_seconds: int) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


class Conflict(CsmsError):
    """Somebody else changed it first: load again and retry."""


class IllegalTransition(CsmsError):
    """It exists, but its state does not allow this."""


class ConnectorBusy(CsmsError):
    """The busy rule refuses the start; `reasons` holds every reason, the headline reason first."""

    def __init__(self, message: str, *, reasons: tuple[str, ...]) -> None:
        super().__init__(message)
        self.reasons = reasons


class ChargerOffline(CsmsError):
    """The station has no live connection."""


class ConnectionGone(CsmsError):
    """The station's WebSocket connection is closed."""


class ConnectionSuperseded(CsmsError):
    """Another connection of the station was accepted while this one was decided."""


class Unreachable(CsmsError):
    """An AWS service did not accept a message now; it stays owed and is sent later."""


class PaymentRefused(CsmsError):
    """The provider answered and refused; repeating the call with the same key does not help."""


class PaymentUnavailable(CsmsError):
    """The provider gave no usable answer; repeating the call with the same key is safe."""


class StoreUnavailable(CsmsError):
    """The database gave no usable answer; nothing may be concluded from that."""
