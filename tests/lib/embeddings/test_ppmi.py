"""Positive pointwise mutual information and its factors, against definitions and NumPy."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from lib.data.docstrings import words
from lib.embeddings.ppmi import cooccurrences, ppmi, train_ppmi

THINGS = ("file", "path", "folder", "socket", "server", "client", "thread", "lock", "queue")


def text(n: int = 400, seed: int = 0) -> list[str]:
    """Sentences of three subjects of three words each, with common words between."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        subject = 3 * rng.integers(3)
        chosen = rng.choice(THINGS[subject : subject + 3], 4)
        glue = rng.choice(["the", "of", "a", "and", "to"], 4)
        made.append(" ".join(w for pair in zip(glue, chosen, strict=True) for w in pair))
    return made


TEXT = text()
VOCABULARY = ("the", "file", "path", "lock", "of")


def counted(texts: list[list[str]], window: int) -> np.ndarray:
    """The definition, word by word."""
    number = {word: i for i, word in enumerate(VOCABULARY)}
    out = np.zeros((5, 5))
    for words_ in texts:
        ids = [number[w] for w in words_ if w in number]
        for p, i in enumerate(ids):
            for q, j in enumerate(ids):
                if p != q and abs(p - q) <= window:
                    out[i, j] += 1
    return out


@pytest.mark.parametrize("window", [1, 2, 5, 50])
def test_cooccurrences_are_counted_within_window_and_sentence(window):
    texts = [words(s) for s in TEXT[:50]]
    assert (cooccurrences(texts, VOCABULARY, window).toarray() == counted(texts, window)).all()


@pytest.mark.parametrize("smoothing", [0.75, 1.0])
def test_ppmi_is_the_logarithm_of_joint_over_product(smoothing):
    counts = cooccurrences([words(s) for s in TEXT], VOCABULARY, 2)
    dense = counts.toarray()
    joint = dense / dense.sum()
    context = dense.sum(0) ** smoothing / (dense.sum(0) ** smoothing).sum()
    with np.errstate(divide="ignore"):
        expected = np.maximum(np.log(joint / np.outer(joint.sum(1), context)), 0.0)
    np.testing.assert_allclose(ppmi(counts, smoothing).toarray(), expected, atol=1e-12)
    assert ppmi(counts, smoothing).data.min() > 0


def test_words_that_never_meet_have_no_information():
    with pytest.raises(ValueError, match="`counts` must hold two words that occur together"):
        ppmi(cooccurrences([["file"], ["path"]], VOCABULARY, 2))


@pytest.mark.parametrize("power", [1.0, 0.5, 0.0])
def test_vectors_are_the_leading_factors_of_numpys_svd(power):
    got = train_ppmi(TEXT, dim=6, power=power)
    matrix = ppmi(cooccurrences([words(s) for s in TEXT], got.vocabulary, 5)).toarray()
    left, values, _ = np.linalg.svd(matrix)
    np.testing.assert_allclose(got.singular_values, values[:6], rtol=1e-9)
    scaled = left[:, :6] * values[:6] ** power
    gram = got.vectors.astype(float) @ got.vectors.T
    np.testing.assert_allclose(gram, scaled @ scaled.T, atol=2e-5)


def test_another_power_needs_no_training():
    one, half = train_ppmi(TEXT, dim=6), train_ppmi(TEXT, dim=6, power=0.5)
    np.testing.assert_allclose(one.with_power(0.5).vectors, half.vectors, atol=1e-6)
    assert one.with_power(0.5).power == 0.5


def test_the_first_vector_of_the_iteration_matters_only_by_rounding():
    plain = train_ppmi(TEXT, dim=6).vectors
    for seed in (0, 1):
        other = train_ppmi(TEXT, dim=6, rng=np.random.default_rng(seed)).vectors
        np.testing.assert_allclose(other, plain, atol=1e-5)
    assert (train_ppmi(TEXT, dim=6).vectors == plain).all()


def test_the_largest_entry_of_each_direction_is_positive():
    vectors = train_ppmi(TEXT, dim=6).vectors
    assert (vectors[np.abs(vectors).argmax(0), np.arange(6)] > 0).all()


def test_words_of_one_subject_come_near_each_other():
    table = train_ppmi(TEXT, dim=6, power=0.5)
    rows = table.vectors[[table.vocabulary.index(w) for w in THINGS]]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows.T
    same = np.kron(np.eye(3), np.ones((3, 3))) == 1
    assert cosines[same].min() > cosines[~same].max()


def test_rare_words_are_left_out_and_frequent_ones_come_first():
    table = train_ppmi([*TEXT, "file zebra"], dim=4, min_count=5)
    counts = [sum(words(s).count(w) for s in TEXT) for w in table.vocabulary]
    assert "zebra" not in table.vocabulary
    assert all(a >= b - 1 for a, b in pairwise(counts))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"dim": 0}, ValueError, "`dim` must be at least 1, got 0"),
        ({"dim": 14}, ValueError, "`dim` must be less than the 14 words left, got 14"),
        ({"dim": 2.5}, TypeError, "`dim` must be a whole number"),
        ({"window": 0}, ValueError, "`window` must be at least 1"),
        ({"smoothing": 0.0}, ValueError, r"`smoothing` must lie in \(0, 1\], got 0"),
        ({"smoothing": 1.5}, ValueError, r"`smoothing` must lie in \[0, 1\], got 1.5"),
        ({"min_count": 0}, ValueError, "`min_count` must be at least 1"),
        ({"min_count": 10**6}, ValueError, "`min_count` 1000000 leaves no word of 14"),
        ({"power": math.nan}, ValueError, "`power` must be finite"),
        ({"rng": 0}, TypeError, "`rng` must be a numpy.random.Generator"),
        ({"sentences": "file path"}, TypeError, "`sentences` must be a sequence of strings"),
        ({"sentences": []}, ValueError, "`sentences` must hold at least one sentence"),
    ],
)
def test_bad_input_is_an_error_that_names_it(change, error, message):
    with pytest.raises(error, match=message):
        train_ppmi(**{"sentences": TEXT, "dim": 4, **change})


def test_more_directions_than_the_matrix_has_are_an_error():
    pair = ["alpha beta"] * 5 + ["gamma"] * 5 + ["delta"] * 5
    with pytest.raises(ValueError, match="`dim` must be at most 2, the rank of the matrix, got 3"):
        train_ppmi(pair, dim=3)
