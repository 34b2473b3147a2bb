"""The shipped graphs: that they hang together, read well, and name what they need. No host is asked."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from equipoise.methods.core.trials import STRENGTHS
from equipoise.methods.data.recording import parse_levels
from equipoise.methods.guidance.calibrate import TRIALS_EACH
from equipoise.methods.guidance.directions import KINDS
from equipoise.methods.guidance.prompt_classes import parse_prompt_classes
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "workflows"
QUICKSTARTS = ("Lab quickstart_professions", "Lab quickstart_text", "1 Start here, no download")
GUIDED = ("Lab sd15_distribution_guidance", "Lab sdxl_distribution_guidance")
TRAINED = ("Lab train_adp_sd15", "Lab train_adp_sdxl")
AUDIT, QUICK_TRAINING = "Lab label_audit", "Lab train_adp_quickstart"
CLIP_PATH, NEURON_AUDIT = "Lab neuron_path_clip_vision", "Lab neuron_path_audit"
STEERED, TRAINED_SAE = ("Lab bias_feature_steer_sd15", "Lab bias_feature_steer_sdxl"), "Lab train_sae_sd15"
QUICK_STEER, QUICK_FIND = "Lab bias_feature_steer_quickstart", "Lab find_bias_features_quickstart"
SHARES, TWO_PROMPTS = "2 Exact shares by prompt, any model", ("3 Two prompts on your SD1.5", "4 Two prompts on your SDXL")
QUICK_TWO = "Lab two_prompts_quickstart"
PROMPTS = tuple(f"Lab balanced_prompts_{kind}" for kind in ("sd15", "sdxl", "flux", "qwen_image", "z_image"))
REPORT, BALANCED, LEDGER = "6 Report", "Lab balanced_dataset", "5 A queue of single images"
NAMES = (
    AUDIT, BALANCED, CLIP_PATH, NEURON_AUDIT, *QUICKSTARTS, *GUIDED, QUICK_TRAINING, *TRAINED, QUICK_FIND, QUICK_STEER, TRAINED_SAE,
    *STEERED, REPORT, LEDGER, SHARES, *TWO_PROMPTS, QUICK_TWO, *PROMPTS,
)  # fmt: skip
NOTES = {"MarkdownNote"}
CORE = {
    "CLIPLoader",
    "CLIPTextEncode",
    "CLIPVisionLoader",
    "CheckpointLoaderSimple",
    "DualCLIPLoader",
    "EmptyLatentImage",
    "EmptySD3LatentImage",
    "ImageScaleBy",
    "KSampler",
    "ModelSamplingAuraFlow",
    "PreviewAny",
    "PreviewImage",
    "PrimitiveInt",
    "SaveImage",
    "UNETLoader",
    "VAEDecode",
    "VAELoader",
}
"""Nodes of the host that the graphs may use; all are in v0.3.64."""
TITLE = 30
"""Height of a node's title, above its position."""
Box = tuple[float, float, float, float]

every = pytest.mark.parametrize("name", NAMES)


def read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def own_types() -> set[str]:
    """Node ids that the pack's files define."""
    return {i for file in (ROOT / "nodes").rglob("*.py") for i in re.findall(r'node_id="(\w+)"', file.read_text(encoding="utf-8"))}


def of_type(workflow: dict[str, Any], kind: str) -> dict[str, Any]:
    """The only node of a type."""
    (node,) = [n for n in workflow["nodes"] if n["type"] == kind]
    return node


def test_each_graph_has_a_thumbnail_and_nothing_else_is_shipped() -> None:
    assert sorted(p.name for p in FOLDER.iterdir()) == sorted(f"{name}{end}" for name in NAMES for end in (".json", ".jpg"))


@every
def test_the_thumbnail_is_a_small_picture(name: str) -> None:
    path = FOLDER / f"{name}.jpg"
    assert path.stat().st_size < 200_000
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "JPEG" and min(picture.size) >= 300 and 0.5 < picture.width / picture.height < 2.5


@every
def test_links_agree_with_both_of_their_ends(name: str) -> None:
    workflow = read(name)
    nodes = {n["id"]: n for n in workflow["nodes"]}
    links = {link[0]: link for link in workflow["links"]}
    assert workflow["version"] == 0.4
    assert len(nodes) == len(workflow["nodes"]) and len(links) == len(workflow["links"])
    assert workflow["last_node_id"] >= max(nodes) and workflow["last_link_id"] >= max(links)
    for number, source, out, sink, into, kind in links.values():
        assert number in nodes[source]["outputs"][out]["links"]
        assert nodes[sink]["inputs"][into]["link"] == number
        assert nodes[source]["outputs"][out]["type"] == kind and nodes[sink]["inputs"][into]["type"] in (kind, "*")
        assert nodes[source]["order"] < nodes[sink]["order"], "a node stands before one that it needs"
    for node in nodes.values():
        for slot, entry in enumerate(node["inputs"]):
            assert entry["link"] is None or links[entry["link"]][3:5] == [node["id"], slot]
        for slot, entry in enumerate(node["outputs"]):
            assert all(links[n][1:3] == [node["id"], slot] for n in entry["links"] or [])


@every
def test_every_node_is_ours_or_the_hosts_and_says_where_to_get_it(name: str) -> None:
    ours = own_types()
    for node in read(name)["nodes"]:
        if node["type"] in NOTES:
            continue
        assert node["type"] in ours | CORE
        pack = "equipoise" if node["type"] in ours else "comfy-core"
        properties = node["properties"]
        assert (properties["Node name for S&R"], properties["cnr_id"]) == (node["type"], pack)
        assert re.fullmatch(r"\d+\.\d+\.\d+", properties["ver"])
        assert node["mode"] == 0 and node["flags"] == {}


