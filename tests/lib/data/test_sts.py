"""Loaders of graded sentence pairs, on small files made here, and the download, on a local one."""

from __future__ import annotations

import http.server
import io
import os
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lib.data import sts
from lib.data.sts import SentencePairs, SentencePairsError, fetch_stsb, load_sts
from lib.whitening import whitening_sweep

STSB = (
    'main-captions\tMSRvid\t2012test\t0001\t5.000\tA "man plays.\tA man\u2028is playing.\n'
    "main-news\theadlines\t2013\t0002\t0.600\tA dog runs.\tA man is playing.\tsource\tsource\n"
)
SICK = (
    "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
    "6\tA dog runs\tA cat sits\t1.4\tNEUTRAL\n7\tA cat sits\tA cat is sitting\t4.9\tENTAILMENT\n"
)
CHINESE = "如何开花呗\t花呗怎么开\t1\n如何开花呗\t今天天气\t0\n"


def file(folder: Path, text: str | bytes) -> Path:
    path = folder / "pairs.tsv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def example() -> SentencePairs:
    return SentencePairs.of([("a", "b", 1.0), ("b", "c", 0.5), ("a", "c", 0.0)])


# --- the type -------------------------------------------------------------------------------------


def test_a_sentence_that_comes_again_is_kept_once():
    pairs = example()
    assert pairs.sentences == ("a", "b", "c")
    assert pairs.pairs.tolist() == [[0, 1], [1, 2], [0, 2]]
    assert len(pairs) == 3


@pytest.mark.parametrize("chosen", [np.array([1]), np.array([False, True, False])])
def test_a_selection_keeps_only_the_sentences_it_needs(chosen):
    some = example().select(chosen)
    assert some.sentences == ("b", "c")
    assert some.pairs.tolist() == [[0, 1]]
    assert some.scores.tolist() == [0.5]


def test_arrays_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        example().scores[0] = 2.0


def test_pairs_go_straight_into_the_sweep():
    pairs = example()
    sweep = whitening_sweep(
        np.eye(3) + 1.0,
        pairs.pairs,
        pairs.scores,
        betas=[1.0],
        gammas=[0.0],
        dims=[2],
        rng=np.random.default_rng(0),
        resamples=0,
    )
    assert sweep.spearman.shape == (1, 1, 1)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ((("a", "b"), [[0, 2]], [1.0]), ValueError, r"`pairs` must lie in 0 … 1, got 2"),
        ((("a", "b"), [[0, -1]], [1.0]), ValueError, r"`pairs` must lie in 0 … 1, got -1"),
        ((("a", "b"), [0, 1], [1.0]), ValueError, r"`pairs` must have shape \(m, 2\)"),
        ((("a", "b"), [[0.0, 1.0]], [1.0]), TypeError, "`pairs` must hold whole numbers"),
        ((("a", "b"), [[0, 1]], [1.0, 2.0]), ValueError, "`scores` must hold 1 numbers, got 2"),
        ((("a", "b"), [[0, 1]], [np.nan]), ValueError, "`scores` must be finite"),
        ((("a", "a"), [[0, 1]], [1.0]), ValueError, "`sentences` must all differ"),
        (("ab", [[0, 1]], [1.0]), TypeError, "`sentences` must hold strings"),
        (((1, 2), [[0, 1]], [1.0]), TypeError, "`sentences` must hold strings"),
    ],
)
def test_fields_that_do_not_fit_are_an_error(fields, error, message):
    with pytest.raises(error, match=message):
        SentencePairs(*fields)


def test_no_rows_are_an_error():
    with pytest.raises(ValueError, match="`rows` must hold at least one pair, got none"):
        SentencePairs.of([])


# --- loading --------------------------------------------------------------------------------------


def test_stsb_takes_quotes_and_odd_line_separators_as_text(tmp_path):
    pairs = load_sts(file(tmp_path, STSB), "stsb")
    assert pairs.sentences[:2] == ('A "man plays.', "A man\u2028is playing.")
    assert pairs.scores.tolist() == [5.0, 0.6]
    assert len(pairs) == 2


def test_sick_skips_its_head_line(tmp_path):
    pairs = load_sts(file(tmp_path, SICK), "sick")
    assert pairs.sentences == ("A dog runs", "A cat sits", "A cat is sitting")
    assert pairs.pairs.tolist() == [[0, 1], [1, 2]]
    assert pairs.scores.tolist() == [1.4, 4.9]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_chinese_sets_have_three_columns(tmp_path, mark):
    pairs = load_sts(file(tmp_path, mark + CHINESE), "chinese")
    assert pairs.sentences == ("如何开花呗", "花呗怎么开", "今天天气")
    assert pairs.scores.tolist() == [1.0, 0.0]


