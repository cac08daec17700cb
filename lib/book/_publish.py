"""How a record reaches the page: one mime bundle, shown once, only where a notebook listens."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from html import escape
from typing import Any

CHECK_MIME = "application/vnd.book.check+json"
CLAIM_MIME = "application/vnd.book.claim+json"
LABEL = re.compile(r"eq-[a-z0-9-]+")  # of an equation


def show(bundle: Mapping[str, Any]) -> None:
    """Display a mime bundle in the running notebook; do nothing without IPython."""
    module = sys.modules.get("IPython")
    if module is None or module.get_ipython() is None:
        return
    from IPython.display import display

    display(dict(bundle), raw=True)


def number(value: float) -> str:
    """Return a number of the author's own choosing (a tolerance, a margin) as short text."""
    return re.sub(r"e([+-])0?(\d)", r"e\1\2", f"{value:.6g}").replace("e+", "e")


def text(words: str) -> str:
    """Escape words for HTML."""
    return escape(words, quote=True)
