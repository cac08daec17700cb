"""The pages of the built book, found rather than listed, and read without a browser."""

from __future__ import annotations

import posixpath
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
AXE = ROOT / "_build" / "vendor" / "axe" / "axe.min.js"
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}

# where nothing is built the landing page stands for all, so that its tests fail and none is lost
PAGES = sorted(
    path.relative_to(HTML).as_posix()
    for path in HTML.rglob("*.html")
    if not {"_static", "_sources"} & set(path.parts)
) or ["index.html"]
CHAPTERS = [name for name in PAGES if (ROOT / name).with_suffix(".ipynb").is_file()] or PAGES[-1:]


@cache
def text_of(name: str) -> str:
    """The html of a page."""
    return (HTML / name).read_text(encoding="utf-8")


@cache
def soup(name: str) -> BeautifulSoup:
    """A page, parsed; not to be changed."""
    return BeautifulSoup(text_of(name), "html.parser")


@cache
def ids(name: str) -> frozenset[str]:
    """Every id of a page."""
    return frozenset(str(node["id"]) for node in soup(name).select("[id]"))


def page_with(selector: str) -> str:
    """The page, not a chapter, that holds such an element."""
    return next(n for n in PAGES if n not in CHAPTERS and soup(n).select_one(selector))


def target(name: str, link: Tag) -> str:
    """Where a link on a page leads, as ``page#id``, or its address if that is elsewhere."""
    address = str(link.get("href") or link.get("src") or "")
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return address
    path = posixpath.normpath(urljoin(name, unquote(parts.path))) if parts.path else name
    return f"{path}#{unquote(parts.fragment)}" if parts.fragment else path


def words(node: Tag | None) -> str:
    """What one reads: the text without signs for links, on one line, with plain apostrophes."""
    assert node is not None
    hidden = {"headerlink", "section-number"}
    strings = [
        string
        for string in node.strings
        if not any(hidden & set(parent.get("class") or ()) for parent in string.parents)
    ]
    return " ".join("".join(strings).replace("’", "'").split())


def at_rest(page: Any) -> None:
    """Wait until the mathematics is typeset and the fonts are there."""
    page.evaluate(
        "Promise.resolve(window.MathJax?.startup?.promise).then(() => document.fonts.ready)"
        ".then(() => null)"
    )


def unfold(page: Any) -> None:
    """Open every fold of a page, as a reader who wants to see it all."""
    page.evaluate(
        "document.querySelectorAll('details').forEach(fold => { fold.open = true; });"
        "document.querySelectorAll('.toggle-hidden .toggle-button').forEach(b => b.click())"
    )
