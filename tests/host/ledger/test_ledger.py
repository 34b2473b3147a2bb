"""The balance ledger in a real host: what sampling reserves, what is recorded, and a queue of single images over HTTP."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from equipoise.benchmarks.core.graph_server import Server
from equipoise.benchmarks.core.random_adp import random_adp
from equipoise_world import Broken, World, breaking, sentence
from PIL import Image

ATTRIBUTES = {"eyeglasses": ("no", "yes"), "hair": ("short", "long")}
HALF = "eyeglasses: yes=0.5, no=0.5"


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equipoise.methods.ledger.ledger.SYNCHRONOUS", "OFF")


@pytest.fixture
def world(prompt: Any) -> World:
    return World(prompt, "packed")


@pytest.fixture
def adp(prompt: Any) -> Any:
    return random_adp(ATTRIBUTES, 64, {"hair": ("output.1", 64)}, "tiny", size=0.3)


@pytest.fixture
def handle(prompt: Any) -> Any:
    """A new ledger."""
    from equipoise.host.ledger.ledgers import LedgerHandle

    return LedgerHandle(f"test {uuid.uuid4().hex[:8]}")


def target(text: str = HALF) -> Any:
    from equipoise.methods.core.target_text import parse_target

    return parse_target(text, ATTRIBUTES)


def at(run: str, node: str, index: int | None = None) -> Any:
    """What the host does around a node's execution."""
    from comfy_execution.utils import CurrentNodeContext

    return CurrentNodeContext(run, node, index)


def guided(world: World, adp: Any, handle: Any, text: str = HALF, **settings: Any) -> Any:
    from equipoise.host.guidance.apply import apply_guidance
    from equipoise.methods.guidance.run import GuidanceSettings

    return apply_guidance(world.model, adp, GuidanceSettings(target(text), **settings), ledger=handle)


class Seer:
    """A classifier that sees what it is told to."""

    name = "seer"
    attributes = ATTRIBUTES

    def __init__(self, *seen: str) -> None:
        self.seen = seen

    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        assert len(images) == len(self.seen)
        hair = torch.tensor([[0.9, 0.1]]).repeat(len(images), 1)
        return {"eyeglasses": torch.tensor([[0.1, 0.9] if s == "yes" else [0.9, 0.1] for s in self.seen]), "hair": hair}


