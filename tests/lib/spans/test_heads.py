"""Both span heads against sums written out, the relative property, and several models at once."""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import functional_call, grad, stack_module_state, vmap

from lib.divergence import globalpointer_divergence, multilabel_cross_entropy
from lib.spans import EfficientGlobalPointer, GlobalPointer, labels_of, span_mask

HEADS = {"gp": GlobalPointer, "egp": EfficientGlobalPointer}
BOTH = pytest.mark.parametrize("name", HEADS)
B, K, n, D, d = 2, 3, 6, 8, 4


def head(name: str, seed: int = 0, *, rope: bool = True, dtype=torch.float64, **sizes):
    sizes = {"width": D, "kinds": K, "head_width": d} | sizes
    draw = torch.Generator().manual_seed(seed)
    made = HEADS[name](**sizes, generator=draw, rope=rope).to(dtype)
    with torch.no_grad():  # biases start at 0, where they could be forgotten unseen
        made.project.bias.normal_(generator=draw)
    return made


def states(seed: int = 7, *shape: int, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape or (B, n, D), generator=draw, dtype=dtype)


def rotation(place: int) -> torch.Tensor:
    """RoPE's matrix, one plane after the other."""
    blocks = []
    for t in range(d // 2):
        angle = place * 10000 ** (-2 * t / d)
        c, s = math.cos(angle), math.sin(angle)
        blocks.append(torch.tensor([[c, -s], [s, c]], dtype=torch.float64))
    return torch.block_diag(*blocks)


def turned(x: torch.Tensor, rope: bool) -> torch.Tensor:
    """Vectors (…, n, d) multiplied by the matrices of their places."""
    if not rope:
        return x
    turns = torch.stack([rotation(i) for i in range(x.shape[-2])])
    return torch.einsum("nab,...nb->...na", turns, x)


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rope", [True, False])
def test_globalpointer_as_a_sum(rope):
    made, hidden = head("gp", rope=rope), states()
    weight = made.project.weight.view(K, 2, d, D)
    bias = made.project.bias.view(K, 2, d)
    q, k = (
        torch.einsum("kdw,bnw->bknd", weight[:, at], hidden) + bias[:, at, None] for at in (0, 1)
    )
    expected = torch.einsum("bkid,bkjd->bkij", turned(q, rope), turned(k, rope)) / math.sqrt(d)
    torch.testing.assert_close(made(hidden), expected)


@pytest.mark.parametrize("rope", [True, False])
def test_the_lean_head_as_its_formula(rope):
    """The (n, n, 4d) table of [q_i; k_i; q_j; k_j] is made here, and not there."""
    made, hidden = head("egp", rope=rope), states()
    q = hidden @ made.project.weight[:d].T + made.project.bias[:d]
    k = hidden @ made.project.weight[d:].T + made.project.bias[d:]
    where = torch.einsum("bid,bjd->bij", turned(q, rope), turned(k, rope)) / math.sqrt(d)
    each = torch.cat([q, k], -1)
    rows, columns = torch.broadcast_tensors(each[:, :, None], each[:, None])
    what = torch.einsum("ae,bije->baij", made.w, torch.cat([rows, columns], -1))
    torch.testing.assert_close(made(hidden), where[:, None] + what)


@BOTH
def test_with_rope_scores_depend_on_the_offset_alone(name):
    made = head(name)
    scores = made(states(1, 1, 1, D).expand(B, n, D))  # the same state everywhere
    for offset in range(-n + 1, n):
        diagonal = scores.diagonal(offset, -2, -1)
        torch.testing.assert_close(diagonal, diagonal[..., :1].expand_as(diagonal))
    assert (scores[..., 0, :] - scores[..., 0, :1]).abs().amax() > 0.1


@BOTH
def test_moving_a_sentence_along_moves_its_scores(name):
    made, hidden = head(name), states()
    padded = torch.cat([states(3, B, 2, D), hidden], 1)
    torch.testing.assert_close(made(padded)[..., 2:, 2:], made(hidden))


@BOTH
def test_without_rope_places_are_unseen(name):
    made, hidden = head(name, rope=False), states()
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(made(hidden[:, order]), made(hidden)[..., order, :][..., order])


@BOTH
def test_first_scores_have_the_size_of_a_number(name):
    """Unit states give queries and keys of unit variance, and scores of order 1 at any width."""
    draw = torch.Generator().manual_seed(0)
    made = HEADS[name](64, 20, 32, draw)
    scores = made(states(5, 4, 20, 64, dtype=torch.float32))
    variance = 1.0 if name == "gp" else 2.0  # the lean head adds two parts of variance 1
    # few weights are drawn, so the variance itself varies: a factor of 1.5 is far from √d = 5.7
    assert variance / 1.5 < scores.var().item() < variance * 1.5


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_finite_everywhere(name, dtype):
    scores = head(name, dtype=dtype)(states(dtype=dtype))
    assert scores.shape == (B, K, n, n)
    assert scores.dtype == dtype
    assert scores.isfinite().all()


@BOTH
def test_one_sentence_of_one_token(name):
    assert head(name)(states(0, 1, 1, D)).shape == (1, K, 1, 1)


@BOTH
def test_sentences_do_not_see_each_other(name):
    made, hidden = head(name), states()
    torch.testing.assert_close(made(hidden)[1:], made(hidden[1:]))


# --- sizes ----------------------------------------------------------------------------------------


def weights(made) -> int:
    return sum(p.numel() for key, p in made.named_parameters() if not key.endswith("bias"))


@pytest.mark.parametrize(("width", "narrow"), [(8, 4), (768, 64)])
def test_what_one_more_kind_costs(width, narrow):
    draw = torch.Generator().manual_seed(0)
    sizes = {
        name: [made(width, kinds, narrow, draw) for kinds in (2, 3)] for name, made in HEADS.items()
    }
    assert weights(sizes["gp"][1]) - weights(sizes["gp"][0]) == 2 * width * narrow
    assert weights(sizes["egp"][1]) - weights(sizes["egp"][0]) == 4 * narrow
    biases = [sum(p.numel() for p in made.parameters()) - weights(made) for made in sizes["egp"]]
    assert biases == [2 * narrow] * 2


@BOTH
def test_memory_does_not_hold_a_table_of_vectors(name):
    """Saved for backward are the states, queries and keys: no (n, n, …) with a width."""
    made, hidden = head(name, dtype=torch.float32), states(0, 1, 64, D, dtype=torch.float32)
    largest = 0

    def note(x):
        nonlocal largest
        largest = max(largest, x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        made(hidden.requires_grad_())
    assert largest <= K * 64 * 64


@BOTH
def test_weights_come_from_the_generator_alone(name):
    before = torch.get_rng_state()
    one, same, other = (head(name, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    hidden = states()
    assert torch.equal(one(hidden), same(hidden))
    assert not torch.equal(one(hidden), other(hidden))


# --- in training ----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("rope", [True, False])
def test_several_models_at_once(name, rope):
    made = [head(name, seed, rope=rope) for seed in range(3)]
    parameters, buffers = stack_module_state(made)
    hidden = torch.stack([states(seed) for seed in range(3)])
    mask = span_mask(torch.tensor([n, 3]), n)
    labels = labels_of([[(0, 0, 3), (2, 1, 1)], [(1, 0, 2)]], K, n)

    def loss(parameters, hidden):
        scores = functional_call(made[0], (parameters, {}), (hidden,))
        return multilabel_cross_entropy(scores, labels, mask).mean()

    assert not buffers
    found = vmap(grad(loss))(parameters, hidden)
    for at, each in enumerate(made):
        multilabel_cross_entropy(each(hidden[at]), labels, mask).mean().backward()
        for key, parameter in each.named_parameters():
            torch.testing.assert_close(found[key][at], parameter.grad)


@BOTH
def test_what_the_mask_hides_gets_no_gradient(name):
    made, hidden = head(name), states().requires_grad_()
    mask = span_mask(torch.tensor([3, 4]), n)
    globalpointer_divergence(made(hidden), made(hidden * 1.1).detach(), mask).sum().backward()
    assert (hidden.grad[0, 3:] == 0).all()
    assert (hidden.grad[1, 4:] == 0).all()
    assert (hidden.grad[0, :3] != 0).all()


@BOTH
def test_gradients_by_differences(name):
    made = head(name)
    assert torch.autograd.gradcheck(made, (states(2, 1, 3, D).requires_grad_(),))


# --- half precision -------------------------------------------------------------------------------


@BOTH
def test_mixed_precision_knows_far_places_apart(name):
    made = head(name, head_width=16, dtype=torch.float32)
    hidden = states(7, 1, 1, D, dtype=torch.float32).expand(1, 600, D)  # one token, repeated
    exact = made(hidden)
    with torch.autocast("cpu", torch.bfloat16):
        half = made(hidden)
    assert half.dtype == torch.bfloat16
    # only offsets tell the scores apart; places in bfloat16 would be even numbers from 256 on
    torch.testing.assert_close(half.float(), exact, rtol=0.0, atol=0.03 * exact.abs().max().item())
    half.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in made.parameters())


# --- input that can't be meant --------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    "shape", [(0, n, D), (B, 0, D), (B, n, D + 1), (n, D), (1, B, n, D)], ids=str
)
def test_states_of_other_shapes(name, shape):
    with pytest.raises(ValueError, match=rf"`hidden` must have shape \(B, n, {D}\)"):
        head(name)(torch.zeros(shape, dtype=torch.float64))


@BOTH
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_states_are_finite(name, bad):
    hidden = states()
    hidden[0, -1, 0] = bad
    with pytest.raises(ValueError, match="`hidden` must be finite"):
        head(name)(hidden)


@BOTH
@pytest.mark.parametrize("hidden", [None, torch.zeros(B, n, D, dtype=torch.int64)])
def test_states_of_other_types(name, hidden):
    with pytest.raises(TypeError, match="`hidden` must be a tensor of floating dtype"):
        head(name)(hidden)


@BOTH
@pytest.mark.parametrize("size", ["width", "kinds", "head_width"])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-2, ValueError), (2.0, TypeError)])
def test_sizes_are_positive_whole_numbers(name, size, value, error):
    with pytest.raises(error, match=f"`{size}` must be"):
        head(name, **{size: value})


@BOTH
def test_rotary_positions_need_pairs(name):
    with pytest.raises(ValueError, match="`head_width` must be even for rotary positions, got 3"):
        head(name, head_width=3)
    assert head(name, head_width=3, rope=False)(states()).shape == (B, K, n, n)


@BOTH
def test_settings_of_other_types(name):
    with pytest.raises(TypeError, match=r"`generator` must be a torch\.Generator"):
        HEADS[name](D, K, d, 0)
    with pytest.raises(TypeError, match="`rope` must be True or False"):
        head(name, rope="yes")
