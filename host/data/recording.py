"""Recording h as a patch of a host MODEL, and the facts by which a set knows its MODEL and CONDITIONING.

A recording changes no bit of the samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...methods.data.recording import Recording, RecordingRun, RecordingSettings
from ...models.digests import patched_weights_mark
from ...models.sites import MIDDLE
from ..core.hooks import run_of
from ..core.observer import WhenEnded
from ..core.patch import patch_model
from ..core.sites import base_model, site_channels
from ..core.types import Conditioning, Model
from ..small_models.adm_info import LABEL_KEY

RECORDINGS_KEY = "equipoise_recording"
"""In transformer options: the runs that record."""


def apply_recording(model: Model, settings: RecordingSettings, on_finish: Callable[[Recording], None]) -> Model:
    """Return a clone of MODEL whose samplings are recorded; the original stays as it was.

    ``on_finish`` gets the recording of every sampling that ended well. Raises ValueError where the model has no such site.
    """
    check_site(model, settings.site)
    keep = WhenEnded(lambda run: on_finish(run.recording))
    clone, handle = patch_model(model, lambda: RecordingRun(settings), [keep], key=RECORDINGS_KEY)

    def predict_noise(executor: Any, *args: Any, **kwargs: Any) -> Any:
        run = run_of(executor.class_obj.model_options.get("transformer_options", {}), handle, RECORDINGS_KEY)
        if run is None:
            return executor(*args, **kwargs)
        run.begin()
        out = executor(*args, **kwargs)
        run.end()
        return out

    clone.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, RECORDINGS_KEY, predict_noise)
    return clone


def check_site(model: Model, site: str) -> None:
    """Check that a MODEL has a site. Raises ValueError where it has not."""
    if site not in site_channels(model):
        raise ValueError(f"this MODEL has no site '{site}': choose one of {', '.join(site_channels(model))}.")


def model_facts(model: Model, site: str) -> dict[str, Any]:
    """Return what set.json says of a MODEL.

    Family, site, width, and a mark of its weights, by which a resume knows another model.
    """
    return {
        "base_model": base_model(model) or "",
        "site": site,
        "channels": site_channels(model)[site],
        "model": {"mark": weights_mark(model)},
    }


def map_size(model: Model, height: int, width: int, site: str = MIDDLE) -> tuple[int, int]:
    """Return height and width of h at a site, for latents of a size."""
    network = model.model.diffusion_model
    config = getattr(network, "config", None)  # of our own U-Net; the host's keeps its widths per level
    ratio = config.downscale if hasattr(config, "downscale") else 2 ** (len(network.channel_mult) - 1)
    before = [] if site == MIDDLE else network.output_blocks[: int(site.removeprefix("output.")) + 1]
    ratio >>= sum(any(type(m).__name__ == "Upsample" for m in block.modules()) for block in before)
    return -(-height // ratio), -(-width // ratio)


def weights_mark(model: Model) -> str:
    """Hash a few numbers of every weight, and of its patches.

    Weights count before patches (LoRA), and patches with their strengths.
    """
    return patched_weights_mark(model.get_key_patches("diffusion_model."))


def conditioning_facts(conditioning: Conditioning) -> dict[str, Any]:
    """Return what set.json says of a CONDITIONING.

    Per entry its class label, shape, and three numbers of its text features.
    """
    entries = []
    for text, extra in conditioning:
        entry: dict[str, Any] = {"label": extra[LABEL_KEY][0] if LABEL_KEY in extra else None}
        parts = {"text": text, "pooled": extra.get("pooled_output")}
        entries.append(entry | {k: tensor_facts(v) for k, v in parts.items() if isinstance(v, Tensor)})
    return {"entries": entries}


def tensor_facts(value: Tensor) -> dict[str, Any]:
    """Return the shape and three numbers of a tensor.

    They identify it even if devices round differently.
    """
    x = value.detach().float().cpu().flatten()
    along = (x * torch.cos(0.7 * torch.arange(len(x)))).sum() / max(1, len(x)) ** 0.5
    return {"shape": list(value.shape), "mark": [round(float(v), 5) for v in (x.mean(), x.square().mean().sqrt(), along)]}


def caption(model: Model, conditioning: Conditioning) -> str:
    """Return the name of the class that a conditioning asks for.

    "" without a class label.
    """
    label = conditioning[0][1].get(LABEL_KEY) if conditioning else None
    if label is None:
        return ""
    info = getattr(model.model, "equipoise_info", None)
    names = info.class_names if info is not None else ()
    if info is not None and label[0] == info.null_label:
        return ""
    return names[label[0]] if label[0] < len(names) else f"class {label[0]}"
