"""Real code with a number for every token: its column, and the depth of brackets around it.

Windows are cut at random places of the standard library's source, so both numbers are counted from
the window's start: whoever sees the window has all that it takes to know them. To count columns one
must tell equal tokens apart; code has runs of them, since a line's indentation is one token per
space. `code_tokens` reads the source as words; `lib.data.stdlib_text.characters` gives characters,
whose windows can be cut and numbered here as well. Nothing is downloaded. Left out: what brackets
mean; those in strings and comments count too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib import _checks as check
from lib.data.stdlib_text import CorpusError, Split, stdlib_text

__all__ = [
    "CLASSES",
    "CodeWindows",
    "bracket_depth",
    "code_tokens",
    "code_windows",
    "columns",
    "leading_run",
    "run_shares",
]

Ints = NDArray[np.int64]

CLASSES = ("<name>", "<number>", "<other>")  # what a rare word, number or mark becomes
OPENING, CLOSING, NEWLINE, SPACE = "([{", ")]}", "\n", " "
_ALWAYS = (*OPENING, *CLOSING, NEWLINE, SPACE, *CLASSES)
_WORD = re.compile(r"[^\W\d]\w*|\d+|[^\w\s]")


@dataclass(frozen=True)
class CodeWindows:
    """Windows of code with their numbers.

    Attributes
    ----------
    tokens : ndarray of int64, shape (B, n)
    column : ndarray of int64, shape (B, n)
        Tokens since the last newline, or since the window's start.
    depth : ndarray of int64, shape (B, n)
        Brackets opened less brackets closed since the window's start, the token itself included.
    run : ndarray of int64, shape (B,)
        How many equal tokens the window starts with; n if it holds nothing else.
    """

    tokens: Ints
    column: Ints
    depth: Ints
    run: Ints


def code_tokens(
    root: str | Path | None = None, *, vocabulary: int = 256, test_share: float = 0.2
) -> Split:
    """The standard library as words, marks, newlines and the single spaces that lines start with.

    Parameters
    ----------
    root : path, optional
        Folder to read instead of the running interpreter's own library.
    vocabulary : int, default=256
        Different tokens. Brackets, newline, space and three classes are always among them, the
        rest are the most frequent words and marks of the training half; any other becomes the
        class "<name>", "<number>" or "<other>".
    test_share : float in (0, 1)
        As in `lib.data.stdlib_text.stdlib_text`.

    Returns
    -------
    Split

    Raises
    ------
    CorpusError
        If the sources are missing, or hold fewer different tokens than that.
    """
    vocabulary = check.whole(vocabulary, "vocabulary", len(_ALWAYS) + 1)
    train, test = (list(_words(text)) for text in stdlib_text(root, test_share=test_share))
    frequent = [w for w, _ in Counter(train).most_common(vocabulary) if w not in _ALWAYS]
    symbols = (*_ALWAYS, *frequent[: vocabulary - len(_ALWAYS)])
    if len(symbols) < vocabulary:
        raise CorpusError(
            f"`vocabulary` is {vocabulary}, but the training half holds only "
            f"{len(symbols)} different tokens"
        )
    number = {word: i for i, word in enumerate(symbols)}
    for word in {*train, *test} - number.keys():
        number[word] = number[_class(word)]
    train, test = (np.array([number[w] for w in half], dtype=np.int64) for half in (train, test))
    return Split(train, test, symbols)


def code_windows(
    text: Split,
    rng: np.random.Generator,
    *,
    length: int = 32,
    count: int = 256,
    half: str = "train",
    run: int = 1,
    deepest: int = 4,
) -> CodeWindows:
    """Draw windows at random places.

    Parameters
    ----------
    text : Split
        From `code_tokens`, or `lib.data.stdlib_text.characters`.
    rng : numpy.random.Generator
    length, count : int
        Tokens per window n, number of windows B.
    half : {"train", "test"}
    run : int, default=1
        Only windows that start with at least so many equal tokens.
    deepest : int, default=4
        Depths are clipped to -deepest … deepest.

    Returns
    -------
    CodeWindows

    Raises
    ------
    ValueError
        If there is no such window.
    """
    rng = check.rng(rng)
    length = check.whole(length, "length", 1)
    count = check.whole(count, "count", 1)
    run = check.whole(run, "run", 1, length)
    deepest = check.whole(deepest, "deepest", 1)
    ids = _half(text, half)
    last = len(ids) - length + 1  # places where a window can start
    if last < 1:
        raise ValueError(f"`length` must be at most {len(ids)}, the tokens there are, got {length}")
    if run == 1:
        start = rng.integers(0, last, count)
    else:
        places = np.flatnonzero(_run_from_here(ids)[:last] >= run)
        if not len(places):
            raise ValueError(f"`run`: no window of {length} starts with {run} equal tokens")
        start = rng.choice(places, count)
    tokens = ids[start[:, None] + np.arange(length)]  # (B, n)
    depth = bracket_depth(tokens, text.symbols).clip(-deepest, deepest)
    return CodeWindows(tokens, columns(tokens, text.symbols), depth, leading_run(tokens))


def columns(tokens: Ints, symbols: tuple[str, ...]) -> Ints:
    """Tokens since the last newline, or since the start of the row; a newline ends its own line.

    Parameters
    ----------
    tokens : ndarray of int64, shape (B, n)
    symbols : tuple of str
        What each number stands for; a newline must be among them.

    Returns
    -------
    ndarray of int64, shape (B, n)
    """
    if NEWLINE not in symbols:
        raise ValueError("`symbols` must hold a newline")
    tokens = _rows(tokens)
    place = np.arange(tokens.shape[1])
    first = np.zeros_like(tokens)  # where the token's line starts
    first[:, 1:] = np.where(tokens[:, :-1] == symbols.index(NEWLINE), place[1:], 0)
    return place - np.maximum.accumulate(first, axis=1)


def bracket_depth(tokens: Ints, symbols: tuple[str, ...]) -> Ints:
    """Brackets opened less brackets closed since the start of the row, the token itself included.

    Negative where the row closes what was opened before it.

    Parameters
    ----------
    tokens, symbols
        As in `columns`.

    Returns
    -------
    ndarray of int64, shape (B, n)
    """
    step = np.array([(s in tuple(OPENING)) - (s in tuple(CLOSING)) for s in symbols])
    return step[_rows(tokens)].cumsum(axis=1)


def leading_run(tokens: Ints) -> Ints:
    """How many equal tokens each row starts with, shape (B,)."""
    tokens = _rows(tokens)
    other = tokens != tokens[:, :1]
    return np.where(other.any(axis=1), other.argmax(axis=1), tokens.shape[1])


def run_shares(text: Split, lengths: tuple[int, ...], *, half: str = "train") -> dict[int, float]:
    """Share of all windows that hold a single token, again and again, for each length.

    Parameters
    ----------
    text : Split
    lengths : sequence of int
    half : {"train", "test"}

    Returns
    -------
    dict
        From a length to a share.
    """
    ids = _half(text, half)
    run = _run_from_here(ids)
    lengths = [check.whole(n, "lengths", 1, len(ids)) for n in lengths]
    return {n: float((run[: len(ids) - n + 1] >= n).mean()) for n in lengths}


def _words(text: str) -> Iterator[str]:
    for line in text.split(NEWLINE):
        rest = line.lstrip(SPACE)
        yield from SPACE * (len(line) - len(rest))
        yield from _WORD.findall(rest)
        yield NEWLINE


def _class(word: str) -> str:
    if word.isdigit():
        return "<number>"
    return "<name>" if word.isidentifier() else "<other>"


def _run_from_here(ids: Ints) -> Ints:
    """How many tokens from each place on, itself included, are equal to it."""
    ends = np.flatnonzero(np.append(ids[1:] != ids[:-1], True))  # last place of each run
    return np.repeat(ends, np.diff(ends, prepend=-1)) - np.arange(len(ids)) + 1


# --- what a caller hands in -----------------------------------------------------------------------


def _half(text: Split, half: str) -> Ints:
    if not isinstance(text, Split):
        raise TypeError(f"`text` must be a Split, got {type(text).__name__}")
    return getattr(text, check.choice(half, "half", ("train", "test")))


def _rows(tokens: Ints) -> Ints:
    array = np.asarray(tokens)
    if array.dtype.kind not in "iu" or array.ndim != 2 or array.size == 0:
        raise ValueError(
            "`tokens` must be whole numbers of shape (B, n), "
            f"got {array.dtype} of shape {array.shape}"
        )
    return array
