"""The flow's inverse, its determinant, and a density that integrates to 1."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from lib.generative.flow import EDGE, LEVEL, Flow, dequantise, train_flow


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and waiting threads slow a busy machine down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def curve(n: int) -> np.ndarray:
    """Points (n, 2) near y = x²."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-0.9, 0.9, n)
    return np.stack([x, np.clip(x**2 + 0.03 * rng.standard_normal(n), -1, 1)], 1)


CURVE = curve(3000)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stirred(shape=(5,), couplings: int = 4, deviation: float = 0.3, bounded: bool = True) -> Flow:
    """A flow whose couplings, means and deviations are far from where they start."""
    model = Flow(shape, couplings=couplings, width=16, generator=seeded(), bounded=bounded)
    model = model.double()
    g = seeded(9)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(deviation * torch.randn(p.shape, generator=g))
        model.mean.add_(0.2 * torch.randn(model.size, generator=g))
        model.deviation.mul_(0.5 + torch.rand(model.size, generator=g))
    return model.finished()


def inside(*shape: int, seed: int = 1) -> torch.Tensor:
    return EDGE * (1.98 * torch.rand(shape, generator=seeded(seed), dtype=torch.float64) - 0.99)


@pytest.mark.parametrize("shape", [(2,), (5,), (2, 3)])
def test_the_inverse_brings_back_the_data_and_the_noise(shape):
    model = stirred(shape)
    x = inside(50, *shape)
    z, _ = model.encode(x)
    assert (model.decode(z) - x).abs().max() < 1e-9
    again, _ = model.encode(model.decode(z))
    assert (again - z).abs().max() < 1e-6


def test_the_inverse_of_a_trained_flow_holds_in_single_precision():
    x = np.clip(0.4 * np.random.default_rng(0).standard_normal((300, 6)), -1, 1)
    model = train_flow(x, steps=60, generator=seeded(), width=32)
    z, _ = model.encode(x)
    assert (model.decode(z) - torch.from_numpy(x)).abs().max() < 1e-5


