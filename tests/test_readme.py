"""The README is right: its examples run, its commands are the ones that CI runs."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def run(text):
    example = doctest.DocTestParser().get_doctest(text, {}, "README", "README.md", 0)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    report = []
    runner.run(example, out=report.append)
    return runner.summarize(verbose=False), "".join(report)


@pytest.mark.slow
def test_the_examples_print_what_they_say():
    blocks = re.findall(r"```pycon\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 5
    result, report = run("\n".join(blocks))
    assert result.attempted >= 10
    assert result.failed == 0, report


def test_the_example_with_pytorch_holds():
    pytest.importorskip("torch")
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "torch" in block]
    assert "assert" in block
    exec(block, {})


def test_a_wrong_example_would_be_noticed():
    result, _ = run(">>> 1 + 1\n3\n")
    assert result.failed == 1


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()


def test_the_first_command_is_the_one_that_ci_runs():
    command = "solve digits --dimensions 16 --figure digits.png"
    assert f"pip install . && capsolve {command}" in README
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
