"""Fairness discrepancy and what belongs beside it, from class probabilities of a set of images.

All in float64 on the CPU. Shares are *hard*: an image counts for its most probable class. Soft means stand beside them and are never put in
their place, since a set of ambiguous images can have perfect soft means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Array = NDArray[np.float64]
SEPARATOR = "/"
"""Between the class names of a cell of a joint table, as in "yes/long"."""
UNSURE_BELOW = 0.8
"""An image is unsure if no class has at least this probability."""
FLOOR_DRAWS = 20_000


@dataclass(frozen=True)
class ShareReport:
    """Shares of classes, or of the cells of a joint table, against a target."""

    classes: tuple[str, ...]
    """Class or cell names."""
    n: int
    """Number of images."""
    counts: tuple[int, ...]
    """Images by class, each counted for its most probable class."""
    shares: tuple[float, ...]
    """Hard shares."""
    shares_low: tuple[float, ...] | None
    """Lower 95% bootstrap bounds; None with a single unit to resample."""
    shares_high: tuple[float, ...] | None
    """Upper bounds."""
    soft_shares: tuple[float, ...]
    """Mean probabilities."""
    target: tuple[float, ...]
    """Shares asked for."""
    target_given: bool
    """False where no target was stated and the uniform distribution stands in."""
    fd: float
    """||target - shares||_2 of the hard shares, in 0..sqrt(2)."""
    fd_low: float | None
    """Lower 95% bootstrap bound; None with a single unit to resample."""
    fd_high: float | None
    """Upper bound."""
    fd_soft: float
    """The same of the mean probabilities."""
    noise_floor: float
    """Mean FD of an independent fair sampler at this n; quotas can go below it."""
    deviation: float
    """See :func:`deviation_ratio`."""
    entropy: float
    """Entropy of the hard shares, in nats."""
    unsure: float
    """Share of images whose highest probability is below 0.8."""
    batch: int
    """Images that were sampled together."""
    resampled: str
    """What the bootstrap resampled: "batches", "images" or "nothing"."""
    bootstrap: int
    """Number of resamples."""
    seed: int
    """Seed of the resampling."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers, strings and lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def measure(
    probabilities: ArrayLike | Tensor,
    classes: Sequence[str],
    target: Sequence[float] | None = None,
    batch: int = 1,
    bootstrap: int = 2000,
    seed: int = 0,
) -> ShareReport:
    """Measure the shares of the classes among N images against a target.

    probabilities [N, K]: class probabilities, one row per image, in the order in which the images were made. classes: K names. target: K
    shares in the same order (a joint table flattened row-major); None stands for the uniform distribution. batch: images that were
    made together; where guidance decides over a batch its images are not independent, and whole batches are resampled.

    Raises ValueError where a shape, a probability or a target does not fit.
    """
    p = _probabilities(probabilities)
    n, k = p.shape
    if len(classes) != k or len(set(classes)) != k:
        raise ValueError(f"expected {k} different class names, one per column of the probabilities; met {list(classes)}.")
    if batch < 1 or bootstrap < 0:
        raise ValueError(f"batch is at least 1 and bootstrap at least 0; met batch={batch}, bootstrap={bootstrap}.")
    r = _target(target, k)
    hard = _one_hot(p)
    counts = hard.sum(0)
    shares, soft = counts / n, p.mean(0)
    fd = fairness_discrepancy(shares, r)
    draws, resampled = bootstrap_shares(hard, batch, bootstrap, seed)
    low, high = _share_bounds(draws)
    fd_low, fd_high = fd_interval(shares, draws, r)
    return ShareReport(
        classes=tuple(str(c) for c in classes),
        n=n,
        counts=tuple(int(c) for c in counts),
        shares=_tuple(shares),
        shares_low=low,
        shares_high=high,
        soft_shares=_tuple(soft),
        target=_tuple(r),
        target_given=target is not None,
        fd=fd,
        fd_low=fd_low,
        fd_high=fd_high,
        fd_soft=fairness_discrepancy(soft, r),
        noise_floor=noise_floor(r, n),
        deviation=deviation_ratio(shares, r),
        entropy=share_entropy(shares),
        unsure=float((p.max(1) < UNSURE_BELOW).mean()),
        batch=batch,
        resampled=resampled,
        bootstrap=bootstrap,
        seed=seed,
    )


