"""Explorers without a browser: parameters, curves, budgets, payloads, the kernel's view."""

from __future__ import annotations

import base64
import functools
import io
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.book.explore import Choice, Curves, Explorer, Panel, Readout, Slider, explore
from lib.book.explore import text as words
from lib.book.explore.curves import limits_over, to_axis
from lib.book.explore.parameters import corners
from lib.book.explore.quantise import GAP, LEVELS, quantise

X = np.linspace(0, 1, 40)


def power(a: float) -> Curves:
    return Curves(
        Panel("Power", "x", "y").line(X, X**a, "curve"), readouts={"middle": Readout(0.5**a)}
    )


def power_alt(a: float) -> str:
    return f"With exponent {a:.2f} the curve passes {0.5**a:.3f} in the middle."


@functools.cache
def powers() -> Explorer:
    """The plain explorer; made once, since a picture takes a while."""
    return power_explorer(draw=power)


def power_explorer(**changes: object) -> Explorer:
    if not changes:
        return powers()
    options = {
        "draw": power,
        "parameters": {"a": Slider("exponent *a*", 1, 3, n=5, start=1.7)},
        "alt": power_alt,
        "title": "Powers",
    } | changes
    draw, parameters = options.pop("draw"), options.pop("parameters")
    return explore(draw, parameters, **options)


def payload_of(html: str) -> dict:
    found = re.search(r'<script type="application/json">(.*)</script>', html, re.DOTALL)
    assert found
    return json.loads(found[1])


# --- parameters ---------------------------------------------------------------------------------


def test_grid_of_a_slider_holds_both_ends_exactly():
    assert Slider("a", 0.1, 0.7, n=7).grid[::6] == [0.1, 0.7]
    assert Slider("a", 0.1, 0.7, n=7, log=True).grid[::6] == [0.1, 0.7]


def test_integer_grid_on_a_log_slider_is_whole_and_without_repetition():
    assert Slider("n", 16, 4096, n=9, log=True, integer=True).grid == [2**k for k in range(4, 13)]
    assert Slider("n", 1, 4, n=20, log=True, integer=True).grid == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": ""}, "`label`"),
        ({"low": 2, "high": 1}, "`low` must be less than `high`, got 2 and 1"),
        ({"low": 1, "high": 1}, "`low` must be less than `high`"),
        ({"low": math.nan}, "`low` must be finite"),
        ({"high": math.inf}, "`high` must be finite"),
        ({"low": 0, "log": True}, "`low` must be positive for a log slider, got 0"),
        ({"n": 1}, "`n` must be an integer of at least 2, got 1"),
        ({"n": 2.5}, "`n` must be an integer"),
        ({"start": 9}, "`start` must lie between 0 and 4, got 9"),
        ({"low": 0.5, "integer": True}, "`low` must be whole"),
        ({"start": 0.5, "integer": True}, "`start` must be whole"),
        ({"format": "x"}, "`format` must look like"),
    ],
)
def test_slider_refuses_what_it_cannot_show(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Slider(**{"label": "a", "low": 0, "high": 4} | arguments)


def test_slider_refuses_ends_that_are_no_numbers():
    with pytest.raises(TypeError, match="`low` must be a number, got 'a'"):
        Slider("a", "a", 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": ["one"]}, "at least 2 options"),
        ({"options": "ab"}, "at least 2 options"),
        ({"options": ["a", "a"]}, "must differ"),
        ({"options": {"a": "same", "b": "same"}}, "must differ"),
        ({"start": "z"}, r"`start` must be one of \['a', 'b'\], got 'z'"),
        ({"label": " "}, "`label`"),
    ],
)
def test_choice_refuses_what_it_cannot_offer(arguments, message):
    with pytest.raises(ValueError, match=message):
        Choice(**{"label": "family", "options": ["a", "b"]} | arguments)


