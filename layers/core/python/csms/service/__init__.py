"""Load, decide, commit, speak: what the Lambda functions call. Stations serves the chargers, Drivers the web,
Operators the operators, Maintenance the clock."""

from csms.service.drivers import Drivers
from csms.service.maintenance import Maintenance, Sweep
from csms.service.operators import Operators
from csms.service.stations import Stations
from csms.service.work import Work, fresh_ids
from csms.stations.registration import Registration

__all__ = ["Drivers", "Maintenance", "Operators", "Registration", "Stations", "Sweep", "Work", "fresh_ids"]
