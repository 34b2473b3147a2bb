"""Recording h as a patch of a host MODEL, and what a MODEL is recorded as.

As in guidance, patch and wrappers are closures over immutable settings; what a run needs is made when sampling starts and dropped in
``finally``. No bit of the samples changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_patcher
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...methods.data.recording import Recording, RecordingRun, RecordingSettings
from ...models.digests import patched_weights_mark
from ...models.sites import MIDDLE, block_site
from ..core.patch import Handle, conditioning_roles
from ..core.sites import base_model, site_channels
from ..small_models.adm_info import LABEL_KEY

KEY = "equipoise_recording"


def apply_recording(model: Any, settings: RecordingSettings, on_finish: Callable[[Recording], None]) -> Any:
    """A clone of MODEL whose sampling runs are recorded; the original is left as it was. ``on_finish`` gets what a run that ended well
    has recorded. Raises ValueError where the model has no such site."""
    check_site(model, settings.site)
    handle = Handle()
    clone = model.clone()

    def run_of(options: dict[str, Any]) -> RecordingRun | None:
        return options.get(KEY, {}).get(handle)

    def patch(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        run = run_of(options)
        if run is not None and block_site(options["block"]) == settings.site:
            run.see(h, options, options[KEY].get("roles"))
        return h, skip

    def outer_sample(executor: Any, *args: Any, **kwargs: Any) -> Any:
        guider = executor.class_obj
        original = guider.model_options
        run = RecordingRun(settings)
        try:
            guider.model_options = comfy.model_patcher.create_model_options_clone(original)
            options = guider.model_options.setdefault("transformer_options", {})
            options[KEY] = {**options.get(KEY, {}), handle: run, "roles": conditioning_roles(guider)}
            out = executor(*args, **kwargs)
            on_finish(run.result())
            return out
        finally:
            guider.model_options = original
            run.release()

    def predict_noise(executor: Any, *args: Any, **kwargs: Any) -> Any:
        run = run_of(executor.class_obj.model_options.get("transformer_options", {}))
        if run is None:
            return executor(*args, **kwargs)
        run.begin()
        out = executor(*args, **kwargs)
        run.end()
        return out

    clone.set_model_output_block_patch(torch.compiler.disable(patch))
    # First in the list, as guidance is: what is recorded is what guidance will read.
    patches = clone.model_options["transformer_options"]["patches"]["output_block_patch"]
    patches.insert(0, patches.pop())
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, outer_sample)
    clone.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, predict_noise)
    return clone


def check_site(model: Any, site: str) -> None:
    """Raise ValueError where a MODEL has no such site."""
    if site not in site_channels(model):
        raise ValueError(f"this MODEL has no site '{site}', only {', '.join(site_channels(model))}: choose one of these.")


def model_facts(model: Any, site: str) -> dict[str, Any]:
    """What set.json says of a MODEL: family, site, width there, and marks of its weights, by which a resume knows another model."""
    return {
        "base_model": base_model(model) or "",
        "site": site,
        "channels": site_channels(model)[site],
        "model": {"mark": weights_mark(model)},
    }


def map_size(model: Any, height: int, width: int, site: str = MIDDLE) -> tuple[int, int]:
    """Height and width of a site's maps for latents of a size."""
    network = model.model.diffusion_model
    config = getattr(network, "config", None)  # of our own U-Net; the host's keeps its widths per level
    ratio = config.downscale if hasattr(config, "downscale") else 2 ** (len(network.channel_mult) - 1)
    before = [] if site == MIDDLE else network.output_blocks[: int(site.removeprefix("output.")) + 1]
    ratio >>= sum(any(type(m).__name__ == "Upsample" for m in block.modules()) for block in before)
    return -(-height // ratio), -(-width // ratio)


def weights_mark(model: Any) -> str:
    """Hash a few numbers of every weight, before patches, and of the patches (LoRA): which weights, and how strong."""
    return patched_weights_mark(model.get_key_patches("diffusion_model."))


def conditioning_facts(conditioning: Any) -> dict[str, Any]:
    """What set.json says of a CONDITIONING: per entry its class label, shape, and three numbers of its text features."""
    entries = []
    for text, extra in conditioning:
        entry: dict[str, Any] = {"label": extra[LABEL_KEY][0] if LABEL_KEY in extra else None}
        parts = {"text": text, "pooled": extra.get("pooled_output")}
        entries.append(entry | {k: tensor_facts(v) for k, v in parts.items() if isinstance(v, Tensor)})
    return {"entries": entries}


def tensor_facts(value: Tensor) -> dict[str, Any]:
    """Shape and three numbers of a tensor, by which another one is known even where devices round otherwise."""
    x = value.detach().float().cpu().flatten()
    along = (x * torch.cos(0.7 * torch.arange(len(x)))).sum() / max(1, len(x)) ** 0.5
    return {"shape": list(value.shape), "mark": [round(float(v), 5) for v in (x.mean(), x.square().mean().sqrt(), along)]}


def caption(model: Any, conditioning: Any) -> str:
    """The class that a conditioning asks for, by its name where the model's file names it; "" without a class label."""
    label = conditioning[0][1].get(LABEL_KEY) if conditioning else None
    if label is None:
        return ""
    info = getattr(model.model, "equipoise_info", None)
    names = info.class_names if info is not None else ()
    if info is not None and label[0] == info.null_label:
        return ""
    return names[label[0]] if label[0] < len(names) else f"class {label[0]}"
