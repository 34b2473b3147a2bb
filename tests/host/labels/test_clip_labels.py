"""CLIP zero-shot labels by the host's own CLIP classes with small random weights: against transformers, and where a part is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

transformers = pytest.importorskip("transformers")

WIDTH, SIZE = 64, 32
LAYERS = {"num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 96, "hidden_act": "quick_gelu"}
CLASSES = "eyeglasses: yes=eyeglasses|round (thin) glasses, no=bare eyes\nhair: long, short"
TEMPLATES = "a photo of a person with {}\na drawing of {}"


@pytest.fixture(scope="module")
def reference() -> Any:
    """A CLIP of transformers with random weights that fp16 holds exactly, scaled so that its embeddings differ."""
    torch.manual_seed(0)
    text = {**LAYERS, "hidden_size": WIDTH, "eos_token_id": 49407, "bos_token_id": 49406, "pad_token_id": 49407}
    vision = {**LAYERS, "hidden_size": 96, "image_size": SIZE, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
    network = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.5 if "embedding" in name else 0.15)
            parameter.copy_(parameter.half().float())
    return network


@pytest.fixture
def folders(prompt: Any) -> Path:
    """The host's models folder; weight files are put there, so that they can be traced."""
    models = Path(prompt.base) / "models"
    for name in ("clip_vision", "text_encoders", "checkpoints"):
        (models / name).mkdir(parents=True, exist_ok=True)
    return models


@pytest.fixture
def features(prompt: Any) -> Iterator[Any]:
    """A feature set with ten noisy pictures."""
    from equipoise.host.data.feature_sets import set_folder, write_picture
    from equipoise.methods.data.feature_set import FeatureSetWriter, open_feature_set

    folder = set_folder("clip")
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(1)
    names = [f"{i}.png" for i in range(10)]
    for name in names:
        write_picture(torch.rand(SIZE, SIZE, 3, generator=generator), folder / "images" / name)
    FeatureSetWriter(folder, {}).add(torch.zeros(10, 1, 3, 4, 4), torch.zeros(1), names, [0] * 10, [""] * 10)
    yield open_feature_set(folder)


def weights(reference: Any, *starts: str) -> dict[str, Tensor]:
    kept = {k: v.detach().half().clone() for k, v in reference.state_dict().items() if k.startswith(starts)}
    return {k: v for k, v in kept.items() if not k.endswith("position_ids")}


def host_vision(reference: Any, folder: Path) -> Any:
    from comfy.clip_vision import ClipVisionModel

    config = {
        **LAYERS,
        "hidden_size": 96,
        "image_size": SIZE,
        "patch_size": 8,
        "num_channels": 3,
        "projection_dim": WIDTH,
        "model_type": "clip_vision_model",
    }
    (folder / "vision.json").write_text(json.dumps(config), encoding="utf-8")
    vision = ClipVisionModel(str(folder / "vision.json"))
    missing, _ = vision.load_sd(weights(reference, "vision_model", "visual_projection"))
    assert not missing
    return vision


def host_text(state: dict[str, Tensor]) -> Any:
    """The host's CLIP as its Load CLIP makes it, at small width."""
    import comfy.sd

    small = {"hidden_size": WIDTH, **{k: LAYERS[k] for k in LAYERS if k != "hidden_act"}}
    options = {"clip_l_model_config": dict(small), "model_config": dict(small)}
    return comfy.sd.load_text_encoder_state_dicts([dict(state)], model_options=options)


def run(features: Any, vision: Any, clip: Any, graph: dict[str, Any] | None = None, classes: str = CLASSES) -> tuple[Any, str]:
    from equipoise.nodes.labels.label_features_with_clip import LabelFeaturesWithCLIP

    hidden = type("Hidden", (), {"prompt": graph, "unique_id": "9"})()
    return type("Prepared", (LabelFeaturesWithCLIP,), {"hidden": hidden}).execute(features, vision, clip, classes, TEMPLATES).result


