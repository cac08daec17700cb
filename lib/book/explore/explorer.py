"""`explore`: evaluate, check, pack, and show a function of a few parameters."""

from __future__ import annotations

import html
import importlib.util
import itertools
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.book import style
from lib.book.explore import text
from lib.book.explore.curves import (
    Curves,
    Readout,
    check_readouts,
    limits_over,
    readout_structure,
    to_axis,
)
from lib.book.explore.drawing import curves_figure, png, write_readouts
from lib.book.explore.parameters import Parameter, Slider, check_parameters, corners
from lib.book.explore.quantise import Quantised, quantise, squeeze
from lib.book.svg import data_uri, webp

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_BYTES = 1_000_000
STILL_DPI = 140  # of the start picture, which is also what gets printed
STILL_WIDTH = 105  # CSS pixels per inch
FRAME_DPI = 150


def explore(
    draw: Callable[..., Any],
    parameters: Mapping[str, Parameter],
    *,
    alt: Callable[..., str],
    title: str,
    hint: str = "",
    play: str | None = None,
    frames: bool = False,
    size: tuple[float, float] = (3.6, 2.8),
) -> Explorer:
    """An explorer of a function; show it by making it the last expression of a cell.

    Parameters
    ----------
    draw : callable
        ``draw(**parameters)`` returns `Curves`; with `frames`, ``draw(fig, **parameters)`` draws
        into an empty figure and may return a mapping of readouts.
    parameters : mapping of str to Slider or Choice
        One to three, in the order in which the reader sees them.
    alt : callable
        ``alt(**parameters)`` says in a sentence, with numbers, what can be seen; it is what a
        screen reader announces.
    title, hint : str
        The hint is one sentence that says what to try.
    play : str, optional
        A slider that runs by itself when the reader presses "Play".
    frames : bool
        Store pictures instead of numbers: for scatter plots, heat maps, images.
    size : (float, float)
        Inches of a frame.

    Returns
    -------
    Explorer

    Raises
    ------
    ValueError
        If a budget is exceeded (3 parameters, 250 grid points, 1 MB), if the structure of what is
        drawn changes over the grid, or if a text is missing.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(0, 1, 50)
    >>> def draw(a):
    ...     return Curves(Panel().line(x, x**a, "power"), readouts={"middle": 0.5**a})
    >>> explore(draw, {"a": Slider("exponent", 1, 3, n=5)}, title="Powers",
    ...         alt=lambda a: f"The curve passes {0.5**a:.2f} at one half.")
    Explorer: Powers
    """
    parameters = check_parameters(parameters)
    _check_texts(draw, alt, title, hint)
    if play is not None and not isinstance(parameters.get(play), Slider):
        raise ValueError(f"`play` must name one of the sliders, got {play!r}")
    kind = _Frames if frames else _Numbers
    drawing = kind(draw, parameters, size)
    return Explorer(parameters, drawing, alt=alt, title=title, hint=hint, play=play)


def _check_texts(draw: Any, alt: Any, title: Any, hint: Any) -> None:
    for name, value in (("draw", draw), ("alt", alt)):
        if not callable(value):
            raise TypeError(f"`{name}` must be callable, got {value!r}")
    if not isinstance(title, str) or not title.strip():
        raise ValueError(f"`title` must be a non-empty text, got {title!r}")
    if not isinstance(hint, str):
        raise TypeError(f"`hint` must be a text, got {hint!r}")


def _points(parameters: Mapping[str, Parameter]) -> list[dict[str, Any]]:
    """All grid points, the last parameter running fastest."""
    grids = [parameter.grid for parameter in parameters.values()]
    return [dict(zip(parameters, values, strict=True)) for values in itertools.product(*grids)]


def _called(function: Callable[..., Any], *args: Any, **values: Any) -> Any:
    """Call, and add the parameter values to any error."""
    try:
        return function(*args, **values)
    except Exception as error:
        error.add_note(f"in an explorer, at {_say(values)}")
        raise


def _say(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{k} = {v:.6g}" if isinstance(v, float) else f"{k} = {v}" for k, v in values.items()
    )


