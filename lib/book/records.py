"""Read the book's own evidence back out of its notebooks.

Which equations are labelled, which checks and claims stand in the stored outputs, and what does
not fit together. Plain JSON, :mod:`ast` and line scanning: no Jupyter, no execution, so that the
ledger, the tests and a reader's script see the same thing. It sees that a check ran and that it
rejected a perturbed formula; whether the code states the printed formula, only a reader can judge.

Cells are counted from 0 in the data and from 1 in sentences.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.book._calls import KINDS, Call, Names, calls_of, names_of
from lib.book._markdown import blocks
from lib.book._publish import CHECK_MIME, CLAIM_MIME, LABEL

VERDICTS = ("holds", "does not hold", "inconclusive")


@dataclass(frozen=True)
class Equation:
    """A labelled equation: where it stands and its LaTeX."""

    label: str
    notebook: str
    cell: int
    latex: str
    section: str = ""

    @property
    def anchor(self) -> str:
        """The id that Sphinx gives the equation."""
        return f"equation-{self.label}"


@dataclass(frozen=True)
class Check:
    """A check found in a stored output; ``summary`` is its one plain line."""

    label: str
    kind: str
    summary: str
    notebook: str
    cell: int
    data: dict[str, Any]
    section: str = ""

    @property
    def anchor(self) -> str:
        """The id of the verdict in the page."""
        return str(self.data.get("anchor", f"check-{self.label}"))

    @property
    def has_power(self) -> bool:
        """Whether the check showed that it can fail (a definition has nothing to fail)."""
        return self.kind == "definition" or self.data.get("perturbation_rejected") is True


@dataclass(frozen=True)
class Claim:
    """A claim found in a stored output; ``html`` is the output as it stands in the page."""

    id: str
    statement: str
    verdict: str
    rule: str
    seeds: list[int]
    article: str
    article_says: str | None
    notebook: str
    cell: int
    data: dict[str, Any]
    html: str

    @property
    def anchor(self) -> str:
        """The id of the claim in the page."""
        return f"claim-{self.id}"

    @property
    def contradicts(self) -> bool:
        """Whether our verdict is the opposite of the article's."""
        return {self.verdict, self.article_says} == {"holds", "does not hold"}


@dataclass(frozen=True)
class Scan:
    """What a notebook, a page or a whole book holds, in reading order."""

    equations: list[Equation] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def load(source: Mapping[str, Any] | str | Path) -> dict[str, Any]:
    """Return a notebook as a dictionary, from a path or from a notebook already read."""
    if isinstance(source, Mapping):
        notebook = dict(source)
    else:
        notebook = json.loads(Path(source).read_text(encoding="utf-8"))
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError(f"`source` must be a notebook with a list of cells, got {source!r:.80}")
    return notebook


def text_of(lines: str | list[str] | None) -> str:
    """Return a notebook's multi-line field, stored as a string or as a list of lines."""
    if lines is None:
        return ""
    return lines if isinstance(lines, str) else "".join(lines)


def scan_notebook(source: Mapping[str, Any] | str | Path, name: str | None = None) -> Scan:
    """Read one notebook (a dictionary or a path), or one Markdown page (a path).

    Parameters
    ----------
    source : mapping, str or Path
        The notebook in nbformat 4, or the path of an ``.ipynb`` or ``.md`` file.
    name : str, optional
        What to call it in records and sentences, say its Sphinx document name. By default the
        path without its suffix, or "notebook".
    """
    if name is None:
        name = "notebook" if isinstance(source, Mapping) else Path(source).stem
    if not isinstance(source, Mapping) and Path(source).suffix == ".md":
        page = {"cell_type": "markdown", "source": Path(source).read_text(encoding="utf-8")}
        cells = [page]
    else:
        cells = load(source)["cells"]
    scan = _read(cells, name)
    scan.problems.extend(_problems_of_labels(scan))
    scan.problems.extend(_problems_of_records(scan))
    return scan


