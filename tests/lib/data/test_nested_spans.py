"""Nested spans of real code: what a span is, the split, the numbers."""

from __future__ import annotations

import ast
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.data.nested_spans import (
    CLASSES,
    KINDS,
    PADDING,
    SpanData,
    SpanSentences,
    code_spans,
    nested_share,
    number_sentences,
    statement_spans,
)
from lib.data.stdlib_text import CorpusError


@pytest.fixture(scope="module")
def library() -> SpanData:
    return code_spans(files=50)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(24):
        body = f"def f(x):\n    return [x.name, 'é☃', {', '.join('1' * i)}]\n"
        (tmp_path / f"m{i}.py").write_text(body, encoding="utf-8")
    return tmp_path


def texts(statement: str, **options) -> set[tuple[str, str]]:
    """Kind and text of each span."""
    words, spans = statement_spans(statement, **options)
    names = options.get("kinds", KINDS)
    return {(names[kind], " ".join(words[start : end + 1])) for kind, start, end in spans}


# --- one statement --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("x = f(a)", {("call", "f ( a )")}),
        ("x.y = 1", {("attribute", "x . y")}),
        ("del x[0]", {("subscript", "x [ 0 ]")}),
        ("return -x", {("operation", "- x")}),
        ("x = a + b", {("operation", "a + b")}),
        ("x = a and not b", {("operation", "a and not b"), ("operation", "not b")}),
        ("assert a < b <= c", {("comparison", "a < b <= c")}),
        ("x = [1, 2]", {("collection", "[ 1 , 2 ]")}),
        ("x = {1: 2}", {("collection", "{ 1 : 2 }")}),
        ("x = {1}", {("collection", "{ 1 }")}),
        ("x = 1, 2", {("collection", "1 , 2")}),
        ("x = (1, 2)", {("collection", "( 1 , 2 )")}),
        ("x = [a for a in b]", {("comprehension", "[ a for a in b ]")}),
        ("x = {a: a for a in b}", {("comprehension", "{ a : a for a in b }")}),
        (
            "x = sum(a for a in b)",
            {("call", "sum ( a for a in b )"), ("comprehension", "( a for a in b )")},
        ),
        ("x = 'a'", {("string", "'a'")}),
        ("x = b'a' b'b'", {("string", "b'a' b'b'")}),
        ("x = 1", set()),
        ("x = f(lambda: 0, *a, k=v)", {("call", "f ( lambda : 0 , * a , k = v )")}),
    ],
)
def test_each_kind_of_expression_is_a_span(statement, expected):
    assert texts(statement) == expected


def test_spans_nest():
    assert texts("x = f(a.b[0] + 1, 'c')") == {
        ("call", "f ( a . b [ 0 ] + 1 , 'c' )"),
        ("operation", "a . b [ 0 ] + 1"),
        ("subscript", "a . b [ 0 ]"),
        ("attribute", "a . b"),
        ("string", "'c'"),
    }


def test_an_operation_takes_in_the_brackets_of_its_parts_but_not_those_around_itself():
    assert texts("x = ((a + b) * c)") == {
        ("operation", "( a + b ) * c"),
        ("operation", "a + b"),
    }


def test_numbers_of_spans_count_from_zero_and_include_the_end():
    words, spans = statement_spans("y = f(x)")
    assert words == ("y", "=", "f", "(", "x", ")")
    assert spans == {(KINDS.index("call"), 2, 5)}


@pytest.mark.parametrize("wrapped", ["f'{a.b} c'", "f'{a!r:>{width}}'", "f'a' 'b'", "rf'{f(1)}'"])
def test_an_f_string_is_a_span_that_is_not_entered(wrapped):
    words, spans = statement_spans(f"x = {wrapped}")
    assert {kind for kind, _, _ in spans} == {KINDS.index("string")}
    assert " ".join(words[2:]) == wrapped


def test_lines_comments_and_other_alphabets_do_not_shift_the_spans():
    plain = texts("größe = f('日本', a[0], é.b)")
    broken = texts("größe = f('日本',  # ☃ f(x)\n      a[0],\n\n   é.b)")
    assert plain == broken
    assert ("attribute", "é . b") in plain
    assert ("subscript", "a [ 0 ]") in plain
    assert texts("x = a. \\\n  b") == {("attribute", "a . b")}


def test_a_string_over_lines_is_one_token():
    words, spans = statement_spans('x = f("""a\nb""", c)')
    assert words == ("x", "=", "f", "(", '"""a\nb"""', ",", "c", ")")
    assert (KINDS.index("string"), 4, 4) in spans


def test_kinds_are_numbered_in_the_order_asked_for():
    chosen = ("subscript", "call")
    assert texts("x = f(a.b[0])", kinds=chosen) == {
        ("call", "f ( a . b [ 0 ] )"),
        ("subscript", "a . b [ 0 ]"),
    }
    assert {k for k, _, _ in statement_spans("x = f(a.b[0])", kinds=chosen)[1]} == {0, 1}


