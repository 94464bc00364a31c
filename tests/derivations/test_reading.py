"""The derivations as a text: on the terminal, as Markdown, as LaTeX, and the command that writes them."""

import doctest
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sympy as sp
from click.testing import CliRunner

import derivations
from derivations import NAMES, capacity_loss, render
from derivations.__main__ import main
from derivations.core import Derivation, DerivationError, Item
from derivations.symbols import C

x, y = sp.symbols("x y", positive=True)


class TestFormulas:
    def test_positive_terms_come_first(self):
        assert render.latex(Item("step", "", (1 - x, y - x))) == "1 - x = y - x"
        assert render.pretty(Item("step", "", (1 - x, y - x), ">")) == ["1 - x > y - x"]

    def test_wide_formulas_are_broken_at_the_sign(self):
        wide = sp.Add(*sp.symbols("x1:30"))
        item = Item("step", "", (wide, wide + 1))
        assert r"\\ & =" in render.latex(item)
        assert any(line.lstrip().startswith("= ") for line in render.pretty(item))

    @pytest.mark.parametrize(
        ("tex", "text"),
        [
            (r"\kappa_i > 3", "κ_i > 3"),
            (r"v_i^2 (\kappa_i-1)", "v_i² (κ_i-1)"),
            (r"\sum_{i \ne j} G_{ij}^2", "Σ_{i ≠ j} G_ij²"),
            (r"i^{-2\alpha}", "i^(-2α)"),
            (r"\hat y = \mathrm{ReLU}(W W^T e_i)", "ŷ = ReLU(W Wᵀ e_i)"),
            (r"\frac{1}{t + 1}", "1/(t + 1)"),
        ],
    )
    def test_inline_mathematics_is_readable_without_tex(self, tex, text):
        assert render.unicode_math(tex) == text

    def test_unknown_macros_are_an_error_and_not_a_blot(self):
        with pytest.raises(ValueError, match="aleph"):
            render.unicode_math(r"\aleph_0")


@pytest.mark.slow
class TestTexts:
    def test_terminal(self, proved):
        for number, d in enumerate(proved.values(), 1):
            text = render.plain(d, number)
            assert "\\" not in text
            assert "$" not in text
            for part in ("Statement.", "Assumptions.", "Derivation.", "Source.", d.title, *d.results):
                assert part in text
            assert f"{len(d.steps):>4}. " in text

    def test_markdown(self, proved):
        text = render.markdown(list(proved.values()))
        assert text.count("```math\n") == sum(bool(item.formula) for d in proved.values() for item in d.items)
        assert text.count("```") == 2 * text.count("```math\n")
        prose = re.sub(r"```math\n.*?\n```", "", text, flags=re.DOTALL)
        assert prose.count("$") % 2 == 0
        for inline in re.findall(r"\$([^$]+)\$", prose):
            # Markdown would eat a backslash before punctuation, and needs the $ next to the formula
            assert not re.search(r"\\[^A-Za-z]", inline)
            assert inline == inline.strip()
        between = prose.split("$")[::2]
        assert not [text for text in between[1:] if text[:1].isalnum()]
        assert not [text for text in between[:-1] if text[-1:].isalnum()]
        assert "operatorname" not in text  # which GitHub refuses
        headings = [render._anchor(line[3:]) for line in text.splitlines() if line.startswith("## ")]
        assert re.findall(r"\]\(#([^)]+)\)", text) == headings

    def test_latex(self, proved):
        text = render.tex(list(proved.values()))
        assert text.startswith("\\documentclass")
        assert text.endswith("\\end{document}\n")
        assert text.count("\\section{") == len(NAMES)
        assert text.isascii() or set(re.findall(r"[^\x00-\x7f]", text)) <= set("–é")  # what plain LaTeX knows

    @pytest.mark.slow
    @pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
    def test_latex_compiles(self, proved, tmp_path):
        (tmp_path / "derivations.tex").write_text(render.tex(list(proved.values())), encoding="utf-8")
        command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "derivations.tex"]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        assert run.returncode == 0, run.stdout[-2000:]
        assert "Overfull" not in run.stdout


def test_the_readme_names_every_result_and_shows_one():
    readme = Path(derivations.__file__).with_name("README.md")
    text = readme.read_text(encoding="utf-8")
    assert re.findall(r"^\| \[`(\w+)`\]\(\1\.py\)", text, flags=re.MULTILINE) == list(NAMES)
    shown = render.latex(Item("result", "", (sp.Function("f")(C), capacity_loss.FEATURE_LOSS)))
    assert shown.split(" = ")[1] in text
    assert doctest.testfile(str(readme), module_relative=False).failed == 0


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


class TestCommand:
    def test_lists(self):
        result = run("--list")
        assert result.exit_code == 0
        assert result.output.split() == list(NAMES)

    def test_proves_one_and_writes_it(self, tmp_path):
        for suffix in (".md", ".tex"):
            target = tmp_path / f"derivations{suffix}"
            target.write_text("old")
            result = run("inputs", "--output", target)
            assert result.exit_code == 0, result.output
            assert "7. The kurtosis of sparse inputs" in result.output
            assert f"written to {target}" in result.output
            assert "kurtosis of sparse inputs" in target.read_text(encoding="utf-8")
            assert list(tmp_path.glob(".*")) == []
            target.unlink()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["capacity_los"], "no derivation is called 'capacity_los'"),
            (["inputs", "--output", "x.pdf"], "must end in .tex or .md, got 'x.pdf'"),
            (["inputs", "--output", "nowhere/x.md"], "no folder 'nowhere'"),
        ],
    )
    def test_bad_arguments_get_one_line(self, arguments, message):
        result = run(*arguments)
        assert result.exit_code == 1
        assert message in result.output
        assert len(result.output.strip().splitlines()) == 1

    def test_a_failed_derivation_is_loud_and_writes_nothing(self, monkeypatch, tmp_path):
        def fail(name):
            d = Derivation(name, "", "", (), "")
            d.equal("one is two", 1, 2)
            return d

        monkeypatch.setattr("derivations.__main__.derive", fail)
        result = run("inputs", "--output", tmp_path / "x.md")
        assert result.exit_code == 1
        assert "not proved: inputs, step 1 (one is two)" in result.output
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(DerivationError):
            fail("inputs")

    def test_what_cannot_be_written_is_said(self, tmp_path):
        (tmp_path / "x.md").mkdir()
        result = run("inputs", "--output", tmp_path / "x.md")
        assert result.exit_code == 1
        assert "cannot write" in result.output
        assert [path.name for path in tmp_path.iterdir()] == ["x.md"]

    def test_runs_as_a_module(self):
        result = subprocess.run(
            [sys.executable, "-m", "derivations", "--list"],
            cwd=Path(derivations.__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert result.stdout.split() == list(NAMES)
