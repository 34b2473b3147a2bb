"""The graphs for SD 1.5 and SDXL, queued through a server on whole checkpoints with random weights, at a small size.

A checkpoint holds a U-Net that the host takes for the real one, with the same depth but the width of its first level throughout, and text
encoders and a VAE of the real size. Nothing is said of how well anything guides: only that every node of the graph takes what it is given.
The graphs that train sample, decode and label hundreds of pictures, those for predictors with a CLIP of the real size (two billion weights
for SDXL): they run where EQUIPOISE_SLOW_TEMPLATES is set, as the slow ones of tests/browser do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.graph_server import REPOSITORY, Server
from equipoise.benchmarks.core.random_adp import random_adp
from equipoise.benchmarks.core.random_checkpoints import CONFIGS, PREFIX, random_tensors, write_checkpoint
from equipoise.benchmarks.core.random_sae import random_bias, random_sae
from equipoise_workflow import to_api

CLASSES = {"gender_presentation": ("feminine", "masculine")}
WIDTH = 320
KINDS = {"sd15": "v1-5-pruned-emaonly-fp16", "sdxl": "sd_xl_base_1.0"}
TRAINED = "trained_here"
"""Name of what is trained; files of the graphs' own names are there already, for the graphs that load them."""
TRIAL = {"images": 8, "steps": 2}
SMALL = {
    "EmptyLatentImage": {"width": 64, "height": 64, "batch_size": 2},
    "KSampler": {"steps": 2},
    "EquipoiseRecordFeatures": {"images": 24, "steps": 2},
    "EquipoiseLabelFeatures": {"images_per_class": 2},
    "EquipoiseTrainADP": {"epochs": 2},
    "EquipoiseContrastDirections": {**TRIAL, "noise_levels": 2},
    "EquipoiseCalibrateADP": TRIAL,
    "EquipoiseTrainSAE": {"latents": 2 * WIDTH, "k": 8, "steps": 60, "batch": 256, "name": TRAINED},
    "EquipoiseSaveADP": {"name": TRAINED},
    "EquipoiseSaveBiasFeatures": {"name": TRAINED},
    "EquipoiseFindBiasFeatures": {"per_class": 2},
    "EquipoiseFeatureAtlas": {"count": 2},
    "EquipoiseLearnFeatureProfiles": {"more": 0, "fit_steps": 3, "batch": 2},
    "EquipoiseCalibrateBiasFeatures": TRIAL,
}
CLIPS = {
    "sd15": ("clip-vit-large-patch14", "clip_vision_config_vitl.json"),
    "sdxl": ("CLIP-ViT-bigG-14-laion2B-39B-b160k", "clip_vision_config_g.json"),
}
"""File that the graphs label with, and the host's file that tells its shape. That of SD 1.5 holds its text encoder as well."""
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


def write_clip(kind: str, host: Path, models: Path) -> Path:
    """A CLIP with random weights that read some pictures one way and some the other: what is bright in one is dark in another, and no bias,
    position or activation tells light from dark."""
    import comfy.ops
    from comfy.clip_model import CLIPTextModel, CLIPVisionModelProjection

    name, config = CLIPS[kind]
    plain = comfy.ops.disable_weight_init
    config = json.loads((host / "comfy" / config).read_text(encoding="utf-8"))
    networks = [CLIPVisionModelProjection(config, torch.float16, "meta", plain)]
    if kind == "sd15":
        text = json.loads((host / "comfy" / "sd1_clip_config.json").read_text(encoding="utf-8"))
        networks.append(CLIPTextModel(text, torch.float16, "meta", plain))
    tensors = random_tensors({key: value.shape for network in networks for key, value in network.state_dict().items()})
    for key, value in tensors.items():
        if key.startswith("vision_model.") and (key.endswith("fc2.weight") or "class_embedding" in key or "position_embedding" in key):
            tensors[key] = torch.zeros(1, dtype=torch.float16).expand(value.shape)
        elif key.endswith("patch_embedding.weight"):
            tensors[key] = value - value.float().mean((2, 3), keepdim=True).half()
    file = models / "clip_vision" / f"{name}.safetensors"
    write_checkpoint(file, tensors)
    (models / "text_encoders" / file.name).hardlink_to(file)
    return file