def box(node: dict[str, Any]) -> Box:
    """Left, top, right, bottom of a node with its title."""
    (x, y), (w, h) = node["pos"], node["size"]
    return x, y - TITLE, x + w, y + h


def apart(a: Box, b: Box) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def inside(a: Box, b: Box) -> bool:
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


@every
def test_nothing_lies_upon_anything_else(name: str) -> None:
    workflow = read(name)
    for one, other in combinations(workflow["nodes"], 2):
        assert apart(box(one), box(other)), f"{one['type']} {one['id']} and {other['type']} {other['id']} overlap"
    frames = [(x, y, x + w, y + h) for x, y, w, h in (group["bounding"] for group in workflow["groups"])]
    assert len(frames) >= 3 and all(apart(a, b) for a, b in combinations(frames, 2))
    for node in workflow["nodes"]:
        outside = node["type"] in NOTES and all(apart(box(node), frame) for frame in frames)
        assert outside or sum(inside(box(node), frame) for frame in frames) == 1, f"{node['type']} {node['id']}"


@every
def test_a_note_says_that_classes_are_perceived(name: str) -> None:
    notes = " ".join(n["widgets_values"][0] for n in read(name)["nodes"] if n["type"] in NOTES)
    assert "Classes are perceived" in notes


QUICK_FILES = {
    "1 Start here, no download": ("portraits.safetensors", "EquipoiseLoadUnconditionalDiffusion", (1.0, "ddim")),
    "Lab quickstart_professions": ("portraits_professions.safetensors", "EquipoiseLoadUnconditionalDiffusion", (1.0, "ddim")),
    "Lab quickstart_text": ("portraits_text.safetensors", "EquipoiseLoadQuickstartTextModel", (4.0, "euler")),
}


@pytest.mark.parametrize("name", QUICKSTARTS)
def test_a_quickstart_compares_the_same_sampling_with_and_without_guidance(name: str) -> None:
    workflow = read(name)
    plain, guided = of_type(workflow, "KSampler"), of_type(workflow, "EquipoiseDistributionGuidanceKSampler")
    source = {link[0]: link[1:3] for link in workflow["links"]}
    fed = [{slot["name"]: source[slot["link"]] for slot in node["inputs"] if slot["link"]} for node in (plain, guided)]
    assert fed[0].items() <= fed[1].items() and {"model", "seed", "positive", "negative", "latent_image"} <= set(fed[0])
    assert plain["widgets_values"] == guided["widgets_values"][: len(plain["widgets_values"])]
    file, loader, sampler = QUICK_FILES[name]
    assert plain["widgets_values"][1:] == ["fixed", 20, *sampler, "normal", 1.0]
    model, adp = of_type(workflow, loader), of_type(workflow, "EquipoiseLoadADP")
    assert model["widgets_values"] == adp["widgets_values"] == [file]
    assert of_type(workflow, "EquipoiseTargetDistribution")["widgets_values"] == ["eyeglasses", "weights", "yes=0.5, no=0.5"]
    assert of_type(workflow, "EquipoiseLoadAttributeClassifier")["widgets_values"] == ["portraits_judge.safetensors"]
    assert of_type(workflow, "EquipoiseEmptyPixelLatent")["widgets_values"] == [0, 0, 16]
    histograms = sorted((n for n in workflow["nodes"] if n["type"] == "EquipoiseAttributeHistogram"), key=lambda n: n["pos"][0])
    baselines = [{slot["name"]: slot["link"] for slot in n["inputs"]}["baseline"] for n in histograms]
    assert baselines[0] is None and baselines[1] is not None


CHECKPOINTS = {"sd15": ("v1-5-pruned-emaonly-fp16", 512), "sdxl": ("sd_xl_base_1.0", 1024)}


@pytest.mark.parametrize(("name", "checkpoint", "side"), list(zip(GUIDED, *zip(*CHECKPOINTS.values(), strict=True), strict=True)))
def test_a_graph_for_real_checkpoints_says_which_files_go_where(name: str, checkpoint: str, side: int) -> None:
    workflow = read(name)
    loader, adp = of_type(workflow, "CheckpointLoaderSimple"), of_type(workflow, "EquipoiseLoadADP")
    assert loader["widgets_values"] == [f"{checkpoint}.safetensors"]
    (model,) = loader["properties"]["models"]
    assert model["name"] == loader["widgets_values"][0] and model["directory"] == "checkpoints"
    assert model["url"].startswith("https://huggingface.co/") and model["url"].endswith(model["name"])
    notes = " ".join(n["widgets_values"][0] for n in workflow["nodes"] if n["type"] in NOTES)
    assert model["name"] in notes and adp["widgets_values"][0] in notes
    for words in ("models/checkpoints", "models/equipoise/adp", "placeholder", "trained", "LoRA", "FreeU"):
        assert words in notes
    assert of_type(workflow, "EmptyLatentImage")["widgets_values"] == [side, side, 8]
    source = {link[0]: link[1] for link in workflow["links"]}
    sampler, guidance = of_type(workflow, "KSampler"), of_type(workflow, "EquipoiseDistributionGuidance")
    fed, guided = ({slot["name"]: source.get(slot["link"]) for slot in node["inputs"]} for node in (sampler, guidance))
    assert fed["model"] == guidance["id"] and guided["model"] == loader["id"]
    assert values(guidance)["seed"] == -1, "rounding follows the sampler's seed"


