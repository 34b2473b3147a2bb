"""The shipped graphs against the host's own schemas, and the quickstarts queued over HTTP until they are done, on both supported hosts."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from equipoise.benchmarks.core.graph_server import REPOSITORY, Server
from equipoise_workflow import CONTROLS, NOTES, inputs_of, is_widget, to_api, widget_names

WORKFLOWS = sorted((REPOSITORY / "workflows").glob("*.json"))
QUICKSTARTS = ("1 Start here, no download", "Lab quickstart_professions", "Lab quickstart_text")
PROMPTED = {
    "2 Exact shares by prompt, any model": {},
    "Lab two_prompts_quickstart": {"EquipoiseLearnDirectionsFromPrompts": {"images": 16, "fit_steps": 4, "batch": 4}},
}
"""Graphs that need no ADP, and what is set lower in them."""
FILES = (
    "ckpt_name", "clip_name", "clip_name1", "clip_name2", "unet_name", "vae_name", "adp_name", "model_name", "classifier_name", "sae_name",
    "bias_features_name",
)  # fmt: skip
"""Combos over files, which need not be there."""
WEIGHTS = REPOSITORY / "shipped" / "weights"
NEEDED = {
    "1 Start here, no download": ("diffusion/portraits", "adp/portraits", "attribute_classifiers/portraits_judge"),
    "Lab quickstart_text": ("diffusion/portraits_text", "adp/portraits_text", "attribute_classifiers/portraits_judge"),
    "Lab quickstart_professions": ("diffusion/portraits_professions", "adp/portraits_professions", "attribute_classifiers/portraits_judge"),
}


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def object_info(server: Server) -> dict[str, Any]:
    """The schemas of every node of a running host."""
    return server.get("/object_info")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_slots_and_values_are_those_of_the_schema(path: Path, object_info: dict[str, Any]) -> None:
    for node in read(path)["nodes"]:
        if node["type"] in NOTES:
            continue
        definition = object_info[node["type"]]
        schema = inputs_of(definition)
        sockets = [name for name, kind, options in schema if not is_widget(kind, options)]
        widgets = [name for name in widget_names(definition) if name]
        assert [slot["name"] for slot in node["inputs"]] == sockets + widgets, node["type"]
        kinds = {name: kind for name, kind, _ in schema}
        assert all(slot["type"] == kinds[slot["name"]] for slot in node["inputs"]), node["type"]
        assert {s["name"] for s in node["inputs"] if s.get("shape") == 7} == set(definition["input_order"].get("optional", []))
        assert all(s["link"] is not None for s in node["inputs"] if "widget" not in s and s.get("shape") != 7), node["type"]
        outputs = list(zip(definition["output_name"], definition["output"], strict=True))
        # previews have no output on older hosts, and none is listed
        assert [(o["name"], o["type"]) for o in node["outputs"]] in ([], outputs), node["type"]
        named = dict(zip(widget_names(definition), node["widgets_values"], strict=True))
        assert named.pop("", "fixed") in CONTROLS
        for name, kind, options in schema:
            if name in named and name not in FILES:
                check_value(named[name], kind, options, f"{node['type']}.{name}")


def check_value(value: Any, kind: str, options: dict[str, Any], where: str) -> None:
    """A widget's value is of its type and within what the schema allows."""
    if kind == "COMBO":
        assert value in options["options"], where
    elif kind == "STRING":
        assert isinstance(value, str), where
    else:
        assert isinstance(value, int if kind == "INT" else (int, float)), where
        assert options.get("min", value) <= value <= options.get("max", value), where


