"""Docstrings as sentences, and the graded pairs made of them."""

from __future__ import annotations

import ast
import doctest
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lib.data import docstrings as module
from lib.data.docstrings import (
    Docstring,
    docstrings,
    halves,
    name_pairs,
    positives,
    provenance_pairs,
    words,
)
from lib.data.stdlib_text import CorpusError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def timed() -> tuple[tuple[Docstring, ...], float]:
    started = time.process_time()
    return docstrings(), time.process_time() - started


@pytest.fixture(scope="module")
def library(timed) -> tuple[Docstring, ...]:
    return timed[0]


@pytest.fixture(scope="module")
def places(library) -> dict[str, list[Docstring]]:
    found: dict[str, list[Docstring]] = {}
    for doc in library:
        for sentence in doc.sentences:
            found.setdefault(sentence, []).append(doc)
    return found


def small(sentences: int = 2) -> tuple[Docstring, ...]:
    """3 packages of 2 modules of 3 functions each."""
    return tuple(
        Docstring(
            f"p{p}.m{m}",
            f"find_item{chr(97 + f)}",
            tuple(f"Sentence {s} of function {f} in module {m}, {p}." for s in range(sentences)),
        )
        for p in range(3)
        for m in range(2)
        for f in range(3)
    )


def read(folder: Path, source: str | bytes, name: str = "one.py") -> tuple[Docstring, ...]:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(source if isinstance(source, bytes) else source.encode())
    return docstrings(folder)


def only(folder: Path, text: str) -> tuple[str, ...]:
    """Sentences of one docstring."""
    return read(folder, f"'''{text}'''\n")[0].sentences


# --- reading --------------------------------------------------------------------------------------


def test_the_running_interpreter_has_thousands_of_docstrings(library):
    assert len(library) > 4000
    assert sum(len(doc.sentences) for doc in library) > 10_000
    found = {(doc.module, doc.name): doc for doc in library}
    assert found["json.decoder", "JSONDecoder.decode"].kind == "function"
    assert found["json", ""].kind == "module"
    assert found["json.decoder", "JSONDecoder"].package == "json"


def test_a_first_sentence_is_that_of_the_object_itself(library):
    found = {(doc.module, doc.name): doc for doc in library}
    shown = " ".join((json.dumps.__doc__ or "").split()).replace("``", "")
    assert shown.startswith(found["json", "dumps"].sentences[0])


def test_reading_takes_seconds(timed):
    assert timed[1] < 15.0  # 2.5 s on the machine it was written on


def test_every_documented_definition_is_found_wherever_it_stands(tmp_path):
    source = (
        "'''The module has words.'''\n"
        "class A:\n    '''The class has four words.'''\n"
        "    async def f(self):\n        '''The method has four words.'''\n"
        "        def g():\n            '''The inner function has words.'''\n"
        "if True:\n    try:\n        pass\n    except OSError:\n"
        "        def h():\n            '''The hidden function has words.'''\n"
        "def silent():\n    pass\n"
    )
    docs = read(tmp_path, source, "box/__init__.py")
    assert [(doc.name, doc.kind) for doc in docs] == [
        *[("", "module"), ("A", "class"), ("A.f", "function"), ("A.f.g", "function")],
        ("h", "function"),
    ]
    assert {doc.module for doc in docs} == {"box"}
    tree = ast.parse(source)
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    documented = [n for n in ast.walk(tree) if isinstance(n, kinds) and ast.get_docstring(n)]
    assert len(docs) == len(documented)


@pytest.mark.parametrize("source", ["def broken(:\n", b"x = 1\0\n", b"\xff\xfe\n"])
def test_a_file_that_does_not_parse_is_skipped(tmp_path, source):
    read(tmp_path, "'''A module of four words.'''\n", "good.py")
    assert [doc.module for doc in read(tmp_path, source, "bad.py")] == ["good"]


def test_warnings_about_somebody_elses_source_stay_away(tmp_path, recwarn):
    read(tmp_path, "'''A module of four words.'''\nx = '\\d'\n")
    assert not recwarn.list


def test_tests_are_left_out_as_in_the_other_corpus(tmp_path):
    read(tmp_path, "'''A module of four words.'''\n")
    assert len(read(tmp_path, "'''A test of four words.'''\n", "test/test_one.py")) == 1


