"""The application services that the Lambda functions call. Each loads a snapshot, decides, commits, and then performs
what the commit owes. Stations serves the charging stations, Drivers the drivers' pages, Operators the operators' API,
and Maintenance the schedules."""

from csms.service.dependencies import Dependencies, generate_ids
from csms.service.drivers import Drivers
from csms.service.maintenance import Maintenance, SweepReport
from csms.service.operators import Operators
from csms.service.stations import Stations
from csms.stations.knocks import Handshake
from csms.stations.registration import Registration, Traits

__all__ = [
    "Dependencies",
    "Drivers",
    "Handshake",
    "Maintenance",
    "Operators",
    "Registration",
    "Stations",
    "SweepReport",
    "Traits",
    "generate_ids",
]
