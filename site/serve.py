"""Serve the finished book on this machine only: ``make serve``."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class Handler(SimpleHTTPRequestHandler):
    """Files as they are now: a page rebuilt a moment ago must not come from a cache."""

    extensions_map = {  # noqa: RUF012 - the base class has it as a plain dictionary
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript; charset=utf-8",
        ".woff": "font/woff",
        ".woff2": "font/woff2",
        ".webp": "image/webp",
    }

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Only what went wrong is worth a line."""

    def log_error(self, format: str, *args: object) -> None:
        sys.stderr.write(f"{self.path}: {format % args}\n")


class QuietHandler(Handler):
    """For tests, where a missing file is an assertion and not a line on the screen."""

    def log_error(self, format: str, *args: object) -> None:
        pass


def server(folder: Path, port: int = 0, handler: type[Handler] = Handler) -> ThreadingHTTPServer:
    """A server of ``folder`` on the loopback interface; port 0 takes any free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), partial(handler, directory=str(folder)))


def main() -> int:
    parser = argparse.ArgumentParser(description="Serve the built book on this machine.")
    parser.add_argument("--folder", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    if not (arguments.folder / "index.html").is_file():
        print(f"serve: there is no book in {arguments.folder} yet: run `make book`")
        return 1
    try:
        book = server(arguments.folder, arguments.port)
    except OSError as error:
        print(f"serve: port {arguments.port} can't be had ({error.strerror}): try PORT=8123")
        return 1
    print(f"The book is at http://127.0.0.1:{book.server_port}/ (Ctrl-C ends it)", flush=True)
    try:
        book.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        book.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
