"""DDIM's ordinary differential equation, and one-step methods for it.

With ρ = β̄/ᾱ the limit of DDIM is d(x/ᾱ)/dρ = ε(x, t(ρ)) (https://kexue.fm/archives/9181; Song et
al. 2010.02502, equation 14): no linear term, so Euler's method in this variable *is* DDIM, and
every Runge-Kutta method may be put in its place. A method here is data, a row for each stage.
The article's two clocks, ᾱ = e^{-5s²} and e^{-5s}, are there as right-hand sides for any solver.
Left out: multistep methods, adaptive steps, and noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lib.diffusion import _tensors as tensors
from lib.diffusion import _validation as check
from lib.diffusion._tensors import Model, OnStep
from lib.diffusion._validation import Floats
from lib.diffusion.schedule import Schedule

MethodName = Literal["euler", "heun", "midpoint", "dpm_solver_2", "rk4"]
Grid = Literal["log_rho", "rho", "karras", "time"]
Clock = Literal["square", "linear"]


class Stage(NamedTuple):
    """Where the model is asked once more within a step."""

    place: float  # 0 is the start of the step, 1 its end
    mix: tuple[float, ...]  # shares of the earlier slopes on the way there, with sum 1


@dataclass(frozen=True)
class Method:
    """An explicit Runge-Kutta method in ρ, or with its places in log ρ.

    Attributes
    ----------
    order : int
        The error falls as steps^-order.
    stages : tuple of Stage
        After the one at the start of the step.
    weights : tuple of float
        Shares of all slopes in the step, with sum 1.
    in_log_rho : bool
        Places are measured in log ρ: ½ is the geometric mean of both ends' ρ.
    """

    order: int
    stages: tuple[Stage, ...]
    weights: tuple[float, ...]
    in_log_rho: bool = False


METHODS: dict[str, Method] = {
    # DDIM (η = 0); also DPM-Solver-1
    "euler": Method(1, (), (1.0,)),
    # the trapezoidal rule with a predicted end; algorithm 1 of Karras et al. (2206.00364)
    "heun": Method(2, (Stage(1.0, (1.0,)),), (0.5, 0.5)),
    # the slope at the middle of ρ
    "midpoint": Method(2, (Stage(0.5, (1.0,)),), (0.0, 1.0)),
    # the same at the middle of log ρ = -λ: DPM-Solver-2 with r = 1/2 (2206.00927, algorithm 1), for
    # its exponential weights are exact in x/ᾱ: σ_s(e^{λ_s-λ_t} - 1) = ᾱ_s(ρ_t - ρ_s)
    "dpm_solver_2": Method(2, (Stage(0.5, (1.0,)),), (0.0, 1.0), in_log_rho=True),
    # the classical one
    "rk4": Method(
        4,
        (Stage(0.5, (1.0,)), Stage(0.5, (0.0, 1.0)), Stage(1.0, (0.0, 0.0, 1.0))),
        (1 / 6, 1 / 3, 1 / 3, 1 / 6),
    ),
}

GRIDS = ("log_rho", "rho", "karras", "time")


def sample_ode(
    model: Model,
    x_T: Tensor,
    schedule: Schedule,
    *,
    steps: int,
    method: MethodName = "heun",
    grid: Grid = "log_rho",
    stop: float = 0.0,
    on_step: OnStep | None = None,
) -> Tensor:
    """Deterministic sampling: d(x/ᾱ)/dρ = ε from T down to `stop`.

    Parameters
    ----------
    model : callable
        ``model(x, t) -> ε`` as in `sample_ddpm`, but asked at real times. Its error in t between
        whole numbers is its own.
    x_T : Tensor of shape (batch, …)
        Standard normal noise.
    schedule : Schedule
        That of the training.
    steps : int
        How many; the model is asked `evaluations(method, steps, stop)` times.
    method : {"euler", "heun", "midpoint", "dpm_solver_2", "rk4"}
        Of order 1, 2, 2, 2, 4. "midpoint" and "dpm_solver_2" differ in one point: the second slope
        is taken at the arithmetic or at the geometric mean of both ends' ρ.
    grid : {"log_rho", "karras", "rho", "time"}
        In which variable steps are equal: log ρ, ρ^(1/7) (Karras et al.), ρ itself, or t. Equal
        steps in ρ, which runs from 0 to 154 in the article's schedule, waste nearly all of them.
    stop : float, default=0.0
        Where to stop, 0 <= stop < T. With 0 the last step is Euler's from t = 1 (for "rho" and
        "time": from the last point of their grid): no model was trained for t = 0, and log ρ is
        infinite there. Its error does not fall with `steps`; to measure an order, stop earlier.
    on_step : callable, optional
        ``on_step(t, x, x0_hat)`` after each step: the time reached, the state there, and the x̂_0
        seen from where the step began.

    Returns
    -------
    Tensor of shape (batch, …)
        x at time `stop`.

    Examples
    --------
    >>> from lib.diffusion import GaussianMixture
    >>> schedule = Schedule.article()
    >>> eps = GaussianMixture([1.0], [[2.0]], 1.0).noise_predictor(schedule)
    >>> round(sample_ode(eps, torch.tensor([[0.5]]), schedule, steps=12, method="rk4").item(), 2)
    2.49
    """
    tensors.state(x_T, "x_T")
    times = ode_times(schedule, steps, grid, stop)
    return ode_path(model, x_T, schedule, times, method=method, on_step=on_step)


def ode_times(schedule: Schedule, steps: int, grid: Grid = "log_rho", stop: float = 0.0) -> Floats:
    """The steps + 1 real times of `sample_ode`, from T down to `stop`."""
    steps = check.whole(steps, "steps", 1)
    check.choice(grid, "grid", GRIDS)
    T = float(schedule.times[-1])
    stop = check.number(stop, "stop", 0.0, T)
    if stop == T:
        raise ValueError(f"`stop` must be less than T = {T:g}, got {stop:g}")
    if grid == "time":
        return np.linspace(T, stop, steps + 1)
    warp, unwarp = _WARPS[grid]
    stop_rho = _rho_at(schedule, stop)
    whole_way = stop > 0 or grid == "rho"
    if whole_way:
        last, points = stop_rho, steps + 1
    else:
        last, points = _rho_at(schedule, 1.0), steps
    rho = unwarp(np.linspace(warp(float(schedule.rho[-1])), warp(last), points))
    times = schedule.time_at(np.clip(rho, last, schedule.rho[-1]))
    times[0] = T
    if whole_way:
        times[-1] = stop
    else:
        times = np.append(times, 0.0)
    if (np.diff(times) >= 0).any():
        raise ValueError(f"`steps` must be fewer on this schedule and grid, got {steps}")
    return times


_WARPS: dict[str, tuple[Callable, Callable]] = {
    "log_rho": (np.log, np.exp),
    "rho": (float, np.asarray),
    "karras": (lambda rho: rho ** (1 / 7), lambda warped: warped**7),
}


def evaluations(method: MethodName, steps: int, stop: float = 0.0) -> int:
    """How often `sample_ode` asks the model: once a stage, and once in a last step to t = 0."""
    check.choice(method, "method", METHODS)
    steps = check.whole(steps, "steps", 1)
    stages = 1 + len(METHODS[method].stages)
    return stages * steps if stop > 0 else stages * (steps - 1) + 1


def ode_path(
    model: Model,
    x: Tensor,
    schedule: Schedule,
    times: ArrayLike,
    *,
    method: MethodName = "heun",
    on_step: OnStep | None = None,
) -> Tensor:
    """The same equation along given times, towards the data or, with ascending times, from it.

    Parameters
    ----------
    model, schedule, method, on_step
        As in :func:`sample_ode`.
    x : Tensor of shape (batch, …)
        State at the first of the times.
    times : array-like of shape (n + 1,)
        Real times in [0, T], strictly monotonic. A step from or to t = 0 is Euler's, with the
        model asked at the other end.

    Returns
    -------
    Tensor of shape (batch, …)
        State at the last of the times.
    """
    x = tensors.state(x, "x")
    check.choice(method, "method", METHODS)
    nodes = check.within(check.vector(times, "times"), "times", 0.0, float(schedule.times[-1]))
    change = np.diff(nodes)
    if nodes.size < 2 or not ((change > 0).all() or (change < 0).all()):
        raise ValueError("`times` must be two or more, strictly ascending or strictly descending")
    with torch.no_grad():
        for begin, end in zip(nodes[:-1].tolist(), nodes[1:].tolist(), strict=True):
            touches_data = begin == 0 or end == 0
            scheme = METHODS["euler" if touches_data else method]
            new, x0_hat = _step(model, x, schedule, begin, end, scheme)
            if on_step is not None:
                on_step(end, new, x0_hat)
            x = new
    return x


def _step(
    model: Model, x: Tensor, schedule: Schedule, begin: float, end: float, method: Method
) -> tuple[Tensor, Tensor]:
    """One step of a Runge-Kutta method, and x̂_0 at its beginning.

    In x itself, u = x/ᾱ moved by Δρ reads x' = (ᾱ'/ᾱ) x + ᾱ'Δρ ε, whose numbers stay small.
    """
    places = _places(schedule, begin, end, method)
    signal, noisy = schedule.at(places)  # of the start, the stages, the end
    rho = noisy / signal

    def reach(i: int, mix: tuple[float, ...]) -> Tensor:
        moved = x * float(signal[i] / signal[0])
        for share, slope in zip(mix, slopes, strict=False):
            if share:
                moved.add_(slope, alpha=float(share * signal[i] * (rho[i] - rho[0])))
        return moved

    slopes = [tensors.ask(model, x, _named(begin or end))]
    for i, stage in enumerate(method.stages, 1):
        slopes.append(tensors.ask(model, reach(i, stage.mix), _named(places[i])))
    x0_hat = (x - float(noisy[0]) * slopes[0]) / float(signal[0])
    return reach(-1, method.weights), x0_hat


def _places(schedule: Schedule, begin: float, end: float, method: Method) -> Floats:
    """Times of the start, of every stage and of the end."""
    first, last = _rho_at(schedule, begin), _rho_at(schedule, end)
    times = [begin]
    for place, _ in method.stages:
        if place in (0.0, 1.0):
            times.append(end if place else begin)
        elif method.in_log_rho:
            times.append(float(schedule.time_at(first ** (1 - place) * last**place)))
        else:
            times.append(float(schedule.time_at(first + place * (last - first))))
    return np.array([*times, end])


def _named(time: float) -> float:
    """A whole time as an int, which is how the model gets it from the other samplers too."""
    return int(time) if float(time).is_integer() else float(time)


def _rho_at(schedule: Schedule, t: float) -> float:
    signal, noisy = schedule.at(t)
    return float(noisy / signal)


# --- the article's clocks ------------------------------------------------------------------------


def clock_rhs(
    model: Model, schedule: Schedule, clock: Clock, like: Tensor
) -> Callable[[float, Floats], Floats]:
    """dx/ds of the same equation in one of the article's two times, for SciPy's solvers.

    ᾱ = e^{-g(s)} turns d(x/ᾱ)/dρ = ε into dx/ds = g'(s) (ε/√(1 - e^{-2g}) - x), with
    g = 5s² ("square", s = t/T: g' = 10s) or g = 5s ("linear", s = t²/T²: g' = 5).

    Parameters
    ----------
    model : callable
        ``model(x, t) -> ε``; asked at the time whose ᾱ is that of s.
    schedule : Schedule
        Covers s as far as ᾱ_T <= e^{-g(s)}: s = 1 needs log ᾱ_T <= -5 (the article's: T >= 1000
        or so, -5.04).
    clock : {"square", "linear"}
    like : Tensor of shape (batch, …)
        A state, for its shape, dtype and device.

    Returns
    -------
    callable
        ``rhs(s, y)`` with y of shape (batch × …,), for ``scipy.integrate.solve_ivp``. s > 0: at 0
        it is 0/0.

    References
    ----------
    https://kexue.fm/archives/9181, its last section.
    """
    tensors.state(like, "like")
    check.choice(clock, "clock", ("square", "linear"))
    most = -float(schedule.log_alpha_bar[-1])

    def rhs(s: float, y: Floats) -> Floats:
        g, slope = (5.0 * s**2, 10.0 * s) if clock == "square" else (5.0 * s, 5.0)
        if not 0.0 < g <= most:
            raise ValueError(
                f"`s` must be positive, and ᾱ(s) at least ᾱ_T = e^-{most:.4g}, got s = {s:g}"
            )
        t = schedule.time_at(np.sqrt(np.expm1(2.0 * g)))
        x = torch.as_tensor(y, dtype=like.dtype, device=like.device).reshape(like.shape)
        with torch.no_grad():
            eps = tensors.ask(model, x, float(t)).double().flatten().cpu().numpy()
        return slope * (eps / np.sqrt(-np.expm1(-2.0 * g)) - y)

    return rhs
