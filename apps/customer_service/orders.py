"""Orders and refunds, and the two tools by which agents reach them. A shop would ask its order system here; this one reads a small file.

Both tools look at whom the kernel says they are called for, never at what a model wrote: a customer sees and moves their own orders alone.
A refund cannot be undone, so its tool is marked privileged: whoever has read text from the outside needs somebody's approval for it.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from kernos.agents import Agent, ToolCall, ToolFunction, tool
from kernos.syscalls.errors import ConflictError
from kernos.syscalls.store import ListFiles, PutFile

SHIPPED: Final = Path(__file__).with_name("data") / "orders.csv"

NUMBER: Final = re.compile(r"\b[A-Z]{1,4}-\d{3,10}\b", re.IGNORECASE)
"""What an order number looks like. The app looks for one itself: this is too plain a matter to leave it to a model."""

_FOLDER: Final = "refunds/"
"""Where the app's files hold a refund per order."""

_REFUNDABLE: Final = ("returned", "cancelled")


class Order(msgspec.Struct, frozen=True):
    """An order as the shop's system has it."""

    order: Annotated[str, Meta(pattern=r"^[A-Za-z]{1,4}-\d{3,10}\Z")]
    customer: str
    items: str
    status: str
    paid: float = 0.0
    expected: str = ""


class Refund(msgspec.Struct, frozen=True):
    """Money that was paid back: a file of the app."""

    order: str
    customer: str
    amount: float
    time: str


class Shop:
    """The orders, and the refunds that were made, which outlive the app. `agent` keeps them and serves the tools."""

    def __init__(self, agent: Agent, orders: Sequence[Order]) -> None:
        self._agent = agent
        self._orders = {order.order.upper(): order for order in orders}
        self.status = tool(stateless=True)(self.order_status)
        self.refund = tool(privileged=True)(self.refund_order)

    @property
    def tools(self) -> list[ToolFunction[..., Any]]:
        """What agents may call, under the policy."""
        return [self.status, self.refund]

    async def order_status(self, order: str, call: ToolCall) -> str:
        """Where an order of the calling customer is, by its number."""
        found = self._own(order, call)
        if found is None:
            return _unknown(order)
        if await self._refunded(found):
            return f"Your order {found.order} ({found.items}) was refunded."
        when = f" We expect it to arrive {found.expected}." if found.expected else ""
        return f"Your order {found.order} ({found.items}) is {found.status}.{when}"

    async def refund_order(self, order: str, call: ToolCall) -> str:
        """Pay an order of the calling customer back, if we have its goods: once, and not to be undone."""
        found = self._own(order, call)
        if found is None:
            return _unknown(order)
        if not found.status.startswith(_REFUNDABLE):
            return f"Your order {found.order} is {found.status}. We refund an order when it was cancelled or we have received it back."
        refund = Refund(found.order, found.customer, found.paid, datetime.now(UTC).isoformat(timespec="seconds"))
        try:
            await self._agent.call(PutFile(path=f"{_FOLDER}{found.order}", data=msgspec.json.encode(refund), expect=0))
        except ConflictError:  # made before, perhaps by a call whose answer was lost
            return f"Your order {found.order} was refunded already."
        return f"We have refunded {found.paid:.2f} euros for your order {found.order}."

    async def _refunded(self, order: Order) -> bool:
        return bool((await self._agent.call(ListFiles(prefix=f"{_FOLDER}{order.order}"))).files)

    def _own(self, number: str, call: ToolCall) -> Order | None:
        """The caller's order of this number. Whether one of somebody else's exists is nobody's business."""
        found = self._orders.get(number.upper())
        return found if found is not None and f"user:{found.customer}" == call.user else None


def _unknown(order: str) -> str:
    return f"There is no order {order.upper()} of yours. Please check the number in your confirmation email."
