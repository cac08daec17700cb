"""From logits to attention weights: softmax, and what does not make the rows sum to 1.

With b the logits of one query, sums over the keys that it sees, and n their number:

==============  ===========================================================
softmax         e^b / Σ e^b
l2              e^b / √(Σ e^(2b)): the row has Euclidean norm 1
signed_l2       the same with b σ(b) (swish) in place of e^b
relu2           max(b, 0)² / n, as in the gated attention unit
exp             e^b / n: softmax without its denominator
off_by_one      e^b / (1 + Σ e^b): softmax with one more key, of logit and value 0
sigmoid         1 / (1 + n e^(-b)), the logistic function of b - log n
==============  ===========================================================

For the article https://kexue.fm/archives/9105.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lib import _checks as check

__all__ = ["NORMALISATIONS", "normalise"]


def normalise(
    logits: Tensor, name: str, mask: Tensor | None = None, *, count: Tensor | int | None = None
) -> Tensor:
    """Attention weights of logits.

    Parameters
    ----------
    logits : Tensor, shape (…, n, n)
        A row holds the logits of one query.
    name : str
        One of `NORMALISATIONS`.
    mask : Tensor of bool, broadcastable to the logits, optional
        True where a query sees a key; every query must see one. Hidden keys get weight 0 exactly.
    count : int or Tensor, broadcastable to (…, n, 1), optional
        n of "relu2", "exp" and "sigmoid". The keys that a row sees unless given; under a causal
        mask that number grows along the rows, and dividing by it averages where the article's
        un-normalised attention adds up.

    Returns
    -------
    Tensor of the shape of the logits
        Only "exp" can overflow (from logits of 89 on in float32): it has no denominator to save it.
    """
    check.choice(name, "name", NORMALISATIONS)
    _check_logits(logits)
    if mask is not None:
        _check_mask(mask, logits)
    if count is None:
        count = logits.shape[-1] if mask is None else _count(mask, logits.shape[-1])
    elif not isinstance(count, Tensor):
        check.whole(count, "count", 1)
    count = torch.as_tensor(count, dtype=logits.dtype, device=logits.device)
    return _RULES[name](logits, mask, count)


def _softmax(b: Tensor, mask: Tensor | None, count: Tensor) -> Tensor:
    return _hidden(b, mask, -torch.inf).softmax(-1)


def _l2(b: Tensor, mask: Tensor | None, count: Tensor) -> Tensor:
    b = _hidden(b, mask, -torch.inf)
    return F.normalize((b - b.amax(-1, keepdim=True).detach()).exp(), dim=-1)


def _signed_l2(b: Tensor, mask: Tensor | None, count: Tensor) -> Tensor:
    return F.normalize(_hidden(F.silu(b), mask, 0.0), dim=-1)  # a row of zeros stays one


def _relu2(b: Tensor, mask: Tensor | None, count: Tensor) -> Tensor:
    return _hidden(b, mask, 0.0).relu().square() / count


def _exp(b: Tensor, mask: Tensor | None, count: Tensor) -> Tensor:
    return _hidden(b, mask, -torch.inf).exp() / count


def _off_by_one(b: Tensor, mask: Tensor | None, count: Tensor) -> Tensor:
    return F.pad(_hidden(b, mask, -torch.inf), (0, 1)).softmax(-1)[..., :-1]


def _sigmoid(b: Tensor, mask: Tensor | None, count: Tensor) -> Tensor:
    return _hidden(b - count.log(), mask, -torch.inf).sigmoid()


_RULES: dict[str, Callable[[Tensor, Tensor | None, Tensor], Tensor]] = {
    "softmax": _softmax,
    "l2": _l2,
    "signed_l2": _signed_l2,
    "relu2": _relu2,
    "exp": _exp,
    "off_by_one": _off_by_one,
    "sigmoid": _sigmoid,
}
# Names of all normalisations.
NORMALISATIONS = tuple(_RULES)


def _hidden(b: Tensor, mask: Tensor | None, value: float) -> Tensor:
    return b if mask is None else b.masked_fill(~mask, value)


def _count(mask: Tensor, keys: int) -> Tensor:
    """Keys that each row sees; a last axis of length 1 stands for all of them."""
    return mask.sum(-1, keepdim=True) * (keys if mask.shape[-1] == 1 else 1)


# --- what a caller hands in -----------------------------------------------------------------------


def _check_logits(logits: Tensor) -> None:
    if not isinstance(logits, Tensor):
        raise TypeError(f"`logits` must be a torch.Tensor, got {type(logits).__name__}")
    if not logits.is_floating_point():
        raise TypeError(f"`logits` must have a floating dtype, got {logits.dtype}")
    if logits.ndim < 1 or logits.numel() == 0:
        raise ValueError(f"`logits` must have shape (…, n, n), got {tuple(logits.shape)}")


def _check_mask(mask: Tensor, logits: Tensor) -> None:
    if not isinstance(mask, Tensor):
        raise TypeError(f"`mask` must be a tensor of bool, got {type(mask).__name__}")
    if mask.dtype != torch.bool:
        raise TypeError(f"`mask` must be of bool, True where a key is seen, got {mask.dtype}")
    try:
        fits = torch.broadcast_shapes(mask.shape, logits.shape) == logits.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"`mask` must broadcast to the logits, {tuple(logits.shape)}, got {tuple(mask.shape)}"
        )
    if is_true((~mask.any(-1)).any()):
        raise ValueError("`mask` must leave every query at least one key")


def is_true(flag: Tensor) -> bool:
    """Whether a flag is set; False where torch.func.vmap hides its value, which goes unchecked."""
    try:
        return bool(flag)
    except RuntimeError:
        return False
