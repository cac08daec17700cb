"""Bring the chapters' notebooks into normal form: ``make notebooks``.

The committed notebook holds prose, code and the outputs that are the tested record: verdicts,
records, small tables. What a picture looked like, how long a cell took or which process made it
is left out, so that a difference in git is a difference in the book. Running it twice changes
nothing.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import executor

if TYPE_CHECKING:
    from jupyter_cache.base import JupyterCacheAbstract
    from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]

# what nbval leaves out of its comparison, and what would be different on every machine
DROPPED_TYPES = ("application/vnd.jupyter.widget-view+json", "image/png", "image/jpeg")
KEPT_CELL_METADATA = ("jupyter", "mystnb", "tags")
NOT_COMPARED = {"nbval-ignore-output", "nbval-skip"}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

Rules = Sequence[tuple[str, str]]


def read_rules(path: Path) -> Rules:
    """The pairs of pattern and replacement, read as nbval reads them."""
    return re.findall(r"^regex: (.*)$\n^replace: (.*)$", path.read_text("utf-8"), re.MULTILINE)


def sanitise(text: str, rules: Rules) -> str:
    """``text`` as nbval compares it."""
    for pattern, replacement in rules:
        text = re.sub(pattern, replacement, text)
    return text


# --- outputs ----------------------------------------------------------------------------------


def normal_outputs(cell: NotebookNode, rules: Rules) -> list[NotebookNode]:
    """The outputs of a code cell as they are committed."""
    if NOT_COMPARED & _marks(cell):
        return []  # they differ from run to run, which is why they aren't compared
    outputs: list[NotebookNode] = []
    for output in copy.deepcopy(cell.outputs):
        kind = output.output_type
        if kind == "stream":
            before = outputs[-1] if outputs else None
            if before and before.output_type == "stream" and before.name == output.name:
                output.text = before.text + output.text  # how it was cut is chance
                outputs.pop()
            output.text = sanitise(output.text, rules)
        elif kind == "error":
            output.evalue = sanitise(output.evalue, rules)
            output.traceback = []  # it names files of this machine
        else:
            output.data = {
                name: sanitise(value, rules) if isinstance(value, str) else value
                for name, value in output.data.items()
                if name not in DROPPED_TYPES
            }
            output.metadata = {}
            if kind == "execute_result":
                output.execution_count = cell.execution_count
            if not output.data:
                continue
        outputs.append(output)
    return outputs


def _marks(cell: NotebookNode) -> set[str]:
    """nbval's marks of a cell: its tags, and comments such as ``# NBVAL_IGNORE_OUTPUT``."""
    comments = re.findall(r"^\s*#+\s*(NBVAL_\w+)\s*$", cell.source, re.MULTILINE)
    return set(cell.metadata.get("tags", [])) | {c.lower().replace("_", "-") for c in comments}


# --- notebooks --------------------------------------------------------------------------------


def normal_form(notebook: NotebookNode, rules: Rules) -> NotebookNode:
    """A copy of the notebook in normal form; applied twice, the same as once."""
    import nbformat

    notebook = copy.deepcopy(notebook)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict(METADATA)
    taken: set[str] = set()
    count = 0
    for cell in notebook.cells:
        cell.source = cell.source.strip("\n")
        cell.metadata = nbformat.from_dict(
            {key: value for key, value in cell.metadata.items() if key in KEPT_CELL_METADATA}
        )
        cell.id = _identity(cell, taken)
        taken.add(cell.id)
        if cell.cell_type != "code":
            continue
        if cell.execution_count is not None:
            count += 1
            cell.execution_count = count
        cell.outputs = normal_outputs(cell, rules)
    return notebook


def _identity(cell: NotebookNode, taken: set[str]) -> str:
    """The cell's id if it has one of its own, else one made from its text."""
    if cell.get("id") and cell.id not in taken:
        return cell.id
    salt = 0
    while True:
        digest = hashlib.sha256(f"{salt} {cell.cell_type} {cell.source}".encode()).hexdigest()[:8]
        if digest not in taken:
            return digest
        salt += 1


def text_of(notebook: NotebookNode) -> str:
    """The file's content: sorted keys, one space of indentation, a newline at the end."""
    import nbformat

    return nbformat.writes(notebook).rstrip("\n") + "\n"


def faults(path: Path, rules: Rules) -> list[str]:
    """Why a committed notebook isn't in normal form; empty if it is."""
    notebook = executor.read_notebook(path)
    found = []
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "code" and cell.execution_count is None:
            found.append(f"cell {number} has no execution count, so nbval would not compare it")
    if not found and text_of(normal_form(notebook, rules)) != path.read_text("utf-8"):
        found.append("it isn't stored in normal form")
    return found


# --- the whole --------------------------------------------------------------------------------


def rewrite(path: Path, executed: NotebookNode, rules: Rules) -> bool:
    """Store the notebook in normal form; return whether the file changed."""
    text = text_of(normal_form(executed, rules))
    if path.read_text("utf-8") == text:
        return False
    # written beside and renamed: an interruption must not cost the author a chapter
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, "utf-8")
    os.replace(fresh, path)
    return True


def normalise(root: Path, jobs: int | None = None, *, fresh: bool = False) -> list[Path]:
    """Execute every notebook and rewrite it; return those that changed."""
    import build

    rules = read_rules(root / "nbval_sanitize.cfg")
    (root / "_build").mkdir(parents=True, exist_ok=True)
    with build.only_one(root):
        build.fetch_vendored(root)
        cache = executor.open_cache(build.execute(root, jobs, fresh=fresh))
        changed = []
        for path in executor.find_notebooks(root):
            notebook = executor.read_notebook(path)
            seconds = cache.match_cache_notebook(notebook).data["execution_seconds"]
            _, executed = cache.merge_match_into_notebook(notebook)
            if rewrite(path, executed, rules):
                changed.append(path)
                _keep(cache, path, executed, seconds)
    return changed


def _keep(cache: JupyterCacheAbstract, path: Path, executed: NotebookNode, seconds: float) -> None:
    """Let the rewritten notebook be found in the cache too, where the metadata differed."""
    notebook = executor.read_notebook(path)
    if executor.is_cached(cache, notebook):
        return
    for cell, before in zip(notebook.cells, executed.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs = before.outputs
    executor.store(cache, path, notebook, seconds)


def check(root: Path) -> int:
    """Print what isn't in normal form; return the exit status."""
    rules = read_rules(root / "nbval_sanitize.cfg")
    bad = 0
    for path in executor.find_notebooks(root):
        for fault in faults(path, rules):
            print(f"{path.relative_to(root)}: {fault}; run `make notebooks`")
            bad += 1
    return 1 if bad else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Execute the chapters, store them normalised.")
    parser.add_argument("--root", type=Path, default=ROOT, help="the folder of the book")
    parser.add_argument("--jobs", type=int, help="notebooks at a time (default: all cores)")
    parser.add_argument("--fresh", action="store_true", help="execute all, whatever is cached")
    parser.add_argument("--check", action="store_true", help="change nothing, say what would")
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    try:
        if arguments.check:
            return check(root)
        changed = normalise(root, arguments.jobs, fresh=arguments.fresh)
    except KeyboardInterrupt:
        return 130
    except (RuntimeError, OSError) as error:
        print(f"\nNo notebook was rewritten: {error}", file=sys.stderr)
        return 1
    for path in changed:
        print(f"  rewritten: {path.relative_to(root)}")
    print(f"{len(changed)} of {len(executor.find_notebooks(root))} notebooks changed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
