import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from sklearn.utils.estimator_checks import check_estimator

import lib.hubness as hubness
from lib.hubness import (
    Centring,
    Normalise,
    angle_density,
    angle_variance,
    antihub_rate,
    ball_cube_ratio,
    hub_score,
    k_occurrence,
    log_ball_cube_ratio,
    predicted_occurrence,
    robin_hood,
    skewness,
    squared_distance_moments,
)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=50))
def test_skewness_is_scipys(counts):
    got = skewness(counts)
    if len(set(counts)) == 1:
        assert math.isnan(got)
    else:
        assert got == pytest.approx(scipy.stats.skew(counts), rel=1e-9, abs=1e-12)


def test_measures_by_hand():
    counts = [0, 0, 2, 6]
    assert hub_score(counts, 2) == 3.0
    assert antihub_rate(counts) == 0.5
    assert robin_hood(counts) == 0.5
    assert robin_hood([3, 3]) == 0.0


@pytest.mark.parametrize(
    "function", [skewness, antihub_rate, robin_hood, lambda c: hub_score(c, 1)]
)
def test_bad_counts(function):
    for bad in ([], [[1, 2]], [1, -1], [1.0, np.nan]):
        with pytest.raises(ValueError, match="`counts` must"):
            function(bad)
    with pytest.raises(TypeError, match="`counts` must hold real"):
        function(["a"])


def test_more_bad_measures():
    with pytest.raises(ValueError, match="`counts` must not all be 0"):
        robin_hood([0, 0])
    with pytest.raises(ValueError, match="`k` must be at least 1"):
        hub_score([1], 0)


def test_ball_and_cube():
    known = {1: 1.0, 2: math.pi / 4, 3: math.pi / 6, 4: math.pi**2 / 32}
    for d, ratio in known.items():
        assert ball_cube_ratio(d) == pytest.approx(ratio, rel=1e-14)
    for d, log10 in ((5, -0.784), (10, -2.604), (50, -27.81), (100, -69.73)):
        assert log_ball_cube_ratio(d) / math.log(10) == pytest.approx(log10, abs=6e-3)
    for d in (3, 50, 10**6):  # r_d = r_{d-2} π / 2d
        step = log_ball_cube_ratio(d) - (log_ball_cube_ratio(d - 2) if d > 2 else 0)
        assert step == pytest.approx(math.log(math.pi / (2 * d)), abs=1e-8)
    assert ball_cube_ratio(1000) == 0.0


@pytest.mark.parametrize("d", [2, 3, 10, 1000, 10**6])
def test_angles(d):
    width = 12 / math.sqrt(d)
    ends = (max(0.0, math.pi / 2 - width), min(math.pi, math.pi / 2 + width))
    assert quad(lambda t: angle_density(t, d), *ends)[0] == pytest.approx(1.0, abs=1e-7)
    second = quad(lambda t: (t - math.pi / 2) ** 2 * angle_density(t, d), *ends)[0]
    assert second == pytest.approx(angle_variance(d), rel=1e-6)
    assert angle_density([-0.1, 3.2], d).tolist() == [0.0, 0.0]


def test_angles_by_monte_carlo():
    x = np.random.default_rng(0).normal(size=(20_000, 6))
    theta = np.arccos(x[:, 0] / np.linalg.norm(x, axis=1))
    grid = np.linspace(0, np.pi, 400)
    density = angle_density(grid, 6)
    law = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(grid))])
    test = scipy.stats.kstest(theta, lambda t: np.interp(t, grid, law))
    assert test.pvalue > 0.01


def test_moments_by_simulation():
    rng = np.random.default_rng(1)
    x, y = np.zeros(20), rng.normal(size=(100_000, 20))
    x[0] = 5.0
    squares = ((y - x) ** 2).sum(1)
    mean, variance = squared_distance_moments([5.0], 20)
    assert squares.mean() == pytest.approx(mean[0], abs=5 * math.sqrt(variance[0] / 1e5))
    assert squares.var() == pytest.approx(variance[0], rel=0.03)


