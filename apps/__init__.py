"""The programs that come with Kernos. Each is an ordinary process; the kernel does not know their names."""
