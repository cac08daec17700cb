"""The book's own Sphinx extensions: what they list, and what they refuse to build.

Small books with the real configuration go through Jupyter Book within this process, with the
outputs that their notebooks store; two go through ``build.py``, which executes them.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import itertools
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import executor
import nbformat
import numpy as np
import pytest
import sympy as sp
import yaml
from books import SmallBook
from bs4 import BeautifulSoup, Tag
from nbformat import v4

from lib.book import claims, verify
from lib.book._publish import CHECK_MIME, CLAIM_MIME

ROOT = Path(__file__).resolve().parents[2]
# of Sphinx, which most of the tests run within this process
pytestmark = [
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
Bundle = dict[str, Any]
COUNT = itertools.count()


# --- pages to build ---------------------------------------------------------------------------


def draw(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=3)


@cache
def evidence() -> dict[str, Bundle]:
    """What one check of each kind leaves in a notebook, by the label of its equation."""
    x = sp.symbols("x", positive=True)
    records = [
        verify.definition("eq-name", "names the sum"),
        verify.symbolic("eq-square", (x + 1) ** 2, x**2 + 2 * x + 1),
        verify.numeric("eq-double", lambda x: x + x, lambda x: 2 * x, draw),
        verify.gradient("eq-slope", lambda x: (x**2).sum(), lambda x: 2 * x, draw),
        verify.bound("eq-positive", lambda x: 2 * abs(x), lambda x: x**2 + 1, draw, n=50),
        verify.monte_carlo("eq-mean", lambda rng, n: rng.random(n), 0.5, n=10_000),
        verify.asymptotic("eq-order", lambda n: 3 * n**2 + n, 2 ** np.arange(6, 12), order=2),
        verify.numeric("eq-double", lambda x: 3 * x - x, lambda x: 2 * x, draw, case="again"),
    ]
    found = {record.label: record.bundle for record in records[:-1]}
    return found | {"again": records[-1].bundle}


WORDS = {
    "eq-name": "definition",
    "eq-square": "symbolic",
    "eq-double": "numeric",
    "eq-slope": "gradient",
    "eq-positive": "bound",
    "eq-mean": "Monte Carlo",
    "eq-order": "asymptotic",
}


def judged(id: str, values: list[float], **more: Any) -> Bundle:
    """A claim that the values are at least 1."""
    rule = claims.at_least(values, 1.0)
    return claims.claim(id, f"The {id} claim is true.", rule=rule, seeds=range(3), **more).bundle


def equation(label: str) -> str:
    return f"Here it is:\n\n$$\ny_{{{label[3:]}}} = 1\n$$ ({label})\n"


def code(source: str, *bundles: Bundle) -> Any:
    """A cell that was executed and left these outputs."""
    outputs = [v4.new_output("display_data", data=copy.deepcopy(bundle)) for bundle in bundles]
    return v4.new_code_cell(source, execution_count=1, outputs=outputs)


def checked(*labels: str) -> list[Any]:
    """An equation and its check for each label."""
    pairs = [(equation(label), code("verify", evidence()[label])) for label in labels]
    return [cell for text, check in pairs for cell in (v4.new_markdown_cell(text), check)]


def chapter(title: str, *cells: Any) -> Any:
    made = [v4.new_markdown_cell(c) if isinstance(c, str) else c for c in cells]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(
        cells=[v4.new_markdown_cell(f"# {title}"), *made],
        metadata={"kernelspec": kernel, "language_info": {"name": "python"}},
    )


class Book(SmallBook):
    """Two chapters, a ledger and the claims, with the configuration of the real book."""

    TOC = """\
format: jb-book
root: index
parts:
- caption: Chapters
  numbered: 2
  chapters:
  - file: chapters/one
  - file: chapters/two
- caption: Lists
  chapters:
  - file: chapters/ledger
  - file: chapters/claims
