"""The shipped policies, as package data. The first `kernos serve` copies them to the configuration folder, where they are live."""
