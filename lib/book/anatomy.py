"""Whether a chapter has all its rooms, and whether its stored notebook is fit to be compared.

The rooms are those that a reader finds in every chapter, in the same order; see :data:`ROOMS`.
Like :mod:`lib.book.records` this reads stored notebooks only and needs no Jupyter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lib.book._markdown import Block, blocks
from lib.book.records import load, text_of

ROOMS = (
    "Feel it first",
    "Derivation",
    "Experiments",
    "Where it breaks",
    "On your own data",
    "Exercises",
    "What was checked",
)
MANY = "Derivation"  # the one room that may have several H2 headings, each starting with its name
CARD_CLASS = "book-card-article"
IGNORED_SHARE = 0.15  # of the code cells, whose output is not compared

ABSOLUTE = re.compile(
    r"(?:file://\S+|(?<![\w.:/~\\)-])/(?:home|root|tmp|usr|var|opt|mnt|Users|private|srv)/\S+"
    r"|\b[A-Za-z]:\\{1,2}(?:Users|Windows|Program)\S*)"
)
HEAVY_TAG = re.compile(
    r"<(book-(?:explorer|figure|measured))\b(?P<attributes>[^>]*)>(?P<inside>.*?)</\1>", re.DOTALL
)
IGNORING = ("nbval-ignore-output", "# NBVAL_IGNORE_OUTPUT")
SKIPPING = ("nbval-skip", "# NBVAL_SKIP")


def room_problems(source: Mapping[str, Any] | str | Path) -> list[str]:
    """Return, as sentences, which rooms a chapter lacks or has in the wrong order.

    A chapter opens with one H1, followed at once by its card (a directive of class
    ``book-card-article``); its H2 headings are the rooms.
    """
    page = [
        block
        for cell in load(source)["cells"]
        if cell.get("cell_type") == "markdown"
        for block in blocks(text_of(cell.get("source")))
    ]
    return [*_problems_of_title(page), *_problems_of_rooms(page)]


def _problems_of_title(page: list[Block]) -> Iterator[str]:
    titles = [block for block in page if block.kind == "heading" and block.level == 1]
    if len(titles) != 1:
        yield f"a chapter has one H1, its title; found {[t.text for t in titles]}"
        return
    at = page.index(titles[0])
    if at != 0:
        yield f"the chapter must open with its title; before it stands “{page[0].text}”"
    after = page[at + 1] if at + 1 < len(page) else None
    options = after.options.items() if after else ()
    classes = [word for key, value in options if key.startswith("class") for word in value.split()]
    if after is None or after.kind != "directive" or CARD_CLASS not in classes:
        yield f"right after the title must stand the card, a directive of class {CARD_CLASS}"


def _problems_of_rooms(page: list[Block]) -> Iterator[str]:
    headings = [block.text for block in page if block.kind == "heading" and block.level == 2]
    found = [MANY if re.match(rf"{MANY}\b", heading) else heading for heading in headings]
    rooms = [room for i, room in enumerate(found) if i == 0 or (room, found[i - 1]) != (MANY, MANY)]
    for room in ROOMS:
        if room not in rooms:
            yield f"the room “{room}” is missing"
    for room, heading in zip(found, headings, strict=True):
        if room not in ROOMS:
            yield f"the H2 “{heading}” is none of the rooms"
    known = [room for room in rooms if room in ROOMS]
    for room in dict.fromkeys(known):
        if known.count(room) > 1:
            yield f"the room “{room}” appears more than once"
    order = [ROOMS.index(room) for room in dict.fromkeys(known)]
    if order != sorted(order):
        yield f"the rooms stand in the order {', '.join(dict.fromkeys(known))}"


def hygiene_problems(source: Mapping[str, Any] | str | Path) -> list[str]:
    """Return, as sentences, what makes a stored notebook unfit to be compared or committed.

    Execution counts are looked at by :func:`lib.book.records.problems`.
    """
    notebook = load(source)
    cells = notebook["cells"]
    found = []
    if "widgets" in notebook.get("metadata", {}):
        found.append("the notebook stores widget state")
    identifiers = [cell.get("id") for cell in cells]
    if None in identifiers or len(set(identifiers)) < len(identifiers):
        found.append("every cell needs an id of its own")
    for index, cell in enumerate(cells):
        found.extend(f"cell {index + 1}: {problem}" for problem in _problems_of_cell(cell))
    share = ignored_share(notebook)
    if share >= IGNORED_SHARE:
        found.append(
            f"{share:.0%} of the code cells are not compared, allowed are less than "
            f"{IGNORED_SHARE:.0%}"
        )
    return found


def ignored_share(source: Mapping[str, Any] | str | Path) -> float:
    """Return the share of code cells whose output is not compared."""
    code = [cell for cell in load(source)["cells"] if cell.get("cell_type") == "code"]
    return sum(_marked(cell, IGNORING) for cell in code) / max(len(code), 1)


def _marked(cell: Mapping[str, Any], marks: tuple[str, str]) -> bool:
    """Whether a cell carries nbval's tag or nbval's comment."""
    tag, comment = marks
    lines = text_of(cell.get("source")).splitlines()
    return tag in cell.get("metadata", {}).get("tags", []) or any(
        line.strip() == comment for line in lines
    )


def _strings(stored: Any) -> Iterator[str]:
    """Return every text in a piece of JSON, keys left out."""
    if isinstance(stored, str):
        yield stored
    elif isinstance(stored, Mapping):
        for value in stored.values():
            yield from _strings(value)
    elif isinstance(stored, list):
        if all(isinstance(line, str) for line in stored):
            yield "".join(stored)
        else:
            for value in stored:
                yield from _strings(value)


def _problems_of_cell(cell: Mapping[str, Any]) -> Iterator[str]:
    outputs = cell.get("outputs", [])
    written = "\n".join([text_of(cell.get("source")), *_strings(outputs)])
    for path in dict.fromkeys(ABSOLUTE.findall(written)):
        yield f"an absolute path: {path[:60]}"
    if cell.get("cell_type") != "code":
        return
    if _marked(cell, SKIPPING):
        yield "the cell is skipped, so it is never executed as a test"
    for output in outputs:
        if output.get("name") == "stderr":
            yield f"output on stderr: {text_of(output.get('text')).strip()[:80]}"
        if output.get("output_type") == "error":
            yield f"the cell raised {output.get('ename')}: {output.get('evalue')}"
        for tag in HEAVY_TAG.finditer(text_of(output.get("data", {}).get("text/html"))):
            if tag["attributes"].strip() or tag["inside"].strip():
                yield f"<{tag[1]}> is stored with its payload"
