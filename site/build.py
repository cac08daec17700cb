"""Build the book: ``make book``.

Fetch what the pages need, execute the notebooks, have Jupyter Book make the pages with every
warning an error, and only then put them in the place of the last good ones, ``_build/html``.

A build reads every page anew; what is cached is the execution. An incremental Sphinx build would
be a little faster, but it says nothing about a link in an untouched page whose target has gone,
and forgets the warnings of a build that failed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import executor
import vendor

ROOT = Path(__file__).resolve().parents[1]
# what has no part in the pages: other tools' folders, and the tests
LEFT_OUT = {"__pycache__", "_build", "benchmarks", "node_modules", "tests"}
# Jupyter Book has no `python -m`; for rfc3987_syntax see site/executor.py
_JUPYTER_BOOK = (
    "import sys; sys.modules['rfc3987_syntax'] = None;"
    "from jupyter_book.cli.main import main; sys.exit(main())"
)


class BuildError(RuntimeError):
    """The book can't be built; the message is for the reader."""


# --- is there anything to do? -----------------------------------------------------------------


def source_files(root: Path) -> list[Path]:
    """Every file that may have a part in the pages."""
    found = []
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if not _left_out(Path(folder) / name)]
        found += [Path(folder) / name for name in files if not name.startswith(".")]
    return sorted(found)


def _left_out(folder: Path) -> bool:
    hidden = folder.name.startswith(".") or folder.suffix == ".egg-info"
    return hidden or folder.name in LEFT_OUT or (folder / "pyvenv.cfg").exists()


def input_digest(root: Path) -> str:
    """A hash of the sources, the interpreter and the installed versions of the pins."""
    digest = hashlib.sha256(platform.python_version().encode())
    for version in executor.pinned_versions(root):
        digest.update(f"{version}\n".encode())
    for path in source_files(root):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def output_digest(html: Path) -> str:
    """A hash of the names and lengths of the finished pages' files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in html.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(html).as_posix()} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def is_current(root: Path) -> bool:
    """Whether ``_build/html`` is, unharmed, what a build of the present sources would give."""
    try:
        stamp = json.loads((root / "_build" / "stamp.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    now = {
        "inputs": input_digest(root),
        "outputs": output_digest(root / "_build" / "html"),
    }
    vendored = vendor.is_current(root / "_build" / "vendor", root / "site" / "vendor.json")
    return vendored and stamp == now


# --- the pages --------------------------------------------------------------------------------


def configuration(root: Path, cache: Path) -> dict[str, Any]:
    """The book's ``_config.yml`` with the execution cache of the present ``lib`` and pins.

    The cache's path is an ``env`` setting of Sphinx, and every notebook is found in it.
    """
    import yaml

    settings = yaml.safe_load((root / "_config.yml").read_text("utf-8")) or {}
    execute = settings.setdefault("execute", {})
    execute.update(execute_notebooks="cache", cache=str(cache), timeout=executor.CELL_TIMEOUT)
    local = settings.get("sphinx", {}).get("local_extensions") or {}
    for name, folder in local.items():
        # such folders are relative to the configuration file, which moves
        local[name] = str((root / folder).resolve())
    # Sphinx walks all of the root in search of pages, other tools' folders included
    others = [path.name for path in root.iterdir() if path.is_dir() and _left_out(path)]
    settings["exclude_patterns"] = sorted({*settings.get("exclude_patterns", []), *others})
    return settings


def make_pages(root: Path, cache: Path, work: Path) -> Path:
    """Run Jupyter Book below ``work`` and return the folder of the pages.

    Raises
    ------
    BuildError
        If it fails or warns; the message holds what it said.
    """
    import yaml

    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    config = work / "_config.yml"
    text = yaml.safe_dump(configuration(root, cache), sort_keys=False, allow_unicode=True)
    config.write_text(text, "utf-8")
    command = [sys.executable, "-c", _JUPYTER_BOOK, "build", str(root)]
    command += ["--path-output", str(work), "--config", str(config)]
    command += ["--warningiserror", "--nitpick", "--keep-going", "--quiet"]
    log = root / "_build" / "logs" / "jupyter-book.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        cwd=root,
        env={**executor.kernel_environment(root), "PYTHONUTF8": "1"},
        encoding="utf-8",
        errors="replace",
    )
    said = executor.without_colours(done.stdout)
    log.write_text(said, "utf-8")
    html = work / "_build" / "html"
    if done.returncode != 0 or not (html / "index.html").is_file():
        reasons = complaints(said, root)
        raise BuildError(f"the pages can't be made.\n\n{reasons}\n\nAll it said is in {log}")
    return html


def complaints(said: str, root: Path) -> str:
    """The warnings and errors of Jupyter Book's output, or else how it ended."""
    lines = [line.replace(f"{root}/", "") for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if "WARNING" in line or "ERROR" in line]
    if not telling:  # an exception, then: what it says rather than where it was raised
        telling = [line for line in lines if not line.startswith((" ", "Traceback"))][-10:]
    return "\n".join(f"  {line}" for line in telling)