def sources(workflow: dict[str, Any], kind: str) -> dict[str, str]:
    """Input name -> type of the node that feeds it, of the only node of a type."""
    kinds = {n["id"]: n["type"] for n in workflow["nodes"]}
    source = {link[0]: kinds[link[1]] for link in workflow["links"]}
    return {slot["name"]: source[slot["link"]] for slot in of_type(workflow, kind)["inputs"] if slot["link"] is not None}


def values(node: dict[str, Any]) -> dict[str, Any]:
    """Widget values by name; what follows a seed has none."""
    found = [v for v in node["widgets_values"] if v not in ("fixed", "increment", "decrement", "randomize")]
    return dict(zip([slot["name"] for slot in node["inputs"] if "widget" in slot], found, strict=True))


def words_of(workflow: dict[str, Any]) -> str:
    return " ".join(n["widgets_values"][0] for n in workflow["nodes"] if n["type"] in NOTES)


@pytest.mark.parametrize(("name", "guided"), list(zip(TRAINED, GUIDED, strict=True)))
def test_a_graph_that_trains_makes_what_the_graph_that_guides_expects(name: str, guided: str) -> None:
    workflow, other = read(name), read(guided)
    checkpoint = of_type(other, "CheckpointLoaderSimple")["widgets_values"]
    assert of_type(workflow, "CheckpointLoaderSimple")["widgets_values"] == checkpoint
    adp, save = of_type(other, "EquipoiseLoadADP")["widgets_values"], values(of_type(workflow, "EquipoiseSaveADP"))
    assert adp == [f"{save['name']}.safetensors"] and not save["overwrite"]
    target = of_type(other, "EquipoiseTargetDistribution")["widgets_values"]
    attribute, classes = values(of_type(workflow, "EquipoiseLabelFeaturesWithCLIP"))["classes"].split(":", 1)
    assert attribute == target[0]
    assert sorted(re.findall(r"(\w+)=", classes)) == sorted(re.findall(r"(\w+)=", target[2]))
    recorded, tried, sampler = (values(of_type(w, k)) for w, k in (
        (workflow, "EquipoiseRecordFeatures"), (workflow, "EquipoiseCalibrateADP"), (other, "KSampler"),
    ))  # fmt: skip
    for setting in ("steps", "cfg", "sampler_name", "scheduler"):
        assert recorded[setting] == tried[setting] == sampler[setting], setting
    prompts = [n["widgets_values"][0] for n in other["nodes"] if n["type"] == "CLIPTextEncode"]
    assert prompts[0] in recorded["prompts"].splitlines() and recorded["negative_prompt"] == prompts[1]
    assert of_type(workflow, "EmptyLatentImage")["widgets_values"][:2] == of_type(other, "EmptyLatentImage")["widgets_values"][:2]
    contrast = values(of_type(workflow, "EquipoiseContrastDirections"))
    pairs = parse_prompt_classes(contrast["attribute"], contrast["templates"], contrast["classes"])
    assert pairs.attribute == attribute and sorted(pairs.classes) == sorted(re.findall(r"(\w+)=", classes))
    assert pairs.neutral() == recorded["prompts"].splitlines() and contrast["negative"] == recorded["negative_prompt"]


@pytest.mark.parametrize("name", TRAINED)
def test_a_graph_that_trains_shows_labels_before_they_are_learnt(name: str) -> None:
    workflow = read(name)
    assert sources(workflow, "EquipoiseLabelFeatures")["labels"] == "EquipoiseLabelFeaturesWithCLIP"
    assert sources(workflow, "EquipoiseTrainADP")["labels"] == "EquipoiseLabelFeatures"
    assert sources(workflow, "EquipoiseContrastDirections")["adp"] == "EquipoiseTrainADP"
    assert sources(workflow, "EquipoiseCalibrateADP")["adp"] == "EquipoiseContrastDirections"
    assert sources(workflow, "EquipoiseSaveADP")["adp"] == "EquipoiseCalibrateADP"
    assert sources(workflow, "PreviewImage")["images"] == "EquipoiseLabelFeatures"


@pytest.mark.parametrize("name", TRAINED)
def test_a_graph_that_trains_says_which_files_go_where_and_what_it_takes(name: str) -> None:
    workflow, notes = read(name), words_of(read(name))
    for node in workflow["nodes"]:
        for file in node["properties"].get("models", []):
            assert file["name"] == node["widgets_values"][0] and file["name"] in notes and f"models/{file['directory']}" in notes
            assert file["url"].startswith("https://huggingface.co/") and file["url"].endswith(".safetensors")
    loaders = [n for n in workflow["nodes"] if n["type"].endswith(("LoaderSimple", "CLIPLoader", "VisionLoader"))]
    assert len(loaders) >= 2 and all(n["properties"].get("models") for n in loaders)
    recorded, side = values(of_type(workflow, "EquipoiseRecordFeatures")), of_type(workflow, "EmptyLatentImage")["widgets_values"][0]
    features, picture = recorded["steps"] * (32 * 1280 + 13) / 1e6, 3 * side**2 / 1e6
    for figure in (f"{features:.1f} MB of features", f"{picture:.1f} MB for its picture", f"{features + picture:.1f} GB for 1,000"):
        assert figure in notes, figure
    assert recorded["images"] == 1000 and "1,000 to record" in notes
    trials = (len(KINDS) + 1) * TRIALS_EACH + len(STRENGTHS) + 1  # directions of the labels and of the prompts, strengths, and plain images
    calibrated = values(of_type(workflow, "EquipoiseCalibrateADP"))["images"]
    assert f"about {round(trials * calibrated, -2):,} for the trials of calibration ({calibrated} for each)" in notes
    assert f"{values(of_type(workflow, 'EquipoiseContrastDirections'))['images']} for the directions" in notes


