"""What does a training step cost? Ladders beside peft's LoRA and full tuning, on the same trunk.

1. The book's trunk, or an untrained one of its size where the checkpoint is missing.
2. A trunk four times as wide, untrained: more work per call, so less of it is overhead.
3. Where torch finds a graphics card: an untrained BERT of base size on it, with padded windows, in
   single precision and in mixed.

A step is forward pass, backward pass and AdamW, in turn with a step of LoRA and one of full tuning.
Bytes: what the forward pass keeps for the backward pass (hooks on saved tensors), the most that
torch allocates during a step beyond what was there before it (its profiler), and the most that a
fresh process gains during its second step, once the optimiser has its averages. On a card: the most
that its allocator hands out during a step, without and with weights and averages.

    python benchmarks/tuning.py
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from _measure import peak_bytes, ratio, table
from torch import Tensor, nn

from lib.tuning import (
    CHECKPOINT,
    LadderSideNetwork,
    PooledHead,
    Trunk,
    TrunkConfig,
    Tunable,
    activation_memory,
    bitfit,
    body_width,
    count_operations,
    full_tuning,
    load_trunk,
    lora,
    make_body,
    peak_memory,
    trainable,
    trainable_count,
)

CLASSES = 4
BUDGET = 1.5  # seconds for each ratio

Method = tuple[str, dict[str, Any]]

METHODS: dict[str, Method] = {
    "full": ("full", {}),
    "LoRA (peft)": ("lora", {"rank": 8}),
    "BitFit": ("bitfit", {}),
    "ladder": ("ladder", {"reduction": 4}),
    "ladder, 3 rungs": ("ladder", {"reduction": 4, "form": "additive", "rungs": (1, 3, 5)}),
}
STORED = "the same, stored states"

WIDE = TrunkConfig(vocabulary=1500, width=384, heads=6, layers=6, feed_forward=1536)


def trunk_of(config: TrunkConfig | None) -> Trunk:
    """The book's trunk, or an untrained one; of the same numbers whenever it is asked for."""
    if config is None and CHECKPOINT.is_file():
        return load_trunk()
    return Trunk(config or TrunkConfig(vocabulary=1500), torch.Generator().manual_seed(0))


def model_and_loss(
    name: str, config: TrunkConfig | None, batch: int, length: int
) -> tuple[Tunable, Trunk, Callable[[], Tensor]]:
    """A method on a trunk, and its loss on random tokens."""
    trunk, draw = trunk_of(config), torch.Generator().manual_seed(1)
    method, options = METHODS["ladder, 3 rungs" if name == STORED else name]
    body = make_body(method, trunk, draw, **options)
    model = Tunable(body, PooledHead(body_width(body, trunk), CLASSES, draw))
    tokens = torch.randint(trunk.config.vocabulary, (batch, length), generator=draw)
    targets = torch.randint(CLASSES, (batch,), generator=draw)
    if name == STORED:
        states = body.states(tokens)
        return model, trunk, lambda: F.cross_entropy(model.head(body.from_states(states)), targets)
    return model, trunk, lambda: F.cross_entropy(model(tokens), targets)


def step_of(
    name: str, config: TrunkConfig | None, batch: int, length: int, ahead: int = 0
) -> Callable[[], None]:
    """A whole training step, after some that have been taken already."""
    model, _, loss = model_and_loss(name, config, batch, length)
    adam = torch.optim.AdamW(trainable(model), lr=1e-4)

    def run() -> None:
        adam.zero_grad(set_to_none=True)
        loss().backward()
        adam.step()

    for _ in range(ahead):
        run()
    return run


def bytes_of(config: TrunkConfig | None, batch: int, length: int) -> list[list[object]]:
    rows = []
    for name in (*METHODS, STORED):
        model, trunk, loss = model_and_loss(name, config, batch, length)
        kept = activation_memory(loss, (model, trunk))
        work = count_operations(loss)
        allocated = peak_bytes(step_of(name, config, batch, length, ahead=1))
        gained = peak_memory(step_of, name, config, batch, length, ahead=1)
        if name == "full":
            first = kept, work.total
        pairs = zip((kept, work.total), first, strict=True)
        shares = [f"{part / whole:.2f}" for part, whole in pairs]
        memory = [mebibytes(size) for size in (kept, allocated, gained)]
        rows.append([name, trainable_count(model), *shares, *memory])
    return rows


def times(config: TrunkConfig | None, batch: int, length: int) -> list[list[object]]:
    steps = {name: step_of(name, config, batch, length) for name in (*METHODS, STORED)}
    rows = []
    for name, ours in steps.items():
        lora, full = (ratio(ours, steps[peer], BUDGET) for peer in ("LoRA (peft)", "full"))
        milliseconds = f"{1e3 * full.ours:.1f}"
        rows.append([name, lora, lora.verdict, full, full.verdict, milliseconds])
    return [row for row in rows if row[0] != "full"]


# --- on a graphics card ---------------------------------------------------------------------------

