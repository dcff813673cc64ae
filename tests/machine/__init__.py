"""The machines: the `world` that they act in, what they do to it (`service`, `money`), how it is taken apart (`line`,
`books`). `tests/properties` runs them, and `make soak` runs them for longer."""
