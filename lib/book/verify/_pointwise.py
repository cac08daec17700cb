"""Two sides that must agree input by input: formulas, and derivatives against autograd."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lib.book._publish import number
from lib.book.verify import _values as values
from lib.book.verify._record import CannotFail, Record, SameRoute, Subject, conclude
from lib.book.verify._routes import Shared, require_different, visits

# Where torch's grad and backward, its Jacobians and its functional transforms live.
AUTOGRAD = {"torch.autograd", "torch.autograd.functional", "torch._functorch.eager_transforms"}
Wrong = Mapping[str, Callable[..., Any]] | None


def numeric(
    label: str,
    lhs: Callable[..., Any],
    rhs: Callable[..., Any],
    draw: Callable[[np.random.Generator], Any] | None,
    *,
    n: int = 200,
    rtol: float = 1e-10,
    atol: float = 0.0,
    elementwise: bool = False,
    seed: int = 0,
    perturb: values.Perturb = None,
    wrong: Wrong = None,
    shared: Shared = (),
    case: str = "",
) -> Record:
    """Check that two formulas agree on many random float64 inputs.

    The two sides agree at an input if every difference is at most ``atol + rtol · size``, where
    ``size`` is the largest entry of either side (with ``elementwise``, the larger entry).

    Parameters
    ----------
    label : str
        The equation's label, ``eq-…``.
    lhs, rhs : callable
        The two sides, ``side(*args)``, each a number or an array of one and the same shape. The
        left from the definition, the right from the formula as printed.
    draw : callable or None
        ``draw(rng)`` returns a tuple of arguments (anything else counts as the only argument).
        None: the sides are constants and are compared once.
    n : int
        Number of inputs, at least 2.
    rtol, atol : float
        Relative and absolute tolerance. A side that is 0 needs ``atol``.
    perturb : callable or mapping, optional
        Changes of the right-hand side's value that must be rejected: one function, or functions
        by the words that complete "a right-hand side … was rejected". By default × (1 + 10⁻³),
        or + 10⁻³ if the right-hand side is 0 everywhere.
    wrong : mapping, optional
        Wrong formulas that must be rejected too, ``{"without the log n term": function}``.
    shared : sequence of str or callable
        Functions of the project that both sides may call.
    case : str
        Tells several checks of one equation apart.

    Raises
    ------
    CheckFailed
        If the sides differ, or one is no finite number.
    CannotFail
        If a perturbed right-hand side passes.
    SameRoute
        If both sides are the same computation.
    """
    subject = Subject(label, "numeric", case)
    values.require_callable(lhs=lhs, rhs=rhs)
    n = values.positive_int("n", n, least=2) if draw is not None else 1
    inputs = values.draw_inputs(subject, draw, n, seed)
    first, last = inputs[0], inputs[-1]  # two inputs, so that a cache of results hides nothing
    names = require_different(subject, lhs, rhs, values.copied(first), values.copied(last), shared)
    lefts = values.evaluate(subject, "left-hand side", lhs, inputs)
    rights = values.evaluate(subject, "right-hand side", rhs, inputs)
    compare = Comparison(subject, lefts, inputs, rtol, atol, elementwise)
    compare.require(rights)
    rejected = compare.rejections(rights, perturb, wrong)
    what = f"{n} random inputs" if draw is not None else "the two values"
    return conclude(
        subject,
        f"{what}, {compare.words}",
        rejected,
        shared=names,
        n=n,
        tolerance=rtol,
        absolute_tolerance=atol,
    )


def gradient(
    label: str,
    f: Callable[..., Any],
    closed_form: Callable[..., Any],
    draw: Callable[[np.random.Generator], Any],
    *,
    n: int = 100,
    rtol: float = 1e-8,
    atol: float = 0.0,
    elementwise: bool = False,
    seed: int = 0,
    perturb: values.Perturb = None,
    wrong: Wrong = None,
    shared: Shared = (),
    case: str = "",
) -> Record:
    """Check a derivative's closed form against torch's automatic differentiation.

    Parameters
    ----------
    label : str
        The equation's label, ``eq-…``.
    f : callable
        The function to differentiate with respect to its first argument. It receives float64
        tensors (arrays and a first argument that is a number are converted, other arguments
        are passed on) and returns a tensor of any shape.
    closed_form : callable
        The derivative as printed. It receives the arguments exactly as ``draw`` made them and
        returns an array of shape ``f's shape + first argument's shape``, so for a scalar ``f``
        the shape of the first argument.
    draw : callable
        ``draw(rng)`` returns a tuple of arguments.
    n, rtol, atol, elementwise, seed, perturb, wrong, shared, case
        As for :func:`numeric`.

    Raises
    ------
    CheckFailed, CannotFail, SameRoute
        As for :func:`numeric`; also if ``f`` does not depend on its first argument.
    """
    subject = Subject(label, "gradient", case)
    values.require_callable(f=f, closed_form=closed_form, draw=draw)
    n = values.positive_int("n", n, least=2)
    inputs = values.draw_inputs(subject, draw, n, seed)
    derivative = _autograd(subject, f)
    first, last = inputs[0], inputs[-1]  # two inputs, so that a cache of results hides nothing
    names = require_different(
        subject, f, closed_form, _tensors(values.copied(first)), values.copied(last), shared
    )
    _require_no_autograd(subject, closed_form, first)
    lefts = values.evaluate(subject, "derivative by autograd", derivative, inputs)
    rights = values.evaluate(subject, "closed form", closed_form, inputs)
    compare = Comparison(
        subject, lefts, inputs, rtol, atol, elementwise, ("derivative by autograd", "closed form")
    )
    compare.require(rights)
    return conclude(
        subject,
        f"autograd agrees with the closed form at {n} random inputs, {compare.words}",
        compare.rejections(rights, perturb, wrong),
        shared=names,
        side="closed form",
        n=n,
        tolerance=rtol,
        absolute_tolerance=atol,
    )


class Comparison:
    """One side's values, against which the other side and its perturbations are held."""

    def __init__(
        self,
        subject: Subject,
        lefts: Sequence[np.ndarray],
        inputs: Sequence[tuple[Any, ...]],
        rtol: float,
        atol: float,
        elementwise: bool,
        names: tuple[str, str] = ("left-hand side", "right-hand side"),
    ) -> None:
        self.subject, self.lefts, self.inputs, self.names = subject, lefts, inputs, names
        self.rtol, self.atol = values.tolerance("rtol", rtol), values.tolerance("atol", atol)
        self.elementwise = elementwise

    @property
    def words(self) -> str:
        """The tolerance in words."""
        parts = [f"relative error below {number(self.rtol)}"] if self.rtol else []
        if self.atol:
            parts.append(f"absolute error below {number(self.atol)}")
        each = " in every entry" if self.elementwise else ""
        return (" or ".join(parts) or "no difference at all") + each

    def against(self, rights: Sequence[np.ndarray]) -> values.Agreement:
        """Compare with the other side."""
        return values.agreement(self.lefts, rights, self.rtol, self.atol, self.elementwise)

    def require(self, rights: Sequence[np.ndarray]) -> None:
        """Fail if the sides differ, and say where they differ most."""
        values.require_shapes(self.subject, self.lefts, rights, self.names)
        found = self.against(rights)
        if found.holds:
            return
        left, right = self.lefts[found.worst], rights[found.worst]
        zero = all(np.all(r == 0) for r in rights) and not self.atol
        self.subject.fail(
            f"the sides differ by a relative error of {found.error:.3g}, allowed is "
            f"{self.words}; worst at input {found.worst + 1} of {len(self.inputs)}: "
            f"{values.shown(self.inputs[found.worst])}, where the {self.names[0]} is "
            f"{values.shown((left,))} and the {self.names[1]} {values.shown((right,))}"
            + ("; a side that is 0 needs an absolute tolerance, atol=…" if zero else "")
        )

    def rejections(
        self, rights: Sequence[np.ndarray], perturb: values.Perturb, wrong: Wrong
    ) -> list[str]:
        """Return the words of every perturbation, all of which must be rejected."""
        changes = values.named(perturb) or self._default(rights)
        changed = {
            words: [self._value(words, change(right.copy())) for right in rights]
            for words, change in changes.items()
        }
        for words, formula in (wrong or {}).items():
            values.require_callable(**{f"wrong[{words!r}]": formula})
            side = f"{self.names[1]} {words}"
            changed[words] = values.evaluate(self.subject, side, formula, self.inputs)
        for words, others in changed.items():
            values.require_change(self.subject, words, rights, others)
            values.require_shapes(self.subject, self.lefts, others, self.names)
            if self.against(others).holds:
                self.subject.fail(
                    f"a {self.names[1]} {words} passes as well, so the check cannot fail",
                    CannotFail,
                )
        return list(changed)

    def _default(self, rights: Sequence[np.ndarray]) -> dict[str, Callable[[Any], Any]]:
        """× (1 + 10⁻³); + 10⁻³ where there is nothing to scale."""
        if max(np.abs(right).max() for right in rights) > self.atol:
            return {values.off_by(values.OFF): lambda right: right * (1 + values.OFF)}
        return {f"off by {number(values.OFF)}": lambda right: right + values.OFF}

    def _value(self, words: str, value: Any) -> np.ndarray:
        return values.as_array(self.subject, f"{self.names[1]} {words}", value)


