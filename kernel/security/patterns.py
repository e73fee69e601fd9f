"""Paths, and the patterns that policy rules write for them: `*` is any one segment, a last `**` any number, also none.

Besides matching, what the tools need to reason about patterns without trying paths: which patterns match all that another matches, whether
two have a path in common, and, for a set of patterns, one path of each kind that they tell apart.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import product
from typing import Final

ONE: Final = "*"
MANY: Final = "**"

Segments = tuple[str, ...]

_LONGEST: Final = 8
"""Segments of which all wider patterns are listed: two for each, and so on, would be many."""


def kind_of(subject: str) -> str:
    """`user:anna` is one of `user:*`."""
    return subject.partition(":")[0] + ":*"


@lru_cache(maxsize=65_536)
def match_path(object_: str, pattern: str) -> bool:
    """Whether a path matches a pattern, segment by segment. This is the definition; the index of a policy must agree with it."""
    want, have = pattern.split("/"), object_.split("/")
    if want[-1] == MANY:
        want.pop()
        have = have[: len(want)] if len(have) >= len(want) else []
    return len(have) == len(want) and all(part in (ONE, segment) for part, segment in zip(want, have, strict=True))


def wider(pattern: str) -> Iterator[str]:
    """Every pattern that matches all that this one matches, itself among them; of patterns that are longer than any there are, some."""
    *segments, last = pattern.split("/")
    plain = segments if last == MANY else [*segments, last]
    for length in range(min(len(plain), _LONGEST) + 1):
        for chosen in product(*((segment, ONE) if segment != ONE else (ONE,) for segment in plain[:length])):
            yield "/".join((*chosen, MANY))
            if length == len(plain) and last != MANY:
                yield "/".join(chosen)


def meet(one: str, other: str) -> bool:
    """Whether some path matches both."""
    return _meet(tuple(one.split("/")), tuple(other.split("/")))


def _meet(one: Segments, other: Segments) -> bool:
    if one == (MANY,) or other == (MANY,):
        return True
    if not one or not other:
        return not one and not other
    return (one[0] == other[0] or ONE in (one[0], other[0])) and _meet(one[1:], other[1:])


def kinds_of_paths(patterns: Iterable[str]) -> Iterator[str]:
    """One path for each way in which paths can match these patterns; those that match none are left out.

    A segment `*` in such a path is one that no pattern names; a last `**` stands for one or more of them. So two policies whose patterns
    are all given decide alike on all paths if they do on these.
    """
    yield from _kinds((), [tuple(pattern.split("/")) for pattern in dict.fromkeys(patterns)])


def _kinds(path: Segments, rests: list[Segments]) -> Iterator[str]:
    if path and any(rest in ((), (MANY,)) for rest in rests):
        yield "/".join(path)
    going_on = [rest for rest in rests if rest and rest != (MANY,)]
    through: list[Segments] = [rest for rest in rests if rest == (MANY,)]
    if not going_on:
        if through:
            yield "/".join((*path, MANY))
        return
    for segment in dict.fromkeys([*(rest[0] for rest in going_on if rest[0] != ONE), ONE]):
        fitting = [rest[1:] for rest in going_on if rest[0] in (ONE, segment)]
        if fitting or through:
            yield from _kinds((*path, segment), fitting + through)
