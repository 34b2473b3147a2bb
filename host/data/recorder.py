"""Writing a feature set, for both nodes that record: its disk space, its progress, and its report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import latent_preview
from torch import Tensor

from ...methods.data.feature_set import IMAGES, POOLED, SPATIAL, FeatureSet, FeatureSetWriter, open_feature_set
from ...methods.data.recording import Recording, RecordingSettings
from ...models.sites import MIDDLE
from ..core.progress import WorkStage
from ..core.sites import site_channels
from ..core.types import Image, Model
from .feature_sets import FEATURES_PATH, check_disk, set_folder, size, stack_pictures
from .recording import check_site, map_size, model_facts

log = logging.getLogger("equipoise")


@dataclass(frozen=True)
class RecordingOutcome:
    """Hold what a recording node returns."""

    features: FeatureSet
    """The set as it is now."""
    images: Image
    """Images of the latest batch, [N, H, W, 3]."""
    report: str
    """What was recorded, a line each."""


class Recorder:
    """Write one feature set.

    Raises ValueError where ``name`` cannot be the name of a set, the model lacks the site, or the set has other settings (``meta``).
    """

    def __init__(self, model: Model, name: str, recording: RecordingSettings, meta: Mapping[str, Any]) -> None:
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
        """Folder of the feature set."""
        return self.writer.folder

    def picture(self, file: str) -> Path:
        """Return the file of an image's picture.

        Write it before the features, so that every image in the index has one.
        """
        return self.folder / IMAGES / file

    def claim(self, model: Model, images: int, rows: int, latent: Sequence[int], picture_bytes: float) -> None:
        """Check before the recording that there is enough disk space.

        Raises ValueError where there is not.
        ``rows``: pooled features per image. ``latent``: shape of the latents. ``picture_bytes``: largest size of a picture.
        """
        height, width = map_size(model, latent[-2], latent[-1], self._recording.site)
        maps = len(self._recording.spatial_levels) * (2 * self._channels * height * width + 13)
        each = rows * (32 * self._channels + 13) + maps + 1000 + picture_bytes
        self._to_come = images
        self._lines.append(check_disk(images * each, f"recording {images} images into '{self.folder.name}'"))
        log.info("%s.", self._lines[-1])

    def add(
        self,
        recording: Recording,
        files: Sequence[str],
        seeds: Sequence[int],
        prompts: Sequence[str],
        image_index: Sequence[int] | None = None,
    ) -> None:
        """Add a batch, and estimate from its size on disk whether the rest will fit.

        Raises ValueError where it will not.
        """
        self.writer.add(
            recording.features,
            recording.level,
            files,
            seeds,
            prompts,
            places=image_index,
            unconditional=recording.unconditional,
            spatial=recording.spatial,
        )
        self._added += len(files)
        self._to_come -= len(files)
        pictures = sum(self.picture(f).stat().st_size for f in files)
        self._last = (recording, self._shard_bytes() / len(files), pictures / len(files))
        if self._to_come:
            each = self._last[1] + self._last[2]
            check_disk(self._to_come * each, f"recording the {self._to_come} images that are left for '{self.folder.name}'")

    def outcome(self, images: Tensor | None = None, notes: Sequence[str] = (), latest: int = 4) -> RecordingOutcome:
        """Return the set as it is now, with a report.

        Without ``images``, the ``latest`` pictures are read from disk.
        """
        features = open_feature_set(self.folder)
        total = len(features.entries)
        lines = [f"'{self.folder.name}' holds {total} images in {FEATURES_PATH}; {self._added or 'none'} recorded now", *self._lines]
        if self._last is not None:
            latest_batch, shard, picture = self._last
            low, high = float(latest_batch.level.min()), float(latest_batch.level.max())
            lines.append(
                f"{len(latest_batch.level)} of {latest_batch.calls} calls kept per image, log-SNR {low:.2f} to {high:.2f}, "
                f"{self._channels} channels at '{self._recording.site}'; {size(shard)} of features and {size(picture)} of picture per image"
            )
            if self._recording.unconditional and latest_batch.unconditional is None:
                lines.append("no negative rows: ComfyUI does not evaluate the negative with cfg 1 or with an unconditional model")
            if latest_batch.spatial is not None:
                levels = ", ".join(f"{float(v):.2f}" for v in latest_batch.spatial[1])
                lines.append(f"unpooled maps of {' x '.join(str(v) for v in latest_batch.spatial[0].shape[2:])} at log-SNR {levels}")
        else:
            lines.append("nothing was left to record. To add images, ask for more; to start a new set, choose another name")
        lines += notes
        log.info("%s", "; ".join(lines))
        if images is None:
            images = stack_pictures([self.picture(e.file) for e in features.entries[-latest:]])
        return RecordingOutcome(features, images, "\n".join(lines))

    def _shard_bytes(self) -> int:
        entry = self.writer.entries[-1]
        return sum((self.folder / shard).stat().st_size for shard in (entry.shard, entry.spatial) if shard)


class Watcher:
    """Show progress over all batches with previews, and stop when the user interrupts.

    ``what``: name of the node in ComfyUI's log.
    """

    def __init__(self, model: Model, batches: int, what: str) -> None:
        self._previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
        self._stage = WorkStage(what, batches)
        self._batches, self._batch = batches, -1

    def next_batch(self) -> None:
        """Begin the next batch.

        Raises the host's exception if the user interrupts.
        """
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._batch += 1

    def step(self, step: int, x0: Tensor, x: Tensor, total: int) -> None:
        """Count a sampling step.

        A sampler's callback. Raises the host's exception if the user interrupts.
        """
        preview = self._previewer.decode_latent_to_preview_image("JPEG", x0) if self._previewer else None
        self._stage.update(self._batch * total + step + 1, self._batches * total, preview)
