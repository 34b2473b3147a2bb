"""Record Features: sample batch after batch with the host's sampler, and keep what the U-Net's middle block held."""

from __future__ import annotations

from typing import Any

import comfy.sample
import comfy.samplers
import comfy.utils
from torch import Tensor

from ...methods.data.recording import Recording, RecordingSettings
from ..core.sampling import SamplerSettings
from ..core.versions import fitting_latent
from .feature_sets import write_picture
from .recorder import Outcome, Recorder, Watcher
from .recording import apply_recording, caption, conditioning_facts, tensor_facts

AHEAD = 64
"""Prompts that are encoded at a time: text encoder and U-Net seldom fit in memory together, and thousands of prompts do not either."""
_CALLS = {"heunpp2": 3, "heun": 2, "dpm_2": 2, "dpmpp_2s": 2, "dpmpp_sde": 2, "exp_heun": 2, "seeds_2": 2, "seeds_3": 3, "dpm_adaptive": 4}
"""Calls per step of samplers of higher order, by the beginning of their names; only for saying how much disk is needed."""


class PromptConditions:
    """Prompts in turn, one per batch, encoded as CLIP Text Encode does. Raises ValueError where there is none."""

    def __init__(self, clip: Any, prompts: str, negative: str) -> None:
        self._prompts = [line.strip() for line in prompts.splitlines() if line.strip()]
        if not self._prompts:
            raise ValueError("the list of prompts is empty: write at least one prompt, a line each.")
        self._clip, self._encoded = clip, {}
        self._negative = self._encode(negative)
        encoder = conditioning_facts(self.at(0)[0])
        self.facts = {"prompts": self._prompts, "negative": negative, "text_encoder": encoder}

    def at(self, batch: int) -> tuple[Any, Any, str]:
        """Positive, negative and prompt of a batch."""
        n = len(self._prompts)
        if batch % n not in self._encoded:
            self._encoded = {i: self._encode(self._prompts[i]) for i in ((batch + k) % n for k in range(min(n, AHEAD)))}
        return self._encoded[batch % n], self._negative, self._prompts[batch % n]

    def _encode(self, text: str) -> Any:
        return self._clip.encode_from_tokens_scheduled(self._clip.tokenize(text))


class GivenConditions:
    """A CONDITIONING for every batch; the positive stands in for a negative that is not given."""

    def __init__(self, model: Any, positive: Any, negative: Any = None) -> None:
        self._positive, self._negative = positive, positive if negative is None else negative
        self._caption = caption(model, positive)
        self.facts = {"conditioning": conditioning_facts(positive), "negative_conditioning": conditioning_facts(self._negative)}

    def at(self, batch: int) -> tuple[Any, Any, str]:
        return self._positive, self._negative, self._caption


def record_samples(
    model: Any,
    vae: Any,
    conditions: PromptConditions | GivenConditions,
    latent: dict[str, Any],
    name: str,
    images: int,
    sampler: SamplerSettings,
    recording: RecordingSettings,
) -> Outcome:
    """Sample until the set ``name`` holds ``images`` images; goes on where an earlier run stopped.

    Batch b has the b-th prompt in turn and seed ``sampler.seed`` + b; its size is that of ``latent``. Raises ValueError where the set was
    recorded otherwise, the disk is too small, or nothing can be recorded; the host's exception where the user interrupts. What is
    recorded by then stays.
    """
    start = fitting_latent(model, latent)
    batch = start.shape[0]
    meta = {
        "source": "samples",
        "latent": list(start.shape[1:]),
        "latent_image": tensor_facts(start) if start.count_nonzero() else None,
        "batch_size": batch,
        "first_seed": sampler.seed,
        "steps": sampler.steps,
        "cfg": sampler.cfg,
        "sampler": sampler.sampler_name,
        "scheduler": sampler.scheduler,
        "denoise": sampler.denoise,
        "every": recording.every,
        "unconditional_rows": recording.unconditional,
        **conditions.facts,
    }
    recorder = Recorder(model, name, recording, meta)
    first = recorder.writer.next_id
    end = first + max(0, images - len(recorder.writer.entries))
    if first == end:
        return recorder.outcome(latest=batch)
    rows = -(-_calls(model, sampler) // recording.every) * (1 + recording.unconditional)
    ratio = vae.upscale_ratio if isinstance(getattr(vae, "upscale_ratio", None), int) else 8
    recorder.claim(model, end - first, rows, start.shape, 3 * start.shape[-2] * start.shape[-1] * ratio**2)

    kept: list[Recording] = []
    patched = apply_recording(model, recording, kept.append)
    batches = list(batches_between(first, end, batch))
    watcher = Watcher(model, len(batches))
    for ids in batches:
        watcher.next_batch()
        index, places = ids[0] // batch, [i % batch for i in ids]
        seed = (sampler.seed + index) & 0xFFFFFFFFFFFFFFFF
        positive, negative, prompt = conditions.at(index)
        kept.clear()
        # Noise of the whole batch, of which a batch that is gone on with takes its part: the same images as in one go.
        noise = comfy.sample.prepare_noise(start, seed, latent.get("batch_index"))[places]
        samples = comfy.sample.sample(
            patched,
            noise,
            sampler.steps,
            sampler.cfg,
            sampler.sampler_name,
            sampler.scheduler,
            positive,
            negative,
            start[places],
            denoise=sampler.denoise,
            noise_mask=_picked(latent.get("noise_mask"), places, batch),
            callback=watcher.step,
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=seed,
        )
        pictures = vae.decode(samples)
        files = [f"{i:06d}.png" for i in ids]
        for file, picture in zip(files, pictures, strict=True):
            write_picture(picture, recorder.picture(file))
        recorder.add(kept[-1], files, [seed] * len(ids), [prompt] * len(ids), places)
    return recorder.outcome(pictures)


def batches_between(first: int, end: int, batch: int) -> list[range]:
    """Image ids of the batches from ``first`` to ``end``: batch b holds the ids from b x ``batch``, and the first and the last may be
    parts of one."""
    starts = [first, *range((first // batch + 1) * batch, end, batch)]
    return [range(a, b) for a, b in zip(starts, [*starts[1:], end], strict=True)]


def _calls(model: Any, s: SamplerSettings) -> int:
    sampler = comfy.samplers.KSampler(model, s.steps, model.load_device, s.sampler_name, s.scheduler, s.denoise, model.model_options)
    steps = len(sampler.sigmas) - 1
    if steps < 1:
        raise ValueError("denoise 0 leaves nothing to sample, so nothing can be recorded: set it above 0 (1 for an empty latent).")
    return steps * next((calls for begin, calls in _CALLS.items() if s.sampler_name.startswith(begin)), 1)


def _picked(mask: Tensor | None, places: list[int], batch: int) -> Tensor | None:
    """The noise mask of some images of a batch."""
    return mask[places] if mask is not None and mask.shape[0] == batch else mask