def scan_book(folder: str | Path) -> Scan:
    """Read every notebook and Markdown page below a folder, in alphabetical order.

    Labels and claim ids must be unique over the whole book. Names are paths relative to the
    folder, without suffix. Hidden folders and folders that start with an underscore are skipped.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"`folder` must be an existing folder, got {str(folder)!r}")
    book = Scan()
    for path in sorted([*folder.rglob("*.ipynb"), *folder.rglob("*.md")]):
        relative = path.relative_to(folder)
        if any(part.startswith((".", "_")) for part in relative.parts):
            continue
        page = scan_notebook(path, relative.with_suffix("").as_posix())
        book.equations.extend(page.equations)
        book.checks.extend(page.checks)
        book.claims.extend(page.claims)
        book.problems.extend(page.problems)
    book.problems.extend(_problems_between_pages(book))
    return book


def problems(source: Mapping[str, Any] | str | Path) -> list[str]:
    """Return, as sentences, all that is wrong in a notebook, a page or a folder of them."""
    if not isinstance(source, Mapping) and Path(source).is_dir():
        return scan_book(source).problems
    return scan_notebook(source).problems


# Reading ------------------------------------------------------------------------------------


def _read(cells: list[dict[str, Any]], name: str) -> Scan:
    scan = Scan()
    section = ""
    names = names_of([text_of(c.get("source")) for c in cells if c.get("cell_type") == "code"])
    last_count = 0
    for index, cell in enumerate(cells):
        source = text_of(cell.get("source"))
        if cell.get("cell_type") == "markdown":
            for block in blocks(source):
                if block.kind == "heading" and block.level <= 2:
                    section = block.text
                elif block.kind == "equation":
                    if block.broken:
                        scan.problems.append(f"{_where(name, index)}: {block.broken}")
                    if block.label:
                        equation = Equation(block.label, name, index, block.text, section)
                        scan.equations.append(equation)
        elif cell.get("cell_type") == "code":
            _read_code(cell, source, names, (name, index, section), scan)
            count = cell.get("execution_count")
            if count is None:
                scan.problems.append(
                    f"{_where(name, index)}: the code cell has no execution count, so its output "
                    "is never compared"
                )
            elif count <= last_count:
                scan.problems.append(
                    f"{_where(name, index)}: the cells were not executed from top to bottom "
                    f"({count} follows {last_count})"
                )
            last_count = last_count if count is None else count
    return scan


def _read_code(
    cell: dict[str, Any],
    source: str,
    names: Names,
    place: tuple[str, int, str],
    scan: Scan,
) -> None:
    """Take the records from a code cell's outputs and compare them with the calls it makes."""
    name, index, section = place
    found: Counter[tuple[str, str]] = Counter()
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        html, plain = text_of(data.get("text/html")), text_of(data.get("text/plain"))
        if CHECK_MIME in data:
            record = _as_record(data[CHECK_MIME])
            label, kind = str(record.get("label", "")), str(record.get("kind", ""))
            check = Check(label, kind, plain.strip(), name, index, record, section)
            scan.checks.append(check)
            found[kind, label] += 1
            if f'id="{check.anchor}"' not in html:
                scan.problems.append(f"{_where(name, index)}: the check of {label} has no verdict")
        if CLAIM_MIME in data:
            claim = _as_claim(_as_record(data[CLAIM_MIME]), html, name, index)
            scan.claims.append(claim)
            found["claim", claim.id] += 1
            if f'id="{claim.anchor}"' not in html:
                scan.problems.append(f"{_where(name, index)}: the claim {claim.id} has no verdict")
    scan.problems.extend(
        f"{_where(name, index)}: {sentence}"
        for sentence in _compare(calls_of(source, names), found)
    )


def _compare(calls: list[Call], found: Counter[tuple[str, str]]) -> Iterator[str]:
    """Say which calls of the source left no record and which records no call explains."""
    made = Counter((call.kind, call.subject) for call in calls if call.subject and not call.tried)
    for (kind, subject), times in made.items():
        if found[kind, subject] < times:
            what = f"the claim {subject}" if kind == "claim" else f"the {kind} check of {subject}"
            yield f"{what} is made here but its record is missing from the output"
    if any(not call.subject for call in calls):
        yield "a check or claim is named by an expression; its name must be a literal string"
        return
    known = {(call.kind, call.subject) for call in calls}
    for kind, subject in found:
        if (kind, subject) not in known:
            yield f"the output records {kind} {subject}, which the source does not make"


