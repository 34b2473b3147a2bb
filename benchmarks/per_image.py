"""Per-image baselines of ``bench guidance`` that are no part of the product: classes drawn independently, and sample guidance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..methods.allocation import seeded_assignment
from ..methods.guidance import SOFT_TEMPERATURE, GuidanceRun
from ..methods.joint_quotas import joint_quotas
from ..methods.rows import Rows
from ..methods.targets import TargetDistribution
from ..models.adp import pool


def independent_cells(shares: Sequence[float], n: int, seed: int) -> tuple[int, ...]:
    """Cells of n images, each drawn from the shares on its own: what a user gets who lets chance decide."""
    generator = torch.Generator().manual_seed((seed * 2 + 1) & 0x7FFFFFFFFFFFFFFF)
    drawn = torch.multinomial(torch.tensor(shares, dtype=torch.float64), n, replacement=True, generator=generator)
    return tuple(drawn.tolist())


def quota_cells(target: TargetDistribution, n: int, seed: int) -> tuple[int, ...]:
    """Cells of n images by our quotas, in a random order: for methods that cannot read their images beforehand."""
    return tuple(seeded_assignment(joint_quotas(target.shares, target.sizes, n, seed), seed).tolist())


def drawn_cells(target: TargetDistribution, n: int, seed: int, by_quota: bool) -> tuple[int, ...]:
    """Cells of n images, by quotas or independently."""
    return quota_cells(target, n, seed) if by_quota else independent_cells(target.shares, n, seed)


class SampleGuidance(GuidanceRun):
    """Balancing Act's per-image baseline: every image goes up the softened probability of its own class that the ADP reads off h.

    delta_i = strength |h_i|^2 d/dh_i sum_a softmax(logits_a / 8)[class of image i], one step at every call, all rows that may be edited;
    the units of :meth:`GuidanceRun._soft_step` for one image. Settings: mode "quota", direction "adp-gradient"; with ``cells`` given, they
    are the classes, else quotas with the assignment of least change.
    """

    def step(self, site: str, h: Tensor, rows: Rows, level: float) -> Tensor:
        """h [R, C, H, W] -> h moved."""
        if site != self.read_at or not self.assign(rows, level, at_once=True):
            return h
        index = self.edited(rows).nonzero().flatten().to(h.device)
        if not len(index):
            return h
        classes, image = self.classes(h.device), rows.image.to(h.device)[index]
        with torch.inference_mode(False), torch.enable_grad():
            x = h.detach().clone().float()[index.clone()].requires_grad_(True)
            logits = self._predictor(pool(x), torch.full((len(index),), level, device=h.device))
            score = x.new_zeros(())
            for attribute in self.target.attributes:
                p = (logits[attribute] / SOFT_TEMPERATURE).softmax(-1)
                score = score + p.gather(1, classes[attribute][image][:, None].clone()).sum()
            (gradient,) = torch.autograd.grad(score, x)
        square = x.detach().flatten(1).pow(2).sum(1)[:, None, None, None]
        out = h.clone()
        out[index] = (h[index].float() + self.settings.strength * square * gradient).to(h.dtype)
        return out
