"""`Whitening` against scikit-learn, closed forms, and itself in batches."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator

from lib.whitening import Whitening, cosine_pairs


def cloud(n: int = 200, d: int = 6, seed: int = 0, mean: float = 2.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + mean


def up_to_signs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a * np.sign((a * b).sum(axis=0))


@pytest.mark.parametrize(
    "estimator",
    [Whitening(), Whitening(beta=0.5, gamma=0.0, moment="shifted"), Whitening(gamma=-0.5)],
)
def test_scikit_learns_own_checks(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a check that it skips, for want of an array API
        check_estimator(estimator)


# --- closed forms and oracles ---------------------------------------------------------------------


@pytest.mark.parametrize("k", [None, 3])
def test_whitening_is_pca_whiten_but_for_n_over_n_minus_one(k):
    x = cloud()
    ours, theirs = Whitening(k).fit_transform(x), PCA(k, whiten=True).fit_transform(x)
    theirs = theirs * np.sqrt(len(x) / (len(x) - 1))
    np.testing.assert_allclose(up_to_signs(ours, theirs), theirs, atol=1e-10)


def test_full_whitening_has_mean_zero_and_unit_covariance():
    y = Whitening().fit_transform(cloud())
    np.testing.assert_allclose(y.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.cov(y.T, bias=True), np.eye(6), atol=1e-10)


def test_no_shift_and_no_scaling_leaves_cosines_alone():
    x = cloud()
    pairs = np.random.default_rng(1).integers(len(x), size=(50, 2))
    y = Whitening(beta=0.0, gamma=0.0).fit_transform(x)
    np.testing.assert_allclose(cosine_pairs(y, pairs), cosine_pairs(x, pairs), atol=1e-13)
    centred = Whitening(beta=1.0, gamma=0.0).fit_transform(x)
    np.testing.assert_allclose(
        cosine_pairs(centred, pairs), cosine_pairs(x - x.mean(axis=0), pairs), atol=1e-13
    )


def test_corner_of_pca():
    x = cloud()
    theirs = PCA(3).fit_transform(x)
    ours = Whitening(3, gamma=0.0).fit_transform(x)
    np.testing.assert_allclose(up_to_signs(ours, theirs), theirs, atol=1e-10)


def test_corner_of_truncated_svd_with_the_shifted_moment():
    x = cloud()
    theirs = TruncatedSVD(3, algorithm="arpack").fit_transform(x)
    ours = Whitening(3, beta=0.0, gamma=0.0, moment="shifted").fit_transform(x)
    np.testing.assert_allclose(up_to_signs(ours, theirs), theirs, atol=1e-10)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0, 1.5])
@pytest.mark.parametrize("gamma", [-0.5, 0.0, 0.3, 1.0, 2.0])
def test_second_moment_of_the_output(beta, gamma):
    x = cloud()
    shifted = Whitening(beta=beta, gamma=gamma, moment="shifted").fit(x)
    y = shifted.transform(x)
    expected = np.diag(shifted.eigenvalues_ ** (1 - gamma))
    np.testing.assert_allclose(y.T @ y / len(y), expected, atol=1e-9 * expected.max())
    central = Whitening(beta=beta, gamma=gamma).fit(x)
    expected = np.diag(central.eigenvalues_ ** (1 - gamma))
    got = np.cov(central.transform(x).T, bias=True)
    np.testing.assert_allclose(got, expected, atol=1e-9 * expected.max())


def test_shifted_moment_is_covariance_plus_mean():
    x = cloud()
    w = Whitening(beta=0.3, moment="shifted").fit(x)
    away = x - 0.3 * x.mean(axis=0)
    np.testing.assert_allclose(
        w.components_.T * w.eigenvalues_ @ w.components_, away.T @ away / len(x), atol=1e-10
    )


def test_formula_from_the_attributes():
    x = cloud()
    w = Whitening(4, beta=0.3, gamma=0.6).fit(x)
    expected = (x - 0.3 * w.mean_) @ w.components_.T * w.eigenvalues_**-0.3
    np.testing.assert_allclose(w.transform(x), expected, rtol=1e-12)
    np.testing.assert_allclose(
        w.eigenvalues_, np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1][:4], rtol=1e-10
    )
    assert w.n_samples_seen_ == len(x)
    assert list(w.get_feature_names_out()) == [f"whitening{i}" for i in range(4)]


def test_signs_are_fixed():
    w = Whitening().fit(cloud())
    largest = np.abs(w.components_).argmax(axis=1)
    assert (w.components_[np.arange(6), largest] > 0).all()


# --- streaming ------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(1, 79), max_size=8, unique=True).map(sorted),
    mean=st.sampled_from([0.0, -3.0, 1e6]),
)
def test_batches_agree_with_one_fit(seed, cuts, mean):
    x = np.random.default_rng(seed).normal(size=(80, 4)) + mean
    whole = Whitening().fit(x)
    streamed = Whitening()
    for batch in np.split(x, cuts):
        streamed.partial_fit(batch)
    assert streamed.n_samples_seen_ == 80
    np.testing.assert_allclose(streamed.mean_, whole.mean_, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(streamed.eigenvalues_, whole.eigenvalues_, rtol=1e-12)
    exact = x.astype(np.longdouble)
    exact = exact - exact.mean(axis=0)
    second = (exact.T @ exact / 80).astype(float)
    for w in (whole, streamed):
        rebuilt = w.components_.T * w.eigenvalues_ @ w.components_
        np.testing.assert_allclose(rebuilt, second, atol=1e-13)


def test_single_rows_and_many_blocks_agree(monkeypatch):
    x = cloud(700) + 1e6
    whole = Whitening().fit(x)
    rows = Whitening()
    for row in x:
        rows.partial_fit(row[None])
    monkeypatch.setattr("lib.whitening._arrays.BLOCK", 1)
    blocked = Whitening().fit(x)
    for other in (rows, blocked):
        np.testing.assert_allclose(other.eigenvalues_, whole.eigenvalues_, atol=1e-13 * 18)
        np.testing.assert_allclose(other.transform(x), whole.transform(x), atol=1e-7)


def test_fit_forgets_and_rank_is_judged_late():
    x = cloud()
    w = Whitening(4).partial_fit(x[:1]).partial_fit(x[1:3])
    with pytest.raises(ValueError, match=r"`n_components` must be at most 2.*got 4"):
        w.transform(x)
    w.partial_fit(x[3:])
    np.testing.assert_allclose(w.transform(x), Whitening(4).fit_transform(x), atol=1e-9)
    assert w.fit(x[:50]).n_samples_seen_ == 50


# --- inverse --------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["central", "shifted"])
@pytest.mark.parametrize(("beta", "gamma"), [(1, 1), (0, 0), (0.3, 0.7), (1, -0.5), (0, 2)])
def test_inverse_is_exact_in_full_rank(beta, gamma, moment):
    x = cloud()
    w = Whitening(beta=beta, gamma=gamma, moment=moment)
    np.testing.assert_allclose(w.inverse_transform(w.fit_transform(x)), x, atol=1e-9)


@pytest.mark.parametrize("gamma", [-0.5, 0.0, 1.0])
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_inverse_is_exact_where_only_constant_directions_are_lost(beta, gamma):
    x = cloud()
    x = np.column_stack([x, np.full(len(x), 5.0), x[:, 0] - x[:, 1]])
    w = Whitening(beta=beta, gamma=gamma)
    np.testing.assert_allclose(w.inverse_transform(w.fit_transform(x)), x, atol=1e-9)


def test_inverse_of_a_truncation_is_pcas():
    x = cloud()
    pca = PCA(3)
    expected = pca.inverse_transform(pca.fit_transform(x))
    for beta, gamma in ((1.0, 1.0), (0.0, 0.0), (0.5, 1.0)):
        w = Whitening(3, beta=beta, gamma=gamma)
        y = w.fit_transform(x)
        np.testing.assert_allclose(w.inverse_transform(y), expected, atol=1e-10)
        np.testing.assert_allclose(w.transform(w.inverse_transform(y)), y, atol=1e-10)


# --- rank and dtypes ------------------------------------------------------------------------------


def test_fewer_samples_than_dimensions():
    x = cloud(5, 20)
    y = Whitening().fit_transform(x)
    assert y.shape == (5, 4)
    np.testing.assert_allclose(np.cov(y.T, bias=True), np.eye(4), atol=1e-9)
    assert Whitening(gamma=0.0).fit_transform(x).shape == (5, 20)
    with pytest.raises(ValueError, match=r"`n_components` must be at most 4.*got 5"):
        Whitening(5).fit(x)


@pytest.mark.parametrize("mean", [0.0, 1e6])
def test_constant_features_are_dropped(mean):
    x = np.column_stack([cloud(mean=mean), np.full(200, mean + 0.1)])
    assert Whitening().fit(x).components_.shape == (6, 7)
    assert Whitening(gamma=0.0).fit(x).components_.shape == (7, 7)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int16, np.longdouble, bool])
def test_dtypes(dtype):
    x = (cloud() * 4).astype(dtype)
    if dtype is bool:
        x = cloud(mean=0.0) > 0
    expected = Whitening().fit(x.astype(np.float64))
    w = Whitening().fit(x)
    np.testing.assert_allclose(w.eigenvalues_, expected.eigenvalues_, rtol=1e-9)
    y = w.transform(x)
    assert y.dtype == (np.float32 if dtype is np.float32 else np.float64)
    np.testing.assert_allclose(y, expected.transform(x.astype(np.float64)), atol=1e-4)


def test_float32_far_from_zero_keeps_its_digits():
    x = (cloud() + 1e4).astype(np.float32)
    exact = Whitening().fit_transform(x.astype(np.float64))
    np.testing.assert_allclose(Whitening().fit_transform(x), exact, atol=1e-4)


def test_memory_mapped_file(tmp_path):
    np.save(tmp_path / "x.npy", cloud().astype(np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        Whitening().fit_transform(mapped), Whitening().fit_transform(np.array(mapped))
    )


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"n_components": 0}, ValueError, r"`n_components` must be from 1 to 6, got 0"),
        ({"n_components": 7}, ValueError, r"`n_components` must be from 1 to 6, got 7"),
        ({"n_components": 0.9}, TypeError, r"`n_components` must be a whole number"),
        ({"beta": np.nan}, ValueError, r"`beta` must be finite"),
        ({"beta": "1"}, TypeError, r"`beta` must hold real numbers"),
        ({"gamma": np.inf}, ValueError, r"`gamma` must be finite"),
        ({"gamma": [1.0]}, ValueError, r"`gamma` must be a single number"),
        ({"gamma": 1e5}, ValueError, r"`gamma` must leave a finite scale"),
        ({"eps": -1.0}, ValueError, r"`eps` must lie in"),
        ({"eps": 1.0}, ValueError, r"`eps` must be less than 1"),
        ({"moment": "raw"}, ValueError, r"`moment` must be one of"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        Whitening(**parameters).fit(cloud() * 1e-3)


@pytest.mark.parametrize("method", ["fit", "partial_fit", "transform", "inverse_transform"])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.full((3, 6), np.nan), "NaN"),
        (np.full((3, 6), np.inf), "infinity"),
        (np.empty((0, 6)), "minimum of 1 is required"),
        (np.ones(6), "Expected 2D array"),
        (np.ones((3, 6)) * 1j, "[Cc]omplex"),
    ],
)
def test_bad_samples(method, bad, message):
    w = Whitening().fit(cloud())
    with pytest.raises(ValueError, match=message):
        getattr(w, method)(bad)


def test_wrong_widths():
    w = Whitening(3).fit(cloud())
    with pytest.raises(ValueError, match="expecting 6 features"):
        w.transform(np.ones((2, 5)))
    with pytest.raises(ValueError, match="expecting 6 features"):
        w.partial_fit(np.ones((2, 5)))
    with pytest.raises(ValueError, match="`X` must have 3 features"):
        w.inverse_transform(np.ones((2, 6)))


def test_samples_that_do_not_differ():
    with pytest.raises(ValueError, match=r"`X` must hold samples that differ.*n_samples=1"):
        Whitening().fit(np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"`X` must hold samples that differ.*n_samples=9"):
        Whitening().fit(np.full((9, 3), 0.1))


def test_overflow_is_refused():
    with pytest.raises(ValueError, match="overflows"), np.errstate(all="ignore"):
        Whitening().fit(cloud() * 1e200)


def test_not_fitted():
    for call in (
        lambda w: w.transform(cloud()),
        lambda w: w.inverse_transform(cloud()),
        lambda w: w.components_,
        lambda w: w.eigenvalues_,
        lambda w: w.get_feature_names_out(),
    ):
        with pytest.raises(NotFittedError):
            call(clone(Whitening()))
