"""What a chapter costs: seconds to execute its notebook, bytes of its page.

Reads what `make book` left behind and runs nothing: `_build/seconds.json`, which the build keeps to
start the longest notebook first, and the finished pages.

    python benchmarks/pages.py
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

from _measure import table

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "_build" / "html"
SECONDS, MEGABYTES = 120, 2.0  # budgets of a chapter


def transfer_bytes(page: Path) -> tuple[int, int]:
    """Bytes of the page itself, and of it with the scripts, styles and pictures that it names."""
    text = page.read_text("utf-8")
    named = set(re.findall(r'(?:src|href)="([^"#?:]+\.(?:js|css|svg|png|webp|woff2))', text))
    files = {(page.parent / name).resolve() for name in named}
    own = len(gzip.compress(text.encode(), 6))
    return len(text.encode()), own + sum(
        len(gzip.compress(f.read_bytes(), 6)) for f in files if f.is_file()
    )


def main() -> None:
    try:
        seconds = json.loads((ROOT / "_build" / "seconds.json").read_text("utf-8"))
    except (OSError, ValueError):
        seconds = {}
    rows = []
    for notebook in sorted((ROOT / "chapters").glob("*.ipynb")):
        page = PAGES / "chapters" / f"{notebook.stem}.html"
        taken = seconds.get(notebook.stem, seconds.get(notebook.name))
        time = "not executed yet" if taken is None else f"{taken:.0f} of {SECONDS}"
        own, whole = transfer_bytes(page) if page.is_file() else (None, None)
        rows.append(
            [
                notebook.stem,
                time,
                "not built yet" if own is None else f"{own / 1e6:.2f}",
                "" if whole is None else f"{whole / 1e6:.2f} of {MEGABYTES:.1f}",
            ]
        )
    table(
        "Chapters against their budgets",
        ["chapter", "seconds", "page, MB", "with its files, compressed, MB"],
        rows,
    )


if __name__ == "__main__":
    main()
