"""Lines that show how far each notebook is: moving in a terminal, plain in a log."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PLAIN_SECONDS = 15.0  # between two lines about the same notebook in a log


@dataclass
class _State:
    status: str = "waiting"
    cell: int = 0
    of: int = 0
    started: float = 0.0
    ended: float = 0.0
    told: float = 0.0

    @property
    def seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.started if self.started else 0.0


class Progress:
    """Shows for each notebook the cell that runs and the seconds since it began.

    Parameters
    ----------
    names : sequence of str
        The notebooks.
    say : callable, optional
        Receives plain lines. Without it, lines are printed; and if standard output is a
        terminal, one line per notebook is kept up to date instead.
    """

    def __init__(self, names: Sequence[str], say: Callable[[str], None] | None = None) -> None:
        self._states = {name: _State() for name in names}
        self._width = max(map(len, names), default=0)
        self._say = say or (lambda line: print(line, flush=True))
        self._live = say is None and sys.stdout.isatty()
        self._drawn = 0
        self._lock = threading.Lock()

    def start(self, name: str) -> None:
        """A notebook's kernel is being started."""
        with self._lock:
            state = self._states[name]
            state.status, state.started = "running", time.monotonic()
            self._tell(name)

    def cell(self, name: str, cell: int, of: int) -> None:
        """A notebook has entered its ``cell``-th code cell."""
        with self._lock:
            state = self._states[name]
            state.cell, state.of = cell, of

    def done(self, name: str) -> None:
        """A notebook ran to its end."""
        self._end(name, "done")

    def failed(self, name: str) -> None:
        """A notebook stopped at the cell it was in."""
        self._end(name, "failed")

    def tick(self) -> None:
        """Called twice a second: redraw, or say again what has been quiet for a while."""
        with self._lock:
            if self._live:
                self._draw()
                return
            for name, state in self._states.items():
                if state.status == "running" and time.monotonic() - state.told >= PLAIN_SECONDS:
                    self._tell(name)

    def _end(self, name: str, status: str) -> None:
        with self._lock:
            state = self._states[name]
            state.status, state.ended = status, time.monotonic()
            self._tell(name)

    def _line(self, name: str) -> str:
        state = self._states[name]
        line = f"  {name:<{self._width}}  "
        if state.status == "waiting":
            return line + "waiting"
        where = f"cell {state.cell} of {state.of}" if state.cell else "starting"
        word = {"running": where, "done": f"done, {state.of} cells", "failed": f"failed, {where}"}
        return f"{line}{word[state.status]:<22}{state.seconds:5.0f} s"

    def _tell(self, name: str) -> None:
        self._states[name].told = time.monotonic()
        if self._live:
            self._draw()
        else:
            self._say(self._line(name))

    def _draw(self) -> None:
        columns = shutil.get_terminal_size().columns
        back = f"\x1b[{self._drawn}F" if self._drawn else ""
        lines = [f"\x1b[2K{self._line(name)[: columns - 1]}\n" for name in self._states]
        sys.stdout.write(back + "".join(lines))
        sys.stdout.flush()
        self._drawn = len(lines)