@pytest.mark.parametrize("shape", [(2,), (5,), (2, 2)])
def test_the_log_determinant_is_that_of_autograds_jacobian(shape):
    model = stirred(shape)
    x = inside(6, *shape)
    _, log_det = model.encode(x)
    for datum, got in zip(x, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda y: model.encode(y[None])[0][0], datum)
        expected = torch.linalg.slogdet(jacobian.reshape(model.size, model.size)).logabsdet
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def grid_of(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points over the square, closer together near its edge, and the area that each stands for."""
    line = torch.linspace(-11.0, 11.0, n, dtype=torch.float64)
    points = EDGE * torch.cartesian_prod(line, line).tanh()
    width = EDGE * (1.0 - (points / EDGE).square()) * (line[1] - line[0])
    return points, width.prod(1)


def test_the_density_integrates_to_1_over_the_square():
    points, area = grid_of(600)
    torch.testing.assert_close(area.sum().item(), (2.0 * EDGE) ** 2, rtol=1e-4, atol=0)
    curved = train_flow(CURVE, steps=100, generator=seeded(), couplings=4, width=32).double()
    for model in (stirred((2,), deviation=0.1), curved):
        mass = (model.log_density(points).exp() * area).sum().item()
        assert mass == pytest.approx(1.0, abs=1e-3)


def test_samples_have_the_moments_of_the_density():
    model = stirred((2,), deviation=0.1)
    points, area = grid_of(400)
    weight = model.log_density(points).exp() * area
    z = torch.randn(40_000, 2, generator=seeded(3), dtype=torch.float64)
    x = model.decode(z)
    torch.testing.assert_close(x.mean(0), weight @ points, atol=0.02, rtol=0)
    torch.testing.assert_close(x.square().mean(0), weight @ points.square(), atol=0.02, rtol=0)
    assert torch.equal(model.sample(40_000, seeded(3)), x.clamp(-1.0, 1.0))


def test_without_training_the_map_of_numbers_is_all_there_is():
    model = Flow((3,), couplings=5, width=8, generator=seeded()).double()
    x = inside(4, 3)
    z, log_det = model.encode(x)
    torch.testing.assert_close(z, (x / EDGE).atanh())
    slope = 1.0 / (EDGE * (1.0 - (x / EDGE).square()))
    torch.testing.assert_close(log_det, slope.log().sum(1))
    normal = -0.5 * z.square().sum(1) - 1.5 * math.log(2 * math.pi)
    torch.testing.assert_close(model.log_density(x), normal + log_det)


def test_a_coupling_stretches_by_at_most_its_bound():
    model = stirred((4,), couplings=1, deviation=20.0)
    plain = Flow((4,), couplings=1, width=8, generator=seeded()).double()
    plain.deviation.copy_(model.deviation)
    x = inside(100, 4)
    (_, wild), (_, tame) = model.encode(x), plain.encode(x)
    assert (wild - tame).abs().max() <= 2 * 2.0 + 1e-9  # two numbers move, each by e² at most
    assert (wild - tame).abs().max() > 1.0


def test_noise_fills_the_cell_of_a_level():
    x = torch.zeros(20_000, 1)
    noise = dequantise(x, seeded()) / LEVEL
    assert noise.min() >= -0.5
    assert noise.max() <= 0.5
    assert noise.mean().item() == pytest.approx(0.0, abs=0.01)
    assert noise.var().item() == pytest.approx(1 / 12, rel=0.03)


def test_training_finds_a_density_better_than_independent_numbers():
    settings = {"couplings": 4, "width": 32}
    model = train_flow(CURVE, steps=300, generator=seeded(), **settings)
    start = train_flow(CURVE, steps=1, generator=seeded(), learning_rate=1e-9, **settings)
    fresh = dequantise(torch.from_numpy(CURVE), seeded(4))
    gain = model.log_density(fresh).mean() - start.log_density(fresh).mean()
    assert gain > 0.5
    drawn = model.sample(1000, seeded(5)).double()
    assert (drawn[:, 1] - drawn[:, 0].square()).abs().median() < 0.1


# --- vectors --------------------------------------------------------------------------------------


def cloud(n: int, scale: float = 1.0) -> np.ndarray:
    """Vectors (n, 3) far from the origin, the third a curved function of the first two."""
    x, y, noise = np.random.default_rng(0).standard_normal((3, n))
    return scale * np.stack([x + 8.0, 5.0 * y, x**2 - y**2 + 0.1 * noise], 1)


def test_an_unbounded_flow_has_an_inverse_and_the_determinant_of_its_jacobian():
    model = stirred((4,), bounded=False)
    x = 30.0 * torch.randn(6, 4, generator=seeded(1), dtype=torch.float64)
    z, log_det = model.encode(x)
    torch.testing.assert_close(model.decode(z), x)
    for datum, got in zip(x, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda y: model.encode(y[None])[0][0], datum)
        torch.testing.assert_close(got, torch.linalg.slogdet(jacobian).logabsdet)


def test_an_unbounded_density_integrates_to_1():
    model = stirred((2,), deviation=0.1, bounded=False)
    line = torch.linspace(-15.0, 15.0, 600, dtype=torch.float64)
    mass = (
        model.log_density(torch.cartesian_prod(line, line)).exp().sum() * (line[1] - line[0]) ** 2
    )
    assert mass.item() == pytest.approx(1.0, abs=1e-3)


def test_before_its_couplings_move_a_flow_of_vectors_only_standardises_them():
    data = cloud(500)
    model = train_flow(
        data, steps=1, generator=seeded(), learning_rate=1e-9, couplings=1, bounded=False
    )
    z, _ = model.encode(data)
    expected = (data - data.mean(0)) / data.std(0)
    np.testing.assert_allclose(z.numpy(), expected, atol=1e-4)


def test_training_finds_a_better_density_of_vectors_than_independent_numbers():
    settings = {"couplings": 6, "width": 32, "bounded": False}
    model = train_flow(cloud(2000), steps=300, generator=seeded(), **settings)
    start = train_flow(cloud(2000), steps=1, generator=seeded(), learning_rate=1e-9, **settings)
    fresh = cloud(3000)[2000:]
    assert model.log_density(fresh).mean() - start.log_density(fresh).mean() > 0.5


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_unit_of_vectors_does_not_matter(scale):
    settings = {"steps": 20, "couplings": 4, "width": 16, "bounded": False}
    plain = train_flow(cloud(300), generator=seeded(), **settings)
    scaled = train_flow(cloud(300, scale), generator=seeded(), **settings)
    (z, log_det), (w, log_det_w) = plain.encode(cloud(300)), scaled.encode(cloud(300, scale))
    torch.testing.assert_close(w, z, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(log_det_w, log_det - 3 * math.log(scale), atol=1e-3, rtol=1e-3)


def test_samples_of_an_unbounded_flow_are_not_cut():
    model = train_flow(
        cloud(500), steps=20, generator=seeded(), couplings=2, width=16, bounded=False
    )
    assert model.sample(100, seeded(1))[:, 0].mean() > 6.0


def test_a_number_that_never_changes_leaves_a_flow_of_vectors_finite():
    data = cloud(300)
    data[:, 1] = 2.0
    model = train_flow(data, steps=10, generator=seeded(), couplings=2, width=16, bounded=False)
    assert torch.isfinite(model.log_density(data)).all()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.full((3, 2), np.inf), "`data` must be finite, got inf"),
        (np.zeros((0, 2)), r"`data` must have shape \(N, …\) and not be empty, got \(0, 2\)"),
        (np.zeros(4), r"`data` must have shape \(N, …\) and not be empty, got \(4,\)"),
    ],
)
def test_bad_vectors_are_an_error(data, message):
    with pytest.raises(ValueError, match=message):
        train_flow(data, steps=1, generator=seeded(), bounded=False)


def test_a_bounded_flow_refuses_vectors_and_a_flag_that_is_none():
    with pytest.raises(ValueError, match=r"`data` must lie in \[-1, 1\]"):
        train_flow(cloud(10), steps=1, generator=seeded())
    for call in (train_flow, lambda data, **_: Flow((3,), couplings=1, width=1, **_)):
        with pytest.raises(TypeError, match="`bounded` must be True or False, got 'no'"):
            call(cloud(10), generator=seeded(), bounded="no")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.log_density(np.zeros((2, 3))), r"`x` must have shape \(N, 5\), got \(2, 3\)"),
        (lambda m: m.log_density(np.full((2, 5), np.nan)), "`x` must be finite, got nan"),
        (lambda m: m.log_density(np.full((2, 5), 1.2)), r"`x` must lie in \(-1\.125, 1\.125\)"),
        (lambda m: m.decode(np.zeros((2, 3))), r"`z` must have shape \(N, 5\), got \(2, 3\)"),
    ],
)
def test_bad_input_is_an_error_that_names_it(call, message):
    with pytest.raises(ValueError, match=message):
        call(stirred())