@pytest.mark.parametrize("name", QUICKSTARTS)
def test_a_quickstart_runs_on_what_ships(name: str, server: Server) -> None:
    missing = [file for file in NEEDED[name] if not (WEIGHTS / f"{file}.safetensors").is_file()]
    if missing:
        pytest.skip(f"shipped/weights lacks {', '.join(missing)} (.safetensors), which '{name}' needs: train them first.")
    workflow = read(REPOSITORY / "workflows" / f"{name}.json")
    prompt = to_api(workflow, server.get("/object_info"))
    outcome = server.queue(prompt)
    assert not outcome.error
    pictures, charts, texts = [], [], []
    for node in sorted(workflow["nodes"], key=lambda n: n["pos"][0]):  # before stands left of after
        if node["type"] == "PreviewImage":
            pictures.append(server.images(outcome, str(node["id"])))
        elif node["type"] == "EquipoiseAttributeHistogram":
            charts.append(server.images(outcome, str(node["id"])))
            texts.append("".join(outcome.outputs[str(node["id"])]["text"]))
        elif node["type"] == "PreviewAny":
            report = "".join(outcome.outputs[str(node["id"])]["text"])
    before, after = pictures
    assert before.shape == after.shape == (16, 128, 128, 3)
    assert before.std() > 10 and not np.array_equal(before, after)
    assert len(charts) == 2 and all(chart.shape[0] == 1 and chart.shape[2] == 960 for chart in charts)
    assert all("eyeglasses:" in text and "FD" in text for text in texts)
    assert "baseline" in texts[1] and "baseline" not in texts[0]
    assert "assigned 16 images" in report and report.count(": 8") == 2
    guided = discrepancy(texts[1])
    assert guided <= discrepancy(texts[0])
    assert guided < 0.2, f"guided images miss the target by far: {texts[1]}"


@pytest.mark.parametrize("name", PROMPTED)
def test_prompts_alone_move_a_batch(name: str, server: Server) -> None:
    prompt = to_api(read(REPOSITORY / "workflows" / f"{name}.json"), server.get("/object_info"))
    for node in prompt.values():
        node["inputs"] |= PROMPTED[name].get(node["class_type"], {})
    outcome = server.queue(prompt)
    assert not outcome.error
    plain, other = (k for k, n in prompt.items() if n["class_type"] == "EquipoiseAttributeHistogram")
    texts = ["".join(outcome.outputs[k]["text"]) for k in (plain, other)]
    assert "baseline" in texts[1] and "baseline" not in texts[0] and "eyeglasses:" in texts[0]
    assert PROMPTED[name] or discrepancy(texts[1]) < 0.2, texts
    assert outcome.outputs[other]["equipoise_thumbs"][0]["assigned"] is not None


def test_the_audit_of_labels_runs_on_what_ships(server: Server) -> None:
    workflow = read(REPOSITORY / "workflows" / "Lab label_audit.json")
    prompt = to_api(workflow, server.get("/object_info"))
    record = next(node for node in prompt.values() if node["class_type"] == "EquipoiseRecordFeatures")
    record["inputs"] |= {"images": 32, "steps": 8}  # enough for every skin tone
    outcome = server.queue(prompt)
    assert not outcome.error
    by_type = {kind: [str(n["id"]) for n in workflow["nodes"] if n["type"] == kind] for kind in ("EquipoiseLabelFeatures", "PreviewImage")}
    charts = [server.images(outcome, i) for i in by_type["EquipoiseLabelFeatures"]]
    assert all(chart.shape[0] == 1 and chart.shape[2] == 960 for chart in charts) and not np.array_equal(*charts)
    assert [len(outcome.outputs[i]["images"]) for i in by_type["PreviewImage"]] == [3, 3]  # a sheet per skin tone
    reports = ["".join(outcome.outputs[i]["text"]) for i in by_type["EquipoiseLabelFeatures"]]
    assert "classifier portraits_labeller" in reports[0] and "individual typology angle" in reports[1]
    assert all("light" in r and "medium" in r and "dark" in r and "unsure" in r for r in reports)


def test_the_audit_of_neurons_runs_on_what_ships(server: Server) -> None:
    workflow = read(REPOSITORY / "workflows" / "Lab neuron_path_audit.json")
    prompt = to_api(workflow, server.get("/object_info"))
    small = {
        "EquipoiseEmptyPixelLatent": {"batch_size": 32},
        "EquipoiseDistributionGuidanceKSampler": {"steps": 6},
        "EquipoiseAttributeLeakageAudit": {"top_k": 1, "control_draws": 1},
        "EquipoisePruneClassifierCurve": {"kept": "1, 4", "pruned": "1", "control_draws": 1},
        "EquipoiseNeuronPathEffect": {"control_draws": 1},
    }
    for node in prompt.values():
        node["inputs"] |= small.get(node["class_type"], {})
    outcome = server.queue(prompt)
    assert not outcome.error
    kinds = {str(n["id"]): n["type"] for n in workflow["nodes"]}
    charts = [server.images(outcome, i) for i, kind in kinds.items() if kind == "PreviewImage"]
    assert len(charts) == 5 and sum(chart.shape[2] == 960 for chart in charts) == 4
    texts = {kinds[str(link[1])]: "".join(outcome.outputs[str(link[3])]["text"]) for link in workflow["links"] if link[5] == "STRING"}
    assert "hair -> eyeglasses" in texts["EquipoiseAttributeLeakageAudit"]
    assert "neurons are set to 0 at the CLS token" in texts["EquipoiseEditVisionNeurons"]


