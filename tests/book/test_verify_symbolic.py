"""What SymPy proves, and what only looks proved."""

from __future__ import annotations

import pytest
import sympy as sp

from lib.book import verify

x, y = sp.symbols("x y", positive=True)
z = sp.symbols("z")
n = sp.symbols("n", integer=True, positive=True)
k = sp.symbols("k", integer=True)


@pytest.mark.parametrize(
    ("lhs", "rhs"),
    [
        (sp.Derivative(x * sp.log(x), x), sp.log(x) + 1),
        (sp.Sum(k, (k, 1, n)), n * (n + 1) / 2),
        (sp.Integral(sp.exp(-x * y), (y, 0, sp.oo)), 1 / x),
        (sp.Limit(sp.sin(k * x) / x, x, 0), k),
        (sp.log(x * y) - sp.log(x), sp.log(y)),
        (sp.log(sp.exp(x) + sp.exp(y)), x + sp.log(1 + sp.exp(y - x))),
        (sp.tanh(z), (sp.exp(2 * z) - 1) / (sp.exp(2 * z) + 1)),
        (sp.gamma(n + 1), sp.factorial(n)),
        ((x + y) ** 3, sum(sp.binomial(3, i) * x**i * y ** (3 - i) for i in range(4))),
    ],
    ids=str,
)
def test_a_true_identity_is_proved(lhs: sp.Expr, rhs: sp.Expr) -> None:
    assert verify.symbolic("eq-true", lhs, rhs).data["perturbation_rejected"] is True


def test_the_verdict_states_the_assumptions() -> None:
    record = verify.symbolic("eq-log", sp.log(x * y) + n, sp.log(y) + sp.log(x) + n)
    assert record.summary == (
        "SymPy reduces the difference of the two sides to 0 for n a positive integer, "
        "x positive, y positive; a right-hand side off by 0.1 % was rejected"
    )


@pytest.mark.parametrize(
    ("lhs", "rhs"),
    [
        (sp.Derivative(x * sp.log(x), x), sp.log(x) - 1),
        (sp.Sum(k, (k, 1, n)), n * (n - 1) / 2),
        (sp.sqrt(z**2), z),
        (sp.log(z**2), 2 * sp.log(z)),
        (x + sp.Rational(1, 10**6) * y, x),
    ],
    ids=str,
)
def test_a_broken_identity_fails_and_names_equation_and_point(lhs: sp.Expr, rhs: sp.Expr) -> None:
    with pytest.raises(verify.CheckFailed, match=r"^eq-broken.*the sides differ at \w+ = "):
        verify.symbolic("eq-broken", lhs, rhs)


def test_agreement_in_numbers_is_no_proof() -> None:
    """SymPy cannot reduce this floating-point residue, although it is 0 to 16 digits."""
    with pytest.raises(verify.CheckFailed, match=r"eq-float.*does not reduce.*verify.numeric"):
        verify.symbolic("eq-float", 0.1 * x + 0.2 * x, 0.3 * x)


def test_an_unproved_true_identity_is_not_accepted() -> None:
    f = sp.Function("f")
    with pytest.raises(verify.CheckFailed, match=r"eq-open.*does not reduce"):
        verify.symbolic("eq-open", f(x) * f(y), f(x + y))


def test_identities_of_unknown_functions_can_be_proved_and_perturbed() -> None:
    f = sp.Function("f")
    lhs = sp.Derivative(f(x) ** 2, x)
    assert verify.symbolic("eq-chain", lhs, 2 * f(x) * f(x).diff(x)).rejected == ("off by 0.1 %",)
    with pytest.raises(verify.CheckFailed, match="eq-chain"):
        verify.symbolic("eq-chain", lhs, 2 * f(x).diff(x))


def test_one_expression_on_both_sides_is_an_error() -> None:
    with pytest.raises(
        verify.SameRoute, match=r"eq-same.*already the same expression.*unevaluated"
    ):
        verify.symbolic("eq-same", sp.diff(sp.exp(x), x), sp.exp(x))


def test_a_reason_lets_one_expression_pass_and_is_printed() -> None:
    record = verify.symbolic(
        "eq-same", sp.diff(sp.exp(x), x), sp.exp(x), trivial="diff gives the printed form"
    )
    assert "both sides are one expression: diff gives the printed form" in record.summary


