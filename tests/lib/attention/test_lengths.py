"""Factors on the logits at test lengths, and the table that holds what they do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.attention.lengths import (
    FACTORS,
    LengthTable,
    check_lengths,
    check_seeds,
    factor_at,
    named_factors,
)

lengths = st.integers(2, 10**6)


@given(n=lengths, n0=lengths)
def test_no_rule_changes_attention_at_the_training_length_or_below(n, n0):
    for rule in FACTORS:
        assert factor_at(rule, min(n, n0), n0) == 1.0


@given(n=lengths, n0=lengths)
def test_rules_beyond_the_training_length_lie_in_order(n, n0):
    n = max(n, n0)
    assert factor_at("constant", n, n0) == 1.0
    assert 1.0 <= factor_at("sqrt_log_n", n, n0) <= factor_at("log_n", n, n0)
    assert factor_at("sqrt_log_n", n, n0) ** 2 == pytest.approx(factor_at("log_n", n, n0))


def test_the_log_n_rule_is_log_512_n_for_a_model_trained_at_512():
    assert factor_at("log_n", 4096, 512) == pytest.approx(math.log(4096, 512))


def test_yarn_has_its_published_value_at_32_times_the_training_length():
    assert factor_at("yarn", 2048, 64) == pytest.approx((0.1 * math.log(32) + 1) ** 2)


def test_any_function_of_the_two_lengths_serves_as_a_rule():
    assert factor_at(lambda n, n0: n / n0, 64, 32) == 2.0


@pytest.mark.parametrize(
    ("rule", "n", "n0", "message"),
    [
        ("log2", 64, 32, "`rule` must be one of constant, sqrt_log_n, log_n, yarn, got 'log2'"),
        ("log_n", 0, 32, "`n` must be at least 1, got 0"),
        ("log_n", 64, 1, "`n0` must be at least 2, got 1"),
        (lambda n, n0: -1.0, 64, 32, "finite positive factor, got -1.0 at n = 64"),
        (lambda n, n0: math.nan, 64, 32, "finite positive factor"),
    ],
)
def test_a_senseless_factor_is_an_error_that_names_it(rule, n, n0, message):
    with pytest.raises(ValueError, match=message):
        factor_at(rule, n, n0)


def test_rules_are_named_by_strings_or_by_a_mapping():
    assert named_factors(["log_n", "constant"]) == {k: FACTORS[k] for k in ("log_n", "constant")}
    assert list(named_factors({"sharp": lambda n, n0: 2.0})) == ["sharp"]


@pytest.mark.parametrize("factors", ["log_n", ["log_n", "ln"], [], {}])
def test_an_unknown_or_empty_choice_of_rules_is_an_error(factors):
    with pytest.raises(ValueError, match="`factors` must"):
        named_factors(factors)


@pytest.mark.parametrize("given", [[], [64, 32], [32, 32]])
def test_lengths_must_increase(given):
    with pytest.raises(ValueError, match="`lengths` must be increasing"):
        check_lengths(given, at_least=2)


def test_lengths_below_the_least_are_an_error():
    with pytest.raises(ValueError, match="`lengths` must be at least 32, got 16"):
        check_lengths([16, 64], at_least=32)


@pytest.mark.parametrize("given", [[], [1, 1], [-1]])
def test_seeds_must_be_different_and_not_negative(given):
    with pytest.raises(ValueError, match="`seeds` must be"):
        check_seeds(given)


def test_a_seed_that_is_no_whole_number_is_an_error():
    with pytest.raises(TypeError, match=r"`seeds` must be a whole number, got 0\.5"):
        check_seeds([0.5])


@pytest.fixture
def table() -> LengthTable:
    accuracy = np.arange(12.0).reshape(2, 2, 3) / 12
    return LengthTable((4, 7), ("constant", "log_n"), (32, 64, 128), accuracy, 3 * accuracy, 100)


def test_a_cell_of_the_table_holds_one_number_per_seed(table):
    assert table.per_seed("log_n", 64).tolist() == [4 / 12, 10 / 12]
    assert table.per_seed("log_n", 64, "entropy") == pytest.approx([1.0, 2.5])


def test_the_standard_error_is_binomial(table):
    assert table.standard_error()[1, 0, 0] == pytest.approx(math.sqrt(0.5 * 0.5 / 100))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (("yarn", 64), "`factor` must be one of"),
        (("log_n", 63), "`length` must be one of"),
        (("log_n", 64, "questions"), "`what` must name an array of the table"),
        (("log_n", 64, "loss"), "`what` must name an array of the table"),
    ],
)
def test_a_cell_that_is_not_in_the_table_is_an_error(table, cell, message):
    with pytest.raises(ValueError, match=message):
        table.per_seed(*cell)
