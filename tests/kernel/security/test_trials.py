"""The tests that a policy carries: what they can say, and what fails them."""

import pytest

from kernos.kernel.security.policy import read_policy
from kernos.kernel.security.trials import read_trials, run_trials
from kernos.syscalls.sources import Files
from tests.kernel.security.test_compare import files_of

LAW = """\
p, app:shop, model/*, generate, allow
p, app:shop, model/big, generate, deny
p, app:shop, tool/**, call, allow
p, user:*, model/*, generate, allow
p, user:*, tool/**, call, allow
p, role:boss, model/*, load, allow
"""
FLOWS = b"flow, phi, principal/app:shop, allow\nflow, phi, tool/shop/*, allow\nflow, u, **, allow\nflow, u, privileged/**, approve\n# end\n"


def failures(test: str) -> list[str]:
    files: Files = {**files_of(LAW), "flows.csv": FLOWS, "tests/1.toml": f"# one test\n\n[[test]]\n{test}\n".encode()}
    policy, findings = read_policy(files)
    trials, wrong = read_trials(files)
    assert findings == []
    return [str(finding) for finding in (*wrong, *run_trials(policy, trials))]


PASSING = [
    'who = "app:shop"\nwhat = ["model/small:generate"]\nexpect = "allow"\nby = "p, app:shop, model/*, generate, allow"',
    'who = "app:shop"\nwhat = ["model/big:generate"]\nexpect = "deny"\nby = "p, app:shop, model/big, generate, deny"',
    'who = "app:other"\nwhat = ["model/small:generate", "model/big:load"]\nexpect = "deny"\nby = ""',
    'who = "app:shop"\nfor = "user:anna"\nwhat = ["model/small:generate"]\nexpect = "allow"',
    'who = "user:anna"\nrole = "role:boss"\nwhat = ["model/small:load", "model/small:generate"]\nexpect = "allow"',
    'who = "user:anna"\nwhat = ["model/small:load"]\nexpect = "deny"',
    'who = "app:shop"\nlabels = ["phi"]\nwhat = ["tool/shop/mail:call"]\nexpect = "allow"\nby = "p, app:shop, tool/**, call, allow"',
    'who = "app:shop"\nlabels = ["phi"]\nwhat = ["tool/other/mail:call"]\nexpect = "deny"\nby = ""',
    'who = "app:shop"\nlabels = ["u"]\nwhat = ["tool/other/mail:call"]\nexpect = "allow"',
    'who = "app:shop"\nlabels = ["u"]\nprivileged = true\nwhat = ["tool/other/mail:call"]\nexpect = "approve"\n'
    'by = "flow, u, privileged/**, approve"',
    'who = "app:shop"\nlabels = ["phi", "u"]\nprivileged = true\nwhat = ["tool/other/mail:call"]\nexpect = "deny"',
    'who = "app:shop"\nfor = "user:anna"\nlabels = ["phi"]\nwhat = ["tool/shop/mail:call"]\nexpect = "deny"',
]


@pytest.mark.parametrize("test", PASSING)
def test_what_holds_passes(test: str) -> None:
    assert failures(test) == []


@pytest.mark.parametrize("test", PASSING)
def test_the_opposite_fails_with_file_and_line(test: str) -> None:
    other = "deny" if 'expect = "allow"' in test else "allow"
    expected = test.partition('expect = "')[2].partition('"')[0]
    turned = "\n".join(
        line for line in test.replace(f'expect = "{expected}"', f'expect = "{other}"').split("\n") if not line.startswith("by")
    )
    found = failures(turned)
    assert found
    assert all(line.startswith("tests/1.toml:3:1: error: the test fails:") for line in found)


@pytest.mark.parametrize(
    ("test", "says"),
    [
        ('who = "app:shop"\nwhat = ["model/small:generate"]\nexpect = "allow"\nby = ""', "not by ``"),
        ('who = "app:shop"\nwhat = ["modle/small:generate"]\nexpect = "deny"', "no call asks for"),
        ('who = "app:shop"\nlabels = ["ph1"]\nwhat = ["tool/shop/mail:call"]\nexpect = "deny"', "about the label `ph1`"),
        ('who = "app:shop"\nwhat = ["tool/shop/mail:call"]\nexpect = "approve"', "should be up to somebody who approves and is allowed"),
        ('who = "app:shop"\nlabels = ["phi"]\nwhat = ["tool/other/mail:call"]\nexpect = "allow"', "no line lets `phi` go there"),
        ('who = "shop"\nwhat = ["model/small:generate"]\nexpect = "allow"', "See policies/README.md"),
        ('who = "app:shop"\nwhat = []\nexpect = "allow"', "See policies/README.md"),
        ('who = "app:shop"\nwhat = ["model/small:generate"]\nexpect = "Allow"', "See policies/README.md"),
        ('who = "app:shop"\nwaht = ["model/small:generate"]\nexpect = "allow"', "See policies/README.md"),
        ('who = "user:anna"\nrole = "boss"\nwhat = ["model/small:load"]\nexpect = "allow"', "See policies/README.md"),
    ],
)
def test_what_is_wrong_with_a_test_is_told(test: str, says: str) -> None:
    assert any(says in line for line in failures(test))
