"""csms: the decisions of a charging back end, and the little I/O they need."""