def test_the_quick_training_makes_an_adp_for_the_quickstart() -> None:
    workflow, other = read(QUICK_TRAINING), read("1 Start here, no download")
    for kind in ("EquipoiseLoadUnconditionalDiffusion", "EquipoiseEmptyPixelLatent"):
        assert of_type(workflow, kind)["widgets_values"] == of_type(other, kind)["widgets_values"]
    recorded, tried = (values(of_type(workflow, kind)) for kind in ("EquipoiseRecordFeatures", "EquipoiseCalibrateADP"))
    sampler = values(of_type(other, "KSampler"))
    for setting in ("steps", "cfg", "sampler_name", "scheduler"):
        assert recorded[setting] == tried[setting] == sampler[setting], setting
    assert tried["attribute"] == of_type(other, "EquipoiseTargetDistribution")["widgets_values"][0]
    # what made the labels takes no part in the count of the quickstart
    assert of_type(workflow, "EquipoiseLoadAttributeClassifier")["widgets_values"] == ["portraits_labeller.safetensors"]
    fed = [sources(workflow, f"Equipoise{kind}")[slot] for kind, slot in (
        ("LabelFeatures", "labels"), ("TrainADP", "labels"), ("LearnDirections", "adp"), ("CalibrateADP", "adp"), ("SaveADP", "adp"),
    )]  # fmt: skip
    chain = ["LabelFeaturesWithClassifier", "LabelFeatures", "TrainADP", "LearnDirections", "CalibrateADP"]
    assert fed == [f"Equipoise{kind}" for kind in chain]
    save = values(of_type(workflow, "EquipoiseSaveADP"))
    assert save == {"name": "my_portraits", "overwrite": False} and "my_portraits.safetensors" in words_of(workflow)


def test_the_audit_puts_two_sources_on_the_same_pictures() -> None:
    workflow = read(AUDIT)
    kinds = {n["id"]: n["type"] for n in workflow["nodes"]}
    source = {link[0]: kinds[link[1]] for link in workflow["links"]}
    shown = [n for n in workflow["nodes"] if n["type"] == "EquipoiseLabelFeatures"]
    fed = [{slot["name"]: source[slot["link"]] for slot in n["inputs"] if slot["link"] is not None} for n in shown]
    assert [f["features"] for f in fed] == ["EquipoiseRecordFeatures"] * 2
    assert {f["labels"] for f in fed} == {"EquipoiseLabelFeaturesWithClassifier", "EquipoiseMergeLabels"}
    assert len({tuple(n["widgets_values"]) for n in shown}) == 1
    assert sources(workflow, "EquipoiseMergeLabels")["labels"] == "EquipoiseLabelFeaturesWithSkinTone"


def test_the_neuron_paths_of_clip_have_a_control_of_the_same_kind() -> None:
    workflow, notes = read(CLIP_PATH), words_of(read(CLIP_PATH))
    found, control = (of_type(workflow, f"Equipoise{kind}") for kind in ("FindNeuronPath", "BaselinePaths"))
    fed = [sources(workflow, n["type"]) for n in (found, control)]
    seen = {"images": "VAEDecode", "clip_vision": "CLIPVisionLoader", "zero_shot_head": "EquipoiseZeroShotAttributeHead"}
    assert fed[0] == fed[1] == seen
    asked, drawn = values(found), values(control)
    assert drawn.pop("method") == "random" and all(asked[k] == v for k, v in drawn.items() if k in asked)
    assert sources(workflow, "EquipoiseZeroShotAttributeHead") == {"clip": "CLIPLoader", "clip_vision": "CLIPVisionLoader"}
    assert sources(workflow, "EquipoiseClassPath") == {"neuron_path": "EquipoiseFindNeuronPath"}
    for kind, folder in (("CLIPLoader", "text_encoders"), ("CLIPVisionLoader", "clip_vision")):
        loader = of_type(workflow, kind)
        (file,) = loader["properties"]["models"]
        assert file["name"] == loader["widgets_values"][0] and file["name"] in notes
        assert file["directory"] == folder and f"models/{folder}" in notes and file["url"].startswith("https://huggingface.co/")


# -- bias features -------------------------------------------------------------------------------------------------------------------


def fed(workflow: dict[str, Any], node: dict[str, Any]) -> dict[str, list[Any]]:
    """Input name -> [node, output] that feeds it."""
    source = {link[0]: link[1:3] for link in workflow["links"]}
    return {slot["name"]: source[slot["link"]] for slot in node["inputs"] if slot["link"] is not None}


