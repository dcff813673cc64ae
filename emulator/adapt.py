"""What the emulator cannot do of the synthesized stack, row by row, and a template without it. Plain values, no I/O."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]
Resources = Mapping[str, Json]

HOST: Final = "127.0.0.1"
WITHOUT_TLS: Final = {"Bool": {"aws:SecureTransport": "false"}}


class AdaptationError(Exception):
    """The template cannot be adapted. The message is one line that names the resource."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where on loopback the emulator and the payment stand-in listen."""

    port: int
    payments_url: str

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Resources of this type are removed."""

    kind: str
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """Resources of this type get other properties. `change` is given all resources, and must not change its
    arguments."""

    kind: str
    change: Callable[[Json, Resources, Place], Json]
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A Ref to a resource of this type is replaced by another attribute of it."""

    kind: str
    attribute: str
    because: str


def adapt_template(template: Json, place: Place) -> Json:
    """The template for the emulator, with REMOVALS, REWRITES and REFERENCES applied.

    Raises AdaptationError if a remaining resource refers to a removed one.
    """
    before: Resources = template["Resources"]
    removed = {key for key, row in before.items() if row["Type"] in {removal.kind for removal in REMOVALS}}
    after = {
        key: _rewrite_resource(_drop_removed_dependencies(row, removed), before, place) for key, row in before.items()
    }
    after = {key: row for key, row in after.items() if key not in removed}
    for key, row in after.items():
        if lost := removed & set(find_references(row)):
            raise AdaptationError(f"{key} refers to {', '.join(sorted(lost))}, which the emulator does not know.")
    attributes = {row.kind: row.attribute for row in REFERENCES}
    named = {key: attributes[row["Type"]] for key, row in after.items() if row["Type"] in attributes}
    result: Json = _replace_references({**template, "Resources": after}, named)
    return result


def find_references(value: object) -> Iterator[str]:
    """The logical ids that a value of a template refers to."""
    match value:
        case {"Ref": str(key)} | {"Fn::GetAtt": [str(key), *_]}:
            yield key
        case dict():
            for part in value.values():
                yield from find_references(part)
        case list():
            for part in value:
                yield from find_references(part)


def _replace_references(value: Any, attributes: Mapping[str, str]) -> Any:
    """The value, with each Ref to one of these resources replaced by the given attribute."""
    match value:
        case {"Ref": str(key)} if key in attributes:
            return {"Fn::GetAtt": [key, attributes[key]]}
        case dict():
            return {name: _replace_references(part, attributes) for name, part in value.items()}
        case list():
            return [_replace_references(part, attributes) for part in value]
    return value


def _drop_removed_dependencies(row: Json, removed: set[str]) -> Json:
    """The resource without its explicit dependencies on removed resources."""
    if "DependsOn" not in row:
        return row
    named = [row["DependsOn"]] if isinstance(row["DependsOn"], str) else row["DependsOn"]
    return {**row, "DependsOn": [key for key in named if key not in removed]}


def _rewrite_resource(row: Json, resources: Resources, place: Place) -> Json:
    for rewrite in REWRITES:
        if row["Type"] == rewrite.kind:
            row = {**row, "Properties": rewrite.change(row.get("Properties", {}), resources, place)}
    return row


def _reach_loopback(properties: Json, resources: Resources, place: Place) -> Json:
    """The function's properties with the emulator's @connections, and the payment stand-in if it uses Stripe."""
    variables = properties.get("Environment", {}).get("Variables", {})
    local: Json = {}
    if (url := variables.get("WEBSOCKET_API_URL")) is not None:
        api = _find_api(url, resources)
        local["WEBSOCKET_API_URL"] = _join_url(
            f"{place.endpoint}/_aws/execute-api/", {"Ref": api}, f"/{_stage_name(url)}"
        )
    if any(name.startswith("STRIPE_") for name in variables):
        local["STRIPE_API_BASE"] = place.payments_url
    return {**properties, "Environment": {"Variables": {**variables, **local}}} if local else properties


def _dial_loopback(properties: Json, resources: Resources, place: Place) -> Json:
    """The distribution's properties with the origins of its APIs on the emulator's port."""
    config = properties["DistributionConfig"]
    origins = [_origin(origin, resources, place) for origin in config["Origins"]]
    return {**properties, "DistributionConfig": {**config, "Origins": origins}}


def _origin(origin: Json, resources: Resources, place: Place) -> Json:
    api = _find_api(origin["DomainName"], resources)
    if api is None:
        return origin
    # On the emulator a WebSocket API's path begins with its stage; an HTTP API's path has the stage $default before its
    # route.
    is_http = resources[api]["Properties"]["ProtocolType"] == "HTTP"
    return {
        **origin,
        "DomainName": HOST,
        "OriginPath": _join_url("/_aws/execute-api/", {"Ref": api}, "/$default" if is_http else ""),
        "CustomOriginConfig": {"HTTPPort": place.port, "OriginProtocolPolicy": "http-only"},
    }


def _watch_one_metric(properties: Json, _resources: Resources, _place: Place) -> Json:
    """The alarm's properties with the first of the metrics that it computes with."""
    if "Metrics" not in properties:
        return properties
    watched = next(row["MetricStat"] for row in properties["Metrics"] if "MetricStat" in row)
    rest = {name: value for name, value in properties.items() if name != "Metrics"}
    return {**rest, **watched["Metric"], "Period": watched["Period"], "Statistic": watched["Stat"]}


def _allow_without_tls(properties: Json, _resources: Resources, _place: Place) -> Json:
    """The policy's properties without the statement that denies requests without TLS."""
    document = properties["PolicyDocument"]
    kept = [row for row in document["Statement"] if row.get("Condition") != WITHOUT_TLS]
    return {**properties, "PolicyDocument": {**document, "Statement": kept}}


def _find_api(value: object, resources: Resources) -> str | None:
    """The logical id of the API that the address belongs to, or None for another address."""
    apis = (key for key in find_references(value) if resources.get(key, {}).get("Type") == "AWS::ApiGatewayV2::Api")
    return next(apis, None)


def _stage_name(url: Json) -> str:
    """The last segment of a joined URL."""
    last: str = url["Fn::Join"][1][-1]
    return last.rpartition("/")[2]


def _join_url(*parts: object) -> Json:
    return {"Fn::Join": ["", [part for part in parts if part]]}


REMOVALS: Final = (
    Removal(
        kind="AWS::ApiGatewayV2::RouteResponse",
        because="unknown to it; its WebSocket APIs send back whatever body a route's function returns",
    ),
    Removal(
        kind="Custom::CDKBucketDeployment",
        because="its function runs the AWS CLI from /opt, where no layer is mounted; the files are put there instead",
    ),
)

REWRITES: Final = (
    Rewrite(
        kind="AWS::Lambda::Function",
        change=_reach_loopback,
        because="amazonaws.com and Stripe are not on loopback",
    ),
    Rewrite(
        kind="AWS::CloudFront::Distribution",
        change=_dial_loopback,
        because="its CloudFront refuses to dial amazonaws.com",
    ),
    Rewrite(
        kind="AWS::CloudWatch::Alarm",
        change=_watch_one_metric,
        because="its alarms do not compute with metrics",
    ),
    Rewrite(
        kind="AWS::SQS::QueuePolicy",
        change=_allow_without_tls,
        because="it listens without TLS, and applies the policies of queues",
    ),
)

REFERENCES: Final = (
    Reference(
        kind="AWS::SecretsManager::Secret",
        attribute="Id",
        because="CloudFormation's Ref is the ARN, its Ref the name, which no policy of a role allows to read",
    ),
)
