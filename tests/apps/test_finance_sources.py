"""Where the finance monitor's items come from, which of them were told before, and whom they are about."""

import asyncio
import csv
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernos.agents.rows import InputError
from kernos.apps.finance_monitor.companies import SHIPPED, Companies, Company
from kernos.apps.finance_monitor.duplicates import REMEMBERED, Stories
from kernos.apps.finance_monitor.feeds import read_feed
from kernos.apps.finance_monitor.items import Item
from kernos.apps.finance_monitor.sources import BATCH, batches, listen, read_source, replay, watch

RSS = """<?xml version="1.0"?>
<rss version="2.0"><channel><title>The Wenbury Ledger</title>
<item><title>Orrin &amp; Sons wins</title><description>&lt;p&gt;A &lt;b&gt;large&lt;/b&gt; order.&lt;/p&gt;</description>
<pubDate>Mon, 02 Mar 2026 08:00:00 +0100</pubDate><link>https://news.invalid/1</link></item>
<item><title>No time</title></item>
</channel></rss>"""

ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><title>Corvanne Wire</title>
<entry><title type="html">Halden &lt;i&gt;cuts&lt;/i&gt; jobs</title><updated>2026-03-02T08:00:00Z</updated>
<summary>In Tarvik.</summary><link href="https://news.invalid/2"/></entry></feed>"""


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_rss(tmp_path: Path) -> None:
    found = read_feed(written(tmp_path, "ledger.rss", RSS))
    [item] = found.rows
    assert (item.title, item.text, item.source) == ("Orrin & Sons wins", "A large order.", "The Wenbury Ledger")
    assert (item.time, item.url) == (datetime(2026, 3, 2, 7, tzinfo=UTC), "https://news.invalid/1")
    assert [bad.line for bad in found.bad] == [2]


def test_atom(tmp_path: Path) -> None:
    [item] = read_feed(written(tmp_path, "wire.atom", ATOM)).rows
    assert (item.title, item.text, item.day, item.url) == ("Halden cuts jobs", "In Tarvik.", "2026-03-02", "https://news.invalid/2")


@pytest.mark.parametrize(
    "declared",
    [
        '<!DOCTYPE rss [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE rss [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE rss SYSTEM "http://127.0.0.1:9/x.dtd">',
        '<!DOCTYPE rss [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]>',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_document_type_is_refused(tmp_path: Path, declared: str, encoding: str) -> None:
    file = tmp_path / "bad.xml"
    file.write_bytes(f"{declared}<rss><channel><item><title>&x;</title></item></channel></rss>".encode(encoding))
    with pytest.raises(InputError, match="document type"):
        read_feed(file)


@pytest.mark.parametrize("text", ["", "<rss>", "no xml", "<rss><channel/></rss>", '<?xml version="1.0" encoding="none-such"?><rss/>'])
def test_what_is_no_feed_is_told_so(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"bad\.xml"):
        read_feed(written(tmp_path, "bad.xml", text))


@given(st.binary(max_size=300))
def test_no_bytes_break_the_feed_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.xml"
    file.write_bytes(data)
    with pytest.raises(InputError):
        read_feed(file)


def test_a_folder_is_read_in_the_order_of_time_and_bad_rows_are_told(tmp_path: Path) -> None:
    written(tmp_path, "b.csv", "title,published\nlate,2026-03-04\nbroken,yesterday\n")
    written(tmp_path, "a.jsonl", '{"title": "middle", "published": "2026-03-03T00:00:00Z"}\n')
    written(tmp_path, "feed.rss", RSS)
    written(tmp_path, "notes.txt", "nothing of ours")
    found = read_source(tmp_path)
    assert [item.title for item in found.rows] == ["Orrin & Sons wins", "middle", "late"]
    assert sorted(bad.line for bad in found.bad) == [2, 3]


@given(st.lists(st.integers(0, 5), max_size=300))
def test_batches_lose_nothing_and_never_mix_days(days: list[int]) -> None:
    items = [Item(str(at), f"2026-03-0{1 + day}") for at, day in enumerate(sorted(days))]
    parts = list(batches(items))
    assert [item for part in parts for item in part] == items
    assert all(len(part) <= BATCH and len({item.day for item in part}) == 1 for part in parts)


def test_a_replay_keeps_the_distances_of_the_archive() -> None:
    items = [Item("a", "2026-03-01"), Item("b", "2026-03-02T01:00+01:00")]

    async def body() -> float:
        loop = asyncio.get_running_loop()
        start = loop.time()
        assert [len(batch) async for batch in replay(items, speed=86_400 * 10)] == [1, 1]
        return loop.time() - start

    assert asyncio.run(body()) >= 0.1


def test_a_watched_folder_gives_new_files_and_those_that_grew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = '{{"title": "{}", "published": "2026-03-03T00:00:00Z"}}\n'

    async def titles(source: AsyncIterator[list[Item]]) -> list[str]:
        async with asyncio.timeout(20):
            return [item.title for item in await anext(source)]

    async def body() -> None:
        written(tmp_path, "a.jsonl", line.format("first"))
        written(tmp_path, "bad.jsonl", "no rows")
        source = watch(tmp_path, look_s=0.01)
        assert await titles(source) == ["first"]
        written(tmp_path, "b.csv", "title,published\nsecond,2026-03-03\n")
        assert await titles(source) == ["second"]
        written(tmp_path, "a.jsonl", line.format("first") + line.format("third"))
        assert await titles(source) == ["first", "third"]
        await source.aclose()  # type: ignore[attr-defined]

    asyncio.run(body())
    assert capsys.readouterr().err.count("bad.jsonl") == 1


def test_lines_from_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    os.write(writer, b'{"title": "a", "published": "2026-03-03T00:00:00Z"}\n\nbroken\n{"title": "b", "published": "2026-03-03T00:00:00Z"}')
    os.close(writer)

    async def body() -> list[str]:
        return [item.title async for batch in listen(reader) for item in batch]

    assert asyncio.run(body()) == ["a", "b"]
    assert "line 2 is left out" in capsys.readouterr().err
    os.close(reader)


def test_pairs_of_titles_that_are_one_story_or_two() -> None:
    companies = Companies.read(SHIPPED)
    with (Path(__file__).with_name("data") / "duplicates.csv").open(encoding="utf-8") as file:
        pairs = list(csv.DictReader(file))
    wrong = [pair for pair in pairs if (Stories(companies.find, [pair["one"]]).find(pair["other"]) is not None) != (pair["same"] == "yes")]
    assert len(wrong) <= 0.1 * len(pairs), wrong
    assert not [pair for pair in wrong if pair["same"] == "no"]  # a story that is lost is worse than one told twice


def test_old_stories_are_forgotten() -> None:
    stories = Stories(lambda _: [], [f"story number {at}" for at in range(REMEMBERED + 10)])
    assert len(stories.titles()) == REMEMBERED
    assert stories.find("story number 5") is None
    assert stories.find(f"story number {REMEMBERED}") == f"story number {REMEMBERED}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Northvale Energy and Halden Steel merge", ["Northvale Energy", "Halden Steel"]),
        ("Northvale rises, Northvale Energy says", ["Northvale Energy"]),
        ("A bet on $NVLE and (HEL: HLDN)", ["Northvale Energy", "Halden Steel"]),
        ("An unknown ticker (NYSE: ABC)", ["ABC"]),
        ("The board of Aurora Grids Oyj met", ["Aurora Grids"]),
        ("Northvales and unHalden are no companies", []),
        ("NVLE is a word here", []),
    ],
)
def test_companies(text: str, found: list[str]) -> None:
    assert Companies.read(SHIPPED).find(text) == found


def test_a_list_of_ones_own(tmp_path: Path) -> None:
    file = written(tmp_path, "mine.csv", "name,ticker,aliases\nA.B. (C+) Ltd,ABC,Able|Be-Co\n")
    companies = Companies.read(file)
    assert companies.find("Able, Be-Co and A.B. (C+) Ltd") == ["A.B. (C+) Ltd"]
    assert Companies([]).find("nothing is known") == []
    assert msgspec.convert({"name": "ab"}, Company) == Company("ab")
