"""Readers of the public formats of Chinese named entities, flat and nested.

`load_ner` reads a file that the reader has: CLUENER (one JSON object a line), CMeEE (one JSON list)
or columns (a character and its tag a line, as the People's Daily corpus of 1998 is passed on). All
come out as `LabelledSentences`, cut into characters; `span_data` numbers them for a model. The book
ships none of these sets and needs none: see `lib.data.nested_spans` and
`lib.data.authored_entities`. Left out: downloads, scores of the sets' own evaluation scripts, and
formats with gaps in a name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib import _checks as check
from lib.data.nested_spans import CLASSES, PADDING, SpanData, SpanSentences, number_sentences

__all__ = ["FORMS", "LabelledSentences", "NerFileError", "load_ner", "span_data"]

Spans = frozenset[tuple[int, int, int]]

# Where each format's data come from.
FORMS = {
    "cluener": "CLUENER (2020), https://github.com/CLUEbenchmark/CLUENER2020",
    "cmeee": "CMeEE, part of CBLUE, https://github.com/CBLUEbenchmark/CBLUE",
    "columns": "the People's Daily corpus of 1998 or any other with a character and a tag a line",
}

_INSIDE = {"I": "I", "M": "I", "E": "E", "L": "E"}  # BIO, BMES, BIOES and BILOU
_ALONE = ("S", "U")


class NerFileError(RuntimeError):
    """A file that is missing, or not of the format that was asked for."""


@dataclass(frozen=True)
class LabelledSentences:
    """Sentences cut into words, with labelled spans.

    Attributes
    ----------
    kinds : tuple of str
        Names of the kinds; a kind's place is its number.
    words : tuple of tuple of str
    spans : tuple of frozenset of (kind, start, end)
        The spans of each sentence, the end included, words counted from 0.
    """

    kinds: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    spans: tuple[Spans, ...]

    def __post_init__(self) -> None:
        if len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"`kinds` must all differ, got {self.kinds}")
        if len(self.words) != len(self.spans):
            raise ValueError(
                "`spans` must hold one set for each sentence, "
                f"got {len(self.spans)} for {len(self.words)}"
            )
        for words, spans in zip(self.words, self.spans, strict=True):
            for kind, start, end in spans:
                if not (0 <= kind < len(self.kinds) and 0 <= start <= end < len(words)):
                    raise ValueError(
                        f"`spans` must lie within their sentence and have one of "
                        f"{len(self.kinds)} kinds, got {(kind, start, end)} in a sentence of "
                        f"{len(words)} words"
                    )

    def __len__(self) -> int:
        return len(self.words)

    def texts(self, row: int) -> frozenset[tuple[str, tuple[str, ...]]]:
        """Name of the kind and words of each span of one sentence."""
        row = check.whole(row, "row", 0, len(self) - 1)
        words = self.words[row]
        return frozenset((self.kinds[k], words[a : b + 1]) for k, a, b in self.spans[row])


def load_ner(
    path: str | Path, form: str, *, kinds: Sequence[str] | None = None
) -> LabelledSentences:
    """Read a file of a public format.

    Parameters
    ----------
    path : path
        A file in UTF-8.
    form : {"cluener", "cmeee", "columns"}
        CLUENER: a line is ``{"text": …, "label": {kind: {surface: [[start, end], …]}}}``, the end
        included.
        CMeEE: a list of ``{"text": …, "entities": [{"start_idx", "end_idx", "type", "entity"}]}``.
        Its first edition includes the end, its second does not; the entity's own text decides.
        Columns: a line is a character, white space and a tag (BIO, BIOES, BMES or BILOU), a line
        without either ends a sentence. A tag that cannot follow the one before it opens a new span,
        as is usual.
    kinds : sequence of str, optional
        The kinds in the order of their numbers, so that two files agree; a kind in the file that is
        not among them is an error. By default those in the file, sorted.

    Returns
    -------
    LabelledSentences
        Every character of a text is a word, white space included; in columns, what stands in the
        first one. A sentence without a label, as in test files, has no spans.

    Raises
    ------
    NerFileError
        If the file is missing or malformed; the message names the place in the file.
    """
    form = check.choice(form, "form", FORMS)
    if kinds is not None and (isinstance(kinds, str) or len(set(kinds)) < len(kinds)):
        raise ValueError(f"`kinds` must be a sequence of different names, got {kinds!r}")
    path = Path(path)
    text = _read(path, form)
    sentences = list(_READERS[form](text, path))
    if not sentences:
        raise NerFileError(f"`path` {path} holds no sentence")
    if kinds is None:
        kinds = sorted({kind for _, spans in sentences for kind, _, _, _ in spans})
    number = {kind: i for i, kind in enumerate(kinds)}
    for _, spans in sentences:
        for kind, _, _, place in spans:
            if kind not in number:
                raise _malformed(path, place, f"one of the kinds {', '.join(number)}", kind)
    return LabelledSentences(
        tuple(kinds),
        tuple(tuple(words) for words, _ in sentences),
        tuple(frozenset((number[k], a, b) for k, a, b, _ in spans) for _, spans in sentences),
    )


def span_data(
    train: LabelledSentences,
    test: LabelledSentences,
    *,
    vocabulary: int = 4096,
    longest: int | None = None,
) -> SpanData:
    """Number the words of two sets, so that what trains on code trains on them.

    Parameters
    ----------
    train, test : LabelledSentences
        With the same kinds.
    vocabulary : int, default=4096
        Most numbers for words, padding and classes included: the most frequent words of `train`.
        Any other becomes the class of names, numbers or the rest.
    longest : int, optional
        Longer sentences are left out; by default none is.

    Returns
    -------
    SpanData

    Raises
    ------
    ValueError
        If the kinds differ, or no sentence is short enough.
    """
    for name, value in (("train", train), ("test", test)):
        if not isinstance(value, LabelledSentences):
            raise TypeError(f"`{name}` must be LabelledSentences, got {type(value).__name__}")
    if train.kinds != test.kinds:
        raise ValueError(
            f"`test` must have the kinds of `train`, {train.kinds}, got {test.kinds}; "
            "hand `kinds` to the loader"
        )
    vocabulary = check.whole(vocabulary, "vocabulary", len(CLASSES) + 2)
    if longest is None:
        longest = max((len(words) for part in (train, test) for words in part.words), default=1)
    longest = check.whole(longest, "longest", 1)
    counts = Counter(word for words in train.words for word in words)
    room = vocabulary - 1 - len(CLASSES)
    fixed = (PADDING, *CLASSES)
    symbols = (*fixed, *[w for w, _ in counts.most_common() if w not in fixed][:room])
    halves = [_numbered(part, symbols, longest) for part in (train, test)]
    for name, half in zip(("train", "test"), halves, strict=True):
        if not len(half):
            raise ValueError(f"`{name}` must hold a sentence of 1 to {longest} words, got none")
    return SpanData(train.kinds, symbols, *halves)


def _numbered(part: LabelledSentences, symbols: tuple[str, ...], longest: int) -> SpanSentences:
    kept = [i for i, words in enumerate(part.words) if 0 < len(words) <= longest]
    words, spans = ([values[i] for i in kept] for values in (part.words, part.spans))
    return number_sentences(words, spans, symbols, longest)


# --- the formats ----------------------------------------------------------------------------------

# A sentence's words and its spans: kind, start, end, and where in the file the span stands.
Sentence = tuple[Sequence[str], list[tuple[str, int, int, str]]]


def _cluener(text: str, path: Path) -> Iterator[Sentence]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise _malformed(path, place, f"one JSON object ({error.msg})", line[:40]) from error
        words = _text(entry, path, place)
        label = entry.get("label", {})
        _must(isinstance(label, dict), path, place, 'an object as "label"', label)
        spans = []
        for kind, surfaces in label.items():
            _must(isinstance(surfaces, dict), path, place, f"an object as {kind!r}", surfaces)
            for surface, places in surfaces.items():
                _must(isinstance(places, list), path, place, f"a list as {surface!r}", places)
                for pair in places:
                    good = isinstance(pair, list) and len(pair) == 2 and _wholes(*pair)
                    _must(good, path, place, "[start, end]", pair)
                    start, end = pair
                    _must(
                        0 <= start <= end and words[start : end + 1] == surface,
                        path,
                        place,
                        f"{surface!r} at {pair}",
                        words[max(start, 0) : end + 1],
                    )
                    spans.append((kind, start, end, place))
        yield words, spans


def _cmeee(text: str, path: Path) -> Iterator[Sentence]:
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise _malformed(
            path, f"line {error.lineno}", f"one JSON list ({error.msg})", text[error.pos :][:40]
        ) from error
    _must(isinstance(entries, list), path, "line 1", "one JSON list", entries)
    for number, entry in enumerate(entries, 1):
        place = f"entry {number}"
        words = _text(entry, path, place)
        entities = entry.get("entities", [])
        _must(isinstance(entities, list), path, place, 'a list as "entities"', entities)
        spans = []
        for entity in entities:
            _must(isinstance(entity, dict), path, place, "an object as entity", entity)
            kind, surface = entity.get("type"), entity.get("entity")
            start, end = entity.get("start_idx"), entity.get("end_idx")
            good = isinstance(kind, str) and isinstance(surface, str) and surface
            wanted = '"start_idx", "end_idx", "type" and "entity"'
            _must(good and _wholes(start, end), path, place, wanted, entity)
            last = start + len(surface) - 1  # the entity's text says which edition this is
            _must(
                start >= 0 and end in (last, last + 1) and words[start : last + 1] == surface,
                path,
                place,
                f"{surface!r} from {start} to {end}",
                words[max(start, 0) : max(end, 0) + 1],
            )
            spans.append((kind, start, last, place))
        yield words, spans


def _columns(text: str, path: Path) -> Iterator[Sentence]:
    words: list[str] = []
    tags: list[tuple[str, str, int]] = []
    for number, line in enumerate([*text.split("\n"), ""], 1):
        cells = line.split()
        if not cells:
            if words:
                yield words, list(_spans(tags))
            words, tags = [], []
            continue
        _must(len(cells) >= 2, path, f"line {number}", "a character and its tag", line)
        mark, hyphen, kind = cells[-1].partition("-")
        known = mark == "O" if not hyphen else mark in ("B", *_INSIDE, *_ALONE) and kind != ""
        _must(known, path, f"line {number}", "a tag such as O, B-LOC or I-LOC", cells[-1])
        words.append(cells[0])
        tags.append((mark, kind, number))


def _spans(tags: Iterable[tuple[str, str, int]]) -> Iterator[tuple[str, int, int, str]]:
    """Stretches of tags; one that stops without its end tag stops all the same."""
    opened: tuple[str, int, str] | None = None  # kind, start and place of the span under way
    i = -1
    for i, (mark, kind, number) in enumerate(tags):
        goes_on = mark in _INSIDE and opened is not None and opened[0] == kind
        if opened is not None and not goes_on:
            yield opened[0], opened[1], i - 1, opened[2]
            opened = None
        if mark != "O" and opened is None:
            opened = (kind, i, f"line {number}")
        if opened is not None and (mark in _ALONE or _INSIDE.get(mark) == "E"):
            yield opened[0], opened[1], i, opened[2]
            opened = None
    if opened is not None:
        yield opened[0], opened[1], i, opened[2]


_READERS = {"cluener": _cluener, "cmeee": _cmeee, "columns": _columns}


# --- files and their faults -----------------------------------------------------------------------


def _read(path: Path, form: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise NerFileError(
            f"`path` {path} does not exist. The book ships no such data; this format is that of "
            f"{FORMS[form]}"
        ) from error
    except OSError as error:
        raise NerFileError(f"`path` {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise NerFileError(f"`path` {path} must be text in UTF-8: {error}") from error


def _text(entry: Any, path: Path, place: str) -> str:
    """The text of an entry, its characters being the words."""
    _must(isinstance(entry, dict), path, place, "a JSON object", entry)
    words = entry.get("text")
    _must(isinstance(words, str) and words != "", path, place, 'a "text"', words)
    return words


def _wholes(*values: Any) -> bool:
    return all(isinstance(v, int) and not isinstance(v, bool) for v in values)


def _must(holds: bool, path: Path, place: str, wanted: str, got: Any) -> None:
    if not holds:
        raise _malformed(path, place, wanted, got)


def _malformed(path: Path, place: str, wanted: str, got: Any) -> NerFileError:
    shown = repr(got)
    shown = shown if len(shown) <= 80 else shown[:77] + "…"
    return NerFileError(f"`path` {path} must have {wanted} in {place}, got {shown}")
