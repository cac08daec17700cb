"""What the tests of the site share: the built book, a browser, and small books to build."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
# pytest's importlib mode leaves the path alone; the scripts under test and the helpers are here
sys.path[:0] = [str(ROOT / "site"), str(ROOT / "tests" / "site")]

import browser as browser_finder  # noqa: E402
from books import SmallBook  # noqa: E402
from pages import StrictPage, serving, watch  # noqa: E402
from playwright.sync_api import Browser, sync_playwright  # noqa: E402


@pytest.fixture(scope="session")
def site_dir() -> Path:
    """The finished pages; ``make test`` builds them before it starts pytest."""
    folder = ROOT / "_build" / "html"
    if not (folder / "index.html").is_file():
        pytest.fail(f"the book isn't built, {folder} has no index.html: run `make book` first")
    return folder


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
