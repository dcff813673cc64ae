"""OCPP: framing and schemas, the interface that every version implements (dialect), and one package for each
version."""
