"""What a reader can move: sliders over numbers, and choices.

A slider has a grid, on which ``draw`` is evaluated for the page, and a *coordinate* (the value or
its logarithm), in which the page interpolates between grid points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lib.book.explore import text

MAX_PARAMETERS = 3
MAX_GRID_POINTS = 250


@dataclass(frozen=True)
class Slider:
    """A number between `low` and `high`.

    Parameters
    ----------
    label : str
        Shown beside the slider; may hold the markup of `lib.book.explore.text`.
    low, high : float
        Ends, ``low < high``; positive if `log`.
    n : int
        Grid points, at least 2. Integer sliders drop points that round to the same value.
    start : float, optional
        First value and that of "Reset"; may lie between grid points. Default `low`.
    log : bool
        Equal steps multiply.
    integer : bool
        Only whole numbers.
    format : str, optional
        Format spec of the value, see `text.check_format`; by default fits the step.
    unit : str
        Follows the value.
    """

    label: str
    low: float
    high: float
    n: int = 21
    start: float | None = None
    log: bool = False
    integer: bool = False
    format: str | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.label, str) or not self.label.strip():
            raise ValueError(f"`label` must be a non-empty text, got {self.label!r}")
        for name in ("low", "high"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                raise TypeError(f"`{name}` must be a number, got {value!r}")
            if not math.isfinite(value):
                raise ValueError(f"`{name}` must be finite, got {value}")
            if self.integer and value != int(value):
                raise ValueError(f"`{name}` must be whole for an integer slider, got {value}")
        if not self.low < self.high:
            raise ValueError(f"`low` must be less than `high`, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"`low` must be positive for a log slider, got {self.low}")
        if isinstance(self.n, bool) or int(self.n) != self.n or self.n < 2:
            raise ValueError(f"`n` must be an integer of at least 2, got {self.n!r}")
        start = self.low if self.start is None else self.start
        if not self.low <= start <= self.high:
            raise ValueError(
                f"`start` must lie between {self.low} and {self.high}, got {self.start}"
            )
        if self.integer and start != int(start):
            raise ValueError(f"`start` must be whole for an integer slider, got {start}")
        object.__setattr__(self, "start", int(start) if self.integer else float(start))
        spec = self._fitting_format() if self.format is None else self.format
        object.__setattr__(self, "format", text.check_format(spec))

    def _fitting_format(self) -> str:
        if self.integer:
            return "d"
        if self.log:
            return ".3g"
        # About a hundred different values over the whole slider.
        return f".{max(0, math.ceil(1.7 - math.log10(self.high - self.low)))}f"

    @property
    def grid(self) -> list[Any]:
        """Grid values, ascending: ints for integer sliders, else floats."""
        space = np.geomspace if self.log else np.linspace
        values = space(self.low, self.high, int(self.n))
        if self.integer:
            return sorted({round(v) for v in values.tolist()})
        values[0], values[-1] = self.low, self.high
        return [float(v) for v in values]

    @property
    def axis(self) -> np.ndarray:
        """The grid in the coordinate that the page interpolates in."""
        return np.array([self.coordinate(v) for v in self.grid])

    def coordinate(self, value: float) -> float:
        """The value, or its logarithm where equal steps multiply."""
        return math.log(value) if self.log else float(value)

    def show(self, value: float) -> str:
        """The value as readers see it."""
        return f"{text.number(value, str(self.format))} {self.unit}".strip()

    def check(self, value: Any, name: str) -> Any:
        """`value` as ``draw`` gets it, or ValueError."""
        if not self.low <= value <= self.high:
            raise ValueError(f"`{name}` must lie between {self.low} and {self.high}, got {value}")
        return round(value) if self.integer else float(value)

    def spec(self, name: str) -> dict[str, Any]:
        """What the page needs to know."""
        return {
            "kind": "slider",
            "name": name,
            "label": self.label,
            "unit": self.unit,
            "format": self.format,
            "values": self.grid,
            "start": self.start,
            "log": self.log,
            "integer": self.integer,
        }


@dataclass(frozen=True)
class Choice:
    """One of a few options.

    Parameters
    ----------
    label : str
        Shown beside the list.
    options : sequence of str, or mapping
        Values; a mapping gives each value the text that readers see.
    start : optional
        First value, by default the first option.
    """

    label: str
    options: Sequence[str] | Mapping[Any, str]
    start: Any = None
    texts: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.label, str) or not self.label.strip():
            raise ValueError(f"`label` must be a non-empty text, got {self.label!r}")
        if isinstance(self.options, str) or len(self.options) < 2:
            raise ValueError(f"`options` must hold at least 2 options, got {self.options!r}")
        texts = (
            tuple(self.options.values())
            if isinstance(self.options, Mapping)
            else tuple(str(option) for option in self.options)
        )
        if len(set(self.options)) != len(self.options) or len(set(texts)) != len(texts):
            raise ValueError(f"`options` must differ from one another, got {self.options!r}")
        object.__setattr__(self, "texts", texts)
        if self.start is None:
            object.__setattr__(self, "start", next(iter(self.options)))
        elif self.start not in self.options:
            raise ValueError(f"`start` must be one of {list(self.options)}, got {self.start!r}")

    @property
    def grid(self) -> list[Any]:
        """All options."""
        return list(self.options)

    def show(self, value: Any) -> str:
        """The option as readers see it."""
        return self.texts[self.grid.index(value)]

    def check(self, value: Any, name: str) -> Any:
        """`value`, or ValueError."""
        if value not in self.grid:
            raise ValueError(f"`{name}` must be one of {self.grid}, got {value!r}")
        return value

    def spec(self, name: str) -> dict[str, Any]:
        """What the page needs to know."""
        return {
            "kind": "choice",
            "name": name,
            "label": self.label,
            "options": list(self.texts),
            "start": self.grid.index(self.start),
        }


Parameter = Slider | Choice


def check_parameters(parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """The parameters as a dict, or an error that says what is wrong with them."""
    if not isinstance(parameters, Mapping):
        raise TypeError(f"`parameters` must map names to Slider or Choice, got {parameters!r}")
    if not 1 <= len(parameters) <= MAX_PARAMETERS:
        raise ValueError(
            f"`parameters` must hold 1 to {MAX_PARAMETERS} parameters, got {len(parameters)}"
        )
    for name, parameter in parameters.items():
        if not isinstance(parameter, (Slider, Choice)):
            raise TypeError(f"`parameters[{name!r}]` must be a Slider or Choice, got {parameter!r}")
    sizes = {name: len(parameter.grid) for name, parameter in parameters.items()}
    total = math.prod(sizes.values())
    if total > MAX_GRID_POINTS:
        product = " × ".join(f"{size} ({name})" for name, size in sizes.items())
        raise ValueError(
            f"`parameters` must span at most {MAX_GRID_POINTS} grid points, "
            f"got {product} = {total}; lower `n`"
        )
    return dict(parameters)


def corners(
    parameters: Mapping[str, Parameter], values: Mapping[str, Any]
) -> list[tuple[tuple[int, ...], float]]:
    """Grid points around `values` and their multilinear weights (sum 1, none of them 0).

    Between the options of a choice nothing is interpolated.
    """
    found: list[tuple[tuple[int, ...], float]] = [((), 1.0)]
    for name, parameter in parameters.items():
        if isinstance(parameter, Choice):
            sides = [(parameter.grid.index(values[name]), 1.0)]
        else:
            axis, at = parameter.axis, parameter.coordinate(values[name])
            i = int(np.clip(np.searchsorted(axis, at, side="right") - 1, 0, len(axis) - 2))
            t = float(np.clip((at - axis[i]) / (axis[i + 1] - axis[i]), 0, 1))
            sides = [(j, w) for j, w in ((i, 1 - t), (i + 1, t)) if w > 0]
        found = [((*index, j), v * w) for index, v in found for j, w in sides if v * w > 0]
    return found