"""

    def begin(self) -> Book:
        """Write what every such book shares: the configuration and the pages without chapters."""
        self.write("_config.yml", (ROOT / "_config.yml").read_text("utf-8"))
        self.write("_toc.yml", self.TOC)
        self.write("references.bib", "")
        self.write("_build/vendor/site/vendored.txt", "")
        self.write("index.md", "# A small book\n\nThis book is here to be built in a test only.\n")
        self.write("chapters/ledger.md", "# The ledger\n\n```{ledger}\n```\n")
        self.write("chapters/claims.md", "# The claims\n\n```{claims}\n```\n")
        return self

    def put(self, name: str, *cells: Any, title: str = "") -> None:
        """Write a chapter with stored outputs."""
        path = self.root / "chapters" / f"{name}.ipynb"
        nbformat.write(chapter(title or f"Chapter {name}", *cells), path)


def fill(book: Book) -> Book:
    """Make a good book: equations of each kind, claims with each verdict."""
    book.begin()
    book.put(
        "one",
        *checked("eq-name", "eq-square", "eq-double"),
        code("verify", evidence()["again"]),
        code(
            "claims",
            judged("plain", [2.0, 2.1, 2.2], article="Reported: 7.25 on another machine."),
        ),
        "## What was checked\n\n```{ledger}\n:chapter: one\n```\n\n```{claims}\n:chapter:\n```\n",
        title="The first chapter",
    )
    book.put(
        "two",
        *checked("eq-slope", "eq-positive", "eq-mean", "eq-order"),
        code(
            "claims",
            judged("refuted", [0.1, 0.2, 0.3], article_says="holds", article="Theirs was 1.75."),
            judged("open", [0.5, 1.0, 1.5], article="Not tried."),
        ),
        "## What was checked\n\n```{ledger}\n:chapter:\n```\n",
        title="The second chapter",
    )
    return book


# --- Jupyter Book in this process -------------------------------------------------------------


@dataclass
class Built:
    """The outcome of a build: how it ended, its warnings, and the pages."""

    ended: int | Exception
    said: str
    root: Path
    html: Path

    @property
    def warnings(self) -> list[str]:
        """What was complained about, without the folder of the book."""
        lines = [line for line in self.said.splitlines() if "WARNING" in line or "ERROR" in line]
        return [line.replace(f"{self.root}/", "") for line in lines]

    def page(self, name: str) -> Tag:
        return BeautifulSoup((self.html / f"{name}.html").read_text("utf-8"), "html.parser")

    def main(self, name: str) -> Tag:
        """A page without navigation, header and footer."""
        found = self.page(name).select_one("article.bd-article")
        assert found is not None
        return found


def make(book: Book, *without: str, builder: str = "html", work: str = "") -> Built:
    """Build a book as ``build.py`` does (all warnings are errors), but execute nothing.

    ``without`` names extensions of ours and settings of Sphinx to leave out; a second build with
    the same ``work`` goes on from the first.
    """
    from jupyter_book.sphinx import build_sphinx

    settings = yaml.safe_load((book.root / "_config.yml").read_text("utf-8"))
    local, config = settings["sphinx"]["local_extensions"], settings["sphinx"]["config"]
    settings["sphinx"]["local_extensions"] = {
        name: str(ROOT / folder) for name, folder in local.items() if name not in without
    }
    for name in without:
        config.pop(name, None)
    config["templates_path"] = [str(ROOT / "site" / "templates")]
    config["html_static_path"] = [str(ROOT / "site" / "assets"), "_build/vendor/site"]
    for place in (settings, settings["html"]):
        place.pop("logo", None)
        place.pop("favicon", None)
    path = book.root / "_config_of_test.yml"
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), "utf-8")
    folder = book.root / "_build" / (work or f"work{next(COUNT)}")
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        ended = build_sphinx(
            str(book.root),
            str(folder / builder),
            noconfig=True,
            path_config=str(path),
            confoverrides={
                "latex_individualpages": False,
                "nitpicky": True,
                "nb_execution_mode": "off",
            },
            builder=builder,
            warningiserror=True,
            keep_going=True,
            quiet=True,
        )
    return Built(ended, executor.without_colours(said.getvalue()), book.root, folder / builder)


@pytest.fixture(scope="module", autouse=True)
def path_restored() -> Iterator[None]:
    """Jupyter Book appends the folder of the extensions to the path at every build."""
    before = sys.path.copy()
    yield
    sys.path[:] = before


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The good book, built once."""
    return make(fill(Book(tmp_path_factory.mktemp("good") / "book")))


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """A good book to be spoiled."""
    return fill(Book(tmp_path / "book"))


def refusal(book: Book) -> str:
    """The one thing that keeps a spoiled book from being built."""
    built = make(book)
    assert built.ended == 1, built.said
    assert len(built.warnings) == 1, built.said
    return built.warnings[0]


# --- a good book ------------------------------------------------------------------------------


def rows(page: Tag) -> dict[str, Tag]:
    """The rows of the ledgers on a page, by the number of their equation."""
    found = page.select("table.book-ledger tbody tr")
    by_number = {row.td.get_text(strip=True): row for row in found if row.td}
    assert len(by_number) == len(found), "two rows of one number"
    return by_number


