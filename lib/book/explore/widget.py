"""The kernel's view of an explorer: plain ipywidgets, recomputed exactly at each value.

Only ``observe`` and an `ipywidgets.Image` are used: ``interact`` and ``Output`` capture output in a
way that notebook tests see as a difference.
"""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.book.explore import text
from lib.book.explore.parameters import Choice, Parameter, Slider

if TYPE_CHECKING:
    from lib.book.explore.explorer import Explorer

_STEPS = 1000  # of a continuous slider, far finer than the page's grid


def build(explorer: Explorer) -> Any:
    """A box with ``controls`` (by parameter), ``picture``, ``words`` and ``reset``."""
    import ipywidgets as widgets

    controls = {name: _control(p) for name, p in explorer.parameters.items()}
    picture = widgets.Image(format="png", layout=widgets.Layout(width="100%", max_width="52rem"))
    words = widgets.HTML()
    reset = widgets.Button(description="Reset", tooltip="Back to the first values")

    def refresh(_change: Any = None) -> None:
        values = {
            name: explorer.parameters[name].check(_value(explorer.parameters[name], control), name)
            for name, control in controls.items()
        }
        picture.value = explorer.still(**values)
        picture.alt = explorer.alt(**values)
        words.value = f"<p>{html.escape(picture.alt)}</p>"

    def restart(_button: Any) -> None:
        for name, control in controls.items():
            control.value = _start(explorer.parameters[name])

    for control in controls.values():
        control.observe(refresh, names="value")
    reset.on_click(restart)
    refresh()
    title = html.escape(text.plain(explorer.title))
    hint = html.escape(text.plain(explorer.hint))
    heading = widgets.HTML(f"<p><strong>{title}</strong><br>{hint}</p>")
    box = widgets.VBox([heading, picture, words, *controls.values(), reset])
    box.controls, box.picture, box.words, box.reset = controls, picture, words, reset
    return box


def _control(parameter: Parameter) -> Any:
    import ipywidgets as widgets

    label = text.plain(parameter.label)
    look: dict[str, Any] = {
        "description": label,
        "style": {"description_width": "14em"},
        "layout": widgets.Layout(width="100%", max_width="40rem"),
    }
    if isinstance(parameter, Choice):
        options = list(zip(parameter.texts, parameter.grid, strict=True))
        return widgets.Dropdown(options=options, value=parameter.start, **look)
    low, high = parameter.low, parameter.high
    if parameter.log and parameter.integer:
        # On a continuous slider most steps would round to the whole number they came from.
        apart = {round(v) for v in np.geomspace(low, high, _STEPS + 1)} | {int(parameter.start)}
        return widgets.SelectionSlider(options=sorted(apart), value=int(parameter.start), **look)
    if parameter.log:
        ends = (math.log10(low), math.log10(high))
        look |= {"min": ends[0], "max": ends[1], "step": (ends[1] - ends[0]) / _STEPS}
        return widgets.FloatLogSlider(
            value=float(parameter.start), base=10, readout_format=_d3(str(parameter.format)), **look
        )
    if parameter.integer:
        return widgets.IntSlider(value=int(parameter.start), min=int(low), max=int(high), **look)
    return widgets.FloatSlider(
        value=float(parameter.start),
        min=low,
        max=high,
        step=(high - low) / _STEPS,
        readout_format=_d3(str(parameter.format)),
        **look,
    )


def _d3(spec: str) -> str:
    """ipywidgets format numbers with d3, whose ``d`` refuses what isn't whole."""
    return ".0f" if spec == "d" else spec


def _start(parameter: Parameter) -> Any:
    return parameter.start


def _value(parameter: Parameter, control: Any) -> Any:
    """The control's value; 10 to a logarithm may miss the ends by a rounding error."""
    if isinstance(parameter, Slider):
        return min(max(control.value, parameter.low), parameter.high)
    return control.value
