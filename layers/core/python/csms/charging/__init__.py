"""Decisions about a charging session, from checkout to settlement: pure code, independent of the OCPP version."""
