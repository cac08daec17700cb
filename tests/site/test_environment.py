"""What a fresh machine meets first: the virtual environment, the make targets, the browser."""

from __future__ import annotations

import os
import re
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import browser as browser_finder
import pytest

if TYPE_CHECKING:
    from pages import StrictPage

ROOT = Path(__file__).resolve().parents[2]

# A python that notes what it is asked to do and obeys the variables VERSION_OK, VENV_OK, PIP_OK.
PYTHON = """\
#!/bin/sh
echo "$0 $*" >> "$CALLS"
case "$*" in
  *version_info*) exit "${VERSION_OK:-0}" ;;
  --version) echo "Python 3.9.2" ;;
  *ensurepip*) exit "${VENV_OK:-0}" ;;
  "-m venv"*) for last; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python" ;;
  "-m pip"*) exit "${PIP_OK:-0}" ;;
esac
"""


class Machine:
    """A folder with the pins, and a PATH on which only a stand-in for Python is found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        programs = folder / "bin"
        programs.mkdir()
        (programs / "python3").write_text(PYTHON, "utf-8")
        (programs / "python3").chmod(0o755)
        for name in ("sh", "cat", "cksum", "cut", "rm", "touch", "mkdir", "cp"):
            found = next(p for p in ("/bin", "/usr/bin") if (Path(p) / name).exists())
            (programs / name).symlink_to(Path(found) / name)
        for name in ("requirements.txt", "requirements-test.txt", "pyproject.toml"):
            (folder / name).write_text(f"# {name}\n", "utf-8")

    def make(self, pins: str = "requirements.txt", **variables: str) -> tuple[int, str]:
        """Run the script; return its status and all it printed."""
        environment = {"PATH": str(self.folder / "bin"), "CALLS": str(self.calls), **variables}
        done = subprocess.run(
            ["/bin/sh", str(ROOT / "site" / "environment.sh"), ".venv", pins],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout

    def asked(self) -> str:
        """What Python was asked since the last time."""
        text = self.calls.read_text("utf-8") if self.calls.exists() else ""
        self.calls.unlink(missing_ok=True)
        return text

    @property
    def stamps(self) -> list[Path]:
        return list((self.folder / ".venv").glob(".ready*"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# --- the virtual environment ------------------------------------------------------------------


def test_the_first_run_installs_the_pins_and_the_package_and_the_second_does_nothing(
    machine: Machine,
) -> None:
    assert machine.make()[0] == 0
    asked = machine.asked()
    assert "-m venv" in asked
    assert "--requirement requirements.txt" in asked
    assert "--no-deps --editable ." in asked
    assert machine.make() == (0, "")
    assert machine.asked() == ""


@pytest.mark.parametrize("name", ["requirements.txt", "pyproject.toml"])
def test_changed_pins_are_installed_into_the_same_environment(machine: Machine, name: str) -> None:
    machine.make()
    machine.asked()
    (machine.folder / name).write_text("# changed\n", "utf-8")
    assert machine.make()[0] == 0
    asked = machine.asked()
    assert "-m venv" not in asked
    assert "-m pip install" in asked
    assert len(machine.stamps) == 1


def test_an_environment_for_the_tests_serves_the_book_as_well(machine: Machine) -> None:
    assert machine.make("requirements-test.txt")[0] == 0
    assert "--requirement requirements-test.txt" in machine.asked()
    assert machine.make() == (0, "")
    assert machine.make("requirements-test.txt") == (0, "")


def test_a_failed_install_says_so_and_leaves_no_stamp(machine: Machine) -> None:
    status, said = machine.make(PIP_OK="1")
    assert status == 1
    assert "could not be installed" in said
    assert machine.stamps == []
    assert machine.make()[0] == 0


def test_a_folder_that_was_moved_is_installed_anew(machine: Machine, tmp_path: Path) -> None:
    machine.make()
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    tmp_path.rename(moved)
    machine.folder, machine.calls = moved, moved / "calls"
    assert machine.make()[0] == 0
    assert "--editable ." in machine.asked()


def test_an_old_python_is_refused_in_one_sentence_that_says_what_to_do(machine: Machine) -> None:
    status, said = machine.make(VERSION_OK="1")
    assert status == 1
    assert said == (
        "make: the book needs Python 3.11 or newer, and python3 is Python 3.9.2. "
        "If you have a newer one, name it: make book PYTHON=/path/to/python3.12\n"
    )


def test_a_newer_python_under_another_name_is_found(machine: Machine) -> None:
    old = PYTHON.replace('exit "${VERSION_OK:-0}"', "exit 1")
    newer = machine.folder / "bin" / "python3.12"
    newer.write_text(PYTHON, "utf-8")
    newer.chmod(0o755)
    (machine.folder / "bin" / "python3").write_text(old, "utf-8")
    assert machine.make()[0] == 0
    assert "python3.12 -m venv" in machine.asked()


def test_a_missing_venv_module_is_named_with_its_package(machine: Machine) -> None:
    status, said = machine.make(VENV_OK="1")
    assert status == 1
    assert "apt-get install python3-venv" in said


# --- make -------------------------------------------------------------------------------------


def targets() -> set[str]:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    return set(phony[1].split()) - {"help", "env", "env-test"}


def test_make_alone_prints_every_target_and_does_nothing() -> None:
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert set(re.findall(r"^make (\w+)", done.stdout, re.MULTILINE)) == targets()


def test_the_targets_are_those_that_the_book_promises() -> None:
    assert targets() == {"book", "test", "serve", "lab", "notebooks", "trunk", "bench", "clean"}


def test_every_make_command_in_the_readme_exists_and_every_target_is_explained() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", readme, re.MULTILINE)) == targets()


def test_every_local_link_and_picture_of_the_readme_exists() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", readme) + re.findall(r'src="([^"]+)"', readme)
    local = [link for link in links if "://" not in link]
    assert local
    assert [link for link in local if not (ROOT / link).exists()] == []


def test_shell_scripts_are_free_of_what_only_bash_knows() -> None:
    for name in ("site/environment.sh", ".ci/run"):
        path = ROOT / name
        assert path.read_text("utf-8").startswith("#!/bin/sh\n"), name
        done = subprocess.run(["sh", "-n", str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


# --- the browser ------------------------------------------------------------------------------


@pytest.fixture
def no_browser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any browser; the value is a folder on its PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("BOOK_CHROMIUM", raising=False)
    monkeypatch.setattr(browser_finder, "APPLICATIONS", ())
    monkeypatch.setattr(browser_finder, "_playwrights_own", lambda: None)
    return tmp_path


def put_browser(folder: Path, status: int = 0) -> str:
    program = folder / "chromium"
    program.write_text(f"#!/bin/sh\nexit {status}\n", "utf-8")
    program.chmod(0o755)
    return str(program)


def test_an_installed_browser_is_taken_and_nothing_is_downloaded(no_browser: Path) -> None:
    program = put_browser(no_browser)

    def download() -> None:
        raise AssertionError("not needed")

    assert browser_finder.ensure((download,)) == program


def test_a_browser_that_does_not_start_is_passed_by(no_browser: Path) -> None:
    put_browser(no_browser, status=1)
    assert browser_finder.find() is None


def test_without_one_each_way_of_getting_one_is_tried_in_turn(no_browser: Path) -> None:
    tried = []

    def fails() -> None:
        tried.append("download")
        raise subprocess.CalledProcessError(1, "playwright")

    def works() -> None:
        tried.append("package")
        put_browser(no_browser)

    assert browser_finder.ensure((fails, works)) == str(no_browser / "chromium")
    assert tried == ["download", "package"]


def test_when_nothing_helps_the_sentence_says_what_to_install(no_browser: Path) -> None:
    with pytest.raises(browser_finder.NoBrowser, match="apt-get install chromium"):
        browser_finder.ensure((lambda: None,))


# --- the pages' own watchdog ------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_a_strict_page_sees_what_leaves_its_origin_and_what_goes_wrong(
    tmp_path: Path,
    scheme: str,
    serve: Callable[[Path], str],
    new_strict_page: Callable[..., StrictPage],
) -> None:
    (tmp_path / "own.js").write_text("document.title = 'own'", "utf-8")
    (tmp_path / "index.html").write_text(
        '<script src="own.js"></script><script src="missing.js"></script>'
        '<script src="http://elsewhere.invalid/x.js"></script>'
        "<script>console.error('oh'); console.warn('hm'); nowhere()</script>",
        "utf-8",
    )
    origin = serve(tmp_path) if scheme == "http" else tmp_path.as_uri()
    page = new_strict_page(origin)
    page.open("index.html")
    assert page.title() == "own"
    assert page.off_origin == ["http://elsewhere.invalid/x.js"]
    assert any("missing.js" in line for line in page.failed)
    said = "\n".join(page.console)
    assert "error: oh" in said
    assert "warning: hm" in said
    assert "nowhere is not defined" in said
    for noted in (page.console, page.off_origin, page.failed):
        noted.clear()


def test_a_strict_page_forgives_what_was_still_loading_when_it_was_left(
    tmp_path: Path, serve: Callable[[Path], str], new_strict_page: Callable[..., StrictPage]
) -> None:
    (tmp_path / "index.html").write_text("<script>fetch('slow.svg')</script>", "utf-8")
    (tmp_path / "next.html").write_text("<script>fetch('refused.svg')</script>", "utf-8")
    page = new_strict_page(serve(tmp_path))
    left: list[str] = []
    page.on("requestfailed", lambda request: left.append(request.url))
    page.route("**/slow.svg", lambda route: None)  # never answered
    page.route("**/refused.svg", lambda route: route.abort("connectionrefused"))
    with page.expect_request("**/slow.svg"):
        page.open("index.html")
    with page.expect_event("requestfailed", lambda request: "refused" in request.url):
        page.open("next.html")
    assert [url.rsplit("/", 1)[1] for url in left] == ["slow.svg", "refused.svg"]
    assert len(page.failed) == 1
    assert "net::ERR_CONNECTION_REFUSED" in page.failed[0]
    page.failed.clear()
    page.console.clear()


def test_the_server_of_make_serve_hands_out_scripts_and_fonts_as_such(
    tmp_path: Path, serve: Callable[[Path], str]
) -> None:
    for name, kind in (("a.js", "text/javascript"), ("a.woff2", "font/woff2")):
        (tmp_path / name).write_text("x", "utf-8")
        with urllib.request.urlopen(f"{serve(tmp_path)}/{name}") as answer:
            assert answer.headers["Content-Type"].startswith(kind)
            assert answer.headers["Cache-Control"] == "no-cache"


def test_make_serve_without_a_book_says_what_to_do(tmp_path: Path) -> None:
    import sys

    command = [sys.executable, str(ROOT / "site" / "serve.py"), "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "run `make book`" in done.stdout
