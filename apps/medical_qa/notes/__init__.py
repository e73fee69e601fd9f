"""Reading notes: free text to a validated structure in which every field points to its source."""

from .fields import Drug, Event, Laboratory, Problem, Record, Sourced
from .reader import read_note

__all__ = ["Drug", "Event", "Laboratory", "Problem", "Record", "Sourced", "read_note"]
