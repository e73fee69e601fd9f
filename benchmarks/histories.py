"""Long histories for measurements: plain sentences, appended through a kernel's calls, or written straight into a database of one's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kernos.kernel.memory import transcripts, window
from kernos.kernel.memory.database import Database, open_database, storage_key
from kernos.kernel.memory.transcripts import NewMessage
from kernos.syscalls import Kernel
from kernos.syscalls.context import AppendContext, ContextInfo, OpenContext
from kernos.syscalls.model import Message

OWNER: Final = "user:anna"
MODEL: Final = "minilm"
"""Said to have made the vectors, so that a kernel takes them for those of the embedded encoder."""
DIM: Final = 384
TOKENS: Final = 69
"""Of a passage, as the embedded decoder counts."""
SENTENCES: Final = 3
"""Of a passage."""
NOW: Final = 1_700_000_000.0

_BATCH: Final = 512
_WHO: Final = ("The ferryman", "A baker", "My neighbour", "The teacher", "Our captain", "A fisher", "The postman", "Her uncle")
_DID: Final = ("repaired", "painted", "sold", "borrowed", "lost", "described", "bought", "measured")
_WHAT: Final = ("an old compass", "the green boat", "a box of nails", "the church bell", "two lanterns", "a map of the river", "the ladder")
_WHERE: Final = ("at the mill", "by the bridge", "in the harbour", "on the market", "behind the school", "near the lighthouse")


def sentence(number: int) -> str:
    """Some twenty tokens, of which a few are no other sentence's."""
    who, did, what, where = (words[number // step % len(words)] for words, step in ((_WHO, 1), (_DID, 8), (_WHAT, 3), (_WHERE, 5)))
    return f"{who} {did} {what} {where} on day {number}, and the weather was fine."


def passages(start: int = 0) -> Iterator[str]:
    """Texts of `SENTENCES` sentences, none twice; each is a page."""
    number = SENTENCES * start
    while True:
        yield " ".join(map(sentence, range(number, number + SENTENCES)))
        number += SENTENCES


def context_of(agent: Kernel, name: str, tokens: int) -> ContextInfo:
    """A context of at least so many tokens."""
    info, texts = agent.call(OpenContext(name=name)), passages()
    while info.tokens < tokens:
        missing = (tokens - info.tokens) // TOKENS + 1
        batch = [Message("user", next(texts)) for _ in range(min(missing, _BATCH))]
        info = agent.call(AppendContext(context=info.context, messages=batch), timeout=60)
    return info


def paged_database(folder: Path, contexts: int, pages: int, each: int = 1) -> tuple[Database, list[str], NDArray[np.float32]]:
    """A database with contexts of so many pages, all with `each` vectors drawn at random; their ids, and the vectors in order of pages."""
    database = open_database(folder, storage_key(folder))
    connection, texts, ids = database.connection, passages(), []
    drawn = np.random.default_rng(0).standard_normal((contexts * pages * each, DIM), np.float32)
    vectors = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    connection.execute("BEGIN IMMEDIATE")
    for number in range(contexts):
        row = transcripts.open_context(connection, OWNER, f"c{number}", f"{number:024x}", (OWNER,), NOW)
        new = [NewMessage("user", next(texts), TOKENS) for _ in range(pages)]
        transcripts.append(connection, OWNER, row.id, new, MODEL, NOW)
        made = [entry.page for _, entry in window.page_out(connection, OWNER, row.id, pages, NOW)[1]]
        own = ((page, vectors[each * (page - 1) : each * page]) for page in made)
        window.embedded(connection, MODEL, [(page, some.astype(np.float16).tobytes()) for page, some in own])
        ids.append(row.id)
    database.commit()
    database.checkpoint(truncate=True)
    return database, ids, vectors
