"""The encoder: what it can tell apart on equal tokens, its masks and markers, and oracles."""

from __future__ import annotations

import doctest
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from lib.attention import encoder
from lib.attention.encoder import Encoder, EncoderConfig
from lib.attention.normalisations import NORMALISATIONS
from lib.attention.positions import ABSOLUTE, SCHEMES

FLAWED = ("none", "bias", "t5", "alibi", "rope", "shaw_k", "xl", "deberta")
RELATIVE = tuple(s for s in SCHEMES if s not in ABSOLUTE)
SMALL = EncoderConfig(symbols=7, outputs=3, width=24, heads=3, feed_forward=48, max_length=16)


def made(seed: int = 0, config: EncoderConfig = SMALL, **changes) -> Encoder:
    """An encoder in double precision; URPE's factor, all ones at first, is drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    model = Encoder(replace(config, **changes), generator).double()
    with torch.no_grad():
        for layer in model.layers:
            if layer.toeplitz is not None:
                layer.toeplitz.g.normal_(1.0, 0.5, generator=generator)
    return model


def words(*shape: int, seed: int = 0, symbols: int = 7) -> Tensor:
    return torch.randint(symbols, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def on_equal_tokens(model: Encoder, n: int = 32) -> Tensor:
    """Outputs on n equal tokens, shape (n, outputs)."""
    return model(torch.zeros(1, n, dtype=torch.int64))[0]


def deviation(y: Tensor) -> float:
    return float((y - y[0]).abs().max())


def asymmetry(y: Tensor) -> float:
    return float((y - y.flip(0)).abs().max())


def close(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() < tolerance)


# --- the flaw, and what escapes it ----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("position", FLAWED)
def test_places_of_equal_tokens_are_indistinguishable(position, causal, seed):
    model = made(seed, position=position, causal=causal, max_length=40)
    assert deviation(on_equal_tokens(model)) < 1e-12


@pytest.mark.parametrize("layers", [1, 6])
@pytest.mark.parametrize("heads", [1, 6])
def test_neither_depth_nor_heads_mend_the_flaw(layers, heads):
    model = made(position="rope", layers=layers, heads=heads)
    assert deviation(on_equal_tokens(model)) < 1e-12


def test_a_table_shorter_than_the_sequence_does_not_mend_it_either():
    assert deviation(on_equal_tokens(made(position="bias", max_length=5))) < 1e-12


@pytest.mark.parametrize(
    "settings",
    [
        dict(start=True),  # everyone sees the marker equally well
        dict(start=True, end=True),
        dict(normalisation="l2"),  # all rows have the same sum
        dict(normalisation="relu2"),
        dict(normalisation="exp"),
        dict(normalisation="sigmoid"),
        dict(position="none", causal=True, normalisation="softmax"),
    ],
)
def test_without_a_scheme_some_remedies_are_none(settings):
    assert deviation(on_equal_tokens(made(**settings))) < 1e-12


ESCAPES = [
    dict(position="sinusoidal"),
    dict(position="learned"),
    dict(position="shaw_kv"),
    *[dict(position=s, toeplitz=True) for s in RELATIVE],
    *[dict(position=s, start=True) for s in RELATIVE if s != "none"],
    *[dict(position=s, start=True, end=True) for s in RELATIVE if s != "none"],
    *[dict(position=s, causal=True, start=True) for s in RELATIVE],
    *[dict(position="rope", normalisation=n) for n in NORMALISATIONS if n != "softmax"],
    *[dict(position="t5", normalisation=n) for n in NORMALISATIONS if n != "softmax"],
    *[
        dict(causal=True, normalisation=n)
        for n in ("l2", "relu2", "exp", "off_by_one", "sigmoid", "signed_l2")
    ],
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("settings", ESCAPES, ids=lambda s: "-".join(map(str, s.values())))
def test_places_of_equal_tokens_are_told_apart(settings, seed):
    y = on_equal_tokens(made(seed, **settings, max_length=40))
    assert deviation(y) > 1e-5
    assert asymmetry(y) > 1e-5


@pytest.mark.parametrize("normalisation", ["l2", "relu2", "exp", "off_by_one", "sigmoid"])
def test_an_even_bias_without_row_sums_of_one_sees_only_the_distance_to_the_middle(normalisation):
    y = on_equal_tokens(made(position="alibi", normalisation=normalisation))
    assert deviation(y) > 1e-5
    assert asymmetry(y) < 1e-12


@pytest.mark.parametrize("same", [True, False])
def test_the_same_marker_at_both_ends_of_an_even_scheme_is_a_mirror(same):
    y = on_equal_tokens(made(position="alibi", start=True, end=True, same_marker=same))
    assert deviation(y) > 1e-5
    assert (asymmetry(y) < 1e-12) == same


def test_the_factor_changes_nothing_before_it_is_trained():
    tokens = words(2, 9)
    plain, urpe = made(position="t5"), made(position="t5", toeplitz=True)
    with torch.no_grad():
        for layer in urpe.layers:
            layer.toeplitz.g.fill_(1.0)
    urpe.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(plain(tokens), urpe(tokens))


def test_an_even_factor_on_an_even_bias_is_a_mirror():
    model = made(position="alibi", toeplitz=True)
    with torch.no_grad():
        for layer in model.layers:
            layer.toeplitz.g.copy_(layer.toeplitz.g + layer.toeplitz.g.flip(-1))
    y = on_equal_tokens(model)
    assert deviation(y) > 1e-5
    assert asymmetry(y) < 1e-12


# --- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [dict(), dict(start=True, causal=True), dict(start=True, end=True)]
)
@pytest.mark.parametrize("position", SCHEMES)
def test_there_is_a_matrix_of_weights_per_layer_with_rows_that_sum_to_one(position, settings):
    model = made(position=position, **settings)
    weights = model.attention(words(2, 9))
    n = 9 + model.config.markers
    assert [w.shape for w in weights] == [(2, 3, n, n)] * 2
    for w in weights:
        assert close(w.sum(-1), torch.ones(2, 3, n).double())
        assert (w.triu(1) == 0).all() == model.config.causal


def test_weights_include_the_factor():
    plain, urpe = made(position="bias", layers=1), made(position="bias", layers=1, toeplitz=True)
    urpe.load_state_dict(plain.state_dict(), strict=False)
    factor = urpe.layers[0].toeplitz.factor(9)
    tokens = words(2, 9)
    assert torch.equal(urpe.attention(tokens)[0], plain.attention(tokens)[0] * factor)


def test_row_sums_of_l2_are_the_exponential_of_half_the_renyi_entropy_of_softmax():
    tokens = words(2, 9)
    p = made(position="bias", layers=1).attention(tokens)[0]
    r = made(position="bias", layers=1, normalisation="l2").attention(tokens)[0].sum(-1)
    assert close(r, (-p.square().sum(-1).log() / 2).exp())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("position", FLAWED)
def test_attention_is_that_of_torch_with_the_scheme_as_its_mask(position, causal):
    layer = made(position=position, causal=causal).layers[0]
    q, k, v = torch.randn(3, 2, 3, 9, 8, generator=torch.Generator().manual_seed(0)).double()
    mask = torch.ones(9, 9, dtype=torch.bool).tril() if causal else None
    ours = layer.weights(q, k, mask, 9) @ v
    bias = layer.scheme.logits(q, k)
    if bias is not None and causal:
        bias = bias.masked_fill(~mask, -torch.inf)
    theirs = F.scaled_dot_product_attention(
        *layer.scheme.rotate(q, k), v, attn_mask=bias, is_causal=causal and bias is None
    )
    assert close(ours, theirs)


@pytest.mark.parametrize("causal", [False, True])
def test_without_positions_it_is_the_encoder_of_torch(causal):
    model, tokens = made(causal=causal), words(2, 9)
    x = model.embedding[tokens]
    for layer in model.layers:
        theirs = nn.TransformerEncoderLayer(
            24, 3, 48, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        ).double()
        with torch.no_grad():
            theirs.self_attn.in_proj_weight.copy_(layer.query_key_value.weight)
            theirs.self_attn.in_proj_bias.copy_(layer.query_key_value.bias)
        pairs = ((theirs.self_attn.out_proj, layer.out), (theirs.linear1, layer.up))
        for other, own in (*pairs, (theirs.linear2, layer.down)):
            other.load_state_dict(own.state_dict())
        mask = ~torch.ones(9, 9, dtype=torch.bool).tril() if causal else None
        x = theirs(x, src_mask=mask)
    assert close(model.hidden(tokens), F.layer_norm(x, (24,)))
    assert close(model(tokens), model.readout(model.hidden(tokens)))


# --- masks, padding, markers ----------------------------------------------------------------------


@pytest.mark.parametrize("position", SCHEMES)
def test_a_causal_encoder_does_not_look_ahead(position):
    model = made(position=position, causal=True, start=True)
    tokens = words(2, 9)
    changed = torch.cat([tokens[:, :5], (tokens[:, 5:] + 1) % 7], 1)
    before, after = model(tokens), model(changed)
    assert close(before[:, :5], after[:, :5])
    assert not close(before[:, 5:], after[:, 5:], 1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        dict(),
        dict(causal=True, end=True),
        dict(start=True, end=True),
        dict(start=True, end=True, normalisation="relu2"),
        dict(start=True, causal=True, normalisation="sigmoid", toeplitz=True),
        dict(end=True, normalisation="l2", same_marker=False),
    ],
    ids=lambda s: "-".join(map(str, s)),
)
@pytest.mark.parametrize("position", SCHEMES)
def test_padding_does_not_change_the_outputs_of_real_tokens(position, settings):
    model = made(position=position, **settings)
    tokens, lengths = words(3, 9), (9, 4, 1)
    padding = torch.arange(9) < torch.tensor(lengths)[:, None]
    y = model(tokens, padding)
    for row, n in enumerate(lengths):
        assert close(y[row, :n], model(tokens[row : row + 1, :n])[0])
    other = torch.where(padding, tokens, (tokens + 1) % 7)
    assert close(model(other, padding)[padding], y[padding])


@pytest.mark.parametrize("settings", [dict(start=True), dict(end=True), dict(start=True, end=True)])
def test_markers_are_learned_and_taken_off(settings):
    model = made(position="rope", **settings)
    assert len(model.markers) == model.config.markers
    y = model(words(2, 9))
    assert y.shape == (2, 9, 3)
    y.sum().backward()
    assert (model.markers.grad.abs().amax(1) > 0).all()


def test_one_marker_can_serve_at_both_ends():
    model = made(start=True, end=True, same_marker=True)
    assert len(model.markers) == 1
    x = model._embed(words(2, 9), None)
    assert torch.equal(x[:, 0], x[:, -1])
    assert x.shape == (2, 11, 24)


def test_absolute_positions_are_added_once_and_relative_ones_in_every_layer():
    absolute, relative = made(position="learned"), made(position="bias")
    assert absolute.position.table.shape == (16, 24)
    assert all(not list(layer.scheme.parameters()) for layer in absolute.layers)
    tables = [layer.scheme.table for layer in relative.layers]
    assert not torch.equal(*tables)  # each layer its own


def test_a_scheme_can_be_given_to_some_layers_only():
    model = made(position="bias", layers=3, position_layers=(0, 2))
    assert [len(list(layer.scheme.parameters())) for layer in model.layers] == [1, 0, 1]
    assert deviation(on_equal_tokens(made(position="t5", start=True, position_layers=(1,)))) > 1e-5


def test_without_positions_or_mask_the_order_of_tokens_does_not_matter():
    model, tokens = made(start=True), words(2, 9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert close(model(tokens)[:, order], model(tokens[:, order]))


@pytest.mark.parametrize("position", [s for s in SCHEMES if s != "learned"])
def test_all_but_learned_places_read_beyond_their_tables(position):
    y = made(position=position, max_length=4)(words(1, 20))
    assert y.shape == (1, 20, 3)
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("markers", [dict(), dict(start=True, end=True)])
def test_learned_places_have_room_for_the_markers_and_no_more(markers):
    model = made(position="learned", **markers)
    assert model(words(1, 16)).shape == (1, 16, 3)
    with pytest.raises(ValueError, match="`tokens` must have at most `max_length` = 16 columns"):
        model(words(1, 17))


# --- precision, seeds, many at once ---------------------------------------------------------------


@pytest.mark.parametrize("position", SCHEMES)
def test_single_precision_agrees_with_double(position):
    model = Encoder(replace(SMALL, position=position), torch.Generator().manual_seed(0))
    tokens = words(2, 9)
    single = model(tokens)
    assert single.dtype == torch.float32
    assert close(single.double(), model.double()(tokens), 1e-4)


def test_initial_parameters_come_from_the_generator_alone():
    before = torch.random.get_rng_state()
    first, again, other = (made(s, position="deberta").state_dict() for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["embedding"], other["embedding"])


@pytest.mark.parametrize("settings", [dict(), dict(start=True, end=True, causal=True)])
@pytest.mark.parametrize("position", SCHEMES)
def test_encoders_run_side_by_side_under_vmap(position, settings):
    models = [made(s, position=position, toeplitz=bool(settings), **settings) for s in range(3)]
    parameters, buffers = stack_module_state(models)
    tokens = words(3, 2, 9)  # each encoder its own
    padding = torch.arange(9) < torch.tensor([[9, 5], [7, 9], [1, 2]])[..., None]

    def run(p, b, t, m):
        return functional_call(models[0], (p, b), (t, m))

    y = vmap(run)(parameters, buffers, tokens, padding)
    alone = torch.stack([m(*x) for m, *x in zip(models, tokens, padding, strict=True)])
    assert close(y, alone)
    y[:, 0].sum().backward()
    assert parameters["embedding"].grad.abs().amax((1, 2)).min() > 0


def test_the_example_in_the_docstring_runs():
    assert doctest.testmod(encoder).failed == 0


def test_the_probe_is_learned_with_a_start_marker_and_not_without():
    """Numbering equal tokens; the best that a flawed network can do is the mean, error 1."""
    target = torch.linspace(-1, 1, 12)
    target = (target - target.mean()) / target.std(correction=0)
    errors = []
    for start in (False, True):
        config = EncoderConfig(width=32, heads=2, feed_forward=64, position="rope", start=start)
        model = Encoder(config, torch.Generator().manual_seed(0))
        adam = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(150):
            y = model(torch.zeros(1, 12, dtype=torch.int64))[0, :, 0]
            loss = (y - target).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        errors.append(loss.item())
    assert errors[0] > 0.99
    assert errors[1] < 0.05


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(symbols=0), "`symbols` must be at least 1, got 0"),
        (dict(layers=0), "`layers` must be at least 1, got 0"),
        (dict(max_length=-1), "`max_length` must be at least 1, got -1"),
        (dict(heads=5), "`width` must be a multiple of `heads` = 5, got 24"),
        (dict(position="rotary"), "`position` must be one of"),
        (dict(normalisation="soft"), "`normalisation` must be one of"),
        (dict(start=True, same_marker=True), "`same_marker` needs both `start` and `end`"),
        (dict(position_layers=(2,)), "`position_layers` must be from 0 to 1, got 2"),
        (dict(position="learned", position_layers=(0,)), "`position_layers` must be None for"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **settings)


def test_settings_of_a_wrong_kind_are_refused():
    with pytest.raises(TypeError, match="`width` must be a whole number"):
        replace(SMALL, width=24.0)
    with pytest.raises(TypeError, match="`position_layers` must be a tuple of layers, got 0"):
        replace(SMALL, position_layers=0)
    with pytest.raises(TypeError, match="`config` must be an EncoderConfig, got dict"):
        Encoder({}, torch.Generator())
    with pytest.raises(TypeError, match=r"`generator` must be a torch.Generator, got int"):
        Encoder(SMALL, 0)


def test_a_head_of_odd_width_cannot_rotate():
    with pytest.raises(ValueError, match=r"`width` must be a multiple of 2 \* heads"):
        made(position="rope", width=9, heads=3)


@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        ([[0]], TypeError, r"`tokens` must be a torch.Tensor, got list"),
        (torch.zeros(1, 4), TypeError, r"`tokens` must be of int64, got torch.float32"),
        (torch.zeros(4, dtype=torch.int64), ValueError, r"`tokens` must have shape \(B, n\)"),
        (torch.zeros(0, 4, dtype=torch.int64), ValueError, "and not be empty"),
        (torch.zeros(2, 0, dtype=torch.int64), ValueError, "and not be empty"),
        (torch.tensor([[0, 7, 9]]), ValueError, r"`tokens` must lie in 0 … 6, got 7"),
        (torch.tensor([[0, -1]]), ValueError, r"`tokens` must lie in 0 … 6, got -1"),
    ],
)
def test_tokens_that_cannot_be_are_refused(tokens, error, message):
    with pytest.raises(error, match=message):
        made()(tokens)


@pytest.mark.parametrize(
    ("padding", "error", "message"),
    [
        (torch.ones(2, 3), TypeError, r"`padding` must be a tensor of bool.*got torch.float32"),
        ([[True]], TypeError, r"`padding` must be a tensor of bool.*got list"),
        (torch.ones(2, 2) > 0, ValueError, "`padding` must have the shape of `tokens`"),
        (torch.tensor([[True] * 3, [False] * 3]), ValueError, "every sequence at least its first"),
        (torch.tensor([[True] * 3, [True, False, True]]), ValueError, "must have all real tokens"),
    ],
)
def test_padding_that_cannot_be_is_refused(padding, error, message):
    with pytest.raises(error, match=message):
        made()(words(2, 3), padding)
