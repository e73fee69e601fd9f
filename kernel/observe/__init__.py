"""How the kernel is watched."""
