"""Pages that ask nobody for anything, and heads that say what a page is about.

Jupyter Book adds scripts to every page that come from content delivery networks or serve only
features which this book does not use. They are dropped here; what a script could still fetch from
elsewhere is looked for in the finished pages, and found, fails the build under ``-W``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

# their extensions come with Jupyter Book and cannot be left out by its configuration
DROPPED = re.compile(r"thebe|hypothesis|utterances|require(\.min)?\.js|html-manager", re.IGNORECASE)
THEBE_SETTINGS = re.compile(r"""\s*<script(?: type="text/x-thebe-config">|>kernelName = )""")
# what a browser fetches by itself, in contrast to links that a reader follows
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed|track)\b[^>]*?\bsrc\s*=\s*["']?([^"'\s>]+)
      | <link\b(?=[^>]*\brel\s*=\s*["']?(?:stylesheet|preload|prefetch|preconnect|icon))
        [^>]*?\bhref\s*=\s*["']?([^"'\s>]+)
      | \burl\(\s*["']?([^"')]+)
      | @import\s+["']([^"']+)""",
    re.IGNORECASE | re.VERBOSE,
)
OFF_ORIGIN = re.compile(r"(?:https?:)?//", re.IGNORECASE)
VIEWPORT = re.compile(r"""<meta [^>]*name="viewport"[^>]*>\s*""")
SCRIPT_HOSTS = re.compile(r"https?://(?:cdn\.|cdnjs\.|unpkg\.)[\w./@~-]*")


def prepare_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Drop what comes from elsewhere, defer the rest, and describe the page."""
    scripts = context.get("script_files", [])
    context["script_files"] = [s for s in scripts if not is_foreign(s)]
    context["css_files"] = [c for c in context.get("css_files", []) if not is_foreign(c)]
    for script in context["script_files"]:
        if script.filename and not {"async", "defer"} & script.attributes.keys():
            script.attributes["defer"] = "defer"
    context["metatags"] = VIEWPORT.sub("", context.get("metatags", ""))  # the layout has one
    if 'name="description"' not in context["metatags"]:
        text = description(doctree) or app.config.book_description
        tag = f'\n    <meta name="description" content="{escape(text)}" />'
        context["metatags"] = context["metatags"] + tag


def drop_settings(app: Sphinx, doctree: nodes.document, pagename: str) -> None:
    """Take off the end of a page what thebe puts there: settings of scripts that are dropped."""
    for node in list(doctree.children):
        if isinstance(node, nodes.raw) and THEBE_SETTINGS.match(node.astext()):
            doctree.remove(node)


def is_foreign(asset: Any) -> bool:
    """Whether a script or style sheet comes from elsewhere or serves a feature left out."""
    name = str(getattr(asset, "filename", "") or "")
    body = str(getattr(asset, "attributes", {}).get("body") or "")
    return bool(OFF_ORIGIN.match(name) or DROPPED.search(name) or DROPPED.search(body))


def description(doctree: nodes.document | None, limit: int = 160) -> str:
    """The first paragraph of a page that reads without its formulas, cut at a word."""
    if doctree is None:
        return ""
    for paragraph in doctree.findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        if len(text) > 40 and not any(paragraph.findall(nodes.math)):
            return text if len(text) <= limit else text[: limit - 1].rsplit(" ", 1)[0] + "…"
    return ""


def off_origin(text: str, *, script: bool = False) -> Iterator[str]:
    """Yield the addresses elsewhere that a browser would fetch by itself from this text."""
    if script:
        yield from SCRIPT_HOSTS.findall(text)
        return
    for match in FETCHED.finditer(text):
        address = next(group for group in match.groups() if group)
        if OFF_ORIGIN.match(address):
            yield address


def check_pages(app: Sphinx, error: Exception | None) -> None:
    """Read the finished pages, their style sheets and our own scripts."""
    if error is not None or app.builder.format != "html":
        return
    output = Path(app.outdir)
    for path in sorted([*output.rglob("*.html"), *output.rglob("*.css")]):
        if "_sources" in path.parts:
            continue
        for address in off_origin(path.read_text("utf-8")):
            where = path.relative_to(output).as_posix()
            logger.warning("offline: %s would fetch %s", where, address, type="offline")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("book_description", "", "html", types=[str])
    # after every extension that adds scripts to a page
    app.connect("html-page-context", prepare_page, priority=900)
    # after thebe
    app.connect("doctree-resolved", drop_settings, priority=900)
    app.connect("build-finished", check_pages)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
