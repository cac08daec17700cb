"""Tags and their ceiling by brute force, and both taggers by the sum over all sequences."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call, grad, stack_module_state, vmap

from lib.spans import (
    BioTagger,
    CrfTagger,
    Span,
    exact_match,
    flat_ceiling,
    flat_subset,
    from_bio,
    to_bio,
)

N, K, D = 5, 2, 6
TAGGERS = {"bio": BioTagger, "crf": CrfTagger}
BOTH = pytest.mark.parametrize("name", TAGGERS)
LAYERS = pytest.mark.parametrize("per_kind", [False, True], ids=["one", "per_kind"])
CELLS = [Span(k, i, j) for k in range(K) for i in range(N) for j in range(i, N)]
SETS = st.lists(st.frozensets(st.sampled_from(CELLS), max_size=7), min_size=1, max_size=3)


def overlap(a: Span, b: Span, per_kind: bool) -> bool:
    """Whether two different spans want the same token of one layer."""
    tokens = [set(range(s.start, s.end + 1)) for s in (a, b)]
    return bool(tokens[0] & tokens[1]) and not (per_kind and a.kind != b.kind)


def is_flat(spans, per_kind: bool) -> bool:
    return not any(overlap(a, b, per_kind) for a, b in itertools.combinations(spans, 2))


def tagger(name: str, seed: int = 0, *, per_kind: bool = False, kinds: int = K):
    draw = torch.Generator().manual_seed(seed)
    made = TAGGERS[name](D, kinds, draw, per_kind=per_kind).double()
    with torch.no_grad():  # what starts at 0 could be forgotten unseen
        for parameter in made.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    return made


def states(seed: int, batch: int = 2, n: int = 4) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(batch, n, D, generator=draw, dtype=torch.float64)


def any_tags(made, seed: int, batch: int = 2, n: int = 4) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(made.tags, (batch, made.layers, n), generator=draw)


# --- spans without overlap ------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(SETS, st.booleans())
def test_the_ceiling_by_trying_all_subsets(gold, per_kind):
    best = [
        max(
            len(some)
            for size in range(len(spans) + 1)
            for some in itertools.combinations(spans, size)
            if is_flat(some, per_kind)
        )
        for spans in gold
    ]
    total = sum(map(len, gold))
    assert flat_ceiling(gold, per_kind) == (sum(best) / total if total else 1.0)


@settings(max_examples=60, deadline=None)
@given(SETS, st.booleans(), st.sampled_from(["longest", "most"]))
def test_what_is_kept_survives_the_tags(gold, per_kind, keep):
    kept = flat_subset(gold, per_kind, keep=keep)
    lengths = torch.full((len(gold),), N)
    tags = to_bio(kept, K, N, per_kind=per_kind, lengths=lengths)
    assert tags.shape == (len(gold), K if per_kind else 1, N)
    assert from_bio(tags, lengths, K, per_kind=per_kind) == kept
    for some, spans in zip(kept, gold, strict=True):
        assert some <= spans
        assert is_flat(some, per_kind)
        for other in spans - some:  # nothing that would still fit is left out
            assert any(overlap(other, span, per_kind) for span in some)


@settings(max_examples=40, deadline=None)
@given(SETS, st.booleans())
def test_the_ceiling_is_reached(gold, per_kind):
    most = flat_subset(gold, per_kind, keep="most")
    if any(gold):
        match = exact_match(gold, most)
        assert match.recall == flat_ceiling(gold, per_kind)
        assert match.precision == 1
    assert flat_ceiling(gold, per_kind=True) >= flat_ceiling(gold, per_kind=False)
    assert exact_match(gold, flat_subset(gold, per_kind)).recall <= flat_ceiling(gold, per_kind)


def test_the_longest_are_the_outermost():
    nested = {Span(0, 0, 4), Span(1, 0, 2), Span(0, 1, 2), Span(1, 4, 4)}
    assert flat_subset([nested]) == [{Span(0, 0, 4)}]
    assert flat_subset([nested], per_kind=True) == [{Span(0, 0, 4), Span(1, 0, 2), Span(1, 4, 4)}]
    # of equal length: the left one, then the lower kind
    assert flat_subset([{Span(0, 1, 2), Span(1, 0, 1), Span(0, 0, 1)}]) == [{Span(0, 0, 1)}]


def test_the_ceiling_of_a_known_sentence():
    # a call inside a call inside a call, and an attribute at its heart
    gold = [{Span(0, 0, 8), Span(0, 2, 7), Span(0, 4, 6), Span(1, 4, 5)}]
    assert flat_ceiling(gold) == 1 / 4
    assert flat_ceiling(gold, per_kind=True) == 2 / 4
    assert flat_ceiling([{Span(0, 0, 0), Span(0, 1, 2)}, set()]) == 1
    assert flat_ceiling([set()]) == 1
    assert flat_ceiling([iter(gold[0])]) == 1 / 4  # read once


# --- tags -----------------------------------------------------------------------------------------


def test_neighbours_stay_apart():
    spans = [{Span(0, 0, 0), Span(0, 1, 2), Span(1, 3, 4)}]
    assert to_bio(spans, K, N).tolist() == [[[1, 1, 2, 3, 4]]]
    assert to_bio(spans, K, N, per_kind=True).tolist() == [[[1, 1, 2, 0, 0], [0, 0, 0, 1, 2]]]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0, 2, 2, 0, 0], {(0, 1, 2)}),  # I after O
        ([4, 4, 0, 2, 0], {(1, 0, 1), (0, 3, 3)}),  # I at the start
        ([1, 4, 4, 2, 2], {(0, 0, 0), (1, 1, 2), (0, 3, 4)}),  # I of another kind
        ([1, 2, 1, 2, 2], {(0, 0, 1), (0, 2, 4)}),
        ([0, 0, 0, 0, 3], {(1, 4, 4)}),
        ([0, 0, 0, 0, 0], set()),
    ],
)
def test_tags_that_are_not_well_formed(row, expected):
    assert from_bio(torch.tensor([[row]]), torch.tensor([N]), K) == [expected]


def test_tags_in_the_padding_are_not_read():
    tags = torch.tensor([[[1, 2, 2, 99, -7]]])
    assert from_bio(tags, torch.tensor([2]), K) == [{(0, 0, 1)}]


@pytest.mark.parametrize(
    ("spans", "per_kind"),
    [
        ([Span(0, 0, 3), Span(0, 1, 2)], True),
        ([Span(0, 0, 3), Span(1, 1, 2)], False),
        ([Span(0, 0, 1), Span(0, 1, 2)], True),
        ([Span(0, 1, 1), Span(1, 1, 1)], False),
    ],
)
def test_overlapping_spans_have_no_tags(spans, per_kind):
    with pytest.raises(ValueError, match=r"`spans` must not overlap within a layer.*flat_subset"):
        to_bio([spans], K, N, per_kind=per_kind)


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ((0, 3, 2), "start <= end"),
        ((K, 0, 0), f"kinds from 0 to {K - 1}"),
        ((0, 0, N), f"of {N} tokens"),
        ((0, 0, 3), "of 3 tokens"),
    ],
)
def test_spans_that_have_no_tags(span, message):
    with pytest.raises(ValueError, match=message):
        to_bio([[span]], K, N, lengths=None if "of 3" not in message else torch.tensor([3]))


@pytest.mark.parametrize(
    ("tags", "error", "message"),
    [
        (torch.zeros(1, 1, N), TypeError, "tensor of int64"),
        ([[[0]]], TypeError, "tensor of int64, got list"),
        (torch.zeros(1, N, dtype=torch.int64), ValueError, r"shape \(B, 1, n\)"),
        (torch.zeros(1, 1, 0, dtype=torch.int64), ValueError, "none of them 0"),
        (torch.zeros(1, 2, N, dtype=torch.int64), ValueError, r"= \(1, 1, 5\), got \(1, 2, 5\)"),
        (torch.full((1, 1, N), 5), ValueError, "from 0 to 4, got 5"),
        (torch.full((1, 1, N), -1), ValueError, "from 0 to 4, got -1"),
    ],
)
def test_what_are_no_tags(tags, error, message):
    with pytest.raises(error, match=f"`tags` must .*{message}"):
        from_bio(tags, torch.tensor([N]), K)


@pytest.mark.parametrize("lengths", [[0], [N + 1], [1, 2]])
def test_lengths_that_do_not_fit_tags(lengths):
    with pytest.raises(ValueError, match="`lengths` must"):
        from_bio(torch.zeros(1, 1, N, dtype=torch.int64), torch.tensor(lengths), K)


def test_settings_of_other_kinds():
    with pytest.raises(ValueError, match="`keep` must be one of"):
        flat_subset([[]], keep="shortest")
    for call in (
        lambda: flat_ceiling([[]], "yes"),
        lambda: flat_subset([[]], 1),
        lambda: to_bio([[]], K, N, per_kind=None),
        lambda: from_bio(torch.zeros(1, 1, 1).long(), torch.tensor([1]), K, per_kind=0),
        lambda: CrfTagger(D, K, torch.Generator(), per_kind="no"),
    ):
        with pytest.raises(TypeError, match="`per_kind` must be True or False"):
            call()
    for call in (lambda: flat_ceiling([]), lambda: flat_subset([]), lambda: to_bio([], K, N)):
        with pytest.raises(ValueError, match="at least one sentence"):
            call()


# --- taggers against all sequences ----------------------------------------------------------------


def score(made, scores: torch.Tensor, layer: int, path: tuple[int, ...]) -> float:
    """Score of one sequence of tags, term by term; `scores` is (n, T)."""
    total = sum(scores[at, tag].item() for at, tag in enumerate(path))
    if isinstance(made, CrfTagger):
        field = made.fields[layer]
        total += field.start_transitions[path[0]].item() + field.end_transitions[path[-1]].item()
        total += sum(field.transitions[a, b].item() for a, b in itertools.pairwise(path))
    return total


def all_paths(made, scores: torch.Tensor, layer: int) -> dict[tuple[int, ...], float]:
    paths = itertools.product(range(made.tags), repeat=len(scores))
    return {path: score(made, scores, layer, path) for path in paths}


@BOTH
@LAYERS
def test_loss_and_prediction_by_trying_all_sequences(name, per_kind):
    made = tagger(name, per_kind=per_kind)
    hidden, lengths, tags = states(1), torch.tensor([4, 2]), any_tags(made, 2)
    emissions = made(hidden)
    assert emissions.shape == (2, made.layers, 4, made.tags)
    losses, best = [], torch.zeros_like(tags)
    for b, length in enumerate(lengths.tolist()):
        for layer in range(made.layers):
            paths = all_paths(made, emissions[b, layer, :length], layer)
            total = math.log(sum(math.exp(value) for value in paths.values()))
            losses.append(total - paths[tuple(tags[b, layer, :length].tolist())])
            best[b, layer, :length] = torch.tensor(max(paths, key=paths.__getitem__))
    found = made.loss(hidden, lengths, tags).item()
    assert math.isclose(found, sum(losses) / len(losses), rel_tol=1e-12)
    assert made.predict(hidden, lengths) == from_bio(best, lengths, K, per_kind=per_kind)


@LAYERS
def test_without_transitions_the_field_is_a_softmax(per_kind):
    draws = [torch.Generator().manual_seed(3) for _ in range(2)]
    plain, field = (
        made(D, K, g, per_kind=per_kind)
        for made, g in zip((BioTagger, CrfTagger), draws, strict=True)
    )
    hidden, lengths = states(4).float(), torch.tensor([3, 4])
    tags = any_tags(plain, 5)
    torch.testing.assert_close(field.loss(hidden, lengths, tags), plain.loss(hidden, lengths, tags))
    assert field.predict(hidden, lengths) == plain.predict(hidden, lengths)


@BOTH
@LAYERS
def test_padding_plays_no_part(name, per_kind):
    made = tagger(name, per_kind=per_kind)
    hidden, lengths, tags = states(6), torch.tensor([2, 2]), any_tags(made, 7)
    short = made.loss(hidden[:, :2], lengths, tags[..., :2])
    tags[..., 2:] = 99
    hidden[:, 2:] = 1e3
    hidden.requires_grad_()
    long = made.loss(hidden, lengths, tags)
    torch.testing.assert_close(long, short)
    assert made.predict(hidden, lengths) == made.predict(hidden[:, :2], lengths)
    long.backward()
    assert (hidden.grad[:, 2:] == 0).all()
    assert hidden.grad.isfinite().all()


@BOTH
@LAYERS
def test_gradients_by_differences(name, per_kind):
    made = tagger(name, per_kind=per_kind)
    lengths, tags = torch.tensor([3, 1]), any_tags(made, 8, n=3)
    keys = [key for key, _ in made.named_parameters()]

    def loss(hidden, *values):
        class_loss = _Loss(made)
        named = {f"head.{key}": value for key, value in zip(keys, values, strict=True)}
        return functional_call(class_loss, named, (hidden, lengths, tags))

    inputs = (states(9, n=3), *(p.detach().clone() for p in made.parameters()))
    assert torch.autograd.gradcheck(loss, tuple(x.requires_grad_() for x in inputs))


class _Loss(torch.nn.Module):
    """functional_call calls `forward`; here it is the loss."""

    def __init__(self, head: torch.nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, hidden, lengths, tags):
        return self.head.loss(hidden, lengths, tags)


@BOTH
@LAYERS
def test_several_taggers_at_once(name, per_kind):
    made = [_Loss(tagger(name, seed, per_kind=per_kind)) for seed in range(3)]
    parameters, _ = stack_module_state(made)
    lengths = torch.tensor([4, 2])
    hidden = torch.stack([states(seed) for seed in range(3)])
    tags = torch.stack([any_tags(made[0].head, seed) for seed in range(3)])

    def loss(parameters, hidden, tags):
        return functional_call(made[0], parameters, (hidden, lengths, tags))

    found = vmap(grad(loss))(parameters, hidden, tags)
    for at, each in enumerate(made):
        each(hidden[at], lengths, tags[at]).backward()
        for key, parameter in each.named_parameters():
            torch.testing.assert_close(found[key][at], parameter.grad)


def test_lengths_of_their_own_for_several_taggers_at_once():
    """The plain head can; pytorch-crf looks at values that vmap hides."""
    lengths = torch.tensor([[4, 2], [3, 4]])
    hidden = torch.stack([states(seed) for seed in range(2)])

    def losses(made):
        parameters, _ = stack_module_state(made)
        tags = torch.stack([any_tags(made[0].head, seed) for seed in range(2)])
        each = [m(*x) for m, *x in zip(made, hidden, lengths, tags, strict=True)]
        found = vmap(lambda p, *x: functional_call(made[0], p, x))(
            parameters, hidden, lengths, tags
        )
        torch.testing.assert_close(found, torch.stack(each))

    losses([_Loss(tagger("bio", seed)) for seed in range(2)])
    with pytest.raises(ValueError, match="`lengths` must be the same for all models"):
        losses([_Loss(tagger("crf", seed)) for seed in range(2)])


@BOTH
def test_learns_what_tags_can_say(name):
    """Each token's state names its tag: both heads find all spans after a few steps."""
    spans = [{Span(0, 0, 1), Span(1, 3, 3)}, {Span(1, 0, 2)}]
    lengths, tags = torch.tensor([4, 3]), to_bio(spans, K, 4)
    hidden = torch.nn.functional.one_hot(tags[:, 0], D).double()
    made = tagger(name)
    optimiser = torch.optim.Adam(made.parameters(), lr=0.3)
    for _ in range(40):
        optimiser.zero_grad()
        loss = made.loss(hidden, lengths, tags)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1
    assert made.predict(hidden, lengths) == spans


