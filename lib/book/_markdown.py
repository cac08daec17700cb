"""Headings, labelled equations and directives of MyST Markdown, by line scanning.

Follows the rules of the two places where Sphinx takes an equation label from: the dollar block
``$$ … $$ (label)`` and the ``math`` directive with ``:label:``. Code (fences, inline, comments)
holds no equations. Reads only what the ledger needs; it is no Markdown parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

ITEM = r"[\s>]*(?:(?:[-*+]|\d+[.)])\s+)?"  # the signs of a quotation or list before the content
FENCE = re.compile(rf"^{ITEM}(?P<mark>`{{3,}}(?!.*`)|~{{3,}}|:{{3,}})(?P<info>.*)$")
DIRECTIVE = re.compile(r"^\{(?P<name>[^}\s]+)\}\s*(?P<argument>.*)$")
OPTION = re.compile(r"^\s*:(?P<key>[\w-]+):\s*(?P<value>.*)$")
YAML_OPTION = re.compile(r"^\s*(?P<key>[\w-]+):\s*(?P<value>.*)$")
HEADING = re.compile(r"^ {0,3}(?P<marks>#{1,6})\s+(?P<text>.*?)\s*#*\s*$")
CONTAINER = re.compile(f"^{ITEM}")
QUOTED = re.compile(r"^\s*(?:>\s?)+")
CLOSING = re.compile(r"\$\$\s*(?:\((?P<label>[^()$\r\n]+)\))?\s*$")
NO_TEXT = re.compile(r"^\s*(?:%.*|\([^()]+\)=|(?:---+|\*\*\*+|___+|\+\+\+.*))\s*$")
LITERAL = {"code", "code-block", "code-cell", "sourcecode", "literalinclude", "eval-rst", "raw"}


@dataclass(frozen=True)
class Block:
    """One heading, equation or directive.

    ``text`` is the heading's words, the equation's LaTeX or the directive's argument; ``label``
    is empty for an equation without one; ``depth`` counts the enclosing directives.
    """

    kind: str
    line: int
    text: str
    label: str = ""
    level: int = 0
    depth: int = 0
    name: str = ""
    options: dict[str, str] = field(default_factory=dict)
    broken: str = ""


def blocks(source: str) -> list[Block]:
    """Return the headings, equations and directives of a page in reading order."""
    blank_comments = re.sub(
        r"<!--.*?-->", lambda found: "\n" * found.group().count("\n"), source, flags=re.DOTALL
    )
    return list(_walk(blank_comments.splitlines(), 0, 0))


def _walk(lines: list[str], first: int, depth: int) -> Iterator[Block]:
    at, paragraph = 0, False  # whether the line before belongs to a paragraph of text
    while at < len(lines):
        line = lines[at]
        fence, heading = FENCE.match(line), HEADING.match(line)
        if fence:
            end = _closing_fence(lines, at, fence["mark"])
            yield from _fenced(lines[at + 1 : end], fence["info"].strip(), first + at, depth)
            at, paragraph = end + 1, False
        elif CONTAINER.sub("", line, count=1).startswith("$$"):
            block, at = _dollar_block(lines, at, first, depth)
            if block is not None and paragraph and block.label:
                lost = f"the equation {block.label} loses its label: it needs a blank line before"
                block = replace(block, label="", broken=lost)
            if block is not None:
                yield block
            paragraph = paragraph or block is None
        else:
            if heading:
                level = len(heading["marks"])
                yield Block("heading", first + at, heading["text"], level=level, depth=depth)
            paragraph = bool(line.strip()) and not heading and not NO_TEXT.match(line)
            at += 1


def _closing_fence(lines: list[str], at: int, mark: str) -> int:
    """Return the index of the line that closes the fence opened at ``at`` (or the end)."""
    closing = re.compile(rf"^[\s>]*{re.escape(mark[0])}{{{len(mark)},}}\s*$")
    for index in range(at + 1, len(lines)):
        if closing.match(lines[index]):
            return index
    return len(lines)


def _fenced(body: list[str], info: str, line: int, depth: int) -> Iterator[Block]:
    directive = DIRECTIVE.match(info)
    if directive is None:
        return
    options, skipped = _options(body)
    name, argument = directive["name"], directive["argument"].strip()
    content = body[skipped:]
    if name == "math":
        label = options.get("label", options.get("name", ""))
        latex = "\n".join([argument, *content]).strip()
        yield Block("equation", line, latex, label=label, depth=depth, name=name, options=options)
        return
    yield Block("directive", line, argument, depth=depth, name=name, options=options)
    if name not in LITERAL:
        yield from _walk(content, line + 1 + skipped, depth + 1)


def _options(body: list[str]) -> tuple[dict[str, str], int]:
    """Return a directive's options and the number of lines that they take."""
    if body and body[0].strip() == "---":
        end = next((i for i in range(1, len(body)) if body[i].strip() == "---"), 0)
        pattern, rows, skipped = YAML_OPTION, body[1:end], end + 1
    else:
        rows = []
        for row in body:
            if not OPTION.match(row):
                break
            rows.append(row)
        pattern, skipped = OPTION, len(rows)
    found = [match for row in rows if (match := pattern.match(row))]
    return {match["key"]: match["value"].strip() for match in found}, skipped


def _dollar_block(lines: list[str], at: int, first: int, depth: int) -> tuple[Block | None, int]:
    """Read the dollar block that opens at ``at``; return it and the index of the next line."""
    container = CONTAINER.match(lines[at]).group()  # matches the empty string at least
    opening = lines[at][len(container) + 2 :]
    closing = CLOSING.search(opening)
    if closing:
        latex, label = opening[: closing.start()].strip(), closing["label"] or ""
        return Block("equation", first + at, latex, label=label.strip(), depth=depth), at + 1
    if "$$" in opening:  # display mathematics in the middle of a sentence: never labelled
        return None, at + 1
    rows = [opening]
    for index in range(at + 1, len(lines)):
        row = QUOTED.sub("", lines[index]) if ">" in container else lines[index]
        closing = CLOSING.search(row)
        if closing:
            rows.append(row[: closing.start()])
            latex, label = "\n".join(rows).strip(), (closing["label"] or "").strip()
            blank = any(not row.strip() for row in rows[1:-1])
            broken = "a blank line inside $$ ends the equation" if blank else ""
            return (
                Block("equation", first + at, latex, label=label, depth=depth, broken=broken),
                index + 1,
            )
        if HEADING.match(row) or FENCE.match(row):
            break
        rows.append(row)
    return Block("equation", first + at, "", depth=depth, broken="$$ is never closed"), at + 1
