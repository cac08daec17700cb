"""The ladder: its equations, its isolation from the trunk, its beginnings, any model's blocks."""

from __future__ import annotations

import copy
import doctest
import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

from lib.attention.positions import frequencies, rotate
from lib.tuning import ladder as module
from lib.tuning.costs import activation_memory
from lib.tuning.ladder import LadderSideNetwork, NoRungs, path_weights, prune
from lib.tuning.trunk import Block, Trunk, TrunkConfig

SMALL = TrunkConfig(vocabulary=30, width=32, heads=2, layers=3, feed_forward=64)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(seed: int = 0, kind: type = LadderSideNetwork, trunk: Trunk | None = None, **settings):
    trunk = Trunk(SMALL, draw(seed)) if trunk is None else trunk
    settings = {"width": 32, "generator": draw(seed + 1)} | settings
    return trunk, kind(trunk, trunk.blocks, **settings)


def words(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(30, shape, generator=draw(seed))


def leaves(y: Tensor) -> set[Tensor]:
    """All tensors that the graph of y ends in."""
    found, seen, todo = set(), set(), [y.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(node.variable)
        todo += [parent for parent, _ in node.next_functions]
    return found


# --- its equations --------------------------------------------------------------------------------


@pytest.mark.parametrize("rungs", [None, (0, 2), (1,)])
def test_the_gated_form_is_the_papers_recursion(rungs):
    _, side = made(rungs=rungs, temperature=0.4)
    nn.init.normal_(side.alpha, 0.0, 0.5, generator=draw(3))
    states = [torch.randn(2, 5, 32, generator=draw(k)) for k in range(len(side.rungs) + 1)]
    g = states[0] @ side.downs[0].weight.T
    for k, block in enumerate(side.blocks):
        mu = 1 / (1 + math.exp(-side.alpha[k].item() / 0.4))
        g = block(mu * g + (1 - mu) * (states[k + 1] @ side.downs[k + 1].weight.T))
    torch.testing.assert_close(side.from_states(states), side.norm(g))


@pytest.mark.parametrize("rungs", [None, (0, 2)])
def test_the_additive_form_adds_the_rung_after_the_block(rungs):
    _, side = made(rungs=rungs, form="additive")
    states = [torch.randn(2, 5, 32, generator=draw(k)) for k in range(len(side.rungs) + 1)]
    g = states[0] @ side.downs[0].weight.T
    for k, block in enumerate(side.blocks):
        g = block(g) + states[k + 1] @ side.downs[k + 1].weight.T
    torch.testing.assert_close(side.from_states(states), side.norm(g))
    assert side.alpha is None


def test_normalised_rungs_do_not_depend_on_the_scale_of_the_trunk():
    _, side = made(normalise=True)
    states = [torch.randn(2, 5, 32, generator=draw(k)) for k in range(4)]
    scaled = [100.0 * (k + 1) * h for k, h in enumerate(states)]
    torch.testing.assert_close(
        side.from_states(states), side.from_states(scaled), rtol=1e-3, atol=1e-4
    )
    _, plain = made()
    assert (plain.from_states(states) - plain.from_states(scaled)).abs().max() > 0.1


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_a_gate_moves_by_one_over_four_temperatures_at_the_start(temperature):
    _, side = made(temperature=temperature)
    side = side.double()
    assert torch.equal(side.gates(), torch.full((3,), 0.5, dtype=torch.float64))
    (slope,) = torch.autograd.grad(side.gates().sum(), side.alpha)
    torch.testing.assert_close(slope, torch.full_like(slope, 1 / (4 * temperature)))


def test_path_weights_are_what_reaches_the_end_through_identity_blocks():
    """Each source sends a vector of its own; what arrives are the weights."""
    _, side = made(reduction=1)
    nn.init.normal_(side.alpha, 0.0, 0.2, generator=draw(4))
    side.blocks = nn.ModuleList(nn.Identity() for _ in range(3))
    side.norm = nn.Identity()
    for down in side.downs:
        nn.init.eye_(down.weight)
    side.norm.weight = torch.ones(1)  # its dtype says that of the states
    states = [torch.zeros(1, 1, 32) for _ in range(4)]
    for k, h in enumerate(states):
        h[..., k] = 1.0
    torch.testing.assert_close(side.from_states(states)[0, 0, :4], path_weights(side.gates()))


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
def test_path_weights_are_convex(gates):
    weights = path_weights(torch.tensor(gates, dtype=torch.float64))
    assert weights.sum().item() == pytest.approx(1.0, abs=1e-12)
    assert (weights >= 0).all()


def test_path_weights_at_the_start_are_powers_of_a_half():
    weights = path_weights(torch.full((4,), 0.5))
    assert weights.tolist() == [2**-4, 2**-4, 2**-3, 2**-2, 2**-1]


def test_open_and_shut_gates():
    assert path_weights(torch.ones(3)).tolist() == [1, 0, 0, 0]
    assert path_weights(torch.zeros(3)).tolist() == [0, 0, 0, 1]


# --- its isolation --------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"form": "additive"}, {"initial": "pruned", "heads": 1}])
def test_the_backward_pass_never_enters_the_trunk(settings):
    trunk, side = made(**settings)
    y = side(words(2, 5)).sum()
    ends = leaves(y)
    assert not ends & set(trunk.parameters())
    assert ends == set(side.parameters())
    y.backward()
    assert all(p.grad is None for p in trunk.parameters())


def test_the_walk_finds_the_trunk_where_it_is_in_the_graph():
    trunk, _ = made()
    assert leaves(trunk(words(2, 5)).sum()) >= set(trunk.blocks.parameters())


def test_no_graph_frozen_weights_and_a_cut_give_equal_gradients_and_only_the_cut_pays():
    """Frozen weights leave no graph either; cutting a living graph holds it until it is let go."""
    trunk, side = made()
    tokens = words(4, 8)

    def alive() -> list[Tensor]:
        states = [trunk.embed(tokens)]
        for block in trunk.blocks:
            states.append(block(states[-1]))
        return states

    def gradients(states: list[Tensor]) -> list[Tensor]:
        return list(torch.autograd.grad(side.from_states(states).square().sum(), side.parameters()))

    without = gradients(side.states(tokens))
    cut = gradients([h.detach() for h in alive()])
    held: list[list[Tensor]] = []

    def cutting() -> Tensor:
        held.append(alive())
        return side.from_states([h.detach() for h in held[-1]]).sum()

    small = activation_memory(lambda: side(tokens).sum(), (trunk, side))
    large = activation_memory(cutting, (trunk, side))
    trunk.requires_grad_(False)
    frozen = gradients(alive())
    for a, b, c in zip(without, cut, frozen, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    assert activation_memory(lambda: side.from_states(alive()).sum(), (trunk, side)) == small
    assert large > 2 * small


def test_the_trunk_is_no_part_of_the_ladder():
    trunk, side = made()
    assert not set(side.parameters()) & set(trunk.parameters())
    assert not any("trunk" in name for name in side.state_dict())
    side.train()
    trunk.eval()
    assert not trunk.training
    side.double()
    assert next(trunk.parameters()).dtype == torch.float32


class Dropping(nn.Module):
    """Two blocks with dropout, batch statistics, and an entry by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(5)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(input=x)
        return x


def test_the_trunk_runs_in_evaluation_mode_and_gets_its_modes_back():
    model = Dropping()
    model.blocks[0].eval()
    modes = [part.training for part in model.modules()]
    before = copy.deepcopy(model.state_dict())
    side = LadderSideNetwork(model, "blocks", width=8, reduction=2, generator=draw())
    x = torch.randn(3, 5, 8, generator=draw())
    assert torch.equal(side(x), side(x))
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


def hooks(model: nn.Module) -> Iterator[int]:
    return (len(p._forward_hooks) + len(p._forward_pre_hooks) for p in model.modules())


def test_no_hook_stays_behind_even_after_an_error():
    trunk, side = made()
    side(words(2, 5))
    with pytest.raises(TypeError):
        side(words(2, 5), 1, 2, 3)
    assert sum(hooks(trunk)) == 0


def test_states_kept_once_serve_as_well_as_a_new_run():
    trunk, side = made(rungs=(0, 2))
    states = side.states(words(2, 5))
    assert torch.equal(side.from_states(states), side(words(2, 5)))
    x = trunk.embed(words(2, 5))
    first = trunk.blocks[0](x)
    last = trunk.blocks[2](trunk.blocks[1](first))
    for got, expected in zip(states, (x, first, last), strict=True):
        assert torch.equal(got, expected)
        assert not got.requires_grad


# --- the control ----------------------------------------------------------------------------------


def test_the_control_sees_the_embeddings_alone():
    trunk, control = made(kind=NoRungs)
    _, side = made(trunk=trunk)
    before, fed = control(words(2, 5)), side(words(2, 5))
    with torch.no_grad():
        for p in trunk.blocks.parameters():
            p.add_(0.1)
    assert torch.equal(control(words(2, 5)), before)
    assert not torch.allclose(side(words(2, 5)), fed)
    assert len(control.blocks) == len(side.blocks) == 3
    g = control.downs[0](trunk.embed(words(2, 5)))
    for block in control.blocks:
        g = block(g)
    assert torch.equal(control.norm(g), before)


def test_the_control_has_the_ladders_parameters_but_gates_and_rungs():
    _, side = made()
    _, control = made(kind=NoRungs)
    more = sum(p.numel() for p in side.parameters()) - sum(p.numel() for p in control.parameters())
    assert more == 3 * 32 * 8 + 3


# --- how it begins --------------------------------------------------------------------------------


def test_one_generator_makes_it_and_the_global_one_is_left_alone():
    before = torch.get_rng_state()
    _, a = made(5)
    _, b = made(5)
    _, c = made(6)
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name])
    assert not torch.equal(a.downs[0].weight, c.downs[0].weight)


def test_copied_blocks_behind_open_gates_are_the_trunk():
    trunk, side = made(reduction=1, initial="copied")
    nn.init.constant_(side.alpha, 100.0)  # all μ = 1
    torch.testing.assert_close(side(words(2, 5)), trunk(words(2, 5)))
    with torch.no_grad():
        side.blocks[0].up.weight.zero_()
    assert trunk.blocks[0].up.weight.abs().max() > 0


def test_copied_blocks_of_a_frozen_trunk_are_trained():
    trunk = Trunk(SMALL, draw()).requires_grad_(False)
    _, side = made(trunk=trunk, reduction=1, initial="copied", rungs=(2,))
    assert all(p.requires_grad for p in side.parameters())
    assert not any(p.requires_grad for p in trunk.parameters())


def test_pruning_to_the_full_width_is_copying():
    trunk, side = made(reduction=1, initial="pruned", heads=2, feed_forward=64)
    for narrow, wide in zip(side.blocks, trunk.blocks, strict=True):
        for name, value in narrow.state_dict().items():
            assert torch.equal(value, wide.state_dict()[name])


@pytest.mark.parametrize("heads", [1, 2])
def test_pruned_parts_fit_together(heads):
    """All layers keep the same residual coordinates, and W_l picks just these."""
    trunk, side = made(reduction=4, initial="pruned", heads=heads)
    h = torch.randn(2, 5, 32, generator=draw())
    picked = [down.weight.argmax(1) for down in side.downs]
    for down, residual in zip(side.downs, picked, strict=True):
        assert torch.equal(down(h), h[..., residual])
        assert torch.equal(residual, picked[0])
        assert (residual.diff() > 0).all()
    residual = picked[0]
    for narrow, wide in zip(side.blocks, trunk.blocks, strict=True):
        for name in ("query", "key", "value", "up"):  # rows of the narrow are among the wide's
            rows = getattr(wide, name).weight[:, residual]
            assert all((rows == row).all(1).any() for row in getattr(narrow, name).weight)
        for name in ("out", "down"):
            columns = getattr(wide, name).weight[residual].T
            assert all((columns == c).all(1).any() for c in getattr(narrow, name).weight.T)
        assert torch.equal(narrow.before_feed.weight, wide.before_feed.weight[residual])


def test_pruned_heads_turn_with_the_frequencies_of_the_wide_ones():
    """Rotating the coordinates that stay is the same as keeping them after the rotation."""
    wide, narrow = Block(32, 2, 64, draw()), Block(16, 2, 32, draw())
    rows = module._head_rows(wide, narrow).unflatten(0, (2, 8)) % 16
    x = torch.randn(6, 16, dtype=torch.float64, generator=draw())
    m = torch.arange(6, dtype=torch.float64)[:, None]
    full = rotate(x, m * frequencies(16, x))
    for kept in rows:
        torch.testing.assert_close(rotate(x[:, kept], m * frequencies(8, x)), full[:, kept])


def test_pruning_keeps_what_is_large():
    wide, narrow = Block(32, 2, 64, draw()), Block(8, 1, 16, draw())
    large = torch.arange(1, 32, 4)
    with torch.no_grad():
        wide.up.weight[:, large] += 5.0  # these coordinates are read more
        wide.down.weight[:, :16] += 5.0  # these units write more
        wide.value.weight[16:] += 5.0  # the second head
    assert torch.equal(prune([wide], [0], [narrow]), large)
    assert torch.equal(narrow.up.bias, wide.up.bias[:16])
    assert torch.equal(narrow.up.weight, wide.up.weight[:16][:, large])
    assert torch.equal(narrow.value.weight[0], wide.value.weight[16, large])


# --- other people's models ------------------------------------------------------------------------


def bert() -> BertModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # transformers draws from the global generator
        config = BertConfig(
            vocab_size=30,
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=32,
        )
        return BertModel(config)


def gpt2() -> GPT2Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPT2Model(GPT2Config(vocab_size=30, n_embd=16, n_layer=3, n_head=2, n_positions=32))


@pytest.mark.parametrize(("make", "blocks"), [(bert, "encoder.layer"), (gpt2, "h")])
@pytest.mark.parametrize("settings", [{}, {"form": "additive", "rungs": (1,)}])
def test_it_attaches_to_models_of_transformers(make, blocks, settings):
    model = make().train()
    side = LadderSideNetwork(model, blocks, width=16, reduction=2, generator=draw(), **settings)
    states = side.states(input_ids=words(2, 6))
    model.eval()
    theirs = model(input_ids=words(2, 6), output_hidden_states=True).hidden_states
    inside = [0, *(k + 1 for k in side.rungs)]
    for got, k in zip(states, inside, strict=True):
        if k < 3 or make is bert:  # GPT-2's last one has been through its final norm
            torch.testing.assert_close(got, theirs[k])
    y = side(input_ids=words(2, 6))
    assert y.shape == (2, 6, 8)
    y.sum().backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad is not None for p in side.parameters())


@pytest.mark.parametrize(("make", "blocks"), [(bert, "encoder.layer"), (gpt2, "h")])
def test_copies_of_other_peoples_blocks_run_too(make, blocks):
    model = make().eval()
    side = LadderSideNetwork(
        model, blocks, width=16, reduction=1, initial="copied", generator=draw()
    ).eval()
    nn.init.constant_(side.alpha, 100.0)
    last = side.states(input_ids=words(2, 6))[-1]
    torch.testing.assert_close(side(input_ids=words(2, 6)), side.norm(last))


# --- bad input ------------------------------------------------------------------------------------


def empty() -> nn.Module:
    model = nn.Module()
    model.blocks = nn.ModuleList()
    return model


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": 3}, TypeError, "`model` must be a torch.nn.Module"),
        ({"model": empty()}, ValueError, "`blocks` must hold at least one block"),
        ({"blocks": "layers"}, ValueError, "`blocks` must name a part of `model`"),
        ({"blocks": "norm"}, TypeError, "`blocks` must be a torch.nn.ModuleList"),
        ({"blocks": nn.ModuleList([nn.Identity()])}, ValueError, "must be a part of `model`"),
        ({"width": 0}, ValueError, "`width` must be at least 1"),
        ({"generator": 0}, TypeError, "`generator` must be a torch.Generator"),
        ({"reduction": 5}, ValueError, "`reduction` must divide `width` = 32, got 5"),
        ({"reduction": 32}, ValueError, "must be even"),
        ({"rungs": ()}, ValueError, "`rungs` must name at least one"),
        ({"rungs": (0, 3)}, ValueError, "`rungs` must be from 0 to 2, got 3"),
        ({"rungs": (-1,)}, ValueError, "`rungs` must be from 0 to 2, got -1"),
        ({"rungs": (1, 0)}, ValueError, "`rungs` must rise"),
        ({"rungs": (1, 1)}, ValueError, "`rungs` must rise"),
        ({"rungs": 2}, TypeError, "`rungs` must be a sequence"),
        ({"form": "paper"}, ValueError, "`form` must be one of"),
        ({"temperature": 0.0}, ValueError, "`temperature` must be positive"),
        ({"temperature": math.nan}, ValueError, "`temperature` must be finite"),
        ({"heads": 3}, ValueError, "`heads` must divide"),
        ({"heads": 8}, ValueError, "into even parts"),
        ({"feed_forward": 0}, ValueError, "`feed_forward` must be at least 1"),
        ({"initial": "zero"}, ValueError, "`initial` must be one of"),
        ({"initial": "copied"}, ValueError, "`reduction` must be 1"),
        ({"initial": "copied", "reduction": 1, "heads": 2}, ValueError, "must not be given"),
        ({"initial": "pruned", "heads": 4, "reduction": 1}, ValueError, "at most the trunk's 2"),
        ({"initial": "pruned", "feed_forward": 65}, ValueError, "at most the trunk's 64"),
    ],
)
def test_it_refuses(change, error, message):
    trunk = Trunk(SMALL, draw())
    given = {"model": trunk, "blocks": "blocks", "width": 32, "generator": draw()} | change
    with pytest.raises(error, match=message):
        LadderSideNetwork(given.pop("model"), given.pop("blocks"), **given)


def test_pruning_needs_blocks_that_it_knows():
    with pytest.raises(TypeError, match=r"lib\.tuning\.Block, got BertLayer"):
        LadderSideNetwork(
            bert(), "encoder.layer", width=16, reduction=2, initial="pruned", generator=draw()
        )


@pytest.mark.parametrize(
    ("states", "error", "message"),
    [
        (torch.ones(4, 2, 5, 32), TypeError, "`states` must be a tuple"),
        (3, TypeError, "`states` must be a tuple"),
        ([torch.ones(2, 5, 32)] * 3, ValueError, "must hold 4 tensors, got 3"),
        ([torch.ones(2, 5, 16)] * 4, ValueError, r"shape \(B, n, 32\) each, got \(2, 5, 16\)"),
        ([torch.ones(5, 32)] * 4, ValueError, r"shape \(B, n, 32\)"),
        ([torch.ones(0, 5, 32)] * 4, ValueError, r"shape \(B, n, 32\)"),
        ([torch.ones(2, 5, 32)] * 3 + [torch.ones(2, 4, 32)], ValueError, "one shape"),
        ([torch.ones(2, 5, 32).double()] * 4, TypeError, "tensors of torch.float32"),
        ([None] * 4, TypeError, "got NoneType"),
    ],
)
def test_states_that_do_not_fit_are_refused(states, error, message):
    with pytest.raises(error, match=message):
        made()[1].from_states(states)


def test_a_wrong_width_of_the_trunk_shows_when_it_runs():
    _, side = made(width=64)
    with pytest.raises(ValueError, match=r"shape \(B, n, 64\) each, got \(2, 5, 32\)"):
        side(words(2, 5))


def test_a_block_that_the_model_skips_is_named():
    model = Dropping()
    model.forward = lambda x: model.blocks[0](x)
    side = LadderSideNetwork(model, "blocks", width=8, reduction=2, generator=draw())
    with pytest.raises(ValueError, match="must run all its blocks, block 1 did not"):
        side(torch.ones(2, 5, 8))


@pytest.mark.parametrize("kind", ["additive", "control"])
def test_without_gates_there_is_nothing_to_show(kind):
    _, side = made(form="additive") if kind == "additive" else made(kind=NoRungs)
    with pytest.raises(ValueError, match="to have gates"):
        side.gates()


@pytest.mark.parametrize(
    ("gates", "error", "message"),
    [
        ([0.5], TypeError, "`gates` must be a torch.Tensor"),
        (torch.ones(2, dtype=torch.int64), TypeError, "floating dtype"),
        (torch.ones(2, 2), ValueError, r"shape \(N,\)"),
        (torch.ones(0), ValueError, "`gates` must have shape"),
        (torch.tensor([0.5, 1.5]), ValueError, r"lie in \[0, 1\], got 1.5"),
        (torch.tensor([0.5, math.nan]), ValueError, "must be finite"),
    ],
)
def test_path_weights_refuse(gates, error, message):
    with pytest.raises(error, match=message):
        path_weights(gates)


def test_examples_in_the_docstrings_run():
    assert doctest.testmod(module).failed == 0
