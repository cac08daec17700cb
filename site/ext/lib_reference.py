"""``{lib-reference}``: the reference of a package, written from its docstrings.

The modules are found by walking the package, so that a new one needs no entry anywhere. What a
package imports into its ``__init__`` and names in ``__all__`` is described there, under the name
that readers use, and not a second time in the module that holds it.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from types import ModuleType
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


@dataclass(frozen=True)
class Page:
    """One module and the public names that are described under it."""

    module: str
    names: tuple[str, ...]


def public_modules(package: str) -> Iterator[ModuleType]:
    """The package and everything below it that no leading underscore hides, parents first."""
    root = importlib.import_module(package)
    yield root
    for found in sorted(pkgutil.iter_modules(getattr(root, "__path__", [])), key=lambda m: m.name):
        if not found.name.startswith("_"):
            yield from public_modules(f"{package}.{found.name}")


def public_names(module: ModuleType) -> list[str]:
    """What the module offers: its ``__all__``, else the public things that it defines itself."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    ]


def pages(package: str) -> list[Page]:
    """The modules of a package with the names to describe, each thing once."""
    described: set[int] = set()
    result = []
    for module in public_modules(package):
        names = []
        for name in public_names(module):
            value = getattr(module, name)
            documented = inspect.isroutine(value) or inspect.isclass(value)
            if inspect.ismodule(value) or (documented and id(value) in described):
                continue
            if documented:
                described.add(id(value))
            names.append(name)
        if names or module.__doc__:
            result.append(Page(module.__name__, tuple(names)))
    return result


def markdown(page: Page) -> list[str]:
    """The section of one module: its docstring, then each name."""
    lines = [f"## {page.module}", "", "```{eval-rst}"]
    lines += [f".. automodule:: {page.module}", "   :no-members:", ""]
    module = importlib.import_module(page.module)
    comments = comments_on_assignments(inspect.getsource(module))
    for name in page.names:
        value = getattr(module, name)
        if inspect.isclass(value):
            lines += [f".. autoclass:: {page.module}.{name}", "   :members:", ""]
        elif inspect.isroutine(value):
            lines += [f".. autofunction:: {page.module}.{name}", ""]
        else:
            lines += [f".. py:data:: {name}", f"   :module: {page.module}", ""]
            lines += [f"   {comments[name]}", ""] if name in comments else []
    return [*lines, "```", ""]


def comments_on_assignments(source: str) -> dict[str, str]:
    """The comment right above each assignment of a module, which is a constant's docstring."""
    lines = source.splitlines()
    comments = {}
    for node in ast.parse(source).body:
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        above = list(takewhile(lambda line: line.startswith("#"), lines[node.lineno - 2 :: -1]))
        if above and node.lineno > 1 and isinstance(targets[0], ast.Name):
            text = " ".join(line.lstrip("#: ") for line in reversed(above))
            comments[targets[0].id] = text
    return comments


class LibReference(SphinxDirective):
    """Describe every public module below the package that is the argument."""

    required_arguments = 1
    has_content = False
    option_spec: ClassVar[dict[str, Callable[[str], Any]]] = {"skip": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        lines: list[str] = []
        for page in pages(self.arguments[0]):
            module = importlib.import_module(page.module)
            self.env.note_dependency(str(inspect.getsourcefile(module)))
            lines += markdown(page)
        container = nodes.section()
        container.document = self.state.document
        source = StringList(lines, source=self.get_source_info()[0])
        matching = self.state_machine.match_titles
        self.state_machine.match_titles = True
        try:
            self.state.nested_parse(source, self.content_offset, container)
        finally:
            self.state_machine.match_titles = matching
        return container.children


# --- references that need no link -------------------------------------------------------------


def look_up(target: str) -> Any:
    """What a dotted name stands for, among the modules that are loaded; None if nothing."""
    module, *names = target.split(".")
    thing: Any = sys.modules.get(module)
    for name in names:
        module = f"{module}.{name}"
        thing = getattr(thing, name, None) or sys.modules.get(module)
    return thing


def imported_as(module: str) -> dict[str, str]:
    """The full names of what a module imports by name, also where only type checkers look."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def needs_no_link(target: str, module: str | None) -> bool:
    """Whether a name exists but has no description in this book.

    That is so for names of other projects (their inventories would have to be fetched), for
    private ones, and for what a module imports or defines for its own annotations.
    """
    if "." not in target and module:
        target = imported_as(module).get(target, f"{module}.{target}")
        if look_up(target) is None:  # imported for type checkers only
            return importlib.util.find_spec(target.rpartition(".")[0]) is not None
        return True
    private = any(part.startswith("_") for part in target.split("."))
    return look_up(target) is not None and (private or not target.startswith("lib."))


def excuse(app: Sphinx, domain: Any, node: addnodes.pending_xref) -> bool | None:
    """Let such references pass without a link; every other unknown name is a warning."""
    if node.get("refdomain") != "py":
        return None
    return needs_no_link(node["reftarget"], node.get("py:module")) or None


# --- docstrings -------------------------------------------------------------------------------


def hide_property(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Keep Napoleon from taking a property's first words before a colon for its type."""
    if what in ("attribute", "property"):
        app.env.temp_data["book_property"] = lines.copy()
        lines.clear()


def show_property(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Put a property's docstring back, and read |x| as an absolute value everywhere."""
    if what in ("attribute", "property"):
        lines[:] = app.env.temp_data.pop("book_property")
    lines[:] = [re.sub(r"(?<![`\w])\|([^|\s][^|`]*)\|", r"\\|\1\\|", line) for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("lib-reference", LibReference)
    app.connect("warn-missing-reference", excuse)
    # Napoleon listens at 500
    app.connect("autodoc-process-docstring", hide_property, priority=400)
    app.connect("autodoc-process-docstring", show_property, priority=600)
    return {"version": "1", "parallel_read_safe": True}
