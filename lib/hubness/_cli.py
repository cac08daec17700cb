"""Command line: how hubby are the vectors in a file, as they are and after a simple repair?

Errors go to stderr with exit status 2, and leave no file behind.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib._checks import Ints
from lib.hubness._pairs import METRICS, vectors
from lib.hubness.measures import antihub_rate, hub_score, robin_hood, skewness
from lib.hubness.search import k_occurrence

PATIENCE = 2.0  # seconds before progress is worth a line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 2 after an error that was told on stderr."""
    options = _parser().parse_args(arguments)
    try:
        _report(options)
    except (ValueError, TypeError, OSError, MemoryError, ImportError) as error:
        print(f"python -m lib.hubness: {_told(error)}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lib.hubness", description="Measure the hubness of a set of vectors."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    report = commands.add_parser(
        "report",
        help="a table of hubness, before and after centring and normalising",
        description="A table of hubness, before and after centring and normalising.",
    )
    report.add_argument("vectors", type=Path, help="a .npy file, one vector a row")
    report.add_argument("-k", type=int, default=10, help="neighbours of each point (default: 10)")
    report.add_argument("--metric", choices=METRICS, default="euclidean")
    report.add_argument(
        "--picture", type=Path, metavar="FILE", help="draw the counts into a .png, .svg or .pdf"
    )
    return parser


def _report(options: argparse.Namespace) -> None:
    X = _load(options.vectors)
    n, d = X.shape
    if not 1 <= options.k <= n - 1:
        raise ValueError(f"-k must be from 1 to {n - 1} for {n} vectors, got {options.k}")
    if options.picture is not None:
        _refuse_picture(options.picture)
    counts = {}
    for title, points in (("as given", X), ("centred, normalised", _repaired(X))):
        if points is not None:
            progress = _progress(title)
            counts[title] = k_occurrence(
                points, options.k, metric=options.metric, progress=progress
            )
    if options.picture is not None:
        _write_picture(options.picture, counts, options)
    print(f"{options.vectors}: n = {n}, d = {d}, k = {options.k}, {options.metric}")
    print(f"{'':20} {'skewness':>9} {'max N_k':>8} {'/ k':>7} {'antihubs':>9} {'Robin Hood':>11}")
    for title, found in counts.items():
        print(
            f"{title:20} {skewness(found):9.3f} {found.max():8d} "
            f"{hub_score(found, options.k):7.2f} {antihub_rate(found):9.1%} "
            f"{robin_hood(found):11.1%}"
        )
    if len(counts) == 1:
        print("centred, normalised: not possible, since a vector equals the mean")


def _load(path: Path) -> NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:  # NumPy's own words speak of pickles
        raise ValueError(f"{path} is not a .npy file as numpy.save writes it") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f"{path} must hold one array (.npy), got an archive of several (.npz)")
    return vectors(array, str(path))


def _repaired(X: NDArray[Any]) -> NDArray[Any] | None:
    """Vectors less their mean, at length 1; None if one of them is the mean."""
    scale = float(abs(X).max()) or 1.0
    moved = X / scale
    moved = moved - moved.mean(axis=0, dtype=np.float64)
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    return (moved / lengths).astype(X.dtype) if lengths.all() else None


def _progress(title: str) -> Callable[[int, int], None]:
    """A line on stderr, kept up to date, once the work has lasted a while."""
    began = last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        shown = last > began
        if now - began > PATIENCE and (now - last > 0.5 or done == total):
            last = now
            left = (now - began) * (total - done) / done
            end = "\n" if done == total else ""
            print(
                f"\r{title}: {done:,} of {total:,}, {left:.0f} s left  ",
                end=end,
                file=sys.stderr,
                flush=True,
            )
        elif shown and done == total:
            print(file=sys.stderr)

    return tell


def _refuse_picture(path: Path) -> None:
    """Before the work: a picture that could not be written in the end."""
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--picture must end in .png, .svg or .pdf, got {path}")
    if path.is_dir():
        raise IsADirectoryError(f"--picture must be a file, got the folder {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--picture must lie in a folder that exists, got {path}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"--picture must lie in a folder open to writing, got {path}")


def _write_picture(path: Path, counts: dict[str, Ints], options: argparse.Namespace) -> None:
    """Share of points with at least so many entries; complete, or not there at all."""
    from matplotlib.figure import Figure  # slow to import, and seldom needed

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for (title, found), colour in zip(counts.items(), ("#d55e00", "#0072b2"), strict=False):
        values = np.sort(found)
        share = 1.0 - np.arange(values.size) / values.size
        axes.step(values, share, where="pre", color=colour, label=title)
    axes.set_xscale("symlog", linthresh=1)
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.axvline(options.k, color="0.6", linewidth=0.8)
    axes.set_xlabel(f"N, entries in lists of the k = {options.k} nearest ({options.metric})")
    axes.set_ylabel("share of points with at least N")
    axes.legend(frameon=False)
    try:
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix.lower()
        )
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error
    os.close(handle)
    try:
        figure.savefig(temporary, dpi=150)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp shows the file to its owner alone
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _told(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
