"""What does a position scheme cost? Each scheme of lib.attention beside attention without one.

1. Time of attention with a scheme over that of plain attention, forward and backward, one thread.
2. Peak memory of the same beyond parameters and inputs, in units of one n × n matrix per head. A
   scheme that made a vector for each pair of places would show a further d of them: 3. shows one.
3. Shaw's terms beside the same terms with a vector gathered for each pair.
4. Time of normalisations over softmax, and of URPE's factor.

Memory is that of torch's allocator, read off its profiler: the greatest running sum of what was
allocated and freed, gradients included.

    python benchmarks/positions.py
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from _measure import peak_bytes, ratio, table
from torch import Tensor, nn

from lib.attention.normalisations import NORMALISATIONS, normalise
from lib.attention.positions import ABSOLUTE, SCHEMES, PositionScheme, Toeplitz, make_scheme

LENGTHS = (128, 512, 2048)
HEADS, D = 1, 64
WIDTH = HEADS * D
BUDGET = {128: 0.4, 512: 0.8, 2048: 2.0}  # seconds per scheme


class Attention(nn.Module):
    """Attention alone: the encoder's, without its projections."""

    def __init__(self, name: str, n: int, rule: str = "softmax", urpe: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        sizes = {"width": WIDTH, "heads": HEADS, "max_length": n, "causal": False}
        self.scheme: PositionScheme = make_scheme(name, generator=generator, **sizes)
        self.rule = rule
        self.toeplitz = Toeplitz(HEADS, n) if urpe else None

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n = q.shape[-2]
        places = self.scheme.embed(n)
        if places is not None:  # at the input: here to q, k and v
            places = places.unflatten(-1, (HEADS, D)).transpose(0, 1)  # (H, n, d)
            q, k, v = q + places, k + places, v + places
        turned_q, turned_k = self.scheme.rotate(q, k)
        logits = (turned_q / math.sqrt(D)) @ turned_k.mT  # (1, H, n, n)
        extra = self.scheme.logits(q, k)
        weights = normalise(logits if extra is None else logits + extra, self.rule)
        if self.toeplitz is not None:
            weights = weights * self.toeplitz.factor(n)
        extra = self.scheme.values(weights)
        return weights @ v if extra is None else weights @ v + extra


def inputs(n: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(n)
    return [torch.randn(1, HEADS, n, D, generator=generator).requires_grad_(True) for _ in range(3)]


def with_gradients(model: Attention, x: list[Tensor]) -> Callable[[], object]:
    """One pass forward and back; what it returns is kept while memory is read."""
    tracked = [*x, *model.parameters()]
    weight = torch.randn(x[0].shape, generator=torch.Generator().manual_seed(1))

    def run() -> object:
        return torch.autograd.grad((model(*x) * weight).sum(), tracked, allow_unused=True)

    return run


def schemes() -> None:
    times, sizes = [], []
    passes = {}
    for n in LENGTHS:
        x = inputs(n)
        for name in SCHEMES:
            passes[name, n] = with_gradients(Attention(name, n), x)
    for name in SCHEMES:
        row, memory = [name], [name]
        for n in LENGTHS:
            memory.append(f"{peak_bytes(passes[name, n]) / (4 * HEADS * n * n):.2f}")
            if name == "none":
                got = ratio(passes[name, n], passes[name, n], 0.2, least=3)
                row.append(f"{1e3 * got.theirs:.1f} ms")
            else:
                got = ratio(passes[name, n], passes["none", n], BUDGET[n], least=5)
                row.append(str(got))
        times.append([*row, "input" if name in ABSOLUTE else ""])
        sizes.append(memory)
    heads = [f"n = {n}" for n in LENGTHS]
    table(
        "Time of attention with a scheme over attention without, forward and backward",
        ["scheme", *heads, "added to the"],
        times,
    )
    table(
        f"Peak memory of the same, in n × n matrices per head. A vector of d = {D} numbers for\n"
        f"each pair of places would alone be {D} of them",
        ["scheme", *heads],
        sizes,
    )


def rules() -> None:
    n = 512
    x = inputs(n)
    plain = with_gradients(Attention("none", n), x)
    rows = []
    for name in (*NORMALISATIONS[1:], "softmax and URPE"):
        rule, urpe = ("softmax", True) if name.endswith("URPE") else (name, False)
        ours = with_gradients(Attention("none", n, rule, urpe), x)
        got = ratio(ours, plain, 0.8, least=5)
        size = f"{peak_bytes(ours) / (4 * HEADS * n * n):.2f}"
        rows.append([name, got, got.verdict, size])
    table(
        f"Time over softmax and peak memory in n × n matrices per head, no scheme, n = {n}",
        ["normalisation", "ratio", "", "memory"],
        rows,
    )


def pairs() -> None:
    """Shaw's terms as the paper first writes them: r_(j-i) gathered for all pairs, (n, n, d)."""
    rows = []
    for n in (128, 512):
        x = inputs(n)
        model = Attention("shaw_kv", n)
        slow = Attention("shaw_kv", n)
        slow.scheme.logits = partial(gathered_logits, slow.scheme)
        slow.scheme.values = partial(gathered_values, slow.scheme)
        gap = float((model(*x) - slow(*x)).detach().abs().max())
        ours, theirs = with_gradients(model, x), with_gradients(slow, x)
        got = ratio(ours, theirs, 1.0, least=5)
        unit = 4 * HEADS * n * n
        sizes = (f"{peak_bytes(f) / unit:.1f}" for f in (ours, theirs))
        rows.append([n, f"{gap:.0e}", got, *sizes])
    table(
        "Shaw's terms by products with 2n - 1 vectors, over gathering a vector for each pair",
        ["n", "difference", "time", "memory", "gathered: memory"],
        rows,
    )


def gathered(table: Tensor, n: int) -> Tensor:
    place = torch.arange(n)
    return table.mT[place - place[:, None] + table.shape[1] // 2]  # (n, n, d)


def gathered_logits(scheme: nn.Module, q: Tensor, k: Tensor) -> Tensor:
    r = gathered(scheme.keys, q.shape[-2])
    return torch.einsum("bhid,ijd->bhij", q, r) / math.sqrt(D)


def gathered_values(scheme: nn.Module, weights: Tensor) -> Tensor:
    return torch.einsum("bhij,ijd->bhid", weights, gathered(scheme.rows, weights.shape[-1]))


def main() -> None:
    torch.set_num_threads(1)
    print(f"1 thread, float32, batch 1, {HEADS} head of width {D}. Ratios of times are medians of")
    print("alternating rounds with a 95 % interval; below 1, ours is faster.")
    schemes()
    pairs()
    rules()


if __name__ == "__main__":
    main()
