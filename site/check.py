"""Run every test: ``make test``.

One run of pytest holds it all: the package, the machinery, the chapters' structure, the chapters
themselves (nbval executes them and compares what they print with what is stored), the site in a
real browser, and the style. Before it, a browser is found or installed and the book is built.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import browser
import executor

ROOT = Path(__file__).resolve().parents[1]


def pytest_command(jobs: int) -> list[str]:
    """The run of pytest, ``jobs`` processes at a time."""
    return [
        *(sys.executable, "-m", "pytest", "chapters", "tests"),
        *("--nbval", "--nbval-current-env"),
        "--nbval-sanitize-with=nbval_sanitize.cfg",
        f"--nbval-cell-timeout={executor.CELL_TIMEOUT}",
        # a notebook's cells share a kernel and must stay together
        *("--numprocesses", str(jobs), "--dist", "loadfile"),
        # at the end: one line for each failure, then pytest's own count
        *("--tb=short", "-q", "-rfE", "--color=auto"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the book and run every test.")
    parser.add_argument("--jobs", type=int, default=executor.cores(), help="tests at a time")
    jobs = parser.parse_args().jobs
    try:
        print(f"Browser: {browser.ensure()}", flush=True)
    except browser.NoBrowser as error:
        print(f"make test: {error}", file=sys.stderr)
        return 1
    # a book that can't be built is a failure, but no reason to leave the rest untested
    command = [sys.executable, str(ROOT / "site" / "build.py"), "--jobs", str(jobs)]
    built = subprocess.run(command, cwd=ROOT)
    print("\nTests:", flush=True)
    environment = executor.kernel_environment(ROOT)
    tested = subprocess.run(pytest_command(jobs), cwd=ROOT, env=environment)
    return built.returncode or tested.returncode


if __name__ == "__main__":
    sys.exit(main())