@given(
    st.floats(0, 4),
    st.floats(math.log(16), math.log(4096)).map(lambda t: min(max(math.exp(t), 16.0), 4096.0)),
)
def test_corner_weights_are_positive_sum_to_one_and_reproduce_the_coordinates(lam, n):
    sliders = {"lam": Slider("λ", 0, 4, n=6), "n": Slider("n", 16, 4096, n=5, log=True)}
    around = corners(sliders, {"lam": lam, "n": n})
    assert all(weight > 0 for _, weight in around)
    assert math.isclose(sum(weight for _, weight in around), 1)
    for axis, (slider, value) in enumerate(zip(sliders.values(), (lam, n), strict=True)):
        mean = sum(weight * slider.axis[index[axis]] for index, weight in around)
        assert math.isclose(mean, slider.coordinate(value), rel_tol=1e-9, abs_tol=1e-9)


def test_on_a_grid_point_only_that_point_counts():
    parameters = {"a": Slider("a", 0, 1, n=5), "c": Choice("c", ["x", "y"])}
    assert corners(parameters, {"a": 0.75, "c": "y"}) == [((3, 1), 1.0)]


def test_between_options_nothing_is_interpolated():
    parameters = {"c": Choice("c", ["x", "y"]), "a": Slider("a", 0, 1, n=2)}
    assert {index[0] for index, _ in corners(parameters, {"c": "y", "a": 0.3})} == {1}


# --- quantisation -------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60))
def test_quantisation_error_is_at_most_half_a_level(numbers):
    values = np.array(numbers).reshape(1, -1)
    stored = quantise(values)
    bound = (values.max() - values.min()) / LEVELS / 2
    assert np.abs(stored.values - values).max() <= bound * (1 + 1e-6) + 1e-9


def test_what_the_page_gets_decodes_to_what_was_stored():
    values = np.sin(np.arange(60.0)).reshape(3, 4, 5)
    spec = quantise(values).spec()
    codes = np.frombuffer(base64.b64decode(spec["data"]), "<u2").reshape(spec["shape"])
    decoded = spec["low"] + codes * (spec["high"] - spec["low"]) / LEVELS
    np.testing.assert_allclose(decoded, values, atol=2 / LEVELS)


def test_nan_becomes_a_gap_and_only_there():
    values = np.array([[0.0, np.nan, 2.0]])
    stored = quantise(values)
    assert (stored.codes == GAP).tolist() == [[False, True, False]]
    assert np.isnan(stored.values).tolist() == [[False, True, False]]


def test_an_array_of_gaps_alone_survives():
    assert np.isnan(quantise(np.full((2, 3), np.nan)).values).all()


def test_what_does_not_depend_on_a_parameter_is_stored_once():
    grid = np.broadcast_to(np.arange(4.0)[None, :, None] + np.arange(5.0), (3, 4, 5))
    assert quantise(grid).codes.shape == (1, 4, 5)
    assert quantise(np.ones((3, 4, 5))).spec()["data"] == ""


def test_values_far_outside_the_limits_cost_no_precision_inside():
    values = np.array([[0.1, 0.2, 1e12, -np.inf]])
    stored = quantise(values, (0.0, 1.0))
    np.testing.assert_allclose(stored.values[0, :2], [0.1, 0.2], atol=1e-4)
    assert stored.values[0, 2] > 1.5
    assert stored.values[0, 3] < -0.5


def test_a_gap_at_the_heaviest_corner_is_a_gap_and_at_a_lighter_one_is_left_out():
    stored = quantise(np.array([[1.0, np.nan], [3.0, 5.0]]))
    near_first = stored.at([((0,), 0.75), ((1,), 0.25)])
    near_second = stored.at([((0,), 0.25), ((1,), 0.75)])
    np.testing.assert_allclose(near_first, [1.5, np.nan], atol=1e-3)
    np.testing.assert_allclose(near_second, [2.5, 5.0], atol=1e-3)


# --- text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "spec", "shown"),
    [
        (3.14159, ".2f", "3.14"),
        (-0.001, ".2f", "0.00"),
        (-3.5, ".1f", "−3.5"),
        (1234567, ",d", "1,234,567"),
        (0.0625, ".1%", "6.2%"),
        (3.2e-5, ".2g", "3.2×10^{−5}"),
        (123456, ".3g", "1.23×10^{5}"),
        (1.5, ".1e", "1.5×10^{0}"),
        (2.5, "d", "2"),
        (math.nan, ".2f", "–"),
        (-math.inf, ".2f", "−∞"),
    ],
)
def test_numbers_are_written_for_readers(value, spec, shown):
    assert words.number(value, spec) == shown


