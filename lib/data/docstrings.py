"""Sentences that every reader already has: the docstrings of Python's own standard library.

`docstrings` parses the sources of the running interpreter and cuts each docstring into sentences.
Two sets of graded pairs come from them without a human judge, so a grade says where a sentence
stands, not what a reader thinks of it: `provenance_pairs` (same docstring, module, package or none
of these) and `name_pairs` (a function's name with its own first sentence or another's). `halves`
splits by module, so that settings are chosen on one half and judged on the other; `positives` are
pairs to train an encoder with. Nothing is downloaded. Left out: what `stdlib_files` leaves out,
doctests, code and lists of parameters.
"""

from __future__ import annotations

import ast
import re
import sysconfig
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib import _checks as check
from lib.data.stdlib_text import CorpusError, stdlib_files
from lib.data.sts import SentencePairs

__all__ = [
    "Docstring",
    "docstrings",
    "halves",
    "name_pairs",
    "positives",
    "provenance_pairs",
    "words",
]

SHORTEST = 4  # words of a sentence
LETTERS = 0.8  # least share of letters and spaces in a sentence; code and tables have less

# HTTPServer -> HTTP Server, snake_case -> snake case, don't stays; a Chinese character is a word.
_WORD = re.compile(
    r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+(?:['’](?:t|s|re|ve|ll|d)\b)?|\d+|[㐀-鿿]|[^\W\d_A-Za-z]+"
)
_DOCTEST = re.compile(r"^[ \t]*(>>>|\.\.\. ).*?(?=^[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_MARKUP = re.compile(r"^[ \t]*(\.\. .*|[-=~^*#+_|]{3,})[ \t]*$", re.MULTILINE)
_LITERAL_BLOCK = re.compile(r"(::)[ \t]*\n(?:[ \t]*\n)+(?:[ \t]+.*(?:\n|\Z)|[ \t]*\n)+")
_ROLE = re.compile(r":(?:[a-z]+:)+(?=`)")
_MARKS = re.compile(r"[`*|]+")
_PARAGRAPH = re.compile(r"\n[ \t]*\n|\n(?=[ \t]*(?:[-*•+o]|\d+[.)]|:\w+|@\w+)[ \t])")
_ITEM = re.compile(r"^\s*(?:[-*•+o]|\d+[.)]|[:@]\w[\w \t]*:)\s+")
_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!cf\.)\s+(?=[A-Z\"'(])|::?\s*$")

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Docstring:
    """The sentences of one docstring.

    Attributes
    ----------
    module : str
        Dotted, such as "json.decoder"; a package has its own name.
    name : str
        Qualified name within the module, such as "JSONDecoder.decode"; empty for the module itself.
    sentences : tuple of str
        One or more, in their order.
    kind : {"module", "class", "function"}
    """

    module: str
    name: str
    sentences: tuple[str, ...]
    kind: str = "function"

    @property
    def package(self) -> str:
        """First part of the module's name."""
        return self.module.partition(".")[0]


def words(text: str) -> list[str]:
    """Lower-cased words and numbers; names in snake_case and CamelCase fall into their parts.

    >>> words("Don't call HTTPServer.handle_request2() twice!")
    ["don't", 'call', 'http', 'server', 'handle', 'request', '2', 'twice']
    """
    return [word.lower().replace("’", "'") for word in _WORD.findall(text)]


def docstrings(root: str | Path | None = None) -> tuple[Docstring, ...]:
    """All docstrings with a sentence of 4 words or more, in the order of files and lines.

    Parameters
    ----------
    root : path, optional
        Folder to read instead of the running interpreter's own library. A file in it that is no
        Python source of this version is skipped.

    Raises
    ------
    CorpusError
        If the sources are missing or hold no docstring.
    """
    folder = Path(sysconfig.get_paths()["stdlib"] if root is None else root)
    found = [doc for path in stdlib_files(root) for doc in _of_file(path, folder)]
    if not found:
        raise CorpusError(f"no docstrings in the Python sources below {folder}")
    return tuple(found)


def halves(
    docs: Sequence[Docstring], *, test_share: float = 0.5
) -> tuple[tuple[Docstring, ...], tuple[Docstring, ...]]:
    """Split by module: one part to train and tune on, one to judge on.

    Parameters
    ----------
    docs : sequence of Docstring
    test_share : float in (0, 1)
        Share of the *modules* in the second part, decided by a checksum of their names: a module
        stays on its side whatever else a Python version adds or removes.

    Returns
    -------
    dev, test : tuple of Docstring
    """
    edge = check.open_unit(test_share, "test_share") * 2**32
    parts: tuple[list[Docstring], list[Docstring]] = ([], [])
    for doc in _docs(docs):
        parts[zlib.crc32(doc.module.encode()) < edge].append(doc)
    return tuple(parts[0]), tuple(parts[1])


def provenance_pairs(
    docs: Sequence[Docstring], rng: np.random.Generator, *, per_grade: int = 1200
) -> SentencePairs:
    """Pairs of sentences graded by how near to each other they stand.

    Parameters
    ----------
    docs : sequence of Docstring
    rng : numpy.random.Generator
    per_grade : int
        Pairs of each grade; no pair comes twice.

    Returns
    -------
    SentencePairs
        Score 3: two sentences of one docstring; 2: of one module, in different docstrings; 1: of
        one package, in different modules; 0: of different packages. A sentence that stands in more
        than one place has no single grade and is left out. The first sentence of a pair is drawn
        evenly from those that have a partner, the second evenly from its partners.

    Raises
    ------
    ValueError
        If there are fewer pairs of a grade.
    """
    docs, rng = _docs(docs), check.rng(rng)
    per_grade = check.whole(per_grade, "per_grade", 1)
    sentences, levels = _levels(docs)
    rows: list[tuple[str, str, float]] = []
    for grade in (3, 2, 1, 0):
        group, finer = levels[grade], levels[grade + 1]
        drawn = _draw(group, finer, per_grade, rng, f"grade {grade}")
        rows += [(sentences[i], sentences[j], float(grade)) for i, j in drawn.tolist()]
    return SentencePairs.of(rows)


def name_pairs(
    docs: Sequence[Docstring], rng: np.random.Generator, *, count: int = 2400
) -> SentencePairs:
    """The words of a function's name against first sentences of docstrings.

    Parameters
    ----------
    docs : sequence of Docstring
    rng : numpy.random.Generator
    count : int
        Pairs, half of them of each score; an even number.

    Returns
    -------
    SentencePairs
        Score 1: the function's own first sentence; 0: that of another function of the same module.
        Left out are names such as ``__init__``, names of one letter, and sentences that say no more
        than the name; no pair has both scores.

    Raises
    ------
    ValueError
        If there are fewer pairs, or `count` is odd.
    """
    docs, rng = _docs(docs), check.rng(rng)
    if check.whole(count, "count", 2) % 2:
        raise ValueError(f"`count` must be even, got {count}")
    entries = _entries(docs)
    own = sorted({(name, sentence) for _, name, sentence in entries})
    taken = set(own)
    modules: dict[str, list[str]] = {}
    for module, _, sentence in entries:
        modules.setdefault(module, []).append(sentence)
    other = [
        (name, sentence)
        for module, name, _ in entries
        for sentence in rng.permutation(modules[module])[:3].tolist()
        if (name, sentence) not in taken and _says_more(sentence, name)
    ]
    rows: list[tuple[str, str, float]] = []
    for score, known in ((1.0, own), (0.0, sorted(set(other)))):
        if len(known) < count // 2:
            raise ValueError(
                f"`count` must be at most {2 * len(known)} for these docstrings, got {count}"
            )
        chosen = rng.permutation(len(known))[: count // 2]
        rows += [(*known[i], score) for i in chosen.tolist()]
    return SentencePairs.of(rows)


def positives(docs: Sequence[Docstring]) -> tuple[tuple[str, str], ...]:
    """Pairs that belong together, to train an encoder with.

    Parameters
    ----------
    docs : sequence of Docstring
        Not those that it is judged on.

    Returns
    -------
    tuple of (str, str)
        Sentences that follow each other in a docstring, and the words of each function's name with
        its first sentence; each pair once.
    """
    docs = _docs(docs)
    follow = [pair for doc in docs for pair in zip(doc.sentences, doc.sentences[1:], strict=False)]
    named = [(name, sentence) for _, name, sentence in _entries(docs)]
    return tuple(dict.fromkeys((a, b) for a, b in follow + named if a != b))


# --- reading --------------------------------------------------------------------------------------


def _of_file(path: Path, folder: Path) -> Iterator[Docstring]:
    parts = path.relative_to(folder).with_suffix("").parts
    module = ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in somebody else's source
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # ValueError: null bytes
        return
    for name, node in _documented(tree, ""):
        cut = tuple(_sentences(ast.get_docstring(node) or ""))
        if cut:
            yield Docstring(module, name, cut, _kind(node))


def _kind(node: ast.AST) -> str:
    if isinstance(node, ast.Module):
        return "module"
    return "class" if isinstance(node, ast.ClassDef) else "function"


def _documented(node: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The node and the definitions below it, with their qualified names."""
    if isinstance(node, (ast.Module, *_DEFINITIONS)):
        yield name, node
    for child in _statements(node):
        if isinstance(child, _DEFINITIONS):
            yield from _documented(child, f"{name}.{child.name}".lstrip("."))
        else:
            yield from _documented(child, name)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Statements right below; expressions hold no definition and cost most of a walk's time."""
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        block = getattr(node, field, ())
        if isinstance(block, list):
            yield from block


def _sentences(text: str) -> Iterator[str]:
    """Sentences of a docstring without doctests, code and markup."""
    text = _LITERAL_BLOCK.sub(".\n\n", _DOCTEST.sub("", text))
    text = _ROLE.sub("", _MARKUP.sub("\n", text))
    for paragraph in _PARAGRAPH.split(text):
        plain = " ".join(_MARKS.sub("", _ITEM.sub("", paragraph)).split())
        for sentence in _END.split(plain):
            if _is_sentence(sentence):
                yield sentence.strip()


def _is_sentence(text: str) -> bool:
    letters = sum(c.isalpha() or c.isspace() for c in text)
    return letters >= LETTERS * len(text) and len(words(text)) >= SHORTEST


# --- pairing --------------------------------------------------------------------------------------


def _levels(docs: Iterable[Docstring]) -> tuple[list[str], NDArray[np.int64]]:
    """Sentences that occur once, and where each stands.

    Row g of the levels, shape (5, n), numbers what two sentences of grade g share: everything,
    package, module, docstring, and in row 4 the sentence itself.
    """
    docs = list(docs)
    count = Counter(sentence for doc in docs for sentence in doc.sentences)
    places = [
        (sentence, doc.package, doc.module, d)
        for d, doc in enumerate(docs)
        for sentence in doc.sentences
        if count[sentence] == 1
    ]
    columns = list(zip(*places, strict=True)) or [()] * 4
    levels = np.zeros((5, len(places)), dtype=np.int64)
    for row, column in enumerate(columns[1:], 1):
        levels[row] = np.unique(np.array(column), return_inverse=True)[1]
    levels[4] = np.arange(len(places))
    return list(columns[0]), levels


def _draw(
    group: NDArray[np.int64],
    finer: NDArray[np.int64],
    wanted: int,
    rng: np.random.Generator,
    what: str,
) -> NDArray[np.int64]:
    """Different pairs (i, j), i < j, that share their `group` but not their `finer` one."""
    sizes = np.bincount(group, minlength=1)
    smaller = np.bincount(finer, minlength=1)
    available = int((sizes * (sizes - 1)).sum() - (smaller * (smaller - 1)).sum()) // 2
    if available < wanted:
        raise ValueError(
            f"`per_grade` must be at most {available}, the number of pairs of {what}, got {wanted}"
        )
    order = np.argsort(group, kind="stable")
    starts = np.cumsum(sizes) - sizes
    eligible = np.flatnonzero(sizes[group] > smaller[finer])
    codes = np.empty(0, dtype=np.int64)
    n = len(group)
    while len(codes) < wanted:
        i = eligible[rng.integers(len(eligible), size=4 * wanted + 64)]
        j = order[starts[group[i]] + rng.integers(sizes[group[i]])]
        good = finer[i] != finer[j]
        new = np.minimum(i, j)[good] * n + np.maximum(i, j)[good]
        codes = np.concatenate([codes, new])
        # The first of equals, in the order drawn: sorted codes would favour the first files.
        codes = codes[np.sort(np.unique(codes, return_index=True)[1])]
    return np.stack(np.divmod(codes[:wanted], n), axis=1)


def _entries(docs: Iterable[Docstring]) -> list[tuple[str, str, str]]:
    """Module, words of the name and first sentence of each function that has a telling name."""
    found = []
    for doc in docs:
        last = doc.name.rpartition(".")[2]
        if doc.kind != "function" or (last.startswith("__") and last.endswith("__")):
            continue
        name, sentence = " ".join(words(last)), doc.sentences[0]
        if len(name) > 1 and name != sentence and _says_more(sentence, name):
            found.append((doc.module, name, sentence))
    return found


def _says_more(sentence: str, name: str) -> bool:
    return bool(set(words(sentence)) - set(words(name)))


# --- what a caller hands in -----------------------------------------------------------------------


def _docs(docs: Sequence[Docstring]) -> Sequence[Docstring]:
    if isinstance(docs, (str, bytes)) or not all(isinstance(d, Docstring) for d in docs):
        raise TypeError("`docs` must hold Docstring objects, as `docstrings()` returns them")
    if not docs:
        raise ValueError("`docs` must hold at least one docstring, got none")
    return docs
