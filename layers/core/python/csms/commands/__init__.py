"""Commands to stations: what is queued, sent, sent again and over. Pure code, without a protocol's words."""
