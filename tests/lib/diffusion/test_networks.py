"""Noise predictors: shapes, time, first weights, and the formula of the MLP written out."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch

from lib.diffusion import networks
from lib.diffusion.networks import NoiseMLP, TimeFeatures, UNet


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(dim: int = 64, **settings) -> NoiseMLP:
    settings = {"width": 24, "blocks": 2, "time_features": 8, "generator": seeded()} | settings
    return NoiseMLP(dim, **settings)


def unet(channels: int = 1, **settings) -> UNet:
    settings = {"base": 8, "time_features": 8, "generator": seeded()} | settings
    return UNet(channels, **settings)


def stir(model: torch.nn.Module) -> torch.nn.Module:
    """All parameters away from the zeros and ones that they start with."""
    g = seeded(99)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g))
    return model


def batch(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed))


TIMES = torch.tensor([1, 40, 500, 999, 1000])


# --- time ----------------------------------------------------------------------------------------


def test_sinusoidal_features_are_sines_and_cosines_of_the_share_of_the_schedule():
    features = TimeFeatures(6, 1000, "sinusoidal", seeded())
    fastest = networks.FASTEST
    omega = np.array([1.0, np.sqrt(fastest), fastest])
    angle = 0.25 * omega
    expected = np.sqrt(2) * np.concatenate([np.sin(angle), np.cos(angle)])
    np.testing.assert_allclose(features(torch.tensor([250]))[0].numpy(), expected, atol=2e-4)


def test_sinusoidal_features_depend_on_the_share_only():
    long, short = (TimeFeatures(16, T, "sinusoidal", seeded()) for T in (1000, 50))
    torch.testing.assert_close(long(torch.tensor([20, 600])), short(torch.tensor([1, 30])))


@pytest.mark.parametrize("kind", ["sinusoidal", "learned"])
def test_features_have_mean_square_1(kind):
    features = TimeFeatures(64, 1000, kind, seeded())
    assert features(torch.arange(1, 1001)).square().mean().item() == pytest.approx(1.0, abs=0.05)


def test_sinusoidal_features_move_smoothly_between_whole_times_and_learned_ones_do_not():
    times = torch.arange(1, 1001)
    smooth, table = (TimeFeatures(64, 1000, k, seeded())(times) for k in ("sinusoidal", "learned"))
    step = [(f[1:] - f[:-1]).square().mean().sqrt().item() for f in (smooth, table)]
    assert step[0] < 0.3
    assert step[1] > 1.0


def test_real_times_lie_between_whole_ones():
    model = stir(mlp())
    x = batch(3, 64)
    below, between, above = (model(x, torch.full((3,), t)) for t in (500, 500.5, 501))
    assert (between - below).norm() < (above - below).norm()
    torch.testing.assert_close(below, model(x, torch.full((3,), 500.0)))


def test_a_learned_embedding_trains_only_the_rows_it_was_asked_for():
    model = stir(mlp(time_embedding="learned", T=10))
    model(batch(2, 64), torch.tensor([1, 10])).square().sum().backward()
    touched = model.time.table.grad.abs().sum(1) > 0
    assert touched.tolist() == [True] + [False] * 8 + [True]


@pytest.mark.parametrize("t", [0, 11, -1])
def test_a_learned_embedding_refuses_times_that_it_has_no_row_for(t):
    model = mlp(time_embedding="learned", T=10)
    with pytest.raises(ValueError, match="`t` must lie between 1 and T = 10"):
        model(batch(1, 64), torch.tensor([t]))


def test_a_learned_embedding_refuses_real_times():
    with pytest.raises(TypeError, match="`t` must be whole numbers for a learned embedding"):
        mlp(time_embedding="learned")(batch(1, 64), torch.tensor([2.5]))


# --- what both networks promise -------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 64), (5, 8, 8), (5, 1, 8, 8)])
def test_noise_has_the_shape_of_x_and_the_mlp_sees_only_the_numbers(shape):
    model = stir(mlp())
    x = batch(*shape)
    eps = model(x, TIMES)
    assert eps.shape == x.shape
    assert torch.equal(eps.flatten(1), model(x.flatten(1), TIMES))


@pytest.mark.parametrize(
    ("channels", "shape"), [(1, (5, 1, 8, 8)), (1, (5, 8, 8)), (3, (5, 3, 4, 12))]
)
def test_the_unet_takes_any_sides_that_are_multiples_of_4(channels, shape):
    x = batch(*shape)
    assert stir(unet(channels))(x, TIMES).shape == x.shape


@pytest.mark.parametrize("build", [mlp, unet])
def test_first_weights_come_from_the_generator_alone(build):
    before = torch.get_rng_state()
    one, same, other = (build(generator=seeded(s)) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    pairs = list(zip(one.parameters(), same.parameters(), strict=True))
    assert all(torch.equal(p, q) for p, q in pairs)
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


@pytest.mark.parametrize("build", [mlp, unet])
@pytest.mark.parametrize("embedding", ["sinusoidal", "learned"])
def test_every_parameter_has_a_say(build, embedding):
    model = stir(build(time_embedding=embedding))
    model(batch(5, 1, 8, 8), TIMES).square().sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().sum() > 0, name


@pytest.mark.parametrize("build", [mlp, unet])
def test_a_datum_does_not_see_the_others_of_its_batch(build):
    model = stir(build())
    x = batch(5, 1, 8, 8)
    together = model(x, TIMES)
    alone = torch.cat([model(x[i : i + 1], TIMES[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("build", [mlp, unet])
def test_the_first_guess_is_near_0(build):
    assert build()(batch(5, 1, 8, 8), TIMES).square().mean() < 0.02


@pytest.mark.parametrize("build", [mlp, unet])
def test_time_matters(build):
    model = stir(build())
    x = batch(1, 1, 8, 8).expand(5, 1, 8, 8)
    eps = model(x, TIMES)
    assert (eps[1:] - eps[:-1]).flatten(1).norm(dim=1).min() > 1e-2


@pytest.mark.parametrize("build", [mlp, unet])
def test_the_way_past_the_layers_is_linear_in_x(build):
    """Layers that normalise see only the direction of a large x; g(t) x sees its length."""
    model = stir(build()).double()
    x = batch(5, 1, 8, 8).double()
    with torch.no_grad():
        far, farther = model(1e6 * x, TIMES), model(2e6 * x, TIMES)
        gain = model.direct(model.time(TIMES))[:, :, None, None]
    torch.testing.assert_close(farther - far, 1e6 * gain * x, rtol=1e-4, atol=50.0)


@pytest.mark.parametrize("build", [mlp, unet])
def test_networks_compute_in_double_precision_when_asked(build):
    model = stir(build()).double()
    x = batch(5, 1, 8, 8).double()
    assert model(x, TIMES).dtype == torch.float64
    torch.testing.assert_close(
        model(x, TIMES).float(), stir(build())(x.float(), TIMES), rtol=1e-2, atol=1e-2
    )


# --- the MLP's formula ---------------------------------------------------------------------------


def test_the_mlp_is_the_formula_of_its_docstring():
    model = stir(mlp(dim=3)).double()
    x = batch(5, 3).double()
    p = {name: value.detach().numpy() for name, value in model.named_parameters()}

    def affine(name, z):
        return z @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def silu(z):
        return z / (1 + np.exp(-z))

    def norm(z):
        away = z - z.mean(1, keepdims=True)
        return away / np.sqrt((away**2).mean(1, keepdims=True) + 1e-5)

    time = model.time(TIMES).numpy()
    gates = affine("gates.outer", silu(affine("gates.inner", time)))
    h = affine("enter", x.numpy())
    for k in range(2):
        gate = gates[:, 24 * k : 24 * (k + 1)]
        h = h + affine(f"down.{k}", gate * silu(affine(f"up.{k}", norm(h))))
    expected = affine("leave", norm(h)) + affine("direct", time) * x.numpy()
    np.testing.assert_allclose(model(x, TIMES).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


# --- the U-Net's ways ----------------------------------------------------------------------------


def test_detail_that_pooling_removes_passes_at_full_resolution():
    model = stir(unet())
    torch.nn.init.zeros_(model.direct.weight)
    torch.nn.init.zeros_(model.direct.bias)
    sign = torch.tensor([1.0, -1.0]).repeat(4)
    checkers = (sign[:, None] * sign)[None, None]  # mean 0 in each 2 × 2
    x = batch(1, 1, 8, 8)
    change = model(x + 0.1 * checkers, TIMES[:1]) - model(x, TIMES[:1])
    assert (change * checkers).mean().abs() > 1e-3


def test_a_corner_is_seen_from_the_opposite_one():
    model = stir(unet())
    x = batch(1, 1, 8, 8)
    poked = x.clone()
    poked[..., 0, 0] += 1.0
    change = model(poked, TIMES[:1]) - model(x, TIMES[:1])
    assert change[..., 7, 7].abs().item() > 1e-5


def test_closed_gates_leave_a_block_its_straight_way():
    block = stir(unet()).down_half
    torch.nn.init.zeros_(block.gates.outer.weight)
    torch.nn.init.zeros_(block.gates.outer.bias)
    x = batch(2, 8, 4, 4)
    straight = block.past(x) + block.second.bias[:, None, None]
    torch.testing.assert_close(block(x, batch(2, 8)), straight)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: mlp(dim=0), ValueError, "`dim` must be at least 1, got 0"),
        (lambda: mlp(width=0), ValueError, "`width` must be at least 1, got 0"),
        (lambda: mlp(blocks=0), ValueError, "`blocks` must be at least 1, got 0"),
        (lambda: mlp(blocks=1.5), TypeError, "`blocks` must be a whole number, got 1.5"),
        (lambda: mlp(time_features=7), ValueError, "`time_features` must be even, got 7"),
        (lambda: mlp(time_features=0), ValueError, "`time_features` must be at least 2, got 0"),
        (lambda: mlp(T=0), ValueError, "`T` must be at least 1, got 0"),
        (
            lambda: mlp(time_embedding="fourier"),
            ValueError,
            '`time_embedding` must be one of "sinusoidal", "learned", got \'fourier\'',
        ),
        (lambda: mlp(generator=0), TypeError, r"`generator` must be a torch\.Generator"),
        (lambda: unet(generator=None), TypeError, r"`generator` must be a torch\.Generator"),
        (lambda: unet(channels=0), ValueError, "`channels` must be at least 1, got 0"),
        (lambda: unet(base=12), ValueError, "`base` must be a multiple of 8, got 12"),
        (lambda: unet(base=0), ValueError, "`base` must be at least 8, got 0"),
    ],
)
def test_a_senseless_setting_is_an_error_that_names_it(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_data_of_another_size_are_an_error():
    with pytest.raises(ValueError, match=r"`x` must have 64 numbers each, got shape \(5, 8, 7\)"):
        mlp()(batch(5, 8, 7), TIMES)
    with pytest.raises(ValueError, match=r"`x` must have shape \(batch, 1, H, W\), got"):
        unet()(batch(5, 2, 8, 8), TIMES)
    with pytest.raises(ValueError, match=r"`x` must have shape \(batch, 1, H, W\), got"):
        unet()(batch(5, 64), TIMES)
    with pytest.raises(ValueError, match="`x` must have sides that are multiples of 4"):
        unet()(batch(5, 1, 8, 6), TIMES)


def test_examples_in_docstrings_run():
    assert doctest.testmod(networks).failed == 0
