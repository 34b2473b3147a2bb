"""The quickstart training graph through real servers: to an ADP that guides, killed and queued again; and what bad input is answered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.graph_server import REPOSITORY, Server
from equipoise.tests.equipoise_patience import PATIENCE
from equipoise_workflow import to_api
from safetensors import safe_open
from safetensors.torch import load_file, save_file

IMAGES = 48
SMALL = {
    "EquipoiseEmptyPixelLatent": {"batch_size": 8},
    "EquipoiseRecordFeatures": {"images": IMAGES, "steps": 6},
    "EquipoiseLearnDirections": {"fit_steps": 6, "batch": 8},
    "EquipoiseCalibrateADP": {"images": 8, "steps": 4},
}
"""What makes the graph of a quarter of an hour one of half a minute. Nothing is said of how well its ADP guides."""
SHIPPED = ("diffusion/portraits", "attribute_classifiers/portraits_labeller")


def small(server: Server, name: str) -> dict[str, Any]:
    """The graph in API form with little to do; set, fit, calibration and ADP are called ``name``."""
    missing = [f for f in SHIPPED if not (REPOSITORY / "shipped" / "weights" / f"{f}.safetensors").is_file()]
    if missing:
        pytest.skip(f"shipped/weights lacks {', '.join(missing)} (.safetensors): train them first.")
    workflow = json.loads((REPOSITORY / "workflows" / "Lab train_adp_quickstart.json").read_text(encoding="utf-8"))
    prompt = to_api(workflow, server.get("/object_info"))
    for node in prompt.values():
        node["inputs"] |= SMALL.get(node["class_type"], {})
        for field in ("name", "set_name"):
            if field in node["inputs"]:
                node["inputs"][field] = name
    return prompt


def node_of(prompt: dict[str, Any], kind: str) -> str:
    (found,) = [key for key, node in prompt.items() if node["class_type"] == kind]
    return found


def features(server: Server, name: str) -> Path:
    return server.base / "output" / "equipoise" / "features" / name


def recorded(server: Server, name: str) -> int:
    index = features(server, name) / "index.jsonl"
    return index.read_bytes().count(b"\n") if index.is_file() else 0


def checkpoints(server: Server, name: str) -> list[Path]:
    return sorted((features(server, name) / "training").glob("adp-*.safetensors"))


def adp_path(server: Server, name: str) -> Path:
    return server.base / "models" / "equipoise" / "adp" / f"{name}.safetensors"


def kill_when(server: Server, prompt: dict[str, Any], due: Callable[[], bool]) -> None:
    """Queue, and kill the server with SIGKILL as soon as ``due``; then start it again."""
    server.post("/prompt", {"prompt": prompt})
    until = time.monotonic() + PATIENCE
    while not due():
        assert time.monotonic() < until, server.text()[-2000:]
        time.sleep(0.001)
    server.kill()
    server.start()


def kept(server: Server, name: str) -> dict[str, bytes]:
    """The set's files but those that tell times: checkpoints, and readings that know how old a picture is."""
    place = features(server, name)
    return {p.name: p.read_bytes() for p in place.rglob("*") if p.is_file() and p.parent.name not in ("training", "labels")}


def test_from_an_empty_models_folder_to_an_adp_that_guides(server: Server) -> None:
    assert not (server.base / "models" / "equipoise" / "adp").is_dir() or not adp_path(server, "graph whole").exists()
    prompt = small(server, "graph whole")
    outcome = server.queue(prompt)
    assert not outcome.error
    text = {kind: "".join(outcome.outputs[node_of(prompt, kind)]["text"]) for kind in (
        "EquipoiseRecordFeatures", "EquipoiseTrainADP", "EquipoiseLearnDirections", "EquipoiseCalibrateADP", "EquipoiseADPInfo",
    )}  # fmt: skip
    assert f"'graph whole' holds {IMAGES} images" in text["EquipoiseRecordFeatures"]
    assert "eyeglasses" in text["EquipoiseTrainADP"] and f"{IMAGES} images" in text["EquipoiseTrainADP"]
    assert "judged by 'portraits_labeller.safetensors': eyeglasses" in text["EquipoiseLearnDirections"]
    assert "eyeglasses" in text["EquipoiseCalibrateADP"] and "learned" in text["EquipoiseCalibrateADP"]
    assert "eyeglasses" in text["EquipoiseADPInfo"]
    workflow = json.loads((REPOSITORY / "workflows" / "1 Start here, no download.json").read_text(encoding="utf-8"))
    guided = to_api(workflow, server.get("/object_info"))
    guided[node_of(guided, "EquipoiseLoadADP")]["inputs"]["adp_name"] = "graph whole.safetensors"
    guided[node_of(guided, "EquipoiseEmptyPixelLatent")]["inputs"]["batch_size"] = 4
    outcome = server.queue(guided)
    assert not outcome.error
    assert "assigned 4 images" in "".join(outcome.outputs[node_of(guided, "PreviewAny")]["text"])


