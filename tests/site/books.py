"""A small book in a folder of its own, to try the machinery on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def notebook(
    *sources: str, title: str = "A chapter", tags: dict[int, list[str]] | None = None
) -> Any:
    """A notebook, not yet executed: a title and one code cell per source.

    ``tags`` maps the number of a code cell, from 1, to its tags.
    """
    import nbformat.v4 as v4

    cells = [v4.new_markdown_cell(f"# {title}", id="title")]
    for number, source in enumerate(sources, 1):
        metadata = {"tags": tags[number]} if tags and number in tags else {}
        cells.append(v4.new_code_cell(source, id=f"cell-{number}", metadata=metadata))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(
        cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}}
    )


class SmallBook:
    """A book of two chapters and a ``lib`` in a folder of its own, for ``--root``."""

    CONFIG = """\
title: A small book
only_build_toc_files: true
sphinx:
  config:
    html_static_path: [assets]
    html_css_files: [look.css]
"""
    TOC = """\
format: jb-book
root: index
chapters:
- file: chapters/first
- file: chapters/second
"""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def html(self) -> Path:
        return self.root / "_build" / "html"

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    def write_notebook(self, name: str, *sources: str, **options: Any) -> Path:
        import nbformat

        path = self.root / "chapters" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook(*sources, **options), path)
        return path

    def fill(self) -> SmallBook:
        """Write the whole book; its vendored folder is empty and as pinned."""
        import vendor

        self.write("_config.yml", self.CONFIG)
        self.write("_toc.yml", self.TOC)
        self.write("index.md", "# A small book\n\nWelcome.\n")
        self.write("requirements.txt", "numpy==2\n")
        self.write("assets/look.css", "h1 { color: teal }\n")
        self.write("lib/__init__.py", "def answer() -> int:\n    return 42\n")
        self.write("site/vendor.json", '{"packages": []}\n')
        self.write("nbval_sanitize.cfg", (ROOT / "nbval_sanitize.cfg").read_text("utf-8"))
        manifest = {"key": vendor.key_of(self.root / "site" / "vendor.json"), "files": {}}
        self.write("_build/vendor/manifest.json", json.dumps(manifest))
        # no chapter of it draws: spare each test the listing of the machine's fonts
        self.write("_build/matplotlib/fontlist-none.json", "{}")
        self.write_notebook("first", "import lib\nprint('the answer is', lib.answer())", "6 * 7")
        self.write_notebook("second", "print('second', 'chapter')", title="Another chapter")
        return self

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the scripts in ``site`` on this book."""
        command = [sys.executable, str(ROOT / "site" / script), "--root", str(self.root)]
        return subprocess.run([*command, *arguments], capture_output=True, text=True)