def test_markup_is_split_read_aloud_without_marks_and_set_by_matplotlib():
    marked = "*x*_{c} and 10^{3}"
    assert words.segments(marked) == [
        ("italic", "x"),
        ("sub", "c"),
        ("plain", " and 10"),
        ("sup", "3"),
    ]
    assert words.plain(marked) == "xc and 103"
    assert words.mathtext(marked) == r"$\mathit{x}$$_{\mathrm{c}}$ and 10$^{\mathrm{3}}$"


# --- panels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (lambda p: p.line(X, X[:-1], "a"), "the arrays of `a` must have one length"),
        (lambda p: p.line(X, X, "a", role="red"), "`role` must be one of theory"),
        (lambda p: p.line(X, X, "a", label_at="left"), "`label_at` must be one of"),
        (lambda p: p.line(X, X, ""), "`name`"),
        (lambda p: p.line(X, X, "a").line(X, X, "a"), "no other series"),
        (lambda p: p.line([], [], "a"), "`x` must be a non-empty array"),
        (lambda p: p.line(X, X + 1j, "a"), "real numbers"),
        (lambda p: p.line(X[None], X[None], "a"), "one axis"),
        (lambda p: p.band(X, X, 3.0, "a"), "`y2` must be"),
    ],
)
def test_panel_refuses_series_that_cannot_be_drawn(add, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        add(Panel())


def test_panel_names_an_unknown_keyword():
    with pytest.raises(TypeError, match=re.escape("got ['color']")):
        Panel().line(X, X, "a", color="red")


def test_torch_tensors_are_taken_as_they_are():
    torch = pytest.importorskip("torch")
    values = torch.linspace(0, 1, 5, requires_grad=True)
    assert Panel().line(values, values, "a").series[0].channels["y"].tolist()[-1] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"yscale": "cubic"}, "`yscale` must be one of"),
        ({"ylim": (1, 0)}, "`ylim` must be finite with low < high"),
        ({"xlim": (0, 1), "xscale": "log"}, "`xlim` must be positive on a log axis"),
        ({"width": 0}, "`width` must be positive"),
        ({"ylim": (1, 2, 3)}, "`ylim` must be (low, high)"),
    ],
)
def test_panel_refuses_impossible_axes(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Panel(**arguments)


def test_automatic_limits_hold_the_whole_grid_and_given_ones_stay():
    panels = [Panel(ylim=(None, 9)).line(X, a * X, "a") for a in (1, 2, 5)]
    assert limits_over(panels, "x") == (0, 1)
    low, high = limits_over(panels, "y")
    assert low < 0
    assert high == 9


def test_bars_stand_on_zero_even_where_all_are_tall():
    low, high = limits_over([Panel().bars([0, 1], [5, 6], "a")], "y")
    assert low == 0
    assert high > 6


def test_automatic_log_limits_ignore_zero_and_stop_after_ten_decades():
    panel = Panel(yscale="log").line([0, 1, 2], [1e-300, 0, 1], "a")
    low, high = limits_over([panel], "y")
    assert -11 < low < -9
    assert 0 < high < 1


def test_on_a_log_axis_zero_lies_below_everything_and_a_negative_number_is_a_gap():
    values = to_axis(np.array([0.0, -1.0, 10.0]), "log")
    assert values[0] == -np.inf
    assert np.isnan(values[1])
    assert values[2] == 1


def test_limits_without_room_for_the_data_are_named():
    with pytest.raises(ValueError, match="`ylim` must leave room for the data"):
        limits_over([Panel(ylim=(None, -3)).line(X, X, "a")], "y")


def test_curves_without_panels_or_series_are_refused():
    with pytest.raises(TypeError, match="`panels`"):
        Curves()
    with pytest.raises(ValueError, match="must hold at least one series"):
        Curves(Panel("empty"))


def test_readouts_refuse_what_is_no_number():
    with pytest.raises(TypeError, match="`value` must be one number"):
        Readout([1, 2])
    with pytest.raises(ValueError, match="`value` must be positive for a log readout"):
        Readout(0, log=True)


# --- explore: what it refuses -------------------------------------------------------------------


def test_more_than_three_parameters_are_refused():
    sliders = {name: Slider(name, 0, 1, n=2) for name in "abcd"}
    with pytest.raises(ValueError, match="1 to 3 parameters, got 4"):
        power_explorer(parameters=sliders)


def test_too_many_grid_points_are_refused_with_the_numbers():
    sliders = {"a": Slider("a", 1, 3, n=20), "b": Slider("b", 1, 3, n=20)}
    with pytest.raises(ValueError, match=r"at most 250 grid points, got 20 \(a\) × 20 \(b\) = 400"):
        power_explorer(parameters=sliders)


def test_too_many_bytes_are_refused_with_the_number():
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, 4000)

    def draw(a: float) -> Curves:
        return Curves(Panel().line(x, rng.normal(size=x.size), "noise"))

    with pytest.raises(ValueError, match=r"must fit into 1,000,000 bytes, got [\d,]+ with 100"):
        power_explorer(draw=draw, parameters={"a": Slider("a", 1, 3, n=100)})


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda a: Curves(*[Panel().line(X, X, "one")] * (1 if a < 2 else 2)),
            "number of panels is 1 at the first one, but 2 at a = 2",
        ),
        (
            lambda a: Curves(Panel().line(X[: 40 - int(a)], X[: 40 - int(a)], "one")),
            "length of x in 'one' is 39 at the first one, but 38 at a = 2",
        ),
        (
            lambda a: Curves(Panel().line(X, X, "one" if a < 2 else "two")),
            "series 0, name is 'one' at the first one, but 'two' at a = 2",
        ),
        (
            lambda a: Curves(Panel(xlabel=f"{a:.1f}").line(X, X, "one")),
            "panel 0, xlabel is '1.0' at the first one, but '1.5' at a = 1.5",
        ),
        (
            lambda a: Curves(Panel().line(X, X, "one"), readouts={} if a < 3 else {"h": a}),
            "names of readouts is () at the first one, but ('h',) at a = 3",
        ),
    ],
)
def test_a_structure_that_changes_over_the_grid_is_refused_with_the_place(draw, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        power_explorer(draw=draw)


def test_an_error_in_draw_says_at_which_values():
    def draw(a: float) -> Curves:
        if a > 2:
            raise ZeroDivisionError("no")
        return power(a)

    with pytest.raises(ZeroDivisionError) as caught:
        power_explorer(draw=draw)
    assert caught.value.__notes__ == ["in an explorer, at a = 2.5"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"draw": lambda a: 3}, TypeError, "`draw` must return Curves, got 3"),
        ({"alt": lambda a: "a curve"}, ValueError, "`alt` must return a sentence that states num"),
        ({"alt": lambda a: 3}, ValueError, "`alt` must return a sentence"),
        ({"alt": "text 3"}, TypeError, "`alt` must be callable"),
        ({"title": " "}, ValueError, "`title` must be a non-empty text"),
        ({"play": "b"}, ValueError, "`play` must name one of the sliders, got 'b'"),
        ({"parameters": {}}, ValueError, "1 to 3 parameters, got 0"),
        ({"parameters": {"a": 3}}, TypeError, "must be a Slider or Choice, got 3"),
        ({"parameters": [1]}, TypeError, "`parameters` must map names"),
    ],
)
def test_explore_names_the_argument_that_is_wrong(changes, error, message):
    with pytest.raises(error, match=re.escape(message)):
        power_explorer(**changes)


