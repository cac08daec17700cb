"""The ledger of equations and the table of claims, made from the records in the notebooks.

``{ledger}`` lists every labelled equation with its check, ``{ledger} :chapter:`` only those of the
page it stands on; ``{claims}`` lists every claim. Links go both ways: from the equation to its
check (also by a mark beside the equation) and, in the check's own output, back.

Sphinx's list of equation labels is the authority, not our own reading of the notebooks: a label
without a passing check, or a check without a label, is a warning that names the equation, and
with ``-W`` the end of the build.

The records are those of the executed notebook that the page shows, else the stored outputs.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import nbformat
from docutils import nodes
from docutils.parsers.rst import directives
from jupyter_cache import get_cache
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.builders import Builder
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from lib.book.records import VERDICTS, Check, Claim, Scan, scan_notebook

logger = logging.getLogger(__name__)

KIND_WORDS = {
    "definition": "definition",
    "symbolic": "symbolic",
    "numeric": "numeric",
    "gradient": "gradient",
    "bound": "bound",
    "monte_carlo": "Monte Carlo",
    "asymptotic": "asymptotic",
}
VERDICT_MARKS = {"holds": "✓", "does not hold": "✗", "inconclusive": "?"}
MEASURED = re.compile(r"<book-measured>(.*?)</book-measured>", re.DOTALL)


# --- collecting -------------------------------------------------------------------------------


def scans(env: BuildEnvironment) -> dict[str, Scan]:
    """What each notebook holds, by document name; kept with the environment between builds."""
    if not hasattr(env, "book_scans"):
        env.book_scans = {}
    return env.book_scans


def listings(env: BuildEnvironment) -> set[str]:
    """The pages with a ledger or a table of claims: written again when a notebook changes."""
    if not hasattr(env, "book_listings"):
        env.book_listings = set()
    return env.book_listings


def collect(app: Sphinx, doctree: nodes.document) -> None:
    """Read the records of the notebook that was just parsed."""
    name = app.env.docname
    if Path(app.env.doc2path(name)).suffix != ".ipynb":
        return
    scan = scans(app.env)[name] = scan_notebook(shown_notebook(app.env, name), name)
    page = "\n".join(node.astext() for node in doctree.findall(nodes.raw))
    verdicts = [(check.label, check.anchor) for check in scan.checks]
    verdicts += [(f"claim {claim.id}", claim.anchor) for claim in scan.claims]
    for what, anchor in verdicts:
        if f'id="{anchor}"' not in page:  # its cell has a tag like remove-output
            sentence = f"{what}: its verdict is not shown on the page"
            logger.warning("ledger: %s", sentence, location=name, type="ledger")


def shown_notebook(env: BuildEnvironment, docname: str) -> Any:
    """The notebook whose outputs the page shows: out of the cache, executed now, or as stored."""
    source = Path(env.doc2path(docname))
    settings = env.mystnb_config
    if settings.execution_mode == "cache":
        # MyST-NB leaves no executed copy of a notebook that it found in the cache
        with contextlib.suppress(KeyError):
            stored = nbformat.read(source, as_version=4)
            return get_cache(settings.execution_cache_path).merge_match_into_notebook(stored)[1]
    executed = Path(settings.output_folder, *f"{docname}.ipynb".split("/"))
    return executed if executed.is_file() else source


def forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    scans(env).pop(docname, None)
    listings(env).discard(docname)


def merge(app: Sphinx, env: BuildEnvironment, docnames: list[str], other: Any) -> None:
    """Take over what a parallel reader collected."""
    scans(env).update({name: scan for name, scan in scans(other).items() if name in docnames})
    listings(env).update(listings(other) & set(docnames))


def rewrite_listings(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Have the listings written again if anything they show has changed."""
    numbers = {name: figures.get("displaymath") for name, figures in env.toc_fignumbers.items()}
    titles = {name: title.astext() for name, title in env.titles.items()}
    shown = (dict(scans(env)), numbers, titles)
    if getattr(env, "book_shown", None) == shown:
        return []
    env.book_shown = shown
    return sorted(listings(env) & env.all_docs.keys())


