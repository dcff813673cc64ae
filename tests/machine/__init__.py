"""State machines of hypothesis, which `tests/properties` runs, and `make soak` for longer.

Over the real service: `actions` (what can be done), `world` (the usual next steps, and the invariants), `station`,
`chargers` and `service` (rules), `money_world` and `money` (rules and invariants for payments). Over the decisions
alone: `memory_world`, `reservation_actions`, `reservation_laws`, `reservation`. Faults come from `line`, `provider` and
`books`; `values` has the station, tags and values that they share.
"""
