"""Which companies an item is about: those of a list, by name, other name or ticker, and others that say themselves what they are.

A ticker counts where it is written as one, `$NVLE` or `(HEL: NVLE)`, as many are words of the language. A company that is not in the list
is found by its legal form: "Aurora Grids Oyj".
"""

import re
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from kernos.agents.rows import read_rows

SHIPPED: Final = Path(__file__).with_name("data") / "companies.csv"

_FORM: Final = r"(?:Oyj|Abp|ASA|AB|A/S|Inc|Corp|Corporation|Ltd|Limited|plc|PLC|Plc|AG|SE|NV|N\.V|SA|S\.A|SpA|GmbH|LLC|LP)"
_FORMAL: Final = re.compile(rf"((?:[A-Z][\w&'-]*\s+){{1,4}}?){_FORM}\b\.?")
_TICKER: Final = re.compile(r"\$([A-Z][A-Z0-9.]{0,7})\b|\(\s*[A-Z][A-Za-z]{1,7}\s?:\s?([A-Z][A-Z0-9.]{0,7})\s*\)")
_NO_NAME: Final = {"The", "A", "An", "In", "On", "At", "Of", "For", "And"}


class Company(msgspec.Struct, frozen=True):
    """A row of the list; `aliases` are other names, apart by `|`."""

    name: Annotated[str, Meta(min_length=2, max_length=80)]
    ticker: Annotated[str, Meta(max_length=12)] = ""
    aliases: Annotated[str, Meta(max_length=400)] = ""


class Companies:
    """The list, ready to look things up."""

    def __init__(self, companies: list[Company]) -> None:
        self._names = {alias: company.name for company in companies for alias in _aliases(company)}
        self._tickers = {company.ticker: company.name for company in companies if company.ticker}
        longest_first = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in longest_first) or r"(?!)")

    @classmethod
    def read(cls, path: Path) -> "Companies":
        """The list in a file with the columns name, ticker and aliases."""
        return cls(read_rows(path, Company).rows)

    def find(self, text: str) -> list[str]:
        """The names of the companies in a text, in order, each once."""
        found = [(match.start(), self._names[match[0]]) for match in self._pattern.finditer(text)]
        for match in _TICKER.finditer(text):
            ticker = match[1] or match[2]
            found.append((match.start(), self._tickers.get(ticker, ticker)))
        for match in _FORMAL.finditer(text):
            name = " ".join(word for word in match[1].split() if word not in _NO_NAME)
            if name and not self._pattern.search(match[0]):
                found.append((match.start(), name))
        return list(dict.fromkeys(name for _, name in sorted(found)))


def _aliases(company: Company) -> list[str]:
    return [company.name, *(alias.strip() for alias in company.aliases.split("|") if alias.strip())]
