"""Pure state machines: events in, actions out, `now` as an argument; no I/O, no clock, no randomness."""
