"""Make the thumbnails of workflows/ with a real ComfyUI.

    python tools/thumbnails.py [NAME ...] [--chromium PATH] [--playwright FOLDER]

Run it with the project's environment. Graphs that run in minutes show their own output. The others show a labelled rendering of the graph,
which needs Chromium, Node and a folder in which playwright-core was installed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SCREENSHOT = ROOT / "tests" / "browser" / "screenshot.mjs"
FOLDER = ROOT / "workflows"
QUICKSTARTS = {
    "1 Start here, no download": "distribution guidance, target half and half",
    "2 Exact shares by prompt, any model": "a prompt per image, target 75%",
    "Lab quickstart_professions": "distribution guidance, target half and half",
    "Lab quickstart_text": "distribution guidance, target half and half",
    "Lab two_prompts_quickstart": "guidance learned from two prompts, target 75%",
}
"""Graphs that compare a plain batch with another, and what is said of the other."""
AUDIT, STEER, FIND = "Lab label_audit", "Lab bias_feature_steer_quickstart", "Lab find_bias_features_quickstart"
TRAIN = "Lab train_adp_quickstart"
NEURONS, REPORT, BALANCED = "Lab neuron_path_audit", "6 Report", "Lab balanced_dataset"
LEDGER, LEDGER_RUNS = "5 A queue of single images", 24
NEEDS_ADP = "It needs your checkpoint, and an ADP made for it."
NEEDS_CLIP = "It needs OpenAI's CLIP ViT-L/14."
NEEDS_MODEL = "It needs your checkpoint, and a CLIP that counts."
NEEDS_CHECKPOINT = "It needs your checkpoint and a CLIP, and makes an ADP for it."
NEEDS_CLASSIFIER = "It needs your checkpoint and a classifier, and makes an autoencoder and bias features for it."
NEEDS_FEATURES = "It needs your checkpoint, and an autoencoder and bias features made for it."
WIDE, WIDER, TALL, LONG = (2000, 760), (2300, 800), (2600, 1330), (3800, 1500)
RENDERED = {
    "3 Two prompts on your SD1.5": (NEEDS_MODEL, LONG),
    "4 Two prompts on your SDXL": (NEEDS_MODEL, LONG),
    **{f"Lab balanced_prompts_{kind}": (NEEDS_MODEL, TALL) for kind in ("sd15", "sdxl", "flux", "qwen_image", "z_image")},
    "Lab neuron_path_clip_vision": (NEEDS_CLIP, TALL),
    "Lab sd15_distribution_guidance": (NEEDS_ADP, WIDE),
    "Lab sdxl_distribution_guidance": (NEEDS_ADP, WIDE),
    "Lab train_adp_sd15": (NEEDS_CHECKPOINT, TALL),
    "Lab train_adp_sdxl": (NEEDS_CHECKPOINT, TALL),
    "Lab train_sae_sd15": (NEEDS_CLASSIFIER, LONG),
    "Lab bias_feature_steer_sd15": (NEEDS_FEATURES, WIDER),
    "Lab bias_feature_steer_sdxl": (NEEDS_FEATURES, WIDER),
}
"""Graphs that are shown as a rendering: what each graph needs, and a window size at which the front end shows text."""
MADE = (*QUICKSTARTS, AUDIT, STEER, FIND, TRAIN, NEURONS, REPORT, BALANCED, LEDGER)
"""Graphs that show their own output."""
NOT_OUTPUT = "A rendering of the graph, not its output"
FILES = {
    "CheckpointLoaderSimple": "checkpoints",
    "CLIPLoader": "text_encoders",
    "DualCLIPLoader": "text_encoders",
    "UNETLoader": "diffusion_models",
    "VAELoader": "vae",
    "CLIPVisionLoader": "clip_vision",
    "EquipoiseLoadADP": "equipoise/adp",
    "EquipoiseLoadSAE": "equipoise/sae",
    "EquipoiseLoadBiasFeatures": "equipoise/bias_features",
    "EquipoiseLoadAttributeClassifier": "attribute_classifiers",
}
"""Loader -> folder of models/ that it reads."""
WIDTH, MOST_BYTES = 1200, 190_000


def load(path: Path, name: str) -> ModuleType:
    """Import a file by its path."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def run(server: Any, name: str, to_api: Any, limit: float = 600) -> tuple[dict[str, Any], Any]:
    """Queue a graph without changes; returns the graph and its outcome."""
    workflow = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    outcome = server.queue(to_api(workflow, server.get("/object_info")), limit=limit)
    if outcome.error:
        raise RuntimeError(f"'{name}' failed: {outcome.error}")
    return workflow, outcome


