"""Two sides that are one computation must be found out, two that only look alike must not."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterator

import numpy as np
import pytest

from lib.book import verify

LIBRARY = """
import functools
import numpy as np

def require_row(s):
    s = np.asarray(s, dtype=float)
    if s.ndim != 1:
        raise ValueError("`s` must be a row")
    return s

def softmax(s):
    s = require_row(s)
    w = np.exp(s - s.max())
    return w / w.sum()

def entropy(p):
    p = require_row(p)
    return -np.sum(p * np.log(p))

def entropy_of_scores(s):
    return entropy(softmax(s))

def checked(function):
    @functools.wraps(function)
    def wrapper(s):
        require_row(s)
        return function(s)
    return wrapper

@checked
def total(s):
    return s.sum()

@checked
def count_times_mean(s):
    return len(s) * s.mean()

@functools.lru_cache
def cached(x):
    return np.exp(x)

class Scheme:
    def __init__(self, rate):
        self.rate = rate
    @property
    def speed(self):
        return self.rate
    def run(self, x):
        return np.exp(-self.rate * x)
"""


@pytest.fixture
def library() -> Iterator[types.ModuleType]:
    module = types.ModuleType("lib.made_up")
    exec(compile(LIBRARY, "made_up.py", "exec"), module.__dict__)
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def row(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=5)


def test_one_function_on_both_sides_is_an_error() -> None:
    def side(x: np.ndarray) -> np.ndarray:
        return x + 1

    with pytest.raises(verify.SameRoute, match=r"eq-same.*same function"):
        verify.numeric("eq-same", side, side, row)


def test_the_same_code_written_twice_is_an_error() -> None:
    with pytest.raises(verify.SameRoute, match="eq-same"):
        verify.numeric("eq-same", lambda x: np.exp(x) + 1, lambda y: np.exp(y) + 1, row)


def test_code_that_differs_in_a_constant_or_a_name_is_another_route() -> None:
    with pytest.raises(verify.CheckFailed, match="relative error"):
        verify.numeric("eq-same", lambda x: np.exp(x) + 1, lambda y: np.exp(y) + 2, row)
    with pytest.raises(verify.CheckFailed, match="relative error"):
        verify.numeric("eq-same", lambda x: np.exp(x), lambda y: np.expm1(y), row)


def test_the_same_code_over_other_values_is_judged_by_its_values() -> None:
    def power(exponent: float):
        return lambda x: np.abs(x) ** exponent

    with pytest.raises(verify.SameRoute):
        verify.numeric("eq-same", power(2.0), power(2.0), row)


def test_equal_partials_are_an_error() -> None:
    with pytest.raises(verify.SameRoute):
        verify.numeric(
            "eq-same", functools.partial(np.add, 1.0), functools.partial(np.add, 1.0), row
        )


def test_a_library_function_that_both_sides_call_is_an_error(library: types.ModuleType) -> None:
    with pytest.raises(verify.SameRoute, match=r"both sides call lib.made_up.softmax"):
        verify.numeric(
            "eq-h",
            lambda s: library.entropy(library.softmax(s)),
            lambda s: np.log(np.exp(s).sum()) - library.softmax(s) @ s,
            row,
        )


def test_a_function_called_deep_inside_the_other_side_is_found(library: types.ModuleType) -> None:
    with pytest.raises(verify.SameRoute, match=r"lib.made_up.softmax"):
        verify.numeric(
            "eq-h",
            library.entropy_of_scores,
            lambda s: np.log(np.exp(s).sum()) - library.softmax(s) @ s,
            row,
        )


def test_a_function_that_only_validates_may_be_called_by_both(library: types.ModuleType) -> None:
    verify.numeric(
        "eq-h",
        lambda s: library.entropy(np.exp(s) / np.exp(s).sum()),
        lambda s: np.log(np.exp(s).sum()) - library.softmax(s) @ s,
        row,
    )


def test_one_decorator_around_two_functions_is_no_common_route(library: types.ModuleType) -> None:
    verify.numeric("eq-total", library.total, library.count_times_mean, row)
    with pytest.raises(verify.SameRoute):
        verify.numeric("eq-total", library.total, lambda s: 1.0 * library.total(s), row)


def test_a_cache_does_not_hide_a_common_function(library: types.ModuleType) -> None:
    with pytest.raises(verify.SameRoute, match=r"lib.made_up.cached"):
        verify.numeric(
            "eq-cached",
            lambda x: 2 * library.cached(x),
            lambda x: library.cached(x) + library.cached(x),
            lambda rng: rng.normal(),
        )


def test_looking_up_what_an_object_holds_is_no_computation(library: types.ModuleType) -> None:
    scheme = library.Scheme(0.3)
    verify.numeric("eq-decay", scheme.run, lambda x: np.exp(x) ** -scheme.speed, row)


@pytest.mark.parametrize("name", ["lib.made_up.softmax", "object"])
def test_a_shared_function_is_allowed_and_stated(library: types.ModuleType, name: str) -> None:
    shared = library.softmax if name == "object" else name
    record = verify.numeric(
        "eq-h",
        lambda s: library.entropy(library.softmax(s)),
        lambda s: np.log(np.exp(s).sum()) - library.softmax(s) @ s,
        row,
        shared=(shared,),
    )
    assert record.shared == ("lib.made_up.softmax",)
    assert record.summary.endswith("both sides use lib.made_up.softmax")
    assert record.data["shared"] == ["lib.made_up.softmax"]


def test_sharing_one_function_does_not_excuse_another(library: types.ModuleType) -> None:
    with pytest.raises(verify.SameRoute, match=r"lib.made_up.entropy"):
        verify.numeric(
            "eq-h",
            lambda s: 2 * library.entropy(library.softmax(s)),
            lambda s: library.entropy(library.softmax(s)) + library.entropy(library.softmax(s)),
            row,
            shared=("lib.made_up.softmax",),
        )


def test_a_function_of_the_notebook_that_both_sides_call_is_an_error() -> None:
    def helper(x: np.ndarray) -> np.ndarray:
        return np.exp(x)

    def left(x: np.ndarray) -> np.ndarray:
        return helper(x) * 2

    def right(x: np.ndarray) -> np.ndarray:
        return helper(x) + helper(x)

    with pytest.raises(verify.SameRoute, match="helper"):
        verify.numeric("eq-helper", left, right, row)
    assert verify.numeric("eq-helper", left, right, row, shared=("helper",)).shared == ("helper",)


@pytest.mark.parametrize("name", ["lib.made_up.entropy", "lib.made_up.nothing", "nowhere", "lib"])
def test_a_shared_name_that_is_not_shared_is_refused(library: types.ModuleType, name: str) -> None:
    with pytest.raises(ValueError, match=r"`shared` .*name"):
        verify.numeric("eq-x", lambda x: 2 * x, lambda x: x + x, row, shared=(name,))


def test_the_profiler_that_was_there_before_is_there_after() -> None:
    def watcher(frame: object, event: str, argument: object) -> None:
        return None

    before = sys.getprofile()
    sys.setprofile(watcher)
    try:
        verify.numeric("eq-x", lambda x: 2 * x, lambda x: x + x, row)
        assert sys.getprofile() is watcher
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize(
    "check",
    [
        lambda f: verify.bound("eq-x", f, f, row),
        lambda f: verify.gradient("eq-x", f, f, row),
    ],
)
def test_every_two_sided_kind_refuses_one_route(check: object) -> None:
    with pytest.raises(verify.SameRoute, match="eq-x"):
        check(lambda x: x.sum())


def test_a_sampler_and_an_expectation_by_one_function_are_an_error(
    library: types.ModuleType,
) -> None:
    with pytest.raises(verify.SameRoute, match=r"lib.made_up.softmax"):
        verify.monte_carlo(
            "eq-mean",
            lambda rng, n: library.softmax(np.arange(3.0))[rng.integers(0, 3, n)],
            lambda: library.softmax(np.arange(3.0)).mean(),
        )