def test_the_steering_quickstart_compares_the_same_sampling_with_and_without_the_steer() -> None:
    workflow = read(QUICK_STEER)
    plain, steered = sorted((n for n in workflow["nodes"] if n["type"] == "KSampler"), key=lambda n: n["pos"][0])
    steer, sweep = of_type(workflow, "EquipoiseBiasFeatureSteer"), of_type(workflow, "EquipoiseSteerSweep")
    model = of_type(workflow, "EquipoiseLoadUnconditionalDiffusion")
    assert fed(workflow, steered)["model"] == [steer["id"], 0]
    assert fed(workflow, plain) == fed(workflow, steered) | {"model": [model["id"], 0]}
    assert fed(workflow, steer)["model"] == fed(workflow, sweep)["model"] == [model["id"], 0]
    assert fed(workflow, sweep)["seed"] == fed(workflow, plain)["seed"] and values(steer)["seed"] == -1
    assert plain["widgets_values"] == steered["widgets_values"]
    assert plain["widgets_values"][1:] == ["fixed", 20, 1.0, "ddim", "normal", 1.0]
    for kind in ("LoadUnconditionalDiffusion", "LoadSAE", "LoadBiasFeatures", "LoadADP"):
        assert of_type(workflow, f"Equipoise{kind}")["widgets_values"] == ["portraits.safetensors"]
    assert of_type(workflow, "EquipoiseTargetDistribution")["widgets_values"] == ["eyeglasses", "weights", "yes=0.5, no=0.5"]
    assert of_type(workflow, "EquipoiseLoadAttributeClassifier")["widgets_values"] == ["portraits_judge.safetensors"]
    assert values(steer)["strength"] == 1.0 and values(steer)["profile"] == values(sweep)["profile"] == "calibrated"
    # profiles and assignment may depend on what an image is read as
    assert sources(workflow, steer["type"])["adp"] == sources(workflow, sweep["type"])["adp"] == "EquipoiseLoadADP"
    drawn, edit = values(sweep), values(plain)
    assert {k: drawn[k] for k in edit} == edit
    assert (drawn["lowest"], drawn["highest"]) == (-1.0, 1.0) and drawn["points"] % 2, "plain sampling is not among the points"
    assert QUICK_FIND in words_of(workflow)


def test_finding_bias_features_makes_files_for_the_steering_quickstart() -> None:
    workflow, other = read(QUICK_FIND), read(QUICK_STEER)
    made = of_type(workflow, "EquipoiseLoadUnconditionalDiffusion")["widgets_values"]
    assert made == of_type(other, "EquipoiseLoadUnconditionalDiffusion")["widgets_values"]
    recorded, tried, swept = (values(of_type(workflow, f"Equipoise{k}")) for k in ("RecordFeatures", "CalibrateBiasFeatures", "SteerSweep"))
    sampler = values(next(n for n in other["nodes"] if n["type"] == "KSampler"))
    for setting in ("steps", "cfg", "sampler_name", "scheduler"):
        assert recorded[setting] == tried[setting] == swept[setting] == sampler[setting], setting
    assert recorded["site"] == "output.1" and recorded["spatial_levels"], "maps behind an up block are not averages"
    seeds = [recorded["first_seed"], tried["seed"], swept["seed"]]
    assert min(abs(a - b) for a, b in combinations(seeds, 2)) > recorded["images"], "noise is shared between what teaches and what tests"
    attribute = of_type(other, "EquipoiseTargetDistribution")["widgets_values"][0]
    for kind in ("FindBiasFeatures", "FeatureAtlas", "SteerSweep"):
        assert values(of_type(workflow, f"Equipoise{kind}"))["attribute"] == attribute
    chain = {
        ("LabelFeatures", "labels"): "LabelFeaturesWithClassifier", ("TrainSAE", "features"): "RecordFeatures",
        ("FindBiasFeatures", "sae"): "TrainSAE", ("FindBiasFeatures", "labels"): "LabelFeatures",
        ("FeatureAtlas", "bias_features"): "FindBiasFeatures", ("LearnFeatureProfiles", "bias_features"): "FindBiasFeatures",
        ("CalibrateBiasFeatures", "bias_features"): "LearnFeatureProfiles", ("SaveBiasFeatures", "bias_features"): "CalibrateBiasFeatures",
        ("SteerSweep", "bias_features"): "CalibrateBiasFeatures",
    }  # fmt: skip
    for (kind, slot), source in chain.items():
        assert sources(workflow, f"Equipoise{kind}")[slot] == f"Equipoise{source}"
    # the judge counts the sweep, and takes part in nothing else
    judges = {n["id"]: n["widgets_values"][0] for n in workflow["nodes"] if n["type"] == "EquipoiseLoadAttributeClassifier"}
    judged = {n["type"]: judges[fed(workflow, n)["classifier"][0]] for n in workflow["nodes"] if "classifier" in fed(workflow, n)}
    assert judged.pop("EquipoiseSteerSweep") == "portraits_judge.safetensors"
    assert set(judged.values()) == {"portraits_labeller.safetensors"} and len(judged) == 3
    names = values(of_type(workflow, "EquipoiseTrainSAE")), values(of_type(workflow, "EquipoiseSaveBiasFeatures"))
    assert all(v["name"] == "my_portraits" and not v["overwrite"] for v in names) and "my_portraits.safetensors" in words_of(workflow)
    notes, sae = words_of(workflow), names[0]
    for figure in (f"sample {recorded['images']} portraits", f"{sae['k']} of {sae['latents']} features"):
        assert figure in notes, figure


@pytest.mark.parametrize("name", STEERED)
def test_a_graph_that_steers_a_real_checkpoint_says_which_files_go_where(name: str) -> None:
    workflow, short = read(name), name.rpartition("_")[2]
    loader, steer, sampler = (of_type(workflow, k) for k in ("CheckpointLoaderSimple", "EquipoiseBiasFeatureSteer", "KSampler"))
    checkpoint, side = CHECKPOINTS[short]
    assert loader["widgets_values"] == [f"{checkpoint}.safetensors"]
    (model,) = loader["properties"]["models"]
    assert model["name"] == loader["widgets_values"][0] and model["directory"] == "checkpoints"
    assert model["url"].startswith("https://huggingface.co/") and model["url"].endswith(model["name"])
    files = [of_type(workflow, f"EquipoiseLoad{kind}")["widgets_values"][0] for kind in ("SAE", "BiasFeatures")]
    notes = words_of(workflow)
    for words in (model["name"], *files, "models/checkpoints", "models/equipoise/sae", "models/equipoise/bias_features", TRAINED_SAE):
        assert words in notes, words
    for words in ("placeholder", "LoRA", "FreeU"):
        assert words in notes
    assert of_type(workflow, "EmptyLatentImage")["widgets_values"] == [side, side, 8]
    assert fed(workflow, sampler)["model"] == [steer["id"], 0] and fed(workflow, steer)["model"] == [loader["id"], 0]
    assert values(steer)["seed"] == -1, "rounding follows the sampler's seed"
    guided = read(GUIDED[list(CHECKPOINTS).index(short)])
    for kind in ("CheckpointLoaderSimple", "KSampler", "EquipoiseTargetDistribution"):
        assert of_type(workflow, kind)["widgets_values"] == of_type(guided, kind)["widgets_values"], kind


