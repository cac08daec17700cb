"""Real nested spans that every reader already has: the expressions of Python's own library.

One simple statement of the standard library's source is one sentence; its tokens are those of
`tokenize`, without comments and line ends, and a string is a single token. Its spans are the
expressions that `ast` finds in it: calls, subscripts, comprehensions, strings and more (`KINDS`).
They nest by nature, and two of them never cross. Nothing is downloaded. Files are drawn by a hash
of their names and split by another one, so no file stands in both halves; a sentence that reads
the same to a model stands in the data once. Left out: the heads of compound statements ("if …:"),
imports, what stands inside an f-string, and the kinds that are rare (lambda, slices, "a if b
else c").
"""

from __future__ import annotations

import ast
import hashlib
import io
import keyword
import sysconfig
import tokenize
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib import _checks as check
from lib.data.stdlib_text import CorpusError, stdlib_files

__all__ = [
    "CLASSES",
    "KINDS",
    "PADDING",
    "SpanData",
    "SpanSentences",
    "code_spans",
    "nested_share",
    "number_sentences",
    "statement_spans",
]

Ints = NDArray[np.int64]
Spans = frozenset[tuple[int, int, int]]

# What each kind of span is called, and the nodes of the syntax tree that it stands for.
_NODES: dict[str, tuple[type[ast.AST], ...]] = {
    "call": (ast.Call,),
    "attribute": (ast.Attribute,),
    "subscript": (ast.Subscript,),
    "operation": (ast.BinOp, ast.BoolOp, ast.UnaryOp),
    "comparison": (ast.Compare,),
    "collection": (ast.List, ast.Tuple, ast.Dict, ast.Set),
    "comprehension": (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
    "string": (ast.JoinedStr,),  # and constants, which are told by their value
}
KINDS = tuple(_NODES)
PADDING = "<pad>"
CLASSES = ("<name>", "<number>", "<string>", "<other>")  # what has no number of its own

_KIND_OF = {node: kind for kind, nodes in _NODES.items() for node in nodes}
_SIMPLE = (
    *(ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign),
    *(ast.Return, ast.Raise, ast.Assert, ast.Delete),
)
_LEAVES = (ast.Name, ast.expr_context, ast.operator, ast.boolop, ast.unaryop, ast.cmpop)
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
_SILENT = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER}
    | {tokenize.INDENT, tokenize.DEDENT}
)
# From Python 3.12 on an f-string comes in pieces; these two frame it.
_F_START = getattr(tokenize, "FSTRING_START", -1)
_F_END = getattr(tokenize, "FSTRING_END", -1)


@dataclass(frozen=True)
class SpanSentences:
    """Sentences with labelled spans.

    Attributes
    ----------
    tokens : ndarray of int64, shape (N, n)
        What a model reads; padded with 0.
    lengths : ndarray of int64, shape (N,)
        Tokens of each sentence.
    spans : tuple of frozenset of (kind, start, end)
        The spans of each sentence: number of the kind, first and last token; the last one belongs
        to the span, and tokens are counted from 0.
    words : tuple of tuple of str
        The tokens as they are written in the source.
    """

    tokens: Ints
    lengths: Ints
    spans: tuple[Spans, ...]
    words: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.words)

    def take(self, rows: ArrayLike) -> SpanSentences:
        """The sentences with these numbers, in this order."""
        chosen = np.asarray(rows)
        if chosen.dtype.kind not in "iu" or chosen.ndim != 1:
            raise ValueError(
                f"`rows` must be a row of whole numbers, got {chosen.dtype} of shape {chosen.shape}"
            )
        bad = chosen[(chosen < 0) | (chosen >= len(self))]
        if bad.size:
            raise ValueError(f"`rows` must lie in 0 … {len(self) - 1}, got {bad[0]}")
        return SpanSentences(
            self.tokens[chosen],
            self.lengths[chosen],
            tuple(self.spans[i] for i in chosen),
            tuple(self.words[i] for i in chosen),
        )


@dataclass(frozen=True)
class SpanData:
    """Two sets of sentences that share no file and no sentence.

    Attributes
    ----------
    kinds : tuple of str
        Names of the kinds; a kind's place is its number.
    symbols : tuple of str
        What each token's number stands for: padding, four classes, then words of the training
        half, the most frequent first.
    train, test : SpanSentences
    """

    kinds: tuple[str, ...]
    symbols: tuple[str, ...]
    train: SpanSentences
    test: SpanSentences


