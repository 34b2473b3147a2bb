"""Make the pictures of the help pages, web/docs/img/<NodeId>.webp, with a real ComfyUI.

    python tools/help_pictures.py [GROUP ...] [--folder DIR] [--chromium PATH] [--playwright FOLDER]

Run it with the project's environment; it takes half an hour on two busy cores. Each picture shows the output of its node on the shipped
models. Runs are short, so the pictures show what a node returns, not how well it can work. With --folder, a later call resumes the feature
sets and trainings in that folder. Nodes that only load or save are shown by their text. The two nodes that need CLIP's weights are shown by
a rendering of a graph (it needs Chromium, Node and a folder with playwright-core).
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FOLDER = ROOT / "web" / "docs" / "img"
WIDTH, HEIGHT, MOST_BYTES = 680, 960, 28_000
SEED = 2026
DDIM = {"steps": 20, "cfg": 1.0, "sampler_name": "ddim", "scheduler": "normal"}
EULER = {"steps": 20, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal"}
LEVELS = "-8, -6, -4, -2, 0, 2, 4"
DOCTOR = "a photo of a doctor"
CELLS = "yes/short=0.25, yes/long=0.25, no/short=0.25, no/long=0.25"
Picture = np.ndarray
Made = Iterator[tuple[str, Picture]]


@dataclass(frozen=True)
class Node:
    """A node of a graph in API form; node[k] is its output k."""

    id: str
    """Id in the graph."""

    def __getitem__(self, output: int) -> list[Any]:
        return [self.id, output]


class Graph:
    """Build a graph in API form node by node; other widgets keep the schema's defaults."""

    def __init__(self, world: World) -> None:
        self.world, self.nodes = world, {}

    def __call__(self, kind: str, **inputs: Any) -> Node:
        kind = kind if kind in self.world.info else f"Equipoise{kind}"
        schema = self.world.inputs_of(self.world.info[kind])
        values = {
            n: o["default"] if "default" in o else o["options"][0] for n, k, o in schema if self.world.is_widget(k, o) and n not in inputs
        }
        node = Node(str(len(self.nodes) + 1))
        self.nodes[node.id] = {"class_type": kind, "inputs": values | inputs}
        return node

    def show(self, image: list[Any]) -> Node:
        """Add a preview of images."""
        return self("PreviewImage", images=image)

    def say(self, value: list[Any]) -> Node:
        """Add a preview of text."""
        return self("PreviewAny", source=value)

    def portraits(self, batch: int) -> tuple[Node, list[Any], dict[str, Any]]:
        """Add the shipped unconditional model; returns its node, VAE and sampler inputs."""
        model = self("LoadUnconditionalDiffusion", model_name="portraits.safetensors")
        latent = self("EmptyPixelLatent", model=model[0], batch_size=batch)
        return model, model[1], {"positive": model[2], "negative": model[2], "latent_image": latent[0]} | DDIM

    def words(self, batch: int, prompt: str = DOCTOR) -> tuple[Node, list[Any], dict[str, Any]]:
        """Add the shipped text model; returns its node, VAE and sampler inputs."""
        model = self("LoadQuickstartTextModel")
        latent = self("EmptyPixelLatent", model=model[0], batch_size=batch)
        positive, negative = (self("CLIPTextEncode", clip=model[1], text=t) for t in (prompt, "a drawing"))
        return model, model[2], {"positive": positive[0], "negative": negative[0], "latent_image": latent[0]} | EULER

    def drawn(self, model: list[Any], vae: list[Any], sampling: dict[str, Any], seed: int = SEED) -> list[Any]:
        """Add a KSampler and return its images."""
        return self("VAEDecode", samples=self("KSampler", model=model, seed=seed, **sampling)[0], vae=vae)[0]

    def half(self, text: str = "yes=0.5, no=0.5", **more: Any) -> list[Any]:
        """Add a target of eyeglasses, half and half by default."""
        return self("TargetDistribution", attribute="eyeglasses", preset="weights", weights=text, **more)[0]

    def classifier(self, name: str) -> list[Any]:
        """Add a loader of a shipped classifier."""
        return self("LoadAttributeClassifier", classifier_name=f"portraits_{name}.safetensors")[0]


