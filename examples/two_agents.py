#!/usr/bin/env python
"""Two agents that work together by mail: one thinks of a subject, the other writes about it."""

from kernos.syscalls import Kernel
from kernos.syscalls.message import Receive, Send
from kernos.syscalls.model import Generate, ListModels, Message

with Kernel() as kernel:
    model = kernel.call(ListModels()).decoder
    editor, writer = kernel.spawn("editor"), kernel.spawn("writer")
    editor.call(Send(to=f"agent/{writer.pid}", text="Write one sentence about the sea."))
    mail = writer.call(Receive(mailbox=f"agent/{writer.pid}"))
    answer = writer.call(Generate(model=model, messages=[Message("user", mail.text)], max_tokens=40))
    writer.call(Send(to=f"agent/{mail.sender_pid}", text=answer.text))
    print(editor.call(Receive(mailbox=f"agent/{editor.pid}")).text)
