"""Record Features From Images: pictures are encoded, noised to chosen levels, and shown to the U-Net once per level."""

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
from ...models.noise_level import log_snr
from ...models.sites import MIDDLE
from .feature_sets import picture_files, read_picture, write_picture
from .recorder import Outcome, Recorder, Watcher
from .recording import apply_recording, caption, conditioning_facts


@dataclass(frozen=True)
class Pictures:
    """Where pictures come from: a folder below the host's input folder with names in it, or an IMAGE batch. ``size``: they are cropped
    to a centred square of that side; 0 leaves them as they are."""

    names: tuple[str, ...]
    origin: str = ""
    folder: Path | None = None
    batch: Tensor | None = None
    size: int = 0

    @staticmethod
    def choose(folder: str, batch: Tensor | None, size: int) -> Pictures:
        """Raises ValueError where both or neither are given."""
        if (batch is not None) == bool(folder.strip()):
            raise ValueError(
                "pictures come either from a folder below ComfyUI's input folder or from an IMAGE: "
                + ("give one of the two, not both." if batch is not None else "name a folder, or connect images.")
            )
        if batch is not None:
            return Pictures(tuple(f"{i:06d}.png" for i in range(len(batch))), batch=batch, size=size)
        place, names = picture_files(folder)
        return Pictures(tuple(names), folder.strip(), place, size=size)

    @property
    def facts(self) -> dict[str, Any]:
        """What set.json says of them. A folder may grow, and is known by its name; a batch has no names of its own, and is known by
        its pictures."""
        if self.batch is None:
            return {"folder": self.origin, "size": self.size}
        digest = hashlib.sha256((self.batch.float().clamp(0, 1) * 255).round().byte().cpu().numpy().tobytes()).hexdigest()
        return {"images": {"mark": digest[:16]}, "size": self.size}

    def read(self, name: str) -> Tensor:
        """float32 [H, W, 3] in 0..1, cropped."""
        picture = self.batch[self.names.index(name)][..., :3].float().cpu() if self.folder is None else read_picture(self.folder / name)
        if not self.size:
            return picture
        resized = comfy.utils.common_upscale(picture.movedim(-1, 0)[None], self.size, self.size, "lanczos", "center")
        return resized[0].movedim(0, -1).clamp(0, 1)

    def keep(self, name: str, picture: Tensor, path: Path) -> None:
        """Put the picture into the set: as the file that it is, or as it was cropped."""
        if self.folder is None or self.size:
            write_picture(picture, path)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        shutil.copyfile(self.folder / name, partial)
        partial.replace(path)

    def bytes_each(self, names: Sequence[str]) -> float:
        """Of a picture in the set, on average and at most."""
        if self.size or self.folder is None:
            side = self.size**2 if self.size else self.batch[0, ..., 0].numel()
            return 3 * side + 1000
        return sum((self.folder / n).stat().st_size for n in names) / len(names)


class OncePerLevel(comfy.samplers.Sampler):
    """A sampler that only looks: the clean latent noised to every sigma in turn, one call of the model each; the latent is returned."""

    def __init__(self, noise: Tensor) -> None:
        self.noise = noise  # [levels, N, C, H, W]

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
        scaling = model_wrap.inner_model.model_sampling.noise_scaling
        for i, sigma in enumerate(sigmas):
            x = scaling(sigma, self.noise[i].to(latent_image), latent_image)
            x0 = model_wrap(x, sigma.expand(len(x)), **extra_args)
            if callback is not None:
                callback(i, x0, x, len(sigmas))
        return latent_image


@dataclass(frozen=True)
class ImageRecording:
    """Settings of a recording from pictures."""

    levels: Sequence[float]
    """Noise levels, as log-SNR, at which every picture is recorded."""

    first_seed: int = 0
    """Seed of the noise of the first picture; each further picture adds 1."""

    batch: int = 4
    """Pictures per call of the denoiser, at most."""

    spatial: tuple[float, ...] = ()
    """Noise levels near which h is also kept without pooling."""

    site: str = MIDDLE
    """Site in the denoiser that is recorded."""