@pytest.mark.parametrize(("d", "within"), [(20, 0.15), (100, 0.1)])
def test_predicted_occurrence_by_simulation(d, within):
    n, k = 2000, 10
    norms, counts = [], []
    for seed in range(4):
        X = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
        norms.append(np.linalg.norm(X, axis=1))
        counts.append(k_occurrence(X, k))
    norms, counts = np.concatenate(norms), np.concatenate(counts)
    predicted = predicted_occurrence(norms, d, n, k)
    assert predicted.mean() == pytest.approx(k, rel=0.05)
    parts = np.array_split(np.argsort(norms), [80, 800, 2400, 5600])
    for part in parts:
        assert predicted[part].mean() == pytest.approx(counts[part].mean(), rel=within, abs=0.15)


def test_both_predictions_agree_as_the_dimension_grows():
    z = np.linspace(-3, 3, 13)
    errors = []
    for d in (100, 10_000):
        norms = np.sqrt(d + z * math.sqrt(2 * d))
        normal = predicted_occurrence(norms, d, 1000, 10, method="normal")
        integral = predicted_occurrence(norms, d, 1000, 10)
        errors.append(abs(np.log(normal / integral)))
    assert errors[1].max() < errors[0].max() / 4  # as 1 / √d
    assert errors[1][4:9].max() < 0.2  # within a standard deviation, at d = 10,000


def test_the_normal_prediction_adds_up_to_k_on_average():
    def integrand(z):
        norm = math.sqrt(1e4 + z * math.sqrt(2e4))
        density = scipy.stats.norm.pdf(z)
        return density * predicted_occurrence(norm, 10_000, 1000, 10, method="normal")

    assert quad(integrand, -9, 9)[0] == pytest.approx(10, rel=1e-6)


def test_prediction_at_the_centre_is_the_limit():
    near, at = predicted_occurrence([1e-6, 0.0], 10, 1000, 10)
    assert at == pytest.approx(near, rel=1e-3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ball_cube_ratio(0), ValueError, "`d` must be at least 1"),
        (lambda: log_ball_cube_ratio(2.5), TypeError, "`d` must be a whole"),
        (lambda: angle_density(0.1, 1), ValueError, "`d` must be at least 2"),
        (lambda: angle_density(np.nan, 3), ValueError, "`theta` must be finite"),
        (lambda: angle_variance(1), ValueError, "`d` must be at least 2"),
        (lambda: squared_distance_moments(-1.0, 3), ValueError, "`norms` must lie in"),
        (lambda: squared_distance_moments(1.0, 0), ValueError, "`d` must be at least 1"),
        (lambda: predicted_occurrence(-1.0, 3, 9, 2), ValueError, "`norms` must lie in"),
        (lambda: predicted_occurrence(1.0, 1, 9, 2), ValueError, "`d` must be at least 2"),
        (lambda: predicted_occurrence(1.0, 3, 2, 1), ValueError, "`n` must be at least 3"),
        (lambda: predicted_occurrence(1.0, 3, 9, 8), ValueError, "`k` must be from 1 to 7, got 8"),
        (lambda: predicted_occurrence(1.0, 3, 9, 2, method="x"), ValueError, "`method` must be"),
    ],
)
def test_bad_theory(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("transformer", "refused"),
    [
        (Centring(), {}),
        (Normalise(), {"check_estimators_dtypes": "its data hold a zero vector"}),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_transformers_keep_scikit_learns_contract(transformer, refused):
    check_estimator(transformer, expected_failed_checks=refused)


def test_transformers():
    X = np.random.default_rng(0).normal(size=(300, 50)).astype(np.float32) + 2
    moved = Centring().fit_transform(X)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved.mean(0), 0, atol=1e-6)
    unit = Normalise().fit_transform(moved)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)
    tiny = Normalise().fit_transform(np.array([[3e-300, 4e-300]]))
    np.testing.assert_allclose(tiny, [[0.6, 0.8]])
    assert skewness(k_occurrence(moved, 5, metric="cosine")) < skewness(
        k_occurrence(X, 5, metric="cosine")
    )
    with pytest.raises(ValueError, match="no zero vectors, got one in row 1"):
        Normalise().fit_transform(np.array([[1.0, 0.0], [0.0, 0.0]]))


def test_every_name_is_there():
    for name in hubness.__all__:
        assert getattr(hubness, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hubness.nothing  # noqa: B018
