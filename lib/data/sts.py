"""Pairs of sentences with graded similarity: one type for all sets, and loaders of public files.

`SentencePairs` is what `lib.whitening.whitening_sweep` wants: encode ``sentences`` to vectors and
hand ``pairs`` and ``scores`` on. `load_sts` reads STS-B (Cer et al., 2017), SICK (Marelli et al.,
2014) and the Chinese sets ATEC, BQ, LCQMC and PAWSX as kexue.fm/archives/8321 uses them;
`fetch_stsb` downloads the first. The book itself needs none of them: see `lib.data.docstrings`.
"""

from __future__ import annotations

import http.client
import math
import ssl
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from lib import _checks as check

__all__ = ["FORMS", "STSB_URL", "SentencePairs", "SentencePairsError", "fetch_stsb", "load_sts"]

STSB_URL = "http://ixa2.si.ehu.eus/stswiki/images/4/48/Stsbenchmark.tar.gz"
STSB_FILES = ("sts-train.csv", "sts-dev.csv", "sts-test.csv")
LARGEST = 2**26  # bytes of an archive or a file in it; the real ones have 0.4 and 1 million

# Of a line split at tabs: which columns hold the sentences and the score, and whether a head line
# comes first. Some lines of STS-B hold two columns more, the sources of the sentences.
FORMS = {
    "stsb": (5, 6, 4, False),
    "sick": (1, 2, 3, True),
    "chinese": (0, 1, 2, False),
}


class SentencePairsError(RuntimeError):
    """A set of sentence pairs cannot be had: no such file, not of that form, or no network."""


