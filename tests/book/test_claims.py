"""Verdicts on synthetic measurements whose truth is known, and the intervals behind them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lib.book import _intervals as intervals
from lib.book import claims

SEEDS = [0, 1, 2, 3, 4]
HIGH = np.array([0.81, 0.79, 0.80, 0.82, 0.78])
LOW = np.array([0.70, 0.69, 0.72, 0.71, 0.68])


def judge(rule: claims.Rule, **more: object) -> claims.Claim:
    more.setdefault("seeds", range(rule.seeds))
    return claims.claim("made-up", "The first is better.", rule=rule, **more)


# Verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [
        (claims.greater(HIGH, LOW), "holds"),
        (claims.greater(LOW, HIGH), "does not hold"),
        (claims.greater(HIGH, HIGH[::-1]), "inconclusive"),
        (claims.greater(HIGH, LOW, margin=0.05), "holds"),
        (claims.greater(HIGH, LOW, margin=0.1), "inconclusive"),
        (claims.greater(HIGH, LOW, margin=0.2), "does not hold"),
        (claims.less(LOW, HIGH), "holds"),
        (claims.less(HIGH, LOW), "does not hold"),
        (claims.greater(HIGH, LOW, paired=False), "holds"),
        (claims.greater(LOW, HIGH, paired=False), "does not hold"),
        (claims.equivalent(HIGH, HIGH + np.array([0.01, -0.01, 0, 0, 0]), 0.05), "holds"),
        (claims.equivalent(HIGH, LOW, 0.05), "does not hold"),
        (claims.equivalent(HIGH, HIGH[::-1], 0.01), "inconclusive"),
        (claims.at_least(HIGH, 0.75), "holds"),
        (claims.at_least(HIGH, 0.8), "inconclusive"),
        (claims.at_least(HIGH, 0.9), "does not hold"),
        (claims.at_most(LOW, 0.75), "holds"),
        (claims.at_most(LOW, 0.70), "inconclusive"),
        (claims.at_most(LOW, 0.60), "does not hold"),
        (claims.within(HIGH, 0.7, 0.9), "holds"),
        (claims.within(HIGH, 0.8, 0.9), "inconclusive"),
        (claims.within(HIGH, 0.9, 1.0), "does not hold"),
        (claims.proportion([98, 97, 99], 100, at_least=0.9), "holds"),
        (claims.proportion([90, 91, 89], 100, at_least=0.9), "inconclusive"),
        (claims.proportion([50, 51, 49], 100, at_least=0.9), "does not hold"),
        (claims.proportion([1, 0, 2], [100, 90, 80], at_most=0.1), "holds"),
        (claims.proportion([50, 51, 49], 100, at_least=0.4, at_most=0.6), "holds"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.words[:60],
)
def test_the_verdict_is_that_of_the_whole_interval(rule: claims.Rule, verdict: str) -> None:
    assert judge(rule).verdict == verdict


def test_pairing_finds_what_the_spread_between_seeds_hides() -> None:
    base = np.array([0.2, 0.5, 0.8, 0.3, 0.9])
    better = base + np.array([0.05, 0.06, 0.05, 0.04, 0.05])
    assert claims.greater(better, base).verdict == "holds"
    assert claims.greater(better, base, paired=False).verdict == "inconclusive"


@pytest.mark.parametrize("method", ["t", "bootstrap", "sign", "wilcoxon"])
def test_every_method_reaches_all_three_verdicts(method: str) -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(size=12)
    noise -= np.median(noise)
    for shift, verdict in ((3.0, "holds"), (0.0, "inconclusive"), (-3.0, "does not hold")):
        assert claims.at_least(noise + shift, 0.0, method=method).verdict == verdict


def test_slopes_are_compared_like_any_measurement() -> None:
    x = np.log([64, 128, 256, 512])
    rng = np.random.default_rng(0)
    steep = 2 * x + rng.normal(0, 0.01, size=(5, 4))
    flat = 1 * x + rng.normal(0, 0.01, size=(5, 4))
    np.testing.assert_allclose(claims.slopes(x, 3 * x[None] + 7), [3.0])
    assert claims.greater(claims.slopes(x, steep), claims.slopes(x, flat), 0.9).verdict == "holds"


# No variation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("difference", "verdict"), [(0.1, "holds"), (0.0, "does not hold"), (-0.1, "does not hold")]
)
def test_seeds_that_do_not_vary_give_a_verdict_that_says_so(
    difference: float, verdict: str
) -> None:
    judged = judge(claims.greater(np.full(5, 0.5) + difference, np.full(5, 0.5)))
    assert judged.verdict == verdict
    assert "for every seed, so the interval has no width" in judged.measured
    assert "do not vary" in judged.measured
    assert "nan" not in judged.html
    assert "inf" not in judged.measured


def test_a_bound_that_is_met_exactly_by_every_seed_holds() -> None:
    assert claims.at_least(np.ones(3), 1.0).verdict == "holds"
    assert claims.within(np.ones(3), 0.5, 1.0).verdict == "holds"
    assert claims.greater(np.ones(3), np.zeros(3), margin=1.0).verdict == "does not hold"


def test_rounding_between_equal_seeds_is_no_variation() -> None:
    values = np.array([0.3, 0.1 + 0.2, 0.3])
    assert claims.at_least(values, 0.2).interval.low == claims.at_least(values, 0.2).interval.high


@pytest.mark.parametrize("paired", [True, False])
def test_one_group_without_variation_is_no_error(paired: bool) -> None:
    assert claims.greater(HIGH, np.full(5, 0.5), paired=paired).verdict == "holds"
    assert claims.greater(np.full(5, 0.9), np.full(5, 0.5), paired=paired).verdict == "holds"


# Intervals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_t_interval_covers_95_per_cent(n: int) -> None:
    rng = np.random.default_rng(n)
    covered = [
        (found := intervals.t_interval(rng.normal(1.0, 2.0, size=n), 0.95)).low < 1 < found.high
        for _ in range(4000)
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors


@pytest.mark.parametrize("name", ["sign_interval", "signed_rank_interval"])
@pytest.mark.parametrize("n", [6, 9, 15])
def test_the_exact_intervals_cover_at_least_95_per_cent(name: str, n: int) -> None:
    rng = np.random.default_rng(n)
    interval = getattr(intervals, name)
    covered = [
        (found := interval(rng.laplace(1.0, 2.0, size=n), 0.95)).low <= 1 <= found.high
        for _ in range(3000)
    ]
    assert np.mean(covered) > 0.95 - 0.012


def test_the_sign_interval_covers_the_median_of_skewed_values() -> None:
    rng = np.random.default_rng(0)
    covered = [
        (f := intervals.sign_interval(rng.lognormal(sigma=2.0, size=9), 0.95)).low <= 1 <= f.high
        for _ in range(3000)
    ]
    assert np.mean(covered) == pytest.approx(1 - 2 * stats.binom.cdf(1, 9, 0.5), abs=0.012)


def test_the_bootstrap_covers_nearly_95_per_cent() -> None:
    rng = np.random.default_rng(0)
    covered = [
        (found := intervals.bootstrap_interval(rng.normal(size=10), 0.95)).low < 0 < found.high
        for _ in range(150)
    ]
    assert 0.85 < np.mean(covered) <= 1.0


def test_the_exact_intervals_hold_what_the_exact_tests_do_not_reject() -> None:
    """Duality with SciPy's tests, just inside and just outside of either end."""
    values = np.random.default_rng(3).normal(size=10)

    def sign_test(centre: float) -> float:
        return stats.binomtest(int(np.sum(values > centre)), len(values)).pvalue

    def rank_test(centre: float) -> float:
        return stats.wilcoxon(values - centre, method="exact").pvalue

    for interval, test in (
        (intervals.sign_interval, sign_test),
        (intervals.signed_rank_interval, rank_test),
    ):
        found = interval(values, 0.95)
        assert min(test(found.low + 1e-9), test(found.high - 1e-9)) > 0.05
        assert max(test(found.low - 1e-9), test(found.high + 1e-9)) <= 0.05


