"""How far apart two predictions are, when a prediction is a table of scores for spans.

For consistency training (R-Drop, virtual adversarial training) and distillation of models that
score every span on its own and predict those above zero, as GlobalPointer does. With σ the
logistic function, s and t the scores of two passes, and sums over all spans of a sentence:

=========================  ======================================================================
globalpointer_divergence   Σ (σ(s) - σ(t))(s - t), the article's
symmetric_kl_of_logits     Σ (p - q)(s - t) with p = softmax(s), q = softmax(t): one law over spans
squared_difference         Σ (s - t)²
multilabel_cross_entropy   log(1 + Σ e^s over negatives) + log(1 + Σ e^-s over positives), the loss
=========================  ======================================================================

Masks are of bool and say True where a cell counts. What stands in other cells plays no part, be
it -inf or NaN: neither values nor gradients see it. Inside `torch.func.vmap` values can't be looked
at, so there only shapes and dtypes are checked.

For https://kexue.fm/archives/9039; the loss is that of https://kexue.fm/archives/7359. Left out:
divergences of joint laws over spans that exclude each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lib import _checks as check
from lib.attention.normalisations import is_true

__all__ = [
    "RDrop",
    "bernoulli_symmetric_kl",
    "distillation",
    "globalpointer_divergence",
    "kl",
    "multilabel_cross_entropy",
    "r_drop",
    "squared_difference",
    "symmetric_kl",
    "symmetric_kl_of_logits",
    "virtual_adversarial",
]

Dim = int | tuple[int, ...]
Divergence = Callable[[Tensor, Tensor], Tensor]
BLOCK = 2**15  # cells worked on at a time: a dozen such tensors of float32 fit a core's cache
SMALL = 2**22  # cells up to which working in blocks saves no time

# --- of probabilities -----------------------------------------------------------------------------


def kl(p: Tensor, q: Tensor, dim: int = -1) -> Tensor:
    """Kullback-Leibler divergence Σ p log(p / q) in nats.

    Parameters
    ----------
    p, q : Tensor of one shape and floating dtype
        Probabilities that sum to 1 along `dim`, up to the rounding of their dtype.
    dim : int, default=-1

    Returns
    -------
    Tensor of the shape without `dim`
        0 log 0 is 0; infinite where q is 0 and p is not.

    Raises
    ------
    TypeError, ValueError
        If p and q are no such tensors.
    """
    dim = _check_laws(p, q, dim)
    absent = p == 0  # adds nothing, and neither does 1 (log 1 - log 1), whose slopes are finite
    p, q = p.masked_fill(absent, 1.0), q.masked_fill(absent, 1.0)
    return (p * (p.log() - q.log())).sum(dim)


def symmetric_kl(p: Tensor, q: Tensor, dim: int = -1) -> Tensor:
    """KL(p ‖ q) + KL(q ‖ p) = Σ (p - q)(log p - log q), Jeffreys' divergence, in nats.

    Parameters
    ----------
    p, q, dim
        As in :func:`kl`.

    Returns
    -------
    Tensor of the shape without `dim`
        Infinite where one of p and q is 0 and the other is not.

    Raises
    ------
    TypeError, ValueError
        As in :func:`kl`.

    See Also
    --------
    symmetric_kl_of_logits : the same of softmax probabilities, without their logarithms.
    """
    dim = _check_laws(p, q, dim)
    p, q = _without_common(p, q, 0.0)
    return ((p - q) * (p.log() - q.log())).sum(dim)


def bernoulli_symmetric_kl(p: Tensor, q: Tensor) -> Tensor:
    """Symmetric KL divergence of two coins, (p - q)(logit p - logit q), in nats.

    Parameters
    ----------
    p, q : Tensor of one shape and floating dtype
        Probabilities of heads, from 0 to 1.

    Returns
    -------
    Tensor of that shape
        Infinite where exactly one of the coins is certain, or both are and disagree.

    Raises
    ------
    TypeError, ValueError
        If p and q are no such tensors.
    """
    _check_pair(p, q, ("p", "q"))
    for x, name in ((p, "p"), (q, "q")):
        _check_unit(x, name)
    for certain in (0.0, 1.0):
        p, q = _without_common(p, q, certain)
    return (p - q) * (p.logit() - q.logit())


def _without_common(p: Tensor, q: Tensor, value: float) -> tuple[Tensor, Tensor]:
    """Where both are `value` they add nothing, and neither do two halves, whose log is finite."""
    both = (p == value) & (q == value)
    return p.masked_fill(both, 0.5), q.masked_fill(both, 0.5)


# --- of scores ------------------------------------------------------------------------------------


def symmetric_kl_of_logits(
    s: Tensor, t: Tensor, dim: Dim = -1, mask: Tensor | None = None
) -> Tensor:
    """Symmetric KL divergence of two softmax laws, Σ (p - q)(s - t), in nats.

    Parameters
    ----------
    s, t : Tensor of one shape and floating dtype
        Logits.
    dim : int or tuple of int, default=-1
        The axes over which a law sums to 1; (-2, -1) makes one law over all spans.
    mask : Tensor of bool, broadcastable to the logits, optional
        True where a cell counts; every law must have one. Others are left out before normalising.

    Returns
    -------
    Tensor of the shape without `dim`
        Of float32 for scores in half precision.

    Raises
    ------
    TypeError, ValueError
        If the arguments don't fit together, if a logit that counts isn't finite, or if the mask
        leaves a law nothing.

    Notes
    -----
    Computed as Σ (p - q)(log p - log q): subtracting the logarithm of a law's denominator from its
    logits changes nothing in exact arithmetic, and in float32 it takes away a common shift that
    rounding would otherwise multiply. See the article's first step, https://kexue.fm/archives/9039.
    """
    dim = _check_scores(s, t, mask, dim)
    s, t = _single(s), _single(t)
    log_p, log_q = _log_softmax(s, mask, dim), _log_softmax(t, mask, dim)
    difference = log_p.exp() - log_q.exp()  # 0 - 0 in hidden cells
    total = (difference * _shown(log_p - log_q, mask)).sum(dim)
    return _checked(total, s, t, mask)


def globalpointer_divergence(
    s: Tensor, t: Tensor, mask: Tensor | None = None, dim: Dim = (-2, -1)
) -> Tensor:
    """Divergence of two tables of span scores, Σ (σ(s) - σ(t))(s - t).

    It is the symmetric KL divergence, in nats, of the laws under which every span i is in the
    predicted set with probability σ(s_i), independently of the others.

    Parameters
    ----------
    s, t : Tensor of one shape and floating dtype
        Scores, (B, K, n, n) for B sentences of n tokens and K kinds of span.
    mask : Tensor of bool, broadcastable to the scores, optional
        True where a span counts; every sum must have one.
    dim : int or tuple of int, default=(-2, -1)
        Axes that are summed over.

    Returns
    -------
    Tensor of the shape without `dim`
        Of float32 for scores in half precision.

    Raises
    ------
    TypeError, ValueError
        If the arguments don't fit together, if a score that counts isn't finite (a score of -inf
        says a span is impossible: hide it by the mask), or if the mask leaves nothing to sum.

    Notes
    -----
    On large tables the backward pass keeps the scores themselves and computes the rest anew, so
    that nothing of their size is stored besides; then there is no forward mode of differentiation.

    References
    ----------
    https://kexue.fm/archives/9039

    Examples
    --------
    >>> s = torch.tensor([[2.0, -1.0], [0.0, 3.0]])
    >>> globalpointer_divergence(s, s + 1.0)
    tensor(0.5633)
    """
    dim = _check_scores(s, t, mask, dim)
    s, t = _single(s), _single(t)
    if s.numel() <= SMALL:
        cells = (s.sigmoid() - t.sigmoid()) * (s - t)
        total = (cells if mask is None else cells * mask).sum(dim)
        if _finite(total, unknown=False):  # else a hidden score may be infinite
            return total
    shown = torch.ones((), dtype=torch.bool, device=s.device) if mask is None else mask
    return _checked(_SpanDivergence.apply(s, t, shown).sum(dim), s, t, mask)


class _SpanDivergence(torch.autograd.Function):
    """(σ(s) - σ(t))(s - t) of every cell, 0 where hidden; block by block, for the cache's sake."""

    @staticmethod
    def forward(s: Tensor, t: Tensor, mask: Tensor) -> Tensor:
        out = torch.empty_like(s)
        for result, a, b, counts in _blocks(out, s, t, mask.expand_as(s)):
            result.copy_((a.sigmoid() - b.sigmoid()) * (a - b)).masked_fill_(~counts, 0.0)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        s, t, mask = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient will be differentiated in turn
            return *_slopes(gradient, s, t, mask), None
        by_s, by_t = torch.empty_like(s), torch.empty_like(t)
        wide = gradient.expand_as(s), s, t, mask.expand_as(s)
        for out_s, out_t, *cells in _blocks(by_s, by_t, *wide):
            for out, slope in zip((out_s, out_t), _slopes(*cells), strict=True):
                out.copy_(slope)
        return by_s, by_t, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], s: Tensor, t: Tensor, mask: Tensor
    ) -> tuple[Tensor, int]:
        """What works cell by cell works on one more axis, here the first."""
        rank = max(x.ndim - (d is not None) for x, d in zip((s, t), in_dims, strict=False))
        s, t, mask = (
            _with_first_axis(x, d, rank, info.batch_size)
            for x, d in zip((s, t, mask), in_dims, strict=True)
        )
        return _SpanDivergence.apply(s, t, mask), 0


