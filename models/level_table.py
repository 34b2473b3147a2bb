"""Level tables: values and signed sizes by noise level that take h towards the classes of one attribute."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from .digests import values_digest
from .files import check_finite
from .noise_level import at_level, check_knots
from .sites import GRID

SEEDED, BY_READING = "seeded", "reading"
ASSIGNMENTS = (SEEDED, BY_READING)
"""How images get their class: at random from the seed, or by least change from a reading at the window's first call."""

Table = TypeVar("Table", bound="LevelTable")


class LevelTable:
    """Base class of :class:`.adp.Move` (values per channel) and :class:`.bias_features.Profile` (values per feature).

    A dataclass that derives from it has the fields below, and its values [T, K, R, D, 4, 4] in the field ``values_field``. R is 1, or K
    where a value depends on what the image is read as now. What a table of R = 1 adds towards class c is its value v_c, or
    v_c - sum_k p_k v_k if it is ``relative``, p being the reading.
    """

    values_field: ClassVar[str]
    """Name of the field, and of the tensor in a file, that holds the values."""
    knots: Tensor
    """Ascending log-SNR [T]."""
    sizes: Tensor
    """Signed factors of the values at strength 1, [T, K]; 0 outside the window."""
    assign: str
    """How images get their class, one of ``ASSIGNMENTS``."""
    source: str
    """How the values were made, such as "learned"."""
    relative: bool
    """Whether the reading's mean of all values is subtracted."""

    @property
    def values(self) -> Tensor:
        """The table's values, [T, K, R, D, 4, 4]."""
        return getattr(self, self.values_field)

    @property
    def by_reading(self) -> bool:
        """Whether a value depends on what the image is read as now."""
        return self.values.shape[2] > 1

    @property
    def window(self) -> tuple[float, float]:
        """Return the lowest and highest log-SNR between which a size differs from 0.

        (inf, -inf) if no size does.
        """
        active = (self.sizes != 0).any(dim=1).nonzero().flatten()
        if not len(active):
            return math.inf, -math.inf
        # A knot's influence reaches to its neighbours, where interpolation brings it to 0.
        low, high = int(active[0]), int(active[-1])
        return float(self.knots[max(low - 1, 0)]), float(self.knots[min(high + 1, len(self.knots) - 1)])

    def to(self: Table, device: torch.device) -> Table:
        """Copy the table to a device, in float32."""
        names = ("knots", self.values_field, "sizes")
        return replace(self, **{name: getattr(self, name).float().to(device) for name in names})

    def towards(self, classes: Tensor, reading: Tensor | None, level: float) -> Tensor:
        """Return values times sizes for images of these classes: float32 [N, D, 4, 4].

        classes int64 [N], at one log-SNR.

        reading: class probabilities [N, K]; None stands for the uniform distribution.
        """
        at = torch.full((1,), level, device=classes.device)
        values = at_level(self.values, self.knots, at)[0]
        sizes = at_level(self.sizes, self.knots, at)[0]
        chosen = values[classes]
        weights = reading if reading is not None else values.new_full((len(classes), len(values)), 1 / len(values))
        if chosen.shape[1] == 1:
            mixed = chosen[:, 0]
            if self.relative:
                mixed = mixed - torch.einsum("nk,kdij->ndij", weights, values[:, 0])
        else:
            mixed = torch.einsum("nk,nkdij->ndij", self.softened(weights), chosen)
        return mixed * sizes[classes][:, None, None, None]

    def softened(self, reading: Tensor) -> Tensor:
        """Return probabilities [N, K] as they are; subclasses may soften them before values are mixed."""
        return reading

    def with_gain(self: Table, k: int, gain: float) -> Table:
        """Multiply the sizes of class k."""
        factor = torch.ones(self.sizes.shape[1])
        factor[k] = gain
        return replace(self, sizes=self.sizes * factor)

    def reordered(self: Table, order: Sequence[int]) -> Table:
        """Put class ``order[i]`` at index i.

        The classes that an image may be read as are reordered too.
        """
        order = list(order)
        if order == list(range(len(order))):
            return self
        values = self.values[:, order]
        if self.by_reading:
            values = values[:, :, order]
        return replace(self, **{self.values_field: values}, sizes=self.sizes[:, order])

    def digest(self, facts: str) -> str:
        """Hash facts and the table's tensors, as a key of a trial: 20 hexadecimal digits."""
        return values_digest([facts, self.knots.float(), self.values.float(), self.sizes.float()], digits=20)

    def fits(self, classes: int, width: int | None = None) -> bool:
        """Return whether the tensors fit each other and a number of classes.

        ``width``: number of channels or features that they must fit too.
        """
        shape, levels = tuple(self.values.shape), len(self.knots)
        if len(shape) != 6 or not levels or tuple(self.sizes.shape) != (levels, classes):
            return False
        wide = width is None or shape[3] == width
        return wide and shape[:2] == (levels, classes) and shape[2] in (1, classes) and shape[4:] == (GRID, GRID)

    def stored(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors as a file holds them, with values in fp16.

        Their names start with ``prefix``.
        """
        return {
            f"{prefix}.knots": self.knots.float(),
            f"{prefix}.{self.values_field}": self.values.half(),
            f"{prefix}.sizes": self.sizes.float(),
        }

    @classmethod
    def read_stored(cls, tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
        """Take the tensors of :meth:`stored` from a file, as constructor arguments in float32.

        Raises KeyError where one is missing, and ValueError where they are not finite or the levels do not ascend.
        """
        parts = {part: tensors[f"{prefix}.{part}"].float() for part in ("knots", cls.values_field, "sizes")}
        check_knots(parts["knots"])
        check_finite({f"{prefix}.{part}": tensor for part, tensor in parts.items()})
        return parts
