"""The command `kernos`: a small module per subject; the system calls do the work."""
