"""Curves as a matplotlib picture: the kernel's view, print, and readers without scripts."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.book import style
from lib.book.explore.curves import Curves, Panel, Readout, Series, spacing, to_axis
from lib.book.explore.text import mathtext

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Limits = Sequence[tuple[tuple[float, float], tuple[float, float]]]  # (x, y) of each panel


def curves_figure(curves: Curves, limits: Limits) -> Figure:
    """Draw all panels side by side, under the readouts.

    Parameters
    ----------
    curves : Curves
    limits : sequence of ((x_low, x_high), (y_low, y_high))
        In axis space, one per panel.
    """
    count = len(curves.panels)
    fig = style.new_figure(min(5.6 + 1.9 * (count - 1), 9.4), 3.3)
    with style.context():
        ratios = [panel.width for panel in curves.panels]
        axes = fig.subplots(1, count, squeeze=False, width_ratios=ratios)[0]
        for ax, panel, (xlim, ylim) in zip(axes, curves.panels, limits, strict=True):
            _draw_panel(ax, panel, xlim, ylim)
        write_readouts(fig, curves.readouts)
    style.adopt(fig)
    return fig


def write_readouts(fig: Figure, readouts: Mapping[str, Readout]) -> None:
    """The readouts in one line above everything."""
    if readouts:
        texts = [f"{mathtext(k)} {mathtext(r.show())}" for k, r in readouts.items()]
        fig.suptitle("      ".join(texts), x=0.01, ha="left", fontsize=style.FONT_SIZE + 2)


def png(fig: Figure, *, dpi: float, dark: bool = False, opaque: bool = True) -> bytes:
    """A picture of the figure, on the page's paper if `opaque`; the same bytes each time."""
    role = style.ROLES["paper"]
    buffer = io.BytesIO()
    with style.context():
        fig.savefig(
            buffer,
            format="png",
            dpi=dpi,
            metadata={"Software": None},
            facecolor=(role.dark if dark else role.light) if opaque else "none",
        )
    return buffer.getvalue()


def _draw_panel(
    ax: Axes, panel: Panel, xlim: tuple[float, float], ylim: tuple[float, float]
) -> None:
    style.tidy(ax)
    for axis, scale, limits in (("x", panel.xscale, xlim), ("y", panel.yscale, ylim)):
        if scale != "linear":
            getattr(ax, f"set_{axis}scale")("log", base=2 if scale == "log2" else 10)
            limits = (10 ** limits[0], 10 ** limits[1])
        getattr(ax, f"set_{axis}lim")(*limits)
        ticks = getattr(panel, f"{axis}ticks")
        if ticks:
            texts = [mathtext(text) for text in ticks.values()]
            getattr(ax, f"set_{axis}ticks")(list(ticks), texts)
            getattr(ax, f"{axis}axis").set_minor_locator(_no_ticks())
        elif scale == "log" and np.log10(limits[1] / limits[0]) > 1.4:
            getattr(ax, f"{axis}axis").set_minor_locator(_no_ticks())
        elif scale == "log2":
            getattr(ax, f"{axis}axis").set_minor_locator(_no_ticks())
            getattr(ax, f"{axis}axis").set_major_formatter("{x:g}")
    ax.set_xlabel(mathtext(panel.xlabel))
    ax.set_ylabel(mathtext(panel.ylabel))
    ends, keys = [], []
    for series in panel.series:
        mark = _draw_series(ax, series, panel, ylim)
        if series.label and series.kind != "vline":
            mark.set_label(mathtext(series.label))
            (keys if series.label_at == "key" else ends).append(mark)
    if ends:
        style.label_lines(ax, ends)
    if keys:
        ax.legend(
            handles=keys,
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
            ncols=len(keys),
            borderaxespad=0.2,
            handlelength=1.1,
            columnspacing=1.2,
            handletextpad=0.5,
        )
    if panel.title:
        ax.set_title(mathtext(panel.title), loc="left", pad=21 if keys else 5)


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _draw_series(ax: Axes, series: Series, panel: Panel, ylim: tuple[float, float]) -> Any:
    x, y = series.channels.get("x"), series.channels.get("y")
    color, role = style.colour(series.role), series.role
    floor = 0.0 if panel.yscale == "linear" else 10 ** (ylim[0] - 1)
    if panel.yscale != "linear" and y is not None:
        y = np.where(y == 0, floor, y)
    if series.kind in ("line", "dashed"):
        return style.line(ax, x, y, role, dashed=series.kind == "dashed")
    if series.kind == "points":
        return style.points(ax, x, y, role)
    if series.kind == "bars":
        half = 0.41 * spacing(to_axis(x, panel.xscale))
        if panel.xscale == "linear":
            left, right = x - half, x + half
        else:
            left, right = x * 10**-half, x * 10**half
        return ax.bar(left, y - floor, right - left, floor, align="edge", color=color, alpha=0.75)
    if series.kind == "area":
        ax.fill_between(x, floor, y, color=color, alpha=0.17, linewidth=0)
        return style.line(ax, x, y, role)
    if series.kind == "band":
        return style.band(ax, x, y, series.channels["y2"], role)
    rule = {"color": color, "linewidth": 1.1, "linestyle": (0, (3, 2))}
    if series.kind == "hline":
        return ax.axhline(y[0], **rule)
    mark = ax.axvline(x[0], **rule)
    if series.label:
        place = {"xycoords": ax.get_xaxis_transform(), "textcoords": "offset points"}
        ax.annotate(
            mathtext(series.label),
            (x[0], 1),
            (3, -3),
            va="top",
            color=color,
            annotation_clip=True,
            clip_on=True,
            **place,
        )
    return mark
