"""Windows of real code: columns, depths, runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.data.code_depth import (
    CLASSES,
    bracket_depth,
    code_tokens,
    code_windows,
    columns,
    leading_run,
    run_shares,
)
from lib.data.stdlib_text import CorpusError, Split, characters, stdlib_text

SYMBOLS = ("(", "]", "\n", " ", "x", "{", "}", "()")  # the last is one token, not two brackets


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def split(ids) -> Split:
    return Split(np.array(ids), np.array(ids), SYMBOLS)


@pytest.fixture(scope="module")
def library() -> Split:
    return code_tokens()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(40):
        body = f"def f{i}(x):\n    return [x, {i}, 'é☃']\n"
        (tmp_path / f"m{i}.py").write_text(body, encoding="utf-8")
    return tmp_path


# --- tokens ---------------------------------------------------------------------------------------


def test_brackets_newline_space_and_classes_are_always_among_the_tokens(library):
    assert library.size == 256 == len(set(library.symbols))
    assert set(library.symbols) >= {*"()[]{}", "\n", " ", *CLASSES}


def test_every_word_of_the_source_is_there_and_rare_ones_are_classes(folder):
    text = code_tokens(folder, vocabulary=14)
    _, test = stdlib_text(folder)
    words = [text.symbols[i] for i in text.test]
    first = words[: words.index("\n", words.index("\n") + 1)]
    assert first[:8] in (
        ["def", "<name>", "(", "x", ")", "<other>", "\n", " "],
        ["<name>", "<name>", "(", "x", ")", "<other>", "\n", " "],
        ["def", "<name>", "(", "x", ")", ":", "\n", " "],
        ["<name>", "<name>", "(", "x", ")", ":", "\n", " "],
    )
    assert "<number>" in words
    assert words.count("\n") == test.count("\n") + 1  # one more ends the text
    assert words.count("(") == test.count("(")


def test_each_space_of_an_indentation_is_a_token_and_no_other_space_is(library):
    _, test = stdlib_text()
    spaces = (library.test == library.symbols.index(" ")).sum()
    assert spaces == sum(map(len, re.findall(r"^ +", test, re.MULTILINE)))


def test_the_most_frequent_words_are_kept(library):
    assert {"self", "return", "def", ".", ",", "="} <= set(library.symbols)
    share = np.isin(library.train, [library.symbols.index(c) for c in CLASSES]).mean()
    assert share < 0.3


def test_a_library_with_fewer_words_is_an_error(folder):
    with pytest.raises(CorpusError, match=r"`vocabulary` is 400, but .* only \d+ different"):
        code_tokens(folder, vocabulary=400)


def test_a_vocabulary_without_room_for_words_is_an_error():
    with pytest.raises(ValueError, match="`vocabulary` must be at least 12, got 11"):
        code_tokens(vocabulary=11)


# --- numbers per token ----------------------------------------------------------------------------


def slow_numbers(row):
    column, depth, columns, depths = 0, 0, [], []
    for token in row:
        word = SYMBOLS[token]
        depth += (word in ("(", "{")) - (word in ("]", "}"))
        columns.append(column)
        depths.append(depth)
        column = 0 if word == "\n" else column + 1
    return columns, depths


ROWS = st.lists(st.integers(0, len(SYMBOLS) - 1), min_size=1, max_size=30)


@given(ROWS)
def test_columns_and_depths_are_those_of_a_scan_from_the_start(row):
    column, depth = slow_numbers(row)
    assert columns(np.array([row]), SYMBOLS).tolist() == [column]
    assert bracket_depth(np.array([row]), SYMBOLS).tolist() == [depth]


@given(ROWS)
def test_a_leading_run_ends_where_the_first_other_token_stands(row):
    got = int(leading_run(np.array([row]))[0])
    assert len(set(row[:got])) == 1
    assert got == len(row) or row[got] != row[0]


@given(ROWS, st.integers(1, 6))
def test_shares_of_constant_windows_are_those_of_counting_them(row, n):
    if n <= len(row):
        windows = [row[i : i + n] for i in range(len(row) - n + 1)]
        share = sum(len(set(w)) == 1 for w in windows) / len(windows)
        assert run_shares(split(row), (n,)) == {n: pytest.approx(share)}


def test_some_real_windows_are_constant_and_longer_ones_less_often(library):
    shares = run_shares(library, (8, 16, 32), half="test")
    assert shares[8] > 0.1
    assert shares[8] > shares[16] > 0.02 > shares[32] > 0.001


# --- windows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", ["train", "test"])
@pytest.mark.parametrize("kind", ["words", "characters"])
def test_windows_stand_in_the_text(library, kind, half):
    text = library if kind == "words" else characters()
    windows = code_windows(text, rng(), length=40, count=5, half=half)
    whole = getattr(text, half).astype(np.uint16).tobytes()
    for row in windows.tokens:
        place = whole.find(row.astype(np.uint16).tobytes())
        while place % 2:
            place = whole.find(row.astype(np.uint16).tobytes(), place + 1)
        assert place >= 0


def test_the_numbers_of_a_window_are_those_of_its_own_tokens(library):
    w = code_windows(library, rng(), length=50, count=200, deepest=2)
    assert w.tokens.shape == w.column.shape == w.depth.shape == (200, 50)
    assert np.array_equal(w.column, columns(w.tokens, library.symbols))
    exact = bracket_depth(w.tokens, library.symbols)
    assert np.array_equal(w.depth, exact.clip(-2, 2))
    assert np.abs(exact).max() > 2
    assert np.array_equal(w.run, leading_run(w.tokens))


def test_windows_come_from_everywhere_also_from_both_ends():
    w = code_windows(split(range(8)), rng(), length=5, count=200)
    assert set(w.tokens[:, 0]) == {0, 1, 2, 3}


@pytest.mark.parametrize("run", [2, 8, 16])
def test_windows_can_be_asked_to_start_with_a_run(library, run):
    w = code_windows(library, rng(), length=16, count=300, run=run)
    assert w.run.min() >= run
    assert len(np.unique(w.tokens, axis=0)) > (1 if run == 16 else 20)


def test_the_same_generator_gives_the_same_windows(library):
    one, two = (code_windows(library, rng(3), count=9) for _ in range(2))
    assert np.array_equal(one.tokens, two.tokens)
    assert not np.array_equal(one.tokens, code_windows(library, rng(4), count=9).tokens)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"length": 0}, ValueError, "`length` must be at least 1, got 0"),
        ({"length": 9}, ValueError, "`length` must be at most 8, the tokens there are, got 9"),
        ({"count": 0}, ValueError, "`count` must be at least 1, got 0"),
        ({"length": 4, "run": 5}, ValueError, "`run` must be from 1 to 4, got 5"),
        ({"length": 4, "run": 3}, ValueError, "`run`: no window of 4 starts with 3 equal tokens"),
        ({"length": 4, "deepest": 0}, ValueError, "`deepest` must be at least 1, got 0"),
        ({"half": "dev"}, ValueError, '`half` must be one of "train", "test", got \'dev\''),
    ],
)
def test_a_senseless_setting_is_an_error_that_names_it(settings, error, message):
    with pytest.raises(error, match=message):
        code_windows(split(range(8)), rng(), **settings)


def test_bad_input_is_an_error_that_names_it():
    with pytest.raises(TypeError, match="`text` must be a Split, got str"):
        code_windows("text", rng())
    with pytest.raises(TypeError, match=r"`rng` must be a numpy\.random\.Generator.*got int"):
        code_windows(split(range(8)), 0)
    with pytest.raises(ValueError, match=r"`tokens` must be whole numbers of shape \(B, n\)"):
        leading_run(np.arange(3))
    with pytest.raises(ValueError, match="`symbols` must hold a newline"):
        columns(np.array([[0, 1]]), ("a", "b"))
