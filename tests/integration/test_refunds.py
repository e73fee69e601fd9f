"""A refund on a real kernel, under the shipped policies: it takes somebody's consent because the customer's words come from the outside."""

import asyncio
from pathlib import Path

from benchmarks.kernel import RunningKernel
from kernos.agents.rows import read_rows
from kernos.apps.customer_service.knowledge import SHIPPED, Entry
from kernos.apps.customer_service.orders import Order
from kernos.apps.customer_service.service import Customer, Desk
from kernos.syscalls import AsyncKernel
from kernos.syscalls.process import Approve, ListApprovals

ORDERS = [
    Order("F-7001", "hal", "a lamp", "returned; we have received it", 12.5),
    Order("F-7002", "hal", "a rug", "returned; we have received it", 99.0),
]
APP = "app:customer_service"


async def answer(customer: Customer, text: str) -> str:
    return "".join([piece async for piece in customer.ask(text)])


def test_a_refund_is_made_once_somebody_has_consented(kernel: RunningKernel, tmp_path: Path) -> None:
    async def body() -> None:
        entries = read_rows(SHIPPED, Entry).rows[:3]
        async with AsyncKernel(kernel.enroll(APP), where=kernel.where) as app, AsyncKernel(kernel.key, where=kernel.where) as admin:
            async with Desk.open(app, entries, ORDERS, tmp_path) as desk, desk.customer("hal") as hal:
                assert "needs the consent of our staff" in await answer(hal, "Please refund my order F-7001")
                (asked,) = (await admin.call(ListApprovals(principal=APP))).approvals
                assert '> {"order":"F-7001"}' in asked.text
                assert asked.user == "user:hal"
                await admin.call(Approve(approval=asked.approval, principal=APP, allow=True))
                assert "needs the consent" in await answer(hal, "Please refund my order F-7002"), "consent is for one call"
                (other,) = (await admin.call(ListApprovals(principal=APP))).approvals
                await admin.call(Approve(approval=other.approval, principal=APP, allow=False))
                told = await answer(hal, "I want to talk to a person")
                assert told.startswith("Our staff did not agree to refund F-7002.")
            async with Desk.open(app, entries, ORDERS, tmp_path) as desk, desk.customer("hal") as hal:
                assert "F-7001 (a lamp) was refunded." in await answer(hal, "Where is my order F-7001?"), "a restart forgets no refund"

    asyncio.run(body())
