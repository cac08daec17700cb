import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.neighbors import NearestNeighbors

from lib.hubness import _pairs, k_occurrence, neighbours, search, skewness

METRICS = ("euclidean", "cosine", "dot")


def distances(X, Y, metric):
    """All pairs, pair by pair, in float64: (m, n)."""
    X, Y = np.asarray(X, dtype=float), np.asarray(Y, dtype=float)
    if metric == "dot":
        return -(Y[:, None] * X).sum(-1)
    if metric == "cosine":
        X, Y = (a / abs(a).max(1, keepdims=True) for a in (X, Y))
        X, Y = (a / np.sqrt((a * a).sum(1, keepdims=True)) for a in (X, Y))
        return ((Y[:, None] - X) ** 2).sum(-1) / 2
    return np.sqrt(((Y[:, None] - X) ** 2).sum(-1))


def brute(X, k, metric, Y=None):
    D = distances(X, X if Y is None else Y, metric)
    if Y is None:
        np.fill_diagonal(D, np.inf)
    order = np.argsort(D, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(D, order, axis=1)


def counted(indices, n):
    return np.bincount(indices.ravel(), minlength=n)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_brute_force_also_with_ties_and_any_block(data):
    n, d = data.draw(st.integers(2, 60)), data.draw(st.integers(1, 5))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    X = data.draw(arrays(dtype, (n, d), elements=st.integers(-2, 2)))
    metric, k = data.draw(st.sampled_from(METRICS)), data.draw(st.integers(1, n - 1))
    if metric == "cosine":
        X[~X.any(axis=1)] = 1.0
    wanted = brute(X, k, metric)
    for block in (None, data.draw(st.integers(1, n))):
        got = neighbours(X, k, metric=metric, block=block)
        np.testing.assert_array_equal(got.indices, wanted[0])
        np.testing.assert_allclose(got.distances, wanted[1], rtol=1e-12, atol=1e-15)
        counts = k_occurrence(X, k, metric=metric, block=block)
        np.testing.assert_array_equal(counts, counted(wanted[0], n))
        assert counts.sum() == n * k


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 5])
def test_equals_scikit_learn(metric, dtype, k):
    # more than 32 × 4 × (k + 8) points: selection in two rounds
    X = np.random.default_rng(1).normal(size=(1933, 20)).astype(dtype) + dtype(0.5)
    exact = X.astype(np.float64)
    if metric == "dot":  # which scikit-learn lacks
        order = brute(X, k, "dot")[0]
    else:
        peer = NearestNeighbors(n_neighbors=k, algorithm="brute", metric=metric).fit(exact)
        order = peer.kneighbors(return_distance=False)
    np.testing.assert_array_equal(k_occurrence(X, k, metric=metric), counted(order, len(X)))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 7])
def test_other_queries(metric, k):
    rng = np.random.default_rng(2)
    X, Y = rng.normal(size=(80, 6)), rng.normal(size=(30, 6)) + 1
    indices, values = neighbours(X, k, metric=metric, Y=Y, block=7)
    wanted = brute(X, k, metric, Y)
    np.testing.assert_array_equal(indices, wanted[0])
    np.testing.assert_allclose(values, wanted[1], rtol=1e-12)
    counts = k_occurrence(X, k, metric=metric, Y=Y)
    np.testing.assert_array_equal(counts, counted(wanted[0], 80))
    assert counts.sum() == 30 * k


def test_points_as_their_own_queries_count_themselves():
    X = np.random.default_rng(0).normal(size=(50, 4))
    np.testing.assert_array_equal(neighbours(X, 1, Y=X).indices[:, 0], np.arange(50))
    assert k_occurrence(X, 3, Y=X).min() >= 1


def test_frozen_reference_of_scikit_hubness():
    X = np.random.default_rng(0).standard_normal((2000, 100))
    # scikit-hubness 0.30.0a1 counts each point as its own neighbour
    assert skewness(k_occurrence(X, 10, Y=X)) == pytest.approx(9.325874508320952, rel=1e-12)
    assert skewness(k_occurrence(X, 10)) == pytest.approx(8.7517, abs=5e-5)


