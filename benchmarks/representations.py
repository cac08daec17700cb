"""lib.hubness and lib.whitening beside scikit-learn, and beside bare matrix products.

1. Whitening of a stream: seconds, throughput and memory of `partial_fit`.
2. k_occurrence against scikit-learn's brute force: equal counts, time; and against the bare blocked
   matrix product with a selection of k, which no exact search can do without.
3. k_occurrence where points coincide.
4. Memory of k_occurrence beside a matrix of all pairs.
5. Whitening.fit against PCA(whiten=True), and against a bare covariance with its eigenvectors.
6. whitening_sweep against a fit for every cell of its grid.

    python benchmarks/representations.py
    python benchmarks/representations.py --million   # only 1, with a million vectors
"""

from __future__ import annotations

import resource
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _measure import ratio, table
from numpy.typing import DTypeLike, NDArray
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from lib.hubness import k_occurrence
from lib.whitening import Whitening, cosine_pairs, whitening_sweep

Array = NDArray[Any]
K = 10
WIDTH = 768
BATCH = 10_000
MB = 2**20
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of beta and of gamma


def cloud(n: int, d: int, dtype: DTypeLike, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(dtype)


def embeddings(n: int, d: int, dtype: DTypeLike) -> Array:
    """Correlated features: eigenvalues from 1 to 1e-6, and a mean."""
    turn = np.linalg.qr(cloud(d, d, np.float64, 1))[0]
    return (cloud(n, d, np.float64) * np.logspace(0, -3, d) @ turn + 0.1).astype(dtype)


def traced_peak(function: Callable[[], object]) -> float:
    """Bytes that the call allocates at most; NumPy reports to tracemalloc."""
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def stream(n: int) -> None:
    rng, model, spent = np.random.default_rng(0), Whitening(), 0.0
    tracemalloc.start()
    for _ in range(n // BATCH):
        x = rng.standard_normal((BATCH, WIDTH), dtype=np.float32)
        start = time.perf_counter()
        model.partial_fit(x)
        spent += time.perf_counter() - start
    start = time.perf_counter()
    assert len(model.components_) == WIDTH
    spectrum = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sizes = (f"{b / MB:,.0f}" for b in (x.nbytes, peak, process, 4 * n * WIDTH))
    table(
        f"A stream of float32 vectors of {WIDTH} numbers in batches of {BATCH:,}. Memory in MB:\n"
        "peak by tracemalloc, one batch included; peak of the process, libraries included",
        ["vectors", "s", "per s", "spectrum s", "batch", "peak", "process", "all at once"],
        [[f"{n:,}", f"{spent:.1f}", f"{n / spent:,.0f}", f"{spectrum:.2f}", *sizes]],
    )


def peer(x: Array, queries: Array | None) -> Array:
    """Counts by scikit-learn, without queries of each point among the others."""
    search = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(x)
    found = search.kneighbors(queries, return_distance=False)
    return np.bincount(found.ravel(), minlength=len(x))


def bare(x: Array, queries: Array) -> Array:
    """Blocks of half a squared distance, and the least k of each row; rounding is ignored."""
    n = len(x)
    half, counts = (x * x).sum(axis=1) / 2, np.zeros(n, int)
    step = max(160, 2**23 // (n * x.itemsize))  # as many as ours takes
    buffer = np.empty((step, n), x.dtype)
    for start in range(0, len(queries), step):
        part = queries[start : start + step]
        scores = np.matmul(part, x.T, out=buffer[: len(part)])
        np.subtract(half, scores, out=scores)
        found = torch.topk(torch.from_numpy(scores), K, largest=False, sorted=False).indices
        counts += np.bincount(found.numpy().ravel(), minlength=n)
    return counts


def counts() -> None:
    rows = []
    for n, d, dtype, m in (
        (10_000, 50, np.float32, None),
        (10_000, 50, np.float64, None),
        (10_000, 300, np.float32, 2_500),
        (10_000, 300, np.float64, 2_500),
        (10_000, 768, np.float32, 2_500),
        (10_000, 768, np.float64, 2_500),
        (50_000, 50, np.float32, 1_000),
        (50_000, 300, np.float32, 1_000),
        (50_000, 768, np.float32, 1_000),
    ):
        x = cloud(n, d, dtype)
        queries = None if m is None else cloud(m, d, dtype, 2)

        def ours(x: Array = x, queries: Array | None = queries) -> Array:
            return k_occurrence(x, K, Y=queries)

        def theirs(x: Array = x, queries: Array | None = queries) -> Array:
            return peer(x, queries)

        def least(x: Array = x, queries: Array | None = queries) -> Array:
            return bare(x, x if queries is None else queries)

        same = "equal" if (ours() == theirs()).all() else "DIFFERENT"
        got, alone = ratio(ours, theirs, 1.5, least=3), ratio(ours, least, 1.5, least=3)
        kind, asked = np.dtype(dtype).name, "all" if m is None else f"{m:,}"
        ms = f"{1e3 * got.theirs:.0f}"
        rows.append([f"{n:,}", d, kind, asked, same, got, got.verdict, alone, ms])
    table(
        f"Time of k_occurrence, k = {K}, over scikit-learn's brute force, and over bare products\n"
        "with a selection; by some queries where all would take long",
        ["n", "d", "", "queries", "counts", "ratio", "", "over bare", "scikit-learn ms"],
        rows,
    )


def coinciding() -> None:
    rng, rows = np.random.default_rng(0), []
    half = cloud(10_000, 50, np.float64)
    half[:5_000] = half[0]
    whole = rng.integers(0, 2, (10_000, 50)).astype(np.float64)
    close = np.repeat(half[5_000:5_100], 100, axis=0) + 1e-4 * cloud(10_000, 50, np.float64, 3)
    for name, x in (
        ("half of the points equal", half),
        ("only zeros and ones", whole),
        ("100 clusters, 1/10,000 wide", close),
    ):
        got = ratio(lambda x=x: k_occurrence(x, K), lambda x=x: peer(x, None), 1.5, least=3)
        rows.append([name, got, got.verdict, f"{1e3 * got.theirs:.0f}"])
    table(
        "Time of k_occurrence over scikit-learn's brute force, which breaks ties by chance:\n"
        "10,000 points, d = 50, float64",
        ["points", "ratio", "", "scikit-learn ms"],
        rows,
    )


def memory() -> None:
    rows = []
    for n, d, dtype in (
        (10_000, 300, np.float32),
        (10_000, 300, np.float64),
        (50_000, 50, np.float32),
        (50_000, 768, np.float32),
    ):
        x, queries = cloud(n, d, dtype), cloud(300, d, dtype, 2)
        peak = traced_peak(lambda x=x, queries=queries: k_occurrence(x, K, Y=queries))
        square = n * n * x.itemsize
        sizes = (f"{b / MB:,.0f}" for b in (x.nbytes, peak, square))
        rows.append([f"{n:,}", d, x.dtype.name, *sizes, f"{100 * peak / square:.1f} %"])
    table(
        "Memory of k_occurrence beyond its input, peak by tracemalloc, MB\n"
        "(by 300 queries: more of them add 32 bytes each)",
        ["n", "d", "", "the points", "peak", "n × n numbers", "share"],
        rows,
    )


def bare_spectrum(x: Array) -> tuple[Array, Array]:
    away = x - x.mean(axis=0)
    return np.linalg.eigh(away.T @ away / len(x))


def fits() -> None:
    rows = []
    for d in (128, WIDTH):
        for dtype in (np.float32, np.float64):
            x = embeddings(10_000, d, dtype)

            def ours(x: Array = x) -> Whitening:
                return Whitening().fit(x)

            def theirs(x: Array = x) -> PCA:
                return PCA(whiten=True, svd_solver="covariance_eigh").fit(x)

            exact = bare_spectrum(x.astype(np.float64))[0][::-1]
            errors = (
                f"{np.abs(values / exact - 1).max():.0e}"
                for values in (
                    ours().eigenvalues_,
                    theirs().explained_variance_ * (1 - 1 / len(x)),
                )
            )
            got = ratio(ours, theirs, 1.5, least=5)
            alone = ratio(ours, lambda x=x: bare_spectrum(x), 1.5, least=5)
            double = ratio(ours, lambda x=x: bare_spectrum(x.astype(np.float64)), 1.5, least=5)
            ms = f"{1e3 * got.theirs:.0f}"
            rows.append([d, x.dtype.name, got, got.verdict, alone, double, ms, *errors])
    table(
        "Time of Whitening.fit on 10,000 vectors over PCA(whiten=True), and over a bare\n"
        "covariance and its eigenvectors, in the numbers' own precision and in float64; and the\n"
        "largest relative error of an eigenvalue, of which the least is 1e-6 of the largest",
        ["d", "", "ratio", "", "over bare", "over bare float64", "PCA ms", "error", "of PCA"],
        rows,
    )


def sweeps() -> None:
    rows = []
    for d, dims in ((64, (16, 32, 64)), (256, (64, 128, 256))):
        x = embeddings(2_000, d, np.float32)
        rng = np.random.default_rng(3)
        pairs = rng.integers(len(x), size=(1_000, 2))
        gold = cosine_pairs(x, pairs) + rng.normal(size=1_000)

        def ours(x: Array = x, p: Array = pairs, gold: Array = gold, dims: Any = dims) -> Array:
            source = np.random.default_rng(0)
            grid = {"betas": SHARES, "gammas": SHARES, "dims": dims}
            return whitening_sweep(x, p, gold, **grid, rng=source, resamples=0).spearman

        def cells(x: Array = x, p: Array = pairs, gold: Array = gold, dims: Any = dims) -> Array:
            out = [
                spearmanr(cosine_pairs(Whitening(k, beta=b, gamma=g).fit_transform(x), p), gold)[0]
                for b in SHARES
                for g in SHARES
                for k in dims
            ]
            return np.reshape(out, (len(SHARES), len(SHARES), len(dims)))

        difference = f"{np.abs(ours() - cells()).max():.0e}"
        got = ratio(ours, cells, 1.0, least=3)
        size = len(SHARES) ** 2 * len(dims)
        rows.append([d, size, difference, f"1/{1 / got.median:.0f}", f"{1e3 * got.theirs:.0f}"])
    table(
        "Time of whitening_sweep over a fit and a correlation for each cell:\n"
        "2,000 float32 vectors, 1,000 pairs, no resamples",
        ["d", "cells", "largest difference", "ratio", "cell by cell ms"],
        rows,
    )


def main() -> None:
    torch.set_num_threads(1)
    with threadpool_limits(1):
        if "--million" in sys.argv[1:]:
            stream(1_000_000)
            return
        print(
            "1 thread, Gaussian vectors. Ratios of times are medians of alternating rounds with a"
        )
        print("95 % interval (of three rounds their range); below 1, ours is faster.")
        stream(50_000)
        counts()
        coinciding()
        memory()
        fits()
        sweeps()


if __name__ == "__main__":
    main()
