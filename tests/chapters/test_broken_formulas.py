"""A wrong formula does not get through: every check of every chapter fails on one, by name.

The cells that check something, and those that they need, are executed here, with the formula of
every check spoiled on its way into ``lib.book.verify``.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import json
import os
import re
import subprocess
import symtable
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import sympy as sp
import torch

from lib.book import records, verify

ROOT = Path(__file__).resolve().parents[2]
# pytest's importlib mode leaves the path alone; the small book to build is with the site's tests
sys.path[:0] = [str(ROOT / "site"), str(ROOT / "tests" / "site")]

import executor  # noqa: E402
from books import SmallBook  # noqa: E402

CHAPTERS = ROOT / "chapters"
# Without a notebook every test below would pass for want of anything to look at.
NOTEBOOKS = sorted(CHAPTERS.glob("*.ipynb")) or [CHAPTERS / "there-is-no-notebook.ipynb"]
KINDS = ("symbolic", "numeric", "gradient", "bound", "monte_carlo", "asymptotic")
SIGNATURES = {kind: inspect.signature(getattr(verify, kind)) for kind in KINDS}
ERROR = 0.01  # of a spoiled formula, unless the check's own tolerance is as large

Check = Callable[..., Any]
COMPREHENSIONS = {"listcomp", "setcomp", "dictcomp", "genexpr"}


# --- which cells a check needs ----------------------------------------------------------------


@dataclass
class Cell:
    """The Python of a code cell, the names that it binds, and those that it needs.

    ``before`` are needed when the cell runs, ``later`` when a function that it defines is called.
    """

    source: str
    binds: set[str] = field(default_factory=set)
    before: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, source: str) -> Cell:
        # IPython's own lines have no part in a check
        cell = cls(re.sub(r"^([ \t]*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))
        for statement in ast.parse(cell.source).body:
            table = symtable.symtable(ast.unparse(statement), "cell", "exec")
            symbols = table.get_symbols()
            needs = {symbol.get_name() for symbol in symbols if symbol.is_referenced()}
            for inner in _below(table):
                names = {s.get_name() for s in inner.get_symbols() if s.is_global()}
                if inner.get_type() == "function" and inner.get_name() not in COMPREHENSIONS:
                    cell.later |= names
                needs |= names
            cell.before |= needs - cell.binds
            cell.binds |= {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
        return cell


def _below(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in table.get_children():
        yield child
        yield from _below(child)


def needed_for(cells: list[Cell], target: int) -> set[int]:
    """The cells that must run before a cell can, with itself."""
    found: set[int] = set()
    waiting = [target]
    while waiting:
        index = waiting.pop()
        if index in found:
            continue
        found.add(index)
        cell = cells[index]
        for name in cell.before:
            waiting += [i for i in range(index) if name in cells[i].binds][-1:]
        for name in cell.later:  # it may be bound anew until the target calls the function
            waiting += [i for i in range(index, target) if name in cells[i].binds]
    return found


# --- spoiling a formula -----------------------------------------------------------------------


def off(value: Any, options: dict[str, Any]) -> Any:
    """A value that is off by 1 %, or by thrice what the check allows if that is more."""
    array = np.asarray(value.detach() if hasattr(value, "detach") else value)
    share = max(ERROR, 3 * options.get("rtol", 0.0))
    least = 3 * options.get("atol", 0.0)
    moved = array + np.sign(array) * (share * np.abs(array) + least)
    return np.where(array == 0, least or ERROR, moved)


def spoiled_side(side: Check, options: dict[str, Any]) -> Check:
    @functools.wraps(side)
    def wrong(*args: Any) -> Any:
        return off(side(*args), options)

    return wrong


def spoiled_expression(side: Any) -> Any:
    if isinstance(side, (list, tuple)):
        return [spoiled_expression(item) for item in side]
    side = sp.sympify(side)
    if getattr(side, "is_Matrix", False):
        return side.applyfunc(spoiled_expression)
    if side.is_infinite:
        return -side
    return side * sp.Rational(101, 100) if side != 0 else sp.Rational(1, 100)


def symbolic(check: Check, label: str, lhs: Any, rhs: Any = None, **options: Any) -> Iterator[Any]:
    """Each equation of a list is spoiled alone."""
    if rhs is not None:
        yield lambda: check(label, lhs, spoiled_expression(rhs), **options)
        return
    for left, right in lhs:
        yield functools.partial(check, label, left, spoiled_expression(right), **options)


def pointwise(
    check: Check, label: str, lhs: Check, rhs: Check, draw: Any, **options: Any
) -> Iterator[Any]:
    yield lambda: check(label, lhs, spoiled_side(rhs, options), draw, **options)


def bound(
    check: Check, label: str, smaller: Check, larger: Check, draw: Check, **options: Any
) -> Iterator[Any]:
    """The inequality the other way round; then a bound lower than the check calls its sharpest."""
    yield lambda: check(label, larger, smaller, draw, **options)
    words = check(label, smaller, larger, draw, **options).perturbation
    if sharpest := re.search(r"sharper by ([\d.e-]+) %", words):
        rng = np.random.default_rng(options.get("seed", 0))
        drawn = [draw(rng) for _ in range(options.get("n", 2000))]
        inputs = [args if isinstance(args, tuple) else (args,) for args in drawn]
        sides = [(smaller(*args), larger(*args)) for args in inputs]
        size = np.median([max(np.abs(np.asarray(x)).max() for x in pair) for pair in sides])

        @functools.wraps(larger)
        def lowered(*args: Any) -> Any:
            return larger(*args) - 2 * float(sharpest[1]) / 100 * size

        yield lambda: check(label, smaller, lowered, draw, **options)


def monte_carlo(
    check: Check, label: str, sample: Check, expected: Any, **options: Any
) -> Iterator[Any]:
    """Off by a tenth, or by what the samples can just tell apart if that is more."""
    value = np.asarray(expected() if callable(expected) else expected, float)
    scatter = np.std(sample(np.random.default_rng(0), 100), axis=0)
    told_apart = 2 * options.get("k", 4.0) * scatter / np.sqrt(options.get("n", 100_000))
    wrong = value + np.maximum(0.1 * np.abs(value), told_apart)
    yield lambda: check(label, sample, wrong, **options)


def asymptotic(
    check: Check,
    label: str,
    measure: Check,
    sizes: Any,
    order: float | None = None,
    *,
    limit: float | None = None,
    **options: Any,
) -> Iterator[Any]:
    """An order off by a half, a limit off by a fifth of itself or, if it is 0, of the start."""
    if limit is None:
        assert order is not None
        yield lambda: check(label, measure, sizes, order + 0.5, **options)
        return
    first = [np.random.default_rng(0)] if options.get("seed") is not None else []
    unit = abs(limit) or abs(float(measure(sizes[0], *first)))
    yield lambda: check(label, measure, sizes, limit=limit + 0.2 * unit, **options)


SPOILED: dict[str, Callable[..., Iterator[Callable[[], Any]]]] = {
    "symbolic": symbolic,
    "numeric": pointwise,
    "gradient": pointwise,
    "bound": bound,
    "monte_carlo": monte_carlo,
    "asymptotic": asymptotic,
}


@dataclass(frozen=True)
class Outcome:
    """What became of a spoiled check: the error, or None if it passed."""

    label: str
    kind: str
    case: str
    error: Exception | None

    @property
    def caught(self) -> bool:
        """Whether the check failed for the right reason and says of which equation."""
        named = type(self.error) is verify.CheckFailed and str(self.error).startswith(self.label)
        return named and self.kind in str(self.error)


class Saboteur:
    """Stands in for the checks: spoils each formula and notes whether the check noticed.

    The first check of each kind is made as it stands as well, which must pass.
    """

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.unspoiled: list[str] = []

    def stand_in(self, kind: str, check: Check) -> Check:
        @functools.wraps(check)
        def spoil(label: str, *args: Any, **options: Any) -> verify.Record:
            given = SIGNATURES[kind].bind(label, *args, **options)  # by place if possible
            case = options.get("case", "")
            if kind not in self.unspoiled:
                check(label, *args, **options)
                self.unspoiled.append(kind)
            for attempt in SPOILED[kind](check, *given.args, **given.kwargs):
                try:
                    attempt()
                except verify.CheckFailed as error:
                    self.outcomes.append(Outcome(label, kind, case, error))
                else:
                    self.outcomes.append(Outcome(label, kind, case, None))
            return verify.Record(label, kind, "spoiled")

        return spoil


def sabotage(notebook: Path) -> Saboteur:
    """Execute what the checks of a notebook need, with every formula spoiled."""
    stored = records.load(notebook)["cells"]
    sources = [(i, c) for i, c in enumerate(stored) if c["cell_type"] == "code"]
    cells = [Cell.of(records.text_of(cell["source"])) for _, cell in sources]
    places = {index: at for at, (index, _) in enumerate(sources)}
    checking = {places[check.cell] for check in records.scan_notebook(notebook).checks}
    needed = set().union(*(needed_for(cells, at) for at in checking))
    saboteur = Saboteur()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch, mpl.rc_context(), same_threads():
        patch.setenv("MPLBACKEND", "Agg")
        for kind in KINDS:
            patch.setattr(verify, kind, saboteur.stand_in(kind, getattr(verify, kind)))
        for at in sorted(needed):
            name = stored[sources[at][0]].get("id", f"cell {at + 1}")
            exec(compile(cells[at].source, f"{notebook.name}: {name}", "exec"), namespace)
    return saboteur


@contextlib.contextmanager
def same_threads() -> Iterator[None]:
    """Take back what a chapter says about threads, for the tests that follow."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- the chapters -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> Path:
    assert request.param.is_file(), "chapters/ holds no notebook"
    return request.param


