"""Record Features: sample batch after batch with ComfyUI's sampler, and record h at a site."""

from __future__ import annotations

from dataclasses import replace

import comfy.samplers

from ...methods.data.recording import Recording, RecordingSettings
from ..core.sampling import SamplerSettings, draw
from ..core.types import Clip, Conditioning, Latent, Model, Vae
from ..core.versions import fitting_latent
from .feature_sets import write_picture
from .recorder import Recorder, RecordingOutcome, Watcher
from .recording import apply_recording, caption, conditioning_facts, tensor_facts

AHEAD = 64
"""Prompts encoded at a time: text encoder and U-Net seldom fit in memory together, and neither do thousands of encoded prompts."""
_CALLS = {"heunpp2": 3, "heun": 2, "dpm_2": 2, "dpmpp_2s": 2, "dpmpp_sde": 2, "exp_heun": 2, "seeds_2": 2, "seeds_3": 3, "dpm_adaptive": 4}
"""Calls per step of samplers of higher order, by the beginning of their names; only to estimate disk space."""


class PromptConditions:
    """Give the prompts in turn, one per batch, encoded as CLIP Text Encode does.

    Raises ValueError without prompts.
    """

    def __init__(self, clip: Clip, prompts: str, negative: str) -> None:
        self._prompts = [line.strip() for line in prompts.splitlines() if line.strip()]
        if not self._prompts:
            raise ValueError("the list of prompts is empty: write at least one prompt, one per line.")
        self._clip, self._encoded = clip, {}
        self._negative = self._encode(negative)
        encoder = conditioning_facts(self.at(0)[0])
        self.facts = {"prompts": self._prompts, "negative": negative, "text_encoder": encoder}

    def at(self, batch: int) -> tuple[Conditioning, Conditioning, str]:
        """Return positive, negative and prompt of a batch."""
        n = len(self._prompts)
        if batch % n not in self._encoded:
            self._encoded = {i: self._encode(self._prompts[i]) for i in ((batch + k) % n for k in range(min(n, AHEAD)))}
        return self._encoded[batch % n], self._negative, self._prompts[batch % n]

    def _encode(self, text: str) -> Conditioning:
        return self._clip.encode_from_tokens_scheduled(self._clip.tokenize(text))


class GivenConditions:
    """Give the same CONDITIONING for every batch. Without a negative, the positive takes its place."""

    def __init__(self, model: Model, positive: Conditioning, negative: Conditioning | None = None) -> None:
        self._positive, self._negative = positive, positive if negative is None else negative
        self._caption = caption(model, positive)
        self.facts = {"conditioning": conditioning_facts(positive), "negative_conditioning": conditioning_facts(self._negative)}

    def at(self, batch: int) -> tuple[Conditioning, Conditioning, str]:
        """Return positive, negative and caption, which are the same for every batch."""
        return self._positive, self._negative, self._caption


def record_samples(
    model: Model,
    vae: Vae,
    conditions: PromptConditions | GivenConditions,
    latent: Latent,
    name: str,
    images: int,
    sampler: SamplerSettings,
    recording: RecordingSettings,
) -> RecordingOutcome:
    """Sample until the set ``name`` has ``images`` images; an earlier run is resumed.

    Batch b has the b-th prompt in turn and seed ``sampler.seed`` + b. Its size is that of ``latent``. Raises ValueError where the set was
    recorded with other settings, the disk is too small, or nothing can be recorded; the host's exception where the user interrupts. What
    was recorded by then stays.
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

    recordings: list[Recording] = []
    patched = apply_recording(model, recording, recordings.append)
    batches = list(batches_between(first, end, batch))
    watcher = Watcher(model, len(batches), "Record Features")
    for ids in batches:
        watcher.next_batch()
        index, image_index = ids[0] // batch, [i % batch for i in ids]
        seed = (sampler.seed + index) & 0xFFFFFFFFFFFFFFFF
        positive, negative, prompt = conditions.at(index)
        recordings.clear()
        # With the noise of the whole batch, a batch that is resumed gets the same images as in one go.
        settings, whole_batch = replace(sampler, seed=seed), {**latent, "samples": start}
        samples = draw(patched, settings, positive, negative, whole_batch, watcher.step, image_index)
        pictures = vae.decode(samples)
        files = [f"{i:06d}.png" for i in ids]
        for file, picture in zip(files, pictures, strict=True):
            write_picture(picture, recorder.picture(file))
        recorder.add(recordings[-1], files, [seed] * len(ids), [prompt] * len(ids), image_index)
    return recorder.outcome(pictures)


def batches_between(first: int, end: int, batch: int) -> list[range]:
    """Split the image ids from ``first`` to ``end`` into batches.

    Batch b has the ids from b x ``batch`` on; the first and the last batch may be incomplete.
    """
    starts = [first, *range((first // batch + 1) * batch, end, batch)]
    return [range(a, b) for a, b in zip(starts, [*starts[1:], end], strict=True)]


def _calls(model: Model, s: SamplerSettings) -> int:
    sampler = comfy.samplers.KSampler(model, s.steps, model.load_device, s.sampler_name, s.scheduler, s.denoise, model.model_options)
    steps = len(sampler.sigmas) - 1
    if steps < 1:
        raise ValueError("with denoise 0 nothing is sampled, so nothing can be recorded: set denoise above 0 (1 for an empty latent).")
    return steps * next((calls for begin, calls in _CALLS.items() if s.sampler_name.startswith(begin)), 1)
