"""Costs: what the accounts predict is what is measured, to the byte and to the operation."""

from __future__ import annotations

import doctest
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lib.tuning import costs
from lib.tuning.costs import (
    Operations,
    account,
    activation_bytes,
    activation_memory,
    count_operations,
    ladder_floor,
    operations,
    peak_memory,
    saved_tensors,
    trainable_parameters,
    training_step,
)
from lib.tuning.methods import METHODS, trainable_count
from lib.tuning.trunk import TrunkConfig

SMALL = TrunkConfig(vocabulary=50, width=32, heads=2, layers=3, feed_forward=80)
FROZEN = ("bitfit", "adapter", "lora", "prompt")


def agrees(method: str, config: TrunkConfig, batch: int, length: int, **options) -> None:
    step = training_step(method, config, batch, length, classes=5, **options)
    predicted = account(method, config, batch, length, classes=5, **options)
    assert activation_memory(step.loss, step.model) == predicted.bytes
    assert count_operations(step.loss) == predicted.operations
    assert trainable_count(step.model) == predicted.trained


# --- predicted and measured -----------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("width", "heads", "layers", "feed", "batch", "length"),
    [(32, 2, 1, 80, 2, 7), (32, 1, 4, 128, 1, 16), (64, 4, 2, 64, 5, 3), (16, 2, 3, 48, 3, 1)],
)
def test_accounts_equal_what_is_measured(method, width, heads, layers, feed, batch, length):
    config = TrunkConfig(vocabulary=50, width=width, heads=heads, layers=layers, feed_forward=feed)
    agrees(method, config, batch, length)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("lora", {"rank": 3}),
        ("lora", {"targets": ("key",)}),
        ("lora", {"targets": ("up", "down")}),
        ("lora", {"targets": ("query", "key", "value", "out", "up", "down"), "rank": 1}),
        ("adapter", {"bottleneck": 5}),
        ("adapter", {"after": ("down",)}),
        ("prompt", {"prompts": 1}),
        ("prompt", {"prompts": 20}),
        ("ladder", {"reduction": 1}),
        ("ladder", {"reduction": 8}),
        ("ladder", {"rungs": (1,)}),
        ("ladder", {"rungs": (0, 2), "form": "additive"}),
        ("ladder", {"heads": 2, "feed_forward": 12}),
        ("ladder", {"normalise": True}),
        ("ladder", {"initial": "pruned", "heads": 1}),
        ("no_rungs", {"reduction": 2, "rungs": (0, 1)}),
    ],
)
def test_accounts_follow_the_options(method, options):
    step = training_step(method, SMALL, 2, 6, **options)
    options = {k: v for k, v in options.items() if k != "initial"}
    predicted = account(method, SMALL, 2, 6, classes=4, **options)
    assert activation_memory(step.loss, step.model) == predicted.bytes
    assert count_operations(step.loss) == predicted.operations
    assert trainable_count(step.model) == predicted.trained


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(METHODS),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 9),
)
def test_accounts_equal_what_is_measured_at_random_sizes(method, layers, heads, batch, length):
    config = TrunkConfig(
        vocabulary=20, width=8 * heads, heads=heads, layers=layers, feed_forward=24
    )
    agrees(method, config, batch, length)


def test_the_states_alone_are_counted_without_classes():
    step = training_step("lora", SMALL, 3, 8)
    tokens = torch.zeros(3, 8, dtype=torch.int64)
    got = activation_memory(lambda: step.model.body(tokens).sum(), step.model)
    assert got == activation_bytes("lora", SMALL, 3, 8)


def test_the_three_numbers_are_those_of_the_account():
    whole = account("adapter", SMALL, 2, 6, bottleneck=4)
    assert activation_bytes("adapter", SMALL, 2, 6, bottleneck=4) == whole.bytes
    assert operations("adapter", SMALL, 2, 6, bottleneck=4) == whole.operations
    assert trainable_parameters("adapter", SMALL, bottleneck=4) == whole.trained


# --- what follows from the accounts ---------------------------------------------------------------


