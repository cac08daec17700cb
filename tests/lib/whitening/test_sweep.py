"""`whitening_sweep` against one `Whitening` and SciPy's Spearman for each cell."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from lib.whitening import Setting, Sweep, Whitening, cosine_pairs, whitening_sweep

BETAS, GAMMAS, DIMS = [0.0, 0.5, 1.0], [-0.5, 0.0, 0.5, 1.0], [2, 5, 8]
GRID = {"betas": BETAS, "gammas": GAMMAS, "dims": DIMS}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def task(n: int = 60, m: int = 90, d: int = 8, seed: int = 0):
    g = rng(seed)
    x = g.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.7 + 0.8
    first, onward = g.integers(n, size=m), g.integers(1, n, size=m)
    # no row with itself: two cosines of 1 are a tie or not, as rounding has it
    pairs = np.stack([first, (first + onward) % n], axis=1)
    return x, pairs, np.round(cosine_pairs(x - 0.5, pairs) + g.normal(size=m), 1)  # with ties


# --- cosine ---------------------------------------------------------------------------------------


def test_cosine_of_pairs():
    x = [[3.0, 0.0], [0.0, 2.0], [5.0, 5.0]]
    got = cosine_pairs(x, [[0, 0], [0, 1], [0, 2], [2, 1]])
    np.testing.assert_allclose(got, [1.0, 0.0, 0.5**0.5, 0.5**0.5], atol=1e-15)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_cosine_of_extreme_lengths(size):
    np.testing.assert_allclose(cosine_pairs([[size, 0], [size, size]], [[0, 1]]), 0.5**0.5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8])
def test_cosine_of_other_dtypes(dtype):
    x = (task()[0] * 9).astype(dtype)
    pairs = task()[1]
    np.testing.assert_array_equal(cosine_pairs(x, pairs), cosine_pairs(x.astype(np.float64), pairs))


def test_cosine_of_a_tensor():
    x, pairs, _ = task()
    tensor = torch.tensor(x, requires_grad=True)
    np.testing.assert_array_equal(cosine_pairs(tensor, pairs), cosine_pairs(x, pairs))


def test_rows_of_zeros_have_no_cosine():
    x = np.ones((9, 2))
    x[[2, 4, 7]] = 0.0
    with pytest.raises(ValueError, match=r"zeros has no cosine; got one in row 2, 7$"):
        cosine_pairs(x, [[2, 0], [7, 2], [1, 1]])
    assert cosine_pairs(x, [[0, 1]]) == pytest.approx(1.0)  # no pair holds the row of zeros


@pytest.mark.parametrize(
    ("x", "pairs", "error", "message"),
    [
        ([[1.0, np.nan]], [[0, 0]], ValueError, r"`x` must be finite, got nan in row 0, column 1"),
        ([1.0, 2.0], [[0, 0]], ValueError, r"`x` must have shape \(n, d\)"),
        (np.empty((0, 2)), [[0, 0]], ValueError, r"`x` .*not be empty"),
        ([["a", "b"]], [[0, 0]], TypeError, r"`x` must hold real numbers"),
        ([[1.0], [1.0, 2.0]], [[0, 0]], ValueError, r"`x` must be a rectangular array"),
        ([[1.0, 2.0]], [[0, 1]], ValueError, r"`pairs` .*from 0 to 0, got 1 in pair 0"),
        ([[1.0, 2.0]], [[0, 0], [0, -1]], ValueError, r"`pairs` .*got -1 in pair 1"),
        ([[1.0, 2.0]], [0, 0], ValueError, r"`pairs` must have shape \(m, 2\)"),
        ([[1.0, 2.0]], np.empty((0, 2), int), ValueError, r"`pairs` .*not be empty"),
        ([[1.0, 2.0]], [[0.0, 0.0]], TypeError, r"`pairs` must hold whole numbers"),
        ([[1.0, 2.0]], [[0], [0, 0]], ValueError, r"`pairs` must be a rectangular array"),
    ],
)
def test_bad_input_for_cosine(x, pairs, error, message):
    with pytest.raises(error, match=message):
        cosine_pairs(x, pairs)


# --- sweep ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["central", "shifted"])
@pytest.mark.parametrize("block", [2**19, 1])
def test_sweep_is_one_fit_for_each_cell(moment, block, monkeypatch):
    monkeypatch.setattr("lib.whitening._arrays.BLOCK", block)
    x, pairs, scores = task(n=600, m=700)
    got = whitening_sweep(x, pairs, scores, **GRID, rng=rng(), resamples=0, moment=moment)
    assert got.spearman.shape == got.low.shape == got.high.shape == (3, 4, 3)
    for (b, beta), (g, gamma), (k, dim) in itertools.product(*map(enumerate, GRID.values())):
        y = Whitening(dim, beta=beta, gamma=gamma, moment=moment).fit_transform(x)
        expected = spearmanr(cosine_pairs(y, pairs), scores).statistic
        assert got.spearman[b, g, k] == pytest.approx(expected, abs=1e-9)
    assert got.raw.spearman == pytest.approx(spearmanr(cosine_pairs(x, pairs), scores).statistic)
    assert np.isnan(got.low).all()


def test_raw_is_the_corner_of_the_grid():
    got = whitening_sweep(*task(), betas=[0], gammas=[0], dims=[8], rng=rng(), resamples=50)
    cell = got.best()
    assert (cell.beta, cell.gamma, cell.dim) == (got.raw.beta, got.raw.gamma, got.raw.dim)
    for name in ("spearman", "low", "high"):
        assert getattr(cell, name) == pytest.approx(getattr(got.raw, name), abs=1e-12)


def test_bootstrap_ranks_anew_in_each_resample(monkeypatch):
    monkeypatch.setattr("lib.whitening.sweep.RESAMPLED", 500)  # several groups of resamples
    x, pairs, scores = task()
    got = whitening_sweep(x, pairs, scores, **GRID, rng=rng(3), resamples=40, level=0.8)
    cosines = cosine_pairs(Whitening(5, beta=0.5, gamma=0.5).fit_transform(x), pairs)
    g = rng(3)
    drawn = [g.integers(len(pairs), size=len(pairs)) for _ in range(40)]
    values = [spearmanr(cosines[i], scores[i]).statistic for i in drawn]
    np.testing.assert_allclose(got.low[1, 2, 1], np.quantile(values, 0.1), atol=1e-9)
    np.testing.assert_allclose(got.high[1, 2, 1], np.quantile(values, 0.9), atol=1e-9)


def test_bootstrap_is_fixed_by_its_generator():
    first, again, other = (
        whitening_sweep(*task(), **GRID, rng=rng(seed), resamples=30) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.low, again.low)
    np.testing.assert_array_equal(first.spearman, other.spearman)
    assert (first.low != other.low).all()
    assert (first.low <= first.high).all()


def test_equal_cosines_count_as_ties_in_one_dimension():
    x, pairs, scores = task()
    got = whitening_sweep(x, pairs, scores, betas=[1], gammas=[0, 1], dims=[1], rng=rng())
    signs = np.sign(cosine_pairs(Whitening(1).fit_transform(x), pairs))
    assert got.spearman == pytest.approx(spearmanr(signs, scores).statistic)


def test_undefined_cells_come_last():
    x, pairs, scores = task()
    x[:, 0] += 50.0  # all cosines are 1 along one positive direction
    x[:, 0] *= np.linspace(1, 2, len(x))
    got = whitening_sweep(x, pairs, scores, betas=[0], gammas=[0], dims=[1, 8], rng=rng())
    assert np.isnan(got.spearman[0, 0, 0])
    assert np.isnan(got.low[0, 0, 0])
    assert got.best().dim == 8
    assert [s.dim for s in got.settings()] == [8, 1]


def test_best_and_order():
    got = whitening_sweep(*task(), **GRID, rng=rng(), resamples=20)
    values = [s.spearman for s in got.settings()]
    assert values == sorted(values, reverse=True)
    assert got.settings()[0] == got.best()
    assert got.best().spearman == got.spearman.max()
    with pytest.raises(dataclasses.FrozenInstanceError):
        got.betas = np.zeros(1)


def test_best_of_nothing():
    nothing = np.full((1, 1, 1), np.nan)
    raw = Setting(0.0, 0.0, 1, 0.1, 0.0, 0.2)
    sweep = Sweep(np.zeros(1), np.zeros(1), np.ones(1, int), nothing, nothing, nothing, raw)
    with pytest.raises(ValueError, match="NaN in every cell"):
        sweep.best()


def test_a_common_factor_changes_nothing():
    x, pairs, scores = task()
    plain = whitening_sweep(x, pairs, scores, **GRID, rng=rng(), resamples=5)
    for factor in (1e-60, 1e60):
        scaled = whitening_sweep(x * factor, pairs, scores, **GRID, rng=rng(), resamples=5)
        np.testing.assert_allclose(scaled.spearman, plain.spearman, atol=1e-12)


def test_whitening_finds_what_a_common_mean_hides():
    g = rng()
    n, d = 3000, 16
    similarity = g.uniform(size=n)
    first = g.normal(size=(n, d))
    second = similarity[:, None] * first
    second += np.sqrt(1 - similarity**2)[:, None] * g.normal(size=(n, d))
    x = np.concatenate([first, second]) * np.arange(1, d + 1) ** -1.5 + 2.0
    pairs = np.column_stack([np.arange(n), np.arange(n) + n])
    got = whitening_sweep(
        x, pairs, similarity, betas=[0, 1], gammas=[0, 1], dims=[d], rng=rng(), resamples=50
    )
    assert (got.best().beta, got.best().gamma) == (1.0, 1.0)
    assert got.best().low > got.raw.high


def test_vectors_that_vanish_are_named():
    x, pairs, scores = task()
    pairs[:3] = [[4, 9], [11, 1], [9, 2]]
    x[[9, 11]] = 0.0
    with pytest.raises(ValueError, match=r"zeros has no cosine; got one in row 9, 11"):
        whitening_sweep(x, pairs, scores, **GRID, rng=rng())
    # the mean itself, zero after the shift but for rounding
    x, pairs, scores = task()
    pairs[0] = [4, 7]
    x[7] = np.delete(x, 7, axis=0).mean(axis=0)
    grid = {**GRID, "betas": [0.0, 1.0]}
    with pytest.raises(ValueError, match=r"beta=1, gamma=-0.5, dim=2 `vectors` .*in row 7"):
        whitening_sweep(x, pairs, scores, **grid, rng=rng())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"vectors": np.full((60, 8), np.nan)}, ValueError, r"`vectors` must be finite, .*row 0"),
        ({"vectors": np.ones(8)}, ValueError, r"`vectors` must have shape"),
        ({"vectors": np.ones((60, 8)), "gammas": [1]}, ValueError, r"`dims` .*at most 0, the rank"),
        ({"pairs": np.full((90, 2), 60)}, ValueError, r"`pairs` .*from 0 to 59, got 60"),
        ({"pairs": [[0, 1], [1, 2]], "scores": [0, 1]}, ValueError, r"`pairs` .*at least 3"),
        ({"scores": np.ones(89)}, ValueError, r"`scores` must hold 90 numbers, got 89"),
        ({"scores": np.ones(90)}, ValueError, r"`scores` must not all be equal, got 1"),
        ({"scores": np.full(90, np.nan)}, ValueError, r"`scores` must be finite"),
        ({"betas": []}, ValueError, r"`betas` must be one row"),
        ({"betas": [np.inf]}, ValueError, r"`betas` must be finite"),
        ({"gammas": 1.0}, ValueError, r"`gammas` must be one row"),
        ({"gammas": ["a"]}, TypeError, r"`gammas` must hold real numbers"),
        ({"gammas": [1e6]}, ValueError, r"`gammas` must leave finite scales"),
        ({"dims": []}, ValueError, r"`dims` must be one row"),
        ({"dims": [0]}, ValueError, r"`dims` must be from 1 to 8, got 0"),
        ({"dims": [9]}, ValueError, r"`dims` must be from 1 to 8, got 9"),
        ({"dims": [2.5]}, TypeError, r"`dims` must be a whole number"),
        ({"rng": 0}, TypeError, r"`rng` must be a numpy.random.Generator"),
        ({"resamples": -1}, ValueError, r"`resamples` must be at least 0"),
        ({"level": 1.0}, ValueError, r"`level` must lie strictly between"),
        ({"eps": 1.0}, ValueError, r"`eps` must be less than 1"),
        ({"moment": "x"}, ValueError, r"`moment` must be one of"),
    ],
)
def test_bad_input_for_the_sweep(change, error, message):
    x, pairs, scores = task()
    given = {"vectors": x, "pairs": pairs, "scores": scores, **GRID, "rng": rng(), **change}
    with pytest.raises(error, match=message):
        whitening_sweep(**given)


def test_dims_beyond_the_rank():
    x, pairs, scores = task()
    x[:, 7] = 3.0
    with pytest.raises(ValueError, match=r"`dims` must be at most 7, the rank .*got 8"):
        whitening_sweep(x, pairs, scores, **GRID, rng=rng())
    fine = {**GRID, "gammas": [-1.0, 0.0]}
    assert np.isfinite(whitening_sweep(x, pairs, scores, **fine, rng=rng()).spearman).all()
