"""How a simulation speaks: tables with small bars for people, one JSON document for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from rich.console import Console
from rich.table import Table

from .article import MEAN_S, SEEDS, TASKS, Article, Claim
from .measures import Class, Measures

BAR: Final = 16
"""Characters of the longest bar."""


def console() -> Console:
    """Standard output. Lines of a pipe are as long as they need be."""
    found = Console(markup=False, highlight=False, emoji=False)
    return found if found.is_terminal else Console(markup=False, highlight=False, emoji=False, width=200)


def print_json(document: object) -> None:
    """One document on standard output."""
    print(json.dumps(document, indent=2))


def as_json(results: Sequence[Measures], seconds: float) -> dict[str, object]:
    """The document of a simulation: a list of policies and how long it took."""
    return {"policies": [asdict(result) for result in results], "seconds": round(seconds, 3)}


def print_measures(results: Sequence[Measures]) -> None:
    """Three tables: what was done, who waited, and what each class saw."""
    out = console()
    out.print(_totals(results))
    out.print(_responses(results))
    out.print(_classes(results))


def print_article(article: Article) -> None:
    """For people."""
    out = console()
    out.print(f"N = {TASKS} tasks, exponential and independent, E[T] = {MEAN_S:g} s at speed 1; {SEEDS} seeds, ± is a 95 % interval.")
    for number, claim in enumerate(article.claims(), 1):
        _print_claim(number, claim, out)


def _print_claim(number: int, claim: Claim, out: Console) -> None:
    first = claim.rows[0]
    columns = ("CASE", *(f"formula: {name}" for name in first.formulas), *(f"simulated: {name}" for name in first.simulated))
    rows = [(row.case, *(f"{value:.4g}" for value in row.formulas.values()), *map(str, row.simulated.values())) for row in claim.rows]
    out.print(table(f"\n{number}. {claim.title}", columns, rows))
    out.print(claim.verdict, style="italic", width=min(out.width, 120))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> Table:
    """A table whose first columns hold words, the others numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for at, name in enumerate(columns):
        made.add_column(name, justify="left" if at < words else "right", no_wrap=at >= words)
    for row in rows:
        made.add_row(*row)
    return made


def bar(value: float, longest: float) -> str:
    """In eighths of a character."""
    length = round(8 * BAR * value / longest) if longest else 0
    whole, eighths = divmod(length, 8)
    return "█" * whole + " ▏▎▍▌▋▊▉"[eighths].strip()


def _totals(results: Sequence[Measures]) -> Table:
    columns = ("POLICY", "TURNS/S", "TOKENS/S", "BUSY", "PREEMPTED", "FAIRNESS", "LATE", "ENDED")
    rows = [
        (
            result.policy,
            f"{result.turns_per_s:.3f}",
            f"{result.tokens_per_s:.1f}",
            f"{result.utilisation:.0%}",
            str(result.preemptions),
            f"{result.fairness:.3f}",
            f"{result.all.late:.1%}",
            f"{result.end_s:.0f} s",
        )
        for result in results
    ]
    return table("\nWhat was done", columns, rows)


def _responses(results: Sequence[Measures]) -> Table:
    classes = list(results[0].classes)
    columns = ("POLICY", *(f"{name.upper()}, mean response" for name in classes))
    longest = {name: max(result.classes[name].response.mean for result in results) for name in classes}
    rows = [(result.policy, *(_bar_cell(result.classes[name].response.mean, longest[name]) for name in classes)) for result in results]
    return table("\nWho waited (seconds to the first token; bars by column)", columns, rows, words=len(columns))


def _bar_cell(value: float, longest: float) -> str:
    return f"{value:8.1f} {bar(value, longest)}"


def _classes(results: Sequence[Measures]) -> Table:
    columns = ("POLICY", "CLASS", "TURNS", "WAITING mean", "p90", "p99", "RESPONSE mean", "p90", "p99", "TURNAROUND mean", "p90", "p99")
    rows = [
        (result.policy if not at else "", name, *_numbers(found))
        for result in results
        for at, (name, found) in enumerate((("all", result.all), *result.classes.items()))
    ]
    return table("\nTimes in seconds", columns, rows, words=2)


def _numbers(found: Class) -> list[str]:
    times = (found.waiting, found.response, found.turnaround)
    return [str(found.turns), *(f"{value:.1f}" for each in times for value in (each.mean, each.p90, each.p99))]
