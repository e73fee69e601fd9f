"""The engines that the kernel's is measured against, each in a process and, but for transformers, an environment of its own.

`process` starts one and talks to it; `protocol` is the other end of that talk, which the servers beside it share.
"""
