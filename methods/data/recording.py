"""Recording of h while a model samples: a run that reads and does not edit.

The sampler evaluates the model once per *call*. A call may take several U-Net passes: short of memory, the host runs positive and negative
apart. Samplers of second order make two calls per step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...models.sites import MIDDLE, pool
from ..core.rows import read_rows
from ..core.run import Call, Run, plain_level


@dataclass(frozen=True)
class RecordingSettings:
    """Hold what the user chose for a recording."""

    every: int = 1
    """Keep every k-th call, beginning with the first."""
    unconditional: bool = False
    """Whether the negative's rows are kept too."""
    spatial_levels: tuple[float, ...] = ()
    """Levels (log-SNR). The call nearest to each is also kept unpooled."""
    site: str = MIDDLE
    """Where h is read: "middle" or "output.N"."""
    exact: bool = False
    """Keep pooled features in fp32, for differences that half precision would round away."""


@dataclass(frozen=True)
class Recording:
    """Hold the features that one run recorded, on the CPU."""

    features: Tensor
    """Pooled h of the positive, fp16 [N, calls, C, 4, 4]; fp32 if exact."""
    level: Tensor
    """log-SNR of every call kept, fp32 [calls]."""
    unconditional: tuple[Tensor, Tensor] | None
    """Features and levels of the negative; None where there are none."""
    spatial: tuple[Tensor, Tensor] | None
    """Unpooled h, fp16 [N, levels, C, H, W], with its levels; None where there is none."""
    calls: int
    """Number of all calls that the sampler made."""


class _Means:
    """Average the rows of every image, over one or more passes."""

    def __init__(self, images: int, like: Tensor) -> None:
        self.total = like.new_zeros(images, *like.shape[1:])
        self.count = like.new_zeros(images)

    def add(self, values: Tensor, image: Tensor) -> None:
        """Add values of images to their sums."""
        self.total.index_add_(0, image, values)
        self.count.index_add_(0, image, self.count.new_ones(len(image)))

    def on_cpu(self, dtype: torch.dtype = torch.float16) -> Tensor:
        """Return the means [N, ...] on the CPU."""
        return (self.total / self.count.view(-1, *[1] * (self.total.ndim - 1))).to("cpu", dtype)


class RecordingRun(Run):
    """Record h at one site. :meth:`begin` and :meth:`end` enclose every call of the sampler."""

    what = "the recording"

    def __init__(self, settings: RecordingSettings) -> None:
        super().__init__([settings.site])
        self.settings = settings
        self.recording: Recording | None = None
        """What was recorded; set when sampling ended well."""
        self.calls = self.unread = 0
        self._exempt_seen = False
        self._pooled_calls: dict[bool, list[tuple[float, Tensor]]] = {True: [], False: []}
        self._near: dict[float, tuple[float, float, Tensor]] = {}
        self._open = False
        self._clear()

    def begin(self) -> None:
        """Start a call, and drop what an earlier one left that failed."""
        self._clear()
        self._open = True

    def edit(self, site: str, h: Tensor, call: Call) -> Tensor:
        """Record h [R, C, H, W] of one U-Net pass and return it unchanged.

        Several positives of an image are averaged. Rows that are exempt are left out, because guidance does not read them either.
        """
        if not self._open:
            return h
        rows = read_rows(h.shape[0], call.options, call.roles)
        if rows is None:
            self.unread += 1
            return h
        self._exempt_seen |= bool(rows.exempt.any())
        index = torch.arange(h.shape[0])
        keys = _chunk_keys(call.options)
        chunk = (index // rows.images) % len(keys)
        # A conditioning that comes a second time in a call is a perturbed pass (PAG, SAG), whose h does not belong to the image.
        fresh = torch.tensor([key not in self._seen for key in keys])[chunk]
        self._level = call.level
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
        self._seen.update(keys)
        return h

    def end(self) -> None:
        """End a call, and keep what it recorded."""
        self._open = False
        if self._touched:
            for conditional, means in self._pooled.items():
                dtype = torch.float32 if self.settings.exact else torch.float16
                self._pooled_calls[conditional].append((self._level, means.on_cpu(dtype)))
            self._keep_map()
            self.calls += 1
        self._clear()

    def finish(self) -> None:
        """Collect the recording. Raises ValueError if no features were recorded."""
        pooled_calls = self._pooled_calls
        if not pooled_calls[True] and self._exempt_seen and not self.unread:
            raise ValueError(
                "no features were recorded: every positive is exempt from guidance, so its rows are not read; bypass Exempt From Guidance "
                "while you record."
            )
        if not pooled_calls[True]:
            why = (
                f"the rows of {self.unread} U-Net calls do not fit the batch (another patch regroups them, for example for tiling)"
                if self.unread
                else "no U-Net call had rows of the positive (another patch replaces or caches the calls)"
            )
            raise ValueError(f"no features were recorded: {why}; remove that patch from the MODEL while you record.")
        features, level = _stack(pooled_calls[True])
        spatial = None
        if self._near:
            calls = {number: (at, maps) for number, at, maps in self._near.values()}
            spatial = _stack([calls[number] for number in sorted(calls)])
        unconditional = _stack(pooled_calls[False]) if pooled_calls[False] else None
        self.recording = Recording(features, level, unconditional, spatial, self.calls)

    def release(self) -> None:
        """Drop the tensors; the run ends here."""
        super().release()
        self.recording = None
        self._pooled_calls, self._near = {True: [], False: []}, {}
        self._clear()

    def _clear(self) -> None:
        self._level = 0.0
        self._touched = False
        self._seen: set[tuple[Any, int]] = set()
        self._pooled: dict[bool, _Means] = {}
        self._maps: _Means | None = None

    def _nearer(self) -> bool:
        """Check whether this call is nearer to one of the spatial levels than all before."""
        return any(abs(self._level - wanted) < self._distance(wanted) for wanted in self.settings.spatial_levels)

    def _distance(self, wanted: float) -> float:
        return abs(self._near[wanted][1] - wanted) if wanted in self._near else float("inf")

    def _see_map(self, maps: Tensor, image: Tensor, images: int) -> None:
        """Add maps of the full size.

        A positive with an area has smaller ones, which are left out.
        """
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


def _chunk_keys(options: Mapping[str, Any]) -> list[tuple[Any, int]]:
    """Identify the conditioning of every chunk of a pass.

    By its uuid, if known, and its number.
    """
    marks = options.get("cond_or_uncond") or [0]
    uuids = list(options.get("uuids") or [])
    return [(uuids[i] if i < len(uuids) else None, mark) for i, mark in enumerate(marks)]


def _stack(calls: list[tuple[float, Tensor]]) -> tuple[Tensor, Tensor]:
    """Join calls to [N, calls, ...] and log-SNR [calls]."""
    return torch.stack([values for _, values in calls], dim=1), torch.tensor([at for at, _ in calls])


def parse_levels(text: str) -> tuple[float, ...]:
    """Read noise levels that a user wrote as log-SNR, or as "sigma=2.5"; return log-SNR, ascending.

    Raises ValueError where a word is neither.
    """
    levels = set()
    for word in re.split(r"[,;\s]+", text.strip()):
        match = re.fullmatch(r"(sigma=)?([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)", word, re.IGNORECASE)
        if word and (match is None or (match[1] and float(match[2]) <= 0)):
            raise ValueError(f"'{word}' is not a noise level: write log-SNR values such as -4, 0, 4, or sigmas as sigma=2.5.")
        if match:
            levels.add(plain_level(float(match[2])) if match[1] else float(match[2]))
    return tuple(sorted(levels))
