"""The corpus: source to tokens, tokens to numbers, files to parts and windows."""

from __future__ import annotations

import doctest
import io
import tokenize
import zlib
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.stdlib_text import CorpusError, stdlib_files
from lib.tuning import corpus as module
from lib.tuning.corpus import (
    MASK,
    PARTS,
    SHAPES,
    SPECIAL,
    Corpus,
    common_words,
    encode,
    part_of,
    read_corpus,
    shape_of,
    tokenize_source,
    windows,
)


@pytest.fixture(scope="module")
def real() -> Corpus:
    return read_corpus()


@pytest.fixture
def library(tmp_path):
    """A folder that looks like a standard library of 40 small files."""
    for i in range(40):
        (tmp_path / f"module{i:02}.py").write_text(f"def function{i}(x):\n    return x + {i}\n")
    return tmp_path


# --- text to tokens -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", ""),
        ("x = 1", "x = 1 <line>"),
        ("\n\n  # only a comment\n", ""),
        ("x\n# comment\n\n   # indented comment\ny\n", "x <line> y <line>"),
        ("a = 'it''s' \"#no\"  # yes\n", "a = <str> <str> <str> <line>"),
        ('def f():\n    """One\n\n    two."""\n', "def f ( ) : <in> <str> <out>"),
        ("r'\\\\' + b\"\\\"\" + f'{x}' + Rb''\n", "<str> + <str> + <str> + <str> <line>"),
        ("x = '''a ' b'' c\\''''\n", "x = <str> <line>"),
        ("f(a,\n     b)\n", "f ( a , b ) <line>"),
        ("x = [\n  1,  # one\n\n  2]\ny\n", "x = [ 1 , 2 ] <line> y <line>"),
        ("a = \\\n    b\n", "a = b <line>"),
        ("if a:\n    if b:\n        c\nd\n", "if a : <in> if b : <in> c <out> <out> d <line>"),
        ("if a:\n\tb\n\x0c\nc\n", "if a : <in> b <out> c <line>"),
        ("0x_Ff 0b01 0o17 1_000 1.5e-3 .5 2. 3j\n", "0x_Ff 0b01 0o17 1_000 1.5e-3 .5 2. 3j <line>"),
        (
            "a**=b//c<<d!=e->f:=...==g@h\n",
            "a **= b // c << d != e -> f := ... == g @ h <line>",
        ),
        ("名 = größe_1\n", "名 = größe_1 <line>"),
        (")) x\n", ") ) x <line>"),
        ("'open\nx", "<str> open <line> x <line>"),
    ],
)
def test_tokens_of_a_source(text, tokens):
    assert tokenize_source(text) == tokens.split()


def test_names_and_brackets_are_those_of_pythons_own_tokenizer():
    files = [path for path in stdlib_files() if path.stat().st_size < 30_000][::8]
    same = 0
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        theirs: Counter[str] = Counter()
        inside = 0  # f-strings, which are several tokens from Python 3.12 on
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            kind = tokenize.tok_name[token.type]
            inside += (kind == "FSTRING_START") - (kind == "FSTRING_END")
            if kind in ("NAME", "OP", "NUMBER") and not inside:
                theirs[token.string] += 1
            theirs["<in>"] += kind == "INDENT"
            theirs["<out>"] += kind == "DEDENT"
        mine = Counter(tokenize_source(text))
        del mine["<str>"], mine["<line>"]
        same += mine == +theirs
    assert same >= 0.9 * len(files)
    assert len(files) > 20


@given(st.text(alphabet=" \n\t()[]{}'\"\\#ab1.=:", max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_gives_tokens_that_close_what_they_open(text):
    tokens = tokenize_source(text)
    assert all(tokens)
    depth = np.cumsum([(t == "<in>") - (t == "<out>") for t in tokens] or [0])
    assert (depth >= 0).all()
    assert MASK not in tokens


def test_text_must_be_text():
    with pytest.raises(TypeError, match="`text` must be a string, got bytes"):
        tokenize_source(b"x")


# --- tokens to numbers ----------------------------------------------------------------------------


@given(st.text("aZ_9.é名+ \x00", min_size=1, max_size=5))
@settings(deadline=None)
def test_every_token_has_a_shape(token):
    assert shape_of(token) in SHAPES


@pytest.mark.parametrize(
    ("token", "shape"),
    [
        ("x", "<name>"),
        ("iPod", "<name>"),
        ("A", "<NAME>"),
        ("HTTP_1", "<NAME>"),
        ("HttpServer", "<Name>"),
        ("__init__", "<_name>"),
        ("_A", "<_name>"),
        ("0x1f", "<num>"),
        (".5", "<num>"),
        ("...", "<other>"),
        ("?", "<other>"),
        ("größe", "<name>"),
    ],
)
def test_the_shape_of_a_token(token, shape):
    assert shape_of(token) == shape


def test_words_are_the_commonest_tokens_and_ties_go_by_the_alphabet():
    files = [["b", "a", "<str>", "<line>"], ["c", "c", "<str>", "a", "b"], ["d"]]
    assert common_words(files, 3) == (*SPECIAL, "a", "b", "c")
    assert common_words(files, 100) == (*SPECIAL, "a", "b", "c", "d")
    assert common_words([], 5) == SPECIAL


def test_tokens_become_words_or_shapes():
    words = (*SPECIAL, "def", "x")
    numbers = encode(["def", "x", "y", "Y2", "Yy", "_", "12", "<str>", "@"], words)
    back = [words[i] for i in numbers]
    assert back == [
        "def",
        "x",
        "<name>",
        "<NAME>",
        "<Name>",
        "<_name>",
        "<num>",
        "<str>",
        "<other>",
    ]
    assert numbers.dtype == np.int64
    assert encode([], words).shape == (0,)


def test_words_that_lack_a_shape_or_come_twice_are_refused(library):
    with pytest.raises(ValueError, match="missing: <Name>"):
        encode(["x"], [w for w in SPECIAL if w != "<Name>"])
    with pytest.raises(ValueError, match="`words` must be different strings"):
        encode(["x"], (*SPECIAL, "x", "x"))
    with pytest.raises(ValueError, match="`words` must hold"):
        read_corpus(["x"], root=library)
    with pytest.raises(ValueError, match="`size` must be at least 1, got 0"):
        common_words([], 0)


# --- files to parts -------------------------------------------------------------------------------


def test_parts_go_by_the_name_alone():
    names = [f"package/module{i}.py" for i in range(4000)]
    count = Counter(part_of(name) for name in names)
    shares = [count[part] / 4000 for part in PARTS]
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.25], atol=0.04)
    draw = zlib.crc32(b"916:json/decoder.py") / 2**32  # the rule as it was when the trunk was made
    assert part_of("json/decoder.py") == PARTS[(draw >= 0.5) + (draw >= 0.75)]


