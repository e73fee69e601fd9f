"""The law in the running kernel: which policy is in force and how it came, its change, its shadow, and the record of what it was asked.

A change is judged and written down in a thread, one at a time, and takes the place of the policy in force in the loop, whole. If anything
is wrong with it the policy in force stays, and log, status and caller are told.
"""

import logging
from collections.abc import Callable
from typing import Final

from kernos.syscalls.call import Done
from kernos.syscalls.errors import BusyError, ConflictError, NotFoundError, NotYoursError, PolicyRefusedError, StorageError
from kernos.syscalls.policy import Generation, Installed, Review
from kernos.syscalls.sources import Files

from .host import Host
from .memory.connection import Connection
from .security.generations import Generations
from .security.policy import Policy, Verdict, read_policy, sound
from .security.review import review
from .security.shadow import Shadow
from .security.uses import Uses, keep
from .storage import Storage
from .tickets import LATER, Later, Ticket

log = logging.getLogger(__name__)

KEEP_S: Final = 60.0
"""How often the record of uses is brought up to date: it is by the minute."""

NOTED: Final = 10_000
"""Distinct questions between two such times; more are not recorded."""


class Law:
    """See above. The gate asks `policy` and hands its answer to `note`; nobody else changes anything here but by these methods."""

    def __init__(self, policy: Policy, generations: Generations, installed: Generation | None) -> None:
        self.policy = policy
        self.generations = generations
        self.installed = installed
        """None: the policy came from no generation, as in tests."""
        self.alarm = ""
        self.shadow: Shadow | None = None
        self.uses = Uses()
        self._asked: list[tuple[str, str, str]] = []
        self._changing = False

    # --- its change ---------------------------------------------------------------------------------------------------------------

    def check(self, host: Host, ticket: Ticket, files: Files) -> Later:
        """Answer with what would become of a policy if the caller applied it."""
        old, appliers = self.policy, ticket.payers
        host.offload(lambda: review(files, old, appliers)[1], ticket.then(ticket.reply))
        return LATER

    def apply(self, host: Host, ticket: Ticket, files: Files, reason: str, base: str = "") -> Later:
        """Put a policy into force, and answer when it is."""
        if base and base != self.policy.hash:
            raise ConflictError(f"The policy in force is {self.policy.hash} and not {base}. See `kernos policy diff`, and apply again.")
        return self._change(host, ticket, lambda: (files, reason))

    def roll_back(self, host: Host, ticket: Ticket, number: int, reason: str) -> Later:
        """Put an earlier generation into force again, as a new one; 0: the one before that in force."""

        def earlier() -> tuple[Files, str]:
            chosen = number or self._before()
            return self.generations.read(chosen).files, f"back to {chosen}: {reason}"

        return self._change(host, ticket, earlier)

    def _change(self, host: Host, ticket: Ticket, source: Callable[[], tuple[Files, str]]) -> Later:
        if ticket.process is not None and ticket.process.rights:
            raise NotYoursError("An agent that was spawned with fewer rights than its app has cannot change the policy. Let its app.")
        if self._changing:
            raise BusyError("Another policy is being put into force. Try again in a second.", retry_after=1.0)
        old, appliers, author, now = self.policy, ticket.payers, ticket.principal, host.clock

        def install() -> tuple[Policy, Generation, Installed]:
            files, reason = source()
            policy, found = review(files, old, appliers)
            if not found.sound:
                raise refused(found)
            generation = self._install(files, author, reason, now)
            return policy, generation, Installed(generation.number, policy.hash, len(found.changes) + len(found.flows) + found.left_out)

        def come(outcome: tuple[Policy, Generation, Installed] | Exception) -> None:
            self._changing = False
            answer = ticket.then(ticket.reply)
            if isinstance(outcome, Exception):
                self.alarm = f"A policy of {author} was refused: {outcome}"
                log.error("%s The policy in force is still %s.", self.alarm, self.policy.hash)
                answer(outcome)
            else:
                self.policy, self.installed, done = outcome
                self.alarm = ""
                log.warning("policy %s is in force: generation %d, by %s", done.hash, done.generation, author)
                answer(done)

        self._changing = True
        host.offload(install, come)
        return LATER

    def _install(self, files: Files, author: str, reason: str, now: float) -> Generation:
        try:
            return self.generations.install(files, author, reason, now)
        except OSError as error:
            raise StorageError(f"The policy could not be written down: {error}. The one in force stays. See to {error.filename}.") from None

    def _before(self) -> int:
        active = self.generations.active
        earlier = [generation.number for generation in self.generations.history() if generation.number < active]
        if not earlier:
            raise ConflictError("There is no generation before the one in force. `kernos policy history` lists those that are kept.")
        return earlier[0]

    def trial(self, host: Host, ticket: Ticket, files: Files) -> Later:
        """Let a policy run in the shadow from now on; without files none. Whoever may do so need not be one who could apply it."""

        def judge() -> Shadow | None:
            if not files:
                return None
            policy, found = review(files)
            if not found.sound:
                raise refused(found)
            return Shadow(policy, now)

        def begin(shadow: Shadow | None) -> None:
            self.shadow = shadow
            ticket.reply(Done())

        now = host.clock
        host.offload(judge, ticket.then(begin))
        return LATER

    # --- what it was asked --------------------------------------------------------------------------------------------------------

    def note(self, subject: str, object_: str, action: str, verdict: Verdict) -> None:
        """A call depended on this verdict. One that was noted is noted no more until the record is next brought up to date."""
        if not verdict.noted and len(self._asked) < NOTED:
            verdict.noted = True
            self._asked.append((subject, object_, action))
        if self.shadow is not None:
            self.shadow.compare(subject, object_, action, verdict.allowed)

    def recover(self, connection: Connection, now: float) -> None:
        """Take over the record that the last kernel kept."""
        self.uses.load(connection, now)

    def record(self, now: float) -> None:
        """Bring the record up to date."""
        asked, self._asked = self._asked, []
        for subject, object_, action in asked:
            verdict = self.policy.decide(subject, object_, action)
            verdict.noted = False
            self.uses.note(subject, object_, action, verdict.allowed, now)

    def write_down(self, storage: Storage) -> None:
        """Bring the record up to date, also on the disk."""
        self.record(storage.clock)
        if changed := self.uses.changes():
            storage.write(lambda connection: keep(connection, changed), _log_failure)

    def keep(self, storage: Storage) -> None:
        """Do so now and every `KEEP_S`."""
        self.write_down(storage)
        storage.system.host.at(storage.system.host.now + KEEP_S, lambda: self.keep(storage))


def enforced(generations: Generations) -> Law:
    """The law as the generation in force says it; `StorageError` if that is damaged, `PolicyError` if this kernel finds it wrong."""
    try:
        found = generations.read(0)
    except (NotFoundError, StorageError) as error:
        link = generations.folder / "active"
        sound_ones = [generation.number for generation in generations.history()]
        way = f" To go back by hand: rm -rf {link} && ln -s generations/{sound_ones[0]:04} {link}" if sound_ones else ""
        raise StorageError(f"{error}{way}") from None
    return Law(sound(*read_policy(found.files)), generations, found.generation)


def refused(found: Review) -> PolicyRefusedError:
    """A policy is not sound."""
    errors = [finding for finding in found.findings if finding.severity == "error"]
    more = f" And {len(errors) - 1} more: see `kernos policy check`." if len(errors) > 1 else ""
    return PolicyRefusedError(f"{errors[0]}{more}", errors=str(len(errors)), policy=found.hash)


def _log_failure(outcome: object) -> None:
    if isinstance(outcome, Exception):
        log.warning("the record of uses could not be written (%s)", outcome)
