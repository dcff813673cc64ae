"""What can go wrong, as one small tree. Each edge translates it once: csms_http to HTTP, functions/ws_message to
OCPP.

* CsmsError
    * BadRequest           - what was asked does not make sense
    * NotFound             - there is no such thing
    * Unauthorised         - the caller is not who it says
    * Conflict             - someone else changed it first: load again and retry
    * IllegalTransition    - the thing exists, but not in a state that allows this
    * ConnectorBusy        - the busy rule says no, with every reason
    * ChargerOffline       - the station has no live connection
    * ConnectionGone       - the socket we wanted to speak over is closed
    * Unreachable          - what we wanted to tell was not taken now: it is owed, and told later
    * PaymentRefused       - the provider answered, and the answer was no
    * PaymentUnavailable   - the provider did not answer, or not usefully: try again later
    * StoreUnavailable     - the database did not answer, or not usefully: try again later
"""

from __future__ import annotations


class CsmsError(Exception):
    """Anything this product can say no with; `code` is the stable name that public answers carry."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).__name__


class BadRequest(CsmsError):
    """What was asked does not make sense."""


class NotFound(CsmsError):
    """There is no such thing; `code` names what: UnknownStation, UnknownConnector, UnknownReservation."""


class Unauthorised(CsmsError):
    """The caller is not who it says."""


class Conflict(CsmsError):
    """Someone else changed it first: load again and retry."""


class IllegalTransition(CsmsError):
    """The thing exists, but not in a state that allows this."""


class ConnectorBusy(CsmsError):
    """The busy rule says no; `reasons` holds every reason, the headline first."""

    def __init__(self, message: str, *, reasons: tuple[str, ...]) -> None:
        super().__init__(message)
        self.reasons = reasons


class ChargerOffline(CsmsError):
    """The station has no live connection."""


class ConnectionGone(CsmsError):
    """The socket we wanted to speak over is closed."""


class Unreachable(CsmsError):
    """What we wanted to tell was not taken now; it is owed, and told later."""


class PaymentRefused(CsmsError):
    """The provider answered, and the answer was no; asking again with the same key will not help."""


class PaymentUnavailable(CsmsError):
    """The provider did not answer, or not usefully; asking again with the same key is safe."""


class StoreUnavailable(CsmsError):
    """The database did not answer, or not usefully; nothing may be concluded from its silence."""
