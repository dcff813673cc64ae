"""OCPP: framing and schemas, the dialect that every version has, and one package for each version."""