def _as_record(stored: Any) -> dict[str, Any]:
    if isinstance(stored, (str, list)):  # JSON may be stored as text
        stored = json.loads(text_of(stored))
    return dict(stored) if isinstance(stored, Mapping) else {}


def _as_claim(record: dict[str, Any], html: str, name: str, index: int) -> Claim:
    says = record.get("article_says")
    return Claim(
        id=str(record.get("id", "")),
        statement=str(record.get("statement", "")),
        verdict=str(record.get("verdict", "")),
        rule=str(record.get("rule", "")),
        seeds=list(record.get("seeds", [])),
        article=str(record.get("article", "")),
        article_says=None if says is None else str(says),
        notebook=name,
        cell=index,
        data=record,
        html=html,
    )


# What does not fit together --------------------------------------------------------------------


def _where(name: str, index: int) -> str:
    return f"{name}, cell {index + 1}"


def _problems_of_labels(scan: Scan) -> Iterator[str]:
    checks: dict[str, list[Check]] = {}
    for check in scan.checks:
        checks.setdefault(check.label, []).append(check)
    first: dict[str, Equation] = {}
    for equation in scan.equations:
        label, where = equation.label, _where(equation.notebook, equation.cell)
        if not LABEL.fullmatch(label):
            yield f"{where}: the label {label!r} must look like eq-some-words"
        if label in first:
            other = _where(first[label].notebook, first[label].cell)
            yield f"{where}: the label {label} is already used in {other}"
            continue
        first[label] = equation
        if label not in checks:
            yield f"{where}: the equation {label} has no check"
            continue
        for check in checks[label]:
            if check.cell < equation.cell:
                yield (
                    f"{_where(check.notebook, check.cell)}: the check of {label} stands before "
                    f"its equation, which is in cell {equation.cell + 1}"
                )
        after = [check for check in checks[label] if check.cell > equation.cell]
        if after and all(check.section != equation.section for check in after):
            yield (
                f"{_where(after[0].notebook, after[0].cell)}: the check of {label} stands in "
                f"“{after[0].section}”, far from its equation in “{equation.section}”"
            )
    for label, found in checks.items():
        if label not in first:
            where = _where(found[0].notebook, found[0].cell)
            yield f"{where}: there is a check of {label}, but no equation of that label here"


def _problems_of_records(scan: Scan) -> Iterator[str]:
    anchors: Counter[str] = Counter()
    for check in scan.checks:
        where = _where(check.notebook, check.cell)
        if check.kind not in KINDS:
            yield f"{where}: the check of {check.label} is of no known kind: {check.kind!r}"
        if not check.has_power:
            yield f"{where}: the check of {check.label} did not reject a perturbed formula"
        anchors[check.anchor] += 1
        if anchors[check.anchor] == 2:
            yield f"{where}: a second check of {check.label} needs case='…' to be told apart"
    for claim in scan.claims:
        where = _where(claim.notebook, claim.cell)
        if claim.verdict not in VERDICTS:
            yield f"{where}: the claim {claim.id} has no known verdict: {claim.verdict!r}"
        anchors[claim.anchor] += 1
        if anchors[claim.anchor] == 2:
            yield f"{where}: the claim id {claim.id} is used twice"


def _problems_between_pages(book: Scan) -> Iterator[str]:
    """Say which labels and claim ids two different pages share."""
    for what, items in (("label", book.equations), ("claim id", book.claims)):
        pages: dict[str, list[str]] = {}
        for item in items:
            key = item.label if isinstance(item, Equation) else item.id
            if item.notebook not in pages.setdefault(key, []):
                pages[key].append(item.notebook)
        for key, where in pages.items():
            if len(where) > 1:
                yield f"the {what} {key} is used on several pages: {', '.join(where)}"