class World:
    """Hold the server and the judge, and lay out pictures."""

    def __init__(self, server: Any, workflows: Any, base: Path) -> None:
        from equipoise.models.attribute_classifier import load_classifier

        self.server, self.base, self.info = server, base, server.get("/object_info")
        self.inputs_of, self.is_widget = workflows.inputs_of, workflows.is_widget
        self.judge = load_classifier(ROOT / "shipped" / "weights" / "attribute_classifiers" / "portraits_judge.safetensors")

    def run(self, graph: Graph, limit: float = 3600) -> Callable[[Node], Any]:
        """Queue a graph; returns a function from a node to its pictures or its text."""
        self.info = self.server.get("/object_info")
        outcome = self.server.queue(graph.nodes, limit=limit)
        if outcome.error:
            raise RuntimeError(outcome.error)

        def of(node: Node) -> Any:
            output = outcome.outputs[node.id]
            return self.server.images(outcome, node.id) if output.get("images") else "".join(output["text"])

        return of

    def sheet(
        self, images: Picture, caption: str, attribute: str = "eyeglasses", columns: int = 8, tile: int = 96, framed: bool = True
    ) -> Picture:
        """Lay images in rows; the judge's class decides the colour of each frame."""
        from equipoise.charts.core.sheet import contact_sheet

        pictures = torch.from_numpy(images).movedim(-1, 1)
        labels = self.judge.probabilities(pictures.float() / 255)[attribute].argmax(-1) if framed else None
        names = [f"{attribute} {c}" for c in self.judge.attributes[attribute]] if framed else []
        return contact_sheet(pictures, labels, names, caption, columns=columns, tile=tile)


def rows(*pictures: Picture) -> Picture:
    """Lay pictures below each other."""
    from equipoise.charts.core.sheet import stacked

    return stacked(list(pictures))


def face(size: int, mono: bool) -> ImageFont.FreeTypeFont:
    """Load a font."""
    from matplotlib import get_data_path

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans{'Mono' if mono else ''}.ttf", size)


def text_picture(title: str, text: str, most: int = 24) -> Picture:
    """Draw a node's text as a picture."""
    lines = [part for line in text.splitlines() for part in (textwrap.wrap(line, 92, subsequent_indent="  ") or [""])]
    lines = [*lines[:most], "..."] if len(lines) > most else lines
    out = Image.new("RGB", (960, 74 + 22 * len(lines)), "#FFFFFF")
    draw = ImageDraw.Draw(out)
    draw.text((16, 12), title, "#1A1A1A", face(22, False))
    draw.rectangle((12, 50, 947, out.height - 10), "#F2F2F2")
    for i, line in enumerate(lines):
        draw.text((22, 58 + 22 * i), line, "#1A1A1A", face(16, True))
    return np.asarray(out)


def guidance(w: World) -> Made:
    """Make the pictures of guidance."""
    g = Graph(w)
    model, vae, sampling = g.portraits(16)
    adp = g("LoadADP", adp_name="portraits.safetensors")
    plain = g.show(g.drawn(model[0], vae, sampling))
    patched = [
        g.show(g.drawn(g("DistributionGuidance", model=model[0], adp=adp[0], target=g.half(text), seed=SEED)[0], vae, sampling))
        for text in ("yes=0.5, no=0.5", "yes=0.25, no=0.75", "yes=0.75, no=0.25")
    ]
    judge, labeller = g.classifier("judge"), g.classifier("labeller")
    many = g("EmptyPixelLatent", model=model[0], batch_size=64)[0]
    large = sampling | {"latent_image": many}
    base = g.drawn(model[0], vae, large)
    inside = g(
        "DistributionGuidanceKSampler",
        model=model[0],
        seed=SEED,
        adp=adp[0],
        target=g.half(),
        vae=vae,
        classifier=labeller,
        repair=1,
        **large,
    )
    steered = g("VAEDecode", samples=inside[0], vae=vae)[0]
    histogram = g("AttributeHistogram", images=steered, classifier=judge, target=g.half(), baseline=base, batch_size=64)
    report = g("FairnessReport", base=base, steered=steered, classifier=judge, labeller=labeller, target=g.half(), batch_size=64)
    wide = sampling | {"latent_image": g("EmptyPixelLatent", model=model[0], width=64, height=64, batch_size=4)[0]}
    broad = g.show(g.drawn(model[0], vae, wide))
    all_steered, words = g.show(steered), g.say(inside[1])
    info, other = g("ADPInfo", adp=adp[0]), g("ADPInfo", adp=g("LoadADP", adp_name="portraits_professions.safetensors")[0])
    of = w.run(g)
    before, after, few, most = (of(n) for n in (plain, *patched))
    yield "LoadUnconditionalDiffusion", w.sheet(before, "16 images of portraits.safetensors", framed=False)
    yield "LoadAttributeClassifier", w.sheet(before, "What portraits_judge sees in 16 images")
    yield "DistributionGuidance", rows(w.sheet(before, "Before: plain sampling"), w.sheet(after, "After: the same noise, half and half"))
    yield (
        "TargetDistribution",
        rows(
            w.sheet(few[:8], "The same noise: yes=0.25, no=0.75"),
            w.sheet(after[:8], "yes=0.5, no=0.5"),
            w.sheet(most[:8], "yes=0.75, no=0.25"),
        ),
    )
    yield (
        "DistributionGuidanceKSampler",
        rows(w.sheet(of(all_steered)[:32], "32 of 64 images, half and half"), text_picture("report", of(words), 8)),
    )
    yield (
        "EmptyPixelLatent",
        rows(
            w.sheet(before[:8], "32 x 32, the size the model was trained on", framed=False),
            w.sheet(of(broad), "64 x 64: it falls apart", columns=4, tile=192, framed=False),
        ),
    )
    yield "AttributeHistogram", of(histogram)[0]
    yield "FairnessReport", of(report)[0]
    yield "ADPInfo", of(info)[0]
    yield "LoadADP", of(other)[0]


