"""Notebooks are executed in parallel, and what the cache hands out is never stale."""

from __future__ import annotations

import inspect
import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import executor
import jupyter_client.client
import nbformat
import pytest
from nbclient import NotebookClient
from progress import Progress

if TYPE_CHECKING:
    from books import SmallBook

ROOT = Path(__file__).resolve().parents[2]


def outputs(book: SmallBook, folder: Path, name: str) -> list[list[dict]]:
    """The cached outputs of a chapter's code cells."""
    path = book.root / "chapters" / f"{name}.ipynb"
    cache = executor.open_cache(folder)
    _, merged = cache.merge_match_into_notebook(nbformat.read(path, as_version=4))
    return [cell.outputs for cell in merged.cells if cell.cell_type == "code"]


def failure(book: SmallBook, **options: object) -> str:
    with pytest.raises(executor.NotebookError) as caught:
        executor.execute_all(book.root, 2, say=lambda line: None, **options)
    return str(caught.value)


# --- what a run gives -------------------------------------------------------------------------


def test_every_notebook_is_executed_once_and_each_says_how_far_it_is(
    small_book: SmallBook,
) -> None:
    lines: list[str] = []
    folder = executor.execute_all(small_book.root, 2, say=lines.append)
    assert outputs(small_book, folder, "first")[0][0].text == "the answer is 42\n"
    assert any("first" in line and "done, 2 cells" in line for line in lines)
    assert any("second" in line and "done, 1 cells" in line for line in lines)
    lines.clear()
    assert executor.execute_all(small_book.root, 2, say=lines.append) == folder
    assert lines == []


def test_outputs_do_not_depend_on_how_many_notebooks_run_at_a_time(
    small_book: SmallBook,
) -> None:
    code = (
        "import os, torch\n"
        "torch.manual_seed(0)\n"
        "x = torch.randn(600, 600)\n"
        "print((x @ x).sum().item().hex(), torch.get_num_threads(), os.environ['OMP_NUM_THREADS'])"
    )
    for name in ("first", "second"):
        small_book.write_notebook(name, code, f"print('{name}')")
    results = []
    for jobs in (1, 2):
        folder = executor.execute_all(small_book.root, jobs, fresh=True, say=lambda line: None)
        results.append(
            [outputs(small_book, folder, name)[0][0].text for name in ("first", "second")]
        )
    assert results[0] == results[1]
    assert all(text.endswith(" 1 1\n") for text in results[0])


