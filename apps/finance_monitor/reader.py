"""The reader: tells the tone, the topic and the companies of items, by two heads over the vectors of the machine's encoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from kernos.agents import Agent
from kernos.agents.embedding import Embedding

from .companies import Companies
from .head import Head
from .heads import SHIPPED, TASKS, Task, load, points_for, train
from .items import Item, Reading


class Reader:
    """Two heads and a list of companies. Nothing here writes a sentence: what is told of an item stands in it."""

    def __init__(self, agent: Agent, sentiment: Head, topic: Head, companies: Companies) -> None:
        self._agent = agent
        self._sentiment = sentiment
        self._topic = topic
        self.companies = companies

    @classmethod
    async def open(cls, agent: Agent, folder: Path, companies: Companies) -> Self:
        """The heads in a folder; where there is none yet, it is trained on the shipped examples, in seconds."""
        encoder = await agent.encoder()
        missing: list[Task] = [task for task in TASKS if not (folder / task).exists()]
        if missing:
            await train(SHIPPED, await Embedding.open(agent), folder, missing)
        return cls(agent, load("sentiment", folder, encoder), load("topic", folder, encoder), companies)

    async def read(self, items: Sequence[Item]) -> list[Reading]:
        """What is in each item."""
        if not items:
            return []
        texts = [item.words for item in items]
        vectors = np.asarray(await self._agent.embed(texts), dtype=np.float32)
        tones = self._sentiment.predict_proba(texts, points_for("sentiment", texts, vectors))
        topics = self._topic.predict(texts, points_for("topic", texts, vectors))
        return [
            Reading(item, self._sentiment.labels[int(tone.argmax())], topic, self.companies.find(text), round(float(tone.max()), 3))
            for item, text, tone, topic in zip(items, texts, tones, topics, strict=True)
        ]