def test_the_report_runs_on_what_ships(server: Server) -> None:
    workflow = read(REPOSITORY / "workflows" / "6 Report.json")
    prompt = to_api(workflow, server.get("/object_info"))
    small = {
        "EquipoiseEmptyPixelLatent": {"batch_size": 16},
        "EquipoiseFairnessReport": {"batch_size": 16, "name": "shipped"},
        "EquipoiseDistributionGuidanceKSampler": {"steps": 10},
        "KSampler": {"steps": 10},
    }
    for node in prompt.values():
        node["inputs"] |= small.get(node["class_type"], {})
    outcome = server.queue(prompt)
    assert not outcome.error
    (node,) = (i for i, n in prompt.items() if n["class_type"] == "EquipoiseFairnessReport")
    summary = server.images(outcome, node)
    assert summary.shape[2] == 960 and summary.shape[1] < 1000, "the node shows a card, not the whole page"
    text = outcome.outputs[node]["text"][0]
    assert discrepancy(text) < 0.2 and "16 images are few" in text and "same network" not in text, text
    document = (server.base / "output" / "equipoise" / "reports" / "shipped_00001.html").read_text(encoding="utf-8")
    seeds = "base: 2026; steered: 2026; reference: 4711"
    for words in ("portraits_labeller.safetensors", "equipoise_diffusion", "equipoise_adp", seeds, "steps=10"):
        assert words in document, words
    (report,) = outcome.outputs[node]["equipoise_report"]
    with urllib.request.urlopen(f"{server.url}/api/equipoise/report?name={report['name']}") as answer:
        assert answer.read().decode() == document and answer.headers["Content-Type"].startswith("text/html")
    for name in ("../reports/shipped_00001.html", "none.html", ".hidden.html", "%2e%2e%2fx.html"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{server.url}/api/equipoise/report?name={name}")


def test_the_balanced_data_set_runs_on_what_ships(server: Server) -> None:
    workflow = read(REPOSITORY / "workflows" / "Lab balanced_dataset.json")
    prompt = to_api(workflow, server.get("/object_info"))
    small = {
        "EquipoiseEmptyPixelLatent": {"batch_size": 32},
        "EquipoiseSaveBalancedDataset": {"name": f"test_balanced_{server.url.rsplit(':', 1)[1]}"},
        "EquipoiseTrainAttributeClassifier": {"steps": 40, "batch": 16},
    }
    for node in prompt.values():
        node["inputs"] |= small.get(node["class_type"], {})
    outcome = server.queue(prompt)
    assert not outcome.error
    ids = {n["type"]: str(n["id"]) for n in workflow["nodes"]}
    texts = {k: "".join(outcome.outputs[i]["text"]) for k, i in ids.items() if "text" in outcome.outputs.get(i, {})}
    saved = texts["EquipoiseSaveBalancedDataset"]
    assert "generated" in saved and any(f"eyeglasses: yes {n}, no {n}\nhair: short {n}, long {n}" in saved for n in (10, 12, 14, 16)), saved
    assert "held out" in texts["EquipoiseTrainAttributeClassifier"]
    assert "equalised odds difference" in texts["EquipoiseClassifierFairness"]
    assert server.images(outcome, ids["EquipoiseClassifierFairness"]).shape[2] == 960
    folder = server.base / "output" / "equipoise" / "datasets" / small["EquipoiseSaveBalancedDataset"]["name"]
    rows = [json.loads(r) for s in ("train", "test") for r in (folder / s / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(r["graph"] and (folder / "graphs" / f"{r['graph']}.json").is_file() for r in rows)


def discrepancy(text: str) -> float:
    """FD from the histogram's summary; the first one is that of the images."""
    return float(text.split("FD ", 1)[1].split()[0].rstrip(";"))
