"""The built book, page by page: what it holds, where it leads, how it looks, what it fetches.

No page is named here. They are found in ``_build/html``, and the chapters by their notebooks. The
explorers and axe have files of their own, so that several workers can share the work.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from built import (
    CHAPTERS,
    DESKTOP,
    HTML,
    PAGES,
    PHONE,
    ROOT,
    at_rest,
    ids,
    page_with,
    soup,
    target,
    unfold,
    words,
)

from lib.book.records import Scan, scan_book

PAGE_BUDGET = 2_000_000
TEXT = {".html", ".js", ".css", ".map", ".json", ".svg", ".md", ".ipynb", ".txt"}
every_page = pytest.mark.parametrize("name", PAGES)
every_chapter = pytest.mark.parametrize("name", CHAPTERS)
over_both = pytest.mark.parametrize("scheme", ["http", "file"])
pytestmark = pytest.mark.usefixtures("site_dir")


@pytest.fixture
def origins(site_url: str) -> dict[str, str]:
    """Where the book can be read: from a server, and from the disk."""
    return {"http": site_url, "file": HTML.as_uri()}


@pytest.fixture
def opened(new_strict_page: Callable[..., Any], site_url: str) -> Callable[..., Any]:
    """Open a page of the book and wait until nothing on it moves any more."""

    def open_page(name: str, origin: str = site_url, **context: Any) -> Any:
        page = new_strict_page(origin, **(DESKTOP | context))
        page.open(name)
        at_rest(page)
        return page

    return open_page


# --- what a page asks for -----------------------------------------------------------------------


@over_both
@every_page
def test_a_page_asks_nobody_else_and_complains_of_nothing(opened, origins, name, scheme):
    assert opened(name, origins[scheme]).problems == []


@every_page
def test_a_page_names_nothing_elsewhere_that_a_browser_would_fetch(name):
    fetched = soup(name).select(
        "script[src], img[src], iframe[src], source[src], video[src], audio[src], link[rel~=icon],"
        "link[rel~=stylesheet], link[rel~=preload], link[rel~=preconnect], link[rel~=dns-prefetch]"
    )
    addresses = [str(node.get("src") or node.get("href")) for node in fetched]
    assert [a for a in addresses if re.match(r"(?!data:)(\w+:)?//", a)] == []
    assert len(addresses) > 5


def test_no_style_sheet_names_anything_elsewhere():
    sheets = sorted(HTML.rglob("*.css"))
    assert len(sheets) > 5
    outside = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])((?:https?:)?//[^"')]+)""")
    assert [m[1] for sheet in sheets for m in outside.finditer(sheet.read_text("utf-8"))] == []


def test_no_file_names_a_folder_of_the_machine_it_was_built_on():
    folders = [f"{folder}/" for folder in (ROOT, Path.home()) if len(folder.parts) > 1]
    files = [path for path in HTML.rglob("*") if path.suffix in TEXT]
    assert len(files) > 50
    found = [
        f"{path.relative_to(HTML)}: {folder}"
        for path in files
        for folder in [*folders, "/site-packages/"]
        if folder in path.read_text("utf-8", errors="replace")
    ]
    assert found == []


@every_chapter
def test_a_chapter_with_all_that_it_fetches_keeps_to_its_budget(
    new_strict_page, site_url, record_property, name
):
    page = new_strict_page(site_url, **DESKTOP)
    fetched: set[str] = set()
    page.on("response", lambda response: fetched.add(urlsplit(response.url).path))
    page.open(name)
    at_rest(page)
    own = [HTML / unquote(path).lstrip("/") for path in fetched if path.strip("/")]
    size = sum(len(gzip.compress(path.read_bytes())) for path in own if path.is_file())
    record_property("bytes, compressed", size)
    assert len(own) > 15
    assert size <= PAGE_BUDGET


def test_spoken_mathematics_comes_from_the_site_too(new_strict_page, site_url):
    """A reader may switch MathJax's speech on, whose rules are by default fetched elsewhere."""
    page = new_strict_page(site_url, **DESKTOP)
    page.add_init_script("localStorage.setItem('MathJax-Menu-Settings', '{\"explorer\": true}')")
    page.open(next(name for name in PAGES if soup(name).select_one("article span.math")))
    page.wait_for_selector("mjx-container [data-semantic-speech]", state="attached")
    at_rest(page)
    assert page.off_origin == []