@pytest.fixture(scope="module")
def sabotaged(notebook: Path) -> Saboteur:
    return sabotage(notebook)


def test_every_check_fails_on_a_broken_formula_and_names_the_equation(
    sabotaged: Saboteur,
) -> None:
    assert [outcome for outcome in sabotaged.outcomes if not outcome.caught] == []


def test_no_check_of_the_chapter_was_left_out(notebook: Path, sabotaged: Saboteur) -> None:
    stored = records.scan_notebook(notebook).checks
    expected = {
        (check.label, check.kind, check.data.get("case", ""))
        for check in stored
        if check.kind != "definition"
    }
    assert {(o.label, o.kind, o.case) for o in sabotaged.outcomes} == expected


def test_a_chapter_has_five_formulas_to_break_of_several_kinds(sabotaged: Saboteur) -> None:
    assert len({outcome.label for outcome in sabotaged.outcomes}) >= 5
    assert len({outcome.kind for outcome in sabotaged.outcomes}) >= 3


def test_the_first_check_of_each_kind_passes_as_it_stands(sabotaged: Saboteur) -> None:
    """Otherwise the failures above could have another cause than the broken formula."""
    assert set(sabotaged.unspoiled) == {outcome.kind for outcome in sabotaged.outcomes}


# --- the saboteur himself ---------------------------------------------------------------------


