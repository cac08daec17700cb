"""The standard library as windows of tokens: what the trunk is pretrained on and tasks are made of.

`tokenize_source` reads Python source roughly, by one regular expression: names, numbers, operators,
a mark for every string, and marks for ends of lines and for indentation. Comments are dropped. The
commonest tokens of the pretraining files are words of their own; every other token is replaced by
its shape, such as ``<Name>`` for one that starts with a capital.

Files are dealt to three parts by a checksum of their names: about half to pretrain on, a quarter to
train tasks on, a quarter to test on. So a file stays in its part on every machine and in every
Python version, and no text of a task was seen in pretraining.

Which files count is said by `lib.data.stdlib_text`. Left out: an exact tokenizer (an expression
inside an f-string counts as string), syntax trees.
"""

from __future__ import annotations

import re
import sysconfig
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib import _checks as check
from lib.data.stdlib_text import CorpusError, stdlib_files

__all__ = [
    "LENGTH",
    "MASK",
    "PARTS",
    "SHAPES",
    "SPECIAL",
    "Corpus",
    "Source",
    "common_words",
    "encode",
    "part_of",
    "read_corpus",
    "shape_of",
    "tokenize_source",
    "windows",
]

Ints = NDArray[np.int64]

LENGTH = 64  # tokens of a window
COMMON = 1500  # tokens that are words of their own

PARTS = ("pretraining", "training", "test")
_UP_TO = (0.5, 0.75)  # share of the files in the first part, and in the first two

# The first number whose checksums leave each of the four largest packages a fifth of its tokens for
# training tasks, a fifth for testing and 35 % for pretraining (counted in Python 3.11).
_SALT = 916

MASK = "<mask>"
STRING, LINE, INDENT, DEDENT = "<str>", "<line>", "<in>", "<out>"
SHAPES = ("<name>", "<Name>", "<NAME>", "<_name>", "<num>", "<other>")
SPECIAL = (MASK, *SHAPES, STRING, LINE, INDENT, DEDENT)

_TOKEN = re.compile(
    r"""
      (?:[ \t\f]*(?:\#[^\n]*)?\n)+ [ \t\f]*      # an end of line, blank lines, the next indentation
    | \#[^\n]* | \\\n                            # a comment, a line that goes on
    | (?:[rRbBuUfFtT]{1,2})? (?: \"{3} (?:[^\\]|\\.)*? \"{3} | '{3} (?:[^\\]|\\.)*? '{3}
                             | \"(?:[^"\\\n]|\\.)*\" | '(?:[^'\\\n]|\\.)*' )
    | [^\W\d]\w*
    | 0[xXoObB][\da-fA-F_]+ | (?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?[jJ]?
    | \.\.\. | -> | := | (?:\*\*|//|>>|<<)=? | [-+*/%&|^@<>=!]= | [^\s\w]
    """,
    re.VERBOSE | re.DOTALL,
)


class Source(NamedTuple):
    """A file as tokens."""

    name: str  # below the library's folder, with slashes
    tokens: Ints  # shape (its length,)


@dataclass(frozen=True)
class Corpus:
    """The library's files in the numbers of some words.

    Attributes
    ----------
    words : tuple of V str
        A word's place is its token.
    pretraining, training, test : tuple of Source
        The three parts, each in the order of its names.
    """

    words: tuple[str, ...]
    pretraining: tuple[Source, ...]
    training: tuple[Source, ...]
    test: tuple[Source, ...]

    @property
    def mask(self) -> int:
        """The token that hides another."""
        return self.words.index(MASK)

    def part(self, name: str) -> tuple[Source, ...]:
        """One of the three parts."""
        return getattr(self, check.choice(name, "name", PARTS))

    def windows(self, part: str, length: int = LENGTH, step: int | None = None) -> Tensor:
        """Windows of all files of a part, see :func:`windows`; int64, shape (N, length)."""
        cut = [windows(source.tokens, length, step) for source in self.part(part)]
        found = np.concatenate(cut) if cut else np.empty((0, length), dtype=np.int64)
        if not len(found):
            raise CorpusError(f"no file of the {part} part holds {length} tokens")
        return torch.from_numpy(found)


# --- text to tokens -------------------------------------------------------------------------------


def tokenize_source(text: str) -> list[str]:
    """Tokens of Python source; works on broken source too.

    Parameters
    ----------
    text : str

    Returns
    -------
    list of str
        Names, numbers and operators as they are; ``<str>`` for a string. A logical line ends with
        one of: ``<line>``; ``<in>``, if the next one is indented further; ``<out>`` for every level
        that ends.

    Examples
    --------
    >>> " ".join(tokenize_source("if x:  # why\\n    return 'no'\\ny = (1,\\n     2)\\n"))
    'if x : <in> return <str> <out> y = ( 1 , 2 ) <line>'
    """
    if not isinstance(text, str):
        raise TypeError(f"`text` must be a string, got {type(text).__name__}")
    found: list[str] = []
    depth, levels = 0, [0]  # open brackets, widths of the indentations that are open
    for token in _TOKEN.findall(text + "\n"):
        first, last = token[0], token[-1]
        if last in "\"'":
            found.append(STRING)
        elif "\n" in token:
            if depth == 0 and first != "\\" and found:
                _end_line(found, levels, token.rpartition("\n")[2])
        elif first in "([{":
            depth += 1
            found.append(token)
        elif first in ")]}":
            depth = max(0, depth - 1)
            found.append(token)
        elif first != "#":
            found.append(token)
    return found


