"""What each function may do on AWS, and on which resources: exactly what it uses. Plain values, no CDK.

The stack grants these permissions and the laptop refuses all others, so that a missing one is found there.
tests/infra/test_permissions.py makes each function use all of its permissions, so that none is unused.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from infra.payment_secrets import PAYMENT_SECRETS
from infra.routes import TIMERS

Permissions = Mapping[str, tuple[str, ...]]

MANAGE: Final = ("execute-api:ManageConnections",)
INVOKE: Final = ("lambda:InvokeFunction",)
SET_TIMER: Final = {"queue/timers": ("sqs:SendMessage",)}
REVEAL: Final = {secret.resource: ("secretsmanager:GetSecretValue",) for secret in PAYMENT_SECRETS}


def _dynamodb(*operations: str) -> tuple[str, ...]:
    return tuple(f"dynamodb:{operation}" for operation in operations)


# Function -> resource -> actions. A resource is the table or an index of it, a method on the stations' sockets (API
# Gateway: @connections), a function, a queue, a secret, or the identity that mails are sent from. The parts of a
# TransactWriteItems are permitted by their own names.
PERMISSIONS: Final[Mapping[str, Permissions]] = MappingProxyType(
    {
        "maintenance": {
            "table": _dynamodb(
                "BatchGetItem", "ConditionCheckItem", "DeleteItem", "GetItem", "PutItem", "Query", "UpdateItem"
            ),
            "table/index/due": _dynamodb("Query"),
            "table/index/directory": _dynamodb("Query"),
            "sockets/POST": MANAGE,
            **REVEAL,
            "mail": ("ses:SendEmail",),
            **SET_TIMER,
        },
        "operations": {
            "table": _dynamodb("BatchGetItem", "DeleteItem", "GetItem", "PutItem", "Query", "UpdateItem"),
            "table/index/directory": _dynamodb("Query"),
            "sockets/POST": MANAGE,
            "sockets/DELETE": MANAGE,
            "function/maintenance": INVOKE,
            **SET_TIMER,
        },
        "payments": {
            "table": _dynamodb(
                "BatchGetItem", "ConditionCheckItem", "DeleteItem", "GetItem", "PutItem", "Query", "UpdateItem"
            ),
            "sockets/GET": MANAGE,
            "sockets/POST": MANAGE,
            **REVEAL,
            **SET_TIMER,
        },
        "ws_connect": {
            "table": _dynamodb("DeleteItem", "GetItem", "PutItem", "Query"),
            "sockets/DELETE": MANAGE,
        },
        "ws_message": {
            "table": _dynamodb("BatchGetItem", "DeleteItem", "GetItem", "PutItem", "Query", "UpdateItem"),
            "sockets/POST": MANAGE,
            "sockets/DELETE": MANAGE,
            "function/maintenance": INVOKE,
            **SET_TIMER,
        },
    }
)

# What Lambda itself needs of a function's role to take messages from a queue and pass them to the function: what AWS's
# managed policy for this purpose (AWSLambdaSQSQueueExecutionRole) permits. No code of ours uses it.
POLLING: Final[Mapping[str, Permissions]] = MappingProxyType(
    {
        TIMERS.function: {
            f"queue/{TIMERS.name}": ("sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"),
        }
    }
)