# --- mathematics --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in PAGES if soup(name).select_one("article .math")])
def test_mathematics_is_typeset(opened, name):
    page = opened(name)
    article = page.locator("article")
    assert article.locator("mjx-container").count() >= len(soup(name).select("article .math"))
    assert article.locator("mjx-merror, [data-mml-node=merror]").count() == 0
    raw = article.evaluate(
        """article => {
          const clone = article.cloneNode(true);
          clone.querySelectorAll('pre, code, script, mjx-container').forEach(n => n.remove());
          return clone.textContent.match(/\\$\\$|\\\\[(\\[]|\\\\(begin|frac|operatorname)\\b/g);
        }"""
    )
    assert raw is None
    # a phone scrolls a long equation sideways, a desktop must not hide its end
    cut = "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.id)"
    assert article.locator("div.math[id]").evaluate_all(cut) == []


# --- links --------------------------------------------------------------------------------------


@every_page
def test_every_link_leads_to_a_page_and_a_place_that_exist(name):
    dead = []
    for link in soup(name).select("[href], [src]"):
        where = target(name, link)
        if urlsplit(where).scheme:
            continue
        path, _, fragment = where.partition("#")
        file = HTML / path.split("?")[0]
        if not file.is_file() or (
            fragment and file.suffix == ".html" and fragment not in ids(path)
        ):
            dead.append(where)
    assert dead == []


@every_page
def test_no_id_is_given_twice(name):
    given = [str(node["id"]) for node in soup(name).select("[id]")]
    assert sorted(given) == sorted(set(given))


@every_chapter
def test_the_landing_page_leads_to_every_chapter(name):
    assert name in {target("index.html", link) for link in soup("index.html").select("article a")}


@every_chapter
def test_the_button_delivers_the_notebook_of_the_chapter(opened, name):
    page = opened(name)
    with page.expect_download() as delivery:
        page.get_by_role("link", name="Notebook").click()
    assert delivery.value.suggested_filename == Path(name).with_suffix(".ipynb").name
    notebook = nbformat.read(delivery.value.path(), as_version=4)
    nbformat.validate(notebook)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    title = next(m[1] for source in sources if (m := re.search(r"^# (.+)$", source, re.M)))
    assert re.sub(r"[*_$`\\]", "", title).strip() == words(soup(name).h1)


# --- ledger and claims --------------------------------------------------------------------------


@cache
def scan() -> Scan:
    return scan_book(ROOT / "chapters")


def recorded(chapter: str = "") -> dict[str, list[str]]:
    """Of each labelled equation, the checks that the notebooks store, all as ``page#id``."""
    book = scan()
    return {
        f"chapters/{equation.notebook}.html#{equation.anchor}": sorted(
            f"chapters/{check.notebook}.html#{check.anchor}"
            for check in book.checks
            if check.label == equation.label
        )
        for equation in book.equations
        if chapter in ("", f"chapters/{equation.notebook}.html")
    }


def listed(name: str) -> dict[str, list[str]]:
    """The same as a page's ledger has it."""
    rows = [row.select("td") for row in soup(name).select("table.book-ledger tbody tr")]
    found = {
        target(name, cells[0].a): sorted(target(name, link) for link in cells[2].select("a"))
        for cells in rows
    }
    assert len(found) == len(rows), "an equation is listed twice"
    return found


def test_the_ledger_links_every_labelled_equation_of_the_book_and_every_check():
    assert len(recorded()) >= len(CHAPTERS)
    assert listed(page_with("table.book-ledger")) == recorded()


@every_chapter
def test_the_ledger_of_a_chapter_lists_its_own_equations_and_no_others(name):
    assert recorded(name)
    assert listed(name) == recorded(name)


def test_equations_bear_the_numbers_by_which_the_ledger_calls_them():
    ledger = page_with("table.book-ledger")
    for row in soup(ledger).select("table.book-ledger tbody tr"):
        page, _, anchor = target(ledger, row.a).partition("#")
        assert words(row.a) == words(soup(page).find(id=anchor).select_one(".eqno"))


def test_the_claims_page_lists_every_claim_with_its_verdict():
    name = page_with(".book-claim")
    cards = [
        (
            target(name, card.select_one(".book-claim-line a")),
            words(card.select_one(".book-claim-statement")),
            words(card.select_one(".book-claim-verdict")).split(" ", 1)[1],
        )
        for card in soup(name).select(".book-claim")
    ]
    stored = [
        (f"chapters/{c.notebook}.html#{c.anchor}", c.statement.replace("’", "'"), c.verdict)
        for c in scan().claims
    ]
    assert sorted(cards) == sorted(stored)


