"""The definition of a decision: `model.conf`, as Casbin reads it. Slow, and therefore asked only to check the index against it."""

from importlib.resources import files
from typing import Any

from .patterns import kind_of, match_path
from .rules import Rules


class Reference:
    """Casbin's own answers to a policy."""

    def __init__(self, rules: Rules) -> None:
        import casbin  # takes 0.1 s, and most kernels never ask it

        enforcer: Any = casbin.Enforcer(str(files("kernos.policies") / "model.conf"))
        enforcer.add_function("path", match_path)
        enforcer.add_function("kind", kind_of)
        # Duplicate lines would make add_policies refuse the whole batch; they say the same thing, so one is enough.
        enforcer.add_policies(list(dict.fromkeys((rule.subject, *rule.says) for rule in rules.rules)))
        enforcer.add_grouping_policies(list(dict.fromkeys((entry.member, entry.role) for entry in rules.roles)))
        self._enforcer = enforcer

    def allows(self, subject: str, object_: str, action: str) -> bool:
        """Whether the subject may do this to the object."""
        return bool(self._enforcer.enforce(subject, object_, action))
