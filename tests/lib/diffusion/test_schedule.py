"""Noise schedules: closed forms, digits near t = 0, subsequences, and diffusers beside them."""

import pickle

import mpmath
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.diffusion import Schedule

BUILDERS = {
    "article": Schedule.article,
    "linear_beta": Schedule.linear_beta,
    "cosine": Schedule.cosine,
}


@pytest.fixture(params=BUILDERS)
def schedule(request):
    return BUILDERS[request.param](200)


# Any schedule: between 1 and 12 steps, each of which keeps between 1 % and 99.99 % of the signal.
schedules = st.lists(st.floats(-4.6, -1e-4), min_size=1, max_size=12).map(
    lambda steps: Schedule(np.array([0.0, *steps]))
)


def close(a, b, rtol=1e-13, atol=1e-15):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


# --- the arrays -----------------------------------------------------------------------------------


def test_time_zero_is_the_data(schedule):
    for name, value in (("alpha", 1), ("beta", 0), ("alpha_bar", 1), ("beta_bar", 0), ("rho", 0)):
        assert getattr(schedule, name)[0] == value
        assert not np.signbit(getattr(schedule, name)[0])
    assert schedule.snr[0] == np.inf
    assert schedule.ddpm_sigma("beta")[0] == schedule.ddpm_sigma("posterior")[0] == 0


def test_definitions_hold_at_every_time(schedule):
    close(schedule.alpha**2 + schedule.beta**2, 1)
    close(schedule.alpha_bar**2 + schedule.beta_bar**2, 1)
    close(schedule.alpha_bar, np.cumprod(schedule.alpha), rtol=1e-12)
    close(schedule.snr[1:], schedule.alpha_bar[1:] ** 2 / schedule.beta_bar[1:] ** 2, rtol=1e-9)
    close(schedule.rho[1:], schedule.beta_bar[1:] / schedule.alpha_bar[1:], rtol=1e-9)
    assert schedule.T == 200
    assert {len(getattr(schedule, n)) for n in ("alpha", "beta", "times", "snr", "rho")} == {201}


def test_the_articles_schedule_is_its_formula_and_obeys_its_bound():
    for T in (1, 10, 1000):
        schedule = Schedule.article(T)
        close(schedule.alpha, np.sqrt(1 - 0.02 * np.arange(T + 1) / T))
        assert schedule.log_alpha_bar[-1] < -0.005 * (T + 1)
    assert Schedule.article(1000).log_alpha_bar[-1] == pytest.approx(-5.039, abs=5e-4)


def test_the_papers_linear_beta_is_our_beta_squared():
    schedule = Schedule.linear_beta(1000)
    close(schedule.beta[1:] ** 2, np.linspace(1e-4, 0.02, 1000))
    assert schedule.log_alpha_bar[-1] == pytest.approx(-5.059, abs=5e-4)


def test_noise_keeps_its_digits_where_nearly_all_is_signal():
    schedule = Schedule.article(10**6)
    close(schedule.beta_bar[1], np.sqrt(0.02e-6), rtol=1e-15)
    close(schedule.beta[1], np.sqrt(0.02e-6), rtol=1e-15)
    naive = np.sqrt(1 - schedule.alpha_bar[1] ** 2)
    assert abs(naive / schedule.beta_bar[1] - 1) > 1e-11


@pytest.mark.parametrize("t", [1, 2, 500, 999])
def test_the_cosine_schedule_agrees_with_many_digits(t):
    def f(time):
        return mpmath.cos((mpmath.mpf(time) / 1000 + offset) / (1 + offset) * mpmath.pi / 2)

    with mpmath.workdps(50):
        offset = mpmath.mpf(0.008)
        beta_bar = mpmath.sqrt(1 - (f(t) / f(0)) ** 2)
        beta = mpmath.sqrt(1 - (f(t) / f(t - 1)) ** 2)
    schedule = Schedule.cosine(1000)
    close(schedule.beta_bar[t], float(beta_bar), rtol=1e-12)
    close(schedule.beta[t], float(beta), rtol=1e-12)


