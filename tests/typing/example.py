"""What the type checkers say about the SDK; `test_typing.py` compares it with the comments. Never run."""

from typing import reveal_type

from kernos.syscalls import AsyncKernel, Context, Kernel
from kernos.syscalls.model import Embed, Generate, LoadModel, Message
from kernos.syscalls.process import Spawn
from kernos.syscalls.system import Ping
from kernos.syscalls.tool import ServeTool

ASK = Generate(model="m", messages=[Message("user", "Good morning!")])


def blocking(kernel: Kernel) -> None:
    reveal_type(kernel.call(ASK))  # Generation
    reveal_type(kernel.call(Ping()))  # Pong
    reveal_type(kernel.call(Spawn(name="a")).pid)  # int
    reveal_type(kernel.call(LoadModel(model="m"), timeout=1.0, key="k", urgent=False))  # Model
    reveal_type(kernel.call(Embed(model="m", texts=["text"])).rows())  # list[memoryview[float]]
    reveal_type(kernel.spawn("a", user="user:ann", priority="batch"))  # Kernel
    with kernel.stream(ASK) as stream:
        for chunk in stream:
            reveal_type(chunk)  # Chunk
        reveal_type(stream.result)  # Generation
    for invocation in kernel.stream(ServeTool(tool="a/f", description="", schema="{}")):
        reveal_type(invocation)  # Invocation
    for message in Context(kernel, "c"):
        reveal_type(message)  # Message


async def waiting(kernel: AsyncKernel) -> None:
    reveal_type(await kernel.call(ASK))  # Generation
    reveal_type(await kernel.spawn("a"))  # AsyncKernel
    async with kernel.stream(ASK) as stream:
        async for chunk in stream:
            reveal_type(chunk)  # Chunk
        reveal_type(await stream.result())  # Generation


def wrong(kernel: Kernel) -> None:
    kernel.call("ping")  # error
    kernel.stream(Ping())  # error
    kernel.call(Generate(modle="m"))  # error
    kernel.spawn("a", priority="urgent")  # error
    Ping().payload = b"x"  # error