# --- explore: what it gives ---------------------------------------------------------------------


def test_payload_is_json_inside_the_element_and_no_text_can_end_it():
    html = power_explorer(title="a </script><b> & </book-explorer>").html
    assert html.count("</script>") == 1
    assert html.count("</book-explorer>") == 1
    assert payload_of(html)["title"] == "a </script><b> & </book-explorer>"


def test_html_carries_no_inline_script_or_handler():
    html = power_explorer().html
    assert re.findall(r"<script(.*?)>", html) == [' type="application/json"']
    assert not re.search(r"\son\w+=", html)


def test_still_inside_the_element_has_the_alt_text_of_the_start():
    html = power_explorer().html
    assert f'alt="{power_alt(1.7)}"' in html


def test_an_alt_text_of_every_grid_point_is_in_the_payload_in_order():
    assert power_explorer().payload["alt"] == [power_alt(a) for a in (1, 1.5, 2, 2.5, 3)]


def test_page_shows_exact_values_on_the_grid_up_to_the_quantisation():
    shown = power_explorer().at(a=2.5)
    np.testing.assert_allclose(shown[0, "curve", "y"], X**2.5, atol=3e-5)
    assert shown["middle"] == 0.5**2.5


def test_page_interpolates_linearly_between_grid_points():
    shown = power_explorer().at(a=2.25)
    np.testing.assert_allclose(shown[0, "curve", "y"], (X**2 + X**2.5) / 2, atol=3e-5)


