"""The models that ship with the pack: they load, they are small enough, and they do what their files say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from equipoise.cli.main import main
from equipoise.cli.sampling import sample
from equipoise.factory.portraits import ATTRIBUTES
from equipoise.factory.train_classifiers import draw_unseen, drawn_accuracy
from equipoise.shipped import weights


def test_the_shipped_files_are_small_and_say_how_they_were_made() -> None:
    files = [*weights.WEIGHTS_FOLDER.rglob("*.safetensors")]
    trained = [f for f in files if f.parent.name in ("diffusion", "attribute_classifiers")]
    assert len(trained) == 5
    assert sum(f.stat().st_size for f in trained if "text" not in f.name) <= 12 * 2**20
    assert sum(f.stat().st_size for f in files) <= 24 * 2**20
    for file in files:
        assert file.with_suffix(".log.json").is_file(), f"{file.name} ships without its training log"


@pytest.mark.parametrize("path", [weights.LABELLER, weights.JUDGE], ids=["labeller", "judge"])
def test_labeller_and_judge_see_what_was_drawn(path: Path) -> None:
    images, labels = draw_unseen(1024)
    assert min(drawn_accuracy(weights.classifier(path), images, labels).values()) >= 0.99


def test_labeller_and_judge_are_of_different_kinds() -> None:
    labeller, judge = weights.classifier(weights.LABELLER), weights.classifier(weights.JUDGE)
    assert labeller.architecture == "vit" and labeller.config["depth"] >= 6 and judge.architecture == "cnn"
    assert labeller.attributes == judge.attributes == ATTRIBUTES


def test_the_conditional_model_draws_the_profession_that_it_is_told() -> None:
    net, judge = weights.diffusion(weights.DIFFUSION_PROFESSIONS), weights.classifier(weights.JUDGE)
    for k in range(4):
        images = sample(net, list(range(8)), batch=8, profession=k).images
        assert (judge.probabilities(images)["profession"].argmax(-1) == k).float().mean() >= 0.75


def test_the_predictors_fit_their_models() -> None:
    for adp_path, net_path in ((weights.ADP, weights.DIFFUSION), (weights.ADP_PROFESSIONS, weights.DIFFUSION_PROFESSIONS)):
        adp, net = weights.adp(adp_path), weights.diffusion(net_path)
        assert adp.predictor.channels == net.config.width(net.config.levels - 1)
        assert {"eyeglasses", "hair", "skin_tone"} <= set(adp.moves)
        assert all(torch.isfinite(m.vectors).all() and m.window[0] < m.window[1] for m in adp.moves.values())


def test_the_text_models_predictor_compares_all_kinds_of_directions() -> None:
    adp = weights.adp(weights.ADP_TEXT)
    assert adp.base_model == "equipoise-portraits-text" and set(adp.moves) == {"eyeglasses", "skin_tone"}
    kinds = {"learned", "learned-prompts", "mean-difference", "linear-discriminant", "sum", "prompt-contrast"}
    assert set(adp.sources()["eyeglasses"]) == kinds
    assert all(torch.isfinite(m.vectors).all() for by_source in adp.sources().values() for m in by_source.values())


def test_the_demo_writes_its_sheet_and_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["demo", "--n", "16", "--sheet", str(tmp_path / "sheet.png"), "--json", str(tmp_path / "f.json")]
    assert main(words) == 0
    figures = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))
    assert figures == json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert {"fd_before", "fd_after", "fd_after_low", "fd_after_high", "noise_floor", "assigned_hit_rate", "n", "target"} <= set(figures)
    assert figures["target"] == {"yes": 0.5, "no": 0.5} and (tmp_path / "sheet.png").stat().st_size > 10_000


def test_sample_refuses_to_overwrite(tmp_path: Path) -> None:
    words = ["sample", "--n", "2", "--batch", "2", "--steps", "2", "--out", str(tmp_path / "out"), "--record", str(tmp_path / "set")]
    assert main(words) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["00000000.png", "00000001.png", "samples.jsonl"]
    assert main(words) == 1


def test_sample_with_a_target_notes_what_it_assigned(tmp_path: Path) -> None:
    words = ["sample", "--n", "4", "--batch", "4", "--steps", "4", "--adp", str(weights.ADP), "--target", "eyeglasses: yes=0.5,no=0.5"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sorted(r["assigned"] for r in rows) == ["no", "no", "yes", "yes"]
