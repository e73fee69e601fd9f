"""Device servers as the kernel sees them: one for decoders and one for encoders, started, watched, and started again.

A server that dies takes nothing with it: its turns wait for the successor, which loads the same models. More crashes than the restart
intensity allows and it stays down, with everything that needs it refused clearly.
"""

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from kernos.syscalls.system import Device

from .core.supervision import RestartIntensity
from .devices.messages import AnyReport, Copied, Embedded, Failed, Hello, Loaded, LoadFailed, Optimized, Saved, Stepped

if TYPE_CHECKING:
    from .system import System

log = logging.getLogger(__name__)

SERVERS = ("decoder", "encoder")
"""Named after the kind of model they run, and so are their principals: `device:decoder`."""


@dataclass
class Server:
    """A device server."""

    name: str
    state: Literal["starting", "up", "restarting", "failed"] = "starting"
    os_pid: int = 0
    accelerator: str = ""
    intensity: RestartIntensity = field(default_factory=RestartIntensity)


class Fleet:
    """All device servers by name."""

    def __init__(self, system: "System") -> None:
        self.system = system
        self.servers = {name: Server(name) for name in SERVERS}

    def start(self) -> None:
        """Start them all."""
        for server in self.servers.values():
            server.os_pid = self.system.host.start_device(server.name)

    def is_up(self, name: str) -> bool:
        """Whether a server takes commands."""
        return self.servers[name].state == "up"

    def died(self, name: str, code: int) -> None:
        """A server's process has ended."""
        server = self.servers[name]
        again = server.intensity.may_restart(self.system.host.now)
        reason = None if again else f"its device server died {server.intensity.most + 1} times in {server.intensity.window_s:g} s"
        log.warning("device server %s ended with code %d; %s", name, code, "starting it again" if again else "giving up")
        server.state = "restarting" if again else "failed"
        self.system.turns.server_down(name)
        self.system.registry.server_down(name, reason)
        if again:
            server.os_pid = self.system.host.start_device(name)

    def revive(self, name: str) -> None:
        """Start a server that was given up, because an administrator wants to try again."""
        server = self.servers[name]
        if server.state == "failed":
            server.intensity.forgive()
            server.state = "starting"
            server.os_pid = self.system.host.start_device(name)

    def report(self, name: str, report: AnyReport) -> None:
        """Take in what a server says."""
        system = self.system
        match report:
            case Stepped():
                system.turns.stepped(report)
                system.embeds.go_on()
            case Saved():
                system.paging.saved(report.seq, report.held)
            case Copied():
                system.paging.copied(report)
            case Embedded():
                system.embeds.done(report)
            case Loaded():
                log.info("%s is ready after %.2f s, %s", report.model, report.seconds, report.mode)
                system.registry.loaded(report)
            case Optimized():
                log.info("%s computes %s now", report.model, report.mode)
                system.registry.optimized(report)
            case LoadFailed():
                log.error("%s could not be loaded: %s", report.model, report.reason)
                system.registry.load_failed(report)
            case Hello():
                server = self.servers[name]
                server.state, server.accelerator = "up", report.accelerator
                system.registry.server_up(name)
            case Failed():
                self._failed(report)

    def view(self) -> list[Device]:
        """As callers see them."""
        slots = sum(lane.slots for lane in self.system.scheduler.lanes.values())
        return [
            Device(
                server.name,
                server.state,
                server.os_pid,
                server.accelerator,
                self.system.scheduler.running if server.name == "decoder" else len(self.system.embeds.batches),
                slots if server.name == "decoder" else 0,
                server.intensity.total,
            )
            for server in self.servers.values()
        ]

    def _failed(self, report: Failed) -> None:
        if report.seq is not None:
            self.system.turns.failed(report.seq, report.reason)
        elif report.save is not None:
            self.system.paging.not_saved(report.save)
        elif report.copy is not None:
            self.system.paging.not_copied(report.copy, report.reason)
        elif report.batch is not None:
            self.system.embeds.failed(report.batch, report.reason)
        else:
            log.error("a device server says: %s", report.reason)