def test_killed_while_recording_and_while_training_it_ends_as_if_it_had_not_been(server_current: Server) -> None:
    server = server_current
    if not adp_path(server, "graph whole").is_file():
        assert not server.queue(small(server, "graph whole")).error
    prompt = small(server, "graph cut")
    kill_when(server, prompt, lambda: recorded(server, "graph cut") >= IMAGES // 2)
    assert IMAGES // 2 <= recorded(server, "graph cut") < IMAGES
    kill_when(server, prompt, lambda: bool(checkpoints(server, "graph cut")))
    (checkpoint,) = checkpoints(server, "graph cut")
    with safe_open(str(checkpoint), "pt") as file:
        assert "generator" in file.keys(), "the training had ended before it was killed"  # noqa: SIM118 (not a dict)
    outcome = server.queue(prompt)
    assert not outcome.error
    assert recorded(server, "graph cut") == recorded(server, "graph whole") == IMAGES
    cut, whole = kept(server, "graph cut"), kept(server, "graph whole")
    assert cut.keys() == whole.keys() and [name for name in whole if cut[name] != whole[name]] == []
    one, other = load_file(adp_path(server, "graph cut")), load_file(adp_path(server, "graph whole"))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    left = [
        p.name for place in ("output", "models") for p in (server.base / place).rglob("*") if "partial" in p.name or p.name[:4] == ".tmp"
    ]
    assert not left


def save(server: Server, name: str, labels: str) -> None:
    (server.base / "input" / f"{name}.csv").write_text(labels, encoding="utf-8")


def test_bad_input_reaches_the_user_as_one_sentence(server: Server) -> None:
    def loader(node: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": f"Equipoise{node}", "inputs": inputs}

    record = {
        "load": loader("LoadUnconditionalDiffusion", model_name="tiny_packed.safetensors"),
        "latent": loader("EmptyPixelLatent", model=["load", 0], width=0, height=0, batch_size=4),
        "record": loader(
            "RecordFeatures", model=["load", 0], vae=["load", 1], latent_image=["latent", 0], set_name="bad", images=8, prompts="",
            negative_prompt="", first_seed=3, steps=2, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0, every=1,
            unconditional_rows=False, spatial_levels="", positive=["load", 2],
        ),
    }  # fmt: skip
    assert not server.queue(record).error
    rows = [f"{i:06d}.png,{'long' if i % 2 else 'short'}" for i in range(8)]

    def error(file: list[str], classes: str = "") -> str:
        """What a training from a CSV of these rows says."""
        save(server, "bad", "\n".join(["file,hair", *file]))
        graph = {
            "set": loader("LoadFeatures", set_name="bad"),
            "csv": loader("LabelFeaturesFromCSV", features=["set", 0], file_name="bad.csv", classes=classes, ignore_other_images=False),
            "train": loader("TrainADP", features=["set", 0], labels=["csv", 0], kind="mlp", epochs=1, seed=0),
            "show": {"class_type": "PreviewAny", "inputs": {"source": ["train", 2]}},
        }
        said = server.queue(graph).error
        assert "\n" not in said and said.endswith("."), said
        return said

    assert "1 labels are for images that are not in the set, the first is 'other.png'" in error([*rows, "other.png,long"])
    assert "labels 'hair' as 'curly', which is none of short, long" in error([*rows[:-1], "000007.png,curly"], "hair: short, long")
    assert "the class 'long' of 'hair' has no example" in error([row.replace("long", "short") for row in rows], "hair: short, long")
    shards = sorted(features(server, "bad").glob("shard-*.safetensors"))
    whole = shards[-1].read_bytes()
    tensors = load_file(shards[-1])
    tensors["features"][0] = float("nan")
    with safe_open(str(shards[-1]), "pt") as file:
        save_file(tensors, shards[-1], file.metadata())
    assert "are not finite" in error(rows)
    shards[-1].unlink()
    assert f"'bad' names '{shards[-1].name}', which is not in its folder" in error(rows)
    shards[-1].write_bytes(whole)
    pickled = server.base / "models" / "attribute_classifiers" / "pickled"
    pickled.mkdir(parents=True)
    (pickled / "config.json").write_text(
        json.dumps({"architectures": ["ViTForImageClassification"], "model_type": "vit"}), encoding="utf-8"
    )
    (pickled / "pytorch_model.bin").write_bytes(b"a pickle would stand here")
    graph = {
        "load": loader("LoadAttributeClassifier", classifier_name="pickled"),
        "show": {"class_type": "PreviewAny", "inputs": {"source": ["load", 1]}},
    }
    said = server.queue(graph).error
    assert "no .safetensors weights, and no other format is loaded" in said and "\n" not in said
