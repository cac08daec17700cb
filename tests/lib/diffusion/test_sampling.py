"""Samplers: diffusers step by step, the formulas of the articles, and exact mixtures."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.diffusion import (
    GaussianMixture,
    Schedule,
    add_noise,
    article_noise,
    ddim_encode,
    interpolate,
    optimal_sigma,
    sample_ddim,
    sample_ddpm,
)

ARTICLE = Schedule.article(1000)
SCHEDULES = {
    "article": ARTICLE,
    "linear_beta": Schedule.linear_beta(1000),
    "cosine": Schedule.cosine(1000),
}
SMALL = Schedule.article(20)
TWO = GaussianMixture([0.4, 0.6], [[-1.0, 0.0], [1.0, 0.5]], [0.1, 0.2])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def wavy(x, t):
    """An arbitrary model: not linear, mixing coordinates, and different at every time."""
    phase = t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1)) / 90
    return torch.sin(1.3 * x + phase) + 0.3 * x.roll(1, -1)


def recorded(sample, *args, **kwargs):
    """Everything that `on_step` was told, and that the last of it is the result."""
    told = []
    result = sample(*args, on_step=lambda *step: told.append(step), **kwargs)
    assert torch.equal(told[-1][1], result)
    return told


def close(a, b, atol=1e-12):
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=0, atol=atol)


# --- diffusers, step by step ----------------------------------------------------------------------


def theirs(kind, schedule, **settings):
    """A scheduler of diffusers with our schedule in double precision and nothing clipped."""
    scheduler = kind(num_train_timesteps=schedule.T, clip_sample=False, **settings)
    scheduler.alphas_cumprod = torch.tensor(schedule.paper().alpha_bar)
    return scheduler


def their_path(scheduler, x, steps, model=wavy, **kwargs):
    """(x, x̂_0) after each step; their time t is our t + 1."""
    scheduler.set_timesteps(steps)
    path = []
    for t in scheduler.timesteps:
        out = scheduler.step(model(x, (t + 1).expand(len(x))), t, x, **kwargs)
        x = out.prev_sample
        path.append((x, out.pred_original_sample))
    return path


def assert_same_path(told, path, atol=1e-10):
    """States and x̂_0 at every step, relative to their size where ᾱ is small (x̂_0 = …/ᾱ)."""
    assert len(told) == len(path)
    for (_, x, x0_hat), (their_x, their_x0_hat) in zip(told, path, strict=True):
        torch.testing.assert_close(x, their_x, rtol=1e-9, atol=atol)
        torch.testing.assert_close(x0_hat, their_x0_hat, rtol=1e-9, atol=atol)


# every schedule, several numbers of steps, and one of them walked at all of its times
RUNS = [(name, steps) for name in SCHEDULES for steps in (1, 10, 50, 125)] + [("article", 1000)]


@pytest.mark.parametrize(("name", "steps"), RUNS)
@pytest.mark.parametrize(
    ("variance", "their_name"),
    [("posterior", "fixed_small"), ("posterior", "fixed_small_log"), ("beta", "fixed_large")],
)
def test_ddpm_is_that_of_diffusers_at_every_step(name, variance, their_name, steps):
    schedule = SCHEDULES[name]
    x = normal(3, 2, 4)
    told = recorded(
        sample_ddpm,
        wavy,
        x,
        schedule,
        variance=variance,
        generator=generator(1),
        steps=steps,
        spacing="leading",
    )
    scheduler = theirs(DDPMScheduler, schedule, variance_type=their_name)
    assert_same_path(told, their_path(scheduler, x, steps, generator=generator(1)))


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize(("name", "steps"), RUNS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_that_of_diffusers_at_every_step(name, eta, steps, spacing):
    schedule = SCHEDULES[name]
    x = normal(3, 2, 4)
    told = recorded(
        sample_ddim,
        wavy,
        x,
        schedule,
        steps=steps,
        spacing=spacing,
        eta=eta,
        generator=generator(1),
    )
    scheduler = theirs(DDIMScheduler, schedule, timestep_spacing=spacing)
    assert_same_path(told, their_path(scheduler, x, steps, eta=eta, generator=generator(1)))


@pytest.mark.parametrize("steps", [7, 30, 333])
def test_ddim_agrees_where_the_steps_do_not_divide_T(steps):
    x = normal(3, 2, 4)
    told = recorded(sample_ddim, wavy, x, ARTICLE, steps=steps, spacing="leading")
    assert_same_path(told, their_path(theirs(DDIMScheduler, ARTICLE), x, steps))


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [10, 50, 1000])
def test_inversion_is_that_of_diffusers_at_every_step(steps, spacing):
    x = normal(3, 2, 4)
    told = recorded(ddim_encode, wavy, x, ARTICLE, steps=steps, spacing=spacing)
    scheduler = theirs(DDIMInverseScheduler, ARTICLE, timestep_spacing=spacing)
    path = their_path(scheduler, x, steps)
    assert [t for t, _, _ in told] == ARTICLE.timesteps(steps, spacing).tolist()
    for (_, ours, _), (other, _) in zip(told, path, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-10)


def test_single_precision_agrees_with_diffusers_as_it_comes():
    schedule = SCHEDULES["linear_beta"]
    x = normal(3, 2, 4, dtype=torch.float32)
    told = recorded(sample_ddim, wavy, x, schedule, steps=50, spacing="leading")
    scheduler = DDIMScheduler(beta_schedule="linear", clip_sample=False)
    assert told[-1][1].dtype == torch.float32
    close(told[-1][1], their_path(scheduler, x, 50)[-1][0], atol=1e-3)


def test_adding_noise_is_that_of_diffusers():
    x0, noise, t = normal(5, 2, 3), normal(5, 2, 3, seed=1), torch.tensor([1, 2, 500, 999, 1000])
    expected = theirs(DDPMScheduler, ARTICLE).add_noise(x0, noise, t - 1)
    close(add_noise(x0, t, noise, ARTICLE), expected)


# --- adding noise ---------------------------------------------------------------------------------


def test_noise_is_added_by_the_formula_at_whole_and_real_times():
    x0, noise = normal(4, 3), normal(4, 3, seed=1)
    t = torch.tensor([0.0, 2.5, 10.0, 20.0])
    a, b = (torch.tensor(bar)[:, None] for bar in SMALL.at(t.numpy()))
    close(add_noise(x0, t, noise, SMALL), a * x0 + b * noise)
    close(add_noise(x0, 7, noise, SMALL), SMALL.alpha_bar[7] * x0 + SMALL.beta_bar[7] * noise)
    assert torch.equal(add_noise(x0, 0, noise, SMALL), x0)
    assert add_noise(x0.float(), t, noise.float(), SMALL).dtype == torch.float32


def test_gradients_flow_through_added_noise():
    x0 = normal(2, 3).requires_grad_()
    add_noise(x0, 5, normal(2, 3), SMALL).sum().backward()
    close(x0.grad, torch.full((2, 3), SMALL.alpha_bar[5], dtype=torch.float64))


def test_the_articles_sampler_uses_the_rescaled_noise():
    """x_{t-1} = (x_t - β_t ε_θ)/α_t + σ_t z with article 9119's own ε_θ = β_t/β̄_t ε."""
    x, g = normal(3, 2), generator(5)
    told = recorded(sample_ddpm, wavy, x, SMALL, generator=generator(5))
    for t, (then, reached, _) in zip(range(20, 0, -1), told, strict=True):
        eps = article_noise(wavy(x, torch.full((3,), t)), t, SMALL)
        x = (x - SMALL.beta[t] * eps) / SMALL.alpha[t]
        if t > 1:
            x = x + SMALL.beta[t] * torch.randn(3, 2, generator=g, dtype=torch.float64)
        assert then == t - 1
        close(reached, x)
    sub = SMALL.subsequence([6, 20])
    close(article_noise(x, 20, sub), x * sub.beta[2] / sub.beta_bar[2])


