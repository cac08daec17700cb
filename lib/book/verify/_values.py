"""Random inputs, the values of the two sides, and how far apart they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.book._publish import number
from lib.book.verify._record import CannotFail, CheckFailed, Subject

Perturb = Callable[[Any], Any] | Mapping[str, Callable[[Any], Any]] | None
OFF = 1e-3  # the default perturbation: a relative error of 0.1 %


def positive_int(name: str, value: Any, least: int = 1) -> int:
    """Return an integer argument, or say what it should have been."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"`{name}` must be an integer of at least {least}, got {value!r}")
    return int(value)


def tolerance(name: str, value: Any) -> float:
    """Return a tolerance, which must be finite and not negative."""
    if not isinstance(value, (int, float)) or not np.isfinite(value) or value < 0:
        raise ValueError(f"`{name}` must be a finite number of at least 0, got {value!r}")
    return float(value)


def require_callable(**functions: Any) -> None:
    """Refuse a side that is a value instead of a function."""
    for name, function in functions.items():
        if not callable(function):
            raise TypeError(f"`{name}` must be a function, got {function!r:.60}")


# Inputs -------------------------------------------------------------------------------------


def draw_inputs(
    subject: Subject, draw: Callable[..., Any] | None, n: int, seed: int
) -> list[tuple[Any, ...]]:
    """Return ``n`` inputs, each a tuple of arguments; a single empty one without ``draw``."""
    if draw is None:
        return [()]
    require_callable(draw=draw)
    rng = np.random.default_rng(seed)
    inputs = []
    for _ in range(n):
        drawn = draw(rng)
        inputs.append(drawn if isinstance(drawn, tuple) else (drawn,))
    if n > 1 and all(_same_input(inputs[0], other) for other in inputs[1:]):
        subject.fail(
            "`draw` returns the same input every time; it must use the generator it is given",
            CannotFail,
        )
    return inputs


def _same_input(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    if len(a) != len(b):
        return False
    for x, y in zip(a, b, strict=True):
        try:
            x, y = np.asarray(detached(x)), np.asarray(detached(y))
        except ValueError:  # a ragged list: no array, and no reason to think them equal
            return False
        if x.shape != y.shape or x.dtype != y.dtype or not np.all(x == y):
            return False
    return True


def detached(value: Any) -> Any:
    """Return a torch tensor as an array, anything else as it is."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def copied(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copy arrays and tensors, so that one side cannot change what the other one sees."""
    return tuple(
        a.copy() if isinstance(a, np.ndarray) else a.detach().clone() if hasattr(a, "detach") else a
        for a in args
    )


def shown(args: tuple[Any, ...]) -> str:
    """Return an input as short text for a message."""
    if not args:
        return "(no input)"
    with np.printoptions(precision=6, threshold=6, edgeitems=2, linewidth=10_000):
        return ", ".join(" ".join(str(detached(a)).split()) for a in args)[:300]


# Values -------------------------------------------------------------------------------------


def evaluate(
    subject: Subject,
    side: str,
    function: Callable[..., Any],
    inputs: Sequence[tuple[Any, ...]],
) -> list[np.ndarray]:
    """Return a side's value at every input as finite float64 or complex128 arrays."""
    values = []
    for index, args in enumerate(inputs):
        try:
            value = function(*copied(args))
        except CheckFailed:
            raise
        except Exception as error:
            error.add_note(f"{subject.label}: while evaluating the {side} at input {index + 1}")
            raise
        values.append(as_array(subject, side, value, args))
    return values


def as_array(subject: Subject, side: str, value: Any, args: tuple[Any, ...] = ()) -> np.ndarray:
    """Return a value as a finite, non-empty array, or fail and say what it was."""
    at = f" at input {shown(args)}" if args else ""
    try:
        array = np.asarray(detached(value))
    except ValueError as error:
        subject.fail(f"the {side} is no array{at}: {error}")
    if array.dtype.kind in "biuf":
        array = array.astype(np.float64)
    elif array.dtype.kind == "c":
        array = array.astype(np.complex128)
    else:
        subject.fail(f"the {side} is no number or array of numbers{at}: {value!r:.60}")
    if array.size == 0:
        subject.fail(f"the {side} is empty{at}, so nothing would be compared")
    if not np.all(np.isfinite(array)):
        subject.fail(f"the {side} is not finite{at}: {shown((array,))}")
    return array


def require_shapes(
    subject: Subject,
    lefts: Sequence[np.ndarray],
    rights: Sequence[np.ndarray],
    names: tuple[str, str] = ("left-hand side", "right-hand side"),
    scalars: bool = False,
) -> None:
    """Refuse sides of different shape, which would otherwise be broadcast in silence."""
    for left, right in zip(lefts, rights, strict=True):
        if left.shape != right.shape and not (scalars and () in (left.shape, right.shape)):
            subject.fail(
                f"the sides have different shapes: the {names[0]} {left.shape}, "
                f"the {names[1]} {right.shape}"
            )


# Differences --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """The largest difference between two lists of values.

    ``excess`` is the difference over what is allowed (agreement means at most 1); ``error`` the
    difference over the larger side; ``worst`` the index of the input.
    """

    excess: float
    error: float
    worst: int

    @property
    def holds(self) -> bool:
        return self.excess <= 1.0


def agreement(
    lefts: Sequence[np.ndarray],
    rights: Sequence[np.ndarray],
    rtol: float,
    atol: float,
    elementwise: bool,
) -> Agreement:
    """Compare value by value: |l − r| ≤ atol + rtol · size.

    ``size`` is the larger of the two sides: its largest entry, or entry by entry.
    """
    worst = Agreement(0.0, 0.0, 0)
    for index, (left, right) in enumerate(zip(lefts, rights, strict=True)):
        difference = np.abs(left - right)
        size = np.maximum(np.abs(left), np.abs(right))
        if not elementwise:
            size = np.broadcast_to(size.max(), size.shape)
        allowed = atol + rtol * size
        excess = np.divide(
            difference, allowed, out=np.where(difference > 0, np.inf, 0.0), where=allowed > 0
        )
        at = np.unravel_index(np.argmax(excess), excess.shape)
        if excess[at] > worst.excess:
            error = float(difference[at] / size[at]) if size[at] > 0 else np.inf
            worst = Agreement(float(excess[at]), error, index)
    return worst


# Perturbations ------------------------------------------------------------------------------


def named(perturb: Perturb) -> dict[str, Callable[[Any], Any]]:
    """Return the author's perturbations by the words that describe them."""
    if perturb is None:
        return {}
    if callable(perturb):
        name = getattr(perturb, "__name__", "")
        words = "" if name.startswith("<") else name.replace("_", " ").strip()
        return {f"perturbed by “{words}”" if words else "perturbed by the author": perturb}
    if isinstance(perturb, Mapping) and perturb:
        require_callable(**{f"perturb[{words!r}]": change for words, change in perturb.items()})
        return {str(words): change for words, change in perturb.items()}
    raise TypeError(
        f"`perturb` must be a function, or a mapping from words to functions, got {perturb!r}"
    )


def off_by(fraction: float) -> str:
    """Return "off by 0.1 %" for 0.001."""
    return f"off by {number(100 * fraction)} %"


def require_change(
    subject: Subject, words: str, before: Sequence[np.ndarray], after: Sequence[np.ndarray]
) -> None:
    """Refuse a perturbation that leaves every value as it is."""
    if all(a.shape == b.shape and np.array_equal(a, b) for a, b in zip(before, after, strict=True)):
        subject.fail(f"the right-hand side {words} is the same as before", CannotFail)
