"""Execute the book's notebooks in parallel and keep the results in a cache that can be trusted.

myst-nb takes the outputs that the pages show from a jupyter-cache, which knows a notebook by its
code cells alone. A change of ``lib`` or of a pinned version would go unnoticed, so the cache's
folder is named after a hash of both: a stale result cannot be found, only be missing.

Each notebook runs in a process of its own, always on one thread. Its outputs therefore do not
depend on how many run beside it, and workers never contend for cores.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from progress import Progress

# jsonschema would compile the grammar of a URI format that no notebook uses: two seconds in every
# process that reads one
sys.modules.setdefault("rfc3987_syntax", None)

if TYPE_CHECKING:
    from jupyter_cache.base import JupyterCacheAbstract
    from nbformat import NotebookNode

CELL_TIMEOUT = 300  # seconds for one cell; the same limit as nbval's in `make test`
THREADS = 1
# A kernel is told its ports before it takes them, and another process may be quicker. Then
# jupyter_client says this, and no cell has run.
NOT_STARTED = "Kernel died before replying to kernel_info"
STARTS = 3
FORMAT = 1  # of what is cached; raise it when this file starts to cache something else
KEPT_CACHES = 3  # keyed folders, so that going back and forth between two states stays cheap

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class NotebookError(RuntimeError):
    """A notebook failed; the message names the notebook, the cell and the error."""


def without_colours(text: str) -> str:
    """``text`` without a terminal's escape sequences for colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


# --- the machine and the environment ----------------------------------------------------------


