"""The authored sentences and the brackets that they are written with."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.data import authored_entities as module
from lib.data.authored_entities import (
    KINDS,
    LANGUAGES,
    MarkupError,
    authored_entities,
    parse_markup,
)
from lib.data.nested_spans import nested_share


def found(text: str, **options) -> set[tuple[str, str]]:
    words, spans = parse_markup(text, **options)
    glue = "" if options.get("characters") else " "
    return {(KINDS[kind], glue.join(words[a : b + 1])) for kind, a, b in spans}


# --- the brackets ---------------------------------------------------------------------------------


def test_names_inside_names():
    assert found("the [organisation: University of [place: Oxford]], [time: May [time: 1936]]") == {
        ("organisation", "University of Oxford"),
        ("place", "Oxford"),
        ("time", "May 1936"),
        ("time", "1936"),
    }


def test_chinese_is_cut_into_characters():
    words, spans = parse_markup("在[organisation:[place:北京] 大学]。", characters=True)
    assert words == tuple("在北京大学。")
    assert spans == {(KINDS.index("organisation"), 1, 4), (KINDS.index("place"), 1, 2)}


def test_two_kinds_over_the_same_words():
    assert found("[work: [person: Anna Karenina]]") == {
        ("work", "Anna Karenina"),
        ("person", "Anna Karenina"),
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't go: 3.5, two-fold!", ["Don't", "go", ":", "3", ".", "5", ",", "two-fold", "!"]),
        ("[person: Maxwell]'s paper", ["Maxwell", "'s", "paper"]),
        ("Richard’s", ["Richard", "’s"]),
        ("", []),
    ],
)
def test_words_and_marks(text, words):
    assert list(parse_markup(text)[0]) == words


def test_a_readers_own_kinds():
    words, spans = parse_markup("[b: x [a: y]]", kinds=("a", "b"))
    assert words == ("x", "y")
    assert spans == {(1, 0, 1), (0, 1, 1)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[place: Oxford", "leaves a bracket open"),
        ("Oxford]", "closes a bracket that was never opened"),
        ("[city: Oxford]", "one of person, organisation, place, work, time .* got 'city'"),
        ("[Oxford]", "one of person, .* got none"),
        ("[place: ]", "a span without a word"),
        ("[place: [place: Oxford]]", "a span twice"),
    ],
)
def test_brackets_that_cannot_be_read(text, message):
    with pytest.raises(MarkupError, match=message):
        parse_markup(text)


def test_a_sentence_must_be_text():
    with pytest.raises(TypeError, match="`text` must be a str, got NoneType"):
        parse_markup(None)


trees = st.recursive(
    st.sampled_from(["a", "b c", "d", "e-f"]),
    lambda inner: st.tuples(st.sampled_from(KINDS), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=8,
)


@given(trees)
def test_what_is_written_is_read_back(tree):
    spans = Counter()
    words = []

    def write(node) -> str:
        if isinstance(node, str):
            words.extend(node.split())
            return node
        start = len(words)
        inner = " ".join(write(child) for child in node[1])
        spans[KINDS.index(node[0]), start, len(words) - 1] += 1
        return f"[{node[0]}: {inner}]"

    text = write(tree)
    if max(spans.values(), default=1) > 1:
        with pytest.raises(MarkupError, match="twice"):
            parse_markup(text)
    else:
        assert parse_markup(text) == (tuple(words), frozenset(spans))


# --- the sentences --------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_forty_different_sentences_with_all_kinds(language):
    data = authored_entities(language)
    assert data.kinds == KINDS
    assert len(data) >= 40
    assert len(set(data.words)) == len(data)
    count = Counter(kind for spans in data.spans for kind, _, _ in spans)
    assert min(count[kind] for kind in range(len(KINDS))) >= 10
    assert sum(not spans for spans in data.spans) == 2  # sentences without a name


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_nest_and_never_cross(language):
    data = authored_entities(language)
    assert 0.25 < nested_share(data.spans) < 0.5
    assert nested_share(data.spans, same_kind=True) > 0.05
    for spans in data.spans:
        for (_, a, b), (_, c, d) in combinations(spans, 2):
            assert b < c or d < a or (a <= c and d <= b) or (c <= a and b <= d)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_span_starts_or_ends_with_a_mark(language):
    data = authored_entities(language)
    for row in range(len(data)):
        for _, words in data.texts(row):
            assert words[0][0].isalnum()
            assert words[-1][-1].isalnum()


def test_a_few_spans_read_by_eye():
    english, chinese = authored_entities("en"), authored_entities("zh")
    assert english.texts(6) == {
        (
            "organisation",
            tuple(["Cavendish", "Laboratory", "of", "the", "University", "of", "Cambridge"]),
        ),
        ("organisation", tuple(["University", "of", "Cambridge"])),
        ("person", ("Cavendish",)),
        ("place", ("Cambridge",)),
        ("time", ("the", "1970s")),
    }
    assert chinese.texts(15) == {
        ("place", tuple("南京长江大桥")),
        ("place", tuple("南京")),
        ("place", tuple("长江")),
        ("time", tuple("1968年底")),
        ("time", tuple("1968年")),
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_name_is_marked_wherever_it_stands(language):
    """A name of two words or more that is marked once is marked each time it occurs."""
    data = authored_entities(language)
    names = {
        words
        for row in range(len(data))
        for kind, words in data.texts(row)
        if len(words) > 1 and kind in ("person", "organisation", "place")
    }
    for sentence, spans in zip(data.words, data.spans, strict=True):
        marked = {(start, end) for _, start, end in spans}
        for name in names:
            for start in range(len(sentence) - len(name) + 1):
                if sentence[start : start + len(name)] == name:
                    assert (start, start + len(name) - 1) in marked, (name, sentence)


def test_the_sentences_are_chinese_or_english():
    for sentence in authored_entities("zh").words:
        assert sum("\u4e00" <= c <= "\u9fff" for c in sentence) > len(sentence) / 2
    for sentence in authored_entities("en").words:
        assert all(c.isascii() or c in "öé" for word in sentence for c in word)


def test_an_unknown_language_is_refused():
    with pytest.raises(ValueError, match='`language` must be one of "en", "zh", got \'de\''):
        authored_entities("de")


def test_the_module_says_that_the_set_is_authored():
    assert "written and marked by hand for this book" in module.__doc__