def _end_line(found: list[str], levels: list[int], space: str) -> None:
    """Put down how a line ends, given the white space before the next one."""
    width = len(space.expandtabs())
    if width > levels[-1]:
        levels.append(width)
        found.append(INDENT)
        return
    if width == levels[-1]:
        found.append(LINE)
    while width < levels[-1]:
        levels.pop()
        found.append(DEDENT)


def shape_of(token: str) -> str:
    """What stands for a token that is no word: one of `SHAPES`.

    Examples
    --------
    >>> [shape_of(t) for t in ("spam", "Spam", "SPAM", "_spam", "17", "@=")]
    ['<name>', '<Name>', '<NAME>', '<_name>', '<num>', '<other>']
    """
    if token[:1].isdigit() or (token[:1] == "." and token[1:2].isdigit()):
        return "<num>"
    if not token.isidentifier():
        return "<other>"
    if token.startswith("_"):
        return "<_name>"
    if token.isupper():
        return "<NAME>"
    return "<Name>" if token[0].isupper() else "<name>"


def common_words(files: Iterable[Sequence[str]], size: int = COMMON) -> tuple[str, ...]:
    """Words for the tokens of some files: marks and shapes, then the commonest tokens.

    Parameters
    ----------
    files : iterable of sequences of str
        Of :func:`tokenize_source`.
    size : int
        How many tokens become words, fewer if there are not as many; equally common ones in the
        order of the alphabet.

    Returns
    -------
    tuple of str
        `MASK` is the first.
    """
    check.whole(size, "size", 1)
    count: Counter[str] = Counter()
    for tokens in files:
        count.update(tokens)
    for word in SPECIAL:
        del count[word]
    ranked = sorted(count, key=lambda token: (-count[token], token))
    return (*SPECIAL, *ranked[:size])


def encode(tokens: Sequence[str], words: Sequence[str]) -> Ints:
    """Numbers of tokens: that of the word, or that of its shape.

    Parameters
    ----------
    tokens : sequence of n str
    words : sequence of V str
        Different ones, with all shapes among them.

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    return _encode(tokens, _numbers(words))


def _numbers(words: Sequence[str]) -> dict[str, int]:
    number = {word: i for i, word in enumerate(words)}
    if len(number) != len(words):
        raise ValueError("`words` must be different strings, one comes twice")
    missing = [word for word in SPECIAL if word not in number]
    if missing:
        raise ValueError(f"`words` must hold {', '.join(SPECIAL)}; missing: {', '.join(missing)}")
    return number


def _encode(tokens: Sequence[str], number: dict[str, int]) -> Ints:
    """The same; what is learned about a token's shape is kept in `number`, a private copy."""
    for token in set(tokens).difference(number):
        number[token] = number[shape_of(token)]
    return np.fromiter(map(number.__getitem__, tokens), dtype=np.int64, count=len(tokens))


# --- files to parts, parts to windows -------------------------------------------------------------


def part_of(name: str) -> str:
    """Part of a file, one of `PARTS`, by its name alone.

    Parameters
    ----------
    name : str
        Below the library's folder, with slashes, such as "json/decoder.py".
    """
    draw = zlib.crc32(f"{_SALT}:{name}".encode()) / 2**32
    return PARTS[sum(draw >= bound for bound in _UP_TO)]


def read_corpus(
    words: Sequence[str] | None = None, *, root: str | Path | None = None, size: int = COMMON
) -> Corpus:
    """Read the library's files from disk.

    Parameters
    ----------
    words : sequence of str, optional
        Those of a trunk, see :func:`lib.tuning.stored_words`. Unless given, they are counted in the
        pretraining part.
    root : path, optional
        Folder to read instead of the running interpreter's own library.
    size : int
        Tokens that become words, where words are counted.

    Returns
    -------
    Corpus

    Raises
    ------
    lib.data.stdlib_text.CorpusError
        If the sources are missing or a part comes out empty.
    ValueError
        If words lack a mark or a shape, or one comes twice.
    """
    folder = Path(sysconfig.get_paths()["stdlib"] if root is None else root)
    check.whole(size, "size", 1)
    given = None if words is None else _numbers(words)
    parts: dict[str, dict[str, list[str]]] = {part: {} for part in PARTS}
    for path in stdlib_files(folder):
        name = path.relative_to(folder).as_posix()
        text = path.read_text(encoding="utf-8", errors="replace")
        parts[part_of(name)][name] = tokenize_source(text)
    for part, files in parts.items():
        if not any(files.values()):
            raise CorpusError(f"the {part} part is empty: too few Python sources below {folder}")
    if words is None:
        words = common_words(parts["pretraining"].values(), size)
        given = _numbers(words)
    sources = (
        tuple(Source(name, _encode(tokens, given)) for name, tokens in parts[part].items())
        for part in PARTS
    )
    return Corpus(tuple(words), *sources)


def windows(tokens: Ints, length: int = LENGTH, step: int | None = None) -> Ints:
    """Full windows of a row of tokens; what is left over at the end is dropped.

    Parameters
    ----------
    tokens : ndarray of int64, shape (m,)
    length : int
        Tokens of a window, n.
    step : int, optional
        From the start of one window to that of the next; `length` unless given.

    Returns
    -------
    ndarray of int64, shape (N, n)
        A copy; N is 0 for m < n.
    """
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise ValueError(
            f"`tokens` must be one row of whole numbers, got {tokens.dtype} of shape {tokens.shape}"
        )
    check.whole(length, "length", 1)
    step = length if step is None else check.whole(step, "step", 1)
    if len(tokens) < length:
        return np.empty((0, length), dtype=np.int64)
    view = np.lib.stride_tricks.sliding_window_view(tokens, length)[::step]
    return view.astype(np.int64)
