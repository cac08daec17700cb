"""Plane densities to diffuse: rings, a spiral, two moons, and whatever can be drawn.

Each is a `Density` with mean 0 and mean variance 1: E[x] = 0 and E|x|² = 2, by the *exact*
moments of the density (not of the sample), with one factor for both coordinates, so that circles
stay circles.  Unit variance is what a noise schedule takes for granted of its data.
`picture` makes a density of any array of grey values, `letters` of a word, set in the font that
comes with matplotlib.  Left out: densities with a closed form at every noise level; these are
mixtures of Gaussians, in `lib.diffusion.mixture`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib import _checks as check

__all__ = ["Density", "letters", "moons", "picture", "rings", "spiral"]

Points = NDArray[np.float64]
Draw = Callable[[int, np.random.Generator], Points]


@dataclass(frozen=True)
class Density:
    """A density in the plane, with mean 0 and mean variance 1.

    Parameters
    ----------
    name : str
    draw : callable
        ``draw(n, rng)`` gives n independent points, shape (n, 2), before standardising.
    centre : tuple of two floats
        Exact mean of what `draw` gives.
    spread : float
        √(E|x - centre|² / 2) of it, positive.
    """

    name: str
    draw: Draw
    centre: tuple[float, float]
    spread: float

    def sample(self, n: int, rng: np.random.Generator) -> Points:
        """n independent points, shape (n, 2), float64.

        Parameters
        ----------
        n : int
            At least 1.
        rng : numpy Generator

        Raises
        ------
        TypeError, ValueError
            If `n` is not a whole number of at least 1, or `rng` not a numpy Generator.
        """
        n = check.whole(n, "n", 1)
        check.rng(rng)
        return (self.draw(n, rng) - self.centre) / self.spread


def rings(radii: ArrayLike = (1.0, 2.0, 3.0), thickness: float = 0.08) -> Density:
    """Concentric circles, uniform along their whole length, blurred by a Gaussian.

    Parameters
    ----------
    radii : array_like of shape (k,)
        Positive; only their ratios to each other and to `thickness` survive standardising.
    thickness : float
        Deviation of the blur in each coordinate, in the units of `radii`.
    """
    r = np.asarray(radii, dtype=np.float64)
    if r.ndim != 1 or r.size == 0:
        raise ValueError(f"`radii` must be one row of numbers, got shape {r.shape}")
    bad = ~(np.isfinite(r) & (r > 0))
    if bad.any():
        raise ValueError(f"`radii` must be positive and finite, got {r[bad][0]}")
    thickness = _real(thickness, "thickness", 0.0)
    share = r / r.sum()

    def draw(n: int, rng: np.random.Generator) -> Points:
        radius = rng.choice(r, size=n, p=share)
        return _polar(radius, rng.uniform(0.0, 2.0 * math.pi, n)) + _blur(n, thickness, rng)

    return _density("rings", draw, 0.0 + 0.0j, float(share @ r**2), thickness)


def spiral(turns: float = 2.0, arms: int = 2, thickness: float = 0.25) -> Density:
    """Archimedean spiral r = θ with one or more arms, thicker data where the arm is longer.

    Parameters
    ----------
    turns : float
        Full turns of an arm, which starts at θ = π/2.
    arms : int
        Copies of the arm, turned against each other by equal angles.
    thickness : float
        Deviation of the blur in each coordinate; neighbouring turns are 2π / arms apart.

    Notes
    -----
    θ has density ∝ θ (nearly uniform along the arm), so E r² = (θ_0² + θ_1²)/2, and the mean of
    a single arm is ∫θ² e^{iθ} dθ / ∫θ dθ; with more arms it is 0.
    """
    turns = _real(turns, "turns", 0.0, strict=True)
    arms = check.whole(arms, "arms", 1)
    thickness = _real(thickness, "thickness", 0.0)
    first, last = 0.5 * math.pi, (0.5 + 2.0 * turns) * math.pi

    def draw(n: int, rng: np.random.Generator) -> Points:
        theta = np.sqrt(rng.uniform(first**2, last**2, n))
        turned = theta + rng.integers(arms, size=n) * (2.0 * math.pi / arms)
        return _polar(theta, turned) + _blur(n, thickness, rng)

    def integral(theta: float) -> complex:  # of θ² e^{iθ}
        return complex(2.0 * theta, 2.0 - theta**2) * complex(math.cos(theta), math.sin(theta))

    mean = 0.0 + 0.0j
    if arms == 1:
        mean = (integral(last) - integral(first)) / (0.5 * (last**2 - first**2))
    return _density("spiral", draw, mean, 0.5 * (first**2 + last**2), thickness)


def moons(thickness: float = 0.08) -> Density:
    """Two interleaving half circles: the upper one around (0, 0), the lower around (1, ½).

    Parameters
    ----------
    thickness : float
        Deviation of the blur in each coordinate; the half circles have radius 1.
    """
    thickness = _real(thickness, "thickness", 0.0)

    def draw(n: int, rng: np.random.Generator) -> Points:
        arc = _polar(np.ones(n), rng.uniform(0.0, math.pi, n))
        lower = rng.random(n) < 0.5
        arc[lower] = (1.0, 0.5) - arc[lower]
        return arc + _blur(n, thickness, rng)

    # The halves have means 2i/π and 1 + i/2 - 2i/π, and E|z|² = 1 and 1 + 5/4 - 2/π.
    return _density("moons", draw, 0.5 + 0.25j, 1.0 + 0.625 - 1.0 / math.pi, thickness)


def picture(grey: ArrayLike, *, name: str = "picture", thickness: float = 0.0) -> Density:
    """A density of your own: each pixel of an array is a unit square, as dense as its value.

    Parameters
    ----------
    grey : array_like of shape (rows, columns)
        Not negative, not all 0; the first row is the top. Invert an image that is dark on white.
    name : str
    thickness : float
        Deviation of a blur in each coordinate, in pixels.

    Raises
    ------
    ValueError
        If `grey` is not such an array.
    """
    density = np.asarray(grey, dtype=np.float64)
    if density.ndim != 2 or density.size == 0:
        raise ValueError(f"`grey` must have shape (rows, columns), got {density.shape}")
    bad = ~(np.isfinite(density) & (density >= 0))
    if bad.any():
        raise ValueError(f"`grey` must be finite and not negative, got {density[bad][0]}")
    if not density.any():
        raise ValueError("`grey` must have a pixel above 0, got none")
    thickness = _real(thickness, "thickness", 0.0)
    row, column = np.nonzero(density)
    weight = density[row, column] / density.sum()
    centres = column + 1j * (density.shape[0] - 1 - row)  # mathematics counts upwards
    upto = np.cumsum(weight)

    def draw(n: int, rng: np.random.Generator) -> Points:
        pixel = np.searchsorted(upto, rng.random(n) * upto[-1], side="right")
        inside = rng.uniform(-0.5, 0.5, (n, 2))
        return _plane(centres[pixel]) + inside + _blur(n, thickness, rng)

    mean = complex(weight @ centres)
    power = float(weight @ np.abs(centres) ** 2) + 1.0 / 6.0  # each unit square adds 1/12 twice
    return _density(name, draw, mean, power, thickness)


def letters(word: str, *, pixels: int = 96, thickness: float = 0.0) -> Density:
    """The letters of a word, filled evenly.

    Parameters
    ----------
    word : str
        Any characters of DejaVu Sans Bold, which comes with matplotlib: Latin, Greek, Cyrillic,
        signs; no Chinese.
    pixels : int
        Rows of the raster that the word is drawn on; its edges are as fine as that.
    thickness : float
        Deviation of a blur in each coordinate, in pixels.

    Raises
    ------
    ValueError
        If the word holds nothing to draw, or a character that the font lacks.
    """
    if not isinstance(word, str):
        raise TypeError(f"`word` must be a string, got {type(word).__name__}")
    pixels = check.whole(pixels, "pixels", 8)
    return picture(_raster(word, pixels), name=word, thickness=thickness)


def _raster(word: str, rows: int) -> NDArray[np.bool_]:
    """Which pixel centres lie inside the word's outline."""
    # Imported here: the other densities do without matplotlib.
    from matplotlib.font_manager import FontProperties, findfont, get_font
    from matplotlib.path import Path
    from matplotlib.textpath import TextPath

    font = FontProperties(family="DejaVu Sans", weight="bold")
    known = get_font(findfont(font)).get_charmap()
    missing = [c for c in word if ord(c) not in known]
    if missing:
        raise ValueError(f"`word` must use characters of DejaVu Sans, which lacks {missing[0]!r}")
    if not word.strip():
        raise ValueError(f"`word` must hold something to draw, got {word!r}")
    outline = TextPath((0.0, 0.0), word, size=100, prop=font)
    box = outline.get_extents()
    size = box.height / rows
    x = np.arange(box.x0 + size / 2, box.x1, size)
    y = np.arange(box.y1 - size / 2, box.y0, -size)
    grid = np.stack(np.meshgrid(x, y), -1)  # (rows, columns, 2)
    # Path.contains_points would fill the hole of an "o": a point is inside a letter if it lies
    # within an odd number of its closed curves.
    curves = (Path(polygon) for polygon in outline.to_polygons())
    within = [curve.contains_points(grid.reshape(-1, 2)) for curve in curves]
    return np.logical_xor.reduce(within).reshape(grid.shape[:2])


def _density(name: str, draw: Draw, mean: complex, power: float, thickness: float) -> Density:
    """Standardised, from the mean and E|z|² before the blur adds 2 thickness²."""
    variance = power - abs(mean) ** 2 + 2.0 * thickness**2
    return Density(name, draw, (mean.real, mean.imag), math.sqrt(0.5 * variance))


def _polar(radius: Points, angle: Points) -> Points:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _plane(z: NDArray[np.complex128]) -> Points:
    return np.stack([z.real, z.imag], axis=1)


def _blur(n: int, thickness: float, rng: np.random.Generator) -> Points:
    return thickness * rng.standard_normal((n, 2))


def _real(value: float, name: str, least: float, *, strict: bool = False) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` must be a number, got {value!r}") from None
    if not math.isfinite(number) or number < least or (strict and number == least):
        wanted = "greater than" if strict else "at least"
        raise ValueError(f"`{name}` must be finite and {wanted} {least:g}, got {value!r}")
    return number