def numbers(page: Tag) -> dict[str, str]:
    """The number of every equation on a page, by its label."""
    found = {}
    for place in page.select("div.math[id^=equation-]"):
        number = place.select_one(".eqno")
        assert number is not None
        found[str(place["id"]).removeprefix("equation-")] = next(number.stripped_strings)
    return found


def target(built: Built, page: str, href: str) -> Tag | None:
    """The element to which a link on a page leads."""
    file, _, anchor = href.partition("#")
    path = (built.html / f"{page}.html").parent / file if file else built.html / f"{page}.html"
    assert path.resolve().is_file(), href
    return BeautifulSoup(path.read_text("utf-8"), "html.parser").find(id=anchor)


def test_a_good_book_builds_without_a_word(good: Built) -> None:
    assert good.ended == 0, good.said
    assert good.warnings == []


def test_the_ledger_lists_every_equation_by_the_number_that_it_bears(good: Built) -> None:
    first, second = numbers(good.main("chapters/one")), numbers(good.main("chapters/two"))
    assert {*first, *second} == set(WORDS)
    listed = rows(good.main("chapters/ledger"))
    assert list(listed) == [*first.values(), *second.values()]
    assert [*listed] == ["(1.1)", "(1.2)", "(1.3)", "(2.1)", "(2.2)", "(2.3)", "(2.4)"]


def test_the_ledger_groups_the_equations_by_chapter(good: Built) -> None:
    page = good.main("chapters/ledger")
    headings = page.select(".book-listing-chapter")
    assert [heading.get_text() for heading in headings] == [
        "The first chapter",
        "The second chapter",
    ]
    for heading, counted in zip(headings, (3, 4), strict=True):
        table = heading.find_next("table")
        assert isinstance(table, Tag)
        assert len(table.select("tbody tr")) == counted


@pytest.mark.parametrize(("label", "kind"), WORDS.items())
def test_the_row_of_an_equation_shows_its_formula_and_its_evidence(
    good: Built, label: str, kind: str
) -> None:
    every = numbers(good.main("chapters/one")) | numbers(good.main("chapters/two"))
    row = rows(good.main("chapters/ledger"))[every[label]]
    formula = row.select_one("div.math")
    assert formula is not None
    assert f"y_{{{label[3:]}}} = 1" in formula.get_text()
    said = row.select_one(".book-ledger-kind")
    assert said is not None
    assert said.get_text() == kind
    record = evidence()[label][CHECK_MIME]
    assert record["evidence"] in row.get_text()
    assert record["perturbation"] in row.get_text()


def test_an_equation_with_two_checks_has_one_row_and_two_links(good: Built) -> None:
    page = good.main("chapters/one")
    row = rows(page)[numbers(page)["eq-double"]]
    links = [str(link["href"]) for link in row.select(".book-ledger-kind")]
    assert links == ["#check-eq-double", "#check-eq-double--again"]


def test_every_link_of_the_ledger_leads_to_its_equation_or_its_check(good: Built) -> None:
    for row in rows(good.main("chapters/ledger")).values():
        for link in row.select("a"):
            there = target(good, "chapters/ledger", str(link["href"]))
            assert there is not None, link
            name = str(there["id"])
            assert "book-check" in there["class"] or name.startswith("equation-eq-"), link
    linked = {str(a["href"]) for a in good.main("chapters/ledger").select("table.book-ledger a")}
    assert len(linked) == 7 + 8  # equations and checks


def test_a_mark_beside_the_equation_leads_to_its_check_and_the_check_leads_back(
    good: Built,
) -> None:
    for name in ("chapters/one", "chapters/two"):
        page = good.main(name)
        boxes = page.select(".book-equation")
        assert len(boxes) == len(numbers(page))
        for box in boxes:
            mark, number = box.select_one("a.book-equation-mark"), box.select_one(".math")
            assert mark is not None
            assert number is not None
            check = target(good, name, str(mark["href"]))
            assert check is not None
            back = check.select_one("a.book-check-link")
            assert back is not None
            assert back["href"] == f"#{number['id']}"


def test_the_mark_names_the_kind_of_the_check(good: Built) -> None:
    said = {
        str(box.select_one(".math")["id"]).removeprefix("equation-"): " ".join(  # type: ignore[index]
            box.select_one(".book-equation-mark").get_text().split()  # type: ignore[union-attr]
        )
        for name in ("chapters/one", "chapters/two")
        for box in good.main(name).select(".book-equation")
    }
    expected = {label: f"✓ checked: {kind}" for label, kind in WORDS.items()}
    assert said == expected | {"eq-name": "≔ defines"}