def test_no_sources_and_no_docstrings_are_clear_errors(tmp_path):
    with pytest.raises(CorpusError, match="no Python sources"):
        docstrings(tmp_path)
    with pytest.raises(CorpusError, match="no docstrings in the Python sources"):
        read(tmp_path, "x = 1\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Open the file now. Then close it at once!", ("Open the file now.",) * 1),
        ("Read a line\nof the text.", ("Read a line of the text.",)),
        ("Use ``open`` or `close` on *this* file.", ("Use open or close on this file.",)),
        ("See :class:`pathlib.Path` for more words.", ("See pathlib.Path for more words.",)),
        ("Call it for files.\n\n>>> f(1)\nsome result of four words\n", ("Call it for files.",)),
        ("Write it, e.g. The first of them.", ("Write it, e.g. The first of them.",)),
        ("A title of words\n----------------\nThe text below it.", ("A title of words",)),
        (
            "- the first item here\n- the second item here",
            ("the first item here", "the second item here"),
        ),
        (
            "An example of it::\n\n    some code of words\n\nAfter it comes text.",
            ("An example of it.", "After it comes text."),
        ),
        ("Too few words.\n\nBut here are enough.", ("But here are enough.",)),
    ],
)
def test_sentences_come_without_code_and_markup(tmp_path, text, expected):
    assert only(tmp_path, text)[: len(expected)] == expected


def test_code_is_no_sentence(tmp_path):
    docs = only(tmp_path, "Here are four words.\n\nx[i] = {a: b, c: d} + (e, f); g(h) -> [1, 2]\n")
    assert docs == ("Here are four words.",)


def test_no_sentence_of_the_library_holds_a_prompt_or_a_line_end(library):
    sentences = [s for doc in library for s in doc.sentences]
    assert not any(">>>" in s or "\n" in s or "``" in s for s in sentences)
    assert all(len(words(s)) >= 4 and s == s.strip() for s in sentences)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("snake_case_name", ["snake", "case", "name"]),
        ("CamelCaseName", ["camel", "case", "name"]),
        ("HTTPServer2", ["http", "server", "2"]),
        ("__init__", ["init"]),
        ("Don't touch Python's", ["don't", "touch", "python's"]),
        ("如何开花呗 ok", ["如", "何", "开", "花", "呗", "ok"]),
        ("!?", []),
    ],
)
def test_names_fall_into_words(text, expected):
    assert words(text) == expected


def test_examples_in_docstrings_run():
    assert doctest.testmod(module).failed == 0


# --- halves ---------------------------------------------------------------------------------------


def test_halves_share_no_module_and_lose_nothing(library):
    dev, test = halves(library)
    assert len(dev) + len(test) == len(library)
    assert not {doc.module for doc in dev} & {doc.module for doc in test}
    assert 0.35 < len(dev) / len(library) < 0.65


def test_a_module_stays_on_its_side_whatever_else_there_is(library):
    _, test = halves(library)
    _, fewer = halves(library[::7])
    assert set(fewer) <= set(test)


def test_the_share_of_modules_is_the_one_asked_for(library):
    _, test = halves(library, test_share=0.2)
    share = len({d.module for d in test}) / len({d.module for d in library})
    assert share == pytest.approx(0.2, abs=0.06)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, np.nan])
def test_a_share_outside_its_range_is_an_error(share):
    with pytest.raises(ValueError, match="`test_share` must"):
        halves(small(), test_share=share)


# --- pairs ----------------------------------------------------------------------------------------


def test_provenance_grades_say_where_two_sentences_stand(library, places):
    pairs = provenance_pairs(library, rng(), per_grade=300)
    assert np.bincount(pairs.scores.astype(int)).tolist() == [300] * 4
    for (i, j), score in zip(pairs.pairs, pairs.scores, strict=True):
        (a,), (b,) = places[pairs.sentences[i]], places[pairs.sentences[j]]
        shared = (a.package == b.package) + (a.module == b.module) + (a is b)
        assert shared == score


def test_no_pair_comes_twice_in_either_order(library):
    pairs = provenance_pairs(library, rng()).pairs
    assert len({frozenset(p) for p in pairs.tolist()}) == len(pairs) == 4800


