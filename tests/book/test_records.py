"""Notebooks with missing, stray, forged and powerless evidence: every one must be reported."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.book import claims, records, verify

TITLE = "# A chapter\n\n## Derivation\n"
EQUATION = "Two ways to write it:\n\n$$\nx + x = 2x\n$$ (eq-double)\n"
CHECK = 'verify.numeric("eq-double", lambda x: x + x, lambda x: 2 * x, draw)'
CLAIM = 'claims.claim("better", "It is better.", rule=rule, seeds=range(3))'


def markdown(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source: str, *bundles: dict[str, Any], count: int | None = 1) -> dict[str, Any]:
    outputs = [{"output_type": "display_data", "data": b, "metadata": {}} for b in bundles]
    return {
        "cell_type": "code",
        "metadata": {},
        "execution_count": count,
        "source": source,
        "outputs": outputs,
    }


def notebook(*cells: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [*cells]})


def double(case: str = "", label: str = "eq-double") -> dict[str, Any]:
    draw = np.random.Generator.normal
    return verify.numeric(label, lambda x: x + x, lambda x: 2 * x, draw, case=case).bundle


def better(id: str = "better") -> dict[str, Any]:
    rule = claims.at_least([1.9, 2.0, 2.1], 0.0)
    return claims.claim(id, "It is better.", rule=rule, seeds=range(3)).bundle


GOOD = notebook(markdown(TITLE + EQUATION), code(CHECK, double()), code(CLAIM, better(), count=2))


def test_a_notebook_in_order_has_no_problems() -> None:
    scan = records.scan_notebook(GOOD, "chapters/good")
    assert scan.problems == []
    assert [(e.label, e.cell, e.section) for e in scan.equations] == [
        ("eq-double", 0, "Derivation")
    ]
    assert scan.equations[0].latex == "x + x = 2x"
    (check,) = scan.checks
    assert (check.label, check.kind, check.cell, check.anchor, check.notebook) == (
        "eq-double",
        "numeric",
        1,
        "check-eq-double",
        "chapters/good",
    )
    assert check.summary.startswith("✓ eq-double · numeric: 200 random inputs")
    (claim,) = scan.claims
    assert (claim.id, claim.verdict, claim.seeds, claim.cell) == ("better", "holds", [0, 1, 2], 2)
    assert "<book-measured>" in claim.html


def test_a_path_a_dictionary_and_a_folder_are_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "good.ipynb"
    path.write_text(json.dumps(GOOD), encoding="utf-8")
    assert records.scan_notebook(path) == records.scan_notebook(GOOD, "good")
    assert records.scan_book(tmp_path) == records.scan_notebook(GOOD, "good")
    assert records.problems(tmp_path) == records.problems(path) == records.problems(GOOD) == []


def test_sources_and_outputs_may_be_lists_of_lines() -> None:
    stored = copy.deepcopy(GOOD)
    for cell in stored["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True)
        for output in cell.get("outputs", []):
            html = output["data"]["text/html"]
            output["data"]["text/html"] = html.splitlines(keepends=True)
    assert records.scan_notebook(stored) == records.scan_notebook(GOOD)


# Fooling it -----------------------------------------------------------------------------------


def only_problem(*cells: dict[str, Any]) -> str:
    found = records.problems(notebook(*cells))
    assert len(found) == 1, found
    return found[0]


def test_a_label_without_a_check_is_reported() -> None:
    problem = only_problem(markdown(TITLE + EQUATION))
    assert problem == "notebook, cell 1: the equation eq-double has no check"


def test_a_check_for_no_label_is_reported() -> None:
    problem = only_problem(markdown(TITLE), code(CHECK, double()))
    assert "a check of eq-double, but no equation of that label" in problem


def test_a_deleted_output_is_reported() -> None:
    found = records.problems(notebook(markdown(TITLE + EQUATION), code(CHECK)))
    assert "numeric check of eq-double is made here but its record is missing" in found[0]
    assert "eq-double has no check" in found[1]
    problem = only_problem(markdown(TITLE), code(CLAIM))
    assert "the claim better is made here but its record is missing" in problem


def test_one_deleted_output_of_two_is_reported() -> None:
    twice = CHECK + "\n" + CHECK.replace("draw)", "draw, case='again')")
    whole = (markdown(TITLE + EQUATION), code(twice, double(), double("again")))
    assert records.problems(notebook(*whole)) == []
    assert "missing" in only_problem(whole[0], code(twice, double()))


def test_a_record_that_no_source_makes_is_reported() -> None:
    problem = only_problem(markdown(TITLE + EQUATION), code("1 + 1", double()))
    assert "records numeric eq-double, which the source does not make" in problem


def test_a_record_of_another_kind_than_the_source_makes_is_reported() -> None:
    source = CHECK.replace("numeric", "symbolic")
    found = records.problems(notebook(markdown(TITLE + EQUATION), code(source, double())))
    assert len(found) == 2


def test_a_record_without_power_is_reported() -> None:
    for value in (False, None, "missing", "yes"):
        bundle = copy.deepcopy(double())
        record = bundle["application/vnd.book.check+json"]
        if value == "missing":
            del record["perturbation_rejected"]
        else:
            record["perturbation_rejected"] = value
        problem = only_problem(markdown(TITLE + EQUATION), code(CHECK, bundle))
        assert "did not reject a perturbed formula" in problem


def test_a_definition_needs_no_power() -> None:
    bundle = verify.definition("eq-double", "names the double").bundle
    source = 'verify.definition("eq-double", "names the double")'
    assert records.problems(notebook(markdown(TITLE + EQUATION), code(source, bundle))) == []


def test_a_record_of_no_known_kind_is_reported() -> None:
    bundle = copy.deepcopy(double())
    bundle["application/vnd.book.check+json"]["kind"] = "trust-me"
    found = records.problems(notebook(markdown(TITLE + EQUATION), code("x", bundle)))
    assert any("no known kind: 'trust-me'" in problem for problem in found)


def test_a_record_without_its_visible_verdict_is_reported() -> None:
    bundle = {**double(), "text/html": "<p>fine</p>"}
    problem = only_problem(markdown(TITLE + EQUATION), code(CHECK, bundle))
    assert "the check of eq-double has no verdict" in problem
    bundle = {**better(), "text/html": ""}
    assert "the claim better has no verdict" in only_problem(markdown(TITLE), code(CLAIM, bundle))


def test_a_check_before_its_equation_is_reported() -> None:
    problem = only_problem(markdown(TITLE), code(CHECK, double()), markdown(EQUATION))
    assert "stands before its equation, which is in cell 3" in problem


def test_a_check_in_another_section_is_reported() -> None:
    far = (markdown(TITLE + EQUATION), markdown("## Exercises"), code(CHECK, double()))
    assert "stands in “Exercises”, far from its equation in “Derivation”" in only_problem(*far)
    near = notebook(far[0], code(CHECK, double()), far[1], code(CHECK, double("again"), count=2))
    assert records.problems(near) == []


def test_two_checks_of_one_label_must_be_told_apart() -> None:
    cells = (markdown(TITLE + EQUATION), code(CHECK + "\n" + CHECK, double(), double()))
    assert "needs case=" in only_problem(*cells)


def test_a_claim_id_used_twice_is_reported() -> None:
    problem = only_problem(code(CLAIM + "\n" + CLAIM, better(), better()))
    assert "the claim id better is used twice" in problem


def test_a_label_used_twice_in_one_notebook_is_reported() -> None:
    problem = only_problem(markdown(TITLE + EQUATION + EQUATION), code(CHECK, double()))
    assert "the label eq-double is already used in notebook, cell 1" in problem


def test_labels_and_ids_used_on_two_pages_are_reported(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.ipynb").write_text(json.dumps(GOOD), encoding="utf-8")
    assert records.problems(tmp_path) == [
        "the label eq-double is used on several pages: one, two",
        "the claim id better is used on several pages: one, two",
    ]


def test_an_equation_of_a_markdown_page_needs_a_check_too(tmp_path: Path) -> None:
    (tmp_path / "notation.md").write_text(TITLE + EQUATION, encoding="utf-8")
    assert records.problems(tmp_path) == ["notation, cell 1: the equation eq-double has no check"]


def test_generated_and_hidden_folders_are_not_read(tmp_path: Path) -> None:
    for folder in ("_build", ".ipynb_checkpoints"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "copy.md").write_text(EQUATION, encoding="utf-8")
    assert records.problems(tmp_path) == []


@pytest.mark.parametrize("label", ["softmax", "eq-Double", "eq_double"])
def test_a_label_of_another_form_is_reported(label: str) -> None:
    found = records.problems(notebook(markdown(f"$$ x $$ ({label})")))
    assert any("must look like eq-some-words" in problem for problem in found)


def test_a_cell_without_execution_count_is_reported() -> None:
    problem = only_problem(code("1 + 1", count=None))
    assert "no execution count, so its output is never compared" in problem


def test_cells_executed_out_of_order_are_reported() -> None:
    assert "not executed from top to bottom" in only_problem(
        code("a = 1", count=2), code("a", count=1)
    )


@pytest.mark.parametrize(
    "source",
    [
        'import lib.book.verify as v\nv.numeric("eq-double", f, g, draw)',
        'from lib.book import verify as v\nv.numeric("eq-double", f, g, draw)',
        'from lib.book.verify import numeric\nnumeric("eq-double", f, g, draw)',
        'from lib.book.verify import numeric as same\nsame("eq-double", f, g, draw)',
        'import lib.book\nlib.book.verify.numeric("eq-double", f, g, draw)',
        'verify.numeric(\n    "eq-double",  # a comment (with a bracket\n    f, g, draw)',
        'verify.numeric(label="eq-double", lhs=f, rhs=g, draw=draw)',
        'record = [verify.numeric("eq-double", f, g, draw) for _ in range(1)]',
        '%matplotlib inline\nverify.numeric("eq-double", f, g, draw)',
        'if True:\n    %time 1\n    verify.numeric("eq-double", f, g, draw)',
        '%%time\nverify.numeric("eq-double", f, g, draw)',
        'this is no python: verify.numeric("eq-double", f, g, draw)',
    ],
)
def test_a_deleted_output_is_seen_however_the_check_is_called(source: str) -> None:
    with_output = notebook(markdown(TITLE + EQUATION), code(source, double()))
    assert records.problems(with_output) == []
    without = records.problems(notebook(markdown(TITLE + EQUATION), code(source)))
    assert any("its record is missing from the output" in problem for problem in without)


def test_what_only_looks_like_a_call_is_none() -> None:
    source = '# verify.numeric("eq-double", f, g, draw)\ntext = "verify.numeric(\'eq-double\')"'
    assert records.problems(notebook(code(source))) == []


def test_a_failure_shown_on_purpose_leaves_no_record() -> None:
    source = f"try:\n    {CHECK}\nexcept verify.CheckFailed as error:\n    print(error)"
    assert records.problems(notebook(code(source))) == []


def test_a_name_that_is_computed_is_reported() -> None:
    source = "for label in labels:\n    verify.numeric(label, f, g, draw)"
    assert "must be a literal string" in only_problem(
        markdown(TITLE + EQUATION), code(source, double())
    )


def test_a_check_in_a_loop_may_leave_several_records() -> None:
    source = 'for n in sizes:\n    verify.numeric("eq-double", f, g, draw, case=str(n))'
    cells = (markdown(TITLE + EQUATION), code(source, double("2"), double("3")))
    assert records.problems(notebook(*cells)) == []


def test_an_equation_that_never_ends_is_reported() -> None:
    assert "$$ is never closed" in only_problem(markdown("$$\nx = 1\n\n# Next"))
    assert "blank line" in only_problem(markdown("$$\nx\n\n= 1\n$$"))


@pytest.mark.parametrize("bad", [{}, {"cells": None}, []])
def test_what_is_no_notebook_is_refused(bad: object, tmp_path: Path) -> None:
    path = tmp_path / "bad.ipynb"
    path.write_text(json.dumps(bad), encoding="utf-8")
    with pytest.raises(ValueError, match="notebook"):
        records.scan_notebook(path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="existing folder"):
        records.scan_book(tmp_path / "nowhere")
