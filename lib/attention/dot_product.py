"""Attention for torch with the entropy-invariant scale, beside torch's own function.

    Attention(Q, K, V) = softmax(λ_i q_i·k_j) V,      λ_i = κ log n_i / d

of https://kexue.fm/archives/9034 and 8823, with n_i the number of keys that query i can see. The
factor belongs to the row, not to the sequence: under a causal mask row i has the same λ whatever
follows it, so a cache of keys and values stays valid.

Everything is computed by `torch.nn.functional.scaled_dot_product_attention`. A row's factor is
multiplied into its query, which costs one pass over q; no buffer of queries × keys is added, and
inputs of any rank reach the fused kernel (torch itself takes it only for 4 axes on a CPU).

Left out: dropout, grouped queries, positions.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.attention.scaling import DEFAULT_LENGTH

Scale = Literal["sqrt_d", "log_n"] | float | Tensor | None
Mask = Literal["causal"] | Tensor | None


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: Scale = None,
    mask: Mask = None,
    bias: Tensor | None = None,
    kappa: float | None = None,
    scale_bias: bool = True,
) -> Tensor:
    """softmax(λ q·k + bias) v, with λ fixed or growing as the logarithm of the visible keys.

    Parameters
    ----------
    q : Tensor of shape (..., queries, d)
    k : Tensor of shape (..., keys, d)
    v : Tensor of shape (..., keys, d_v)
        Of one floating dtype, on one device; leading axes broadcast.
    scale : None, "sqrt_d", "log_n", float or Tensor, default=None
        None and "sqrt_d": 1/√d, as torch. "log_n": κ log n_i / d with n_i the keys that row i
        sees; a row with one key has weight 1 on it. A number: λ >= 0. A tensor: one λ per row,
        broadcast against (..., queries).
    mask : None, "causal" or Tensor of bool, default=None
        True where a query may see a key, broadcast against (..., queries, keys). "causal" lets a
        query see the keys up to its own place, with the *last* query at the last key, so fewer
        queries than keys continue a cached prefix (torch's `is_causal` aligns the first ones;
        the two agree for equally many). It needs no buffer for equally many, nor for one query.
    bias : Tensor, optional
        Added to the logits, broadcast against (..., queries, keys), of the dtype of q.
    kappa : float, optional
        κ of "log_n", default √d / log 512: then row i is attended at log_512(n_i) / √d. Use
        √d / log n0 for a model trained at length n0.
    scale_bias : bool, default=True
        Under "log_n", multiply the bias by the same factor λ_i √d as the dot products: the bias
        belongs to the logits of the usual 1/√d, and softmax is sharpened as a whole. False adds
        it as it is, and its weight against q·k then drifts with n. Scaling allocates a tensor of
        the size of the bias (with its row axis written out).

    Returns
    -------
    Tensor of shape (..., queries, d_v)

    Raises
    ------
    ValueError
        Also if a row sees no key at all: its weights are 0/0 (torch returns 0 or NaN for it,
        depending on version and kernel). Keys hidden by a bias of -inf, or of the dtype's lowest
        number, are looked for only under "log_n", where they do not count as visible.

    Examples
    --------
    >>> q, k, v = torch.randn(3, 2, 4, 512, 64, generator=torch.manual_seed(0)).unbind()
    >>> ours = scaled_dot_product_attention(q, k, v, scale="log_n")
    >>> torch.allclose(ours, F.scaled_dot_product_attention(q, k, v), atol=1e-6)
    True
    """
    lead = _checked_lead(q, k, v)
    queries, keys, d = q.shape[-2], k.shape[-2], q.shape[-1]
    mask, causal = _checked_mask(mask, (*lead, queries, keys), q.device)
    _check_bias(bias, (*lead, queries, keys), q)
    log_n = isinstance(scale, str) and scale == "log_n"
    if kappa is not None and not log_n:
        raise ValueError(f'`kappa` applies to scale="log_n" only, got scale={scale!r}')

    number = 1.0 / math.sqrt(d)  # what the kernel multiplies q·k by
    factor: float | Tensor = 1.0  # what a row's logits are multiplied by on top of it
    if isinstance(scale, Tensor):
        factor = _checked_row_scale(scale, (*lead, queries), q) * math.sqrt(d)
    elif log_n:
        factor = _log_n_factor(q, keys, mask, causal, bias, kappa)
    elif scale not in (None, "sqrt_d"):
        number = _checked_number(scale)

    if isinstance(factor, Tensor):
        q = (q * factor[..., None]).to(q.dtype)
    else:
        number *= factor
    if bias is not None and log_n and scale_bias:
        bias = (bias * (factor[..., None] if isinstance(factor, Tensor) else factor)).to(q.dtype)
    return _fused(q, k, v, lead, mask, causal, bias, number)


def visible_keys(mask: Mask, queries: int, keys: int) -> Tensor:
    """Number of keys that each query sees.

    Parameters
    ----------
    mask : None, "causal" or Tensor of bool
        As in :func:`scaled_dot_product_attention`.
    queries, keys : int
        Lengths.

    Returns
    -------
    Tensor of int64
        Of shape (queries,), or (..., queries) for a mask with more axes.
    """
    for name, length in (("queries", queries), ("keys", keys)):
        if isinstance(length, bool) or not isinstance(length, int) or length < 1:
            raise ValueError(f"`{name}` must be a positive whole number, got {length!r}")
    if mask is None:
        return torch.full((queries,), keys)
    if isinstance(mask, Tensor):
        lead = mask.shape[:-2] if mask.ndim > 2 else ()
        mask, _ = _checked_mask(mask, (*lead, queries, keys), mask.device)
        return _count(mask, keys).expand(*lead, queries)
    _checked_mask(mask, (queries, keys), torch.device("cpu"))
    return _causal_count(queries, keys, torch.device("cpu"))


# --- scale ---------------------------------------------------------------------------------------


def _log_n_factor(
    q: Tensor,
    keys: int,
    mask: Tensor | None,
    causal: bool,
    bias: Tensor | None,
    kappa: float | None,
) -> float | Tensor:
    """λ_i √d = (κ / √d) log n_i: how far each row stands above the usual 1/√d."""
    d = q.shape[-1]
    if kappa is None:
        slope = 1.0 / math.log(DEFAULT_LENGTH)
    else:
        slope = _checked_number(kappa, "kappa", positive=True) / math.sqrt(d)
    seen = _seen(mask, causal, bias, q, keys)
    if seen is None:
        return slope * math.log(keys)
    factor = seen.to(_compute_dtype(q)).log_().mul_(slope)
    if bias is not None:
        # One visible key has weight 1 at any scale; 1 in place of log 1 = 0 avoids 0 · -inf.
        factor.masked_fill_(seen == 1, 1.0)
    return factor


def _compute_dtype(q: Tensor) -> torch.dtype:
    """Factors are kept in at least single precision: half of it would be 0.4 % off in the scale."""
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def _seen(
    mask: Tensor | None, causal: bool, bias: Tensor | None, q: Tensor, keys: int
) -> Tensor | None:
    """Visible keys per row, or None where every row sees all of them."""
    if bias is not None:
        open_ = bias > torch.finfo(bias.dtype).min
        if causal:
            mask = _causal_mask(q.shape[-2], keys, q.device)
        open_ = open_ if mask is None else open_ & mask
        return _refuse_blind_rows(_count(open_, keys), "bias")
    if mask is not None:
        return _count(mask, keys)
    if causal and q.shape[-2] > 1:
        return _causal_count(q.shape[-2], keys, q.device)
    return None


def _causal_count(queries: int, keys: int, device: torch.device) -> Tensor:
    return torch.arange(keys - queries + 1, keys + 1, device=device)


def _count(mask: Tensor, keys: int) -> Tensor:
    """True entries per row, where a last axis of length 1 stands for all keys."""
    return mask.sum(dim=-1) * (keys if mask.shape[-1] == 1 else 1)


# --- the kernel ----------------------------------------------------------------------------------


def _fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lead: torch.Size,
    mask: Tensor | None,
    causal: bool,
    bias: Tensor | None,
    scale: float,
) -> Tensor:
    queries, keys = q.shape[-2], k.shape[-2]
    if causal and (bias is not None or queries != keys) and queries > 1:
        mask, causal = _causal_mask(queries, keys, q.device), False
    causal = causal and queries > 1  # one query, the last, sees every key
    if mask is not None and bias is not None:
        mask = torch.where(mask, bias, -torch.inf)
    elif bias is not None:
        mask = bias.expand(*bias.shape[:-1], keys)
    out = F.scaled_dot_product_attention(
        _four_axes(q, lead),
        _four_axes(k, lead),
        _four_axes(v, lead),
        attn_mask=None if mask is None else _mask_axes(mask, lead),
        is_causal=causal,
        scale=scale,
    )
    return out if len(lead) == 2 else out.reshape(*lead, queries, v.shape[-1])


def _four_axes(x: Tensor, lead: torch.Size) -> Tensor:
    """View as (batch, heads, length, width), the one rank that torch's CPU kernel takes."""
    if x.ndim == 4 and x.shape[:-2] == lead:
        return x
    x = x.expand(*lead, *x.shape[-2:])
    if len(lead) > 2:
        return x.flatten(0, -4)
    return x[(None,) * (2 - len(lead))]