def test_line_ends_of_windows_are_no_part_of_a_column(tmp_path):
    pairs = load_sts(file(tmp_path, CHINESE.replace("\n", "\r\n")), "chinese")
    assert pairs.scores.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "form", "message"),
    [
        ("a\tb\n", "chinese", r'3 columns or more for `form` "chinese", got 2 in line 1'),
        (CHINESE + "a\tb\tyes\n", "chinese", r"must hold a score, got 'yes' in line 3"),
        (CHINESE + "a\tb\tnan\n", "chinese", r"must hold a score, got 'nan' in line 3"),
        (SICK, "stsb", r"`form` \"stsb\", got 5 in line 1"),
        ("", "stsb", "holds no pairs"),
        (b"\xff\xfe\x00", "chinese", "must be text in UTF-8"),
    ],
)
def test_a_file_of_another_form_is_a_clear_error(tmp_path, text, form, message):
    with pytest.raises(SentencePairsError, match=message):
        load_sts(file(tmp_path, text), form)


def test_a_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(SentencePairsError, match="cannot be read: No such file"):
        load_sts(tmp_path / "none.csv", "stsb")


def test_an_unknown_form_is_a_clear_error(tmp_path):
    with pytest.raises(ValueError, match='`form` must be one of "stsb", "sick", "chinese"'):
        load_sts(file(tmp_path, STSB), "csv")


# --- fetching -------------------------------------------------------------------------------------


def archive(members: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(content), kind, "/etc/passwd"
            if kind != tarfile.REGTYPE:
                info.size = 0
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


GOOD = {f"stsbenchmark/sts-{part}.csv": STSB.encode() for part in ("train", "dev", "test")}


@pytest.fixture
def serve(monkeypatch):
    """Serve bytes at a local address; returns the address and the list of what was asked for."""
    servers = []
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def start(content: bytes, status: int = 200, length: int | None = None):
        asked: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(length or len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/stsb.tar.gz", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_benchmark_is_fetched_once_and_can_be_read(tmp_path, serve):
    url, asked = serve(archive(GOOD))
    folder = fetch_stsb(tmp_path / "new" / "stsb", url=url)
    fetch_stsb(folder, url=url)
    assert len(asked) == 1
    assert sorted(p.name for p in folder.iterdir()) == sorted(sts.STSB_FILES)
    assert len(load_sts(folder / "sts-dev.csv", "stsb")) == 2


def test_a_path_in_the_archive_leads_nowhere_else(tmp_path, serve):
    members = {f"../../{Path(name).name}": content for name, content in GOOD.items()}
    url, _ = serve(archive({**members, "../evil.csv": b"x"}))
    fetch_stsb(tmp_path / "a" / "b", url=url)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == sorted(sts.STSB_FILES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive({"stsbenchmark/sts-dev.csv": b"x"}), "holds no sts-test.csv, sts-train.csv"),
        (archive(GOOD, tarfile.SYMTYPE), "holds no sts-dev.csv, sts-test.csv, sts-train.csv"),
        (b"<html>moved</html>", "is no whole archive"),
        (archive(GOOD)[:150], "is no whole archive"),
    ],
)
def test_a_bad_archive_is_a_clear_error_and_leaves_nothing(tmp_path, serve, content, message):
    url, _ = serve(content)
    with pytest.raises(SentencePairsError, match=message):
        fetch_stsb(tmp_path, url=url)
    assert not list(tmp_path.iterdir())


def test_what_is_far_too_large_is_not_kept(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(sts, "LARGEST", 100)
    url, _ = serve(archive(GOOD))
    with pytest.raises(SentencePairsError, match="is larger than 100 bytes"):
        fetch_stsb(tmp_path, url=url)
    assert not list(tmp_path.iterdir())


def test_a_file_that_unfolds_to_far_too_much_is_not_kept(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(sts, "LARGEST", 5000)
    url, _ = serve(archive({name: b"x" * 100_000 for name in GOOD}))
    with pytest.raises(SentencePairsError, match=r"sts-train\.csv is larger than 5000 bytes"):
        fetch_stsb(tmp_path, url=url)
    assert not list(tmp_path.iterdir())


def test_a_refusal_and_a_broken_connection_are_clear_errors(tmp_path, serve):
    url, _ = serve(b"gone", status=404)
    with pytest.raises(SentencePairsError, match=r"cannot be fetched from .*404.*put sts-train"):
        fetch_stsb(tmp_path, url=url)
    url, _ = serve(archive(GOOD)[:100], length=5000)
    with pytest.raises(SentencePairsError, match=r"cannot be fetched|no whole archive"):
        fetch_stsb(tmp_path, url=url)
    assert not list(tmp_path.iterdir())


def test_without_a_network_the_message_says_what_to_do(tmp_path):
    started = time.monotonic()
    with pytest.raises(SentencePairsError, match=r"without a network, put sts-train\.csv"):
        fetch_stsb(tmp_path, url="http://127.0.0.1:9/stsb.tar.gz")
    assert time.monotonic() - started < 10.0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["no address", "gopher://x/y"])
def test_an_address_that_is_none_is_a_clear_error(tmp_path, url):
    with pytest.raises(SentencePairsError, match="cannot be fetched from"):
        fetch_stsb(tmp_path, url=url)


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SentencePairsError, match=r"`folder` .* cannot be written"):
        fetch_stsb(tmp_path / "file" / "below", url="http://127.0.0.1:9/")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_a_clear_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SentencePairsError, match=r"`folder` .* cannot be written: Permission"):
        fetch_stsb(tmp_path / "new", url="http://127.0.0.1:9/")