def conditional(w: World) -> Made:
    """Make the pictures of the profession-conditional model."""
    g = Graph(w)
    model = g("LoadUnconditionalDiffusion", model_name="portraits_professions.safetensors")
    latent = g("EmptyPixelLatent", model=model[0], batch_size=8)
    names = ("firefighter", "chef", "doctor", "teacher")
    shown = []
    for name in names:
        label = g("ClassLabel", model=model[0], class_label=name)
        shown.append(g.show(g.drawn(model[0], model[1], {"positive": label[0], "negative": label[1], "latent_image": latent[0]} | DDIM)))
    of = w.run(g)
    yield "ClassLabel", rows(*(w.sheet(of(n), f"class_label {name}", framed=False) for n, name in zip(shown, names, strict=True)))


def text(w: World) -> Made:
    """Make the pictures of the text model."""
    g = Graph(w)
    prompts = (DOCTOR, "a photo of a chef with eyeglasses", "a teacher, long hair, dark skin")
    shown = []
    for prompt in prompts:
        model, vae, sampling = g.words(8, prompt)
        shown.append(g.show(g.drawn(model[0], vae, sampling)))
    model, vae, sampling = g.words(16, f"{DOCTOR} without eyeglasses")
    adp = g("LoadADP", adp_name="portraits_text.safetensors")[0]
    guided = g("DistributionGuidance", model=model[0], adp=adp, target=g.half(), seed=SEED)[0]
    marked = g("ExemptFromGuidance", conditioning=sampling["positive"])[0]
    both = [g.show(g.drawn(guided, vae, sampling | {"positive": p})) for p in (sampling["positive"], marked)]
    latent, clip = sampling["latent_image"], model[1]
    contrast = g("ContrastDirections", model=model[0], clip=clip, latent_image=latent, images=32, **EULER)
    learned = g(
        "LearnDirectionsFromPrompts", model=model[0], clip=clip, latent_image=latent, images=32, fit_steps=100, name="help", **EULER
    )
    curve, report = g.show(learned[2]), g.say(contrast[1])
    asked = "\n".join(f"{DOCTOR} {word} eyeglasses" for word in ("with", "without"))
    recorded = g(
        "RecordFeatures",
        model=model[0],
        vae=vae,
        clip=clip,
        latent_image=latent,
        set_name="help_prompts",
        images=32,
        prompts=asked,
        **EULER,
    )
    labels = g("LabelFeaturesFromPrompts", features=recorded[0])
    looked = g("LabelFeatures", features=recorded[0], labels=labels[0], images_per_class=12)
    chart, sheets = g.show(looked[1]), g.show(looked[2])
    of = w.run(g)
    yield "LoadQuickstartTextModel", rows(*(w.sheet(of(n), p, framed=False) for n, p in zip(shown, prompts, strict=True)))
    asking = f'"{DOCTOR} without eyeglasses"'
    yield (
        "ExemptFromGuidance",
        rows(w.sheet(of(both[0]), f"{asking}, guided to half and half"), w.sheet(of(both[1]), f"{asking}, exempt on the same MODEL")),
    )
    yield "ContrastDirections", text_picture("report", of(report), 16)
    yield "LearnDirectionsFromPrompts", of(curve)[0]
    yield "LabelFeaturesFromPrompts", rows(level(of(chart)[0]), *(level(s) for s in of(sheets)))