def _mask_axes(mask: Tensor, lead: torch.Size) -> Tensor:
    """The mask with 2 axes, or with 4 that go with those of q."""
    if mask.ndim <= 2:
        return mask if mask.ndim == 2 else mask.reshape(1, -1)
    if len(lead) > 2:
        return mask.expand(*lead, *mask.shape[-2:]).flatten(0, -4)
    return mask[(None,) * (4 - mask.ndim)]


def _causal_mask(queries: int, keys: int, device: torch.device) -> Tensor:
    full = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return full.tril(diagonal=keys - queries)


# --- what a caller hands in ----------------------------------------------------------------------


def _checked_lead(q: Tensor, k: Tensor, v: Tensor) -> torch.Size:
    """Common leading axes of three tensors that fit each other."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not isinstance(x, Tensor):
            raise TypeError(f"`{name}` must be a torch.Tensor, got {type(x).__name__}")
        if not x.is_floating_point():
            raise TypeError(f"`{name}` must have a floating dtype, got {x.dtype}")
        if x.dtype != q.dtype:
            raise TypeError(f"`{name}` must have the dtype of `q`, {q.dtype}, got {x.dtype}")
        if x.device != q.device:
            raise ValueError(f"`{name}` must be on the device of `q`, {q.device}, got {x.device}")
        if x.ndim < 2:
            raise ValueError(f"`{name}` must have shape (..., length, d), got {tuple(x.shape)}")
        if x.numel() == 0:
            raise ValueError(f"`{name}` must not be empty, got shape {tuple(x.shape)}")
    if k.shape[-1] != q.shape[-1]:
        raise ValueError(f"`k` must have the last axis of `q`, {q.shape[-1]}, got {k.shape[-1]}")
    if v.shape[-2] != k.shape[-2]:
        raise ValueError(
            f"`v` must have one row per key, {k.shape[-2]}, got shape {tuple(v.shape)}"
        )
    if q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:
        return q.shape[:-2]
    try:
        return torch.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    except RuntimeError:
        raise ValueError(
            "the leading axes of `q`, `k` and `v` must broadcast, got shapes "
            f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        ) from None


def _checked_mask(
    mask: Any, logits: tuple[int, ...], device: torch.device
) -> tuple[Tensor | None, bool]:
    """The mask as a tensor, and whether it is the causal one (which needs no tensor)."""
    if mask is None:
        return None, False
    if isinstance(mask, str):
        if mask != "causal":
            raise ValueError(f'`mask` must be None, "causal" or a tensor of bool, got {mask!r}')
        if logits[-2] > logits[-1]:
            raise ValueError(
                f'`mask`="causal" needs at least as many keys as queries, got {logits[-1]} keys '
                f"for {logits[-2]} queries"
            )
        return None, True
    if not isinstance(mask, Tensor):
        raise TypeError(
            f'`mask` must be None, "causal" or a tensor of bool, got {type(mask).__name__}'
        )
    if mask.dtype != torch.bool:
        raise TypeError(
            f"`mask` must be of bool, True where a key is seen, got {mask.dtype}; "
            "numbers to be added to the logits go into `bias`"
        )
    _check_fits(mask, "mask", logits, device)
    _refuse_blind_rows(mask.any(dim=-1), "mask")
    return mask, False


def _check_bias(bias: Tensor | None, logits: tuple[int, ...], q: Tensor) -> None:
    if bias is None:
        return
    if not isinstance(bias, Tensor):
        raise TypeError(f"`bias` must be a torch.Tensor, got {type(bias).__name__}")
    if bias.dtype != q.dtype:
        raise TypeError(f"`bias` must have the dtype of `q`, {q.dtype}, got {bias.dtype}")
    _check_fits(bias, "bias", logits, q.device)


def _check_fits(x: Tensor, name: str, logits: tuple[int, ...], device: torch.device) -> None:
    if x.device != device:
        raise ValueError(f"`{name}` must be on the device of `q`, {device}, got {x.device}")
    if x.ndim == 0 or x.ndim > len(logits) or not _broadcasts(x.shape, logits):
        raise ValueError(
            f"`{name}` must broadcast to (..., queries, keys) = {logits}, got {tuple(x.shape)}"
        )


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    tail = target[len(target) - len(shape) :]
    return all(a in (1, b) for a, b in zip(shape, tail, strict=True))


def _refuse_blind_rows(seen: Tensor, name: str) -> Tensor:
    """Raise if a row sees nothing (a count of 0, or False)."""
    blind = seen == 0
    if blind.any():
        row = tuple(blind.nonzero()[0].tolist())
        raise ValueError(f"`{name}` must leave every query at least one key, got none in row {row}")
    return seen


def _checked_row_scale(scale: Tensor, rows: tuple[int, ...], q: Tensor) -> Tensor:
    if not scale.is_floating_point():
        raise TypeError(f"`scale` must have a floating dtype, got {scale.dtype}")
    if scale.device != q.device:
        raise ValueError(f"`scale` must be on the device of `q`, {q.device}, got {scale.device}")
    if scale.ndim > len(rows) or not _broadcasts(scale.shape, rows):
        raise ValueError(
            f"`scale` must broadcast to (..., queries) = {rows}, got {tuple(scale.shape)}"
        )
    return scale.to(_compute_dtype(q))


def _checked_number(value: Any, name: str = "scale", positive: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        expected = "a number" if name == "kappa" else 'None, "sqrt_d", "log_n", a number or tensor'
        kind = ValueError if isinstance(value, str) else TypeError
        raise kind(f"`{name}` must be {expected}, got {value!r}")
    number = float(value)
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        sign = "positive" if positive else "not negative"
        raise ValueError(f"`{name}` must be finite and {sign}, got {value!r}")
    return number