def code_spans(
    root: str | Path | None = None,
    *,
    kinds: Sequence[str] = KINDS,
    longest: int = 24,
    least_spans: int = 2,
    vocabulary: int = 512,
    files: int | None = 200,
    test_share: float = 0.25,
) -> SpanData:
    """Sentences of Python with their nested expressions, from the standard library.

    Parameters
    ----------
    root : path, optional
        Folder to read instead of the running interpreter's own library. A file in it that is no
        Python source of this version is skipped.
    kinds : sequence of str
        Which of `KINDS` count as spans; the order is that of their numbers.
    longest : int, default=24
        Most tokens of a sentence, n; longer statements are left out.
    least_spans : int, default=2
        Statements with fewer spans are left out.
    vocabulary : int, default=512
        Most numbers for tokens, padding and classes included. Marks and keywords come first, then
        the names of the training half by frequency; strings and numbers are always a class.
    files : int, optional
        Most files to read, drawn by a hash of their names; all of them if None.
    test_share : float in (0, 1)
        Share of the files that go to the test half, by a checksum of their names.

    Returns
    -------
    SpanData
        A sentence whose tokens all have the numbers of an earlier one is left out, and one of the
        test half that also stands in the training half.

    Raises
    ------
    CorpusError
        If the sources are missing, or one of the halves comes out empty.
    """
    kinds = _kinds(kinds)
    longest = check.whole(longest, "longest", 2)
    least_spans = check.whole(least_spans, "least_spans", 1)
    vocabulary = check.whole(vocabulary, "vocabulary", len(CLASSES) + 2)
    files = None if files is None else check.whole(files, "files", 2)
    test_share = check.open_unit(test_share, "test_share")

    folder = Path(sysconfig.get_paths()["stdlib"] if root is None else root)
    drawn = sorted((p.relative_to(folder).as_posix() for p in stdlib_files(root)), key=_draw)
    halves: dict[bool, list[_Sentence]] = {False: [], True: []}
    for name in sorted(drawn[:files]):
        source = (folder / name).read_text(encoding="utf-8", errors="replace")
        found = _sentences(source, kinds, longest, least_spans)
        halves[zlib.crc32(name.encode()) < test_share * 2**32] += found
    symbols = _symbols(halves[False], vocabulary)
    seen: set[tuple[str, ...]] = set()
    train, test = (_half(halves[half], symbols, longest, seen) for half in (False, True))
    if not len(train) or not len(test):
        empty = "training" if not len(train) else "test"
        raise CorpusError(
            f"the {empty} half is empty: {len(drawn[:files])} files below {folder} at "
            f"`test_share` {test_share}, `longest` {longest}, `least_spans` {least_spans}"
        )
    return SpanData(kinds, symbols, train, test)


def statement_spans(
    statement: str, *, kinds: Sequence[str] = KINDS
) -> tuple[tuple[str, ...], Spans]:
    """Tokens and spans of one simple statement, such as ``"x = f(a[0], 'b')"``.

    Parameters
    ----------
    statement : str
    kinds : sequence of str
        As in `code_spans`.

    Returns
    -------
    words : tuple of str
    spans : frozenset of (kind, start, end)
    """
    kinds = _kinds(kinds)
    if not isinstance(statement, str):
        raise TypeError(f"`statement` must be a str, got {type(statement).__name__}")
    tree = _parse(statement)
    if tree is None or len(tree.body) != 1 or not isinstance(tree.body[0], _SIMPLE):
        raise ValueError(
            "`statement` must be one expression, assignment, return, raise, assert or del, "
            f"got {statement!r}"
        )
    nodes = list(_nodes(tree.body[0], kinds))
    sentence = _align(tree.body[0], nodes, statement.split("\n"))
    if sentence is None:
        raise ValueError(f"`statement` cannot be cut into tokens, got {statement!r}")
    return sentence.words, sentence.spans