@dataclass(frozen=True, eq=False, repr=False)
class SentencePairs:
    """Sentences, pairs of them, and how alike the two are.

    Attributes
    ----------
    sentences : tuple of str
        Each different sentence once.
    pairs : ndarray of int64, shape (m, 2)
        Places in `sentences`.
    scores : ndarray of float64, shape (m,)
        The higher, the more alike.

    Raises
    ------
    ValueError, TypeError
        If the shapes do not fit, a place does not exist or a sentence occurs twice.
    """

    sentences: tuple[str, ...]
    pairs: NDArray[np.int64]
    scores: NDArray[np.float64]

    def __post_init__(self) -> None:
        if isinstance(self.sentences, str) or not all(isinstance(s, str) for s in self.sentences):
            raise TypeError("`sentences` must hold strings")
        pairs, count = np.array(self.pairs), len(self.sentences)
        if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.size == 0:
            raise ValueError(f"`pairs` must have shape (m, 2) and not be empty, got {pairs.shape}")
        if pairs.dtype.kind not in "iu":
            raise TypeError(f"`pairs` must hold whole numbers, got dtype {pairs.dtype}")
        if pairs.min() < 0 or pairs.max() >= count:
            wrong = pairs.min() if pairs.min() < 0 else pairs.max()
            raise ValueError(f"`pairs` must lie in 0 … {count - 1}, got {wrong}")
        if len(set(self.sentences)) < count:
            raise ValueError("`sentences` must all differ, got one of them twice")
        scores = np.array(check.vector(self.scores, "scores", (len(pairs),)))
        pairs = pairs.astype(np.int64)
        for array in (pairs, scores):
            array.setflags(write=False)
        object.__setattr__(self, "sentences", tuple(self.sentences))
        object.__setattr__(self, "pairs", pairs)
        object.__setattr__(self, "scores", scores)

    @classmethod
    def of(cls, rows: Iterable[tuple[str, str, float]]) -> SentencePairs:
        """From triples (sentence, sentence, score); a sentence that comes again is kept once."""
        rows = list(rows)
        if not rows:
            raise ValueError("`rows` must hold at least one pair, got none")
        place: dict[str, int] = {}
        pairs = [[place.setdefault(s, len(place)) for s in row[:2]] for row in rows]
        return cls(tuple(place), np.array(pairs), np.array([row[2] for row in rows], dtype=float))

    def select(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> SentencePairs:
        """Some of the pairs, given by their places or a mask, and the sentences these need."""
        pairs = self.pairs[chosen]
        return SentencePairs.of(
            (self.sentences[i], self.sentences[j], float(score))
            for (i, j), score in zip(pairs.tolist(), self.scores[chosen], strict=True)
        )

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        return f"SentencePairs({len(self)} pairs of {len(self.sentences)} sentences)"


def load_sts(path: str | Path, form: str) -> SentencePairs:
    """Read a file of graded sentence pairs; quotation marks are ordinary characters there.

    Parameters
    ----------
    path : path
        Tab-separated text in UTF-8.
    form : {"stsb", "sick", "chinese"}
        "stsb": genre, file, year, id, score 0 … 5, two sentences; what follows is ignored.
        "sick": a head line, then id, two sentences, relatedness 1 … 5; the rest is ignored.
        "chinese" (ATEC, BQ, LCQMC, PAWSX): two sentences, label 0 or 1 (5 grades in STS-B's
        translation).

    Returns
    -------
    SentencePairs

    Raises
    ------
    SentencePairsError
        If there is no such file or a line is not of that form; the message says which.
    """
    check.choice(form, "form", FORMS)
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = error.strerror or error
        raise SentencePairsError(f"`path` {path} cannot be read: {reason}") from error
    except UnicodeDecodeError as error:
        raise SentencePairsError(f"`path` {path} must be text in UTF-8: {error}") from error
    rows = list(_rows(text, form, path))
    if not rows:
        raise SentencePairsError(f"`path` {path} holds no pairs")
    return SentencePairs.of(rows)


def fetch_stsb(folder: str | Path, *, url: str = STSB_URL, timeout: float = 20.0) -> Path:
    """Download the STS benchmark once; what is already there is not fetched again.

    Parameters
    ----------
    folder : path
        Where the files go; made if it is missing.
    url : str
        Of the archive.
    timeout : float
        Seconds without an answer after which the attempt ends.

    Returns
    -------
    Path
        Of the folder, with ``sts-train.csv``, ``sts-dev.csv`` and ``sts-test.csv`` in it; read one
        with ``load_sts(folder / "sts-dev.csv", "stsb")``.

    Raises
    ------
    SentencePairsError
        If the archive cannot be fetched, is none, or lacks a file, or the folder cannot be written.
        Nothing half written is left.
    """
    folder, timeout = Path(folder), check.number(timeout, "timeout", 0.0)
    if all((folder / name).is_file() for name in STSB_FILES):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # On the same disk as its goal, so that the last step is a renaming: each file comes whole.
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            found = _unpack(_download(url, Path(scratch), timeout), Path(scratch), url)
            for file in found:
                file.replace(folder / file.name)
    except OSError as error:
        reason = error.strerror or error
        raise SentencePairsError(f"`folder` {folder} cannot be written: {reason}") from error
    return folder


# --- parts ----------------------------------------------------------------------------------------


def _rows(text: str, form: str, path: Path) -> Iterator[tuple[str, str, float]]:
    first, second, score, head = FORMS[form]
    # Not splitlines: sentences may hold other characters that it takes for line ends.
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r")
        if (head and number == 1) or not line.strip():
            continue
        cells = line.split("\t")
        wanted = 1 + max(first, second, score)
        if len(cells) < wanted:
            raise SentencePairsError(
                f'`path` {path} must hold {wanted} columns or more for `form` "{form}", '
                f"got {len(cells)} in line {number}"
            )
        yield cells[first].strip(), cells[second].strip(), _score(cells[score], path, number)


def _score(cell: str, path: Path, number: int) -> float:
    try:
        score = float(cell)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise SentencePairsError(f"`path` {path} must hold a score, got {cell!r} in line {number}")
    return score


def _download(url: str, scratch: Path, timeout: float) -> Path:
    target = scratch / "archive"
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer, target.open("wb") as file:
            _copy(answer, file, url)
    # Not OSError: that may also come from the file; nor is an HTTPException one.
    except (
        *(urllib.error.URLError, http.client.HTTPException),
        *(TimeoutError, ConnectionError, ssl.SSLError, ValueError),
    ) as error:
        raise SentencePairsError(
            f"the STS benchmark cannot be fetched from {url} ({error}); without a network, put "
            f"{', '.join(STSB_FILES)} into the folder yourself"
        ) from error
    return target


def _copy(source: IO[bytes], target: IO[bytes], name: str) -> None:
    """Copy at most LARGEST bytes."""
    left = LARGEST
    while chunk := source.read(2**16):
        left -= len(chunk)
        if left < 0:
            raise SentencePairsError(f"{name} is larger than {LARGEST} bytes; it is not STS-B")
        target.write(chunk)


def _unpack(archive: Path, scratch: Path, url: str) -> list[Path]:
    """The three files, by their last names only: a path in the archive leads nowhere else."""
    found = []
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = Path(member.name).name
                if name in STSB_FILES and member.isfile():
                    found.append(_extract(tar, member, scratch / name))
    except (tarfile.TarError, EOFError) as error:
        raise SentencePairsError(f"what {url} sent is no whole archive: {error}") from error
    missing = sorted({*STSB_FILES} - {file.name for file in found})
    if missing:
        raise SentencePairsError(f"the archive of {url} holds no {', '.join(missing)}")
    return found


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> Path:
    content = tar.extractfile(member)
    if content is None:
        raise tarfile.TarError(f"{member.name} is no file")
    with content, target.open("wb") as file:
        _copy(content, file, member.name)
    return target
