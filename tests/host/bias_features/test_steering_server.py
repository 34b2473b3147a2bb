"""Bias Feature Steer and Steer Sweep queued over HTTP, on both supported hosts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from equipoise.benchmarks.core.graph_server import Server
from equipoise.benchmarks.core.random_sae import random_bias, random_sae

ATTRIBUTES = {"eyeglasses": ("no", "yes")}
NAME = "random.safetensors"


@pytest.fixture
def steerable(server: Server) -> Server:
    """The server, with a random autoencoder for its tiny models and bias features in it."""
    from equipoise.models.bias_features import save_bias_features
    from equipoise.models.sae import save_sae

    folder = server.base / "models" / "equipoise"
    sae = random_sae(64, "output.1", "")
    for kind in ("sae", "bias_features"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    save_sae(sae, folder / "sae" / NAME)
    save_bias_features(random_bias(sae, ATTRIBUTES), folder / "bias_features" / NAME)
    return server


def graph(**changed: Any) -> dict[str, Any]:
    """A plain and a steered picture of one seed, and a sweep; "strength" and so on go to the steer."""

    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    sampler = {"seed": 5, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    drawn = {"positive": ["load", 2], "negative": ["load", 2], "latent_image": ["latent", 0], **sampler}
    edit = {
        "sae": ["sae", 0], "bias_features": ["bias", 0], "attribute": "eyeglasses", "class_name": "yes", "mode": "profile",
        "profile": "calibrated", "features": 0, "amount": 3.0, "rows": "cond", "start_percent": 0.0, "end_percent": 1.0,
        "rule": "one pass",
    }  # fmt: skip
    steer = {"strength": 1.0, "assign": "auto", "seed": 5, "target": ["target", 0], **edit, **changed}
    return {
        "load": node("EquipoiseLoadUnconditionalDiffusion", model_name="tiny_packed.safetensors"),
        "latent": node("EquipoiseEmptyPixelLatent", model=["load", 0], width=0, height=0, batch_size=2),
        "sae": node("EquipoiseLoadSAE", sae_name=NAME),
        "bias": node("EquipoiseLoadBiasFeatures", bias_features_name=NAME),
        "target": node(
            "EquipoiseTargetDistribution", attribute="eyeglasses", preset="uniform", weights="", bias_features=["bias", 0]
        ),
        "steer": node("EquipoiseBiasFeatureSteer", model=["load", 0], **steer),
        "plain": node("KSampler", model=["load", 0], **drawn),
        "steered": node("KSampler", model=["steer", 0], **drawn),
        "plain_image": node("VAEDecode", samples=["plain", 0], vae=["load", 1]),
        "steered_image": node("VAEDecode", samples=["steered", 0], vae=["load", 1]),
        "show_plain": node("PreviewImage", images=["plain_image", 0]),
        "show_steered": node("PreviewImage", images=["steered_image", 0]),
        "sweep": node("EquipoiseSteerSweep", model=["load", 0], vae=["load", 1], lowest=-1.0, highest=1.0, points=3, **edit, **drawn),
        "show_sweep": node("PreviewImage", images=["sweep", 1]),
        "report": node("PreviewAny", source=["sweep", 2]),
    }  # fmt: skip


def test_a_steered_picture_and_a_sweep(steerable: Server) -> None:
    outcome = steerable.queue(graph())
    assert not outcome.error
    plain, steered, swept = (steerable.images(outcome, f"show_{what}") for what in ("plain", "steered", "sweep"))
    assert not np.array_equal(plain, steered) and swept.shape[0] == 6 and np.array_equal(swept[2:4], plain)
    assert steerable.images(outcome, "sweep").shape[0] == 1
    assert "images get their classes at random from the seed" in "".join(outcome.outputs["steer"]["text"])
    assert "strength -1, 0, 1; 2 images each" in "".join(outcome.outputs["report"]["text"])
    off = steerable.queue(graph(strength=0.0))
    assert not off.error and np.array_equal(steerable.images(off, "show_steered"), plain) and "sweep" in off.cached


def test_bad_input_reaches_the_user_as_one_sentence(steerable: Server) -> None:
    for changed, part in (({"class_name": "maybe"}, "no class 'maybe'"), ({"attribute": "beard"}, "no bias features of 'beard'")):
        wrong = graph(**changed)
        del wrong["steer"]["inputs"]["target"]
        said = steerable.queue(wrong).error
        assert part in said and "\n" not in said and said.endswith(".")