# --- the family -----------------------------------------------------------------------------------


@pytest.mark.parametrize("thinning", [{}, {"steps": 6}, {"timesteps": [1, 7, 8, 19]}])
def test_eta_one_is_ddpm_with_the_posterior_variance(thinning):
    x = normal(3, 2)
    ddim = recorded(sample_ddim, wavy, x, SMALL, eta=1.0, generator=generator(2), **thinning)
    ddpm = recorded(
        sample_ddpm, wavy, x, SMALL, variance="posterior", generator=generator(2), **thinning
    )
    for (t, a, a0), (s, b, b0) in zip(ddim, ddpm, strict=True):
        assert t == s
        close(a, b)
        close(a0, b0)


def test_eta_refers_to_the_sigma_of_the_subsequence():
    kept, eta = [4, 11, 20], 0.7
    sub = SMALL.subsequence(kept)
    sigma = eta * sub.ddpm_sigma("posterior")
    x = normal(3, 2)
    by_eta = sample_ddim(wavy, x, SMALL, timesteps=kept, eta=eta, generator=generator(1))
    by_hand = sample_ddim(wavy, x, SMALL, timesteps=kept, sigma=sigma, generator=generator(1))
    directly = sample_ddim(wavy, x, sub, eta=eta, generator=generator(1))
    close(by_eta, by_hand, atol=0)
    close(by_eta, directly, atol=0)
    old = eta * SMALL.ddpm_sigma("posterior")[[0, 1, *kept[1:]]]  # the first of them is 0
    wrong = sample_ddim(wavy, x, SMALL, timesteps=kept, sigma=old, generator=generator(1))
    assert (by_eta - wrong).abs().max() > 0.01


