"""The functions as Lambda has them: imported in an environment, and each allowed what its role allows."""

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

# What the caller's environment sets decides alone; what would point a client elsewhere is taken out of ours.
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

Permission = tuple[str, str]  # as in infra.permissions: a resource, and an action on it
Judge = Callable[[str, Permission], bool]

CALL_EVENT: Final = "provide-client-params"

_acting: ContextVar[str | None] = ContextVar("acting", default=None)


def is_allowed(function: str, permission: Permission) -> bool:
    """Whether the function's role has the permission."""
    resource, action = permission
    return action in PERMISSIONS[function].get(resource, ())


@contextmanager
def load_functions(environment: Mapping[str, str], judge: Judge = is_allowed) -> Iterator[Mapping[str, Handler]]:
    """The handlers by name, imported anew in this environment, which stays until the end.

    judge is asked for each permission that a function needs; a call for which it says no fails as it would on AWS.
    """
    if boto3.DEFAULT_SESSION is None:
        boto3.setup_default_session()
    session, guard, before = boto3.DEFAULT_SESSION, _guard(judge), dict(os.environ)
    for name in FOREIGN:
        os.environ.pop(name, None)
    os.environ.update(environment)
    # Many invocations count nothing; on AWS that line goes to the log.
    warnings.filterwarnings("ignore", message="No application metrics to publish")
    try:
        _forget()
        # Clients take over what their session listens to.
        session.events.register(CALL_EVENT, guard)
        yield {name: _import_handler(name) for name in NAMES}
    finally:
        _forget()
        session.events.unregister(CALL_EVENT, guard)
        os.environ.clear()
        os.environ.update(before)


def needed_permissions(operation: OperationModel, params: Mapping[str, Any]) -> Set[Permission]:
    """The permissions that AWS asks for when a client calls this operation."""
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
        case "sesv2", name:
            return {("mail", f"ses:{name}")}
        case service, name:
            return {(service, f"{operation.service_model.signing_name}:{name}")}


def _guard(judge: Judge) -> Callable[..., None]:
    def check(params: Mapping[str, Any], model: OperationModel, **_: Any) -> None:
        function = _acting.get()
        if function is None:
            return
        # All of them are judged, so that whoever takes note has seen all.
        refused = [it for it in sorted(needed_permissions(model, params)) if not judge(function, it)]
        if refused:
            resource, action = refused[0]
            message = f"{function} is not authorized to perform {action} on {resource} (infra/permissions.py)."
            logger.error(message)
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": message}}, model.name)

    return check


def _import_handler(name: str) -> Handler:
    """The handler, which acts in its function's name, as the import does."""
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