def test_welch_agrees_with_scipy() -> None:
    found, _ = intervals.welch_interval(HIGH, LOW * 2, 0.95)
    oracle = stats.ttest_ind(HIGH, LOW * 2, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose([found.low, found.high], [oracle.low, oracle.high])


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy(counts: tuple[int, int]) -> None:
    successes, trials = counts
    found = intervals.wilson_interval(successes, trials, 0.95)
    oracle = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose([found.low, found.high], [oracle.low, oracle.high], atol=1e-12)


@given(st.lists(st.floats(-100, 100, allow_subnormal=False), min_size=6, max_size=20))
def test_every_interval_holds_its_estimate_and_moves_with_the_data(values: list[float]) -> None:
    row = np.round(np.array(values), 6)
    for method in ("t", "sign", "wilcoxon"):
        found = intervals.interval_of(row, method)
        moved = intervals.interval_of(row + 16.0, method)
        assert found.low <= found.estimate <= found.high
        np.testing.assert_allclose(moved.low - found.low, 16.0, atol=1e-9)


@given(st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=3, max_size=9), st.floats(-5, 5))
def test_greater_and_less_never_both_hold(values: list[float], margin: float) -> None:
    a, b = np.array(values), np.zeros(len(values))
    verdicts = {claims.greater(a, b, margin).verdict, claims.less(a, b, -margin).verdict}
    assert verdicts != {"holds"}


