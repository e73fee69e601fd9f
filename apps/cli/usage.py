"""`kernos usage`: the limits of a principal and what is used of them."""

import click

from kernos.syscalls.process import GetUsage, Meter

from .output import json_option, print_json, print_table, span
from .session import ask


@click.command()
@click.argument("principal", required=False)
@json_option
def usage(principal: str | None, as_json: bool) -> None:
    """Show the limits of PRINCIPAL, or of this key, and how much of each is used.

    WINDOW is the time in which all of it comes back by itself; the other limits are free again when something ends or is deleted.
    """
    reply = ask(GetUsage(principal=principal), urgent=True)
    if as_json:
        print_json(reply)
    else:
        print_table(("LIMIT", "USED", "ALLOWED", "WINDOW"), [_row(meter) for meter in reply.meters])


def _row(meter: Meter) -> tuple[object, ...]:
    return meter.limit, meter.used, meter.allowed, span(meter.window_s) if meter.window_s else "-"
