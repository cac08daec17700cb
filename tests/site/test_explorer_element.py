"""<book-explorer> and <book-figure> in a real browser, on pages of their own, without a network."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.book import style
from lib.book.explore import Choice, Curves, Explorer, Panel, Readout, Slider, explore
from lib.book.explore import text as words

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "site" / "assets"
AXE = ROOT / "_build" / "vendor" / "axe" / "axe.min.js"
DESKTOP = {"viewport": {"width": 900, "height": 900}, "color_scheme": "light"}
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
X = np.linspace(0, 1, 41)
SPECS = ("d", ",d", ".0f", ".2f", ",.1f", ".3g", ".6g", ".1e", ".1%")


def decay(lam: float, n: int, family: str) -> Curves:
    """Two panels that depend on three parameters in different ways."""
    power = 1 if family == "plain" else 2
    left = Panel("Decay", "position *x*", "height *y*", ylim=(0, 1))
    left.line(X, np.exp(-lam * X**power), "exponential")
    left.dashed(X, np.where((X > 0.4) & (X < 0.6), np.nan, 1 - X), "straight", role="baseline")
    left.points([0.5], [np.exp(-lam * 0.5**power)], "middle", role="measured", label="")
    left.vline(lam / 4, "λ/4", role="accent")
    right = Panel("Tail", "*x*", "log *y*", yscale="log", ylim=(1e-6, 1))
    right.line(X, np.exp(-lam * X * math.log(n)), "tail *n*_{x}", role="article")
    right.hline(1 / n, "1/*n*", role="baseline")
    readouts = {
        "end": Readout(math.exp(-lam), ".3f", unit="units", role="theory", log=True),
        "log n": Readout(math.log(n), ".4f"),
    }
    return Curves(left, right, readouts=readouts)


def say(lam: float, n: int, family: str) -> str:
    return f"At λ = {lam:.2f} and n = {n} the {family} curve ends at {math.exp(-lam):.3f}."


@pytest.fixture(scope="module")
def curves() -> Explorer:
    parameters = {
        "lam": Slider("decay *λ*", 0, 4, n=9, start=1.0, format=".2f", unit="per step"),
        "n": Slider("keys *n*", 16, 4096, n=5, start=256, log=True, integer=True),
        "family": Choice("family", {"plain": "plain", "square": "squared"}),
    }
    hint = "Drag *λ* to the right."
    return explore(decay, parameters, alt=say, title="Decay", hint=hint, play="lam")


def turn(fig: Any, t: float) -> dict[str, float]:
    ax = style.tidy(fig.subplots())
    ax.scatter(np.cos(t + 6 * X), np.sin(t + 6 * X), color=style.colour("measured"))
    ax.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
    return {"time": t}


@pytest.fixture(scope="module")
def frames() -> Explorer:
    slider = Slider("time *t*", 0, 1, n=3, start=0.5)
    return explore(turn, {"t": slider}, alt=lambda t: f"t = {t:.2f}", title="Turn", frames=True)


def document(body: str, theme: str = "", assets: str = ASSETS.as_uri(), head: str = "") -> str:
    attribute = f' data-theme="{theme}"' if theme else ""
    return (
        f'<!doctype html><html lang="en"{attribute}><head><meta charset="utf-8"><title>t</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{head}'
        f'<link rel="stylesheet" href="{assets}/book-explorer.css">'
        f'<script defer src="{assets}/book-explorer.js"></script>'
        f'<link rel="icon" href="data:,"></head>'
        f"<body><main><h1>Page</h1>{body}</main></body></html>"
    )


@pytest.fixture
def show(new_strict_page: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Write a page to disk, open it from there with all else blocked, wait for its explorers."""

    def opened(body: str, *, theme: str = "", head: str = "", **context: Any) -> Any:
        path = tmp_path / "page.html"
        path.write_text(document(body, theme, head=head), encoding="utf-8")
        page = new_strict_page("file://", **(DESKTOP | context))
        page.goto(path.as_uri())
        if context.get("java_script_enabled", True) and "<book-explorer" in body:
            page.wait_for_selector(
                "book-explorer.bx-ready svg text, book-explorer .bx-frame", state="attached"
            )
        return page

    return opened


def values(page: Any) -> list[str]:
    return page.locator(".bx-readouts dd").all_inner_texts()


def curve(page: Any, name: str) -> str:
    return page.locator(f'path[data-series="{name}"]').get_attribute("d")


def slide(page: Any, index: int, position: int) -> None:
    """Put the thumb of a slider at a position of 0…1000, as dragging it would."""
    page.locator("input[type=range]").nth(index).evaluate(
        "(input, at) => { input.value = at;"
        " input.dispatchEvent(new Event('input', {bubbles: true})); }",
        position,
    )
    settle(page)


