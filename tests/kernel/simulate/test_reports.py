"""The command, its reports and its picture; and that the article's report says what its own figures show."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kernos.kernel.core.policies import POLICIES
from kernos.kernel.simulate import article as formulas
from kernos.kernel.simulate import report


def kernos(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kernos.apps.cli", "simulate", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def article() -> formulas.Article:
    patch = pytest.MonkeyPatch()
    patch.setattr(formulas, "MANY", 400)
    patch.setattr(formulas, "SEEDS", 5)
    with patch.context():
        return formulas.write_article(1)


def test_the_command_prints_a_document_for_programs(tmp_path: Path) -> None:
    done = kernos("--agents", "60", "--json", "--png", str(tmp_path / "times.png"))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [found["policy"] for found in document["policies"]] == list(POLICIES)
    assert all(found["all"]["turns"] == 60 for found in document["policies"])
    assert (tmp_path / "times.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_prints_tables_for_people() -> None:
    done = kernos("--agents", "60", "--policy", "fair", "--policy", "rr", "--speeds", "1,2")
    assert done.returncode == 0, done.stderr
    assert "60 agents under 2 policies in" in done.stdout
    assert done.stdout.count("interactive") == 2


@pytest.mark.parametrize("wrong", [("--agents", "0"), ("--policy", "best"), ("--speeds", "0"), ("--speeds", "x"), ("--classes", "a")])
def test_wrong_usage_is_exit_code_2(wrong: tuple[str, str]) -> None:
    done = kernos(*wrong)
    assert done.returncode == 2
    assert "usage: kernos simulate" in done.stderr


def test_help_lists_the_options() -> None:
    assert "--article" in kernos("--help").stdout


def test_without_matplotlib_the_picture_is_refused_in_words() -> None:
    code = "import sys; sys.modules['matplotlib'] = None; from kernos.kernel.simulate.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "--agents", "5", "--png", "x.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'kernos[plot]'" in done.stderr


def test_the_simulator_loads_no_torch() -> None:
    code = (
        "import sys, kernos.kernel.simulate.__main__; sys.exit(bool({'torch', 'transformers', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_bars_are_as_long_as_their_values() -> None:
    assert report.bar(2.0, 2.0) == "█" * report.BAR
    assert report.bar(1.0, 2.0) == "█" * (report.BAR // 2)
    assert report.bar(0.0, 0.0) == ""


def test_throughput_is_the_same_until_switching_costs(article: formulas.Article) -> None:
    fifo, rr, mlfq, priority, rr_again, _ = (row.simulated for row in article.throughput.rows)
    for free in (rr, mlfq, priority):
        assert free["S, 1/s"].mean == pytest.approx(fifo["S, 1/s"].mean, rel=1e-4)
    assert rr_again["S, 1/s"].mean < 0.95 * fifo["S, 1/s"].mean
    assert max(rr["response, s "].mean, mlfq["response, s "].mean) < fifo["response, s "].mean / 2
    assert priority["of interactive, s"].mean < fifo["of interactive, s"].mean / 2


def test_processors_follow_the_sum_of_speeds_and_not_the_article(article: formulas.Article) -> None:
    for row in article.processors.rows:
        right, done = row.formulas["N·E[T]/Σr"], row.simulated["all done, s"]
        assert right < done.mean + done.half
        assert done.holds(right, 0.15)
        assert not done.holds(row.formulas["as written (r: speeds)"], 0.15)
        assert not done.holds(row.formulas["r: seconds a task"], 0.15)
    slow, fast, _ = article.processors.rows
    assert fast.formulas["as written (r: speeds)"] == 4 * slow.formulas["as written (r: speeds)"]


def test_loading_grows_with_the_groups(article: formulas.Article) -> None:
    for row in article.loading.rows:
        groups = int(row.case.removeprefix("M = "))
        assert row.simulated["loading in all, s"].holds(row.formulas["M·T_s"])
        assert row.simulated["a group's run, s"].holds(row.formulas["(N/M)·E[T]"], 0.05)
        agrees = row.simulated["loading in all, s"].holds(row.formulas["(N/M)·T_s, T_s = loading"])
        assert agrees == (groups**2 == formulas.TASKS)


def test_waiting_depends_on_more_than_the_mean(article: formulas.Article) -> None:
    constant, exponential, lognormal, _, bursty = article.exponential.rows
    name = "waiting, s (fifo)"
    assert exponential.simulated[name].holds(exponential.formulas["M/M/1"], 0.1)
    assert constant.simulated[name].holds(constant.formulas["M/G/1"], 0.1)
    assert constant.simulated[name].mean < exponential.simulated[name].mean < lognormal.simulated[name].mean
    assert bursty.simulated[name].mean > 2 * exponential.formulas["M/M/1"]


def test_the_article_is_printed_and_written(article: formulas.Article, capsys: pytest.CaptureFixture[str]) -> None:
    report.print_article(article)
    printed = capsys.readouterr().out
    assert all(claim.title in printed for claim in article.claims())
    assert json.loads(json.dumps(article.as_json()))["seeds"] == formulas.SEEDS
