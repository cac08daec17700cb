"""The search for learning rates: what it tries, what it takes, what it does not look at."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.tuning import rates
from lib.tuning.corpus import Corpus, Source
from lib.tuning.methods import METHODS
from lib.tuning.rates import BODY, HEAD, best, held_out, search
from lib.tuning.tasks import TASKS, Examples, Task
from lib.tuning.training import HEADS, LEARNING_RATES, Rates, fine_tune
from lib.tuning.trunk import Trunk, TrunkConfig

SMALL = TrunkConfig(vocabulary=12, width=16, heads=2, layers=2, feed_forward=24)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def examples(count: int, seed: int) -> Examples:
    """Which of tokens 3, 4 and 5 stands at the place?"""
    tokens = torch.randint(6, 12, (count, 6), generator=draw(seed))
    places = torch.randint(6, (count,), generator=draw(seed + 1))
    targets = torch.randint(3, (count,), generator=draw(seed + 2))
    tokens[torch.arange(count), places] = 3 + targets
    return Examples(tokens, places, targets)


TASK = Task("marks", "position", 3, ("a", "b", "c"), examples(200, 1), examples(60, 5))
TRUNK = Trunk(SMALL, draw())


def test_every_method_has_rates_from_the_grid_for_every_head():
    assert set(LEARNING_RATES) == set(METHODS)
    assert {kind.head for kind in TASKS.values()} == set(HEADS)
    for method, by_head in LEARNING_RATES.items():
        assert set(by_head) == set(HEADS)
        for found in by_head.values():
            assert found.head in HEAD
            assert found.body in (BODY[:1] if method == "probe" else BODY)


def test_all_pairs_are_tried_and_scored_as_fine_tuning_does():
    found = search("full", TRUNK, TASK, head=(1e-2, 0.1), body=(1e-4, 1e-2), seeds=[3, 4], steps=6)
    assert list(found) == [Rates(h, b) for h in (1e-2, 0.1) for b in (1e-4, 1e-2)]
    for pair, right in found.items():
        run = fine_tune(
            "full", TRUNK, TASK, [3, 4], steps=6, batch=8, examples=48, learning_rate=pair
        )
        np.testing.assert_array_equal(right, run.accuracy)


def test_a_probe_has_no_body_to_search_for():
    assert list(search("probe", TRUNK, TASK, head=(0.01, 0.1), seeds=[0], steps=2)) == [
        Rates(0.01, BODY[0]),
        Rates(0.1, BODY[0]),
    ]


def test_it_tells_a_good_rate_from_bad_ones():
    found = search("full", TRUNK, TASK, head=(1e-6, 1e-2), body=(1e-4,), seeds=[0, 1], steps=60)
    assert best(found) == Rates(1e-2, 1e-4)
    assert found[best(found)].min() > found[Rates(1e-6, 1e-4)].max() + 0.1


def test_rates_that_blow_up_are_never_taken():
    found = search("full", TRUNK, TASK, head=(1e-2, 1e38), body=(1e-2,), seeds=[0, 1], steps=8)
    assert np.isnan(found[Rates(1e38, 1e-2)]).all()
    assert best(found) == Rates(1e-2, 1e-2)
    with pytest.raises(ValueError, match="`found` must hold a pair of rates"):
        best({Rates(1.0, 1.0): np.array([math.nan])})


def test_the_best_is_the_best_on_average():
    found = {Rates(1, 1): [0.5, 0.5], Rates(2, 1): [0.9, 0.2], Rates(3, 1): [0.1, 0.99]}
    assert best({k: np.array(v) for k, v in found.items()}) == Rates(2, 1)


def test_the_test_part_is_not_looked_at():
    parts = {
        part: tuple(Source(f"{part}{i}.py", np.arange(9 + i) + 100 * k) for i in range(3))
        for k, part in enumerate(("pretraining", "training", "test"))
    }
    kept = held_out(Corpus(("<mask>",), **parts))
    assert kept.pretraining == parts["pretraining"]
    for before, first, second in zip(parts["training"], kept.training, kept.test, strict=True):
        assert first.name == second.name == before.name
        np.testing.assert_array_equal(np.concatenate([first.tokens, second.tokens]), before.tokens)
        assert abs(len(first.tokens) - len(second.tokens)) <= 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"method": "distil"}, ValueError, "`method` must be one of"),
        ({"head": ()}, ValueError, "`head` must hold at least one learning rate"),
        ({"body": (0.1, -1.0)}, ValueError, "`body` must be positive"),
        ({"head": ("fast",)}, TypeError, "`head` must hold real numbers"),
        ({"steps": 0}, ValueError, "`steps` must be at least 1"),
        ({"seeds": []}, ValueError, "`seeds` must name at least one seed"),
        ({"trunk": None}, TypeError, "`trunk` must be a lib.tuning.Trunk"),
    ],
)
def test_it_refuses(change, error, message):
    given = {"method": "full", "trunk": TRUNK, "task": TASK, "seeds": [0], "steps": 1} | change
    with pytest.raises(error, match=message):
        search(**given)


def test_the_command_prints_a_pair_for_every_task(monkeypatch, capsys):
    monkeypatch.setattr(rates, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(rates, "_searched", lambda method, name: {Rates(0.1, 0.2): np.ones(2)})
    assert rates.main(["ladder", "probe"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(TASKS)
    assert lines[0] == '"ladder", "position": Rates(head=0.1, body=0.2)  # 100.0%'


class Here:
    """In the place of a pool: maps in this process."""

    def __init__(self, jobs: int) -> None:
        assert jobs >= 1

    def __enter__(self):
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def map(self, call, *columns):
        return map(call, *columns)


@pytest.mark.parametrize("arguments", [["distil"], ["--jobs", "0"]])
def test_the_command_refuses(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        rates.main(arguments)
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_without_sources_the_command_says_so(monkeypatch, capsys, tmp_path: Path):
    def no_sources(*args: object) -> Corpus:
        raise rates.CorpusError(f"no Python sources below {tmp_path}")

    monkeypatch.setattr(rates, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(rates, "read_corpus", no_sources)
    assert rates.main(["probe"]) == 2
    assert "no Python sources" in capsys.readouterr().err
