"""lib.divergence beside its formulas written down in torch: what do tables of spans cost?

`multilabel_cross_entropy` and `globalpointer_divergence` on tables of scores for all spans of
sentences, against the same formulas in a few lines: values and gradients, time forward and with
gradients, memory beyond the inputs. By default 4 sentences of 128 and of 512 tokens and 10
kinds, where one table takes 2.5 and 40 MiB; 16 sentences take four times as long and 2.1 GiB.

    python benchmarks/spans.py
    python benchmarks/spans.py --batch 16
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import torch
from _measure import peak_bytes, ratio, table
from torch import Tensor

from lib.divergence import globalpointer_divergence, multilabel_cross_entropy
from lib.spans import span_mask

MASKS = ("no mask", "spans of sentences")


class Tables(NamedTuple):
    """Two passes' scores, the labels, and which cells are spans."""

    s: Tensor
    t: Tensor
    labels: Tensor
    mask: Tensor


class Pair(NamedTuple):
    """Ours and theirs: the same function of the same tensors."""

    ours: Callable[[], Tensor]
    theirs: Callable[[], Tensor]
    inputs: tuple[Tensor, ...]


def inputs(batch: int, kinds: int, n: int) -> Tables:
    """Scores of two passes, about four labels a sentence, lengths from n / 2 to n."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, kinds, n, n)
    s = torch.randn(shape, generator=generator).mul_(2).sub_(3)
    t = torch.randn(shape, generator=generator).mul_(0.5).add_(s)
    mask = span_mask(torch.randint(n // 2, n + 1, (batch,), generator=generator), n)
    labels = (torch.rand(shape, generator=generator) < 8 / (kinds * n * n)) & mask
    return Tables(s.requires_grad_(), t.requires_grad_(), labels, mask)


# --- the formulas as they stand -------------------------------------------------------------------


def plain_divergence(s: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
    cells = (torch.sigmoid(s) - torch.sigmoid(t)) * (s - t)
    return (cells if mask is None else cells * mask).sum((-2, -1))


def plain_cross_entropy(scores: Tensor, labels: Tensor, mask: Tensor | None) -> Tensor:
    """Each log(1 + Σ e^x) as the logarithm of a sum of exponentials with a zero put in front."""
    outside = torch.finfo(scores.dtype).min
    negatives = ~labels if mask is None else ~labels & mask
    parts = (
        torch.where(negatives, scores, outside).flatten(-2),
        torch.where(labels, -scores, outside).flatten(-2),
    )
    zero = scores.new_zeros(*scores.shape[:-2], 1)
    return sum(torch.cat([zero, part], -1).logsumexp(-1) for part in parts)


def pairs(x: Tables) -> dict[tuple[str, str], Pair]:
    found = {}
    for name, mask in zip(MASKS, (None, x.mask), strict=True):
        found["multilabel_cross_entropy", name] = Pair(
            lambda m=mask: multilabel_cross_entropy(x.s, x.labels, m),
            lambda m=mask: plain_cross_entropy(x.s, x.labels, m),
            (x.s,),
        )
        found["globalpointer_divergence", name] = Pair(
            lambda m=mask: globalpointer_divergence(x.s, x.t, m),
            lambda m=mask: plain_divergence(x.s, x.t, m),
            (x.s, x.t),
        )
    return found


# --- the tables -----------------------------------------------------------------------------------


def without_gradients(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    return torch.no_grad()(function)


def with_gradients(
    function: Callable[[], Tensor], wanted: tuple[Tensor, ...]
) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: torch.autograd.grad(function().mean(), wanted)


def values(x: Tables) -> None:
    rows = []
    for (name, mask), pair in pairs(x).items():
        with torch.no_grad():
            a, b = pair.ours(), pair.theirs()
        gap = float(((a - b) / b.abs().clamp(min=1e-6)).abs().max())
        slope = 0.0
        mine, others = (with_gradients(f, pair.inputs)() for f in pair[:2])
        for g, h in zip(mine, others, strict=True):
            slope = max(slope, float((g - h).abs().max() / h.abs().max()))
        rows.append([name, mask, f"{gap:.0e}", f"{slope:.0e}"])
    table(
        "Largest difference: relative, and of gradients relative to the largest one",
        ["function", "mask", "value", "gradient"],
        rows,
    )


def times(x: Tables) -> None:
    rows = []
    for (name, mask), pair in pairs(x).items():
        forward = ratio(*map(without_gradients, pair[:2]), 1.0)
        both = ratio(*(with_gradients(f, pair.inputs) for f in pair[:2]), 1.0)
        milliseconds = f"{1e3 * both.theirs:.1f}"
        rows.append([name, mask, forward, forward.verdict, both, both.verdict, milliseconds])
    table(
        "Time over that of the plain formula",
        ["function", "mask", "forward", "", "with gradients", "", "plain ms"],
        rows,
    )


def memory(x: Tables) -> None:
    rows = []
    for (name, mask), pair in pairs(x).items():
        peaks = [peak_bytes(with_gradients(f, pair.inputs)) / x.s.nbytes for f in pair[:2]]
        rows.append([name, mask, *(f"{peak:.2f}" for peak in peaks), len(pair.inputs)])
    table(
        f"Peak memory with gradients, in tables of scores ({x.s.nbytes / 2**20:.1f} MiB each)",
        ["function", "mask", "ours", "plain", "of which the gradients"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=4, help="sentences")
    parser.add_argument("--kinds", type=int, default=10, help="kinds of span")
    parser.add_argument(
        "--tokens", type=int, nargs="+", default=[128, 512], help="tokens of a sentence"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("1 thread, float32. Ratios of times are medians of alternating rounds with a 95 %")
    print("interval; below 1, ours is faster.")
    for n in given.tokens:
        x = inputs(given.batch, given.kinds, n)
        print(f"\n{given.batch} sentences of {n} tokens, {given.kinds} kinds")
        values(x)
        memory(x)
        times(x)


if __name__ == "__main__":
    main()