def reading_order(env: BuildEnvironment) -> list[str]:
    """All pages as the table of contents has them."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            order.append(name)
            for child in env.toctree_includes.get(name, []):
                visit(child)

    visit(env.config.root_doc)
    return order + sorted(set(scans(env)) - set(order))


def all_of(env: BuildEnvironment, kind: str, chapter: str = "") -> list[Any]:
    """All checks, claims or equations, in reading order, or those of one chapter."""
    names = [chapter] if chapter else reading_order(env)
    return [item for name in names for item in getattr(scans(env).get(name, Scan()), kind)]


# --- consistency ------------------------------------------------------------------------------


def check_consistency(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of every label without a passing check, every stray check and every repeated claim."""
    for page, sentence in problems(env):
        logger.warning("ledger: %s", sentence, location=page, type="ledger")


def problems(env: BuildEnvironment) -> Iterator[tuple[str, str]]:
    """What does not fit together: the page, and a sentence that names the equation."""
    labels = {label: page for label, (page, _) in env.get_domain("math").equations.items()}
    listed = {equation.label for equation in all_of(env, "equations")}
    checks: dict[str, list[Check]] = {}
    for check in all_of(env, "checks"):
        checks.setdefault(check.label, []).append(check)
    for label, page in labels.items():
        if label not in checks:
            yield page, f"{label}: labelled equation has no passing check"
        elif page in scans(env) and label not in listed:
            yield (
                page,
                f"{label}: the ledger cannot read it; write it between $$ or as {{math}}",
            )
    for label, found in checks.items():
        for check in found:
            if label not in labels:
                yield check.notebook, f"{label}: check of an equation that does not exist"
            elif check.notebook != labels[label]:
                yield check.notebook, f"{label}: checked here, but it stands in {labels[label]}"
            if check.kind not in KIND_WORDS:
                yield check.notebook, f"{label}: check of no known kind, {check.kind!r}"
            if not check.has_power:
                yield check.notebook, f"{label}: the check did not reject a perturbed formula"
    seen: dict[str, str] = {}
    for claim in all_of(env, "claims"):
        if claim.id in seen:
            yield claim.notebook, f"claim {claim.id}: already made in {seen[claim.id]}"
        if claim.verdict not in VERDICTS:
            yield claim.notebook, f"claim {claim.id}: no known verdict, {claim.verdict!r}"
        seen[claim.id] = claim.notebook


# --- directives -------------------------------------------------------------------------------


class listing(nodes.General, nodes.Element):
    """Where a ledger or a table of claims goes; filled once every notebook has been read."""


class Listing(SphinxDirective):
    """What ``{ledger}`` and ``{claims}`` share."""

    kind: ClassVar[str]
    option_spec: ClassVar[dict[str, Callable[[str], Any]]] = {"chapter": directives.flag}

    def run(self) -> list[nodes.Node]:
        listings(self.env).add(self.env.docname)
        chapter = self.env.docname if "chapter" in self.options else ""
        # the empty formula tells Sphinx that the page will need its mathematics typeset
        place = listing("", nodes.math("", ""), kind=self.kind, chapter=chapter)
        self.set_source_info(place)
        return [place]


class LedgerDirective(Listing):
    """Every labelled equation, its number, formula and check."""

    kind = "equations"


class ClaimsDirective(Listing):
    """Every claim, its verdict and what decided it."""

    kind = "claims"


class FillListings(SphinxPostTransform):
    """Put the tables in their places, before references are resolved."""

    default_priority = 5

    def run(self, **kwargs: Any) -> None:
        for place in list(self.document.findall(listing)):
            rows = all_of(self.env, place["kind"], place["chapter"])
            fill = ledger_table if place["kind"] == "equations" else claim_list
            writer = Writer(self.env, self.app.builder, self.env.docname, bool(place["chapter"]))
            place.replace_self(list(fill(writer, rows)) if rows else [empty(place)])


