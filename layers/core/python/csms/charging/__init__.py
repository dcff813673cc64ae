"""Decisions on a charging session, from checkout to settlement: pure code, without a protocol's words."""
