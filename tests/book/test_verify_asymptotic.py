"""Orders of growth and limits."""

from __future__ import annotations

import numpy as np
import pytest

from lib.book import verify

STEPS = np.geomspace(0.5, 0.01, 8)
SIZES = [4, 8, 16, 32, 64, 128, 256]


def test_a_true_order_passes() -> None:
    record = verify.asymptotic("eq-sine", lambda h: np.sin(h) - h, STEPS, 3)
    assert record.summary == (
        "the order in size is 3 within the 95 % interval of a fit to 8 sizes from 0.5 to 0.01; "
        "an order off by 0.25 was rejected"
    )


@pytest.mark.parametrize("order", [2, 2.75, 3.25, 4, -3])
def test_a_wrong_order_fails(order: float) -> None:
    with pytest.raises(verify.CheckFailed, match=r"^eq-sine.*order in size.*measured is 2.99"):
        verify.asymptotic("eq-sine", lambda h: np.sin(h) - h, STEPS, order)


def test_an_order_may_be_measured_from_noisy_samples() -> None:
    def squared_mean(n: int, rng: np.random.Generator) -> float:
        return rng.normal(size=n).mean() ** 2

    sizes = [16, 64, 256, 1024, 4096]
    verify.asymptotic("eq-noise", squared_mean, sizes, -1, seed=0, repeats=300)
    with pytest.raises(verify.CheckFailed, match="eq-noise"):
        verify.asymptotic("eq-noise", squared_mean, sizes, -0.5, seed=0, repeats=300)


def test_noise_that_drowns_the_order_is_an_error() -> None:
    def wild(n: int, rng: np.random.Generator) -> float:
        return n * np.exp(rng.normal())

    with pytest.raises(verify.CheckFailed, match="eq-noise"):
        verify.asymptotic("eq-noise", wild, [1, 2, 3, 4, 5], 1, seed=1)


def test_the_variable_may_be_the_logarithm_of_the_size() -> None:
    record = verify.asymptotic(
        "eq-maximum",
        lambda n: np.sqrt(2 * np.log(n)),
        [10, 100, 1000, 10**4, 10**6],
        0.5,
        variable=("log n", np.log),
    )
    assert "order in log n is 0.5" in record.evidence


def test_a_true_limit_passes_by_extrapolation() -> None:
    record = verify.asymptotic("eq-euler", lambda n: (1 + 1 / n) ** n, SIZES, limit=np.e)
    assert record.perturbation == "a limit off by 1 % was rejected"


def test_the_last_digits_of_a_computed_limit_are_not_recorded() -> None:
    """Another processor rounds them otherwise; nbval compares records strictly."""
    first, second = (
        verify.asymptotic("eq-euler", lambda n: (1 + 1 / n) ** n, SIZES, limit=limit)
        for limit in (np.e, np.nextafter(np.e, 3.0))
    )
    assert first == second


def test_the_last_value_alone_would_not_have_been_the_limit() -> None:
    def slow(n: int) -> float:
        return 1 + 3 / np.sqrt(n)

    verify.asymptotic("eq-slow", slow, SIZES, limit=1.0)
    with pytest.raises(verify.CheckFailed, match="eq-slow"):
        verify.asymptotic("eq-slow", slow, SIZES, limit=slow(256))


@pytest.mark.parametrize("off", [0.97, 0.99, 1.01, 1.03])
def test_a_wrong_limit_fails(off: float) -> None:
    with pytest.raises(verify.CheckFailed, match=r"^eq-euler.*limit in size"):
        verify.asymptotic("eq-euler", lambda n: (1 + 1 / n) ** n, SIZES, limit=np.e * off)


def test_a_limit_approached_at_two_speeds_lies_in_the_widened_interval() -> None:
    """One power is fitted, two are there: the interval must know that early sizes mislead."""

    def two_speeds(n: int) -> float:
        return 1 + 1 / np.sqrt(n) + 3 / n

    sizes = [2**k for k in range(2, 14)]
    record = verify.asymptotic("eq-two", two_speeds, sizes, limit=1.0)
    assert record.data["perturbation_rejected"] is True


def test_a_limit_at_zero_is_approached_from_falling_sizes() -> None:
    verify.asymptotic("eq-sinc", lambda h: np.sin(h) / h, STEPS, limit=1.0)
    with pytest.raises(verify.CheckFailed, match="eq-sinc"):
        verify.asymptotic("eq-sinc", lambda h: np.sin(h) / h, STEPS, limit=0.98)


def test_a_limit_of_zero_is_perturbed_against_the_first_value() -> None:
    record = verify.asymptotic("eq-vanishes", lambda n: 5 / n, SIZES, limit=0.0)
    assert record.perturbation == "a limit off by 1 % of the first value was rejected"


def test_values_that_are_the_limit_already_pass() -> None:
    verify.asymptotic("eq-constant", lambda n: n / n, SIZES, limit=1.0)


def test_values_without_a_limit_are_an_error() -> None:
    with pytest.raises(verify.CheckFailed, match=r"eq-log.*do not settle"):
        verify.asymptotic("eq-log", lambda n: np.log(n), SIZES, limit=8.0)


def test_a_tolerance_that_swallows_the_perturbation_is_an_error() -> None:
    with pytest.raises(verify.CannotFail, match=r"eq-sine.*off by 0.25 passes as well"):
        verify.asymptotic("eq-sine", lambda h: np.sin(h) - h, STEPS, 3, tolerance=0.5)
    with pytest.raises(verify.CannotFail, match=r"eq-euler.*passes as well"):
        verify.asymptotic("eq-euler", lambda n: (1 + 1 / n) ** n, SIZES, limit=np.e, tolerance=1.0)


def test_the_authors_perturbation_must_fall_outside() -> None:
    record = verify.asymptotic(
        "eq-sine", lambda h: np.sin(h) - h, STEPS, 3, perturb={"of the next term": lambda p: p + 2}
    )
    assert record.perturbation == "an order of the next term was rejected"
    with pytest.raises(verify.CannotFail, match="passes as well"):
        verify.asymptotic("eq-sine", lambda h: np.sin(h) - h, STEPS, 3, perturb=lambda p: p + 0.001)


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda h: np.nan, "not finite"),
        (lambda h: np.array([h, h]), "not one real number"),
        (lambda h: h - 0.5, "one sign"),
        (lambda h: 0.0, "one sign"),
    ],
)
def test_a_measurement_that_has_no_order_fails(measure: object, message: str) -> None:
    with pytest.raises(verify.CheckFailed, match=rf"eq-bad.*{message}"):
        verify.asymptotic("eq-bad", measure, STEPS, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": [1, 2, 3, 4]}, "`sizes` must hold at least 5"),
        ({"sizes": [1, 2, 2, 3, 4]}, "grow or fall"),
        ({"sizes": [-1, 1, 2, 3, 4]}, "positive"),
        ({"order": None}, "either `order` or `limit`"),
        ({"limit": 1.0}, "either `order` or `limit`"),
        ({"confidence": 1.0}, "`confidence`"),
        ({"repeats": 0}, "`repeats`"),
        ({"variable": ("zero", lambda x: 0 * x)}, "`variable`"),
    ],
)
def test_a_bad_argument_is_named(arguments: dict, message: str) -> None:
    good = {"sizes": SIZES, "order": 1.0}
    with pytest.raises(ValueError, match=message):
        verify.asymptotic("eq-x", lambda n: float(n), **{**good, **arguments})
