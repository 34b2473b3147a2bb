"""Record Features From Images: encode pictures, add noise of chosen levels, and record h in one call per level."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ...methods.data.recording import Recording, RecordingSettings
from ...models.sites import MIDDLE
from ..core.sites import level_range, sigmas_at
from ..core.types import Conditioning, Model, Vae
from .feature_sets import picture_files, read_picture, write_picture
from .recorder import Recorder, RecordingOutcome, Watcher
from .recording import apply_recording, caption, conditioning_facts


@dataclass(frozen=True)
class Pictures:
    """Give the pictures of a folder below ComfyUI's input folder, or of an IMAGE batch."""

    names: tuple[str, ...]
    """File names of the pictures."""
    origin: str = ""
    """The folder as the user wrote it."""
    folder: Path | None = None
    """The folder; None for an IMAGE batch."""
    batch: Tensor | None = None
    """The IMAGE batch; None for a folder."""
    size: int = 0
    """Side of the centred square to which pictures are cropped; 0 leaves them as they are."""

    @staticmethod
    def choose(folder: str, batch: Tensor | None, size: int) -> Pictures:
        """Choose between a folder and an IMAGE batch.

        Raises ValueError where both or neither are connected.
        """
        if (batch is not None) == bool(folder.strip()):
            raise ValueError(
                "pictures come from a folder below ComfyUI's input folder, or from an IMAGE: "
                + ("use one of the two, not both." if batch is not None else "name a folder, or connect images.")
            )
        if batch is not None:
            return Pictures(tuple(f"{i:06d}.png" for i in range(len(batch))), batch=batch, size=size)
        path, names = picture_files(folder)
        return Pictures(tuple(names), folder.strip(), path, size=size)

    @property
    def facts(self) -> dict[str, Any]:
        """Return what set.json says of the pictures.

        That is the name of a folder, which may grow, or a hash of an IMAGE batch.
        """
        if self.batch is None:
            return {"folder": self.origin, "size": self.size}
        digest = hashlib.sha256((self.batch.float().clamp(0, 1) * 255).round().byte().cpu().numpy().tobytes()).hexdigest()
        return {"images": {"mark": digest[:16]}, "size": self.size}

    def read(self, name: str) -> Tensor:
        """Read and crop a picture: float32 [H, W, 3] in 0..1."""
        picture = self.batch[self.names.index(name)][..., :3].float().cpu() if self.folder is None else read_picture(self.folder / name)
        if not self.size:
            return picture
        resized = comfy.utils.common_upscale(picture.movedim(-1, 0)[None], self.size, self.size, "lanczos", "center")
        return resized[0].movedim(0, -1).clamp(0, 1)

    def keep(self, name: str, picture: Tensor, path: Path) -> None:
        """Save a picture in the set: a copy of its file, or the cropped picture."""
        if self.folder is None or self.size:
            write_picture(picture, path)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        shutil.copyfile(self.folder / name, partial)
        partial.replace(path)

    def bytes_each(self, names: Sequence[str]) -> float:
        """Estimate the bytes of a picture in the set, from above."""
        if self.size or self.folder is None:
            side = self.size**2 if self.size else self.batch[0, ..., 0].numel()
            return 3 * side + 1000
        return sum((self.folder / n).stat().st_size for n in names) / len(names)


