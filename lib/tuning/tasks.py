"""Three tasks on windows of Python source, from near to pretraining to far from it.

- ``cloze``: one token is masked; which of 32 common tokens is it? What the trunk was trained for.
- ``partner``: an opening bracket is masked; point at the bracket that closes it. There are closing
  brackets in between, one of them in half of the examples and more in the other half: pointing at
  the first one is always wrong, at the second one half of the time.
- ``package``: which of four packages of the standard library is the window from?

Examples to train on come from the training part of `lib.tuning.corpus`, those to test on from its
test part: different files, none of them seen in pretraining. Everything is drawn by fixed
generators, so a task is always the same for one version of Python. `lib.tuning.rates.held_out` cuts
the training part in two, for choosing settings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib import _checks as check
from lib.data.stdlib_text import CorpusError
from lib.tuning.corpus import LENGTH, SPECIAL, Corpus, read_corpus
from lib.tuning.trunk import stored_words

__all__ = ["CHOICES", "PACKAGES", "TASKS", "Examples", "Task", "make_task"]

Ints = NDArray[np.int64]

CHOICES = 32  # classes of a cloze

# The four largest packages; every installation of Python has them.
PACKAGES = ("asyncio", "email", "multiprocessing", "xml")

OPENING, CLOSING = "([{", ")]}"
STRIDE = 8  # tokens between the starts of two windows that a package's examples are drawn from

PURPOSE = 41  # of the generators


class Examples(NamedTuple):
    """One half of a task.

    Attributes
    ----------
    tokens : Tensor of int64, shape (N, n)
    places : Tensor of int64, shape (N,)
        The place in question; 0 where the whole window is.
    targets : Tensor of int64, shape (N,)
        Class, or the place that is pointed at.
    """

    tokens: Tensor
    places: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Task:
    """A task with two halves from different files.

    Attributes
    ----------
    name : str
    head : {"position", "point", "pooled"}
        What answers it, see `lib.tuning.methods`.
    classes : int
        Possible targets.
    labels : tuple of str
        Names of the classes; empty where targets are places.
    train, test : Examples
    """

    name: str
    head: str
    classes: int
    labels: tuple[str, ...]
    train: Examples
    test: Examples


class _Part(NamedTuple):
    """Files of one part, one after another."""

    tokens: Ints  # shape (m,)
    begin: Ints  # where the file of each token begins, shape (m,)
    end: Ints  # where it ends


def make_task(
    name: str,
    *,
    train: int = 1000,
    test: int = 1000,
    length: int = LENGTH,
    root: str | Path | None = None,
    corpus: Corpus | None = None,
) -> Task:
    """Make one of the tasks.

    Parameters
    ----------
    name : {"cloze", "partner", "package"}
    train, test : int
        Examples of each half. Classes (for ``partner``: one bracket in between or several) take
        turns, so they are balanced in the first few examples, too.
    length : int
        Tokens of a window, n.
    root : path, optional
        Folder to read instead of the running interpreter's own library.
    corpus : Corpus, optional
        Read already, and in other words if you like; unless given, the files are read in the words
        of the trunk that comes with the book.

    Returns
    -------
    Task

    Raises
    ------
    lib.data.stdlib_text.CorpusError
        If the sources are missing, or do not hold as many examples; the message says which kind.
    FileNotFoundError, ValueError
        If the trunk's file is missing or damaged.
    """
    check.choice(name, "name", TASKS)
    for argument, value in (("train", train), ("test", test)):
        check.whole(value, argument, 1)
    check.whole(length, "length", 2)
    if corpus is None:
        corpus = read_corpus(stored_words(), root=root)
    elif root is not None:
        raise ValueError("`root` must not be given together with `corpus`, which is read already")
    elif not isinstance(corpus, Corpus):
        raise TypeError(f"`corpus` must be a lib.tuning.corpus.Corpus, got {type(corpus).__name__}")
    kind = TASKS[name]
    halves = []
    for i, (part, count) in enumerate((("training", train), ("test", test))):
        rng = np.random.default_rng([PURPOSE, list(TASKS).index(name), i])
        drawn = kind.draw(corpus, part, count, length, rng)
        halves.append(Examples(*(torch.from_numpy(x) for x in drawn)))
    labels = kind.labels(corpus)
    return Task(name, kind.head, len(labels) or length, labels, *halves)


# --- the three ------------------------------------------------------------------------------------

Drawn = tuple[Ints, Ints, Ints]


def _cloze(corpus: Corpus, part: str, count: int, length: int, rng: np.random.Generator) -> Drawn:
    text = _joined(corpus, part, length)
    labels = _common(corpus)
    where = {word: np.flatnonzero(text.tokens == corpus.words.index(word)) for word in labels}
    place, targets = _turns(where, count, part, rng)
    start = _starts(text, place, place, length, rng)
    tokens = _cut(text, start, length)
    places = place - start
    tokens[np.arange(count), places] = corpus.mask
    return tokens, places, targets


def _partner(corpus: Corpus, part: str, count: int, length: int, rng: np.random.Generator) -> Drawn:
    text = _joined(corpus, part, length)
    pairs = _pairs(text, corpus.words)
    pairs = pairs[(pairs[:, 2] > 0) & (pairs[:, 1] - pairs[:, 0] < length)]
    kinds = {
        "a bracket around one": np.flatnonzero(pairs[:, 2] == 1),
        "a bracket around several": np.flatnonzero(pairs[:, 2] > 1),
    }
    mine, _ = _turns(kinds, count, part, rng)
    opening, closing = pairs[mine, 0], pairs[mine, 1]
    start = _starts(text, opening, closing, length, rng)
    tokens = _cut(text, start, length)
    places = opening - start
    tokens[np.arange(count), places] = corpus.mask
    return tokens, places, closing - start


def _package(corpus: Corpus, part: str, count: int, length: int, rng: np.random.Generator) -> Drawn:
    text = _joined(corpus, part, length)
    names = [s.name.partition("/")[0] for s in corpus.part(part) if len(s.tokens) >= length]
    first = np.unique(text.begin)
    starts = {name: [] for name in PACKAGES}
    for name, begin in zip(names, first, strict=True):
        if name in starts:
            starts[name].append(np.arange(begin, text.end[begin] - length + 1, STRIDE))
    empty = np.empty(0, dtype=np.int64)
    where = {name: np.concatenate([empty, *some]) for name, some in starts.items()}
    start, targets = _turns(where, count, part, rng)
    return _cut(text, start, length), np.zeros(count, dtype=np.int64), targets


def _common(corpus: Corpus) -> tuple[str, ...]:
    """The commonest words that are no marks; words come in the order of how common they are."""
    return tuple(word for word in corpus.words if word not in SPECIAL)[:CHOICES]


class _Kind(NamedTuple):
    head: str
    draw: Callable[[Corpus, str, int, int, np.random.Generator], Drawn]
    labels: Callable[[Corpus], tuple[str, ...]]


TASKS = {
    "cloze": _Kind("position", _cloze, _common),
    "partner": _Kind("point", _partner, lambda corpus: ()),
    "package": _Kind("pooled", _package, lambda corpus: PACKAGES),
}


# --- shared ---------------------------------------------------------------------------------------


def _joined(corpus: Corpus, part: str, length: int) -> _Part:
    """The files of a part that hold a window, one after another."""
    rows = [s.tokens for s in corpus.part(part) if len(s.tokens) >= length]
    if not rows:
        raise CorpusError(f"no file of the {part} part holds {length} tokens")
    sizes = np.array([len(row) for row in rows])
    ends = np.cumsum(sizes)
    return _Part(np.concatenate(rows), np.repeat(ends - sizes, sizes), np.repeat(ends, sizes))


def _turns(
    where: dict[str, Ints], count: int, part: str, rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """Draw from each kind in turn, nothing twice: what is drawn and the number of its kind."""
    kinds = np.arange(count) % len(where)
    drawn = np.empty(count, dtype=np.int64)
    for k, (name, candidates) in enumerate(where.items()):
        mine = kinds == k
        if len(candidates) < mine.sum():
            raise CorpusError(
                f"the {part} part has {len(candidates)} examples of {name!r}, {mine.sum()} are "
                "wanted: ask for fewer, or read a complete standard library"
            )
        drawn[mine] = rng.choice(candidates, mine.sum(), replace=False)
    return drawn, kinds


def _starts(text: _Part, first: Ints, last: Ints, length: int, rng: np.random.Generator) -> Ints:
    """Where windows begin that hold the places from `first` to `last`, anywhere in them."""
    low = np.maximum(text.begin[first], last - length + 1)
    high = np.minimum(first, text.end[first] - length)
    return rng.integers(low, high, endpoint=True)


def _cut(text: _Part, start: Ints, length: int) -> Ints:
    return text.tokens[start[:, None] + np.arange(length)]


def _pairs(text: _Part, words: Sequence[str]) -> Ints:
    """Brackets that belong together, a row each: opening, closing, closing ones in between."""
    kind = np.zeros(len(words), dtype=np.int64)  # +k opens, -k closes
    for k, (a, b) in enumerate(zip(OPENING, CLOSING, strict=True), start=1):
        for sign, bracket in ((k, a), (-k, b)):
            if bracket in words:
                kind[words.index(bracket)] = sign
    signs = kind[text.tokens]
    found: list[tuple[int, int, int]] = []
    open_: list[tuple[int, int, int]] = []  # place, kind, closing brackets before it
    closed, end = 0, 0
    for place in np.flatnonzero(signs).tolist():
        if place >= end:  # another file
            open_.clear()
            end = text.end[place]
        sign = int(signs[place])
        if sign > 0:
            open_.append((place, sign, closed))
            continue
        if open_ and open_[-1][1] == -sign:
            opening, _, before = open_.pop()
            found.append((opening, place, closed - before))
        else:  # not what the file's grammar allows: a string was misread
            open_.clear()
        closed += 1
    return np.array(found, dtype=np.int64).reshape(-1, 3)
