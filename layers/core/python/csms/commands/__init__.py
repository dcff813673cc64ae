"""Commands to stations: which are queued, sent, sent again and over. Pure code, independent of the OCPP version."""
