"""Time against size, from the records of a benchmark run."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks.allocations import FLOOR, FRESH, OURS


def draw(records: list[dict[str, Any]], family: str = "A") -> Figure:
    """Draw the seconds of every solver on one family, log–log, names at the ends of the lines."""
    threads = max(r["threads"] for r in records if r["benchmark"] == "solve")
    lines: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        if (
            record["benchmark"] == "solve"
            and (record["family"], record["threads"], record["dtype"]) == (family, threads, "float64")
            and record["solver"] not in ("np.copyto", FRESH)
            # of a few thousand features the floor is the time it takes threads to wake up
            and (record["solver"] != FLOOR or record["features"] >= 10**4)
        ):
            lines.setdefault(record["solver"], []).append((record["features"], record["seconds"]["median"]))
    figure, ax = plt.subplots(figsize=(7.0, 4.5), layout="constrained")
    ends = []
    for name, points in lines.items():
        points.sort()
        n, seconds = zip(*points, strict=True)
        style = {OURS: ("#0072b2", 2.5, "-"), FLOOR: ("black", 1.0, ":")}.get(name, ("0.45", 1.0, "-"))
        ax.plot(n, seconds, color=style[0], linewidth=style[1], linestyle=style[2], marker="o", markersize=3)
        ends.append([seconds[-1], n[-1], name.split(":")[0].removeprefix("CVXPY + "), style[0]])
    ax.set(xscale="log", yscale="log", xlabel="features", ylabel="seconds (median)")
    ax.set_title(
        r"One allocation, $D = n/10$, $v_i \propto i^{-1/2}$, $\kappa$ log-uniform in [3.5, 300]",
        loc="left",
        fontsize="medium",
    )
    ax.margins(x=0.02)
    # Names that would overlap move apart, those of one right end among themselves.
    last: dict[int, float] = {}
    for seconds, n, name, colour in sorted(ends):
        at = max(seconds, 1.8 * last.get(n, 0.0))
        last[n] = at
        ax.annotate(
            name, (n, at), xytext=(6, 0), textcoords="offset points", va="center", color=colour, fontsize="small"
        )
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlim(right=ax.get_xlim()[1] * 40)
    return figure