def test_a_chapters_own_ledger_lists_its_own_rows_only(good: Built) -> None:
    for name in ("chapters/one", "chapters/two"):
        page = good.main(name)
        assert list(rows(page)) == list(numbers(page).values())
        assert not page.select(".book-listing-chapter")


def card(page: Tag, id: str) -> Tag:
    """The card of a claim in a list of claims."""
    [found] = [
        card
        for card in page.select("div.book-claim")
        if f"The {id} claim is true." in card.get_text() and not card.get("id")
    ]
    return found


@pytest.mark.parametrize(
    ("id", "verdict"),
    [("plain", "✓ holds"), ("refuted", "✗ does not hold"), ("open", "? inconclusive")],
)
def test_the_claims_are_listed_with_verdict_and_rule(good: Built, id: str, verdict: str) -> None:
    listed = card(good.main("chapters/claims"), id)
    said = listed.select_one(".book-claim-verdict")
    assert said is not None
    assert said.get_text() == verdict
    assert f"book-claim-{verdict[2:].replace(' ', '-')}" in listed["class"]
    assert "lies at least 1; seeds 0, 1, 2." in listed.get_text()


def test_our_figures_and_the_articles_stand_in_the_list_each_with_its_owner(good: Built) -> None:
    figures = card(good.main("chapters/claims"), "plain").select_one(".book-claim-figures")
    assert figures is not None
    owners = [term.get_text() for term in figures.select("dt")]
    assert owners == ["Ours", "Theirs"]
    ours, theirs = (place.get_text(strip=True) for place in figures.select("dd"))
    assert ours.startswith("2.1 (from ")
    assert theirs == "Reported: 7.25 on another machine."


def test_only_a_verdict_against_the_articles_is_called_a_contradiction(good: Built) -> None:
    page = good.main("chapters/claims")
    said = {id: "contradicts the article" in card(page, id).get_text() for id in IDS}
    assert said == {"plain": False, "refuted": True, "open": False}


IDS = ("plain", "refuted", "open")


def test_every_claim_of_the_list_leads_to_its_experiment(good: Built) -> None:
    page = good.main("chapters/claims")
    for id in IDS:
        link = card(page, id).select_one("a")
        assert link is not None
        there = target(good, "chapters/claims", str(link["href"]))
        assert there is not None
        assert f"The {id} claim is true." in there.get_text()


def test_a_chapters_own_list_of_claims_has_its_own_only(good: Built) -> None:
    listed = [c.get_text() for c in good.main("chapters/one").select("div.book-claim:not([id])")]
    assert len(listed) == 1
    assert "The plain claim is true." in listed[0]


def test_a_list_without_entries_says_so(book: Book) -> None:
    for name in ("one", "two"):
        book.put(name, "There is nothing to check here yet.")
    built = make(book)
    assert built.ended == 0, built.said
    assert "There are no numbered equations here yet." in built.main("chapters/ledger").get_text()
    assert "There are no claims here yet." in built.main("chapters/claims").get_text()


def test_the_ledger_is_written_again_when_a_chapter_changes(book: Book) -> None:
    before = make(book, work="same")
    assert len(rows(before.main("chapters/ledger"))) == 7
    book.put("two", *checked("eq-slope"), title="A new title")
    after = make(book, work="same")
    assert after.ended == 0, after.said
    assert len(rows(after.main("chapters/ledger"))) == 4
    assert "A new title" in after.main("chapters/ledger").get_text()
    assert card(after.main("chapters/claims"), "plain")
    assert "The open claim" not in after.main("chapters/claims").get_text()


def test_in_a_book_of_one_page_the_ledger_links_within_it(book: Book) -> None:
    built = make(book, builder="singlehtml")
    assert built.ended == 0, built.said
    page = built.page("index")
    links = [str(link["href"]) for link in page.select("table.book-ledger .book-ledger-kind")]
    assert len(links) >= 8
    assert [link for link in links if not page.find(id=link.removeprefix("#"))] == []


# --- what is refused --------------------------------------------------------------------------


def test_an_equation_of_a_notebook_without_a_check_is_refused(book: Book) -> None:
    book.put("two", *checked("eq-slope"), equation("eq-bare"))
    said = refusal(book)
    assert said.startswith("chapters/two.ipynb")
    assert "eq-bare: labelled equation has no passing check" in said


