"""The kernel's own scheduler under a simulated clock, with simulated devices: `python -m kernos.kernel.simulate`."""
