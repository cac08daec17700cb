"""Keys on a sphere: two routes to the integral, the published table, and the schedule."""

import numpy as np
import pytest
import sympy
from scipy.special import gammaln
from scipy.stats import vonmises_fisher

from lib.attention import entropy_of_scores, sphere

# https://kexue.fm/archives/7695, for λ = 1.
TABLE = {
    32: -7.77471,
    64: -15.4734,
    96: -23.1726,
    128: -30.8718,
    256: -61.6692,
    512: -123.264,
}


@pytest.mark.parametrize(("d", "printed"), TABLE.items())
def test_the_table_of_the_article_is_reproduced_to_all_its_digits(d, printed):
    assert float(f"{sphere.entropy_loss(1.0, d):.6g}") == printed


@pytest.mark.parametrize("d", [2, 3, 4, 17, 64, 512])
@pytest.mark.parametrize("x", [0.0, 1e-6, 0.3, 7.0, 300.0])
def test_bessel_functions_and_quadrature_agree(d, x):
    log_mgf, mean = sphere.log_mgf_and_mean_by_quadrature(x, d)
    assert sphere.log_mgf(x, d) == pytest.approx(log_mgf, rel=1e-12, abs=1e-12)
    assert sphere.mean_cosine(x, d) == pytest.approx(mean, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize("d", [2, 8, 64, 512])
@pytest.mark.parametrize("scale", [0.05, 0.125, 1.0, 4.0])
def test_the_loss_is_the_entropy_of_a_von_mises_fisher_law(d, scale):
    area = np.log(2) + 0.5 * d * np.log(np.pi) - gammaln(d / 2)
    law = vonmises_fisher(np.eye(d)[0], scale * d)
    assert sphere.entropy_loss(scale, d) == pytest.approx(law.entropy() - area, rel=1e-9, abs=1e-11)


def test_three_dimensions_have_a_closed_form():
    x = np.array([0.1, 1.0, 10.0])
    np.testing.assert_allclose(sphere.log_mgf(x, 3), np.log(np.sinh(x) / x), rtol=1e-12)
    np.testing.assert_allclose(sphere.mean_cosine(x, 3), 1 / np.tanh(x) - 1 / x, rtol=1e-12)


def test_the_mean_cosine_is_the_slope_of_the_log_mgf():
    x = np.array([0.5, 5.0, 50.0])
    slope = (sphere.log_mgf(x + 1e-5, 32) - sphere.log_mgf(x - 1e-5, 32)) / 2e-5
    np.testing.assert_allclose(sphere.mean_cosine(x, 32), slope, rtol=1e-6)


def test_arguments_at_which_bessel_functions_underflow_are_still_exact():
    # E e^{x cos θ} = 1 + x²/(2d) + x⁴/(8d(d+2)) + …
    d, x = 4000, np.array([1e-3, 0.1, 1.0])
    expected = np.log1p(x**2 / (2 * d) + x**4 / (8 * d * (d + 2)))
    np.testing.assert_allclose(sphere.log_mgf(x, d), expected, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(sphere.mean_cosine(x, d), x / d, rtol=1e-6)


def test_the_saddle_solves_its_equation_and_gives_the_rate():
    lam = sympy.symbols("lambda", positive=True)
    c = (sympy.sqrt(1 + 4 * lam**2) - 1) / (2 * lam)
    assert sympy.simplify(1 - c**2 - c / lam) == 0
    for value in (1e-8, 0.125, 1.0, 30.0):
        exact = float(c.subs(lam, sympy.Rational(value)).evalf(30))
        assert sphere.saddle_cosine(value) == pytest.approx(exact, rel=1e-13)
        rate = float((-sympy.log(lam / c) / 2).subs(lam, sympy.Rational(value)).evalf(40))
        assert sphere.loss_rate(value) == pytest.approx(rate, rel=1e-13)


def test_the_golden_ratio_stands_behind_0_24():
    golden = (1 + 5**0.5) / 2
    assert sphere.saddle_cosine(1.0) == pytest.approx(1 / golden, rel=1e-15)
    assert sphere.loss_rate(1.0) == pytest.approx(-0.2406059125298014, rel=1e-13)
    assert sphere.loss_rate(1.0) == pytest.approx(-sphere.GOLDEN_RATE, rel=1e-14)


def test_the_loss_per_dimension_approaches_its_rate():
    d = np.array([64, 256, 1024])
    for scale in (0.125, 1.0, 4.0):
        error = np.array(
            [abs(sphere.entropy_loss(scale, n) / n - sphere.loss_rate(scale)) for n in d]
        )
        assert (error * d < 1.0).all()  # the remainder is O(1/d)
        assert (np.diff(error) < 0).all()


def test_the_linear_law_of_the_articles_is_four_times_off_at_the_usual_scale():
    assert -0.24 * 0.125 * 64 / sphere.entropy_loss(0.125, 64) == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("d", [8, 16, 64])
def test_the_schedule_inverts_the_rate(d):
    n = np.array([256.0, 4096.0, 1e6])
    scale = sphere.keeping_scale(n, d, 4.0)
    np.testing.assert_allclose(np.log(n) + d * sphere.loss_rate(scale), 4.0, rtol=1e-12)
    exact = sphere.keeping_scale_at_finite_d(n, d, 4.0)
    loss = np.array([sphere.entropy_loss(x, d) for x in exact])
    np.testing.assert_allclose(np.log(n) + loss, 4.0, rtol=1e-10)


def test_the_schedule_keeps_the_entropy_of_sampled_keys():
    rng = np.random.default_rng(1)
    for n in (1024, 16384):
        x = rng.normal(size=(60, n, 8))
        scores = 8 * x[..., 0] / np.linalg.norm(x, axis=-1)
        entropy = entropy_of_scores(scores, sphere.keeping_scale_at_finite_d(n, 8, 5.0))
        assert entropy.mean() == pytest.approx(5.0, abs=0.08)


def test_the_schedule_grows_as_a_root_then_as_a_power():
    few, many = 1e-3, 2000.0  # log n - H0
    assert sphere.keeping_scale(np.exp(few), 64, 0.0) == pytest.approx(
        np.sqrt(2 * few / 64), rel=1e-4
    )
    n = np.exp(np.array([many / 10, many / 10 + 1]))
    ratio = np.divide(*sphere.keeping_scale(n, 8, 0.0)[::-1])
    assert ratio == pytest.approx(np.exp(2 / 8), rel=1e-12)
    assert sphere.keeping_scale(10, 64, np.log(10)) == 0.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sphere.entropy_loss(1.0, 1), ValueError, "`d` must be at least 2, got 1"),
        (lambda: sphere.entropy_loss(1.0, 64.0), TypeError, "`d` must be a whole number"),
        (lambda: sphere.entropy_loss(-1.0, 8), ValueError, "`scale` must be finite and not neg"),
        (lambda: sphere.log_mgf(np.nan, 8), ValueError, "`x` must be finite and not negative"),
        (lambda: sphere.mean_cosine(np.inf, 8), ValueError, "`x` must be finite"),
        (lambda: sphere.mean_cosine("x", 8), TypeError, "`x` must hold real numbers"),
        (lambda: sphere.log_mgf_and_mean_by_quadrature([1.0], 8), ValueError, "`x` must be a sin"),
        (lambda: sphere.log_mgf_and_mean_by_quadrature(1.0, 8, 1), ValueError, "`nodes` must be"),
        (lambda: sphere.saddle_cosine(-1), ValueError, "`scale` must be finite and not negative"),
        (lambda: sphere.loss_rate(np.nan), ValueError, "`scale` must be finite"),
        (lambda: sphere.keeping_scale(10, 8, 3.0), ValueError, "`target` must lie between 0 and"),
        (lambda: sphere.keeping_scale(10, 8, -1.0), ValueError, "`target` must lie between 0 and"),
        (lambda: sphere.keeping_scale(0, 8, 1.0), ValueError, "`n` must be finite and at least 1"),
        (
            lambda: sphere.keeping_scale_at_finite_d(10, 1, 1.0),
            ValueError,
            "`d` must be at least 2",
        ),
    ],
)
def test_bad_input_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()
