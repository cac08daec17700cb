"""One look for all figures: a colour per role, direct labels, one SVG for light and dark.

Notation: a *role* says what a mark means (theory line, measured points, baseline, ...); its colour
is fixed in the whole book. Figures are drawn in the light colours; in the page every one of them
becomes a CSS variable (``var(--book-theory, #1b5e8a)``), so that one payload serves both themes.
Leaves out: what moves, see `lib.book.explore`.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text


class Role(NamedTuple):
    """The colour of a role in the light and in the dark theme, and its CSS variable."""

    light: str
    dark: str
    variable: str


def _roles(**colours: tuple[str, str]) -> dict[str, Role]:
    names = {key: key.replace("_", "-") for key in colours}
    return {names[key]: Role(*pair, f"--book-{names[key]}") for key, pair in colours.items()}


ROLES: dict[str, Role] = _roles(
    theory=("#1b5e8a", "#7cc0ea"),
    measured=("#c2410c", "#f59e6b"),
    baseline=("#6b7280", "#a3abb8"),
    article=("#0f766e", "#5fd0c0"),
    extra=("#7c3aed", "#bfa2ff"),
    accent=("#8a3b12", "#f2b48c"),
    good=("#166534", "#86d9a3"),
    bad=("#b42318", "#ff9a8f"),
    unsure=("#854d0e", "#e8c26a"),
    ink=("#1f2328", "#e7e5df"),
    ink_soft=("#57606a", "#b3afa6"),
    rule=("#d9d2c3", "#3a3f47"),
    paper=("#fffdf8", "#16181c"),
    card=("#f7f3ea", "#1e2127"),
)

SEQUENTIAL = "book-sequential"
DIVERGING = "book-diverging"
_COLOUR_MAPS = {  # low to high; a low value fades into the card in either theme
    SEQUENTIAL: ("#f7f3ea", "#9fc3d9", "#1b5e8a", "#0b2f47"),
    SEQUENTIAL + "-dark": ("#1e2127", "#27516c", "#7cc0ea", "#e3f3fd"),
    DIVERGING: ("#1b5e8a", "#9fc3d9", "#f7f3ea", "#eeb18e", "#c2410c"),
    DIVERGING + "-dark": ("#7cc0ea", "#2c5670", "#1e2127", "#7d4526", "#f59e6b"),
}

FONT_SIZE = 10.0  # points; matplotlib's own default, so that text made outside agrees
WIDTH, HEIGHT = 5.4, 3.2  # inches of a single panel


def colour(role: str) -> str:
    """The light colour of a role, as ``#rrggbb``: the one that figures are drawn in.

    Parameters
    ----------
    role : str
        A key of `ROLES`.
    """
    return _role(role).light


def _role(role: str) -> Role:
    try:
        return ROLES[role]
    except (KeyError, TypeError):
        raise ValueError(f"`role` must be one of {', '.join(ROLES)}, got {role!r}") from None


# --- setting up -------------------------------------------------------------------------------


@cache
def _families() -> list[str]:
    """The page's font where the site has vendored it, then matplotlib's own.

    The fonts are looked for below the root of the repository that this file lies in.
    """
    from matplotlib import font_manager

    names: list[str] = []
    folder = Path(__file__).resolve().parents[2] / "_build" / "vendor" / "fonts"
    for path in sorted(folder.glob("*.ttf")) if folder.is_dir() else []:
        try:
            name = font_manager.get_font(str(path)).family_name
            font_manager.fontManager.addfont(str(path))
        except (RuntimeError, OSError):  # not a font that FreeType can read
            continue
        names.append(name)
    sans = [name for name in names if "sans" in name.lower()]
    return [*dict.fromkeys(sans), "DejaVu Sans"]


def _math_fonts() -> dict[str, str]:
    """Symbols in the page's font, what it lacks in DejaVu's."""
    name = _families()[0]
    if name == "DejaVu Sans":
        return {"mathtext.fontset": "dejavusans"}
    return {
        "mathtext.fontset": "custom",
        "mathtext.fallback": "stixsans",
        **{f"mathtext.{key}": name for key in ("rm", "sf", "tt", "cal")},
        "mathtext.it": f"{name}:italic",
        **{f"mathtext.{key}": f"{name}:bold" for key in ("bf", "bfit")},
    }


@cache
def _register_colour_maps() -> None:
    import matplotlib as mpl
    from matplotlib.colors import LinearSegmentedColormap

    for name, colours in _COLOUR_MAPS.items():
        if name not in mpl.colormaps:
            mpl.colormaps.register(LinearSegmentedColormap.from_list(name, list(colours)))


def _settings() -> dict[str, Any]:
    from cycler import cycler

    ink, soft = colour("ink"), colour("ink-soft")
    order = ("theory", "measured", "article", "extra", "baseline", "accent")
    return {
        "font.family": _families(),
        "font.size": FONT_SIZE,
        "axes.titlesize": FONT_SIZE + 0.5,
        "axes.titlelocation": "left",
        "axes.titlecolor": ink,
        "axes.titlepad": 5,
        "axes.labelsize": FONT_SIZE,
        "axes.labelcolor": soft,
        "axes.labelpad": 3,
        "axes.edgecolor": soft,
        "axes.linewidth": 0.6,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=[colour(role) for role in order]),
        "axes.unicode_minus": True,
        "axes.formatter.use_mathtext": True,
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
        "savefig.edgecolor": "none",
        "grid.color": colour("rule"),
        "grid.linewidth": 0.5,
        "legend.frameon": False,
        "legend.fontsize": FONT_SIZE - 0.5,
        "lines.linewidth": 1.7,
        "lines.solid_capstyle": "round",
        "text.color": ink,
        "ytick.alignment": "center",  # by the font's own line height, which is not the digits'
        "xtick.color": soft,
        "ytick.color": soft,
        "xtick.labelsize": FONT_SIZE - 1,
        "ytick.labelsize": FONT_SIZE - 1,
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "xtick.minor.size": 1.5,
        "ytick.minor.size": 1.5,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.minor.width": 0.4,
        "ytick.minor.width": 0.4,
        **_math_fonts(),
        "path.simplify": True,
        "path.simplify_threshold": 0.4,
        "svg.fonttype": "path",
        "svg.hashsalt": "book",
        "image.cmap": SEQUENTIAL,
    }


@contextmanager
def context() -> Iterator[None]:
    """Matplotlib's settings of the book inside the ``with``, the old ones after it."""
    import matplotlib as mpl

    _register_colour_maps()
    with mpl.rc_context(_settings()):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in the book's look, `width` × `height` inches, unknown to pyplot."""
    from matplotlib.figure import Figure

    with context():
        return Figure(figsize=(width, height), layout="constrained")