def test_a_large_mean_does_not_spoil_neighbours():
    X = np.round(np.random.default_rng(3).normal(size=(700, 30)) * 4096) / 4096  # exact when moved
    wanted = k_occurrence(X, 10)
    np.testing.assert_array_equal(k_occurrence(X + 1e6, 10), wanted)
    narrow = (X[:, :5] * 4096 / 64).round()  # whole numbers: exact in float32 too
    moved = (narrow + 1e6).astype(np.float32)
    np.testing.assert_array_equal(k_occurrence(moved, 10), k_occurrence(narrow, 10))


def test_self_is_left_out_among_copies():
    X = np.repeat(np.random.default_rng(4).normal(size=(1, 8)), 40, axis=0)
    got = neighbours(X, 2, block=11)
    assert not (got.indices == np.arange(40)[:, None]).any()
    assert (got.distances == 0).all()
    np.testing.assert_array_equal(got.indices[:3], [[1, 2], [0, 2], [0, 1]])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e300])
def test_no_size_over_or_underflows(metric, size):
    X = np.random.default_rng(5).normal(size=(60, 5))
    if metric != "dot":
        found = neighbours(X * size, 4, metric=metric)
        unit = size if metric == "euclidean" else 1.0
        np.testing.assert_allclose(found.distances / unit, neighbours(X, 4, metric=metric)[1])
    np.testing.assert_array_equal(
        k_occurrence(X * size, 4, metric=metric), k_occurrence(X, 4, metric=metric)
    )


def test_one_far_point_in_float32():
    X = np.random.default_rng(6).normal(size=(500, 10)).astype(np.float32)
    X[17] = 1e8
    np.testing.assert_array_equal(k_occurrence(X, 5), counted(brute(X, 5, "euclidean")[0], 500))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_copies(metric, dtype):
    rng = np.random.default_rng(11)
    X = rng.normal(size=(400, 5)).astype(dtype)
    X[rng.permutation(400)[:300]] = X[rng.integers(0, 3, 300)]
    for Y in (None, X[:50]):
        wanted = brute(X, 4, metric, Y)[0]
        np.testing.assert_array_equal(neighbours(X, 4, metric=metric, Y=Y, block=90)[0], wanted)
        counts = k_occurrence(X, 4, metric=metric, Y=Y)
        np.testing.assert_array_equal(counts, counted(wanted, 400))


def test_copies_beyond_a_list_are_out_of_sight():
    X = np.arange(40.0)[:, None] % 2
    pairs = _pairs.Pairs(X, None, "euclidean")
    pairs.hide_copies(5)
    far = pairs.quick(slice(20, 21))[0] > 1e30
    np.testing.assert_array_equal(far, (np.arange(40) >= 10) | (np.arange(40) == 20))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("width", [1e-3, 1e-5, 1e-7])
def test_clusters_that_float32_cannot_resolve(metric, width):
    rng = np.random.default_rng(12)
    X = np.repeat(rng.normal(size=(6, 8)), 100, axis=0) + width * rng.normal(size=(600, 8))
    if metric == "dot":  # whose values differ by the rounding of their sums alone
        X = np.round(X * 2**24) / 2**24
    wanted = brute(X, 5, metric)[0]
    np.testing.assert_array_equal(neighbours(X, 5, metric=metric, block=70).indices, wanted)
    np.testing.assert_array_equal(k_occurrence(X, 5, metric=metric), counted(wanted, 600))


def test_small_differences_beside_a_large_constant():
    X = np.random.default_rng(13).normal(size=(600, 5))
    wanted = k_occurrence(X, 5)
    for size in (1e-10, 1e-20, 3e-21, 1e-21, 1e-100):  # squares near the least float32, 1e-45
        beside = np.column_stack([X * size, np.ones(600)])
        np.testing.assert_array_equal(k_occurrence(beside, 5), wanted)


def test_queries_far_from_the_points():
    rng = np.random.default_rng(14)
    X, Y = rng.normal(size=(300, 5)), rng.normal(size=(20, 5))
    for far in (1e2, 1e4):
        wanted = brute(X, 5, "euclidean", Y + far)[0]
        np.testing.assert_array_equal(neighbours(X, 5, Y=Y + far).indices, wanted)


def test_float64_is_searched_in_float32_where_that_is_safe():
    X = np.random.default_rng(15).normal(size=(50, 5))
    assert _pairs.Pairs(X, None, "euclidean").dtype == np.float32
    assert _pairs.Pairs(X, None, "euclidean", double=True).dtype == np.float64
    assert _pairs.Pairs(X, X + 1e4, "euclidean").dtype == np.float64