# What is shown and stored ------------------------------------------------------------------------


def example(**more: object) -> claims.Claim:
    rule = claims.greater(HIGH, LOW, names=("with log n", "without"))
    return judge(rule, unit="accuracy", article="0.94 against 0.87 at length 1024", **more)


def test_the_rule_is_said_in_words_without_figures_of_the_machine() -> None:
    assert example().rule.words == (
        "the 95 % t interval of the paired differences, with log n minus without, lies above 0"
    )


def test_measured_figures_stand_only_inside_book_measured() -> None:
    judged = example()
    assert "0.1 accuracy (from 0.0" in judged.html
    outside = re.sub(r"<book-measured>.*?</book-measured>", "", judged.html)
    other = judge(
        claims.greater(HIGH + 0.003, LOW, names=("with log n", "without")),
        unit="accuracy",
        article="0.94 against 0.87 at length 1024",
    )
    assert outside == re.sub(r"<book-measured>.*?</book-measured>", "", other.html)
    assert judged.html != other.html
    assert judged.data == other.data
    assert judged.plain == other.plain


def test_the_verdict_has_a_mark_and_a_word_not_only_a_colour() -> None:
    assert 'data-verdict="holds"' in example().html
    assert "✓</span> holds" in example().html
    assert "✗</span> does not hold" in judge(claims.greater(LOW, HIGH)).html
    assert "?</span> inconclusive" in judge(claims.greater(HIGH, HIGH[::-1])).html


def test_words_of_the_author_are_escaped() -> None:
    judged = claims.claim(
        "sharp", "p < 0.05 & <b>q</b>", rule=claims.greater(HIGH, LOW), seeds=SEEDS
    )
    assert "p &lt; 0.05 &amp; &lt;b&gt;q&lt;/b&gt;" in judged.html


@pytest.mark.parametrize(
    ("rule", "says", "sentence"),
    [
        (claims.greater(HIGH, LOW), "holds", "This agrees with the article"),
        (claims.greater(LOW, HIGH), "holds", "This contradicts the article, which reports that"),
        (claims.greater(HIGH, LOW), "does not hold", "This contradicts the article"),
        (claims.greater(HIGH, HIGH[::-1]), "holds", "our seeds do not settle it"),
        (claims.greater(HIGH, LOW), None, ""),
    ],
)
def test_the_verdict_is_held_against_the_articles(
    rule: claims.Rule, says: str | None, sentence: str
) -> None:
    judged = judge(rule, article_says=says)
    assert sentence in judged.html
    assert judged.against_article in judged.plain
    assert judged.data["contradicts"] is ("contradicts" in sentence)
    assert ("book-claim-contradiction" in judged.html) is ("contradicts" in sentence)


