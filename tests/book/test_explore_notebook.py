"""An explorer and a figure in a real kernel, compared by nbval as the chapters are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import numpy as np
from lib.book import style
from lib.book.explore import Curves, Panel, Slider, explore

x = np.linspace(0, 1, 20)

def draw(a):
    return Curves(Panel().line(x, x**a, "curve"), readouts={"middle": 0.5**a})

explore(draw, {"a": Slider("exponent", 1, 3, n=3)}, title="Powers", alt=lambda a: f"a = {a}")
"""
FIGURE = """
fig, ax = style.figure()
style.line(ax, x, x**2, "theory", "square")
style.label_lines(ax)
style.show(fig, title="Square", alt="Rises from 0 to 1.", caption="It rises.")
"""


@pytest.fixture(scope="module")
def executed() -> nbformat.NotebookNode:
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(code.strip()) for code in (CODE, FIGURE)]
    )
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    return notebook


def compare(notebook: nbformat.NotebookNode, folder: Path) -> subprocess.CompletedProcess:
    """Run nbval on the notebook as the chapters' test does."""
    path = folder / "explorer.ipynb"
    nbformat.write(notebook, path)
    rules = ROOT / "nbval_sanitize.cfg"
    command = ["-m", "pytest", "-p", "no:cacheprovider", "-q", "--nbval", "--nbval-current-env"]
    return subprocess.run(
        [sys.executable, *command, f"--nbval-sanitize-with={rules}", str(path)],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )


def stripped(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as it is committed: no pictures, no widget views, elements empty."""
    notebook = nbformat.from_dict(notebook)
    for cell in notebook.cells:
        for output in cell.outputs:
            output.data.pop("application/vnd.jupyter.widget-view+json", None)
            for tag in ("book-explorer", "book-figure"):
                if output.data["text/html"].startswith(f"<{tag}"):
                    output.data["text/html"] = f"<{tag}></{tag}>"
    notebook.metadata.pop("widgets", None)
    return notebook


def test_a_kernel_shows_widget_element_and_text(executed):
    (output,) = executed.cells[0].outputs
    assert set(output.data) == {
        "application/vnd.jupyter.widget-view+json",
        "text/html",
        "text/plain",
    }
    assert output.data["text/plain"] == "Explorer: Powers"


def test_a_kernel_writes_nothing_to_stderr(executed):
    kinds = [output.output_type for cell in executed.cells for output in cell.outputs]
    assert kinds == ["execute_result", "display_data"]


def test_nbval_accepts_the_notebook_as_it_is_committed(executed, tmp_path):
    result = compare(stripped(executed), tmp_path)
    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout


def test_nbval_refuses_a_different_title_and_a_missing_element(executed, tmp_path):
    notebook = stripped(executed)
    notebook.cells[0].outputs[0].data["text/plain"] = "Explorer: Roots"
    del notebook.cells[1].outputs[0].data["text/html"]
    result = compare(notebook, tmp_path)
    assert "2 failed" in result.stdout