@pytest.mark.parametrize(
    "statement", ["if x: pass", "import a", "x = (", "a\nb", "", "pass", "x = '\0'"]
)
def test_what_is_not_one_simple_statement_is_refused(statement):
    with pytest.raises(ValueError, match="`statement` must be one expression"):
        statement_spans(statement)


def test_a_statement_must_be_text():
    with pytest.raises(TypeError, match="`statement` must be a str, got int"):
        statement_spans(3)


names = st.sampled_from(["a", "b.c", "f(x)", "'s'", "y[0]", "-z"])
expressions = st.recursive(
    names,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: f"({p[0]} + {p[1]})"),
        st.tuples(inner, inner).map(lambda p: f"g({p[0]}, {p[1]})"),
        st.lists(inner, min_size=1, max_size=3).map(lambda p: f"[{', '.join(p)}]"),
        st.tuples(inner, inner).map(lambda p: f"[{p[0]} for t in {p[1]}]"),
        inner.map(lambda p: f"({p} < 0)"),
    ),
    max_leaves=8,
)


@given(expressions)
def test_the_words_of_a_span_parse_to_its_node(expression):
    words, spans = statement_spans(f"x = {expression}")
    tree = ast.parse(f"x = {expression}").body[0].value
    wanted = {
        ast.dump(node)
        for node in ast.walk(tree)
        if not isinstance(node, ast.Name | ast.expr_context | ast.operator | ast.unaryop)
        and isinstance(node, ast.expr)
        and not (isinstance(node, ast.Constant) and isinstance(node.value, int))
    }
    found = {
        ast.dump(ast.parse(" ".join(words[start : end + 1]), mode="eval").body)
        for _, start, end in spans
    }
    # Parts of "for t in …" and operands read the same alone as in their place.
    assert found == wanted


@given(expressions)
def test_no_two_spans_cross(expression):
    _, spans = statement_spans(f"x = {expression}")
    for (_, a, b), (_, c, d) in combinations(spans, 2):
        assert b < c or d < a or (a <= c and d <= b) or (c <= a and b <= d)


# --- the library ----------------------------------------------------------------------------------


def test_every_sentence_fits_and_has_spans_within_itself(library):
    for half in (library.train, library.test):
        assert half.tokens.shape == (len(half), 24)
        assert len(half) == len(half.lengths) == len(half.spans) == len(half.words) > 200
        for row, length, spans, words in zip(
            half.tokens, half.lengths, half.spans, half.words, strict=True
        ):
            assert len(words) == length <= 24
            assert (row[:length] > 0).all()
            assert (row[length:] == 0).all()
            assert len(spans) >= 2
            assert all(0 <= k < len(KINDS) and 0 <= a <= b < length for k, a, b in spans)


def test_all_kinds_occur_in_both_halves(library):
    for half in (library.train, library.test):
        assert {kind for spans in half.spans for kind, _, _ in spans} == set(range(len(KINDS)))


def test_more_than_half_of_the_spans_lie_inside_another(library):
    for half in (library.train, library.test):
        assert 0.5 < nested_share(half) < 0.8
        assert 0.05 < nested_share(half, same_kind=True) < 0.25


def test_the_numbers_stand_for_the_words(library):
    assert library.symbols[: 1 + len(CLASSES)] == (PADDING, *CLASSES)
    assert len(set(library.symbols)) == len(library.symbols) == 512
    for row, words in zip(library.test.tokens[:300], library.test.words, strict=False):
        for number, word in zip(row, words, strict=False):
            symbol = library.symbols[number]
            if symbol == "<string>":
                assert isinstance(ast.literal_eval(word.lstrip("f")), str | bytes)
            elif symbol == "<number>":
                assert isinstance(ast.literal_eval(word), int | float | complex)
            elif symbol == "<name>":
                assert word.isidentifier()
            else:
                assert symbol in (word, "<other>")


def test_no_sentence_stands_twice(library):
    rows = [tuple(row) for half in (library.train, library.test) for row in half.tokens]
    assert len(set(rows)) == len(rows)


def test_building_again_gives_the_same():
    once, again = code_spans(files=20), code_spans(files=20)
    assert again.symbols == once.symbols
    assert (again.test.tokens == once.test.tokens).all()
    assert again.test.spans == once.test.spans


def test_a_file_stands_in_one_half_whatever_files_surround_it(folder):
    def halves(data: SpanData) -> dict[int, str]:
        """From a file, told by how many numbers its list has, to its half."""
        return {
            words.count("1"): half
            for half in ("train", "test")
            for words in getattr(data, half).words
        }

    everything = halves(code_spans(folder, files=None, longest=60, test_share=0.4))
    assert set(everything) == set(range(24))
    assert set(everything.values()) == {"train", "test"}
    part = halves(code_spans(folder, files=12, longest=60, test_share=0.4))
    assert len(part) == 12
    assert part.items() <= everything.items()
    assert set(part.values()) == {"train", "test"}


