"""Train at one length, use at another: factors on the logits, and the table of what they do.

Attention trained on n0 keys computes softmax(s) from scores s.  At test length n the scores are
multiplied by a factor a(n, n0) with a(n0, n0) = 1, which is the whole difference between the
rules compared here:

- ``constant``   a = 1, attention as trained;
- ``sqrt_log_n`` a = sqrt(log n / log n0), what Gaussian scores would ask for;
- ``log_n``      a = log n / log n0, the entropy-invariant softmax (kexue.fm/archives/8823, 9034);
- ``yarn``       a = (1 + 0.1 log(n / n0))^2, the attention temperature of YaRN (arXiv 2309.00071).

Below n0 every rule is 1: a factor under 1 would only flatten what was trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.attention import _validation as check
from lib.attention.scaling import length_factor

__all__ = ["FACTORS", "Factor", "LengthTable", "factor_at", "named_factors"]

Factor = Callable[[int, int], float]


def constant(n: int, n0: int) -> float:
    """Leave the scores as they were trained."""
    return 1.0


def sqrt_log_n(n: int, n0: int) -> float:
    """Square root of log n / log n0."""
    return math.sqrt(length_factor(n, n0))


def log_n(n: int, n0: int) -> float:
    """log n / log n0, the entropy-invariant factor."""
    return float(length_factor(n, n0))


def yarn(n: int, n0: int) -> float:
    """(1 + 0.1 log(n / n0))^2, YaRN's factor on the logits."""
    return (1.0 + 0.1 * max(0.0, math.log(n / n0))) ** 2


FACTORS: Mapping[str, Factor] = {
    "constant": constant,
    "sqrt_log_n": sqrt_log_n,
    "log_n": log_n,
    "yarn": yarn,
}


def factor_at(rule: str | Factor, n: int, n0: int) -> float:
    """What `rule` multiplies the scores by when a model trained on n0 keys sees n.

    Parameters
    ----------
    rule : str or callable
        A name in `FACTORS`, or any function of (n, n0).
    n : int
        Number of keys in use, at least 1.
    n0 : int
        Number of keys in training, at least 2 (log n0 divides).

    Returns
    -------
    float
        Finite and positive.
    """
    n, n0 = check.whole(n, "n", at_least=1), check.whole(n0, "n0", at_least=2)
    if isinstance(rule, str):
        if rule not in FACTORS:
            raise ValueError(f"`rule` must be one of {', '.join(FACTORS)}, got {rule!r}")
        rule = FACTORS[rule]
    factor = float(rule(n, n0))
    if not (math.isfinite(factor) and factor > 0.0):
        raise ValueError(f"`rule` must give a finite positive factor, got {factor} at n = {n}")
    return factor


def named_factors(rules: Sequence[str] | Mapping[str, Factor]) -> dict[str, Factor]:
    """Name every rule: names of `FACTORS`, or a mapping from names to functions of (n, n0)."""
    if isinstance(rules, Mapping):
        named = dict(rules)
    else:
        unknown = [rule for rule in rules if rule not in FACTORS]
        if isinstance(rules, str) or unknown:
            raise ValueError(
                f"`factors` must be names among {', '.join(FACTORS)} or a mapping, got {rules!r}"
            )
        named = {rule: FACTORS[rule] for rule in rules}
    if not named:
        raise ValueError("`factors` must name at least one rule")
    return named


@dataclass(frozen=True)
class LengthTable:
    """One trained model per seed, read at several lengths under several factors.

    All factors and lengths of a seed share the trained model and the questions asked, so that
    differences along those axes are paired; seeds share neither.

    Attributes
    ----------
    seeds, factors, lengths : tuple
        What the three axes of the arrays stand for.
    accuracy : ndarray, shape (seeds, factors, lengths)
        Share of the questions answered rightly, in [0, 1].
    entropy : ndarray, shape (seeds, factors, lengths)
        Mean entropy of the attention weights in nats.
    questions : int
        Number of questions in each cell; sqrt(a (1 - a) / questions) is a cell's sampling error.
    """

    seeds: tuple[int, ...]
    factors: tuple[str, ...]
    lengths: tuple[int, ...]
    accuracy: NDArray[np.float64]
    entropy: NDArray[np.float64]
    questions: int

    def per_seed(self, factor: str, length: int, what: str = "accuracy") -> NDArray[np.float64]:
        """One number per seed: a cell of the table, for paired comparisons.

        Parameters
        ----------
        factor, length
            A member of `factors` and of `lengths`.
        what : str
            Name of the array: ``accuracy``, ``entropy``, …

        Returns
        -------
        ndarray, shape (seeds,)
        """
        if factor not in self.factors:
            raise ValueError(f"`factor` must be one of {self.factors}, got {factor!r}")
        if length not in self.lengths:
            raise ValueError(f"`length` must be one of {self.lengths}, got {length!r}")
        values = getattr(self, what, None)
        if not isinstance(values, np.ndarray):
            raise ValueError(f"`what` must name an array of the table, got {what!r}")
        return values[:, self.factors.index(factor), self.lengths.index(length)]

    def standard_error(self) -> NDArray[np.float64]:
        """Sampling error of `accuracy`, same shape.

        Binomial: too small where questions share a text. What differs from seed to seed, which
        draws its own texts, says more.
        """
        return np.sqrt(self.accuracy * (1.0 - self.accuracy) / self.questions)


def check_lengths(lengths: Sequence[int], at_least: int) -> tuple[int, ...]:
    """Test lengths as an increasing tuple of whole numbers."""
    kept = tuple(check.whole(n, "lengths", at_least) for n in lengths)
    if not kept or sorted(set(kept)) != list(kept):
        raise ValueError(f"`lengths` must be increasing, got {kept}")
    return kept


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Seeds as a tuple of different non-negative whole numbers."""
    kept = tuple(check.whole(seed, "seeds", at_least=0) for seed in seeds)
    if not kept or len(set(kept)) != len(kept):
        raise ValueError(f"`seeds` must be one or more different numbers, got {kept}")
    return kept