def fairness_discrepancy(shares: ArrayLike, target: ArrayLike) -> float:
    """Compute the fairness discrepancy: FD = ||target - shares||_2.

    Choi et al. 2020, as used by Balancing Act, CVPR 2024. Shares [K] may be hard or soft means.
    """
    return float(np.linalg.norm(np.asarray(target, dtype=np.float64) - np.asarray(shares, dtype=np.float64)))


def deviation_ratio(shares: ArrayLike, target: ArrayLike) -> float:
    """Compute max_c |N_c/N - r_c| / (1 - min_c r_c), in 0..1.

    For a uniform target over C classes this is max_c |N_c/N - 1/C| / (1 - 1/C), the deviation ratio of RespoDiff; the divisor is the
    largest deviation that any shares can have from the target.
    """
    s, r = np.asarray(shares, dtype=np.float64), np.asarray(target, dtype=np.float64)
    largest = 1.0 - float(r.min())
    return float(np.abs(s - r).max() / largest) if largest > 0 else 0.0


def share_entropy(shares: ArrayLike) -> float:
    """Compute the entropy of shares in nats: -sum_c s_c ln s_c.

    It is ln K if all K shares are equal.
    """
    s = np.asarray(shares, dtype=np.float64)
    s = s[s > 0]
    return abs(float((s * np.log(s)).sum()))


def noise_floor(target: Sequence[float], n: int, seed: int = 0) -> float:
    """Return the mean FD of n images drawn independently from the target.

    This is what chance alone leaves.

    About 0.564 / sqrt(n) for a binary 50/50 target. Exact for two classes (De Moivre's mean absolute deviation of a binomial), else the
    mean of 20,000 seeded multinomial draws (standard error below 0.5%). No lower bound: quotas can go below it.
    """
    r = _target(target, len(target))
    if n < 1:
        raise ValueError(f"a noise floor needs at least one image; met n={n}.")
    if len(r) == 2:
        return math.sqrt(2) * _binomial_deviation(n, float(r[0])) / n
    draws = np.random.default_rng(seed).multinomial(n, r, size=FLOOR_DRAWS) / n
    return float(np.linalg.norm(draws - r, axis=1).mean())


def _binomial_deviation(n: int, p: float) -> float:
    """Compute E|X - np| of a binomial X.

    2 m C(n, m) p^m (1-p)^(n-m+1) with m = floor(np) + 1.
    """
    if p <= 0 or p >= 1:
        return 0.0
    m = math.floor(n * p) + 1
    log_binomial = math.lgamma(n + 1) - math.lgamma(m + 1) - math.lgamma(n - m + 1)
    return 2 * m * math.exp(log_binomial + m * math.log(p) + (n - m + 1) * math.log1p(-p))


def bootstrap_shares(hard: ArrayLike, batch: int, draws: int, seed: int) -> tuple[Array, str]:
    """Return the shares of resampled sets, [draws, K], and what was resampled.

    hard [N, K]: one-hot rows in the order in which the images were made. Batches of ``batch`` consecutive rows are drawn with replacement
    (a short last one counts by its size); where that gives fewer than two batches, or the batch is 1, images are drawn. No draws for N = 1.
    """
    rows = np.asarray(hard, dtype=np.float64)
    n, k = rows.shape
    generator = np.random.default_rng(seed)
    if n < 2 or draws < 1:
        return np.empty((0, k)), "nothing"
    if batch == 1 or n <= batch:
        return generator.multinomial(n, rows.mean(0), size=draws) / n, "images"
    starts = np.arange(0, n, batch)
    sums = np.add.reduceat(rows, starts, axis=0)
    weights = generator.multinomial(len(starts), np.full(len(starts), 1 / len(starts)), size=draws).astype(np.float64)
    drawn = weights @ sums
    return drawn / drawn.sum(1, keepdims=True), "batches"


