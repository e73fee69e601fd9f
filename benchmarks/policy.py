"""The price of a decision: from the cache, from the index, from Casbin, and on the way of a real system call.

The policies have the shape of a large installation: for N rules N/20 roles, N/10 users with a role each, a tenth of the rules denies.
A miss is a question that was not asked before, of a subject that was: its roles are looked up once.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter_ns
from typing import Final

from kernos.kernel.security.allowances import read_allowances
from kernos.kernel.security.policy import Policy
from kernos.kernel.security.reference import Reference
from kernos.kernel.security.rules import Membership, Place, Rule, Rules
from kernos.syscalls.policy import ApplyPolicy, FetchPolicy

from . import report
from .kernel import RunningKernel, booted
from .report import Target, median, percentile
from .syscalls import null, times_us

SIZES: Final = (10, 1_000, 10_000)

TARGETS = {
    "hit_us": Target(1.0),
    "miss_us_10": Target(20.0),
    "miss_us_1000": Target(20.0),
    "miss_us_10000": Target(20.0),
    "null_ratio": Target(1.05),
    "disagreements": Target(0),
}

Question = tuple[str, str, str]

HERE: Final = Place("policy.d/50-bench.csv", 1)


def main() -> None:
    """Measure everything and publish it."""
    given = report.options(__doc__)
    figures: dict[str, float] = {}
    for size in SIZES:
        figures |= measure(size, questions=2_000 if given.quick else 20_000)
    figures |= against_casbin(SIZES[-1], questions=20 if given.quick else 200)
    figures["disagreements"] += sum(against_casbin(size, questions=500)["disagreements"] for size in SIZES[:-1])
    with calling(SIZES[0]) as small, calling(SIZES[-1]) as large:
        figures["null_ratio"] = compare(small, large, rounds=40 if given.quick else 300)
    report.publish("policy", given, figures, TARGETS)


def measure(size: int, questions: int) -> dict[str, float]:
    """A hit and a miss at so many rules, in microseconds."""
    policy = Policy(rules_of(size), read_allowances({}), {})
    asked = list(dict.fromkeys(questions_for(size, questions)))
    for subject in {subject for subject, _, _ in asked}:
        policy.decide(subject, "system", "ping")
    misses = [one_us(policy.decide, question) for question in asked]
    hits = [one_us(policy.decide, question) for question in asked]
    return {f"miss_us_{size}": percentile(misses, 50), f"miss_p99_us_{size}": percentile(misses, 99), "hit_us": percentile(hits, 50)}


def one_us(decide: Callable[[str, str, str], object], question: Question) -> float:
    """How long one decision takes, in microseconds; the clock's own 0.1 is in it."""
    started = perf_counter_ns()
    decide(*question)
    return (perf_counter_ns() - started) / 1_000


def against_casbin(size: int, questions: int) -> dict[str, float]:
    """Casbin's own time for the same questions, and how many of them it answers differently."""
    rules = rules_of(size)
    policy, reference = Policy(rules, read_allowances({}), {}), Reference(rules)
    asked = questions_for(size, questions)
    times = [one_us(reference.allows, question) for question in asked]
    differing = sum(policy.allows(*question) != reference.allows(*question) for question in asked)
    return {f"casbin_us_{size}": percentile(times, 50), "disagreements": differing}


def rules_of(size: int) -> Rules:
    """So many rules."""
    chance = random.Random(size)
    roles, users = max(1, size // 20), max(1, size // 10)
    rules = []
    for number in range(size):
        subject = f"role:r{chance.randrange(roles)}"
        object_ = chance.choice((f"store/team{number % 97}/f{number}", f"store/team{number % 97}/**", f"model/m{number % 50}", "context/*"))
        action = {"store": "read", "model": "generate", "context": "append"}[object_.partition("/")[0]]
        rules.append(Rule(subject, object_, action, "deny" if number % 10 == 9 else "allow", HERE))
    members = [Membership(f"user:u{number}", f"role:r{number % roles}", HERE) for number in range(users)]
    chains = [Membership(f"role:r{number}", f"role:r{number // 4}", HERE) for number in range(1, roles)]
    return Rules(tuple(rules), (*members, *chains))


def questions_for(size: int, count: int) -> list[Question]:
    """What users of such an installation ask: a third is allowed."""
    chance = random.Random(count)
    users = max(1, size // 10)
    found = []
    for _ in range(count):
        object_, action = chance.choice(
            (
                (f"store/team{chance.randrange(97)}/f{chance.randrange(size)}", "read"),
                (f"model/m{chance.randrange(50)}", "generate"),
                (f"context/c{chance.randrange(1_000)}", "append"),
            )
        )
        found.append((f"user:u{chance.randrange(users)}", object_, action))
    return found


@contextmanager
def calling(size: int) -> Iterator[Callable[[], object]]:
    """The null call of an app on a real kernel whose policy has so many rules."""
    with ExitStack() as stack:
        kernel = stack.enter_context(booted())
        install(kernel, size)
        yield null(stack.enter_context(kernel.connect(kernel.enroll("app:bench"))))


def install(kernel: RunningKernel, size: int) -> None:
    """Add so many rules to the kernel's policy."""
    rules = rules_of(size)
    lines = [rule.text for rule in rules.rules] + [entry.text for entry in rules.roles] + ["# end", ""]
    with kernel.connect() as handle:
        files = handle.call(FetchPolicy()).files | {"policy.d/50-bench.csv": "\n".join(lines).encode()}
        handle.call(ApplyPolicy(files=files, reason="a benchmark"), timeout=120)


def compare(small: Callable[[], object], large: Callable[[], object], rounds: int, calls: int = 200) -> float:
    """The null call's p50 with many rules over that with few, as the median of rounds in which both are measured."""
    for call in (small, large):
        times_us(call, calls * 5)
    ratios = []
    for number in range(rounds):
        pair = (small, large) if number % 2 else (large, small)
        p50 = {call: percentile(times_us(call, calls), 50) for call in pair}
        ratios.append(p50[large] / p50[small])
    return median(ratios)


if __name__ == "__main__":
    main()
