"""The kernel: one process, one loop, one writer of all tables. It imports neither torch nor transformers."""