def prompts(w: World) -> Made:
    """Make the pictures of balanced prompts."""
    g = Graph(w)
    model, vae, sampling = g.words(16)
    words = "yes: with eyeglasses | wearing eyeglasses\nno: without eyeglasses"
    asked = {"prompt": f"{DOCTOR} {{eyeglasses}}", "words": words, "weights": "yes 75 no 25", "latent": sampling["latent_image"]}
    balanced = g("BalancedPrompts", seed=SEED, clip=model[1], **asked)
    plain = g.show(g.drawn(model[0], vae, sampling))
    together = g.show(g.drawn(model[0], vae, sampling | {"positive": balanced[2]}))
    encoded = g("CLIPTextEncode", clip=model[1], text=balanced[0])
    parts = g.drawn(model[0], vae, sampling | {"positive": encoded[0], "latent_image": balanced[1]})
    lists, ordered = g.show(parts), g.show(g("ImagesInBatchOrder", images=parts, latents=balanced[1])[0])
    of = w.run(g)
    before = w.sheet(of(plain), f'"{DOCTOR}"')
    yield "BalancedPrompts", rows(before, w.sheet(of(together), f'"{DOCTOR} ...", with the words of 75% eyeglasses'))
    yield (
        "ImagesInBatchOrder",
        rows(w.sheet(of(lists), "as ComfyUI sampled them: prompt by prompt"), w.sheet(of(ordered), "in the order of the batch")),
    )


def level(picture: Picture, width: int = 960) -> Picture:
    """Scale a picture to another width."""
    size = width, round(picture.shape[0] * width / picture.shape[1])
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def labels(w: World) -> Made:
    """Make the pictures of labels."""
    g = Graph(w)
    model, vae, sampling = g.portraits(16)
    labeller = g.classifier("labeller")
    del sampling["positive"], sampling["negative"]
    prompt = {"positive": model[2], "negative": model[2]}
    recorded = g("RecordFeatures", model=model[0], vae=vae, set_name="help", images=320, first_seed=5000, **prompt, **sampling)
    features = recorded[0]
    seen = g("LabelFeaturesWithClassifier", features=features, classifier=labeller, attributes="eyeglasses")
    tone = g("LabelFeaturesWithSkinTone", features=features)
    merged = g("MergeLabels", labels=tone[0], groups="skin_tone: light=very light|light, medium=intermediate|tan, dark=brown|dark")
    looked = [g("LabelFeatures", features=features, labels=n[0], images_per_class=12) for n in (tone, merged, seen)]
    pairs = [(g.show(n[1]), g.show(n[2])) for n in looked]
    batch, report = g.show(recorded[2]), g.say(recorded[1])
    trained = g("TrainADP", features=features, labels=seen[0], epochs=12)
    learned = g(
        "LearnDirections",
        model=model[0],
        adp=trained[0],
        features=features,
        labels=seen[0],
        vae=vae,
        classifier=labeller,
        attributes="eyeglasses",
        fit_steps=300,
        batch=24,
        positive=model[2],
        name="help",
    )
    tried = g(
        "CalibrateADP",
        model=model[0],
        adp=learned[0],
        images=32,
        seed=900000,
        attribute="eyeglasses",
        name="help",
        features=features,
        labels=seen[0],
        classifier=labeller,
        vae=vae,
        **prompt,
        **sampling,
    )
    curves = [g.show(n) for n in (trained[1], learned[2], tried[2])]
    saved = g("SaveADP", adp=tried[0], name="my_portraits", overwrite=True)
    path, info = g.say(saved[0]), g.say(g("ADPInfo", adp=tried[0])[0])
    pictures = g(
        "RecordFeaturesFromImages",
        model=model[0],
        vae=vae,
        positive=model[2],
        set_name="help_pictures",
        images=recorded[2],
        levels="-4, 0, 4",
        batch_size=16,
    )
    noised, report_2 = g.show(pictures[2]), g.say(pictures[1])
    of = w.run(g)
    yield "RecordFeatures", rows(w.sheet(of(batch), "The latest batch", framed=False), text_picture("report", of(report), 12))
    yield "RecordFeaturesFromImages", rows(w.sheet(of(noised), "The pictures", framed=False), text_picture("report", of(report_2), 12))
    tones, groups, glasses = [(of(c)[0], of(s)) for c, s in pairs]
    yield "LabelFeaturesWithSkinTone", rows(tones[0], level(tones[1][0]), level(tones[1][-1]))
    yield "MergeLabels", rows(tones[0], groups[0])
    yield "LabelFeaturesWithClassifier", rows(glasses[0], level(glasses[1][0]))
    yield "LabelFeatures", rows(glasses[0], *(level(s) for s in glasses[1]))
    for name, node in zip(("TrainADP", "LearnDirections", "CalibrateADP"), curves, strict=True):
        yield name, of(node)[0]
    yield "SaveADP", text_picture("path, and what ADP Info says of the file", short(of(path), w) + "\n\n" + of(info), 20)
    g = Graph(w)
    opened = g("LoadFeatures", set_name="help")
    table = g("LabelFeaturesFromCSV", features=opened[0], file_name="help/labels.csv")
    chart, words = g.show(g("LabelFeatures", features=opened[0], labels=table[0])[1]), g.say(opened[1])
    of = w.run(g)
    lines = (w.base / "output" / "equipoise" / "features" / "help" / "labels.csv").read_text(encoding="utf-8").splitlines()[:6]
    yield "LabelFeaturesFromCSV", rows(text_picture("help/labels.csv begins", "\n".join(lines)), of(chart)[0])
    yield "LoadFeatures", text_picture("text", of(words))


