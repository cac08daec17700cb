"""With a live kernel, in JupyterLab: an explorer's slider recomputes the exact picture."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import executor
import nbformat
import pytest
from books import notebook
from pages import watch

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 180_000  # ms; a busy machine may take long to import torch

EXPLORER = """\
import numpy as np

from lib.book.explore import Curves, Panel, Slider, explore


def draw(power):
    x = np.linspace(0, 1, 60)
    panel = Panel("A power", xlabel="*x*", ylabel="*y*")
    panel.line(x, x**power, "power")
    return Curves(panel)


explorer = explore(
    draw,
    {"power": Slider("power", 0.5, 4.0, n=8, start=1.0)},
    alt=lambda power: f"the power is exactly {power!r}",
    title="Powers",
    hint="Drag the power.",
)
"""


@dataclass
class Lab:
    """A running JupyterLab and the folder it shows."""

    address: str
    token: str
    folder: Path

    def open(self, browser: Browser, name: str) -> Page:
        """The page of a notebook, with a kernel that is ready."""
        page = watch(
            browser.new_context(viewport={"width": 1300, "height": 1000}).new_page(), self.address
        ).page
        page.set_default_timeout(PATIENCE)
        # reset: else the notebooks of earlier tests are opened as well, and may be in front
        page.goto(f"{self.address}/lab/tree/{name}?reset&token={self.token}")
        page.wait_for_function(
            """name => {
                const panel = window.jupyterapp?.shell.currentWidget;
                return panel?.context?.isReady && panel.context.path === name
                    && panel.sessionContext?.session?.kernel?.status === 'idle';
            }""",
            arg=name,
        )
        return page


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab on a free port of the loopback interface, with settings of its own."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "notebooks"
    folder.mkdir()
    # otherwise it asks whether it may fetch news
    quiet = home / "settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    (quiet / "notification.jupyterlab-settings").write_text(
        json.dumps({"fetchNews": "false", "checkForUpdates": False}), "utf-8"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser"]
    command += ["--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", "--allow-root"]
    command += [f"--IdentityProvider.token={token}", f"--notebook-dir={folder}"]
    environment = executor.kernel_environment(ROOT)
    environment.update(
        JUPYTER_CONFIG_DIR=str(home / "config"),
        JUPYTER_DATA_DIR=str(home / "data"),
        JUPYTER_RUNTIME_DIR=str(home / "runtime"),
        JUPYTERLAB_SETTINGS_DIR=str(home / "settings"),
        JUPYTERLAB_WORKSPACES_DIR=str(home / "workspaces"),
    )
    log = home / "log.txt"
    with log.open("w", encoding="utf-8") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        found = Lab(f"http://127.0.0.1:{port}", token, folder)
        _wait_until_it_answers(found, server, log)
        yield found
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()


def _wait_until_it_answers(lab: Lab, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text("utf-8")
        try:
            with urllib.request.urlopen(f"{lab.address}/api?token={lab.token}", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail("JupyterLab did not start:\n" + log.read_text("utf-8"))


def run_all(page: Page) -> None:
    """Run every cell and wait until each has been; none may have raised."""
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(
        """() => {
            const panel = window.jupyterapp.shell.currentWidget;
            const cells = [...panel.content.model.cells].filter(c => c.type === 'code');
            return cells.every(c => c.executionCount)
                && panel.sessionContext.session.kernel.status === 'idle';
        }"""
    )
    errors = page.evaluate(
        """() => [...window.jupyterapp.shell.currentWidget.content.model.cells]
            .filter(c => c.type === 'code')
            .flatMap(c => [...Array(c.outputs.length).keys()].map(i => c.outputs.get(i).toJSON()))
            .filter(o => o.output_type === 'error')
            .map(o => o.evalue)"""
    )
    assert errors == []


def picture(page: Page) -> bytes:
    """The bytes of the picture that the first explorer shows now; none while it changes."""
    image = page.locator(".jp-OutputArea img.widget-image, .jp-OutputArea .widget-image img").first
    image.scroll_into_view_if_needed()
    encoded = image.evaluate(
        """async image => {
            const answer = await fetch(image.src).catch(() => null);
            const bytes = new Uint8Array(answer ? await answer.arrayBuffer() : []);
            return btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join(''));
        }"""
    )
    return base64.b64decode(encoded)


def press(page: Page, key: str) -> None:
    """Press a key on the first explorer's first slider."""
    handle = page.locator(".jp-OutputArea .noUi-handle").first
    handle.focus()
    handle.press(key)


def step_aside(page: Page) -> None:
    """Move the first explorer's first slider by one step, in a direction in which it can go."""
    handle = page.locator(".jp-OutputArea .noUi-handle").first
    at, end = (handle.get_attribute(f"aria-value{which}") for which in ("now", "max"))
    press(page, "ArrowLeft" if at == end else "ArrowRight")


def value(page: Page) -> float:
    """The value that the explorer of this file says it shows."""
    said = page.locator(".jp-OutputArea").get_by_text("the power is exactly").first.inner_text()
    return float(re.search(r"exactly ([\d.]+)", said)[1])


def settled(page: Page, explorer: Any, than: float | None = None) -> float:
    """Wait until the value is another ``than`` that, and the picture exactly that of the value."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        now = value(page)
        if now != than and picture(page) == explorer.still(power=now):
            return now
        page.wait_for_timeout(100)
    raise AssertionError(f"the picture never became the exact one for {value(page)}")


def explorer_in_this_process() -> Any:
    """The same explorer, made by the same code, in the process of the test."""
    names: dict[str, Any] = {}
    exec(compile(EXPLORER, "explorer", "exec"), names)
    return names["explorer"]


def test_a_slider_moved_off_the_grid_shows_the_exact_picture_for_its_value(
    lab: Lab, browser: Browser
) -> None:
    nbformat.write(notebook(EXPLORER, "explorer"), lab.folder / "try.ipynb")
    explorer = explorer_in_this_process()
    page = lab.open(browser, "try.ipynb")
    run_all(page)
    before = settled(page, explorer)
    press(page, "ArrowRight")
    after = settled(page, explorer, than=before)
    assert before < after < before + 0.1
    assert after not in [0.5 * step for step in range(1, 9)]
    page.context.close()


def chapters_with_explorers() -> list[Path]:
    found = []
    for path in executor.find_notebooks(ROOT):
        cells = nbformat.read(path, as_version=4).cells
        if any(cell.cell_type == "code" and "explore(" in cell.source for cell in cells):
            found.append(path)
    return found


@pytest.mark.parametrize("chapter", chapters_with_explorers(), ids=lambda path: path.stem)
def test_the_first_explorer_of_a_chapter_answers_to_its_kernel(
    chapter: Path, lab: Lab, browser: Browser
) -> None:
    whole = nbformat.read(chapter, as_version=4)
    end = next(
        number
        for number, cell in enumerate(whole.cells, 1)
        if cell.cell_type == "code" and "explore(" in cell.source
    )
    whole.cells = whole.cells[:end]  # the experiments further down would take their time
    for cell in whole.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(whole, lab.folder / chapter.name)
    page = lab.open(browser, chapter.name)
    run_all(page)
    before = picture(page)
    step_aside(page)
    deadline = time.monotonic() + 60
    while (after := picture(page)) in (before, b"") and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    assert after != before
    assert after.startswith(b"\x89PNG")
    page.context.close()


def test_the_make_target_shows_the_chapters_folder() -> None:
    make = subprocess.run(
        ["make", "--dry-run", "lab"], cwd=ROOT, capture_output=True, text=True, env=os.environ
    )
    assert "-m jupyterlab --notebook-dir=chapters" in make.stdout