@pytest.mark.parametrize("per_kind", [False, True])
def test_numbers_of_parameters(per_kind):
    kinds = 5
    tags, layers = (3, kinds) if per_kind else (1 + 2 * kinds, 1)
    affine = (D + 1) * tags * layers
    count = {
        name: sum(p.numel() for p in tagger(name, per_kind=per_kind, kinds=kinds).parameters())
        for name in TAGGERS
    }
    assert count == {"bio": affine, "crf": affine + layers * (tags**2 + 2 * tags)}


@BOTH
def test_weights_come_from_the_generator_alone(name):
    before = torch.get_rng_state()
    one, same = (tagger(name, 1, per_kind=True) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(one.parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b)


@BOTH
def test_weights_can_be_stored(name):
    one, other = (tagger(name, seed, per_kind=True) for seed in (1, 2))
    other.load_state_dict(one.state_dict())
    hidden, lengths = states(3), torch.tensor([4, 4])
    assert one.predict(hidden, lengths) == other.predict(hidden, lengths)


# --- input that can't be meant --------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("lengths", [[0, 3], [3, 5], [-1, 2], [3], [3, 3, 3], []])
def test_lengths_that_do_not_fit(name, lengths):
    made = tagger(name)
    lengths = torch.tensor(lengths, dtype=torch.int64)
    with pytest.raises(ValueError, match="`lengths` must"):
        made.loss(states(1), lengths, any_tags(made, 1))
    with pytest.raises(ValueError, match="`lengths` must"):
        made.predict(states(1), lengths)


@BOTH
def test_tags_that_do_not_fit(name):
    made = tagger(name)
    lengths, tags = torch.tensor([4, 3]), any_tags(made, 1)
    for bad in (tags[:1], tags[..., :3], tags.repeat(1, 2, 1), tags + made.tags, tags - 10):
        with pytest.raises(ValueError, match="`tags` must"):
            made.loss(states(1), lengths, bad)
    with pytest.raises(TypeError, match="`tags` must be a tensor of int64"):
        made.loss(states(1), lengths, tags.double())


@BOTH
def test_states_that_do_not_fit(name):
    made = tagger(name)
    lengths = torch.tensor([4, 4])
    for bad in (states(1)[..., :-1], states(1)[0], states(1)[:0], states(1) * torch.inf):
        with pytest.raises(ValueError, match="`hidden` must"):
            made.predict(bad, lengths)
    with pytest.raises(TypeError, match="`hidden` must"):
        made.predict(states(1).long(), lengths)


@BOTH
def test_sizes_that_can_not_be_meant(name):
    draw = torch.Generator()
    for width, kinds in ((0, K), (D, 0)):
        with pytest.raises(ValueError, match="must be at least 1"):
            TAGGERS[name](width, kinds, draw)
    with pytest.raises(TypeError, match="`generator` must be"):
        TAGGERS[name](D, K, 0)
