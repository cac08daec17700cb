"""Inequalities, among them false ones that chance does not refute."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib.book import verify


def scores(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    return rng.normal(size=rng.integers(2, 12)), float(rng.gamma(2.0))


def entropy(s: np.ndarray, lam: float) -> float:
    z = lam * (s - s.max())
    w = np.exp(z)
    return float(np.log(w.sum()) - w @ z / w.sum())


def floor(s: np.ndarray, lam: float) -> float:
    return np.log(len(s)) - lam * (s.max() - s.mean())


def test_a_true_bound_passes_and_says_how_far_it_can_be_sharpened() -> None:
    record = verify.bound("eq-floor", floor, entropy, scores, n=500)
    assert record.summary == (
        "holds at 500 random inputs and a search for a violation; "
        "a bound sharper by 0.1 % of its typical size was rejected"
    )
    assert record.data["searched"] is True


def test_a_bound_that_random_inputs_violate_fails_and_names_the_input() -> None:
    with pytest.raises(verify.CheckFailed, match=r"^eq-floor.*at a random input: \["):
        verify.bound("eq-floor", entropy, lambda s, lam: np.log(len(s)) - lam**2 / 2, scores)


def test_a_bound_that_only_a_rare_input_violates_is_refuted_by_the_search() -> None:
    """x² ≥ 1 holds for all 500 draws around 10, and fails at 0."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        return rng.normal(10.0, 1.0, size=3) * rng.choice([-1, 1], size=3)

    def one(x: np.ndarray) -> float:
        return 1.0

    with pytest.raises(verify.CheckFailed, match=r"eq-rare.*found by the search.*project="):
        verify.bound("eq-rare", one, lambda x: x @ x, draw, n=500)
    verify.bound("eq-rare", one, lambda x: x @ x, draw, n=500, optimise=False)


