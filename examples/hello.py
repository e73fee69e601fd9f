#!/usr/bin/env python
"""Ask the machine's own model a question. Start a kernel first: `kernos serve`."""

from kernos.syscalls import Kernel
from kernos.syscalls.model import Generate, ListModels, Message

with Kernel() as kernel:
    model = kernel.call(ListModels()).decoder
    agent = kernel.spawn("greeter")
    answer = agent.call(Generate(model=model, messages=[Message("user", "What is an operating system?")], max_tokens=60))
    print(answer.text)
    print(f"({answer.usage.prompt_tokens} tokens read, {answer.usage.generated_tokens} written)")
    agent.exit()
