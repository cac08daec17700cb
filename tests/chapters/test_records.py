"""Every notebook of the book: its rooms, its evidence, and what nbval will compare."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from lib.book import anatomy, records

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = ROOT / "chapters"
# Without a notebook every test below would pass for want of anything to look at.
NOTEBOOKS = sorted(CHAPTERS.glob("*.ipynb")) or [CHAPTERS / "there-is-no-notebook.ipynb"]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> Path:
    assert request.param.is_file(), "chapters/ holds no notebook"
    return request.param


def test_there_is_at_least_one_chapter() -> None:
    assert list(CHAPTERS.glob("*.ipynb")), "chapters/ holds no notebook"


def test_equations_checks_claims_and_outputs_fit_together(notebook: Path) -> None:
    assert records.problems(notebook) == []


def test_labels_and_claim_ids_are_unique_over_the_whole_book() -> None:
    assert NOTEBOOKS[0].is_file(), "chapters/ holds no notebook"
    assert records.scan_book(CHAPTERS).problems == []


def test_a_chapter_has_equations_and_claims(notebook: Path) -> None:
    scan = records.scan_notebook(notebook)
    assert scan.equations, "a chapter without a numbered equation has nothing to check"
    assert scan.claims, "a chapter without a claim has no experiment"


def test_every_label_has_a_check(notebook: Path) -> None:
    scan = records.scan_notebook(notebook)
    assert {e.label for e in scan.equations} == {c.label for c in scan.checks}


def test_every_check_rejected_its_perturbation(notebook: Path) -> None:
    checks = records.scan_notebook(notebook).checks
    assert checks
    assert [check.label for check in checks if not check.has_power] == []


def test_most_equations_are_checked_and_not_just_defined(notebook: Path) -> None:
    """A chapter of definitions would pass every other test."""
    kinds = [check.kind for check in records.scan_notebook(notebook).checks]
    assert kinds.count("definition") < len(kinds) / 2


def test_every_code_cell_has_an_execution_count(notebook: Path) -> None:
    cells = records.load(notebook)["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert [cell.get("id") for cell in code if cell.get("execution_count") is None] == []


def test_all_rooms_are_there_in_order(notebook: Path) -> None:
    assert anatomy.room_problems(notebook) == []


def test_the_stored_notebook_is_fit_to_be_compared(notebook: Path) -> None:
    """No absolute path, stderr, widget state or payload; few cells that are not compared."""
    assert anatomy.hygiene_problems(notebook) == []


def test_no_path_of_the_machine_that_executed_it_is_stored(notebook: Path) -> None:
    stored = notebook.read_text(encoding="utf-8")
    places = [ROOT, Path.home(), Path(sys.prefix), Path(tempfile.gettempdir())]
    assert [str(place) for place in places if f"{place}/" in stored] == []
