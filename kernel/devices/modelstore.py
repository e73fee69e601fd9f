"""The model store: one folder per model on disk, usable by the kernel without torch.

`<root>/<name>/` is a Hugging Face style folder (config.json, *.safetensors, tokenizer.json, chat_template.jinja where the model has
one) plus `kernos.json`, the manifest written here. A folder without a manifest is not a model: it is someone else's, or a pull that
never ended. Installing is one rename, so that a model is there whole or not at all, and an installed model is never changed in place
(device servers map its weights): remove it and install again.
"""

import os
import re
import shutil
import tempfile
from pathlib import Path

import msgspec

from .messages import Kind

MANIFEST = "kernos.json"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""No slash and no leading dot: a name cannot leave the root, and hidden folders are never models."""


class ModelStoreError(Exception):
    """The store cannot do what was asked; the text says what to do instead."""


class UnknownModelError(ModelStoreError):
    """No model of this name is installed; the text lists those that are."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel must know of a model before any device has loaded it."""

    name: str
    kind: Kind
    architecture: str
    source: str
    """The specification it was pulled by, as given."""
    window: int
    """Longest sequence in tokens."""
    dim: int
    """Size of an embedding (encoders) or of the hidden state (decoders)."""
    vocab: int
    eos: list[int]
    """Token ids that end a turn."""
    bos_token: str | None = None
    eos_token: str | None = None
    pad_token: str | None = None
    """The three strings are what a chat template may mention."""
    bytes: int
    """Size of the weight files."""
    sha256: str
    """Of the weight files, one after another in the order of their names."""
    created: str
    """When it was installed: ISO 8601, UTC."""


def check_name(name: str) -> str:
    """Give `name` back if it may name a model."""
    if not _NAME.fullmatch(name):
        raise ModelStoreError(
            f"{name!r} cannot name a model: use 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or a digit."
        )
    return name


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a model's folder."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise ModelStoreError(f"{folder} has no {MANIFEST}: it was not installed by a pull.") from None
    except msgspec.MsgspecError as error:
        raise ModelStoreError(f"{folder / MANIFEST} is damaged ({error}); remove the model and pull it again.") from error


class ModelStore:
    """The models under one folder, which is created when first needed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """All installed models, sorted."""
        return sorted(path.parent.name for path in self.root.glob(f"*/{MANIFEST}") if _NAME.fullmatch(path.parent.name))

    def path(self, name: str) -> Path:
        """The folder of an installed model."""
        folder = self.root / check_name(name)
        if not (folder / MANIFEST).is_file():
            raise UnknownModelError(f"There is no model {name!r}; installed: {', '.join(self.names()) or 'none'}.")
        return folder

    def manifest(self, name: str) -> Manifest:
        """The manifest of an installed model."""
        return read_manifest(self.path(name))

    def staging(self) -> "tempfile.TemporaryDirectory[str]":
        """A hidden folder inside the root (a rename cannot cross file systems); gone when its `with` block ends."""
        self.root.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=self.root, prefix=".pull-", ignore_cleanup_errors=True)

    def install(self, folder: Path, manifest: Manifest) -> Path:
        """Move a finished `folder` (made under `staging`) to its name. Refuses when that name is taken."""
        target = self.root / check_name(manifest.name)
        (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
        for path in [*folder.rglob("*"), folder]:
            _sync(path)
        try:
            folder.rename(target)  # fails on a folder that holds anything: two pulls of one name cannot both win
        except OSError as error:
            raise ModelStoreError(f"{manifest.name!r} is already installed; remove it or choose another name.") from error
        _sync(self.root)
        return target

    def remove(self, name: str) -> None:
        """Uninstall a model. Device servers that have it loaded keep their mapping of the weights."""
        with self.staging() as trash:
            self.path(name).rename(Path(trash) / name)  # hidden first, so that no one sees half a model
            shutil.rmtree(trash)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