def _same_structure(found: Mapping[str, Any], first: Mapping[str, Any], where: str) -> None:
    for key in [*first, *(key for key in found if key not in first)]:
        if found.get(key) != first.get(key):
            raise ValueError(
                f"`draw` must return the same structure at all grid points; {key} is "
                f"{first.get(key)!r} at the first one, but {found.get(key)!r} at {where}"
            )


class _Numbers:
    """Numeric curves, evaluated on the grid."""

    kind = "curves"

    def __init__(
        self, draw: Callable[..., Curves], parameters: dict[str, Parameter], _size: Any
    ) -> None:
        self.draw, self.parameters = draw, parameters
        points = _points(parameters)
        self.shape = tuple(len(parameter.grid) for parameter in parameters.values())
        all_curves = [self.curves(values) for values in points]
        self.first = first = all_curves[0]
        facts = first.structure()
        for curves, values in zip(all_curves, points, strict=True):
            _same_structure(curves.structure(), facts, _say(values))
        stacks = [[curves.panels[i] for curves in all_curves] for i in range(len(first.panels))]
        self.facts = facts
        self.limits = [(limits_over(panels, "x"), limits_over(panels, "y")) for panels in stacks]
        self.arrays = [
            self._quantised(panels, *limits)
            for panels, limits in zip(stacks, self.limits, strict=True)
        ]
        self.readouts = _stacked_readouts([c.readouts for c in all_curves], self.shape)

    def curves(self, values: Mapping[str, Any]) -> Curves:
        """What ``draw`` returns at any values."""
        curves = _called(self.draw, **values)
        if not isinstance(curves, Curves):
            raise TypeError(f"`draw` must return Curves, got {curves!r} at {_say(values)}")
        return curves

    def _quantised(
        self, panels: list[Any], xlim: tuple[float, float], ylim: tuple[float, float]
    ) -> list[dict[str, Quantised]]:
        first = panels[0]
        return [
            {
                key: quantise(
                    np.array(
                        [
                            to_axis(
                                panel.series[i].channels[key],
                                first.xscale if key == "x" else first.yscale,
                            )
                            for panel in panels
                        ]
                    ).reshape(*self.shape, -1),
                    xlim if key == "x" else ylim,
                )
                for key in series.channels
            }
            for i, series in enumerate(first.series)
        ]

    def figure(self, values: Mapping[str, Any]) -> Figure:
        """The exact picture at any values, in the limits of the whole grid."""
        curves = self.curves(values)
        _same_structure(curves.structure(), self.facts, _say(values))
        return curves_figure(curves, self.limits)

    def at(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What the page draws, in data units: interpolated between grid points."""
        around = corners(self.parameters, values)
        shown: dict[str, Any] = {}
        for panel, arrays in zip(self.first.panels, self.arrays, strict=True):
            for series, channels in zip(panel.series, arrays, strict=True):
                for key, stored in channels.items():
                    scale = panel.xscale if key == "x" else panel.yscale
                    found = stored.at(around)
                    name = (self.first.panels.index(panel), series.name, key)
                    shown[name] = found if scale == "linear" else 10.0**found
        return shown | _readouts_at(self.readouts, around)

    def spec(self) -> dict[str, Any]:
        """For the page."""
        panels = []
        for panel, limits, arrays in zip(self.first.panels, self.limits, self.arrays, strict=True):
            spec = {
                name: getattr(panel, name)
                for name in ("title", "xlabel", "ylabel", "xscale", "yscale", "width")
            }
            spec |= {"xlim": limits[0], "ylim": limits[1]}
            for axis in "xy":
                ticks = getattr(panel, f"{axis}ticks")
                scale = getattr(panel, f"{axis}scale")
                if ticks:
                    spec[f"{axis}ticks"] = [
                        [float(to_axis(np.array(float(at)), scale)), label]
                        for at, label in ticks.items()
                    ]
            spec["series"] = [
                {
                    "kind": s.kind,
                    "name": s.name,
                    "role": s.role,
                    "label": s.label,
                    "labelAt": s.label_at,
                    **{key: stored.spec() for key, stored in channels.items()},
                }
                for s, channels in zip(panel.series, arrays, strict=True)
            ]
            panels.append(spec)
        return {"panels": panels, "readouts": _readout_specs(self.readouts)}


class _Frames:
    """Finished pictures, one for each grid point and theme."""

    kind = "frames"

    def __init__(
        self, draw: Callable[..., Any], parameters: dict[str, Parameter], size: tuple[float, float]
    ) -> None:
        if len(size) != 2 or not all(np.isfinite(side) and side > 0 for side in size):
            raise ValueError(f"`size` must be two positive lengths in inches, got {size!r}")
        self.draw, self.parameters, self.size = draw, parameters, size
        self.light: list[str] = []
        self.dark: list[str] = []
        readouts = []
        total = 0
        points = _points(parameters)
        for values in points:
            fig, shown = self._drawn(values)
            readouts.append(shown)
            _same_structure(readout_structure(shown), readout_structure(readouts[0]), _say(values))
            self.light.append(_frame(fig))
            fig.set_layout_engine("none")  # the dark frame lies exactly over the light one
            style.recolour(fig, dark=True)
            self.dark.append(_frame(fig))
            total += len(self.light[-1]) + len(self.dark[-1])
            if total > MAX_BYTES:
                raise ValueError(
                    f"the frames of an explorer must fit into {MAX_BYTES:,} bytes; "
                    f"{len(self.light)} of {len(points)} frames in two themes take {total:,} "
                    f"already: use fewer grid points, a smaller `size`, or Curves"
                )
        self.readouts = _stacked_readouts(
            readouts, tuple(len(parameter.grid) for parameter in parameters.values())
        )

    def _drawn(self, values: Mapping[str, Any]) -> tuple[Figure, dict[str, Readout]]:
        fig = style.new_figure(*self.size)
        with style.context():
            shown = check_readouts(_called(self.draw, fig, **values))
        if not fig.axes:
            raise ValueError(f"`draw` must draw into the figure, found it empty at {_say(values)}")
        style.adopt(fig)
        return fig, shown

    def figure(self, values: Mapping[str, Any]) -> Figure:
        """The exact picture at any values."""
        fig, shown = self._drawn(values)
        with style.context():
            write_readouts(fig, shown)
        return fig

    def at(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Readouts as the page shows them."""
        return _readouts_at(self.readouts, corners(self.parameters, values))

    def spec(self) -> dict[str, Any]:
        """For the page; the dark frames only where they differ."""
        return {
            "width": self.size[0],
            "height": self.size[1],
            "light": self.light,
            "dark": None if self.dark == self.light else self.dark,
            "readouts": _readout_specs(self.readouts),
        }


def _frame(fig: Figure) -> str:
    picture = webp(png(fig, dpi=FRAME_DPI, opaque=False))
    return data_uri(picture, "image/webp").split(",", 1)[1]


def _stacked_readouts(
    readouts: list[dict[str, Readout]], shape: tuple[int, ...]
) -> dict[str, tuple[Readout, np.ndarray]]:
    """Each readout with its values over the grid, axes it doesn't depend on reduced to 1."""
    return {
        name: (
            first,
            squeeze(np.array([r[name].value for r in readouts]).reshape(*shape, 1)),
        )
        for name, first in readouts[0].items()
    }


def _readouts_at(
    readouts: Mapping[str, tuple[Readout, np.ndarray]],
    around: list[tuple[tuple[int, ...], float]],
) -> dict[str, float]:
    shown = {}
    for name, (look, values) in readouts.items():
        found = [
            values[tuple(min(i, n - 1) for i, n in zip(index, values.shape, strict=False))][0]
            for index, _ in around
        ]
        weights = np.array([weight for _, weight in around])
        mean = weights @ (np.log(found) if look.log else np.array(found))
        shown[name] = float(np.exp(mean) if look.log else mean)
    return shown


def _readout_specs(readouts: Mapping[str, tuple[Readout, np.ndarray]]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "format": look.format,
            "unit": look.unit,
            "role": look.role,
            "log": look.log,
            "shape": list(values.shape),
            "values": [
                float(f"{v:.9g}") if np.isfinite(v) else None for v in values.ravel().tolist()
            ],
        }
        for name, (look, values) in readouts.items()
    ]


