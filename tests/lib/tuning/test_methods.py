"""Methods: what each trains, what it computes, and that the trunk it is given stays as it was."""

from __future__ import annotations

import copy
import math
import re

import peft
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from lib.tuning.ladder import LadderSideNetwork, NoRungs
from lib.tuning.methods import (
    METHODS,
    Adapter,
    PointHead,
    PooledHead,
    PositionHead,
    Tunable,
    adapter,
    bitfit,
    body_width,
    full_tuning,
    linear_probe,
    lora,
    make_body,
    prompt_tuning,
    trainable,
    trainable_count,
)
from lib.tuning.trunk import Trunk, TrunkConfig

SMALL = TrunkConfig(vocabulary=30, width=16, heads=2, layers=3, feed_forward=40)
D, L, FEED, V = 16, 3, 40, 30
MAKERS = {
    "full": full_tuning,
    "probe": linear_probe,
    "bitfit": bitfit,
    "adapter": lambda trunk: adapter(trunk, 4, draw(5)),
    "lora": lambda trunk: lora(trunk, 4, draw(5)),
    "prompt": lambda trunk: prompt_tuning(trunk, 4, draw(5)),
}
COUNTS = {
    "full": V * D + L * (4 * D * (D + 1) + FEED * (D + 1) + D * (FEED + 1) + 4 * D) + 2 * D,
    "probe": 0,
    "bitfit": L * (7 * D + FEED) + D,  # five layers that end in D, two norms, one layer in FEED
    "adapter": L * 2 * (2 * D * 4 + 4 + D),
    "lora": L * 2 * 2 * 4 * D,
    "prompt": 4 * D,
}


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def words(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(V, shape, generator=draw(seed))


def untrained(seed: int = 0) -> Trunk:
    return Trunk(SMALL, draw(seed))


def step(body: nn.Module, tokens: Tensor, rate: float = 0.1) -> None:
    """One step downhill on some loss of the states."""
    body(tokens).square().sum().backward()
    with torch.no_grad():
        for p in trainable(body):
            p -= rate * p.grad / p.grad.norm().clamp(min=1e-9)
            p.grad = None


# --- what is trained ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", COUNTS)
def test_counts_follow_their_formulas(method):
    body = MAKERS[method](untrained())
    assert trainable_count(body) == COUNTS[method]
    assert sum(p.numel() for p in trainable(body)) == COUNTS[method]


@settings(max_examples=20, deadline=None)
@given(
    rank=st.integers(1, 20),
    bottleneck=st.integers(1, 20),
    layers=st.integers(1, 3),
    targets=st.sets(st.sampled_from(["query", "key", "value", "out"]), min_size=1),
)
def test_low_rank_and_adapter_counts_at_random_sizes(rank, bottleneck, layers, targets):
    config = TrunkConfig(vocabulary=5, width=8, heads=2, layers=layers, feed_forward=12)
    trunk = Trunk(config, draw())
    assert trainable_count(lora(trunk, rank, draw(), targets=sorted(targets))) == (
        layers * len(targets) * 2 * rank * 8
    )
    assert trainable_count(adapter(trunk, bottleneck, draw())) == (
        layers * 2 * (2 * 8 * bottleneck + bottleneck + 8)
    )


@pytest.mark.parametrize(
    ("method", "word"),
    [
        ("bitfit", r"\.bias$"),
        ("adapter", r"\.(out|down)\.1\."),
        ("lora", r"\.(query|value)\.lora_"),
        ("prompt", "^prompt$"),
    ],
)
def test_only_what_the_method_adds_or_names_is_trained(method, word):
    body = MAKERS[method](untrained())
    for name, p in body.named_parameters():
        assert p.requires_grad == bool(re.search(word, name)), name


def test_each_parameter_counts_once_though_it_is_used_twice():
    layer = nn.Linear(3, 3)
    assert trainable_count(nn.Sequential(layer, layer)) == 12
    assert trainable(nn.ReLU()) == []


# --- the trunk stays ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [m for m in METHODS if m != "probe"])
def test_the_trunk_given_is_never_touched(method):
    trunk = untrained()
    before = copy.deepcopy(trunk.state_dict())
    layers = [type(part) for part in trunk.modules()]
    body = make_body(method, trunk, draw(1))
    step(body, words(2, 5))
    assert [type(part) for part in trunk.modules()] == layers
    assert all(p.requires_grad and p.grad is None for p in trunk.parameters())
    for name, weight in trunk.state_dict().items():
        assert torch.equal(weight, before[name])


@pytest.mark.parametrize("method", METHODS)
def test_one_generator_makes_it_and_the_global_one_is_left_alone(method):
    trunk, state = untrained(), torch.get_rng_state()
    one, same = (make_body(method, trunk, draw(7)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(one.parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("method", ["adapter", "lora", "prompt", "ladder"])
def test_another_generator_makes_another_beginning(method):
    one, other = (make_body(method, untrained(), draw(seed)) for seed in (1, 2))
    pairs = zip(trainable(one), trainable(other), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


# --- what each computes ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["full", "probe", "bitfit", "adapter", "lora"])
def test_at_first_the_states_are_the_trunks(method):
    trunk, tokens = untrained(), words(3, 6)
    torch.testing.assert_close(MAKERS[method](trunk)(tokens), trunk(tokens))


@pytest.mark.parametrize("method", [m for m in METHODS if m != "probe"])
def test_one_step_changes_the_states(method):
    body, tokens = make_body(method, untrained(), draw(1)), words(3, 6)
    before = body(tokens).detach()
    step(body, tokens)
    assert (body(tokens) - before).abs().max() > 1e-4


def test_an_adapter_is_its_formula_and_the_identity_at_first():
    part, x = Adapter(6, 3, draw()), torch.randn(4, 6, generator=draw(1))
    assert torch.equal(part(x), x)
    nn.init.normal_(part.up.weight, generator=draw(2))
    narrow = x @ part.down.weight.T + part.down.bias
    narrow = narrow * (1 + torch.erf(narrow / math.sqrt(2))) / 2
    torch.testing.assert_close(part(x), x + narrow @ part.up.weight.T + part.up.bias)


def test_adapters_stand_before_the_skip_connection():
    body, x = adapter(untrained(), 4, draw(1)), torch.randn(2, 5, D, generator=draw(2))
    block = body.blocks[0]
    for part in (block.out[1], block.down[1]):
        nn.init.normal_(part.up.weight, generator=draw(3))
    attended = x + block.attention(block.before_attention(x))
    inner = F.gelu(block.up(block.before_feed(attended)))
    after = block.down[1](block.down[0](inner))
    torch.testing.assert_close(block(x), attended + after)


def test_adapters_go_where_they_are_told():
    body = adapter(untrained(), 4, draw(), after=("down",))
    kinds = {name.split(".", 2)[2] for name, m in body.named_modules() if isinstance(m, Adapter)}
    assert kinds == {"down.1"}


def test_prompts_stand_before_the_tokens_and_are_dropped_at_the_end():
    trunk, tokens = untrained(), words(2, 5)
    body = prompt_tuning(trunk, 3, draw(1))
    x = torch.cat([body.prompt.expand(2, 3, D), trunk.embedding(tokens)], 1)
    for block in trunk.blocks:
        x = block(x)
    torch.testing.assert_close(body(tokens), trunk.norm(x)[:, 3:])
    assert body(tokens).shape == (2, 5, D)


def test_prompts_start_as_large_as_the_tokens_vectors():
    trunk = untrained()
    trunk.embedding.weight.data.mul_(0.05)
    prompt = prompt_tuning(trunk, 200, draw(1)).prompt
    ratio = prompt.square().mean() / trunk.embedding.weight.square().mean()
    assert 0.9 < ratio.item() < 1.1


def test_bitfit_trains_the_biases_of_norms_too():
    names = {n for n, p in bitfit(untrained()).named_parameters() if p.requires_grad}
    assert {"norm.bias", "blocks.0.before_feed.bias", "blocks.2.down.bias"} <= names


# --- peft as an oracle ----------------------------------------------------------------------------


def filled(body: nn.Module, seed: int = 3) -> nn.Module:
    """The body with B other than 0."""
    for name, p in body.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(p, 0.0, 0.3, generator=draw(seed))
    return body


@pytest.mark.parametrize(("rank", "alpha"), [(4, None), (2, 7.0)])
def test_lora_is_the_weight_with_its_update_added(rank, alpha):
    trunk, tokens = untrained(), words(3, 6)
    body = filled(lora(trunk, rank, draw(1), alpha=alpha))
    scale = 2.0 if alpha is None else alpha / rank
    merged = copy.deepcopy(trunk)
    with torch.no_grad():
        for wide, block in zip(merged.blocks, body.blocks, strict=True):
            for name in ("query", "value"):
                layer = getattr(block, name)
                a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
                getattr(wide, name).weight += scale * b @ a
    torch.testing.assert_close(body(tokens), merged(tokens))
    assert (body(tokens) - trunk(tokens)).abs().max() > 1e-2


def test_lora_equals_pefts_own_model_with_the_same_matrices():
    trunk, tokens = untrained(), words(3, 6)
    body = filled(lora(trunk, 4, draw(1), alpha=6.0))
    config = peft.LoraConfig(r=4, lora_alpha=6.0, target_modules=["query", "value"])
    theirs = peft.get_peft_model(copy.deepcopy(trunk), config)
    count, _ = theirs.get_nb_trainable_parameters()
    assert trainable_count(body) == count
    learned = {name: p for name, p in body.named_parameters() if p.requires_grad}
    found = peft.get_peft_model_state_dict(theirs)
    assert {f"base_model.model.{n.replace('.default', '')}" for n in learned} == set(found)
    state = {f"base_model.model.{name}": p for name, p in learned.items()}
    missing = theirs.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert torch.equal(body(tokens), theirs(tokens))


def test_the_first_step_of_lora_moves_b_alone():
    body = lora(untrained(), 4, draw(1))
    body(words(3, 6)).square().sum().backward()
    for name, p in body.named_parameters():
        if ".lora_A." in name:
            assert not p.grad.any()
        elif ".lora_B." in name:
            assert p.grad.any()
        else:
            assert p.grad is None


def test_the_columns_of_a_have_variance_one_over_inputs():
    body = lora(untrained(), 64, draw(1), targets=("down",))
    a = torch.cat([b.down.lora_A["default"].weight for b in body.blocks])
    assert abs(a.square().mean().item() * FEED - 1) < 0.1


def test_lora_and_adapters_fit_a_model_of_transformers():
    config = BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    tokens = words(2, 6)
    states = model(tokens).last_hidden_state
    theirs = peft.get_peft_model(
        copy.deepcopy(model), peft.LoraConfig(r=4, target_modules=["query", "value"])
    )
    body = lora(model, 4, draw())
    assert trainable_count(body) == theirs.get_nb_trainable_parameters()[0] == 2 * 2 * 2 * 4 * 16
    assert torch.equal(body(tokens).last_hidden_state, states)
    body = adapter(model, 4, draw(), after=("dense",))  # two behind D, one behind the inner width
    assert trainable_count(body) == 2 * (2 * (2 * 16 * 4 + 20) + (2 * 24 * 4 + 28))
    assert torch.equal(body(tokens).last_hidden_state, states)


# --- heads ----------------------------------------------------------------------------------------


def test_heads_are_their_formulas():
    hidden, places = torch.randn(3, 5, 8, generator=draw()), torch.tensor([4, 0, 2])
    pooled, at, point = PooledHead(8, 4, draw(1)), PositionHead(8, 4, draw(1)), PointHead(8, draw())
    for i, place in enumerate(places):
        mean = sum(hidden[i, j] for j in range(5)) / 5
        w, b = pooled.readout.weight, pooled.readout.bias
        torch.testing.assert_close(pooled(hidden)[i], w @ mean + b)
        w, b = at.readout.weight, at.readout.bias
        torch.testing.assert_close(at(hidden, places)[i], w @ hidden[i, place] + b)
        q = point.query(hidden[i, place])
        scores = [q @ point.key(hidden[i, j]) / math.sqrt(8) for j in range(5)]
        torch.testing.assert_close(point(hidden, places)[i], torch.stack(scores))


def test_a_tunable_is_the_head_on_the_bodys_states():
    trunk, tokens, places = untrained(), words(3, 6), torch.tensor([1, 5, 0])
    model = Tunable(linear_probe(trunk), PositionHead(D, 4, draw()))
    torch.testing.assert_close(model(tokens, places), model.head(trunk(tokens), places))
    assert trainable_count(model) == 4 * D + 4


# --- by name --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_states_of_its_width(method):
    trunk = untrained()
    body = make_body(method, trunk, draw())
    width = body_width(body, trunk)
    assert width == (D // 4 if method in ("ladder", "no_rungs") else D)
    assert body(words(2, 5)).shape == (2, 5, width)


def test_names_stand_for_the_functions():
    trunk = untrained()
    for method, function in MAKERS.items():
        options = {"adapter": {"bottleneck": 4}, "lora": {"rank": 4}, "prompt": {"prompts": 4}}
        body = make_body(method, trunk, draw(5), **options.get(method, {}))
        for a, b in zip(body.parameters(), function(trunk).parameters(), strict=True):
            assert torch.equal(a, b)
            assert a.requires_grad == b.requires_grad
    assert type(make_body("ladder", trunk, draw(), form="additive")) is LadderSideNetwork
    assert type(make_body("no_rungs", trunk, draw())) is NoRungs


# --- bad input ------------------------------------------------------------------------------------


def called(function, *args, **kwargs):
    return lambda: function(*args, **kwargs)


TRUNK = untrained()
STATES, PLACES = torch.zeros(2, 5, 8), torch.tensor([0, 4])
HEAD = PositionHead(8, 3, draw())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (called(full_tuning, "trunk"), TypeError, r"`trunk` must be a torch.nn.Module, got str"),
        (called(linear_probe, nn.ReLU()), ValueError, "`trunk` must have parameters"),
        (called(bitfit, nn.Linear(3, 3, bias=False)), ValueError, "for BitFit, it has none"),
        (called(adapter, TRUNK, 0, draw()), ValueError, "`bottleneck` must be at least 1"),
        (called(adapter, TRUNK, 4, 0), TypeError, "`generator` must be"),
        (called(adapter, TRUNK, 4, draw(), after="out"), TypeError, "a sequence of names"),
        (called(adapter, TRUNK, 4, draw(), after=()), ValueError, "`after` must name"),
        (called(adapter, TRUNK, 4, draw(), after=("out", "exit")), ValueError, r"\['exit'\]"),
        (called(lora, TRUNK, 0, draw()), ValueError, "`rank` must be at least 1"),
        (called(lora, TRUNK, 2.5, draw()), TypeError, "`rank` must be a whole number"),
        (called(lora, TRUNK, 2, draw(), alpha=-1.0), ValueError, "`alpha` must be positive"),
        (called(lora, TRUNK, 2, draw(), targets=("norm",)), ValueError, r"\['norm'\]"),
        (called(lora, TRUNK, 2, None), TypeError, "`generator` must be"),
        (called(prompt_tuning, nn.Linear(2, 2), 3, draw()), TypeError, "a lib.tuning.Trunk"),
        (called(prompt_tuning, TRUNK, 0, draw()), ValueError, "`prompts` must be at least 1"),
        (called(prompt_tuning, TRUNK, 3, 1), TypeError, "`generator` must be"),
        (called(make_body, "lst", TRUNK, draw()), ValueError, '`method` must be one of "full"'),
        (called(make_body, "full", None, draw()), TypeError, "`trunk` must be a lib.tuning.Trunk"),
        (called(make_body, "probe", TRUNK, draw(), rank=3), TypeError, r"no options, got \['rank'"),
        (called(make_body, "lora", TRUNK, draw(), prompts=3), TypeError, "prompts"),
        (called(Tunable, TRUNK, "head"), TypeError, "`head` must be a torch.nn.Module"),
        (called(Tunable, len, nn.ReLU()), TypeError, "`body` must be a torch.nn.Module"),
        (called(trainable, [1]), TypeError, "`model` must be a torch.nn.Module"),
        (called(PooledHead, 8, 1, draw()), ValueError, "`classes` must be at least 2"),
        (called(PositionHead, 0, 3, draw()), ValueError, "`width` must be at least 1"),
        (called(PointHead, 8, 3), TypeError, "`generator` must be"),
        (called(HEAD, STATES, None), TypeError, "`places` must be a torch.Tensor of int64"),
        (called(HEAD, STATES, PLACES.float()), TypeError, "of int64, got torch.float32"),
        (called(HEAD, STATES, PLACES[:1]), ValueError, r"must have shape \(2,\), one per window"),
        (called(HEAD, STATES, PLACES + 1), ValueError, "must lie in 0 … 4, got 5"),
        (called(HEAD, STATES, PLACES - 1), ValueError, "must lie in 0 … 4, got -1"),
    ],
)
def test_it_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_tokens_that_the_trunk_does_not_know_are_refused_by_every_method():
    for method in METHODS:
        body = make_body(method, TRUNK, draw())
        with pytest.raises(ValueError, match="`tokens` must lie in 0 … 29, got 30"):
            body(torch.tensor([[3, 30]]))