def graph(node: str = "7") -> dict[str, Any]:
    """A recording node 9 after a decoder after a sampler."""
    return {
        node: {"class_type": "KSampler", "inputs": {"seed": 1}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": [node, 0]}},
        "9": {"class_type": "EquipoiseRecordAttributes", "inputs": {"images": ["8", 0]}},
    }


def record(handle: Any, images: torch.Tensor, run: str, *seen: str, asked: str = HALF, assigned: str = "", node: str = "7") -> Any:
    from equipoise.host.ledger.ledgers import record_attributes

    with at(run, "9"):
        return record_attributes(images, handle, target(asked), Seer(*seen), assigned, graph(node), {"workflow": {}})


def pictures(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 12, 10, 3, generator=torch.Generator().manual_seed(seed))


def counts(handle: Any) -> dict[str, int]:
    held = handle.open().balance_of(target())
    return {} if held is None else {name: n for name, n in zip(held.target.names, held.counts, strict=True) if n}


# -- sampling --------------------------------------------------------------------------------------------------------------------------


def test_runs_of_one_image_reach_the_target_together(world: World, adp: Any, handle: Any) -> None:
    model = guided(world, adp, handle)
    for i in range(6):
        with at(f"run {i}", "7"):
            world.sample(model, n=1, seed=1000 * i)
    rows = handle.open().rows()
    assert Counter(r["assigned"] for r in rows) == {"yes": 3, "no": 3}
    assert [(r["run"], r["node"], r["place"], r["state"], r["seed"]) for r in rows] == [
        (f"run {i}", "7", 0, "made", str(1000 * i)) for i in range(6)
    ]


def test_what_was_missed_is_made_up_for(world: World, adp: Any, handle: Any) -> None:
    with at("a", "7"):
        world.sample(guided(world, adp, handle), n=4)
    record(handle, pictures(4), "a", "no", "no", "no", "no")
    with at("b", "7"):
        world.sample(guided(world, adp, handle), n=4)
    assert [r["assigned"] for r in handle.open().rows()[4:]] == ["yes"] * 4


def test_rows_say_what_the_images_became(world: World, adp: Any, handle: Any) -> None:
    from equipoise.host.guidance.apply import apply_guidance
    from equipoise.methods.guidance.run import GuidanceSettings

    runs: list[Any] = []
    settings = GuidanceSettings(target("eyeglasses x hair: uniform"))
    model = apply_guidance(world.model, adp, settings, lambda run: runs.append(run.summary()), handle)
    with at("a", "7"):
        world.sample(model, n=8)
    names = runs[0].target.names
    assert [r["assigned"] for r in handle.open().rows()] == [names[c] for c in runs[0].cells.tolist()]


def test_a_run_that_fails_leaves_no_row(world: World, adp: Any, handle: Any) -> None:
    with at("a", "7"), pytest.raises(Broken):
        world.sample(breaking(guided(world, adp, handle), 2), n=2)
    assert handle.open().rows() == []


def test_an_image_that_is_refined_is_one_row_with_one_class(world: World, adp: Any, handle: Any) -> None:
    model = guided(world, adp, handle)
    for i in range(4):
        with at(f"run {i}", "7"):
            latent = {"samples": world.sample(model, n=1, seed=i)}
        with at(f"run {i}", "12"):
            world.host.ksampler(model, world.positive, world.negative, latent, seed=i, denoise=0.9)
    rows = handle.open().rows()
    assert [r["node"] for r in rows] == ["7"] * 4 and Counter(r["assigned"] for r in rows) == {"yes": 2, "no": 2}


def test_items_of_a_list_are_runs_of_their_own(world: World, adp: Any, handle: Any) -> None:
    model = guided(world, adp, handle)
    for index in (0, 1):
        with at("a", "7", index):
            world.sample(model, n=1, seed=index)
    assert [r["node"] for r in handle.open().rows()] == ["7", "7#1"]


@pytest.mark.parametrize("settings", [{"strength": 0.0}, {"sigma_start": 1e-9}])
def test_where_nothing_is_guided_nothing_is_counted(world: World, adp: Any, handle: Any, settings: dict[str, float]) -> None:
    with at("a", "7"):
        assert torch.equal(world.sample(guided(world, adp, handle, **settings)), world.sample())
    assert not handle.open().images()


def test_repair_keeps_the_rows_of_the_first_round(world: World, adp: Any, handle: Any) -> None:
    from equipoise.host.core.sampling import SamplerSettings
    from equipoise.host.guidance.sampling import GuidedSampling, guided_ksample
    from equipoise.methods.guidance.run import GuidanceSettings

    def classify(samples: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"eyeglasses": torch.tensor([[0.9, 0.1]]).repeat(len(samples), 1)}

    sampler = SamplerSettings(3, 3, 1.0, "euler", "normal")
    with at("a", "7"):
        settings = GuidedSampling(GuidanceSettings(target()), sampler, repair=2, ledger=handle)
        _, outcome = guided_ksample(world.model, adp, settings, world.positive, world.negative, world.empty(4), classify)
    assert outcome.rounds == [2, 2] and "quotas by the ledger" in outcome.text()
    assert counts(handle) == {"no": 2, "yes": 2}


# -- recording -------------------------------------------------------------------------------------------------------------------------


def test_images_are_saved_with_their_rows(world: World, adp: Any, handle: Any) -> None:
    with at("a", "7"):
        world.sample(guided(world, adp, handle), n=3, seed=2**40)
    images = pictures(3)
    recorded = record(handle, images, "a", "yes", "no", "yes")
    rows = handle.open().rows()
    assert [r["file"] for r in rows] == recorded.files == sorted(p.name for p in handle.folder.iterdir())
    assert [r["seen"] for r in rows] == ["yes", "no", "yes"] and {r["state"] for r in rows} == {"seen"}
    assert {(r["seed"], len(r["prompt_hash"])) for r in rows} == {(str(2**40), 64)}
    for image, name in zip(images, recorded.files, strict=True):
        with Image.open(handle.folder / name) as saved:
            assert np.array_equal(np.asarray(saved), (image.numpy() * 255).round().astype(np.uint8))
            assert json.loads(saved.text["prompt"]) == graph() and saved.text["workflow"] == "{}"


def test_recording_again_is_the_same_row_and_file(world: World, adp: Any, handle: Any) -> None:
    with at("a", "7"):
        world.sample(guided(world, adp, handle), n=2)
    first = record(handle, pictures(2), "a", "no", "no")
    again = record(handle, pictures(2), "b", "no", "yes")  # the sampler stood in the cache
    assert again.files == first.files and counts(handle) == {"no": 1, "yes": 1} and handle.open().images() == 2
    record(handle, pictures(2, seed=9), "c", "no", "no")  # other images, and nobody reserved for them
    assert handle.open().images() == 4 and len(list(handle.folder.iterdir())) == 4


def test_the_samplers_own_word_is_taken(world: World, adp: Any, handle: Any) -> None:
    for run in ("a", "b"):
        with at(run, "7"):
            world.sample(guided(world, adp, handle), n=2)
    told = json.dumps({"attributes": ["eyeglasses"], "assigned": ["yes", "no"], "missed": None, "run": {"prompt": "a", "node": "7"}})
    recorded = record(handle, pictures(2), "z", "no", "no", assigned=told)
    rows = handle.open().rows()
    assert [(r["run"], r["state"]) for r in rows] == [("a", "seen"), ("a", "seen"), ("b", "made"), ("b", "made")]
    assert recorded.assigned == [("yes",), ("no",)] and [r["assigned"] for r in rows[:2]] == ["yes", "no"]


@pytest.mark.parametrize(
    ("told", "part"),
    [
        ("hello", "does not belong to these images"),
        ("[]", "does not belong to these images"),
        ('{"attributes": ["hair"], "assigned": ["long"]}', "it is about hair, and the target is about eyeglasses"),
        ('{"attributes": ["eyeglasses"], "assigned": ["yes"]}', "it is about 1 images, and 2 are connected"),
        ('{"attributes": ["eyeglasses"], "assigned": ["yes", "maybe"]}', "has no 'maybe'"),
        ('{"attributes": ["eyeglasses"]}', "has no 'assigned'"),
    ],
)
def test_what_belongs_to_other_images_is_refused(handle: Any, told: str, part: str) -> None:
    with pytest.raises(ValueError, match="'assigned'") as error:
        record(handle, pictures(2), "a", "no", "no", assigned=told)
    assert part in sentence(error) and not handle.folder.exists()


def test_images_without_guidance_are_counted_as_seen(handle: Any) -> None:
    record(handle, pictures(3), "a", "no", "no", "yes")
    assert counts(handle) == {"no": 2, "yes": 1} and {r["assigned"] for r in handle.open().rows()} == {None}


def test_a_picture_whose_row_was_lost_is_counted_again(handle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.methods.ledger.ledger import Ledger

    with monkeypatch.context() as patch:

        def killed(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(Ledger, "record", killed)
        with pytest.raises(KeyboardInterrupt):
            record(handle, pictures(2), "a", "yes", "no")
    assert len(list(handle.folder.iterdir())) == 1 and handle.open().images() == 0
    (handle.folder / "holiday.png").write_bytes(b"\x89PNG\r\n\x1a\n, but not really")
    (handle.folder / "notes.txt").write_text("mine")
    assert handle.opened()[1] == 1 and counts(handle) == {"yes": 1} and handle.opened()[1] == 0
    record(handle, pictures(2), "a", "yes", "no")
    assert counts(handle) == {"yes": 1, "no": 1}


def test_pictures_from_before_a_reset_and_of_other_ledgers_stay_out(handle: Any) -> None:
    record(handle, pictures(2), "a", "yes", "no")
    assert handle.open().reset(2) and handle.opened()[1] == 0 and handle.open().images() == 0
    from equipoise.host.ledger.ledgers import LedgerHandle

    other = LedgerHandle(f"{handle.name} 2")
    other.folder.mkdir(parents=True)
    for path in handle.folder.iterdir():
        (other.folder / path.name).write_bytes(path.read_bytes())
    assert other.opened()[1] == 0


def test_what_a_picture_tells_is_not_believed_where_it_cannot_be(handle: Any) -> None:
    from equipoise.host.ledger.ledgers import _png
    from equipoise.methods.ledger.ledger import target_key

    handle.folder.mkdir(parents=True)
    good = {
        "ledger": handle.open().epoch, "target": target_key(target()), "run": "x", "node": "1", "place": 0, "assigned": None,
        "seen": '["yes"]', "seed": "", "prompt_hash": "", "pixels": "",
    }  # fmt: skip
    bad: list[Any] = [
        {"place": -1}, {"place": True}, {"place": 2**70}, {"place": "0"}, {"seen": '["yes","no"]'}, {"seen": "yes"}, {"seen": None},
        {"target": "{}"}, {"target": good["target"] + " "}, {"assigned": "[1]"}, {"run": 7}, {"node": None}, {"ledger": "another"},
        {"pixels": "x" * 5000},
    ]  # fmt: skip
    for i, wrong in enumerate(bad):
        (handle.folder / f"{i}.png").write_bytes(_png(np.zeros((2, 2, 3), np.uint8), {"equipoise_ledger": json.dumps({**good, **wrong})}))
    (handle.folder / "text.png").write_bytes(_png(np.zeros((2, 2, 3), np.uint8), {"equipoise_ledger": "[[[["}))
    assert handle.opened()[1] == 0
    (handle.folder / "right.png").write_bytes(_png(np.zeros((2, 2, 3), np.uint8), {"equipoise_ledger": json.dumps(good)}))
    assert handle.opened()[1] == 1 and counts(handle) == {"yes": 1}


def test_images_that_are_no_numbers_and_targets_that_cannot_be_seen_are_refused(handle: Any) -> None:
    broken = pictures(2)
    broken[1, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="1 of 2 images have values that are not numbers") as error:
        record(handle, broken, "a", "no", "no")
    sentence(error)
    from equipoise.host.ledger.ledgers import record_attributes
    from equipoise.methods.core.targets import make_target

    beard = make_target({"beard": {"yes": 0.5, "no": 0.5}})
    with pytest.raises(ValueError, match="'seer' cannot record this target.*'beard'"):
        record_attributes(pictures(1), handle, beard, Seer("no"))
    assert not handle.open().images()


def test_a_disk_that_is_full_counts_nothing_and_leaves_no_half(handle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import os

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"image 0 cannot be saved in output/equipoise/ledgers/.*No space left") as error:
        record(handle, pictures(2), "a", "yes", "no")
    sentence(error)
    assert list(handle.folder.iterdir()) == [] and handle.open().images() == 0


# -- processes and nodes ---------------------------------------------------------------------------------------------------------------


def test_a_process_is_known_and_one_that_ended_too(prompt: Any) -> None:
    from equipoise.host.ledger.ledgers import has_ended, this_process

    machine, pid, born = this_process().rsplit("/", 2)
    assert not has_ended(this_process()) and has_ended(f"{machine}/{pid}/{float(born) - 5:.2f}")
    assert has_ended(f"{machine}/4194999/1.00") and not has_ended(f"elsewhere{machine}/{pid}/1.00") and not has_ended("what")


@pytest.mark.parametrize("name", ["../up", "a/b", "", "nul", "x" * 200, "a\x00b", "/etc/passwd", "C:\\x"])
def test_a_ledger_is_never_outside_its_folder(prompt: Any, name: str) -> None:
    from equipoise.host.ledger.ledgers import ledger_path
    from equipoise.nodes.ledger.balance_ledger import BalanceLedger

    with pytest.raises(ValueError, match="cannot be the name of a ledger"):
        ledger_path(name)
    assert "cannot be the name of a ledger" in str(BalanceLedger.validate_inputs(name))


def prepared(node: Any, prompt: Any = None) -> Any:
    """The node's class as the host gives it hidden values."""
    return type("Prepared", (node,), {"hidden": SimpleNamespace(prompt=prompt, extra_pnginfo=None, unique_id="9")})


def test_the_nodes_show_draw_and_export(handle: Any) -> None:
    from equipoise.nodes.ledger.balance_ledger import BalanceLedger
    from equipoise.nodes.ledger.ledger_report import LedgerReport
    from equipoise.nodes.ledger.record_attributes import RecordAttributes
    from equipoise.nodes.report.attribute_histogram import AttributeHistogram

    made, text = BalanceLedger.execute(f" {handle.name} ").result
    assert made == handle and text == f"ledger '{handle.name}': 0 images"
    with pytest.raises(ValueError, match="has counted no image yet"):
        LedgerReport.execute(made)
    for i in range(3):
        with at(f"run {i}", "9"):
            out = prepared(RecordAttributes, graph()).execute(pictures(2, i), made, target(), Seer("yes", "no" if i else "yes"))
    assert out.result[0] is made and "2 images recorded by eyeglasses, with no class assigned" in out.result[1]
    assert [i["subfolder"] for i in out.ui["images"]] == [f"equipoise/ledgers/{handle.name}"] * 2
    chart, fd, text, figures, none = prepared(LedgerReport).execute(made).result
    assert none == ""
    assert chart.shape[2] == 960 and fd == pytest.approx(2**0.5 * (4 / 6 - 0.5)) and "no 2, yes 4" in text
    assert json.loads(figures)["panels"][0]["report"]["counts"] == [2, 4]
    drawn = prepared(AttributeHistogram).execute(target=target(), ledger=made)
    assert drawn.result[1] == fd and json.loads(drawn.result[2])["ledger"] == handle.name
    with pytest.raises(ValueError, match="connect the target too"):
        AttributeHistogram.execute(ledger=made)
    with pytest.raises(ValueError, match="connect both images and classifier, or a ledger"):
        AttributeHistogram.execute()
    exported = prepared(LedgerReport).execute(made, action="export CSV").result
    path = Path(exported[4])
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 7 and lines[0].startswith("time,attributes,target,group,assigned,seen") and "eyeglasses" in lines[1]
    assert exported[1] == fd and exported[2].startswith(f"6 images in output/equipoise/ledgers/{path.name}\n") and "yes 4" in exported[2]


def test_a_report_resets_a_ledger_only_when_its_images_are_named(handle: Any) -> None:
    from comfy_execution.graph_utils import ExecutionBlocker
    from equipoise.nodes.ledger.balance_ledger import BalanceLedger
    from equipoise.nodes.ledger.ledger_report import LedgerReport
    from equipoise.nodes.ledger.record_attributes import RecordAttributes

    made = BalanceLedger.execute(handle.name).result[0]
    for i in range(3):
        with at(f"run {i}", "9"):
            prepared(RecordAttributes, graph()).execute(pictures(2, i), made, target(), Seer("yes", "no"))

    def reset(count: int) -> str:
        return prepared(LedgerReport).execute(made, action="reset", counted_images=count).result[2]

    for count in (0, 5):
        assert f"was left as it is: it counts 6 images, and {count} were named" in reset(count)
    with at("run 2", "8"):
        assert "it counts 6 images, 2 of them from this run. A run that adds images cannot reset it" in reset(6)
    assert made.open().images() == 6
    before = LedgerReport.fingerprint_inputs()
    with at("run 3", "8"):
        assert "has forgotten 6 images" in reset(6)
    assert LedgerReport.fingerprint_inputs() != before and len(list(handle.folder.iterdir())) == 6
    chart, fd, text, figures, path = LedgerReport.execute(made, action="reset", counted_images=6).result
    assert "it counts 0 images" in text and path == "" and all(isinstance(o, ExecutionBlocker) for o in (chart, fd, figures))
    assert Path(LedgerReport.execute(made, action="export CSV").result[4]).read_text(encoding="utf-8").count("\n") == 1


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def queue_of_one(seed: int, name: str, batch: int = 1) -> dict[str, Any]:
    """One image by the shipped models, guided with a ledger and recorded in it."""
    sampler = {"seed": seed, "steps": 4, "cfg": 1.0, "sampler_name": "ddim", "scheduler": "normal", "denoise": 1.0}
    guidance = {
        "mode": "quota", "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "rows": "cond", "direction": "calibrated",
        "assign": "auto", "seed": seed,
    }  # fmt: skip
    counted = {"ledger": ["ledger", 0], "classifier": ["judge", 0]}
    asked = {"adp": ["adp", 0], "target": ["target", 0]}
    return {
        "load": node("EquipoiseLoadUnconditionalDiffusion", model_name="portraits.safetensors"),
        "latent": node("EquipoiseEmptyPixelLatent", model=["load", 0], width=0, height=0, batch_size=batch),
        "adp": node("EquipoiseLoadADP", adp_name="portraits.safetensors"),
        "target": node("EquipoiseTargetDistribution", attribute="eyeglasses", preset="uniform", weights="", adp=["adp", 0]),
        "judge": node("EquipoiseLoadAttributeClassifier", classifier_name="portraits_labeller.safetensors"),
        "ledger": node("EquipoiseBalanceLedger", name=name, group=""),
        "guide": node("EquipoiseDistributionGuidance", model=["load", 0], ledger=["ledger", 0], **asked, **guidance),
        "draw": node("KSampler", model=["guide", 0], positive=["load", 2], negative=["load", 2], latent_image=["latent", 0], **sampler),
        "image": node("VAEDecode", samples=["draw", 0], vae=["load", 1]),
        "record": node("EquipoiseRecordAttributes", images=["image", 0], target=["target", 0], **counted),
        "report": node("EquipoiseLedgerReport", ledger=["record", 0], target=["target", 0]),
        "export": node("EquipoiseLedgerReport", ledger=["record", 0], action="export CSV"),
    }  # fmt: skip


def test_a_queue_of_single_images_is_balanced(server: Server) -> None:
    """On both hosts. A graph that is queued again as it is draws and counts nothing."""
    from equipoise.methods.ledger.ledger import Ledger

    for i in range(8):
        outcome = server.queue(queue_of_one(100 + i, "queue"))
        assert not outcome.error
        assert {"load", "adp", "target", "judge", "ledger"} <= set(outcome.cached) or not i
    ledger = Ledger(server.base / "user" / "equipoise" / "ledgers" / "queue.sqlite")
    rows = ledger.rows()
    assert len(rows) == 8 == len({r["run"] for r in rows}) and {(r["node"], r["state"]) for r in rows} == {("draw", "seen")}
    assert [r["seed"] for r in rows] == [str(100 + i) for i in range(8)] and all(r["assigned"] in ("yes", "no") for r in rows)
    seen = Counter(r["seen"] for r in rows)
    assert abs(seen["yes"] - seen["no"]) <= 2
    folder = server.base / "output" / "equipoise" / "ledgers" / "queue"
    assert {r["file"] for r in rows} == {p.name for p in folder.iterdir()}
    assert server.images(outcome, "record").shape[0] == 1 and "8 images" in "".join(outcome.outputs["report"]["text"])
    assert not server.queue(queue_of_one(107, "queue")).error and ledger.images() == 8
    assert not server.queue(queue_of_one(107, "queue", batch=3)).error and ledger.images() == 11
    assert len((folder.parent / "queue.csv").read_text(encoding="utf-8").splitlines()) == 12


def test_a_name_that_leads_out_is_refused_before_it_runs(server_current: Server) -> None:
    answer = server_current.post("/prompt", {"prompt": queue_of_one(1, "../../out")})
    assert "cannot be the name of a ledger" in json.dumps(answer["node_errors"])