class MarkEquations(SphinxPostTransform):
    """Beside each checked equation, a small mark that leads to its check."""

    default_priority = 6
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        checks: dict[str, list[Check]] = {}
        for check in scans(self.env).get(self.env.docname, Scan()).checks:
            checks.setdefault(check.label, []).append(check)
        for block in list(self.document.findall(nodes.math_block)):
            if found := checks.get(block.get("label") or ""):
                mark = nodes.raw("", mark_html(found), format="html")
                box = nodes.container("", classes=["book-equation"])
                block.replace_self(box)
                box["ids"].clear()  # docutils hands them on, and the formula keeps them
                box += [block, mark]


def mark_html(checks: list[Check]) -> str:
    """The mark of one equation: the kinds of its checks, linked to the first."""
    kinds = list(dict.fromkeys(KIND_WORDS.get(check.kind, check.kind) for check in checks))
    words = "defines" if kinds == ["definition"] else "checked: " + ", ".join(kinds)
    sign = "≔" if kinds == ["definition"] else "✓"
    return (
        f'<a class="book-equation-mark" href="#{escape(checks[0].anchor)}">'
        f'<span aria-hidden="true">{sign}</span> {escape(words)}</a>'
    )


def empty(place: listing) -> nodes.paragraph:
    what = "numbered equations" if place["kind"] == "equations" else "claims"
    return nodes.paragraph("", f"There are no {what} here yet.", classes=["book-empty"])


# --- writing ----------------------------------------------------------------------------------


class Writer:
    """Makes the nodes of a listing on one page."""

    def __init__(
        self, env: BuildEnvironment, builder: Builder, page: str, one_chapter: bool
    ) -> None:
        self.env, self.builder, self.page, self.one_chapter = env, builder, page, one_chapter

    def link(self, target: str, anchor: str, *text: nodes.Node, **attributes: Any) -> nodes.Node:
        """A link to an id that only the html knows, such as that of a verdict."""
        single = self.builder.name == "singlehtml"
        page = "" if single else self.builder.get_relative_uri(self.page, target)
        node = nodes.reference("", "", *text, refuri=f"{page}#{anchor}", internal=True)
        node["classes"] += attributes.get("classes", [])
        return node

    def equation(self, label: str) -> nodes.Node:
        """The equation's number, linked; Sphinx finds both."""
        return addnodes.pending_xref(
            "",
            nodes.literal("", label),
            refdomain="math",
            reftype="eq",
            reftarget=label,
            refdoc=self.page,
            refexplicit=False,
        )

    def chapter(self, docname: str) -> nodes.Node:
        """The chapter's title, linked."""
        return addnodes.pending_xref(
            "",
            nodes.inline("", self.env.titles[docname].astext()),
            refdomain="std",
            reftype="doc",
            reftarget=f"/{docname}",
            refdoc=self.page,
            refexplicit=False,
        )

    def heading(self, docname: str) -> nodes.Node:
        """The chapter's name above its rows; left out where there is only one chapter."""
        return nodes.rubric("", "", self.chapter(docname), classes=["book-listing-chapter"])


