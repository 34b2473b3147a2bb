"""Training for users: what is learnt, what is said of it, what is kept over a kill, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.methods.adp.extend import joined_predictor, without
from equipoise.methods.adp.figures import describe_adp
from equipoise.methods.adp.train import AdpSettings, recommended, train_adp, train_predictor
from equipoise.methods.core.targets import make_target
from equipoise.methods.data import feature_rows as adp_rows
from equipoise.methods.data.feature_rows import buffers, split_images
from equipoise.methods.data.feature_set import FeatureSet, FeatureSetWriter, open_feature_set, read_index
from equipoise.methods.guidance.run import GuidanceRun, GuidanceSettings
from equipoise.methods.labels.labels import LabelSet
from equipoise.models.adp import AdpFile, Move, load_adp, save_adp
from equipoise.models.files import read_safetensors, write_safetensors

LEVELS = torch.tensor([-6.0, -2.0, 1.0, 4.0])
HAIR, GLASSES = ("short", "long"), ("no", "yes")
META = {"base_model": "tiny", "site": "middle"}


def write(folder: Path, n: int = 160, seed: int = 0, share: float = 0.5, signal: float = 3.0, channels: int = 3) -> FeatureSet:
    """Channel 0 tells hair from log-SNR 1 on, channel 1 tells glasses at every level; ``share`` of the images has long hair."""
    generator = torch.Generator().manual_seed(seed)
    hair = (torch.arange(n) % 20 < round(20 * share)).float()
    glasses = (torch.arange(n) // 2 % 2).float()
    writer = FeatureSetWriter(folder, META)
    for start in range(0, n, 40):
        part = slice(start, start + 40)
        features = torch.randn(len(hair[part]), len(LEVELS), channels, 4, 4, generator=generator)
        features[:, 2:, 0] += signal * hair[part, None, None, None]
        features[:, :, 1] += signal * glasses[part, None, None, None]
        names = [f"{i}.png" for i in range(start, start + len(features))]
        writer.add(features * 5 + 3, LEVELS, names, [0] * len(names), [""] * len(names))
    return open_feature_set(folder)


def labels_of(features: FeatureSet, *attributes: str, share: float = 0.5) -> LabelSet:
    n = len(features.entries)
    truth = {"hair": torch.arange(n) % 20 < round(20 * share), "glasses": torch.arange(n) // 2 % 2 == 1}
    tables = {a: torch.nn.functional.one_hot(truth[a].long(), 2).float() for a in attributes or truth}
    classes = {"hair": HAIR, "glasses": GLASSES}
    return LabelSet({a: classes[a] for a in tables}, tuple(e.file for e in features.entries), tables, dict.fromkeys(tables, "the test"))


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    return write(tmp_path_factory.mktemp("features") / "set", 320)


@pytest.fixture(scope="module")
def files(features: FeatureSet) -> dict[str, AdpFile]:
    """A file of each kind, trained in the mode in which a host runs its nodes."""
    with torch.inference_mode():
        return {kind: train_adp(features, labels_of(features), kind, epochs=5) for kind in ("mlp", "linear")}


# -- what is learnt and what is said of it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_what_can_be_read_is_read_and_nothing_else(files: dict[str, AdpFile], kind: str, tmp_path: Path) -> None:
    file = files[kind]
    curves = {a: dict(map(tuple, c)) for a, c in file.info["accuracy_by_log_snr"].items()}
    assert sorted(curves["hair"]) == [-6.0, -2.0, 1.0, 4.0]
    assert min(curves["glasses"].values()) > 0.95 and min(curves["hair"][k] for k in (1.0, 4.0)) > 0.95
    assert max(curves["hair"][k] for k in (-6.0, -2.0)) < 0.7
    assert file.info["verdict"]["hair"].endswith("It reaches 90% or better for 50% of the sampling steps.")
    assert "from 50% of the sampling steps on, and below 70% before that." in file.info["verdict"]["hair"]
    assert file.info["verdict"]["glasses"].startswith("glasses: ")
    assert file.info["trained"]["hair"]["way"] == LEVELS.tolist()
    assert file.base_model == "tiny" and file.attributes == {"hair": HAIR, "glasses": GLASSES} and not file.moves
    late = dict(map(tuple, file.info["calibration_error_by_log_snr"]["glasses"]))
    assert late[4.0] < 0.1
    save_adp(file, tmp_path / "a.safetensors")
    back = load_adp(tmp_path / "a.safetensors")
    assert describe_adp(back) == describe_adp(file) and "trained: images 320, held out 48" in describe_adp(back)
    assert "labels from the test" in describe_adp(back)


def test_a_linear_predictor_reads_between_the_recorded_levels(files: dict[str, AdpFile]) -> None:
    """The way was recorded at 1 and 4 only: at 2.5, three knots away from nothing, it reads all the same."""
    x = torch.randn(64, 3, 4, 4, generator=torch.Generator().manual_seed(5))
    glasses = torch.arange(64) % 2
    x[:, 1] += 3.0 * glasses[:, None, None]
    read = files["linear"].predictor(x * 5 + 3, torch.full((64,), 2.5))["glasses"].argmax(-1)
    assert (read == glasses).float().mean() > 0.95


def test_training_ends_where_nothing_more_is_learnt(tmp_path: Path) -> None:
    features = write(tmp_path / "set", 80)
    noise = torch.eye(2)[torch.randint(0, 2, (80,), generator=torch.Generator().manual_seed(3))]
    labels = LabelSet({"hair": HAIR}, tuple(e.file for e in features.entries), {"hair": noise})
    file = train_adp(features, labels, epochs=60)
    trained = file.info["trained"]["hair"]
    held = [h for _, h in trained["history"]]
    assert trained["epochs"] < 60 and len(held) == trained["epochs"]
    assert trained["best_epoch"] == 1 + held.index(min(held)) <= trained["epochs"] - 3
    assert file.info["verdict"]["hair"].startswith("hair cannot be read: ") and "guessing gives 50%" in file.info["verdict"]["hair"]


def test_rare_classes_count_as_much_as_common_ones(tmp_path: Path) -> None:
    """With a weak signal and 10% of long hair, plain training calls nearly everything short."""
    features = write(tmp_path / "set", 400, share=0.1, signal=0.35)
    labels = labels_of(features, "hair", share=0.1)
    table = {"hair": labels.probabilities["hair"]}
    recall = {}
    for balanced in (False, True):
        settings = AdpSettings(epochs=4, batch=64, lr=1e-3, noise=1.0, class_balanced=balanced)
        predictor, _ = train_predictor(features.folder, table, {"hair": HAIR}, settings)
        x = torch.randn(200, 3, 4, 4, generator=torch.Generator().manual_seed(8))
        x[:, 0] += 0.35
        recall[balanced] = float((predictor(x * 5 + 3, torch.full((200,), 4.0))["hair"].argmax(-1) == 1).float().mean())
    assert recall[True] > recall[False] + 0.2, recall


# -- kept over a kill ----------------------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def stop_at(step: int) -> Callable[[int, int, dict[str, float]], None]:
    def progress(done: int, total: int, figures: dict[str, float]) -> None:
        if done >= step:
            raise Stop

    return progress


def same(a: AdpFile, b: AdpFile) -> bool:
    one, other = a.predictor.state_dict(), b.predictor.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_an_interrupted_training_ends_as_if_it_had_not_been(tmp_path: Path, kind: str) -> None:
    whole, cut = write(tmp_path / "whole" / "set"), write(tmp_path / "cut" / "set")
    expected = train_adp(whole, labels_of(whole), kind, epochs=5)
    for step in (60, 120):  # an epoch has 34 steps
        with pytest.raises(Stop):
            train_adp(cut, labels_of(cut), kind, epochs=5, progress=stop_at(step))
        (kept,) = (cut.folder / "training").iterdir()
        assert int(read_safetensors(kept)[1]["step"]) == step // 34
    seen: list[int] = []
    file = train_adp(cut, labels_of(cut), kind, epochs=5, progress=lambda done, total, _: seen.append(done))
    assert seen[0] == 110, "it went on after the last whole epoch"
    assert same(file, expected)
    assert file.info["accuracy_by_log_snr"] == expected.info["accuracy_by_log_snr"]
    seen.clear()
    assert same(train_adp(cut, labels_of(cut), kind, epochs=5, progress=lambda done, total, _: seen.append(done)), expected)
    assert len(seen) == 1, "a finished training is not done again"


def test_a_killed_process_loses_an_epoch_at_most(tmp_path: Path, fresh_python: Callable[..., str]) -> None:
    features = write(tmp_path / "set", 80)
    (tmp_path / "set" / "labels.json").write_text(json.dumps([i % 20 < 10 for i in range(80)]), encoding="utf-8")
    code = """