def test_a_right_hand_side_of_zero_is_perturbed_by_addition() -> None:
    record = verify.symbolic("eq-zero", sp.sin(z) ** 2 + sp.cos(z) ** 2 - 1, 0)
    assert record.perturbation == "a right-hand side off by 0.001 was rejected"
    hidden = sp.cos(2 * z) - sp.cos(z) ** 2 + sp.sin(z) ** 2
    record = verify.symbolic("eq-zero", sp.sin(z) ** 2 + sp.cos(z) ** 2 - 1, hidden)
    assert record.perturbation == "a right-hand side off by 0.001 was rejected"


def test_lists_and_pairs_are_proved_one_by_one() -> None:
    pairs = [(sp.sin(2 * z), 2 * sp.sin(z) * sp.cos(z)), (sp.Derivative(z**2, z), 2 * z)]
    assert verify.symbolic("eq-pairs", pairs).data["n"] == 2
    assert verify.symbolic("eq-pairs", *map(list, zip(*pairs, strict=True))).data["n"] == 2
    with pytest.raises(verify.CheckFailed, match="eq-pairs"):
        verify.symbolic("eq-pairs", [pairs[0], (sp.Derivative(z**2, z), z)])


def test_matrices_are_proved_entry_by_entry() -> None:
    a = sp.MatrixSymbol("a", 2, 2).as_explicit()
    trace_of_square = (a * a).trace()
    verify.symbolic("eq-trace", trace_of_square, a.trace() ** 2 - 2 * a.det())
    lhs = sp.Matrix([sp.Derivative(x**2, x), sp.Derivative(x**3, x)])
    verify.symbolic("eq-column", lhs, sp.Matrix([2 * x, 3 * x**2]))
    with pytest.raises(verify.CheckFailed, match="different shapes"):
        verify.symbolic("eq-column", lhs, sp.Matrix([[2 * x, 3 * x**2]]))
    with pytest.raises(verify.CheckFailed, match="different shapes"):
        verify.symbolic("eq-column", lhs, 2 * x)


def test_wrong_formulas_must_be_rejected() -> None:
    lhs, rhs = sp.Derivative(sp.log(x) / x, x), (1 - sp.log(x)) / x**2
    record = verify.symbolic("eq-wrong", lhs, rhs, wrong={"with the sign flipped": -rhs})
    assert record.perturbation.endswith("off by 0.1 % and with the sign flipped were rejected")
    with pytest.raises(verify.CannotFail, match="spelled otherwise"):
        verify.symbolic("eq-wrong", lhs, rhs, wrong={"spelled otherwise": sp.expand(rhs)})


def test_a_perturbation_that_changes_nothing_is_an_error() -> None:
    with pytest.raises(verify.CannotFail, match="same as before"):
        verify.symbolic("eq-x", sp.Derivative(x**2, x), 2 * x, perturb=lambda e: e)
    with pytest.raises(verify.CannotFail, match="passes as well"):
        verify.symbolic(
            "eq-x",
            sp.Derivative(x**2, x),
            2 * x,
            perturb=lambda e: e * (sp.sin(x) ** 2 + sp.cos(x) ** 2),
        )


def test_the_domain_restricts_the_points() -> None:
    t = sp.symbols("t", real=True)
    lhs, rhs = sp.Abs(t) * (t + sp.Abs(t)), 2 * t**2
    with pytest.raises(verify.CheckFailed, match="differ at t = -"):
        verify.symbolic("eq-domain", lhs, rhs)
    with pytest.raises(verify.CheckFailed, match="does not reduce"):
        verify.symbolic("eq-domain", lhs, rhs, domain={t: (1, 2)})


@pytest.mark.parametrize(
    ("lhs", "rhs", "error"),
    [
        (x, None, TypeError),
        ([], None, ValueError),
        ([x, y], [x], ValueError),
        ([x], x, ValueError),
        (sp.Eq(x, y), x, TypeError),
        (sp.nan, x, verify.CheckFailed),
        (x, sp.zoo, verify.CheckFailed),
    ],
    ids=str,
)
def test_sides_that_are_no_expressions_are_refused(
    lhs: object, rhs: object, error: type[Exception]
) -> None:
    with pytest.raises(error):
        verify.symbolic("eq-what", lhs, rhs)
