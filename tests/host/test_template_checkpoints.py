"""The graphs for SD 1.5 and SDXL, queued through a server on whole checkpoints with random weights, at a small size.

A checkpoint holds a U-Net that the host takes for the real one, with the same depth but the width of its first level throughout, and text
encoders and a VAE of the real size. Nothing is said of how well anything guides: only that every node of the graph takes what it is given.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise_checkpoints import CONFIGS, PREFIX, random_tensors, write_checkpoint
from equipoise_server import REPOSITORY, Server
from equipoise_workflow import to_api

CLASSES = {"gender_presentation": ("feminine", "masculine")}
WIDTH = 320
KINDS = {"sd15": "v1-5-pruned-emaonly-fp16", "sdxl": "sd_xl_base_1.0"}
SMALL = {"EmptyLatentImage": {"width": 64, "height": 64, "batch_size": 2}, "KSampler": {"steps": 2}}
VAE = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128, "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip
TEXT = {
    "sd15": {"cond_stage_model.transformer.": "sd1_clip_config.json"},
    "sdxl": {
        "conditioner.embedders.0.transformer.": "sd1_clip_config.json",
        "conditioner.embedders.1.model.transformer.": "clip_config_bigg.json",
    },
}  # fmt: skip
"""Where a checkpoint keeps its text encoders, and the host's file that tells their shape."""


def shapes(kind: str, host: Path) -> dict[str, torch.Size]:
    """Every tensor of a checkpoint, read off the host's own networks on the meta device."""
    import comfy.ops
    from comfy.clip_model import CLIPTextModel
    from comfy.ldm.models.autoencoder import AutoencoderKL
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    plain = comfy.ops.disable_weight_init
    config = CONFIGS[kind]
    narrow = config | {"channel_mult": [1] * len(config["channel_mult"])}
    found = {PREFIX: UNetModel(**narrow, device="meta", operations=plain)}
    for prefix, file in TEXT[kind].items():
        text = json.loads((host / "comfy" / file).read_text(encoding="utf-8"))
        found[prefix] = CLIPTextModel(text, torch.float16, "meta", plain)
    with torch.device("meta"):
        found["first_stage_model."] = AutoencoderKL(ddconfig=VAE, embed_dim=4)
    return {prefix + key: value.shape for prefix, network in found.items() for key, value in network.state_dict().items()}


@pytest.fixture(scope="module", params=list(KINDS))
def served(
    request: pytest.FixtureRequest,
    host: Any,
    tmp_path_factory: pytest.TempPathFactory,
    load_module: Callable[[Path, str], Any],
    repository: Path,
) -> Iterator[tuple[str, Server]]:
    """A server with a checkpoint of one kind, and an ADP, an autoencoder and features for it under the graphs' names."""
    from equipoise.models.adp import save_adp
    from equipoise.models.bias_features import save_bias_features
    from equipoise.models.sae import save_sae

    kind = request.param
    adps, saes = (load_module(repository / "tests" / f"{n}.py", n) for n in ("equipoise_random_adp", "equipoise_random_sae"))
    server = Server(host.path, tmp_path_factory.mktemp(f"templates_{kind}"))
    places = {n: server.base / "models" / "equipoise" / n for n in ("adp", "sae", "bias_features")} | {
        "checkpoints": server.base / "models" / "checkpoints"
    }
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    file = places["checkpoints"] / f"{KINDS[kind]}.safetensors"
    try:
        write_checkpoint(file, random_tensors(shapes(kind, host.path)))
        save_adp(adps.random_adp(CLASSES, WIDTH, base_model=kind, size=0.3), places["adp"] / f"{kind}_gender_presentation.safetensors")
        sae = saes.random_sae(WIDTH, "middle", kind)
        save_sae(sae, places["sae"] / f"{kind}_middle.safetensors")
        save_bias_features(saes.random_bias(sae, CLASSES), places["bias_features"] / f"{kind}_gender_presentation.safetensors")
        with server:
            yield kind, server
    finally:
        file.unlink(missing_ok=True)  # gigabytes


def test_the_graphs_run_on_a_checkpoint_of_their_kind(served: tuple[str, Server]) -> None:
    kind, server = served
    for graph in (f"{kind}_distribution_guidance", f"bias_feature_steer_{kind}"):
        workflow = json.loads((REPOSITORY / "workflows" / f"{graph}.json").read_text(encoding="utf-8"))
        prompt = to_api(workflow, server.get("/object_info"))
        for node in prompt.values():
            node["inputs"] |= SMALL.get(node["class_type"], {})
        outcome = server.queue(prompt, limit=400)
        assert not outcome.error, f"{graph}: {outcome.error}"
        (saved,) = [key for key, node in prompt.items() if node["class_type"] == "SaveImage"]
        images = server.images(outcome, saved)
        assert images.shape == (2, 64, 64, 3) and not (images[0] == images[1]).all()
        told = "".join("".join(o["text"]) for o in outcome.outputs.values() if "text" in o)
        assert graph.startswith(kind) or "feminine" in told, told
