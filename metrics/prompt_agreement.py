"""Do images still show what the prompt says? CLIP-T: cosine of an image's and its prompt's CLIP embeddings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .resampling import as_features, mean_interval, unit_rows

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PromptReport:
    """Agreement of images with their prompts, by CLIP."""

    n: int
    """Number of images."""
    prompts: int
    """Number of prompts."""
    cosine: float
    """Mean CLIP-T, in -1..1; 0.2 to 0.35 is usual for CLIP ViT-L/14."""
    low: float | None
    """Lower 95% bootstrap bound; None for one image."""
    high: float | None
    """Upper bound."""
    score: float
    """Mean of max(100 x cosine, 0), as CLIPScore prints it."""
    other: float | None
    """Mean cosine to the prompts of the other images; None with one prompt."""
    retrieved: float | None
    """Share of images whose own prompt is the nearest; None with one prompt."""
    batch: int
    """Images that were sampled together."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers."""
        return asdict(self)


def prompt_agreement(
    images: ArrayLike | Tensor,
    texts: ArrayLike | Tensor,
    prompt_of: ArrayLike | Tensor | None = None,
    batch: int = 1,
    bootstrap: int = 2000,
    seed: int = 0,
) -> PromptReport:
    """Measure CLIP-T of images [N, D] and texts [P, D].

    Both are projected embeddings of one CLIP, of any length.

    prompt_of [N]: which text each image was made with; None where there is one text. batch: see :func:`.fairness.measure`.

    Raises ValueError where dimensions differ, a text index is missing or out of range, or a vector is zero or not finite.
    """
    table = _cosines(images, texts)
    own_text = _prompt_of(prompt_of, *table.shape)
    own = table[np.arange(len(table)), own_text]
    mean, low, high = mean_interval(own, batch, bootstrap, seed)
    several = table.shape[1] > 1
    return PromptReport(
        n=len(own),
        prompts=table.shape[1],
        cosine=mean,
        low=low,
        high=high,
        score=float(np.maximum(100 * own, 0).mean()),
        other=float((table.sum() - own.sum()) / (table.size - len(own))) if several else None,
        retrieved=float((table.argmax(1) == own_text).mean()) if several else None,
        batch=batch,
    )


def agreement_change(
    before: ArrayLike | Tensor,
    after: ArrayLike | Tensor,
    texts: ArrayLike | Tensor,
    prompt_of: ArrayLike | Tensor | None = None,
    batch: int = 1,
    bootstrap: int = 2000,
    seed: int = 0,
) -> tuple[float, float | None, float | None]:
    """Measure the mean change of CLIP-T from images before to images after.

    [N, D], the same index for the same seed, with its 95% bootstrap bounds.

    Paired, so that what differs between seeds does not hide what the edit did. Errors as of :func:`prompt_agreement`.
    """
    first, second = _cosines(before, texts), _cosines(after, texts)
    if len(first) != len(second):
        raise ValueError(f"paired images need the same seeds in the same order: met {len(first)} before and {len(second)} after.")
    own = _prompt_of(prompt_of, *first.shape)
    rows = np.arange(len(first))
    return mean_interval(second[rows, own] - first[rows, own], batch, bootstrap, seed)


def _cosines(images: ArrayLike | Tensor, texts: ArrayLike | Tensor) -> Array:
    """Compute the cosine of every image and every text: [N, P]."""
    x, t = as_features(images, "image embeddings"), as_features(texts, "text embeddings")
    if x.shape[1] != t.shape[1]:
        raise ValueError(f"image and text embeddings are of one CLIP: met {x.shape[1]} and {t.shape[1]} dimensions.")
    return (unit_rows(x, "image embeddings") @ unit_rows(t, "text embeddings").T).clip(-1, 1)


def _prompt_of(index: ArrayLike | Tensor | None, n: int, prompts: int) -> NDArray[np.int64]:
    if index is None:
        if prompts != 1:
            raise ValueError(f"with {prompts} prompts, say for each of the {n} images which one it was made with.")
        return np.zeros(n, dtype=np.int64)
    chosen = np.asarray(index.detach().cpu() if isinstance(index, Tensor) else index).reshape(-1).astype(np.int64)
    if len(chosen) != n or (chosen < 0).any() or (chosen >= prompts).any():
        raise ValueError(f"expected an index below {prompts} for each of {n} images; met {len(chosen)} indices.")
    return chosen
