"""The README is right: its examples run, its commands are the ones that CI runs, its benchmarks explain themselves."""

import doctest
import re
import shutil
import subprocess
import sys
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


@pytest.mark.skipif(not shutil.which("bash"), reason="CI needs bash")
def test_ci_takes_the_two_commands_from_here():
    (section,) = re.findall(r"## Two commands\n(.*?)\n## ", README, flags=re.DOTALL)
    commands = re.findall(r"```console\n(.*)\n```", section)
    assert len(commands) == 2
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    # the script itself says how it finds them
    (find,) = re.findall(r"mapfile -t commands < <\((sed .*? README\.md)\)\n", ci)
    found = subprocess.run(["bash", "-c", find], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == commands
    assert not any(command in ci for command in commands)


def test_benchmarks_say_what_they_need_before_they_need_it():
    start = "import sys; sys.modules['numba'] = None; sys.argv = ['benchmarks', *sys.argv[1:]]; "
    start += "from benchmarks.__main__ import main; main()"
    run = [sys.executable, "-c", start]
    assert "--reduced" in subprocess.run([*run, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    refused = subprocess.run([*run, "solve"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "pip install numba" in refused.stderr