def test_the_graph_that_trains_an_autoencoder_makes_what_the_graph_that_steers_expects() -> None:
    workflow, other = read(TRAINED_SAE), read(STEERED[0])
    assert of_type(workflow, "CheckpointLoaderSimple")["widgets_values"] == of_type(other, "CheckpointLoaderSimple")["widgets_values"]
    sae, save = values(of_type(workflow, "EquipoiseTrainSAE")), values(of_type(workflow, "EquipoiseSaveBiasFeatures"))
    assert of_type(other, "EquipoiseLoadSAE")["widgets_values"] == [f"{sae['name']}.safetensors"] and not sae["overwrite"]
    assert of_type(other, "EquipoiseLoadBiasFeatures")["widgets_values"] == [f"{save['name']}.safetensors"] and not save["overwrite"]
    attribute, _, shares = of_type(other, "EquipoiseTargetDistribution")["widgets_values"]
    assert {values(of_type(workflow, f"Equipoise{k}"))["attribute"] for k in ("FindBiasFeatures", "FeatureAtlas")} == {attribute}
    # a folder's name is the attribute, and its config names the classes
    assert of_type(workflow, "EquipoiseLoadAttributeClassifier")["widgets_values"] == [attribute]
    assert all(f"**{c}**" in words_of(workflow) for c in re.findall(r"(\w+)=", shares))
    assert "models/attribute_classifiers" in words_of(workflow) and "id2label" in words_of(workflow)
    recorded, tried, sampler = (values(of_type(w, k)) for w, k in (
        (workflow, "EquipoiseRecordFeatures"), (workflow, "EquipoiseCalibrateBiasFeatures"), (other, "KSampler"),
    ))  # fmt: skip
    for setting in ("steps", "cfg", "sampler_name", "scheduler"):
        assert recorded[setting] == tried[setting] == sampler[setting], setting
    prompts = [n["widgets_values"][0] for n in other["nodes"] if n["type"] == "CLIPTextEncode"]
    assert prompts[0] in recorded["prompts"].splitlines() and recorded["negative_prompt"] == prompts[1]
    assert of_type(workflow, "EmptyLatentImage")["widgets_values"][:2] == of_type(other, "EmptyLatentImage")["widgets_values"][:2]
    assert sources(workflow, "EquipoiseLearnFeatureProfiles")["bias_features"] == "EquipoiseFindBiasFeatures"
    assert sources(workflow, "EquipoiseCalibrateBiasFeatures")["bias_features"] == "EquipoiseLearnFeatureProfiles"
    assert sources(workflow, "EquipoiseSaveBiasFeatures")["bias_features"] == "EquipoiseCalibrateBiasFeatures"


