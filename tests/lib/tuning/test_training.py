"""Fine-tuning: states computed once serve as the live trunk does, seeds are paired, it learns."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lib.attention.side_by_side import one_cycle
from lib.tuning import training
from lib.tuning.costs import count_operations, trainable_parameters
from lib.tuning.methods import METHODS
from lib.tuning.training import (
    CHUNK,
    HEADS,
    LEARNING_RATES,
    REUSING,
    Features,
    Rates,
    batches,
    descend,
    fine_tune,
    pretrain_together,
    trunk_features,
)
from lib.tuning.trunk import Trunk, TrunkConfig

SMALL = TrunkConfig(vocabulary=12, width=16, heads=2, layers=2, feed_forward=24)
N_TOKENS = 6
MASK = 1


@dataclass(frozen=True)
class Half:
    tokens: Tensor
    places: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Made:
    head: str
    classes: int
    train: Half
    test: Half


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def untrained(seed: int = 0) -> Trunk:
    return Trunk(SMALL, draw(seed))


def half(head: str, count: int, seed: int) -> Half:
    """Which of tokens 3, 4 and 5 stands at the place, or in the window, or where token 2 stands."""
    g = draw(seed)
    tokens = torch.randint(6, 12, (count, N_TOKENS), generator=g)
    places = torch.randint(N_TOKENS, (count,), generator=g)
    marks = torch.randint(3, (count,), generator=g)
    rows = torch.arange(count)
    if head == "point":
        there = (places + 1 + torch.randint(N_TOKENS - 1, (count,), generator=g)) % N_TOKENS
        tokens[rows, there] = 2
        return Half(tokens, places, there)
    tokens[rows, places] = 3 + marks
    return Half(tokens, places, marks)


def made(head: str = "position", train: int = 96, test: int = 50) -> Made:
    return Made(head, 3, half(head, train, 1), half(head, test, 2))


# --- states computed once -------------------------------------------------------------------------


def test_features_are_the_states_of_the_trunk():
    trunk, task = untrained(), made(test=CHUNK + 3)
    features = trunk_features(trunk, task)
    for levels, data in zip(features, (task.train, task.test), strict=True):
        assert len(levels) == SMALL.layers + 1
        x = trunk.embedding(data.tokens)
        for k, level in enumerate(levels):
            torch.testing.assert_close(level, x)
            assert not level.requires_grad
            x = trunk.blocks[k](x) if k < SMALL.layers else trunk.norm(x)
        torch.testing.assert_close(trunk.norm(levels[-1]), trunk(data.tokens))


LADDERS = [
    {"reduction": 2},
    {"reduction": 2, "form": "additive", "rungs": (1,)},
    {"reduction": 1, "normalise": True, "initial": "pruned", "heads": 2, "feed_forward": 24},
]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("method", "options"),
    [("probe", {}), ("no_rungs", {"reduction": 2}), *(("ladder", o) for o in LADDERS)],
)
def test_training_on_features_is_training_beside_the_live_trunk(head, method, options):
    trunk, task = untrained(), made(head)
    both = [
        fine_tune(method, trunk, task, [0, 1], steps=6, batch=8, features=f, **options)
        for f in (None, trunk_features(trunk, task))
    ]
    live, stored = both
    np.testing.assert_allclose(stored.losses, live.losses, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(stored.accuracy, live.accuracy, atol=1.1 / len(task.test.targets))
    assert stored.trained == live.trained


@pytest.mark.parametrize("method", REUSING)
def test_on_features_the_trunk_is_not_run(method):
    trunk, task = untrained(), made()
    features = trunk_features(trunk, task)
    options = {} if method == "probe" else {"reduction": 2}
    counted = {}
    for name, given_features in (("live", None), ("stored", features)):
        model = training._model(method, trunk, task, draw(), options)
        run = training._Run(model, trunk, task, given_features)
        counted[name] = count_operations(lambda run=run: run.loss(torch.arange(8)))
    saved = counted["live"].forward - counted["stored"].forward
    tokens = task.train.tokens[:8]
    with torch.no_grad():
        assert saved == count_operations(lambda: trunk(tokens).sum()).forward
    assert counted["live"].backward == counted["stored"].backward


# --- fine-tuning ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "head"),
    [*(("full", head) for head in HEADS), ("ladder", "position"), ("lora", "point")],
)
def test_it_learns(method, head):
    options = {"reduction": 2} if method == "ladder" else {}
    tuned = fine_tune(
        method, untrained(), made(head, train=300), [3], steps=150, batch=32, **options
    )
    assert tuned.losses[0, 0] > 0.9
    assert tuned.losses[0, -5:].mean() < 0.3
    assert tuned.accuracy[0] > 0.85


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("head", HEADS)
def test_what_is_reported_is_what_the_models_do(method, head):
    task = made(head)
    tuned = fine_tune(method, untrained(), task, [0, 5], steps=3, batch=4)
    assert tuned.method == method
    assert tuned.losses.shape == (2, 3)
    for model, accuracy in zip(tuned.models, tuned.accuracy, strict=True):
        assert not model.training
        with torch.no_grad():
            guesses = model(task.test.tokens, task.test.places).argmax(-1)
        assert accuracy == np.mean((guesses == task.test.targets).numpy())
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == tuned.trained
    width = SMALL.width // 4 if method in ("ladder", "no_rungs") else SMALL.width
    readout = 2 * width * (width + 1) if head == "point" else 3 * (width + 1)
    assert tuned.trained == trainable_parameters(method, SMALL) + readout


def test_the_trunk_is_left_as_it_is():
    trunk = untrained()
    before = copy.deepcopy(trunk.state_dict())
    for method in METHODS:
        fine_tune(method, trunk, made(), [0], steps=2)
    for method in REUSING:
        fine_tune(method, trunk, made(), [0], steps=2, features=trunk_features(trunk, made()))
    assert all(p.grad is None for p in trunk.parameters())
    for name, weight in trunk.state_dict().items():
        assert torch.equal(weight, before[name])


@pytest.mark.parametrize("method", ["full", "ladder", "lora"])
def test_a_seed_alone_is_the_seed_in_company(method):
    company = fine_tune(method, untrained(), made(), [4, 7], steps=5)
    alone = fine_tune(method, untrained(), made(), [7], steps=5)
    np.testing.assert_array_equal(alone.losses[0], company.losses[1])
    assert alone.accuracy[0] == company.accuracy[1]
    assert not np.array_equal(company.losses[0], company.losses[1])


def test_examples_and_order_depend_on_the_seed_alone(monkeypatch):
    seen = []

    def recorded(*args, **kwargs):
        for rows in batches(*args, **kwargs):
            seen.append(rows)
            yield rows

    monkeypatch.setattr(training, "batches", recorded)
    drawn = []
    for method, rate in (("full", 1e-3), ("ladder", 1e-2), ("probe", 0.1)):
        seen.clear()
        fine_tune(method, untrained(), made(), [2], steps=9, examples=20, learning_rate=rate)
        drawn.append(torch.cat(seen).tolist())
    assert drawn[0] == drawn[1] == drawn[2]
    assert len(set(drawn[0])) == 20
    assert set(drawn[0][:20]) == set(drawn[0][20:40])  # each epoch has them all


def test_the_rate_of_a_method_is_used_unless_another_is_given():
    runs = [
        fine_tune("probe", untrained(), made(), [0], steps=4, learning_rate=rate).losses
        for rate in (None, LEARNING_RATES["probe"]["position"], 1e-4)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0], runs[2])


@pytest.mark.parametrize("still", ["head", "body"])
def test_head_and_body_have_their_own_rates(still):
    rates = Rates(1e-12, 1e-2) if still == "head" else Rates(1e-2, 1e-12)
    settings = {"steps": 3, "batch": 8}
    model = fine_tune("full", untrained(), made(), [0], learning_rate=rates, **settings).models[0]
    first = training._model("full", untrained(), made(), draw(0), {})
    for part in ("head", "body"):
        moved = max(
            (a - b).abs().max().item()
            for a, b in zip(
                getattr(model, part).parameters(), getattr(first, part).parameters(), strict=True
            )
        )
        assert (moved < 1e-9) == (part == still)


def test_one_number_is_a_rate_for_both():
    both = [
        fine_tune("full", untrained(), made(), [0], steps=4, learning_rate=rate).losses
        for rate in (1e-3, Rates(1e-3, 1e-3))
    ]
    np.testing.assert_array_equal(*both)


def test_a_start_replaces_the_random_one():
    trunk, task = untrained(), made()
    first = fine_tune("ladder", trunk, task, [0], steps=2, reduction=2).models[0]
    start = first.body.state_dict()
    for features in (None, trunk_features(trunk, task)):
        again = fine_tune(
            "ladder",
            trunk,
            task,
            [1],
            steps=1,
            learning_rate=1e-9,
            features=features,
            start=start,
            reduction=2,
        )
        for name, weight in again.models[0].body.state_dict().items():
            torch.testing.assert_close(weight, start[name], rtol=0, atol=1e-7)


# --- batches --------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    count=st.integers(1, 20), size=st.integers(1, 9), first=st.integers(0, 50), seed=st.integers(0)
)
def test_batches_run_through_all_rows_before_any_comes_again(count, size, first, seed):
    rows = np.arange(first, first + count)
    stream = batches(rows, size, np.random.default_rng(seed))
    several = list(islice(stream, math.ceil(3 * count / size)))
    assert all(b.dtype == torch.int64 and b.shape == (size,) for b in several)
    flat = torch.cat(several).tolist()
    for k in range(3):
        assert sorted(flat[k * count : (k + 1) * count]) == rows.tolist()


def test_batches_are_copies_that_may_be_changed():
    stream = batches(np.arange(6), 3, np.random.default_rng(0))
    next(stream).fill_(-1)
    assert all(min(b.tolist()) >= 0 for b in islice(stream, 4))


# --- descend --------------------------------------------------------------------------------------


def test_the_first_step_is_the_rate_times_the_sign_and_each_group_has_its_own():
    a, b = (nn.Parameter(torch.tensor([3.0, -2.0])) for _ in range(2))
    target = torch.tensor([1.0, 1.0])
    groups = [([a], 0.1), (iter([b]), 0.01)]
    losses = descend(groups, lambda x: ((a - x) ** 2 + (b - x) ** 2).sum(), iter([target]), steps=1)
    assert losses.tolist() == [2 * (2.0**2 + 3.0**2)]
    first = one_cycle(0, 1)
    signs = torch.tensor([1.0, -1.0])
    torch.testing.assert_close(a.detach(), torch.tensor([3.0, -2.0]) - 0.1 * first * signs)
    torch.testing.assert_close(b.detach(), torch.tensor([3.0, -2.0]) - 0.01 * first * signs)


def test_it_is_adam_under_one_cycle_by_hand():
    torch.manual_seed(0)
    w = nn.Parameter(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64))
    scale = torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64)
    x, m, v = w.detach().clone().numpy(), np.zeros(3), np.zeros(3)
    got = descend([([w], 0.05)], lambda k: (scale * w**2).sum(), iter(range(6)), steps=6)
    for t in range(6):
        assert math.isclose(got[t], (scale.numpy() * x**2).sum(), rel_tol=1e-9)
        g = 2 * scale.numpy() * x
        g = g / max(1.0, np.linalg.norm(g) + 1e-6)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        step = m / (1 - 0.9 ** (t + 1)) / (np.sqrt(v / (1 - 0.99 ** (t + 1))) + 1e-8)
        x = x - 0.05 * one_cycle(t, 6) * step
    np.testing.assert_allclose(w.detach().numpy(), x, rtol=1e-9)


def test_the_steps_of_a_group_do_not_depend_on_another_groups_gradient():
    ends = []
    for other in (0.0, 1e6):
        a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
        descend(
            [([a], 0.1), ([b], 0.1)],
            lambda k, a=a, b=b, other=other: a.square().sum() + other * b.square().sum(),
            iter(range(5)),
            steps=5,
        )
        ends.append(a.detach())
    assert torch.equal(*ends)


def weight() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2))]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"groups": []}, ValueError, "there is nothing to train"),
        ({"groups": [([], 0.1)]}, ValueError, "there is nothing to train"),
        ({"groups": [(weight(), 0.0)]}, ValueError, "`learning_rate` must be positive"),
        ({"groups": [(weight(), math.nan)]}, ValueError, "`learning_rate` must be"),
        ({"steps": 0}, ValueError, "`steps` must be at least 1"),
        ({"order": iter([1])}, ValueError, "`order` must hold 3 batches, got 1"),
        ({"value": math.nan}, FloatingPointError, "not finite at step 0: nan"),
        ({"value": math.inf}, FloatingPointError, "a learning rate may be too large"),
    ],
)
def test_descend_refuses(change, error, message):
    weights = weight()
    settings = {"groups": [(weights, 0.1)], "order": iter(range(9)), "steps": 3, "value": 1.0}
    settings |= change
    value = settings.pop("value")
    groups, order = settings.pop("groups"), settings.pop("order")
    with pytest.raises(error, match=message):
        descend(groups, lambda k: weights[0].sum() * value, order, **settings)


def test_a_rate_that_is_too_large_is_named():
    with pytest.raises(FloatingPointError, match="not finite at step"):
        fine_tune("full", untrained(), made(), [0], steps=20, learning_rate=1e30)


# --- trunk and ladder together --------------------------------------------------------------------


def sentences(count: int = 64, seed: int = 0) -> Tensor:
    """Windows that go up by one: a hidden token follows from its neighbours."""
    first = torch.randint(10, (count, 1), generator=draw(seed))
    return 2 + (first + torch.arange(N_TOKENS)) % 10


def together(trunk: Trunk | None = None, **change):
    settings = {"steps": 4, "seed": 3, "batch": 8, "reduction": 2} | change
    return pretrain_together(trunk or untrained(), sentences(), MASK, **settings)


def test_a_copy_of_the_trunk_goes_on_and_the_ladder_stands_beside_it():
    trunk = untrained()
    before = copy.deepcopy(trunk.state_dict())
    got = together(trunk)
    for name, old in trunk.state_dict().items():
        assert torch.equal(old, before[name])
        assert not torch.equal(got.trunk.state_dict()[name], old), name
    assert not any(p.requires_grad for p in got.trunk.parameters())
    assert not got.trunk.training
    levels = [h[:5] for h in trunk_features(got.trunk, made()).train]
    beside = got.ladder(made().train.tokens[:5])
    torch.testing.assert_close(beside, got.ladder.from_states(levels))
    assert got.losses.shape == (4,)


def test_both_learn_to_guess_hidden_tokens():
    chance = 2 * math.log(10)
    losses = together(steps=150, trunk_rate=3e-3).losses
    assert losses[0] > 0.9 * chance
    assert losses[-10:].mean() < 0.6 * chance


def test_without_the_ladders_gradient_the_trunk_goes_on_as_if_alone():
    trunk = untrained()
    got = together(trunk, through=False)
    alone, g = copy.deepcopy(trunk), draw(3)
    training.make_body("ladder", trunk, g, reduction=2)  # what is drawn before the first batch
    training.linear(8, 16, g)
    tokens = sentences()

    def loss(rows: Tensor) -> Tensor:
        words = tokens[rows]
        where = torch.rand(words.shape, generator=g) < 0.2
        where[:, 0] |= ~where.any(1)
        hidden = torch.where(where, MASK, words)
        return F.cross_entropy(alone.logits(alone(hidden)[where]), words[where])

    order = batches(np.arange(64), 8, np.random.default_rng([training.HIDING, 3]))
    descend([(alone.parameters(), 3e-4)], loss, order, steps=4)
    for name, p in got.trunk.state_dict().items():
        torch.testing.assert_close(p, alone.state_dict()[name], rtol=0, atol=1e-6)


def test_the_ladders_gradient_reaches_the_trunk_unless_it_is_cut():
    apart = [together(ladder_rate=rate, through=False).trunk for rate in (1e-3, 1e-1)]
    joint = [together(ladder_rate=rate).trunk for rate in (1e-3, 1e-1)]
    for pair, same in ((apart, True), (joint, False)):
        a, b = (copied.state_dict() for copied in pair)
        assert all(torch.equal(a[name], b[name]) for name in a) == same


def test_both_arms_start_from_one_loss_and_one_seed():
    one, other, later = together(), together(through=False), together(seed=4)
    assert math.isclose(one.losses[0], other.losses[0], rel_tol=1e-6)
    np.testing.assert_array_equal(one.losses, together().losses)
    assert one.losses[0] != later.losses[0]


# --- bad input ------------------------------------------------------------------------------------


def called(function, *args, **kwargs):
    return lambda: function(*args, **kwargs)


def tune(method: str = "ladder", trunk: object = None, task: object = None, **change):
    settings = {"seeds": [0], "steps": 1} | change
    trunk = untrained() if trunk is None else trunk
    return lambda: fine_tune(method, trunk, made() if task is None else task, **settings)


TASK = made()
POINT = made("point")
GIVEN = trunk_features(untrained(), TASK)
OTHERS = trunk_features(untrained(1), TASK)
SHORT = replace(TASK, train=half("position", 40, 1))
BAD_TARGETS = replace(TASK, classes=2)
FLOATS = replace(TASK, test=replace(TASK.test, targets=TASK.test.targets.float()))
UNEVEN = replace(TASK, test=replace(TASK.test, places=TASK.test.places[1:]))
EMPTY = replace(TASK, train=Half(*(x[:0] for x in vars(TASK.train).values())))
FAR = replace(TASK, train=replace(TASK.train, places=TASK.train.places + N_TOKENS))
BAD_POINT = replace(POINT, test=replace(POINT.test, targets=POINT.test.targets + 9))
WORD = replace(TASK, test=replace(TASK.test, tokens=TASK.test.tokens + 1))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (tune("lst"), ValueError, '`method` must be one of "full"'),
        (tune(trunk=nn.Linear(2, 2)), TypeError, "`trunk` must be a lib.tuning.Trunk, got Linear"),
        (tune(task=replace(TASK, head="mean")), ValueError, '`task.head` must be one of "pooled"'),
        (tune(task=object()), ValueError, "`task.head` must be one of"),
        (tune(task=BAD_TARGETS), ValueError, r"`task.train.targets` must lie in 0 … 1, got 2"),
        (tune(task=BAD_POINT), ValueError, r"`task.test.targets` must lie in 0 … 5, got"),
        (tune(task=FLOATS), TypeError, "`task.test.targets` must be a tensor of int64"),
        (tune(task=UNEVEN), ValueError, "`task.test.places` must have 1 axes and a row for each"),
        (tune(task=EMPTY), ValueError, "`task.train.tokens` must have 2 axes"),
        (tune(task=FAR), ValueError, "`places` must lie in 0 … 5"),
        (tune(task=WORD), ValueError, "`tokens` must lie in 0 … 11, got 12"),
        (tune(steps=0), ValueError, "`steps` must be at least 1"),
        (tune(batch=0), ValueError, "`batch` must be at least 1"),
        (tune(examples=97), ValueError, "`examples` must be from 1 to 96, got 97"),
        (tune(examples=0), ValueError, "`examples` must be from 1 to 96, got 0"),
        (tune(learning_rate=-1), ValueError, "`learning_rate` must be positive"),
        (tune(learning_rate=Rates(0.1, 0)), ValueError, "`learning_rate` must be positive"),
        (tune(learning_rate=(0.1, 0.1, 0.1)), ValueError, "one number or two, head and body"),
        (tune(seeds=[]), ValueError, "`seeds` must name at least one seed"),
        (tune(seeds=3), TypeError, "`seeds` must be a sequence"),
        (tune(seeds=[-1]), ValueError, "`seeds` must be at least 0"),
        (tune(seeds=[0.5]), TypeError, "`seeds` must be a whole number"),
        (tune("lora", features=GIVEN), ValueError, "serve ladder, no_rungs, probe, .* got 'lora'"),
        (tune(features=list(GIVEN)), TypeError, "must be from trunk_features, got list"),
        (tune(task=SHORT, features=GIVEN), ValueError, r"`features.train` must be 3 states"),
        (tune(features=Features(*(h[:2] for h in GIVEN))), ValueError, "got 2 of"),
        (tune(features=OTHERS), ValueError, "`features.train` must be of `trunk` on `task`"),
        (tune(features=Features(GIVEN.train, OTHERS.test)), ValueError, "`features.test` must be"),
        (tune(start={"norm.weight": torch.ones(4)}), ValueError, "a state of the method's body"),
        (tune(start=[1]), ValueError, "`start` must be a state"),
        (tune("probe", features=GIVEN, start={}), ValueError, "not be given with `start`"),
        (tune("probe", rank=3), TypeError, "has no options"),
        (called(trunk_features, TASK, TASK), TypeError, "`trunk` must be a lib.tuning.Trunk"),
        (called(trunk_features, untrained(), None), ValueError, "`task.head` must be one of"),
        (called(batches, np.arange(0), 2, np.random.default_rng(0)), ValueError, "at least one"),
        (called(batches, np.arange(3), 0, np.random.default_rng(0)), ValueError, "`size` must be"),
        (called(batches, np.arange(3), 2, 0), TypeError, "`rng` must be a numpy.random.Generator"),
        (called(pretrain_together, 1, sentences(), 1, steps=1, seed=0), TypeError, "`trunk` must"),
        (called(together, steps=0), ValueError, "`steps` must be at least 1"),
        (called(together, batch=0), ValueError, "`batch` must be at least 1"),
        (called(together, seed=-1), ValueError, "`seed` must be at least 0"),
        (called(together, hidden=0.0), ValueError, "`hidden` must lie strictly between 0 and 1"),
        (called(together, trunk_rate=0.0), ValueError, "`learning_rate` must be positive"),
        (called(together, width=3), TypeError, "width"),
    ],
)
def test_it_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("tokens", "mask", "error", "message"),
    [
        (sentences() + 9, MASK, ValueError, "`tokens` must lie in 0 … 11"),
        (sentences()[:0], MASK, ValueError, "not be empty"),
        (sentences().float(), MASK, TypeError, "`tokens` must be of int64"),
        (sentences(), 12, ValueError, "`mask` must be from 0 to 11, got 12"),
    ],
)
def test_pretraining_refuses(tokens, mask, error, message):
    with pytest.raises(error, match=message):
        pretrain_together(untrained(), tokens, mask, steps=1, seed=0)
