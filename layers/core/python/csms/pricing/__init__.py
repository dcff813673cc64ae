"""Tariffs, currencies and receipts: pure code."""
