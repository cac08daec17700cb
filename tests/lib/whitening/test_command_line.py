"""``python -m lib.whitening`` on files: what it writes, and what it says of wrong files."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lib.whitening import whitening_sweep
from lib.whitening.__main__ import main

ROOT = Path(__file__).parents[3]


@pytest.fixture
def files(tmp_path):
    """vectors.npy and pairs.csv, without a header."""
    g = np.random.default_rng(0)
    np.save(tmp_path / "vectors.npy", g.normal(size=(40, 20)).astype(np.float32) + 1.0)
    pairs, scores = g.integers(40, size=(50, 2)), g.random(50)
    rows = [f"{i},{j},{s:.3f}" for (i, j), s in zip(pairs, scores, strict=True)]
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def run(folder, *options):
    return main(["sweep", f"{folder}/vectors.npy", f"{folder}/pairs.csv", *map(str, options)])


def fails(capsys, folder, *options):
    """The message of a run that ends with status 2 and leaves no file behind."""
    before = sorted(p.name for p in folder.iterdir())
    assert run(folder, *options) == 2
    assert sorted(p.name for p in folder.iterdir()) == before
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


# --- what it does ---------------------------------------------------------------------------------


def test_table_and_files(files, capsys):
    options = ("--betas", "0,1", "--gammas", "0,.5,1", "--dims", "8,20", "--top", 3)
    picture, table = files / "grid.png", files / "table.csv"
    assert run(files, *options, "--out", table, "--picture", picture) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["beta", "raw", "1", "2", "3"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 12
    data = np.loadtxt(files / "pairs.csv", delimiter=",")
    sweep = whitening_sweep(
        np.load(files / "vectors.npy"),
        data[:, :2].astype(int),
        data[:, 2],
        betas=[0, 1],
        gammas=[0, 0.5, 1],
        dims=[8, 20],
        rng=np.random.default_rng(0),
    )
    for row, cell in zip(rows, sweep.settings(), strict=True):
        assert {k: float(v) for k, v in row.items()} == pytest.approx(vars(cell), rel=1e-9)
    assert f"{sweep.best().spearman:.4f}" in lines[2]
    assert sorted(p.name for p in files.iterdir()) == [
        "grid.png",
        "pairs.csv",
        "table.csv",
        "vectors.npy",
    ]


def test_header_blank_lines_and_bom_are_read(files, capsys):
    run(files, "--resamples", 0)
    plain = capsys.readouterr().out
    path = files / "pairs.csv"
    path.write_text("\ufeffi,j,score\r\n\r\n" + path.read_text().replace(",", ", "), "utf-8")
    assert run(files, "--resamples", 0) == 0
    assert capsys.readouterr().out == plain


def test_default_dims_stay_within_the_rank(files, capsys):
    np.save(files / "vectors.npy", np.load(files / "vectors.npy")[:, [0, 1, 2, 0, 1, 2]])
    assert run(files, "--resamples", 0, "--moment", "shifted") == 0
    assert run(files, "--resamples", 0, "--top", 99) == 0


def test_module_runs_by_name(files):
    command = [sys.executable, "-m", "lib.whitening", "sweep", files / "vectors.npy"]
    done = subprocess.run(
        [*command, files / "none.csv"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"error: {files / 'none.csv'}: No such file or directory\n"


# --- what it refuses ------------------------------------------------------------------------------


def test_missing_vectors(files, capsys):
    (files / "vectors.npy").unlink()
    assert "vectors.npy: No such file" in fails(capsys, files, "--out", files / "t.csv")


@pytest.mark.parametrize("content", [b"", b"0.1,0.2\n0.3,0.4\n", b"\x93NUMPY\x01\x00"])
def test_vectors_that_are_no_npy(files, capsys, content):
    (files / "vectors.npy").write_bytes(content)
    assert "vectors.npy: expected a .npy file" in fails(capsys, files, "--out", files / "t.csv")


def test_vectors_in_an_archive(files, capsys):
    with (files / "vectors.npy").open("wb") as file:
        np.savez(file, a=np.ones((2, 2)))
    assert "an archive of several arrays" in fails(capsys, files)


def test_one_nan_is_found(files, capsys):
    x = np.load(files / "vectors.npy")
    x[17, 3] = np.nan
    np.save(files / "vectors.npy", x)
    message = fails(capsys, files, "--out", files / "t.csv")
    assert "vectors.npy: `vectors` must be finite, got nan in row 17, column 3" in message


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_wrong_separator(files, capsys, sign, name):
    path = files / "pairs.csv"
    path.write_text(path.read_text().replace(",", sign))
    message = fails(capsys, files, "--out", files / "t.csv")
    assert f"line 1: expected commas between i,j,score, got {name}" in message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("40,1,0.5", "line 51: expected a row number from 0 to 39, got 40"),
        ("-1,1,0.5", "line 51: expected a row number from 0 to 39, got -1"),
        ("1.5,1,0.5", "line 51: expected a row number, got '1.5'"),
        ("1,2,nan", "line 51: expected a finite score, got 'nan'"),
        ("1,2,high", "line 51: expected a finite score, got 'high'"),
        ("1,2", "line 51: expected three fields i,j,score, got 2"),
        ("i,j,score", "line 51: expected a row number, got 'i'"),
    ],
)
def test_bad_lines_are_named(files, capsys, line, message):
    with (files / "pairs.csv").open("a") as file:
        file.write(line + "\n")
    assert message in fails(capsys, files, "--out", files / "t.csv")


def test_a_slip_in_the_first_row_is_no_header(files, capsys):
    path = files / "pairs.csv"
    path.write_text("0,1,high\n" + path.read_text())
    assert "line 1: expected a finite score" in fails(capsys, files)


def test_pairs_without_rows_or_not_text(files, capsys):
    (files / "pairs.csv").write_text("i,j,score\n")
    assert "expected rows i,j,score, got none" in fails(capsys, files)
    (files / "pairs.csv").write_bytes(b"\xff\xfe0,1,2")
    assert "expected a CSV file in UTF-8" in fails(capsys, files)


def test_targets_that_cannot_be_written(files, capsys):
    assert "directory that exists" in fails(capsys, files, "--out", files / "no" / "t.csv")
    assert "must name a file" in fails(capsys, files, "--picture", files)
    assert "must not overwrite pairs" in fails(capsys, files, "--out", files / "pairs.csv")
    both = files / "same"
    assert "must not overwrite --out" in fails(capsys, files, "--out", both, "--picture", both)


def test_no_permission(files, capsys, monkeypatch):
    locked = files / "locked"
    locked.mkdir()
    # Root may write anywhere, so the answer of the system is played.
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: p != locked and allowed(p, mode))
    message = fails(capsys, files, "--out", locked / "t.csv")
    assert f"--out: no permission to write {locked / 't.csv'}" in message


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(28, "full")])
def test_a_failure_while_writing_leaves_nothing(files, capsys, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("lib.whitening.__main__._draw", fail)
    table = files / "t.csv"
    table.write_text("what was here before\n")
    message = fails(capsys, files, "--out", table, "--picture", files / "p.png")
    assert error.strerror in message
    assert table.read_text() == "what was here before\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dims", "21"), "`dims` must be from 1 to 20, got 21"),
        (("--betas", "nan"), "`betas` must be finite"),
        (("--resamples", "-1"), "`resamples` must be at least 0"),
        (("--top", "0"), "--top must be at least 1"),
    ],
)
def test_values_out_of_range(files, capsys, options, message):
    assert message in fails(capsys, files, *options)


@pytest.mark.parametrize(
    "options", [["--betas", "0;1"], ["--dims", "1.5"], ["--seed", "-1"], ["--moment", "x"]]
)
def test_values_that_do_not_parse(files, capsys, options):
    with pytest.raises(SystemExit, match="2"):
        run(files, *options)
    assert options[0] in capsys.readouterr().err