def test_a_check_that_accepts_every_formula_would_be_found() -> None:
    saboteur = Saboteur()
    careless = saboteur.stand_in("numeric", lambda *args, **options: None)
    careless("eq-any", lambda x: x, lambda x: x, None)
    assert [outcome.caught for outcome in saboteur.outcomes] == [False]


@pytest.mark.parametrize(
    "error",
    [
        verify.CheckFailed("numeric check: the sides differ"),
        verify.CannotFail("eq-any, numeric check: passes as well"),
    ],
    ids=["names no equation", "another reason"],
)
def test_a_failure_without_the_label_or_for_another_reason_does_not_count(
    error: Exception,
) -> None:
    def failing(*args: Any, **options: Any) -> None:
        raise error

    saboteur = Saboteur()
    saboteur.unspoiled.append("numeric")
    saboteur.stand_in("numeric", failing)("eq-any", lambda x: x, lambda x: x, None)
    assert [outcome.caught for outcome in saboteur.outcomes] == [False]


def test_only_the_cells_that_a_check_needs_are_executed() -> None:
    sources = [
        "import numpy as np",
        "model = train()",
        "scale = 1",
        "def f(x):\n    return scale * np.exp(x)",
        "scale = 2",
        "y = [x for x in range(3)]\nprint(model)",
        "%matplotlib inline\nx = f(1)\nx = x + 1",
    ]
    cells = [Cell.of(source) for source in sources]
    # f is defined with one scale at hand, but sees the other when it is called
    assert needed_for(cells, 6) == {0, 2, 3, 4, 6}


# --- make book and make test ------------------------------------------------------------------

SETUP = "from lib.book import verify"
GOOD = """\
verify.numeric("eq-double", lambda x: x + x, lambda x: 2 * x, lambda rng: rng.normal(size=3))
"""
BROKEN = GOOD.replace("2 * x", "2.001 * x")


@pytest.fixture(scope="module")
def broken_book(tmp_path_factory: pytest.TempPathFactory) -> SmallBook:
    """A book whose chapter was executed and stored when its formula was still right."""
    book = SmallBook(tmp_path_factory.mktemp("broken") / "book").fill()
    (book.root / "chapters" / "first.ipynb").unlink()
    (book.root / "lib" / "__init__.py").unlink()  # the chapter uses the real one
    (book.root / "lib").rmdir()
    path = book.write_notebook("second", SETUP, GOOD)
    done = book.run("normalise.py")
    assert done.returncode == 0, done.stderr
    notebook = json.loads(path.read_text("utf-8"))
    check = notebook["cells"][-1]
    assert records.CHECK_MIME in check["outputs"][0]["data"]
    check["source"] = BROKEN
    path.write_text(json.dumps(notebook), "utf-8")
    return book


def test_the_book_is_not_built_and_notebook_cell_and_equation_are_named(
    broken_book: SmallBook,
) -> None:
    done = broken_book.run("build.py")
    assert done.returncode == 1, done.stdout
    assert "chapters/second.ipynb failed in cell 2 of 2" in done.stderr
    assert "CheckFailed: eq-double, numeric check: the sides differ" in done.stderr
    assert not broken_book.html.exists()


def test_nbval_is_red_and_notebook_cell_and_equation_are_named(broken_book: SmallBook) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbval", "-q", "-rf"]
    command += ["--nbval-current-env", "--color=no", "chapters/second.ipynb"]
    command += ["--nbval-sanitize-with=nbval_sanitize.cfg"]
    # the run around this one may have handed down that it is a worker
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    done = subprocess.run(
        command, cwd=broken_book.root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout
    said = executor.without_colours(done.stdout)
    assert "1 failed, 1 passed" in said
    assert "FAILED chapters/second.ipynb::Cell 1" in said
    assert "CheckFailed: eq-double, numeric check: the sides differ" in said