class OncePerLevel(comfy.samplers.Sampler):
    """Call the model once per sigma, and return the latent unchanged.

    Every call sees the clean latent with noise of its sigma.
    """

    def __init__(self, noise: Tensor) -> None:
        self.noise = noise
        """Noise by level, [levels, N, C, H, W]."""

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Evaluate the denoiser once at every noise level."""
        scaling = model_wrap.inner_model.model_sampling.noise_scaling
        for i, sigma in enumerate(sigmas):
            x = scaling(sigma, self.noise[i].to(latent_image), latent_image)
            x0 = model_wrap(x, sigma.expand(len(x)), **extra_args)
            if callback is not None:
                callback(i, x0, x, len(sigmas))
        return latent_image


@dataclass(frozen=True)
class ImageRecordingSettings:
    """Hold what the user chose for recording from images."""

    levels: Sequence[float]
    """Levels (log-SNR) at which every picture is recorded."""
    seed: int
    """Seed of the noise of the first image; image i has this seed + i."""
    batch_size: int
    """Number of pictures per call."""
    spatial_levels: tuple[float, ...] = ()
    """Levels near which h is also kept unpooled."""
    site: str = MIDDLE
    """Where h is read."""


def record_images(
    model: Model, vae: Vae, positive: Conditioning, pictures: Pictures, name: str, settings: ImageRecordingSettings
) -> RecordingOutcome:
    """Record the pictures that the set ``name`` does not have yet.

    Every picture is recorded at every level, with new noise for each.
    Raises ValueError where the set was recorded with other settings, the model lacks a level or the site, or the disk is too small; the
    host's exception where the user interrupts. What was recorded by then stays.
    """
    levels, seed, batch_size = settings.levels, settings.seed, settings.batch_size
    sigmas = level_sigmas(model, levels)
    recording = RecordingSettings(spatial_levels=settings.spatial_levels, site=settings.site)
    meta = {"source": "images", **pictures.facts, "seed": seed, "levels": sorted(levels), "conditioning": conditioning_facts(positive)}
    recorder = Recorder(model, name, recording, meta)
    done = {e.file for e in recorder.writer.entries}
    left = [n for n in pictures.names if n not in done]
    if not left:
        return recorder.outcome(latest=batch_size)
    probe = vae.encode(pictures.read(left[0])[None])
    recorder.claim(model, len(left), len(sigmas), probe.shape, pictures.bytes_each(left))

    recordings: list[Recording] = []
    patched = apply_recording(model, recording, recordings.append)
    chunks = [left[i : i + batch_size] for i in range(0, len(left), batch_size)]
    watcher = Watcher(model, len(chunks), "Record Features From Images")
    latest = None
    for chunk in chunks:
        watcher.next_batch()
        for names, batch in _equal_sizes(pictures, chunk):
            ids = [recorder.writer.next_id + i for i in range(len(names))]
            seeds = [(seed + i) % 2**63 for i in ids]
            latents = vae.encode(batch)
            noise = torch.stack([_noise(s, (len(sigmas), *latents.shape[1:])) for s in seeds], dim=1)
            recordings.clear()
            guider = comfy.samplers.CFGGuider(patched)
            guider.set_conds(positive, positive)
            guider.set_cfg(1.0)
            guider.sample(
                torch.zeros_like(latents, dtype=torch.float32), latents, OncePerLevel(noise), sigmas, callback=watcher.step, seed=seed
            )
            for file, picture in zip(names, batch, strict=True):
                pictures.keep(file, picture, recorder.picture(file))
            recorder.add(recordings[-1], names, seeds, [caption(model, positive)] * len(names))
            latest = batch
    return recorder.outcome(latest)


def level_sigmas(model: Model, levels: Sequence[float]) -> Tensor:
    """Convert levels to sigmas [levels], noisiest first.

    Raises ValueError without levels, or for one that the model does not have.
    """
    if not levels:
        raise ValueError("the list of noise levels is empty: write some log-SNR values, such as -4, -2, 0, 2, 4.")
    low, high = level_range(model)
    outside = [v for v in levels if not low - 0.01 <= v <= high + 0.01]
    if outside:
        raise ValueError(
            f"this model has noise levels from log-SNR {low:.2f} to {high:.2f}, and {outside[0]:.2f} is outside: remove it from the list."
        )
    return sigmas_at(levels)


def _noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Make the noise of one image at every level.

    It does not depend on the batch.
    """
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _equal_sizes(pictures: Pictures, names: Sequence[str]) -> Iterator[tuple[list[str], Tensor]]:
    """Yield names and IMAGE [N, H, W, 3] of consecutive pictures of one size."""
    read = [(n, pictures.read(n)) for n in names]
    for _, group in groupby(read, key=lambda pair: pair[1].shape):
        pairs = list(group)
        yield [n for n, _ in pairs], torch.stack([p for _, p in pairs])