@pytest.mark.parametrize("timesteps", [None, [1, 2, 3, 20], [10, 20]])
def test_sigma_beta_is_cut_at_what_is_left_of_the_noise(timesteps):
    chain = SMALL if timesteps is None else SMALL.subsequence(timesteps)
    cut = np.minimum(chain.beta[1:], chain.beta_bar[:-1])
    assert (cut < chain.beta[1:]).any()
    x, g = normal(3, 2), generator(3)
    told = recorded(
        sample_ddim, wavy, x, SMALL, timesteps=timesteps, sigma="beta", generator=generator(3)
    )
    for k, (_, reached, x0_hat) in zip(range(chain.T, 0, -1), told, strict=True):
        eps = wavy(x, torch.full((3,), int(chain.times[k])))
        estimate = (x - chain.beta_bar[k] * eps) / chain.alpha_bar[k]
        left = math.sqrt(max(chain.beta_bar[k - 1] ** 2 - cut[k - 1] ** 2, 0.0))
        x = chain.alpha_bar[k - 1] * estimate + left * eps
        if cut[k - 1]:
            x = x + cut[k - 1] * torch.randn(3, 2, generator=g, dtype=torch.float64)
        close(x0_hat, estimate, atol=1e-11)
        close(reached, x, atol=1e-11)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=5, max_size=5))
def test_every_member_of_the_family_keeps_the_marginals(shares):
    """For a single point of data the model is exact, and every x_t must be N(ᾱ_t x_0, β̄_t²)."""
    point, n = 1.7, 4000
    chain = Schedule.from_alpha_bar([0.95, 0.8, 0.5, 0.3, 0.1])
    exact = GaussianMixture([1.0], [[point]], 0.0).noise_predictor(chain)
    sigma = np.zeros(6)
    sigma[1:] = np.array(shares) * chain.beta_bar[:-1]
    x = add_noise(torch.full((n, 1), point), 5, normal(n, 1, seed=9).float(), chain).double()
    told = recorded(sample_ddim, exact, x, chain, sigma=sigma, generator=generator(11))
    for t, state, x0_hat in told:
        close(x0_hat, torch.full((n, 1), point, dtype=torch.float64), atol=1e-9)
        if t:
            z = (state - chain.alpha_bar[t] * point) / chain.beta_bar[t]
            assert abs(z.mean()) < 5 / math.sqrt(n)
            assert abs(z.var() - 1) < 5 * math.sqrt(2 / n)
    close(told[-1][1], torch.full((n, 1), point, dtype=torch.float64), atol=1e-9)


def test_sigma_may_be_all_that_is_left_and_no_more():
    most = np.concatenate([[0.0], SMALL.beta_bar[:-1]])
    out = sample_ddim(wavy, normal(3, 2), SMALL, sigma=most, generator=generator())
    assert torch.isfinite(out).all()
    with pytest.raises(ValueError, match=r"at t = 2, got σ_t"):
        sample_ddim(wavy, normal(3, 2), SMALL, sigma=1.001 * most, generator=generator())


