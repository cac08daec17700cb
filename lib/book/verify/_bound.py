"""An inequality, tried on random inputs and by a search for its violation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.book._publish import number
from lib.book.verify import _values as values
from lib.book.verify._pointwise import Wrong
from lib.book.verify._record import CannotFail, Record, Subject, conclude
from lib.book.verify._routes import Shared, require_different

RUNGS = (0.001, 0.01, 0.1, 1.0, 10.0)  # by how much a bound is sharpened, in typical sizes
STARTS, STEPS = 6, 300
REACH = 10.0  # the search stays within ten times the drawn magnitudes, where float64 is exact
Args = tuple[Any, ...]


def bound(
    label: str,
    smaller: Callable[..., Any],
    larger: Callable[..., Any],
    draw: Callable[[np.random.Generator], Any],
    *,
    n: int = 2000,
    optimise: bool = True,
    project: Callable[..., Any] | None = None,
    sharpen: float | None = None,
    rtol: float = 1e-10,
    atol: float = 0.0,
    seed: int = 0,
    perturb: values.Perturb = None,
    wrong: Wrong = None,
    shared: Shared = (),
    case: str = "",
) -> Record:
    """Check that ``smaller(*args) <= larger(*args)`` on random and on adversarial inputs.

    The adversary starts from the tightest random inputs and moves every floating-point argument
    so as to close the gap. It keeps what all random inputs have in common: their signs, the
    interval [0, 1], rows that sum to 1. Where the assumptions are others, ``project`` says so.

    The power is shown by sharpening: the larger side, lowered by a fraction of its typical size,
    must be violated by one of the inputs tried. The smallest of 0.1 %, 1 %, 10 %, 100 % and 1000 %
    that is violated is reported, and tells how tight the bound is.

    Parameters
    ----------
    label : str
        The equation's label, ``eq-…``.
    smaller, larger : callable
        The two sides, numbers or arrays of one shape; a number may stand against an array.
    draw : callable
        ``draw(rng)`` returns a tuple of arguments.
    n : int
        Number of random inputs.
    optimise : bool
        Whether to search for a violation as well.
    project : callable, optional
        ``project(*args)`` returns the nearest arguments that meet the assumptions.
    sharpen : float, optional
        The fraction by which the author says the bound cannot be sharpened (0.01 for 1 %);
        the check fails if it can. By default found as above.
    rtol, atol : float
        What counts as rounding, relative to the sides (or their typical size, if larger) and
        absolute.
    seed, perturb, wrong, shared, case
        As for :func:`numeric`; ``perturb`` and ``wrong`` change the larger side, replace the
        sharpening, and must be violated.

    Raises
    ------
    CheckFailed
        If an input violates the bound (the message tells whether chance or the search found it),
        or if both sides are always equal.
    CannotFail, SameRoute
        As for :func:`numeric`.
    """
    subject = Subject(label, "bound", case)
    values.require_callable(smaller=smaller, larger=larger, draw=draw)
    n = values.positive_int("n", n, least=2)
    slack = Slack(values.tolerance("rtol", rtol), values.tolerance("atol", atol))
    if sharpen is not None and not values.tolerance("sharpen", sharpen) > 0:
        raise ValueError(f"`sharpen` must be a positive fraction, got {sharpen!r}")
    inputs = values.draw_inputs(subject, draw, n, seed)
    first, last = inputs[0], inputs[-1]  # two inputs, so that a cache of results hides nothing
    names = require_different(
        subject, smaller, larger, values.copied(first), values.copied(last), shared
    )
    trial = Trial(subject, smaller, larger, slack)
    trial.add(inputs)
    trial.require("a random input")
    if trial.always_equal:
        subject.fail("both sides are equal at every random input: this is no inequality")
    searched = optimise and trial.attack(Domain.of(inputs, project), np.random.default_rng(seed))
    if searched:
        trial.require("an input found by the search")
    rejected = trial.rejections(perturb, wrong, sharpen)
    how = "random inputs and a search for a violation" if searched else "random inputs"
    return conclude(
        subject,
        f"holds at {n} {how}",
        rejected,
        shared=names,
        side="bound",
        n=n,
        searched=searched,
        tolerance=rtol,
        absolute_tolerance=atol,
    )


@dataclass(frozen=True)
class Slack:
    """What counts as rounding: the sides may overlap by ``atol + rtol · size``.

    The size is that of the sides, but no less than their typical one: near a point where both
    are 0, what they are computed from is not.
    """

    rtol: float
    atol: float

    def violated(self, small: np.ndarray, large: np.ndarray, typical: float) -> bool:
        size = np.maximum(np.maximum(np.abs(small), np.abs(large)), typical)
        return bool(np.any(large - small < -(self.atol + self.rtol * size)))


class Trial:
    """All inputs tried so far with the values of both sides."""

    def __init__(
        self,
        subject: Subject,
        smaller: Callable[..., Any],
        larger: Callable[..., Any],
        slack: Slack,
    ) -> None:
        self.subject, self.smaller, self.larger, self.slack = subject, smaller, larger, slack
        self.inputs: list[Args] = []
        self.smalls: list[np.ndarray] = []
        self.larges: list[np.ndarray] = []
        self.size = 0.0  # the typical size of the sides over the random inputs

    def add(self, inputs: Sequence[Args]) -> None:
        smalls = values.evaluate(self.subject, "smaller side", self.smaller, inputs)
        larges = values.evaluate(self.subject, "larger side", self.larger, inputs)
        names = ("smaller side", "larger side")
        values.require_shapes(self.subject, smalls, larges, names, scalars=True)
        for name, side in zip(names, (smalls, larges), strict=True):
            if any(np.iscomplexobj(value) for value in side):
                self.subject.fail(f"the {name} is complex, so nothing is smaller or larger")
        self.inputs.extend(inputs)
        self.smalls.extend(smalls)
        self.larges.extend(larges)
        sizes = [max(np.abs(s).max(), np.abs(b).max()) for s, b in zip(smalls, larges, strict=True)]
        self.size = self.size or float(np.median(sizes)) or float(np.max(sizes)) or 1.0

    @property
    def gaps(self) -> np.ndarray:
        """The smallest distance between the sides at each input."""
        pairs = zip(self.smalls, self.larges, strict=True)
        return np.array([float(np.min(large - small)) for small, large in pairs])

    @property
    def always_equal(self) -> bool:
        """Whether the sides never differ by more than rounding."""
        return not any(
            self._violated(large, small)
            for small, large in zip(self.smalls, self.larges, strict=True)
        )

    def require(self, whence: str) -> None:
        """Fail at the worst violated input, if there is one."""
        for index in np.argsort(self.gaps):
            small, large = self.smalls[index], self.larges[index]
            if self._violated(small, large):
                hint = "; if it breaks the equation's assumptions, give project=…"
                self.subject.fail(
                    f"violated by {np.max(small - large):.3g} at {whence}: "
                    f"{values.shown(self.inputs[index])}, where the smaller side is "
                    f"{values.shown((small,))} and the larger side {values.shown((large,))}"
                    + (hint if "search" in whence else "")
                )

    def attack(self, domain: Domain, rng: np.random.Generator) -> bool:
        """Search for a violation; return whether there was anything to move."""
        if not domain.movable:
            return False
        gaps = self.gaps
        for start in np.argsort(gaps)[:STARTS]:
            self.add([self._descend(self.inputs[start], float(gaps[start]), domain, rng)])
        return True

    def _gap(self, args: Args) -> float:
        """The distance between the sides; infinite where a side is no number."""
        try:
            small = np.asarray(values.detached(self.smaller(*values.copied(args))), float)
            large = np.asarray(values.detached(self.larger(*values.copied(args))), float)
        except (ArithmeticError, ValueError, RuntimeError):  # outside of what the formula accepts
            return np.inf
        gap = float(np.min(large - small)) if small.size and large.size else np.inf
        finite = np.all(np.isfinite(small)) and np.all(np.isfinite(large))
        return gap if finite and np.isfinite(gap) else np.inf

    def _descend(self, args: Args, gap: float, domain: Domain, rng: np.random.Generator) -> Args:
        """Evolution strategy with one parent: long steps after success, short ones after failure.

        The factors hold the step where one move in five succeeds (Rechenberg's rule).
        """
        step = 0.5
        with np.errstate(all="ignore"):
            for _ in range(STEPS):
                moved = domain.move(args, step, rng)
                other = self._gap(moved)
                if other < gap:
                    args, gap, step = moved, other, min(step * 1.5, 2.0)
                else:
                    step = max(step * 1.5**-0.25, 1e-7)
        return args

    def rejections(self, perturb: values.Perturb, wrong: Wrong, sharpen: float | None) -> list[str]:
        """Return the words of the sharpened or wrong bounds, all of which must be violated."""
        changed = {
            words: [
                values.as_array(self.subject, f"larger side {words}", change(large.copy()))
                for large in self.larges
            ]
            for words, change in values.named(perturb).items()
        }
        for words, formula in (wrong or {}).items():
            values.require_callable(**{f"wrong[{words!r}]": formula})
            side = f"larger side {words}"
            changed[words] = values.evaluate(self.subject, side, formula, self.inputs)
        for words, larges in changed.items():
            values.require_change(self.subject, words, self.larges, larges)
            values.require_shapes(self.subject, self.smalls, larges, scalars=True)
            if not self._any_violated(larges):
                self.subject.fail(
                    f"a bound {words} is not violated either, so the check cannot fail", CannotFail
                )
        if changed:
            return list(changed)
        return [self._sharpened(sharpen)]

    def _sharpened(self, sharpen: float | None) -> str:
        gap = float(np.min(self.gaps)) / self.size
        if sharpen is None:
            # A factor of 2 keeps the reported rung the same where rounding differs.
            sharpen = next(rung for rung in (*RUNGS, np.inf) if rung >= 2 * gap)
        if not np.isfinite(sharpen) or not self._any_violated(
            [large - sharpen * self.size for large in self.larges]
        ):
            self.subject.fail(
                f"no input brings the two sides closer than {gap:.3g} of their typical size, so "
                "a bound that is sharper by less would pass as well; give perturb=… or sharpen=…",
                CannotFail,
            )
        return f"sharper by {number(100 * sharpen)} % of its typical size"

    def _violated(self, small: np.ndarray, large: np.ndarray) -> bool:
        return self.slack.violated(small, large, self.size)

    def _any_violated(self, larges: Sequence[np.ndarray]) -> bool:
        return any(map(self._violated, self.smalls, larges))


@dataclass(frozen=True)
class Domain:
    """Where the adversary may go: what all drawn inputs have in common, or ``project``."""

    rules: tuple[Rule | None, ...]
    project: Callable[..., Any] | None

    @classmethod
    def of(cls, inputs: Sequence[Args], project: Callable[..., Any] | None) -> Domain:
        """Read the rules off the inputs, argument by argument."""
        columns = zip(*inputs, strict=True)
        return cls(tuple(Rule.of([values.detached(v) for v in c]) for c in columns), project)

    @property
    def movable(self) -> bool:
        """Whether any argument is a floating-point number or array."""
        return any(rule is not None for rule in self.rules)

    def move(self, args: Args, step: float, rng: np.random.Generator) -> Args:
        """Return a neighbour of the arguments within the domain."""
        moved = tuple(
            arg if rule is None else _like(arg, rule.move(values.detached(arg), step, rng))
            for arg, rule in zip(args, self.rules, strict=True)
        )
        if self.project is None:
            return moved
        projected = self.project(*moved)
        return projected if isinstance(projected, tuple) else (projected,)


@dataclass(frozen=True)
class Rule:
    """What all values of one argument have in common."""

    reach: float
    scale: float
    sign: int  # 1: never negative, -1: never positive, 0: both
    unit: bool  # within [0, 1]
    normed: bool  # the last axis sums to 1

    @classmethod
    def of(cls, column: Sequence[Any]) -> Rule | None:
        """Return the rule, or None if the argument is no floating-point number or array."""
        arrays = [np.asarray(value) for value in column]
        if any(a.dtype.kind != "f" or a.size == 0 for a in arrays):
            return None
        low, high = min(a.min() for a in arrays), max(a.max() for a in arrays)
        top = float(max(abs(low), abs(high))) or 1.0
        sums = all(a.ndim and np.allclose(a.sum(-1), 1.0, atol=1e-9) for a in arrays)
        return cls(
            reach=REACH * top,
            scale=float(np.median([np.abs(a).max() for a in arrays])) or 1.0,
            sign=1 if low >= 0 else -1 if high <= 0 else 0,
            unit=bool(low >= 0 and high <= 1),
            normed=bool(sums and low >= 0),
        )

    def move(self, value: Any, step: float, rng: np.random.Generator) -> np.ndarray:
        """Return a neighbour: some or all entries shifted or scaled, drawn together or tied."""
        old = np.asarray(value, float)
        some = rng.random(old.shape) < rng.choice([1.0, 0.3, 1.0 / max(old.size, 1)])
        kind = rng.integers(4)
        if kind == 0:
            new = old + some * step * self.scale * rng.standard_normal(old.shape)
        elif kind == 1:
            new = old * np.exp(some * step * rng.standard_normal(old.shape))
        elif kind == 2:
            new = old * np.exp(2 * step * rng.standard_normal())
        else:
            goal = old.mean() if rng.random() < 0.5 else old.flat[rng.integers(old.size)]
            new = old + some * min(step, 1.0) * (goal - old)
        return self.clip(new)

    def clip(self, new: np.ndarray) -> np.ndarray:
        """Return the nearest value that obeys the rule."""
        low = 0.0 if self.sign > 0 else -self.reach
        high = 1.0 if self.unit else 0.0 if self.sign < 0 else self.reach
        new = np.clip(new, low, high)
        if self.normed:
            total = new.sum(-1, keepdims=True)
            new = np.where(total > 0, new / np.where(total > 0, total, 1.0), 1.0 / new.shape[-1])
        return new


def _like(old: Any, new: np.ndarray) -> Any:
    """Return ``new`` as what ``old`` is: a tensor, an array or a float."""
    if hasattr(old, "detach"):
        import torch

        return torch.as_tensor(new, dtype=old.dtype)
    return new.astype(old.dtype) if isinstance(old, np.ndarray) else float(new)