def graph(clip_file: str, loader: str = "CLIPLoader", name: str = "clip_name") -> dict[str, Any]:
    return {
        "1": {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": "vision.safetensors"}},
        "2": {"class_type": loader, "inputs": {name: clip_file, "type": "stable_diffusion"}},
        "3": {"class_type": "LoraLoader", "inputs": {"model": ["7", 0], "clip": ["2", 0], "lora_name": "x.safetensors"}},
        "4": {"class_type": "CLIPSetLastLayer", "inputs": {"clip": ["3", 1], "stop_at_clip_layer": -2}},
        "9": {"class_type": "EquipoiseLabelFeaturesWithCLIP", "inputs": {"clip_vision": ["1", 0], "clip": ["4", 0], "classes": CLASSES}},
    }


def expected(reference: Any, clip: Any, images: Tensor) -> dict[str, Tensor]:
    """The same by transformers, in float32; only the host's tokenizer is used."""
    from equipoise.methods.labels.label_text import parse_classes

    def text(phrase: str) -> Tensor:
        ids = torch.tensor([[t for t, _ in clip.tokenize(phrase.replace("(", "\\(").replace(")", "\\)"))["l"][0]]])
        hidden = reference.text_model(input_ids=ids).pooler_output
        return torch.nn.functional.normalize(reference.text_projection(hidden), dim=-1)[0]

    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)))
    seen = reference.visual_projection(reference.vision_model(pixel_values=(images - mean) / std).pooler_output)
    seen = torch.nn.functional.normalize(seen, dim=-1)
    found = {}
    for attribute, named in parse_classes(CLASSES).items():
        rows = []
        for members in named.values():
            phrases = [t.replace("{}", m) for m in members for t in TEMPLATES.splitlines()]
            rows.append(torch.nn.functional.normalize(torch.stack([text(p) for p in phrases]).mean(0), dim=0))
        found[attribute] = torch.softmax(100 * seen @ torch.stack(rows).T, dim=-1)
    return found


def test_zero_shot_is_what_transformers_gives(reference: Any, features: Any, folders: Path) -> None:
    from equipoise.host.labels.labelling import picture_of

    clip, vision = host_text(weights(reference, "text_model", "text_projection")), host_vision(reference, folders)
    labels, report = run(features, vision, clip)
    images = torch.stack([picture_of(features, e).movedim(-1, 0) for e in features.entries])
    with torch.no_grad():
        wanted = expected(reference, clip, images)
    assert labels.attributes == {"eyeglasses": ("yes", "no"), "hair": ("long", "short")} and len(labels.files) == 10
    for attribute, table in wanted.items():
        assert table.amax(1).min() < 0.98, "the comparison would say nothing of saturated probabilities"
        torch.testing.assert_close(labels.probabilities[attribute], table, rtol=0, atol=1e-3)
    assert "64 dimensions, text encoder clip_l" in report and "could not be traced" in report


def test_the_files_are_traced_through_the_graph(reference: Any, features: Any, folders: Path) -> None:
    text, seen = weights(reference, "text_model", "text_projection"), weights(reference, "vision_model", "visual_projection")
    save_file(text | seen, folders / "text_encoders" / "whole.safetensors")
    save_file(seen, folders / "clip_vision" / "vision.safetensors")
    _, report = run(features, host_vision(reference, folders), host_text(text), graph("whole.safetensors"))
    assert "both projections were found in their files" in report


@pytest.mark.parametrize("left", ["identity", "zeros", "nan", "recycled"])
def test_a_missing_text_projection_says_which_file_has_one(left: str, reference: Any, features: Any, folders: Path) -> None:
    """A file without the projection, as SD1.5's: the host leaves uninitialised memory (here: other weights of the same size)."""
    text = weights(reference, "text_model")
    save_file(text, folders / "text_encoders" / "bare.safetensors")
    save_file(weights(reference, "vision_model", "visual_projection"), folders / "clip_vision" / "vision.safetensors")
    clip = host_text(text)
    matrix = clip.cond_stage_model.clip_l.transformer.text_projection.weight
    found = {
        "identity": torch.eye(WIDTH),
        "zeros": torch.zeros(WIDTH, WIDTH),
        "nan": torch.full((WIDTH, WIDTH), float("nan")),
        "recycled": text["text_model.encoder.layers.0.self_attn.q_proj.weight"],
    }
    matrix.copy_(found[left])
    with pytest.raises(ValueError, match=r"text encoder's projection .* is missing \('bare\.safetensors' holds none\)") as error:
        run(features, host_vision(reference, folders), clip, graph("bare.safetensors"))
    assert "\n" not in str(error.value)
    if left != "recycled":  # what other weights are cannot be told without their file
        with pytest.raises(ValueError, match="the file that was loaded holds none"):
            run(features, host_vision(reference, folders), clip)


@pytest.mark.parametrize(("width", "who"), [(768, "clip-vit-large-patch14"), (1024, "SD2.x"), (1280, "SDXL")])
def test_the_error_names_a_file_for_every_clip(width: int, who: str, host: Any) -> None:
    from equipoise.host.labels.clip_zero_shot import _check

    with pytest.raises(ValueError, match=who):
        _check(torch.eye(width), (), ("text_projection.weight",), "text", width)


