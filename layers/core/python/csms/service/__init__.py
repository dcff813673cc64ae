"""Load, decide, commit, speak: what the Lambda functions call. Stations serves the chargers, Drivers the web,
Operators the operators, Maintenance the clock."""

from csms.service.dependencies import Dependencies, generate_ids
from csms.service.drivers import Drivers
from csms.service.maintenance import Maintenance, SweepReport
from csms.service.operators import Operators
from csms.service.stations import Stations
from csms.stations.registration import Registration

__all__ = [
    "Dependencies",
    "Drivers",
    "Maintenance",
    "Operators",
    "Registration",
    "Stations",
    "SweepReport",
    "generate_ids",
]