def quickstart(server: Any, name: str, to_api: Any) -> Image.Image:
    """Queue a quickstart and lay its images and charts side by side.

    The judge's class decides the colour of each image's frame.
    """
    captions = "Before: plain sampling", f"After: {QUICKSTARTS[name]}"
    return Image.fromarray(compared(server, *run(server, name, to_api), captions))


def compared(server: Any, workflow: dict[str, Any], outcome: Any, captions: tuple[str, str]) -> np.ndarray:
    """Lay images and charts of before and after side by side."""
    from equipoise.charts.core.sheet import contact_sheet, side_by_side, stacked
    from equipoise.models.attribute_classifier import load_classifier

    judge = load_classifier(ROOT / "shipped" / "weights" / "attribute_classifiers" / "portraits_judge.safetensors")
    names = [f"eyeglasses {c}" for c in judge.attributes["eyeglasses"]]
    nodes = sorted(workflow["nodes"], key=lambda n: n["pos"][0])  # before stands left of after
    shown, counted = ([str(n["id"]) for n in nodes if n["type"] == kind] for kind in ("PreviewImage", "EquipoiseAttributeHistogram"))
    columns = []
    for caption, images_of, chart_of in zip(captions, shown, counted, strict=False):  # a strip may follow
        images, chart = torch.from_numpy(server.images(outcome, images_of)).movedim(-1, 1), server.images(outcome, chart_of)[0]
        small = images[:, :, ::4, ::4].float() / 255  # the graph enlarged them four times
        labels = judge.probabilities(small)["eyeglasses"].argmax(-1)
        picture = contact_sheet(images, labels, names, caption, columns=4, tile=128)
        columns.append(stacked([picture, wide(chart, picture.shape[1])]))
    return side_by_side(*columns)


def wide(picture: np.ndarray, width: int) -> np.ndarray:
    """Resize a picture to another width."""
    size = width, round(picture.shape[0] * width / picture.shape[1])
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def row_of(pictures: list[np.ndarray], height: int) -> Image.Image:
    """Lay pictures of one height in a row."""
    from equipoise.charts.core.sheet import side_by_side

    return Image.fromarray(reduce(side_by_side, (wide(p, round(p.shape[1] * height / p.shape[0])) for p in pictures)))


def steering(server: Any, to_api: Any) -> Image.Image:
    """Queue the steering quickstart and show before, after and the sweep."""
    workflow, outcome = run(server, STEER, to_api)
    captions = "Before: plain sampling", "After: bias features turned, target half and half"
    both, strip = compared(server, workflow, outcome, captions), server.images(outcome, id_of(workflow, "EquipoiseSteerSweep"))[0]
    return row_of([both, strip], both.shape[0])


def finding(server: Any, to_api: Any) -> Image.Image:
    """Queue the graph that finds bias features, which takes minutes."""
    return bias_feature_row(server, *run(server, FIND, to_api, limit=3600))


def bias_feature_row(server: Any, workflow: dict[str, Any], outcome: Any) -> Image.Image:
    """Lay the chart, the atlas and the sweep in a row."""
    kinds = ("FindBiasFeatures", "FeatureAtlas", "SteerSweep")
    return row_of([server.images(outcome, id_of(workflow, f"Equipoise{kind}"))[0] for kind in kinds], 1200)


def training(server: Any, to_api: Any) -> Image.Image:
    """Queue the graph that makes an ADP, which takes minutes.

    The picture shows its classes, its accuracy, how its moves were learned, and what they reach.
    """
    from equipoise.charts.core.sheet import stacked

    workflow, outcome = run(server, TRAIN, to_api, limit=3600)
    sheets = list(server.images(outcome, id_of(workflow, "PreviewImage")))
    kinds = ("TrainADP", "LearnDirections", "CalibrateADP")
    read, learned, reached = (server.images(outcome, id_of(workflow, f"Equipoise{kind}"))[0] for kind in kinds)
    top, below = np.asarray(row_of([stacked(sheets), read], 900)), np.asarray(row_of([learned, reached], 900))
    return Image.fromarray(stacked([top, wide(below, top.shape[1])]))


def id_of(workflow: dict[str, Any], kind: str) -> str:
    """Return the id of the only node of a type."""
    (node,) = [n for n in workflow["nodes"] if n["type"] == kind]
    return str(node["id"])