def test_an_equation_of_a_plain_page_without_a_check_is_refused(book: Book) -> None:
    book.write("index.md", "# A small book\n\n" + equation("eq-bare"))
    said = refusal(book)
    assert said.startswith("index.md")
    assert "eq-bare: labelled equation has no passing check" in said


@pytest.mark.parametrize(
    "written",
    [
        "```{math}\n:label: eq-bare\ny = 1\n```",
        ":::{note}\n$$ y = 1 $$ (eq-bare)\n:::",
        "1. First\n\n   $$ y = 1 $$ (eq-bare)",
        "```{eval-rst}\n.. math::\n   :label: eq-bare\n\n   y = 1\n```",
    ],
    ids=["directive", "in a box", "in a list", "reStructuredText"],
)
def test_however_a_label_is_written_its_equation_needs_a_check(book: Book, written: str) -> None:
    book.put("two", written)
    said = refusal(book)
    assert said.startswith("chapters/two.ipynb")
    assert "eq-bare: labelled equation has no passing check" in said


def test_an_equation_that_is_numbered_without_a_label_is_refused(book: Book) -> None:
    book.put("two", "\\begin{equation}\ny = 1\n\\end{equation}")
    said = refusal(book)
    assert said.startswith("chapters/two.ipynb")
    assert "labelled equation has no passing check" in said


def test_a_checked_equation_that_the_ledger_would_not_list_is_refused(book: Book) -> None:
    """Sphinx sees the label, our own reading of the notebook does not."""
    hidden = "```{eval-rst}\n.. math::\n   :label: eq-slope\n\n   y = 1\n```"
    book.put("two", hidden, code("verify", evidence()["eq-slope"]))
    said = refusal(book)
    assert said.startswith("chapters/two.ipynb")
    assert "eq-slope: the ledger cannot read it" in said


def test_a_check_of_an_equation_that_does_not_exist_is_refused(book: Book) -> None:
    book.put("two", code("verify", evidence()["eq-slope"]))
    said = refusal(book)
    assert said.startswith("chapters/two.ipynb")
    assert "eq-slope: check of an equation that does not exist" in said


def test_a_check_of_no_known_kind_is_refused(book: Book) -> None:
    cells = checked("eq-slope")
    cells[1].outputs[0].data[CHECK_MIME]["kind"] = "trust-me"
    book.put("two", *cells)
    said = refusal(book)
    assert said.startswith("chapters/two.ipynb")
    assert "eq-slope: check of no known kind, 'trust-me'" in said


@pytest.mark.parametrize("value", [False, None, "yes"])
def test_a_check_that_rejected_no_perturbed_formula_is_refused(book: Book, value: Any) -> None:
    cells = checked("eq-slope")
    cells[1].outputs[0].data[CHECK_MIME]["perturbation_rejected"] = value
    book.put("two", *cells)
    said = refusal(book)
    assert said.startswith("chapters/two.ipynb")
    assert "eq-slope: the check did not reject a perturbed formula" in said


def test_a_check_on_another_page_than_its_equation_is_refused(book: Book) -> None:
    book.write("index.md", "# A small book\n\n" + equation("eq-slope"))
    book.put("two", code("verify", evidence()["eq-slope"]))
    said = refusal(book)
    assert said.startswith("chapters/two.ipynb")
    assert "eq-slope: checked here, but it stands in index" in said


def test_an_equation_whose_output_was_deleted_is_refused(book: Book) -> None:
    cells = checked("eq-slope", "eq-positive")
    assert "verify" in cells[1].source
    cells[1].outputs = []
    book.put("two", *cells)
    said = refusal(book)
    assert said.startswith("chapters/two.ipynb")
    assert "eq-slope: labelled equation has no passing check" in said


def test_a_verdict_without_its_record_is_refused(book: Book) -> None:
    cells = checked("eq-slope")
    del cells[1].outputs[0].data[CHECK_MIME]
    book.put("two", *cells)
    assert "eq-slope: labelled equation has no passing check" in refusal(book)


@pytest.mark.parametrize("tag", ["remove-output", "remove-cell"])
def test_a_check_that_the_page_does_not_show_is_refused(book: Book, tag: str) -> None:
    cells = checked("eq-slope", "eq-positive")
    cells[1].metadata.tags = [tag]
    book.put("two", *cells)
    said = refusal(book)
    assert said.startswith("chapters/two.ipynb")
    assert "eq-slope: its verdict is not shown on the page" in said