Body = Callable[[nn.Module, torch.Generator], nn.Module]

ON_A_CARD: dict[str, Body] = {
    "full": lambda bert, draw: full_tuning(bert),
    "LoRA (peft)": lambda bert, draw: lora(bert, 8, draw),
    "BitFit": lambda bert, draw: bitfit(bert),
    "ladder": lambda bert, draw: beside(bert, draw),
    "ladder, 4 rungs": lambda bert, draw: beside(bert, draw, form="additive", rungs=(2, 5, 8, 11)),
}


def beside(bert: nn.Module, draw: torch.Generator, **options: Any) -> LadderSideNetwork:
    options = {"width": 768, "reduction": 8, "generator": draw} | options
    return LadderSideNetwork(bert, "encoder.layer", **options)


def step_on_a_card(
    name: str, bert: nn.Module, batch: int, length: int, mixed: bool
) -> Callable[[], None]:
    """A whole training step on random words, a quarter of the windows padded by half."""
    draw = torch.Generator().manual_seed(1)
    body = ON_A_CARD[name](bert, draw).train()
    width = body.width if isinstance(body, LadderSideNetwork) else 768
    head = nn.Linear(width, CLASSES).cuda()
    words = torch.randint(1000, 20_000, (batch, length), generator=draw).cuda()
    targets = torch.randint(CLASSES, (batch,), generator=draw).cuda()
    mask = torch.ones_like(words)
    mask[: batch // 4, length // 2 :] = 0
    adam = torch.optim.AdamW([*trainable(body), *head.parameters()], lr=1e-4, fused=True)

    def run() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            found = body(input_ids=words, attention_mask=mask)
            hidden = found if isinstance(found, Tensor) else found.last_hidden_state
            scores = head((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
            loss = F.cross_entropy(scores, targets)
        loss.backward()
        adam.step()
        adam.zero_grad(set_to_none=True)  # at the end: gradients belong to the step
        torch.cuda.synchronize()

    return run


def bytes_on_a_card(step: Callable[[], None], empty: int) -> tuple[int, int]:
    """Most that a step adds to what is there before it, and most in all but `empty`."""
    step()  # Adam's averages are there from now on
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    peak = torch.cuda.max_memory_allocated()
    return peak - before, peak - empty


def on_a_card(batch: int, length: int, mixed: bool) -> list[list[object]]:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)  # transformers draws from the global generator
    bert = BertModel(BertConfig(), add_pooling_layer=False)
    rows = []
    for name in ON_A_CARD:
        empty = torch.cuda.memory_allocated()
        own = copy.deepcopy(bert).cuda()
        step = step_on_a_card(name, own, batch, length, mixed)
        if not name.startswith("ladder"):
            own.cpu()  # the method has a copy of its own
        added, whole = bytes_on_a_card(step, empty)
        full = step_on_a_card("full", copy.deepcopy(bert).cuda(), batch, length, mixed)
        if name == "full":
            first = added, whole
        time = ratio(step, full, BUDGET)
        shares = f"{added / first[0]:.2f}", f"{whole / first[1]:.2f}"
        rows.append([name, mebibytes(added), *shares, time, time.verdict, f"{1e3 * time.ours:.1f}"])
        del step, full, own
        torch.cuda.empty_cache()
    return rows


def mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f}"


def main() -> None:
    torch.set_num_threads(1)
    whose = "the book's trunk" if CHECKPOINT.is_file() else "an untrained trunk of the book's size"
    print("1 thread, float32. Ratios of times are medians of alternating rounds with a 95 %")
    print("interval; below 1, the method of the row is faster. LoRA has rank 8, ladders have a")
    print("quarter of the trunk's width.")
    for title, config, batch, length in ((whose, None, 32, 64), ("a wider trunk", WIDE, 2, 128)):
        found = trunk_of(config).config
        size = f"{found.layers} blocks of width {found.width}, {batch} windows of {length} tokens"
        table(
            f"{title}, {size}: bytes in MiB; kept and operations as shares of full tuning's",
            ["method", "trained", "kept", "operations", "kept, MiB", "torch's peak", "process"],
            bytes_of(config, batch, length),
        )
        table(
            f"{title}: time of a step",
            ["method", "over LoRA", "", "over full tuning", "", "ms"],
            times(config, batch, length),
        )
    if not torch.cuda.is_available():
        print("\nNo graphics card here, so the part on one is left out.")
        return
    for batch, length, mixed in (
        (32, 128, False),
        (32, 128, True),
        (64, 512, False),
        (64, 512, True),
    ):
        precision = "mixed with bfloat16" if mixed else "single precision"
        table(
            f"BERT of base size on {torch.cuda.get_device_name()}, {batch} windows of {length} "
            f"tokens, {precision}; shares of full tuning's",
            ["method", "added, MiB", "added", "with weights", "time over full", "", "ms"],
            on_a_card(batch, length, mixed),
        )


if __name__ == "__main__":
    main()