def short(path: str, w: World) -> str:
    """Write a path below the base directory as it is on every machine."""
    return path.replace(str(w.base), "ComfyUI")


def steering(w: World) -> Made:
    """Make the pictures of steering."""
    g = Graph(w)
    model, vae, sampling = g.portraits(16)
    adp, judge = g("LoadADP", adp_name="portraits.safetensors")[0], g.classifier("judge")
    sae, features = g("LoadSAE", sae_name="portraits.safetensors"), g("LoadBiasFeatures", bias_features_name="portraits.safetensors")
    steer = g("BiasFeatureSteer", model=model[0], sae=sae[0], bias_features=features[0], target=g.half(), adp=adp, seed=SEED)
    both = [g.show(g.drawn(m, vae, sampling)) for m in (model[0], steer[0])]
    few = g("EmptyPixelLatent", model=model[0], batch_size=4)
    sweep = g(
        "SteerSweep",
        model=model[0],
        sae=sae[0],
        bias_features=features[0],
        adp=adp,
        classifier=judge,
        vae=vae,
        seed=SEED,
        **(sampling | {"latent_image": few[0]}),
    )
    texts = [g.say(n[1]) for n in (sae, features)]
    of = w.run(g)
    plain, steered = (of(n) for n in both)
    yield (
        "BiasFeatureSteer",
        rows(w.sheet(plain, "Before: plain sampling"), w.sheet(steered, "After: the same noise, features turned, half and half")),
    )
    yield "SteerSweep", of(sweep)[0]
    for name, node in zip(("LoadSAE", "LoadBiasFeatures"), texts, strict=True):
        yield name, text_picture("text", of(node))


