"""The ODE of DDIM: orders of its methods, the papers' own formulas, and SciPy on both clocks."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from lib.diffusion import (
    GaussianMixture,
    Schedule,
    clock_rhs,
    ddim_encode,
    evaluations,
    ode_path,
    ode_times,
    sample_ddim,
    sample_ode,
)
from lib.diffusion.solvers import GRIDS, METHODS

ARTICLE = Schedule.article(1000)
GAUSSIAN = GaussianMixture([1.0], [[0.7, -0.4]], 0.3)
# components overlap: no point starts so near a watershed that the order shows only later
SMOOTH = GaussianMixture(
    [0.4, 0.6],
    [[-0.6, 0.2], [0.7, -0.3]],
    [[[0.5, 0.2], [0.2, 0.4]], [[0.3, -0.1], [-0.1, 0.6]]],
)


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def wavy(x, t):
    return torch.sin(1.3 * x + t.to(x.dtype)[:, None] / 90) + 0.3 * x.roll(1, -1)


def rms(x):
    return x.square().mean().sqrt().item()


def close(a, b, atol=1e-12):
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=0, atol=atol)


def gaussian_flow(x, t, s):
    """The exact flow of N(m, v): (x - ᾱm)/√(ᾱ²v + β̄²) does not change."""
    ends = []
    for time in (t, s):
        a, b = ARTICLE.at(time)
        ends.append((a * GAUSSIAN.means[0], math.sqrt(a**2 * 0.3 + b**2)))
    (m, deviation), (m_end, deviation_end) = ends
    return m_end + (x - m) * (deviation_end / deviation)


# --- methods --------------------------------------------------------------------------------------


@pytest.mark.parametrize("thinning", [{"steps": 10}, {"steps": 1000}, {"timesteps": [1, 7, 640]}])
def test_euler_is_ddim(thinning):
    x = normal(3, 2)
    chosen = thinning.get("timesteps", ARTICLE.timesteps(thinning.get("steps", 1)))
    states, theirs = [], []
    ours = ode_path(
        wavy,
        x,
        ARTICLE,
        [*reversed(chosen), 0],
        method="euler",
        on_step=lambda *told: states.append(told),
    )
    ddim = sample_ddim(wavy, x, ARTICLE, on_step=lambda *told: theirs.append(told), **thinning)
    close(ours, ddim, atol=1e-10)
    for (t, a, a0), (s, b, b0) in zip(states, theirs, strict=True):
        assert t == s
        close(a, b, atol=1e-10)
        close(a0, b0, atol=1e-9)


def test_euler_in_equal_times_is_ddim_with_trailing_steps():
    x = normal(3, 2)
    ours = sample_ode(wavy, x, ARTICLE, steps=20, method="euler", grid="time")
    close(ours, sample_ddim(wavy, x, ARTICLE, steps=20), atol=1e-9)


@pytest.fixture(scope="module")
def finely_solved():
    model, x = SMOOTH.noise_predictor(ARTICLE), normal(40, 2)
    return sample_ode(model, x, ARTICLE, steps=400, method="rk4", stop=20.0)


@pytest.mark.parametrize("grid", ["log_rho", "karras"])
@pytest.mark.parametrize("method", METHODS)
def test_the_error_falls_with_the_promised_order(method, grid, finely_solved):
    model, x = SMOOTH.noise_predictor(ARTICLE), normal(40, 2)
    steps = [20, 40, 80, 160] if METHODS[method].order > 1 else [80, 160, 320]
    settings = {"method": method, "grid": grid, "stop": 20.0}
    errors = [
        rms(sample_ode(model, x, ARTICLE, steps=n, **settings) - finely_solved) for n in steps
    ]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(METHODS[method].order, abs=0.3)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_ends_on_the_exact_flow_of_a_gaussian(method):
    x = normal(20, 2)
    model = GAUSSIAN.noise_predictor(ARTICLE)
    end = sample_ode(model, x, ARTICLE, steps=400, method=method)
    close(end, gaussian_flow(x, 1000, 0), atol=0.02 if method == "euler" else 1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_the_tableaus_meet_their_order_conditions(name):
    method = METHODS[name]
    weights = np.array(method.weights)
    places = np.array([0.0, *(stage.place for stage in method.stages)])
    assert weights.sum() == pytest.approx(1)
    for i, stage in enumerate(method.stages, 1):
        assert len(stage.mix) == i
        assert sum(stage.mix) == pytest.approx(1)
    if method.order >= 2:
        assert weights @ places == pytest.approx(1 / 2)
    if method.order >= 4:
        mixing = np.zeros((4, 4))
        for i, stage in enumerate(method.stages, 1):
            mixing[i, :i] = stage.place * np.array(stage.mix)
        assert weights @ places**2 == pytest.approx(1 / 3)
        assert weights @ places**3 == pytest.approx(1 / 4)
        assert weights @ mixing @ places == pytest.approx(1 / 6)
        assert weights @ (places * (mixing @ places)) == pytest.approx(1 / 8)
        assert weights @ mixing @ places**2 == pytest.approx(1 / 12)
        assert weights @ mixing @ mixing @ places == pytest.approx(1 / 24)


def test_dpm_solver_2_is_the_papers_formula_in_log_snr():
    """Algorithm 1 of 2206.00927 with its exponentials, λ = log(ᾱ/β̄) and σ = β̄."""
    model, x = SMOOTH.noise_predictor(ARTICLE), normal(5, 2)
    times = [1000.0, 700.0, 300.0, 50.0]
    ours = ode_path(model, x, ARTICLE, times, method="dpm_solver_2")
    for t, s in pairwise(times):
        (a_t, b_t), (a_s, b_s) = ARTICLE.at(t), ARTICLE.at(s)
        lam_t, lam_s = math.log(a_t / b_t), math.log(a_s / b_s)
        h = lam_s - lam_t
        middle = float(ARTICLE.time_at(math.exp(-(lam_t + lam_s) / 2)))
        a_m, b_m = ARTICLE.at(middle)
        eps = model(x, torch.full((5,), t, dtype=torch.float64))
        u = a_m / a_t * x - b_m * math.expm1(h / 2) * eps
        x = a_s / a_t * x - b_s * math.expm1(h) * model(u, torch.full_like(eps[:, 0], middle))
    close(ours, x, atol=1e-10)
    apart = ode_path(model, normal(5, 2), ARTICLE, times, method="midpoint")
    assert rms(apart - ours) > 1e-3


def test_heun_is_algorithm_1_of_karras_without_churn():
    """In x/ᾱ with noise level σ = ρ and the denoiser D: d = (x - D)/σ, the trapezoidal rule."""
    model, x = SMOOTH.noise_predictor(ARTICLE), normal(5, 2)

    def slope(u, rho):
        t = torch.full((5,), float(ARTICLE.time_at(rho)), dtype=torch.float64)
        a, _ = ARTICLE.at(t)
        denoised = SMOOTH.posterior_mean(a[0] * u, t, ARTICLE)
        return (u - denoised) / rho

    steps, top, low = 8, ARTICLE.rho[-1] ** (1 / 7), ARTICLE.rho[1] ** (1 / 7)
    rhos = [*((top + i / (steps - 1) * (low - top)) ** 7 for i in range(steps)), 0.0]
    u = x / ARTICLE.alpha_bar[-1]
    for rho, following in pairwise(rhos):
        d = slope(u, rho)
        end = u + (following - rho) * d
        if following:
            end = u + (following - rho) * (d + slope(end, following)) / 2
        u = end
    close(sample_ode(model, x, ARTICLE, steps=steps, method="heun", grid="karras"), u, atol=1e-8)


@pytest.mark.parametrize("stop", [0.0, 5.0])
@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_asked_as_often_as_promised(method, stop):
    times = []

    def counting(x, t):
        assert t.dtype in (torch.int64, torch.float64)
        times.append(t[0].item())
        return 0.1 * x

    sample_ode(counting, normal(2, 2), ARTICLE, steps=7, method=method, stop=stop)
    assert len(times) == evaluations(method, 7, stop)
    assert min(times) >= (1 - 1e-9 if stop == 0 else 5)
    assert times[0] == 1000


@pytest.mark.parametrize("method", ["heun", "rk4"])
def test_the_way_to_the_noise_and_back_is_closed(method):
    model, x0 = SMOOTH.noise_predictor(ARTICLE), SMOOTH.sample(50, torch.Generator())
    times = ode_times(ARTICLE, 100, stop=1.0)
    noise = ode_path(model, x0, ARTICLE, times[::-1], method=method)
    back = ode_path(model, noise, ARTICLE, times, method=method)
    assert rms(back - x0) < (1e-5 if method == "rk4" else 5e-3)
    assert rms(back - x0) < 0.1 * rms(x0 - ode_path(model, noise, ARTICLE, times, method="euler"))


def test_the_first_step_from_the_data_asks_where_it_leads():
    asked = []

    def listening(x, t):
        asked.append(t[0].item())
        return 0.1 * x

    x = normal(2, 2)
    ours = ode_path(listening, x, ARTICLE, [0, 1, 10], method="euler")
    assert asked == [1, 1]
    assert rms(ours - ddim_encode(listening, x, ARTICLE, timesteps=[1, 10])) < 1e-12


def test_single_precision_stays_single_and_close():
    model, x = SMOOTH.noise_predictor(ARTICLE), normal(50, 2)
    for method in METHODS:
        single = sample_ode(model, x.float(), ARTICLE, steps=20, method=method)
        assert single.dtype == torch.float32
        close(single.double(), sample_ode(model, x, ARTICLE, steps=20, method=method), atol=1e-3)


# --- grids ----------------------------------------------------------------------------------------

VARIABLE = {
    "log_rho": np.log,
    "rho": lambda rho: rho,
    "karras": lambda rho: rho ** (1 / 7),
}


@settings(deadline=None)
@given(st.sampled_from(GRIDS), st.integers(1, 60), st.sampled_from([0.0, 0.5, 30.0]))
def test_grids_run_from_noise_to_the_stop_in_equal_steps(grid, steps, stop):
    times = ode_times(ARTICLE, steps, grid, stop)
    assert len(times) == steps + 1
    assert times[0] == 1000
    assert times[-1] == stop
    assert (np.diff(times) < 0).all()
    if grid == "time":
        places = times
    else:
        inner = times if stop or grid == "rho" else times[:-1]
        a, b = ARTICLE.at(inner)
        places = VARIABLE[grid](b / a)
    if len(places) > 1:
        np.testing.assert_allclose(np.diff(places), np.diff(places)[0], rtol=1e-5)


# --- the article's clocks -------------------------------------------------------------------------


def test_both_clocks_lead_to_the_same_place_as_rho():
    model, x = SMOOTH.noise_predictor(ARTICLE), normal(6, 2)
    stop = 0.03  # in s of the linear clock: ᾱ = e^{-0.15}
    ends = {}
    for clock, first, last in (("linear", 1.0, stop), ("square", 1.0, math.sqrt(stop))):
        start = ode_path(model, x, ARTICLE, [1000, ARTICLE.time_at(math.sqrt(math.expm1(10.0)))])
        rhs = clock_rhs(model, ARTICLE, clock, start)
        solved = solve_ivp(rhs, (first, last), start.flatten().numpy(), rtol=1e-9, atol=1e-9)
        ends[clock] = torch.tensor(solved.y[:, -1]).reshape(6, 2)
    close(ends["linear"], ends["square"], atol=1e-6)
    last = float(ARTICLE.time_at(math.sqrt(math.expm1(10 * stop))))
    by_rho = ode_path(model, start, ARTICLE, _log_rho_times(math.expm1(10.0), last), method="rk4")
    close(ends["linear"], by_rho, atol=1e-6)


def _log_rho_times(inverse_snr, last):
    a, b = ARTICLE.at(last)
    return [
        *ARTICLE.time_at(np.geomspace(math.sqrt(inverse_snr), b / a, 301))[:-1],
        last,
    ]


@pytest.mark.parametrize("clock", ["linear", "square"])
def test_the_clocks_follow_the_exact_flow_of_a_gaussian(clock):
    x, model = normal(4, 2), GAUSSIAN.noise_predictor(ARTICLE)
    rhs = clock_rhs(model, ARTICLE, clock, x)
    first, last = (1.0, 0.01) if clock == "linear" else (1.0, 0.1)
    solved = solve_ivp(rhs, (first, last), x.flatten().numpy(), rtol=1e-10, atol=1e-10)
    t, s = (float(ARTICLE.time_at(math.sqrt(math.expm1(g)))) for g in (10.0, 0.1))
    close(torch.tensor(solved.y[:, -1]).reshape(4, 2), gaussian_flow(x, t, s), atol=1e-7)


# --- bad input ------------------------------------------------------------------------------------

X = normal(3, 2)


def breaks(x, t):
    return x * math.nan if 3 < t[0] < 40 else x


def ode(**changes):
    given = {"model": wavy, "x_T": X, "schedule": ARTICLE, "steps": 5} | changes
    return sample_ode(given.pop("model"), given.pop("x_T"), given.pop("schedule"), **given)


def path(times, **changes):
    return ode_path(wavy, X, ARTICLE, times, **changes)


def clock(name="square", like=X, s=0.5, schedule=ARTICLE):
    return clock_rhs(wavy, schedule, name, like)(s, X.flatten().numpy())


BAD = [
    (lambda: ode(steps=0), ValueError, "`steps` must be at least 1, got 0"),
    (lambda: ode(steps=2.5), TypeError, "`steps` must be a whole number"),
    (lambda: ode(method="rk45"), ValueError, '`method` must be one of "euler", "heun"'),
    (lambda: ode(grid="snr"), ValueError, '`grid` must be one of "log_rho"'),
    (lambda: ode(stop=1000), ValueError, "`stop` must be less than T = 1000"),
    (lambda: ode(stop=-1), ValueError, r"`stop` must lie in \[0, 1000\], got -1"),
    (lambda: ode(schedule=Schedule.article(1)), ValueError, "`steps` must be fewer"),
    (lambda: ode(x_T=X.long()), TypeError, "`x_T` must have a floating dtype"),
    (lambda: ode(x_T=X * math.nan), ValueError, "`x_T` must be finite, got NaN"),
    (lambda: ode(model=breaks, steps=60), ValueError, r"at t = [\d.]+` must be finite, got NaN"),
    (lambda: path([1000]), ValueError, "`times` must be two or more"),
    (lambda: path([1000, 500, 500]), ValueError, "strictly ascending or strictly descending"),
    (lambda: path([1000, 500, 600]), ValueError, "strictly ascending or strictly descending"),
    (lambda: path([1001, 500]), ValueError, r"`times` must lie in \[0, 1000\], got 1001"),
    (lambda: path([[1000, 500]]), ValueError, "`times` must be one row"),
    (lambda: path([1000, 0], method="ddim"), ValueError, "`method` must be one of"),
    (lambda: evaluations("ddim", 5), ValueError, "`method` must be one of"),
    (lambda: clock("cubic"), ValueError, '`clock` must be one of "square", "linear"'),
    (lambda: clock(like=X.numpy()), TypeError, "`like` must be a torch.Tensor"),
    (lambda: clock(s=0.0), ValueError, "`s` must be positive"),
    (lambda: clock(schedule=Schedule.article(50), s=1.0), ValueError, r"at least ᾱ_T = e\^-0.25"),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD)
def test_bad_input_is_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