def test_the_cosine_schedules_last_step_is_cut():
    assert Schedule.cosine(50).beta[-1] ** 2 == pytest.approx(0.999, rel=1e-12)
    assert Schedule.cosine(50, most=0.5).beta.max() ** 2 == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize(
    ("ours", "name"),
    [(Schedule.linear_beta(1000), "linear"), (Schedule.cosine(1000), "squaredcos_cap_v2")],
)
def test_diffusers_has_the_same_arrays_in_single_precision(ours, name):
    theirs = DDPMScheduler(beta_schedule=name)
    paper = ours.paper()
    close(paper.beta, theirs.betas, rtol=1e-4, atol=1e-6)
    close(paper.alpha, theirs.alphas, rtol=0, atol=1e-7)
    close(paper.alpha_bar, theirs.alphas_cumprod, rtol=3e-4)


def test_diffusers_arrays_come_in_by_alpha_bar_or_by_beta():
    theirs = DDPMScheduler(beta_schedule="linear")
    paper = Schedule.from_alpha_bar(theirs.alphas_cumprod.sqrt()).paper()
    close(paper.alpha_bar, theirs.alphas_cumprod, rtol=1e-6)
    close(Schedule.from_paper_beta(theirs.betas).paper().beta, theirs.betas)


@settings(deadline=None)
@given(schedules)
def test_alpha_bar_is_enough_to_build_a_schedule(schedule):
    for bars in (schedule.alpha_bar, schedule.alpha_bar[1:], torch.tensor(schedule.alpha_bar)):
        again = Schedule.from_alpha_bar(bars)
        assert again.T == schedule.T
        close(again.log_alpha, schedule.log_alpha, rtol=1e-10, atol=1e-13)
        close(again.alpha_bar, schedule.alpha_bar)


@settings(deadline=None)
@given(schedules)
def test_the_posterior_deviation_is_below_beta_and_below_what_is_left(schedule):
    beta, posterior = schedule.ddpm_sigma("beta"), schedule.ddpm_sigma("posterior")
    assert (posterior <= beta).all()
    assert (posterior[1:] <= schedule.beta_bar[:-1]).all()
    assert posterior[1] == 0


def test_the_posterior_deviation_is_that_of_diffusers():
    theirs = DDPMScheduler(beta_schedule="linear")
    ours = Schedule.linear_beta(1000)
    theirs.alphas_cumprod = torch.tensor(ours.paper().alpha_bar)
    close(
        ours.ddpm_sigma("posterior")[2:] ** 2,
        [theirs._get_variance(t) for t in range(1, 1000)],
        rtol=1e-9,
    )


# --- between and across times ---------------------------------------------------------------------


@settings(deadline=None)
@given(schedules, st.floats(0, 1))
def test_between_whole_times_the_logarithm_is_a_line(schedule, share):
    alpha_bar, beta_bar = schedule.at(np.arange(schedule.T + 1))
    close(alpha_bar, schedule.alpha_bar)
    close(beta_bar, schedule.beta_bar)
    t = share * schedule.T
    low = min(int(t), schedule.T - 1)
    alpha_bar, beta_bar = schedule.at(t)
    line = schedule.alpha_bar[low] * schedule.alpha[low + 1] ** (t - low)
    close(alpha_bar, line, rtol=1e-12)
    close(alpha_bar**2 + beta_bar**2, 1)


@settings(deadline=None)
@given(schedules, st.floats(0, 1))
def test_rho_finds_its_time(schedule, share):
    t = share * schedule.T
    alpha_bar, beta_bar = schedule.at(t)
    back = schedule.time_at(beta_bar / alpha_bar)
    assert back == pytest.approx(t, rel=1e-8, abs=1e-9)
    close(schedule.time_at(schedule.rho), np.arange(schedule.T + 1), rtol=1e-9)


