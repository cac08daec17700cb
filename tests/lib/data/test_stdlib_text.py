"""The standard library as a corpus: which files, which half, which numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.data import stdlib_text
from lib.data.stdlib_text import ALPHABET, CorpusError, Vocabulary


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A folder that looks like a standard library of 40 small files."""
    for i in range(40):
        (tmp_path / f"module{i:02}.py").write_text(f"def function{i}(x):\n    return x + {i}\n")
    return tmp_path


def add(folder: Path, name: str, text: str = "left_out = 1\n") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_the_running_interpreter_has_a_corpus_of_millions_of_characters():
    train, test = stdlib_text.stdlib_text()
    assert len(train) > 3_000_000
    assert len(test) > 300_000
    assert "def namedtuple" in train + test


@pytest.mark.parametrize(
    "name",
    [
        "test/test_os.py",
        "unittest/test/test_case.py",
        "site-packages/numpy/core.py",
        "encodings/cp037.py",
        "idlelib/run.py",
        "config-3.11-x86_64-linux-gnu/python-config.py",
        "_sysconfigdata__linux_x86_64-linux-gnu.py",
        "__pycache__/os.py",
    ],
)
def test_tests_tables_and_installed_packages_are_left_out(library, name):
    add(library, name)
    assert len(stdlib_text.stdlib_files(library)) == 40


def test_files_below_folders_belong_and_come_in_order_of_their_names(library):
    add(library, "json/decoder.py")
    names = [path.relative_to(library).as_posix() for path in stdlib_text.stdlib_files(library)]
    assert names == sorted(names)
    assert "json/decoder.py" in names


def test_both_halves_together_hold_every_file_once(library):
    train, test = stdlib_text.stdlib_text(library)
    for i in range(40):
        assert (f"function{i}(" in train) != (f"function{i}(" in test)


def test_a_file_stays_in_its_half_when_other_files_come_and_go(library):
    _, before = stdlib_text.stdlib_text(library)
    for i in range(40, 60):
        add(library, f"module{i}.py", f"def function{i}(x): pass\n")
    (library / "module00.py").unlink()
    _, after = stdlib_text.stdlib_text(library)
    kept = [i for i in range(1, 40) if f"function{i}(" in before]
    assert kept
    assert all(f"function{i}(" in after for i in kept)


def test_the_test_half_grows_with_its_share(library):
    sizes = [len(stdlib_text.stdlib_text(library, test_share=share)[1]) for share in (0.2, 0.5)]
    assert sizes[0] < sizes[1]


def test_two_readings_are_equal(library):
    assert stdlib_text.stdlib_text(library) == stdlib_text.stdlib_text(library)


def test_broken_bytes_become_replacement_characters_instead_of_an_error(library):
    (library / "module00.py").write_bytes(b"x = '\xff'\n")
    train, test = stdlib_text.stdlib_text(library)
    assert "\N{REPLACEMENT CHARACTER}" in train + test


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_outside_0_and_1_is_an_error_that_names_it(library, share):
    with pytest.raises(ValueError, match=r"`test_share` must lie strictly between 0 and 1"):
        stdlib_text.stdlib_text(library, test_share=share)


def test_a_library_inside_a_zip_file_is_a_clear_error(tmp_path):
    with pytest.raises(CorpusError, match=r"no standard-library folder .*python312\.zip"):
        stdlib_text.stdlib_files(tmp_path / "python312.zip")


def test_a_library_without_sources_is_a_clear_error(tmp_path):
    (tmp_path / "os.pyc").write_bytes(b"\0")
    with pytest.raises(CorpusError, match="no Python sources"):
        stdlib_text.stdlib_files(tmp_path)


def test_an_empty_half_is_a_clear_error(tmp_path):
    add(tmp_path, "only.py")
    with pytest.raises(CorpusError, match="half is empty"):
        stdlib_text.stdlib_text(tmp_path)


@given(st.text())
def test_characters_outside_the_alphabet_share_the_last_number(text):
    ids = stdlib_text.character_ids(text)
    expected = [ALPHABET.index(c) if c in ALPHABET else len(ALPHABET) for c in text]
    assert ids.tolist() == expected


def test_the_alphabet_is_newline_and_printable_ascii_without_repeats():
    assert len(set(ALPHABET)) == len(ALPHABET) == 96
    assert all(c == "\n" or c.isprintable() for c in ALPHABET)


def test_characters_decode_to_the_text_they_came_from(library):
    split = stdlib_text.characters(library)
    train, test = stdlib_text.stdlib_text(library)
    assert "".join(split.symbols[i] for i in split.train) == train
    assert "".join(split.symbols[i] for i in split.test) == test
    assert split.size == 97


def test_tokens_are_names_numbers_and_single_marks():
    assert stdlib_text.tokenize_text("x_1 += f(23, 'é')") == [
        *["x_1", "+", "=", "f", "(", "23", ",", "'", "'", ")"]
    ]


def test_rare_tokens_are_dropped_from_both_halves(library):
    split = stdlib_text.tokens(library, vocabulary=8)
    assert set(split.symbols) == {"def", "(", "x", ")", ":", "return", "+", split.symbols[-1]}
    assert split.train.max() < 8
    assert split.test.max() < 8


def test_token_numbers_stand_for_the_tokens_of_the_text(library):
    split = stdlib_text.tokens(library, vocabulary=20)
    words = stdlib_text.tokenize_text(stdlib_text.stdlib_text(library)[0])
    kept = [word for word in words if word in split.symbols]
    assert [split.symbols[i] for i in split.train] == kept


def test_a_vocabulary_is_sorted_by_frequency_and_then_by_first_appearance():
    kept = Vocabulary.most_frequent(list("baacbad"), 3)
    assert kept.symbols == ("a", "b", "c")
    assert kept.encode(list("dcxa")).tolist() == [2, 0]


def test_more_symbols_than_the_text_has_is_a_clear_error(library):
    with pytest.raises(CorpusError, match=r"`vocabulary` is 5000, .* only \d+ different"):
        stdlib_text.tokens(library, vocabulary=5000)


@pytest.mark.parametrize("size", [0, -3])
def test_an_empty_vocabulary_is_an_error(size):
    with pytest.raises(ValueError, match="`size` must be at least 1"):
        Vocabulary.most_frequent(["a"], size)