def _slopes(gradient: Tensor, s: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient times σ'(s)(s - t) + σ(s) - σ(t), and the same for t."""
    s, t = _shown(s, mask), _shown(t, mask)  # equal where hidden, so both slopes are 0 there
    p, q, gap = s.sigmoid(), t.sigmoid(), s - t
    return gradient * (p * (1 - p) * gap + p - q), -gradient * (q * (1 - q) * gap + p - q)


def _with_first_axis(x: Tensor, at: int | None, rank: int, size: int) -> Tensor:
    """Move the axis `at` to the front, or make one of that size; then `rank` axes follow."""
    x = x.expand(size, *x.shape) if at is None else x.movedim(at, 0)
    return x.reshape(size, *(1,) * (rank + 1 - x.ndim), *x.shape[1:])


def _blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors of one shape into views of at most `BLOCK` cells, along their first axes."""
    if tensors[0].numel() <= BLOCK:
        yield tensors
        return
    rows = BLOCK // tensors[0][0].numel()
    if rows == 0:
        for parts in zip(*(x.unbind() for x in tensors), strict=True):
            yield from _blocks(*parts)
    else:
        yield from zip(*(x.split(rows) for x in tensors), strict=True)


def squared_difference(
    s: Tensor, t: Tensor, mask: Tensor | None = None, dim: Dim = (-2, -1)
) -> Tensor:
    """Σ (s - t)², the divergence that knows nothing of how scores become predictions.

    Parameters
    ----------
    s, t, mask, dim
        As in :func:`globalpointer_divergence`.

    Returns
    -------
    Tensor of the shape without `dim`
        Of float32 for scores in half precision.

    Raises
    ------
    TypeError, ValueError
        As in :func:`globalpointer_divergence`.
    """
    dim = _check_scores(s, t, mask, dim)
    s, t = _single(s), _single(t)
    return _checked((_shown(s, mask) - _shown(t, mask)).square().sum(dim), s, t, mask)


def multilabel_cross_entropy(
    scores: Tensor, labels: Tensor, mask: Tensor | None = None, dim: Dim = (-2, -1)
) -> Tensor:
    """Multi-label loss with threshold 0: log(1 + Σ e^s over negatives) + log(1 + Σ e^-s over
    positives).

    Parameters
    ----------
    scores : Tensor of floating dtype
        (B, K, n, n) for B sentences of n tokens and K kinds of span.
    labels : Tensor of bool, of the shape of the scores
        True for positives.
    mask : Tensor of bool, broadcastable to the scores, optional
        True where a span counts; every sum must have one, and no label may lie outside.
    dim : int or tuple of int, default=(-2, -1)
        Axes that are summed over.

    Returns
    -------
    Tensor of the shape without `dim`
        In nats; of float32 for scores in half precision.

    Raises
    ------
    TypeError, ValueError
        If the arguments don't fit together, if a score that counts isn't finite, if a label lies
        outside of the mask, or if the mask leaves nothing.

    References
    ----------
    https://kexue.fm/archives/7359
    """
    dim = _check_table(scores, "scores", mask, dim)
    _check_labels(labels, scores, mask)
    scores = _shown(_single(scores), mask)
    if not _finite(scores):
        raise ValueError(
            f"`scores` must be finite where they count, got {check.not_finite(scores)}"
        )
    negatives = labels if mask is None else labels | ~mask  # hidden here: what is no negative
    return _log_one_plus(scores.masked_fill(negatives, -torch.inf), dim) + _log_one_plus(
        (-scores).masked_fill(~labels, -torch.inf), dim
    )


def _log_one_plus(x: Tensor, dim: tuple[int, ...]) -> Tensor:
    """log(1 + Σ e^x) without overflow, with full relative precision near 0, for no x at all too."""
    top = x.detach().amax(dim, keepdim=True).clamp(min=0.0)
    total = (x - top).exp().sum(dim)
    top = top.squeeze(dim)
    return top + torch.log1p(total + torch.expm1(-top))  # 1 + expm1(-top) = e^-top


def _log_softmax(s: Tensor, mask: Tensor | None, dim: tuple[int, ...]) -> Tensor:
    """Logarithms of softmax probabilities over several axes; -inf in hidden cells."""
    s = s if mask is None else s.masked_fill(~mask, -torch.inf)
    return s - s.logsumexp(dim, keepdim=True)


def _single(x: Tensor) -> Tensor:
    """Half precision made single: a sum over spans needs its digits, and its range."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _shown(x: Tensor, mask: Tensor | None) -> Tensor:
    """0 in hidden cells, whatever stood there; their gradient is 0, too."""
    return x if mask is None else x.masked_fill(~mask, 0.0)


# --- training with a divergence -------------------------------------------------------------------


class RDrop(NamedTuple):
    """Parts of R-Drop's loss.

    Attributes
    ----------
    total : Tensor
        task + weight / 4 · consistency, to be minimised.
    task : Tensor
        Mean loss of the two passes.
    consistency : Tensor
        Divergence of the two passes.
    """

    total: Tensor
    task: Tensor
    consistency: Tensor


def r_drop(
    model: Callable[[Any], Tensor],
    batch: Any,
    divergence: Callable[[Tensor, Tensor, Any], Tensor],
    weight: float,
    *,
    loss: Callable[[Tensor, Any], Tensor],
) -> RDrop:
    """R-Drop: run a batch twice under different dropout and hold the passes together.

    Parameters
    ----------
    model : callable
        From a batch to scores; in training mode, or both passes are one and the same.
    batch : object
        Whatever `model`, `divergence` and `loss` take.
    divergence : callable
        ``divergence(s, t, batch)`` returns a scalar, say the mean over sentences of a function of
        this module. Gradients flow into both passes.
    weight : float
        Not negative; 0 is the control that pays for two passes and does not compare them.
    loss : callable
        ``loss(scores, batch)`` returns a scalar.

    Returns
    -------
    RDrop

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it must be, or a callable doesn't return what it must.

    Notes
    -----
    The total is (l1 + l2)/2 + weight/4 · D, with a symmetric D that holds both directions: the
    convention of https://kexue.fm/archives/8496, which is half of the paper's (arXiv 2106.14448).
    """
    _check_callables(model=model, divergence=divergence, loss=loss)
    weight = check.number(weight, "weight", low=0.0)
    first, second = _scores(model(batch), "model"), _scores(model(batch), "model")
    check.like(second, first, "the second pass", "the first pass")
    losses = [_scalar(loss(scores, batch), "loss") for scores in (first, second)]
    task = (losses[0] + losses[1]) / 2
    consistency = _scalar(divergence(first, second, batch), "divergence")
    return RDrop(task + weight / 4 * consistency, task, consistency)


def virtual_adversarial(
    model: Callable[[Tensor], Tensor],
    embeddings: Tensor,
    divergence: Divergence,
    *,
    radius: float,
    generator: torch.Generator,
    probe: float = 1e-2,
    steps: int = 1,
) -> Tensor:
    """Virtual adversarial training: the divergence from the worst small change of the input.

    The direction comes from power iteration: near 0 the divergence is a quadratic form of the
    change, and its gradient at a small random change is that form's matrix times the change.

    Parameters
    ----------
    model : callable
        From embeddings to scores; the same each time it is called, so without dropout, or with one
        that is fixed: else the divergence would be that of two draws of it.
    embeddings : Tensor, shape (B, …)
        Gradients flow into them.
    divergence : callable
        ``divergence(clean, changed)`` returns a scalar; the clean scores are a constant.
    radius : float
        Euclidean length of the change of each row of the batch.
    generator : torch.Generator
        Source of the first direction.
    probe : float, default=1e-2
        Length of the change at which gradients are taken.
    steps : int, default=1
        Steps of the power iteration.

    Returns
    -------
    Tensor, scalar

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it must be, or a callable doesn't return what it must.

    References
    ----------
    Miyato et al. 2019, arXiv 1704.03976; https://kexue.fm/archives/7466
    """
    _check_callables(model=model, divergence=divergence)
    check.state(embeddings, "embeddings")
    radius, probe = check.positive(radius, "radius"), check.positive(probe, "probe")
    steps = check.whole(steps, "steps", 1)
    g = check.generator(generator)
    with torch.no_grad():
        clean = _scores(model(embeddings), "model")
    fixed = embeddings.detach()
    direction = _unit(torch.randn(fixed.shape, generator=g, dtype=fixed.dtype, device=g.device))
    direction = direction.to(fixed.device)
    with torch.enable_grad():  # the search needs slopes where the result does not
        for _ in range(steps):
            change = (probe * direction).requires_grad_()
            moved = _compared(divergence, clean, model(fixed + change))
            direction = _unit(torch.autograd.grad(moved, change)[0])
    return _compared(divergence, clean, model(embeddings + radius * direction))


def _compared(divergence: Divergence, clean: Tensor, changed: Any) -> Tensor:
    return _scalar(divergence(clean, _scores(changed, "model")), "divergence")


def _unit(x: Tensor) -> Tensor:
    """Each row of the batch at Euclidean length 1; rows of zeros stay."""
    rows = x.reshape(len(x), -1)
    smallest = torch.finfo(x.dtype).tiny
    rows = rows / rows.abs().amax(1, keepdim=True).clamp(min=smallest)  # squares can't underflow
    return (rows / rows.norm(dim=1, keepdim=True).clamp(min=smallest)).reshape(x.shape)


def distillation(
    student: Tensor, teacher: Tensor, divergence: Divergence, temperature: float = 1.0
) -> Tensor:
    """T² · divergence(student / T, teacher / T): learn from another model's scores.

    Parameters
    ----------
    student, teacher : Tensor of one shape and floating dtype
        Scores; the teacher's are a constant.
    divergence : callable
        ``divergence(s, t)`` returns a scalar.
    temperature : float, default=1.0
        T. The factor T² keeps gradients at one size: a divergence is quadratic near 0.

    Returns
    -------
    Tensor, scalar

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it must be, or `divergence` doesn't return a scalar.

    References
    ----------
    Hinton, Vinyals and Dean 2015, arXiv 1503.02531
    """
    _check_callables(divergence=divergence)
    _check_pair(student, teacher, ("student", "teacher"))
    temperature = check.positive(temperature, "temperature")
    soft = divergence(student / temperature, teacher.detach() / temperature)
    return temperature**2 * _scalar(soft, "divergence")


# --- what a caller hands in -----------------------------------------------------------------------


def _check_pair(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    _check_tensor(a, names[0])
    check.like(b, a, names[1], names[0])


def _check_tensor(x: Tensor, name: str) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"`{name}` must be a torch.Tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"`{name}` must have a floating dtype, got {x.dtype}")
    if x.numel() == 0:
        raise ValueError(f"`{name}` must not be empty, got shape {tuple(x.shape)}")


def _check_unit(x: Tensor, name: str) -> None:
    if is_true(~((x >= 0) & (x <= 1)).all()):  # NaN is neither
        bad = x[~((x >= 0) & (x <= 1))].flatten()[0].item()
        raise ValueError(f"`{name}` must hold probabilities from 0 to 1, got {bad:g}")


def _check_laws(p: Tensor, q: Tensor, dim: int) -> tuple[int, ...]:
    _check_pair(p, q, ("p", "q"))
    axes = _axes(dim, p)
    for x, name in ((p, "p"), (q, "q")):
        _check_unit(x, name)
        sums = x.detach().sum(axes)
        slack = torch.finfo(x.dtype).eps ** 0.5  # 3e-4 in float32, far above any rounding
        if is_true(((sums - 1).abs() > slack).any()):
            bad = sums[(sums - 1).abs() > slack].flatten()[0].item()
            raise ValueError(f"`{name}` must sum to 1 along `dim` = {dim}, got a sum of {bad:g}")
    return axes


def _check_scores(s: Tensor, t: Tensor, mask: Tensor | None, dim: Dim) -> tuple[int, ...]:
    axes = _check_table(s, "s", mask, dim)
    check.like(t, s, "t", "s")
    return axes


def _check_table(x: Tensor, name: str, mask: Tensor | None, dim: Dim) -> tuple[int, ...]:
    """Checks all but the values; returns the axes counted from the front."""
    _check_tensor(x, name)
    axes = _axes(dim, x)
    if mask is not None:
        _check_mask(mask, x, name, axes)
    return axes


def _axes(dim: Dim, x: Tensor) -> tuple[int, ...]:
    dims = dim if isinstance(dim, tuple) else (dim,)
    if not dims:
        raise ValueError("`dim` must name at least one axis, got ()")
    axes = tuple(check.whole(d, "dim", -x.ndim, x.ndim - 1) % x.ndim for d in dims)
    if len(set(axes)) < len(axes):
        raise ValueError(f"`dim` must name different axes, got {dim}")
    return axes


def _check_mask(mask: Tensor, x: Tensor, name: str, axes: tuple[int, ...]) -> None:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"`mask` must be a tensor of bool, True where a cell counts, got {kind}")
    try:
        fits = torch.broadcast_shapes(mask.shape, x.shape) == x.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"`mask` must broadcast to `{name}`, {tuple(x.shape)}, got {tuple(mask.shape)}"
        )
    aligned = mask.reshape((1,) * (x.ndim - mask.ndim) + mask.shape)
    if is_true((~aligned.any(axes)).any()):
        raise ValueError("`mask` must leave at least one cell along `dim` everywhere")