def cores() -> int:
    """Processors that this process may use, counting the limits that containers set."""
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        allowed = min(allowed, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no such limit
        pass
    return max(1, allowed)


def kernel_environment(root: Path) -> dict[str, str]:
    """Environment variables under which notebooks are executed, here and by nbval.

    The reader's own settings (start-up files of IPython, a matplotlibrc, kernels of the same
    name, warning filters) must not change what a chapter prints.
    """
    environment = dict(os.environ)
    for name in ("MPLBACKEND", "PYTHONWARNINGS", "PYTHONSTARTUP", "MATPLOTLIBRC"):
        environment.pop(name, None)
    environment.update(dict.fromkeys(_THREAD_VARIABLES, str(THREADS)))
    environment.update(
        PYTHONPATH=str(root),
        IPYTHONDIR=str(root / "_build" / "ipython"),
        MPLCONFIGDIR=str(root / "_build" / "matplotlib"),
        JUPYTER_PREFER_ENV_PATH="1",
    )
    return environment


def prepare_matplotlib(root: Path) -> None:
    """Let matplotlib list the fonts now; on first import it says on stderr that it does."""
    folder = root / "_build" / "matplotlib"
    if not any(folder.glob("fontlist*.json")):
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", "import matplotlib.font_manager"]
        subprocess.run(command, env=kernel_environment(root), capture_output=True)


def find_notebooks(root: Path) -> list[Path]:
    """The chapters' notebooks, in alphabetical order."""
    found = (root / "chapters").rglob("*.ipynb")
    return sorted(path for path in found if ".ipynb_checkpoints" not in path.parts)


# --- the cache --------------------------------------------------------------------------------


def pinned_versions(root: Path) -> list[str]:
    """``name version`` as installed, for every package that requirements.txt names."""
    lines = (root / "requirements.txt").read_text("utf-8").splitlines()
    names = [re.match(r"[A-Za-z0-9._-]+", line) for line in lines]
    versions = []
    for match in filter(None, names):
        if match[0].startswith("-"):  # an option of pip
            continue
        try:
            versions.append(f"{match[0]} {importlib.metadata.version(match[0])}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{match[0]} absent")
    return versions


def cache_key(root: Path) -> str:
    """A hash of all that decides a notebook's outputs, except its own code."""
    digest = hashlib.sha256()
    machine = f"{platform.python_version()} {platform.system()} {platform.machine()}"
    for line in [f"{FORMAT} {THREADS} {machine}", *pinned_versions(root)]:
        digest.update(f"{line}\n".encode())
    files = [path for path in (root / "lib").rglob("*") if path.is_file()]
    # the pins, and the fonts that the figures are drawn with
    files += [root / "requirements.txt", root / "site" / "vendor.json"]
    for path in sorted(files):
        if "__pycache__" in path.parts or not path.is_file():
            continue
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def cache_folder(root: Path) -> Path:
    """Where the results for the present ``lib`` and pins are kept."""
    return root / "_build" / "cache" / cache_key(root)


def prune(folder: Path, keep: int = KEPT_CACHES) -> None:
    """Remove all but the ``keep`` most recently used keyed folders beside ``folder``."""
    os.utime(folder)
    siblings = [path for path in folder.parent.iterdir() if path.is_dir()]
    siblings.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in siblings[keep:]:
        shutil.rmtree(path, ignore_errors=True)


def open_cache(folder: Path) -> JupyterCacheAbstract:
    """The jupyter-cache in ``folder``, made if need be."""
    from jupyter_cache import get_cache

    folder.mkdir(parents=True, exist_ok=True)
    return get_cache(str(folder))


def read_notebook(path: Path) -> NotebookNode:
    """The notebook as stored.

    Raises
    ------
    NotebookError
        If the file isn't a notebook.
    """
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:
        raise NotebookError(f"{path} can't be read as a notebook: {error}") from error


def is_cached(cache: JupyterCacheAbstract, notebook: NotebookNode) -> bool:
    """Whether the cache holds this notebook's outputs, the files included."""
    try:
        cache.get_cache_bundle(cache.match_cache_notebook(notebook).pk)
    except (KeyError, ValueError):  # never cached; or its file is gone, or was cut off
        return False
    return True


def store(cache: JupyterCacheAbstract, path: Path, notebook: NotebookNode, seconds: float) -> None:
    """Put an executed notebook into the cache, without what only a live kernel can use."""
    from jupyter_cache.base import CacheBundleIn

    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(_WIDGET_VIEW, None)
    # a build that was killed here leaves a folder without a notebook, which is in the way
    key = cache.create_hashed_notebook(notebook)[1]
    shutil.rmtree(cache.path / "executed" / key, ignore_errors=True)
    bundle = CacheBundleIn(notebook, str(path), data={"execution_seconds": seconds})
    cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


# --- one notebook: the worker's side ----------------------------------------------------------


def work(source: Path, target: Path, timeout: int, say: Callable[[dict[str, Any]], None]) -> int:
    """Execute one notebook, telling the parent cell by cell; write it to ``target``."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = nbformat.read(source, as_version=4)
    cells = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    current = 0

    def entered(cell: NotebookNode, **_: Any) -> None:
        nonlocal current
        current = next(n for n, other in enumerate(cells, 1) if other is cell)
        say({"event": "cell", "cell": current, "of": len(cells)})

    def failed(error: str, details: str = "") -> int:
        lines = cells[current - 1].source if current else ""
        place = {"cell": current, "of": len(cells), "source": lines}
        say({"event": "failed", **place, "error": error})
        # kept on disk: the whole traceback is for whoever goes to mend the cell
        print(details, file=sys.stderr)
        return 1

    def run() -> None:
        for start in range(1, STARTS + 1):
            client = NotebookClient(
                notebook,
                timeout=timeout,
                kernel_name="python3",
                resources={"metadata": {"path": str(source.parent)}},
                record_timing=False,
                store_widget_state=False,
                on_cell_execute=entered,
            )
            try:
                client.execute()
                return
            except RuntimeError as error:
                if NOT_STARTED not in str(error) or start == STARTS:
                    raise

    try:
        run()
    except CellExecutionError as error:
        return failed(f"{error.ename}: {error.evalue}".strip(), without_colours(error.traceback))
    except CellTimeoutError:
        return failed(f"the cell ran for more than {timeout} s and was stopped")
    except DeadKernelError:
        return failed("the kernel died while the cell ran (out of memory, perhaps)")
    except Exception as error:
        return failed(f"the notebook could not be run: {error}")
    nbformat.write(notebook, target)
    return 0


# --- all notebooks: the parent's side ---------------------------------------------------------


class Task(NamedTuple):
    """One notebook to execute."""

    path: Path
    name: str
    notebook: NotebookNode


class Runner:
    """Runs workers, one process each, and ends them all when one fails."""

    def __init__(self, root: Path, timeout: int, progress: Progress) -> None:
        self.root, self.timeout, self.progress = root, timeout, progress
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, task: Task) -> tuple[Path, float]:
        """Execute one notebook; return the executed copy and the seconds it took."""
        logs = self.root / "_build" / "logs"
        target = self.root / "_build" / "executed" / f"{task.name}.ipynb"
        log = logs / f"{task.name}.txt"
        for folder in (target.parent, log.parent):
            folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        self.progress.start(task.name)
        failure: dict[str, Any] = {}
        command = [sys.executable, str(Path(__file__).resolve()), str(task.path), str(target)]
        command += ["--timeout", str(self.timeout)]
        # what the kernel says on stderr goes to the log, never between the lines of progress
        with log.open("w", encoding="utf-8") as stderr:
            process = self._start(command, stderr)
            assert process.stdout is not None
            for line in process.stdout:
                message = json.loads(line)
                if message["event"] == "cell":
                    self.progress.cell(task.name, message["cell"], message["of"])
                else:
                    failure = message
            code = process.wait()
        with self._lock:
            self._running.discard(process)
        seconds = time.monotonic() - started
        if self._stopped:
            raise NotebookError(f"{task.name}: stopped")
        if code != 0 or failure:
            self.progress.failed(task.name)
            raise NotebookError(describe(task.path.relative_to(self.root), failure, log))
        self.progress.done(task.name)
        return target, seconds

    def _start(self, command: list[str], stderr: Any) -> subprocess.Popen[str]:
        with self._lock:
            if self._stopped:
                raise NotebookError("stopped")
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=stderr,
                stdin=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env=kernel_environment(self.root),
            )
            self._running.add(process)
            return process

    def stop(self) -> None:
        """End every worker; each takes its kernel with it."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def describe(path: Path, failure: dict[str, Any], log: Path) -> str:
    """The failure as the reader sees it: where, the cell's first lines, the error."""
    if not failure:
        return f"{path} failed: its process ended without a word; see {log}"
    lines = failure["source"].strip("\n").splitlines()
    shown = [f"    {line}" for line in lines[:6]]
    if len(lines) > len(shown):
        shown.append(f"    … ({len(lines) - len(shown)} more lines)")
    where = f"{path} failed in cell {failure['cell']} of {failure['of']}:"
    return "\n".join([where, "", *shown, "", failure["error"], "", f"The traceback is in {log}"])


def execute_all(
    root: Path,
    jobs: int | None = None,
    *,
    timeout: int = CELL_TIMEOUT,
    fresh: bool = False,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Have the outputs of every notebook in the cache; return the cache's folder.

    Parameters
    ----------
    root : Path
        The book's folder.
    jobs : int, optional
        Notebooks at a time, at most the number of cores (the default).
    timeout : int
        Seconds that one cell may take.
    fresh : bool
        Execute also what the cache holds already.
    say : callable, optional
        Receives the lines of progress; by default they are printed.

    Raises
    ------
    NotebookError
        If a notebook fails; the others are then stopped.
    """
    folder = cache_folder(root)
    cache = open_cache(folder)
    prune(folder)
    tasks = []
    for path in find_notebooks(root):
        notebook = read_notebook(path)
        name = path.relative_to(root / "chapters").with_suffix("").as_posix().replace("/", "-")
        if fresh or not is_cached(cache, notebook):
            tasks.append(Task(path, name, notebook))
    if not tasks:
        return folder
    prepare_matplotlib(root)
    seconds = _known_seconds(root)
    # the longest first, so that no core waits for the last one
    tasks.sort(key=lambda task: seconds.get(task.name, math.inf), reverse=True)
    jobs = max(1, min(jobs or cores(), cores(), len(tasks)))
    progress = Progress([task.name for task in tasks], say)
    runner = Runner(root, timeout, progress)
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(runner.run, task): task for task in tasks}
        try:
            _collect(cache, futures, seconds, progress)
        except BaseException:
            runner.stop()
            pool.shutdown(cancel_futures=True)
            raise
    _remember_seconds(root, seconds)
    return folder


def _collect(
    cache: JupyterCacheAbstract,
    futures: dict[Future[tuple[Path, float]], Task],
    seconds: dict[str, float],
    progress: Progress,
) -> None:
    """Store each result as it comes in; only this thread writes to the cache's database."""
    waiting = set(futures)
    while waiting:
        finished, waiting = wait(waiting, timeout=0.5, return_when=FIRST_EXCEPTION)
        # what succeeded is kept even if another notebook failed in the same moment
        for future in sorted(finished, key=lambda future: future.exception() is not None):
            target, taken = future.result()
            store(cache, futures[future].path, read_notebook(target), taken)
            target.unlink()
            seconds[futures[future].name] = taken
        progress.tick()


def _known_seconds(root: Path) -> dict[str, float]:
    try:
        return json.loads((root / "_build" / "seconds.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def _remember_seconds(root: Path, seconds: dict[str, float]) -> None:
    rounded = {name: round(value, 1) for name, value in seconds.items()}
    (root / "_build" / "seconds.json").write_text(json.dumps(rounded, indent=1), "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """The worker's command line; the parent starts one per notebook."""
    parser = argparse.ArgumentParser(description="Execute one notebook, for site/build.py.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--timeout", type=int, default=CELL_TIMEOUT)
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # the parent reads messages from what was standard output; whatever else is printed, by the
    # kernel for one, which inherits it, goes to the log
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=channel, flush=True)

    return work(chosen.source, chosen.target, chosen.timeout, say)


if __name__ == "__main__":
    sys.exit(main())
