"""Load, decide, commit, speak: what the Lambda functions call. Stations serves the chargers, Drivers the web,
Maintenance the clock."""

from csms.service.drivers import Drivers
from csms.service.maintenance import Maintenance, Sweep
from csms.service.stations import Stations
from csms.service.work import Work, fresh_ids

__all__ = ["Drivers", "Maintenance", "Stations", "Sweep", "Work", "fresh_ids"]