def test_input_of_other_kinds(tmp_path):
    X = np.random.default_rng(7).normal(size=(90, 8)).astype(np.float32)
    wanted = k_occurrence(X, 5)
    np.save(tmp_path / "x.npy", X)
    assert (k_occurrence(np.load(tmp_path / "x.npy", mmap_mode="r"), 5) == wanted).all()
    assert (k_occurrence(np.asfortranarray(X), 5) == wanted).all()
    assert (k_occurrence(np.repeat(X, 2, axis=1)[:, ::2], 5) == wanted).all()
    assert (k_occurrence(X[::-1], 5)[::-1] == wanted).all()
    assert (k_occurrence(X.tolist(), 5) == wanted).all()
    torch = pytest.importorskip("torch")
    assert (k_occurrence(torch.from_numpy(X), 5) == wanted).all()
    assert k_occurrence(np.arange(12).reshape(6, 2), 1).sum() == 6


def test_memory_stays_far_below_all_pairs():
    X = np.random.default_rng(8).normal(size=(6000, 10)).astype(np.float32)
    k_occurrence(X[:50], 5)
    tracemalloc.start()
    k_occurrence(X, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000 * 6000 * 4 / 4


def test_progress_counts_up():
    seen = []
    X = np.random.default_rng(9).normal(size=(10, 2))
    k_occurrence(X, 2, block=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 10), (8, 10), (10, 10)]


def test_smallest_in_two_rounds():
    scores = np.random.default_rng(10).normal(size=(5, 1037)).astype(np.float32)
    got = np.sort(search.smallest(scores, 6), axis=1)
    np.testing.assert_array_equal(got, np.sort(np.argsort(scores, axis=1)[:, :6], axis=1))


@pytest.mark.parametrize("function", [neighbours, k_occurrence])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 6}, ValueError, "`k` must be at most 5, as many as there are, got 6"),
        ({"k": 0}, ValueError, "`k` must be at least 1, got 0"),
        ({"k": 2.0}, TypeError, "`k` must be a whole number"),
        ({"k": 7, "Y": np.ones((2, 2))}, ValueError, "`k` must be at most 6"),
        ({"X": np.ones((1, 2))}, ValueError, "`X` must hold at least 2 points"),
        ({"X": np.ones(5)}, ValueError, r"`X` must have shape \(n, d\).*got shape \(5,\)"),
        ({"X": np.ones((0, 3))}, ValueError, r"`X` must have shape .*got shape \(0, 3\)"),
        ({"X": np.ones((3, 0))}, ValueError, r"`X` must have shape .*got shape \(3, 0\)"),
        ({"X": [[1.0, 2.0], [3.0]]}, ValueError, "`X` must be a rectangular"),
        ({"X": [["a", "b"]]}, TypeError, "`X` must hold real numbers"),
        ({"X": [[1.0], [np.nan]]}, ValueError, "`X` must be finite, got NaN in row 1"),
        ({"X": [[np.inf], [0.0]]}, ValueError, "`X` must be finite, got inf in row 0"),
        ({"Y": [[np.nan, 0.0]]}, ValueError, "`Y` must be finite, got NaN in row 0"),
        ({"Y": np.ones((4, 3))}, ValueError, "`Y` must have 2 numbers a row as `X`, got 3"),
        ({"metric": "l1"}, ValueError, "`metric` must be one of .*got 'l1'"),
        (
            {"metric": "cosine", "X": [[1.0], [0.0]], "k": 1},
            ValueError,
            "`X` must have no zero vectors.*row 1",
        ),
        ({"repair": "magic"}, ValueError, "`repair` must be one of .*got 'magic'"),
        ({"repair_k": 2}, ValueError, "`repair_k` must come with a `repair`, got 2"),
        ({"repair": "csls"}, ValueError, '`metric` must be "cosine" for repair "csls"'),
        ({"block": 0}, ValueError, "`block` must be at least 1, got 0"),
        ({"progress": 1}, TypeError, "`progress` must be a function, got int"),
    ],
)
def test_bad_input(function, change, error, message):
    arguments = {"X": np.arange(12.0).reshape(6, 2), "k": 2} | change
    with pytest.raises(error, match=message):
        function(**arguments)
