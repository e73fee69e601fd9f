"""The models of this machine: what the store holds, what is loaded where, and bringing one up.

A model is `stored` until somebody needs it, then `loading` on the device server of its kind, then `ready`, or `failed` with a reason.
When a device server dies, its models go back to `loading` and are loaded again as soon as its successor is up.
"""

import logging
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kernos.syscalls.errors import BadRequestError, ConflictError, ModelUnavailableError, NotFoundError
from kernos.syscalls.model import Kind, Model

from .core.scheduler import LaneDown, LaneUp
from .devices.messages import Load, Loaded, LoadFailed, Optimized, Unload
from .devices.modelstore import Manifest, ModelStore, ModelStoreError
from .limits import QUANTUM_RECOMPUTED, QUANTUM_TOKENS
from .text import Tokenizer
from .tickets import Ticket

if TYPE_CHECKING:
    from .system import System

log = logging.getLogger(__name__)

State = Literal["stored", "loading", "ready", "failed"]


@dataclass
class Entry:
    """A model and what became of it."""

    manifest: Manifest
    folder: Path
    server: str
    state: State = "stored"
    reason: str = ""
    window: int = 0
    dtype: str = ""
    mode: str = ""
    waiting: list[Ticket] = field(default_factory=list)
    """Callers of `model.load`."""

    @property
    def name(self) -> str:
        """As callers name it."""
        return self.manifest.name

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Read when first needed: a tokenizer takes some tens of milliseconds."""
        special = {name: getattr(self.manifest, name) for name in ("bos_token", "eos_token", "pad_token")}
        return Tokenizer(self.folder, {name: text for name, text in special.items() if text})

    def view(self) -> Model:
        """As callers see it."""
        of = self.manifest
        window = self.window or of.window
        return Model(of.name, of.kind, self.state, self.server, window, of.bytes, of.source, self.reason, self.dtype, self.mode)


class Registry:
    """All models by name."""

    def __init__(self, system: "System", store: ModelStore) -> None:
        self.system = system
        self.store = store
        self.entries: dict[str, Entry] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take in what has been pulled, and forget what was removed and is not loaded."""
        names = set(self.store.names())
        for name in names - self.entries.keys():
            try:
                manifest = self.store.manifest(name)
                self.entries[name] = Entry(manifest, self.store.path(name), manifest.kind)
            except ModelStoreError as error:
                log.warning("a model is left out: %s", error)
        for name in self.entries.keys() - names:
            if self.entries[name].state in ("stored", "failed"):
                del self.entries[name]

    def default(self, kind: Kind) -> str:
        """The model for apps that name none: the configured one, else the first of its kind; empty if there is none."""
        chosen = self.system.config.decoder if kind == "decoder" else self.system.config.encoder
        return chosen or next((name for name in sorted(self.entries) if self.entries[name].manifest.kind == kind), "")

    def get(self, name: str) -> Entry:
        """A model by name; looks into the store again before it says no."""
        if name not in self.entries:
            self.refresh()
        if name not in self.entries:
            have = ", ".join(sorted(self.entries)) or "none"
            raise NotFoundError(f"There is no model {name}; the store has: {have}. Bring one in with `kernos pull`.")
        return self.entries[name]

    def need(self, name: str, kind: Kind) -> Entry:
        """A model of this kind that is ready or on its way."""
        entry = self.get(name)
        if entry.manifest.kind != kind:
            does = "generates" if entry.manifest.kind == "decoder" else "embeds"
            raise BadRequestError(f"{name} is a model that {does}; name another. `model.list` shows the kinds.")
        if entry.state == "failed":
            raise ModelUnavailableError(
                f"{name} cannot be used: {entry.reason}. See `kernos logs`; `kernos models load {name}` tries again."
            )
        if entry.state == "stored":
            if self.system.fleet.servers[entry.server].state == "failed":
                raise ModelUnavailableError(
                    f"{name} cannot be used: its device server has failed. See `kernos logs`; `kernos models load {name}` tries again."
                )
            self.load(entry)
        return entry

    def load(self, entry: Entry) -> None:
        """Bring a model to its device server, now or as soon as that is up."""
        entry.state, entry.reason = "loading", ""
        if self.system.fleet.is_up(entry.server):
            self._send_load(entry)

    def unload(self, entry: Entry) -> None:
        """Take a model off its device."""
        if any(turn.lane == entry.name for turn in self.system.scheduler.turns.values()):
            raise ConflictError(f"Turns run on {entry.name}. Wait for them or cancel them.")
        if any(batch.model == entry.name for batch in self.system.embeds.batches.values()):
            raise ConflictError(f"Texts are being embedded by {entry.name}. Wait for them or cancel them.")
        if entry.state == "loading":
            raise ConflictError(f"{entry.name} is being loaded. Wait until it is ready.")
        if entry.state == "ready":
            self.system.scheduler.handle(LaneDown(entry.name), self.system.host.now)
            self.system.host.command(entry.server, Unload(entry.name))
            self.system.paging.down(entry.name)
        entry.state = "stored"

    # --- reports of device servers ------------------------------------------------------------------------------------------------

    def server_up(self, server: str) -> None:
        """A device server is ready: load what is wanted there."""
        for entry in self.on(server):
            if entry.state == "loading":
                self._send_load(entry)

    def server_down(self, server: str, reason: str | None) -> None:
        """A device server has died; with a reason it will not come back."""
        for entry in self.on(server):
            if entry.state in ("loading", "ready"):
                entry.state = "loading"
                if reason is not None:
                    self._fail(entry, reason)

    def loaded(self, report: Loaded) -> None:
        """A model is ready."""
        entry = self.entries.get(report.model)
        if entry is None or entry.state != "loading":
            log.warning("%s was loaded, and nobody waits for it", report.model)
            return
        entry.state, entry.window, entry.dtype, entry.mode = "ready", report.window, report.dtype, report.mode
        self.system.paging.up(entry.name, report.page_bytes)
        for ticket in entry.waiting:
            ticket.reply(entry.view())
        entry.waiting.clear()
        if report.kind == "decoder":
            quantum = QUANTUM_TOKENS if report.page_bytes else QUANTUM_RECOMPUTED
            lane_up = LaneUp(entry.name, self.system.config.slots, quantum=quantum)
            self.system.turns.apply(self.system.scheduler.handle(lane_up, self.system.host.now))
        else:
            self.system.embeds.send_waiting(entry.name)
            self.system.embedder.wake()

    def optimized(self, report: Optimized) -> None:
        """A model computes in another mode."""
        if (entry := self.entries.get(report.model)) is not None:
            entry.mode = report.mode

    def load_failed(self, report: LoadFailed) -> None:
        """A model could not be loaded."""
        if report.model in self.entries:
            self._fail(self.entries[report.model], report.reason)

    def _fail(self, entry: Entry, reason: str) -> None:
        entry.state, entry.reason = "failed", reason[:1_000]
        error = ModelUnavailableError(f"{entry.name} cannot be used: {entry.reason}. See `kernos logs`.")
        for ticket in entry.waiting:
            ticket.fail(error)
        entry.waiting.clear()
        self.system.turns.fail_all(entry.name, error)
        self.system.embeds.fail_all(entry.name, error)

    def _send_load(self, entry: Entry) -> None:
        config = self.system.config
        # Vectors are kept and compared for years: for encoders exactness is worth more than speed.
        dtype = config.dtype if entry.manifest.kind == "decoder" else "float32"
        load = Load(
            entry.name,
            str(entry.folder),
            entry.manifest.kind,
            dtype,
            config.slots,
            config.kv_pages,
            config.host_pages,
            config.disk_pages,
            swap=str(self.system.where.state / f"swap.{entry.name}"),
        )
        self.system.host.command(entry.server, load)

    def on(self, server: str) -> list[Entry]:
        """The models of a device server."""
        return [entry for entry in self.entries.values() if entry.server == server]
