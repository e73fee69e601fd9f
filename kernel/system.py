"""Everything the kernel owns, in one place: the tables, the law, the models and the machines they run on.

The parts know each other only through here. One loop calls in, so nothing here needs a lock.
"""

import secrets
from typing import TYPE_CHECKING

from kernos.syscalls.errors import AgentKilledError, KernosError, RefusedError
from kernos.syscalls.places import Places
from kernos.syscalls.process import Ended

from .agents import Agents
from .authority import Authority
from .config import Config
from .contexts import Contexts
from .conversations import Conversations
from .core.policies import POLICIES
from .core.processes import Life, Process, ProcessTable
from .core.quotas import Quotas
from .core.readers import Readers
from .core.scheduler import Scheduler
from .core.supervision import RestartIntensity
from .devices.modelstore import ModelStore
from .embedder import Embedder
from .embeds import Embeds
from .fleet import Fleet
from .flows import Flows
from .host import Host
from .law import Law
from .limits import ZOMBIES
from .memory import filestore
from .memory.connection import Connection
from .models import Registry
from .notices import Notices
from .paging import Paging
from .recalls import Recalls
from .retention import Retention
from .security.audit import Audit
from .security.identity import Identities
from .storage import Disk, Storage
from .tickets import Ticket
from .tools import Tools
from .turns import Turns

if TYPE_CHECKING:
    from .gate import Gate


class System:
    """The state of the kernel."""

    gate: "Gate"

    def __init__(self, host: Host, where: Places, config: Config, law: Law, identities: Identities, disk: Disk, boot_ms: float) -> None:
        self.host = host
        self.where = where
        self.config = config
        self.law = law
        self.identities = identities
        self.boot_ms = boot_ms
        self.damage = ""
        """What was found lost of the database when it was opened."""
        self.started = host.now
        self.draining = False
        self.calls = 0
        self.refused = 0
        self.processes = ProcessTable()
        self.scheduler = Scheduler(POLICIES[config.policy])
        self.quotas = Quotas(lambda principal: law.policy.limits(principal))
        self.storage = Storage(self, disk)
        self.agents = Agents(self)
        self.audit = Audit(self)
        self.authority = Authority(self)
        self.contexts = Contexts(self)
        self.flows = Flows(self)
        self.readers: Readers[Ticket] = Readers()
        self.launches: dict[str, RestartIntensity] = {}
        self.waiters: dict[int, list[Ticket]] = {}
        self.tools = Tools(self)
        self.registry = Registry(self, ModelStore(where.models))
        self.fleet = Fleet(self)
        self.paging = Paging(self)
        self.turns = Turns(self)
        self.notices = Notices(self)
        self.conversations = Conversations(self)
        self.embeds = Embeds(self)
        self.embedder = Embedder(self)
        self.recalls = Recalls(self)
        self.retention = Retention(self)

    def recover(self, connection: Connection) -> None:
        """Take over what the last kernel kept."""
        self.agents.load(connection)
        self.contexts.load(connection)
        self.law.recover(connection, self.host.clock)
        for payers, files, size in filestore.charges(connection):
            self.quotas.hold(payers, {"files": files, "bytes": size}, self.host.now)

    def new_id(self) -> str:
        """An identifier that cannot be guessed."""
        return secrets.token_hex(12)

    def end_agent(self, process: Process, code: int, reason: str, error: KernosError | None = None) -> None:
        """End an agent: its calls, its mailbox, its place in the queues; then tell those who wait for it."""
        if process.life is Life.EXITED:
            return
        self.processes.exit(process, code, reason, self.host.now)
        self.quotas.give(process.payers, {"processes": 1})
        self.gate.end_of(process, error or AgentKilledError(f"Agent {process.pid} ({process.name}) was ended: {reason}."))
        self.scheduler.forget(process.pid)
        self.paging.keeping.ended(process)
        self.flows.approvals.forget(process.pid)
        self.notices.ended(process.pid)
        self.agents.changed(process)
        for ticket in self.waiters.pop(process.pid, []):
            ticket.reply(self.collect(process))
        if len(self.processes.ended) > ZOMBIES:
            self.collect(next(iter(self.processes.ended.values())))

    def collect(self, process: Process) -> Ended:
        """Remove the row of an ended agent and tell how it ended."""
        if process.life is Life.EXITED:
            self.processes.step(process, "collect", self.host.now)
            self.agents.changed(process)
        return Ended(process.pid, process.code or 0, process.reason, sorted(process.labels))

    def program_died(self, os_pid: int) -> None:
        """A client process is gone, and its agents and the key that was lent to it with it."""
        self.identities.end_loans(os_pid)
        self.storage.tell(lambda: self.identities.discard_loan(os_pid))
        for process in self.processes.in_program(os_pid):
            self.end_agent(process, -1, "its program has ended")

    def cut_off(self, why: str) -> None:
        """End the calls and agents of every key that no longer counts."""
        error = RefusedError(why)
        for ticket in list(self.gate.in_flight.values()):
            if ticket.client.badge and not self.identities.stands(ticket.client.badge):
                self.gate.end(ticket, error)
        for process in list(self.processes.rows.values()):
            if process.badge and not self.identities.stands(process.badge):
                self.end_agent(process, -1, why, error)

    def stop_if_drained(self) -> None:
        """Leave, once draining and nothing is in flight."""
        if self.draining and not self.gate.in_flight and not self.storage.pending:
            self.host.stop()
