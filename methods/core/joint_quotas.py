"""Share a batch out over the cells of a joint target, so that each attribute on its own is even as well."""

from __future__ import annotations

import itertools
import random
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from .assignment import quotas, seed_offset

ONE = 2**40
"""Probabilities are whole numbers of this unit, so that exchanges are exact and every machine gets the same quotas."""
DUST = ONE >> 30
"""A probability up to this is an error of arithmetic, and not worth an exchange."""
NEAR = 1e-9
"""An expected count this near to a whole number is taken as that number."""
MOST_EXCHANGES = 6000
"""So that the search ends for any target. A hundred cells with random shares need about 600."""
GROUPS, STEPS = 40, 10
"""How many groups of each size a rounding tries, and how many exchanges within a group for each of its other members."""


def joint_quotas(shares: Sequence[float], sizes: Sequence[int], n: int, seed: int) -> list[int]:
    """Divide ``n`` images between the cells of a joint target.

    ``shares`` is row-major over attributes with ``sizes`` classes. The expectation over seeds is exactly n * shares, and every cell gets
    its expected count rounded up or down. Every class of every attribute gets that too if shares are equal or there are two attributes,
    where such a rounding always exists (Cox 1987, unbiased controlled rounding). With three attributes or more and unequal shares it may
    not exist; then a search makes such misses rare. :func:`roundings` describes the rule. One attribute: :func:`.assignment.quotas`.
    """
    if len(sizes) == 1:
        return quotas(shares, n, seed)
    outcomes = roundings(tuple(shares), tuple(sizes), n)
    ends = list(itertools.accumulate(probability for probability, _ in outcomes))
    chosen = bisect_right(ends, int(seed_offset(seed) * ONE))
    return list(outcomes[min(chosen, len(outcomes) - 1)][1])


def serpentine(sizes: Sequence[int]) -> list[int]:
    """Order the cells of a table so that neighbours differ in one class."""
    order = [0]
    for size in sizes:
        forth = range(size)
        order = [cell * size + k for i, cell in enumerate(order) for k in (forth if i % 2 == 0 else reversed(forth))]
    return order