def test_every_pair_of_a_small_set_can_be_drawn():
    # 18 docstrings of 2 sentences: 18 pairs of grade 3, 6 modules × 3 · 4 of grade 2, and so on
    pairs = provenance_pairs(small(), rng(), per_grade=18)
    assert len(pairs) == 72
    with pytest.raises(ValueError, match="at most 18, the number of pairs of grade 3, got 19"):
        provenance_pairs(small(), rng(), per_grade=19)


def test_a_sentence_that_stands_in_two_places_has_no_grade():
    docs = (*small(), Docstring("p9.m", "f", ("Sentence 0 of function 0 in module 0, 0.", "Own.")))
    pairs = provenance_pairs(docs, rng(), per_grade=17)
    assert "Sentence 0 of function 0 in module 0, 0." not in pairs.sentences


def test_name_pairs_hold_a_function_and_its_own_or_another_first_sentence(library):
    own, module_of = {}, {}
    for doc in library:
        if doc.kind == "function":
            name = " ".join(words(doc.name.rpartition(".")[2]))
            own.setdefault(name, set()).add(doc.sentences[0])
            module_of.setdefault(name, set()).add(doc.module)
    first = {(doc.module, doc.sentences[0]) for doc in library}
    pairs = name_pairs(library, rng(), count=1000)
    assert pairs.scores.sum() == 500
    for (i, j), score in zip(pairs.pairs, pairs.scores, strict=True):
        name, sentence = pairs.sentences[i], pairs.sentences[j]
        assert (sentence in own[name]) == score
        assert any((m, sentence) in first for m in module_of[name])


def test_names_that_tell_nothing_are_left_out():
    good = Docstring("m", "read_line", ("Return one line of text.",))
    other = Docstring("m", "write_line", ("Put a line into the file.",))
    bad = (
        Docstring("m", "A.__init__", ("Make a new object here.",)),
        Docstring("m", "x", ("Some letter of the alphabet.",)),
        Docstring("m", "close_all_open_files", ("Close all open files.",)),
        Docstring("m", "Reader", ("A class that reads lines.",), "class"),
    )
    pairs = name_pairs((good, other, *bad), rng(), count=4)
    assert set(pairs.sentences) == {
        *["read line", "write line", good.sentences[0], other.sentences[0]]
    }


@pytest.mark.parametrize("make", [provenance_pairs, name_pairs])
def test_the_generator_alone_decides(library, make):
    a, b, c = make(library, rng(3)), make(library, rng(3)), make(library, rng(4))
    assert a.sentences == b.sentences
    assert (a.pairs == b.pairs).all()
    assert a.sentences != c.sentences


def test_pairs_do_not_depend_on_the_hash_seed(tmp_path):
    for m in range(4):
        body = "".join(
            f"def get_{w}():\n    '''Return the {w} of thing {m}.'''\n"
            for w in ("size", "name", "root", "path")
        )
        read(tmp_path, body, f"m{m}.py")
    code = (
        "import sys, numpy as np; from lib.data.docstrings import *\n"
        "p = name_pairs(docstrings(sys.argv[1]), np.random.default_rng(0), count=16)\n"
        "print(p.sentences, p.pairs.tolist())"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[3])},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(shown) == 1


def test_positives_are_neighbours_and_names_with_first_sentences():
    doc = Docstring("m", "A.read_line", ("First of the words.", "Second of them.", "Third one."))
    assert positives([doc]) == (
        ("First of the words.", "Second of them."),
        ("Second of them.", "Third one."),
        ("read line", "First of the words."),
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: name_pairs(small(), rng(), count=3), ValueError, "`count` must be even, got 3"),
        (lambda: name_pairs(small(), rng(), count=0), ValueError, "`count` must be at least 2"),
        (lambda: name_pairs(small(), rng(), count=900), ValueError, r"`count` must be at most \d+"),
        (lambda: provenance_pairs(small(), rng(), per_grade=0), ValueError, "`per_grade` must"),
        (lambda: provenance_pairs(small(), 0), TypeError, "`rng` must be a numpy.random.Generator"),
        (lambda: provenance_pairs(["text"], rng()), TypeError, "`docs` must hold Docstring"),
        (lambda: provenance_pairs("text", rng()), TypeError, "`docs` must hold Docstring"),
        (lambda: positives(()), ValueError, "`docs` must hold at least one docstring, got none"),
    ],
)
def test_bad_input_is_an_error_that_names_it(call, error, message):
    with pytest.raises(error, match=message):
        call()
