"""Fairness Report in a real host: what it states, what it refuses, and where its file goes."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from equipoise_tiny_clip import WIDTH, host_text, host_vision, tiny_clip
from PIL import Image

NAMES = {"tint": ("red", "blue"), "light": ("dark", "bright")}


def classifier_file(folder: Path, name: str, threshold: float = 0.0) -> None:
    """A convolutional network that reads "tint" off red minus blue and "light" off green, both of the whole image."""
    from equipoise.models.attribute_classifier import VisionTransformer, VitSizes, save_classifier

    torch.manual_seed(0)
    net = VisionTransformer(NAMES, image_size=8, sizes=VitSizes(patch=4, dim=16, depth=1, num_heads=1, mlp=16))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.blocks[0].norm1.weight.fill_(1.0)
        net.blocks[0].norm2.weight.fill_(1.0)
        net.norm.weight.fill_(1.0)
        net.patch_embed.weight[0, 0], net.patch_embed.weight[0, 2], net.patch_embed.weight[1, 1] = 1.0, -1.0, 1.0
        net.blocks[0].value.weight.copy_(torch.eye(16))
        net.blocks[0].attention_out.weight.copy_(torch.eye(16))
        net.heads["tint"].weight[0, 0], net.heads["tint"].weight[1, 0] = 5.0, -5.0
        net.heads["tint"].bias[0] = threshold
        net.heads["light"].weight[0, 1], net.heads["light"].weight[1, 1] = -5.0, 5.0
    save_classifier(net, folder / f"{name}.safetensors")


def pictures(red: int, blue: int, bright: int = 0, size: int = 12, seed: int = 0) -> torch.Tensor:
    """IMAGE [B, H, W, 3]: red ones first; of all, the first so many are bright. A little noise, so that no two are alike."""
    images = torch.full((red + blue, size, size, 3), 0.15)
    images[:red, ..., 0] = 0.85
    images[red:, ..., 2] = 0.85
    images[:bright, ..., 1] = 0.9
    return (images + 0.1 * torch.rand(images.shape, generator=torch.Generator().manual_seed(seed))).clamp(0, 1)


@pytest.fixture
def reports(prompt: Any) -> Iterator[Any]:
    """The host, with classifiers in its model folder."""
    with torch.inference_mode(False):
        for name, threshold in (("report_judge", 0.0), ("report_copy", 0.0), ("report_other", 1.0)):
            classifier_file(prompt.base / "models" / "attribute_classifiers", name, threshold)
    yield prompt


def load(name: str = "report_judge") -> Any:
    from equipoise.nodes.labels.load_attribute_classifier import LoadAttributeClassifier

    return LoadAttributeClassifier.execute(f"{name}.safetensors").result[0]


def target(text: str = "tint: red=0.5, blue=0.5", known: Any = NAMES) -> Any:
    from equipoise.methods.core.target_text import parse_target

    return parse_target(text, known)


def run(*arguments: Any, graph: Any = None, node: str | None = None, **options: Any) -> tuple[torch.Tensor, dict[str, Any], str, Path]:
    """page, figures, text on the node, file."""
    from equipoise.nodes.report.fairness_report import FairnessReportNode

    hidden = type("Hidden", (), {"prompt": graph, "unique_id": node, "extra_pnginfo": None})()
    output = type("Prepared", (FairnessReportNode,), {"hidden": hidden}).execute(*arguments, **options)
    page, fd, text, file = output.result
    figures = json.loads(text)
    assert fd == figures["fd"]
    return page, figures, output.ui["text"][0], Path(file)


BASE, STEERED = pictures(2, 14, 4), pictures(8, 8, 4, seed=1)


def test_the_figures_of_a_worked_example(reports: Any) -> None:
    page, figures, text, file = run(BASE, STEERED, load(), target(), batch_size=4)
    (judged,) = figures["judged"]
    report = judged["panels"][0]["report"]
    assert report["counts"] == [8, 8] and judged["panels"][0]["baseline"]["counts"] == [2, 14] and figures["fd"] == 0.0
    assert report["batch"] == 4 and judged["panels"][0]["baseline"]["batch"] == 1
    assert [d["attribute"] for d in judged["drift"]] == ["light"]
    assert page.shape[0] == 1 and page.shape[2:] == (960, 3) and page.dtype == torch.float32
    assert "FD 0.000" in text and f"saved: output/equipoise/reports/{file.name}" in text
    assert file == reports.base / "output" / "equipoise" / "reports" / file.name
    document = file.read_text(encoding="utf-8")
    assert "http:" not in document and "https:" not in document and document.count("<img") == 32 and "tint: red" in document
    assert len(figures["similarity"]) == 1 and figures["quality"][0]["to"] == "base"


def test_a_reference_two_judges_and_a_labeller(reports: Any) -> None:
    page, figures, _, _ = run(
        BASE, STEERED, load(), target(), classifier_2=load("report_other"), labeller=load("report_copy"), reference=pictures(20, 20, 20)
    )
    assert page.shape[2] == 1944 and [j["classifier"] for j in figures["judged"]] == [
        "report_judge.safetensors",
        "report_other.safetensors",
    ]
    assert {q["to"] for q in figures["quality"]} >= {"reference", "reference at the target's shares"}
    agreement = {(a["with"], a["images"], a["attribute"]): a["agreement"] for a in figures["agreement"]}
    assert agreement["report_copy.safetensors", "steered", "tint"] == 1.0 and len(agreement) == 8
    assert any("labeller and the judge are the same network" in w for w in figures["warnings"])
    assert not any("Both classifiers" in w for w in figures["warnings"])


def test_clip_gives_features_and_agreement_with_the_prompt(reports: Any, tmp_path: Path) -> None:
    state = tiny_clip()
    vision, clip = host_vision(state, tmp_path), host_text(state)
    _, figures, _, file = run(BASE, STEERED, load(), target(), clip_vision=vision, clip=clip, prompt="a red picture (of {any} kind)")
    first = figures["quality"][0]
    assert first["kernel"]["scale"] == 1000 and first["kernel"]["dimensions"] == WIDTH
    told = figures["prompt_agreement"]
    assert told["base"]["n"] == 16 and len(told["change"]) == 3 and "CLIP-T" in file.read_text(encoding="utf-8")
    expected = vision.encode_image(STEERED)["image_embeds"]
    pairs = torch.nn.functional.cosine_similarity(vision.encode_image(BASE)["image_embeds"], expected).mean()
    assert figures["similarity"]["the connected CLIP_VISION"]["cosine"] == pytest.approx(float(pairs), abs=1e-5)
    without = run(BASE, STEERED, load(), target(), clip_vision=vision, prompt="a red picture")[1]
    assert without["prompt_agreement"] is None and any("needs clip_vision and clip" in w for w in without["warnings"])


def test_inception_features_where_they_are_and_the_reason_where_not(reports: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.host.report import gather as module

    _, figures, _, _ = run(BASE, STEERED, load(), target(), inception=True)
    assert len(figures["similarity"]) == 1
    assert any("Inception features need" in w and "models/equipoise/inception" in w for w in figures["warnings"])
    # what clean-fid does with its weights is tested without a host; here only who is asked
    monkeypatch.setattr(module, "missing_inception", lambda folder: "")
    monkeypatch.setattr(module, "inception_features", lambda images, folder, device, progress: images.flatten(1)[:, :20])
    _, figures, _, _ = run(BASE, STEERED, load(), target(), inception=True, reference=pictures(8, 8))
    rows = [q for q in figures["quality"] if q["features"] == "Inception (clean-fid)"]
    assert len(rows) >= 4 and rows[0]["frechet"]["dimensions"] == 20 and "x.y/D" in rows[0]["kernel"]["kernel"]


GRAPH = {
    "1": {"class_type": "Loader", "inputs": {"ckpt": "report_judge.safetensors"}},
    "2": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "seed": 5, "steps": 20}},
    "3": {"class_type": "EquipoiseLoadAttributeClassifier", "inputs": {"classifier_name": "report_judge.safetensors"}},
    "4": {"class_type": "Repair", "inputs": {"model": ["1", 0], "classifier": ["3", 0], "seed": 6}},
    "9": {"class_type": "EquipoiseFairnessReport", "inputs": {"base": ["2", 0], "steered": ["4", 0], "classifier": ["3", 0]}},
}


def test_the_graph_tells_settings_seeds_hashes_and_what_is_doubtful(reports: Any) -> None:
    _, figures, _, file = run(BASE, STEERED, load(), target(), graph=GRAPH, node="9")
    path = reports.base / "models" / "attribute_classifiers" / "report_judge.safetensors"
    rows = {row[0]: row for row in figures["files"]}
    assert rows["report_judge.safetensors"][3] == hashlib.sha256(path.read_bytes()).hexdigest()
    pixels = (STEERED * 255).round().to(torch.uint8).numpy()
    expected = hashlib.sha256(str(tuple(pixels.shape)).encode() + pixels.tobytes()).hexdigest()
    assert rows["steered images"][1] == "16 of 12 x 12 pixels" and rows["steered images"][3] == expected
    assert ["Loader", "all", "ckpt=report_judge.safetensors"] in figures["settings"]
    assert any("base: 5; steered: 6" in line for line in figures["software"])
    warned = " ".join(figures["warnings"])
    assert "took part in making the steered images" in warned and "seed 5 for base and 6 for steered" in warned
    assert expected in file.read_text(encoding="utf-8")
    quick = run(BASE, STEERED, load(), target(), graph=GRAPH, node="9", hash_files=False)[1]
    assert {row[3] for row in quick["files"] if row[0].endswith("safetensors")} == {"not computed"}


def test_hashing_can_be_interrupted(reports: Any) -> None:
    import comfy.model_management as management
    from equipoise.host.report.provenance import file_rows, named_files

    names = ("report_judge.safetensors", "no such file.safetensors", "../report_judge.safetensors", "a\nb.png")
    files = named_files([("", name) for name in names])
    assert [f.name for f in files] == ["report_judge.safetensors"]
    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        file_rows(files)


def test_pictures_from_the_input_folder_are_hashed_and_nothing_outside_it(reports: Any) -> None:
    from equipoise.host.report.provenance import named_files

    Image.new("RGB", (4, 4)).save(reports.base / "input" / "report.png")
    assert [(f.name, f.folder) for f in named_files([("", n) for n in ("report.png", "../server.log", "/etc/hostname.png")])] == [
        ("report.png", "input")
    ]


def test_of_files_of_one_name_that_is_meant_which_the_node_loads(reports: Any) -> None:
    from equipoise.host.report.provenance import named_files

    for hint, folder in (
        ("EquipoiseLoadADP adp_name", "equipoise_adp"),
        ("EquipoiseLoadUnconditionalDiffusion model_name", "equipoise_diffusion"),
        ("EquipoiseLoadBiasFeatures bias_features_name", "equipoise_bias_features"),
        ("EquipoiseLoadSAE sae_name", "equipoise_sae"),
    ):
        assert [f.folder for f in named_files([(hint, "portraits.safetensors")])] == [folder]
    assert len(named_files([("Unknown name", "portraits.safetensors")])) == 4


def test_the_files_of_a_classifier_folder_are_hashed(reports: Any) -> None:
    from equipoise.host.report.provenance import file_rows, named_files

    folder = reports.base / "models" / "attribute_classifiers" / "report_folder"
    folder.mkdir(exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text(name)
    rows = file_rows(named_files([("EquipoiseLoadAttributeClassifier classifier_name", "report_folder")]))
    assert [(r[0], r[3]) for r in rows] == [
        (f"report_folder/{n}", hashlib.sha256(n.encode()).hexdigest()) for n in ("config.json", "model.safetensors")
    ]


def test_equal_sets_and_other_sizes_are_noticed(reports: Any) -> None:
    def warned(*images: torch.Tensor, **options: Any) -> str:
        return " ".join(run(*images, load(), target(), **options)[1]["warnings"])

    assert "equal, bit for bit" in warned(BASE, BASE.clone())
    assert "12 x 12 pixels and steered ones 20 x 20" in warned(BASE, pictures(8, 8, 4, size=20))
    assert "reference images are equal to one of the two sets" in warned(BASE, STEERED, reference=BASE)
    assert "confirms nothing" in warned(BASE, STEERED, classifier_2=load("report_copy"))


def test_a_class_that_is_never_there_and_a_single_image(reports: Any) -> None:
    _, figures, _, file = run(pictures(0, 1), pictures(0, 1, seed=2), load(), target())
    report = figures["judged"][0]["panels"][0]["report"]
    assert report["counts"] == [0, 1] and report["fd_low"] is None and figures["quality"] == []
    document = file.read_text(encoding="utf-8")
    assert "base: none of 1 images" in document and "at least two images in every set" in document


def test_other_numbers_of_images(reports: Any) -> None:
    with pytest.raises(ValueError, match="met 16 and 4: switch same_seeds off"):
        run(BASE, STEERED[:4], load(), target())
    _, figures, _, _ = run(BASE, STEERED[:4], load(), target(), same_seeds=False)
    assert figures["similarity"] == {} and figures["n"] == {"base": 16, "steered": 4}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steered": torch.full((16, 12, 12, 3), float("nan"))}, "all 16 steered images hold values that are no numbers"),
        ({"base": torch.cat([BASE[:15], BASE[15:] / 0])}, "1 of 16 base images hold"),
        ({"base": BASE[:0]}, r"base images are a batch of shape \[N, H, W, 3 or 4\]; met \[0, 12, 12, 3\]"),
        ({"reference": torch.zeros(3, 12, 12)}, "reference images are a batch of shape"),
        ({"target": target("beard: full=0.5, none=0.5", {"beard": ("full", "none")})}, "'report_judge.safetensors' cannot measure"),
        ({"target": target("tint: green=1.0, red=0.0", {"tint": ("green", "red")})}, "'green' of 'tint'"),
        ({"attribute": "beard"}, r"does not read 'beard'; it reads: tint \(red, blue\)"),
        ({"name": "../elsewhere"}, "cannot be the name of a report"),
        ({"batch_size": 0}, "batch is at least 1"),
    ],
)
def test_bad_input_is_answered_in_one_sentence(reports: Any, change: dict[str, Any], says: str) -> None:
    before = list((reports.base / "output").rglob("*.html"))
    with pytest.raises(ValueError, match=says) as caught:
        run(**{"base": BASE, "steered": STEERED, "classifier": load(), "target": target()} | change)
    assert "\n" not in str(caught.value) and list((reports.base / "output").rglob("*.html")) == before


def test_a_folder_that_cannot_be_written_is_noticed_before_anything_is_read(reports: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import folder_paths

    place = reports.base / "no_folder_but_a_file"
    place.touch()
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(place))
    with pytest.raises(ValueError, match="cannot be written to output/equipoise/reports .*make the folder writable"):
        run(BASE, STEERED, None)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write(reports: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import folder_paths

    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    with pytest.raises(ValueError, match="cannot be written"):
        run(BASE, STEERED, None)


def test_reports_are_numbered_and_none_is_overwritten(reports: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.host.report.write import reports_root, write_report

    first, second = write_report("numbered", "one"), write_report(" numbered ", "two")
    assert (first.name, second.name) == ("numbered_00001.html", "numbered_00002.html")
    (reports_root() / "numbered_00007.html").write_text("mine")
    assert write_report("numbered", "three").name == "numbered_00008.html"

    def without(*_: Any) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "link", without)  # a file system without hard links
    assert write_report("numbered", "four").name == "numbered_00009.html"
    assert [p.read_text() for p in sorted(reports_root().glob("numbered*"))] == ["one", "two", "mine", "three", "four"]
    assert not list(reports_root().glob(".*"))


def test_two_processes_that_choose_one_number_get_two(reports: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.host.report import write as module

    real = os.link

    def late(source: Any, path: Any) -> None:
        if Path(path).name == "race_00001.html":
            Path(path).write_text("theirs")  # taken between counting and naming
        real(source, path)

    monkeypatch.setattr(os, "link", late)
    assert module.write_report("race", "ours").name == "race_00002.html"
    assert (module.reports_root() / "race_00001.html").read_text() == "theirs"


def test_the_graph_runs_in_a_server(server: Any) -> None:
    """On both hosts: images from disk, the page on the node, the file in the output folder."""
    classifier_file(server.base / "models" / "attribute_classifiers", "report_judge")
    for i, picture in enumerate(pictures(2, 2, 2, size=16)):
        Image.fromarray((picture.numpy() * 255).astype(np.uint8)).save(server.base / "input" / f"report_{i}.png")
    graph: dict[str, Any] = {str(i): {"class_type": "LoadImage", "inputs": {"image": f"report_{i}.png"}} for i in range(4)}
    for name, pair in (("a", ("0", "2")), ("b", ("2", "3"))):
        graph[name] = {"class_type": "ImageBatch", "inputs": {"image1": [pair[0], 0], "image2": [pair[1], 0]}}
    graph["load"] = {"class_type": "EquipoiseLoadAttributeClassifier", "inputs": {"classifier_name": "report_judge.safetensors"}}
    given = {"attribute": "tint", "same_seeds": True, "batch_size": 1, "prompt": "", "images_per_class": 4, "hash_files": True}
    given["inception"] = False
    graph["report"] = {
        "class_type": "EquipoiseFairnessReport",
        "inputs": {"base": ["b", 0], "steered": ["a", 0], "classifier": ["load", 0], "name": "from server", **given},
    }
    outcome = server.queue(graph)
    assert not outcome.error
    assert "by report_judge.safetensors: distance to equal shares" in outcome.outputs["report"]["text"][0]
    assert server.images(outcome, "report").shape[2] == 960
    document = (server.base / "output" / "equipoise" / "reports" / "from server_00001.html").read_text(encoding="utf-8")
    assert "report_0.png" in document and "report_judge.safetensors" in document and "http:" not in document