def settle(page: Any) -> None:
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def axis_of(page: Any, panel: int) -> tuple[float, float]:
    """Slope and intercept of data against pixel height, read off the drawn ticks."""
    found = (
        page.locator(".bx-panel")
        .nth(panel)
        .evaluate(
            "node => [...node.querySelectorAll('.bx-tick[text-anchor=end]')].map(t =>"
            " [t.textContent, +t.getAttribute('y')])"
        )
    )
    numbers, heights = [], []
    for text, y in found:
        power = re.fullmatch(r"10(−?\d+)", text)
        number = int(power[1].replace("−", "-")) if power else float(text)
        numbers.append(number)
        heights.append(y - 4)
    slope, intercept = np.polyfit(heights, numbers, 1)
    return float(slope), float(intercept)


def drawn_heights(page: Any, panel: int, name: str) -> np.ndarray:
    """The data heights of a drawn line, from its pixels and the ticks beside it."""
    slope, intercept = axis_of(page, panel)
    heights = [float(pair.split()[1]) for pair in re.findall(r"[ML]([^ML]+)", curve(page, name))]
    return slope * np.array(heights) + intercept


# --- moving -------------------------------------------------------------------------------------


def test_dragging_with_the_mouse_moves_curve_readout_and_value(show, curves):
    page = show(curves.html)
    before = values(page), curve(page, "exponential")
    box = page.locator("input[type=range]").first.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.25 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], middle, steps=4)
    settle(page)
    during = values(page), curve(page, "exponential")
    page.mouse.up()
    assert during[0] != before[0]
    assert during[1] != before[1]
    assert 2.2 < float(page.locator(".bx-value").first.inner_text().split()[0]) < 2.6


def test_arrows_go_from_grid_point_to_grid_point_and_home_and_end_to_the_ends(show, curves):
    page = show(curves.html)
    slider = page.get_by_role("slider", name="decay λ")
    slider.focus()
    for key, shown in (
        ("ArrowRight", "1.50"),
        ("ArrowUp", "2.00"),
        ("ArrowLeft", "1.50"),
        ("ArrowDown", "1.00"),
        ("Shift+ArrowRight", "1.02"),
        ("ArrowRight", "1.50"),
        ("End", "4.00"),
        ("ArrowRight", "4.00"),
        ("Home", "0.00"),
        ("ArrowLeft", "0.00"),
        ("PageUp", "0.40"),
    ):
        page.keyboard.press(key)
        assert slider.get_attribute("aria-valuetext") == f"{shown} per step", key
    settle(page)
    assert values(page)[0] == f"{math.exp(-0.4):.3f} units"


