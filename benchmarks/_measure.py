"""Side by side: two functions in turn, again and again, and the ratio of their times.

On a busy machine a time says little and a ratio of neighbours in time much. Each round calls both,
in an order that alternates; the result is the median over rounds of the ratio, with a 95 %
interval for that median from the order statistics (no assumption on how times are distributed).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binom


class Ratio(NamedTuple):
    """Time of ours over time of theirs: median over rounds, and a 95 % interval for it."""

    median: float
    low: float
    high: float
    rounds: int
    ours: float  # median seconds
    theirs: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"

    @property
    def verdict(self) -> str:
        if self.low > 1.0:
            return "slower"
        return "faster" if self.high < 1.0 else "no difference seen"


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def ratio(
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    budget: float = 1.0,
    least: int = 7,
    most: int = 400,
) -> Ratio:
    """Ratio of times, in as many rounds as fit into `budget` seconds."""
    ours(), theirs()
    pairs: list[tuple[float, float]] = []
    end = time.perf_counter() + budget
    while len(pairs) < least or (time.perf_counter() < end and len(pairs) < most):
        if len(pairs) % 2:
            other = seconds(theirs)
            pairs.append((seconds(ours), other))
        else:
            pairs.append((seconds(ours), seconds(theirs)))
    times = np.array(pairs)
    ratios = np.sort(times[:, 0] / times[:, 1])
    tail = int(binom.ppf(0.025, len(ratios), 0.5))
    low, high = ratios[max(tail - 1, 0)], ratios[min(len(ratios) - tail, len(ratios) - 1)]
    mine, other = np.median(times, axis=0)
    return Ratio(float(np.median(ratios)), float(low), float(high), len(ratios), mine, other)


def peak_bytes(function: Callable[[], object]) -> int:
    """Most bytes that torch allocates at one time beyond what existed before."""
    import torch

    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as profile:
        kept = function()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda e: e.start_ns())
    del kept
    return int(np.cumsum([0, *(e.nbytes() for e in events)]).max())


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table with a title line."""
    cells = [[str(c) for c in columns], *([str(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    print(f"\n{title}")
    for number, row in enumerate(cells):
        line = "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True))
        print(f"  {line}")
        if number == 0:
            print("  " + "  ".join("-" * w for w in widths))
