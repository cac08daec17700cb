"""Committed notebooks are in normal form, and nbval compares what is left in them."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import executor
import nbformat
import normalise
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat import v4

if TYPE_CHECKING:
    from books import SmallBook

ROOT = Path(__file__).resolve().parents[2]
RULES = normalise.read_rules(ROOT / "nbval_sanitize.cfg")
WIDGET = "application/vnd.jupyter.widget-view+json"
RECORD = "application/vnd.book.check+json"


def code(source: str = "x", outputs: list[Any] | None = None, **more: Any) -> Any:
    return v4.new_code_cell(source, execution_count=7, outputs=outputs or [], **more)


def display(**data: Any) -> Any:
    return v4.new_output("display_data", {k.replace("_", "/"): v for k, v in data.items()})


def normal(*cells: Any, **metadata: Any) -> Any:
    return normalise.normal_form(v4.new_notebook(cells=list(cells), metadata=metadata), RULES)


# --- what is kept and what goes ---------------------------------------------------------------


def test_pictures_and_widgets_go_and_text_and_records_stay() -> None:
    data = {"image/png": "AAAA", "text/plain": "a figure", WIDGET: {"model_id": "1"}}
    record = {RECORD: {"label": "eq-a", "n": 200}, "text/plain": "holds"}
    notebook = normal(
        code(outputs=[v4.new_output("display_data", data), v4.new_output("display_data", record)])
    )
    assert [output.data for output in notebook.cells[0].outputs] == [
        {"text/plain": "a figure"},
        record,
    ]


def test_an_output_with_nothing_left_goes_altogether() -> None:
    assert normal(code(outputs=[display(image_png="AAAA")])).cells[0].outputs == []


@pytest.mark.parametrize("tag", ["book-explorer", "book-figure", "book-measured"])
def test_payloads_of_our_elements_are_stored_empty(tag: str) -> None:
    html = f'<div class="v">holds<{tag} id="a" style="x:y">\n<b>0.3{tag}</b>\n</{tag}> in 5</div>'
    [output] = normal(code(outputs=[display(text_html=html)])).cells[0].outputs
    assert output.data["text/html"] == f'<div class="v">holds<{tag}></{tag}> in 5</div>'


def test_two_elements_do_not_swallow_what_stands_between_them() -> None:
    html = "<book-measured>1</book-measured> holds <book-measured>2</book-measured>"
    [output] = normal(code(outputs=[display(text_html=html)])).cells[0].outputs
    assert output.data["text/html"].count("holds") == 1


def test_an_element_with_a_longer_name_is_left_alone() -> None:
    html = "<book-figures>1</book-figures>"
    [output] = normal(code(outputs=[display(text_html=html)])).cells[0].outputs
    assert output.data["text/html"] == html


def test_memory_addresses_go_from_every_kind_of_text() -> None:
    outputs = [
        v4.new_output("stream", name="stdout", text="<object at 0x7f00deadbeef>\n"),
        display(text_plain="<f at 0x7f00deadbeef>"),
        v4.new_output("error", ename="E", evalue="at 0x7f00deadbeef", traceback=["/home/me"]),
    ]
    text = normalise.text_of(normal(code(outputs=outputs)))
    assert "7f00deadbeef" not in text
    assert text.count("0xADDR") == 3
    assert "/home/me" not in text


def test_short_hexadecimal_numbers_are_not_addresses() -> None:
    [output] = normal(code(outputs=[display(text_plain="0xff 0x1000")])).cells[0].outputs
    assert output.data["text/plain"] == "0xff 0x1000"


def test_how_a_stream_was_cut_into_pieces_leaves_no_trace() -> None:
    def streams(*pieces: tuple[str, str]) -> Any:
        return [v4.new_output("stream", name=name, text=text) for name, text in pieces]

    cut = normal(code(outputs=streams(("stdout", "a"), ("stdout", "b\n"), ("stderr", "w"))))
    whole = normal(code(outputs=streams(("stdout", "ab\n"), ("stderr", "w"))))
    assert cut.cells[0].outputs == whole.cells[0].outputs


@pytest.mark.parametrize("marked", ["tag", "comment"])
def test_outputs_that_nbval_ignores_are_not_stored(marked: str) -> None:
    cell = code("f()", [display(text_plain="0.731 s")])
    if marked == "tag":
        cell.metadata.tags = ["nbval-ignore-output"]
    else:
        cell.source = "# NBVAL_IGNORE_OUTPUT\nf()"
    assert normal(cell).cells[0].outputs == []


def test_timings_and_editor_state_go_and_tags_stay() -> None:
    cell = code(metadata={"tags": ["hide-input"], "execution": {"iopub": "1"}, "collapsed": True})
    notebook = normal(
        cell,
        widgets={"state": 1},
        kernelspec={"name": "mine", "display_name": "Mine"},
        authors=["me"],
    )
    assert notebook.cells[0].metadata == {"tags": ["hide-input"]}
    assert notebook.metadata == normalise.METADATA


def test_cells_keep_their_ids_and_copies_get_their_own() -> None:
    notebook = v4.new_notebook(cells=[code("a", id="chosen"), code("b"), code("c", id="other")])
    notebook.cells[1].id = "chosen"
    ids = [cell.id for cell in normalise.normal_form(notebook, RULES).cells]
    assert (ids[0], ids[2]) == ("chosen", "other")
    assert len(set(ids)) == 3


def test_cells_are_counted_from_one_and_a_cell_never_run_stays_uncounted() -> None:
    never = v4.new_code_cell("z")
    result = v4.new_output("execute_result", {"text/plain": "1"}, execution_count=9)
    notebook = normal(code("a"), never, v4.new_markdown_cell("m"), code("b", [result]))
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == [1, None, 2]
    assert notebook.cells[3].outputs[0].execution_count == 2


TEXTS = st.text(alphabet="abc<>/-=\"' \n0x123456", max_size=30) | st.sampled_from(
    ["<book-figure a='1'>x</book-figure>", "<book-measured>", "</book-measured>", "0x0123456789"]
)
OUTPUTS = st.one_of(
    st.builds(lambda t: v4.new_output("stream", name="stdout", text=t), TEXTS),
    st.builds(lambda t: v4.new_output("stream", name="stderr", text=t), TEXTS),
    st.builds(lambda a, b: display(text_plain=a, text_html=b, image_png="AA"), TEXTS, TEXTS),
    st.builds(lambda t: v4.new_output("error", ename="E", evalue=t, traceback=[t]), TEXTS),
)
CELLS = st.one_of(
    st.builds(lambda s, o: code(s, o), TEXTS, st.lists(OUTPUTS, max_size=3)),
    st.builds(lambda s: v4.new_code_cell(s), TEXTS),
    st.builds(lambda s: v4.new_markdown_cell(s), TEXTS),
)


@given(st.lists(CELLS, max_size=4))
def test_the_normal_form_of_a_normal_form_is_itself(cells: list[Any]) -> None:
    once = normal(*copy.deepcopy(cells))
    text = normalise.text_of(once)
    again = normalise.normal_form(nbformat.reads(text, as_version=4), RULES)
    assert normalise.text_of(again) == text


def test_the_rules_are_those_that_nbval_reads() -> None:
    from nbval.plugin import get_sanitize_patterns

    text = (ROOT / "nbval_sanitize.cfg").read_text("utf-8")
    assert list(RULES) == get_sanitize_patterns(text)
    assert len(RULES) == 4


# --- the command ------------------------------------------------------------------------------


def test_running_it_twice_changes_nothing(small_book: SmallBook) -> None:
    small_book.write_notebook("first", "import lib, time\nprint(object(), time.time() > 0)")
    done = small_book.run("normalise.py")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 notebooks changed" in done.stdout
    before = {p: p.read_bytes() for p in executor.find_notebooks(small_book.root)}
    assert small_book.run("normalise.py", "--check").returncode == 0
    done = small_book.run("normalise.py", "--fresh")
    assert "0 of 2 notebooks changed" in done.stdout
    assert {p: p.read_bytes() for p in before} == before


def test_a_notebook_saved_by_jupyterlab_is_executed_once_and_found_again(
    one_chapter: SmallBook,
) -> None:
    path = one_chapter.root / "chapters" / "second.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.kernelspec.display_name = "Python 3 (ipykernel)"
    nbformat.write(notebook, path)
    normalise.normalise(one_chapter.root)
    lines: list[str] = []
    folder = executor.execute_all(one_chapter.root, 1, say=lines.append)
    assert lines == []
    cache = executor.open_cache(folder)
    record = cache.match_cache_notebook(nbformat.read(path, as_version=4))
    assert record.data["execution_seconds"] > 0


def test_a_failing_notebook_is_left_as_its_author_wrote_it(one_chapter: SmallBook) -> None:
    path = one_chapter.write_notebook("second", "1 / 0")
    before = path.read_bytes()
    done = one_chapter.run("normalise.py")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert path.read_bytes() == before


def test_check_names_a_notebook_that_was_never_run(small_book: SmallBook) -> None:
    done = small_book.run("normalise.py", "--check")
    assert done.returncode == 1
    assert "chapters/first.ipynb: cell 2 has no execution count" in done.stdout


def test_every_committed_chapter_is_in_normal_form() -> None:
    faults = {p.name: normalise.faults(p, RULES) for p in executor.find_notebooks(ROOT)}
    assert {name: found for name, found in faults.items() if found} == {}


# --- nbval, for real --------------------------------------------------------------------------

SHOWS = """\
from IPython.display import display
import ipywidgets, random
figure = f"<book-figure id='{random.random()}'><svg>{random.random()}</svg></book-figure>"
display({"text/html": figure, "text/plain": "Figure: a"}, raw=True)
slider = ipywidgets.IntSlider(3)
explorer = f"<book-explorer>{random.random()}</book-explorer>"
bundle = dict(slider._repr_mimebundle_(), **{"text/html": explorer, "text/plain": "Explorer: a"})
display(bundle, raw=True)
display({"image/png": "AAAA"}, raw=True)
print(object())
"""
VERDICT = """\
from IPython.display import display
import random
measured = f"<book-measured>{random.random()}</book-measured>"
display({"application/vnd.book.claim+json": {"verdict": "holds"},
         "text/html": f"<div data-verdict='holds'>holds {measured}</div>",
         "text/plain": "holds"}, raw=True)
