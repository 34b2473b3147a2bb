"""What is kept of h while a model samples: the counterpart of guidance that only looks.

A *call* is one evaluation of the model by the sampler, whatever number of U-Net passes it takes: short of memory the host runs positive
and negative apart, and samplers of second order evaluate twice a step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...models.noise_level import log_snr
from ...models.sites import MIDDLE, pool
from ..core.rows import read_rows


@dataclass(frozen=True)
class RecordingSettings:
    """``every``: keep every k-th call, the first one included; ``unconditional``: keep the negative's rows too; ``spatial_levels``:
    log-SNR values near which one call each is kept unpooled; ``site``: where h is taken, "middle" or "output.N"; ``exact``: keep pooled
    features in fp32, for differences that half precision would round away."""

    every: int = 1
    unconditional: bool = False
    spatial_levels: tuple[float, ...] = ()
    site: str = MIDDLE
    exact: bool = False


@dataclass(frozen=True)
class Recording:
    """One run's features, on the CPU: ``features`` fp16 [N, calls, C, 4, 4] (fp32 if exact) with log-SNR ``level`` fp32 [calls].
    ``unconditional`` and ``spatial`` (fp16 [N, levels, C, H, W]) are pairs of the same kind, None where there are none. ``calls``: all that
    were made."""

    features: Tensor
    level: Tensor
    unconditional: tuple[Tensor, Tensor] | None
    spatial: tuple[Tensor, Tensor] | None
    calls: int


class _Means:
    """Means over the rows of every image, several maps of which may come in several passes."""

    def __init__(self, images: int, like: Tensor) -> None:
        self.total = like.new_zeros(images, *like.shape[1:])
        self.count = like.new_zeros(images)

    def add(self, values: Tensor, image: Tensor) -> None:
        self.total.index_add_(0, image, values)
        self.count.index_add_(0, image, self.count.new_ones(len(image)))

    def on_cpu(self, dtype: torch.dtype = torch.float16) -> Tensor:
        """[N, ...]."""
        return (self.total / self.count.view(-1, *[1] * (self.total.ndim - 1))).to("cpu", dtype)


class RecordingRun:
    """State of one sampling run. :meth:`begin` and :meth:`end` enclose a call, :meth:`see` is given every U-Net pass in it."""

    def __init__(self, settings: RecordingSettings) -> None:
        self.settings = settings
        self.calls = self.unread = 0
        self.exempt = False
        self._kept: dict[bool, list[tuple[float, Tensor]]] = {True: [], False: []}
        self._near: dict[float, tuple[float, float, Tensor]] = {}
        self._open = False
        self._clear()

    def begin(self) -> None:
        """A call starts; what an earlier one that failed left is dropped."""
        self._clear()
        self._open = True

    def see(self, h: Tensor, options: Mapping[str, Any], roles: Mapping[Any, str] | None = None) -> None:
        """h [R, C, H, W] of a U-Net pass; it is neither kept nor changed. Several positives of an image are averaged; those that are
        exempt from guidance are left out, as guidance will not read them."""
        if not self._open:
            return
        rows = read_rows(h.shape[0], options, roles)
        if rows is None:
            self.unread += 1
            return
        self.exempt |= bool(rows.exempt.any())
        index = torch.arange(h.shape[0])
        chunk = (index // rows.images) % len(options.get("cond_or_uncond") or [0])
        fresh = self._fresh(options)[chunk]
        self._level = float(log_snr(float(options["sigmas"].max())))
        for conditional in (True, False) if self.settings.unconditional else (True,):
            chosen = index[fresh & (rows.conditional if conditional else rows.unconditional)]
            if not len(chosen):
                continue
            image = rows.image[chosen].to(h.device)
            part = h[chosen.to(h.device)]
            if self.calls % self.settings.every == 0:
                pooled = pool(part)
                self._pooled.setdefault(conditional, _Means(rows.images, pooled)).add(pooled, image)
            self._touched |= conditional
            if conditional and self._nearer():
                self._see_map(part.float(), image, rows.images)

    def end(self) -> None:
        """The call is over."""
        self._open = False
        if self._touched:
            for conditional, means in self._pooled.items():
                dtype = torch.float32 if self.settings.exact else torch.float16
                self._kept[conditional].append((self._level, means.on_cpu(dtype)))
            self._keep_map()
            self.calls += 1
        self._clear()

    def result(self) -> Recording:
        """Raises ValueError where nothing could be recorded."""
        if not self._kept[True] and self.exempt and not self.unread:
            raise ValueError(
                "no features were recorded: every positive is exempt from guidance, and guidance reads no such rows. Take Exempt From "
                "Guidance off while recording."
            )
        if not self._kept[True]:
            why = (
                f"the rows of {self.unread} U-Net calls could not be told apart (another patch regroups them, as tiling does)"
                if self.unread
                else "no U-Net call with rows of the positive was seen (another patch replaces or caches them)"
            )
            raise ValueError(f"no features were recorded: {why}. Take that patch off the MODEL while recording.")
        features, level = _stack(self._kept[True])
        spatial = None
        if self._near:
            calls = {number: (at, maps) for number, at, maps in self._near.values()}
            spatial = _stack([calls[number] for number in sorted(calls)])
        unconditional = _stack(self._kept[False]) if self._kept[False] else None
        return Recording(features, level, unconditional, spatial, self.calls)

    def release(self) -> None:
        """Drop the tensors; the run ends here."""
        self._kept, self._near = {True: [], False: []}, {}
        self._clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> RecordingRun:
        # The host may copy its options deeply; a run is one thing, with one state.
        return self

    def _clear(self) -> None:
        self._level = 0.0
        self._touched = False
        self._seen: set[tuple[Any, int]] = set()
        self._pooled: dict[bool, _Means] = {}
        self._maps: _Means | None = None

    def _fresh(self, options: Mapping[str, Any]) -> Tensor:
        """Per chunk of a pass, bool: whether its conditioning was not evaluated in this call before.

        A second time it is a perturbed pass (PAG, SAG), whose h is not what the model makes of the image.
        """
        marks = options.get("cond_or_uncond") or [0]
        uuids = list(options.get("uuids") or [])
        keys = [(uuids[i] if i < len(uuids) else None, mark) for i, mark in enumerate(marks)]
        fresh = torch.tensor([key not in self._seen for key in keys])
        self._seen.update(keys)
        return fresh

    def _nearer(self) -> bool:
        """Whether this call is nearer to one of the spatial levels than all before."""
        return any(abs(self._level - wanted) < self._distance(wanted) for wanted in self.settings.spatial_levels)

    def _distance(self, wanted: float) -> float:
        return abs(self._near[wanted][1] - wanted) if wanted in self._near else float("inf")

    def _see_map(self, maps: Tensor, image: Tensor, images: int) -> None:
        """Whole maps only: a positive with an area comes as a smaller one."""
        size = 0 if self._maps is None else self._maps.total[0].numel()
        if maps[0].numel() > size:
            self._maps = _Means(images, maps)
        if self._maps.total.shape[1:] == maps.shape[1:]:
            self._maps.add(maps, image)

    def _keep_map(self) -> None:
        if self._maps is None:
            return
        half = self._maps.on_cpu()
        for wanted in self.settings.spatial_levels:
            if abs(self._level - wanted) < self._distance(wanted):
                self._near[wanted] = (self.calls, self._level, half)


def _stack(kept: list[tuple[float, Tensor]]) -> tuple[Tensor, Tensor]:
    """[N, calls, ...] and log-SNR [calls]."""
    return torch.stack([values for _, values in kept], dim=1), torch.tensor([at for at, _ in kept])


def parse_levels(text: str) -> tuple[float, ...]:
    """Noise levels as a user writes them, as log-SNR, ascending: numbers are log-SNR, "sigma=2.5" is a sigma. () for an empty text.

    Raises ValueError where a word is neither.
    """
    found = set()
    for word in re.split(r"[,;\s]+", text.strip()):
        match = re.fullmatch(r"(sigma=)?([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)", word, re.IGNORECASE)
        if word and (match is None or (match[1] and float(match[2]) <= 0)):
            raise ValueError(f"'{word}' is no noise level: write log-SNR values such as -4, 0, 4, or sigmas as sigma=2.5.")
        if match:
            found.add(float(log_snr(float(match[2]))) if match[1] else float(match[2]))
    return tuple(sorted(found))
