"""What an administrator may set: `kernos.toml` in the configuration folder. Every setting has a default, so no file is needed."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .core.policies import PolicyName
from .devices.messages import Arithmetic


class ConfigError(Exception):
    """The configuration file cannot be used; the message says where and why."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of one kernel."""

    decoder: str = ""
    """Model for apps that name none; empty: the first decoder of the model store."""
    encoder: str = ""
    """Model that embeds for apps that name none; empty: the first encoder of the model store."""
    device: str = "auto"
    """Where decoders run: `cpu:0`, `cuda:0`, …; `auto` takes the first CUDA device if there is one, else the CPU."""
    encoder_device: str = "cpu:0"
    """Where encoders run, in a device server of their own. If decoders run on the same device the two servers take turns."""
    dtype: Arithmetic = "auto"
    """Arithmetic of decoders: `auto` is `bfloat16` where the device is faster in it, which most processors without instructions for it
    are not, else `float32`, which gives the same tokens whatever else runs beside. `int8` and `int4` round the weights of models whose
    passes are compiled to 8 and to 4 bits: faster, and right in most tokens; the log says in how many."""
    slots: Annotated[int, Meta(ge=1, le=256)] = 8
    """Sequences decoded at once per model."""
    kv_pages: Annotated[int, Meta(ge=0, le=1 << 20)] = 256
    """KV pages of 64 tokens that a decoder keeps on its device for turns that wait and for common beginnings; memory is taken as they are
    used. A page of the embedded model is 1.5 MB in bfloat16, 3 MB in float32."""
    host_pages: Annotated[int, Meta(ge=0, le=1 << 20)] = 512
    """Pages in the memory of the host, for what finds no room on the device."""
    disk_pages: Annotated[int, Meta(ge=0, le=1 << 24)] = 2_048
    """Pages in the encrypted swap file under the state folder, for what finds no room on the host. It grows as it is used."""
    recall_mb: Annotated[int, Meta(ge=1, le=1 << 20)] = 256
    """Memory in MiB for what recall and search hold of texts: 0.8 KB a sentence. What was not used for longest is read again."""
    version_days: Annotated[float, Meta(gt=0)] | None = None
    """Days that replaced versions of files are kept, counted from when they were written; unset: until the file is deleted."""
    rollback_days: Annotated[float, Meta(gt=0)] | None = None
    """Days that what a rollback of a context left behind is kept; unset: until the context is deleted."""
    policy: PolicyName = "fair"
    """Who computes first: `fair`, `fifo`, `rr`, `priority`, `mlfq` or `deadline`; see docs/scheduling.md."""
    threads: Annotated[int, Meta(ge=0, le=512)] = 0
    """Threads of a device server on the CPU; 0: one per core, also where two servers take turns."""
    audit: Literal["changes", "all"] = "changes"
    """Which allowed calls the audit log records: those that change something, or all. Denied ones always are."""
    nice: Annotated[int, Meta(ge=0, le=19)] = 10
    """Niceness of device servers: at 10 a system call beside two busy torch threads took 0.5 ms at p99, at 0 it took 4.1 ms."""

    def device_of(self, server: str) -> str:
        """Where a device server runs its models."""
        if server == "encoder":
            return self.encoder_device
        if self.device == "auto":
            return "cuda:0" if Path("/dev/nvidia0").exists() else "cpu:0"
        return self.device

    @property
    def one_device(self) -> bool:
        """Whether decoders and encoders share a device."""
        return self.device_of("decoder") == self.device_of("encoder")


def load_config(path: Path) -> Config:
    """The settings in a TOML file, or the defaults where there is none; `ConfigError` if it is not right."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), Config)
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}. Correct the file, or remove it to use the defaults.") from None
