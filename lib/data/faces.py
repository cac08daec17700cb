"""Smileys authored for this book: 16 × 16 pixels from eight numbers, with a renderer that is known.

The numbers are independent and standard normal, so the data have one mode: the average face, at 0.
Paper is -1, skin 0 and ink +1; edges are smooth, and so is every pixel as a function of the
numbers.  Since the renderer is known, a picture can be judged without a data set to compare it
with: `fit` finds the face that comes closest, and what is left over is no face.  Left out: colour,
shading, and everything that makes a face a person's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib import _checks as check
from lib._checks import Floats

__all__ = ["NAMES", "SIDE", "Faces", "draw", "faces", "fit"]

SIDE = 16  # pixels
NAMES = (
    "size",
    "elongation",
    "eye distance",
    "eye height",
    "eye size",
    "mouth width",
    "mouth curve",
    "mouth height",
)
REACH = 4.0  # where `fit` stops looking: beyond lies one normal number in 16,000
SHARPNESS = 1.5  # of an edge: from 18 % to 82 % of the ink within one pixel
CHUNK = 2048  # images fitted at once: their slopes take 34 MB
STEP = 1e-6  # of a difference quotient, in deviations of a parameter
_AXIS = np.linspace(-(SIDE - 1) / 2, (SIDE - 1) / 2, SIDE)  # of pixel centres, 0 in the middle
_Y, _X = (grid.ravel() for grid in np.meshgrid(_AXIS, _AXIS, indexing="ij"))


@dataclass(frozen=True, eq=False, repr=False)
class Faces:
    """Images in [-1, 1] with the numbers that they were drawn from.

    Attributes
    ----------
    images : ndarray of float32, shape (N, 16, 16)
    parameters : ndarray of float64, shape (N, 8)
        In the order of `NAMES`.
    """

    images: NDArray[np.float32]
    parameters: Floats

    def __len__(self) -> int:
        return len(self.parameters)

    def __repr__(self) -> str:
        return f"Faces({len(self)} images of {SIDE} × {SIDE})"


def faces(count: int, rng: np.random.Generator) -> Faces:
    """Faces of independent standard normal parameters.

    Parameters
    ----------
    count : int
        At least 1.
    rng : numpy Generator

    Returns
    -------
    Faces

    Raises
    ------
    TypeError, ValueError
        If `count` is not a whole number of at least 1, or `rng` not a numpy Generator.
    """
    count = check.whole(count, "count", 1)
    check.rng(rng)
    parameters = rng.standard_normal((count, len(NAMES)))
    return Faces(draw(parameters).astype(np.float32), parameters)


def draw(parameters: ArrayLike) -> Floats:
    """The faces of given numbers.

    Parameters
    ----------
    parameters : array_like of shape (N, 8)
        In units of their standard deviation, in the order of `NAMES`; all 0 is the average face.

    Returns
    -------
    ndarray of float64, shape (N, 16, 16)
        In [-1, 1].
    """
    p = check.reals(parameters, "parameters")
    if p.ndim != 2 or p.shape[1] != len(NAMES) or len(p) == 0:
        raise ValueError(f"`parameters` must have shape (N, {len(NAMES)}), got {p.shape}")
    return _draw(p).reshape(-1, SIDE, SIDE)


def fit(images: ArrayLike, *, steps: int = 8) -> tuple[Floats, Floats]:
    """The face nearest to each image: Levenberg's least squares, from the average face.

    Parameters
    ----------
    images : array_like of shape (N, 16, 16)
        Any finite numbers.
    steps : int
        Trial steps, of which only those that bring the face closer are taken.

    Returns
    -------
    parameters : ndarray of shape (N, 8)
        Within -4 and 4.
    residual : ndarray of shape (N,)
        Root mean square over the pixels of what the face leaves unexplained; 0 for a face.
    """
    x = check.reals(images, "images")
    if x.ndim != 3 or x.shape[1:] != (SIDE, SIDE) or len(x) == 0:
        raise ValueError(f"`images` must have shape (N, {SIDE}, {SIDE}), got {x.shape}")
    steps = check.whole(steps, "steps", 1)
    chunks = [x[start : start + CHUNK] for start in range(0, len(x), CHUNK)]
    fitted = [_fit(chunk.reshape(len(chunk), -1), steps) for chunk in chunks]
    parameters, residual = (np.concatenate(parts) for parts in zip(*fitted, strict=True))
    return parameters, residual


def _fit(x: Floats, steps: int) -> tuple[Floats, Floats]:
    """`fit` of rows (N, 256)."""
    p = np.zeros((len(x), len(NAMES)))
    damping = np.full(len(x), 1.0)
    left = x - _draw(p)
    error = (left**2).mean(axis=1)
    for _ in range(steps):
        slope = _slope(p)
        normal = slope @ slope.transpose(0, 2, 1)
        normal += damping[:, None, None] * np.eye(len(NAMES))
        move = np.linalg.solve(normal, slope @ left[..., None])[..., 0]
        trial = np.clip(p + move, -REACH, REACH)
        rest = x - _draw(trial)
        squares = (rest**2).mean(axis=1)
        better = squares < error
        p[better], left[better], error[better] = trial[better], rest[better], squares[better]
        damping *= np.where(better, 0.2, 5.0)
    return p, np.sqrt(error)


def _draw(p: Floats) -> Floats:
    """(N, 8) -> (N, 256), unchecked."""
    return _painted(_skin(p), _eyes(p), _mouth(p))


def _painted(skin: Floats, eyes: Floats, mouth: Floats) -> Floats:
    """Paper, skin on it, ink on both, from the share of each pixel that they cover."""
    bare = skin - 1.0
    ink = 1.0 - (1.0 - eyes) * (1.0 - mouth)
    return bare + (1.0 - bare) * ink


def _skin(p: Floats) -> Floats:
    """An ellipse whose area does not depend on its elongation."""
    size, elongation = p[:, 0, None], p[:, 1, None]
    radius = 5.9 * np.exp(0.07 * size)
    stretch = np.exp(0.05 * elongation)
    return _inside(radius - np.sqrt((_X * stretch) ** 2 + (_Y / stretch) ** 2))


def _eyes(p: Floats) -> Floats:
    """Two discs."""
    apart, height, size = p[:, 2, None], p[:, 3, None], p[:, 4, None]
    x, y = np.abs(_X) - (2.3 + 0.3 * apart), _Y - (-1.6 + 0.35 * height)
    return _inside(np.exp(0.15 * size) - np.sqrt(x**2 + y**2))


def _mouth(p: Floats) -> Floats:
    """A stroke along a parabola."""
    width, curve, height = p[:, 5, None], p[:, 6, None], p[:, 7, None]
    half = 2.7 * np.exp(0.15 * width)
    arc = 2.4 + 0.35 * height + (0.8 + 0.8 * curve) * (0.4 - (_X / half) ** 2)
    return _inside(0.6 - np.abs(_Y - arc)) * _inside(half - np.abs(_X))


def _slope(p: Floats) -> Floats:
    """∂pixel/∂parameter, (N, 8) -> (N, 8, 256): by the chain rule, each part by differences."""
    skin, eyes, mouth = _skin(p), _eyes(p), _mouth(p)
    paler = 2.0 - skin
    parts = (
        (_skin, skin, (0, 1), (1.0 - eyes) * (1.0 - mouth)),
        (_eyes, eyes, (2, 3, 4), paler * (1.0 - mouth)),
        (_mouth, mouth, (5, 6, 7), paler * (1.0 - eyes)),
    )
    slope = np.empty((len(p), len(NAMES), SIDE**2))
    for part, now, columns, weight in parts:
        for j in columns:
            moved = p.copy()
            moved[:, j] += STEP
            slope[:, j] = (part(moved) - now) / STEP * weight
    return slope


def _inside(depth: Floats) -> Floats:
    """Share of a pixel that is covered, at a depth in pixels below the edge."""
    return 0.5 + 0.5 * np.tanh(SHARPNESS * depth)