def audit(server: Any, to_api: Any) -> Image.Image:
    """Queue the audit of labels; lay its charts above its sheets, a column per source."""
    from equipoise.charts.core.sheet import side_by_side, stacked

    workflow, outcome = run(server, AUDIT, to_api)
    charts, sheets = [], []
    for node in sorted(workflow["nodes"], key=lambda n: n["pos"][0]):
        if node["type"] == "EquipoiseLabelFeatures":
            charts.append(server.images(outcome, str(node["id"]))[0])
        elif node["type"] == "PreviewImage":
            sheets.append(server.images(outcome, str(node["id"])))
    columns = []
    for chart, classes in zip(charts, sheets, strict=True):
        size = chart.shape[1], round(classes.shape[1] * chart.shape[1] / classes.shape[2])
        smaller = [np.asarray(Image.fromarray(sheet).resize(size, Image.Resampling.LANCZOS)) for sheet in classes]
        columns.append(stacked([chart, *smaller]))
    return Image.fromarray(side_by_side(*columns))


def neurons(server: Any, to_api: Any) -> Image.Image:
    """Queue the audit of neurons and lay out its charts."""
    workflow, outcome = run(server, NEURONS, to_api, limit=1500)
    kinds = {n["id"]: n["type"] for n in workflow["nodes"]}
    return laid_out({kinds[a]: server.images(outcome, str(b))[0] for _, a, _, b, _, _ in workflow["links"] if kinds[b] == "PreviewImage"})


def laid_out(charts: dict[str, np.ndarray]) -> Image.Image:
    """Lay out the charts of the audit of neurons, by the nodes that drew them.

    Left: leaks and effects of paths. Right: exciting images and the number of neurons that are needed.
    """
    from equipoise.charts.core.sheet import side_by_side, stacked

    left, right = ("AttributeLeakageAudit", "NeuronPathEffect"), ("NeuronGallery", "PruneClassifierCurve")
    return Image.fromarray(side_by_side(*(stacked([charts[f"Equipoise{kind}"] for kind in column]) for column in (left, right))))


def report(server: Any, to_api: Any) -> Image.Image:
    """Queue the graph that reports, and cut its page into three columns at empty lines."""
    from equipoise.charts.core.sheet import side_by_side

    workflow, outcome = run(server, REPORT, to_api)
    page = server.images(outcome, id_of(workflow, "EquipoiseFairnessReport"))[0]
    blank = np.flatnonzero((page == 255).all((1, 2)))
    cuts = [0, *(int(blank[abs(blank - len(page) * part).argmin()]) for part in (1 / 3, 2 / 3)), len(page)]
    return Image.fromarray(reduce(side_by_side, (page[a:b] for a, b in zip(cuts, cuts[1:], strict=False))))


def balanced(server: Any, to_api: Any) -> Image.Image:
    """Queue the graph of the balanced data set; show some images and the classifier's chart."""
    from equipoise.charts.core.sheet import contact_sheet, stacked

    workflow, outcome = run(server, BALANCED, to_api)
    rows, folder = [], server.base / "output" / "equipoise" / "datasets" / "my_portraits" / "train"
    for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        with Image.open(folder / row["file_name"]) as picture:
            rows.append((f"{row['eyeglasses']} / {row['hair']}", np.asarray(picture.convert("RGB"))))
    names = sorted({name for name, _ in rows}, reverse=True)
    chosen = [(i, p) for i, name in enumerate(names) for p in [p for n, p in rows if n == name][:10]]
    images, labels = torch.from_numpy(np.stack([p for _, p in chosen])).movedim(-1, 1), [i for i, _ in chosen]
    caption, note = "A balanced data set (10 of each shown)", "eyeglasses / hair, as the labeller reads them"
    sheet = contact_sheet(images, labels, names, caption, note, columns=10, tile=96)
    chart = server.images(outcome, id_of(workflow, "EquipoiseClassifierFairness"))[0]
    return Image.fromarray(stacked([sheet, wide(chart, sheet.shape[1])]))


def queued(server: Any, to_api: Any) -> Image.Image:
    """Queue the ledger's graph many times, as its note says, and show images and report.

    The class that the labeller saw decides the colour of each image's frame.
    """
    from equipoise.charts.core.sheet import contact_sheet, stacked

    workflow = json.loads((FOLDER / f"{LEDGER}.json").read_text(encoding="utf-8"))
    seed, keep, shown = (id_of(workflow, kind) for kind in ("PrimitiveInt", "EquipoiseRecordAttributes", "EquipoiseLedgerReport"))
    pictures, seen = [], []
    for i in range(LEDGER_RUNS):
        prompt = to_api(workflow, server.get("/object_info"))
        prompt[seed]["inputs"]["value"] = 2026 + 7919 * i
        outcome = server.queue(prompt, limit=300)
        if outcome.error:
            raise RuntimeError(f"'{LEDGER}' failed: {outcome.error}")
        pictures.append(server.images(outcome, keep)[0])
        (line,) = [x for x in "".join(outcome.outputs[keep]["text"]).splitlines() if x.startswith("  image 0: ")]
        seen.append(line.split(": ")[1].split(" ")[0])
    names = sorted(set(seen), reverse=True)
    images, caption = torch.from_numpy(np.stack(pictures)).movedim(-1, 1), f"{LEDGER_RUNS} runs of one image, in their order"
    sheet = contact_sheet(images, [names.index(s) for s in seen], [f"eyeglasses {n}" for n in names], caption, columns=8, tile=112)
    return Image.fromarray(stacked([sheet, wide(server.images(outcome, shown)[0], sheet.shape[1])]))


