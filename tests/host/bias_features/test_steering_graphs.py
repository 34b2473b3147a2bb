"""The graphs that find bias features and steer by them, queued over HTTP on both supported hosts."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import numpy as np
from equipoise.benchmarks.core.graph_server import REPOSITORY, PromptOutcome, Server
from equipoise_workflow import to_api

QUICK_FIND, QUICK_STEER = "Lab find_bias_features_quickstart", "Lab bias_feature_steer_quickstart"
IMAGES = 48
SMALL = {
    "EquipoiseEmptyPixelLatent": {"batch_size": 8},
    "EquipoiseRecordFeatures": {"images": IMAGES, "steps": 6},
    "EquipoiseTrainSAE": {"latents": 128, "k": 8, "steps": 40, "batch": 256},
    "EquipoiseFindBiasFeatures": {"per_class": 8},
    "EquipoiseFeatureAtlas": {"count": 3},
    "EquipoiseLearnFeatureProfiles": {"more": 8, "fit_steps": 4, "batch": 8},
    "EquipoiseCalibrateBiasFeatures": {"images": 8, "steps": 2},
    "EquipoiseSteerSweep": {"points": 3, "steps": 2},
}
"""What makes the graph of six minutes one of half a minute. Nothing is said of how well what it finds steers."""


def prompt_of(server: Server, name: str) -> dict[str, Any]:
    workflow = json.loads((REPOSITORY / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    return to_api(workflow, server.get("/object_info"))


def node_of(prompt: dict[str, Any], kind: str) -> str:
    (found,) = [key for key, node in prompt.items() if node["class_type"] == f"Equipoise{kind}"]
    return found


def text_of(outcome: PromptOutcome, prompt: dict[str, Any], kind: str) -> str:
    return "".join(outcome.outputs[node_of(prompt, kind)]["text"])


def shares(report: str) -> list[float]:
    """Share of the class at every strength of a sweep."""
    return [float(share) / 100 for share in re.findall(r"strength [+-][\d.]+: ([\d.]+)% of", report)]


def test_from_nothing_but_the_model_to_features_that_steer(server: Server) -> None:
    prompt, name = prompt_of(server, QUICK_FIND), "steering graph"
    for node in prompt.values():
        node["inputs"] |= SMALL.get(node["class_type"], {})
        for field in ("name", "set_name"):
            if field in node["inputs"]:
                node["inputs"][field] = name
    outcome = server.queue(prompt)
    assert not outcome.error
    assert "unpooled maps of 96 x 8 x 8" in text_of(outcome, prompt, "RecordFeatures")
    assert "96 channels, 128 latents, the 8 largest" in text_of(outcome, prompt, "TrainSAE")
    found = text_of(outcome, prompt, "FindBiasFeatures")
    assert re.search(r"eyeglasses: \d+ features \(yes [1-8], no [1-8]\)", found), found
    assert text_of(outcome, prompt, "FeatureAtlas").count("most excited: ") == 3
    assert re.search(r"eyeglasses: [1-8] features added for their effect", text_of(outcome, prompt, "LearnFeatureProfiles"))
    assert "of 8 images" in text_of(outcome, prompt, "CalibrateBiasFeatures")
    assert len(shares(text_of(outcome, prompt, "SteerSweep"))) == 3
    charts = ["TrainSAE", "FindBiasFeatures", "FeatureAtlas", "LearnFeatureProfiles", "CalibrateBiasFeatures"]
    assert all(server.images(outcome, node_of(prompt, kind)).shape[2] == 960 for kind in charts)
    models = server.base / "models" / "equipoise"
    assert all((models / folder / f"{name}.safetensors").is_file() for folder in ("sae", "bias_features"))

    steer = prompt_of(server, QUICK_STEER)
    steer[node_of(steer, "LoadSAE")]["inputs"]["sae_name"] = f"{name}.safetensors"
    steer[node_of(steer, "LoadBiasFeatures")]["inputs"]["bias_features_name"] = f"{name}.safetensors"
    for node in steer.values():
        if node["class_type"] == "EquipoiseEmptyPixelLatent":
            node["inputs"]["batch_size"] = 2
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 3
    outcome = server.queue(steer)
    assert not outcome.error
    assert "target eyeglasses" in text_of(outcome, steer, "BiasFeatureSteer")
    assert len(shares(text_of(outcome, steer, "SteerSweep"))) == 5


SHIPPED = (
    "diffusion/portraits", "sae/portraits", "bias_features/portraits", "adp/portraits", "attribute_classifiers/portraits_judge",
)  # fmt: skip


def discrepancy(text: str) -> float:
    """FD from the histogram's summary; the first one is that of the images."""
    return float(text.split("FD ", 1)[1].split()[0].rstrip(";"))


def test_the_steering_quickstart_meets_its_target_with_what_ships(server: Server) -> None:
    missing = [file for file in SHIPPED if not (REPOSITORY / "shipped" / "weights" / f"{file}.safetensors").is_file()]
    assert not missing, f"shipped/weights lacks {', '.join(missing)} (.safetensors), which '{QUICK_STEER}' loads: ship them."
    workflow = json.loads((REPOSITORY / "workflows" / f"{QUICK_STEER}.json").read_text(encoding="utf-8"))
    prompt = to_api(workflow, server.get("/object_info"))
    outcome = server.queue(prompt)
    assert not outcome.error
    nodes = sorted(workflow["nodes"], key=lambda n: n["pos"][0])  # before stands left of after, and the strip right of both
    before, after, strip = (server.images(outcome, str(n["id"])) for n in nodes if n["type"] == "PreviewImage")
    assert before.shape == after.shape == (16, 128, 128, 3) and strip.shape[0] == 1
    assert before.std() > 10 and not np.array_equal(before, after)
    plain, steered = ("".join(outcome.outputs[str(n["id"])]["text"]) for n in nodes if n["type"] == "EquipoiseAttributeHistogram")
    assert "baseline" in steered and discrepancy(steered) <= discrepancy(plain)
    assert discrepancy(steered) < 0.2, f"steered images miss the target by far: {steered}"
    told = text_of(outcome, prompt, "BiasFeatureSteer")
    assert "eyeglasses at output.1" in told and ", calibrated, " in told and "averaged over the classes" not in told
    found = shares(text_of(outcome, prompt, "SteerSweep"))
    assert len(found) == 5 and all(b >= a - 1 / 8 for a, b in pairwise(found)), f"a stronger steer does less: {found}"
    assert found[0] <= 1 / 4 and found[-1] >= 3 / 4, f"the ends of the sweep are not far apart: {found}"
