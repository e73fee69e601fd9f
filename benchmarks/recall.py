"""How much of what answers a question is recalled from long conversations (LoCoMo), by the calls that every app makes.

Each conversation is put into a context, leaves the window, and is asked once all its pages are embedded. `r5` and `r10` are the shares of a
question's evidence among the first 5 and 10 messages that `context.recall` finds, `at1000` that within a budget of 1,000 tokens;
`dense_r5` ranks by the similarity of vectors alone. Means over all questions.
"""

from collections.abc import Iterable, Iterator, Sequence
from time import monotonic, sleep
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kernos.syscalls import Context, Kernel
from kernos.syscalls.context import Recall
from kernos.syscalls.model import Embed, ListModels, Message

from . import report
from .kernel import booted
from .locomo import Conversation, Question, Turn, conversations
from .report import Target

BUDGET: Final = 1_000
UNBOUNDED: Final = 1 << 20
MOST: Final = 1_024
"""Pages of a reply at most: more than fit the budget."""
BATCH: Final = 64
STALLED_S: Final = 120.0
"""Nothing was embedded for so long: nothing more will be."""

TARGETS = {
    "r5": Target(0.66, at_least=True),
    "r10": Target(0.75, at_least=True),
    "at1000": Target(0.835, at_least=True),
}


def main() -> None:
    """Measure and publish."""
    given = report.options(__doc__)
    chosen = conversations()[: 1 if given.quick else None]
    with booted() as kernel:
        kernel.load_models()
        with kernel.connect() as handle:
            agent = handle.spawn("recall")
            shares = [share for number, conversation in enumerate(chosen) for share in measure(agent, f"talk-{number}", conversation)]
    means = np.mean(shares, axis=0)
    report.publish("recall", given, dict(zip(("r5", "r10", "at1000", "dense_r5"), map(float, means), strict=True)), TARGETS)


def measure(agent: Kernel, name: str, conversation: Conversation) -> Iterator[tuple[float, ...]]:
    """For each question the shares of its evidence that were found."""
    context = put(agent, name, conversation.turns)
    similar = embed(agent, [turn.text for turn in conversation.turns]) @ embed(agent, [asked.text for asked in conversation.questions]).T
    await_embedded(context)
    for question, near in zip(conversation.questions, similar.T, strict=True):
        best = recalled(agent, context, question, UNBOUNDED)
        fitting = recalled(agent, context, question, BUDGET)
        yield tuple(_share(question, some) for some in (best[:5], best[:10], fitting, np.argsort(-near)[:5].tolist()))
    context.delete()


def put(agent: Kernel, name: str, turns: Sequence[Turn]) -> Context:
    """A context with these turns, said when they were said; all of them have left its window."""
    context = Context(agent, name)
    for start in range(0, len(turns), BATCH):
        context.append(*(Message("user", turn.text, time=turn.time) for turn in turns[start : start + BATCH]))
    context.page_out(len(turns))
    return context


def await_embedded(context: Context) -> None:
    """Wait until all pages of a context are found by meaning."""
    before, until = -1, 0.0
    while (stat := context.stat()).embedded < stat.pages:
        if stat.embedded > before:
            before, until = stat.embedded, monotonic() + STALLED_S
        if monotonic() > until:
            raise SystemExit(f"{stat.pages - stat.embedded} of {stat.pages} pages are still not embedded. Is there an encoder?")
        sleep(0.05)


def recalled(agent: Kernel, context: Context, question: Question, budget: int) -> list[int]:
    """The messages that are recalled for a question within a budget of tokens, best first."""
    call = Recall(context=context.id, query=question.text, limit=MOST, budget=budget)
    return list(dict.fromkeys(page.message for page in agent.call(call).pages))


def embed(agent: Kernel, texts: Sequence[str]) -> NDArray[np.float32]:
    """A vector per text, as rows."""
    encoder = agent.call(ListModels()).encoder
    parts = [list(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    return np.array([row for part in parts for row in agent.call(Embed(model=encoder, texts=part)).rows()], np.float32)


def _share(question: Question, found: Iterable[int]) -> float:
    return len(question.evidence & set(found)) / len(question.evidence)


if __name__ == "__main__":
    main()
