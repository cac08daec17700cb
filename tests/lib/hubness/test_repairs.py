import numpy as np
import pytest
from scipy.stats import norm

from lib.hubness import csls, k_occurrence, local_scaling, mutual_proximity, neighbours, skewness

FUNCTIONS = {"local_scaling": local_scaling, "mutual_proximity": mutual_proximity, "csls": csls}
KINDS = [
    ("local_scaling", "euclidean"),
    ("local_scaling", "cosine"),
    ("mutual_proximity", "euclidean"),
    ("mutual_proximity", "cosine"),
    ("csls", "cosine"),
]


def dense(X, k, metric, repair, Y=None):
    """The formula on the full matrix of distances, (m, n), NaN from a point to itself."""
    Q = X if Y is None else Y
    if metric == "cosine":
        unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (Q, X)]
        D = 1 - unit[0] @ unit[1].T
    else:
        D = np.sqrt(((Q[:, None] - X) ** 2).sum(-1))
    if Y is None:
        np.fill_diagonal(D, np.nan)
    near, near_x = np.sort(D, axis=1)[:, :k], np.sort(D.T, axis=1)[:, :k]
    if repair == "local_scaling":
        return 1 - np.exp(-(D**2) / (near[:, -1:] * near_x[:, -1]))
    if repair == "csls":
        return (1 - near).mean(1, keepdims=True) + (1 - near_x).mean(1) - 2 * (1 - D)
    one = norm.sf(D, np.nanmean(D, 1, keepdims=True), np.nanstd(D, 1, keepdims=True))
    return 1 - one * norm.sf(D, np.nanmean(D, 0), np.nanstd(D, 0))


def fitted(repair, X, k, **more):
    arguments = (X,) if repair == "mutual_proximity" else (X, k)
    return FUNCTIONS[repair](*arguments, **more)


@pytest.mark.parametrize(("repair", "metric"), KINDS)
@pytest.mark.parametrize("with_queries", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_equals_the_dense_formula(repair, metric, with_queries, dtype):
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(120, 8)) + 0.5).astype(dtype)
    Y = (rng.normal(size=(70, 8)) * 1.5).astype(dtype) if with_queries else None
    k = 6
    exact = None if Y is None else Y.astype(float)
    wanted = dense(X.astype(float), k, metric, repair, exact)
    got = fitted(repair, X, k, metric=metric, Y=Y)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got.rows(0, len(wanted)), wanted, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(got.rows(3, 5), got.rows(0, 6)[3:5])
    order = np.argsort(wanted, axis=1)[:, :k]
    for block in (None, 13):
        found = neighbours(X, k, metric=metric, Y=Y, repair=repair, block=block)
        np.testing.assert_array_equal(found.indices, order)
        np.testing.assert_allclose(
            found.distances, np.take_along_axis(wanted, order, axis=1), rtol=1e-9, atol=1e-12
        )
        counts = k_occurrence(X, k, metric=metric, Y=Y, repair=repair, block=block)
        np.testing.assert_array_equal(counts, np.bincount(order.ravel(), minlength=120))


@pytest.mark.parametrize(("repair", "metric"), KINDS)
def test_many_points_and_copies(repair, metric):
    X = np.random.default_rng(1).normal(size=(900, 5))
    X[300:320] = X[0]  # copies beyond k: scale 0
    got = neighbours(X, 4, metric=metric, repair=repair)
    table = fitted(repair, X, 4, metric=metric)
    for row in (0, 5, 310, 899):
        values = table.rows(row, row + 1)[0]
        np.testing.assert_array_equal(got.distances[row], np.sort(values)[:4])
        assert row not in got.indices[row]
    assert k_occurrence(X, 4, metric=metric, repair=repair, block=101).tolist() == (
        np.bincount(got.indices.ravel(), minlength=900).tolist()
    )


@pytest.mark.parametrize(("repair", "metric"), KINDS)
def test_less_hubness_in_many_dimensions(repair, metric):
    X = np.random.default_rng(2).normal(size=(1000, 100))
    X += 1.0 if metric == "cosine" else 0.0
    before = skewness(k_occurrence(X, 10, metric=metric))
    after = skewness(k_occurrence(X, 10, metric=metric, repair=repair))
    assert before > 2
    assert after < 0.6 * before


def test_statistics_are_in_the_callers_units():
    X = 1000 * np.random.default_rng(3).normal(size=(50, 3))
    sigma = neighbours(X, 4).distances[:, -1]
    np.testing.assert_allclose(local_scaling(X, 4).of_points, sigma, rtol=1e-12)
    D = np.sqrt(((X[:, None] - X) ** 2).sum(-1))
    np.testing.assert_allclose(mutual_proximity(X).of_points[:, 0], D.sum(1) / 49, rtol=1e-9)


def test_scale_of_another_k():
    X = np.random.default_rng(4).normal(size=(200, 20))
    table = local_scaling(X, 7).rows(0, 200)
    order = np.argsort(table, axis=1)[:, :3]
    got = neighbours(X, 3, repair="local_scaling", repair_k=7).indices
    np.testing.assert_array_equal(got, order)


@pytest.mark.parametrize("repair", FUNCTIONS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "dot"}, "`metric` must be .*got 'dot'"),
        ({"X": np.ones((1, 2))}, "`X` must hold at least 2 points"),
        ({"X": [[1.0, 2.0], [np.nan, 0.0]]}, "`X` must be finite, got NaN in row 1"),
        ({"Y": np.ones((2, 3))}, "`Y` must have 2 numbers"),
        ({"block": 0}, "`block` must be at least 1"),
    ],
)
def test_bad_input(repair, change, message):
    X = np.random.default_rng(0).normal(size=(6, 2))
    arguments = {"X": X, "metric": "cosine"} | change
    with pytest.raises(ValueError, match=message):
        fitted(repair, arguments.pop("X"), 1, **arguments)


def test_more_bad_input():
    X = np.random.default_rng(0).normal(size=(6, 2))
    with pytest.raises(ValueError, match="`k` must be at most 5"):
        local_scaling(X, 6)
    with pytest.raises(ValueError, match="`k` must be at most 2"):
        csls(X, 3, Y=X[:2])
    with pytest.raises(ValueError, match="`repair_k` must be at most 5"):
        k_occurrence(X, 2, repair="local_scaling", repair_k=9)
    with pytest.raises(ValueError, match="needs distances that differ"):
        mutual_proximity(np.eye(3))
    with pytest.raises(ValueError, match="`start` must be from 0 to 5, got 6"):
        local_scaling(X, 2).rows(6, 7)
    with pytest.raises(ValueError, match="`stop` must be from 3 to 6, got 2"):
        local_scaling(X, 2).rows(2, 2)