def swap(fresh: Path, html: Path) -> None:
    """Put the new pages in the place of the old ones, which stay until that moment."""
    before = html.with_name("html.before")
    shutil.rmtree(before, ignore_errors=True)
    if html.exists():
        html.rename(before)
    fresh.rename(html)
    shutil.rmtree(before, ignore_errors=True)


def recover(html: Path) -> None:
    """Undo a swap that was interrupted between its two renames."""
    before = html.with_name("html.before")
    if before.exists() and not html.exists():
        before.rename(html)


# --- the whole --------------------------------------------------------------------------------


@contextlib.contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Let builds of the same folder wait for one another."""
    import fcntl

    with (root / "_build" / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another build of this folder is running; waiting for it.", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def fetch_vendored(root: Path) -> None:
    """MathJax and the fonts, below ``_build/vendor``."""
    if vendor.vendor(root / "_build" / "vendor", root / "site" / "vendor.json"):
        print("Fetched MathJax and the fonts, checksums as pinned.", flush=True)


def execute(root: Path, jobs: int | None, *, fresh: bool = False) -> Path:
    """Every notebook's outputs in the cache; return the cache's folder."""
    started = time.monotonic()
    print("Notebooks:", flush=True)
    folder = executor.execute_all(root, jobs, fresh=fresh)
    count = len(executor.find_notebooks(root))
    print(f"  {count} at hand after {time.monotonic() - started:.0f} s", flush=True)
    return folder


def build(root: Path, jobs: int | None = None, *, fresh: bool = False) -> bool:
    """Build the book in ``root``; return whether there was anything to do.

    Raises
    ------
    BuildError, NotebookError, VendorError, OSError
        If it can't be built. The pages of the last good build are then as they were.
    """
    output = root / "_build"
    output.mkdir(parents=True, exist_ok=True)
    with only_one(root):
        recover(output / "html")
        if not fresh and is_current(root):
            return False
        inputs = input_digest(root)
        fetch_vendored(root)
        cache = execute(root, jobs, fresh=fresh)
        started = time.monotonic()
        print("Pages:", flush=True)
        html = make_pages(root, cache, output / "work")
        pages = len(list(html.rglob("*.html")))
        print(f"  {pages} made in {time.monotonic() - started:.0f} s", flush=True)
        swap(html, output / "html")
        shutil.rmtree(output / "work", ignore_errors=True)
        stamp = {"inputs": inputs, "outputs": output_digest(output / "html")}
        (output / "stamp.json").write_text(json.dumps(stamp, indent=1), "utf-8")
    return True


def explain(error: Exception, root: Path) -> str:
    """What went wrong, and what became of the pages."""
    if isinstance(error, OSError):
        reason = f"{error.strerror or error}: {error.filename or root / '_build'}"
    else:
        reason = str(error)
    kept = (root / "_build" / "html" / "index.html").is_file()
    after = "\nThe pages of the last good build are still there." if kept else ""
    return f"\nThe book was not built: {reason}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the book into _build/html.")
    parser.add_argument("--root", type=Path, default=ROOT, help="the folder of the book")
    parser.add_argument("--jobs", type=int, help="notebooks at a time (default: all cores)")
    parser.add_argument("--fresh", action="store_true", help="execute all, whatever is cached")
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    started = time.monotonic()
    try:
        built = build(root, arguments.jobs, fresh=arguments.fresh)
    except KeyboardInterrupt:
        print("\nStopped; the pages of the last good build are as they were.", file=sys.stderr)
        return 130
    except (BuildError, executor.NotebookError, vendor.VendorError, OSError) as error:
        print(explain(error, root), file=sys.stderr)
        return 1
    page = (root / "_build" / "html" / "index.html").as_uri()
    took = f"built in {time.monotonic() - started:.0f} s" if built else "up to date"
    print(f"\nThe book is {took}.\n  open   {page}\n  or     make serve")
    return 0


if __name__ == "__main__":
    sys.exit(main())