def _check_labels(labels: Tensor, scores: Tensor, mask: Tensor | None) -> None:
    if not isinstance(labels, Tensor) or labels.dtype != torch.bool:
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"`labels` must be a tensor of bool, True for positives, got {kind}")
    if labels.shape != scores.shape:
        raise ValueError(
            f"`labels` must have the shape of `scores`, {tuple(scores.shape)}, "
            f"got {tuple(labels.shape)}"
        )
    if mask is not None and is_true((labels & ~mask).any()):
        raise ValueError(
            "`labels` must lie where `mask` is True, "
            f"got {int((labels & ~mask).sum())} positives outside"
        )


def _checked(total: Tensor, s: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
    """The result, once it is finite: anything else among the scores that count would show in it."""
    if not _finite(total):
        _require_finite(_shown(s, mask), "s")
        _require_finite(_shown(t, mask), "t")
    return total


def _require_finite(x: Tensor, name: str) -> None:
    if not _finite(x):
        raise ValueError(f"`{name}` must be finite where it counts, got {check.not_finite(x)}")


def _finite(x: Tensor, unknown: bool = True) -> bool:
    """Whether all numbers are finite; `unknown` where torch.func.vmap hides them."""
    try:
        return check.all_finite(x.detach())
    except RuntimeError:
        return unknown


def _check_callables(**functions: Any) -> None:
    for name, function in functions.items():
        if not callable(function):
            raise TypeError(f"`{name}` must be callable, got {type(function).__name__}")


def _scores(scores: Any, name: str) -> Tensor:
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        kind = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(f"`{name}` must return a floating tensor of scores, got {kind}")
    return scores


def _scalar(value: Any, name: str) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim != 0:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"`{name}` must return a tensor with a single number, got {got}")
    return value
