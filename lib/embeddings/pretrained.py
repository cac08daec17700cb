"""Sentence vectors of a public encoder, such as BERT, through the package ``transformers``.

Optional twice over: the package need not be installed, and no model comes with the book. The names
of the poolings are those of kexue.fm/archives/8321: "cls" is P1, "last" P3, "first-last" P4 (what
the literature calls last2avg or first-last-avg). The pooler (P2) is left out.
"""

from __future__ import annotations

import importlib
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib import _checks as check
from lib.embeddings.words import checked

__all__ = ["POOLINGS", "PretrainedError", "pool", "pretrained_vectors"]

POOLINGS = ("first-last", "last", "cls")
HUB = "https://huggingface.co"
PATIENCE = 5.0  # seconds to wait for the hub's first answer


class PretrainedError(RuntimeError):
    """A public encoder cannot be had: no such model, or no network and not downloaded before."""


def pretrained_vectors(
    name_or_path: str | Path,
    sentences: Sequence[str],
    *,
    pooling: str = "first-last",
    batch: int = 32,
    max_length: int = 128,
) -> NDArray[np.float32]:
    """Vectors of sentences from a public encoder.

    Parameters
    ----------
    name_or_path : str or path
        A folder with a model and its tokenizer, or a name on the Hugging Face Hub such as
        "bert-base-uncased", which is downloaded (some 400 MB) at the first call.
    sentences : sequence of str, length n
    pooling : {"first-last", "last", "cls"}
        Mean over the tokens of the first and the last layer, of the last layer, or the last layer's
        first token. Means are over a sentence's own tokens, marks of beginning and end included.
    batch : int
        Sentences that run through the model together; no effect but on time and memory.
    max_length : int
        Tokens after which a sentence is cut; at least 3.

    Returns
    -------
    ndarray of float32, shape (n, d)

    Raises
    ------
    ImportError
        If ``transformers`` is not installed.
    PretrainedError
        If there is no such model, or it has not been downloaded and there is no network; this is
        known within seconds.
    ValueError, TypeError
        For arguments out of range.
    """
    check.choice(pooling, "pooling", POOLINGS)
    batch, max_length = check.whole(batch, "batch", 1), check.whole(max_length, "max_length", 3)
    sentences = checked(sentences)
    tokenizer, model = _load(name_or_path)
    # Sentences of like length together, so that little is padded.
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    rows: list[Tensor] = []
    for start in range(0, len(order), batch):
        texts = [sentences[i] for i in order[start : start + batch]]
        tokens = tokenizer(
            texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt"
        )
        with torch.no_grad():
            states = model(**tokens, output_hidden_states=True).hidden_states
        rows.append(pool(states, tokens["attention_mask"], pooling))
    vectors = torch.cat(rows).float().numpy()
    return vectors[np.argsort(order)]


def pool(states: Sequence[Tensor], mask: Tensor, pooling: str) -> Tensor:
    """One vector for each sentence.

    Parameters
    ----------
    states : sequence of Tensor, shape (B, T, d)
        Embeddings, then the output of each layer.
    mask : Tensor, shape (B, T)
        1 for a token, 0 for padding.
    pooling : {"first-last", "last", "cls"}

    Returns
    -------
    Tensor, shape (B, d)
    """
    check.choice(pooling, "pooling", POOLINGS)
    if pooling == "cls":
        return states[-1][:, 0]
    # states[0] is the embedding layer; the first layer's output comes after it.
    layers = (states[1], states[-1]) if pooling == "first-last" else (states[-1],)
    mean = sum(layers) / len(layers)
    weights = mask[..., None].to(mean.dtype)
    return (mean * weights).sum(dim=1) / weights.sum(dim=1)


# --- loading --------------------------------------------------------------------------------------


def _load(name_or_path: str | Path) -> tuple[Any, Any]:
    """Tokenizer and model, in evaluation mode and float32."""
    if not isinstance(name_or_path, (str, Path)) or not str(name_or_path):
        raise TypeError(f"`name_or_path` must be a name or a folder, got {name_or_path!r}")
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise ImportError(
            "public encoders need the package transformers, which is not installed; run: "
            "pip install transformers"
        ) from error
    name = str(name_or_path)
    folder = Path(name_or_path).is_dir()
    # Without a network the hub's client would try again and again; one short question is enough.
    offline = not folder and not _hub_answers()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, local_files_only=offline)
        model = transformers.AutoModel.from_pretrained(
            name, local_files_only=offline, dtype=torch.float32
        )
    # The client raises OSError for what is missing, ValueError or KeyError for what is no model.
    except (OSError, ValueError, KeyError) as error:
        raise PretrainedError(_reason(name, folder, offline)) from error
    return tokenizer, model.eval()


def _hub_answers() -> bool:
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    request = urllib.request.Request(os.environ.get("HF_ENDPOINT", HUB), method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        return True  # it refuses this question, but it is there
    except (OSError, ValueError):
        return False
    return True


def _reason(name: str, folder: bool, offline: bool) -> str:
    if folder:
        return (
            f"`name_or_path` {name} holds no model that transformers can read; it must be a folder "
            "as save_pretrained writes it, with config.json, the weights and the tokenizer"
        )
    if offline:
        return (
            f"`name_or_path` {name!r} is not downloaded yet, and {HUB} does not answer; try again "
            "with a network (or a mirror's address in the variable HF_ENDPOINT), or hand in a "
            "folder with a downloaded model"
        )
    return f"`name_or_path` {name!r} is neither a folder nor a model that can be had from {HUB}"
