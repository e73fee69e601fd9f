"""The finance monitor against a kernel in memory: what it reads, counts, tells and keeps."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from kernos.agents import Agent
from kernos.agents.artefact import Card
from kernos.agents.embedding import Embedding
from kernos.agents.rows import InputError
from kernos.agents.testing import FakeKernel
from kernos.apps.finance_monitor.alerts import TOPIC, Alert, Publisher, checked_url
from kernos.apps.finance_monitor.companies import SHIPPED, Companies
from kernos.apps.finance_monitor.cues import NAMES, count_cues, cues
from kernos.apps.finance_monitor.evaluate import evaluate
from kernos.apps.finance_monitor.head import Head, Matrix
from kernos.apps.finance_monitor.heads import load, train
from kernos.apps.finance_monitor.items import Item
from kernos.apps.finance_monitor.monitor import Monitor, Taken
from kernos.apps.finance_monitor.reader import Reader
from kernos.apps.finance_monitor.report import render_report
from kernos.apps.finance_monitor.state import FOLDER, VERSIONS, Keeper, State
from kernos.syscalls.message import Mail
from kernos.syscalls.model import Embed
from tests.apps.finance_news import NEWS, item, make_kernel, sentence, write_examples


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Operating profit was EUR 8.2 mn, compared to EUR 9.4 mn a year earlier", ["less"]),
        ("Operating profit rose to EUR 13.1 mn from EUR 8.7 mn", ["good up", "more"]),
        ("Net sales fell from EUR 1.2 bn to EUR 900 mn", ["good down", "less"]),
        ("Pretax loss was EUR 4.0 mn, compared to a loss of EUR 2.0 mn", ["bad more"]),
        ("Operating loss totalled EUR 4.0 mn, compared to a profit of EUR 8.6 mn", ["to loss"]),
        ("It swung to a net profit of EUR 3 mn from an EUR 9.6 m loss", ["to profit"]),
        ("The loss per share was EUR 0.15 versus EUR 0.26", ["bad less"]),
        ("Cash flow was a negative EUR 18.1 mn compared to EUR 39.0 mn", ["good down", "less"]),
        ("Sales rose by 5 % to EUR 31.4 mn from EUR 30.0 mn in 2004", ["good up", "more"]),
        ("The plant has stood there from 1998 to 2004", []),
        ("The company has not won the award", ["not", "praise", "praise"]),
        ("It operates in twelve countries", []),
    ],
)
def test_cues(text: str, found: list[str]) -> None:
    assert sorted(cues(text)) == found


def test_cues_are_counted_and_bounded() -> None:
    counts = count_cues(["profit rose", "profit rose and sales grew and orders rose", "nothing"])
    assert counts.shape == (3, len(NAMES))
    assert counts[:, NAMES.index("good up")].tolist() == [0.5, 0.875, 0.0]


def rows(count: int) -> tuple[list[str], Matrix, list[str]]:
    """Sentences, and points that say something about their labels and something else."""
    kinds = list(NEWS)
    labels = [kinds[at % 3] for at in range(count)]
    points = np.random.default_rng(0).normal(scale=0.3, size=(count, 5)).astype(np.float32)
    points[np.arange(count), np.arange(count) % 3] += 0.5
    return [sentence(label, at) for at, label in enumerate(labels)], points, labels


def test_figures_are_those_of_leaving_each_row_out() -> None:
    texts, points, labels = rows(30)
    _, figures = Head.fit(texts, points, labels)
    right = 0
    for out in range(30):
        others = [at for at in range(30) if at != out]
        head, _ = Head.fit([texts[at] for at in others], points[others], [labels[at] for at in others])
        right += head.predict([texts[out]], points[[out]]) == [labels[out]]
    assert figures["accuracy"] == pytest.approx(right / 30, abs=0.07)  # the words that are rare are counted anew each time


def test_a_saved_head_says_the_same(tmp_path: Path) -> None:
    texts, points, labels = rows(30)
    head, figures = Head.fit(texts, points, labels)
    head.save(tmp_path, Card(task="sentiment", data="made up", rows=30, encoder="none", figures=figures))
    loaded, card = Head.load(tmp_path)
    assert card.labels == head.labels == sorted(NEWS)
    assert loaded.predict_proba(texts, points) == pytest.approx(head.predict_proba(texts, points), abs=2e-3)
    assert head.predict_proba(texts, points).sum(axis=1) == pytest.approx(1.0)


def test_too_few_rows_or_labels_are_told() -> None:
    texts, points, labels = rows(30)
    with pytest.raises(InputError, match="30 rows of 1"):
        Head.fit(texts, points, ["one"] * 30)
    with pytest.raises(InputError, match="9 rows"):
        Head.fit(texts[:9], points[:9], labels[:9])


def run(fake: FakeKernel, body: Callable[[Agent], Awaitable[object]]) -> None:
    async def whole() -> None:
        async with Agent.spawn(fake, "monitor") as agent:
            await body(agent)

    asyncio.run(whole())


def test_training_keeps_heads_with_cards(tmp_path: Path) -> None:
    async def body(agent: Agent) -> None:
        cards = await train(write_examples(tmp_path / "mine.csv"), await Embedding.open(agent), tmp_path)
        assert [(card.task, card.data, card.rows, card.encoder) for card in cards] == [
            ("sentiment", "mine.csv", 36, "fake-encoder"),
            ("topic", "mine.csv", 36, "fake-encoder"),
        ]
        with pytest.raises(InputError, match="vectors of fake-encoder"):
            load("topic", tmp_path, "another")

    run(make_kernel(), body)


@pytest.mark.parametrize(
    ("text", "why"),
    [("text,sentiment\n" + "a,good\nb,poor\n" * 6, "negative"), ("text\n" + "a\n" * 12, "no column")],
)
def test_a_file_that_cannot_train_is_told(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "mine.csv").write_text(text)

    async def body(agent: Agent) -> None:
        with pytest.raises(InputError, match=why):
            await train(tmp_path / "mine.csv", await Embedding.open(agent), tmp_path)

    run(make_kernel(), body)


async def opened(agent: Agent, folder: Path, state: State | None = None) -> Monitor:
    if not (folder / "topic").exists():
        await train(write_examples(folder / "mine.csv"), await Embedding.open(agent), folder)
    return Monitor(await Reader.open(agent, folder, Companies.read(SHIPPED)), state or State())


SHOCKED = [item("neutral" if at % 9 else "negative", at, day=at // 60) for at in range(120)]
SHOCKED += [item("negative", at, day=2, company="Halden Steel") for at in range(120, 150)]


async def taken(monitor: Monitor, items: list[Item]) -> Taken:
    parts = [await monitor.take(items[at : at + 30]) for at in range(0, len(items), 30)]
    return Taken([each for part in parts for each in part.readings], 0, [alert for part in parts for alert in part.alerts])


def test_a_shock_is_told_with_the_items_that_show_it(tmp_path: Path) -> None:
    async def body(agent: Agent) -> None:
        told = await taken(await opened(agent, tmp_path), SHOCKED)
        right = [reading.sentiment == kind for reading, kind in zip(told.readings, expected(SHOCKED), strict=True)]
        assert sum(right) >= 0.95 * len(right)
        [alert] = [alert for alert in told.alerts if alert.series == "all"]
        assert (alert.kind, alert.day) == ("negative", "2026-03-04")
        assert alert.now > 0.3 > 0.15 > alert.usual
        assert "Halden Steel" in alert.evidence[-1].title
        assert alert.headline.startswith("all: ")

    run(make_kernel(), body)


def expected(items: list[Item]) -> list[str]:
    patterns = {kind: [pattern.split("{")[0].strip() for pattern in texts] for kind, texts in NEWS.items()}
    return [next(kind for kind, starts in patterns.items() if any(start in each.title for start in starts)) for each in items]


def test_quiet_news_is_not_told(tmp_path: Path) -> None:
    async def body(agent: Agent) -> None:
        told = await taken(
            await opened(agent, tmp_path), [item("neutral" if at % 9 else "negative", at, day=at // 60) for at in range(240)]
        )
        assert told.alerts == []

    run(make_kernel(), body)


def test_a_day_of_much_news_is_told_once(tmp_path: Path) -> None:
    async def body(agent: Agent) -> None:
        usual = [item("neutral", day * 10 + at, day=day) for day in range(9) for at in range(8)]
        told = await taken(await opened(agent, tmp_path), [*usual, *(item("neutral", 1_000 + at, day=9) for at in range(60))])
        assert [(alert.kind, alert.series) for alert in told.alerts if alert.series == "all"] == [("volume", "all")]

    run(make_kernel(), body)


def test_a_day_without_news_is_told(tmp_path: Path) -> None:
    async def body(agent: Agent) -> None:
        usual = [item("neutral", day * 20 + at, day=day) for day in range(9) for at in range(15)]
        told = await taken(await opened(agent, tmp_path), [*usual, item("neutral", 900, day=9), item("neutral", 901, day=10)])
        assert [(alert.kind, alert.day) for alert in told.alerts if alert.series == "all"] == [("silence", "2026-03-11")]

    run(make_kernel(), body)


def test_a_monitor_goes_on_from_what_was_kept(tmp_path: Path) -> None:
    """Killed after each batch, it tells what one that was not tells, and what it is given again counts once."""

    async def body(agent: Agent) -> None:
        whole = await opened(agent, tmp_path)
        await taken(whole, SHOCKED)
        for at in range(0, len(SHOCKED), 30):
            keeper, state = await Keeper.open(agent)
            monitor = await opened(agent, tmp_path, state)
            assert not (await monitor.take(SHOCKED[max(0, at - 30) : at])).readings
            await monitor.take(SHOCKED[at : at + 30])
            await keeper.keep(monitor.state)
        assert (await Keeper.open(agent))[1] == whole.state

    run(make_kernel(), body)


def test_a_state_that_is_kept_often_takes_the_room_of_some() -> None:
    fake = make_kernel()

    async def body(agent: Agent) -> None:
        for day in range(2 * VERSIONS + 3):
            keeper, _ = await Keeper.open(agent)
            await keeper.keep(State(today=f"day {day}"))
        assert (await Keeper.open(agent))[1].today == f"day {2 * VERSIONS + 2}"

    run(fake, body)
    [(_, path)] = fake.world.files
    assert path.startswith(FOLDER)
    assert next(iter(fake.world.files.values())).file.version < VERSIONS


def test_duplicates_are_read_once(tmp_path: Path) -> None:
    fake = make_kernel()

    async def body(agent: Agent) -> None:
        monitor = await opened(agent, tmp_path)
        first = item("neutral", 1)
        again = Item(f"UPDATE: {first.title}", first.published, source="another")
        before = len(fake.made)
        told = await monitor.take([first, again, first])
        assert (len(told.readings), told.duplicates) == (1, 2)
        assert [len(call.texts) for call in fake.made[before:] if isinstance(call, Embed)] == [1]

    run(fake, body)


def test_an_item_of_a_day_to_come_is_left_out(tmp_path: Path) -> None:
    async def body(agent: Agent) -> None:
        monitor = await opened(agent, tmp_path)
        told = await monitor.take([Item("Orrin Motors moves", "2999-01-01"), item("neutral", 1)])
        assert (len(told.readings), told.duplicates, told.ahead) == (1, 0, 1)
        assert monitor.state.today == "2026-03-02"

    run(make_kernel(), body)


ALERT = Alert("negative", "all", "2026-03-04", 0.12, 0.65, [item("negative", 1)])


@contextmanager
def listening(status: int) -> Iterator[tuple[str, list[bytes]]]:
    """A webhook that answers with a status; its URL, and what was posted."""
    posted: list[bytes] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/alerts?of=finance", posted
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [204, 302, 500])
def test_an_alert_goes_to_the_topic_and_the_webhook(status: int, capsys: pytest.CaptureFixture[str]) -> None:
    fake = make_kernel()
    with listening(status) as (url, posted):
        run(fake, lambda agent: Publisher(agent, url).publish(ALERT))
    mail: Mail = fake.world.mail[TOPIC].get_nowait()
    assert [json.loads(body) for body in posted] == [json.loads(mail.text)]
    assert json.loads(mail.text)["headline"] == "all: 65% of the latest items are negative, usually 12%"
    assert ("did not take the alert" in capsys.readouterr().err) == (status >= 300)


def test_a_webhook_that_is_away_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    fake = make_kernel()
    run(fake, lambda agent: Publisher(agent, "http://127.0.0.1:1/").publish(ALERT))
    assert not fake.world.mail[TOPIC].empty()
    assert "127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["ftp://example.org", "file:///etc/passwd", "example.org", "http://"])
def test_what_is_no_webhook_is_told(url: str) -> None:
    with pytest.raises(InputError, match="no webhook"):
        checked_url(url)


def test_a_report_shows_alerts_and_charts_and_escapes_text(tmp_path: Path) -> None:
    async def body(agent: Agent) -> None:
        monitor = await opened(agent, tmp_path)
        evil = Item("<script>alert(1)</script> & more", SHOCKED[-1].published, source='"><img src=x>')
        await taken(monitor, [*SHOCKED, evil])
        page = render_report(monitor.state, "2026-03-04")
        assert "<script>" not in page
        assert "<img" not in page
        assert "&lt;script&gt;alert(1)" in page
        assert page.count("<svg") == len(monitor.state.series)
        assert "of the latest items are negative" in page

    run(make_kernel(), body)


def test_evaluation_never_trains_on_a_test_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    public, hidden = tmp_path / "public", tmp_path / "hidden"
    texts = [(sentence(kind, at), kind) for at in range(40) for kind in NEWS]
    for folder, chosen in ((public, texts), (hidden, texts[:30])):
        for name in ("financial_phrasebank", "ag_news"):
            (folder / name).mkdir(parents=True)
        lines = "".join(f'"{text}",{label}\n' for text, label in chosen)
        (folder / "financial_phrasebank" / "sentences_50agree.csv").write_text(f"text,label\n{lines}")
        lines = "".join(f'{label},"{text}",more\n' for text, label in chosen)
        (folder / "ag_news" / "ag_test.csv").write_text(f"label,title,description\n{lines}")
    trained: list[list[str]] = []
    fit = Head.fit

    def watched(texts: list[str], points: Matrix, labels: list[str]) -> tuple[Head, dict[str, float]]:
        trained.append(texts)
        return fit(texts, points, labels)

    monkeypatch.setattr(Head, "fit", watched)

    async def body(agent: Agent) -> None:
        embedding = await Embedding.open(agent)
        figures = await evaluate(embedding, public, quick=True)
        assert set(figures) > {"finance_sentiment", "finance_topic_gain", "finance_shock_found", "finance_false_alarms_per_1000"}
        assert len(trained) == 10
        monkeypatch.setenv("KERNOS_TEST_DATA", str(hidden))
        await evaluate(embedding, public, quick=True)

    run(make_kernel(), body)
    known = {text for text, _ in texts[:30]}
    assert [len(rows) for rows in trained[10:]] == [90, 90]
    assert not [text for text in trained[10] if text in known]
