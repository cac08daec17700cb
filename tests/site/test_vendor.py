"""The third-party files of the pages: fetched as pinned, whole or not at all, once."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import vendor

ROOT = Path(__file__).resolve().parents[2]

CONTENT = {"LICENSE": b"free", "es5/a.js": b"a()", "es5/b.js": b"b()", "es5/deep/c.js": b"c()"}


def archive(files: dict[str, bytes]) -> bytes:
    """An npm archive with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def integrity(content: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


class Registry:
    """A stand-in for npm: hands out prepared archives, counts its calls, can be cut off."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shelf = folder / "shelf"
        self.shelf.mkdir()
        self.calls = folder / "calls"
        self.program = folder / "npm"
        self.write()

    def write(self, failing: str = "") -> None:
        """With ``failing``, npm says it on stderr and exits 1, after fetching half the files."""
        lines = ["#!/bin/sh", f"echo called >> {self.calls}"]
        lines += ['while [ "$1" != --pack-destination ]; do shift; done']
        lines += [f'cp {self.shelf}/* "$2"/']
        if failing:
            lines += [f"printf '{failing}' >&2", "exit 1"]
        self.program.write_text("\n".join(lines) + "\n", "utf-8")
        self.program.chmod(0o755)

    @property
    def count(self) -> int:
        return len(self.calls.read_text("utf-8").splitlines()) if self.calls.exists() else 0


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return Registry(folder)


@pytest.fixture
def pin(tmp_path: Path, registry: Registry) -> Callable[..., Path]:
    """Put a package on the registry's shelf and write a vendor.json that pins it."""

    def make(
        files: dict[str, bytes] = CONTENT, take: dict[str, str] | None = None, **changes: object
    ) -> Path:
        content = archive(files)
        (registry.shelf / "scope-thing-1.0.0.tgz").write_bytes(content)
        package = {
            "name": "@scope/thing",
            "version": "1.0.0",
            "integrity": integrity(content),
            "licence": "MIT",
            "take": take or {"LICENSE": "site/vendor/thing", "es5/*.js": "site/vendor/thing"},
        }
        path = tmp_path / "vendor.json"
        path.write_text(json.dumps({"packages": [{**package, **changes}]}), "utf-8")
        return path

    return make


def test_the_files_that_are_asked_for_arrive_where_they_belong(
    tmp_path: Path, pin: Callable[..., Path]
) -> None:
    assert vendor.vendor(tmp_path / "v", pin())
    found = {p.relative_to(tmp_path / "v").as_posix() for p in (tmp_path / "v").rglob("*.*")}
    assert found == {"manifest.json", "site/vendor/thing/a.js", "site/vendor/thing/b.js"}
    assert (tmp_path / "v/site/vendor/thing/a.js").read_bytes() == b"a()"


def test_a_second_run_asks_nobody(
    tmp_path: Path, pin: Callable[..., Path], registry: Registry
) -> None:
    pins = pin()
    vendor.vendor(tmp_path / "v", pins)
    registry.write(failing="npm error code ENOTFOUND\n")
    assert not vendor.vendor(tmp_path / "v", pins)
    assert registry.count == 1


@pytest.mark.parametrize("harm", ["delete", "truncate", "manifest"])
def test_a_harmed_file_is_fetched_again(
    tmp_path: Path, pin: Callable[..., Path], harm: str
) -> None:
    pins = pin()
    vendor.vendor(tmp_path / "v", pins)
    victim = tmp_path / "v" / ("manifest.json" if harm == "manifest" else "site/vendor/thing/a.js")
    victim.unlink() if harm == "delete" else victim.write_bytes(b"")
    assert vendor.vendor(tmp_path / "v", pins)
    assert (tmp_path / "v/site/vendor/thing/a.js").read_bytes() == b"a()"


def test_changed_pins_are_fetched_anew_and_old_files_go(
    tmp_path: Path, pin: Callable[..., Path]
) -> None:
    vendor.vendor(tmp_path / "v", pin())
    assert vendor.vendor(tmp_path / "v", pin(take={"es5/b.js": "site"}))
    assert not (tmp_path / "v/site/vendor").exists()
    assert (tmp_path / "v/site/b.js").read_bytes() == b"b()"


def test_a_wrong_checksum_is_refused_and_nothing_changes(
    tmp_path: Path, pin: Callable[..., Path]
) -> None:
    target = tmp_path / "v"
    vendor.vendor(target, pin())
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    wrong = pin(integrity=integrity(b"something else"))
    with pytest.raises(vendor.VendorError, match=r"@scope/thing@1\.0\.0 is not the file"):
        vendor.vendor(target, wrong)
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before


def test_without_a_network_one_sentence_says_so_and_nothing_is_left(
    tmp_path: Path, pin: Callable[..., Path], registry: Registry
) -> None:
    pins = pin()
    registry.write(failing="npm error code ENOTFOUND\nnpm error syscall getaddrinfo\n")
    with pytest.raises(vendor.VendorError) as caught:
        vendor.vendor(tmp_path / "b" / "v", pins)
    assert str(caught.value) == (
        "npm could not fetch @scope/thing@1.0.0 (ENOTFOUND): "
        "the first build needs the network once, later ones don't"
    )
    assert list((tmp_path / "b").iterdir()) == []


def test_a_package_that_npm_silently_left_out_is_noticed(
    tmp_path: Path, pin: Callable[..., Path], registry: Registry
) -> None:
    pins = pin()
    (registry.shelf / "scope-thing-1.0.0.tgz").rename(registry.shelf / "other.tgz")
    with pytest.raises(vendor.VendorError, match="could not fetch @scope/thing"):
        vendor.vendor(tmp_path / "v", pins)


def test_a_pattern_that_matches_no_file_is_an_error(
    tmp_path: Path, pin: Callable[..., Path]
) -> None:
    with pytest.raises(vendor.VendorError, match=r"has no file es6/\*\.js"):
        vendor.vendor(tmp_path / "v", pin(take={"es6/*.js": "site"}))
    assert not (tmp_path / "v").exists()


def test_a_weaker_checksum_is_not_accepted(tmp_path: Path, pin: Callable[..., Path]) -> None:
    with pytest.raises(vendor.VendorError, match="must begin with sha512-"):
        vendor.vendor(tmp_path / "v", pin(integrity="sha1-abc"))


def test_without_npm_on_the_path_the_one_beside_python_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "npm").write_text("#!/bin/sh\n", "utf-8")
    (tmp_path / "npm").chmod(0o755)
    assert vendor.find_npm() == str(tmp_path / "npm")
    (tmp_path / "npm").unlink()
    assert Path(vendor.find_npm()).parent == Path(sys.executable).parent
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(vendor.VendorError, match="no npm"):
        vendor.find_npm()