def nested_share(
    spans: SpanSentences | Iterable[Iterable[tuple[int, int, int]]], *, same_kind: bool = False
) -> float:
    """Share of all spans that lie inside another span of their sentence.

    Parameters
    ----------
    spans : SpanSentences, or the spans of each sentence
        Each span as (kind, start, end), the end included.
    same_kind : bool, default=False
        Count only a surrounding span of the same kind.

    Returns
    -------
    float
        Two kinds over the very same tokens lie inside each other.

    Raises
    ------
    ValueError
        If there is no span at all.
    """
    inside = total = 0
    for sentence in spans.spans if isinstance(spans, SpanSentences) else spans:
        here = set(sentence)
        total += len(here)
        inside += sum(
            any(
                o != s and o[1] <= s[1] and s[2] <= o[2] and (o[0] == s[0] or not same_kind)
                for o in here
            )
            for s in here
        )
    if not total:
        raise ValueError("`spans` must hold a span, got none")
    return inside / total


def number_sentences(
    words: Sequence[Sequence[str]],
    spans: Sequence[Iterable[tuple[int, int, int]]],
    symbols: Sequence[str],
    longest: int,
) -> SpanSentences:
    """Numbers for words, padded to one length; a word without one has that of its class.

    Parameters
    ----------
    words : sequence of sequences of str
        None longer than `longest`.
    spans : sequence of sets of (kind, start, end)
        As many as there are sentences.
    symbols : sequence of str
        Padding, the `CLASSES` somewhere, then what else has a number.
    longest : int
        Length of the padded rows, n.

    Returns
    -------
    SpanSentences
    """
    number = {symbol: i for i, symbol in enumerate(symbols)}
    missing = [s for s in (PADDING, *CLASSES) if s not in number]
    if missing or number[PADDING] != 0:
        raise ValueError(f"`symbols` must start with {PADDING} and hold {', '.join(CLASSES)}")
    if len(words) != len(spans):
        raise ValueError(
            f"`spans` must hold one set for each sentence, got {len(spans)} for {len(words)}"
        )
    longest = check.whole(longest, "longest", max((len(row) for row in words), default=1))
    tokens = np.zeros((len(words), longest), dtype=np.int64)
    for row, sentence in zip(tokens, words, strict=True):
        row[: len(sentence)] = [number.get(w) or number[_class(w)] for w in sentence]
    return SpanSentences(
        tokens,
        np.array([len(row) for row in words], dtype=np.int64),
        tuple(frozenset(sentence) for sentence in spans),
        tuple(tuple(row) for row in words),
    )


# --- from a source to sentences -------------------------------------------------------------------


@dataclass(frozen=True)
class _Sentence:
    words: tuple[str, ...]
    shapes: tuple[str, ...]  # the words themselves, strings and numbers as their class
    spans: Spans


def _sentences(
    source: str, kinds: tuple[str, ...], longest: int, least_spans: int
) -> Iterator[_Sentence]:
    tree = _parse(source)
    if tree is None:
        return
    lines = source.split("\n")
    for statement in _statements(tree):
        nodes = list(_nodes(statement, kinds))
        # Cutting into tokens is the slow part, so it comes after all that is told without.
        if len(nodes) < least_spans:
            continue
        sentence = _align(statement, nodes, lines)
        if (
            sentence is not None
            and len(sentence.words) <= longest
            and len(sentence.spans) >= least_spans
        ):
            yield sentence


