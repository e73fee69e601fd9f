"""`Embedding`: vectors of many texts through `model.embed`, each text once.

    embedding = await Embedding.open(agent, own_folder("customer_service") / "vectors")
    vectors = await embedding.embed(texts)          # float32 [len(texts), dim], rows of length one

Vectors are kept in half precision under the hash of their text, a file per model, so that the next run does not compute them again; a
vector is the same whether it was kept or is new. The file is a cache: it may be deleted at any time. Its first record says which
weights made it, so that another model under the same name does not find the vectors of this one. Texts are not in it, but who has it
can tell whether a text was embedded: keep no vectors of what is confidential.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from .agent import EMBED_BATCH, Agent

Vectors = NDArray[np.float32]

_HASH: Final = 16
"""Bytes of a text's hash: two of a billion texts have the same with a chance of one in 10^20."""

_PROBE: Final = "Which weights are these?"
_ALIKE: Final = 0.999
"""Similarity of two vectors of the probe that the same weights made, on whatever device."""

_Known = dict[bytes, NDArray[np.float16]]


class Embedding:
    """An encoder, and the vectors that are known of it."""

    def __init__(self, agent: Agent, model: str, dim: int, known: _Known, cache: Path | None) -> None:
        self.model = model
        self.dim = dim
        self._agent = agent
        self._known = known
        self._cache = cache

    @classmethod
    async def open(cls, agent: Agent, folder: Path | None = None, *, model: str | None = None) -> Self:
        """Vectors of `model` (default: the machine's own encoder), kept in `folder` where one is named."""
        model = model or await agent.encoder()
        probe = await _vectors(agent, model, [_PROBE])
        cache = folder / f"{model}.vectors" if folder else None
        known = _read(cache, probe[0]) if cache else {}
        if cache and not known:
            cache.parent.mkdir(parents=True, exist_ok=True)
            cache.write_bytes(_records({_hash(_PROBE): probe[0]}))
        return cls(agent, model, probe.shape[1], known, cache)

    async def embed(self, texts: Sequence[str], progress: Callable[[int, int], object] = lambda _done, _of: None) -> Vectors:
        """A vector per text; `progress` hears how many of those that were not known are done."""
        hashes = [_hash(text) for text in texts]
        unknown = {key: text for key, text in zip(hashes, texts, strict=True) if key not in self._known}
        keys = sorted(unknown, key=lambda key: len(unknown[key]))  # so that little is padded
        for start in range(0, len(keys), EMBED_BATCH):
            chosen = keys[start : start + EMBED_BATCH]
            vectors = await _vectors(self._agent, self.model, [unknown[key] for key in chosen])
            self._keep(dict(zip(chosen, vectors, strict=True)))
            progress(start + len(chosen), len(keys))
        return np.asarray([self._known[key] for key in hashes], dtype=np.float32).reshape(len(texts), self.dim)

    def _keep(self, found: _Known) -> None:
        self._known |= found
        if self._cache:
            with self._cache.open("ab") as file:
                file.write(_records(found))


async def _vectors(agent: Agent, model: str, texts: list[str]) -> NDArray[np.float16]:
    return np.asarray(await agent.embed(texts, model=model), dtype=np.float16)


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=_HASH).digest()


def _records(found: _Known) -> bytes:
    return b"".join(key + vector.tobytes() for key, vector in found.items())


def _read(cache: Path, probe: NDArray[np.float16]) -> _Known:
    """What a cache holds; nothing if other weights made it. A record that was cut off at the end is cut away: it would shift the next."""
    record = np.dtype([("key", f"V{_HASH}"), ("vector", np.float16, probe.shape)])
    if not cache.exists():
        return {}
    with cache.open("r+b") as file:
        size = cache.stat().st_size
        file.truncate(size - size % record.itemsize)
    found = np.fromfile(cache, dtype=record)
    known = {key.tobytes(): vector for key, vector in zip(found["key"], found["vector"], strict=True)}
    first = known.get(_hash(_PROBE), np.zeros_like(probe))
    return known if float(first.astype(np.float32) @ probe.astype(np.float32)) >= _ALIKE else {}