def test_the_readers_own_settings_do_not_reach_a_chapter(
    one_chapter: SmallBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    startup = home / ".ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("print('from my start-up file'); lib = 3\n", "utf-8")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("IPYTHONDIR", raising=False)
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    one_chapter.write_notebook(
        "second", "import warnings; warnings.filters[0][0]", "'lib' in dir()"
    )
    folder = executor.execute_all(one_chapter.root, 2, say=lambda line: None)
    assert outputs(one_chapter, folder, "second")[1][0].data["text/plain"] == "False"
    assert outputs(one_chapter, folder, "second")[0][0].data["text/plain"] != "'error'"


def test_the_cache_keeps_no_state_of_widgets(one_chapter: SmallBook) -> None:
    one_chapter.write_notebook("second", "import ipywidgets\nipywidgets.IntSlider(3)")
    folder = executor.execute_all(one_chapter.root, 2, say=lambda line: None)
    stored = [path.read_text("utf-8") for path in folder.rglob("base.ipynb")]
    assert any("IntSlider(value=3)" in text for text in stored)
    assert not any("widget-view" in text or "widget-state" in text for text in stored)


# --- when the cache must be passed by ---------------------------------------------------------


def test_a_change_of_lib_is_seen_although_the_notebook_is_the_same(
    small_book: SmallBook,
) -> None:
    before = executor.execute_all(small_book.root, 2, say=lambda line: None)
    small_book.write("lib/__init__.py", "def answer() -> int:\n    return 43\n")
    after = executor.execute_all(small_book.root, 2, say=lambda line: None)
    assert before != after
    assert outputs(small_book, after, "first")[0][0].text == "the answer is 43\n"


def test_the_key_follows_lib_pins_and_fonts_and_nothing_else(
    small_book: SmallBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [executor.cache_key(small_book.root)]
    small_book.write("index.md", "# Other words\n")
    small_book.write("lib/__pycache__/x.pyc", "compiled")
    small_book.write("chapters/note.md", "prose")
    assert executor.cache_key(small_book.root) == keys[0]
    small_book.write("lib/deep/er.py", "")
    keys.append(executor.cache_key(small_book.root))
    (small_book.root / "lib/deep/er.py").rename(small_book.root / "lib/deep/renamed.py")
    keys.append(executor.cache_key(small_book.root))
    small_book.write("requirements.txt", "numpy==3\n")
    keys.append(executor.cache_key(small_book.root))
    small_book.write("site/vendor.json", "{}\n")
    keys.append(executor.cache_key(small_book.root))
    monkeypatch.setattr(executor.importlib.metadata, "version", lambda name: "0.0")
    keys.append(executor.cache_key(small_book.root))
    assert len(set(keys)) == len(keys)


def test_a_changed_tag_is_no_stale_result(one_chapter: SmallBook) -> None:
    one_chapter.write_notebook("second", "1 / 0", tags={1: ["raises-exception"]})
    executor.execute_all(one_chapter.root, 2, say=lambda line: None)
    one_chapter.write_notebook("second", "1 / 0")
    assert "ZeroDivisionError" in failure(one_chapter)


def test_a_cached_result_whose_file_is_gone_or_cut_off_is_made_again(
    one_chapter: SmallBook,
) -> None:
    folder = executor.execute_all(one_chapter.root, 2, say=lambda line: None)
    [path] = folder.rglob("base.ipynb")
    for harm in (path.unlink, lambda: path.write_text("{", "utf-8")):
        harm()
        executor.execute_all(one_chapter.root, 2, say=lambda line: None)
        assert "second chapter" in path.read_text("utf-8")


def test_old_caches_are_pruned_and_the_present_one_stays(tmp_path: Path) -> None:
    for age in range(6):
        (tmp_path / str(age)).mkdir()
        os.utime(tmp_path / str(age), (0, 1_000_000 - age))
    executor.prune(tmp_path / "5", keep=3)
    assert {path.name for path in tmp_path.iterdir()} == {"5", "0", "1"}


# --- when a notebook fails --------------------------------------------------------------------


def test_a_failure_names_the_notebook_the_cell_its_code_and_the_error(
    one_chapter: SmallBook,
) -> None:
    one_chapter.write_notebook("second", "a = 1", "# divide\nb = 0\na / b", "print('never')")
    text = failure(one_chapter)
    assert text.startswith("chapters/second.ipynb failed in cell 2 of 3:")
    assert "    # divide\n    b = 0\n    a / b" in text
    assert "ZeroDivisionError: division by zero" in text
    log = Path(text.rpartition("The traceback is in ")[2])
    assert "----> 3 a / b" in log.read_text("utf-8")


def test_a_long_cell_is_quoted_by_its_first_lines(one_chapter: SmallBook) -> None:
    one_chapter.write_notebook("second", "\n".join(f"x{i} = {i}" for i in range(20)) + "\nnope")
    text = failure(one_chapter)
    assert "    x5 = 5\n    … (15 more lines)" in text
    assert "x6 = 6" not in text


def test_a_cell_that_never_ends_is_stopped_and_named(one_chapter: SmallBook) -> None:
    one_chapter.write_notebook("second", "while True: pass")
    text = failure(one_chapter, timeout=2)
    assert "cell 1 of 1" in text
    assert "more than 2 s" in text


def test_a_kernel_that_dies_is_named_with_the_cell(one_chapter: SmallBook) -> None:
    one_chapter.write_notebook("second", "import os", "os._exit(9)")
    text = failure(one_chapter)
    assert "cell 2 of 2" in text
    assert "the kernel died" in text


@pytest.mark.parametrize(("lost", "code"), [(1, 0), (99, 1)])
def test_a_kernel_whose_port_is_taken_is_started_again_but_not_for_ever(
    one_chapter: SmallBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int, code: int
) -> None:
    one_chapter.write_notebook("second", "print(6 * 7)")
    execute, starts, said = NotebookClient.execute, [], []

    def start(client: NotebookClient) -> object:
        starts.append(client)
        if len(starts) <= lost:
            raise RuntimeError(executor.NOT_STARTED)
        return execute(client)

    monkeypatch.setattr(NotebookClient, "execute", start)
    for name, value in executor.kernel_environment(one_chapter.root).items():
        monkeypatch.setenv(name, value)
    source, target = one_chapter.root / "chapters" / "second.ipynb", tmp_path / "done.ipynb"
    assert executor.work(source, target, 60, said.append) == code
    assert len(starts) == min(lost + 1, executor.STARTS)
    assert target.exists() == (code == 0)
    assert [m["event"] for m in said] == (["cell"] if code == 0 else ["failed"])


def test_jupyter_still_says_it_in_the_words_that_are_waited_for() -> None:
    assert executor.NOT_STARTED in inspect.getsource(jupyter_client.client)


def test_a_failure_stops_the_other_notebooks_and_their_kernels(small_book: SmallBook) -> None:
    note = str(small_book.root / "pid")
    small_book.write_notebook(
        "first",
        f"import os, time\nopen({note!r}, 'w').write(f'{{os.getpid()}} ')",
        "time.sleep(120)",
    )
    small_book.write_notebook(
        "second",
        f"import os, time\nwhile not os.path.exists({note!r}): time.sleep(0.1)\n1 / 0",
    )
    started = time.monotonic()
    assert "chapters/second.ipynb" in failure(small_book)
    assert time.monotonic() - started < 60
    kernel = int((small_book.root / "pid").read_text("utf-8"))
    deadline = time.monotonic() + 20
    while alive(kernel) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(kernel)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text("utf-8").rpartition(")")[2].split()[0] != "Z"


def test_what_succeeded_before_a_failure_is_not_run_again(small_book: SmallBook) -> None:
    small_book.write_notebook("second", "1 / 0")
    with pytest.raises(executor.NotebookError):
        executor.execute_all(small_book.root, 1, say=lambda line: None)
    small_book.write_notebook("second", "1 / 1")
    lines: list[str] = []
    executor.execute_all(small_book.root, 1, say=lines.append)
    assert not any("first" in line for line in lines)


def test_a_file_that_is_no_notebook_is_named(one_chapter: SmallBook) -> None:
    one_chapter.write("chapters/second.ipynb", "{ not json")
    assert "second.ipynb can't be read as a notebook" in failure(one_chapter)


# --- small parts ------------------------------------------------------------------------------


def test_checkpoints_of_an_editor_are_no_chapters(small_book: SmallBook) -> None:
    small_book.write("chapters/.ipynb_checkpoints/first-checkpoint.ipynb", "{}")
    names = [path.name for path in executor.find_notebooks(small_book.root)]
    assert names == ["first.ipynb", "second.ipynb"]


def test_there_is_at_least_one_core_and_no_more_than_the_machine_has() -> None:
    assert 1 <= executor.cores() <= (os.cpu_count() or 1)


def test_every_pin_of_the_book_is_installed_as_pinned() -> None:
    pins = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    expected = [line.replace("==", " ") for line in pins if line and not line.startswith("#")]
    found = [version.partition("+")[0] for version in executor.pinned_versions(ROOT)]
    assert found == expected


def test_a_quiet_notebook_is_mentioned_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("progress.time.monotonic", lambda: now)
    lines: list[str] = []
    progress = Progress(["chapter"], lines.append)
    progress.start("chapter")
    progress.cell("chapter", 3, 40)
    progress.tick()
    assert len(lines) == 1
    now += 16
    progress.tick()
    assert lines[-1].split() == ["chapter", "cell", "3", "of", "40", "16", "s"]


def test_a_terminal_gets_one_line_per_notebook_rewritten_in_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    progress = Progress(["one", "two"])
    threads = [threading.Thread(target=progress.start, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
        thread.join()
    progress.done("one")
    text = capsys.readouterr().out
    assert text.count("\x1b[2F") == 2  # back up over both lines, from the second drawing on
    assert text.split("\x1b[2F")[-1].count("\n") == 2


def test_seconds_of_the_last_run_are_kept_to_start_the_longest_first(
    small_book: SmallBook,
) -> None:
    executor.execute_all(small_book.root, 2, say=lambda line: None)
    seconds = json.loads((small_book.root / "_build" / "seconds.json").read_text("utf-8"))
    assert set(seconds) == {"first", "second"}
    small_book.write("_build/seconds.json", '{"first": 1, "second": 100}')
    lines: list[str] = []
    executor.execute_all(small_book.root, 1, fresh=True, say=lines.append)
    assert lines[0].split()[0] == "second"
