"""Short texts of an explorer: numbers for readers, and a tiny markup for symbols.

Markup: ``*x*`` italic, ``_{c}`` subscript, ``^{2}`` superscript. `book-explorer.js` holds the same
rules, so that the page, the kernel's view and the printed picture read alike.
"""

from __future__ import annotations

import math
import re

_SPEC = re.compile(r"(,?)(?:\.(\d+))?([defg%])")
_MARKUP = re.compile(r"\*([^*]+)\*|_\{([^}]*)\}|\^\{([^}]*)\}")


def check_format(spec: str, name: str = "format") -> str:
    """`spec` if it is one of the forms that page and kernel both know.

    Allowed are ``d``, ``.2f``, ``.3g``, ``.1e`` and ``.0%``, each with an optional leading comma.
    """
    if not isinstance(spec, str) or not _SPEC.fullmatch(spec):
        raise ValueError(
            f"`{name}` must look like 'd', '.2f', '.3g', '.1e' or '.0%' "
            f"(a comma before it groups thousands), got {spec!r}"
        )
    return spec


def number(value: float, spec: str) -> str:
    """A number for readers: true minus sign, ``3.2×10⁻⁵`` as ``3.2×10^{−5}``, NaN as a dash."""
    value = float(value)
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if spec.endswith("d"):
        value = round(value)
    text = format(value, spec)
    mantissa, _, exponent = text.partition("e")
    if exponent:
        text = f"{mantissa}×10^{{{int(exponent)}}}"
    if not any(digit in mantissa for digit in "123456789"):
        text = text.removeprefix("-")  # no negative zero
    return text.replace("-", "−")


def segments(text: str) -> list[tuple[str, str]]:
    """Split marked-up text into ``(style, text)``, style one of plain, italic, sub, sup."""
    parts: list[tuple[str, str]] = []
    end = 0
    for match in _MARKUP.finditer(text):
        if match.start() > end:
            parts.append(("plain", text[end : match.start()]))
        style = ("italic", "sub", "sup")[(match.lastindex or 1) - 1]
        parts.append((style, match[match.lastindex or 1]))
        end = match.end()
    if end < len(text):
        parts.append(("plain", text[end:]))
    return parts


def plain(text: str) -> str:
    """Marked-up text without its marks, for labels that are read aloud."""
    return "".join(part for _, part in segments(text))


def mathtext(text: str) -> str:
    """Marked-up text for matplotlib."""
    forms = {"italic": r"$\mathit{%s}$", "sub": r"$_{\mathrm{%s}}$", "sup": r"$^{\mathrm{%s}}$"}
    out = ""
    for style, part in segments(text):
        part = part.replace("$", r"\$")
        out += part if style == "plain" else forms[style] % part.replace(" ", r"\ ")
    return out
