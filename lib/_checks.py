"""Checks of what a caller hands in, so that the mathematics elsewhere reads without them.

Every message names the argument, says what was expected and what arrived. Importing this loads no
torch: the checks of tensors, below, load it when they are called.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def rng(value: Any, name: str = "rng") -> np.random.Generator:
    """A generator handed in by the caller; seeds and the global state are refused."""
    if not isinstance(value, np.random.Generator):
        raise TypeError(
            f"`{name}` must be a numpy.random.Generator such as numpy.random.default_rng(0), "
            f"got {type(value).__name__}"
        )
    return value


def rectangular(values: ArrayLike, name: str) -> NDArray[Any]:
    """An array of any shape and dtype; a tensor of torch as it is, detached and on the CPU."""
    tensor: Any = values
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        values = tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor
    try:
        return np.asarray(values)
    except ValueError as error:  # NumPy's own word for ragged nesting
        raise ValueError(f"`{name}` must be a rectangular array of numbers: {error}") from error


def reals(values: ArrayLike, name: str) -> Floats:
    """Finite real numbers in float64, of any shape."""
    array = rectangular(values, name)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"`{name}` must hold real numbers, got dtype {array.dtype}")
    array = array.astype(np.float64, copy=False)
    bad = ~np.isfinite(array)
    if bad.any():
        raise ValueError(f"`{name}` must be finite, got {array[bad].flat[0]}")
    return array


def vector(values: ArrayLike, name: str, lengths: tuple[int, ...] | None = None) -> Floats:
    """Finite real numbers in a row, as many as one of `lengths` says."""
    array = reals(values, name)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"`{name}` must be one row of numbers, got shape {array.shape}")
    if lengths is not None and array.size not in lengths:
        wanted = " or ".join(str(n) for n in lengths)
        raise ValueError(f"`{name}` must hold {wanted} numbers, got {array.size}")
    return array


def matrix(values: ArrayLike, name: str) -> NDArray[Any]:
    """Real numbers of shape (n, d) as they come: any dtype, memory-mapped, perhaps not finite."""
    array = rectangular(values, name)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"`{name}` must hold real numbers, got dtype {array.dtype}")
    if array.ndim != 2 or array.size == 0:
        raise ValueError(
            f"`{name}` must have shape (n, d) and not be empty, got shape {array.shape}"
        )
    return array


def within(values: ArrayLike, name: str, low: float, high: float) -> Floats:
    """Real numbers of the closed interval from `low` to `high`."""
    array = reals(values, name)
    bad = (array < low) | (array > high)
    if bad.any():
        raise ValueError(f"`{name}` must lie in [{low:g}, {high:g}], got {array[bad].flat[0]:g}")
    return array


def number(value: float, name: str, low: float = -np.inf, high: float = np.inf) -> float:
    """A single number of the closed interval from `low` to `high`."""
    array = within(value, name, low, high)
    if array.ndim != 0:
        raise ValueError(f"`{name}` must be a single number, got shape {array.shape}")
    return float(array)


def positive(value: float, name: str) -> float:
    """A single finite number above 0."""
    got = number(value, name)
    if got <= 0:
        raise ValueError(f"`{name}` must be positive, got {got:g}")
    return got


def open_unit(value: float, name: str) -> float:
    """A single number strictly between 0 and 1."""
    inside = number(value, name)
    if not 0 < inside < 1:
        raise ValueError(f"`{name}` must lie strictly between 0 and 1, got {inside:g}")
    return inside


def whole(value: int, name: str, low: int, high: int | None = None) -> int:
    """A single whole number from `low` to `high`."""
    if isinstance(value, bool):
        raise TypeError(f"`{name}` must be a whole number, got {value!r}")
    try:
        got = operator.index(value)
    except TypeError:
        raise TypeError(f"`{name}` must be a whole number, got {value!r}") from None
    if got < low or (high is not None and got > high):
        wanted = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"`{name}` must be {wanted}, got {got}")
    return got


def choice(value: Any, name: str, known: Iterable[str]) -> str:
    """One of the names."""
    names = list(known)
    if not isinstance(value, str) or value not in names:
        listed = ", ".join(f'"{n}"' for n in names)
        raise ValueError(f"`{name}` must be one of {listed}, got {value!r}")
    return value


# --- tensors --------------------------------------------------------------------------------------


def state(x: Any, name: str) -> Tensor:
    """A batch of finite floating-point states, shape (batch, …)."""
    from torch import Tensor

    if not isinstance(x, Tensor):
        raise TypeError(f"`{name}` must be a torch.Tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"`{name}` must have a floating dtype, got {x.dtype}")
    if x.ndim < 1 or x.numel() == 0:
        raise ValueError(f"`{name}` must have shape (batch, …), got {tuple(x.shape)}")
    if not all_finite(x):
        raise ValueError(f"`{name}` must be finite, got {not_finite(x)}")
    return x


def like(x: Any, other: Tensor, name: str, other_name: str) -> Tensor:
    """A tensor of the same shape, dtype and device as another."""
    from torch import Tensor

    if not isinstance(x, Tensor):
        raise TypeError(f"`{name}` must be a torch.Tensor, got {type(x).__name__}")
    for trait in ("shape", "dtype", "device"):
        mine, wanted = getattr(x, trait), getattr(other, trait)
        if mine != wanted:
            if trait == "shape":
                mine, wanted = tuple(mine), tuple(wanted)
            raise ValueError(
                f"`{name}` must have the {trait} of `{other_name}`, {wanted}, got {mine}"
            )
    return x


def generator(g: Any, name: str = "generator") -> torch.Generator:
    """A generator handed in by the caller; seeds and the global state are refused."""
    import torch

    if not isinstance(g, torch.Generator):
        raise TypeError(
            f"`{name}` must be a torch.Generator such as torch.Generator().manual_seed(0), "
            f"got {type(g).__name__}"
        )
    return g


def all_finite(x: Tensor) -> bool:
    """No NaN and no infinity; the sum is quick and shows both, and only a sum may overflow."""
    import torch

    return math.isfinite(x.sum().item()) or bool(torch.isfinite(x).all())


def not_finite(x: Tensor) -> str:
    """What a message says of a tensor that is not finite."""
    import torch

    bad = ~torch.isfinite(x)
    kind = "NaN" if torch.isnan(x).any() else "inf"
    return f"{kind} ({int(bad.sum())} of {x.numel()} numbers are not finite)"
