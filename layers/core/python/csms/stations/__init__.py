"""Stations: who is online, registered, and with which password. Pure code, without a protocol's words."""
