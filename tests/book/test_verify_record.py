"""What a passed check shows and stores."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from lib.book import verify
from lib.book.verify._record import join


def record(**more: object) -> verify.Record:
    draw = np.random.Generator.normal
    return verify.numeric("eq-double", lambda x: x + x, lambda x: 2 * x, draw, **more)


def test_the_verdict_is_one_line_that_links_back_to_the_equation() -> None:
    html = record().html
    element = ElementTree.fromstring(html)
    assert "\n" not in html
    assert element.attrib == {
        "class": "book-check",
        "id": "check-eq-double",
        "data-kind": "numeric",
    }
    link = element.find("a")
    assert link is not None
    assert link.attrib["href"] == "#equation-eq-double"
    assert "".join(link.itertext()) == "↑ equation"
    assert link.attrib["aria-label"].startswith("equation")  # what is seen is what is heard
    assert "✓" in "".join(element.itertext())


def test_the_stored_record_is_plain_json_of_chosen_numbers() -> None:
    data = record().data
    assert json.loads(json.dumps(data)) == data
    assert data == {
        "label": "eq-double",
        "kind": "numeric",
        "case": "",
        "anchor": "check-eq-double",
        "evidence": "200 random inputs, relative error below 1e-10",
        "n": 200,
        "tolerance": 1e-10,
        "absolute_tolerance": 0.0,
        "perturbation": "a right-hand side off by 0.1 % was rejected",
        "perturbation_rejected": True,
        "shared": [],
    }


def test_a_case_tells_checks_of_one_equation_apart() -> None:
    special = record(case="Many keys, n = 4096")
    assert special.anchor == "check-eq-double--many-keys-n-4096"
    assert "Many keys, n = 4096" in special.html
    assert special.plain.startswith("✓ eq-double (Many keys, n = 4096) · numeric")


def test_words_of_the_author_are_escaped() -> None:
    shown = verify.definition("eq-odds", "names <b>p & q</b>")
    assert "&lt;b&gt;p &amp; q&lt;/b&gt;" in shown.html
    ElementTree.fromstring(shown.html)


def test_a_definition_rejects_nothing_and_says_so_by_silence() -> None:
    shown = verify.definition("eq-softmax", "names the weights p_i")
    assert shown.data["perturbation_rejected"] is None
    assert shown.plain == "✓ eq-softmax · definition: names the weights p_i"


@pytest.mark.parametrize("words", ["", "  ", None, 3])
def test_a_definition_must_say_what_it_names(words: object) -> None:
    with pytest.raises(ValueError, match="`names` must say"):
        verify.definition("eq-softmax", words)


def test_every_failure_is_an_assertion_error() -> None:
    for error in (verify.CheckFailed, verify.CannotFail, verify.SameRoute):
        assert issubclass(error, AssertionError)


def test_another_seed_leaves_the_record_as_it_is() -> None:
    assert record(seed=1).bundle == record(seed=2).bundle


@pytest.mark.parametrize(
    ("words", "sentence"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")],
)
def test_words_are_joined_as_a_sentence_does(words: list[str], sentence: str) -> None:
    assert join(words) == sentence