def test_page_interpolates_a_log_axis_in_the_logarithm():
    def draw(a: float) -> Curves:
        panel = Panel(yscale="log").line(X, np.exp(-a * X), "decay")
        return Curves(panel, readouts={"end": Readout(math.exp(-a), log=True)})

    shown = power_explorer(draw=draw).at(a=1.234)
    np.testing.assert_allclose(shown[0, "decay", "y"], np.exp(-1.234 * X), rtol=1e-3)
    assert math.isclose(shown["end"], math.exp(-1.234))


def test_page_interpolates_along_a_log_slider_in_its_logarithm():
    def draw(n: int) -> Curves:
        return Curves(Panel().hline(math.log(n), "log n"))

    def alt(n: int) -> str:
        return f"log n = {math.log(n):.2f}"

    slider = Slider("n", 16, 4096, n=3, log=True, integer=True)
    shown = explore(draw, {"n": slider}, alt=alt, title="t").at(n=100)
    np.testing.assert_allclose(shown[0, "log n", "y"], math.log(100), atol=1e-3)


def test_integer_sliders_hand_ints_and_choices_their_values_to_draw():
    seen = set()

    def draw(n: int, c: str) -> Curves:
        seen.add((type(n), c))
        return power(n)

    parameters = {"n": Slider("n", 1, 3, n=3, integer=True), "c": Choice("c", {"u": "U", "v": "V"})}
    explorer = explore(draw, parameters, alt=lambda n, c: f"{n}", title="t")
    assert seen == {(int, "u"), (int, "v")}
    assert explorer.payload["parameters"][1]["options"] == ["U", "V"]


def test_at_refuses_values_off_the_slider_and_missing_names():
    explorer = power_explorer()
    with pytest.raises(ValueError, match="`a` must lie between 1 and 3, got 5"):
        explorer.at(a=5)
    with pytest.raises(ValueError, match="values must be given for a, got"):
        explorer.at(b=5)


def test_a_curve_costs_less_than_three_bytes_a_number():
    def draw(a: float) -> Curves:
        return Curves(Panel().line(np.linspace(0, 1, 400), np.sin(np.arange(400) * a), "wave"))

    html = power_explorer(draw=draw, parameters={"a": Slider("a", 1, 3, n=50)}).html
    payload = re.sub(r"<figure.*?</figure>", "", html, flags=re.DOTALL)
    assert len(payload) < 3 * 400 * 50


def test_repr_is_one_fixed_line():
    assert repr(power_explorer(title="Feel *λ*")) == "Explorer: Feel λ"


def test_without_a_kernel_the_bundle_holds_html_and_text_only():
    assert set(power_explorer()._repr_mimebundle_()) == {"text/html", "text/plain"}


# --- the kernel's view --------------------------------------------------------------------------


def test_kernel_view_recomputes_exactly_off_the_grid():
    drawn = []

    def draw(a: float) -> Curves:
        drawn.append(a)
        return power(a)

    explorer = power_explorer(draw=draw)
    box = explorer.widget()
    before = box.picture.value
    box.controls["a"].value = 2.2345678
    assert drawn[-1] == 2.2345678
    assert box.picture.value == explorer.still(a=2.2345678)
    assert box.picture.value != before
    assert power_alt(2.2345678) in box.words.value


def test_kernel_view_starts_at_the_start_and_resets_to_it():
    explorer = power_explorer()
    box = explorer.widget()
    assert box.picture.value == explorer.still(a=1.7)
    box.controls["a"].value = 3
    box.reset.click()
    assert box.controls["a"].value == 1.7
    assert box.picture.value == explorer.still(a=1.7)