def test_the_command_ends_with_status_1_and_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path)}
    (tmp_path / "npm").write_text("#!/bin/sh\necho npm error code E404 >&2; exit 1\n", "utf-8")
    (tmp_path / "npm").chmod(0o755)
    command = [sys.executable, str(ROOT / "site" / "vendor.py"), "--target", str(tmp_path / "v")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "(E404)" in done.stderr


# --- the real pins ----------------------------------------------------------------------------


def test_every_real_package_is_pinned_by_version_and_sha512() -> None:
    packages = vendor.read_packages(ROOT / "site" / "vendor.json")
    assert {"mathjax", "axe-core"} < {package.name for package in packages}
    for package in packages:
        assert package.version.count(".") == 2, package.name
        assert package.version.replace(".", "").isdigit(), package.name
        assert len(base64.b64decode(package.integrity.removeprefix("sha512-"))) == 64
        assert package.licence
        assert any(pattern == "LICENSE" for pattern in package.take), package.name


def test_the_vendored_folder_holds_what_pages_and_figures_name() -> None:
    target = ROOT / "_build" / "vendor"
    if not vendor.is_current(target, ROOT / "site" / "vendor.json"):
        pytest.fail("the vendored files aren't there: run `make book` first")
    for name in (
        "site/vendor/mathjax/tex-mml-chtml.js",
        "site/vendor/mathjax/output/chtml/fonts/woff-v2/MathJax_Main-Regular.woff",
        "site/vendor/fonts/source-serif-4-latin-400-normal.woff2",
        "fonts/source-sans-3-400.ttf",
        "axe/axe.min.js",
    ):
        assert (target / name).is_file(), name


def test_matplotlib_finds_both_weights_and_both_alphabets_in_one_family() -> None:
    from fontTools.ttLib import TTFont
    from matplotlib.ft2font import FT2Font

    folder = ROOT / "_build" / "vendor" / "fonts"
    for name, weight in (("400", 400), ("600", 600), ("700", 700)):
        path = folder / f"source-sans-3-{name}.ttf"
        assert FT2Font(str(path)).family_name == "Source Sans 3"
        font = TTFont(path)
        assert font["OS/2"].usWeightClass == weight
        assert {ord(letter) for letter in "aZ0−éλκΣš"} <= set(font.getBestCmap())