def test_the_articles_figures_are_marked_as_theirs() -> None:
    assert "Reported by the article (theirs): 0.94 against 0.87" in example().html


def test_a_control_that_comes_out_wrong_makes_the_claim_inconclusive() -> None:
    sound = claims.control("at the trained length", claims.equivalent(HIGH, HIGH + 1e-3, 0.05))
    assert example(control=sound).verdict == "holds"
    assert "at the trained length (holds, as it must)" in example(control=sound).html
    broken = claims.control("at the trained length", claims.equivalent(HIGH, LOW, 0.05))
    assert example(control=broken).verdict == "inconclusive"
    assert "the experiment does not measure what it says" in example(control=broken).html


def test_a_negative_control_is_expected_to_fail() -> None:
    shuffled = claims.greater(LOW, HIGH)
    negative = claims.control("with shuffled scores", shuffled, expect="does not hold")
    assert example(control=negative).verdict == "holds"


# Arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"id": "Not an id"}, "`id` must be"),
        ({"id": ""}, "`id` must be"),
        ({"statement": " "}, "`statement` must be"),
        ({"seeds": [0, 1]}, "at least 3 seeds"),
        ({"seeds": [0, 1, 2, 3, 3]}, "different"),
        ({"seeds": [0, 1, 2]}, "3 seeds, but the rule has 5"),
        ({"article_says": "yes"}, "`article_says` must be"),
    ],
)
def test_a_bad_argument_is_named(arguments: dict, message: str) -> None:
    good = {"id": "made-up", "statement": "It is.", "rule": claims.greater(HIGH, LOW)}
    with pytest.raises(ValueError, match=message):
        claims.claim(**{**good, "seeds": SEEDS, **arguments})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: claims.greater(HIGH[:2], LOW[:2]), "at least 3 seeds"),
        (lambda: claims.greater(HIGH, LOW[:4]), "paired seed by seed"),
        (lambda: claims.greater(HIGH, LOW[:4], paired=False), "one measurement for each seed"),
        (lambda: claims.greater(HIGH, LOW, paired=False, method="sign"), "without pairing"),
        (lambda: claims.greater(HIGH * np.nan, LOW), "`a` must be finite"),
        (lambda: claims.greater(HIGH[None], LOW), r"`a` must have shape \(seeds,\)"),
        (lambda: claims.greater(HIGH, LOW, margin=np.inf), "`margin` must be a finite"),
        (lambda: claims.greater(HIGH, LOW, confidence=95), "`confidence` must lie"),
        (lambda: claims.greater(HIGH, LOW, method="guess"), "`method` must be one of"),
        (lambda: claims.greater(HIGH, LOW, method="bootstrap"), "at least 8 seeds, got 5"),
        (lambda: claims.greater(HIGH, LOW, method="sign"), "at least 6 seeds, got 5"),
        (lambda: claims.at_least(np.arange(6.0), 0, method="sign", confidence=0.99), "cannot give"),
        (lambda: claims.within(HIGH, 0.9, 0.1), "`low` must be less"),
        (lambda: claims.equivalent(HIGH, LOW, 0.0), "`margin` must be positive"),
        (lambda: claims.proportion([5, 6, 7], 4, at_least=0.5), "between 0 and `trials`"),
        (lambda: claims.proportion([1, 2, 3], 4), "`at_least`, `at_most` or both"),
        (lambda: claims.proportion([1, 2, 3], 4, at_least=2.0), "the bounds must satisfy"),
        (lambda: claims.slopes([1.0, 1.0], np.ones((3, 2))), "two different values"),
        (lambda: claims.slopes([1.0, 2.0], np.ones((3, 4))), "shape"),
        (lambda: claims.control("x", claims.greater(HIGH, LOW), expect="maybe"), "`expect`"),
    ],
)
def test_a_bad_rule_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_proportions_need_counts() -> None:
    with pytest.raises(TypeError, match="integers"):
        claims.proportion([0.5, 0.6, 0.7], 1, at_least=0.5)
    with pytest.raises(TypeError, match="`rule` must be made"):
        claims.claim("made-up", "It is.", rule=lambda: True, seeds=SEEDS)
