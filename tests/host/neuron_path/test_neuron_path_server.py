"""Neuron paths queued over HTTP, on both supported hosts: found in the shipped labeller, made class paths, saved and loaded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from equipoise.benchmarks.core.graph_server import Server
from PIL import Image

NAME = "server_paths"


@pytest.fixture
def portraits(server: Server) -> Server:
    """The server, with three portraits side by side in a folder of pictures."""
    from equipoise.factory.portraits import portraits as draw

    drawn = (draw(3, seed=11).images.movedim(1, -1).float().clamp(0, 1) * 255).byte().numpy()
    (server.base / "input").mkdir(exist_ok=True)
    for i, picture in enumerate(drawn):
        Image.fromarray(picture).save(server.base / "input" / f"portrait_{i}.png")
    return server


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def graph(**changed: Any) -> dict[str, Any]:
    """Three images; a search and a baseline, a class path of the search's, and its file. Changes go to the search."""
    asked = {"images": ["all", 0], "classifier": ["labeller", 0], "attribute": "hair", "target": ""}
    asked |= {"objective": "margin", "nodes": "gauss-4", "top_k": 1, "shared": False, "memory_mb": 256}
    measured = {"images": ["all", 0], "classifier": ["labeller", 0]}
    return {
        **{f"image_{i}": node("LoadImage", image=f"portrait_{i}.png") for i in range(3)},
        "two": node("ImageBatch", image1=["image_0", 0], image2=["image_1", 0]),
        "all": node("ImageBatch", image1=["two", 0], image2=["image_2", 0]),
        "labeller": node("EquipoiseLoadAttributeClassifier", classifier_name="portraits_labeller.safetensors"),
        "found": node("EquipoiseFindNeuronPath", **{**asked, "search": "paper", "shortlist": 8, **changed}),
        "other": node("EquipoiseBaselinePaths", **asked, method="knowledge-neurons", seed=0),
        "class": node("EquipoiseClassPath", neuron_path=["found", 0], **measured, rule="mean score", draws=20, seed=0),
        "save": node("EquipoiseSaveNeuronPath", neuron_path=["found", 0], name=NAME, overwrite=True),
        "chart": node("PreviewImage", images=["found", 1]),
        "report": node("PreviewAny", source=["found", 2]),
        "other_report": node("PreviewAny", source=["other", 2]),
        "class_chart": node("PreviewImage", images=["class", 1]),
        "class_report": node("PreviewAny", source=["class", 2]),
    }


def text(outcome: Any, name: str) -> str:
    return "".join(outcome.outputs[name]["text"])


def test_paths_found_in_a_server_are_those_of_the_search_itself(portraits: Server) -> None:
    import torch
    from equipoise.methods.neuron_path.path_settings import PAPER, PathSettings
    from equipoise.methods.neuron_path.search import find_paths
    from equipoise.models.neuron_adapters import of_classifier
    from equipoise.models.neuron_path import load_neuron_path
    from equipoise.shipped import weights

    outcome = portraits.queue(graph())
    assert not outcome.error
    saved = load_neuron_path(portraits.base / "models" / "equipoise" / "neuron_paths" / f"{NAME}.safetensors")
    labeller = weights.classifier()
    pictures = [np.asarray(Image.open(portraits.base / "input" / f"portrait_{i}.png")) for i in range(3)]
    pixels = labeller.preprocess(torch.from_numpy(np.stack(pictures)).movedim(-1, 1).float() / 255)
    found = find_paths(of_classifier(labeller, "hair"), pixels, saved.targets(), PathSettings(PAPER, objective="margin"))
    assert torch.equal(saved.path, found.path) and torch.allclose(saved.joint, found.joint.float(), rtol=1e-4)
    chart, of_classes = portraits.images(outcome, "chart"), portraits.images(outcome, "class_chart")
    assert chart.shape[0] == of_classes.shape[0] == 1 and chart.shape[2] == of_classes.shape[2] == 960 and chart.std() > 5
    assert "hair by paper in portraits_labeller.safetensors" in text(outcome, "report")
    assert "hair by knowledge-neurons" in text(outcome, "other_report") and "class paths by mean score" in text(outcome, "class_report")
    loaded = {
        "load": node("EquipoiseLoadNeuronPath", neuron_path_name=f"{NAME}.safetensors"),
        "text": node("PreviewAny", source=["load", 1]),
    }
    assert saved.fingerprint in text(portraits.queue(loaded), "text")


def test_what_is_wrong_is_said_on_the_node(portraits: Server) -> None:
    for changed, said in (
        ({"target": "bald"}, "the head 'hair' has no class 'bald': it has short, long."),
        ({"attribute": ""}, "name the attribute whose paths are to be found."),
    ):
        assert said in portraits.queue(graph(**changed)).error