def labelled(picture: Image.Image, needs: str) -> Image.Image:
    """Add a strip below a rendering that says what it is and what it needs."""
    from matplotlib import get_data_path

    size = picture.width // 36
    out = Image.new("RGB", (picture.width, picture.height + 3 * size), "#202020")
    out.paste(picture, (0, 0))
    for text, share, y in zip((NOT_OUTPUT, needs), (1.0, 0.6), (0.4, 1.8), strict=True):
        font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", round(size * share))
        ImageDraw.Draw(out).text((size, picture.height + size * y), text, "#E8E8E8", font)
    return out


def save(picture: Image.Image, name: str) -> None:
    """Write NAME.jpg, 1200 pixels wide, in the best quality below the size limit."""
    picture = picture.convert("RGB").resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    path = FOLDER / f"{name}.jpg"
    for quality in range(92, 40, -4):
        picture.save(path, quality=quality, optimize=True)
        if path.stat().st_size < MOST_BYTES:
            break
    print(f"{path.name}: {picture.width} x {picture.height}, {path.stat().st_size // 1000} kB, quality {quality}")


def stand_ins(base: Path) -> None:
    """Write small files under the names that graphs for real checkpoints expect.

    The front end then finds them and shows no warning. ADPs and bias features are random but valid, because the target editor reads their
    classes; other files are empty.
    """
    from equipoise.benchmarks.core.random_adp import random_adp
    from equipoise.benchmarks.core.random_sae import random_bias, random_sae
    from equipoise.models.adp import save_adp
    from equipoise.models.bias_features import save_bias_features

    classes = {"gender_presentation": ("feminine", "masculine")}
    for name in RENDERED:
        for node in json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["nodes"]:
            where, files = FILES.get(node["type"]), (node["widgets_values"] or [""])[: 2 if node["type"].startswith("Dual") else 1]
            for file in files:
                if not where or list((ROOT / "shipped" / "weights").glob(f"*/{file}")):  # a shipped file needs no stand-in
                    continue
                path = base / "models" / where / file
                path = path if path.suffix else path / "config.json"  # a folder
                path.parent.mkdir(parents=True, exist_ok=True)
                if where.endswith("adp"):
                    save_adp(random_adp(classes, 8), path)
                elif where.endswith("bias_features"):
                    save_bias_features(random_bias(random_sae(8, "middle", "sd15"), classes), path)
                path.touch()


def main() -> int:
    """Make the thumbnails that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"graphs: {', '.join((*MADE, *RENDERED))}; default: all")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    parser.add_argument("--playwright", type=Path, default=Path(), help="folder in which playwright-core is installed")
    args = parser.parse_args()
    names = args.names or [*MADE, *RENDERED]
    load(ROOT / "dev.py", "equipoise_dev").register()
    server_module = importlib.import_module("equipoise.benchmarks.core.graph_server")
    workflow_module = load(ROOT / "tests" / "host" / "helpers" / "equipoise_workflow.py", "equipoise_workflow")
    server_module.ODD_NAME = "equipoise"  # the front end shows the pack's folder on its nodes
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        stand_ins(base)
        with server_module.Server(server_module.checkout("COMFYUI_PATH", "~/ComfyUI"), base) as server:
            for name in (n for n in names if n in QUICKSTARTS):
                save(quickstart(server, name, workflow_module.to_api), name)
            makers = (
                (AUDIT, audit),
                (STEER, steering),
                (FIND, finding),
                (TRAIN, training),
                (NEURONS, neurons),
                (REPORT, report),
                (BALANCED, balanced),
                (LEDGER, queued),
            )
            for name, made in makers:
                if name in names:
                    save(made(server, workflow_module.to_api), name)
            for view in (WIDE, WIDER, TALL, LONG):
                shots = {n: base / f"{n}.png" for n in names if n in RENDERED and RENDERED[n][1] == view}
                if not shots:
                    continue
                command = ["node", SCREENSHOT, args.playwright, args.chromium, server.url, f"{view[0]}x{view[1]}"]
                subprocess.run([*map(str, command), *(f"{FOLDER / f'{n}.json'}={p}" for n, p in shots.items())], check=True)
                for name, path in shots.items():
                    with Image.open(path) as picture:
                        save(labelled(picture, RENDERED[name][0]), name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
