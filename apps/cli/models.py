"""`kernos models`: what is in the model store, and which of it is on a device."""

import click

from kernos.syscalls import places
from kernos.syscalls.model import ListModels, LoadModel, Model, Models, UnloadModel

from .output import json_option, print_json, print_table, size
from .progress import follow
from .session import ask

_HEADINGS = ("NAME", "KIND", "STATE", "DEVICE", "ARITHMETIC", "MODE", "WINDOW", "SIZE", "SOURCE", "NOTE")

_PHASES = {"compile": "compiling", "measure": "measuring"}
_MODES = ("MODE", "TOP-1", "TOKENS/S OF ONE", "OF EIGHT", "MEMORY")


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """List the models of this machine, or load and unload one."""
    if ctx.invoked_subcommand is not None:
        return
    reply = ask(ListModels())
    if as_json:
        print_json(reply)
    elif reply.models:
        print_table(_HEADINGS, [_row(model, reply) for model in reply.models])
    else:
        click.echo("No models. Bring one with `kernos pull SPEC`, for instance `kernos pull hf:org/name`.")


@models.command()
@click.argument("name")
@json_option
def load(name: str, as_json: bool) -> None:
    """Bring the model NAME to its device, and wait until it is ready."""
    model = ask(LoadModel(model=name))
    if as_json:
        print_json(model)
    else:
        click.echo(f"{model.name} is {model.state} on {model.device}.")


@models.command()
@click.argument("name")
def unload(name: str) -> None:
    """Take the model NAME off its device."""
    ask(UnloadModel(model=name))
    click.echo(f"{name} is unloaded; it stays in the store.")


@models.command()
@click.argument("name")
@json_option
def optimize(name: str, as_json: bool) -> None:
    """Build faster code for the model NAME on this processor, and measure it.

    Takes a minute at most and needs a C++ compiler (g++). A kernel that runs takes the code up as soon as it has nothing to do.
    """
    done = follow("kernos.kernel.devices.optimize", [name, "--models", str(places().models)], _PHASES)
    if as_json:
        print_json(done.modes)
    else:
        print_table(_MODES, [(of.mode, f"{of.top1:.3f}", f"{of.one:.0f}", f"{of.eight:.0f}", size(of.bytes)) for of in done.modes])


def _row(model: Model, reply: Models) -> tuple[object, ...]:
    default = "default" if model.name in (reply.decoder, reply.encoder) else ""
    note = model.reason or default
    computes = model.device or "-", model.dtype or "-", model.mode or "-"
    return model.name, model.kind, model.state, *computes, model.window, size(model.bytes), model.source, note