def figure(
    rows: int = 1,
    columns: int = 1,
    *,
    width: float | None = None,
    height: float | None = None,
    **subplots: Any,
) -> tuple[Figure, Any]:
    """A figure and its axes in the book's look.

    Parameters
    ----------
    rows, columns : int
        Panels. Panels of one row are stacked on narrow screens.
    width, height : float, optional
        Inches; by default 5.4 × 3.2 for one panel, 7.2 wide for several columns.
    **subplots
        Passed to ``Figure.subplots`` (``sharex``, ``sharey``, ``width_ratios``, ...).

    Returns
    -------
    fig : Figure
    ax : Axes, or array of Axes as from ``Figure.subplots``
    """
    if rows < 1 or columns < 1:
        raise ValueError(f"`rows` and `columns` must be at least 1, got {rows} and {columns}")
    wide = WIDTH if columns == 1 else 7.2
    tall = (HEIGHT if columns == 1 else 2.9) if rows == 1 else 2.5 * rows
    fig = new_figure(wide if width is None else width, tall if height is None else height)
    with context():
        axes = fig.subplots(rows, columns, **subplots)
    for ax in fig.axes:
        tidy(ax)
    return fig, axes


def tidy(ax: Axes) -> Axes:
    """Give axes made elsewhere the book's spines, ticks and a light horizontal grid."""
    soft = colour("ink-soft")
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(linewidth=0.6, color=soft)
    with context():  # ticks are made on first use, with the settings of that moment
        ax.tick_params(which="both", color=soft, labelcolor=soft, labelsize=FONT_SIZE - 1)
        ax.set_axisbelow(True)
        ax.grid(axis="y", color=colour("rule"), linewidth=0.5)
    return ax


