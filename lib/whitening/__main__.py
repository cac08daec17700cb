"""Command line: ``python -m lib.whitening sweep vectors.npy pairs.csv``."""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lib._checks import Floats, Ints
from lib.whitening import _arrays as arrays
from lib.whitening.sweep import Setting, Sweep, whitening_sweep
from lib.whitening.transformer import MOMENTS, Moments, numerical_rank

COLUMNS = ("beta", "gamma", "dim", "spearman", "low", "high")


class InputError(Exception):
    """Something that the user can mend; shown without a traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 0, or 2 after an error in what was asked for."""
    options = _parser().parse_args(argv)
    try:
        _sweep(options)
    except (InputError, ValueError, TypeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        print(f"error: {name}{error.strerror or error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lib.whitening",
        description="Whitening of vectors: which beta, gamma and dimension suit a task?",
    )
    sweep = parser.add_subparsers(required=True, metavar="command").add_parser(
        "sweep", help="score a grid of settings on pairs with gold scores"
    )
    sweep.add_argument("vectors", type=Path, help=".npy file of shape (n, d)")
    sweep.add_argument("pairs", type=Path, help="CSV file with rows i,j,score; rows count from 0")
    grid = {"type": _numbers, "metavar": "LIST"}
    sweep.add_argument("--betas", **grid, default=[0.0, 0.5, 1.0], help="default 0,0.5,1")
    sweep.add_argument(
        "--gammas", **grid, default=[0.0, 0.25, 0.5, 0.75, 1.0], help="default 0,0.25,0.5,0.75,1"
    )
    sweep.add_argument(
        "--dims", type=_wholes, metavar="LIST", help="default: the rank, a half, a quarter, …"
    )
    sweep.add_argument("--moment", choices=MOMENTS, default="central", help="default central")
    sweep.add_argument("--resamples", type=int, default=200, help="of the bootstrap; default 200")
    sweep.add_argument("--seed", type=_seed, default=0, help="of the bootstrap; default 0")
    sweep.add_argument("--top", type=int, default=5, help="settings to print; default 5")
    sweep.add_argument("--out", type=Path, metavar="CSV", help="write all settings to this file")
    sweep.add_argument("--picture", type=Path, metavar="PNG", help="draw the grid into this file")
    return parser


def _sweep(options: argparse.Namespace) -> None:
    if options.top < 1:
        raise InputError(f"--top must be at least 1, got {options.top}")
    _check_targets(options)
    vectors = _load_vectors(options.vectors)
    pairs, scores = _load_pairs(options.pairs, len(vectors))
    sweep = whitening_sweep(
        vectors,
        pairs,
        scores,
        betas=options.betas,
        gammas=options.gammas,
        dims=options.dims or _default_dims(vectors),
        rng=np.random.default_rng(options.seed),
        resamples=options.resamples,
        moment=options.moment,
    )
    writers: dict[Path, Callable[[BinaryIO], None]] = {}
    if options.out:
        writers[options.out] = lambda file: _write_table(sweep, file)
    if options.picture:
        writers[options.picture] = lambda file: _draw(sweep, file)
    _write_all(writers)
    print(_table(sweep, options.top))


# --- reading ------------------------------------------------------------------------------------


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers like 0,0.5,1, got {text!r}") from None


def _wholes(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers like 64,128, got {text!r}") from None


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)


def _load_vectors(path: Path) -> np.ndarray:
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        # NumPy's own words speak of pickles
        raise InputError(f"{path}: expected a .npy file, as numpy.save writes it") from error
    if not isinstance(vectors, np.ndarray):
        raise InputError(f"{path}: expected a .npy file, got an archive of several arrays")
    try:
        return arrays.matrix(vectors, "vectors")
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: {error}") from error


def _load_pairs(path: Path, rows: int) -> tuple[Ints, Floats]:
    pairs: list[tuple[int, int]] = []
    scores: list[float] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            first = True
            for fields in reader:
                if not any(field.strip() for field in fields):
                    continue
                where = f"{path}, line {reader.line_num}"
                i, j, score = _fields(fields, where)
                # A header has no number at all; a first row with a slip in it is no header.
                if not (first and not any(map(_is_number, (i, j, score)))):
                    pairs.append((_index(i, rows, where), _index(j, rows, where)))
                    scores.append(_score(score, where))
                first = False
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a CSV file in UTF-8 ({error})") from error
    if not pairs:
        raise InputError(f"{path}: expected rows i,j,score, got none")
    return np.array(pairs, dtype=np.int64), np.array(scores)


def _fields(fields: list[str], where: str) -> list[str]:
    if len(fields) == 3:
        return fields
    line = ",".join(fields)
    for sign, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars"), (" ", "spaces")):
        if line.count(sign) >= 2:
            raise InputError(f"{where}: expected commas between i,j,score, got {name}: {line!r}")
    raise InputError(f"{where}: expected three fields i,j,score, got {len(fields)}: {line!r}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _index(text: str, rows: int, where: str) -> int:
    try:
        index = int(text)
    except ValueError:
        raise InputError(f"{where}: expected a row number, got {text!r}") from None
    if not 0 <= index < rows:
        raise InputError(f"{where}: expected a row number from 0 to {rows - 1}, got {index}")
    return index


def _score(text: str, where: str) -> float:
    if not _is_number(text) or not np.isfinite(float(text)):
        raise InputError(f"{where}: expected a finite score, got {text!r}")
    return float(text)


def _default_dims(vectors: np.ndarray) -> list[int]:
    """The rank and its halves, down to 8, so that no default cell asks for more than there is."""
    values, _ = Moments(vectors.shape[1]).add(vectors).spectrum(1.0, "central")
    dims = [max(1, numerical_rank(values, 1e-12))]
    while dims[-1] >= 16:
        dims.append(dims[-1] // 2)
    return dims[::-1]


# --- writing ------------------------------------------------------------------------------------


def _check_targets(options: argparse.Namespace) -> None:
    """Refuse, before the work is done, what could not be written after it."""
    taken = {options.vectors.resolve(): "vectors", options.pairs.resolve(): "pairs"}
    for path, name in ((options.out, "--out"), (options.picture, "--picture")):
        if path is None:
            continue
        target = path.resolve()
        if target in taken:
            raise InputError(f"{name} must not overwrite {taken[target]}, got {path}")
        taken[target] = name
        if target.is_dir():
            raise InputError(f"{name} must name a file, got the directory {path}")
        if not target.parent.is_dir():
            raise InputError(f"{name} must lie in a directory that exists, got {path}")
        locked = target if target.exists() else target.parent
        if not (os.access(target.parent, os.W_OK) and os.access(locked, os.W_OK)):
            raise InputError(f"{name}: no permission to write {path}")


def _write_all(writers: dict[Path, Callable[[BinaryIO], None]]) -> None:
    """Write all files beside their targets, and only then rename them: all or none, and whole."""
    ready: list[tuple[Path, Path]] = []
    try:
        for path, write in writers.items():
            target = path.resolve()
            draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            try:
                file = draft.open("xb")
            except OSError as error:
                raise InputError(f"{path}: cannot be written: {error.strerror}") from error
            with file:
                ready.append((draft, target))
                write(file)
        for draft, target in ready:
            draft.replace(target)
    finally:
        for draft, _ in ready:
            draft.unlink(missing_ok=True)


def _write_table(sweep: Sweep, file: BinaryIO) -> None:
    lines = [",".join(COLUMNS)]
    for cell in sweep.settings():
        lines.append(",".join(f"{getattr(cell, column):.10g}" for column in COLUMNS))
    file.write(("\n".join(lines) + "\n").encode())


def _table(sweep: Sweep, top: int) -> str:
    def line(name: str, cell: Setting) -> str:
        interval = f"[{cell.low:.4f}, {cell.high:.4f}]" if np.isfinite(cell.low) else "-"
        return (
            f"{name:<5}{cell.beta:>7g}{cell.gamma:>8g}{cell.dim:>7}"
            f"{cell.spearman:>11.4f}   {interval}"
        )

    best = [line(str(place), cell) for place, cell in enumerate(sweep.settings()[:top], 1)]
    head = f"{'':<5}{'beta':>7}{'gamma':>8}{'dim':>7}{'Spearman':>11}   95 % interval"
    note = (
        "The best of many cells is partly lucky: judge it on pairs that this search has not seen."
    )
    return "\n".join([head, line("raw", sweep.raw), *best, note])


def _draw(sweep: Sweep, file: BinaryIO) -> None:
    """Heat map over beta and gamma at the best dimension."""
    from matplotlib.figure import Figure  # no pyplot: no window, no global state

    best = sweep.best()
    k = int(np.flatnonzero(sweep.dims == best.dim)[0])
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    shown = sweep.spearman[:, :, k]
    image = axes.imshow(shown, origin="lower", aspect="auto", cmap="cividis")
    for b, g in np.ndindex(shown.shape):
        label = axes.text(g, b, f"{shown[b, g]:.3f}", ha="center", va="center", fontsize=8)
        dark = image.norm(shown[b, g]) < 0.5
        label.set_color("white" if dark else "black")
    axes.set_xticks(range(sweep.gammas.size), [f"{g:g}" for g in sweep.gammas])
    axes.set_yticks(range(sweep.betas.size), [f"{b:g}" for b in sweep.betas])
    axes.set(xlabel="gamma (scales made equal)", ylabel="beta (mean taken away)")
    axes.set_title(
        f"Spearman at {best.dim} dimensions: best {best.spearman:.3f}, "
        f"raw cosine {sweep.raw.spearman:.3f}",
        fontsize=10,
    )
    figure.colorbar(image, ax=axes)
    figure.savefig(file, format="png", dpi=150)


if __name__ == "__main__":
    sys.exit(main())
