"""Orders, and the tool that tells a customer about them. A shop would ask its order system here; this one reads a small file."""

import re
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from kernos.agents import ToolCall, tool

NUMBER: Final = re.compile(r"\bF-\d{4}\b", re.IGNORECASE)
"""What an order number looks like. The app looks for one itself: this is too plain a matter to leave it to a model."""


class Order(msgspec.Struct, frozen=True):
    """An order as the shop's system has it."""

    order: str
    customer: str
    items: list[str]
    status: str
    expected: str | None = None


@tool(stateless=True)
def order_status(order: str, call: ToolCall) -> str:
    """Where an order of the calling customer is, by its number."""
    found = _orders().get(order.upper())
    if found is None or f"user:{found.customer}" != call.user:  # whether the order exists is nobody else's business
        return f"There is no order {order.upper()} of yours. Please check the number in your confirmation email."
    when = f" We expect it to arrive {found.expected}." if found.expected else ""
    return f"Your order {found.order} ({', '.join(found.items)}) is {found.status}.{when}"


@cache
def _orders() -> dict[str, Order]:
    shipped = Path(__file__).with_name("data") / "orders.json"
    return {order.order: order for order in msgspec.json.decode(shipped.read_bytes(), type=list[Order])}
