import os
import subprocess
import sys

import numpy as np
import pytest

from lib.hubness import _cli, antihub_rate, k_occurrence, skewness


@pytest.fixture
def saved(tmp_path):
    X = np.random.default_rng(0).normal(size=(300, 40)) + 1
    path = tmp_path / "vectors.npy"
    np.save(path, X)
    return path, X


def test_report_as_a_command(saved):
    path, X = saved
    done = subprocess.run(
        [sys.executable, "-m", "lib.hubness", "report", str(path), "-k", "5", "--metric", "cosine"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert "n = 300, d = 40, k = 5, cosine" in lines[0]
    counts = k_occurrence(X, 5, metric="cosine")
    given = lines[2].removeprefix("as given").split()
    assert float(given[0]) == pytest.approx(skewness(counts), abs=6e-4)
    assert int(given[1]) == counts.max()
    assert given[3] == f"{antihub_rate(counts):.1%}"
    moved = k_occurrence(X - X.mean(0), 5, metric="cosine")
    after = lines[3].removeprefix("centred, normalised").split()
    assert float(after[0]) == pytest.approx(skewness(moved), abs=6e-4)
    assert done.stderr == ""


def test_picture(saved, tmp_path):
    picture = tmp_path / "out.png"
    assert _cli.main(["report", str(saved[0]), "--picture", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.png", "vectors.npy"]


def test_a_failed_picture_leaves_the_old_one(saved, tmp_path, monkeypatch, capsys):
    picture = tmp_path / "out.png"
    picture.write_bytes(b"old")

    def full(self, path, **_):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    assert _cli.main(["report", str(saved[0]), "--picture", str(picture)]) == 2
    assert "No space left" in capsys.readouterr().err
    assert picture.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.png", "vectors.npy"]


def test_a_vector_at_the_mean(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.array([[0.0], [1.0], [-1.0]]))
    assert _cli.main(["report", str(tmp_path / "x.npy"), "-k", "1"]) == 0
    assert "not possible" in capsys.readouterr().out


def test_progress_of_long_work(saved, monkeypatch, capsys):
    monkeypatch.setattr(_cli, "PATIENCE", -1.0)
    assert _cli.main(["report", str(saved[0])]) == 0
    assert "as given: 300 of 300" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        (None, [], "No such file"),
        (b"text, not numbers", [], "not a .npy file"),
        (b"", [], "not a .npy file"),
        (np.array([[1.0, 2.0], [np.nan, 1.0]]), [], "must be finite, got NaN in row 1"),
        (np.array([{}], dtype=object), [], "not a .npy file"),
        (np.ones(3), [], "must have shape (n, d)"),
        (np.eye(4), ["-k", "4"], "-k must be from 1 to 3 for 4 vectors, got 4"),
        (np.eye(4), ["-k", "0"], "-k must be from 1 to 3"),
        (np.zeros((4, 2)), ["-k", "1", "--metric", "cosine"], "no zero vectors"),
        (np.eye(4), ["-k", "1", "--picture", "{}/out.txt"], "must end in .png"),
        (np.eye(4), ["-k", "1", "--picture", "{}/none/out.png"], "folder that exists"),
    ],
)
def test_errors(tmp_path, capsys, content, more, message):
    path = tmp_path / "in.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    before = sorted(tmp_path.rglob("*"))
    assert _cli.main(["report", str(path), *(a.format(tmp_path) for a in more)]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_archives_and_folders(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", a=np.eye(3))
    assert _cli.main(["report", str(tmp_path / "x.npz")]) == 2
    assert "got an archive" in capsys.readouterr().err
    assert _cli.main(["report", str(tmp_path)]) == 2
    assert "directory" in capsys.readouterr().err


def test_a_folder_closed_to_writing(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    assert _cli.main(["report", str(saved[0]), "--picture", str(tmp_path / "out.png")]) == 2
    assert "open to writing" in capsys.readouterr().err


def test_usage_errors_are_2_as_well():
    for arguments in ([], ["report"], ["report", "x.npy", "--metric", "l1"]):
        with pytest.raises(SystemExit) as stopped:
            _cli.main(arguments)
        assert stopped.value.code == 2
