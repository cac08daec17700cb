"""A measured order of growth or a measured limit, with an interval from the fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.book._publish import number
from lib.book.verify import _values as values
from lib.book.verify._record import CannotFail, Record, Subject, conclude

ORDER_TOLERANCE, ORDER_OFF = 0.05, 0.25
LIMIT_TOLERANCE, LIMIT_OFF = 1e-3, 1e-2
RATES = np.geomspace(0.05, 8.0, 200)  # exponents tried for the approach to a limit


def asymptotic(
    label: str,
    measure: Callable[..., Any],
    sizes: Sequence[float],
    order: float | None = None,
    *,
    limit: float | None = None,
    rate: float | None = None,
    variable: tuple[str, Callable[[np.ndarray], np.ndarray]] | None = None,
    tolerance: float | None = None,
    confidence: float = 0.95,
    seed: int | None = None,
    repeats: int = 1,
    perturb: values.Perturb = None,
    case: str = "",
) -> Record:
    """Check the order of growth, or the limit, of a quantity measured at several sizes.

    ``order=p``: the measured values must follow ``C · size**p``. A straight line is fitted to
    log |value| against log size; ``p`` must lie in the slope's t interval, widened by
    ``tolerance`` for the curvature that lower-order terms leave at finite sizes.

    ``limit=L``: the values must approach ``L`` as ``L + C · size**(-rate)`` at the last of the
    sizes' ends (infinity for growing sizes, 0 for falling ones). The interval is that of the
    value extrapolated from the last two thirds of the sizes, widened by how much the first third
    would move it, and by ``tolerance``.

    The power is shown by an order that is off by 0.25 either way, or a limit that is off by 1 %
    (10 %, if the interval is wider than that), which must fall outside.

    Parameters
    ----------
    label : str
        The equation's label, ``eq-…``.
    measure : callable
        ``measure(size)``, or ``measure(size, rng)`` if ``seed`` is given, returns a number.
    sizes : sequence of float
        At least 5 positive sizes, growing or falling.
    order, limit : float
        The exponent or the limit that the formula states: one of the two.
    rate : float, optional
        The known speed of the approach to the limit; by default fitted.
    variable : (str, callable), optional
        What plays the part of the size, say ``("log n", np.log)``.
    tolerance : float, optional
        0.05 for an order; for a limit 0.001 times the limit, or times the first value's distance
        from it if the limit is 0.
    confidence : float
        Level of the t interval.
    seed, repeats : int
        Seed of the generator handed to ``measure``, and how many measurements are averaged at
        each size.
    perturb : callable or mapping, optional
        Changes of the order or limit that must be rejected.
    case : str
        Tells several checks of one equation apart.

    Raises
    ------
    CheckFailed
        If the stated order or limit lies outside the interval.
    CannotFail
        If a perturbed one lies inside.
    """
    subject = Subject(label, "asymptotic", case)
    values.require_callable(measure=measure)
    if (order is None) == (limit is None):
        raise ValueError("give either `order` or `limit`, and not both")
    if not 0.5 <= confidence < 1:
        raise ValueError(f"`confidence` must lie in [0.5, 1), got {confidence!r}")
    sizes_ = _sizes(sizes)
    word, transform = variable or ("size", lambda x: x)
    x = values.as_array(subject, "variable", transform(sizes_))
    if x.shape != sizes_.shape or np.any(x <= 0) or len(np.unique(x)) < len(x):
        raise ValueError(f"`variable` must turn the sizes into distinct positive numbers, got {x}")
    repeats = values.positive_int("repeats", repeats)
    y = _measured(subject, measure, sizes_, seed, repeats)
    if order is not None:
        fitted = _slope(subject, x, y, confidence)
        fitted = fitted.widened(ORDER_TOLERANCE if tolerance is None else tolerance)
        what, stated = f"order in {word}", float(order)
        default = {f"off by {number(ORDER_OFF)}": ORDER_OFF}
    else:
        fitted = _extrapolated(subject, x, y, confidence, rate)
        stated = float(limit)  # type: ignore[arg-type]
        unit = abs(stated) or abs(float(y[0]))
        fitted = fitted.widened(LIMIT_TOLERANCE * unit if tolerance is None else tolerance)
        what = f"limit in {word}"
        default = _limit_off(unit, relative=stated != 0)
    if not fitted.holds(stated):
        subject.fail(
            f"the formula states the {what} {number(stated)}, measured is {fitted.centre:.6g} ± "
            f"{fitted.half:.2g} at sizes {number(sizes_[0])} to {number(sizes_[-1])}"
        )
    words = _rejections(subject, what, fitted, stated, perturb, default)
    return conclude(
        subject,
        f"the {what} is {number(stated)} within the {number(100 * confidence)} % interval of a "
        f"fit to {len(sizes_)} sizes from {number(sizes_[0])} to {number(sizes_[-1])}",
        [words] if isinstance(words, str) else words,
        side="order" if order is not None else "limit",
        n=len(sizes_),
        stated=float(number(stated)),  # as shown: the last digits depend on the processor
        tolerance=tolerance
        if tolerance is not None
        else (ORDER_TOLERANCE if order is not None else LIMIT_TOLERANCE),
        confidence=confidence,
    )


@dataclass(frozen=True)
class Interval:
    """A fitted number and the half-width of its interval."""

    centre: float
    half: float

    def widened(self, by: float) -> Interval:
        return Interval(self.centre, self.half + values.tolerance("tolerance", by))

    def holds(self, value: float) -> bool:
        return abs(value - self.centre) <= self.half


def _sizes(sizes: Sequence[float]) -> np.ndarray:
    x = np.asarray(sizes, dtype=float)
    if x.ndim != 1 or len(x) < 5:
        raise ValueError(f"`sizes` must hold at least 5 numbers, got {sizes!r}")
    steps = np.diff(x)
    if not np.all(np.isfinite(x)) or np.any(x <= 0) or not (all(steps > 0) or all(steps < 0)):
        raise ValueError(f"`sizes` must be positive and grow or fall, got {sizes!r}")
    return x


def _measured(
    subject: Subject,
    measure: Callable[..., Any],
    sizes: np.ndarray,
    seed: int | None,
    repeats: int,
) -> np.ndarray:
    """Return one value for each size, averaged over the repetitions."""
    rng = None if seed is None else np.random.default_rng(seed)
    rows = []
    for size in sizes:
        argument = int(size) if float(size).is_integer() else float(size)
        found = [
            measure(argument) if rng is None else measure(argument, rng) for _ in range(repeats)
        ]
        arrays = [values.as_array(subject, f"measurement at size {size:g}", v) for v in found]
        if any(a.size != 1 or np.iscomplexobj(a) for a in arrays):
            subject.fail(f"the measurement at size {size:g} is not one real number")
        rows.append(float(np.mean([a.reshape(()) for a in arrays])))
    return np.array(rows)


def _slope(subject: Subject, x: np.ndarray, y: np.ndarray, confidence: float) -> Interval:
    """Fit log |y| = a + p log x and return p with its t interval."""
    if np.any(y == 0) or len(set(np.sign(y))) > 1:
        subject.fail("an order needs measured values of one sign, none of them 0")
    design = np.stack([np.ones_like(x), np.log(x)], axis=1)
    coefficients, half = _least_squares(design, np.log(np.abs(y)), confidence)
    return Interval(coefficients[1], half[1])


def _extrapolated(
    subject: Subject, x: np.ndarray, y: np.ndarray, confidence: float, rate: float | None
) -> Interval:
    """Fit y = L + C x^(∓rate) and return L with its interval."""
    towards = -1.0 if x[-1] > x[0] else 1.0
    if np.ptp(y) <= 1e-14 * np.abs(y).max():
        return Interval(float(y[-1]), 0.0)

    def fit(x: np.ndarray, y: np.ndarray) -> Interval:
        u = x / x[0]
        rates = RATES if rate is None else np.array([float(rate)])
        designs = [np.stack([np.ones_like(u), u ** (towards * q)], axis=1) for q in rates]
        residuals = [_residual(design, y) for design in designs]
        best = int(np.argmin(residuals))
        if rate is None and best in (0, len(rates) - 1):
            subject.fail(
                "the measured values do not settle like a power of the size; take other sizes, "
                "another `variable`, or a known `rate`"
            )
        design = designs[best]
        if rate is None:  # the exponent is fitted too: its column enters the interval
            c = np.linalg.lstsq(design, y, rcond=None)[0][1]
            design = np.column_stack([design, c * np.log(u) * design[:, 1]])
        coefficients, half = _least_squares(design, y, confidence)
        return Interval(coefficients[0], half[0])

    first = min(len(x) // 3, len(x) - 5)  # three numbers are fitted: keep five sizes at least
    whole, late = fit(x, y), fit(x[first:], y[first:])
    return late.widened(abs(late.centre - whole.centre))


def _residual(design: np.ndarray, y: np.ndarray) -> float:
    return float(np.sum((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2))


def _least_squares(
    design: np.ndarray, y: np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return least-squares coefficients and the half-widths of their t intervals."""
    from scipy.stats import t

    coefficients = np.linalg.lstsq(design, y, rcond=None)[0]
    freedom = len(y) - design.shape[1]
    variance = np.sum((y - design @ coefficients) ** 2) / freedom
    spread = np.sqrt(variance * np.diag(np.linalg.pinv(design.T @ design)))
    return coefficients, t.ppf((1 + confidence) / 2, freedom) * spread


def _limit_off(unit: float, relative: bool) -> dict[str, float]:
    of = "" if relative else " of the first value"
    return {f"off by {number(100 * f)} %{of}": f * unit for f in (LIMIT_OFF, 0.1)}


def _rejections(
    subject: Subject,
    what: str,
    fitted: Interval,
    stated: float,
    perturb: values.Perturb,
    default: dict[str, float],
) -> list[str]:
    """Return the words of the perturbations that fall outside of the interval."""
    changes = values.named(perturb)
    for words, change in changes.items():
        other = float(values.as_array(subject, f"stated value {words}", change(stated)))
        if other == stated or fitted.holds(other):
            subject.fail(
                f"the stated {what} {words} passes as well, so the check cannot fail", CannotFail
            )
    if changes:
        return list(changes)
    for words, shift in default.items():
        if not fitted.holds(stated + shift) and not fitted.holds(stated - shift):
            return [words]
    subject.fail(
        f"the {what} {list(default)[-1]} passes as well: the interval ± {fitted.half:.2g} is too "
        "wide for a check that can fail",
        CannotFail,
    )
