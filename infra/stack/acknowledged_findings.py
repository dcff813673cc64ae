"""Reasons for differences from AWS's own advice (cdk-nag's AwsSolutions rules), kept at the construct."""

from collections.abc import Mapping
from typing import Any

from aws_cdk import Acknowledgment, Stack, Validations
from constructs import IConstruct


def accept(construct: IConstruct, reasons: Mapping[str, str]) -> None:
    """Accept the findings with these ids, each with its reason, on the construct and what is inside it."""
    Validations.of(construct).acknowledge(*(Acknowledgment(id=key, reason=why) for key, why in reasons.items()))


def wildcard(scope: IConstruct, resource: str) -> str:
    """The id of the finding that a policy names this resource with a wildcard."""
    return f"AwsSolutions-IAM5[Resource::{_format_arn(Stack.of(scope).resolve(resource))}]"


def _format_arn(value: Any) -> str:
    """An ARN in cdk-nag's spelling: references in angle brackets."""
    match value:
        case {"Fn::Join": [separator, [*parts]]}:
            return str(separator).join(_format_arn(part) for part in parts)
        case {"Fn::GetAtt": [name, attribute]}:
            return f"<{name}.{attribute}>"
        case {"Ref": name}:
            return f"<{name}>"
    return str(value)