def _parse(source: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in strings are no matter here
            return ast.parse(source)
    except (SyntaxError, ValueError):
        return None


def _statements(tree: ast.AST) -> Iterator[ast.stmt]:
    """Simple statements in the order of the source; expressions are not entered."""
    for field in _BLOCKS:
        for child in getattr(tree, field, ()):
            if isinstance(child, _SIMPLE):
                yield child
            else:
                yield from _statements(child)


def _nodes(statement: ast.AST, kinds: tuple[str, ...]) -> Iterator[tuple[int, ast.AST]]:
    """Expressions below a statement that are spans, each with the number of its kind."""
    waiting = [statement]
    while waiting:
        node = waiting.pop()
        kind = _KIND_OF.get(type(node))
        if kind is None and isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            kind = "string"
        if kind in kinds:
            yield kinds.index(kind), node
        if kind != "string":
            waiting += _children(node)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """As `ast.iter_child_nodes`, without the leaves that most of them are."""
    for field in node._fields:
        value = getattr(node, field, None)
        for child in value if isinstance(value, list) else (value,):
            if isinstance(child, ast.AST) and not isinstance(child, _LEAVES):
                yield child


def _align(
    statement: ast.stmt, nodes: list[tuple[int, ast.AST]], lines: list[str]
) -> _Sentence | None:
    """Express the extents of the nodes in tokens; None where the two do not fit."""
    top, left = statement.lineno, statement.col_offset
    rows = [line.encode() for line in lines[top - 1 : statement.end_lineno]]
    rows[-1] = rows[-1][: statement.end_col_offset]
    rows[0] = rows[0][left:]
    text = [row.decode(errors="replace") for row in rows]
    try:
        cut = list(_tokens("\n".join(text)))
    except (tokenize.TokenError, SyntaxError):
        return None

    def place(row: int, column: int) -> tuple[int, int]:
        """From the columns of `tokenize`, in characters of the cut, to those of `ast`, in bytes."""
        before = text[row - 1][:column]
        column = len(before) if before.isascii() else len(before.encode())
        return top + row - 1, column + (left if row == 1 else 0)

    starts = {place(*start): i for i, (_, _, start, _) in enumerate(cut)}
    ends = {place(*end): i for i, (_, _, _, end) in enumerate(cut)}
    spans = set()
    for kind, node in nodes:
        first = starts.get((node.lineno, node.col_offset))
        last = ends.get((node.end_lineno, node.end_col_offset))
        if first is None or last is None:
            return None
        spans.add((kind, first, last))
    words, shapes = (tuple(part) for part in list(zip(*cut, strict=True))[:2])
    return _Sentence(words, shapes, frozenset(spans))


def _tokens(text: str) -> Iterator[tuple[str, str, tuple[int, int], tuple[int, int]]]:
    """Each token with its class or itself, its start and its end; an f-string is one token."""
    depth, opened = 0, (0, 0)
    for kind, word, start, end, _ in tokenize.generate_tokens(io.StringIO(text).readline):
        if kind == _F_START:
            opened = start if depth == 0 else opened
            depth += 1
        elif kind == _F_END:
            depth -= 1
            if depth == 0:
                yield _between(text, opened, end), "<string>", opened, end
        elif depth or kind in _SILENT:
            continue
        elif kind == tokenize.STRING:
            yield word, "<string>", start, end
        elif kind == tokenize.NUMBER:
            yield word, "<number>", start, end
        else:
            yield word, word, start, end


def _between(text: str, start: tuple[int, int], end: tuple[int, int]) -> str:
    rows = text.split("\n")[start[0] - 1 : end[0]]
    rows[-1] = rows[-1][: end[1]]
    rows[0] = rows[0][start[1] :]
    return "\n".join(rows)


# --- from sentences to numbers --------------------------------------------------------------------


def _symbols(sentences: list[_Sentence], vocabulary: int) -> tuple[str, ...]:
    counts = Counter(shape for sentence in sentences for shape in sentence.shapes)
    counts.subtract(dict.fromkeys(CLASSES, counts.total()))  # those are there already
    words = [word for word, count in counts.most_common() if count > 0]
    names = [word for word in words if _is_name(word)]
    marks = [word for word in words if not _is_name(word)]
    room = vocabulary - 1 - len(CLASSES)
    return (PADDING, *CLASSES, *(marks + names)[:room])


def _is_name(word: str) -> bool:
    return word.isidentifier() and not keyword.iskeyword(word)


def _half(
    sentences: list[_Sentence],
    symbols: tuple[str, ...],
    longest: int,
    seen: set[tuple[str, ...]],
) -> SpanSentences:
    """Number the sentences and keep those that do not read like one of `seen`, which grows."""
    known = frozenset(symbols)
    kept = []
    for sentence in sentences:
        read = tuple(shape if shape in known else _class(shape) for shape in sentence.shapes)
        if read not in seen:
            seen.add(read)
            kept.append((sentence, read))
    numbered = number_sentences(
        [read for _, read in kept], [sentence.spans for sentence, _ in kept], symbols, longest
    )
    return replace(numbered, words=tuple(sentence.words for sentence, _ in kept))


def _class(word: str) -> str:
    if _is_name(word):
        return "<name>"
    return "<number>" if word.isdigit() else "<other>"


def _draw(name: str) -> str:
    """A key that sorts files at random, in no way bound to the checksum that splits them."""
    return hashlib.sha256(name.encode()).hexdigest()


def _kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    if isinstance(kinds, str) or not all(isinstance(kind, str) for kind in kinds):
        raise TypeError(f"`kinds` must be a sequence of names, got {kinds!r}")
    chosen = tuple(check.choice(kind, "kinds", KINDS) for kind in kinds)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"`kinds` must name at least one kind, each once, got {kinds!r}")
    return chosen
