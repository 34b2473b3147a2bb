"""What the two ways of recording share: one set being written, its disk, its progress, and what is said of it at the end."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import latent_preview
from torch import Tensor

from ...methods.data.feature_set import IMAGES, POOLED, SPATIAL, FeatureSet, FeatureSetWriter, open_feature_set
from ...methods.data.recording import Recording, RecordingSettings
from ...models.sites import MIDDLE
from ..core.sites import site_channels
from .feature_sets import FEATURES_PATH, check_disk, set_folder, size, stack_pictures
from .recording import check_site, map_size, model_facts

log = logging.getLogger("equipoise")


@dataclass(frozen=True)
class Outcome:
    """``images``: IMAGE [N, H, W, 3] of the latest batch."""

    features: FeatureSet
    images: Tensor
    report: str


class Recorder:
    """Writes one set. Raises ValueError where ``name`` is none, the model lacks the site, or the set has other settings (``meta``)."""

    def __init__(self, model: Any, name: str, recording: RecordingSettings, meta: Mapping[str, Any]) -> None:
        self._recording = recording
        check_site(model, recording.site)
        self._channels = site_channels(model)[recording.site]
        kind = SPATIAL if recording.spatial_levels else POOLED
        facts = {"kind": kind, **model_facts(model, recording.site), "spatial_levels": list(recording.spatial_levels), **meta}
        if recording.site != MIDDLE and "latent" in meta:
            facts["map"] = list(map_size(model, *meta["latent"][-2:], recording.site))
        self.writer = FeatureSetWriter(set_folder(name), facts)
        self._lines: list[str] = []
        self._added = self._to_come = 0
        self._last: tuple[Recording, float, float] | None = None

    @property
    def folder(self) -> Path:
        return self.writer.folder

    def picture(self, file: str) -> Path:
        """Where the picture of an image belongs. It is written before the features, so that what the index names has its picture."""
        return self.folder / IMAGES / file

    def claim(self, model: Any, images: int, rows: int, latent: Sequence[int], picture_bytes: float) -> None:
        """Say, before anything is recorded, how much disk it needs. Raises ValueError where that is not free.

        ``rows``: pooled features per image; ``latent``: shape of the latents; ``picture_bytes``: of one picture, at most.
        """
        height, width = map_size(model, latent[-2], latent[-1], self._recording.site)
        maps = len(self._recording.spatial_levels) * (2 * self._channels * height * width + 13)
        each = rows * (32 * self._channels + 13) + maps + 1000 + picture_bytes
        self._to_come = images
        self._lines.append(check_disk(images * each, f"recording {images} images into '{self.folder.name}'"))
        log.info("%s.", self._lines[-1])

    def add(
        self, found: Recording, files: Sequence[str], seeds: Sequence[int], prompts: Sequence[str], places: Sequence[int] | None = None
    ) -> None:
        """Add a batch; from its size on disk, see whether the rest will fit. Raises ValueError where it will not."""
        self.writer.add(
            found.features,
            found.level,
            files,
            seeds,
            prompts,
            places=places,
            unconditional=found.unconditional,
            spatial=found.spatial,
        )
        self._added += len(files)
        self._to_come -= len(files)
        pictures = sum(self.picture(f).stat().st_size for f in files)
        self._last = (found, self._shard_bytes() / len(files), pictures / len(files))
        if self._to_come:
            each = self._last[1] + self._last[2]
            check_disk(self._to_come * each, f"recording the {self._to_come} images that are left for '{self.folder.name}'")

    def outcome(self, images: Tensor | None = None, notes: Sequence[str] = (), latest: int = 4) -> Outcome:
        """The set as it is now, and a report. Without ``images`` the ``latest`` pictures are read from disk."""
        features = open_feature_set(self.folder)
        total = len(features.entries)
        lines = [f"'{self.folder.name}' holds {total} images in {FEATURES_PATH}; {self._added or 'none'} recorded now", *self._lines]
        if self._last is not None:
            found, shard, picture = self._last
            low, high = float(found.level.min()), float(found.level.max())
            lines.append(
                f"{len(found.level)} of {found.calls} calls kept per image, log-SNR {low:.2f} to {high:.2f}, {self._channels} channels at "
                f"'{self._recording.site}'; {size(shard)} of features and {size(picture)} of picture per image"
            )
            if self._recording.unconditional and found.unconditional is None:
                lines.append("no rows of the negative were met: with cfg 1, or an unconditional model, the host does not evaluate it")
            if found.spatial is not None:
                levels = ", ".join(f"{float(v):.2f}" for v in found.spatial[1])
                lines.append(f"unpooled maps of {' x '.join(str(v) for v in found.spatial[0].shape[2:])} at log-SNR {levels}")
        else:
            lines.append("nothing was left to record: ask for more images to add some, or give a new set another name")
        lines += notes
        log.info("%s", "; ".join(lines))
        if images is None:
            images = stack_pictures([self.picture(e.file) for e in features.entries[-latest:]])
        return Outcome(features, images, "\n".join(lines))

    def _shard_bytes(self) -> int:
        entry = self.writer.entries[-1]
        return sum((self.folder / shard).stat().st_size for shard in (entry.shard, entry.spatial) if shard)


class Watcher:
    """Progress over all batches, previews of the latest, and the host's interruption."""

    def __init__(self, model: Any, batches: int) -> None:
        self._previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
        self._bar = comfy.utils.ProgressBar(max(1, batches))
        self._batches, self._batch = batches, -1

    def next_batch(self) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._batch += 1

    def step(self, step: int, x0: Tensor, x: Tensor, total: int) -> None:
        """A sampler's callback. Raises the host's exception where the user interrupts."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        preview = self._previewer.decode_latent_to_preview_image("JPEG", x0) if self._previewer else None
        self._bar.update_absolute(self._batch * total + step + 1, self._batches * total, preview)
