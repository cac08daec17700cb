"""Find a Chromium that can drive the pages, and get one where there is none.

The order: the one named in ``BOOK_CHROMIUM``; an installed Chromium or Chrome; playwright's own
download; Debian's package, where this process may install packages. Only if all of that fails
does it give up, with a sentence that says what to install.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
APPLICATIONS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
# containers have neither a user namespace for the sandbox nor a large /dev/shm
ARGUMENTS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")


class NoBrowser(RuntimeError):
    """There is no Chromium and none could be installed; the message says what to do."""


def works(program: str) -> bool:
    """Whether the program starts (Ubuntu's ``chromium-browser`` may be a stub that doesn't)."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def find() -> str | None:
    """The path of a Chromium that starts, or None."""
    return next((program for program in _candidates() if works(program)), None)


def _candidates() -> Iterator[str]:
    if named := os.environ.get("BOOK_CHROMIUM"):
        yield named
    yield from filter(None, map(shutil.which, NAMES))
    yield from filter(os.path.exists, APPLICATIONS)
    if (own := _playwrights_own()) is not None:
        yield own


def _playwrights_own() -> str | None:
    """Where playwright keeps the Chromium it downloads, if it has."""
    code = (
        "from playwright.sync_api import sync_playwright\n"
        "with sync_playwright() as p: print(p.chromium.executable_path)"
    )
    # in a process of its own: playwright refuses to start twice in one
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    path = done.stdout.strip()
    return path if done.returncode == 0 and Path(path).is_file() else None


def _download() -> None:
    subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=True)


def _install_package() -> None:
    """Debian's package; on other systems, or without the right to install, nothing happens."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run([apt, "update"], check=True, env=environment)
    command = [apt, "install", "--yes", "--no-install-recommends", "chromium"]
    subprocess.run(command, check=True, env=environment)


def ensure(ways: tuple[Callable[[], None], ...] = (_download, _install_package)) -> str:
    """The path of a Chromium that starts, installed now if there was none.

    Raises
    ------
    NoBrowser
        If there is none and neither way of getting one works.
    """
    if (program := find()) is not None:
        return program
    for way in ways:
        try:
            way()
        except (OSError, subprocess.CalledProcessError):
            continue
        if (program := find()) is not None:
            return program
    raise NoBrowser(
        "the tests drive the pages in a real browser and found none: install Chromium or Chrome "
        "(on Debian: apt-get install chromium), or name one in BOOK_CHROMIUM"
    )


if __name__ == "__main__":
    try:
        print(f"browser: {ensure()}")
    except NoBrowser as error:
        sys.exit(f"browser: {error}")
