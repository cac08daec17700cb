"""lib.diffusion beside diffusers: what does a sampler cost on top of its network?

1. Values: the same network, schedule and noise, the last state of both.
2. Samplers against diffusers' schedulers in the loop that their documentation shows.
3. Samplers against the bare calls of the network, which no sampler can do without.
4. The sampler's own time per step, measured with a network that does nothing, beside one call of
   the digits' U-Net.
5. Solvers of the ODE at an equal number of calls of the network.
6. Seconds of training on digits, and the quality that they buy.

    python benchmarks/diffusion.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from _measure import ratio, table
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from lib.data.digits import digits
from lib.diffusion import Schedule, evaluations, sample_ddim, sample_ddpm, sample_ode
from lib.diffusion.metrics import DigitFeatures, feature_frechet
from lib.diffusion.networks import NoiseMLP, UNet
from lib.diffusion.training import train

SCHEDULE = Schedule.linear_beta(1000)
STEPS = 20
BATCHES = (1, 16, 64)
Model = Callable[[Tensor, Tensor], Tensor]


def noise(batch: int) -> Tensor:
    """x_T of 8 × 8 digits."""
    return torch.randn(batch, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def idle(x: Tensor, t: Tensor) -> Tensor:
    """A network that costs nothing."""
    return x


def ours(kind: str, model: Model, x: Tensor) -> Tensor:
    if kind == "DDPM":
        return sample_ddpm(
            model,
            x,
            SCHEDULE,
            variance="posterior",
            generator=generator(),
            steps=STEPS,
            spacing="leading",
        )
    eta = float(kind.partition("η = ")[2])
    return sample_ddim(
        model, x, SCHEDULE, steps=STEPS, spacing="leading", eta=eta, generator=generator()
    )


@torch.no_grad()
def theirs(kind: str, model: Model, x: Tensor) -> Tensor:
    """The loop of diffusers' documentation; their time t is our t + 1."""
    source = generator()
    if kind == "DDPM":
        scheduler = DDPM
        extra = {"generator": source}
    else:
        scheduler = DDIM
        extra = {"generator": source, "eta": float(kind.partition("η = ")[2])}
    scheduler.set_timesteps(STEPS)
    for t in scheduler.timesteps:
        eps = model(x, (t + 1).expand(len(x)))
        x = scheduler.step(eps, t, x, **extra).prev_sample
    return x


DDPM = DDPMScheduler(beta_schedule="linear", clip_sample=False)
DDIM = DDIMScheduler(beta_schedule="linear", clip_sample=False)
KINDS = ("DDPM", "DDIM, η = 0", "DDIM, η = 1")


@torch.no_grad()
def bare(model: Model, x: Tensor) -> None:
    """The network's calls alone."""
    for t in SCHEDULE.timesteps(STEPS).tolist():
        model(x, torch.full((len(x),), t))


def values(net: Model) -> None:
    x = noise(16)
    rows = []
    for kind in KINDS:
        a, b = ours(kind, net, x), theirs(kind, net, x)
        rows.append([kind, f"{float((a - b).abs().max()):.1e}", f"{float(b.std()):.2g}"])
    table(
        f"Largest difference from diffusers after {STEPS} steps (float32, its own tables)",
        ["sampler", "difference", "deviation of the result"],
        rows,
    )


def times(net: Model) -> None:
    rows = []
    for batch in BATCHES:
        x = noise(batch)
        for kind in KINDS:
            peer = ratio(
                lambda k=kind, x=x: ours(k, net, x), lambda k=kind, x=x: theirs(k, net, x), 1.2
            )
            alone = ratio(lambda k=kind, x=x: ours(k, net, x), lambda x=x: bare(net, x), 1.2)
            milliseconds = f"{1e3 * peer.theirs:.0f}"
            rows.append([batch, kind, peer, peer.verdict, alone, milliseconds])
    table(
        f"Time of {STEPS} steps with the U-Net over diffusers', and over the network's calls alone",
        ["batch", "sampler", "ratio", "", "over bare calls", "diffusers ms"],
        rows,
    )


def overhead(net: Model) -> None:
    rows = []
    for batch in BATCHES:
        x = noise(batch)
        forward = ratio(lambda x=x: bare(net, x), lambda x=x: bare(idle, x), 0.6)
        call = (forward.ours - forward.theirs) / STEPS
        for kind in KINDS:
            got = ratio(
                lambda k=kind, x=x: ours(k, idle, x), lambda k=kind, x=x: theirs(k, idle, x), 0.5
            )
            mine, other = got.ours / STEPS, got.theirs / STEPS
            share = f"{100 * mine / call:.1f} %"
            rows.append([batch, kind, f"{1e6 * mine:.0f}", f"{1e6 * other:.0f}", got, share])
    table(
        "The sampler's own time per step, microseconds",
        ["batch", "sampler", "ours", "diffusers", "ratio", "ours over one call of the U-Net"],
        rows,
    )


def solvers() -> None:
    x, rows = noise(16), []
    for method in ("euler", "heun", "midpoint", "dpm_solver_2", "rk4"):
        calls = evaluations(method, STEPS)

        def run(method: str = method) -> Tensor:
            return sample_ode(idle, x, SCHEDULE, steps=STEPS, method=method)

        got = ratio(run, lambda: ours("DDIM, η = 0", idle, x), 0.4)
        rows.append([method, calls, f"{1e6 * got.ours / calls:.0f}"])
    table(
        "Solvers of the ODE: own time per call of the network, microseconds",
        ["method", f"calls in {STEPS} steps", "ours"],
        rows,
    )


def training() -> None:
    """The default network on digits; 800 samples of 50 steps against as many real digits."""
    images = digits().images
    features = DigitFeatures.train(images, digits().labels, generator=generator())
    order = np.random.default_rng(0).permutation(len(images))
    real, others = images[order[:800]], images[order[800:1600]]
    floor = float(feature_frechet(others, real, features))
    schedule, rows = Schedule.article(1000), []
    for updates in (200, 400, 800, 1600):
        net = NoiseMLP(64, generator=generator())
        start = time.process_time()
        model = train(net, images, schedule, steps=updates, generator=generator()).model
        seconds = time.process_time() - start
        z = torch.randn(800, 8, 8, generator=generator())
        x = sample_ddim(model, z, schedule, steps=50)
        distance = float(feature_frechet(x, real, features))
        rows.append((updates, f"{seconds:.1f}", f"{distance:.2f}", f"{distance / floor:.1f}"))
    table(
        f"Training on digits, one seed; real digits score {floor:.2f} against one another",
        ("updates", "seconds", "Fréchet distance", "over that of real digits"),
        rows,
    )


def main() -> None:
    torch.set_num_threads(1)
    net = UNet(generator=torch.Generator().manual_seed(2)).eval()
    print("1 thread, float32, an untrained U-Net for 8 × 8 digits. Ratios of times are medians of")
    print("alternating rounds with a 95 % interval; below 1, ours is faster.")
    values(net)
    times(net)
    overhead(net)
    solvers()
    training()


if __name__ == "__main__":
    main()
