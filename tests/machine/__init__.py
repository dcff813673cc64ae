"""The machines, which `tests/properties` runs, and `make soak` for longer.

Over the real service: `actions` (what can be done), `world` (what usually comes next, and the law), `station` and
`service` (what happens), `money_world` and `money` (what happens to money besides). Over the decisions alone:
`memory_world`, `reservation_actions`, `reservation_laws`, `reservation`. What breaks on the way is in `line`,
`provider` and `books`; `values` are the station, the tags and the values that they share.
"""
