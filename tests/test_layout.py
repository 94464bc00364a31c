"""The layout: tests mirror the package, and each file format is opened in one module."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    path.relative_to(ROOT / "capsolve") for path in (ROOT / "capsolve").rglob("*.py") if not path.name.startswith("_")
)

# What opens or writes a file, and the modules of capsolve/files that may.
OPENED = {
    r"\bimport csv\b": {"tables.py"},
    r"pyarrow\.parquet": {"tables.py", "parquet_folder.py"},  # the folder only asks whether it is there
    r"\bParquetFile\(|\.write_table\(arrow": {"tables.py"},
    r"\bnp\.(load|save|savez|savez_compressed|memmap|fromfile)\b": {"tensors.py"},
    r"\bsafe_open\b": {"tensors.py"},
    r"\btorch\.load\b": {"tensors.py"},
    r"\bimport zipfile\b": {"tensors.py"},
    r"\bjson\.loads?\b": {"archives.py", "checkpoints.py", "tensors.py", "tables.py"},
    r"\buuid4\b|\btempfile\.(?!mkdtemp)|\bos\.replace\b": {"_paths.py"},
}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_public_module_has_tests_of_its_name(module):
    assert (ROOT / "tests" / module.parent / f"test_{module.name}").exists()


@pytest.mark.parametrize("pattern", OPENED)
def test_each_format_is_opened_in_one_place(pattern):
    found = {
        str(path.relative_to(ROOT / "capsolve"))
        for path in (ROOT / "capsolve").rglob("*.py")
        if re.search(pattern, re.sub(r"^ *(>>>|\.\.\.).*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE))
    }
    assert found
    assert found <= {f"files/{name}" for name in OPENED[pattern]}