def test_a_checkpoint_whose_projection_the_host_does_not_load(reference: Any, features: Any, folders: Path) -> None:
    """SD1.5 checkpoints with a projection beside their text model exist; the host passes over it."""
    text = weights(reference, "text_model")
    other = {f"cond_stage_model.transformer.{k}": v for k, v in weights(reference, "text_model", "text_projection").items()}
    save_file(other, folders / "checkpoints" / "sd.safetensors")
    clip = host_text(text)
    clip.cond_stage_model.clip_l.transformer.text_projection.weight.copy_(torch.randn(WIDTH, WIDTH))
    with pytest.raises(ValueError, match=r"'sd\.safetensors' holds none"):
        run(features, host_vision(reference, folders), clip, graph("sd.safetensors", "CheckpointLoaderSimple", "ckpt_name"))


def test_two_encoders_of_different_clips(reference: Any, features: Any, folders: Path) -> None:
    vision = host_vision(reference, folders)
    vision.model.visual_projection = torch.nn.Linear(96, 1280, bias=False)
    with pytest.raises(ValueError, match=r"1280 dimensions and the text encoder clip_l with 64: .*SDXL"):
        run(features, vision, host_text(weights(reference, "text_model", "text_projection")))


def test_an_image_encoder_that_is_not_clips(reference: Any, features: Any, folders: Path) -> None:
    vision = host_vision(reference, folders)
    vision.model.visual_projection = torch.nn.Identity()
    with pytest.raises(ValueError, match="no projection into the space .*SigLIP"):
        run(features, vision, host_text(weights(reference, "text_model", "text_projection")))


def test_the_text_model_of_the_right_width_is_taken_from_an_sdxl_clip(reference: Any, prompt: Any) -> None:
    """SDXL's CLIP holds two text models; the one whose space the images share is asked, and left as it was."""
    import comfy.sd
    import comfy.supported_models_base
    from comfy import sdxl_clip
    from equipoise.host.labels.clip_zero_shot import _embeddings, _text_encoder

    text = weights(reference, "text_model", "text_projection")
    small = {"hidden_size": WIDTH, **LAYERS}
    wide = {"hidden_size": 96, **LAYERS}
    target = comfy.supported_models_base.ClipTarget(sdxl_clip.SDXLTokenizer, sdxl_clip.SDXLClipModel)
    clip = comfy.sd.CLIP(target, model_options={"clip_l_model_config": wide, "clip_g_model_config": small})
    missing, _ = clip.cond_stage_model.clip_g.load_sd(text)
    assert not missing and _text_encoder(clip, WIDTH) == "clip_g" and _text_encoder(clip, 96) == "clip_l"
    before = clip.cond_stage_model.clip_l.return_projected_pooled, clip.cond_stage_model.clip_l.layer
    made = _embeddings(clip, "clip_g", ["a photo", "a drawing"])
    assert made.shape == (2, WIDTH) and made.dtype == torch.float32
    ids = torch.tensor([[t for t, _ in clip.tokenize("a photo")["g"][0]]])
    with torch.no_grad():
        wanted = reference.text_projection(reference.text_model(input_ids=ids).pooler_output)
    torch.testing.assert_close(made[:1], wanted, rtol=0, atol=1e-3)
    assert before == (clip.cond_stage_model.clip_l.return_projected_pooled, clip.cond_stage_model.clip_l.layer)


def test_a_classifier_of_clip_reads_what_the_labels_say(reference: Any, features: Any, folders: Path) -> None:
    from equipoise.host.data.feature_sets import read_picture
    from equipoise.host.report.report_warnings import same_network
    from equipoise.nodes.labels.clip_attribute_classifier import CLIPAttributeClassifier
    from equipoise.nodes.report.attribute_histogram import AttributeHistogram

    def classifier(classes: str = CLASSES) -> Any:
        vision, clip = host_vision(reference, folders), host_text(weights(reference, "text_model", "text_projection"))
        return CLIPAttributeClassifier.execute(vision, clip, classes, TEMPLATES).result

    made, text = classifier()
    images = torch.stack([read_picture(features.folder / "images" / entry.file) for entry in features.entries] * 2)
    labels, _ = run(features, host_vision(reference, folders), host_text(weights(reference, "text_model", "text_projection")))
    for attribute, p in made.probabilities(images).items():
        torch.testing.assert_close(p[:10], labels.probabilities[attribute], atol=1e-4, rtol=1e-3)
    assert made.embed(images).shape == (20, WIDTH) and "eyeglasses: yes, no" in text and "projection" in text
    assert same_network(made, classifier()[0]) and not same_network(made, classifier("hair: long, short")[0])
    counted = json.loads(AttributeHistogram.execute(images, made).result[2])
    assert [panel["report"]["n"] for panel in counted["panels"]] == [20, 20] and counted["classifier"] == "CLIP: eyeglasses, hair"
    with pytest.raises(ValueError, match="CLIP with your words.*connect Load Attribute Classifier"):
        _ = made.model