"""


def nbval(book: SmallBook) -> subprocess.CompletedProcess[str]:
    """Strict comparison of the book's second chapter, as `make test` does it."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbval", "-q"]
    command += ["--nbval-current-env", "--color=no", "chapters/second.ipynb"]
    command += [f"--nbval-sanitize-with={book.root / 'nbval_sanitize.cfg'}"]
    # the run around this one may have handed down that it is a worker
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    return subprocess.run(command, cwd=book.root, env=environment, capture_output=True, text=True)


def test_nbval_passes_what_the_normal_form_keeps_and_sees_a_changed_verdict(
    one_chapter: SmallBook,
) -> None:
    path = one_chapter.write_notebook("second", SHOWS, VERDICT)
    normalise.normalise(one_chapter.root)
    text = path.read_text("utf-8")
    assert "<book-explorer></book-explorer>" in text
    assert "<svg>0." not in text
    done = nbval(one_chapter)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout

    for before, after in (
        ('"verdict": "holds"', '"verdict": "does not hold"'),  # the record
        ("<div data-verdict='holds'>", "<div data-verdict='fails'>"),  # what the page shows
        ('"Explorer: a"\n', '"Explorer: b"\n'),  # a stored text
    ):
        assert before in text
        stored = text.replace(before, after)
        notebook = nbformat.reads(stored, as_version=4)
        for cell, own in zip(notebook.cells, nbformat.reads(text, as_version=4).cells, strict=True):
            cell.source = own.source  # only what is stored as output is to differ
        nbformat.write(notebook, path)
        done = nbval(one_chapter)
        assert done.returncode == 1, (after, done.stdout)
        assert "1 failed, 1 passed" in done.stdout
