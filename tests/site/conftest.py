"""What the tests of the site share: the built book, a browser, and pages that watch themselves."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "site"))

import browser as browser_finder  # noqa: E402
import serve as book_server  # noqa: E402
from playwright.sync_api import Browser, Page, Route, sync_playwright  # noqa: E402


@pytest.fixture(scope="session")
def site_dir() -> Path:
    """The finished pages; ``make test`` builds them before it starts pytest."""
    folder = ROOT / "_build" / "html"
    if not (folder / "index.html").is_file():
        pytest.fail(f"the book isn't built, {folder} has no index.html: run `make book` first")
    return folder


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve ``folder`` on a free port of the loopback interface; the value is its address."""
    server = book_server.server(folder, handler=book_server.QuietHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Call it with a folder to have it served until the test ends; it returns the address."""
    with contextlib.ExitStack() as stack:
        yield lambda folder: stack.enter_context(serving(folder))


@pytest.fixture(scope="session")
def site_url(site_dir: Path) -> Iterator[str]:
    """The address of the built book, without a slash at the end."""
    with serving(site_dir) as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium. The tests never go without: no browser is a failure, not a skip."""
    program = browser_finder.find()
    if program is None:
        pytest.fail("no Chromium found: `make test` installs one, or run `python site/browser.py`")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=program, args=list(browser_finder.ARGUMENTS)
        )
        yield chromium
        chromium.close()


@dataclass
class StrictPage:
    """A page that notes what a reader's browser would complain about, and goes nowhere else.

    Every request off ``origin`` (or, for ``file:`` pages, off the disk) is noted and blocked.
    Attributes that it lacks are those of the playwright page.
    """

    page: Page
    origin: str
    console: list[str] = field(default_factory=list)
    off_origin: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.page, name)

    def open(self, path: str) -> None:
        """Go to a page of the book by its path and wait until it is loaded."""
        self.page.goto(f"{self.origin}/{path.lstrip('/')}")

    @property
    def problems(self) -> list[str]:
        """All that was noted, one line each."""
        return [
            *(f"console: {text}" for text in self.console),
            *(f"off origin: {url}" for url in self.off_origin),
            *(f"failed: {text}" for text in self.failed),
        ]

    def _admit(self, route: Route) -> None:
        parts, home = urlsplit(route.request.url), urlsplit(self.origin)
        own = (parts.scheme, parts.netloc) == (home.scheme, home.netloc)
        if own or parts.scheme in ("data", "blob", "about"):
            route.continue_()
        else:
            self.off_origin.append(route.request.url)
            route.abort()


def watch(page: Page, origin: str) -> StrictPage:
    """Make ``page`` note console errors and warnings, failures, and requests off ``origin``."""
    strict = StrictPage(page, origin.rstrip("/"))
    page.context.route("**/*", strict._admit)

    def note(message: Any) -> None:
        if message.type in ("error", "warning"):
            strict.console.append(f"{message.type}: {message.text}")

    page.on("console", note)
    page.on("pageerror", lambda error: strict.console.append(f"uncaught: {error}"))
    page.on(
        "response",
        lambda r: r.status >= 400 and strict.failed.append(f"{r.status} {r.url}"),
    )
    page.on(
        "requestfailed",
        lambda r: r.url not in strict.off_origin and strict.failed.append(f"{r.failure} {r.url}"),
    )
    return strict


@pytest.fixture
def new_strict_page(browser: Browser) -> Iterator[Callable[..., StrictPage]]:
    """Make strict pages: ``new_strict_page(origin, color_scheme="dark", viewport=…)``.

    The keywords are those of playwright's ``new_context``. When the test ends, each page must
    have noted nothing, unless the test emptied its lists.
    """
    made: list[StrictPage] = []

    def make(origin: str, **context: Any) -> StrictPage:
        strict = watch(browser.new_context(**context).new_page(), origin)
        made.append(strict)
        return strict

    yield make
    problems = [problem for strict in made for problem in strict.problems]
    for strict in made:
        strict.page.context.close()
    assert not problems, "the pages complained:\n" + "\n".join(problems)