def features(w: World) -> Made:
    """Make the pictures of bias features."""
    g = Graph(w)
    model, vae, sampling = g.portraits(16)
    labeller, sae = g.classifier("labeller"), g("LoadSAE", sae_name="portraits.safetensors")[0]
    adp = g("LoadADP", adp_name="portraits.safetensors")[0]
    shipped = g("LoadBiasFeatures", bias_features_name="portraits.safetensors")[0]
    recorded = g(
        "RecordFeatures",
        model=model[0],
        vae=vae,
        set_name="help_maps",
        images=320,
        first_seed=7000,
        spatial_levels=LEVELS,
        site="output.1",
        **sampling,
    )
    labels = g("LabelFeaturesWithClassifier", features=recorded[0], classifier=labeller, attributes="eyeglasses")[0]
    trained = g("TrainSAE", features=recorded[0], name="help", latents=768, k=16, steps=600, overwrite=True)
    ranked = g("FindBiasFeatures", features=recorded[0], labels=labels, sae=sae, attribute="eyeglasses", per_class=12)
    atlas = g("FeatureAtlas", features=recorded[0], sae=sae, bias_features=shipped, count=5)
    around = {"model": model[0], "sae": sae, "vae": vae, "classifier": labeller}
    effects = g("MeasureFeatureEffects", bias_features=ranked[0], images=32, per_class=3, name="help", **around, **sampling)
    learned = g(
        "LearnFeatureProfiles",
        bias_features=ranked[0],
        features=recorded[0],
        labels=labels,
        more=32,
        fit_steps=150,
        batch=24,
        positive=model[2],
        name="help",
        adp=adp,
        **around,
    )
    tried = g("CalibrateBiasFeatures", bias_features=learned[0], images=32, seed=900000, name="help", adp=adp, **around, **sampling)
    saved = g("SaveBiasFeatures", bias_features=tried[0], name="my_portraits", overwrite=True)
    nodes = {"TrainSAE": trained, "FindBiasFeatures": ranked, "MeasureFeatureEffects": effects, "LearnFeatureProfiles": learned}
    charts = {name: g.show(n[2]) for name, n in (nodes | {"CalibrateBiasFeatures": tried}).items()}
    path, report = g.say(saved[0]), g.say(tried[1])
    of = w.run(g)
    yield "FeatureAtlas", of(atlas)[0]
    for name, node in charts.items():
        yield name, of(node)[0]
    yield "SaveBiasFeatures", text_picture("path, and what Calibrate Bias Features says of the file", short(of(path), w) + "\n\n" +
    of(report), 14)


def neurons(w: World) -> Made:
    """Make the pictures of neuron paths."""
    g = Graph(w)
    model, vae, sampling = g.portraits(48)
    target, labeller = g("TargetDistribution", attribute="eyeglasses x hair", preset="weights", weights=CELLS)[0], g.classifier("labeller")
    adp = g("LoadADP", adp_name="portraits.safetensors")[0]
    guided = g("DistributionGuidance", model=model[0], adp=adp, target=target, seed=SEED)[0]
    seen = {"images": g.drawn(guided, vae, sampling), "classifier": labeller}
    few = {"images": g("ImageFromBatch", image=seen["images"], batch_index=0, length=24)[0], "classifier": labeller}
    path = g("FindNeuronPath", attribute="eyeglasses", objective="margin", top_k=4, **few)
    simple = g("BaselinePaths", attribute="eyeglasses", method="gradient-activation", objective="margin", top_k=4, **few)
    effect = g("NeuronPathEffect", neuron_path=path[0], neuron_path_2=simple[0], **few)
    classes = g("ClassPath", neuron_path=path[0])
    audit = g("AttributeLeakageAudit", attributes="eyeglasses, hair", source="hair", target="eyeglasses", **seen)
    gallery = g("NeuronGallery", neuron_path=path[0], class_name="yes", count=4, **few)
    curve = g("PruneClassifierCurve", attribute="eyeglasses", kept="1, 5, 20", pruned="0.5, 1", **seen)
    edited = g("EditVisionNeurons", classifier=labeller, neuron_path=path[0], images=few["images"], rows="all tokens")
    before, after = (g("AttributeHistogram", images=few["images"], classifier=c, attribute="eyeglasses") for c in (labeller, edited[0]))
    charts = {
        "FindNeuronPath": path[1],
        "BaselinePaths": simple[1],
        "NeuronPathEffect": effect[0],
        "AttributeLeakageAudit": audit[0],
        "NeuronGallery": gallery[0],
        "PruneClassifierCurve": curve[0],
    }
    shown = {name: g.show(ref) for name, ref in charts.items()}
    shared, changed = g.show(classes[1]), g.say(edited[2])
    saved = g("SaveNeuronPath", neuron_path=classes[0], name="my_neuron_path", overwrite=True)
    path_text, report = g.say(saved[0]), g.say(classes[2])
    of = w.run(g)
    for name, node in shown.items():
        yield name, of(node)[0]
    yield "ClassPath", of(shared)[0]
    yield "EditVisionNeurons", rows(text_picture("report", of(changed), 6), of(before)[0], of(after)[0])
    yield "SaveNeuronPath", text_picture("path, and what Class Path says of the paths", short(of(path_text), w) + "\n\n" + of(report), 14)
    g = Graph(w)
    text = g.say(g("LoadNeuronPath", neuron_path_name="my_neuron_path.safetensors")[1])
    yield "LoadNeuronPath", text_picture("text", w.run(g)(text))


