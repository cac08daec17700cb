"""What ``draw`` returns: panels of named series, and numbers to read out.

A `Panel` is filled by methods named after the mark (``line``, ``band``, ``bars``, ...). The
structure (panels, series, lengths, labels) is the same at all grid points; only numbers change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lib.book.explore import text
from lib.book.style import ROLES

SCALES = ("linear", "log", "log2")
PLACES = ("end", "peak", "key")
MAX_DECADES = 10  # of an automatic log axis: underflow must not flatten what matters


@dataclass(frozen=True)
class Series:
    """One mark. `channels` holds the arrays that its kind needs: x, y, and y2 of a band."""

    kind: str
    name: str
    role: str
    label: str
    label_at: str
    channels: dict[str, np.ndarray]  # each (m,)


@dataclass(frozen=True)
class Readout:
    """A number shown large above the panels.

    Parameters
    ----------
    value : float
        NaN shows as a dash.
    format : str
        See `lib.book.explore.text.check_format`.
    unit : str
        Follows the number.
    role : str
        Its colour, a key of `lib.book.style.ROLES`.
    log : bool
        The page interpolates its logarithm; for positive numbers that grow by factors.
    """

    value: float
    format: str = ".2f"
    unit: str = ""
    role: str = "ink"
    log: bool = False

    def __post_init__(self) -> None:
        text.check_format(self.format)
        _check_role(self.role)
        try:
            object.__setattr__(self, "value", float(self.value))
        except (TypeError, ValueError):
            raise TypeError(f"`value` must be one number, got {self.value!r}") from None
        if self.log and self.value <= 0:
            raise ValueError(f"`value` must be positive for a log readout, got {self.value}")

    def show(self) -> str:
        """The number and its unit as readers see them."""
        return f"{text.number(self.value, self.format)} {self.unit}".strip()


def check_readouts(readouts: Any) -> dict[str, Readout]:
    """Readouts by name; plain numbers become `Readout`."""
    if readouts is None:
        return {}
    if not isinstance(readouts, Mapping):
        raise TypeError(f"`readouts` must map names to Readout or numbers, got {readouts!r}")
    return {
        str(name): value if isinstance(value, Readout) else Readout(value)
        for name, value in readouts.items()
    }


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise ValueError(f"`role` must be one of {', '.join(ROLES)}, got {role!r}")


def _array(values: Any, name: str) -> np.ndarray:
    array = np.asarray(values.detach() if hasattr(values, "detach") else values)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "fiub":
        raise ValueError(
            f"`{name}` must be a non-empty array of real numbers with one axis, "
            f"got shape {array.shape} of {array.dtype}"
        )
    return array.astype(float)


@dataclass
class Panel:
    """One plot.

    Parameters
    ----------
    title, xlabel, ylabel : str
        May hold the markup of `lib.book.explore.text`.
    xscale, yscale : {"linear", "log", "log2"}
        "log2" has its ticks at powers of two. On a log axis 0 lies below everything, a negative
        number is a gap.
    xlim, ylim : (float or None, float or None), optional
        Fixed limits; None: over all grid points.
    xticks, yticks : mapping of float to str, optional
        Ticks with own texts.
    width : float
        Relative width where panels stand side by side.
    """

    title: str = ""
    xlabel: str = ""
    ylabel: str = ""
    xscale: str = field(default="linear", kw_only=True)
    yscale: str = field(default="linear", kw_only=True)
    xlim: tuple[float | None, float | None] | None = field(default=None, kw_only=True)
    ylim: tuple[float | None, float | None] | None = field(default=None, kw_only=True)
    xticks: Mapping[float, str] | None = field(default=None, kw_only=True)
    yticks: Mapping[float, str] | None = field(default=None, kw_only=True)
    width: float = field(default=1.0, kw_only=True)
    series: list[Series] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        for axis in "xy":
            scale, limits = getattr(self, f"{axis}scale"), getattr(self, f"{axis}lim")
            if scale not in SCALES:
                raise ValueError(f"`{axis}scale` must be one of {SCALES}, got {scale!r}")
            _check_limits(limits, scale, f"{axis}lim")
        if not (math.isfinite(self.width) and self.width > 0):
            raise ValueError(f"`width` must be positive, got {self.width}")

    def line(self, x: Any, y: Any, name: str, **look: Any) -> Panel:
        """A line through the points (x, y); NaN interrupts it."""
        return self._add("line", name, look, "end", x=x, y=y)

    def dashed(self, x: Any, y: Any, name: str, **look: Any) -> Panel:
        """A dashed line, for predictions and baselines."""
        return self._add("dashed", name, look, "end", x=x, y=y)

    def points(self, x: Any, y: Any, name: str, **look: Any) -> Panel:
        """Separate points."""
        return self._add("points", name, look, "key", x=x, y=y)

    def bars(self, x: Any, y: Any, name: str, **look: Any) -> Panel:
        """Bars from 0 (on a log axis from below) to y, as wide as the closest x allow."""
        return self._add("bars", name, look, "key", x=x, y=y)

    def area(self, x: Any, y: Any, name: str, **look: Any) -> Panel:
        """A line with the area below it filled."""
        return self._add("area", name, look, "key", x=x, y=y)

    def band(self, x: Any, low: Any, high: Any, name: str, **look: Any) -> Panel:
        """The range between low and high, for intervals."""
        return self._add("band", name, look, "key", x=x, y=low, y2=high)

    def hline(self, y: float, name: str, **look: Any) -> Panel:
        """A horizontal line across the panel."""
        return self._add("hline", name, look, "end", y=[_scalar(y, "y")])

    def vline(self, x: float, name: str, **look: Any) -> Panel:
        """A vertical line across the panel."""
        return self._add("vline", name, look, "end", x=[_scalar(x, "x")])

    def _add(self, kind: str, name: str, look: dict[str, Any], place: str, **data: Any) -> Panel:
        unknown = set(look) - {"role", "label", "label_at"}
        if unknown:
            raise TypeError(f"`{kind}` knows role, label and label_at, got {sorted(unknown)}")
        role, label = look.get("role", "theory"), look.get("label")
        place = look.get("label_at") or place
        _check_role(role)
        if place not in PLACES:
            raise ValueError(f"`label_at` must be one of {PLACES}, got {place!r}")
        if not isinstance(name, str) or not name or any(s.name == name for s in self.series):
            raise ValueError(
                f"`name` must be a text that no other series of the panel has, got {name!r}"
            )
        channels = {key: _array(values, key) for key, values in data.items()}
        lengths = {key: values.size for key, values in channels.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the arrays of `{name}` must have one length, got {lengths}")
        label = name if label is None else label
        self.series.append(Series(kind, name, role, label, place, channels))
        return self

    def structure(self) -> dict[str, Any]:
        """All that may not change over the grid."""
        facts: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("title", "xlabel", "ylabel", "xscale", "yscale", "xlim", "ylim", "width")
        }
        facts |= {name: dict(getattr(self, name) or {}) for name in ("xticks", "yticks")}
        facts["number of series"] = len(self.series)
        for i, s in enumerate(self.series):
            facts |= {
                f"series {i}, {name}": getattr(s, name)
                for name in ("kind", "name", "role", "label", "label_at")
            }
            facts |= {f"length of {key} in {s.name!r}": v.size for key, v in s.channels.items()}
        return facts


def _scalar(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` must be one number, got {value!r}") from None


def _check_limits(limits: Any, scale: str, name: str) -> None:
    if limits is None:
        return
    if len(limits) != 2:
        raise ValueError(f"`{name}` must be (low, high), got {limits!r}")
    given = [limit for limit in limits if limit is not None]
    if not all(math.isfinite(limit) for limit in given) or sorted(set(given)) != given:
        raise ValueError(f"`{name}` must be finite with low < high, got {limits!r}")
    if scale != "linear" and any(limit <= 0 for limit in given):
        raise ValueError(f"`{name}` must be positive on a log axis, got {limits!r}")


class Curves:
    """What a reader sees at one setting of the parameters.

    Parameters
    ----------
    *panels : Panel
        At least one.
    readouts : mapping of str to Readout or float, optional
        Large numbers above the panels, by name.
    """

    def __init__(self, *panels: Panel, readouts: Mapping[str, Readout | float] | None = None):
        if not panels or not all(isinstance(panel, Panel) for panel in panels):
            raise TypeError(f"`panels` must be one or more Panel, got {panels!r}")
        for panel in panels:
            if not panel.series:
                raise ValueError(f"panel {panel.title!r} must hold at least one series, got none")
        self.panels = panels
        self.readouts = check_readouts(readouts)

    def structure(self) -> dict[str, Any]:
        """All that may not change over the grid."""
        facts: dict[str, Any] = {"number of panels": len(self.panels)}
        for i, panel in enumerate(self.panels):
            facts |= {f"panel {i}, {key}": value for key, value in panel.structure().items()}
        return facts | readout_structure(self.readouts)


def readout_structure(readouts: Mapping[str, Readout]) -> dict[str, Any]:
    """Names and looks of the readouts."""
    looks = {f"readout {k!r}": (r.format, r.unit, r.role, r.log) for k, r in readouts.items()}
    return {"names of readouts": tuple(readouts)} | looks


def to_axis(values: np.ndarray, scale: str) -> np.ndarray:
    """Values in the space in which the axis is linear: themselves, or their log10."""
    if scale == "linear":
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10(values)


def limits_over(panels: list[Panel], axis: str) -> tuple[float, float]:
    """Limits of an axis, in axis space, that hold the same panel at all grid points.

    Parameters
    ----------
    panels : list of Panel
        One panel at each grid point; structure checked before.
    axis : {"x", "y"}
    """
    first = panels[0]
    scale = getattr(first, f"{axis}scale")
    given = getattr(first, f"{axis}lim") or (None, None)
    data = [
        to_axis(values, scale)
        for panel in panels
        for s in panel.series
        for key, values in s.channels.items()
        if key.startswith(axis)
    ]
    flat = np.concatenate([*data, np.empty(0)])  # hlines alone have no x
    flat = flat[np.isfinite(flat)]
    low, high = (flat.min(), flat.max()) if flat.size else (0.0, 1.0)
    low, high = _padded(first, axis, float(low), float(high), scale)
    bounds = [None if limit is None else to_axis(np.array(limit), scale) for limit in given]
    low = low if bounds[0] is None else float(bounds[0])
    high = high if bounds[1] is None else float(bounds[1])
    if not low < high:
        raise ValueError(
            f"the given limit of `{axis}lim` must leave room for the data of panel "
            f"{first.title!r}, got {given}, but in axis space they span {low:.4g} to {high:.4g}"
        )
    return low, high


def _padded(panel: Panel, axis: str, low: float, high: float, scale: str) -> tuple[float, float]:
    kinds = {s.kind for s in panel.series}
    if scale != "linear":
        low = max(low, high - MAX_DECADES)
    span = (high - low) or max(abs(high), 1.0) * (0.2 if scale == "linear" else 1.0)
    if axis == "y":
        from_zero = scale == "linear" and bool(kinds & {"bars", "area"})
        if from_zero:
            low, high = min(low, 0.0), max(high, 0.0)
            span = (high - low) or 1.0
        pad = 0.05 * span
        headroom = 3 * pad if any(s.label_at == "peak" for s in panel.series) else pad
        return (low if from_zero and low == 0 else low - pad), high + headroom
    if "bars" in kinds:
        widths = [
            spacing(to_axis(s.channels["x"], scale)) for s in panel.series if s.kind == "bars"
        ]
        pad = 0.5 * max(widths)
    else:
        pad = 0.03 * span if "points" in kinds or low == high else 0.0
    return low - pad, high + pad


def spacing(x: np.ndarray) -> float:
    """The smallest distance between neighbours, 1 for a single point: the room of a bar."""
    steps = np.diff(np.unique(x[np.isfinite(x)]))
    return float(steps.min()) if steps.size else 1.0