def _tensors(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments for torch: arrays as float64 tensors, the first one in any case."""
    import torch

    def convert(arg: Any, first: bool) -> Any:
        if isinstance(arg, torch.Tensor):
            return arg.to(torch.float64) if first else arg
        if (isinstance(arg, np.ndarray) and arg.dtype.kind == "f") or first:
            return torch.as_tensor(np.asarray(arg, dtype=np.float64))
        return torch.as_tensor(arg) if isinstance(arg, np.ndarray) else arg

    return tuple(convert(arg, index == 0) for index, arg in enumerate(args))


def _autograd(subject: Subject, f: Callable[..., Any]) -> Callable[..., Any]:
    """Return the derivative of ``f`` with respect to its first argument."""
    import torch

    def derivative(*args: Any) -> Any:
        x, *rest = _tensors(args)
        x = x.detach().clone().requires_grad_(True)
        value = f(x, *rest)
        if not isinstance(value, torch.Tensor):
            subject.fail(f"`f` must return a tensor, got {value!r:.60}")
        if not value.requires_grad:
            subject.fail("`f` does not depend on its first argument, as far as autograd can see")
        rows = [
            torch.autograd.grad(entry, x, retain_graph=True, allow_unused=True)[0]
            for entry in value.reshape(-1)
        ]
        if any(row is None for row in rows):
            subject.fail("`f` does not depend on its first argument, as far as autograd can see")
        return torch.stack(rows).reshape((*value.shape, *x.shape))

    return derivative


def _require_no_autograd(
    subject: Subject, closed_form: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    """Refuse a closed form that differentiates by autograd itself."""
    if visits(closed_form, values.copied(args), AUTOGRAD):
        subject.fail("the closed form differentiates by autograd itself", SameRoute)
