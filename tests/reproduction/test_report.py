"""Reports say what agrees and what does not."""

import numpy as np

from capsolve.reproduction._report import Finding, Result


def test_a_report_says_what_disagrees(tmp_path):
    result = Result(
        "Title", "About.", {}, [Finding("A", True, "1 = 1"), Finding("B", False, "1 ≠ 2")], arrays={"x": [1]}
    )
    paths = result.write(tmp_path, "figx")
    assert [path.name for path in paths] == ["figx.npz", "figx.md"]
    text = paths[-1].read_text(encoding="utf-8")
    assert "1 of 2 statements agree." in text
    assert "- **agrees**: A  \n  1 = 1" in text
    assert "- **DISAGREES**: B  \n  1 ≠ 2" in text
    assert np.load(paths[0])["x"] == [1]
