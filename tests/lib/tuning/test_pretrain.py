"""Pretraining: it learns, it repeats itself, its command writes two files or says why not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lib.data.stdlib_text import CorpusError
from lib.tuning import pretrain as module
from lib.tuning.corpus import SPECIAL, Corpus, Source, read_corpus
from lib.tuning.pretrain import Pretrained, hide, main, pretrain, score
from lib.tuning.trunk import Trunk, TrunkConfig, load_trunk, stored_words

LINE = "for i in range ( n ) : <in> x = y [ i ] <out>".split()  # noqa: SIM905


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """One line again and again, so that every hidden token can be guessed."""
    words = (*SPECIAL, *sorted(set(LINE) - set(SPECIAL)))
    row = np.array([words.index(t) for t in LINE * 40])
    return Corpus(words, *((Source("a.py", row),) for _ in range(3)))


@pytest.fixture(scope="module")
def config(corpus) -> TrunkConfig:
    return TrunkConfig(len(corpus.words), width=16, heads=2, layers=1, feed_forward=32)


@pytest.fixture(scope="module")
def made(corpus, config) -> Pretrained:
    return pretrain(corpus, config, steps=80, batch=8, length=28, learning_rate=2e-2)


# --- training -------------------------------------------------------------------------------------


def test_it_learns_what_can_be_learned(made):
    assert made.losses.shape == (80,)
    assert made.losses[-10:].mean() < made.losses[:10].mean()
    # without a look around, nothing beats the frequencies: 16 tokens, two of them the same
    blind = math.log(16) - math.log(2) / 8
    assert made.after.loss < blind - 0.5 < made.before.loss
    assert made.after.accuracy > 2 / 16 > made.before.accuracy


def test_what_comes_out_is_as_the_file_will_be(made):
    assert not made.trunk.training
    for weight in made.trunk.parameters():
        assert not weight.requires_grad
        assert torch.equal(weight, weight.half().float())


def test_a_seed_fixes_everything(corpus, config):
    runs = [pretrain(corpus, config, steps=3, batch=4, length=14, seed=seed) for seed in (5, 5, 6)]
    np.testing.assert_array_equal(runs[0].losses, runs[1].losses)
    for one, same in zip(runs[0].trunk.parameters(), runs[1].trunk.parameters(), strict=True):
        assert torch.equal(one, same)
    assert runs[0].after == runs[1].after
    assert (runs[0].losses != runs[2].losses).all()


def test_every_step_is_reported(corpus, config):
    seen: list[tuple[int, float]] = []
    made = pretrain(
        corpus, config, steps=4, batch=2, length=14, on_step=lambda *report: seen.append(report)
    )
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    np.testing.assert_array_equal([loss for _, loss in seen], made.losses)


def test_the_test_part_is_not_trained_on(corpus, config):
    other = np.full(200, len(SPECIAL))
    changed = Corpus(corpus.words, corpus.pretraining, corpus.training, (Source("b.py", other),))
    one, two = (pretrain(c, config, steps=2, batch=2, length=14) for c in (corpus, changed))
    np.testing.assert_array_equal(one.losses, two.losses)
    assert one.after != two.after


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(steps=0), ValueError, "`steps` must be at least 1"),
        (dict(batch=0), ValueError, "`batch` must be at least 1"),
        (dict(seed=-1), ValueError, "`seed` must be at least 0"),
        (dict(learning_rate=0.0), ValueError, "`learning_rate` must be positive"),
        (dict(length=10_000), CorpusError, "no file of the pretraining part holds 10000"),
        (dict(config=TrunkConfig(5)), ValueError, "`config` must have the corpus' vocabulary"),
        (dict(steps=1.5), TypeError, "`steps` must be a whole number"),
    ],
)
def test_bad_settings(corpus, config, options, error, message):
    with pytest.raises(error, match=message):
        pretrain(**{"corpus": corpus, "config": config, "steps": 1, "length": 14, **options})


def test_a_corpus_must_be_one():
    with pytest.raises(TypeError, match=r"`corpus` must be a .*Corpus, got list"):
        pretrain([])


# --- hiding and scoring ---------------------------------------------------------------------------


def test_about_the_given_share_is_hidden_and_never_nothing():
    tokens = torch.zeros(2000, 50, dtype=torch.int64)
    hidden = hide(tokens, 0.2, seeded())
    # 100 000 draws: the deviation of the share is 0.0013
    assert abs(hidden.double().mean().item() - 0.2) < 0.0065
    few = hide(tokens, 1e-6, seeded())
    assert (few.sum(1) == 1).all()
    places = few.int().argmax(1)
    assert np.bincount(places, minlength=50).min() > 10  # any place may be the one
    assert torch.equal(hidden, hide(tokens, 0.2, seeded()))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(3), 0.2, seeded()), ValueError, "`tokens` must be a tensor of shape"),
        ((torch.zeros(0, 3), 0.2, seeded()), ValueError, "and not be empty"),
        (([[1]], 0.2, seeded()), ValueError, "got list"),
        ((torch.zeros(2, 3), 1.0, seeded()), ValueError, "`share` must lie strictly"),
        ((torch.zeros(2, 3), 0.2, 0), TypeError, "`generator` must be a"),
    ],
)
def test_what_cannot_be_hidden(arguments, error, message):
    with pytest.raises(error, match=message):
        hide(*arguments)


def test_scores_by_hand(config):
    trunk = Trunk(config, seeded())
    windows = torch.randint(1, config.vocabulary, (300, 6), generator=seeded(1))
    hidden = hide(windows, 0.3, seeded(2))
    got = score(trunk, windows, hidden, 0)
    losses, right = [], []
    for window, where in zip(windows, hidden, strict=True):
        seen = torch.where(where, 0, window)
        logits = trunk.logits(trunk(seen[None]))[0].double()
        for place in where.nonzero()[:, 0].tolist():
            z = logits[place]
            losses.append((z.exp().sum().log() - z[window[place]]).item())
            right.append(z.argmax().item() == window[place])
    assert got.tokens == len(losses) == int(hidden.sum())
    assert math.isclose(got.loss, np.mean(losses), rel_tol=1e-5)
    assert got.accuracy == np.mean(right)


def test_nothing_to_guess_is_refused(config):
    trunk, windows = Trunk(config, seeded()), torch.ones(2, 4, dtype=torch.int64)
    for hidden in (windows == 0, windows[:1] == 1, windows):
        with pytest.raises(ValueError, match="`hidden` must be bool of shape"):
            score(trunk, windows, hidden, 0)


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch, corpus, config):
    """The command on the small corpus and a small trunk; the longer windows as they are."""

    def small(corpus, **options):
        return pretrain(corpus, config, batch=4, **options)

    threads = torch.get_num_threads()
    monkeypatch.setattr(module, "read_corpus", lambda: corpus)
    monkeypatch.setattr(module, "pretrain", small)
    yield
    torch.set_num_threads(threads)


def test_the_command_writes_a_trunk_and_its_card(quick, corpus, config, tmp_path, capsys):
    assert main(["--steps", "3", "--seed", "7", "--out", str(tmp_path)]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["trunk.md", "trunk.safetensors"]
    path = tmp_path / "trunk.safetensors"
    trunk = load_trunk(path)
    assert trunk.config == config
    assert stored_words(path) == corpus.words
    said = capsys.readouterr().out
    assert "step     3  loss" in said
    assert str(path) in said
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    parameters = sum(p.numel() for p in trunk.parameters())
    for fact in (
        f"{parameters:,} parameters",
        f"{path.stat().st_size:,} bytes",
        "--steps 3 --seed 7",
        f"| pretraining | 1 | {len(corpus.pretraining[0].tokens):,} |",
        f"= {math.log(config.vocabulary):.3f}",
        "Python Software Foundation",
    ):
        assert fact in card


def test_the_command_repeats_itself(quick, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert main(["--steps", "2", "--out", str(tmp_path / name)]) == 0
    one, two = ((tmp_path / n / "trunk.safetensors").read_bytes() for n in ("one", "two"))
    assert one == two


def test_a_folder_that_cannot_be_written_to_is_refused_before_training(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(module, "read_corpus", lambda: pytest.fail("training was prepared"))
    assert main(["--out", str(tmp_path / "nowhere")]) == 2
    assert "no folder at" in capsys.readouterr().err
    (tmp_path / "file").write_text("x")
    assert main(["--out", str(tmp_path / "file")]) == 2
    assert "no folder at" in capsys.readouterr().err

    def closed(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module.tempfile, "TemporaryFile", closed)
    assert main(["--out", str(tmp_path)]) == 2
    assert f"cannot write to {tmp_path}: Permission denied" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_missing_sources_are_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(module, "read_corpus", lambda: read_corpus(root=tmp_path))
    assert main(["--out", str(tmp_path)]) == 2
    assert "no Python sources" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--steps", "0"], ["--seed", "-1"], ["--steps", "many"]])
def test_options_out_of_range(options, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(options)
    assert "must be a whole number from" in capsys.readouterr().err