def test_a_claim_that_the_page_does_not_show_is_refused(book: Book) -> None:
    cell = code("claims", judged("hidden", [1.0, 2.0, 3.0]))
    cell.metadata.tags = ["remove-output"]
    book.put("two", cell)
    assert "claim hidden: its verdict is not shown on the page" in refusal(book)


@pytest.mark.parametrize("tag", ["hide-output", "hide-cell", "hide-input", "remove-input"])
def test_a_check_may_be_folded(book: Book, tag: str) -> None:
    cells = checked("eq-slope")
    cells[1].metadata.tags = [tag]
    book.put("two", *cells)
    built = make(book)
    assert built.ended == 0, built.said


def test_a_label_on_two_pages_is_refused(book: Book) -> None:
    book.put("two", *checked("eq-double"))
    said = make(book)
    assert said.ended == 1
    assert any("duplicate label of equation eq-double" in line for line in said.warnings)
    assert all("chapters/" in line for line in said.warnings)


def test_a_claim_made_twice_in_one_chapter_is_refused(book: Book) -> None:
    again = judged("twice", [1.0, 2.0, 3.0])
    book.put("two", code("claims", again), code("claims", again))
    said = refusal(book)
    assert said.startswith("chapters/two.ipynb")
    assert "claim twice: already made in chapters/two" in said


def test_a_claim_made_in_two_chapters_is_refused(book: Book) -> None:
    book.put("two", code("claims", judged("plain", [1.0, 2.0, 3.0])))
    said = refusal(book)
    assert said.startswith("chapters/two.ipynb")
    assert "claim plain: already made in chapters/one" in said


def test_a_verdict_that_is_none_of_the_three_is_refused(book: Book) -> None:
    forged = copy.deepcopy(judged("forged", [1.0, 2.0, 3.0]))
    forged[CLAIM_MIME]["verdict"] = "probably"
    book.put("two", code("claims", forged))
    said = refusal(book)
    assert said.startswith("chapters/two.ipynb")
    assert "claim forged: no known verdict, 'probably'" in said


def test_every_fault_of_a_book_is_reported_at_once(book: Book) -> None:
    book.put("two", equation("eq-bare"), code("verify", evidence()["eq-mean"]))
    book.write("index.md", "# A small book\n\n" + equation("eq-plain"))
    built = make(book)
    assert built.ended == 1
    assert len(built.warnings) == 3
    for label in ("eq-bare", "eq-mean", "eq-plain"):
        assert sum(label in line for line in built.warnings) == 1


# --- with everything executed -----------------------------------------------------------------

