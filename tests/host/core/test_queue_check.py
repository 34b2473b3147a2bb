"""Faults that are said before a graph runs: an ADP of another model family, a strength out of range."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
from equipoise.benchmarks.core.graph_server import Server
from equipoise.benchmarks.core.random_adp import random_adp
from equipoise.benchmarks.core.random_checkpoints import shapes

FAMILIES = ("sd15", "sdxl")


def write_empty(path: Path, tensors: dict[str, Any]) -> Path:
    """Write a safetensors file with these shapes and a hole in place of the values."""
    header, end = {}, 0
    for name, shape in tensors.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)
    return path


@pytest.fixture
def checkpoints(tmp_path: Path) -> dict[str, Path]:
    return {kind: write_empty(tmp_path / f"{kind}.safetensors", shapes(kind)) for kind in FAMILIES}


def test_the_family_of_a_file_is_read_from_its_header(prompt: Any, checkpoints: dict[str, Path], repository: Path, tmp_path: Path) -> None:
    from equipoise.host.core.model_family import family_of_file

    assert {kind: family_of_file(path) for kind, path in checkpoints.items()} == {kind: kind for kind in FAMILIES}
    weights = repository / "shipped" / "weights" / "diffusion"
    assert family_of_file(weights / "portraits.safetensors") not in (None, *FAMILIES)
    (tmp_path / "damaged.safetensors").write_bytes(b"\xff" * 40)
    assert family_of_file(tmp_path / "damaged.safetensors") is None and family_of_file(tmp_path / "none.safetensors") is None
    assert family_of_file(write_empty(tmp_path / "other.safetensors", {"weight": (3, 3)})) is None


def graph(**changed: Any) -> dict[str, Any]:
    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    guidance = {
        "mode": "quota", "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "rows": "cond", "direction": "calibrated",
        "assign": "auto", "seed": -1, **changed,
    }  # fmt: skip
    return {
        "load": node("CheckpointLoaderSimple", ckpt_name="sdxl.safetensors"),
        "freeu": node("FreeU", model=["load", 0], b1=1.1, b2=1.2, s1=0.9, s2=0.2),
        "adp": node("EquipoiseLoadADP", adp_name="of_sd15.safetensors"),
        "target": node("EquipoiseTargetDistribution", attribute="hair", preset="uniform", weights="", adp=["adp", 0]),
        "guide": node("EquipoiseDistributionGuidance", model=["freeu", 0], adp=["adp", 0], target=["target", 0], **guidance),
        "clip": node("CLIPTextEncode", text="", clip=["load", 1]),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "draw": node(
            "KSampler", model=["guide", 0], positive=["clip", 0], negative=["clip", 0], latent_image=["latent", 0], seed=0, steps=1,
            cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "image": node("VAEDecode", samples=["draw", 0], vae=["load", 2]),
        "show": node("PreviewImage", images=["image", 0]),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({}, "made for 'sd15' and the connected MODEL is 'sdxl'"), ({"strength": 200.0}, "strength is 200 and must be between 0 and 100")],
)
def test_the_server_refuses_what_does_not_fit(server: Server, checkpoints: dict[str, Path], changed: Any, reason: str) -> None:
    from equipoise.models.adp import save_adp

    models = server.base / "models"
    adp = models / "equipoise" / "adp" / "of_sd15.safetensors"
    adp.parent.mkdir(parents=True, exist_ok=True)
    save_adp(random_adp({"hair": ("short", "long")}, 1280, base_model="sd15"), adp)
    (models / "checkpoints").mkdir(parents=True, exist_ok=True)
    checkpoints["sdxl"].rename(models / "checkpoints" / "sdxl.safetensors")
    server.get("/object_info")  # lists the new files
    answer = server.post("/prompt", {"prompt": graph(**changed)})
    adp.unlink()
    (error,) = answer["node_errors"]["guide"]["errors"]
    assert reason in error["details"]


def test_a_missing_file_names_the_template_that_makes_it(server: Server, repository: Path) -> None:
    from equipoise.host.core.files import MAKERS

    templates = {path.stem for path in (repository / "workflows").glob("*.json")}
    assert templates and all(set(text.split("'")[1::2]) <= templates for text in MAKERS.values())
    answer = server.post("/prompt", {"prompt": graph()})
    details = [e["details"] for e in answer["node_errors"]["adp"]["errors"]]
    assert any("'of_sd15.safetensors' is not in models/equipoise/adp" in d and "3 Two prompts on your SD1.5" in d for d in details)
