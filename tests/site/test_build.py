"""``make book``: complete or not at all, quick when it may be, and never stale."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import build
import executor
import pytest

if TYPE_CHECKING:
    from books import SmallBook

ROOT = Path(__file__).resolve().parents[2]


def pages(book: SmallBook) -> dict[str, bytes]:
    return {
        path.relative_to(book.html).as_posix(): path.read_bytes()
        for path in book.html.rglob("*")
        if path.is_file()
    }


def assert_refused(book: SmallBook, *expected: str) -> str:
    """Build, and see that it fails with these words and leaves the last good pages alone."""
    before = pages(book)
    done = book.run("build.py")
    assert done.returncode == 1, done.stdout
    for words in expected:
        assert words in done.stderr
    assert "Traceback (most" not in done.stderr
    assert pages(book) == before
    if before:
        assert "pages of the last good build are still there" in done.stderr
    return done.stderr


# --- a good build -----------------------------------------------------------------------------


def test_a_build_shows_its_progress_and_says_where_the_book_is(
    built_once: tuple[SmallBook, str],
) -> None:
    book, said = built_once
    for name in ("first", "second"):
        assert re.search(rf"{name} +starting +0 s", said)
        assert re.search(rf"{name} +done, \d cells +\d+ s", said)
    assert (book.html / "index.html").as_uri() in said
    assert "make serve" in said


def test_nothing_of_the_kernels_or_of_jupyter_books_chatter_is_shown(
    built_once: tuple[SmallBook, str],
) -> None:
    said = built_once[1]
    for word in ("IPKernelApp", "encryption", "Jupyter-Book", "WARNING", "===", "\x1b"):
        assert word not in said


def test_the_pages_hold_the_outputs_and_jupyter_book_executed_nothing(
    built_once: tuple[SmallBook, str],
) -> None:
    book = built_once[0]
    assert "the answer is 42" in (book.html / "chapters" / "first.html").read_text("utf-8")
    log = (book.root / "_build" / "logs" / "jupyter-book.txt").read_text("utf-8")
    assert "IPKernelApp" not in log
    assert "Executing" not in log


def test_no_page_names_a_folder_of_the_machine(built_once: tuple[SmallBook, str]) -> None:
    book = built_once[0]
    naming = [name for name, text in pages(book).items() if str(book.root).encode() in text]
    assert naming == []


def test_only_the_finished_pages_are_left_of_the_work(built_once: tuple[SmallBook, str]) -> None:
    left = {path.name for path in (built_once[0].root / "_build").iterdir()}
    assert "html" in left
    assert not {"work", "html.before"} & left


def test_a_second_build_does_nothing_within_five_seconds(built_book: SmallBook) -> None:
    before = {path: path.stat().st_mtime_ns for path in built_book.html.rglob("*")}
    started = time.monotonic()
    done = built_book.run("build.py")
    assert time.monotonic() - started <= 5
    assert done.returncode == 0
    assert "up to date" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in built_book.html.rglob("*")} == before


def test_changed_prose_and_looks_are_built_without_executing_anything(
    built_book: SmallBook,
) -> None:
    built_book.write("index.md", "# A small book\n\nWelcome back.\n")
    built_book.write("assets/look.css", "h1 { color: navy }\n")
    done = built_book.run("build.py")
    assert done.returncode == 0, done.stderr
    assert "starting" not in done.stdout
    assert "Welcome back" in (built_book.html / "index.html").read_text("utf-8")
    assert "navy" in (built_book.html / "_static" / "look.css").read_text("utf-8")


def test_a_changed_lib_changes_the_page_of_an_unchanged_notebook(built_book: SmallBook) -> None:
    built_book.write("lib/__init__.py", "def answer() -> int:\n    return 43\n")
    assert built_book.run("build.py").returncode == 0
    assert "the answer is 43" in (built_book.html / "chapters" / "first.html").read_text("utf-8")


def test_a_removed_chapter_leaves_no_page_behind(built_book: SmallBook) -> None:
    (built_book.root / "chapters" / "second.ipynb").unlink()
    built_book.write("_toc.yml", built_book.TOC.replace("- file: chapters/second\n", ""))
    done = built_book.run("build.py")
    assert done.returncode == 0, done.stderr
    assert not (built_book.html / "chapters" / "second.html").exists()


# --- is there anything to do? -----------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        ("index.md", "# Other\n"),
        ("chapters/new.md", "# New\n"),
        ("lib/new.py", ""),
        ("assets/look.css", ""),
        ("site/ext/new.py", ""),
        ("_config.yml", "title: Other\n"),
        ("requirements.txt", "numpy==3\n"),
        ("_build/html/index.html", "harmed"),
        ("_build/stamp.json", "{"),
        ("_build/vendor/manifest.json", "{}"),
    ],
    ids=lambda change: change[0],
)
def test_every_change_that_a_page_can_depend_on_is_seen(
    built_book: SmallBook, change: tuple[str, str]
) -> None:
    assert build.is_current(built_book.root)
    built_book.write(*change)
    assert not build.is_current(built_book.root)


@pytest.mark.parametrize(
    "name", ["index.md", "chapters/second.ipynb", "lib/__init__.py", "_build/html/index.html"]
)
def test_every_removed_file_is_seen(built_book: SmallBook, name: str) -> None:
    (built_book.root / name).unlink()
    assert not build.is_current(built_book.root)


@pytest.mark.parametrize(
    "name",
    ["tests/test_x.py", ".git/HEAD", ".venv/x.py", "lib/__pycache__/x.pyc", "env/bin/x", ".x.swp"],
)
def test_what_no_page_depends_on_starts_no_build(built_book: SmallBook, name: str) -> None:
    built_book.write("env/pyvenv.cfg", "")
    built_book.write(name, "changed")
    assert build.is_current(built_book.root)


# --- builds that must fail --------------------------------------------------------------------


def test_a_failing_notebook_stops_the_build_and_leaves_the_last_good_pages(
    built_book: SmallBook,
) -> None:
    built_book.write_notebook("second", "x = 0", "1 / x")
    said = assert_refused(
        built_book,
        "chapters/second.ipynb failed in cell 2 of 2:",
        "    1 / x",
        "ZeroDivisionError: division by zero",
    )
    assert "chapters/first" not in said


def test_a_broken_lib_is_found_although_no_notebook_changed(built_book: SmallBook) -> None:
    built_book.write("lib/__init__.py", "def answer() -> int:\n    raise RuntimeError('broken')\n")
    assert_refused(built_book, "chapters/first.ipynb failed in cell 1 of 2:", "broken")


def test_a_warning_fails_the_build_each_time_it_is_tried(built_book: SmallBook) -> None:
    built_book.write("index.md", "# A small book\n\n{eq}`eq-nowhere`\n")
    for _ in range(2):
        said = assert_refused(built_book, "index.md:3", "eq-nowhere")
        assert str(built_book.root / "index.md") not in said


def test_a_malformed_table_of_contents_is_explained(built_book: SmallBook) -> None:
    built_book.write("_toc.yml", "format: jb-book\n")
    assert_refused(built_book, "the pages can't be made", "root")


def test_a_folder_that_cannot_be_written_to_is_named(small_book: SmallBook) -> None:
    shutil.rmtree(small_book.root / "_build")
    small_book.write("_build", "a file in the way")
    done = small_book.run("build.py")
    assert done.returncode == 1
    assert str(small_book.root / "_build") in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(small_book: SmallBook) -> None:
    shutil.rmtree(small_book.root / "_build")
    small_book.root.chmod(0o555)
    try:
        done = small_book.run("build.py")
    finally:
        small_book.root.chmod(0o755)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr


def test_without_a_network_the_first_build_says_so_and_a_later_one_does_not_need_it(
    built_book: SmallBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = tmp_path / "offline" / "npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 1\n", "utf-8")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}{os.pathsep}{os.environ['PATH']}")
    built_book.write("index.md", "# A small book\n\nRead on a train.\n")
    done = built_book.run("build.py")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(built_book.root / "_build" / "vendor")
    package = {"name": "a", "version": "1.0.0", "integrity": "sha512-", "licence": "", "take": {}}
    built_book.write("site/vendor.json", json.dumps({"packages": [package]}))
    assert_refused(built_book, "npm could not fetch a@1.0.0 (ENOTFOUND)", "needs the network once")


# --- interruptions ----------------------------------------------------------------------------


def test_an_interrupted_build_leaves_the_last_good_pages_and_no_notebook_running(
    built_book: SmallBook,
) -> None:
    before = pages(built_book)
    note = built_book.root / "pid"
    built_book.write_notebook(
        "second",
        f"import os, time\nopen({str(note)!r}, 'w').write(f'{{os.getpid()}} ')",
        "time.sleep(120)",
    )
    command = [sys.executable, str(ROOT / "site" / "build.py"), "--root", str(built_book.root)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell has the programs that it puts into the background ignore Ctrl-C, and what they
        # start inherits that; at a reader's prompt the build listens
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not (note.exists() and note.read_text("utf-8").endswith(" ")):
        assert time.monotonic() < deadline, "the notebook never started"
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does: the signal goes to the whole group
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.strip() == "Stopped; the pages of the last good build are as they were."
    assert pages(built_book) == before
    kernel = Path("/proc") / note.read_text("utf-8").strip()
    deadline = time.monotonic() + 20
    while kernel.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not kernel.exists()


def test_a_swap_that_was_interrupted_is_undone(tmp_path: Path) -> None:
    html = tmp_path / "html"
    (tmp_path / "html.before").mkdir()
    (tmp_path / "html.before" / "index.html").write_text("good", "utf-8")
    build.recover(html)
    assert (html / "index.html").read_text("utf-8") == "good"


def test_two_builds_of_one_folder_wait_for_each_other(
    small_book: SmallBook, capfd: pytest.CaptureFixture[str]
) -> None:
    with build.only_one(small_book.root):
        command = [
            sys.executable,
            "-c",
            "import build, pathlib, sys\n"
            "with build.only_one(pathlib.Path(sys.argv[1])): print('in')",
        ]
        other = subprocess.Popen(
            [*command, str(small_book.root)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "site")},
        )
        assert other.stdout is not None
        assert "waiting for it" in other.stdout.readline()
        assert other.poll() is None
    assert other.communicate(timeout=30)[0] == "in\n"


# --- the configuration that Jupyter Book gets -------------------------------------------------


def test_the_configuration_is_the_books_own_with_the_trusted_cache(small_book: SmallBook) -> None:
    small_book.write(
        "_config.yml",
        "title: A\nexecute: {execute_notebooks: 'off', stderr_output: error}\n"
        "sphinx: {local_extensions: {ledger: site/ext}, config: {html_title: A}}\n",
    )
    settings = build.configuration(small_book.root, Path("/cache"))
    assert settings["title"] == "A"
    assert settings["execute"] == {
        "execute_notebooks": "cache",
        "cache": "/cache",
        "stderr_output": "error",
        "timeout": executor.CELL_TIMEOUT,
    }
    assert settings["sphinx"]["local_extensions"] == {"ledger": str(small_book.root / "site/ext")}
    assert settings["sphinx"]["config"] == {"html_title": "A"}


# --- the book itself --------------------------------------------------------------------------


def test_the_built_book_is_that_of_the_present_sources() -> None:
    assert build.is_current(ROOT), "the pages in _build/html are old: run `make book`"


def test_the_code_is_clean_to_ruff() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
