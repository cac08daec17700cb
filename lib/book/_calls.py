"""Which checks and claims a code cell makes, read from its source without running it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

KINDS = ("definition", "symbolic", "numeric", "gradient", "bound", "monte_carlo", "asymptotic")


@dataclass(frozen=True)
class Call:
    kind: str
    subject: str  # the label or id; empty when it is not a literal
    tried: bool  # inside `try` with a handler: a failure shown on purpose leaves no record


@dataclass(frozen=True)
class Names:
    """What the notebook calls the two modules and, imported one by one, their functions."""

    modules: dict[str, str]
    functions: dict[str, str]


def _parse(source: str) -> ast.Module | None:
    """Parse a cell's Python, with IPython's own lines left out; None if it is not Python."""
    if source.lstrip().startswith("%%"):
        source = source.lstrip().split("\n", 1)[-1]
    python = re.sub(r"^([ \t]*)[%!?].*$", r"\1pass", source, flags=re.MULTILINE)
    try:
        return ast.parse(python)
    except SyntaxError:
        return None


def names_of(sources: list[str]) -> Names:
    names = Names({"verify": "verify", "claims": "claims"}, {})
    for node in (node for source in sources for node in ast.walk(_parse(source) or ast.Module())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                package, _, module = alias.name.rpartition(".")
                if package == "lib.book" and module in ("verify", "claims") and alias.asname:
                    names.modules[alias.asname] = module
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if node.module == "lib.book" and alias.name in ("verify", "claims"):
                    names.modules[alias.asname or alias.name] = alias.name
                elif node.module == "lib.book.verify" and alias.name in KINDS:
                    names.functions[alias.asname or alias.name] = alias.name
                elif node.module == "lib.book.claims" and alias.name == "claim":
                    names.functions[alias.asname or alias.name] = "claim"
    return names


def calls_of(source: str, names: Names) -> list[Call]:
    tree = _parse(source)
    if tree is None:
        pattern = rf"\b(?:verify\.({'|'.join(KINDS)})|claims\.(claim))\(\s*[\"']([^\"']+)"
        return [Call(m[1] or m[2], m[3], False) for m in re.finditer(pattern, source)]
    tried = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try) and node.handlers
        for statement in node.body
        for inner in ast.walk(statement)
    }
    calls = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (kind := _kind_of(node.func, names)):
            calls.append(Call(kind, _subject(node), id(node) in tried))
    return calls


def _kind_of(function: ast.expr, names: Names) -> str:
    """Return which check (or "claim") a called expression is, or the empty string."""
    if isinstance(function, ast.Name):
        return names.functions.get(function.id, "")
    if not isinstance(function, ast.Attribute):
        return ""
    owner = function.value
    last = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
    module = names.modules.get(last, "")
    if module == "verify" and function.attr in KINDS:
        return function.attr
    return "claim" if module == "claims" and function.attr == "claim" else ""


def _subject(call: ast.Call) -> str:
    named = [k.value for k in call.keywords if k.arg in ("label", "id")]
    first = (call.args or named or [None])[0]
    literal = isinstance(first, ast.Constant) and isinstance(first.value, str)
    return first.value if literal else ""
