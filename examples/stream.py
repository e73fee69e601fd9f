#!/usr/bin/env python
"""A conversation that the kernel remembers, answered word by word. Run it twice: the second time it knows what was said."""

from kernos.syscalls import Context, Kernel
from kernos.syscalls.model import Generate, ListModels, Message

with Kernel() as kernel:
    model = kernel.call(ListModels()).decoder
    agent = kernel.spawn("storyteller")
    story = Context(agent, "story")
    wish = Message("user", "Tell me how the story goes on." if len(story) else "Begin a story about a lighthouse.")
    with agent.stream(Generate(model=model, context=story.id, messages=[wish], max_tokens=80)) as stream:
        for chunk in stream:
            print(chunk.text, end="", flush=True)
    print(f"\n({len(story)} messages so far)")
    agent.exit()
