"""API Gateway on a laptop: one server that turns the requests of stations and browsers into the events of the
handlers."""

from local.gateway.delivery import IN_ORDER, OVERLAPPING, Delivery
from local.gateway.limits import AWS, Limits
from local.gateway.server import Gateway, Respond, run_gateway
from local.invoke import Handler, Schedule

__all__ = [
    "AWS",
    "IN_ORDER",
    "OVERLAPPING",
    "Delivery",
    "Gateway",
    "Handler",
    "Limits",
    "Respond",
    "Schedule",
    "run_gateway",
]
