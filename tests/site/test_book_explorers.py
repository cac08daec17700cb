"""Every explorer of every chapter of the built book, moved in every way and seen to change.

A chapter is opened once for a desk and once for a phone, and its tests share the page: each puts
the explorers back to their start, whatever the one before has left behind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from built import CHAPTERS, DESKTOP, HTML, PHONE, at_rest, soup, text_of, unfold
from pages import watch

EXPLORER = re.compile(r"<book-explorer\b.*?</book-explorer>", re.DOTALL)
EXPLORER_BUDGET = 1_000_000
SLIDER, CHOICE = "input[type=range]", "select"
every_chapter = pytest.mark.parametrize("name", CHAPTERS)
pytestmark = pytest.mark.usefixtures("site_dir")


@dataclass
class Reading:
    """A chapter that is open in a browser, and what its explorers showed when it had opened."""

    page: Any
    start: list[list[Any]]

    @property
    def explorers(self) -> list[Any]:
        return self.page.locator("book-explorer").all()


def read(browser: Any, address: str, name: str, context: dict[str, Any]) -> Iterator[Reading]:
    page = watch(browser.new_context(**context).new_page(), address)
    page.open(name)
    at_rest(page)
    unfold(page)
    settle(page)
    reading = Reading(page, [])
    reading.start = [shown(explorer) for explorer in reading.explorers]
    yield reading
    problems = page.problems
    page.context.close()
    assert problems == []


@pytest.fixture(scope="module", params=CHAPTERS)
def desk(request: Any, browser: Any, site_url: str) -> Iterator[Reading]:
    """Each chapter in turn, as it is read with a mouse and a keyboard."""
    yield from read(browser, site_url, request.param, DESKTOP)


@pytest.fixture(scope="module", params=CHAPTERS)
def phone(request: Any, browser: Any, site_url: str) -> Iterator[Reading]:
    """Each chapter in turn, as it is read on a phone."""
    yield from read(browser, site_url, request.param, PHONE)


# --- looking and acting -------------------------------------------------------------------------


def settle(page: Any) -> None:
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def picture(explorer: Any) -> list[str]:
    """What is drawn: the paths of the curves, or the frame."""
    return explorer.evaluate(
        "node => [...node.querySelectorAll('path[data-series]')].map(p => p.getAttribute('d'))"
        ".concat([...node.querySelectorAll('.bx-frame')].map(image => image.src))"
    )


def shown(explorer: Any) -> list[Any]:
    """All that a reader sees of the state: picture, readouts, and where the controls stand."""
    readouts = explorer.locator(".bx-readouts dd").all_text_contents()
    stands = explorer.locator(f"{SLIDER}, {CHOICE}").evaluate_all(
        "nodes => nodes.map(node => [node.value, node.getAttribute('aria-valuetext')])"
    )
    return [picture(explorer), readouts, stands]


def name_of(control: Any) -> str:
    """The title of the explorer and the label of the control, for the message of a failure."""
    return control.evaluate(
        "node => node.closest('.bx-app').querySelector('.bx-title').textContent + ': '"
        " + node.labels[0].textContent"
    )


def restart(page: Any, explorer: Any) -> None:
    explorer.locator(".bx-reset").evaluate("button => button.click()")
    settle(page)


def without_effect(reading: Reading, act: Callable[[Any, Any], None]) -> list[str]:
    """Act on each slider, from the start, and name those that leave the picture as it was."""
    dead, count = [], 0
    for explorer in reading.explorers:
        for slider in explorer.locator(SLIDER).all():
            restart(reading.page, explorer)
            before = picture(explorer)
            act(reading.page, slider)
            settle(reading.page)
            count += 1
            if picture(explorer) == before:
                dead.append(name_of(slider))
            reading.page.mouse.up()  # of a drag, which is looked at with the button down
    assert count > 0, "the chapter has nothing to move"
    return dead


def fraction(slider: Any) -> float:
    """Where the thumb stands, from 0 at the left to 1."""
    return slider.evaluate("node => (node.value - node.min) / (node.max - node.min)")


def box_of(slider: Any) -> tuple[float, float, float]:
    """Left edge, width and middle height of a slider that has been scrolled into the middle."""
    slider.evaluate("node => node.scrollIntoView({block: 'center', behavior: 'instant'})")
    box = slider.bounding_box()
    return box["x"], box["width"], box["y"] + box["height"] / 2


def drag(page: Any, slider: Any) -> None:
    """Take the thumb with the mouse and pull it to the far side; the button is still down."""
    left, width, y = box_of(slider)
    at = fraction(slider)
    page.mouse.move(left + (0.02 + 0.96 * at) * width, y)
    page.mouse.down()
    page.mouse.move(left + (0.15 if at > 0.5 else 0.85) * width, y, steps=4)


def tap(page: Any, slider: Any) -> None:
    left, width, y = box_of(slider)
    page.touchscreen.tap(left + (0.15 if fraction(slider) > 0.5 else 0.85) * width, y)


def press_an_arrow(page: Any, slider: Any) -> None:
    slider.focus()
    page.keyboard.press("ArrowLeft" if fraction(slider) == 1 else "ArrowRight")


def jump_to_the_far_end(page: Any, slider: Any) -> None:
    slider.focus()
    page.keyboard.press("Home" if fraction(slider) > 0.5 else "End")


# --- they come to life --------------------------------------------------------------------------


@every_chapter
def test_a_chapter_lets_you_feel_it_before_the_first_equation(name):
    article = soup(name).article
    first = article.select_one("book-explorer, div.math")
    assert first is not None
    assert first.name == "book-explorer"


def unready(explorers: list[Any]) -> list[str]:
    """Which of them have no controls or an empty picture."""
    assert explorers
    return [
        explorer.locator("figcaption").text_content()
        for explorer in explorers
        if "bx-ready" not in explorer.get_attribute("class").split() or not any(picture(explorer))
    ]


def test_every_explorer_becomes_ready_and_draws(desk):
    assert unready(desk.explorers) == []


@every_chapter
def test_they_come_to_life_from_the_disk_too(new_strict_page, name):
    page = new_strict_page(HTML.as_uri(), **DESKTOP)
    page.open(name)
    at_rest(page)
    unfold(page)
    settle(page)
    assert unready(page.locator("book-explorer").all()) == []


# --- they move ----------------------------------------------------------------------------------


def test_the_mouse_drags_every_slider_and_the_picture_follows(desk):
    assert without_effect(desk, drag) == []


def test_an_arrow_key_moves_every_slider(desk):
    assert without_effect(desk, press_an_arrow) == []


@pytest.mark.parametrize(("key", "end"), [("Home", 0), ("End", 1)])
def test_home_and_end_take_every_slider_to_its_ends(desk, key, end):
    for explorer in desk.explorers:
        for slider in explorer.locator(SLIDER).all():
            slider.focus()
            desk.page.keyboard.press(key)
            assert fraction(slider) == end, name_of(slider)


def test_the_far_end_of_every_slider_looks_different(desk):
    assert without_effect(desk, jump_to_the_far_end) == []


def test_a_finger_moves_every_slider(phone):
    assert without_effect(phone, tap) == []


def test_every_slider_is_large_enough_for_a_finger(phone):
    heights = phone.page.locator(f"book-explorer {SLIDER}").evaluate_all(
        "nodes => nodes.map(node => node.getBoundingClientRect().height)"
    )
    assert min(heights) >= 44


def test_every_option_of_a_choice_has_a_picture_of_its_own(desk):
    for explorer in desk.explorers:
        for choice in explorer.locator(CHOICE).all():
            restart(desk.page, explorer)
            pictures = []
            for option in choice.locator("option").all():
                choice.select_option(option.get_attribute("value"))
                settle(desk.page)
                pictures.append(tuple(picture(explorer)))
            assert len(set(pictures)) == len(pictures) > 1, name_of(choice)


def test_reset_brings_back_the_start_of_every_explorer(desk):
    for explorer, start in zip(desk.explorers, desk.start, strict=True):
        restart(desk.page, explorer)
        for slider in explorer.locator(SLIDER).all():
            jump_to_the_far_end(desk.page, slider)
        for choice in explorer.locator(CHOICE).all():
            other = choice.locator("option:not(:checked)").last.get_attribute("value")
            choice.select_option(other)
        settle(desk.page)
        assert picture(explorer) != start[0]
        explorer.locator(".bx-reset").click()
        settle(desk.page)
        assert shown(explorer) == start


# --- they speak ---------------------------------------------------------------------------------


def test_every_change_is_announced_with_its_numbers(desk):
    for explorer in desk.explorers:
        restart(desk.page, explorer)
        slider = explorer.locator(SLIDER).first
        label = explorer.locator(".bx-picture")
        desk.page.wait_for_timeout(600)  # the way back to the start is announced first
        before = label.get_attribute("aria-label")
        jump_to_the_far_end(desk.page, slider)
        desk.page.wait_for_function(
            "([node, before]) => node.getAttribute('aria-label') !== before",
            arg=[label.element_handle(), before],
            timeout=5000,
        )
        said = explorer.locator("[aria-live]").text_content()
        assert said == label.get_attribute("aria-label")
        assert re.search(r"\d", before), name_of(slider)
        assert re.search(r"\d", said), name_of(slider)


# --- on paper and without scripts ---------------------------------------------------------------


@every_chapter
def test_paper_gets_the_still_picture_of_every_explorer_and_no_navigation(
    new_strict_page, site_url, name
):
    page = new_strict_page(site_url, **DESKTOP)
    page.open(name)
    at_rest(page)
    unfold(page)
    assert page.locator(".bd-sidebar-primary").is_visible()
    page.emulate_media(media="print")
    stills = page.locator("book-explorer .book-explorer-still img")
    sizes = stills.evaluate_all("nodes => nodes.map(n => n.checkVisibility() && n.naturalWidth)")
    assert len(sizes) == len(soup(name).select("book-explorer"))
    assert min(sizes) > 300
    unwanted = ".bx-app, .bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article"
    assert page.locator(unwanted).evaluate_all("ns => ns.filter(n => n.checkVisibility())") == []


@every_chapter
def test_readers_without_scripts_see_the_still_picture_and_its_words(
    new_strict_page, site_url, name
):
    page = new_strict_page(site_url, java_script_enabled=False, **DESKTOP)
    page.open(name)
    explorers = page.locator("book-explorer").all()
    assert len(explorers) == len(soup(name).select("book-explorer"))
    for explorer in explorers:
        assert explorer.locator("img").is_visible()
        assert re.search(r"\d", explorer.locator("img").get_attribute("alt"))
        assert explorer.locator("input, select, button").count() == 0


@every_chapter
def test_every_explorer_keeps_to_its_budget(name):
    sizes = [len(explorer.encode()) for explorer in EXPLORER.findall(text_of(name))]
    assert len(sizes) == len(soup(name).select("book-explorer"))
    assert max(sizes) <= EXPLORER_BUDGET
