"""Reasoning about patterns, against trying every small path."""

from itertools import product

from kernos.kernel.security.patterns import MANY, ONE, kinds_of_paths, match_path, meet, wider

PATHS = ["/".join(path) for length in (1, 2, 3, 4) for path in product("abx", repeat=length)]
PATTERNS = ["/".join(path) for length in (1, 2, 3) for path in product("ab*", repeat=length)]
PATTERNS += [f"{pattern}/**" for pattern in PATTERNS if pattern.count("/") < 2] + ["**"]
MATCHED = {pattern: {path for path in PATHS if match_path(path, pattern)} for pattern in PATTERNS}


def test_wider_patterns_are_those_that_match_all_of_it() -> None:
    for pattern in PATTERNS:
        found = set(wider(pattern))
        assert pattern in found
        for other in (entry for entry in PATTERNS if entry != "*/**"):  # which is `**` in other words
            assert (other in found) == (MATCHED[pattern] <= MATCHED[other]), (pattern, other)


def test_patterns_meet_where_they_have_a_path_in_common() -> None:
    for one, other in product(PATTERNS, repeat=2):
        assert meet(one, other) == bool(MATCHED[one] & MATCHED[other]), (one, other)


def test_there_is_a_path_of_each_kind_that_patterns_tell_apart() -> None:
    """The patterns that each path matches, as a set, is one that some representative matches, and the other way round."""
    for patterns in product(PATTERNS[::2], repeat=2):
        kinds = {frozenset(pattern for pattern in patterns if path in MATCHED[pattern]) for path in PATHS}
        found = [frozenset(pattern for pattern in patterns if match_path(path, pattern)) for path in kinds_of_paths(patterns)]
        assert set(found) == kinds - {frozenset()}, patterns


def test_representatives_say_what_they_stand_for() -> None:
    assert list(kinds_of_paths(["store/**", "store/a"])) == ["store", "store/a", "store/a/**", "store/*", "store/*/**"]
    assert list(kinds_of_paths(["model/*"])) == [f"model/{ONE}"]
    assert list(kinds_of_paths(["**"])) == [MANY]