@pytest.mark.parametrize(("method", "times"), [("full", 2), ("bitfit", 1)])
def test_products_cost_twice_the_forward_pass_backward_or_once_with_frozen_weights(method, times):
    """Attention apart, whose backward pass is 5 / 2 of its forward pass for both."""
    attention = 4 * 2 * 6**2 * SMALL.width * SMALL.layers
    got = operations(method, SMALL, 2, 6)
    assert got.backward - 2.5 * attention == times * (got.forward - attention)


def test_methods_inside_the_trunk_save_at_most_three_eighths_when_feed_is_four_widths():
    """16 of a block's numbers per token and coordinate in full tuning, 10 where weights rest."""
    config = TrunkConfig(vocabulary=50, width=64, heads=2, layers=12, feed_forward=256)
    full = activation_bytes("full", config, 4, 64)
    for method in FROZEN:
        saved = 1 - activation_bytes(method, config, 4, 64) / full
        first = 1 / config.layers  # the first block of some methods keeps less
        assert saved < 3 / 8 * (1 - first) + first


@pytest.mark.parametrize("reduction", [1, 2, 4, 8, 16])
def test_the_floor_of_the_ladder_does_not_shrink_with_its_width(reduction):
    kept = account("ladder", SMALL, 2, 6, reduction=reduction).kept
    trunk = sum(size for name, size in kept.items() if name.startswith("trunk"))
    assert trunk == ladder_floor(SMALL, 2, 6) == 4 * 2 * 6 * 32 * 4
    assert sum(kept.values()) > trunk


def test_fewer_rungs_lower_the_floor():
    assert ladder_floor(SMALL, 2, 6, rungs=1) == 2 * 2 * 6 * 32 * 4
    kept = account("ladder", SMALL, 2, 6, rungs=(1,)).kept
    assert sum(size for name, size in kept.items() if name.startswith("trunk")) == ladder_floor(
        SMALL, 2, 6, rungs=1
    )


def test_the_ladder_costs_a_forward_pass_of_the_trunk_and_no_backward_pass_in_it():
    ladder = operations("ladder", SMALL, 2, 6)
    side = ladder.forward - operations("probe", SMALL, 2, 6).forward
    downs = 4 * 2 * 2 * 6 * 32 * 8  # W_0 … W_3, which pass no gradient on
    attention = 3 * 4 * 2 * 6**2 * 8
    assert ladder.backward == 2 * (side - downs - attention) + downs + 2.5 * attention


# --- the measures themselves ----------------------------------------------------------------------


def test_a_linear_layer_keeps_its_input_only_if_its_weight_is_trained():
    x = torch.ones(16, 32, requires_grad=True)
    layer = nn.Linear(32, 8)
    assert activation_memory(lambda: layer(x).sum(), layer) == x.nbytes
    layer.weight.requires_grad_(False)
    assert activation_memory(lambda: layer(x).sum(), layer) == 0


def test_a_linear_layer_keeps_a_view_of_its_weight_that_is_no_parameter():
    x, layer = torch.ones(2, 32, requires_grad=True), nn.Linear(32, 8).requires_grad_(False)
    assert activation_memory(lambda: layer(x).sum()) == layer.weight.nbytes
    (kept,) = saved_tensors(lambda: layer(x).sum())
    assert (kept.dtype, kept.bytes) == (torch.float32, layer.weight.nbytes)


def test_views_of_one_storage_count_once():
    x = torch.ones(4, 6, requires_grad=True)

    def step() -> Tensor:
        y = x * 1.0
        return (y * y.T.T).sum() + (y[:2] * y[2:]).sum()

    assert activation_memory(step, [x]) == x.nbytes


def test_a_storage_that_was_freed_and_given_out_again_counts_twice():
    x = torch.ones(1000, requires_grad=True)

    def step() -> Tensor:
        return sum(((x * k).square().sum() for k in range(5)), torch.zeros(()))

    assert activation_memory(step, [x]) == 5 * x.nbytes


def test_the_backward_pass_may_be_part_of_the_step():
    step = training_step("full", SMALL, 2, 6)
    assert activation_memory(step, step.model) == activation_memory(step.loss, step.model)


def test_nothing_is_kept_without_a_graph():
    step = training_step("full", SMALL, 2, 6)
    with torch.no_grad():
        assert activation_memory(step.loss, step.model) == 0