def test_a_rare_word_is_its_class_and_a_mark_keeps_its_number(folder):
    data = code_spans(folder, longest=60, vocabulary=10, test_share=0.4)
    assert set(data.symbols[5:]) >= {"return", "[", "]", ",", "."}
    assert "<name>" in {data.symbols[i] for i in data.train.tokens.ravel()}


def test_a_file_of_another_python_is_skipped(folder):
    (folder / "broken.py").write_text("print 'x'\n", encoding="utf-8")
    assert len(code_spans(folder, test_share=0.4).train)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kinds": ("calls",)}, ValueError, "`kinds` must be one of \"call\", .* got 'calls'"),
        ({"kinds": "call"}, TypeError, "`kinds` must be a sequence of names, got 'call'"),
        ({"kinds": ()}, ValueError, "`kinds` must name at least one kind"),
        ({"kinds": ("call", "call")}, ValueError, "`kinds` must name .* each once"),
        ({"longest": 1}, ValueError, "`longest` must be at least 2, got 1"),
        ({"least_spans": 0}, ValueError, "`least_spans` must be at least 1, got 0"),
        ({"vocabulary": 5}, ValueError, "`vocabulary` must be at least 6, got 5"),
        ({"files": 1}, ValueError, "`files` must be at least 2, got 1"),
        ({"files": 2.0}, TypeError, "`files` must be a whole number"),
        ({"test_share": 1}, ValueError, "`test_share` must lie strictly between 0 and 1"),
    ],
)
def test_bad_input_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        code_spans(**options)


def test_an_empty_half_is_an_error(folder, tmp_path_factory):
    with pytest.raises(CorpusError, match="the training half is empty: 24 files"):
        code_spans(folder, least_spans=20)
    with pytest.raises(CorpusError, match="no standard-library folder"):
        code_spans(folder / "missing")


# --- sets of sentences ----------------------------------------------------------------------------


def test_take_keeps_everything_together(library):
    part = library.train.take([5, 2])
    assert isinstance(part, SpanSentences)
    assert len(part) == 2
    assert part.words == (library.train.words[5], library.train.words[2])
    assert part.spans == (library.train.spans[5], library.train.spans[2])
    assert (part.tokens == library.train.tokens[[5, 2]]).all()
    assert (part.lengths == library.train.lengths[[5, 2]]).all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([-1], "`rows` must lie in 0 … .*, got -1"),
        ([10**6], "`rows` must lie in 0 … .*, got 1000000"),
        ([0.5], "`rows` must be a row of whole numbers, got float64"),
        (np.array([[1]]), r"got int64 of shape \(1, 1\)"),
    ],
)
def test_take_refuses_what_is_no_sentence(library, rows, message):
    with pytest.raises(ValueError, match=message):
        library.train.take(rows)


def test_nested_share_of_a_set_counted_by_hand():
    outer, inner, alone = (0, 0, 5), (1, 2, 3), (0, 7, 8)
    assert nested_share([{outer, inner, alone}]) == pytest.approx(1 / 3)
    assert nested_share([{outer, inner}, {alone}], same_kind=True) == 0
    assert nested_share([{outer, (0, 2, 3)}], same_kind=True) == 0.5
    assert nested_share([[(0, 1, 2), (1, 1, 2)]]) == 1  # one stretch, two kinds


def test_nested_share_of_nothing_is_refused():
    with pytest.raises(ValueError, match="`spans` must hold a span"):
        nested_share([set(), set()])


# --- numbers for words ----------------------------------------------------------------------------

SYMBOLS = (PADDING, *CLASSES, "f", "(", ")")


def test_words_without_a_number_have_that_of_their_class():
    data = number_sentences([("f", "(", "g", "12", "+", ")")], [{(0, 0, 5)}], SYMBOLS, 7)
    read = [SYMBOLS[i] for i in data.tokens[0]]
    assert read == ["f", "(", "<name>", "<number>", "<other>", ")", PADDING]
    assert data.lengths.tolist() == [6]
    assert data.spans == (frozenset({(0, 0, 5)}),)


@pytest.mark.parametrize(
    ("words", "spans", "symbols", "longest", "message"),
    [
        ([("f",)], [set()], SYMBOLS[1:], 3, "`symbols` must start with <pad>"),
        ([("f",)], [set()], (*CLASSES, PADDING), 3, "`symbols` must start with <pad>"),
        ([("f",)], [set()], SYMBOLS[:3], 3, "`symbols` must .* hold <name>"),
        ([("f",)], [], SYMBOLS, 3, "`spans` must hold one set for each sentence, got 0 for 1"),
        ([("f", "f")], [set()], SYMBOLS, 1, "`longest` must be at least 2, got 1"),
    ],
)
def test_numbers_refuse_what_does_not_fit(words, spans, symbols, longest, message):
    with pytest.raises(ValueError, match=message):
        number_sentences(words, spans, symbols, longest)
