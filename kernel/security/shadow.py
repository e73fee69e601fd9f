"""A policy on trial: it is asked whatever the one in force is asked, decides nothing, and the differences are kept."""

from typing import Final

from kernos.syscalls.policy import Mismatch, ShadowReport

from .policy import Policy

MISMATCHES: Final = 1_000
"""Distinct questions that are kept; beyond them differences are only counted."""


class Shadow:
    """A policy beside the one in force, since `since` (seconds since the Unix epoch)."""

    def __init__(self, policy: Policy, since: float) -> None:
        self.policy = policy
        self.since = since
        self.questions = 0
        self.left_out = 0
        self._counts: dict[tuple[str, str, str], int] = {}

    def compare(self, subject: str, object_: str, action: str, allowed: bool) -> None:
        """The policy in force was asked this, and said so."""
        self.questions += 1
        if self.policy.decide(subject, object_, action).allowed != allowed:
            question = (subject, object_, action)
            if question in self._counts or len(self._counts) < MISMATCHES:
                self._counts[question] = self._counts.get(question, 0) + 1
            else:
                self.left_out += 1

    def report(self) -> ShadowReport:
        """What differed, most frequent first."""
        rows = sorted(self._counts.items(), key=lambda row: (-row[1], row[0]))
        mismatches = [self._mismatch(question, count) for question, count in rows]
        return ShadowReport(self.policy.hash, self.since, self.questions, mismatches, self.left_out)

    def _mismatch(self, question: tuple[str, str, str], count: int) -> Mismatch:
        verdict = self.policy.decide(*question)
        return Mismatch(*question, verdict.allowed, str(verdict.rule or ""), count)
