"""lib.attention beside its peers: is the entropy-invariant scale free?

1. `scaled_dot_product_attention(scale="log_n")` against torch's own function with its fixed scale:
   values (at an equal scale), time forward and with gradients, memory beyond the inputs.
2. The same against its two bare matrix products.
3. `entropy_of_scores` against SciPy's softmax followed by its entropy.
4. `scale_for_entropy` on many rows at once against `brentq` row by row.

    python benchmarks/attention.py
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F
from _measure import peak_bytes, ratio, table
from torch import Tensor

from lib.attention import (
    entropy_invariant_scale,
    entropy_of_scores,
    scale_for_entropy,
    scaled_dot_product_attention,
)

LENGTHS = (128, 256, 512, 1024, 2048, 4096)
HEADS, WIDTH = 4, 64


def inputs(n: int, grad: bool = False, tokens: int = 1) -> list[Tensor]:
    """q, k, v of shape (batch, heads, n, width) in single precision, at least `tokens` in all."""
    generator = torch.Generator().manual_seed(n)
    shape = (max(1, tokens // n), HEADS, n, WIDTH)
    return [torch.randn(shape, generator=generator).requires_grad_(grad) for _ in range(3)]


def with_gradients(attend: Callable[..., Tensor], tensors: list[Tensor]) -> Callable[[], None]:
    weight = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(1))

    def run() -> None:
        torch.autograd.grad((attend(*tensors) * weight).sum(), tensors)

    return run


def log_n_full(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q, k, v, scale="log_n")


def log_n_causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q, k, v, scale="log_n", mask="causal")


def torch_causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


PAIRS = {
    "full": (log_n_full, F.scaled_dot_product_attention),
    "causal": (log_n_causal, torch_causal),
}


def times() -> None:
    rows = []
    for n in LENGTHS:
        plain, tracked = inputs(n, tokens=2048), inputs(n, grad=True, tokens=2048)
        for kind, (ours, theirs) in PAIRS.items():
            forward = ratio(lambda f=ours, x=plain: f(*x), lambda f=theirs, x=plain: f(*x), 0.7)
            both = ratio(with_gradients(ours, tracked), with_gradients(theirs, tracked), 0.7)
            milliseconds = f"{1e3 * forward.theirs:.2f}"
            rows.append([n, kind, forward, forward.verdict, both, both.verdict, milliseconds])
    table(
        'Time of scale="log_n" over time of torch\'s own attention, at least 2048 tokens a call',
        ["n", "mask", "forward", "", "with gradients", "", "torch ms"],
        rows,
    )


def fixed_cost() -> None:
    rows = []
    tiny = [x[:, :1, :2, :4] for x in inputs(16)]
    for kind, (ours, theirs) in PAIRS.items():
        got = ratio(lambda f=ours: f(*tiny), lambda f=theirs: f(*tiny), 0.3, most=4000)
        rows.append([kind, f"{1e6 * got.ours:.0f}", f"{1e6 * got.theirs:.0f}"])
    table("Fixed cost of a call, microseconds (2 keys)", ["mask", "ours", "torch"], rows)


def products() -> None:
    rows = []
    for n in LENGTHS[:-1]:
        q, k, v = inputs(n, tokens=2048)
        bare = ratio(lambda x=(q, k, v): log_n_full(*x), lambda q=q, k=k, v=v: (q @ k.mT) @ v, 0.5)
        rows.append([n, bare])
    table('Time of scale="log_n" over its two bare matrix products', ["n", "ratio"], rows)


def values() -> None:
    rows = []
    for n in LENGTHS[:-1]:
        x = inputs(n, grad=True)
        scale = float(entropy_invariant_scale(n, WIDTH))
        row = (entropy_invariant_scale(np.arange(1, n + 1), WIDTH) * math.sqrt(WIDTH))[:, None]
        factor = torch.as_tensor(row, dtype=torch.float32)

        def reference(q: Tensor, k: Tensor, v: Tensor, scale: float = scale) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v, scale=scale)

        def row_reference(q: Tensor, k: Tensor, v: Tensor, factor: Tensor = factor) -> Tensor:
            return torch_causal(q * factor, k, v)

        pairs = ((log_n_full, reference), (log_n_causal, row_reference))
        rows.append([n, *(f"{worst:.1e}" for pair in pairs for worst in differences(*pair, x))])
    table(
        "Largest difference from torch at the same scale (float32)",
        ["n", "full", "its gradients", "causal", "its gradients"],
        rows,
    )


def differences(
    ours: Callable[..., Tensor], theirs: Callable[..., Tensor], x: list[Tensor]
) -> tuple[float, float]:
    a, b = ours(*x), theirs(*x)
    grads = zip(
        torch.autograd.grad(a.square().sum(), x),
        torch.autograd.grad(b.square().sum(), x),
        strict=True,
    )
    return float((a - b).detach().abs().max()), max(float((g - h).abs().max()) for g, h in grads)


def memory() -> None:
    rows = []
    for n in LENGTHS:
        q, k, v = inputs(n)
        peaks = [peak_bytes(partial(f, q, k, v)) for pair in PAIRS.values() for f in pair]
        rows.append([n, *map(mebibytes, [*peaks, q.nbytes, HEADS * n * n * q.element_size()])])
    table(
        "Peak memory beyond the inputs, MiB (one n × n buffer would be the last column)",
        ["n", "full: ours", "torch", "causal: ours", "torch", "one copy of q", "n × n"],
        rows,
    )


def mebibytes(size: int) -> str:
    return f"{size / 2**20:.2f}"


def entropies() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for shape in ((1000, 64), (200, 1024), (20, 16384)):
        scores = rng.normal(size=shape)

        def scipy_route(scores: np.ndarray = scores) -> np.ndarray:
            return scipy.stats.entropy(scipy.special.softmax(0.7 * scores, axis=-1), axis=-1)

        gap = np.abs(entropy_of_scores(scores, 0.7) - scipy_route()).max()
        measured = ratio(lambda s=scores: entropy_of_scores(s, 0.7), scipy_route, 1.0)
        rows.append([f"{shape[0]} × {shape[1]}", measured, measured.verdict, f"{gap:.0e}"])
    table(
        "Time of entropy_of_scores over SciPy's softmax and entropy",
        ["rows × keys", "ratio", "", "difference"],
        rows,
    )


def solves() -> None:
    rng = np.random.default_rng(1)
    rows = []
    for shape, target in (((300, 64), 1.0), ((100, 1024), 3.0), ((100, 1024), 0.1)):
        scores = rng.normal(size=shape)

        def row_by_row(scores: np.ndarray = scores, target: float = target) -> list[float]:
            return [
                scipy.optimize.brentq(lambda x, r=r: naive_entropy(r, x) - target, 0.0, 1e6)
                for r in scores
            ]

        gap = np.abs(scale_for_entropy(scores, target) / row_by_row() - 1).max()
        measured = ratio(lambda s=scores, t=target: scale_for_entropy(s, t), row_by_row, 1.0)
        size = f"{shape[0]} × {shape[1]}"
        rows.append([size, target, measured, measured.verdict, f"{gap:.0e}"])
    table(
        "Time of scale_for_entropy over brentq row by row",
        ["rows × keys", "entropy", "ratio", "", "relative difference"],
        rows,
    )


def naive_entropy(scores: np.ndarray, scale: float) -> float:
    """The textbook's two lines."""
    z = scale * (scores - scores.max())
    p = np.exp(z)
    total = p.sum()
    return float(np.log(total) - (p @ z) / total)


def main() -> None:
    torch.set_num_threads(1)
    print(f"1 thread, float32, {HEADS} heads of width {WIDTH}. Ratios of times are medians of")
    print("alternating rounds with a 95 % interval; below 1, ours is faster.")
    values()
    memory()
    times()
    fixed_cost()
    products()
    entropies()
    solves()


if __name__ == "__main__":
    main()