CHECK = """\
from lib.book import verify

verify.numeric("eq-double", lambda x: x + x, lambda x: 2 * x, lambda rng: rng.normal(size=3))
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Book:
    """A book of one chapter without stored outputs, built once by ``build.py``."""
    book = Book(tmp_path_factory.mktemp("executed") / "book")
    book.fill()
    for name in ("first", "second"):
        (book.root / "chapters" / f"{name}.ipynb").unlink()
    shutil.rmtree(book.root / "lib")
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lib" / "book", book.root / "lib" / "book", ignore=leave)
    shutil.copy(ROOT / "lib" / "__init__.py", book.root / "lib")
    for folder in ("assets", "ext", "templates"):
        shutil.copytree(ROOT / "site" / folder, book.root / "site" / folder, ignore=leave)
    book.begin()
    book.write("_toc.yml", Book.TOC.replace("  - file: chapters/two\n", ""))
    book.put("one", equation("eq-double"), v4.new_code_cell(CHECK))
    done = book.run("build.py")
    assert done.returncode == 0, done.stdout + done.stderr
    return book


def test_the_ledger_shows_what_the_execution_recorded_and_not_what_is_stored(
    executed: Book,
) -> None:
    stored = (executed.root / "chapters" / "one.ipynb").read_text("utf-8")
    assert CHECK_MIME not in stored
    built = Built(0, "", executed.root, executed.html)
    [row] = rows(built.main("chapters/ledger")).values()
    assert "a right-hand side off by 0.1 % was rejected" in row.get_text()
    for link in row.select("a"):
        assert target(built, "chapters/ledger", str(link["href"])) is not None


def test_build_py_refuses_an_equation_without_a_check_and_keeps_the_last_good_pages(
    executed: Book, tmp_path: Path
) -> None:
    book = Book(Path(shutil.copytree(executed.root, tmp_path / "book")))
    book.write("index.md", "# A small book\n\n" + equation("eq-bare"))
    done = book.run("build.py")
    assert done.returncode == 1, done.stdout
    assert "index.md: WARNING: ledger: eq-bare: labelled equation has no passing check" in (
        done.stderr
    )
    assert "eq-bare" not in (book.html / "index.html").read_text("utf-8")


# --- Chinese ----------------------------------------------------------------------------------


@pytest.fixture
def written(book: Book) -> Callable[[str], Tag]:
    """Build a page of this text; the value is the page."""

    def write(text: str) -> Tag:
        book.write("index.md", f"# A small book\n\n{text}\n")
        built = make(book)
        assert built.ended == 0, built.said
        return built.main("index")

    return write


def chinese(page: Tag) -> list[str]:
    return [place.get_text() for place in page.select('[lang="zh-Hans"]')]


def test_runs_of_chinese_are_marked_as_chinese(written: Callable[[str], Tag]) -> None:
    page = written(
        "Su Jianlin (苏剑林) writes *科学空间*. See [熵不变性Softmax的一个快速推导](https://kexue.fm)."
        "\n\n| term | 英文 |\n|---|---|\n| entropy | 熵 |\n"
    )
    assert chinese(page) == ["苏剑林", "科学空间", "熵不变性Softmax的一个快速推导", "英文", "熵"]
    assert "Su Jianlin (苏剑林) writes 科学空间" in page.get_text()


@pytest.mark.parametrize(
    "title",
    [
        "“维度灾难”之Hubness现象浅析",
        "生成扩散模型漫谈（一）：DDPM = 拆楼 + 建楼",
        "当BERT-whitening引入超参数：总有一款适合你",
    ],
)
def test_a_title_that_mixes_latin_names_in_is_one_run(
    written: Callable[[str], Tag], title: str
) -> None:
    assert chinese(written(f"The article is {title} and nothing else.")) == [title]


def test_english_between_two_chinese_words_stays_english(written: Callable[[str], Tag]) -> None:
    page = written("Compare 熵 with 温度, or 苏剑林 who writes about 科学空间 at length.")
    assert chinese(page) == ["熵", "温度", "苏剑林", "科学空间"]


def test_code_and_formulas_are_not_marked(written: Callable[[str], Tag]) -> None:
    page = written(
        "In code `熵 = 1` and in a formula $\\text{熵}$.\n\n$$\n\\text{温度}\n$$\n\n"
        "```python\nprint('熵')\n```\n"
    )
    assert chinese(page) == []
    assert page.get_text().count("熵") == 3


# --- nothing from elsewhere -------------------------------------------------------------------

FOREIGN = re.compile(r"thebe|hypothes|utteranc|require\.|html-manager|cdn|unpkg")


def foreign(built: Built) -> set[str]:
    """The words that betray foreign scripts, and the scripts and styles from other hosts."""
    found = set()
    for path in built.html.rglob("*.html"):
        page = built.page(path.relative_to(built.html).with_suffix("").as_posix())
        for element in page.select("script, link[rel=stylesheet], link[rel=preload]"):
            address = str(element.get("src") or element.get("href") or "")
            words = f"{address} {element.get('type')} {element.get_text()}"
            found |= set(FOREIGN.findall(words.lower()))
            found |= {"another host"} if "//" in address else set()
    return found


def with_widgets(book: Book) -> Book:
    """Store the state of a widget, for which MyST-NB loads the widget manager."""
    path = book.root / "chapters" / "two.ipynb"
    notebook = nbformat.read(path, as_version=4)
    slider = {"model_name": "IntSliderModel", "model_module": "controls", "state": {}}
    state = {"version_major": 2, "version_minor": 0, "state": {"1": slider}}
    notebook.metadata.widgets = {"application/vnd.jupyter.widget-state+json": state}
    nbformat.write(notebook, path)
    return book


def test_no_page_has_a_script_from_elsewhere_or_for_a_feature_left_out(book: Book) -> None:
    built = make(with_widgets(book), "nb_ipywidgets_js", "mathjax_path")
    assert built.ended == 0, built.said
    assert len(list(built.html.rglob("*.html"))) >= 5
    assert foreign(built) == set()


def test_without_the_extension_such_scripts_are_on_the_pages(book: Book) -> None:
    """Otherwise the test above would look for what nobody adds."""
    found = foreign(make(with_widgets(book), "offline", "nb_ipywidgets_js", "mathjax_path"))
    assert {"thebe", "html-manager", "require.", "cdn", "another host"} <= found


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("![A picture](https://example.org/a.png)", "https://example.org/a.png"),
        ('<script src="//example.org/a.js"></script>', "//example.org/a.js"),
        ('<iframe src="https://example.org/b"></iframe>', "https://example.org/b"),
        (
            '<p style="background: url(https://example.org/c.png)">x</p>',
            "https://example.org/c.png",
        ),
    ],
    ids=["picture", "script", "frame", "style"],
)
def test_a_page_that_would_fetch_from_elsewhere_is_refused(
    book: Book, text: str, address: str
) -> None:
    book.write("index.md", f"# A small book\n\nHere is something.\n\n{text}\n")
    said = refusal(book)
    assert f"offline: index.html would fetch {address}" in said


def test_a_link_that_a_reader_may_follow_is_allowed(written: Callable[[str], Tag]) -> None:
    page = written("The article stands at [kexue.fm](https://kexue.fm/archives/9034).")
    assert page.select_one('a[href="https://kexue.fm/archives/9034"]')


def test_scripts_are_deferred_except_on_the_search_page(good: Built) -> None:
    for name in ("index", "chapters/one", "chapters/ledger"):
        found = good.page(name).select("script[src]")
        assert found
        assert [s for s in found if not (s.has_attr("defer") or s.has_attr("async"))] == []


def test_every_page_is_described_by_its_first_sentence(good: Built) -> None:
    [tag] = good.page("index").select('meta[name="description"]')
    assert tag["content"] == "This book is here to be built in a test only."
    assert len(good.page("index").select('meta[name="viewport"]')) == 1


# --- the reference of the package -------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Tag:
    """The page that describes the real ``lib``."""
    book = Book(tmp_path_factory.mktemp("reference") / "book").begin()
    book.write("_toc.yml", "format: jb-book\nroot: index\n")
    book.write("index.md", "# The package\n\n```{lib-reference} lib\n```\n")
    built = make(book)
    assert built.ended == 0, built.said
    return built.main("index")


@cache
def public_modules() -> dict[str, ast.Module]:
    """Every module of ``lib`` that no underscore hides, as files; a second way to find them."""
    found = {}
    for path in sorted((ROOT / "lib").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            found[".".join(parts)] = ast.parse(path.read_text("utf-8"))
    return found


def public_names(module: ast.Module) -> list[str]:
    """The names in ``__all__``, else the functions and classes without underscore."""
    for node in module.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    kinds = (ast.FunctionDef, ast.ClassDef)
    names = [node.name for node in module.body if isinstance(node, kinds)]
    return [name for name in names if not name.startswith("_")]


def test_every_public_module_of_lib_has_a_section(reference: Tag) -> None:
    headings = [h.find(string=True, recursive=False) for h in reference.select("h2")]
    modules = public_modules()
    assert len(modules) > 5
    assert [str(heading) for heading in headings] == list(
        sorted(modules, key=lambda name: name.split("."))
    )


def test_every_public_name_of_lib_is_described_once(reference: Tag) -> None:
    described = [str(place["id"]) for place in reference.select("dt[id^=lib]")]
    assert len(set(described)) == len(described)
    missing = []
    for module, tree in public_modules().items():
        for name in public_names(tree):
            homes = [module, *(m for m in public_modules() if module.startswith(f"{m}."))]
            inner = f"{module}.{name}" in public_modules()  # a module that __all__ names
            if not inner and not any(f"{home}.{name}" in described for home in homes):
                missing.append(f"{module}.{name}")
    assert missing == []


def test_nothing_private_is_described(reference: Tag) -> None:
    names = [str(place["id"]) for place in reference.select("dt[id]")]
    private = [n for n in names if any(part.startswith("_") for part in n.split("."))]
    assert [name for name in private if not name.endswith("__")] == []


def test_references_between_docstrings_are_links_that_lead_somewhere(reference: Tag) -> None:
    links = {str(link["href"]) for link in reference.select("dd a.reference.internal")}
    assert {"#lib.book.verify.CannotFail", "#lib.book.verify.numeric"} <= links
    assert links - {f"#{place['id']}" for place in reference.select("[id]")} == set()


def test_a_reference_to_something_that_lib_does_not_have_is_refused(book: Book) -> None:
    book.write("index.md", "# A small book\n\nSee {py:func}`lib.book.verify.numerik`.\n")
    said = refusal(book)
    assert said.startswith("index.md")
    assert "lib.book.verify.numerik" in said


def test_a_reference_to_another_project_needs_no_link(written: Callable[[str], Tag]) -> None:
    page = written("It returns a {py:class}`numpy.ndarray`.")
    assert "numpy.ndarray" in page.get_text()
    assert not page.select("a.reference.internal")