def test_integer_slider_steps_through_its_powers(show, curves):
    page = show(curves.html)
    slider = page.get_by_role("slider", name="keys n")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "1024"
    page.keyboard.press("Shift+ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == "1023"


def test_touch_moves_a_slider(show, curves):
    page = show(curves.html, **PHONE)
    before = values(page)
    slider = page.locator("input[type=range]").first
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.touchscreen.tap(box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2)
    settle(page)
    assert values(page) != before
    assert box["height"] >= 44


def test_a_choice_changes_the_curve(show, curves):
    page = show(curves.html)
    page.get_by_role("combobox", name="family").select_option("squared")
    settle(page)
    np.testing.assert_allclose(drawn_heights(page, 0, "exponential"), np.exp(-(X**2)), atol=0.004)


def test_reset_restores_every_control_and_the_picture(show, curves):
    page = show(curves.html)
    before = values(page), curve(page, "exponential"), curve(page, "1/*n*")
    slide(page, 0, 900)
    slide(page, 1, 10)
    page.get_by_role("combobox").select_option("squared")
    settle(page)
    assert curve(page, "exponential") != before[1]
    page.get_by_role("button", name="Reset").click()
    settle(page)
    assert (values(page), curve(page, "exponential"), curve(page, "1/*n*")) == before
    assert page.get_by_role("combobox").input_value() == "0"


def test_play_runs_the_slider_and_pause_stops_it(show, curves):
    page = show(curves.html)
    button = page.locator(".bx-play")
    button.click()
    assert button.inner_text() == "Pause"
    page.wait_for_function("document.querySelector('book-explorer').controls[0].value > 1.2")
    button.click()
    assert button.inner_text() == "Play"
    stopped = page.locator(".bx-value").first.inner_text()
    page.wait_for_timeout(120)
    assert page.locator(".bx-value").first.inner_text() == stopped


def test_nothing_plays_for_readers_who_want_less_motion(show, curves):
    page = show(curves.html, reduced_motion="reduce")
    assert not page.locator(".bx-play").is_visible()
    page = show(curves.html)
    page.locator(".bx-play").click()
    page.emulate_media(reduced_motion="reduce")
    page.wait_for_function("!document.querySelector('book-explorer').timer")


# --- what is drawn ------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [(250, 500), (301, 777), (999, 3), (0, 1000)])
def test_page_draws_between_grid_points_what_python_says(show, curves, first, second):
    page = show(curves.html)
    slide(page, 0, first)
    slide(page, 1, second)
    n = round(16 * 256 ** (second / 1000))
    expected = curves.at(lam=4 * first / 1000, n=n, family="plain")
    np.testing.assert_allclose(
        drawn_heights(page, 0, "exponential"), expected[0, "exponential", "y"], atol=0.004
    )
    logs = np.log10(expected[1, "tail *n*_{x}", "y"])
    np.testing.assert_allclose(drawn_heights(page, 1, "tail *n*_{x}"), logs, atol=0.03)
    assert values(page) == [f"{expected['end']:.3f} units", f"{expected['log n']:.4f}"]


def test_numbers_are_written_as_python_writes_them(show):
    grid = Slider("*a*", 0.3, 4e6, n=24, log=True)

    def draw(a: float) -> Curves:
        readouts = {f"{sign}{s}": Readout(sign * a, s) for s in SPECS for sign in (1, -1)}
        return Curves(Panel().hline(a, "a"), readouts=readouts)

    page = show(explore(draw, {"a": grid}, alt=lambda a: f"{a}", title="Formats").html)
    page.locator("input[type=range]").focus()
    page.keyboard.press("Home")
    for a in grid.grid:
        settle(page)
        stored = float(f"{a:.9g}")
        expected = [words.plain(words.number(sign * stored, s)) for s in SPECS for sign in (1, -1)]
        assert values(page) == expected
        page.keyboard.press("ArrowRight")


def test_a_gap_interrupts_the_line_and_nothing_else(show, curves):
    page = show(curves.html)
    assert curve(page, "straight").count("M") == 2
    assert curve(page, "exponential").count("M") == 1
    assert "NaN" not in page.locator(".bx-panels").inner_html()


def test_direct_labels_do_not_overlap_one_another(show, curves):
    page = show(curves.html)
    for position in (0, 400, 1000):
        slide(page, 0, position)
        boxes = page.locator(".bx-label-text:visible").evaluate_all(
            "nodes => nodes.map(n => { const b = n.getBoundingClientRect();"
            " return [b.left, b.top + 3, b.right, b.bottom - 3]; })"
        )
        assert len(boxes) >= 4
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_every_kind_of_mark_is_drawn(show):
    def draw(a: float) -> Curves:
        panel = Panel(xscale="log2", xticks=None)
        x = 2.0 ** np.arange(6)
        panel.bars(x, a * x, "bars").area(x, x, "area").band(x, x, a * x, "band")
        return Curves(panel.points(x, x + 1, "points", label_at="peak"))

    slider = {"a": Slider("a", 1, 2, n=2)}
    page = show(explore(draw, slider, alt=lambda a: f"{a}", title="Marks").html)
    for name in ("bars", "area", "band", "points"):
        assert len(curve(page, name)) > 20
        assert "NaN" not in curve(page, name)
    assert page.locator(".bx-key").count() == 3


def test_frames_follow_the_nearest_grid_point_and_the_theme(show, frames):
    page = show(frames.html, theme="light")
    image = page.locator(".bx-frame")

    def source() -> str:
        return image.get_attribute("src").split(",", 1)[1]

    assert source() == frames.payload["light"][1]
    slide(page, 0, 990)
    assert source() == frames.payload["light"][2]
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    settle(page)
    assert source() == frames.payload["dark"][2]
    assert image.evaluate("node => node.complete && node.naturalWidth > 100")
    assert values(page) == ["0.99"]


# --- themes, sizes, paper -----------------------------------------------------------------------


def rgb(colour: str) -> str:
    return "rgb({}, {}, {})".format(*(int(colour[i : i + 2], 16) for i in (1, 3, 5)))


@pytest.mark.parametrize(
    ("theme", "scheme", "dark"),
    [
        ("dark", "light", True),
        ("light", "dark", False),
        ("", "dark", True),
        ("", "light", False),
    ],
)
def test_colours_follow_the_page_and_else_the_system(show, curves, theme, scheme, dark):
    page = show(curves.html, theme=theme, color_scheme=scheme)
    stroke = page.locator('path[data-series="exponential"]').evaluate(
        "node => getComputedStyle(node).stroke"
    )
    paper = page.locator(".bx-app").evaluate("node => getComputedStyle(node).backgroundColor")
    side = "dark" if dark else "light"
    assert stroke == rgb(getattr(style.ROLES["theory"], side))
    assert paper == rgb(getattr(style.ROLES["paper"], side))


def test_colours_of_the_page_win(show, curves):
    page = show(curves.html, head="<style>:root { --book-theory: rgb(1, 2, 3); }</style>")
    line = page.locator('path[data-series="exponential"]')
    assert line.evaluate("node => getComputedStyle(node).stroke") == "rgb(1, 2, 3)"


@pytest.mark.parametrize("width", [320, 360, 768, 1400])
def test_page_never_scrolls_sideways_and_text_stays_readable(show, curves, frames, width):
    page = show(curves.html + frames.html, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.locator("book-explorer text:visible").evaluate_all(
        "nodes => nodes.map(node => parseFloat(getComputedStyle(node).fontSize)"
        " * node.getScreenCTM().a)"
    )
    assert min(sizes) >= 11
    right = page.locator("book-explorer text:visible").evaluate_all(
        "nodes => Math.max(...nodes.map(node => node.getBoundingClientRect().right))"
    )
    assert right <= width


def test_panels_stand_side_by_side_on_a_desk_and_one_below_the_other_on_a_phone(show, curves):
    tops = "nodes => nodes.map(node => Math.round(node.getBoundingClientRect().top))"
    page = show(curves.html)
    assert len(set(page.locator(".bx-panel").evaluate_all(tops))) == 1
    page.set_viewport_size({"width": 360, "height": 800})
    settle(page)
    assert len(set(page.locator(".bx-panel").evaluate_all(tops))) == 2


def test_drawing_follows_the_width_without_scaling_the_text(show, curves):
    page = show(curves.html)
    drawing = page.locator(".bx-panel svg").first
    wide = float(drawing.get_attribute("width"))
    page.set_viewport_size({"width": 360, "height": 800})
    page.wait_for_function(
        "w => +document.querySelector('.bx-panel svg').getAttribute('width') < w", arg=wide
    )
    box = drawing.bounding_box()
    assert abs(box["width"] - float(drawing.get_attribute("width"))) < 1


def test_an_explorer_in_closed_details_is_drawn_when_they_open(show, curves):
    page = show("<details><summary>More</summary>" + curves.html + "</details>" + curves.html)
    hidden = page.locator("details .bx-panel svg").first
    page.locator("summary").click()
    page.wait_for_function("document.querySelector('details .bx-panel svg').hasAttribute('width')")
    assert hidden.bounding_box()["width"] > 200


def test_paper_gets_the_picture_of_the_start_and_no_controls(show, curves):
    page = show(curves.html)
    slide(page, 0, 900)
    page.emulate_media(media="print")
    assert page.locator(".book-explorer-still img").is_visible()
    assert page.locator(".book-explorer-still img").evaluate("node => node.naturalWidth") > 500
    assert not page.locator(".bx-app").is_visible()
    page.emulate_media(media="screen")
    assert not page.locator(".book-explorer-still").is_visible()


def test_readers_without_scripts_get_picture_and_sentence(show, curves):
    page = show(curves.html, java_script_enabled=False)
    image = page.locator("book-explorer img")
    assert image.is_visible()
    assert image.get_attribute("alt") == say(1.0, 256, "plain")
    assert "the plain curve ends at 0.368" in page.locator("figcaption").inner_text()
    assert page.locator("input, select, button").count() == 0


# --- readers who do not see it ------------------------------------------------------------------


def test_a_change_is_announced_once_it_rests_with_the_numbers_of_the_nearest_point(show, curves):
    page = show(curves.html)
    live = page.locator("[aria-live=polite]")
    assert live.inner_text() == ""
    page.get_by_role("slider", name="decay λ").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('[aria-live]').textContent !== ''")
    assert live.text_content() == say(2.5, 256, "plain")
    assert page.get_by_role("img", name=say(2.5, 256, "plain")).count() == 1


def test_every_control_has_a_name_and_the_group_the_title(show, curves):
    page = show(curves.html)
    assert page.get_by_role("slider", name="decay λ").count() == 1
    assert page.get_by_role("slider", name="keys n").count() == 1
    assert page.get_by_role("combobox", name="family").count() == 1
    assert page.get_by_role("group", name="Decay").count() == 1


def test_focus_is_visible(show, curves):
    page = show(curves.html)
    for _ in range(5):
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing(show, curves, frames, theme, size):
    colours = "".join(f"{r.variable}:{getattr(r, theme)};" for r in style.ROLES.values())
    head = (
        f"<style>:root{{{colours}}}"
        "body{background:var(--book-paper);color:var(--book-ink)}</style>"
    )
    page = show(curves.html + frames.html + cloud(), theme=theme, head=head, **size)
    if not AXE.is_file():
        pytest.fail(f"{AXE} is missing: `make book` fetches it")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(
        "axe.run({preload: false}).then(r => r.violations.map(v => v.id + ': ' +"
        " v.nodes.map(n => n.html).join(' | ')))"
    )
    assert found == []


# --- the page around it -------------------------------------------------------------------------


def test_several_explorers_share_a_page_without_clashing_ids(show, curves, frames):
    page = show(curves.html + frames.html + curves.html)
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(node => node.id)")
    assert len(ids) == len(set(ids))
    slide(page, 0, 1000)
    ends = page.locator('path[data-series="exponential"]').evaluate_all(
        "nodes => nodes.map(node => node.getAttribute('d'))"
    )
    assert ends[0] != ends[1]


def test_a_strict_content_security_policy_is_enough(new_strict_page, serve, tmp_path, curves):
    for name in ("book-explorer.js", "book-explorer.css"):
        (tmp_path / name).write_bytes((ASSETS / name).read_bytes())
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    (tmp_path / "page.html").write_text(document(curves.html, assets=".", head=head), "utf-8")
    page = new_strict_page(serve(tmp_path), **DESKTOP)
    page.open("page.html")
    page.wait_for_selector("book-explorer.bx-ready")
    slide(page, 0, 1000)
    assert values(page)[0] == f"{math.exp(-4):.3f} units"


def test_an_element_that_is_parsed_after_the_script_comes_to_life_too(
    new_strict_page, tmp_path, curves
):
    page_text = document(curves.html).replace("<script defer", "<script")
    (tmp_path / "early.html").write_text(page_text, encoding="utf-8")
    page = new_strict_page("file://", **DESKTOP)
    page.goto((tmp_path / "early.html").as_uri())
    page.wait_for_selector("book-explorer.bx-ready svg text")


def test_a_slider_event_is_measured(show, curves, record_property):
    """No limit here, since machines differ: the figure goes into the report."""
    page = show(curves.html)
    times = page.evaluate(
        """() => {
          const explorer = document.querySelector('book-explorer');
          const times = [];
          for (let i = 0; i < 200; i++) {
            const start = performance.now();
            explorer.controls[0].set(4 * i / 199);
            explorer.refresh();
            explorer.getBoundingClientRect();
            times.push(performance.now() - start);
          }
          return times;
        }"""
    )
    record_property("milliseconds per slider event", round(statistics.median(times), 3))
    assert len(times) == 200


# --- figures ------------------------------------------------------------------------------------


def cloud() -> str:
    fig, axes = style.figure(1, 2)
    rng = np.random.default_rng(0)
    axes[0].scatter(*rng.normal(size=(2, 300)), color=style.colour("extra"), rasterized=True)
    style.line(axes[1], X, X**2, "theory", "square")
    style.label_lines(axes[1])
    return style.figure_html(fig, title="Cloud", alt="300 points.", caption="They scatter.")


def test_a_figure_has_one_image_role_with_its_alt_text(show):
    page = show(cloud())
    assert page.get_by_role("img", name="300 points.").count() == 1
    assert page.locator("figcaption").is_visible()


@pytest.mark.parametrize(("width", "shown"), [(900, 0), (360, 1)])
def test_a_figure_is_shown_in_the_layout_that_fits(show, width, shown):
    page = show(cloud(), viewport={"width": width, "height": 800})
    drawings = page.locator("book-figure svg[viewBox]")
    assert [drawings.nth(i).is_visible() for i in range(2)] == [i == shown for i in range(2)]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_raster_part_is_shown_in_the_colours_of_the_theme_only(show, theme):
    page = show(cloud(), theme=theme)
    shown = (
        page.locator("book-figure svg[viewBox]")
        .first.locator("image")
        .evaluate_all("nodes => nodes.map(node => getComputedStyle(node).display)")
    )
    assert shown == (["inline", "none"] if theme == "light" else ["none", "inline"])


def test_figure_colours_come_from_the_page(show):
    page = show(cloud(), head="<style>:root { --book-theory: rgb(1, 2, 3); }</style>")
    strokes = page.locator("book-figure path").evaluate_all(
        "nodes => nodes.map(node => getComputedStyle(node).stroke)"
    )
    assert "rgb(1, 2, 3)" in strokes
