"""Real text that every reader already has: the source of Python's own standard library.

Files of the running interpreter are read from disk, split by file into a training and a test
half (80 % and 20 % of the files), and turned into symbol numbers: characters (a fixed alphabet of
97 symbols) or tokens (words, numbers and punctuation, the most frequent ones of the training
half).  Nothing is downloaded.  The split hashes the file's name, so a file stays on its side
whatever else a Python version adds or removes; the text itself is that of the installed
version.  Left out: test suites, and packages that some distributions leave out or that are
generated tables (see `SKIPPED`).
"""

from __future__ import annotations

import os
import re
import sysconfig
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ALPHABET",
    "SKIPPED",
    "CorpusError",
    "Split",
    "Vocabulary",
    "character_ids",
    "characters",
    "stdlib_files",
    "stdlib_text",
    "tokenize_text",
    "tokens",
]

# Folders that are no part of the corpus, wherever they stand: tests, third-party packages,
# parts that Debian, Alpine and the Windows installer ship separately, tables of code points.
SKIPPED = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
    | {"idlelib", "lib2to3", "tkinter", "turtledemo", "distutils", "ensurepip"}
    | {"encodings", "pydoc_data"}
)

# The symbol after the last one of ALPHABET stands for every other character.
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))

_OTHER = "\N{REPLACEMENT CHARACTER}"
_TOKEN = re.compile(r"[A-Za-z_]\w*|\d+|[^\w\s]")


class CorpusError(RuntimeError):
    """The standard library's sources cannot be read on this installation."""


@dataclass(frozen=True)
class Split:
    """Symbol numbers of two texts that share no file.

    Attributes
    ----------
    train, test : ndarray of int64, shape (length,)
        The files of each half, one after another in the order of their names.
    symbols : tuple of str
        What each number stands for; ``len(symbols)`` numbers exist.
    """

    train: NDArray[np.int64]
    test: NDArray[np.int64]
    symbols: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of different symbols."""
        return len(self.symbols)


@dataclass(frozen=True)
class Vocabulary:
    """The symbols that are kept, most frequent first; all others are dropped.

    Attributes
    ----------
    symbols : tuple of str
        Different symbols; a symbol's place is its number.
    """

    symbols: tuple[str, ...]

    @classmethod
    def most_frequent(cls, words: Sequence[str], size: int) -> Vocabulary:
        """Keep the `size` most frequent of `words`; equally frequent ones in order of the text."""
        if size < 1:
            raise ValueError(f"`size` must be at least 1, got {size}")
        return cls(tuple(word for word, _ in Counter(words).most_common(size)))

    def encode(self, words: Sequence[str]) -> NDArray[np.int64]:
        """Numbers of `words`, those without a number left out; shape (at most len(words),)."""
        number = {word: i for i, word in enumerate(self.symbols)}
        return np.array([number[word] for word in words if word in number], dtype=np.int64)


def stdlib_files(root: str | Path | None = None) -> tuple[Path, ...]:
    """Source files of the standard library, sorted by name.

    Parameters
    ----------
    root : path, optional
        Folder to read instead of the running interpreter's own library.

    Raises
    ------
    CorpusError
        If there is no such folder (a Python that imports its library from a zip file) or it
        holds no sources (a Python stripped down to compiled files).
    """
    folder = Path(sysconfig.get_paths()["stdlib"] if root is None else root)
    if not folder.is_dir():
        raise CorpusError(
            f"no standard-library folder at {folder}: this Python seems to import its library "
            "from a zip file; hand in `root`, a folder with Python sources"
        )
    files = tuple(sorted(_sources(folder), key=lambda path: path.relative_to(folder).as_posix()))
    if not files:
        raise CorpusError(
            f"no Python sources below {folder}: this Python seems to be stripped to compiled "
            "files; hand in `root`, a folder with Python sources"
        )
    return files


def stdlib_text(root: str | Path | None = None, *, test_share: float = 0.2) -> tuple[str, str]:
    """Training and test text of the standard library, split by file.

    Parameters
    ----------
    root : path, optional
        Folder to read instead of the running interpreter's own library.
    test_share : float in (0, 1)
        Share of the *files* that go to the test half, decided by a checksum of their names.

    Returns
    -------
    train, test : str

    Raises
    ------
    CorpusError
        If the sources are missing or one of the halves comes out empty.
    """
    if not 0.0 < test_share < 1.0:
        raise ValueError(f"`test_share` must lie strictly between 0 and 1, got {test_share}")
    halves: dict[bool, list[str]] = {False: [], True: []}
    files = stdlib_files(root)
    folder = Path(sysconfig.get_paths()["stdlib"] if root is None else root)
    for path in files:
        is_test = _is_test(path.relative_to(folder).as_posix(), test_share)
        halves[is_test].append(path.read_text(encoding="utf-8", errors="replace"))
    train, test = "\n".join(halves[False]), "\n".join(halves[True])
    if not train or not test:
        empty = "training" if not train else "test"
        raise CorpusError(
            f"the {empty} half is empty: {len(files)} files below {folder} at "
            f"`test_share` {test_share}"
        )
    return train, test


def character_ids(text: str) -> NDArray[np.int64]:
    """Number of each character in `ALPHABET`; every other character is ``len(ALPHABET)``.

    Parameters
    ----------
    text : str

    Returns
    -------
    ndarray of int64, shape (len(text),)
    """
    other = len(ALPHABET)
    table = np.full(128, other, dtype=np.int64)
    table[np.frombuffer(ALPHABET.encode("ascii"), dtype=np.uint8)] = np.arange(other)
    points = np.frombuffer(text.encode("utf-32-le", errors="replace"), dtype=np.uint32)
    return np.where(points < 128, table[np.minimum(points, 127)], other)


def tokenize_text(text: str) -> list[str]:
    """Names, numbers and single punctuation marks of a source text, without its white space."""
    return _TOKEN.findall(text)


def characters(root: str | Path | None = None, *, test_share: float = 0.2) -> Split:
    """The standard library as characters: 97 symbols, the last one for "any other".

    Parameters
    ----------
    root, test_share
        As in `stdlib_text`.
    """
    train, test = stdlib_text(root, test_share=test_share)
    return Split(character_ids(train), character_ids(test), (*ALPHABET, _OTHER))


def tokens(
    root: str | Path | None = None, *, vocabulary: int = 2048, test_share: float = 0.2
) -> Split:
    """The standard library as tokens: the most frequent ones of the training half.

    Parameters
    ----------
    root, test_share
        As in `stdlib_text`.
    vocabulary : int
        How many different tokens are kept; rarer ones are dropped from both halves.

    Raises
    ------
    CorpusError
        If the training half holds fewer different tokens than that.
    """
    train, test = (tokenize_text(text) for text in stdlib_text(root, test_share=test_share))
    kept = Vocabulary.most_frequent(train, vocabulary)
    if len(kept.symbols) < vocabulary:
        raise CorpusError(
            f"`vocabulary` is {vocabulary}, but the training half holds only "
            f"{len(kept.symbols)} different tokens"
        )
    return Split(kept.encode(train), kept.encode(test), kept.symbols)


def _sources(folder: Path) -> Iterator[Path]:
    """Hand-written library code below `folder`; skipped folders are not even entered."""
    for place, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if f not in SKIPPED and not f.startswith("config-")]
        for name in names:
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                yield Path(place, name)


def _is_test(name: str, test_share: float) -> bool:
    """Decide a file's half by its name alone: the same on every machine and version."""
    return zlib.crc32(name.encode()) < test_share * 2**32
