"""What ``same_results.py`` runs: command lines, the shipped graphs at small sizes, and graphs for what no shipped graph holds."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from same_results_host import Host

Prompt = dict[str, Any]


@dataclass(frozen=True)
class Commands:
    """Command lines of one item, run in order in a folder of its own."""

    lines: tuple[str, ...]
    """Words after ``dev.py``. ``{weights}`` is the folder of the shipped weights."""
    needs: tuple[str, ...] = ()
    """Items whose folders are copied into this one's first."""
    only: tuple[str, ...] = ()
    """Patterns of names of the files that are recorded; all if empty."""
    until: str = ""
    """Pattern of a file. As soon as it exists, the first line is interrupted."""
    until_logged: str = ""
    """Text on standard error. As soon as it stands there, the first line is interrupted."""
    prepare: Callable[[Path], None] | None = None
    """Writes files into the folder before the first line."""


def label_file(folder: Path) -> None:
    """Write labels of the recorded samples with hard classes of two attributes."""
    with (folder / "record" / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "hard.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "eyeglasses", "hair"])
        for row in rows:
            classes = [max(("yes", "no"), key=lambda c, r=row: float(r[f"eyeglasses:{c}"]))]
            classes.append(max(("short", "long"), key=lambda c, r=row: float(r[f"hair:{c}"])))
            writer.writerow([row["file"], *classes])


def vit_files(folder: Path) -> None:
    """Write a small ViT classifier with random weights, and images for it."""
    from transformers import ViTConfig, ViTForImageClassification

    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    shape |= {"image_size": 16, "patch_size": 4}
    torch.manual_seed(0)
    network = ViTForImageClassification(ViTConfig(**shape, num_labels=3))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    network.save_pretrained(folder / "model")
    save_file({"images": torch.randn(2, 3, 16, 16)}, folder / "images.safetensors")


def pickled_file(folder: Path) -> None:
    """Write a pickled checkpoint with weights and their averages."""
    weights = {f"module.layer.{i}.weight": torch.full((2, 3), float(i)) for i in range(3)}
    torch.save({"model": weights, "ema": {k: v + 0.5 for k, v in weights.items()}, "step": 7}, folder / "weights.pt")


GUIDED = "sample --n 16 --seed 300 --adp {weights}/adp/portraits.safetensors"
PROFESSIONS = "--model {weights}/diffusion/portraits_professions.safetensors"
ADP = "train-adp --features record/set --labels hard.csv"
SAE = "train-sae --features record-up/set --latents 192 --k 8 --batch 256"
FIND = "find-bias-features --features record-up/set --labels hard.csv --sae train-sae/sae.safetensors --resamples 10"
PATH = "neuron-path --model model --images images.safetensors --targets 0,2"
TRAIN = "train-portraits {0} --folder {0} --steps {1}"

COMMANDS: dict[str, Commands] = {
    "demo": Commands(("demo --n 32 --sheet sheet.png --json demo.json",)),
    "demo-joint": Commands(("demo --n 12 --batch 6 --target 'eyeglasses x hair: uniform' --sheet sheet.png --json demo.json",)),
    "sample": Commands(("sample --n 16 --seed 300 --out images", "sample --n 6 --batch 4 --seed 300 --steps 11 --out short/images")),
    "sample-professions": Commands(tuple(f"sample {PROFESSIONS} --n 4 --profession {i} --out {i}/images" for i in range(4))),
    "sample-guided": Commands(
        (
            GUIDED + " --target 'eyeglasses: yes=0.5,no=0.5' --out quota/images",
            GUIDED + " --target 'skin_tone: uniform' --batch 7 --out tones/images",
            GUIDED + " --target 'eyeglasses: yes=0.3,no=0.7' --mode chi-square --out chi-square/images",
            GUIDED + " --target 'hair: long=0.7,short=0.3' --mode kl --strength 0.6 --out kl/images",
            GUIDED.replace("portraits.", "portraits_professions.")
            + f" {PROFESSIONS} --profession 1 --target 'hair: uniform' --out chef/images",
        )
    ),
    "sample-joint": Commands(
        (
            GUIDED + " --target 'eyeglasses x hair: uniform' --batch 6 --out two/images",
            GUIDED + " --target 'eyeglasses: uniform; hair: uniform; skin_tone: uniform' --batch 8 --out three/images",
        )
    ),
    "record": Commands(("sample --n 96 --batch 32 --seed 900 --record set --labels labels.csv --out images",)),
    "record-up": Commands(("sample --n 96 --batch 32 --seed 900 --site output.1 --record set --out images",)),
    "train-adp": Commands(
        (
            f"{ADP} --attribute eyeglasses --no-moves --epochs 5 --out adp.safetensors",
            f"{ADP} --attribute eyeglasses --no-moves --epochs 5 --out again.safetensors",
            f"{ADP} --attribute hair --no-moves --epochs 4 --add-to adp.safetensors --out both.safetensors",
            f"{ADP} --attribute hair --attribute eyeglasses --no-moves --kind linear --seed 2 --out linear.safetensors",
            "train-adp --features record/set --labels record/labels.csv --attribute skin_tone --no-moves --epochs 3 --out soft.safetensors",
        ),
        ("record",),
        prepare=label_file,
    ),
    "train-adp-directions": Commands(
        (f"{ADP} --attribute eyeglasses --epochs 4 --learn 0 --trial-images 16 --out adp.safetensors",), ("record",), prepare=label_file
    ),
    "train-adp-learn": Commands(
        (f"{ADP} --attribute eyeglasses --epochs 4 --learn 6 --images record/images --trial-images 16 --out adp.safetensors",),
        ("record",),
        prepare=label_file,
    ),
    "train-sae": Commands(
        (f"{SAE} --steps 120 --out sae.safetensors", f"{SAE} --steps 60 --activation batch-topk --lr 0.001 --out batch.safetensors"),
        ("record-up",),
    ),
    "train-sae-interrupted": Commands(
        (f"{SAE} --steps 400 --seed 3 --out sae.safetensors",) * 2, ("record-up",), until_logged="10/400"
    ),
    "find-bias-features": Commands(
        (
            f"{FIND} --attribute eyeglasses --attribute hair --per-class 8 --epochs 6 --out found.safetensors",
            f"{FIND} --attribute eyeglasses --baseline zero --beside 2 --epochs 6 --seed 1 --out other.safetensors",
        ),
        ("record", "record-up", "train-sae"),
        prepare=label_file,
    ),
    "neuron-path": Commands(
        (
            f"{PATH} --json clean.json",
            f"{PATH} --search paper --nodes left-20 --dtype float64 --json paper.json",
            f"{PATH} --search shortlist --objective margin --top-k 3 --json shortlist.json",
        ),
        prepare=vit_files,
        only=("*.json",),
    ),
    "convert": Commands(("convert weights.pt weights.safetensors",), prepare=pickled_file, only=("*.safetensors",)),
    **{f"portraits-{kind}": Commands((TRAIN.format(kind, 6),)) for kind in ("conditional", "labeller", "judge", "text")},
    "portraits-unconditional": Commands((TRAIN.format("unconditional", 3), TRAIN.format("unconditional", 6))),
    "portraits-adp-begun": Commands(
        (TRAIN.format("adp", 6),), until="adp/parts/000128.safetensors", only=("000000.*", "000064.*")
    ),
    "portraits-adp-text-begun": Commands(
        (TRAIN.format("adp-text", 6),), until="**/shard-000032.safetensors", only=("shard-000000.*", "shard-000016.*")
    ),
    "portraits-steering-begun": Commands(
        (TRAIN.format("steering", 6),), until="**/shard-000032.safetensors", only=("shard-000000.*", "shard-000016.*")
    ),
}


# The shipped graphs.

FEW = {"EquipoiseEmptyPixelLatent": {"batch_size": 8}}
TEMPLATES: dict[str, dict[str, dict[str, Any]]] = {
    "1 Start here, no download": {},
    "Lab quickstart_professions": {},
    "Lab quickstart_text": {},
    "Lab bias_feature_steer_quickstart": {},
    "Lab label_audit": {"EquipoiseRecordFeatures": {"images": 32, "steps": 8}},
    "6 Report": {
        "EquipoiseEmptyPixelLatent": {"batch_size": 16},
        "EquipoiseFairnessReport": {"batch_size": 16},
        "EquipoiseDistributionGuidanceKSampler": {"steps": 10},
        "KSampler": {"steps": 10},
    },
    # The two with a joint target have batches that its four cells divide, so their results do not depend on the order of cells.
    "Lab balanced_dataset": {
        "EquipoiseEmptyPixelLatent": {"batch_size": 32},
        "EquipoiseTrainAttributeClassifier": {"steps": 40, "batch": 16},
    },
    "Lab neuron_path_audit": {
        "EquipoiseEmptyPixelLatent": {"batch_size": 32},
        "EquipoiseDistributionGuidanceKSampler": {"steps": 6},
        "EquipoiseAttributeLeakageAudit": {"top_k": 1, "control_draws": 1},
        "EquipoisePruneClassifierCurve": {"kept": "1, 4", "pruned": "1", "control_draws": 1},
        "EquipoiseNeuronPathEffect": {"control_draws": 1},
    },
    "Lab train_adp_quickstart": FEW
    | {
        "EquipoiseRecordFeatures": {"images": 48, "steps": 6},
        "EquipoiseLearnDirections": {"fit_steps": 6, "batch": 8},
        "EquipoiseCalibrateADP": {"images": 8, "steps": 4},
    },
    "Lab find_bias_features_quickstart": FEW
    | {
        "EquipoiseRecordFeatures": {"images": 48, "steps": 6},
        "EquipoiseTrainSAE": {"latents": 128, "k": 8, "steps": 40, "batch": 256},
        "EquipoiseFindBiasFeatures": {"per_class": 8},
        "EquipoiseFeatureAtlas": {"count": 3},
        "EquipoiseLearnFeatureProfiles": {"more": 8, "fit_steps": 4, "batch": 8},
        "EquipoiseCalibrateBiasFeatures": {"images": 8, "steps": 2},
        "EquipoiseSteerSweep": {"points": 3, "steps": 2},
    },
}


def template(name: str, changes: Mapping[str, Mapping[str, Any]], host: Host) -> Iterator[Prompt]:
    """Yield a shipped graph."""
    yield host.template(name, changes)


def balance_ledger(host: Host) -> Iterator[Prompt]:
    """Yield the ledger's graph as a queue of single images.

    Then an export and a reset.
    """
    for i in range(8):
        yield host.template("5 A queue of single images", {"PrimitiveInt": {"value": 2026 + i}})
    graph = Graph(host)
    graph("LedgerReport", ledger=graph("BalanceLedger", name="my portraits")[0], action="export CSV")
    yield graph.nodes
    graph = Graph(host)
    graph("LedgerReport", ledger=graph("BalanceLedger", name="my portraits")[0], action="reset", counted_images=2)
    yield graph.nodes


# Graphs of our own.


class Node(str):
    """A node's id; an index gives a reference to one of its outputs."""

    def __getitem__(self, index: Any) -> Any:
        return [str(self), index]


class Graph:
    """A graph that is being built, in API form. Calling it adds a node."""

    def __init__(self, host: Host) -> None:
        self.nodes: Prompt = {}
        self.host = host

    def __call__(self, kind: str, /, **inputs: Any) -> Node:
        kind = kind if kind in self.host.info else f"Equipoise{kind}"
        node = Node(f"{len(self.nodes) + 1:02d}")
        self.nodes[str(node)] = self.host.node(kind, **inputs)
        return node

    def half(self, weights: str = "yes=0.5, no=0.5", attribute: str = "eyeglasses", **inputs: Any) -> list[Any]:
        """Add a target of one attribute."""
        return self("TargetDistribution", attribute=attribute, preset="weights", weights=weights, **inputs)[0]

    def file(self, kind: str, field: str, name: str = "portraits") -> list[Any]:
        """Add the loader of a shipped file."""
        return self(f"Load{kind}", **{field: f"{name}.safetensors"})[0]


class World:
    """A graph that begins with one of the shipped models.

    It also holds what samples and judges with it.
    """

    def __init__(self, host: Host, text: bool = False, batch: int = 8, steps: int = 8) -> None:
        self.g = g = Graph(host)
        name = "portraits_text" if text else "portraits"
        load = g("LoadQuickstartTextModel" if text else "LoadUnconditionalDiffusion", model_name=f"{name}.safetensors")
        self.model, self.vae, self.clip = load[0], load[2 if text else 1], load[1]
        self.latent = g("EmptyPixelLatent", model=self.model, batch_size=batch)[0]
        if text:
            self.positive, negative = (g("CLIPTextEncode", clip=self.clip, text=t)[0] for t in ("a photo of a doctor", "a drawing"))
        else:
            self.positive = negative = load[2]
        self.schedule = {"steps": steps, "cfg": 4.0 if text else 1.0, "sampler_name": "euler" if text else "ddim", "scheduler": "normal"}
        self.sampling = {"positive": self.positive, "negative": negative, "latent_image": self.latent, **self.schedule}
        self.adp = g.file("ADP", "adp_name", name)
        self.labeller = g.file("AttributeClassifier", "classifier_name", "portraits_labeller")

    def sample(self, model: list[Any], **changes: Any) -> list[Any]:
        """Add a sampler; returns its latents."""
        return self.g("KSampler", model=model, **({"seed": 2026} | self.sampling | changes))[0]

    def record(self, name: str, **inputs: Any) -> list[Any]:
        """Add a recording of 24 images; returns the feature set."""
        sampling = {k: v for k, v in self.sampling.items() if k not in ("positive", "negative")}
        asked = {"clip": self.clip} if "prompts" in inputs else {"positive": self.positive, "negative": self.positive}
        return self.g("RecordFeatures", model=self.model, vae=self.vae, set_name=name, images=24, **(sampling | asked | inputs))[0]


def guidance(text: bool, host: Host) -> Iterator[Prompt]:
    """Yield Distribution Guidance with every setting, and other samplers."""
    w = World(host, text, batch=7)
    g, common = w.g, {"model": w.model, "adp": w.adp, "target": w.g.half(), "seed": 2026}
    directions = ("learned", "learned-prompts", "mean-difference", "linear-discriminant", "sum", "prompt-contrast", "adp-gradient")
    settings: list[dict[str, Any]] = [
        {}, {"mode": "chi-square"}, {"mode": "kl"}, {"strength": 0.5}, {"strength": 0.0}, {"start_percent": 0.2, "end_percent": 0.7},
        {"rows": "cond+uncond"}, {"assign": "reading"}, {"assign": "seeded"}, {"target": g.half("light=0.2, dark=0.5", "skin_tone")},
        *({"direction": d} for d in directions if text or d not in ("learned-prompts", "prompt-contrast")),
    ]  # fmt: skip
    for changes in settings:
        w.sample(g("DistributionGuidance", **(common | changes))[0])
    patched = g("DistributionGuidance", **common)[0]
    for sampler in ("euler_ancestral", "dpmpp_2m", "heun", "dpmpp_2m_sde"):
        w.sample(patched, sampler_name=sampler, scheduler="karras")
    w.sample(patched, denoise=0.6, latent_image=w.sample(w.model))
    w.sample(patched, positive=g("ExemptFromGuidance", conditioning=w.positive)[0])
    yield g.nodes


def guidance_sampler(host: Host) -> Iterator[Prompt]:
    """Yield the sampler node with passes, repairs and a ledger."""
    w = World(host, batch=13)
    ledger, target = w.g("BalanceLedger", name="sampler")[0], w.g.half("yes=0.4, no=0.6")
    common = {"model": w.model, "adp": w.adp, "target": target, "seed": 5, **w.sampling}
    for changes in ({"images_per_pass": 5}, {"vae": w.vae, "classifier": w.labeller, "repair": 2}, {"ledger": ledger, "strength": 0.8}):
        w.g("DistributionGuidanceKSampler", **common, **changes)
    yield w.g.nodes


def guidance_joint(host: Host) -> Iterator[Prompt]:
    """Yield joint targets that the batch does not divide."""
    w = World(host, batch=6)
    for attributes in ("eyeglasses x hair", "eyeglasses x skin_tone"):
        target = w.g("TargetDistribution", attribute=attributes, preset="uniform", weights="", adp=w.adp)[0]
        w.g("DistributionGuidanceKSampler", model=w.model, adp=w.adp, target=target, seed=5, **w.sampling)
    yield w.g.nodes


def class_labels(host: Host) -> Iterator[Prompt]:
    """Yield the conditional model under two labels, with cfg."""
    w = World(host)
    load = w.g("LoadUnconditionalDiffusion", model_name="portraits_professions.safetensors")
    for name in ("chef", "3"):
        label = w.g("ClassLabel", model=load[0], class_label=name)
        w.sample(load[0], positive=label[0], negative=label[1], cfg=2.0)
    yield w.g.nodes


def steering(text: bool, host: Host) -> Iterator[Prompt]:
    """Yield Bias Feature Steer with every setting, and sweeps."""
    w = World(host, text, batch=6)
    g, name = w.g, "portraits_text" if text else "portraits"
    sae, bias = g.file("SAE", "sae_name", name), g.file("BiasFeatures", "bias_features_name", name)
    mask = g("SolidMask", value=1.0, width=16, height=16)[0]
    common = {"model": w.model, "sae": sae, "bias_features": bias}
    settings: list[dict[str, Any]] = [
        {}, {"class_name": "no"}, {"strength": 0.4}, {"strength": 0.0},
        {"mode": "add"}, {"mode": "suppress"}, {"mode": "scale", "features": 4}, {"rows": "cond+uncond"},
        {"start_percent": 0.1, "end_percent": 0.6}, {"rule": "asyrp"}, {"mask": mask}, {"profile": "learned"},
        {"target": g.half(), "adp": w.adp}, {"target": g.half(), "assign": "seeded"},
    ]  # fmt: skip
    for changes in settings:
        w.sample(g("BiasFeatureSteer", seed=2026, **(common | changes))[0])
    g("SteerSweep", points=3, seed=2026, vae=w.vae, classifier=w.labeller, adp=w.adp, **common, **w.sampling)
    yield g.nodes


def text_directions(host: Host) -> Iterator[Prompt]:
    """Yield directions from pairs of prompts, and their calibration."""
    w = World(host, text=True, batch=4, steps=6)
    g = w.g
    pairs = {"model": w.model, "clip": w.clip, "attribute": "eyeglasses", "templates": "a photo of a doctor {}\na photo of a chef {}"}
    pairs |= {"classes": "yes: with eyeglasses\nno: without eyeglasses", "latent_image": w.latent, "images": 8, "negative": "a drawing"}
    learned = g("LearnDirectionsFromPrompts", name="text", fit_steps=5, batch=4, **pairs, **w.schedule)
    both = g("ContrastDirections", adp=learned[0], noise_levels=4, **pairs, **w.schedule)
    g("ContrastDirections", noise_levels=3, site="output.1", **pairs, **w.schedule)
    asked = {"model": w.model, "images": 8, "name": "text", "classifier": w.labeller, "vae": w.vae, **w.sampling, "steps": 4}
    g("CalibrateADP", adp=both[0], attribute="eyeglasses", **asked)
    yield g.nodes


def pictures_and_labels(host: Host) -> Iterator[Prompt]:
    """Yield sets of prompts and pictures, labels of every kind, and trainings."""
    w = World(host, text=True, batch=8, steps=6)
    g = w.g
    prompts = "\n".join(f"a photo of a doctor {word} eyeglasses" for word in ("with", "without"))
    recorded = w.record("prompts", prompts=prompts, spatial_levels="-2, 2", unconditional_rows=True, every=2)
    named = g("LabelFeaturesFromPrompts", features=recorded, classes="eyeglasses: yes=with eyeglasses, no=without eyeglasses")[0]
    seen = g("LabelFeaturesWithClassifier", features=recorded, classifier=w.labeller, attributes="hair", labels=named)[0]
    toned = g("LabelFeaturesWithSkinTone", features=recorded, softness=0.3, crop="0.2, 0.2, 0.8, 0.8", labels=seen)[0]
    labels = g("LabelFeatures", features=recorded, labels=toned)[0]
    first = g("TrainADP", features=recorded, labels=seen, kind="linear", epochs=3, seed=1)[0]
    g("LearnDirections", model=w.model, adp=first, features=recorded, labels=labels, vae=w.vae, classifier=w.labeller, clip=w.clip,
      attributes="hair", site="middle", fit_steps=4, batch=4, name="pictures")  # fmt: skip
    images = g("VAEDecode", samples=w.sample(w.model), vae=w.vae)[0]
    g("RecordFeaturesFromImages", model=w.model, vae=w.vae, positive=w.positive, set_name="pictures", images=images, levels="-4, 0, 4",
      batch_size=3, site="output.1", spatial_levels="0")  # fmt: skip
    yield g.nodes
    rows = "".join(f"{i:06d}.png,{('short', 'long')[i % 2]}\n" for i in range(24))
    (host.base / "input" / "hair.csv").write_text(f"file,hair\n{rows}", encoding="utf-8")
    g = Graph(host)
    opened = g("LoadFeatures", set_name="prompts")[0]
    table = g("LabelFeaturesFromCSV", features=opened, file_name="hair.csv")[0]
    g("TrainADP", features=opened, labels=table, epochs=2)
    yield g.nodes


def feature_effects(host: Host) -> Iterator[Prompt]:
    """Yield effects, profiles and calibration of the text model's features."""
    w = World(host, text=True, batch=4, steps=4)
    g = w.g
    sae = g.file("SAE", "sae_name", "portraits_text")
    common = {"model": w.model, "sae": sae, "vae": w.vae, "classifier": w.labeller, "name": "effects", "attribute": "eyeglasses"}
    recorded = w.record("effects", prompts="a photo of a doctor\na photo of a chef", site="output.1", spatial_levels="-4, 0, 4")
    labels = g("LabelFeaturesWithClassifier", features=recorded, classifier=w.labeller, attributes="eyeglasses")[0]
    bias = g("FindBiasFeatures", features=recorded, labels=labels, sae=sae, attribute="eyeglasses", per_class=4)[0]
    measured = g("MeasureFeatureEffects", bias_features=bias, images=4, seed=7, per_class=1, **common, **w.sampling)[0]
    fit = {"features": recorded, "labels": labels, "more": 4, "fit_steps": 3, "batch": 4, "clip": w.clip, "adp": w.adp}
    learned = g("LearnFeatureProfiles", bias_features=measured, **fit, **common)[0]
    g("CalibrateBiasFeatures", bias_features=learned, images=4, adp=w.adp, **common, **w.sampling)
    yield g.nodes


def neuron_paths(host: Host) -> Iterator[Prompt]:
    """Yield every search and baseline, and what is done with paths."""
    w = World(host, batch=6)
    g = w.g
    images = g("VAEDecode", samples=w.sample(w.model), vae=w.vae)[0]
    common = {"images": images, "classifier": w.labeller, "attribute": "hair", "memory_mb": 256}
    paths = [g("FindNeuronPath", search=s, **common)[0] for s in ("clean-layer", "paper", "shortlist")]
    paths.append(g("FindNeuronPath", objective="margin", nodes="left-20", top_k=3, shared=True, **common)[0])
    methods = ("activation", "influence", "knowledge-neurons", "gradient-activation", "random")
    paths += [g("BaselinePaths", method=m, top_k=2, **common)[0] for m in methods]
    measured = {"images": images, "classifier": w.labeller}
    for rule in ("mode", "mean score"):
        g("ClassPath", neuron_path=paths[0], rule=rule, draws=20, **measured)
    others = {f"neuron_path_{i}": path for i, path in enumerate(paths[1:4], 2)}
    g("NeuronPathEffect", neuron_path=paths[0], control_draws=2, **others, **measured)
    for operation in ("zero", "scale", "mean", "keep-only"):
        edited = g("EditVisionNeurons", operation=operation, neuron_path=paths[0], rows="all tokens", **measured)[0]
        g("AttributeHistogram", images=images, classifier=edited, attribute="hair", batch_size=6)
    g("NeuronGallery", neuron_path=paths[0], count=3, images=images, classifier=w.labeller)
    yield g.nodes


def classifiers(host: Host) -> Iterator[Prompt]:
    """Yield a data set, and trainings of both architectures on it."""
    w = World(host, batch=32)
    g = w.g
    images = g("VAEDecode", samples=w.sample(w.model), vae=w.vae)[0]
    made = g("SaveBalancedDataset", images=images, name="set", split="train=0.75, test=0.25", attribute="eyeglasses, hair", sure=0.6,
             class_folder="hair", classifier=w.labeller)[0]  # fmt: skip
    common = {"dataset": made, "image_size": "32", "batch": 8, "attribute": "hair"}
    trained = g("TrainAttributeClassifier", name="vit", architecture="vit", steps=12, augment="colour", **common)[0]
    g("TrainAttributeClassifier", name="cnn", steps=12, augment="geometry", balance="hair", seed=2, **common)
    g("ClassifierFairness", classifier=trained, dataset=made, attribute="hair", group="eyeglasses", split="all")
    yield g.nodes


GRAPHS: dict[str, Callable[[Host], Iterator[Prompt]]] = {
    **{f"template-{name}": partial(template, name, changes) for name, changes in TEMPLATES.items()},
    "template-balance_ledger": balance_ledger,
    "guidance": partial(guidance, False),
    "guidance-text": partial(guidance, True),
    "guidance-sampler": guidance_sampler,
    "guidance-joint": guidance_joint,
    "class-labels": class_labels,
    "steering": partial(steering, False),
    "steering-text": partial(steering, True),
    "text-directions": text_directions,
    "pictures-and-labels": pictures_and_labels,
    "feature-effects": feature_effects,
    "neuron-paths": neuron_paths,
    "classifiers": classifiers,
}