@every_chapter
def test_a_chapter_shows_each_of_its_verdicts_where_it_was_reached(name):
    """What the notebook stores is what the page, built by executing it, came to."""
    of_page = [c for c in scan().claims if f"chapters/{c.notebook}.html" == name]
    shown = {n["id"]: n["data-verdict"] for n in soup(name).select(".book-claim[id]")}
    assert shown == {claim.anchor: claim.verdict.replace(" ", "-") for claim in of_page}


# --- light and dark -----------------------------------------------------------------------------


def luminances(page: Any) -> tuple[float, float]:
    """Of the paper behind the text and of the text, as WCAG defines them."""
    colours = page.locator("main").evaluate(
        """node => {
          const ink = getComputedStyle(node).color;
          let paper;
          for (; node; node = node.parentElement) {
            paper = getComputedStyle(node).backgroundColor;
            if (!/, 0\\)$|transparent/.test(paper)) break;
          }
          return [paper, ink].map(colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number));
        }"""
    )
    linear = [[((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour] for colour in colours]
    paper, ink = (0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in linear)
    return paper, ink


def is_dark(page: Any) -> bool:
    """Whether light ink stands on dark paper, or else dark ink on light paper."""
    paper, ink = luminances(page)
    assert (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) >= 7
    return paper < ink


@every_page
def test_paper_and_ink_change_places_when_the_system_turns_dark(opened, name):
    page = opened(name, color_scheme="light")
    assert not is_dark(page)
    page.emulate_media(color_scheme="dark")
    page.wait_for_selector("html[data-theme=dark]")
    assert is_dark(page)


def test_the_choice_of_a_theme_outlives_the_page(opened, site_url):
    page = opened(PAGES[0], color_scheme="light")
    for _ in range(3):
        if page.locator("html").get_attribute("data-mode") != "dark":
            page.locator(".theme-switch-button").click()
    assert is_dark(page)
    page.open(PAGES[-1])
    at_rest(page)
    assert is_dark(page)


# --- on a phone ---------------------------------------------------------------------------------


@every_page
def test_a_phone_never_scrolls_sideways(opened, name):
    page = opened(name, **PHONE)
    unfold(page)
    for width in (360, 390):
        page.set_viewport_size({"width": width, "height": 740})
        at_rest(page)
        scrolls = page.evaluate(
            "[document.scrollingElement.scrollWidth, document.scrollingElement.clientWidth]"
        )
        assert scrolls == [width, width]


# --- search -------------------------------------------------------------------------------------


def search(page: Any, term: str) -> set[str]:
    """Type a term into the search field of the page and return the pages that are found."""
    page.locator(".book-search input").first.fill(term)
    page.keyboard.press("Enter")
    page.wait_for_selector(".search-summary:has-text('found')", state="attached")
    page.wait_for_load_state("networkidle")
    links = page.locator("#search-results li > a").evaluate_all("nodes => nodes.map(n => n.href)")
    return {link.removeprefix(f"{page.origin}/").partition("#")[0] for link in links}


def longest_word(name: str) -> str:
    """A word from the prose of a page."""
    prose = " ".join(words(p) for p in soup(name).select("article section > p"))
    return max(re.findall(r"(?<![\w\\{-])[a-z]{5,}(?![\w}-])", prose), key=len)


@over_both
@every_chapter
def test_a_word_of_a_chapter_finds_it(opened, origins, name, scheme):
    page = opened("index.html", origins[scheme])
    assert name in search(page, longest_word(name))


@over_both
def test_chinese_terms_find_the_glossary(opened, origins, scheme):
    glossary = page_with("dl.glossary")
    terms = [words(n) for n in soup(glossary).select("dl.glossary dd p > [lang|=zh]:first-child")]
    page = opened("index.html", origins[scheme])
    assert len(terms) > 10
    assert [term for term in terms[:8] if glossary not in search(page, term)] == []


def test_results_with_a_dot_in_their_name_come_with_a_summary(opened):
    """Sphinx takes the id for a selector, ``.book`` for a class, and warns that there is none."""
    page = opened("index.html")
    assert search(page, "lib.book")
    assert page.locator("#search-results p.context").count() > 0