def test_operations_of_known_products():
    a, b = (torch.ones(3, 4, requires_grad=True), torch.ones(4, 5, requires_grad=True))
    assert count_operations(lambda: (a @ b).sum()) == Operations(2 * 60, 4 * 60)
    assert count_operations(lambda: (a @ b.detach()).sum()).total == 4 * 60
    assert count_operations(lambda: (a.detach() @ b.detach()).sum()) == Operations(120, 0)


def test_operations_of_attention_are_counted():
    q = torch.ones(2, 3, 8, 16, requires_grad=True)
    got = count_operations(lambda: F.scaled_dot_product_attention(q, q, q).sum())
    assert got == Operations(2 * 2 * 6 * 8 * 8 * 16, 5 * 2 * 6 * 8 * 8 * 16)


def test_peak_memory_sees_what_a_step_holds():
    """The step makes 2^24 numbers of 4 bytes, in a new process."""
    got = peak_memory(partial, torch.ones, 2**24)
    assert 0.98 * 2**26 < got < 1.5 * 2**26


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"method": "distil"}, ValueError, "`method` must be one of"),
        ({"config": 3}, TypeError, "`config` must be a TrunkConfig"),
        ({"batch": 0}, ValueError, "`batch` must be at least 1"),
        ({"length": 2.5}, TypeError, "`length` must be a whole number"),
        ({"classes": 1}, ValueError, "`classes` must be at least 2"),
        ({"rank": 0}, ValueError, "`rank` must be at least 1"),
        ({"method": "adapter", "bottleneck": 0}, ValueError, "`bottleneck` must be at least 1"),
        ({"method": "prompt", "prompts": 0}, ValueError, "`prompts` must be at least 1"),
        ({"method": "ladder", "reduction": 5}, ValueError, "`reduction` must divide"),
        ({"method": "ladder", "rungs": (3,)}, ValueError, "`rungs` must be from 0 to 2"),
        ({"method": "ladder", "form": "paper"}, ValueError, "`form` must be one of"),
        ({"method": "no_rungs", "form": "paper"}, ValueError, "`form` must be one of"),
        ({"method": "no_rungs", "initial": "zero"}, ValueError, "`initial` must be one of"),
        ({"method": "ladder", "temperature": -1}, ValueError, "`temperature` must be positive"),
        ({"method": "ladder", "initial": "copied"}, ValueError, "`reduction` must be 1"),
        ({"method": "ladder", "rank": 2}, TypeError, "rank"),
        ({"method": "ladder", "heads": 0}, ValueError, "`heads` must be at least 1"),
        ({"method": "ladder", "feed_forward": 0}, ValueError, "`feed_forward` must be at least"),
        ({"targets": ("keys",)}, ValueError, "`targets` must name"),
        ({"method": "adapter", "after": "out"}, TypeError, "`after` must be a sequence"),
        ({"method": "full", "rank": 2}, TypeError, "rank"),
    ],
)
def test_accounts_refuse(change, error, message):
    given = {"method": "lora", "config": SMALL, "batch": 2, "length": 4, "classes": 3} | change
    with pytest.raises(error, match=message):
        account(**given)
    with pytest.raises(error, match=message):
        training_step(**given)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: activation_memory(3), TypeError, "`step` must be callable"),
        (lambda: activation_memory(lambda: None, [3]), TypeError, "`resident` must hold"),
        (lambda: count_operations(3), TypeError, "`forward` must be callable"),
        (lambda: count_operations(lambda: None), ValueError, "a tensor of one number"),
        (lambda: count_operations(lambda: torch.ones(2)), ValueError, "a tensor of one number"),
        (lambda: peak_memory(3), TypeError, "`build` must be callable"),
        (lambda: peak_memory(lambda: None), TypeError, "must be importable elsewhere"),
        (lambda: training_step("full", SMALL, 2, 4, seed=-1), ValueError, "`seed` must be"),
        (lambda: ladder_floor(SMALL, 2, 4, rungs=4), ValueError, "`rungs` must be from 1 to 3"),
        (lambda: ladder_floor(SMALL, 0, 4), ValueError, "`batch` must be at least 1"),
        (lambda: ladder_floor(None, 1, 4), TypeError, "`config` must be a TrunkConfig"),
    ],
)
def test_measures_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_examples_in_the_docstrings_run():
    assert doctest.testmod(costs).failed == 0
