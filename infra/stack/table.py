"""The one table; its keys and indexes come from the store's own definition."""

from typing import Any

from aws_cdk import RemovalPolicy
from aws_cdk import aws_dynamodb as dynamodb
from constructs import Construct

from csms.adapters.dynamodb import table_definition


def table(scope: Construct, name: str) -> dynamodb.Table:
    """The table, protected from accidental deletion. The operator names it, so that a restored table can replace it
    (docs/deploying.md)."""
    definition = table_definition(name)
    types = {row["AttributeName"]: row["AttributeType"] for row in definition["AttributeDefinitions"]}
    made = dynamodb.Table(
        scope,
        "Table",
        table_name=name,
        **_keys(definition["KeySchema"], types),
        billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
        point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
            point_in_time_recovery_enabled=True
        ),
        time_to_live_attribute="ttl",
        deletion_protection=True,
        removal_policy=RemovalPolicy.RETAIN,
    )
    for index in definition["GlobalSecondaryIndexes"]:
        projection = index["Projection"]
        made.add_global_secondary_index(
            index_name=index["IndexName"],
            **_keys(index["KeySchema"], types),
            projection_type=dynamodb.ProjectionType[projection["ProjectionType"]],
            non_key_attributes=projection.get("NonKeyAttributes"),
        )
    return made


def index_names() -> list[str]:
    """The names of the table's indexes."""
    return [index["IndexName"] for index in table_definition("any")["GlobalSecondaryIndexes"]]


def _keys(schema: list[dict[str, str]], types: dict[str, str]) -> dict[str, Any]:
    """The key arguments of a table or an index, from a KeySchema of CreateTable."""
    arguments = {"HASH": "partition_key", "RANGE": "sort_key"}
    attribute_types = {"S": dynamodb.AttributeType.STRING, "N": dynamodb.AttributeType.NUMBER}
    return {
        arguments[row["KeyType"]]: dynamodb.Attribute(
            name=row["AttributeName"], type=attribute_types[types[row["AttributeName"]]]
        )
        for row in schema
    }
