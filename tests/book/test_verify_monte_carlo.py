"""Expectations against samples."""

from __future__ import annotations

import numpy as np
import pytest

from lib.book import verify


def squares(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.normal(size=n) ** 2


def test_a_true_expectation_passes_and_states_n_k_and_what_n_can_resolve() -> None:
    record = verify.monte_carlo("eq-variance", squares, 1.0)
    assert record.summary == (
        "the mean of 100 000 samples lies within 4 standard errors; a value off by 5 % was rejected"
    )


def test_more_samples_resolve_a_smaller_deviation() -> None:
    record = verify.monte_carlo("eq-variance", squares, 1.0, n=1_000_000)
    assert record.perturbation == "a value off by 2 % was rejected"


def test_a_broken_expectation_fails_and_says_how_many_standard_errors() -> None:
    with pytest.raises(
        verify.CheckFailed, match=r"^eq-variance.*standard errors away, allowed are 4"
    ):
        verify.monte_carlo("eq-variance", squares, 1.05)


def test_an_expectation_of_zero_is_perturbed_by_the_samples_own_spread() -> None:
    record = verify.monte_carlo("eq-mean", lambda rng, n: rng.normal(size=n), 0.0)
    assert record.perturbation == "a value off by 5 % of a standard deviation was rejected"


def test_every_component_is_compared() -> None:
    def pairs(rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.normal(loc=[1.0, 2.0], size=(n, 2))

    verify.monte_carlo("eq-pair", pairs, [1.0, 2.0])
    with pytest.raises(verify.CheckFailed, match="eq-pair"):
        verify.monte_carlo("eq-pair", pairs, [1.0, 2.1])


def test_the_formula_may_be_a_function() -> None:
    verify.monte_carlo("eq-variance", squares, lambda: np.pi / np.pi)


def test_too_few_samples_to_reject_anything_are_an_error() -> None:
    with pytest.raises(verify.CannotFail, match=r"eq-variance.*take n of at least 6400"):
        verify.monte_carlo("eq-variance", squares, 1.0, n=1000)


def test_a_perturbation_that_the_samples_cannot_resolve_is_an_error() -> None:
    with pytest.raises(verify.CannotFail, match="take a larger n"):
        verify.monte_carlo("eq-variance", squares, 1.0, perturb=lambda v: v * 1.001)


def test_samples_that_do_not_vary_are_an_error() -> None:
    with pytest.raises(verify.CannotFail, match=r"eq-fixed.*do not vary"):
        verify.monte_carlo("eq-fixed", lambda rng, n: np.full(n, 0.1), 0.1)


def test_heavy_tails_are_an_error_even_if_the_mean_fits() -> None:
    def cauchy(rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.standard_cauchy(size=n)

    fitting = cauchy(np.random.default_rng(0), 100_000).mean()
    with pytest.raises(verify.CheckFailed, match=r"eq-cauchy.*tails are too heavy"):
        verify.monte_carlo("eq-cauchy", cauchy, fitting)


@pytest.mark.parametrize("shape", [(99_999,), (100_000, 1), ()])
def test_the_wrong_number_of_samples_fails(shape: tuple[int, ...]) -> None:
    with pytest.raises(verify.CheckFailed, match=r"eq-shape.*must return shape"):
        verify.monte_carlo("eq-shape", lambda rng, n: rng.normal(size=shape), 0.0)


def test_a_nan_among_the_samples_fails() -> None:
    def poisoned(rng: np.random.Generator, n: int) -> np.ndarray:
        return np.where(np.arange(n) == 5, np.nan, rng.normal(size=n))

    with pytest.raises(verify.CheckFailed, match=r"eq-nan.*not finite"):
        verify.monte_carlo("eq-nan", poisoned, 0.0)


@pytest.mark.parametrize("arguments", [{"n": 10}, {"k": 0.5}, {"k": np.inf}])
def test_a_bad_argument_is_named(arguments: dict) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must be"):
        verify.monte_carlo("eq-variance", squares, 1.0, **arguments)


def test_true_formulas_pass_at_nearly_every_seed() -> None:
    """Four standard errors: about 6 in 100 000 true formulas may fail."""
    for seed in range(200):
        verify.monte_carlo("eq-variance", squares, 1.0, n=20_000, seed=seed)
