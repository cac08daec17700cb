"""A statement that SymPy proves."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lib.book.verify import _values as values
from lib.book.verify._record import CannotFail, Record, SameRoute, Subject, conclude

POINTS, RAW_POINTS, ATTEMPTS = 5, 2, 40
# Two values at a point refute the formula if they differ by more than this, relatively; below
# TINY both count as 0 (what quadrature leaves of an exact 0).
AGREE, TINY = 1e-8, 1e-14


def symbolic(
    label: str,
    lhs: Any,
    rhs: Any = None,
    *,
    domain: Mapping[Any, tuple[float, float]] | None = None,
    trivial: str = "",
    perturb: values.Perturb = None,
    wrong: Mapping[str, Any] | None = None,
    seed: int = 0,
    case: str = "",
) -> Record:
    """Check that SymPy reduces ``lhs − rhs`` to 0.

    Only a symbolic proof is accepted. Numbers at a few random points can refuse, never accept:
    they catch a simplification that is wrong on part of the domain.

    Write the side that a derivative, integral, sum or limit defines *unevaluated*
    (``sp.Derivative(f, x)``, ``sp.Integral(…)``, ``sp.Sum(…)``): then it can be seen that the two
    sides are different expressions, and the check carries the operation out.

    Parameters
    ----------
    label : str
        The equation's label, ``eq-…``.
    lhs, rhs : expression, matrix, or sequence of expressions
        The two sides; or ``lhs`` alone as a list of pairs ``(lhs, rhs)``.
    domain : mapping, optional
        Interval from which a symbol is drawn at the random points; by default its assumptions
        decide (positive, integer, …). Assumptions belong to the symbols themselves.
    trivial : str
        The reason why both sides are one expression before any simplification, say "SymPy's own
        series is already the printed one". Without a reason that is an error.
    perturb : callable or mapping, optional
        Changes of each right-hand side that must be rejected, by default × (1 + 10⁻³), or + 10⁻³
        if it is 0.
    wrong : mapping, optional
        Wrong right-hand sides by the words that describe them, which must be rejected too.
    seed : int
        Seed of the random points.
    case : str
        Tells several checks of one equation apart.

    Raises
    ------
    CheckFailed
        If the difference does not reduce to 0, or is not 0 at a point.
    CannotFail
        If a perturbed right-hand side passes.
    SameRoute
        If both sides are the same expression from the start and no reason is given.
    """
    import sympy as sp

    subject = Subject(label, "symbolic", case)
    pairs = list(_pairs(subject, lhs, rhs))
    points = Points(domain or {}, seed)
    for left, right in pairs:
        if left == right and not trivial:
            subject.fail(
                f"both sides are already the same expression, {left}; write the side that is "
                "defined by an operation unevaluated, as sp.Derivative or sp.Sum, or say in "
                "trivial='…' why the check still means something",
                SameRoute,
            )
        _prove(subject, left, right, points)
    pairs = [(left.doit(), right) for left, right in pairs]
    changes = values.named(perturb) or {"": None}
    rejected: list[str] = []
    for words, change in changes.items():
        rejected.extend(_reject(subject, pairs, words, change, points))
    for words, formulas in (wrong or {}).items():
        others = _flat(formulas)
        if len(others) != len(pairs):
            raise ValueError(f"`wrong` must hold {len(pairs)} formulas {words}, got {len(others)}")
        replaced = [(left, other) for (left, _), other in zip(pairs, others, strict=True)]
        if all(_agree(left, other, points) for left, other in replaced):
            subject.fail(f"a right-hand side {words} passes as well", CannotFail)
        rejected.append(words)
    what = "the difference" if len(pairs) == 1 else f"{len(pairs)} differences"
    given = _assumptions(sp.Tuple(*[side for pair in pairs for side in pair]))
    evidence = f"SymPy reduces {what} of the two sides to 0"
    evidence += f" for {given}" if given else ""
    evidence += f" (both sides are one expression: {trivial})" if trivial else ""
    return conclude(subject, evidence, rejected, n=len(pairs))


# Sides --------------------------------------------------------------------------------------


def _pairs(subject: Subject, lhs: Any, rhs: Any) -> Iterator[tuple[Any, Any]]:
    """Return the pairs of expressions that must be equal."""
    import sympy as sp

    if rhs is None:
        if not isinstance(lhs, Sequence) or not all(
            isinstance(pair, Sequence) and len(pair) == 2 for pair in lhs
        ):
            raise TypeError(f"`lhs` alone must be a list of pairs (lhs, rhs), got {lhs!r:.80}")
        if not lhs:
            raise ValueError("`lhs` must hold at least one pair, got none")
        for left, right in lhs:
            yield from _pairs(subject, left, right)
        return
    if isinstance(lhs, (list, tuple)) or isinstance(rhs, (list, tuple)):
        both = isinstance(lhs, (list, tuple)) and isinstance(rhs, (list, tuple))
        if not both or len(lhs) != len(rhs) or not lhs:
            raise ValueError("`lhs` and `rhs` must be two lists of one length of at least 1")
        for left, right in zip(lhs, rhs, strict=True):
            yield from _pairs(subject, left, right)
        return
    left, right = sp.sympify(lhs), sp.sympify(rhs)
    matrices = [side for side in (left, right) if getattr(side, "is_Matrix", False)]
    if matrices:
        if len(matrices) < 2 or left.shape != right.shape:
            subject.fail("the sides have different shapes: one is a matrix, or both of other sizes")
        yield from zip(left, right, strict=True)
        return
    for side, name in ((left, "lhs"), (right, "rhs")):
        if not isinstance(side, sp.Expr):
            raise TypeError(f"`{name}` must be an expression, got {side!r:.80}")
        if side.has(sp.nan, sp.zoo):
            subject.fail(f"`{name}` is not a number: {side}")
    yield left, right


def _flat(side: Any) -> list[Any]:
    """Return the expressions of a side that is one expression, a list of them or a matrix."""
    import sympy as sp

    if isinstance(side, (list, tuple)):
        return [entry for item in side for entry in _flat(item)]
    side = sp.sympify(side)
    return list(side) if getattr(side, "is_Matrix", False) else [side]


def _assumptions(expressions: Any) -> str:
    """Return what the symbols are assumed to be, in words."""
    import sympy as sp

    words = []
    for symbol in sorted(expressions.free_symbols, key=str):
        kinds = [
            word
            for word, known in (
                ("a positive integer", symbol.is_integer and symbol.is_positive),
                ("an integer", symbol.is_integer),
                ("positive", symbol.is_positive),
                ("negative", symbol.is_negative),
                ("not negative", symbol.is_nonnegative),
                ("real", symbol.is_real),
            )
            if known
        ]
        if kinds:
            words.append(f"{sp.pretty(symbol, use_unicode=True)} {kinds[0]}")
    return ", ".join(words)


# Proof and refusal --------------------------------------------------------------------------


def _steps() -> list[Callable[[Any], Any]]:
    """Ways to reduce an expression, tried one by one until one gives 0."""
    import sympy as sp

    def numerator(e: Any) -> Any:
        return sp.expand(sp.numer(sp.together(e)))

    return [
        lambda e: e,
        sp.expand,
        numerator,  # before simplify, which takes a hundred times longer
        lambda e: numerator(sp.expand_log(e)),
        sp.simplify,
        lambda e: sp.simplify(sp.expand_log(sp.logcombine(e))),
        lambda e: sp.simplify(sp.expand_log(sp.simplify(e))),
        lambda e: sp.simplify(sp.expand(sp.powdenest(sp.expand_power_exp(e)))),
        lambda e: sp.simplify(e.rewrite(sp.exp)),
        lambda e: sp.simplify(sp.gammasimp(e.rewrite(sp.gamma))),
        _through_exp,
        lambda e: sp.radsimp(sp.together(e)),
        sp.trigsimp,
    ]


def _through_exp(expression: Any) -> Any:
    """A real number is 0 if its exponential is 1, which undoes logarithms of sums."""
    import sympy as sp

    if not expression.is_real:
        return expression
    return sp.simplify(sp.expand(sp.numer(sp.together(sp.exp(expression) - 1))))


def vanishes(expression: Any) -> bool:
    """Whether SymPy proves an expression to be 0."""
    import sympy as sp

    expression = expression.doit()
    for step in _steps():
        try:
            if step(expression) == 0:
                return True
        except (NotImplementedError, sp.PolynomialError, ValueError, AttributeError, TypeError):
            continue  # this way of rewriting does not apply here
    return False


def _prove(subject: Subject, left: Any, right: Any, points: Points) -> None:
    # As written, by quadrature and summation, and after SymPy has carried the operations out.
    refuted = points.refutation(left, right, RAW_POINTS)
    refuted = refuted or points.refutation(left.doit(), right.doit())
    if refuted:
        subject.fail(f"the sides differ at {refuted}; lhs = {left}, rhs = {right}")
    if not vanishes(left - right):
        import sympy as sp

        rest = sp.simplify((left - right).doit())
        subject.fail(
            f"SymPy does not reduce the difference of the two sides to 0, what remains is {rest} "
            "(no random point refutes the equation: give the symbols their assumptions, split it "
            "into steps, or check it with verify.numeric)"
        )


def _agree(left: Any, right: Any, points: Points) -> bool:
    """Whether a pair would pass: no point refutes it, and SymPy proves it or is at a loss."""
    if points.refutation(left, right):
        return False
    if points.usable(left, right):
        return True
    return vanishes(left - right)


def _reject(
    subject: Subject,
    pairs: Sequence[tuple[Any, Any]],
    words: str,
    change: Callable[[Any], Any] | None,
    points: Points,
) -> list[str]:
    """Perturb every right-hand side; return the words of the changes, which must be rejected."""
    import sympy as sp

    small = sp.Rational(1, 1000)
    used: list[str] = []
    for left, right in pairs:
        if change is not None:
            other, said = sp.sympify(change(right)), words
            if other == right:
                subject.fail(f"the right-hand side {words} is the same as before", CannotFail)
        elif not points.refutation(right, sp.Integer(0)) and vanishes(right):
            other, said = right + small, "off by 0.001"
        else:
            other, said = right * (1 + small), values.off_by(values.OFF)
        if _agree(left, other, points):
            subject.fail(
                f"a right-hand side {said} passes as well ({left} against {other}), so the check "
                "cannot fail",
                CannotFail,
            )
        if said not in used:
            used.append(said)
    return used


class Points:
    """Random values for the symbols, within their assumptions."""

    def __init__(self, domain: Mapping[Any, tuple[float, float]], seed: int) -> None:
        self.domain, self.seed = domain, seed

    def refutation(self, left: Any, right: Any, count: int = POINTS) -> str:
        """Return a point at which the sides differ, in words, or the empty string."""
        for point, a, b in itertools.islice(self._values(left, right), count):
            if abs(a - b) > AGREE * max(abs(a), abs(b)) and abs(a - b) > TINY:
                at = ", ".join(f"{symbol} = {value}" for symbol, value in point.items())
                return f"{at or 'their values'}: {a:.8g} against {b:.8g}"
        return ""

    def usable(self, left: Any, right: Any) -> bool:
        """Whether the sides can be evaluated at any point at all."""
        return next(self._values(left, right), None) is not None

    def _values(self, left: Any, right: Any) -> Iterator[tuple[dict[Any, Any], complex, complex]]:
        import sympy as sp

        symbols = sorted(sp.Tuple(left, right).free_symbols, key=str)
        rng = np.random.default_rng(self.seed)
        found = 0
        for _ in range(ATTEMPTS):
            point = {symbol: self._draw(symbol, rng) for symbol in symbols}
            a, b = _number(left, point), _number(right, point)
            if a is not None and b is not None:
                found += 1
                yield point, a, b
            if found == POINTS or not symbols:
                return

    def _draw(self, symbol: Any, rng: np.random.Generator) -> Any:
        import sympy as sp

        low, high = self.domain.get(symbol, (None, None))
        if symbol.is_integer:
            least = 1 if symbol.is_positive else 0 if symbol.is_nonnegative else -5
            low, high = (least if low is None else low), (6 if high is None else high)
            return sp.Integer(int(rng.integers(int(np.ceil(low)), int(np.floor(high)) + 1)))
        if low is None:
            low = 0.1 if symbol.is_nonnegative else -2.5
            high = -0.1 if symbol.is_nonpositive else 2.5
        return sp.Rational(str(round(float(rng.uniform(low, high)), 6)))


def _number(expression: Any, point: Mapping[Any, Any]) -> complex | None:
    """Return the value of an expression at a point, or None if it has none."""
    import sympy as sp

    for candidate in (expression, expression.doit()):
        try:
            value = complex(sp.N(candidate.subs(point), 20))
        except (TypeError, ValueError, NotImplementedError, ArithmeticError, AttributeError):
            continue
        if np.isfinite(value):
            return value
    return None
