"""Word vectors trained on pairs: the loss, the gradient's direction, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lib.embeddings.contrastive import _Bags, info_nce, train_contrastive
from lib.embeddings.words import WordVectors


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pairs_of(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """Each pair speaks of one letter-word on both sides, among words that say nothing."""
    rng = np.random.default_rng(seed)
    topics = [f"{a}{b}" for a in "abcdefgh" for b in "xyz"]
    made = []
    for _ in range(n):
        topic = rng.choice(topics)
        noise = rng.choice(["the", "of", "and", "to", "in", "is"], 6)
        made.append((" ".join([topic, *noise[:3]]), " ".join([*noise[3:], topic + "s"])))
    return made


def picks_partner(table: WordVectors, n: int = 24) -> float:
    """Share of topics whose plural is the nearest of all plurals."""
    topics = [f"{a}{b}" for a in "abcdefgh" for b in "xyz"]
    a = table.encode([f"the {t} of" for t in topics])
    b = table.encode([f"and {t}s to" for t in topics])
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return float(((a @ b.T).argmax(1) == np.arange(n)).mean())


SETTINGS = {"steps": 60, "dim": 16, "batch": 64, "learning_rate": 1e-2, "temperature": 0.05}


def test_the_loss_is_the_cross_entropy_of_picking_the_partner():
    a, b = torch.randn(2, 5, 3, generator=seeded(), dtype=torch.float64)
    expected = 0.0
    for i in range(5):
        for x, others in ((a[i], b), (b[i], a)):
            scores = [torch.cosine_similarity(x, y, dim=0).item() / 0.2 for y in others]
            expected -= (scores[i] - math.log(sum(map(math.exp, scores)))) / 10
    assert info_nce(a, b, 0.2).item() == pytest.approx(expected, rel=1e-12)


def test_vectors_that_are_all_alike_lose_the_logarithm_of_the_batch():
    assert info_nce(torch.ones(7, 3), torch.ones(7, 3), 0.1).item() == pytest.approx(math.log(7))


def test_the_mean_in_training_is_that_of_encoding():
    pairs = pairs_of(50)
    table = train_contrastive(pairs, generator=seeded(), **SETTINGS)
    texts = [a + " unknown " + b for a, b in pairs]
    rows = np.array([3, 0, 49, 3])
    means = _Bags(texts, table.vocabulary).means(torch.tensor(table.vectors), rows)
    expected = table.encode([texts[i] for i in rows])
    np.testing.assert_allclose(means.numpy(), expected, atol=1e-6)


def test_training_brings_partners_together():
    pairs = pairs_of(600)
    trained = train_contrastive(pairs, generator=seeded(), **SETTINGS)
    start = train_contrastive(pairs, generator=seeded(), **{**SETTINGS, "steps": 1})
    assert picks_partner(start) < 0.3
    assert picks_partner(trained) > 0.9


def test_training_may_go_on_from_other_vectors():
    pairs = pairs_of(600)
    before = train_contrastive(pairs, generator=seeded(), **SETTINGS)
    after = train_contrastive(pairs, generator=seeded(1), start=before, steps=1, learning_rate=1e-9)
    assert after.vocabulary == before.vocabulary
    ratio = after.vectors / before.vectors
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=1e-3)
    assert np.sqrt(np.mean(after.vectors**2)) == pytest.approx(0.1, rel=1e-4)


def test_the_generator_alone_decides():
    pairs = pairs_of(100)
    torch.manual_seed(5)
    a = train_contrastive(pairs, generator=seeded(), **SETTINGS)
    b = train_contrastive(pairs, generator=seeded(), **SETTINGS)
    c = train_contrastive(pairs, generator=seeded(1), **SETTINGS)
    assert (a.vectors == b.vectors).all()
    assert (a.vectors != c.vectors).any()


def test_the_loss_is_reported_and_falls():
    losses: list[float] = []
    train_contrastive(
        pairs_of(600), generator=seeded(), on_step=lambda _, x: losses.append(x), **SETTINGS
    )
    assert len(losses) == 60
    assert np.mean(losses[-5:]) < 0.6 * losses[0]


def test_pairs_without_a_known_word_are_left_out():
    start = WordVectors(("ax", "axs", "bx", "bxs"), np.eye(4))
    pairs = [("ax", "axs"), ("bx", "bxs"), ("ax", "nothing"), ("nothing", "axs")]
    losses: list[float] = []
    train_contrastive(
        *[pairs],
        start=start,
        steps=1,
        generator=seeded(),
        on_step=lambda _, x: losses.append(x),
    )
    assert losses == pytest.approx([math.log(2)])


def test_a_loss_that_is_not_finite_stops_the_training():
    with pytest.raises(FloatingPointError, match="`learning_rate` may be too large"):
        train_contrastive(pairs_of(50), generator=seeded(), **{**SETTINGS, "learning_rate": 1e38})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"steps": 0}, ValueError, "`steps` must be at least 1"),
        ({"batch": 1}, ValueError, "`batch` must be at least 2"),
        ({"dim": 0}, ValueError, "`dim` must be at least 1"),
        ({"min_count": 0}, ValueError, "`min_count` must be at least 1"),
        ({"temperature": 0.0}, ValueError, "`temperature` must be positive, got 0"),
        ({"learning_rate": -1.0}, ValueError, "`learning_rate` must be positive, got -1"),
        ({"generator": 0}, TypeError, "`generator` must be a torch.Generator"),
        ({"start": np.eye(3)}, TypeError, "`start` must be a WordVectors, got ndarray"),
        ({"pairs": []}, ValueError, "`pairs` must hold at least 2 pairs, got none"),
        ({"pairs": [("a", "b", "c")]}, ValueError, "got one of length 3"),
        ({"pairs": [(1, 2), (3, 4)]}, TypeError, "`pairs` must be a sequence of strings"),
        ({"pairs": [("ab", "ab")]}, ValueError, "at least 2 pairs of known words, got 1"),
    ],
)
def test_bad_input_is_an_error_that_names_it(change, error, message):
    with pytest.raises(error, match=message):
        train_contrastive(**{"pairs": pairs_of(20), "generator": seeded(), **SETTINGS, **change})