def datasets(w: World) -> Made:
    """Make the pictures of data sets."""
    g = Graph(w)
    model, vae, sampling = g.portraits(96)
    target, labeller = g("TargetDistribution", attribute="eyeglasses x hair", preset="weights", weights=CELLS)[0], g.classifier("labeller")
    adp = g("LoadADP", adp_name="portraits.safetensors")[0]
    images = g.drawn(g("DistributionGuidance", model=model[0], adp=adp, target=target, seed=SEED)[0], vae, sampling)
    saved = g(
        "SaveBalancedDataset",
        images=images,
        classifier=labeller,
        target=target,
        name="my_portraits",
        split="train=0.75, test=0.25",
        attribute="eyeglasses, hair",
    )
    trained = g(
        "TrainAttributeClassifier",
        dataset=saved[0],
        name="help",
        attribute="eyeglasses",
        image_size="32",
        steps=200,
        batch=32,
        overwrite=True,
    )
    judged = g("ClassifierFairness", classifier=trained[0], dataset=saved[0], group="hair")
    report, curve, bars = g.say(saved[1]), g.show(trained[2]), g.show(judged[0])
    of = w.run(g)
    folder = w.base / "output" / "equipoise" / "datasets" / "my_portraits"
    cells: dict[str, list[Picture]] = {}
    for split in ("train", "test"):
        for line in (folder / split / "metadata.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            with Image.open(folder / split / row["file_name"]) as picture:
                cells.setdefault(f"eyeglasses {row['eyeglasses']}, hair {row['hair']}", []).append(np.asarray(picture.convert("RGB")))
    parts = [w.sheet(np.stack(cells[name][:8]), f"{name}: {len(cells[name])} saved", framed=False) for name in sorted(cells)]
    yield "SaveBalancedDataset", rows(*parts, level(text_picture("report", of(report), 8), parts[0].shape[1]))
    yield "TrainAttributeClassifier", of(curve)[0]
    yield "ClassifierFairness", of(bars)[0]
    g = Graph(w)
    text = g.say(g("LoadDataset", dataset_name="my_portraits")[1])
    yield "LoadDataset", text_picture("text", w.run(g)(text))


def ledger(w: World) -> Made:
    """Make the pictures of the ledger."""
    runs, pictures, text = 16, [], ""
    for i in range(runs):
        g = Graph(w)
        model, vae, sampling = g.portraits(1)
        adp, labeller, target = g("LoadADP", adp_name="portraits.safetensors")[0], g.classifier("labeller"), g.half()
        opened = g("BalanceLedger", name="help")
        drawn = g("DistributionGuidanceKSampler", model=model[0], seed=SEED + i, adp=adp, target=target, ledger=opened[0], **sampling)
        images = g("VAEDecode", samples=drawn[0], vae=vae)[0]
        recorded = g("RecordAttributes", images=images, ledger=opened[0], target=target, classifier=labeller, assigned=drawn[2])
        report = g("LedgerReport", ledger=recorded[0], target=target)
        shown, words, counts = g.show(images), g.say(recorded[1]), g.say(report[2])
        of = w.run(g)
        pictures.append(of(shown)[0])
        text += f"run {i + 1}: {of(words)}\n" if i in (0, runs - 1) else ""
    sheet = w.sheet(np.stack(pictures), f"{runs} runs of one image each, half and half")
    yield "BalanceLedger", rows(sheet, text_picture("text of Ledger Report after the last run", of(counts), 10))
    yield "RecordAttributes", rows(w.sheet(np.stack(pictures), "The images that were recorded"), text_picture("text", text, 14))
    yield "LedgerReport", of(report)[0]


GROUPS = {f.__name__: f for f in (guidance, conditional, text, prompts, labels, steering, features, neurons, datasets, ledger)}
RENDERED = {
    "LabelFeaturesWithCLIP": (
        "Lab train_adp_sd15",
        ("CLIPVisionLoader", "CLIPLoader", "EquipoiseLabelFeaturesWithCLIP"),
        "It needs CLIP's weights.",
    ),
    "CLIPAttributeClassifier": (
        "3 Two prompts on your SD1.5",
        ("CLIPVisionLoader", "CLIPLoader", "EquipoiseCLIPAttributeClassifier"),
        "It needs CLIP's weights.",
    ),
    "ZeroShotAttributeHead": (
        "Lab neuron_path_clip_vision",
        ("CLIPLoader", "CLIPVisionLoader", "EquipoiseZeroShotAttributeHead"),
        "It needs CLIP's weights.",
    ),
}
"""Nodes that no shipped model can run: the graph of workflows/ that contains them, and the nodes of it to show."""


def rendered(thumbnails: Any, url: str, base: Path, playwright: Path, chromium: str) -> Made:
    """Render some nodes of a shipped graph, with a strip that names it a rendering."""
    for name, (workflow, kinds, needs) in RENDERED.items():
        graph = json.loads((ROOT / "workflows" / f"{workflow}.json").read_text(encoding="utf-8"))
        graph["nodes"] = [n for n in graph["nodes"] if n["type"] in kinds]
        node_ids = {n["id"] for n in graph["nodes"]}
        graph["links"] = [link for link in graph["links"] if link[1] in node_ids and link[3] in node_ids]
        alive = {link[0] for link in graph["links"]}
        for node in graph["nodes"]:
            for slot in node["inputs"]:
                slot["link"] = slot["link"] if slot["link"] in alive else None
            for slot in node["outputs"]:
                slot["links"] = [n for n in slot["links"] or [] if n in alive]
        for node, position in zip(
            sorted(graph["nodes"], key=lambda n: n["type"].startswith("Equipoise")), ((0, 0), (0, 160), (620, 0)), strict=True
        ):
            node["pos"] = list(position)
        graph["groups"] = []
        file, shot = base / f"{name}.json", base / f"{name}.png"
        file.write_text(json.dumps(graph), encoding="utf-8")
        script = ROOT / "tests" / "browser" / "screenshot.mjs"
        subprocess.run(["node", str(script), str(playwright), chromium, url, "1200x640", f"{file}={shot}"], check=True)
        with Image.open(shot) as picture:
            yield name, np.asarray(thumbnails.labelled(picture, needs))


def save(name: str, picture: Picture) -> None:
    """Write Equipoise<name>.webp in the best quality below the size limit.

    A picture that is too high is cut at the bottom.
    """
    image = Image.fromarray(picture).convert("RGB")
    width = min(WIDTH, image.width)
    image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    image = image.crop((0, 0, width, min(image.height, HEIGHT)))
    path = FOLDER / f"Equipoise{name}.webp"
    for quality in range(90, 20, -5):
        image.save(path, quality=quality, method=6)
        if path.stat().st_size < MOST_BYTES:
            break
    print(f"{path.name}: {image.width} x {image.height}, {path.stat().st_size // 1000} kB, quality {quality}", flush=True)


def main() -> int:
    """Make the pictures that the command line names."""
    sys.path.insert(0, str(HERE))
    import thumbnails

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"groups of pictures: {', '.join((*GROUPS, 'rendered'))}; default: all")
    parser.add_argument("--folder", type=Path, help="ComfyUI's base directory, to resume from later; default: a temporary folder")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    parser.add_argument("--playwright", type=Path, default=Path(), help="folder in which playwright-core is installed")
    args = parser.parse_args()
    names = args.names or [*GROUPS, "rendered"]
    FOLDER.mkdir(exist_ok=True)
    thumbnails.load(ROOT / "dev.py", "equipoise_dev").register()
    servers = importlib.import_module("equipoise.benchmarks.core.graph_server")
    workflows = thumbnails.load(ROOT / "tests" / "host" / "helpers" / "equipoise_workflow.py", "equipoise_workflow")
    servers.ODD_NAME = "equipoise"
    with tempfile.TemporaryDirectory() as folder:
        base = args.folder or Path(folder)
        thumbnails.stand_ins(base)
        for parent in ("user", "output"):
            shutil.rmtree(base / parent / "equipoise" / "ledgers", ignore_errors=True)
        (base / "custom_nodes" / "equipoise").unlink(missing_ok=True)
        with servers.Server(servers.checkout("COMFYUI_PATH", "~/ComfyUI"), base) as server:
            world = World(server, workflows, base)
            for name in (n for n in names if n in GROUPS):
                for node, picture in GROUPS[name](world):
                    save(node, picture)
            if "rendered" in names:
                for node, picture in rendered(thumbnails, server.url, base, args.playwright, args.chromium):
                    save(node, picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
