"""An expectation, against the mean of many samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lib.book._publish import number
from lib.book.verify import _values as values
from lib.book.verify._record import CannotFail, Record, Subject, conclude
from lib.book.verify._routes import Shared, require_different

RUNGS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
# One sample that carries this share of the whole variance: the standard error means nothing.
HEAVY = 0.2


def monte_carlo(
    label: str,
    sample: Callable[[np.random.Generator, int], Any],
    expected: Any | Callable[[], Any],
    *,
    n: int = 100_000,
    k: float = 4.0,
    seed: int = 0,
    perturb: values.Perturb = None,
    shared: Shared = (),
    case: str = "",
) -> Record:
    """Check that the mean of ``n`` samples lies within ``k`` standard errors of a formula.

    The power is shown by a deviation that ``n`` samples can resolve: the smallest of 0.1, 0.2,
    0.5, … 10 % that is at least 2k standard errors, in both directions. It is a fraction of the
    formula's value, or of one sample's standard deviation where the formula's value is so small
    that no such fraction of it can be seen.

    Parameters
    ----------
    label : str
        The equation's label, ``eq-…``.
    sample : callable
        ``sample(rng, n)`` returns ``n`` independent samples, shape ``(n,)`` or ``(n, …)`` for an
        expectation of several components.
    expected : float, array or callable
        The formula's value, or a function without arguments that computes it (which lets the
        check see whether both sides are computed by the same function).
    n : int
        Number of samples, at least 100.
    k : float
        Allowed deviation in standard errors.
    seed, perturb, shared, case
        As for :func:`numeric`.

    Raises
    ------
    CheckFailed
        If the deviation is larger, or if a single sample dominates the variance, so that the
        standard error cannot be trusted.
    CannotFail
        If ``n`` samples cannot tell a perturbed value from the formula's.
    """
    subject = Subject(label, "monte_carlo", case)
    values.require_callable(sample=sample)
    n = values.positive_int("n", n, least=100)
    if not values.tolerance("k", k) >= 1:
        raise ValueError(f"`k` must be at least 1 standard error, got {k!r}")
    names: tuple[str, ...] = ()
    if callable(expected):
        small = (np.random.default_rng(seed), 100)
        names = require_different(subject, sample, expected, small, (), shared)
        expected = expected()
    formula = values.as_array(subject, "formula's value", expected)
    estimate = Estimate.of(subject, sample(np.random.default_rng(seed), n), n, formula.shape)
    if not estimate.agrees(formula, k):
        subject.fail(
            f"the mean of {n} samples is {values.shown((estimate.mean,))} ± "
            f"{values.shown((estimate.error,))} (one standard error), the formula gives "
            f"{values.shown((formula,))}: {estimate.distance(formula):.1f} standard errors away, "
            f"allowed are {number(k)}"
        )
    return conclude(
        subject,
        f"the mean of {n:,} samples lies within {number(k)} standard errors".replace(",", " "),
        _rejections(subject, estimate, formula, k, perturb),
        shared=names,
        side="value",
        n=n,
        tolerance=k,
        seed=seed,
    )


class Estimate:
    """A sample mean with its standard error, component by component."""

    def __init__(self, mean: np.ndarray, error: np.ndarray, n: int) -> None:
        self.mean, self.error, self.n = mean, error, n

    @classmethod
    def of(cls, subject: Subject, drawn: Any, n: int, shape: tuple[int, ...]) -> Estimate:
        """Average the samples, after making sure that their average means something."""
        samples = values.as_array(subject, "sample", drawn)
        if samples.shape != (n, *shape):
            subject.fail(
                f"`sample` must return shape {(n, *shape)} (n samples, each of the formula's "
                f"shape), got {samples.shape}"
            )
        if np.iscomplexobj(samples):
            subject.fail("the samples are complex; check real and imaginary part one by one")
        deviations = (samples - samples.mean(0)) ** 2
        total = deviations.sum(0)
        if np.any(total <= n * (1e-14 * np.abs(samples).max()) ** 2):
            subject.fail("the samples do not vary, so there is nothing to estimate", CannotFail)
        if np.any(deviations.max(0) > HEAVY * total):
            subject.fail(
                "one sample carries more than a fifth of the whole variance: the tails are too "
                "heavy for a standard error"
            )
        return cls(samples.mean(0), np.sqrt(total / (n - 1) / n), n)

    def distance(self, value: np.ndarray) -> float:
        """The largest deviation in standard errors."""
        return float(np.max(np.abs(self.mean - value) / self.error))

    def agrees(self, value: np.ndarray, k: float) -> bool:
        """Whether every component lies within ``k`` standard errors."""
        return self.distance(value) <= k


def _rejections(
    subject: Subject, estimate: Estimate, formula: np.ndarray, k: float, perturb: values.Perturb
) -> list[str]:
    changes = values.named(perturb)
    if not changes:
        words, shift = _resolvable(subject, estimate, formula, k)
        ends = (formula + shift, formula - shift)
        if any(estimate.agrees(end, k) for end in ends):
            subject.fail(f"a value {words} passes as well, so the check cannot fail", CannotFail)
        return [words]
    for words, change in changes.items():
        other = values.as_array(subject, f"formula's value {words}", change(formula.copy()))
        values.require_change(subject, words, [formula], [other])
        if estimate.agrees(other, k):
            subject.fail(
                f"a value {words} passes as well: {estimate.n} samples cannot tell it from the "
                "formula's, so take a larger n",
                CannotFail,
            )
    return list(changes)


def _resolvable(
    subject: Subject, estimate: Estimate, formula: np.ndarray, k: float
) -> tuple[str, np.ndarray]:
    """Return the smallest deviation that the samples resolve, in words and as a shift."""
    spread = estimate.error * np.sqrt(estimate.n)
    for unit, words in ((np.abs(formula), "%"), (spread, "% of a standard deviation")):
        for rung in RUNGS:
            if np.all(rung * unit >= 2 * k * estimate.error):
                return f"off by {number(100 * rung)} {words}", rung * unit
    needed = int(np.ceil((2 * k / RUNGS[-1]) ** 2))
    subject.fail(
        f"{estimate.n} samples resolve no deviation of {number(100 * RUNGS[-1])} % of a standard "
        f"deviation; take n of at least {needed}",
        CannotFail,
    )
