"""Lists in a real server: a batch that is cut by ComfyUI's own nodes follows the target as the whole does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from equipoise.benchmarks.core.graph_server import Server

FILE = "portraits.safetensors"
IMAGES = 8


def graph(share: float, size: int) -> dict[str, Any]:
    """A batch of eight that Rebatch Latents cuts into parts; guided, decoded, joined and counted by the judge."""

    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    sampler = {"seed": 42, "steps": 20, "cfg": 1.0, "sampler_name": "ddim", "scheduler": "normal", "denoise": 1.0}
    guidance = {
        "mode": "quota", "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "rows": "cond", "direction": "calibrated",
        "assign": "auto", "seed": -1,
    }  # fmt: skip
    weights = f"yes={share}, no={1 - share}"
    return {
        "load": node("EquipoiseLoadUnconditionalDiffusion", model_name=FILE),
        "adp": node("EquipoiseLoadADP", adp_name=FILE),
        "target": node("EquipoiseTargetDistribution", attribute="eyeglasses", preset="weights", weights=weights, adp=["adp", 0]),
        "guide": node("EquipoiseDistributionGuidance", model=["load", 0], adp=["adp", 0], target=["target", 0], **guidance),
        "latent": node("EquipoiseEmptyPixelLatent", model=["load", 0], width=0, height=0, batch_size=IMAGES),
        "parts": node("RebatchLatents", latents=["latent", 0], batch_size=size),
        "draw": node(
            "KSampler", model=["guide", 0], positive=["load", 2], negative=["load", 2], latent_image=["parts", 0], **sampler
        ),
        "images": node("VAEDecode", samples=["draw", 0], vae=["load", 1]),
        "joined": node("RebatchImages", images=["images", 0], batch_size=IMAGES),
        "judge": node("EquipoiseLoadAttributeClassifier", classifier_name="portraits_judge.safetensors"),
        "count": node(
            "EquipoiseAttributeHistogram", attribute="", batch_size=1, images=["joined", 0], classifier=["judge", 0],
            target=["target", 0], assigned=["guide", 1],
        ),
        "text": node("PreviewAny", source=["count", 2]),
    }  # fmt: skip


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize(("share", "count"), [(0.5, 4), (0.25, 2)])
def test_a_rebatched_batch_follows_the_target(server: Server, share: float, count: int, size: int) -> None:
    outcome = server.queue(graph(share, size))
    assert not outcome.error
    counted = json.loads("".join(outcome.outputs["text"]["text"]))
    assert counted["panels"][0]["report"]["counts"] == [count, IMAGES - count]
    (thumbs,) = outcome.outputs["count"]["equipoise_thumbs"]
    assert json.dumps(thumbs).count('"assigned"') > 0, "what the parts were assigned is shown beside the joined images"