@pytest.fixture
def strict_page(new_strict_page: Callable[..., StrictPage], site_url: str) -> StrictPage:
    """One strict page on the served book, as a desktop reader in light mode sees it."""
    return new_strict_page(site_url, color_scheme="light", viewport={"width": 1280, "height": 900})


# --- a small book to try the machinery on -----------------------------------------------------


def notebook(
    *sources: str, title: str = "A chapter", tags: dict[int, list[str]] | None = None
) -> Any:
    """A notebook, not yet executed: a title and one code cell per source.

    ``tags`` maps the number of a code cell, from 1, to its tags.
    """
    import nbformat.v4 as v4

    cells = [v4.new_markdown_cell(f"# {title}", id="title")]
    for number, source in enumerate(sources, 1):
        metadata = {"tags": tags[number]} if tags and number in tags else {}
        cells.append(v4.new_code_cell(source, id=f"cell-{number}", metadata=metadata))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(
        cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}}
    )


class SmallBook:
    """A book of two chapters and a ``lib`` in a folder of its own, for ``--root``."""

    CONFIG = """\
title: A small book
only_build_toc_files: true
sphinx:
  config:
    html_static_path: [assets]
    html_css_files: [look.css]
"""
    TOC = """\
format: jb-book
root: index
chapters:
- file: chapters/first
- file: chapters/second
"""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def html(self) -> Path:
        return self.root / "_build" / "html"

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    def write_notebook(self, name: str, *sources: str, **options: Any) -> Path:
        import nbformat

        path = self.root / "chapters" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook(*sources, **options), path)
        return path

    def fill(self) -> SmallBook:
        """Write the whole book; its vendored folder is empty and as pinned."""
        import vendor

        self.write("_config.yml", self.CONFIG)
        self.write("_toc.yml", self.TOC)
        self.write("index.md", "# A small book\n\nWelcome.\n")
        self.write("requirements.txt", "numpy==2\n")
        self.write("assets/look.css", "h1 { color: teal }\n")
        self.write("lib/__init__.py", "def answer() -> int:\n    return 42\n")
        self.write("site/vendor.json", '{"packages": []}\n')
        self.write("nbval_sanitize.cfg", (ROOT / "nbval_sanitize.cfg").read_text("utf-8"))
        manifest = {"key": vendor.key_of(self.root / "site" / "vendor.json"), "files": {}}
        self.write("_build/vendor/manifest.json", json.dumps(manifest))
        # no chapter of it draws: spare each test the listing of the machine's fonts
        self.write("_build/matplotlib/fontlist-none.json", "{}")
        self.write_notebook("first", "import lib\nprint('the answer is', lib.answer())", "6 * 7")
        self.write_notebook("second", "print('second', 'chapter')", title="Another chapter")
        return self

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the scripts in ``site`` on this book."""
        command = [sys.executable, str(ROOT / "site" / script), "--root", str(self.root)]
        return subprocess.run([*command, *arguments], capture_output=True, text=True)


@pytest.fixture
def small_book(tmp_path: Path) -> SmallBook:
    """A small book, never built."""
    return SmallBook(tmp_path / "book").fill()


@pytest.fixture
def one_chapter(small_book: SmallBook) -> SmallBook:
    """The small book without its first chapter, where one notebook is enough."""
    (small_book.root / "chapters" / "first.ipynb").unlink()
    return small_book


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallBook, str]:
    """A small book that was built once, and what the build printed; not to be changed."""
    book = SmallBook(tmp_path_factory.mktemp("built") / "book").fill()
    done = book.run("build.py")
    assert done.returncode == 0, done.stdout + done.stderr
    return book, done.stdout + done.stderr


@pytest.fixture
def built_book(built_once: tuple[SmallBook, str], tmp_path: Path) -> SmallBook:
    """A copy of the small book that was built once, to change at will."""
    return SmallBook(Path(shutil.copytree(built_once[0].root, tmp_path / "book")))
