"""Stations: who is online, registered, and with which password. Pure code, independent of the OCPP version."""
