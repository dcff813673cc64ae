"""The Lambda functions on a laptop: imported with their environment, and limited to what their roles allow."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Any, Final

import boto3
from botocore.exceptions import ClientError
from botocore.model import OperationModel

from infra import routes
from infra.permissions import PERMISSIONS
from local.invoke import Handler

logger = logging.getLogger(__name__)

# Only the caller's environment counts; variables that point clients elsewhere are removed from this process's own.
FOREIGN: Final = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "STRIPE_API_BASE")

NAMES: Final = (
    *dict.fromkeys(
        (
            *routes.WEBSOCKET.values(),
            *(route.function for route in routes.HTTP),
            *(schedule.function for schedule in routes.SCHEDULES),
        )
    ),
)

ACTION_BY_PART: Final = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
}

Permission = tuple[str, str]  # A permission as in infra.permissions: a resource, and an action on it.
Judge = Callable[[str, Permission], bool]

CALL_EVENT: Final = "provide-client-params"

_acting: ContextVar[str | None] = ContextVar("acting", default=None)


def is_allowed(function: str, permission: Permission) -> bool:
    """Whether the function's role has the permission."""
    resource, action = permission
    return action in PERMISSIONS[function].get(resource, ())


@contextmanager
def load_functions(environment: Mapping[str, str], judge: Judge = is_allowed) -> Iterator[Mapping[str, Handler]]:
    """Import the handlers anew with this environment, which stays set until the block ends; yield them by function
    name.

    `judge` is asked for each permission that a function needs. A call for which it returns False fails as it would on
    AWS.
    """
    if boto3.DEFAULT_SESSION is None:
        boto3.setup_default_session()
    session, guard, before = boto3.DEFAULT_SESSION, _guard(judge), dict(os.environ)
    for name in FOREIGN:
        os.environ.pop(name, None)
    os.environ.update(environment)
    # Powertools warns of each invocation without a metric; on AWS that line goes to the log.
    warnings.filterwarnings("ignore", message="No application metrics to publish")
    try:
        _forget()
        # Clients inherit the event handlers of the session that creates them.
        session.events.register(CALL_EVENT, guard)
        if "AWS_SECRET_ACCESS_KEY" in environment:
            # A session keeps the credentials that it read first, which may be those of an earlier block.
            session._session.set_credentials(environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"])
        yield {name: _import_handler(name) for name in NAMES}
    finally:
        _forget()
        session.events.unregister(CALL_EVENT, guard)
        os.environ.clear()
        os.environ.update(before)


def needed_permissions(operation: OperationModel, params: Mapping[str, Any]) -> Set[Permission]:
    """The permissions that AWS requires for this operation of a client."""
    match operation.service_model.service_name, operation.name:
        case "dynamodb", "TransactWriteItems":
            return {
                ("table", f"dynamodb:{ACTION_BY_PART[part]}") for element in params["TransactItems"] for part in element
            }
        case "dynamodb", name:
            index = params.get("IndexName")
            return {("table" if index is None else f"table/index/{index}", f"dynamodb:{name}")}
        case "apigatewaymanagementapi", _:
            return {(f"sockets/{operation.http['method']}", "execute-api:ManageConnections")}
        case "lambda", "Invoke":
            return {(f"function/{params['FunctionName']}", "lambda:InvokeFunction")}
        case "secretsmanager", name:
            return {(f"secret/{params['SecretId'].rpartition('/')[2]}", f"secretsmanager:{name}")}
        case "sqs", name:
            return {(f"queue/{params['QueueUrl'].rpartition('/')[2]}", f"sqs:{name}")}
        case "sesv2", name:
            return {("mail", f"ses:{name}")}
        case service, name:
            return {(service, f"{operation.service_model.signing_name}:{name}")}


def _guard(judge: Judge) -> Callable[..., None]:
    def check(params: Mapping[str, Any], model: OperationModel, **_: Any) -> None:
        function = _acting.get()
        if function is None:
            return
        # Every permission is judged, even after a refusal, so that a recording judge sees all of them.
        refused = [it for it in sorted(needed_permissions(model, params)) if not judge(function, it)]
        if refused:
            resource, action = refused[0]
            message = f"{function} is not authorized to perform {action} on {resource} (infra/permissions.py)."
            logger.error(message)
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": message}}, model.name)

    return check


def _import_handler(name: str) -> Handler:
    """Import the handler. The import and each call run as this function, so that its permissions are judged."""
    with _act_as(name):
        handler: Handler = import_module(f"functions.{name}.app").lambda_handler

    def act(event: dict[str, Any], context: Any) -> dict[str, Any] | None:
        with _act_as(name):
            return handler(event, context)

    return act


@contextmanager
def _act_as(name: str) -> Iterator[None]:
    token = _acting.set(name)
    try:
        yield
    finally:
        _acting.reset(token)


def _forget() -> None:
    for name in [it for it in sys.modules if it.startswith("functions.")]:
        del sys.modules[name]