@lru_cache(maxsize=256)
def roundings(shares: tuple[float, ...], sizes: tuple[int, ...], n: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """List the quotas that ``n`` images may get, with their probabilities.

    Probabilities are in units of ``ONE``.

    The list starts as systematic sampling (Madow 1949) of the remainders, with the cells in serpentine order. Serpentine order keeps the
    first attribute even, and both attributes of a 2 x 2 table, but no more: in other tables, one rounding may have a class once too often
    and another one too rarely. The two then exchange cells. What one of them gains the other one loses, so no expectation changes.
    Groups of up to six exchange cells where no two can. The list is in the order of the seeds' offsets.
    """
    order = np.array(serpentine(sizes))
    expected = np.asarray(shares, dtype=np.float64)[order] * n
    counts = np.floor(expected + NEAR).astype(int)
    remainders = np.clip(expected - counts, 0, None)
    extra = n - int(counts.sum())
    weights = {bytes(len(order)): ONE}
    if extra:
        classes = np.stack(np.unravel_index(order, sizes), axis=1) + np.cumsum([0, *sizes[:-1]])
        weights = _Exchange(classes, remainders).even_out(_systematic(remainders, extra))
    back = np.argsort(order)
    # As in systematic sampling, a growing offset moves the images from the first cells to the last: seeds in a row stay even.
    return tuple((weights[up], tuple((counts + np.frombuffer(up, np.uint8))[back].tolist())) for up in sorted(weights, reverse=True))


def _systematic(remainders: np.ndarray, extra: int) -> dict[bytes, int]:
    """Map every systematic sample of ``extra`` cells to its probability.

    A sample is a byte per cell: 1 where the cell is rounded up.
    """
    edges = [0, *(round(x * ONE) for x in np.cumsum(remainders) * (extra / remainders.sum()))]
    edges[-1] = extra * ONE
    starts = sorted({edge % ONE for edge in edges})
    weights: dict[bytes, int] = {}
    for start, end in itertools.pairwise([*starts, ONE]):
        points = [-((start - edge) // ONE) for edge in edges]  # how many of start, start + ONE, ... lie below each edge
        up = bytes(after - before for before, after in itertools.pairwise(points))
        weights[up] = weights.get(up, 0) + end - start
    return weights


class _Exchange:
    """Exchange cells between roundings until every class has its expected count rounded up or down.

    ``classes`` [cells, attributes] has the classes of each cell, numbered through all attributes. ``remainders`` [cells] are the
    probabilities that cells are rounded up. Methods take roundings as bool [..., cells].
    """

    def __init__(self, classes: np.ndarray, remainders: np.ndarray) -> None:
        self.classes = classes
        self.member = np.zeros((len(remainders), int(classes.max()) + 1), int)
        self.member[np.arange(len(remainders))[:, None], classes] = 1
        expected = remainders @ self.member
        self.low, self.high = np.floor(expected + NEAR).astype(int), np.ceil(expected - NEAR).astype(int)
        self.random = random.Random(0)

    def even_out(self, weights: dict[bytes, int]) -> dict[bytes, int]:
        """Exchange cells between weighted roundings until no exchange reduces the misses."""
        stuck: set[bytes] = set()
        for _ in range(MOST_EXCHANGES):
            # The heaviest first: they leave the fewest parts.
            keys = sorted((key for key in weights if weights[key] > DUST), key=lambda key: -weights[key])
            ups = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1).astype(bool)
            missing = [i for i in np.flatnonzero(self._misses(ups)).tolist() if keys[i] not in stuck]
            if not missing:
                break
            exchange = self._with_one(missing[0], ups) or self._in_groups(missing[0], ups)
            if exchange is None:
                stuck.add(keys[missing[0]])
                continue
            before, after = exchange
            weight = min(weights[keys[i]] // before.count(i) for i in before)
            for i in before:
                weights[keys[i]] -= weight
            for up in after:
                key = up.astype(np.uint8).tobytes()
                weights[key] = weights.get(key, 0) + weight
            weights = {key: weight for key, weight in weights.items() if weight}
        return self._without_dust(weights)

    def _without_dust(self, weights: dict[bytes, int]) -> dict[bytes, int]:
        """Give the heaviest rounding the probability of those that only errors of arithmetic left."""
        heaviest = max(weights, key=lambda key: weights[key])
        for key, weight in list(weights.items()):
            if weight <= DUST and key != heaviest and self._misses(np.frombuffer(key, np.uint8)):
                weights[heaviest] += weights.pop(key)
        return weights

    def _misses(self, ups: np.ndarray) -> np.ndarray:
        """Count images by which classes lie outside their expected counts rounded down and up: [...]."""
        counts = ups.astype(int) @ self.member
        return (np.maximum(counts - self.high, 0) + np.maximum(self.low - counts, 0)).sum(-1)

    def _changes(self, ups: np.ndarray, lost: np.ndarray, gained: np.ndarray) -> np.ndarray:
        """Compute how misses change if roundings exchange one cell: [..., pairs of cells]."""
        counts = ups.astype(int) @ self.member
        rise = (counts >= self.high).astype(int) - (counts < self.low)
        fall = (counts <= self.low).astype(int) - (counts > self.high)
        out, into = self.classes[lost], self.classes[gained]
        return ((out != into) * (rise[..., into] + fall[..., out])).sum(-1)

    def _with_one(self, first: int, ups: np.ndarray) -> tuple[list[int], list[np.ndarray]] | None:
        """Exchange one cell with the heaviest rounding with which that reduces the misses."""
        lost, gained = _pairs(ups[first], ~ups[first])
        change = self._changes(ups[first], lost, gained)
        lost, gained, change = lost[change < 0], gained[change < 0], change[change < 0]
        for start in range(0, len(ups), 32):  # one of the first nearly always does
            part = ups[start : start + 32]
            total = change + self._changes(part, gained, lost)
            fits = part[:, gained] & ~part[:, lost] & (total < 0)
            if fits.any():
                other, best = (int(i) for i in np.argwhere(fits)[0])
                group = [first, start + other]
                new = ups[group]
                new[0, [lost[best], gained[best]]] = False, True
                new[1, [lost[best], gained[best]]] = True, False
                return group, list(new)
        return None

    def _in_groups(self, first: int, ups: np.ndarray) -> tuple[list[int], list[np.ndarray]] | None:
        """Exchange cells within groups of two to six roundings until one group has fewer misses."""
        for others in range(1, 6):
            for _ in range(GROUPS):
                # A rounding may stand in a group more than once: it is split then.
                group = [first, *self.random.choices(range(len(ups)), k=others)]
                new = ups[group]
                if self._walk(new):
                    return group, list(new)
        return None

    def _walk(self, ups: np.ndarray) -> bool:
        """Exchange cells between pairs of a group, in place; return whether its misses fell."""
        total = 0
        for step in range(STEPS * (len(ups) - 1)):
            pair = self.random.sample(range(len(ups)), 2)
            a, b = ups[pair]
            lost, gained = _pairs(a & ~b, b & ~a)
            if not len(lost):
                continue
            change = self._changes(a, lost, gained) + self._changes(b, gained, lost)
            # The best exchange that does not make it worse, but the first one is any: it leads out of dead ends.
            best = np.flatnonzero(change == min(change.min(), 0)) if step else np.arange(len(change))
            if len(best):
                chosen = self.random.choice(best.tolist())
                total += int(change[chosen])
                ups[pair, lost[chosen]] = False, True
                ups[pair, gained[chosen]] = True, False
            if total < 0:
                return True
        return False


def _pairs(lost: np.ndarray, gained: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pair every cell of one mask with every cell of the other."""
    lost, gained = np.flatnonzero(lost), np.flatnonzero(gained)
    return np.repeat(lost, len(gained)), np.tile(gained, len(lost))