# --- marks ------------------------------------------------------------------------------------


def line(
    ax: Axes, x: Any, y: Any, role: str, label: str | None = None, *, dashed: bool = False
) -> Any:
    """A line in a role's colour; baselines and predictions are best dashed."""
    style = (0, (4, 2.2)) if dashed else "-"
    (artist,) = ax.plot(x, y, color=colour(role), linestyle=style, linewidth=1.7, label=label)
    return artist


def points(
    ax: Axes, x: Any, y: Any, role: str, label: str | None = None, *, size: float = 4
) -> Any:
    """Points with a thin paper-coloured edge, so that they stay apart where they touch."""
    edge = colour("paper")
    (artist,) = ax.plot(
        x, y, "o", color=colour(role), markersize=size, mec=edge, mew=0.6, label=label, zorder=3
    )
    return artist


def band(ax: Axes, x: Any, low: Any, high: Any, role: str, label: str | None = None) -> Any:
    """An interval, low ≤ high, as a pale band in the role's colour."""
    return ax.fill_between(x, low, high, color=colour(role), alpha=0.17, linewidth=0, label=label)


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move positions as little as needed until neighbours are `gap` apart, within [low, high].

    Clusters of labels that touch are merged and laid out around their mean, the least-squares
    solution of the spacing problem; if there is no room for all, they are spaced evenly.
    """
    order = sorted(range(len(positions)), key=lambda i: (positions[i], i))
    room = (high - low) / max(len(order) - 1, 1)
    gap = min(gap, room)
    clusters: list[list[float]] = []  # [mean of (position - offset), size]
    for rank, i in enumerate(order):
        start = min(max(positions[i], low), high) - rank * gap
        clusters.append([start, 1.0])
        while len(clusters) > 1 and clusters[-2][0] > clusters[-1][0]:
            (a, m), (b, n) = clusters[-2:]
            clusters[-2:] = [[(a * m + b * n) / (m + n), m + n]]
    starts = [mean for mean, size in clusters for _ in range(int(size))]
    last = (len(order) - 1) * gap
    moved = [0.0] * len(order)
    for rank, i in enumerate(order):
        moved[i] = min(max(starts[rank], low), high - last) + rank * gap
    return moved


@cache
def _end_labels_class() -> type:
    """The artist behind `label_lines`, made on first use so that importing needs no matplotlib."""
    from matplotlib.artist import Artist
    from matplotlib.transforms import Bbox, IdentityTransform

    class EndLabels(Artist):
        """Labels right of the axes, at the heights where their marks end.

        They are placed at each drawing, since only then is the size of the axes known.
        """

        def __init__(self, ax: Axes, handles: list[Any], labels: list[str]) -> None:
            from matplotlib.text import Text

            super().__init__()
            self.set_figure(ax.figure)
            self.axes = ax
            self.set_clip_on(False)  # else the layout takes the labels for clipped and adds no room
            self.handles = handles
            self.texts = [
                Text(0, 0, text, color=_mark_colour(mark), va="center", fontsize=FONT_SIZE - 0.5)
                for mark, text in zip(handles, labels, strict=True)
            ]
            for text in self.texts:
                text.set_figure(ax.figure)
                text.set_transform(IdentityTransform())

        def get_children(self) -> list[Text]:
            return self.texts

        def _place(self, renderer: Any) -> None:
            box = self.axes.get_window_extent(renderer)
            height = max(text.get_window_extent(renderer).height for text in self.texts)
            pad = 5 * self.figure.dpi / 72
            ends = [_end_point(mark, self.axes) for mark in self.handles]
            # A mark that stops well before the right edge is labelled where it stops.
            outside = [i for i, (x, _) in enumerate(ends) if x > box.x1 - 0.25 * box.width]
            moved = spread([ends[i][1] for i in outside], 0.85 * height, box.y0, box.y1)
            places = {i: (box.x1 + pad, y) for i, y in zip(outside, moved, strict=True)}
            for i, text in enumerate(self.texts):
                x, y = ends[i]
                low, high = box.y0 + height, box.y1 - height
                text.set_position(places.get(i, (x + pad, min(max(y, low), high))))

        def get_window_extent(self, renderer: Any = None) -> Bbox:
            renderer = renderer or self.figure._get_renderer()
            self._place(renderer)
            return Bbox.union([text.get_window_extent(renderer) for text in self.texts])

        def get_tightbbox(self, renderer: Any = None) -> Bbox:
            return self.get_window_extent(renderer)

        def draw(self, renderer: Any) -> None:
            if self.get_visible():
                self._place(renderer)
                for text in self.texts:
                    text.draw(renderer)

    return EndLabels


def _mark_colour(mark: Any) -> Any:
    """The opaque colour of a line, a collection, or the first part of a container."""
    from matplotlib.colors import to_rgb

    if hasattr(mark, "get_color"):
        return to_rgb(mark.get_color())
    if hasattr(mark, "get_facecolor"):
        face = np.atleast_2d(mark.get_facecolor())
        return to_rgb(face[0]) if len(face) else colour("ink")
    return _mark_colour(mark[0])


def _end_point(mark: Any, ax: Axes) -> tuple[float, float]:
    """Where, on the display, a mark ends on the right: its last finite point inside the axes."""
    if hasattr(mark, "get_xydata"):
        path, transform = mark.get_xydata(), mark.get_transform()
    elif hasattr(mark, "get_offsets") and len(mark.get_offsets()) > 1:
        path, transform = np.ma.filled(mark.get_offsets(), np.nan), mark.get_offset_transform()
    elif hasattr(mark, "get_paths"):
        path, transform = mark.get_paths()[0].vertices, mark.get_transform()
    elif hasattr(mark, "patches"):  # bars: the top of the last one
        path, transform = [mark.patches[-1].get_bbox().max], ax.transData
    else:
        return _end_point(mark[0], ax)
    shown = transform.transform(np.asarray(path, dtype=float))
    box = ax.bbox
    inside = np.isfinite(shown).all(axis=1)
    for axis, low, high in ((0, box.x0, box.x1), (1, box.y0, box.y1)):
        inside &= (shown[:, axis] >= low - 1) & (shown[:, axis] <= high + 1)
    if not inside.any():
        return box.x1, box.y0
    right = shown[inside, 0].max()
    ends = inside & (shown[:, 0] >= right - 0.5)
    return float(right), float(shown[ends, 1].mean())


def label_lines(ax: Axes, marks: Sequence[Any] | None = None) -> None:
    """Write each labelled mark's label at its right end, without overlaps, instead of a legend.

    Parameters
    ----------
    ax : Axes
    marks : sequence of artists or containers, optional
        Marks to label; by default everything drawn so far with ``label=...``.
    """
    if marks is None:
        marks, labels = ax.get_legend_handles_labels()
    else:
        labels = [mark.get_label() for mark in marks]
    if not marks:
        raise ValueError("`ax` must hold at least one mark drawn with label=..., got none")
    with context():
        artist = _end_labels_class()(ax, list(marks), labels)
        ax.add_artist(artist)
        artist.set_clip_path(None)


# --- two themes -------------------------------------------------------------------------------


def adopt(fig: Figure) -> None:
    """Put titles, text and black marks that were made outside `context` into the book's look."""
    from matplotlib.colors import to_hex
    from matplotlib.text import Text

    for text in fig.findobj(Text):
        if text.get_fontfamily() in (["sans-serif"], ["DejaVu Sans"]):
            text.set_fontfamily(_families())
    for ax in fig.axes:
        if title := ax.get_title():
            ax.set_title("")
            ax.set_title(title, loc="left", pad=5, fontsize=FONT_SIZE + 0.5, color=colour("ink"))
        if ax.images:
            ax.grid(False)
        if bar := getattr(ax, "_colorbar", None):
            bar.outline.set_visible(False)
    inks = {"#000000": colour("ink"), "#ffffff": colour("paper")}
    _map_colours(fig, lambda rgba: inks.get(to_hex(rgba)))


