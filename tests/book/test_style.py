"""Figures: colours of roles, layouts, labels, and the SVG that the page gets."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.book import style
from lib.book.svg import _short, _short_path

X = np.linspace(0, 4, 60)
WORDS = {"title": "Decay", "alt": "Falls from 1 to 0.02.", "caption": "It falls."}


def decay_figure(columns: int = 1, **changes: object):
    fig, axes = style.figure(1, columns)
    for ax in np.ravel(axes):
        style.band(ax, X, 0.9 * np.exp(-X), 1.1 * np.exp(-X), "theory")
        style.line(ax, X, np.exp(-X), "theory", "theory")
        style.points(ax, X[::9], np.exp(-X[::9]), "measured", "measured")
        ax.set_title("Decay")
        style.label_lines(ax)
    return fig


def shown(fig, **changes: str) -> str:
    return style.figure_html(fig, **WORDS | changes)


def drawings(html: str) -> list[ElementTree.Element]:
    """The wide and the narrow drawing."""
    found = re.findall(r"<svg viewBox.*?</svg>", html, re.DOTALL)
    return [ElementTree.fromstring(text) for text in found]


# --- roles --------------------------------------------------------------------------------------


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return float(linear @ (0.2126, 0.7152, 0.0722))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("role", sorted(set(style.ROLES) - {"paper", "card", "rule"}))
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_role_can_be_read_as_text_on_the_paper(role, theme):
    colours = [getattr(style.ROLES[name], theme) for name in (role, "paper")]
    assert contrast(*colours) >= 4.5


def test_no_colour_serves_two_roles_or_both_themes():
    colours = [colour for role in style.ROLES.values() for colour in role[:2]]
    assert len(set(colours)) == len(colours)


def test_an_unknown_role_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"`role` must be one of theory, .*, got 'red'"):
        style.colour("red")


# --- the element --------------------------------------------------------------------------------


def test_every_colour_in_the_svg_is_a_variable_with_the_light_colour_as_fallback():
    html = shown(decay_figure())
    outside = re.sub(r"var\(--book-[a-z-]+, ?#[0-9a-f]{6}\)|#f[0-9a-f]{8}", "", html)
    assert not re.findall(r"#[0-9a-f]{6}\b(?!-)", outside.split("<svg", 1)[1])
    for name, colour in re.findall(r"var\(--book-([a-z-]+), ?(#[0-9a-f]{6})\)", html):
        if name in style.ROLES:
            assert style.ROLES[name].light == colour


def test_text_made_with_matplotlibs_own_defaults_gets_ink_and_font():
    fig, ax = style.figure()
    ax.plot(X, X)
    text = ax.text(1, 1, "note", color="black")
    shown(fig)
    assert text.get_fontfamily() == style._families()
    assert "#000000" not in shown(fig)


def test_svg_is_without_style_sheet_metadata_comment_or_script():
    html = shown(decay_figure())
    for unwanted in ("<style", "<metadata", "<!--", "<script", "<?xml", "xmlns", "2026", "onload"):
        assert unwanted not in html


def test_same_figure_gives_the_same_bytes():
    assert shown(decay_figure()) == shown(decay_figure())


def test_ids_of_different_figures_do_not_clash_and_every_reference_resolves():
    one = shown(decay_figure())
    fig, ax = style.figure()
    style.points(ax, X, X**2, "extra", "squares")
    two = shown(fig)
    ids = [re.findall(r'\bid="([^"]+)"', html) for html in (one, two)]
    assert not set(ids[0]) & set(ids[1])
    for html, known in zip((one, two), ids, strict=True):
        assert len(known) == len(set(known))
        used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', html))
        assert {a or b for a, b in used} == set(known)


def test_readers_who_cannot_see_it_get_one_image_with_the_alt_text():
    html = shown(decay_figure(), alt='Falls from "1" to <0.02>.')
    assert html.count('role="img"') == 1
    assert 'aria-label="Falls from &quot;1&quot; to &lt;0.02&gt;."' in html
    assert html.count("<svg") == html.count('aria-hidden="true"') == 3


def test_a_wall_of_small_panels_is_not_turned_into_a_tower():
    fig, _ = style.figure(2, 5)
    assert len(drawings(shown(fig))) == 1


def test_caption_is_visible_and_escaped():
    html = shown(decay_figure(), caption="If a < b, it falls.")
    assert "<strong>Decay.</strong> If a &lt; b, it falls.</figcaption>" in html


@pytest.mark.parametrize("name", ["title", "alt", "caption"])
@pytest.mark.parametrize("value", ["", "  ", None])
def test_a_figure_without_words_is_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be a non-empty text"):
        shown(decay_figure(), **{name: value})


def test_an_empty_figure_is_refused():
    with pytest.raises(ValueError, match="`fig` must hold at least one axes"):
        shown(style.new_figure(3, 3))


def test_the_element_is_closed_once_so_that_its_content_can_be_stripped():
    html = shown(decay_figure(), caption="Not </book-figure> yet.")
    assert html.startswith("<book-figure")
    assert html.count("</book-figure>") == 1


def test_a_plain_figure_takes_less_than_twenty_eight_kilobytes():
    assert len(shown(decay_figure())) < 28_000


def test_show_displays_html_and_one_line_of_text(monkeypatch):
    bundles = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: bundles.append((data, raw)))
    style.show(decay_figure(), **WORDS)
    ((bundle, raw),) = bundles
    assert raw
    assert bundle["text/plain"] == "Figure: Decay"
    assert set(bundle) == {"text/html", "text/plain"}


# --- layouts ------------------------------------------------------------------------------------


def test_panels_of_a_row_are_stacked_in_the_narrow_layout():
    wide, narrow = drawings(shown(decay_figure(columns=2)))
    sizes = [[float(v) for v in svg.get("viewBox").split()[2:]] for svg in (wide, narrow)]
    assert sizes[0][0] > 2 * sizes[0][1]
    assert sizes[1][0] < sizes[1][1]
    assert sizes[1][0] == 3.5 * 72


def test_stacked_panels_show_the_tick_labels_that_a_shared_axis_had_hidden():
    fig, axes = style.figure(1, 2, sharey=True)
    for ax in axes:
        ax.plot(X, X)
    shown(fig)
    assert all(ax.yaxis.get_tick_params()["labelleft"] for ax in axes)


def test_end_labels_lie_inside_the_drawing_in_both_layouts():
    fig = decay_figure()
    (labels,) = [a for a in fig.axes[0].get_children() if type(a).__name__ == "EndLabels"]
    shown(fig)
    for width in (5.4, 3.5):
        fig.set_size_inches(width, 3)
        fig.draw_without_rendering()
        box = labels.get_window_extent()
        assert box.x1 <= fig.bbox.x1
        assert box.x0 >= fig.axes[0].bbox.x1


def test_end_labels_do_not_overlap_and_keep_the_order_of_the_lines():
    fig, ax = style.figure()
    for k in range(5):
        style.line(ax, X, 0.001 * k + X, "theory", f"line {k}")
    style.label_lines(ax)
    fig.draw_without_rendering()
    (labels,) = [a for a in ax.get_children() if type(a).__name__ == "EndLabels"]
    heights = [text.get_position()[1] for text in labels.texts]
    assert heights == sorted(heights)
    assert min(np.diff(heights)) > 0.8 * style.FONT_SIZE * fig.dpi / 72


def test_a_line_that_stops_early_is_labelled_where_it_stops():
    fig, ax = style.figure()
    style.line(ax, [0, 4], [0, 1], "theory", "long")
    style.line(ax, [0, 1], [1, 1], "baseline", "short")
    style.label_lines(ax)
    fig.draw_without_rendering()
    (labels,) = [a for a in ax.get_children() if type(a).__name__ == "EndLabels"]
    ends = ax.transData.transform([(1, 1)])[0]
    assert abs(labels.texts[1].get_position()[0] - ends[0]) < 12


def test_labelling_nothing_is_an_error():
    _, ax = style.figure()
    with pytest.raises(ValueError, match="at least one mark drawn with label"):
        style.label_lines(ax)


def test_error_bars_bars_and_scatter_can_be_labelled():
    fig, ax = style.figure()
    ax.errorbar([0, 1], [0, 1], yerr=0.1, label="seeds")
    ax.bar([0, 1], [1, 2], label="bars")
    ax.scatter([0, 1], [2, 3], label="cloud")
    style.label_lines(ax)
    assert "book-figure" in shown(fig)


@given(
    st.lists(st.floats(-50, 150), min_size=1, max_size=9),
    st.floats(1, 40),
)
def test_spread_positions_keep_order_gap_and_limits(wanted, gap):
    moved = style.spread(wanted, gap, 0, 100)
    room = 100 / max(len(wanted) - 1, 1)
    assert all(-1e-9 <= y <= 100 + 1e-9 for y in moved)
    steps = np.diff([moved[i] for i in sorted(range(len(wanted)), key=lambda i: (wanted[i], i))])
    assert (steps >= min(gap, room) - 1e-9).all()


def test_positions_with_room_between_them_stay():
    assert style.spread([80, 10, 50], 20, 0, 100) == [80, 10, 50]


# --- two themes ---------------------------------------------------------------------------------


def test_vector_marks_are_stored_once_and_raster_marks_for_both_themes():
    fig, ax = style.figure()
    rng = np.random.default_rng(0)
    ax.scatter(*rng.normal(size=(2, 500)), color=style.colour("extra"), rasterized=True)
    for svg in drawings(shown(fig)):
        light, dark = svg.iter("image")
        assert light.get("href") != dark.get("href")
        assert light.get("style").startswith("display:var(--book-light-only,inline)")
        assert dark.get("style").startswith("display:var(--book-dark-only,none)")


def test_book_colour_maps_have_a_dark_twin_and_others_are_left_alone():
    fig, ax = style.figure()
    ax.imshow(np.eye(3), cmap=style.SEQUENTIAL)
    assert sum(1 for _ in drawings(shown(fig))[0].iter("image")) == 2
    fig, ax = style.figure()
    ax.imshow(np.eye(3), cmap="viridis")
    assert sum(1 for _ in drawings(shown(fig))[0].iter("image")) == 1


def test_recolouring_to_dark_and_back_restores_every_colour():
    fig = decay_figure()
    style.adopt(fig)
    before = [line.get_color() for line in fig.axes[0].lines]
    style.recolour(fig, dark=True)
    assert [line.get_color() for line in fig.axes[0].lines] != before
    style.recolour(fig, dark=False)
    from matplotlib.colors import to_hex

    assert [to_hex(line.get_color()) for line in fig.axes[0].lines] == before


def test_alpha_survives_recolouring():
    fig, ax = style.figure()
    band = style.band(ax, X, X, X + 1, "theory")
    alpha = band.get_facecolor()[0, 3]
    style.recolour(fig, dark=True)
    assert band.get_facecolor()[0, 3] == alpha


# --- numbers in paths ---------------------------------------------------------------------------


def corners_of(path: str) -> np.ndarray:
    """The points of a path of M, l and q, as a browser follows it."""
    here, points = np.zeros(2), []
    for letter, numbers in re.findall(r"([Mlqz])([^Mlqz]*)", path):
        steps = np.array(re.findall(r"-?\d*\.?\d+", numbers), dtype=float).reshape(-1, 2)
        if letter == "M":
            here = steps[0]
            points.append(here)
        for k, step in enumerate(steps if letter in "lq" else []):
            points.append(here + step)
            if letter == "l" or k % 2:
                here = here + step
    return np.array(points)


@given(
    st.lists(st.tuples(st.floats(0, 500), st.floats(0, 500)), min_size=3, max_size=40),
    st.sampled_from(["L", "Q"]),
)
def test_shortened_paths_stay_within_a_hundredth_everywhere(points, command):
    points = points[: 1 + 2 * ((len(points) - 1) // 2)]
    rest = [f"{x:.6f} {y:.6f}" for x, y in points[1:]]
    group = 1 if command == "L" else 2
    groups = [" ".join(rest[i : i + group]) for i in range(0, len(rest), group)]
    d = f"M {points[0][0]:.6f} {points[0][1]:.6f} " + " ".join(f"{command} {g}" for g in groups)
    found = corners_of(_short_path(d))
    distance = np.linalg.norm(found[:, None] - np.array(points)[None], axis=-1)
    assert distance.min(axis=0).max() <= 0.02  # every point is still there
    assert distance.min(axis=1).max() <= 0.02  # and no other


@pytest.mark.parametrize(
    ("value", "short"),
    [(0.5, ".5"), (-0.25, "-.25"), (10.0, "10"), (-0.001, "0"), (3.14159, "3.14")],
)
def test_numbers_are_written_as_short_as_possible(value, short):
    assert _short(value) == short


def test_figure_refuses_an_empty_grid():
    with pytest.raises(ValueError, match="`rows` and `columns` must be at least 1"):
        style.figure(0, 1)


def test_matplotlibs_settings_are_left_as_they_were():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    shown(decay_figure())
    assert dict(mpl.rcParams) == before


def test_importing_style_needs_no_matplotlib():
    import subprocess
    import sys

    code = "import sys, lib.book.style, lib.book.explore; print('matplotlib' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
