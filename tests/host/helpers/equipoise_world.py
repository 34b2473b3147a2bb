"""Run a tiny model in the host's samplers, and check edits of h."""

from __future__ import annotations

import re
from typing import Any

from equipoise_tiny import tiny
from torch import Tensor

N = 4


class World:
    """A tiny model with its conditionings and an empty latent of N images."""

    def __init__(self, host: Any, name: str) -> None:
        from equipoise.host.small_models.adm_info import conditioning
        from equipoise.host.small_models.adm_model import empty_latent, patcher_from

        state_dict, meta = tiny(name)
        self.host = host
        self.model = patcher_from(f"tiny_{name}", state_dict, meta | {"base_model": "tiny"})
        info = self.model.model.equipoise_info
        self.positive = conditioning(info, 0 if info.num_classes else None)
        self.negative = conditioning(info, info.null_label)
        self.label = lambda label: conditioning(info, label)
        self.empty = lambda n: empty_latent(self.model, 0, 0, n)

    def sample(self, model: Any = None, n: int = N, positive: Any = None, **sampler: Any) -> Tensor:
        settings = {"seed": 5, "steps": 3, "cfg": 3.0, **sampler}
        latent = self.empty(n)
        return self.host.ksampler(model or self.model, positive or self.positive, self.negative, latent, **settings)["samples"]


class Broken(Exception):
    """Error that :func:`breaking` raises."""


def breaking(model: Any, at_call: int) -> Any:
    """Clone a model whose output patch fails at the middle block of one call."""
    calls: list[int] = []

    def patch(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        if options["block"] == ("output", 0):
            calls.append(1)
            if len(calls) == at_call:
                raise Broken("a later patch gave up")
        return h, skip

    clone = model.clone()
    clone.set_model_output_block_patch(patch)
    return clone


def far(a: Tensor, b: Tensor) -> bool:
    """Tell whether two images differ by more than rounding."""
    return float((a - b).abs().max()) > 1e-2


def placed(model: Any) -> tuple[int, int]:
    """Count the patches and wrappers of a MODEL."""
    options = model.model_options.get("transformer_options", {})
    wrappers = [w for kinds in model.wrappers.values() for ws in kinds.values() for w in ws]
    return sum(len(p) for p in options.get("patches", {}).values()), len(wrappers)


def sentence(error: Any) -> str:
    """Return a refusal's message: one line without a path of this machine."""
    text = str(error.value)
    assert "\n" not in text and text.endswith("."), text
    assert len(re.findall(r"[.!?](?=\s|$)", text.replace("...", ""))) == 1, text
    return text