def recolour(fig: Figure, *, dark: bool) -> None:
    """Turn the roles' light colours in a figure into the dark ones, or back; colour maps too."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import to_hex

    pairs = {role.light: role.dark for role in ROLES.values()}
    maps = {SEQUENTIAL: SEQUENTIAL + "-dark", DIVERGING: DIVERGING + "-dark"}
    if not dark:
        pairs = {b: a for a, b in pairs.items()}
        maps = {b: a for a, b in maps.items()}
    _map_colours(fig, lambda rgba: pairs.get(to_hex(rgba)))
    for mappable in fig.findobj(lambda artist: isinstance(artist, ScalarMappable)):
        if mappable.get_array() is not None and mappable.get_cmap().name in maps:
            mappable.set_cmap(maps[mappable.get_cmap().name])


def _map_colours(fig: Figure, target: Any) -> None:
    """Replace each artist's colours by ``target(rgba)`` (None: keep), alpha kept."""
    from matplotlib.colors import to_rgb

    def mapped(value: Any) -> np.ndarray | None:
        rgba = np.array(_to_rgba_array(value), dtype=float)  # (k, 4)
        changed = False
        for row in rgba:
            new = target(row) if row[3] > 0 else None
            if new is not None:
                row[:3], changed = to_rgb(new), True
        return rgba if changed else None

    for artist in fig.findobj():
        for name in ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor"):
            getter = getattr(artist, f"get_{name}", None)
            setter = getattr(artist, f"set_{name}", None)
            if getter is None or setter is None or _is_mapped(artist, name):
                continue
            rgba = mapped(getter())
            if rgba is not None:
                setter(rgba if len(rgba) > 1 else tuple(rgba[0]))