def test_kernel_view_has_a_control_of_each_kind_and_stays_in_range():
    def draw(x: float, n: int, c: str) -> Curves:
        return power(x)

    parameters = {
        "x": Slider("x", 0.3, 30, n=4, log=True),
        "n": Slider("n", 16, 4000, n=3, log=True, integer=True, start=100),
        "c": Choice("c", {"u": "first", "v": "second"}, start="v"),
    }
    explorer = explore(draw, parameters, alt=lambda x, n, c: f"{x} {n:d} {c}", title="t")
    box = explorer.widget()
    assert box.controls["c"].value == "v"
    for end in ("max", "min"):
        box.controls["x"].value = 10 ** getattr(box.controls["x"], end)
    whole = box.controls["n"].options
    assert (whole[0], whole[-1]) == (16, 4000)
    assert box.controls["n"].value == 100
    for n in (whole[0], 101, whole[-1]):  # each step of the slider is another number
        box.controls["n"].value = n
        assert f" {n} " in box.words.value


def test_same_values_give_the_same_picture_byte_for_byte():
    assert powers().still(a=1.3) == power_explorer(draw=power).still(a=1.3)


@pytest.mark.parametrize("kind", ["line", "dashed", "points", "bars", "area", "band"])
@pytest.mark.parametrize("scale", ["linear", "log", "log2"])
def test_every_mark_can_be_drawn_on_every_scale_with_gaps_and_zeros(kind, scale):
    y = np.array([1.0, np.nan, 0.0, 4.0])
    x = np.array([1.0, 2.0, 4.0, 8.0])

    def draw(a: float) -> Curves:
        panel = Panel("t", "x", "y", xscale=scale, yscale=scale)
        data = (x, a * y, 2 * a * y) if kind == "band" else (x, a * y)
        getattr(panel, kind)(*data, "mark", label_at="end").hline(a, "level").vline(a, "here")
        return Curves(panel)

    explorer = power_explorer(draw=draw)
    assert explorer.still(a=1.25).startswith(b"\x89PNG")


# --- frames -------------------------------------------------------------------------------------


def cloud(fig, a: float):
    from lib.book import style

    ax = fig.subplots()
    ax.scatter(X, X**a, color=style.colour("measured"))
    return {"middle": Readout(0.5**a)}


def pictures_of(payload: dict, theme: str) -> list:
    from PIL import Image

    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in payload[theme]]


def test_frames_are_webp_one_for_each_grid_point_in_two_themes():
    payload = power_explorer(draw=cloud, frames=True).payload
    for theme in ("light", "dark"):
        pictures = pictures_of(payload, theme)
        assert [p.format for p in pictures] == ["WEBP"] * 5
    assert payload["light"] != payload["dark"]


def test_dark_frames_show_the_dark_colour_of_the_role():
    from lib.book import style

    payload = power_explorer(draw=cloud, frames=True).payload
    for theme, wanted in (("light", "light"), ("dark", "dark")):
        pixels = np.asarray(pictures_of(payload, theme)[0].convert("RGBA")).reshape(-1, 4)
        solid = pixels[pixels[:, 3] > 250][:, :3].astype(int)
        colour = getattr(style.ROLES["measured"], wanted)
        target = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        assert np.abs(solid - target).sum(axis=1).min() < 30


def test_frames_beyond_the_budget_are_refused_with_the_numbers(monkeypatch):
    monkeypatch.setattr("lib.book.explore.explorer.MAX_BYTES", 20_000)
    message = r"fit into 20,000 bytes; 2 of 5 frames in two themes take [23]\d,\d+ already"
    with pytest.raises(ValueError, match=message):
        power_explorer(draw=cloud, frames=True)


def test_an_empty_frame_is_refused():
    with pytest.raises(ValueError, match="`draw` must draw into the figure, found it empty"):
        power_explorer(draw=lambda fig, a: None, frames=True)


def test_frames_are_recomputed_exactly_by_the_kernel_too():
    explorer = power_explorer(draw=cloud, frames=True)
    box = explorer.widget()
    box.controls["a"].value = 1.2345
    assert box.picture.value == explorer.still(a=1.2345)
    assert explorer.still(a=1.2345) != explorer.still(a=1.25)
