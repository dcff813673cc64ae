"""Log groups, all with a limited retention."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from aws_cdk import RemovalPolicy
from aws_cdk.aws_logs import LogGroup, RetentionDays
from constructs import Construct

from infra.options import Options

RETENTION: Final[Mapping[int, RetentionDays]] = MappingProxyType(
    {
        1: RetentionDays.ONE_DAY,
        7: RetentionDays.ONE_WEEK,
        14: RetentionDays.TWO_WEEKS,
        30: RetentionDays.ONE_MONTH,
        90: RetentionDays.THREE_MONTHS,
        180: RetentionDays.SIX_MONTHS,
        365: RetentionDays.ONE_YEAR,
    }
)


def log_group(scope: Construct, name: str, options: Options) -> LogGroup:
    """A log group that is deleted with the stack."""
    return LogGroup(scope, name, retention=RETENTION[options.log_days], removal_policy=RemovalPolicy.DESTROY)