def by_chapter(rows: Iterable[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Rows in reading order, grouped by the notebook they stand in."""
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(row.notebook, []).append(row)
    yield from groups.items()


def ledger_table(writer: Writer, equations: list[Any]) -> Iterator[nodes.Node]:
    """One table for each chapter: number, formula, and what stands behind it."""
    for docname, rows in by_chapter(equations):
        if not writer.one_chapter:
            yield writer.heading(docname)
        checks = scans(writer.env)[docname].checks
        body = nodes.tbody()
        for equation in rows:
            evidence = [check for check in checks if check.label == equation.label]
            body += ledger_row(writer, equation, evidence)
        head = ("Equation", "Formula", "Evidence")
        yield table(head, body, widths=(10, 45, 45), classes=["book-ledger"])


def ledger_row(writer: Writer, equation: Any, checks: list[Check]) -> nodes.row:
    formula = nodes.math_block(
        equation.latex, equation.latex, nowrap=False, number=None, label=None
    )
    evidence: list[nodes.Node] = [
        nodes.paragraph(
            "",
            "",
            writer.link(
                check.notebook,
                check.anchor,
                nodes.Text(KIND_WORDS.get(check.kind, check.kind)),
                classes=["book-ledger-kind"],
            ),
            nodes.Text(" " + (str(check.data.get("evidence", "")) or check.summary)),
            *rejected(check),
        )
        for check in checks
    ] or [nodes.paragraph("", "✗ no passing check", classes=["book-ledger-missing"])]
    return row(nodes.paragraph("", "", writer.equation(equation.label)), formula, evidence)


def rejected(check: Check) -> list[nodes.Node]:
    """What the check refused, as a sentence of its own."""
    words = str(check.data.get("perturbation") or "")
    return [nodes.Text("; "), nodes.inline("", words, classes=["book-ledger-power"])] * bool(words)


def claim_list(writer: Writer, claims: list[Claim]) -> Iterator[nodes.Node]:
    """One card for each claim, chapter by chapter."""
    for docname, rows in by_chapter(claims):
        if not writer.one_chapter:
            yield writer.heading(docname)
        yield from (claim_card(writer, claim) for claim in rows)


def claim_card(writer: Writer, claim: Claim) -> nodes.Node:
    """Statement, verdict, what decided it, and whose figures are whose."""
    state = claim.verdict.replace(" ", "-")
    card = nodes.container(classes=["book-claim", f"book-claim-{state}"])
    card += nodes.paragraph("", claim.statement, classes=["book-claim-statement"])
    verdict = f"{VERDICT_MARKS.get(claim.verdict, '')} {claim.verdict}"
    seeds = ", ".join(map(str, claim.seeds))
    card += nodes.paragraph(
        "",
        "",
        nodes.strong("", verdict, classes=["book-claim-verdict"]),
        nodes.Text(f" {claim.rule}; seeds {seeds}. "),
        writer.link(claim.notebook, claim.anchor, nodes.Text("See the experiment")),
        classes=["book-claim-line"],
    )
    figures = figures_table(claim)
    if figures is not None:
        card += figures
    if control := claim.data.get("control"):
        card += nodes.paragraph("", str(control), classes=["book-claim-control"])
    if claim.contradicts:
        card += nodes.paragraph(
            "", "This contradicts the article.", classes=["book-claim-contradiction"]
        )
    return card


def figures_table(claim: Claim) -> nodes.Node | None:
    """Our figures and the article's, side by side, each with its owner."""
    ours = "; ".join(match[1] for match in MEASURED.finditer(claim.html) if match[1])
    pairs = [("Ours", nodes.raw("", ours, format="html"), ours)]
    pairs += [("Theirs", nodes.Text(claim.article), claim.article)]
    items = nodes.definition_list(classes=["book-claim-figures"])
    for owner, text, there in pairs:
        if there:
            items += nodes.definition_list_item(
                "",
                nodes.term("", owner),
                nodes.definition("", nodes.paragraph("", "", text)),
            )
    return items if len(items) else None


def table(
    head: Iterable[str], body: nodes.tbody, widths: Iterable[int], classes: list[str]
) -> nodes.table:
    """A docutils table with one heading row."""
    group = nodes.tgroup(cols=len(tuple(widths)))
    group += [nodes.colspec(colwidth=width) for width in widths]
    group += nodes.thead("", row(*(nodes.paragraph("", text) for text in head)))
    group += body
    return nodes.table("", group, classes=classes)


def row(*cells: nodes.Node | list[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", *(c if isinstance(c, list) else [c])) for c in cells))


def skip(self: Any, node: nodes.Element) -> None:
    """A writer that meets an unfilled place, say in an unknown format, leaves it out."""
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(listing, html=(skip, None), latex=(skip, None), text=(skip, None))
    app.add_directive("ledger", LedgerDirective)
    app.add_directive("claims", ClaimsDirective)
    app.add_post_transform(FillListings)
    app.add_post_transform(MarkEquations)
    app.connect("doctree-read", collect)
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("env-updated", rewrite_listings)
    app.connect("env-check-consistency", check_consistency)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True}