def test_ddim_is_deterministic_and_needs_no_generator():
    x = normal(3, 2)
    assert torch.equal(
        sample_ddim(wavy, x, SMALL, steps=5),
        sample_ddim(wavy, x, SMALL, steps=5, generator=generator(7)),
    )
    assert torch.equal(sample_ddim(wavy, x, SMALL, sigma=np.zeros(21)), sample_ddim(wavy, x, SMALL))


def test_the_same_seed_gives_the_same_samples():
    x = normal(3, 2)
    draws = [sample_ddpm(wavy, x, SMALL, generator=generator(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_the_last_step_adds_no_noise():
    x, one = normal(3, 2), Schedule.article(1)
    for variance in ("beta", "posterior", "optimal-batch", np.array([0.0, 5.0])):
        a, b = (
            sample_ddpm(wavy, x, one, variance=variance, generator=generator(seed))
            for seed in (1, 2)
        )
        assert torch.equal(a, b)


# --- what goes in and out -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_model_is_told_the_times_of_the_training(dtype):
    asked = []

    def listening(x, t):
        assert t.shape == (3,)
        assert t.dtype == torch.int64
        asked.extend(t.unique().tolist())
        return 0.1 * x

    x = normal(3, 2, 2, dtype=dtype)
    before = x.clone()
    for sample in (sample_ddpm, sample_ddim):
        asked.clear()
        out = sample(listening, x, SMALL, timesteps=[1, 5, 20], generator=generator())
        assert asked == [20, 5, 1]
        assert out.dtype == dtype
        assert out.shape == x.shape
    asked.clear()
    ddim_encode(listening, x, SMALL, timesteps=[1, 5, 20])
    assert asked == [1, 5, 20]
    assert torch.equal(x, before)


def test_every_state_is_reported_and_stays_as_it_was():
    told = recorded(sample_ddpm, wavy, normal(3, 2), SMALL, generator=generator())
    assert [t for t, _, _ in told] == list(range(19, -1, -1))
    copies = [x.clone() for _, x, _ in told]
    assert all(torch.equal(x, copy) for (_, x, _), copy in zip(told, copies, strict=True))
    assert len({x.data_ptr() for _, x, _ in told}) == 20
    ddim = recorded(sample_ddim, wavy, normal(3, 2), SMALL)
    close(ddim[-1][1], ddim[-1][2])  # at t = 0 the state is x̂_0


def test_sampling_keeps_no_gradients():
    layer = torch.nn.Linear(2, 2).double()

    def network(x, t):
        return layer(x)

    x = normal(3, 2).requires_grad_()
    assert not sample_ddim(network, x, SMALL).requires_grad
    assert not sample_ddpm(network, x, SMALL, generator=generator()).requires_grad
    assert not ddim_encode(network, x, SMALL).requires_grad
    assert torch.is_grad_enabled()


# --- the variance of DDPM -------------------------------------------------------------------------


def test_beta_is_optimal_for_normal_data_and_posterior_for_a_point():
    for variance, kind in ((1.0, "beta"), (0.0, "posterior")):
        data = GaussianMixture([1.0], [[0.0, 0.0]], variance)
        x0, g = data.sample(20_000, generator()), generator(1)
        found = optimal_sigma(data.noise_predictor(SMALL), x0, SMALL, generator=g)
        assert found.shape == (21,)
        np.testing.assert_allclose(found[2:], SMALL.ddpm_sigma(kind)[2:], rtol=0.02)


@pytest.mark.parametrize("timesteps", [[20], [2, 9, 20], None])
def test_the_optimal_sigma_is_the_average_variance_of_the_exact_step(timesteps):
    data = GaussianMixture([0.4, 0.6], [[-1.0, 0.0], [1.0, 0.5]], [0.1, 0.2])
    x0, noise = data.sample(20_000, generator(3)), normal(20_000, 2, seed=4)
    found = optimal_sigma(
        data.noise_predictor(SMALL), x0, SMALL, generator=generator(5), timesteps=timesteps
    )
    chain = SMALL if timesteps is None else SMALL.subsequence(timesteps)
    for k in range(1, chain.T + 1):
        t, s = int(chain.times[k]), int(chain.times[k - 1])
        x = add_noise(x0, t, noise, SMALL)
        exact = data.step_posterior(x, t, SMALL, s=s).covariance()
        mean_variance = exact.diagonal(dim1=1, dim2=2).mean().item()
        assert found[k] ** 2 == pytest.approx(mean_variance, rel=0.03)
    low, high = chain.ddpm_sigma("posterior"), chain.beta / chain.alpha
    assert (found >= low).all()
    assert (found <= high + 1e-12).all()


def test_optimal_batch_finds_the_same_variance_in_what_it_samples():
    """Three large steps to the data; the spread of the results shows the σ that was used."""
    data, times = TWO, [6, 12, 20]
    x_T = data.noised(SMALL.alpha_bar[20], SMALL.beta_bar[20]).sample(20_000, generator())
    model = data.noise_predictor(SMALL)
    x0 = data.sample(20_000, generator(1))
    sigma = optimal_sigma(model, x0, SMALL, generator=generator(2), timesteps=times)
    args = (model, x_T, SMALL)
    batch = recorded(
        sample_ddpm, *args, variance="optimal-batch", generator=generator(3), timesteps=times
    )
    array = recorded(sample_ddpm, *args, variance=sigma, generator=generator(3), timesteps=times)
    for (_, a, _), (_, b, _) in zip(batch, array, strict=True):
        assert (a - b).square().mean().sqrt() < 0.02 * b.std()


def test_the_optimal_variance_gives_the_exact_second_moment_of_gaussian_data():
    data = GaussianMixture([1.0], [[0.0]], 0.36)
    model, times, n = data.noise_predictor(ARTICLE), [100, 300, 600, 1000], 40_000
    x_T = data.noised(ARTICLE.alpha_bar[-1], ARTICLE.beta_bar[-1]).sample(n, generator())
    power = [
        data.noised(*ARTICLE.at(t)).covariance().item() ** -1 * ARTICLE.beta_bar[t] ** 2
        for t in times
    ]
    chain = ARTICLE.subsequence(times)
    spread = chain.beta[1:] ** 2 / (chain.alpha[1:] * chain.beta_bar[1:])
    sigma = np.zeros(5)
    sigma[1:] = np.sqrt(chain.ddpm_sigma("posterior")[1:] ** 2 + spread**2 * (1 - np.array(power)))
    told = recorded(
        sample_ddpm, model, x_T, ARTICLE, variance=sigma, generator=generator(1), timesteps=times
    )
    for t, x, _ in told[:-1]:
        expected = data.noised(*ARTICLE.at(t)).covariance().item()
        assert x.var().item() == pytest.approx(expected, rel=5 * math.sqrt(2 / n))


# --- the way back, and between --------------------------------------------------------------------


def test_encoding_and_decoding_come_closer_with_more_steps():
    model, x0 = TWO.noise_predictor(ARTICLE), TWO.sample(200, generator())
    errors = []
    for steps in (10, 100, 1000):
        noise = ddim_encode(model, x0, ARTICLE, steps=steps)
        back = sample_ddim(model, noise, ARTICLE, steps=steps)
        errors.append((back - x0).square().mean().sqrt().item())
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 0.01


def test_repeated_encoding_is_the_exact_inverse():
    model, x0 = TWO.noise_predictor(ARTICLE), TWO.sample(50, generator())
    noise = ddim_encode(model, x0, ARTICLE, steps=100, iterations=20)
    close(sample_ddim(model, noise, ARTICLE, steps=100), x0, atol=1e-4)


def test_the_code_of_gaussian_data_is_the_same_deviation_from_the_mean():
    """The exact flow of N(m, s²) keeps (x - ᾱm)/√(ᾱ²s² + β̄²)."""
    data = GaussianMixture([1.0], [[0.8]], 0.25)
    x0 = data.sample(50, generator())
    noise = ddim_encode(data.noise_predictor(ARTICLE), x0, ARTICLE, steps=1000)
    end = data.noised(ARTICLE.alpha_bar[-1], ARTICLE.beta_bar[-1])
    close((noise - end.mean()) / end.covariance().sqrt(), (x0 - 0.8) / 0.5, atol=0.02)


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(0, 100))
def test_interpolation_keeps_the_standard_normal(weight, seed):
    basis = torch.eye(2, dtype=torch.float64)
    a, b = interpolate(basis[:1], basis[1:], weight)[0]  # the coefficients themselves
    assert a >= 0
    assert b >= 0
    assert a**2 + b**2 == pytest.approx(1, abs=1e-15)
    assert b == pytest.approx(math.sin(weight * math.pi / 2), abs=1e-15)
    noises = normal(2, 3, seed=seed)
    close(interpolate(noises[0], noises[1], weight), a * noises[0] + b * noises[1], atol=1e-14)


def test_interpolation_starts_and_ends_at_the_noises():
    a, b = normal(2, 3, 4, seed=1), normal(2, 3, 4, seed=2)
    path = interpolate(a, b, np.linspace(0, 1, 5))
    assert path.shape == (5, 2, 3, 4)
    assert torch.equal(path[0], a)
    assert torch.equal(path[-1], b)
    close(path[2], (a + b) / math.sqrt(2))
    assert torch.equal(path[1], interpolate(a, b, 0.25))
    assert interpolate(a.float(), b.float(), 0.5).dtype == torch.float32


def test_halfway_the_straight_line_has_lost_half_of_the_variance():
    a, b = normal(20_000, seed=1), normal(20_000, seed=2)
    assert interpolate(a, b, 0.5).var().item() == pytest.approx(1.0, rel=0.05)
    assert (0.5 * a + 0.5 * b).var().item() == pytest.approx(0.5, rel=0.05)


# --- bad input ------------------------------------------------------------------------------------

X, G = normal(3, 2), generator()


def breaks(value, at):
    def model(x, t):
        return torch.full_like(x, value) if t[0] == at else 0.1 * x

    return model


def ddpm(**changes):
    given = {"model": wavy, "x_T": X, "schedule": SMALL, "generator": G} | changes
    return sample_ddpm(given.pop("model"), given.pop("x_T"), given.pop("schedule"), **given)


def ddim(**changes):
    given = {"model": wavy, "x_T": X, "schedule": SMALL} | changes
    return sample_ddim(given.pop("model"), given.pop("x_T"), given.pop("schedule"), **given)


NAN, INF = float("nan"), float("inf")
WHOLE_MODEL = r"`model\(x, t\) at t = 20` must have the "
BAD = [
    (lambda: ddpm(x_T=X.numpy()), TypeError, "`x_T` must be a torch.Tensor, got ndarray"),
    (lambda: ddpm(x_T=X.long()), TypeError, "`x_T` must have a floating dtype, got torch.int64"),
    (lambda: ddpm(x_T=X[:0]), ValueError, r"`x_T` must have shape \(batch, …\), got \(0, 2\)"),
    (lambda: ddpm(x_T=X[0, 0]), ValueError, r"`x_T` must have shape \(batch, …\), got \(\)"),
    (lambda: ddpm(x_T=X * NAN), ValueError, r"`x_T` must be finite, got NaN \(6 of 6"),
    (lambda: ddpm(schedule=20), TypeError, "`schedule` must be a Schedule, got int"),
    (lambda: ddpm(generator=0), TypeError, "`generator` must be a torch.Generator such as"),
    (lambda: ddpm(variance="large"), ValueError, '`variance` must be one of "beta", "posterior"'),
    (lambda: ddpm(variance=np.ones(20)), ValueError, "`variance` must hold 21 numbers, got 20"),
    (lambda: ddpm(variance=-np.ones(21)), ValueError, r"`variance` must lie in \[0, inf\]"),
    (lambda: ddpm(steps=21), ValueError, "`steps` must be from 1 to 20, got 21"),
    (lambda: ddpm(steps=3, timesteps=[5, 20]), ValueError, "must not be given together with"),
    (lambda: ddpm(timesteps=[20, 5]), ValueError, "`timesteps` must ascend without repeats"),
    (lambda: ddpm(timesteps=[5, 5]), ValueError, "`timesteps` must ascend without repeats"),
    (lambda: ddpm(timesteps=[0, 5]), ValueError, "`timesteps` must lie between 1 and T = 20"),
    (lambda: ddpm(model=breaks(NAN, 7)), ValueError, r"at t = 7` must be finite, got NaN \(6 of 6"),
    (lambda: ddpm(model=breaks(INF, 1)), ValueError, "at t = 1` must be finite, got inf"),
    (lambda: ddpm(model=lambda x, t: x[:, :1]), ValueError, WHOLE_MODEL + "shape of `x`"),
    (lambda: ddpm(model=lambda x, t: x.float()), ValueError, WHOLE_MODEL + "dtype of `x`"),
    (lambda: ddpm(model=lambda x, t: x.to("meta")), ValueError, WHOLE_MODEL + "device of `x`"),
    (lambda: ddpm(model=lambda x, t: None), TypeError, "must be a torch.Tensor, got NoneType"),
    (lambda: ddim(eta=-0.1), ValueError, r"`eta` must lie in \[0, inf\], got -0.1"),
    (lambda: ddim(eta=NAN), ValueError, "`eta` must be finite"),
    (lambda: ddim(eta=[0.1]), ValueError, "`eta` must be a single number"),
    (lambda: ddim(eta=0.5), TypeError, "`generator` must be a torch.Generator .* got NoneType"),
    (lambda: ddim(eta=50.0, generator=G), ValueError, r"`eta` must leave σ_t at most β̄_\(t-1\)"),
    (lambda: ddim(eta=0.5, sigma="beta"), ValueError, "`eta` must be left at 0"),
    (lambda: ddim(sigma="posterior"), ValueError, '`sigma` must be one of "beta"'),
    (lambda: ddim(sigma=np.ones(21)), ValueError, "`sigma` must leave .* = 0 at t = 1, got σ_t"),
    (lambda: ddim(sigma=np.zeros(4)), ValueError, "`sigma` must hold 21 numbers, got 4"),
    (lambda: ddim(model=breaks(NAN, 20)), ValueError, "at t = 20` must be finite"),
    (lambda: ddim(steps=0), ValueError, "`steps` must be from 1 to 20, got 0"),
    (
        lambda: ddim_encode(breaks(NAN, 3), X, SMALL),
        ValueError,
        "at t = 3` must be finite",
    ),
    (
        lambda: ddim_encode(wavy, X, SMALL, iterations=0),
        ValueError,
        "`iterations` must be at least 1, got 0",
    ),
    (lambda: ddim_encode(wavy, X.long(), SMALL), TypeError, "`x0` must have a floating dtype"),
    (lambda: add_noise(X, 21, X, SMALL), ValueError, r"`t` must lie in \[0, 20\], got 21"),
    (lambda: add_noise(X, -1, X, SMALL), ValueError, r"`t` must lie in \[0, 20\], got -1"),
    (lambda: add_noise(X, torch.ones(2), X, SMALL), ValueError, r"batch's shape \(3,\), got \(2,"),
    (lambda: add_noise(X, [1, 2, 3], X, SMALL), ValueError, "`t` must be a single number"),
    (lambda: add_noise(X, 1, X[:2], SMALL), ValueError, r"`noise` must have the shape of `x0`"),
    (lambda: add_noise(X, 1, X.float(), SMALL), ValueError, "`noise` must have the dtype of `x0`"),
    (lambda: add_noise(X, 1, X.to("meta"), SMALL), ValueError, "must have the device of `x0`"),
    (lambda: add_noise(X, 1, X.numpy(), SMALL), TypeError, "`noise` must be a torch.Tensor"),
    (lambda: article_noise(X, 0, SMALL), ValueError, "`t` must lie between 1 and T = 20, got 0"),
    (lambda: interpolate(X, X, 1.1), ValueError, r"`weights` must lie in \[0, 1\], got 1.1"),
    (lambda: interpolate(X, X, [[0.5]]), ValueError, "`weights` must be a number or one row"),
    (lambda: interpolate(X, X[:1], 0.5), ValueError, "`x_T_b` must have the shape of `x_T_a`"),
    (lambda: interpolate(X, X * NAN, 0.5), ValueError, "`x_T_b` must be finite"),
    (
        lambda: optimal_sigma(breaks(NAN, 5), X, SMALL, generator=G),
        ValueError,
        "at t = 5` must be finite",
    ),
    (
        lambda: optimal_sigma(wavy, X, SMALL, generator=None),
        TypeError,
        "`generator` must be a torch.Generator",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD)
def test_bad_input_is_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_large_but_finite_numbers_are_not_mistaken_for_infinity():
    huge = torch.full((3, 2), 2e38)
    sample_ddim(lambda x, t: x, huge, SMALL, steps=1)
