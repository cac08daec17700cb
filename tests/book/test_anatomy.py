"""Chapters with a room missing, and notebooks that should not be committed."""

from __future__ import annotations

from typing import Any

import pytest

from lib.book import anatomy

CARD = ":::{card} 标题\n:class-card: book-card-article\nBy whom, when, where.\n:::\n"
HEADINGS = [
    "Feel it first", "Derivation: softmax", "Derivation: entropy", "Experiments",
    "Where it breaks", "On your own data", "Exercises", "What was checked",
]  # fmt: skip


def chapter(headings: list[str], title: str = "# Title\n\n" + CARD) -> dict[str, Any]:
    sources = [title, *(f"## {heading}\n\ntext" for heading in headings)]
    return {"cells": [{"cell_type": "markdown", "source": source} for source in sources]}


def cell(source: str, *outputs: dict[str, Any], tags: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": f"cell-{abs(hash(source))}",
        "source": source,
        "metadata": {"tags": list(tags)},
        "outputs": list(outputs),
    }


def html(text: str) -> dict[str, Any]:
    return {"output_type": "display_data", "data": {"text/html": text}}


def test_a_chapter_with_all_rooms_is_in_order() -> None:
    assert anatomy.room_problems(chapter(HEADINGS)) == []


@pytest.mark.parametrize("room", [r for r in anatomy.ROOMS if r != "Derivation"])
def test_a_missing_room_is_reported(room: str) -> None:
    left = [heading for heading in HEADINGS if heading != room]
    assert anatomy.room_problems(chapter(left)) == [f"the room “{room}” is missing"]


def test_the_derivation_may_not_be_missing_altogether() -> None:
    left = [heading for heading in HEADINGS if not heading.startswith("Derivation")]
    assert anatomy.room_problems(chapter(left)) == ["the room “Derivation” is missing"]


def test_rooms_in_another_order_are_reported() -> None:
    swapped = [*HEADINGS[1:], HEADINGS[0]]
    (problem,) = anatomy.room_problems(chapter(swapped))
    assert problem.startswith("the rooms stand in the order Derivation")


def test_a_room_that_no_chapter_has_is_reported() -> None:
    assert anatomy.room_problems(chapter([*HEADINGS, "Appendix"])) == [
        "the H2 “Appendix” is none of the rooms"
    ]
    assert anatomy.room_problems(chapter([*HEADINGS, "Derivations"]))


def test_a_room_that_appears_twice_is_reported() -> None:
    doubled = [*HEADINGS[:4], "Derivation: more", *HEADINGS[4:]]
    assert "the room “Derivation” appears more than once" in anatomy.room_problems(chapter(doubled))


@pytest.mark.parametrize(
    ("title", "problem"),
    [
        ("# Title\n\ntext\n\n:::{note}\ntext\n:::", "right after the title"),
        ("# Title", "right after the title"),
        (CARD, "one H1"),
        ("# One\n\n" + CARD + "\n# Two", "one H1"),
        (CARD + "\n# Title\n\n" + CARD, "must open with its title"),
    ],
)
def test_a_chapter_without_title_and_card_is_reported(title: str, problem: str) -> None:
    (found,) = anatomy.room_problems(chapter(HEADINGS, title))
    assert problem in found


def test_an_admonition_of_that_class_is_a_card_too() -> None:
    card = "```{admonition} 标题\n:class: book-card-article wide\ntext\n```"
    assert anatomy.room_problems(chapter(HEADINGS, "# Title\n\n" + card)) == []


# Hygiene --------------------------------------------------------------------------------------


def hygiene(*cells: dict[str, Any], **metadata: Any) -> list[str]:
    return anatomy.hygiene_problems({"metadata": metadata, "cells": list(cells)})


def test_a_clean_notebook_is_clean() -> None:
    output = html("<book-figure></book-figure> 3/4 and/or https://kexue.fm/archives/9034/home/x")
    assert hygiene(cell("a = 1 / b / c", output)) == []


@pytest.mark.parametrize(
    "path", ["/home/reader/x.py", "/var/plots/one.svg", "file:///book/index.html", r"C:\Users\x"]
)
def test_an_absolute_path_is_reported(path: str) -> None:
    assert "an absolute path" in hygiene(cell(f"open({path!r})"))[0]
    stream = {"output_type": "stream", "name": "stdout", "text": f"saved to\n{path}\n"}
    assert "an absolute path" in hygiene(cell("save()", stream))[0]
    stream["text"] = ["saved to\n", f"{path}\n"]
    assert "an absolute path" in hygiene(cell("save()", stream))[0]


def test_stderr_is_reported() -> None:
    stream = {"output_type": "stream", "name": "stderr", "text": ["Warning: deprecated\n"]}
    assert hygiene(cell("f()", stream)) == ["cell 1: output on stderr: Warning: deprecated"]


def test_a_stored_error_is_reported() -> None:
    error = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}
    assert hygiene(cell("f()", error)) == ["cell 1: the cell raised ValueError: no"]


def test_widget_state_is_reported() -> None:
    assert hygiene(cell("f()"), widgets={}) == ["the notebook stores widget state"]


@pytest.mark.parametrize("tag", ["book-explorer", "book-figure", "book-measured"])
def test_a_stored_payload_is_reported(tag: str) -> None:
    for full in (f"<{tag} title='x'></{tag}>", f"<div><{tag}>\n0.81</{tag}></div>"):
        assert hygiene(cell("f()", html(full))) == [f"cell 1: <{tag}> is stored with its payload"]
    assert hygiene(cell("f()", html(f"<{tag}></{tag}>"))) == []


def test_cells_without_their_own_id_are_reported() -> None:
    (problem,) = hygiene(cell("f()"), cell("f()"))
    assert "id of its own" in problem


@pytest.mark.parametrize("how", ["tag", "comment"])
def test_many_cells_that_are_not_compared_are_reported(how: str) -> None:
    ignored = (
        cell("train()", tags=("nbval-ignore-output",))
        if how == "tag"
        else cell("# NBVAL_IGNORE_OUTPUT\ntrain()")
    )
    compared = [cell(f"f({i})") for i in range(6)]
    assert hygiene(ignored, *compared) == []
    (problem,) = hygiene(ignored, *compared[:5])
    assert problem == "17% of the code cells are not compared, allowed are less than 15%"


def test_a_skipped_cell_is_reported() -> None:
    (problem,) = hygiene(cell("f()", tags=("nbval-skip",)))
    assert "skipped" in problem
