"""User space: what an app needs to run agents, over the system calls alone."""

from .agent import Agent
from .conversation import Conversation
from .functions import ToolCall, ToolFunction, tool
from .loop import Event, ToolAnswered, ToolCalled
from .patience import patiently
from .schemas import UnfinishedError
from .toolbox import Toolbox

__all__ = [
    "Agent",
    "Conversation",
    "Event",
    "ToolAnswered",
    "ToolCall",
    "ToolCalled",
    "ToolFunction",
    "Toolbox",
    "UnfinishedError",
    "patiently",
    "tool",
]
