"""RSS 2.0 and Atom 1.0 feeds as files, read with the standard library.

XML can name other files and blow itself up; both take a document type declaration, which no feed needs. So a feed that has one is refused
before anything of it is parsed, whatever its encoding: the parser itself calls when it meets one.
"""

from email.utils import parsedate_to_datetime
from html import unescape
from pathlib import Path
from re import sub
from typing import Final, NoReturn
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

import msgspec

from kernos.agents.rows import BadRow, InputError, Rows

from .items import Item

SUFFIXES: Final = (".xml", ".rss", ".atom")

_LARGEST: Final = 32 << 20
"""Bytes of a feed; the largest ones there are have some hundred entries."""

_ATOM: Final = "{http://www.w3.org/2005/Atom}"
_DC: Final = "{http://purl.org/dc/elements/1.1/}"


class _Plain(TreeBuilder):
    """A tree of a document that declares no types of its own."""

    def doctype(self, name: str, _public: str | None, _system: str | None) -> NoReturn:
        """Refuse what could name entities."""
        raise InputError(f"it declares a document type ({name}), and a feed needs none: entities could read other files. Remove the line.")


def read_feed(path: Path) -> Rows[Item]:
    """The entries of a feed; those without a title or a time are left out and told by their number. `InputError` if it is no feed."""
    try:
        root = _parse(path)
    except (OSError, ParseError, InputError, ValueError, LookupError) as error:
        raise InputError(f"{path} cannot be read as a feed: {error}") from None
    source = _text(root, "channel/title", f"{_ATOM}title") or path.stem
    entries = [*root.iter("item"), *root.iter(f"{_ATOM}entry")]
    found = [_item(number, entry, source) for number, entry in enumerate(entries, start=1)]
    items = [item for item in found if isinstance(item, Item)]
    if not items:
        raise InputError(f"{path} holds no entry with a title and a time. It should be RSS 2.0 or Atom 1.0.")
    return Rows(path, items, [bad for bad in found if isinstance(bad, BadRow)])


def _parse(path: Path) -> Element:
    if path.stat().st_size > _LARGEST:
        raise InputError(f"it is larger than {_LARGEST >> 20} MiB. Split it.")
    parser = XMLParser(target=_Plain())  # noqa: S314  (entities need a document type, which is refused)
    parser.feed(path.read_bytes())
    root: Element = parser.close()
    return root


def _item(number: int, entry: Element, source: str) -> Item | BadRow:
    link = entry.find(f"{_ATOM}link")
    fields = {
        "title": _plain(_text(entry, "title", f"{_ATOM}title")),
        "published": _time(_text(entry, "pubDate", f"{_DC}date", f"{_ATOM}published", f"{_ATOM}updated")),
        "text": _plain(_text(entry, "description", f"{_ATOM}summary", f"{_ATOM}content")),
        "source": source[:200],
        "url": _text(entry, "link") or (link.get("href", "") if link is not None else ""),
    }
    try:
        return msgspec.convert(fields, Item)
    except msgspec.ValidationError as error:
        return BadRow(number, f"entry {number}: {error}")


def _text(element: Element, *paths: str) -> str:
    """The text of the first of these that there is."""
    found = next((each for each in (element.find(path) for path in paths) if each is not None), None)
    return "" if found is None else "".join(found.itertext()).strip()


def _plain(text: str) -> str:
    """A text without its HTML."""
    return sub(r"\s+", " ", unescape(sub(r"<[^>]*>", " ", text))).strip()


def _time(text: str) -> str:
    """A time as RSS (RFC 822) or Atom (RFC 3339) writes it, as ISO 8601; as it is if it is neither."""
    try:
        return parsedate_to_datetime(text).isoformat()
    except ValueError:
        return text