class Explorer:
    """What `explore` returns. Displays itself: widgets with a kernel, an element in the page.

    Attributes
    ----------
    parameters : dict of str to Slider or Choice
    payload : dict
        What the page gets.
    html : str
        The ``<book-explorer>`` element with everything inside.
    """

    def __init__(
        self,
        parameters: dict[str, Parameter],
        drawing: _Numbers | _Frames,
        *,
        alt: Callable[..., str],
        title: str,
        hint: str,
        play: str | None,
    ) -> None:
        self.parameters, self._drawing = parameters, drawing
        self._alt, self.title, self.hint = alt, title, hint
        self.payload = {
            "kind": drawing.kind,
            "title": title,
            "hint": hint,
            "play": play,
            "parameters": [p.spec(name) for name, p in parameters.items()],
            "alt": [self.alt(**values) for values in _points(parameters)],
            **drawing.spec(),
        }
        self.html = self._html()
        size = len(self.html.encode())
        if size > MAX_BYTES:
            raise ValueError(
                f"an explorer must fit into {MAX_BYTES:,} bytes, got {size:,} with "
                f"{len(self.payload['alt'])} grid points: use fewer grid points or shorter arrays"
            )

    @property
    def start(self) -> dict[str, Any]:
        """The values that the explorer opens with."""
        return {name: parameter.start for name, parameter in self.parameters.items()}

    def _checked(self, values: Mapping[str, Any]) -> dict[str, Any]:
        if set(values) != set(self.parameters):
            raise ValueError(
                f"values must be given for {', '.join(self.parameters)}, got {sorted(values)}"
            )
        return {name: p.check(values[name], name) for name, p in self.parameters.items()}

    def alt(self, **values: Any) -> str:
        """The sentence that describes the picture at these values."""
        sentence = _called(self._alt, **self._checked(values))
        if not isinstance(sentence, str) or not any(c.isdigit() for c in sentence):
            raise ValueError(
                f"`alt` must return a sentence that states numbers, got {sentence!r} "
                f"at {_say(values)}"
            )
        return sentence

    def still(self, **values: Any) -> bytes:
        """The exact picture at any values, on or off the grid, as PNG."""
        return png(self._drawing.figure(self._checked(values)), dpi=STILL_DPI)

    def at(self, **values: Any) -> dict[Any, Any]:
        """What the page shows at these values, interpolated from the grid.

        Keys are ``(panel, series, "x" | "y" | "y2")`` for arrays, and the names of readouts.
        """
        return self._drawing.at(self._checked(values))

    def _html(self) -> str:
        alt = html.escape(self.alt(**self.start))
        still = self.still(**self.start)
        picture = data_uri(webp(still), "image/webp")
        width = int.from_bytes(still[16:20]) * STILL_WIDTH // STILL_DPI  # from the PNG's header
        title = text.plain(self.title)
        title += "" if title.endswith(("?", "!", ".")) else "."
        # "<" is written as an escape, so that no text can end the script element.
        data = json.dumps(self.payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        data = data.replace("<", "\\u003c")
        return (
            f'<book-explorer><figure class="book-explorer-still">'
            f'<img src="{picture}" alt="{alt}" width="{width}" style="max-width:100%">'
            f"<figcaption><strong>{html.escape(title)}</strong> {alt}"
            f'</figcaption></figure><script type="application/json">{data}</script>'
            f"</book-explorer>"
        )

    def widget(self) -> Any:
        """The kernel's view: ipywidgets whose picture is computed anew at the exact values."""
        from lib.book.explore.widget import build

        return build(self)

    def __repr__(self) -> str:
        return f"Explorer: {text.plain(self.title)}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle = {"text/html": self.html, "text/plain": repr(self)}
        if _kernel_runs():
            view = self.widget()._repr_mimebundle_()
            kind = "application/vnd.jupyter.widget-view+json"
            bundle[kind] = view[kind]
        return bundle


def _kernel_runs() -> bool:
    """Whether this is a Jupyter kernel with ipywidgets, so that widgets have someone to talk to."""
    if (
        importlib.util.find_spec("IPython") is None
        or importlib.util.find_spec("ipywidgets") is None
    ):
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None