import json, os, signal, sys
import torch
from pathlib import Path
from equipoise.methods.data.feature_set import open_feature_set
from equipoise.methods.labels.labels import LabelSet
from equipoise.methods.core.targets import make_target
from equipoise.methods.adp.train import train_adp
folder = Path("set")
features = open_feature_set(folder)
p = torch.eye(2)[torch.tensor(json.loads((folder / "labels.json").read_text())).long()]
labels = LabelSet({"hair": ("short", "long")}, tuple(e.file for e in features.entries), {"hair": p})
if os.fork() == 0:
    kill = lambda done, total, figures: os.kill(os.getpid(), signal.SIGKILL) if done >= 50 else None
    train_adp(features, labels, epochs=6, progress=kill)
pid, status = os.wait()
seen = []
file = train_adp(features, labels, epochs=6, progress=lambda done, total, figures: seen.append(done))
print(json.dumps([os.WTERMSIG(status), seen[0], file.info["trained"]["hair"]["epochs"], len(list((folder / "training").iterdir()))]))
"""
    signal, first, epochs, kept = json.loads(fresh_python(code, OMP_NUM_THREADS="1"))
    assert signal == 9 and kept == 1
    assert 30 < first <= 60 and epochs == 6, "an epoch has 17 steps: two were whole"
    assert len(open_feature_set(features.folder).entries) == 80


def test_a_damaged_checkpoint_is_not_used_and_others_are_cleared(tmp_path: Path) -> None:
    features = write(tmp_path / "set", 80)
    labels = labels_of(features, "hair")
    expected = train_adp(features, labels, epochs=2)
    (kept,) = (features.folder / "training").iterdir()
    kept.write_bytes(kept.read_bytes()[:200])
    assert same(train_adp(features, labels, epochs=2), expected)
    for seed in range(1, 5):
        train_adp(features, labels, epochs=1, seed=seed)
    assert len(list((features.folder / "training").iterdir())) == 3


# -- several attributes in one file --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_an_added_attribute_leaves_the_others_as_they_were(features: FeatureSet, files: dict[str, AdpFile], kind: str) -> None:
    first = train_adp(features, labels_of(features, "hair"), kind, epochs=3)
    move = Move("middle", torch.tensor([0.0]), torch.randn(1, 2, 1, 3, 4, 4), torch.ones(1, 2))
    first = AdpFile(first.predictor, {"hair": move}, first.base_model, {**first.info, "accuracy_mid": {"hair": 0.9}})
    with torch.inference_mode():
        both = train_adp(features, labels_of(features, "glasses"), kind, extend=first)
    assert both.attributes == {"hair": HAIR, "glasses": GLASSES} and both.moves["hair"] is move
    x, level = torch.randn(50, 3, 4, 4), torch.randn(50) * 5
    torch.testing.assert_close(both.predictor(x, level)["hair"], first.predictor(x, level)["hair"])
    assert same(AdpFile(without(both.predictor, ["glasses"]), {}, ""), first), "bit for bit"
    assert torch.equal(both.predictor.temperature["hair"], first.predictor.temperature["hair"])
    assert both.info["verdict"]["hair"] == first.info["verdict"]["hair"] and both.info["accuracy_mid"] == {"hair": 0.9}
    assert min(v for _, v in both.info["accuracy_by_log_snr"]["glasses"]) > 0.95
    # In the joined network the new attribute is read as its own network read it, which the held-out figures are of.
    alone = without(both.predictor, ["hair"])
    torch.testing.assert_close(both.predictor(x, level)["glasses"], alone(x, level)["glasses"])
    assert kind == "linear" or (both.predictor.hidden, alone.hidden) == (192, 96)


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_an_attribute_that_is_there_is_replaced(features: FeatureSet, files: dict[str, AdpFile], kind: str) -> None:
    old = files[kind]
    move = Move("middle", torch.tensor([0.0]), torch.randn(1, 2, 1, 3, 4, 4), torch.ones(1, 2))
    old = AdpFile(old.predictor, {"hair": move, "glasses": move}, old.base_model, old.info, {"hair": {"sum": move}})
    new = train_adp(features, labels_of(features, "hair"), kind, epochs=2, extend=old)
    assert list(new.attributes) == ["glasses", "hair"] and list(new.moves) == ["glasses"] and not new.alternatives
    x, level = torch.randn(50, 3, 4, 4), torch.randn(50) * 5
    torch.testing.assert_close(new.predictor(x, level)["glasses"], old.predictor(x, level)["glasses"])
    assert not torch.equal(new.predictor(x, level)["hair"], old.predictor(x, level)["hair"])
    everything = train_adp(features, labels_of(features), kind, epochs=1, extend=new)
    assert list(everything.attributes) == ["hair", "glasses"] and not everything.moves


def test_predictors_that_have_nothing_in_common_are_not_joined(files: dict[str, AdpFile]) -> None:
    other = without(files["mlp"].predictor, ["hair"])
    other.mean.add_(1)
    with pytest.raises(ValueError, match="share levels and statistics"):
        joined_predictor(without(files["mlp"].predictor, ["glasses"]), other)


def test_an_adp_reads_where_its_set_was_recorded(features: FeatureSet, tmp_path: Path) -> None:
    there = FeatureSet(features.folder, features.entries, {**META, "site": "output.1"})
    made = train_adp(there, labels_of(features, "hair"), epochs=1)
    save_adp(made, tmp_path / "there.safetensors")
    back = load_adp(tmp_path / "there.safetensors")
    assert back.site == "output.1" and back.site_channels == {"output.1": 3} and "reads at output.1" in back.text()
    settings = GuidanceSettings(make_target({"hair": {"short": 0.5, "long": 0.5}}), direction="adp-gradient")
    assert GuidanceRun(back, settings).sites == {"output.1"}


# -- what is refused -----------------------------------------------------------------------------------------------------------------


def sentence(error: pytest.ExceptionInfo[ValueError]) -> None:
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 300


def test_bad_input_is_one_clear_sentence(features: FeatureSet, files: dict[str, AdpFile], tmp_path: Path) -> None:
    labels = labels_of(features)
    entries = features.entries

    def refuses(match: str, *arguments: Any, **options: Any) -> None:
        with pytest.raises(ValueError, match=match) as error:
            train_adp(*arguments, **options)
        sentence(error)

    refuses("holds no image", FeatureSet(tmp_path, (), META), labels)
    refuses("holds 1 image", FeatureSet(features.folder, entries[:1], META), labels)
    refuses("4 labels are for images that are not in the set, the first is '316.png'", FeatureSet(features.folder, entries[:-4]), labels)
    short = LabelSet(labels.attributes, labels.files[:-4], {a: p[:-4] for a, p in labels.probabilities.items()})
    refuses("4 of the 320 images of the set have no label, the first is '316.png'", features, short)
    single = LabelSet({"hair": HAIR}, labels.files, {"hair": torch.tensor([[1.0, 0.0]]).repeat(320, 1)})
    refuses("the class 'long' of 'hair' has no example", features, single)
    dotted = LabelSet({"hair.length": HAIR}, labels.files, {"hair.length": labels.probabilities["hair"]})
    refuses("cannot be called 'hair.length'", features, dotted)
    there = FeatureSet(features.folder, entries, {**META, "site": "output.1"})
    refuses("recorded at 'output.1', and the ADP to extend reads at 'middle'", there, labels, extend=files["mlp"])
    refuses("of kind mlp or linear, not 'cnn'", features, labels, "cnn")
    refuses("is of kind 'linear', and 'mlp' was asked for", features, labels_of(features, "hair"), "mlp", extend=files["linear"])
    other = AdpFile(files["mlp"].predictor, {}, "sdxl")
    refuses("was made for 'sdxl' and the features 'set' were recorded from 'tiny'", features, labels, extend=other)
    wide = write(tmp_path / "wide", 40, channels=5)
    refuses("reads 3 channels and the features 'wide' have 5", wide, labels_of(wide), extend=files["mlp"])


@pytest.mark.parametrize("held", [False, True])
def test_features_that_are_no_numbers_are_told_before_training(tmp_path: Path, held: bool) -> None:
    features = write(tmp_path / "set", 80)
    labels = labels_of(features, "hair")
    sides = split_images(features.entries, 0, {"hair": labels.probabilities["hair"].argmax(-1)})
    entry = sides[held][0]
    tensors, _ = read_safetensors(features.folder / entry.shard)
    tensors["features"][entry.offset + 1, 2, 0, 0] = float("nan")
    write_safetensors(features.folder / entry.shard, tensors)
    with pytest.raises(ValueError, match=rf"the features of '{entry.file}' in 'set' are not finite .* at log-SNR -2.00") as error:
        train_adp(features, labels)
    sentence(error)


def test_a_set_of_two_models_is_refused(tmp_path: Path) -> None:
    features = write(tmp_path / "set", 80)
    FeatureSetWriter(features.folder, META).add(torch.zeros(40, 4, 5, 4, 4), LEVELS, [f"n{i}" for i in range(40)], [0] * 40, [""] * 40)
    features = open_feature_set(features.folder)
    with pytest.raises(ValueError, match="put together from two models") as error:
        train_adp(features, labels_of(features))
    sentence(error)


# -- rows ----------------------------------------------------------------------------------------------------------------------------


def test_every_class_is_on_both_sides_of_the_split(tmp_path: Path) -> None:
    entries = write(tmp_path / "set", 80).entries
    for rare in (2, 3, 5):
        classes = (torch.arange(80) < rare).long()
        for seed in range(6):
            train, held = split_images(entries, seed, {"hair": classes})
            assert {e.image_id for e in train} | {e.image_id for e in held} == set(range(80)) and len(train) + len(held) == 80
            for side in (train, held):
                assert any(e.image_id < rare for e in side) and any(e.image_id >= rare for e in side)


def test_rows_are_streamed_in_bounded_buffers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = write(tmp_path / "set")
    monkeypatch.setattr(adp_rows, "BUFFER_BYTES", 2 * 3 * 16 * 200)
    shards = sorted({e.shard for e in features.entries}, reverse=True)
    parts = list(buffers(features.folder, features.entries[5:], shards))
    assert [len(level) for _, level, _ in parts] == [320, 300], "two shards of 160 rows pass 200 rows; five images are left out"
    assert torch.cat([ids for _, _, ids in parts]).unique().tolist() == list(range(5, 160))
    assert parts[0][2][0] == 120, "in the order that was asked for"


def test_small_sets_get_small_batches() -> None:
    assert [recommended("mlp", 12, 0, rows).batch for rows in (100, 4_000, 100_000)] == [16, 40, 256]
    assert recommended("linear", 12, 0, 100).noise == 0 and recommended("mlp", 12, 0, 100).class_balanced


def test_labels_may_stand_in_another_order_and_ids_may_have_gaps(tmp_path: Path, files: dict[str, AdpFile]) -> None:
    features = write(tmp_path / "set")
    lines = (features.folder / "index.jsonl").read_text(encoding="utf-8").splitlines()
    (features.folder / "index.jsonl").write_text("\n".join(lines[:30] + lines[33:]) + "\n", encoding="utf-8")
    features = open_feature_set(features.folder)
    full = labels_of(write(tmp_path / "other"))
    order = [i for i in torch.randperm(160, generator=torch.Generator().manual_seed(1)).tolist() if not 30 <= i < 33]
    labels = LabelSet(full.attributes, tuple(full.files[i] for i in order), {a: p[order] for a, p in full.probabilities.items()})
    file = train_adp(features, labels, "linear")
    assert len(read_index(features.folder)) == 157
    assert min(v for _, v in file.info["accuracy_by_log_snr"]["glasses"]) > 0.95