def fd_interval(shares: ArrayLike, draws: Array, target: ArrayLike) -> tuple[float, float] | tuple[None, None]:
    """Return the 95% interval of the hard FD.

    From resampled shares [draws, K].

    FD is computed on every resampled share vector; the upper bound is its 97.5% quantile, at least the observed FD. A norm cannot be
    resampled below its own noise, so near FD = 0 the lower quantile lies above the truth. The lower bound is therefore 0 where the target
    lies in the 95% region of the shares (no further from the observed shares than 95% of the resampled ones), else the smaller of the 2.5%
    quantile and the reflected upper one, 2 FD - q(97.5%).

    Small samples: with images drawn independently, simulated coverage is 92 to 99% at n >= 256 and 88 to 97% at n = 64, for 2 to 4 classes
    and true FD from 0 to 0.2 (at n = 32 down to 85%, where a class is rare); in nearly all misses the truth lies below the interval. With
    fewer than about ten batches it is too narrow. Batches that all have the same counts give width 0, rightly: nothing varied. A class
    never met gets no width of its own: about 3/n is the upper limit of its share.
    """
    if not len(draws):
        return None, None
    s, r = np.asarray(shares, dtype=np.float64), np.asarray(target, dtype=np.float64)
    observed = float(np.linalg.norm(r - s))
    low, high = np.quantile(np.linalg.norm(draws - r, axis=1), (0.025, 0.975))
    radius = np.quantile(np.linalg.norm(draws - s, axis=1), 0.95)
    low = 0.0 if observed <= radius else max(0.0, min(low, 2 * observed - high))
    return float(low), float(max(high, observed))


def assigned_hit_rate(probabilities: ArrayLike | Tensor, assigned: ArrayLike | Tensor) -> float:
    """Return the share of images judged as the class they were assigned.

    probabilities [N, K]; assigned [N] class indices.
    """
    p = _probabilities(probabilities)
    wanted = np.asarray(assigned.detach().cpu() if isinstance(assigned, Tensor) else assigned).reshape(-1)
    if len(wanted) != len(p):
        raise ValueError(f"expected one assigned class per image: {len(p)} images, {len(wanted)} classes.")
    return float((p.argmax(1) == wanted).mean())


def joint_probabilities(probabilities: Mapping[str, ArrayLike | Tensor]) -> Array:
    """Multiply class probabilities to a joint table per image: float64 [N, prod K_a].

    {attribute: [N, K_a]}; row-major (the last attribute runs fastest).

    A product, that is, attributes are taken as independent *given the image*. The most probable cell is then the cell of the most probable
    classes, so hard counts need no such assumption.
    """
    if not probabilities:
        raise ValueError("a joint table needs at least one attribute; met none.")
    tables = {a: _probabilities(p) for a, p in probabilities.items()}
    sizes = {a: len(p) for a, p in tables.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"a joint table needs the same images for every attribute; met {sizes} rows.")
    joint = np.ones((next(iter(sizes.values())), 1))
    for table in tables.values():
        joint = (joint[:, :, None] * table[:, None, :]).reshape(len(joint), -1)
    return joint


def joint_classes(classes: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Name the cells of a joint table, such as "yes/long".

    In the order of :func:`joint_probabilities`.
    """
    names = [""]
    for of_attribute in classes.values():
        names = [f"{left}{SEPARATOR}{c}" if left else c for left in names for c in of_attribute]
    return tuple(names)


def _probabilities(values: ArrayLike | Tensor) -> Array:
    p = np.asarray(values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values, dtype=np.float64)
    if p.ndim != 2 or not p.shape[0] or not p.shape[1]:
        raise ValueError(f"expected class probabilities of shape [images, classes], at least one each; met shape {list(p.shape)}.")
    if not np.isfinite(p).all():
        bad = int((~np.isfinite(p)).any(1).sum())
        raise ValueError(f"class probabilities have to be finite; for {bad} of {len(p)} images they are not: those images may be broken.")
    if (p < 0).any() or np.abs(p.sum(1) - 1).max() > 1e-3:
        raise ValueError("class probabilities are not negative and sum to 1 per image; these do not: pass probabilities, not logits.")
    return p


def _target(target: Sequence[float] | None, k: int) -> Array:
    if target is None:
        return np.full(k, 1 / k)
    r = np.asarray(target, dtype=np.float64)
    if r.shape != (k,):
        raise ValueError(f"the target needs one share per class: expected {k}, met {r.size}.")
    if not np.isfinite(r).all() or (r < 0).any() or abs(r.sum() - 1) > 1e-6:
        raise ValueError(f"the shares of a target are not negative and sum to 1; met {[float(x) for x in r]}.")
    return r / r.sum()


def _one_hot(p: Array) -> Array:
    return np.eye(p.shape[1])[p.argmax(1)]


def _share_bounds(draws: Array) -> tuple[tuple[float, ...], tuple[float, ...]] | tuple[None, None]:
    if not len(draws):
        return None, None
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    return _tuple(low), _tuple(high)


def _tuple(values: Array) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