def test_every_file_is_in_one_part(library):
    read = read_corpus(root=library)
    names = [s.name for part in PARTS for s in read.part(part)]
    assert sorted(names) == [f"module{i:02}.py" for i in range(40)]
    for part in PARTS:
        assert all(part_of(s.name) == part for s in read.part(part))


def test_a_file_stays_in_its_part_when_others_come(library):
    before = read_corpus(root=library)
    (library / "new").mkdir()
    (library / "new" / "one.py").write_text("x = 1\n")
    after = read_corpus(root=library)
    for part in PARTS:
        assert {s.name for s in before.part(part)} <= {s.name for s in after.part(part)}


def test_words_are_counted_in_the_pretraining_part_only(library):
    read = read_corpus(root=library)
    for part in PARTS:
        for source in read.part(part):
            i = int(source.name[6:8])
            assert (f"function{i}" in read.words) == (part == "pretraining")


def test_given_words_are_kept(library):
    words = (*SPECIAL, "def", "return")
    read = read_corpus(words, root=library)
    assert read.words == words
    line = "def <name> <other> <name> <other> <other> <in> return <name> <other> <num> <out>"
    assert " ".join(words[i] for i in read.test[0].tokens) == line


def test_the_running_interpreters_library(real):
    assert len(real.words) == 1500 + len(SPECIAL)
    assert real.words[real.mask] == MASK
    sizes = {part: sum(len(s.tokens) for s in real.part(part)) for part in PARTS}
    assert sizes["pretraining"] > 350_000
    assert min(sizes.values()) > 120_000
    every = np.concatenate([s.tokens for part in PARTS for s in real.part(part)])
    assert every.min() > real.mask == 0
    assert every.max() < len(real.words)
    assert (every == real.words.index("<other>")).mean() < 0.001


def test_windows_of_a_part(real):
    found = real.windows("test", 64)
    assert found.dtype == torch.int64
    assert found.shape[1] == 64
    assert len(found) == sum(len(s.tokens) // 64 for s in real.test)
    overlapping = real.windows("test", 64, 32)
    assert len(overlapping) > 1.8 * len(found)


# --- windows --------------------------------------------------------------------------------------


@given(st.integers(0, 50), st.integers(1, 12), st.integers(1, 12))
@settings(deadline=None)
def test_windows_are_slices(size, length, step):
    tokens = np.arange(size) * 3
    expected = [tokens[i : i + length] for i in range(0, size - length + 1, step)]
    found = windows(tokens, length, step)
    assert found.shape == (len(expected), length)
    for row, slice_ in zip(found, expected, strict=True):
        np.testing.assert_array_equal(row, slice_)
    found[:] = -1  # a copy
    assert (tokens >= 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.arange(6).reshape(2, 3), 2), "`tokens` must be one row of whole numbers"),
        ((np.arange(3.0), 2), "`tokens` must be one row of whole numbers"),
        ((np.arange(3), 0), "`length` must be at least 1"),
        ((np.arange(3), 2, 0), "`step` must be at least 1"),
    ],
)
def test_what_cannot_be_cut_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        windows(*arguments)


def test_a_part_without_a_window_is_an_error(library):
    read = read_corpus(root=library)
    with pytest.raises(CorpusError, match="no file of the test part holds 64 tokens"):
        read.windows("test", 64)
    with pytest.raises(ValueError, match="`name` must be one of"):
        read.windows("tests")


@pytest.mark.parametrize("names", [[], ["a.py"]])
def test_too_few_sources_are_an_error(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("x = 1\n")
    with pytest.raises(CorpusError, match=r"no Python sources|part is empty"):
        read_corpus(root=tmp_path)


def test_doctests():
    assert doctest.testmod(module).failed == 0