def test_a_constant_that_is_slightly_too_sharp_is_refuted_by_the_search() -> None:
    """‖x‖₁ ≤ c‖x‖₂ needs c = √n; equality needs entries of one size, which chance never draws."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        return rng.normal(size=12)

    def one_norm(x: np.ndarray) -> float:
        return float(np.abs(x).sum())

    verify.bound("eq-norms", one_norm, lambda x: np.sqrt(12) * np.linalg.norm(x), draw)
    with pytest.raises(verify.CheckFailed, match="found by the search"):
        verify.bound("eq-norms", one_norm, lambda x: 0.99 * np.sqrt(12) * np.linalg.norm(x), draw)


def test_the_search_keeps_the_signs_of_the_drawn_inputs() -> None:
    """√x ≤ (1 + x) / 2 and λ ≥ 0: negative values would be no violation but nonsense."""

    def draw(rng: np.random.Generator) -> tuple[float, np.ndarray]:
        return float(rng.gamma(2.0)), -rng.gamma(1.0, size=3)

    def guarded(lam: float, y: np.ndarray) -> float:
        assert lam >= 0
        assert np.all(y <= 0)
        return float(np.sqrt(lam) + y.sum())

    verify.bound("eq-signs", guarded, lambda lam, y: (1 + lam) / 2, draw, n=300)


def test_the_search_keeps_probabilities_probabilities() -> None:
    def draw(rng: np.random.Generator) -> np.ndarray:
        return rng.dirichlet(np.ones(rng.integers(2, 6)))

    def shannon(p: np.ndarray) -> float:
        assert p.min() >= 0
        assert p.sum() == pytest.approx(1)
        return -float(np.sum(p * np.log(np.maximum(p, 1e-300))))

    record = verify.bound("eq-uniform", shannon, lambda p: np.log(len(p)), draw, n=300)
    assert "0.1 %" in record.perturbation


def test_project_replaces_what_the_draws_suggest() -> None:
    def draw(rng: np.random.Generator) -> np.ndarray:
        return rng.normal(size=3) / 4 + 2

    def project(x: np.ndarray) -> np.ndarray:
        return np.clip(x, 1.0, 3.0)

    with pytest.raises(verify.CheckFailed, match="found by the search"):
        verify.bound("eq-box", lambda x: 3.0, lambda x: x @ x, draw, n=200)
    verify.bound("eq-box", lambda x: 3.0, lambda x: x @ x, draw, n=200, project=project)


def test_integers_are_left_alone_and_without_anything_to_move_there_is_no_search() -> None:
    def draw(rng: np.random.Generator) -> int:
        return int(rng.integers(1, 50))

    record = verify.bound("eq-log", np.log, lambda n: n - 1.0, draw, n=200)
    assert record.data["searched"] is False
    assert "search" not in record.evidence


def test_tensors_are_searched_too() -> None:
    def draw(rng: np.random.Generator) -> torch.Tensor:
        return torch.as_tensor(rng.normal(size=4) + 5)

    with pytest.raises(verify.CheckFailed, match="found by the search"):
        verify.bound("eq-tensor", lambda x: torch.tensor(1.0), lambda x: x @ x, draw, n=200)


def test_a_loose_bound_reports_that_it_is_loose() -> None:
    record = verify.bound(
        "eq-loose", lambda x: 0.0, lambda x: 100 + x * x, np.random.Generator.normal, n=200
    )
    assert "sharper by 1000 %" in record.perturbation


def test_a_bound_that_is_sharper_than_the_author_says_is_an_error() -> None:
    with pytest.raises(verify.CannotFail, match=r"eq-loose.*closer than"):
        verify.bound(
            "eq-loose",
            lambda x: 0.0,
            lambda x: 100 + x * x,
            np.random.Generator.normal,
            n=200,
            sharpen=0.01,
        )


def test_a_perturbed_bound_that_still_holds_is_an_error() -> None:
    with pytest.raises(verify.CannotFail, match="raised by 1 is not violated either"):
        verify.bound(
            "eq-floor", floor, entropy, scores, n=200, perturb={"raised by 1": lambda b: b + 1}
        )


def test_a_wrong_bound_must_be_violated() -> None:
    record = verify.bound(
        "eq-floor",
        floor,
        entropy,
        scores,
        n=200,
        wrong={"without the log n term": lambda s, lam: entropy(s, lam) - np.log(len(s))},
    )
    assert record.perturbation == "a bound without the log n term was rejected"


def test_two_sides_that_are_always_equal_are_no_inequality() -> None:
    with pytest.raises(verify.CheckFailed, match=r"eq-equal.*no inequality"):
        verify.bound("eq-equal", lambda x: 2 * x, lambda x: x + x, np.random.Generator.normal)


def test_rounding_is_no_violation() -> None:
    verify.bound(
        "eq-pythagoras",
        lambda x: 1.0 + 0 * x,
        lambda x: np.sin(x) ** 2 + np.cos(x) ** 2 + np.maximum(x, 0),
        np.random.Generator.normal,
    )


def test_arrays_may_stand_against_a_number_but_not_against_another_shape() -> None:
    def draw(rng: np.random.Generator) -> np.ndarray:
        return rng.normal(size=3)

    verify.bound("eq-square", lambda x: 0.0, lambda x: x**2, draw, n=200)
    with pytest.raises(verify.CheckFailed, match="different shapes"):
        verify.bound("eq-square", lambda x: np.zeros(2), lambda x: x**2, draw, n=200)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_side_that_is_not_finite_fails(bad: float) -> None:
    with pytest.raises(verify.CheckFailed, match=r"eq-nan.*larger side is not finite"):
        verify.bound("eq-nan", lambda x: x, lambda x: x + bad, np.random.Generator.normal)


def test_complex_sides_have_no_order() -> None:
    with pytest.raises(verify.CheckFailed, match="complex"):
        verify.bound("eq-complex", lambda x: x, lambda x: x + 1j, np.random.Generator.normal)


def test_the_search_finds_the_same_on_every_run() -> None:
    bundles = [verify.bound("eq-floor", floor, entropy, scores, n=300).bundle for _ in range(2)]
    assert bundles[0] == bundles[1]