def test_the_graph_that_trains_an_autoencoder_says_what_it_takes() -> None:
    workflow, notes = read(TRAINED_SAE), words_of(read(TRAINED_SAE))
    (model,) = of_type(workflow, "CheckpointLoaderSimple")["properties"]["models"]
    assert model["name"] in notes and "models/checkpoints" in notes and model["url"].endswith(model["name"])
    recorded, side = values(of_type(workflow, "EquipoiseRecordFeatures")), of_type(workflow, "EmptyLatentImage")["widgets_values"][0]
    levels, positions = parse_levels(recorded["spatial_levels"]), (side // 64) ** 2  # the middle block is 64 times smaller than the image
    averages, maps = recorded["steps"] * (32 * 1280 + 13) / 1e6, len(levels) * (2 * 1280 * positions + 13) / 1e6
    picture = 3 * side**2 / 1e6
    figures = [f"{averages:.1f} MB of averages", f"{maps:.1f} MB of whole maps", f"{picture:.1f} MB for its picture"]
    for figure in (*figures, f"{averages + maps + picture:.1f} GB for 1,000", "1,000 to record"):
        assert figure in notes, figure
    assert recorded["images"] == 1000
    calibrated = values(of_type(workflow, "EquipoiseCalibrateBiasFeatures"))["images"]
    assert f"({calibrated} for each)" in notes and f"{20 * calibrated:,} to {48 * calibrated:,} for the trials" in notes


def test_the_audit_of_neurons_mends_what_it_finds_and_needs_no_download() -> None:
    workflow = read(NEURON_AUDIT)
    kinds = {n["id"]: n["type"] for n in workflow["nodes"]}
    assert not any(n["properties"].get("models") for n in workflow["nodes"])
    assert of_type(workflow, "EquipoiseLoadAttributeClassifier")["widgets_values"] == ["portraits_labeller.safetensors"]
    assert sources(workflow, "EquipoiseEditVisionNeurons") == {
        "classifier": "EquipoiseLoadAttributeClassifier",
        "neuron_path": "EquipoiseAttributeLeakageAudit",
    }
    named = {link[0]: link[1] for link in workflow["links"]}
    readers = [n for n in workflow["nodes"] if n["type"] == "EquipoiseAttributeHistogram"]
    fed = [{slot["name"]: kinds[named[slot["link"]]] for slot in n["inputs"] if slot["link"]} for n in readers]
    assert [f["classifier"] for f in fed] == ["EquipoiseLoadAttributeClassifier", "EquipoiseEditVisionNeurons"]
    assert {f["images"] for f in fed} == {"VAEDecode"} and len({tuple(n["widgets_values"]) for n in readers}) == 1
    effect = sources(workflow, "EquipoiseNeuronPathEffect")
    assert effect["neuron_path"] == "EquipoiseFindNeuronPath" and effect["neuron_path_2"] == "EquipoiseBaselinePaths"
    asked, drawn = (values(of_type(workflow, f"Equipoise{kind}")) for kind in ("FindNeuronPath", "BaselinePaths"))
    drawn.pop("method")
    assert all(asked[k] == v for k, v in drawn.items() if k in asked)
    joint, audit = values(of_type(workflow, "EquipoiseTargetDistribution")), values(of_type(workflow, "EquipoiseAttributeLeakageAudit"))
    assert joint["attribute"].split(" x ") == audit["attributes"].split(", ") and joint["preset"] == "uniform"


def test_the_report_compares_the_same_noise_by_a_judge_that_took_no_part() -> None:
    workflow = read(REPORT)
    report, guided = of_type(workflow, "EquipoiseFairnessReport"), of_type(workflow, "EquipoiseDistributionGuidanceKSampler")
    nodes = {n["id"]: n for n in workflow["nodes"]}
    given = {slot: nodes[source] for slot, (source, _) in fed(workflow, report).items()}
    samplers = {slot: nodes[fed(workflow, given[slot])["samples"][0]] for slot in ("base", "steered", "reference")}
    assert samplers["steered"] is guided and samplers["base"]["type"] == samplers["reference"]["type"] == "KSampler"
    base, steered, reference = (fed(workflow, samplers[s]) for s in ("base", "steered", "reference"))
    assert base.items() <= steered.items() and "seed" in base and "seed" not in reference
    assert {k: v for k, v in base.items() if k != "seed"} == reference
    settings = [samplers[s]["widgets_values"] for s in ("base", "steered", "reference")]
    assert settings[0] == settings[1][: len(settings[0])] and settings[0][1:] == settings[2][1:] and settings[0][0] != settings[2][0]
    assert given["classifier"]["widgets_values"] == ["portraits_judge.safetensors"]
    assert given["labeller"]["widgets_values"] == ["portraits_labeller.safetensors"]
    assert given["target"]["type"] == "EquipoiseTargetDistribution" and not any(n["properties"].get("models") for n in workflow["nodes"])
    assert values(report)["batch_size"] == of_type(workflow, "EquipoiseEmptyPixelLatent")["widgets_values"][2]
    assert values(report)["same_seeds"] is True
    assert "output/equipoise/reports" in words_of(workflow)


# -- data sets -----------------------------------------------------------------------------------------------------------------------


def test_the_balanced_data_set_is_what_was_asked_for_and_what_is_trained_on() -> None:
    workflow, notes = read(BALANCED), words_of(read(BALANCED))
    save, train, judge = (values(of_type(workflow, f"Equipoise{k}")) for k in (
        "SaveBalancedDataset", "TrainAttributeClassifier", "ClassifierFairness",
    ))  # fmt: skip
    assert sources(workflow, "EquipoiseSaveBalancedDataset") == {
        "images": "VAEDecode", "classifier": "EquipoiseLoadAttributeClassifier", "target": "EquipoiseTargetDistribution",
    }  # fmt: skip
    assert sources(workflow, "EquipoiseTrainAttributeClassifier") == {"dataset": "EquipoiseSaveBalancedDataset"}
    assert sources(workflow, "EquipoiseClassifierFairness") == {
        "classifier": "EquipoiseTrainAttributeClassifier", "dataset": "EquipoiseSaveBalancedDataset",
    }  # fmt: skip
    target = values(of_type(workflow, "EquipoiseTargetDistribution"))["attribute"]
    assert target == f"{judge['attribute']} x {judge['group']}" and train["attribute"] == judge["attribute"]
    assert {a.strip() for a in save["attribute"].split(",")} == {judge["attribute"], judge["group"]}
    assert "test=" in save["split"] and judge["split"] == "test", "what was trained on is no test"
    assert of_type(workflow, "EquipoiseLoadAttributeClassifier")["widgets_values"] == ["portraits_labeller.safetensors"]
    assert f"output/equipoise/datasets/{save['name']}" in notes and train["overwrite"] and "overwrite" in notes
    # with a fixed seed, queued again it finds the same images, and adds none
    assert of_type(workflow, "PrimitiveInt")["widgets_values"][1] == "fixed"
    assert fed(workflow, of_type(workflow, "EquipoiseDistributionGuidanceKSampler"))["seed"] == [of_type(workflow, "PrimitiveInt")["id"], 0]


def test_the_ledgers_graph_draws_one_image_and_counts_what_is_seen() -> None:
    workflow = read(LEDGER)
    assert values(of_type(workflow, "EquipoiseEmptyPixelLatent"))["batch_size"] == 1
    assert of_type(workflow, "PrimitiveInt")["widgets_values"][1] == "randomize"
    assert sources(workflow, "EquipoiseDistributionGuidanceKSampler")["ledger"] == "EquipoiseBalanceLedger"
    fed = sources(workflow, "EquipoiseRecordAttributes")
    assert fed["ledger"] == "EquipoiseBalanceLedger" and fed["assigned"] == "EquipoiseDistributionGuidanceKSampler"
    assert sources(workflow, "EquipoiseLedgerReport")["ledger"] == "EquipoiseRecordAttributes"
    targets = [link[1] for link in workflow["links"] if link[5] == "EQUIPOISE_TARGET"]
    assert len(targets) == 3 == len([t for t in targets if t == targets[0]])


# -- prompts -------------------------------------------------------------------------------------------------------------------------


def both_samplers(workflow: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sampler of the plain batch and that of the other, from left to right."""
    plain, other = sorted((n for n in workflow["nodes"] if n["type"] == "KSampler"), key=lambda n: n["pos"][0])
    return plain, other


@pytest.mark.parametrize("name", [SHARES, *PROMPTS])
def test_balanced_prompts_stand_beside_a_plain_batch_of_the_same_noise(name: str) -> None:
    workflow = read(name)
    plain, balanced = both_samplers(workflow)
    prompts, one = of_type(workflow, "EquipoiseBalancedPrompts"), fed(workflow, plain)
    other = fed(workflow, balanced)
    assert plain["widgets_values"] == balanced["widgets_values"]
    assert {k: one[k] for k in ("model", "negative", "seed")} == {k: other[k] for k in ("model", "negative", "seed")}
    assert fed(workflow, prompts)["latent"] == one["latent_image"] and fed(workflow, prompts)["seed"] == one["seed"]
    slot = re.search(r" ?\{(\w+)\}", values(prompts)["prompt"])
    texts = {n["widgets_values"][0] for n in workflow["nodes"] if n["type"] == "CLIPTextEncode"}
    assert values(prompts)["prompt"].replace(slot[0], "") in texts, "the plain prompt leaves the words out"
    counts = sorted((n for n in workflow["nodes"] if n["type"] == "EquipoiseAttributeHistogram"), key=lambda n: n["pos"][0])
    assert "assigned" in fed(workflow, counts[1]) and "baseline" in fed(workflow, counts[1]) and "baseline" not in fed(workflow, counts[0])
    assert {values(n)["attribute"] for n in counts} == {slot[1]}


@pytest.mark.parametrize("name", [SHARES, *PROMPTS])
def test_prompts_go_in_one_pass_or_as_lists_that_are_put_in_order(name: str) -> None:
    workflow = read(name)
    prompts, other = of_type(workflow, "EquipoiseBalancedPrompts"), fed(workflow, both_samplers(workflow)[1])
    if other["positive"] == [prompts["id"], 2]:
        assert "clip" in fed(workflow, prompts) and other["latent_image"] == fed(workflow, prompts)["latent"]
    else:
        (encode,) = [n for n in workflow["nodes"] if n["type"] == "CLIPTextEncode" and "text" in fed(workflow, n)]
        assert fed(workflow, encode)["text"] == [prompts["id"], 0] and other["positive"] == [encode["id"], 0]
        order = of_type(workflow, "EquipoiseImagesInBatchOrder")
        assert other["latent_image"] == fed(workflow, order)["latents"] == [prompts["id"], 1]


@pytest.mark.parametrize("name", [QUICK_TWO, *TWO_PROMPTS])
def test_two_prompts_are_learned_saved_and_used(name: str) -> None:
    workflow = read(name)
    learn, guide, save = (of_type(workflow, f"Equipoise{k}") for k in ("LearnDirectionsFromPrompts", "DistributionGuidance", "SaveADP"))
    plain, guided = both_samplers(workflow)
    assert fed(workflow, guide)["adp"] == fed(workflow, save)["adp"] == [learn["id"], 0]
    assert fed(workflow, guided) == fed(workflow, plain) | {"model": [guide["id"], 0]}
    assert plain["widgets_values"] == guided["widgets_values"]
    assert fed(workflow, guide)["model"] == fed(workflow, learn)["model"] == fed(workflow, plain)["model"]
    settings = values(guide)
    assert (settings["direction"], settings["rows"], settings["seed"]) == ("learned-prompts", "cond+uncond", -1)
    learned, sampler = values(learn), values(plain)
    assert all(learned[k] == sampler[k] for k in ("steps", "cfg", "sampler_name", "scheduler"))
    texts = [n["widgets_values"][0] for n in workflow["nodes"] if n["type"] == "CLIPTextEncode"]
    pairs = parse_prompt_classes(learned["attribute"], learned["templates"], learned["classes"])
    assert learned["negative"] == texts[1] and pairs.attribute == values(of_type(workflow, "EquipoiseTargetDistribution"))["attribute"]
    notes, forward, fit = words_of(workflow), 2 * learned["images"] * learned["steps"], learned["fit_steps"] * learned["batch"]
    for figure in (f"{learned['images']} images ({forward:,} passes forward)", f"({fit:,} passes forward and back)"):
        assert figure in notes, figure


@pytest.mark.parametrize("name", [*TWO_PROMPTS, *PROMPTS])
def test_a_graph_for_your_model_says_which_files_go_where(name: str) -> None:
    workflow, notes = read(name), words_of(read(name))
    files = [file for node in workflow["nodes"] for file in node["properties"].get("models", [])]
    for node in workflow["nodes"]:
        if node["type"].endswith(("LoaderSimple", "CLIPLoader", "VisionLoader", "UNETLoader", "VAELoader")):
            assert {f["name"] for f in node["properties"]["models"]} <= set(node["widgets_values"]), node["type"]
    assert len(files) >= 2
    for file in files:
        assert file["name"] in notes and f"models/{file['directory']}" in notes
        assert file["url"].startswith("https://huggingface.co/") and file["url"].endswith(".safetensors")
