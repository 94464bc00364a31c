"""Tables: any columns come back, bad ones are refused, and no half-written file remains."""

from __future__ import annotations

import csv
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pyarrow")

import pyarrow.parquet as pq

from capsolve.files import number, read_table, text, write_table

TABLES = [".csv", ".parquet"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


def bits(array):
    return np.asarray(array, dtype=np.float64).tobytes()


@pytest.mark.parametrize("suffix", TABLES)
def test_a_table_of_everything(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    columns = {
        "text": ["a", "b,\r\n", '"'],
        "np_text": np.array(["x", "y", "z"]),
        "float32": np.array([0.1, 1e-40, 3e38], dtype=np.float32),
        "strided": np.arange(6.0)[::2] / 7,
        "scalars": [np.float64(1 / 3), 2, np.int8(-1)],
        "int, 64": np.array([2**62, -1, 0]),
        "true": [True, np.bool_(False), True],
        "generator": (v for v in (1.0, float("nan"), float("-inf"))),
    }
    write_table(columns, path)
    raw = dict.fromkeys(columns, (lambda cell: cell) if suffix == ".parquet" else str)
    back = read_table(path, raw)
    assert back["text"] == columns["text"]
    assert back["np_text"] == ["x", "y", "z"]
    assert [float(v) for v in back["float32"]] == columns["float32"].tolist()
    assert [float(v) for v in back["strided"]] == columns["strided"].tolist()
    assert [float(v) for v in back["scalars"]] == [1 / 3, 2.0, -1.0]
    assert [int(v) for v in back["int, 64"]] == [2**62, -1, 0]
    assert [str(v).lower() for v in back["true"]] == ["true", "false", "true"]
    assert bits([float(v) for v in back["generator"]]) == bits([1.0, np.nan, -np.inf])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "columns of one length, got none"),
        ({"a": [1, 2], "b": [1]}, "columns of one length, got a 2, b 1"),
        ({"a": "xy"}, "column a must be a sequence, got 'xy'"),
        ({"a": [1.0, "x"]}, "column a must be all text or all numbers, got 'x'"),
        ({"a": ["x", 1.0]}, "column a must be all text or all numbers, got 1.0"),
        ({"a": np.ones((2, 2))}, "column a must be all text or all numbers, got"),
        ({"a": [1j]}, "column a must be all text or all numbers, got 1j"),
        ({"a": [None]}, "column a must be all text or all numbers, got None"),
    ],
)
def test_bad_tables(tmp_path, columns, message):
    with pytest.raises(ValueError, match=message):
        write_table(columns, tmp_path / "t.csv")
    assert not list(tmp_path.iterdir())


def test_optional_columns_and_parsers_of_ones_own(tmp_path):
    path = tmp_path / "t.csv"
    write_table({"a": [1, 2], "b": ["x", "y"]}, path)
    assert read_table(path, {"a": int, "c": text}, optional=["c"]) == {"a": [1, 2]}
    with pytest.raises(ValueError, match="row 2, column b: invalid literal"):
        read_table(path, {"b": int})
    with pytest.raises(ValueError, match=r"row 3, column a: must be a finite number >= 0 <= 1, got '2'"):
        read_table(path, {"a": number(low=0, high=1)})


@pytest.mark.parametrize("suffix", TABLES)
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    write_table({"a": ["old"]}, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="surrogates not allowed") as caught:
        write_table({"a": ["new"] * 1000 + ["\ud800"]}, path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1",
    "'=1",
    "''=1",
    "'",
    "''",
    "'a",
    "'-",
    "a=1",
    " =1",
]
texts = st.lists(st.text(max_size=6) | st.text("'=+-@\t\r\n,\"a＝", max_size=6) | st.sampled_from(FORMULAS), min_size=1)
texts = texts.filter(lambda cells: not any("\ud800" <= c <= "\udfff" for cell in cells for c in cell))


@given(cells=texts, header=texts)
def test_no_text_is_a_formula_for_a_spreadsheet_and_all_is_read_back(folder, cells, header):
    path = folder / "t.csv"
    columns = {name or "empty": cells for name in header}
    write_table(columns, path)
    assert read_table(path, dict.fromkeys(columns, text)) == columns
    with path.open(encoding="utf-8", newline="") as file:
        written = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in written if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))]


@pytest.mark.parametrize("cell", FORMULAS)
def test_formulas_are_marked_by_an_apostrophe_in_csv_alone(tmp_path, cell):
    for suffix in TABLES:
        write_table({"a": [cell, "b"]}, tmp_path / f"t{suffix}")
        assert read_table(tmp_path / f"t{suffix}", {"a": text}) == {"a": [cell, "b"]}
    assert pq.read_table(tmp_path / "t.parquet")["a"].to_pylist() == [cell, "b"]


def test_negative_numbers_are_no_formulas(tmp_path):
    write_table({"a": [-1.5, float("-inf")]}, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "a\n-1.5\n-inf\n"


def test_sizes_are_bounded(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    write_table({"a": [1.0] * 10}, path)
    write_table({"a": [1.0] * 10}, tmp_path / "t.parquet")
    monkeypatch.setattr("capsolve.files.tables._MOST_ROWS", 9)
    with pytest.raises(ValueError, match=r"t\.parquet: a table .* must have at most 9 rows, got 10"):
        read_table(tmp_path / "t.parquet", {"a": number()})
    monkeypatch.setattr("capsolve.files.tables._LARGEST", 41)
    with pytest.raises(ValueError, match=r"t\.csv: a table is read as a whole and must have at most 41 bytes"):
        read_table(path, {"a": number()})
    monkeypatch.setattr("capsolve.files.tables._LARGEST", 42)
    monkeypatch.setattr("capsolve.files.tables._LONGEST_LINE", 4)
    with pytest.raises(ValueError, match=r"t\.csv: after row 1: a line must have less than 4 characters"):
        read_table(path, {"a": number()})
    monkeypatch.setattr("capsolve.files.tables._LONGEST_LINE", 5)
    assert read_table(path, {"a": number()}) == {"a": [1.0] * 10}


def test_messages_are_short_lines(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(",".join(f"column\x1b{i}" + "x" * 1000 for i in range(20_000)) + "\n")
    with pytest.raises(ValueError, match=r"column\\x1b0x+…, .*, …$") as caught:
        read_table(path, {"a": number()})
    assert len(str(caught.value)) < 500
    path.write_text('a\n"' + "y\n" * 10_000 + '"\n')
    with pytest.raises(ValueError, match=r"row 2, column a: must be a finite number, got 'y\\ny.*…$") as caught:
        read_table(path, {"a": number()})
    assert len(str(caught.value)) < 300
