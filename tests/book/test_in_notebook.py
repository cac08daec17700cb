"""Checks and claims in a live kernel: each is shown once, stored alike twice, and read back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lib.book import records

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    "eq-named": 'verify.definition("eq-named", "names the weights")',
    "eq-proved": 'verify.symbolic("eq-proved", sp.Derivative(x * sp.log(x), x), sp.log(x) + 1)',
    "eq-computed": (
        'verify.numeric("eq-computed", lambda a: np.exp(a) ** 2, lambda a: np.exp(2 * a), draw)'
    ),
    "eq-derived": (
        'verify.gradient("eq-derived", lambda a: a.sin().sum(), lambda a: np.cos(a), draw)'
    ),
    "eq-bounded": ('verify.bound("eq-bounded", lambda a: 1 + a, lambda a: np.exp(a), draw, n=300)'),
    "eq-sampled": ('verify.monte_carlo("eq-sampled", lambda rng, n: rng.normal(size=n) ** 2, 1.0)'),
    "eq-grown": (
        'verify.asymptotic("eq-grown", lambda h: np.sin(h) - h, np.geomspace(0.5, 0.01, 8), 3)'
    ),
}
PREPARE = """import numpy as np
import sympy as sp
from lib.book import claims, verify
x = sp.symbols("x", positive=True)
def draw(rng):
    return rng.normal(size=3)
"""
CLAIM = """rule = claims.at_least([0.9, 0.8, 0.85], 0.5)
claims.claim("good", "It is good.", rule=rule, seeds=[0, 1, 2], article_says="does not hold")"""


def chapter() -> Any:
    equations = "\n\n".join(f"$$ x $$ ({label})" for label in KINDS)
    *several, last = KINDS.values()
    cells = [
        nbformat.v4.new_markdown_cell("# Title\n\n## Derivation\n\n" + equations),
        nbformat.v4.new_code_cell(PREPARE),
        nbformat.v4.new_code_cell("\n".join(several)),
        nbformat.v4.new_code_cell(last),
        nbformat.v4.new_code_cell(CLAIM),
    ]
    return nbformat.v4.new_notebook(cells=cells)


def execute(notebook: Any) -> Any:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    client = nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3")
    client.execute(env=environment)
    return notebook


@pytest.fixture(scope="module")
def executed() -> Any:
    return execute(chapter())


def bundles(notebook: Any) -> list[list[dict[str, Any]]]:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [[dict(output.data) for output in cell.outputs] for cell in code]


def test_every_check_is_shown_exactly_once(executed: Any) -> None:
    assert [len(shown) for shown in bundles(executed)] == [0, 6, 1, 1]
    assert all(
        o.output_type == "display_data" for c in executed.cells for o in c.get("outputs", [])
    )


def test_the_stored_notebook_reads_back_without_problems(executed: Any) -> None:
    scan = records.scan_notebook(executed)
    assert scan.problems == []
    assert [(c.label, c.kind) for c in scan.checks] == list(zip(KINDS, records.KINDS, strict=True))
    assert all(check.has_power for check in scan.checks)
    (claim,) = scan.claims
    assert claim.verdict == "holds"
    assert claim.contradicts
    assert "This contradicts the article" in claim.html


def test_a_second_run_stores_the_same_bytes(executed: Any) -> None:
    again = execute(chapter())  # in a fresh kernel
    assert bundles(again) == bundles(executed)


def test_a_broken_formula_stops_the_notebook_at_its_equation() -> None:
    broken = chapter()
    broken.cells[2].source = broken.cells[2].source.replace("np.exp(2 * a)", "np.exp(2.001 * a)")
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="eq-computed, numeric check"):
        execute(broken)


def test_nbval_passes_a_true_record_and_refuses_an_edited_one(tmp_path: Path) -> None:
    pytest.importorskip("nbval")
    cells = [
        nbformat.v4.new_code_cell("from lib.book import verify"),
        nbformat.v4.new_code_cell(KINDS["eq-named"]),
    ]
    true = execute(nbformat.v4.new_notebook(cells=cells))
    nbformat.write(true, tmp_path / "true.ipynb")
    record = true.cells[1].outputs[0].data["application/vnd.book.check+json"]
    record["evidence"] = "names something else"
    nbformat.write(true, tmp_path / "edited.ipynb")
    options = ["--nbval", "--nbval-current-env", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 failed, 3 passed" in done.stdout, done.stdout
    assert "edited.ipynb" in done.stdout.split("short test summary")[-1]


def test_checks_import_without_jupyter_and_stay_silent() -> None:
    program = (
        "import sys\n"
        "from lib.book import claims, records, verify\n"
        "heavy = {'IPython', 'torch', 'sympy', 'matplotlib', 'scipy.stats'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "verify.numeric('eq-x', lambda a: 2 * a, lambda a: a + a, lambda rng: rng.normal())\n"
        "claims.claim('x', 'It is.', rule=claims.at_least([1, 2, 3], 0), seeds=[0, 1, 2])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