def write_vit(folder: Path) -> None:
    """A small ViT with random weights, of the same kind."""
    import transformers

    named = {"id2label": dict(enumerate(CLASSES["gender_presentation"])), "hidden_act": "tanh"}
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    with torch.inference_mode(False), torch.no_grad():
        network = transformers.ViTForImageClassification(transformers.ViTConfig(**size, **named)).eval()
        for key, value in network.named_parameters():
            if value.ndim > 1:
                value.normal_(std=0.3)
            if "cls_token" in key or "position_embeddings" in key:
                value.zero_()
            if "patch_embeddings" in key and value.ndim == 4:
                value -= value.mean((2, 3), keepdim=True)
        network.save_pretrained(folder)
    preprocessor = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_resize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor), encoding="utf-8")


SLOW = bool(os.environ.get("EQUIPOISE_SLOW_TEMPLATES"))


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
    server = Server(host.path, tmp_path_factory.mktemp(f"templates_{kind}"))
    models = server.base / "models"
    places = {n: models / "equipoise" / n for n in ("adp", "sae", "bias_features")}
    places |= {n: models / n for n in ("checkpoints", "clip_vision", "text_encoders", "attribute_classifiers")}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    file = places["checkpoints"] / f"{KINDS[kind]}.safetensors"
    large = [file]
    try:
        write_checkpoint(file, random_tensors(shapes(kind, host.path)))
        save_adp(random_adp(CLASSES, WIDTH, base_model=kind, size=0.3), places["adp"] / f"{kind}_gender_presentation.safetensors")
        sae = random_sae(WIDTH, "middle", kind)
        save_sae(sae, places["sae"] / f"{kind}_middle.safetensors")
        save_bias_features(random_bias(sae, CLASSES), places["bias_features"] / f"{kind}_gender_presentation.safetensors")
        if SLOW:
            write_vit(places["attribute_classifiers"] / "gender_presentation")
            clip = write_clip(kind, host.path, models)
            large += [clip, places["text_encoders"] / clip.name]
        with server:
            yield kind, server
    finally:
        for one in large:  # gigabytes
            one.unlink(missing_ok=True)


def queued(server: Server, graph: str) -> tuple[dict[str, Any], Any]:
    """A template at a small size: the prompt, and what came of it."""
    workflow = json.loads((REPOSITORY / "workflows" / f"{graph}.json").read_text(encoding="utf-8"))
    prompt = to_api(workflow, server.get("/object_info"))
    for node in prompt.values():
        node["inputs"] |= SMALL.get(node["class_type"], {})
    outcome = server.queue(prompt)
    assert not outcome.error, f"{graph}: {outcome.error}"
    return prompt, outcome


def test_the_graphs_run_on_a_checkpoint_of_their_kind(served: tuple[str, Server]) -> None:
    kind, server = served
    for graph in (f"Lab {kind}_distribution_guidance", f"Lab bias_feature_steer_{kind}"):
        prompt, outcome = queued(server, graph)
        (saved,) = [key for key, node in prompt.items() if node["class_type"] == "SaveImage"]
        images = server.images(outcome, saved)
        assert images.shape == (2, 64, 64, 3) and not (images[0] == images[1]).all()
        told = "".join("".join(o["text"]) for o in outcome.outputs.values() if "text" in o)
        assert "distribution_guidance" in graph or "feminine" in told, told


slow = pytest.mark.skipif(not SLOW, reason="half an hour: set EQUIPOISE_SLOW_TEMPLATES to queue the graphs that train too")


@slow
def test_an_autoencoder_and_features_are_trained_on_it(served: tuple[str, Server]) -> None:
    from equipoise.models.bias_features import load_bias_features
    from equipoise.models.sae import load_sae

    kind, server = served
    if kind != "sd15":
        pytest.skip("the graph that trains an autoencoder is for SD 1.5.")
    queued(server, "Lab train_sae_sd15")
    sae, features = (server.base / "models" / "equipoise" / n / f"{TRAINED}.safetensors" for n in ("sae", "bias_features"))
    found = load_bias_features(features)
    assert found.sae_digest == load_sae(sae).digest and found.attributes["gender_presentation"].profiles


@slow
def test_a_predictor_is_trained_on_it(served: tuple[str, Server]) -> None:
    from equipoise.models.adp import load_adp

    kind, server = served
    queued(server, f"Lab train_adp_{kind}")
    adp = load_adp(server.base / "models" / "equipoise" / "adp" / f"{TRAINED}.safetensors")
    assert adp.base_model == kind and adp.moves["gender_presentation"]