def record_images(model: Any, vae: Any, positive: Any, pictures: Pictures, name: str, settings: ImageRecording) -> Outcome:
    """Record every picture that a set does not hold yet, at every level of the settings.

    Each picture gets noise of its own. Raises ValueError where the set was recorded with other settings, the model lacks a level or the
    site, or the disk is too small; the host's exception where the user interrupts. Pictures recorded before that stay.
    """
    levels, seed, batch_size = settings.levels, settings.first_seed, settings.batch
    sigmas = level_sigmas(model, levels)
    recording = RecordingSettings(spatial_levels=settings.spatial, site=settings.site)
    meta = {"source": "images", **pictures.facts, "seed": seed, "levels": sorted(levels), "conditioning": conditioning_facts(positive)}
    recorder = Recorder(model, name, recording, meta)
    done = {e.file for e in recorder.writer.entries}
    left = [n for n in pictures.names if n not in done]
    if not left:
        return recorder.outcome(latest=batch_size)
    probe = vae.encode(pictures.read(left[0])[None])
    recorder.claim(model, len(left), len(sigmas), probe.shape, pictures.bytes_each(left))

    kept: list[Recording] = []
    patched = apply_recording(model, recording, kept.append)
    chunks = [left[i : i + batch_size] for i in range(0, len(left), batch_size)]
    watcher = Watcher(model, len(chunks))
    latest = None
    for chunk in chunks:
        watcher.next_batch()
        for names, batch in _equal_sizes(pictures, chunk):
            ids = [recorder.writer.next_id + i for i in range(len(names))]
            seeds = [(seed + i) % 2**63 for i in ids]
            latents = vae.encode(batch)
            noise = torch.stack([_noise(s, (len(sigmas), *latents.shape[1:])) for s in seeds], dim=1)
            kept.clear()
            guider = comfy.samplers.CFGGuider(patched)
            guider.set_conds(positive, positive)
            guider.set_cfg(1.0)
            guider.sample(
                torch.zeros_like(latents, dtype=torch.float32), latents, OncePerLevel(noise), sigmas, callback=watcher.step, seed=seed
            )
            for file, picture in zip(names, batch, strict=True):
                pictures.keep(file, picture, recorder.picture(file))
            recorder.add(kept[-1], names, seeds, [caption(model, positive)] * len(names))
            latest = batch
    return recorder.outcome(latest)


def level_sigmas(model: Any, levels: Sequence[float]) -> Tensor:
    """log-SNR levels as sigmas [levels], noisiest first. Raises ValueError where there is none, or the model knows no such noise."""
    if not levels:
        raise ValueError("no noise levels were given: write some log-SNR values, such as -4, -2, 0, 2, 4.")
    sampling = model.get_model_object("model_sampling")
    low, high = float(log_snr(float(sampling.sigma_max))), float(log_snr(float(sampling.sigma_min)))
    outside = [v for v in levels if not low - 0.01 <= v <= high + 0.01]
    if outside:
        raise ValueError(
            f"this model knows noise levels from log-SNR {low:.2f} to {high:.2f}, and {outside[0]:.2f} is asked for: take it off the list."
        )
    return torch.exp(-torch.tensor(sorted(levels)) / 2)


def _noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Of one image at every level, whatever batch it is in."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _equal_sizes(pictures: Pictures, names: Sequence[str]) -> Iterator[tuple[list[str], Tensor]]:
    """Names and IMAGE [N, H, W, 3] of pictures in a row that have one size."""
    read = [(n, pictures.read(n)) for n in names]
    for _, group in groupby(read, key=lambda pair: pair[1].shape):
        found = list(group)
        yield [n for n, _ in found], torch.stack([p for _, p in found])
