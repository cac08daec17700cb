"""Position schemes against their definitions, written as loops, and against other libraries."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lib.attention.positions import (
    ABSOLUTE,
    SCHEMES,
    PositionScheme,
    Toeplitz,
    alibi_slopes,
    make_scheme,
    rotate,
    sinusoidal,
    skew,
    t5_bucket,
    toeplitz,
    unskew,
)

WIDTH, HEADS, D = 24, 3, 8


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def scheme(name: str, seed: int = 0, **changes) -> PositionScheme:
    sizes = dict(width=WIDTH, heads=HEADS, max_length=16, causal=False) | changes
    return make_scheme(name, **sizes, generator=generator(seed)).double()


def queries_keys(n: int) -> tuple[Tensor, Tensor]:
    return normal(2, HEADS, n, D, seed=1), normal(2, HEADS, n, D, seed=2)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() < tolerance)


# --- Toeplitz matrices and skewed products --------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_a_toeplitz_matrix_holds_at_i_j_the_value_of_offset_j_minus_i(n):
    values = normal(2, 3, 2 * n - 1)
    matrix = toeplitz(values)
    assert matrix.shape == (2, 3, n, n)
    for i in range(n):
        for j in range(n):
            assert torch.equal(matrix[..., i, j], values[..., j - i + n - 1])


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_skewing_picks_from_row_i_the_column_of_offset_j_minus_i(n):
    scores = normal(2, n, 2 * n - 1)
    skewed = skew(scores)
    assert skewed.shape == (2, n, n)
    for i in range(n):
        for j in range(n):
            assert torch.equal(skewed[:, i, j], scores[:, i, j - i + n - 1])


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_unskewing_is_the_transpose_of_skewing_and_skewing_undoes_it(n):
    scores, weights = normal(2, n, 2 * n - 1), normal(2, n, n, seed=1)
    assert math.isclose(
        float((skew(scores) * weights).sum()), float((scores * unskew(weights)).sum())
    )
    assert torch.equal(skew(unskew(weights)), weights)


@pytest.mark.parametrize("function", [toeplitz, skew, lambda w: unskew(w[..., :5])])
def test_gradients_of_the_rearrangements_are_right(function):
    assert torch.autograd.gradcheck(function, normal(2, 5, 9).requires_grad_())


@pytest.mark.parametrize("name", SCHEMES)
def test_no_scheme_makes_a_vector_per_pair_of_places(name):
    n, d = 48, 16
    most = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal most
            out = function(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                most = max(most, out.numel())
            return out

    one = make_scheme(
        name, width=d, heads=1, max_length=n, causal=False, generator=generator()
    ).double()
    q = normal(1, 1, n, d)
    with Watch():
        one.embed(n), one.rotate(q, q), one.logits(q, q), one.values(normal(1, 1, n, n))
    assert most < n * n * d / 4


# --- rotary ---------------------------------------------------------------------------------------


def test_rotation_multiplies_pairs_by_complex_numbers_of_modulus_one():
    x, angles = normal(2, 5, 8), normal(5, 4, seed=1)
    turned = rotate(x, angles)
    for t in range(4):
        z = torch.complex(x[..., 2 * t], x[..., 2 * t + 1]) * torch.exp(1j * angles[:, t])
        assert close(turned[..., 2 * t], z.real)
        assert close(turned[..., 2 * t + 1], z.imag)


def test_dot_products_of_rotated_equal_vectors_depend_on_the_offset_only():
    q, k = (normal(1, HEADS, 1, D, seed=s).expand(1, HEADS, 20, D) for s in (1, 2))
    q, k = scheme("rope").rotate(q, k)
    logits = q @ k.mT
    assert close(logits[..., 1:, 1:], logits[..., :-1, :-1])
    assert float((logits[..., 0, 1] - logits[..., 1, 0]).abs().max()) > 0.1  # sees the direction


def test_rotation_is_that_of_roformer_in_the_interleaved_layout():
    roformer = pytest.importorskip("transformers.models.roformer.modeling_roformer")
    q, k = queries_keys(12)
    angles = torch.arange(12.0).double()[:, None] * 1e4 ** (-torch.arange(0, D, 2).double() / D)
    table = torch.cat([angles.sin(), angles.cos()], -1)
    theirs = roformer.RoFormerSelfAttention.apply_rotary_position_embeddings(table, q, k)
    for ours, other in zip(scheme("rope").rotate(q, k), theirs, strict=True):
        assert close(ours, other)


def test_rotation_is_that_of_llama_after_a_permutation_of_the_coordinates():
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    q, k = queries_keys(12)
    angles = torch.arange(12.0).double()[:, None] * 1e4 ** (-torch.arange(0, D, 2).double() / D)
    angles = torch.cat([angles, angles], -1)[None]
    halves = [*range(0, D, 2), *range(1, D, 2)]  # even coordinates first, then odd ones
    theirs = llama.apply_rotary_pos_emb(q[..., halves], k[..., halves], angles.cos(), angles.sin())
    for ours, other in zip(scheme("rope").rotate(q, k), theirs, strict=True):
        assert close(ours[..., halves], other)


def test_an_odd_head_cannot_be_rotated():
    with pytest.raises(ValueError, match="`width` must be a multiple of 2 \\* heads"):
        scheme("rope", width=9)
    with pytest.raises(ValueError, match="`x` must have an even last axis"):
        rotate(normal(4, 3), normal(4, 1))


# --- added to the input ---------------------------------------------------------------------------


def test_sinusoids_are_those_of_vaswani():
    table = scheme("sinusoidal").embed(40)
    assert table.dtype == torch.float64
    for m in (0, 1, 39):
        for t in range(WIDTH // 2):
            angle = m / 10_000 ** (2 * t / WIDTH)
            assert math.isclose(table[m, 2 * t], math.sin(angle), abs_tol=1e-13)
            assert math.isclose(table[m, 2 * t + 1], math.cos(angle), abs_tol=1e-13)


def test_dot_products_of_sinusoids_depend_on_the_offset_only():
    table = sinusoidal(torch.arange(30.0, dtype=torch.float64), 16)
    gram = table @ table.T
    assert close(gram[1:, 1:], gram[:-1, :-1])


def test_learned_positions_end_at_their_table():
    learned = scheme("learned", max_length=10)
    assert torch.equal(learned.embed(4), learned.table[:4])
    with pytest.raises(ValueError, match="`n` must be at most `max_length` = 10 for learned"):
        learned.embed(11)


# --- biases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 6, 16, 21])  # 21 is beyond max_length = 16
def test_the_bias_at_i_j_is_the_entry_of_the_clipped_offset(n):
    bias = scheme("bias")
    matrix = bias.logits(*queries_keys(n))
    assert matrix.shape == (1, HEADS, n, n)
    for i in range(n):
        for j in range(n):
            offset = min(max(j - i, -15), 15)
            assert torch.equal(matrix[0, :, i, j], bias.table[:, offset + 15])


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (16, 64), (8, 20), (4, 5)])
def test_buckets_are_those_of_t5(bidirectional, buckets, distance):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    offset = torch.arange(300) - torch.arange(300)[:, None]
    theirs = t5.T5Attention._relative_position_bucket(offset, bidirectional, buckets, distance)
    ours = t5_bucket(offset, buckets=buckets, max_distance=distance, bidirectional=bidirectional)
    assert torch.equal(ours, theirs)
    assert (int(ours.min()), int(ours.max())) == (0, buckets - 1)


@pytest.mark.parametrize("causal", [True, False])
def test_the_bias_of_t5_is_that_of_its_own_library(causal):
    transformers = pytest.importorskip("transformers")
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    config = transformers.T5Config(d_model=WIDTH, num_heads=HEADS, d_kv=D, is_decoder=causal)
    theirs = t5.T5Attention(config, has_relative_attention_bias=True, layer_idx=0).double()
    ours = scheme("t5", causal=causal)
    with torch.no_grad():
        theirs.relative_attention_bias.weight.copy_(ours.table.T)
    assert torch.equal(ours.logits(*queries_keys(200)), theirs.compute_bias(200, 200))


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6, 7, 8, 12, 16, 20, 33])
def test_slopes_are_those_of_bloom(heads):
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    theirs = bloom.build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)[:, 0, 1]
    assert close(alibi_slopes(heads), theirs.double(), 1e-7)


def test_slopes_are_powers_of_two_for_eight_heads():
    assert alibi_slopes(8).tolist() == [2.0**-h for h in range(1, 9)]


def test_twelve_heads_take_every_other_slope_of_sixteen():
    between = [2.0 ** -(h + 0.5) for h in range(4)]  # 2^(-1/2), 2^(-3/2), …
    assert alibi_slopes(12).tolist() == pytest.approx([*(2.0**-h for h in range(1, 9)), *between])


def test_alibi_falls_with_the_distance_on_both_sides():
    logits = scheme("alibi").logits(*queries_keys(5))
    slopes = alibi_slopes(HEADS)
    assert close(logits[0, :, 2], -slopes[:, None] * torch.tensor([2.0, 1, 0, 1, 2]).double())


# --- terms with vectors ---------------------------------------------------------------------------


def by_pair(table: Tensor, n: int, most: int) -> Tensor:
    """A table (…, 2 most + 1, d) spread over all pairs: (…, n, n, d), the naive way."""
    place = torch.arange(n)
    offset = (place - place[:, None]).clamp(-most, most)
    return table[..., offset + most, :]


@pytest.mark.parametrize("n", [1, 2, 9, 21])
def test_shaws_key_side_is_that_of_a_vector_per_pair(n):
    q, k = queries_keys(n)
    shaw = scheme("shaw_k")
    r = by_pair(shaw.keys.T, n, 15)
    naive = torch.einsum("bhid,ijd->bhij", q, r) / math.sqrt(D)
    assert close(shaw.logits(q, k), naive)
    assert shaw.values(normal(2, HEADS, n, n)) is None


@pytest.mark.parametrize("n", [1, 2, 9, 21])
def test_shaws_value_side_is_that_of_a_vector_per_pair(n):
    weights = normal(2, HEADS, n, n).softmax(-1)
    shaw = scheme("shaw_kv")
    r = by_pair(shaw.rows.T, n, 15)
    assert close(shaw.values(weights), torch.einsum("bhij,ijd->bhid", weights, r))


@pytest.mark.parametrize("n", [1, 2, 9, 40])
def test_the_terms_of_transformer_xl_are_those_of_loops(n):
    q, k = queries_keys(n)
    xl = scheme("xl")
    naive = torch.zeros(2, HEADS, n, n, dtype=torch.float64)
    weight = xl.project.weight.view(HEADS, D, WIDTH)
    for i in range(n):
        for j in range(n):
            angle = (i - j) * 10_000 ** (-torch.arange(0, WIDTH, 2).double() / WIDTH)
            r = torch.empty(WIDTH, dtype=torch.float64)
            r[::2], r[1::2] = angle.sin(), angle.cos()
            u, v = xl.u[:, 0], xl.v[:, 0]  # (H, d)
            naive[:, :, i, j] = (u * k[:, :, j]).sum(-1) + ((q[:, :, i] + v) * (weight @ r)).sum(-1)
    assert close(xl.logits(q, k), naive / math.sqrt(D))


@pytest.mark.parametrize("n", [1, 2, 9, 21])
def test_the_terms_of_deberta_are_those_of_loops(n):
    q, k = queries_keys(n)
    deberta = scheme("deberta")
    query, key = (x.view(31, HEADS, D) for x in deberta.project(deberta.table).chunk(2, -1))
    naive = torch.zeros(2, HEADS, n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            ahead, back = (min(max(x, -15), 15) + 15 for x in (j - i, i - j))
            naive[:, :, i, j] = (q[:, :, i] * key[ahead]).sum(-1)
            naive[:, :, i, j] += (k[:, :, j] * query[back]).sum(-1)
    assert close(deberta.logits(q, k), naive / math.sqrt(D))


@pytest.mark.parametrize("term", ["c2p", "p2c"])
def test_each_term_of_deberta_is_that_of_its_own_library(term):
    """Its c2p looks up i - j, ours j - i: the table is turned round. Its p2c looks up i - j too."""
    transformers = pytest.importorskip("transformers")
    library = pytest.importorskip("transformers.models.deberta_v2.modeling_deberta_v2")
    n, span = 9, 16
    config = transformers.DebertaV2Config(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        relative_attention=True,
        max_relative_positions=span,
        pos_att_type=[term],
        hidden_dropout_prob=0.0,
    )
    theirs = library.DisentangledSelfAttention(config).double()
    ours = scheme("deberta")
    side = 0 if term == "p2c" else 1  # queries, keys
    project = theirs.pos_query_proj if term == "p2c" else theirs.pos_key_proj
    table = torch.zeros(2 * span, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        table[1:] = ours.table.flip(0) if term == "c2p" else ours.table  # row 0: offset -span
        project.weight.copy_(ours.project.weight.chunk(2)[side])
        project.bias.copy_(ours.project.bias.chunk(2)[side])
        ours.project.weight.chunk(2)[1 - side].zero_()  # switches the other term off
        ours.project.bias.chunk(2)[1 - side].zero_()
    q, k = queries_keys(n)
    bias = theirs.disentangled_attention_bias(q.flatten(0, 1), k.flatten(0, 1), None, table, 1)
    # its √d is in single precision
    assert close(ours.logits(q, k), bias.view(2, HEADS, n, n), 1e-6)


# --- URPE -----------------------------------------------------------------------------------------


def test_the_factor_starts_at_ones():
    assert torch.equal(Toeplitz(HEADS, 5).factor(4), torch.ones(HEADS, 4, 4))


@pytest.mark.parametrize("n", [1, 5, 8])
def test_the_factor_is_one_number_per_clipped_offset(n):
    c = Toeplitz(HEADS, 5).double()
    with torch.no_grad():
        c.g.copy_(normal(HEADS, 9))
    assert torch.equal(c.factor(n), by_pair(c.g[..., None], n, 4)[..., 0])


# --- the contract ---------------------------------------------------------------------------------

PLACES = {
    "none": "",
    "sinusoidal": "embed",
    "learned": "embed",
    "bias": "logits",
    "t5": "logits",
    "alibi": "logits",
    "rope": "rotate",
    "shaw_k": "logits",
    "shaw_kv": "logits values",
    "xl": "logits",
    "deberta": "logits",
}


@pytest.mark.parametrize("name", SCHEMES)
def test_a_scheme_enters_where_it_says_and_nowhere_else(name):
    n, one, (q, k) = 6, scheme(name), queries_keys(6)
    weights = normal(2, HEADS, n, n).softmax(-1)
    turned = one.rotate(q, k)
    used = {
        "embed": one.embed(n),
        "rotate": None if turned[0] is q and turned[1] is k else turned[0],
        "logits": one.logits(q, k),
        "values": one.values(weights),
    }
    assert {place for place, x in used.items() if x is not None} == set(PLACES[name].split())
    assert ("embed" in PLACES[name]) == (name in ABSOLUTE)
    assert all(x.dtype == torch.float64 for x in used.values() if x is not None)


@pytest.mark.parametrize("name", ["bias", "t5", "alibi", "shaw_k", "xl", "deberta"])
def test_logits_of_equal_tokens_depend_on_the_offset_only(name):
    q, k = (normal(1, HEADS, 1, D, seed=s).expand(1, HEADS, 20, D) for s in (1, 2))
    logits = scheme(name).logits(q, k)
    assert close(logits[..., 1:, 1:], logits[..., :-1, :-1])


@pytest.mark.parametrize("name", SCHEMES)
def test_parameters_come_from_the_generator_alone(name):
    before = torch.random.get_rng_state()
    first, again, other = (scheme(name, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not first or any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(
    "name", [s for s in SCHEMES if s not in ("none", "sinusoidal", "alibi", "rope")]
)
def test_every_parameter_receives_a_gradient(name):
    one, (q, k) = scheme(name), queries_keys(16)
    terms = [one.embed(16), one.logits(q, k), one.values(normal(2, HEADS, 16, 16))]
    sum((x * normal(*x.shape, seed=9)).sum() for x in terms if x is not None).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in one.parameters())


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(width=0), "`width` must be at least 1, got 0"),
        (dict(heads=-1), "`heads` must be at least 1, got -1"),
        (dict(max_length=0), "`max_length` must be at least 1, got 0"),
        (dict(heads=5), "`width` must be a multiple of `heads` = 5, got 24"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        scheme("bias", **changes)


@pytest.mark.parametrize("name", ["sinusoidal", "xl"])
def test_sinusoids_need_an_even_width(name):
    with pytest.raises(ValueError, match="`width` must be even for sinusoids, got 9"):
        scheme(name, width=9)


def test_unknown_schemes_and_seeds_in_place_of_generators_are_refused():
    with pytest.raises(ValueError, match=r"`name` must be one of \"none\", .* got 'rotary'"):
        scheme("rotary")
    with pytest.raises(TypeError, match=r"`generator` must be a torch.Generator, got int"):
        make_scheme("none", width=8, heads=2, max_length=8, causal=False, generator=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(buckets=31), "`buckets` must be even, got 31"),
        (dict(buckets=2), "`buckets` must be at least 4, got 2"),
        (dict(buckets=0, bidirectional=False), "`buckets` must be at least 2, got 0"),
        (dict(max_distance=8), "`max_distance` must be at least 9, got 8"),
        (dict(max_distance=16, bidirectional=False), "`max_distance` must be at least 17, got 16"),
    ],
)
def test_buckets_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        t5_bucket(torch.arange(3), **settings)


def test_offsets_must_be_whole_numbers():
    with pytest.raises(
        TypeError, match=r"`offset` must be a tensor of whole numbers, got a tensor"
    ):
        t5_bucket(torch.arange(3.0))
    with pytest.raises(TypeError, match=r"`offset` must be a tensor of whole numbers, got int"):
        t5_bucket(3)


@pytest.mark.parametrize("bad", [dict(heads=0, max_length=4), dict(heads=2, max_length=0)])
def test_the_factor_needs_heads_and_a_length(bad):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        Toeplitz(**bad)
    with pytest.raises(ValueError, match="`heads` must be at least 1, got 0"):
        alibi_slopes(0)
    with pytest.raises(ValueError, match="`n` must be at least 1, got 0"):
        Toeplitz(2, 4).factor(0)
