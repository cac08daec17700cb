"""Pages of the built book, served and opened so that nothing wrong with them goes unnoticed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import serve as book_server
from playwright.sync_api import Page, Request, Route


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve ``folder`` on a free port of the loopback interface; the value is its address."""
    server = book_server.server(folder, handler=book_server.QuietHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class StrictPage:
    """A page that notes what a reader's browser would complain about, and goes nowhere else.

    Every request off ``origin`` (or, for ``file:`` pages, off the disk) is noted and blocked.
    Attributes that it lacks are those of the playwright page.
    """

    page: Page
    origin: str
    console: list[str] = field(default_factory=list)
    off_origin: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.page, name)

    def open(self, path: str) -> None:
        """Go to a page of the book by its path and wait until it is loaded."""
        self.page.goto(f"{self.origin}/{path.lstrip('/')}")

    @property
    def problems(self) -> list[str]:
        """All that was noted, one line each."""
        return [
            *(f"console: {text}" for text in self.console),
            *(f"off origin: {url}" for url in self.off_origin),
            *(f"failed: {text}" for text in self.failed),
        ]

    def _admit(self, route: Route) -> None:
        parts, home = urlsplit(route.request.url), urlsplit(self.origin)
        own = (parts.scheme, parts.netloc) == (home.scheme, home.netloc)
        if own or parts.scheme in ("data", "blob", "about"):
            route.continue_()
        else:
            self.off_origin.append(route.request.url)
            route.abort()


def watch(page: Page, origin: str) -> StrictPage:
    """Make ``page`` note console errors and warnings, failures, and requests off ``origin``."""
    strict = StrictPage(page, origin.rstrip("/"))
    page.context.route("**/*", strict._admit)

    def note(message: Any) -> None:
        if message.type in ("error", "warning"):
            strict.console.append(f"{message.type}: {message.text}")

    page.on("console", note)
    page.on("pageerror", lambda error: strict.console.append(f"uncaught: {error}"))
    page.on(
        "response",
        lambda r: r.status >= 400 and strict.failed.append(f"{r.status} {r.url}"),
    )

    def note_failure(request: Request) -> None:
        # A page that is left while its favicon loads aborts that request, which is no fault.
        if request.url not in strict.off_origin and request.failure != "net::ERR_ABORTED":
            strict.failed.append(f"{request.failure} {request.url}")

    page.on("requestfailed", note_failure)
    return strict
