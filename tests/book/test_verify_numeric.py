"""Pointwise checks, tried with formulas that are right, wrong, empty and disguised."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib.book import verify


def scores(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    return rng.normal(size=rng.integers(2, 12)), float(rng.gamma(2.0))


def weights(s: np.ndarray, lam: float) -> np.ndarray:
    w = np.exp(lam * s)
    return w / w.sum()


def entropy_from_weights(s: np.ndarray, lam: float) -> float:
    w = np.exp(lam * s)
    p = w / w.sum()
    return -np.sum(p * np.log(p))


def entropy_from_scores(s: np.ndarray, lam: float) -> float:
    z = np.exp(lam * s)
    return np.log(z.sum()) - lam * (z @ s) / z.sum()


def test_a_true_formula_passes_and_says_what_was_rejected() -> None:
    record = verify.numeric("eq-entropy", entropy_from_weights, entropy_from_scores, scores)
    assert record.data["perturbation_rejected"] is True
    assert record.summary == (
        "200 random inputs, relative error below 1e-10; a right-hand side off by 0.1 % was rejected"
    )


def test_a_broken_formula_fails_and_names_equation_error_and_input() -> None:
    def broken(s: np.ndarray, lam: float) -> float:
        return entropy_from_scores(s, lam) + 1e-6 * s[0]

    with pytest.raises(verify.CheckFailed, match=r"^eq-entropy.*relative error of .*input \d+"):
        verify.numeric("eq-entropy", entropy_from_weights, broken, scores)


def test_a_formula_that_is_wrong_at_a_single_input_of_many_fails() -> None:
    seen = []

    def rarely_wrong(x: float) -> float:
        seen.append(x)
        return x * (1.0 + 1e-6 * (len(seen) == 77))

    with pytest.raises(verify.CheckFailed, match="eq-once"):
        verify.numeric("eq-once", lambda x: 1.0 * x, rarely_wrong, lambda rng: rng.normal())


def test_a_tolerance_that_lets_the_perturbed_formula_pass_is_an_error() -> None:
    with pytest.raises(verify.CannotFail, match=r"eq-loose.*off by 0.1 %.*cannot fail"):
        verify.numeric("eq-loose", entropy_from_weights, entropy_from_scores, scores, rtol=0.01)


def test_an_absolute_tolerance_above_the_values_is_an_error() -> None:
    with pytest.raises(verify.CannotFail, match="eq-loose"):
        verify.numeric(
            "eq-loose", lambda x: 2 * x, lambda x: x + x, np.random.Generator.random, atol=9
        )


def test_a_right_hand_side_of_zero_is_perturbed_by_addition() -> None:
    record = verify.numeric(
        "eq-zero",
        lambda s, lam: np.sum(weights(s, lam)) - 1,
        lambda s, lam: 0.0,
        scores,
        atol=1e-12,
    )
    assert "off by 0.001 was rejected" in record.summary


def test_a_right_hand_side_of_zero_without_absolute_tolerance_says_what_to_give() -> None:
    with pytest.raises(verify.CheckFailed, match="atol="):
        verify.numeric(
            "eq-zero",
            lambda x: np.sin(x) ** 2 + np.cos(x) ** 2 - 1 + 1e-16,
            lambda x: 0.0,
            np.random.Generator.random,
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_side_that_is_not_finite_fails(bad: float, side: str) -> None:
    def poisoned(x: np.ndarray) -> np.ndarray:
        return np.where(np.arange(3) == 1, bad, x)

    sides = (poisoned, lambda x: x) if side == "left" else (lambda x: x, poisoned)
    with pytest.raises(verify.CheckFailed, match=rf"eq-nan.*the {side}-hand side is not finite"):
        verify.numeric("eq-nan", *sides, lambda rng: rng.normal(size=3))


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (1,), (), (4,)])
def test_sides_of_different_shape_fail_instead_of_being_broadcast(shape: tuple[int, ...]) -> None:
    with pytest.raises(verify.CheckFailed, match=r"eq-shape.*different shapes"):
        verify.numeric(
            "eq-shape",
            lambda x: np.ones(3) + 0 * x,
            lambda x: np.ones(shape),
            np.random.Generator.random,
        )


@pytest.mark.parametrize("value", [None, "0.5", [[1.0], [1.0, 2.0]], np.array([]), object()])
def test_a_side_that_is_no_number_fails(value: object) -> None:
    with pytest.raises(verify.CheckFailed, match=r"eq-what.*the right-hand side is"):
        verify.numeric("eq-what", lambda x: x, lambda x: value, np.random.Generator.random)


def test_one_side_cannot_change_what_the_other_one_sees() -> None:
    def careless(x: np.ndarray) -> np.ndarray:
        x *= 0
        return x

    with pytest.raises(verify.CheckFailed, match="eq-mutation"):
        verify.numeric("eq-mutation", careless, lambda x: x + 0.0, lambda rng: rng.normal(size=3))


def test_inputs_that_never_vary_are_an_error() -> None:
    def fixed(rng: np.random.Generator) -> float:
        return 0.5

    with pytest.raises(verify.CannotFail, match=r"eq-fixed.*same input every time"):
        verify.numeric("eq-fixed", lambda x: x, lambda x: x**2 + 0.25, fixed)


def test_constants_are_compared_once_without_draw() -> None:
    record = verify.numeric("eq-pi", lambda: np.pi, lambda: 4 * np.arctan(1.0), None)
    assert record.data["n"] == 1
    with pytest.raises(verify.CheckFailed, match="eq-pi"):
        verify.numeric("eq-pi", lambda: np.pi, lambda: 22 / 7, None)


def test_small_entries_count_only_when_compared_entry_by_entry() -> None:
    def left(x: float) -> np.ndarray:
        return np.array([1.0, 1e-12 * x])

    def right(x: float) -> np.ndarray:
        return np.array([1.0, 1.1e-12 * x])

    draw = np.random.Generator.random
    verify.numeric("eq-small", left, right, draw)
    with pytest.raises(verify.CheckFailed, match=r"eq-small.*in every entry"):
        verify.numeric("eq-small", left, right, draw, elementwise=True)


def test_complex_sides_are_compared_with_their_phase() -> None:
    def draw(rng: np.random.Generator) -> float:
        return rng.normal()

    verify.numeric("eq-euler", lambda t: np.exp(1j * t), lambda t: np.cos(t) + 1j * np.sin(t), draw)
    with pytest.raises(verify.CheckFailed, match="eq-euler"):
        verify.numeric(
            "eq-euler", lambda t: np.exp(1j * t), lambda t: np.cos(t) - 1j * np.sin(t), draw
        )


def test_tensors_may_stand_against_arrays() -> None:
    record = verify.numeric(
        "eq-tensor",
        lambda x: torch.as_tensor(x).exp(),
        lambda x: np.exp(x),
        lambda rng: rng.normal(size=(2, 3)),
    )
    assert record.kind == "numeric"


# The author's own perturbations ---------------------------------------------------------------


def test_the_authors_perturbations_are_all_named() -> None:
    record = verify.numeric(
        "eq-entropy",
        entropy_from_weights,
        entropy_from_scores,
        scores,
        perturb={"off by 1e-6": lambda h: h + 1e-6, "with the sign flipped": lambda h: -h},
        wrong={"without the mean score": lambda s, lam: np.log(np.sum(np.exp(lam * s)))},
    )
    assert record.perturbation == (
        "right-hand sides off by 1e-6, with the sign flipped and without the mean score "
        "were rejected"
    )


def test_a_perturbation_that_changes_nothing_is_an_error() -> None:
    with pytest.raises(verify.CannotFail, match="same as before"):
        verify.numeric(
            "eq-entropy", entropy_from_weights, entropy_from_scores, scores, perturb=lambda h: h
        )


def test_a_perturbation_that_passes_is_an_error() -> None:
    with pytest.raises(verify.CannotFail, match="off by 1e-14 passes as well"):
        verify.numeric(
            "eq-entropy",
            entropy_from_weights,
            entropy_from_scores,
            scores,
            perturb={"off by 1e-14": lambda h: h * (1 + 1e-14)},
        )


def test_a_perturbation_to_nan_counts_for_nothing() -> None:
    with pytest.raises(verify.CheckFailed, match="not finite"):
        verify.numeric(
            "eq-entropy",
            entropy_from_weights,
            entropy_from_scores,
            scores,
            perturb=lambda h: h * np.nan,
        )


def test_a_wrong_formula_that_is_not_wrong_is_an_error() -> None:
    with pytest.raises(verify.CannotFail, match="with two terms swapped"):
        verify.numeric(
            "eq-sum",
            lambda x, y: x + y,
            lambda x, y: 2 * ((x + y) / 2),
            lambda g: (g.random(), g.random()),
            wrong={"with two terms swapped": lambda x, y: np.nextafter(y + x, 9)},
        )


@pytest.mark.parametrize("perturb", [{}, 1e-3, [lambda h: h]])
def test_a_perturbation_that_is_no_function_is_refused(perturb: object) -> None:
    with pytest.raises(TypeError, match="perturb"):
        verify.numeric(
            "eq-entropy", entropy_from_weights, entropy_from_scores, scores, perturb=perturb
        )


# Arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "label", ["softmax", "eq-", "eq-Softmax", "eq_softmax", "eq-softmax ", "eq-ü", "", None, 3]
)
def test_a_label_of_another_form_is_refused(label: object) -> None:
    with pytest.raises(ValueError, match=r"`label` must be eq-.*got"):
        verify.numeric(label, lambda x: x, lambda x: 1.0 * x, np.random.Generator.random)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"n": 1}, "n"), ({"n": 2.5}, "n"), ({"rtol": -1}, "rtol"), ({"atol": np.nan}, "atol")],
)
def test_a_bad_argument_is_named(arguments: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        verify.numeric(
            "eq-x", lambda x: x, lambda x: 1.0 * x, np.random.Generator.random, **arguments
        )


def test_a_value_in_place_of_a_side_is_refused() -> None:
    with pytest.raises(TypeError, match="`rhs` must be a function"):
        verify.numeric("eq-x", lambda x: x, 1.0, np.random.Generator.random)


def test_an_error_inside_a_side_tells_which_equation_was_checked() -> None:
    def breaks(x: float) -> float:
        return 1.0 / 0 if x > 2 else x

    with pytest.raises(ZeroDivisionError) as caught:
        verify.numeric("eq-breaks", lambda x: 1.0 * x, breaks, lambda rng: rng.gamma(1.0))
    assert "eq-breaks: while evaluating the right-hand side" in caught.value.__notes__[0]

    def always_breaks(x: float) -> float:
        return 1.0 / 0

    with pytest.raises(ZeroDivisionError) as caught:
        verify.numeric("eq-breaks", lambda x: 1.0 * x, always_breaks, lambda rng: rng.gamma(1.0))
    assert "eq-breaks: while evaluating a side" in caught.value.__notes__[0]


# Gradients ------------------------------------------------------------------------------------


def log_sum_exp(s: torch.Tensor, lam: float) -> torch.Tensor:
    return torch.logsumexp(lam * s, 0)


def test_a_true_derivative_passes() -> None:
    record = verify.gradient(
        "eq-gradient", log_sum_exp, lambda s, lam: lam * weights(s, lam), scores
    )
    assert "autograd agrees with the closed form at 100 random inputs" in record.evidence
    assert record.perturbation == "a closed form off by 0.1 % was rejected"


def test_a_true_jacobian_passes_with_the_shape_of_value_and_input() -> None:
    def jacobian(s: np.ndarray, lam: float) -> np.ndarray:
        p = weights(s, lam)
        return lam * (np.diag(p) - np.outer(p, p))

    verify.gradient("eq-jacobian", lambda s, lam: torch.softmax(lam * s, 0), jacobian, scores)


def test_the_derivative_with_respect_to_a_number_is_a_number() -> None:
    def draw(rng: np.random.Generator) -> tuple[float, np.ndarray]:
        return float(rng.gamma(2.0)), rng.normal(size=5)

    verify.gradient(
        "eq-lambda",
        lambda lam, s: torch.logsumexp(lam * s, 0),
        lambda lam, s: weights(s, lam) @ s,
        draw,
    )


def test_a_broken_derivative_fails_and_names_the_equation() -> None:
    with pytest.raises(verify.CheckFailed, match=r"^eq-gradient.*derivative by autograd"):
        verify.gradient("eq-gradient", log_sum_exp, weights, scores)


def test_a_transposed_jacobian_fails() -> None:
    matrix = np.array([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(verify.CheckFailed, match="eq-transposed"):
        verify.gradient(
            "eq-transposed",
            lambda x: torch.as_tensor(matrix) @ x,
            lambda x: matrix.T,
            lambda rng: rng.normal(size=2),
        )


def backward(s: np.ndarray, lam: float) -> torch.Tensor:
    x = torch.tensor(s, requires_grad=True)
    torch.logsumexp(lam * x, 0).backward()
    return x.grad


def functional_jacobian(s: np.ndarray, lam: float) -> torch.Tensor:
    return torch.autograd.functional.jacobian(
        lambda x: torch.logsumexp(lam * x, 0), torch.tensor(s)
    )


def functional_gradient(s: np.ndarray, lam: float) -> torch.Tensor:
    return torch.func.grad(lambda x: torch.logsumexp(lam * x, 0))(torch.tensor(s))


@pytest.mark.parametrize("in_disguise", [backward, functional_jacobian, functional_gradient])
def test_a_closed_form_by_autograd_is_no_closed_form(in_disguise: object) -> None:
    with pytest.raises(verify.SameRoute, match=r"eq-gradient.*autograd itself"):
        verify.gradient("eq-gradient", log_sum_exp, in_disguise, scores)


@pytest.mark.parametrize(
    "f", [lambda s, lam: torch.tensor(1.0), lambda s, lam: (s.detach() * lam).sum()]
)
def test_a_function_that_does_not_depend_on_its_input_fails(f: object) -> None:
    with pytest.raises(verify.CheckFailed, match="does not depend on its first argument"):
        verify.gradient("eq-gradient", f, weights, scores)


def test_a_function_that_leaves_torch_fails() -> None:
    with pytest.raises(verify.CheckFailed, match="must return a tensor"):
        verify.gradient("eq-gradient", lambda s, lam: 1.0, weights, scores)


def test_a_gradient_that_vanishes_everywhere_needs_an_absolute_tolerance() -> None:
    def total(s: torch.Tensor) -> torch.Tensor:
        return torch.softmax(s, 0).sum()

    def draw(rng: np.random.Generator) -> np.ndarray:
        return rng.normal(size=4)

    record = verify.gradient("eq-total", total, lambda s: np.zeros(4), draw, atol=1e-12)
    assert "off by 0.001" in record.perturbation
    with pytest.raises(verify.CheckFailed, match="atol="):
        verify.gradient("eq-total", total, lambda s: np.zeros(4), draw)
