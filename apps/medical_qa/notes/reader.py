"""From a note to a record: names are found once, then each kind is read from the words around them."""

from .dates import dates, timeline
from .drugs import read_drugs
from .fields import Record
from .laboratory import read_laboratory
from .layout import Layout
from .problems import read_problems
from .vocabulary import mentions


def read_note(text: str) -> Record:
    """What a note in English says of problems, drugs, laboratory values and dates. Nothing is inferred that is not written."""
    layout, found, dated = Layout(text), mentions(text), dates(text)
    laboratory = read_laboratory(text, found)
    taken = [(value.name.start, value.name.stop) for value in laboratory]
    drugs = read_drugs(text, layout, found, taken)
    return Record(read_problems(text, layout, found, dated), drugs, laboratory, timeline(text, layout, dated))
