"""Make the thumbnails of workflows/ with a real ComfyUI: from the graph's own output where that takes a minute, the others as a labelled
rendering.

    python tests/browser/make_thumbnails.py [NAME ...] [--chromium PATH] [--playwright FOLDER]

Run it with the project's environment. The renderings need Chromium, Node and a folder in which playwright-core was installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = ROOT / "workflows"
QUICKSTARTS = ("quickstart_unconditional", "quickstart_professions")
AUDIT = "label_audit"
NEEDS_ADP = "It needs your checkpoint, and an ADP made for it."
NEEDS_NOTHING = "It runs on what ships with the pack, on a CPU."
NEEDS_CLIP = "It needs OpenAI's CLIP ViT-L/14."
NEEDS_CHECKPOINT = "It needs your checkpoint and a CLIP, and makes an ADP for it."
WIDE, TALL = (2000, 760), (2600, 1330)
RENDERED = {
    "neuron_path_clip_vision": (NEEDS_CLIP, TALL),
    "sd15_distribution_guidance": (NEEDS_ADP, WIDE),
    "sdxl_distribution_guidance": (NEEDS_ADP, WIDE),
    "train_adp_quickstart": (NEEDS_NOTHING, TALL),
    "train_adp_sd15": (NEEDS_CHECKPOINT, TALL),
    "train_adp_sdxl": (NEEDS_CHECKPOINT, TALL),
}
"""Graphs that are photographed: what each needs, and the size of the window, in which the front end has to show text."""
NOT_OUTPUT = "A rendering of the graph, not its output"
FILES = {
    "CheckpointLoaderSimple": "checkpoints",
    "CLIPLoader": "text_encoders",
    "CLIPVisionLoader": "clip_vision",
    "EquipoiseLoadADP": "equipoise/adp",
}
"""Loaders and the folders of models/ in which they look."""
WIDTH, MOST_BYTES = 1200, 190_000


def load(path: Path, name: str) -> ModuleType:
    """Import a file by its path."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def quickstart(server: Any, name: str, to_api: Any) -> Image.Image:
    """Queue a quickstart and lay its images and charts side by side, framed by what the judge sees."""
    from equipoise.charts.sheet import contact_sheet, side_by_side, stacked
    from equipoise.models.attribute_classifier import load_classifier

    workflow = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    outcome = server.queue(to_api(workflow, server.get("/object_info")), limit=600)
    if outcome.error:
        raise RuntimeError(f"'{name}' failed: {outcome.error}")
    judge = load_classifier(ROOT / "embedded" / "weights" / "attribute_classifiers" / "portraits_judge.safetensors")
    classes = judge.attributes["eyeglasses"]
    captions = iter(("Before: plain sampling", "After: distribution guidance, target half and half"))
    pictures, charts = [], []
    for node in sorted(workflow["nodes"], key=lambda n: n["pos"][0]):  # before stands left of after
        if node["type"] == "PreviewImage":
            images = torch.from_numpy(server.images(outcome, str(node["id"]))).movedim(-1, 1)
            small = images[:, :, ::4, ::4].float() / 255  # the graph enlarged them four times
            labels = judge.probabilities(small)["eyeglasses"].argmax(-1)
            names = [f"eyeglasses {c}" for c in classes]
            pictures.append(contact_sheet(images, labels, names, next(captions), columns=4, tile=128))
        elif node["type"] == "EquipoiseAttributeHistogram":
            charts.append(server.images(outcome, str(node["id"]))[0])
    columns = []
    for picture, chart in zip(pictures, charts, strict=True):
        width = picture.shape[1]
        resized = Image.fromarray(chart).resize((width, round(chart.shape[0] * width / chart.shape[1])), Image.Resampling.LANCZOS)
        columns.append(stacked([picture, np.asarray(resized)]))
    return Image.fromarray(side_by_side(*columns))


def audit(server: Any, to_api: Any) -> Image.Image:
    """Queue the audit of labels; its charts, and its sheets below them, source beside source."""
    from equipoise.charts.sheet import side_by_side, stacked

    workflow = json.loads((FOLDER / f"{AUDIT}.json").read_text(encoding="utf-8"))
    outcome = server.queue(to_api(workflow, server.get("/object_info")), limit=600)
    if outcome.error:
        raise RuntimeError(f"'{AUDIT}' failed: {outcome.error}")
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


def labelled(picture: Image.Image, needs: str) -> Image.Image:
    """The rendering with a strip below that says what it is, and what it needs."""
    from matplotlib import get_data_path

    size = picture.width // 36
    out = Image.new("RGB", (picture.width, picture.height + 3 * size), "#202020")
    out.paste(picture, (0, 0))
    for text, share, y in zip((NOT_OUTPUT, needs), (1.0, 0.6), (0.4, 1.8), strict=True):
        font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", round(size * share))
        ImageDraw.Draw(out).text((size, picture.height + size * y), text, "#E8E8E8", font)
    return out


def save(picture: Image.Image, name: str) -> None:
    """Write NAME.jpg, 1200 pixels wide, in the best quality that stays below the limit."""
    picture = picture.convert("RGB").resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    path = FOLDER / f"{name}.jpg"
    for quality in range(92, 40, -4):
        picture.save(path, quality=quality, optimize=True)
        if path.stat().st_size < MOST_BYTES:
            break
    print(f"{path.name}: {picture.width} x {picture.height}, {path.stat().st_size // 1000} kB, quality {quality}")


def stand_ins(base: Path) -> None:
    """Empty files under the names that the graphs for real checkpoints expect, so that the front end finds them and shows no warning."""
    for name in RENDERED:
        for node in json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["nodes"]:
            where = FILES.get(node["type"])
            if where:
                (base / "models" / where).mkdir(parents=True, exist_ok=True)
                (base / "models" / where / node["widgets_values"][0]).touch()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"which: {', '.join((*QUICKSTARTS, AUDIT, *RENDERED))}; all where none is named")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    parser.add_argument("--playwright", type=Path, default=Path(), help="folder in which playwright-core was installed")
    args = parser.parse_args()
    names = args.names or [*QUICKSTARTS, AUDIT, *RENDERED]
    load(ROOT / "dev.py", "equipoise_dev").register()
    tests = ROOT / "tests" / "host"
    server_module, workflow_module = (load(tests / f"{n}.py", n) for n in ("equipoise_server", "equipoise_workflow"))
    server_module.ODD_NAME = "equipoise"  # the front end shows the pack's folder on its nodes
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        stand_ins(base)
        with server_module.Server(server_module.checkout("COMFYUI_PATH", "~/ComfyUI"), base) as server:
            for name in (n for n in names if n in QUICKSTARTS):
                save(quickstart(server, name, workflow_module.to_api), name)
            if AUDIT in names:
                save(audit(server, workflow_module.to_api), AUDIT)
            for view in (WIDE, TALL):
                shots = {n: base / f"{n}.png" for n in names if n in RENDERED and RENDERED[n][1] == view}
                if not shots:
                    continue
                command = ["node", HERE / "screenshot.mjs", server.url, args.playwright, args.chromium, f"{view[0]}x{view[1]}"]
                subprocess.run([*map(str, command), *(f"{FOLDER / f'{n}.json'}={p}" for n, p in shots.items())], check=True)
                for name, path in shots.items():
                    with Image.open(path) as picture:
                        save(labelled(picture, RENDERED[name][0]), name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
