"""Readers of CLUENER, CMeEE and column files, on tiny files made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.data.authored_entities import authored_entities
from lib.data.ner_files import FORMS, LabelledSentences, NerFileError, load_ner, span_data
from lib.data.nested_spans import CLASSES, PADDING


@pytest.fixture
def write(tmp_path: Path):
    def writer(content, name: str = "file") -> Path:
        path = tmp_path / name
        if not isinstance(content, str):
            content = json.dumps(content, ensure_ascii=False)
        path.write_text(content, encoding="utf-8")
        return path

    return writer


def lines(*entries) -> str:
    return "\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n"


def cluener(text="在北京大学和北京", **label) -> dict:
    return {"text": text, "label": label}


def cmeee(*entities, text="急性胃炎伴发热") -> list[dict]:
    names = ("start_idx", "end_idx", "type", "entity")
    return [{"text": text, "entities": [dict(zip(names, e, strict=True)) for e in entities]}]


# --- CLUENER --------------------------------------------------------------------------------------


def test_cluener_ends_are_included_and_names_may_nest_and_recur(write):
    content = lines(
        cluener(organization={"北京大学": [[1, 4]]}, address={"北京": [[1, 2], [6, 7]]}),
        {"text": "没有标注"},
        cluener("空"),
    )
    data = load_ner(write(content), "cluener")
    assert data.kinds == ("address", "organization")
    assert data.words[0] == tuple("在北京大学和北京")
    assert data.spans == ({(1, 1, 4), (0, 1, 2), (0, 6, 7)}, frozenset(), frozenset())
    assert data.texts(0) == {("organization", tuple("北京大学")), ("address", tuple("北京"))}


def test_kinds_that_are_handed_in_keep_their_order(write):
    path = write(lines(cluener(address={"北京": [[1, 2]]})))
    data = load_ner(path, "cluener", kinds=["name", "address"])
    assert data.kinds == ("name", "address")
    assert data.spans == ({(1, 1, 2)},)
    with pytest.raises(NerFileError, match="one of the kinds name in line 1, got 'address'"):
        load_ner(path, "cluener", kinds=["name"])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('{"text": "a"', 'one JSON object .* in line 2, got \'{"text": "a"\''),
        ("[]", r"a JSON object in line 2, got \[\]"),
        ('{"label": {}}', 'a "text" in line 2, got None'),
        ('{"text": ""}', "a \"text\" in line 2, got ''"),
        ('{"text": "a", "label": []}', r'an object as "label" in line 2, got \[\]'),
        ('{"text": "a", "label": {"k": 1}}', "an object as 'k' in line 2, got 1"),
        ('{"text": "a", "label": {"k": {"a": 1}}}', "a list as 'a' in line 2, got 1"),
        ('{"text": "a", "label": {"k": {"a": [0, 0]}}}', r"\[start, end\] in line 2, got 0"),
        ('{"text": "a", "label": {"k": {"a": [[0, 0.5]]}}}', r"\[start, end\] in line 2"),
        ('{"text": "a", "label": {"k": {"a": [[0, true]]}}}', r"\[start, end\] in line 2"),
        ('{"text": "ab", "label": {"k": {"a": [[1, 1]]}}}', r"'a' at \[1, 1\] in line 2, got 'b'"),
        ('{"text": "ab", "label": {"k": {"a": [[0, 1]]}}}', r"'a' at \[0, 1\] in line 2, got 'ab'"),
        ('{"text": "a", "label": {"k": {"a": [[-1, 0]]}}}', r"'a' at \[-1, 0\] in line 2"),
        ('{"text": "a", "label": {"k": {"": [[1, 0]]}}}', r"'' at \[1, 0\] in line 2"),
    ],
)
def test_malformed_cluener_names_the_file_and_the_line(write, entry, message):
    path = write(lines(cluener()) + entry + "\n", "dev.json")
    with pytest.raises(NerFileError, match=rf"dev\.json must have {message}"):
        load_ner(path, "cluener")


# --- CMeEE ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("beyond", [0, 1])
def test_both_editions_of_cmeee_read_alike(write, beyond):
    content = cmeee((0, 3 + beyond, "dis", "急性胃炎"), (2, 2 + beyond, "bod", "胃"))
    data = load_ner(write(content), "cmeee")
    assert data.kinds == ("bod", "dis")
    assert data.words == (tuple("急性胃炎伴发热"),)
    assert data.spans == ({(1, 0, 3), (0, 2, 2)},)


def test_cmeee_without_labels(write):
    data = load_ner(write([{"text": "发热"}]), "cmeee")
    assert data.kinds == ()
    assert data.spans == (frozenset(),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{]", r"one JSON list \(.*\) in line 1"),
        ("[\n{\n", r"one JSON list \(.*\) in line 3"),
        ({}, r"one JSON list in line 1, got \{\}"),
        ([{"text": "a"}, 3], "a JSON object in entry 2, got 3"),
        ([{"text": "a", "entities": 3}], 'a list as "entities" in entry 1, got 3'),
        ([{"text": "a", "entities": [3]}], "an object as entity in entry 1, got 3"),
        ([{"text": "a", "entities": [{}]}], '"start_idx", .* in entry 1'),
        (cmeee((0, "3", "dis", "急性胃炎")), '"start_idx", .* in entry 1'),
        (cmeee((0, 0, "dis", "")), '"start_idx", .* in entry 1'),
        (cmeee((0, 2, "dis", "急性胃炎")), "'急性胃炎' from 0 to 2 in entry 1, got '急性胃'"),
        (cmeee((0, 5, "dis", "急性胃炎")), "'急性胃炎' from 0 to 5 in entry 1"),
        (cmeee((1, 4, "dis", "急性胃炎")), "'急性胃炎' from 1 to 4 in entry 1"),
        (cmeee((-1, 0, "dis", "热")), "'热' from -1 to 0 in entry 1"),
    ],
)
def test_malformed_cmeee_names_the_file_and_the_entry(write, content, message):
    path = write(content, "CMeEE.json")
    with pytest.raises(NerFileError, match=rf"CMeEE\.json must have {message}"):
        load_ner(path, "cmeee")


# --- columns --------------------------------------------------------------------------------------


def columns(write, tags: str) -> set[tuple[str, int, int]]:
    """Spans of one sentence, given by its tags."""
    rows = "".join(f"字 {tag}\n" for tag in tags.split())
    data = load_ner(write(rows), "columns")
    return {(data.kinds[kind], start, end) for kind, start, end in data.spans[0]}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", set()),
        ("B-A I-A O B-B", {("A", 0, 1), ("B", 3, 3)}),
        ("B-A B-A I-A", {("A", 0, 0), ("A", 1, 2)}),
        ("B-A I-B", {("A", 0, 0), ("B", 1, 1)}),  # a tag that cannot follow opens a span
        ("O I-A I-A", {("A", 1, 2)}),
        ("B-A M-A E-A S-B", {("A", 0, 2), ("B", 3, 3)}),
        ("B-A I-A E-A E-A", {("A", 0, 2), ("A", 3, 3)}),
        ("S-A S-A", {("A", 0, 0), ("A", 1, 1)}),
        ("B-A I-A L-A U-B", {("A", 0, 2), ("B", 3, 3)}),
        ("B-A S-A I-A", {("A", 0, 0), ("A", 1, 1), ("A", 2, 2)}),
        ("B-A-x I-A-x", {("A-x", 0, 1)}),
    ],
)
def test_tags_of_columns(write, tags, expected):
    assert columns(write, tags) == expected


def test_blank_lines_part_sentences_and_the_last_column_is_the_tag(write):
    path = write("\n海 n B-LOC\n\t\n\n钓\tO\n鱼\tO", "people.txt")
    data = load_ner(path, "columns")
    assert data.words == (("海",), ("钓", "鱼"))
    assert data.spans == ({(0, 0, 0)}, frozenset())


def test_windows_line_ends_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "file"
    path.write_bytes("\ufeff海 B-LOC\r\n钓 I-LOC\r\n\r\n鱼 O\r\n".encode())
    data = load_ner(path, "columns")
    assert data.words == (("海", "钓"), ("鱼",))
    assert data.spans == ({(0, 0, 1)}, frozenset())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("字", "a character and its tag in line 3, got '字'"),
        ("字 X-LOC", "a tag such as O, B-LOC or I-LOC in line 3, got 'X-LOC'"),
        ("字 B", "a tag .* in line 3, got 'B'"),
        ("字 B-", "a tag .* in line 3, got 'B-'"),
        ("字 O-LOC", "a tag .* in line 3, got 'O-LOC'"),
    ],
)
def test_malformed_columns_name_the_file_and_the_line(write, row, message):
    path = write(f"海 O\n\n{row}\n", "people.txt")
    with pytest.raises(NerFileError, match=rf"people\.txt must have {message}"):
        load_ner(path, "columns")


def test_an_unknown_kind_is_named_with_its_line(write):
    path = write("海 O\n钓 B-X\n")
    with pytest.raises(NerFileError, match="one of the kinds LOC in line 2, got 'X'"):
        load_ner(path, "columns", kinds=("LOC",))


stretches = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from([None, "A", "B"])), max_size=6
)


@given(stretches, st.sampled_from(["BIO", "BIOES", "BMES"]))
def test_any_scheme_is_read_back(tmp_path_factory, stretches, scheme):
    tags, spans = ["O"], set()
    for gap, length, kind in stretches:
        tags += ["O"] * gap
        if kind is None:
            continue
        spans.add((kind, len(tags), len(tags) + length - 1))
        inner = "M" if scheme == "BMES" else "I"
        marks = ["B"] + [inner] * (length - 1)
        if scheme != "BIO":
            marks = ["S"] if length == 1 else [*marks[:-1], "E"]
        tags += [f"{mark}-{kind}" for mark in marks]
    path = tmp_path_factory.mktemp("columns") / "file"
    path.write_text("".join(f"字 {tag}\n" for tag in tags), encoding="utf-8")
    data = load_ner(path, "columns")
    assert {(data.kinds[k], a, b) for k, a, b in data.spans[0]} == spans


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_missing_file_says_where_the_data_are_from(tmp_path, form):
    with pytest.raises(NerFileError, match=r"does not exist.*ships no such data") as caught:
        load_ner(tmp_path / "none.json", form)
    assert FORMS[form] in str(caught.value)


@pytest.mark.parametrize("form", FORMS)
def test_a_file_without_sentences(write, form):
    with pytest.raises(NerFileError, match="holds no sentence"):
        load_ner(write("[]" if form == "cmeee" else "\n \n"), form)


def test_a_folder_and_other_encodings_are_refused(tmp_path):
    with pytest.raises(NerFileError, match="cannot be read"):
        load_ner(tmp_path, "columns")
    path = tmp_path / "gbk.txt"
    path.write_bytes("海 O\n".encode("gbk"))
    with pytest.raises(NerFileError, match=r"gbk\.txt must be text in UTF-8"):
        load_ner(path, "columns")


def test_bad_arguments(write):
    with pytest.raises(ValueError, match='`form` must be one of "cluener", "cmeee", "columns"'):
        load_ner("x", "conll")
    for kinds in ("LOC", ["LOC", "LOC"]):
        with pytest.raises(ValueError, match="`kinds` must be a sequence of different names"):
            load_ner("x", "columns", kinds=kinds)


# --- sets of sentences ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "spans", "message"),
    [
        (("a", "a"), [set()], "`kinds` must all differ"),
        (("a",), [], "`spans` must hold one set for each sentence, got 0 for 1"),
        (("a",), [{(1, 0, 0)}], r"one of 1 kinds, got \(1, 0, 0\)"),
        (("a",), [{(0, 1, 0)}], r"got \(0, 1, 0\)"),
        (("a",), [{(0, 0, 2)}], r"got \(0, 0, 2\) in a sentence of 2 words"),
        (("a",), [{(0, -1, 0)}], r"got \(0, -1, 0\)"),
    ],
)
def test_sentences_must_hold_their_spans(kinds, spans, message):
    with pytest.raises(ValueError, match=message):
        LabelledSentences(kinds, (("x", "y"),), tuple(map(frozenset, spans)))


def test_texts_of_a_row_that_is_not_there():
    with pytest.raises(ValueError, match="`row` must be from 0 to 0, got 1"):
        LabelledSentences((), (("x",),), (frozenset(),)).texts(1)


def made(*sentences: str, kinds=("a",)) -> LabelledSentences:
    words = tuple(tuple(s.split()) for s in sentences)
    return LabelledSentences(kinds, words, tuple(frozenset({(0, 0, 0)}) for _ in words))


def test_span_data_numbers_the_words_of_the_training_half():
    data = span_data(made("x y x", "x 7"), made("x z 7 8 。"), vocabulary=7)
    assert data.symbols == (PADDING, *CLASSES, "x", "y")
    assert data.kinds == ("a",)
    number = {symbol: i for i, symbol in enumerate(data.symbols)}
    assert data.train.tokens.tolist() == [[5, 6, 5, 0, 0], [5, number["<number>"], 0, 0, 0]]
    read = [data.symbols[i] for i in data.test.tokens[0]]
    assert read == ["x", "<name>", "<number>", "<number>", "<other>"]
    assert data.train.lengths.tolist() == [3, 2]
    assert data.train.words == (("x", "y", "x"), ("x", "7"))
    assert data.test.spans == ({(0, 0, 0)},)


def test_span_data_leaves_out_what_is_too_long():
    data = span_data(made("x y z", "x y"), made("x"), longest=2)
    assert data.train.words == (("x", "y"),)
    assert data.train.tokens.shape == (1, 2)


def test_a_word_that_is_called_like_the_padding_is_no_padding():
    data = span_data(made("<pad> x"), made("x"))
    assert (data.train.tokens[0] > 0).all()


def test_the_authored_sentences_can_be_numbered():
    chinese = authored_entities("zh")
    data = span_data(chinese, chinese)
    assert len(data.train) == len(chinese)
    assert data.train.spans == chinese.spans
    words = [
        tuple(data.symbols[i] for i in row[:length])
        for row, length in zip(data.train.tokens, data.train.lengths, strict=True)
    ]
    assert words == list(chinese.words)
    assert data.train.tokens.dtype == np.int64


@pytest.mark.parametrize(
    ("train", "test", "options", "error", "message"),
    [
        (made("x"), made("x", kinds=("b",)), {}, ValueError, "`test` must have the kinds"),
        (made("x"), 3, {}, TypeError, "`test` must be LabelledSentences, got int"),
        (None, made("x"), {}, TypeError, "`train` must be LabelledSentences, got NoneType"),
        (made("x"), made("x"), {"vocabulary": 5}, ValueError, "`vocabulary` must be at least 6"),
        (made("x"), made("x"), {"longest": 0}, ValueError, "`longest` must be at least 1"),
        (made("x"), made("x y"), {"longest": 1}, ValueError, "`test` must hold a sentence"),
    ],
)
def test_span_data_refuses_what_does_not_fit(train, test, options, error, message):
    with pytest.raises(error, match=message):
        span_data(train, test, **options)
