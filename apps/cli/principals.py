"""`kernos principal`: who may connect, and with which key."""

from pathlib import Path

import click

from kernos.syscalls import places
from kernos.syscalls.keys import Key, key_file, make_key, write_key
from kernos.syscalls.policy import Enroll, ListPrincipals, Revoke

from .output import json_option, print_json, print_table
from .session import ask


@click.group()
def principal() -> None:
    """Enroll, list and revoke those who may connect: user:, app:, agent:, device: and admin: names."""


@principal.command()
@click.argument("name")
@click.option("--public-key", help="Enroll this public key, whose secret half is kept elsewhere, and make none.")
def add(name: str, public_key: str | None) -> None:
    """Make NAME known by a new key, and say where its secret half is.

    For instance: kernos principal add app:mailbot. A program uses the key when KERNOS_KEY names its file.
    """
    if name in {known.principal for known in ask(ListPrincipals()).principals}:
        raise click.ClickException(f"{name} is known already. `kernos principal rotate {name}` gives it a new key.")
    _enroll(name, public_key)


@principal.command()
@click.argument("name")
@click.option("--public-key", help="Enroll this public key, whose secret half is kept elsewhere, and make none.")
def rotate(name: str, public_key: str | None) -> None:
    """Give NAME a new key; what is connected by the one before is cut off, and that one never counts again."""
    if name not in {known.principal for known in ask(ListPrincipals()).principals}:
        raise click.ClickException(f"{name} is not known. `kernos principal add {name}` makes it known.")
    _enroll(name, public_key)


@principal.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Know NAME no more: its connections are cut off, its agents end, its keys never count again."""
    ask(Revoke(principal=name))
    key_file(places(), name).unlink(missing_ok=True)
    click.echo(f"{name} is not known any more.")


@principal.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List those with an enrolled key. Apps that `kernos run` starts have lent ones, which end with their process."""
    reply = ask(ListPrincipals())
    if as_json:
        print_json(reply)
    else:
        print_table(
            ("PRINCIPAL", "PUBLIC KEY", "AGENTS"), [(known.principal, known.public_key, known.agents) for known in reply.principals]
        )


def _enroll(name: str, public_key: str | None) -> None:
    if public_key is not None:
        ask(Enroll(principal=name, public_key=public_key))
        click.echo(f"{name} is known by {public_key}.")
        return
    key = make_key(name)
    part = _keep_aside(key)  # before: a key that the kernel knows and nobody has would lock its owner out
    try:
        ask(Enroll(principal=name, public_key=key.public))
    except BaseException:
        part.unlink()
        raise
    path = part.replace(key_file(places(), name))
    click.echo(f"{name} is known by {key.public}. Its secret key: {path}")


def _keep_aside(key: Key) -> Path:
    path = key_file(places(), key.principal)
    return write_key(places(), key, path.with_suffix(".new"))