def _to_rgba_array(value: Any) -> Any:
    from matplotlib.colors import to_rgba_array

    return to_rgba_array(value) if not (isinstance(value, str) and value == "auto") else []


def _is_mapped(artist: Any, name: str) -> bool:
    """Whether this colour follows from data through a colour map, or cannot be both got and set."""
    array = getattr(artist, "get_array", lambda: None)()
    if array is not None and hasattr(artist, "get_cmap"):
        return True
    # For collections and patches, set_color would fill what has no face.
    return name == "color" and hasattr(artist, "get_facecolor")


# --- showing ---------------------------------------------------------------------------------


def figure_html(fig: Figure, *, title: str, alt: str, caption: str) -> str:
    """The ``<book-figure>`` element of a figure; see `show`."""
    for name, value in (("title", title), ("alt", alt), ("caption", caption)):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"`{name}` must be a non-empty text, got {value!r}")
    if not fig.axes:
        raise ValueError("`fig` must hold at least one axes, got an empty figure")
    from lib.book.svg import svg

    card = (
        "display:block;padding:var(--book-figure-pad,12px);color:var(--book-ink,#1f2328);"
        "background:var(--book-figure-card,#fffdf8)"
    )
    return (
        f'<book-figure style="{card}"><figure style="margin:0">'
        f'<div role="img" aria-label="{html.escape(alt)}">{svg(fig)}</div>'
        f"<figcaption><strong>{html.escape(title)}.</strong> {html.escape(caption)}</figcaption>"
        f"</figure></book-figure>"
    )


def show(fig: Figure, *, title: str, alt: str, caption: str) -> None:
    """Display a figure as inline SVG for both themes, with its caption.

    Parameters
    ----------
    fig : Figure
        Drawn in the colours of `ROLES`.
    title : str
        A few words, without a full stop.
    alt : str
        What a reader who cannot see the figure needs; states the numbers.
    caption : str
        One or more full sentences, shown below the figure.
    """
    from IPython.display import display

    bundle = {
        "text/html": figure_html(fig, title=title, alt=alt, caption=caption),
        "text/plain": f"Figure: {title}",
    }
    display(bundle, raw=True)
