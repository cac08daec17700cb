"""The small tagger and its arms: pairing, the losses' conventions, and that it learns at all."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lib import divergence as dv
from lib.data.nested_spans import SpanSentences
from lib.spans import training
from lib.spans.spans import Span, decode, exact_match, labels_of, span_mask
from lib.spans.tagging import flat_subset, to_bio
from lib.spans.training import (
    DIVERGENCES,
    HEADS,
    Adversarial,
    Distilled,
    Plain,
    RDrop,
    Tagger,
    TaggerConfig,
    Trained,
    measure,
    train,
)

OPEN, CLOSE = 1, 2
CONFIG = TaggerConfig(symbols=6, kinds=2, width=16, heads=2, head_width=8, dropout=0.2)
TINY = {"config": CONFIG, "steps": 3, "batch": 4, "sentences": 12}
SEEDS = (0, 1)


def brackets(rng, count, n=7):
    """Kind 0: from each opening symbol to its closing one; kind 1: each symbol 5 by itself."""
    tokens, lengths, spans = np.zeros((count, n), dtype=np.int64), [], []
    for row in tokens:
        length = int(rng.integers(4, n + 1))
        row[:length] = rng.integers(3, 6, length)
        i, j = sorted(rng.choice(length, 2, replace=False).tolist())
        row[i], row[j] = OPEN, CLOSE
        single = {(1, at, at) for at in np.flatnonzero(row == 5).tolist()}
        lengths.append(length)
        spans.append(frozenset({(0, i, j)} | single))
    words = tuple(
        tuple(map(str, row[:length])) for row, length in zip(tokens, lengths, strict=True)
    )
    return SpanSentences(tokens, np.array(lengths), tuple(spans), words)


POOL = brackets(np.random.default_rng(0), 40)
TEST = brackets(np.random.default_rng(1), 30)


def same(a, b):
    return all(torch.equal(a.parameters[name], b.parameters[name]) for name in a.parameters)


def alone(trained, s):
    """The tagger of one seed as an ordinary module."""
    model = Tagger(trained.config, torch.Generator().manual_seed(9))
    model.load_state_dict({name: p[s] for name, p in trained.parameters.items()})
    return model


@pytest.fixture(scope="module")
def plain():
    return train(POOL, seeds=SEEDS, **TINY)


# --- the tagger -----------------------------------------------------------------------------------


def test_padding_plays_no_part():
    model = Tagger(CONFIG, torch.Generator().manual_seed(0))
    embedded = torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([4, 7, 5])
    other = embedded.clone()
    other[0, 4:] = 9.0
    other[2, 5:] = -9.0
    mask = span_mask(lengths, 7)
    a, b = (model(x, lengths).masked_fill(~mask, 0.0) for x in (embedded, other))
    torch.testing.assert_close(a, b)


def test_first_weights_come_from_the_generator_alone():
    torch.manual_seed(0)
    a = Tagger(CONFIG, torch.Generator().manual_seed(5)).state_dict()
    torch.manual_seed(1)
    b = Tagger(CONFIG, torch.Generator().manual_seed(5)).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("head", HEADS)
def test_all_heads_train_and_predict(head):
    trained = train(POOL, seeds=SEEDS, **TINY | {"config": replace(CONFIG, head=head)})
    figures = measure(trained, TEST)
    assert trained.losses.shape == (3,)
    assert figures.f1.shape == (2,)
    assert ((figures.f1 >= 0) & (figures.f1 <= 1)).all()
    assert np.isnan(figures.inconsistency).all() == (trained.config.flat)


def test_scores_equal_those_of_each_tagger_by_itself(plain):
    tokens, lengths = torch.from_numpy(TEST.tokens), torch.from_numpy(TEST.lengths)
    together = plain.scores(tokens, lengths)
    for s in range(2):
        model = alone(plain, s)
        with torch.no_grad():
            by_itself = model(model.embedding[tokens], lengths)
        torch.testing.assert_close(together[s], by_itself, rtol=1e-4, atol=1e-5)


def test_a_tagger_learns_nested_brackets():
    trained = train(POOL, config=CONFIG, seeds=SEEDS, steps=150, batch=8, learning_rate=1e-2)
    assert (measure(trained, TEST).f1 > 0.8).all()
    assert trained.losses[-1] < 0.3 * trained.losses[0]


# --- pairing --------------------------------------------------------------------------------------


def test_the_same_call_gives_the_same_taggers(plain):
    assert same(plain, train(POOL, Plain(), seeds=SEEDS, **TINY))


@pytest.mark.parametrize("arm", [Plain(), RDrop("sigmoid", 1.0)])
def test_a_seed_in_company_equals_the_seed_alone(arm):
    both = train(POOL, arm, seeds=(3, 4), **TINY)
    for s, seed in enumerate((3, 4)):
        one = train(POOL, arm, seeds=(seed,), **TINY)
        for name, p in one.parameters.items():
            torch.testing.assert_close(both.parameters[name][s], p[0], rtol=1e-3, atol=1e-4)


def test_two_passes_of_no_dropout_are_one(plain):
    still = TINY | {"config": replace(CONFIG, dropout=0.0)}
    one = train(POOL, Plain(), seeds=SEEDS, **still)
    two = train(POOL, RDrop("sigmoid", 5.0), seeds=SEEDS, **still)
    for name, p in one.parameters.items():
        torch.testing.assert_close(two.parameters[name], p, rtol=1e-4, atol=1e-5)
    assert not same(one, plain)


@pytest.mark.parametrize("arm", [Adversarial(weight=0.0), "distilled"])
def test_a_weight_of_0_leaves_the_plain_arm(arm, plain):
    arm = Distilled(plain, weight=0.0) if arm == "distilled" else arm
    assert same(train(POOL, arm, seeds=SEEDS, **TINY), plain)


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("kind", [RDrop, Adversarial])
def test_every_divergence_changes_the_taggers(kind, name, plain):
    trained = train(POOL, kind(name, 2.0), seeds=SEEDS, **TINY)
    assert not same(trained, plain)
    assert all(torch.isfinite(p).all() for p in trained.parameters.values())


# --- conventions ----------------------------------------------------------------------------------


def first_step(arm, seed=0):
    """Loss before the first step, and what enters it, for a single seed."""
    noise, run = [], []

    class Spy(training._Noise):
        def __call__(self, embedded, which):
            noise.append(super().__call__(embedded, which))
            return noise[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_Noise", Spy)
        kept = training._batches

        def spied(*given):
            for batch in kept(*given):
                run.append(batch)
                yield batch

        patch.setattr(training, "_batches", spied)
        loss = train(POOL, arm, seeds=(seed,), **TINY | {"steps": 1}).losses[0]
    return loss, run[0], noise


@pytest.mark.parametrize(
    ("name", "divergence"),
    [
        ("sigmoid", lambda s, t: ((s.sigmoid() - t.sigmoid()) * (s - t)).sum()),
        ("squared", lambda s, t: ((s - t) ** 2).sum()),
        ("softmax", lambda s, t: ((s.softmax(0) - t.softmax(0)) * (s - t)).sum()),
        (
            "threshold softmax",
            lambda s, t: ((with_zero(s).softmax(0) - with_zero(t).softmax(0))[:-1] * (s - t)).sum(),
        ),
    ],
)
def test_the_loss_of_r_drop_written_out(name, divergence):
    loss, batch, noise = first_step(RDrop(name, 3.0))
    model = Tagger(CONFIG, torch.Generator().manual_seed(0))
    tokens, lengths, labels = batch.tokens[0], batch.lengths[0], batch.labels[0]
    with torch.no_grad():
        s, t = (model(model.embedding[tokens], lengths, one[0]) for one in noise)
    total = 0.0
    for b, length in enumerate(lengths.tolist()):
        cells = torch.ones(length, length, dtype=torch.bool).triu()
        for k in range(2):
            one, two = (x[b, k, :length, :length][cells].double() for x in (s, t))
            gold = labels[b, k, :length, :length][cells]
            tasks = [
                (1 + x[~gold].exp().sum()).log() + (1 + (-x[gold]).exp().sum()).log()
                for x in (one, two)
            ]
            total += sum(tasks) / 2 + 3.0 / 4 * divergence(one, two)
    assert loss == pytest.approx(float(total) / (len(lengths) * 2), rel=1e-4)


def with_zero(x):
    return torch.cat([x, torch.zeros(1, dtype=x.dtype)])


def single(plain):
    parameters = {name: p[:1] for name, p in plain.parameters.items()}
    return Trained(plain.config, (0,), parameters, plain.losses)


def test_distillation_adds_a_quarter_of_the_weighted_divergence(plain):
    base = first_step(Plain())[0]
    loss, batch, noise = first_step(Distilled(single(plain), weight=2.0, temperature=3.0))
    assert loss > base
    model, teacher = Tagger(CONFIG, torch.Generator().manual_seed(0)), alone(plain, 0)
    tokens, lengths = batch.tokens[0], batch.lengths[0]
    with torch.no_grad():
        s = model(model.embedding[tokens], lengths, noise[0][0])
        t = teacher(teacher.embedding[tokens], lengths)
        apart = dv.globalpointer_divergence(s / 3, t / 3, batch.mask[0]).mean()
    assert loss - base == pytest.approx(9 * 2.0 / 4 * float(apart), rel=1e-3)


def test_one_teacher_may_serve_all_seeds(plain):
    teacher = single(plain)
    trained = train(POOL, Distilled(teacher), seeds=SEEDS, **TINY)
    assert trained.parameters["embedding"].shape == (2, 6, 16)


def test_flat_heads_learn_the_outermost_spans():
    spans = [frozenset({Span(0, 0, 4), Span(1, 1, 1), Span(0, 2, 3)})]
    lengths = torch.tensor([5])
    one, _ = training._targets(spans, replace(CONFIG, head="crf"), lengths, 6)
    each, _ = training._targets(spans, replace(CONFIG, head="bio per kind"), lengths, 6)
    assert torch.equal(one, to_bio([{Span(0, 0, 4)}], 2, 6))
    assert torch.equal(each, to_bio([{Span(0, 0, 4), Span(1, 1, 1)}], 2, 6, per_kind=True))


def test_strong_consistency_makes_passes_agree(plain):
    steps = TINY | {"steps": 30}
    free = measure(train(POOL, RDrop("sigmoid", 0.0), seeds=SEEDS, **steps), TEST)
    held = measure(train(POOL, RDrop("sigmoid", 10.0), seeds=SEEDS, **steps), TEST)
    assert (held.inconsistency < 0.5 * free.inconsistency).all()


# --- measuring ------------------------------------------------------------------------------------


def test_figures_are_those_of_the_decoded_scores(plain):
    figures = measure(plain, TEST)
    tokens, lengths = torch.from_numpy(TEST.tokens), torch.from_numpy(TEST.lengths)
    mask = span_mask(lengths, tokens.shape[1])
    labels = labels_of(TEST.spans, 2, tokens.shape[1])
    for s, scores in enumerate(plain.scores(tokens, lengths)):
        found = (scores > 0) & mask
        right, p, g = (int(x.sum()) for x in (found & labels, found, labels))
        assert figures.recall[s] == pytest.approx(right / g)
        assert figures.f1[s] == pytest.approx(2 * right / (p + g))
        flat = measure(plain, TEST, view=flat_subset).f1[s]
        assert flat == exact_match(flat_subset(TEST.spans), flat_subset(decode(scores, mask))).f1


def test_inconsistency_is_0_without_dropout():
    trained = train(POOL, seeds=SEEDS, **TINY | {"config": replace(CONFIG, dropout=0.0)})
    np.testing.assert_array_equal(measure(trained, TEST).inconsistency, 0.0)


def test_measuring_twice_gives_the_same(plain):
    a, b = measure(plain, TEST), measure(plain, TEST)
    np.testing.assert_array_equal(a.inconsistency, b.inconsistency)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"symbols": 0}, "`symbols` must be at least 1"),
        ({"width": 18}, "`width` must be a multiple of twice `heads`"),
        ({"dropout": 1.0}, "`dropout` must be below 1"),
        ({"dropout": -0.1}, "`dropout` must lie in"),
        ({"head": "linear"}, "`head` must be one of"),
    ],
)
def test_config_refuses(given, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **given)


@pytest.mark.parametrize("kind", [RDrop, Adversarial])
def test_arms_refuse(kind, plain):
    with pytest.raises(ValueError, match="`divergence` must be one of"):
        kind("cosine")
    with pytest.raises(ValueError, match="`weight` must lie in"):
        kind("sigmoid", -1.0)
    with pytest.raises(ValueError, match="`radius` must be positive"):
        Adversarial(radius=0.0)
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        Distilled(plain, temperature=0.0)
    with pytest.raises(TypeError, match="`teacher` must be Trained"):
        Distilled("plain")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"seeds": ()}, ValueError, "`seeds` must be different numbers"),
        ({"seeds": (1, 1)}, ValueError, "`seeds` must be different numbers"),
        ({"sentences": 41}, ValueError, "`sentences` must be from 1 to 40"),
        ({"batch": 13}, ValueError, "`batch` must be from 1 to 12"),
        ({"steps": 0}, ValueError, "`steps` must be at least 1"),
        ({"learning_rate": 0.0}, ValueError, "`learning_rate` must be positive"),
        ({"config": "small"}, TypeError, "`config` must be a TaggerConfig"),
        ({"config": replace(CONFIG, symbols=5)}, ValueError, "`tokens` must lie in 0 … 4"),
        ({"arm": "plain"}, TypeError, "`arm` must be Plain"),
        (
            {"arm": RDrop(), "config": replace(CONFIG, head="bio")},
            ValueError,
            "`arm` must be Plain with a flat head",
        ),
    ],
)
def test_train_refuses(given, error, message):
    with pytest.raises(error, match=message):
        train(POOL, **{"seeds": SEEDS, **TINY, **given})


def test_a_teacher_must_fit(plain):
    other = TINY | {"config": replace(CONFIG, kinds=3)}
    with pytest.raises(ValueError, match=r"`teacher` must know \(symbols, kinds\)"):
        train(POOL, Distilled(plain), seeds=SEEDS, **other)
    with pytest.raises(ValueError, match="`teacher` must have 1 or 3 seeds"):
        train(POOL, Distilled(plain), seeds=(0, 1, 2), **TINY)
    flat = train(POOL, seeds=SEEDS, **TINY | {"config": replace(CONFIG, head="bio")})
    with pytest.raises(ValueError, match="`teacher` must score spans"):
        train(POOL, Distilled(flat), seeds=SEEDS, **TINY)


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        (lambda spans: spans[:-1], "`spans` must hold 40 sets, got 39"),
        (lambda spans: [{(CONFIG.kinds, 0, 0)}, *spans[1:]], "`spans` must hold kinds from 0 to"),
        (lambda spans: [{(0, 0, 99)}, *spans[1:]], "`spans` must hold spans inside"),
    ],
    ids=["one too few", "an unknown kind", "outside of its sentence"],
)
def test_spans_must_fit_their_sentences(plain, spans, message):
    wrong = SimpleNamespace(tokens=POOL.tokens, lengths=POOL.lengths, spans=spans(list(POOL.spans)))
    with pytest.raises(ValueError, match=message):
        train(wrong, seeds=SEEDS, **TINY)
    with pytest.raises(ValueError, match=message):
        measure(plain, wrong)


def test_trained_refuses(plain):
    with pytest.raises(ValueError, match="`tokens` must be whole numbers"):
        plain.scores(TEST.tokens.astype(float), TEST.lengths)
    with pytest.raises(ValueError, match="`lengths` must name 30 sentences"):
        plain.scores(TEST.tokens, TEST.lengths[:-1])
    for bad in (0, -1, TEST.tokens.shape[1] + 1):
        with pytest.raises(ValueError, match="`lengths` must lie from 1 to n"):
            plain.scores(TEST.tokens, np.full_like(TEST.lengths, bad))
    flat = train(POOL, seeds=SEEDS, **TINY | {"config": replace(CONFIG, head="bio")})
    with pytest.raises(ValueError, match="`head` must be one that scores spans"):
        flat.scores(TEST.tokens, TEST.lengths)
    with pytest.raises(TypeError, match="`trained` must be Trained"):
        measure("plain", TEST)
    with pytest.raises(TypeError, match="`config` must be a TaggerConfig"):
        Tagger("small", torch.Generator())