@settings(deadline=None)
@given(schedules, st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_transitions_compose(schedule, shares):
    r, s, t = np.sort(shares) * schedule.T
    (a, b), (c, d), (whole, noise) = (
        schedule.transition(*pair) for pair in ((r, s), (s, t), (r, t))
    )
    close(a * c, whole, rtol=1e-12)
    close(c**2 * b**2 + d**2, noise**2, rtol=1e-9, atol=1e-14)
    close(schedule.transition(0, t), schedule.at(t))


@settings(deadline=None)
@given(schedules, st.data())
def test_a_subsequence_keeps_the_bars_and_derives_the_rest_from_them(schedule, data):
    times = st.sets(st.integers(1, schedule.T), min_size=1).map(sorted)
    kept = data.draw(times)
    sub = schedule.subsequence(kept)
    index = [0, *kept]
    assert sub.times.tolist() == index
    close(sub.alpha_bar, schedule.alpha_bar[index], rtol=1e-12)
    close(sub.beta_bar, schedule.beta_bar[index], rtol=1e-12)
    close(sub.alpha[1:], sub.alpha_bar[1:] / sub.alpha_bar[:-1], rtol=1e-12)
    # the same as a schedule built from the thinned ᾱ, in every derived array
    fresh = Schedule.from_alpha_bar(schedule.alpha_bar[index])
    for name in ("alpha", "beta", "beta_bar", "rho"):
        close(getattr(sub, name), getattr(fresh, name), rtol=1e-9, atol=1e-12)
    for kind in ("beta", "posterior"):
        close(sub.ddpm_sigma(kind), fresh.ddpm_sigma(kind), rtol=1e-9, atol=1e-12)


def test_the_old_alpha_is_not_that_of_the_subsequence():
    schedule = Schedule.article(1000)
    kept = [250, 500, 1000]
    assert (schedule.subsequence(kept).alpha[1:] < schedule.alpha[kept] - 0.2).all()


def test_a_subsequence_of_a_subsequence_speaks_of_the_first_times():
    schedule = Schedule.article(100)
    once = schedule.subsequence([10, 20, 40, 80])
    twice = once.subsequence([20, 80])
    close(twice.log_alpha, schedule.subsequence([20, 80]).log_alpha)
    assert twice.times.tolist() == [0, 20, 80]
    close(twice.at(20), schedule.at(20))
    assert once.timesteps(2).tolist() == [20, 80]
    assert once.timesteps(2, "leading").tolist() == [10, 40]
    close(once.time_at(once.rho), once.times, rtol=1e-12)
    with pytest.raises(ValueError, match="has no 30"):
        once.subsequence([20, 30])


@pytest.mark.parametrize("T", [10, 1000])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_timesteps_are_those_of_diffusers_one_later(T, spacing):
    schedule = Schedule.article(T)
    theirs = DDIMScheduler(num_train_timesteps=T, timestep_spacing=spacing)
    for steps in range(1, T + 1, max(1, T // 60)):
        theirs.set_timesteps(steps)
        expected = theirs.timesteps.numpy()[::-1] + 1
        if len(expected) == steps:  # numpy.arange of a broken step may hand them one too many
            np.testing.assert_array_equal(schedule.timesteps(steps, spacing), expected)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["leading", "trailing"]))
def test_every_number_of_steps_gives_a_subsequence(T, steps, spacing):
    schedule = Schedule.article(T)
    steps = min(steps, T)
    times = schedule.timesteps(steps, spacing)
    assert len(times) == steps
    assert steps == schedule.subsequence(times).T
    assert times[-1] == T if spacing == "trailing" else times[0] == 1


def test_all_steps_are_the_schedule_itself(schedule):
    for spacing in ("leading", "trailing", "linspace"):
        assert schedule.subsequence(schedule.timesteps(200, spacing)) == schedule


# --- as a value -----------------------------------------------------------------------------------


def test_nothing_of_a_schedule_can_be_changed(schedule):
    handed_in = np.array([0.0, -0.1, -0.2])
    made = Schedule(handed_in)
    handed_in[1] = -3.0
    assert made.log_alpha[1] == -0.1
    for name in ("alpha", "beta", "alpha_bar", "beta_bar", "snr", "rho", "times", "log_alpha"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(schedule, name)[0] = 2
    with pytest.raises(ValueError, match="read-only"):
        schedule.ddpm_sigma("posterior")[0] = 2
    with pytest.raises(AttributeError):
        schedule.log_alpha = handed_in


def test_schedules_compare_and_travel_by_value():
    one, other = Schedule.article(50), Schedule.article(50)
    assert one == other == pickle.loads(pickle.dumps(one))
    assert len({one, other, Schedule.article(51)}) == 2
    assert one != Schedule.article(50).subsequence([50])
    assert one != "article"
    assert repr(one.subsequence([25, 50])).endswith("times up to 50)")


# --- bad input ------------------------------------------------------------------------------------

S = Schedule.article(10)
BAD = [
    (lambda: Schedule.article(0), ValueError, "`T` must be at least 1, got 0"),
    (lambda: Schedule.article(2.5), TypeError, "`T` must be a whole number, got 2.5"),
    (lambda: Schedule.cosine(True), TypeError, "`T` must be a whole number"),
    (lambda: Schedule.linear_beta(10, last=1.0), ValueError, "`last` must lie strictly"),
    (lambda: Schedule.linear_beta(10, first=0.0), ValueError, "`first` must lie strictly"),
    (lambda: Schedule.cosine(10, most=1.0), ValueError, "`most` must lie strictly"),
    (lambda: Schedule.cosine(10, offset=-1), ValueError, r"`offset` must lie in \[0, 1\]"),
    (lambda: Schedule.from_paper_beta([0.1, 1.2]), ValueError, "got 1.2 at t = 2"),
    (lambda: Schedule.from_alpha_bar([]), ValueError, "`alpha_bar` must be one row"),
    (lambda: Schedule.from_alpha_bar([1.0]), ValueError, "`alpha_bar` must have at least one"),
    (lambda: Schedule.from_alpha_bar([0.9, 0.95]), ValueError, "got 0.95 at t = 2 after 0.9"),
    (lambda: Schedule.from_alpha_bar([0.9, 0.9]), ValueError, "must fall strictly"),
    (lambda: Schedule.from_alpha_bar([0.9, 0.0]), ValueError, "must be positive, got 0 at t = 2"),
    (lambda: Schedule.from_alpha_bar([1.1, 0.9]), ValueError, "must fall strictly from 1, got 1.1"),
    (lambda: Schedule.from_alpha_bar([0.9, np.nan]), ValueError, "`alpha_bar` must be finite"),
    (lambda: Schedule.from_alpha_bar([["0.9"]]), TypeError, "`alpha_bar` must hold real numbers"),
    (lambda: Schedule([0.0]), ValueError, "at least one step"),
    (lambda: Schedule([0.1, -1.0]), ValueError, "must start with 0"),
    (lambda: Schedule([0.0, -1.0, 0.0]), ValueError, "got 0 at t = 2"),
    (lambda: Schedule([0.0, -1.0], [0, 0]), ValueError, "`times` must be whole numbers"),
    (lambda: Schedule([0.0, -1.0], [0, 1, 2]), ValueError, "`times` must hold 2 numbers, got 3"),
    (lambda: S.timesteps(11), ValueError, "`steps` must be from 1 to 10, got 11"),
    (lambda: S.timesteps(0), ValueError, "`steps` must be from 1 to 10, got 0"),
    (lambda: S.timesteps(5, "quadratic"), ValueError, "`spacing` must be one of"),
    (lambda: S.subsequence([5, 3]), ValueError, "ascend without repeats .*got 5 before 3"),
    (lambda: S.subsequence([3, 3]), ValueError, "ascend without repeats .*got 3 before 3"),
    (lambda: S.subsequence([0, 3]), ValueError, "between 1 and T = 10, got 0"),
    (lambda: S.subsequence([3, 11]), ValueError, "between 1 and T = 10, got 11"),
    (lambda: S.subsequence([2.5]), ValueError, "`timesteps` must be whole numbers, got 2.5"),
    (lambda: S.subsequence([]), ValueError, "`timesteps` must be one row"),
    (lambda: S.at(10.1), ValueError, r"`t` must lie in \[0, 10\], got 10.1"),
    (lambda: S.at(np.nan), ValueError, "`t` must be finite"),
    (lambda: S.transition(5, 4), ValueError, "`s` must not exceed `t`"),
    (lambda: S.time_at(-1.0), ValueError, "`rho` must lie in"),
    (lambda: S.time_at(2 * S.rho[-1]), ValueError, "`rho` must lie in"),
    (lambda: S.ddpm_sigma("learned"), ValueError, '`kind` must be one of "beta", "posterior"'),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD)
def test_bad_input_is_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
