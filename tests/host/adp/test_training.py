"""Train, calibrate and save an ADP through the nodes, on a small random model whose images carry a mark that can be read and moved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_adp import random_move
from equipoise_folders import remove_folders
from equipoise_tiny import tiny
from torch import Tensor

CLASSES = {"light": ("dark", "bright")}
STEPS = 3


@pytest.fixture(autouse=True)
def folders(prompt: Any) -> Iterator[Path]:
    """The host's folders of sets, calibrations and ADPs, empty before and after every test."""
    places = [prompt.base / "output" / "equipoise", prompt.base / "models" / "equipoise" / "adp"]
    remove_folders(*places)
    yield places[0]
    remove_folders(*places)


class World:
    """A tiny model with its VAE, and a recorded set labelled by the brightness of its images."""

    def __init__(self, host: Any, name: str = "packed") -> None:
        from equipoise.host.small_models.adm_info import conditioning
        from equipoise.host.small_models.adm_model import empty_latent, patcher_from
        from equipoise.host.small_models.pixel_vae import PixelVae

        state_dict, meta = tiny(name)
        self.host = host
        self.model = patcher_from(f"tiny_{name}", state_dict, meta | {"base_model": "tiny"})
        info = self.model.model.equipoise_info
        self.vae = PixelVae(info.ratio)
        self.positive = conditioning(info, 0 if info.num_classes else None)
        self.negative = conditioning(info, info.null_label)
        self.empty = lambda n: empty_latent(self.model, 0, 0, n)
        self.edge = 0.0

    def features(self, images: int = 40) -> Any:
        from equipoise.nodes.data.record_features import RecordFeatures

        return RecordFeatures.execute(
            model=self.model, vae=self.vae, latent_image=self.empty(8), set_name="set", images=images, prompts="", negative_prompt="",
            first_seed=5, steps=STEPS, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0, every=1, unconditional_rows=False,
            spatial_levels="", positive=self.positive, negative=self.negative,
        ).result[0]  # fmt: skip

    def labels(self, features: Any) -> Any:
        from equipoise.host.data.feature_sets import read_picture
        from equipoise.methods.labels.labels import LabelSet

        light = torch.stack([read_picture(features.image_path(e)).mean() for e in features.entries])
        self.edge = float(light.median())
        return LabelSet(dict(CLASSES), tuple(e.file for e in features.entries), {"light": torch.eye(2)[(light > self.edge).long()]})

    def classifier(self) -> Any:
        """Sees what the labels say: the brightness of a picture."""
        edge = self.edge

        def probabilities(images: Tensor) -> dict[str, Tensor]:
            bright = torch.sigmoid(400 * (images.float().mean((1, 2, 3)) - edge))
            return {"light": torch.stack([1 - bright, bright], 1), "other": torch.full((len(images), 2), 0.5)}

        return SimpleNamespace(
            name="brightness", attributes={**CLASSES, "other": ("a", "b")}, probabilities=probabilities, fingerprint=lambda: "1"
        )

    def calibrate(self, adp: Any, **given: Any) -> Any:
        from equipoise.nodes.guidance.calibrate_adp import CalibrateADP

        settings: dict[str, Any] = {
            "model": self.model, "positive": self.positive, "negative": self.negative, "latent_image": self.empty(8), "images": 8,
            "seed": 7, "steps": STEPS, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "attribute": "", "name": "trials",
        }  # fmt: skip
        return CalibrateADP.execute(adp=adp, **(settings | given))


@pytest.fixture
def world(prompt: Any) -> World:
    return World(prompt)


@pytest.fixture
def made(world: World) -> SimpleNamespace:
    """A feature set, its labels, and the ADP that Train ADP makes of them."""
    from equipoise.nodes.adp.train_adp import TrainADP

    features = world.features()
    labels = world.labels(features)
    out = TrainADP.execute(features, labels, "linear", 3, 0)
    return SimpleNamespace(features=features, labels=labels, adp=out.result[0], out=out)


def sentence(error: pytest.ExceptionInfo[ValueError]) -> None:
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 300, text


# -- training and saving -------------------------------------------------------------------------------------------------------------


def test_train_adp_gives_a_predictor_its_curves_and_a_verdict(world: World, made: SimpleNamespace) -> None:
    adp, curves, verdict = made.out.result
    assert adp.attributes == CLASSES and adp.base_model == "tiny" and not adp.moves
    assert curves.shape == (1, 1048, 960, 3) and curves.dtype == torch.float32 and float(curves.min()) >= 0
    assert "light" in verdict and "40 images, 6 of them held out" in verdict
    assert made.out.ui["text"] == (verdict,) and made.out.ui["images"]
    assert not any(p.is_inference() for p in adp.predictor.parameters()), "guidance takes gradients of it"


def test_train_adp_is_interrupted_between_steps_and_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management as management
    from equipoise.nodes.adp.train_adp import TrainADP

    features = world.features()
    labels = world.labels(features)
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        TrainADP.execute(features, labels, "mlp", 4, 0)
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr("comfy.utils.PROGRESS_BAR_HOOK", lambda value, total, preview, **_: seen.append((value, total)))
    TrainADP.execute(features, labels, "mlp", 4, 0)
    assert seen and seen[-1][0] == seen[-1][1] and [v for v, _ in seen] == sorted(v for v, _ in seen)


def test_attributes_are_added_to_a_file_that_was_saved_and_loaded(world: World, made: SimpleNamespace) -> None:
    from equipoise.methods.labels.labels import LabelSet
    from equipoise.nodes.adp.adp_info import ADPInfo
    from equipoise.nodes.adp.load_adp import LoadADP
    from equipoise.nodes.adp.save_adp import SaveADP
    from equipoise.nodes.adp.train_adp import TrainADP

    path = SaveADP.execute(made.adp, "first", False).result[0]
    assert Path(path) == world.host.base / "models" / "equipoise" / "adp" / "first.safetensors"
    loaded = LoadADP.execute("first.safetensors").result[0]
    half = torch.eye(2)[torch.arange(40) % 2]
    more = LabelSet({"side": ("a", "b")}, made.labels.files, {"side": half})
    both = TrainADP.execute(made.features, more, "linear", 2, 0, loaded).result[0]
    assert list(both.attributes) == ["light", "side"]
    x, level = torch.randn(6, both.predictor.channels, 4, 4), torch.randn(6)
    torch.testing.assert_close(both.predictor(x, level)["light"], loaded.predictor(x, level)["light"])
    text, chart = ADPInfo.execute(both).result
    assert "\nlight\n" in text and "\nside\n" in text and "held-out balanced accuracy by log-SNR" in text and chart.shape[0] == 1


def test_save_adp_writes_whole_files_by_name_alone(world: World, made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    from equipoise.nodes.adp.save_adp import SaveADP

    folder = world.host.base / "models" / "equipoise" / "adp"
    for bad in ("", "..", "a/b", "a\\b", "../up", "/root", "C:x", "con", "nul.x", "a..b", "a\0b", ".hidden", "x" * 200, "tail."):
        with pytest.raises(ValueError, match="cannot be the name of an ADP") as error:
            SaveADP.execute(made.adp, bad, True)
        sentence(error)
    assert not folder.exists() or not list(folder.iterdir())
    out = SaveADP.execute(made.adp, "mine.safetensors", False)
    written = (folder / "mine.safetensors").read_bytes()
    assert out.result[0] == str(folder / "mine.safetensors") and str(folder) in out.ui.as_dict()["text"][0]
    SaveADP.execute(made.adp, "mine", False)  # the same again
    changed = made.adp.__class__(made.adp.predictor, {}, "tiny", {"note": "another"})
    with pytest.raises(ValueError, match="there is another 'mine.safetensors'") as error:
        SaveADP.execute(changed, "mine", False)
    sentence(error)
    assert (folder / "mine.safetensors").read_bytes() == written
    SaveADP.execute(changed, "mine", True)
    assert (folder / "mine.safetensors").read_bytes() != written
    shipped = SaveADP.execute(made.adp, "portraits", False)
    assert "is used in place of" in shipped.ui.as_dict()["text"][0]
    assert sorted(p.name for p in folder.iterdir()) == ["mine.safetensors", "portraits.safetensors"]


def test_adp_info_of_a_file_without_figures(prompt: Any, made: SimpleNamespace) -> None:
    from equipoise.nodes.adp.adp_info import ADPInfo

    bare = made.adp.__class__(made.adp.predictor, {}, "tiny")
    text, chart = ADPInfo.execute(bare).result
    assert text.endswith("keeps no accuracy by noise level.") and float(chart.min()) == 1.0


# -- calibration ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("judge", ["classifier", "itself"])
def test_calibrate_adp_tries_three_directions_and_keeps_them_all(world: World, made: SimpleNamespace, judge: str, folders: Path) -> None:
    given: dict[str, Any] = {"features": made.features, "labels": made.labels}
    if judge == "classifier":
        given |= {"classifier": world.classifier(), "vae": world.vae}
    before = repr(world.model.model_options)
    out = world.calibrate(made.adp, **given)
    adp, report, chart = out.result
    assert list(adp.moves) == ["light"] and len(adp.alternatives["light"]) == 2
    assert {adp.moves["light"].source, *adp.alternatives["light"]} == {"mean-difference", "linear-discriminant", "sum"}
    record = adp.info["calibration"]["light"]["compare_directions"]
    assert set(record["hits"]) == {"mean-difference", "linear-discriminant", "sum"} and record["images"] == 8
    assert record["judge"] == ("brightness" if judge == "classifier" else "the ADP, on finished images")
    assert "quality" in record["quality"]["text"] and "light: with '" in report and "quality" in report
    assert chart.shape[0] == 1 and chart.shape[2] == 960
    assert 0 <= adp.info["accuracy_mid"]["light"] <= 1
    assert repr(world.model.model_options) == before and not made.adp.moves
    from equipoise.methods.core.trials import STRENGTHS
    from equipoise.methods.guidance.calibrate import TRIALS_EACH

    log = json.loads((folders / "calibration" / "trials.json").read_text(encoding="utf-8"))
    # Plain images; a direction's trials, which end early where nothing is left to gain; higher strengths of the best.
    assert 1 + 3 * 2 <= len(log["trials"]) <= 1 + 3 * TRIALS_EACH + len(STRENGTHS)


def test_calibration_goes_on_where_it_was_cut_off(
    world: World, made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, folders: Path
) -> None:
    import comfy.model_management as management
    import comfy.sample

    runs: list[int] = []
    sample = comfy.sample.sample

    def counted(*args: Any, **kwargs: Any) -> Any:
        runs.append(1)
        if len(runs) == 6:
            management.interrupt_current_processing(True)
        return sample(*args, **kwargs)

    given = {"features": made.features, "labels": made.labels, "classifier": world.classifier(), "vae": world.vae}
    monkeypatch.setattr(comfy.sample, "sample", counted)
    with pytest.raises(management.InterruptProcessingException):
        world.calibrate(made.adp, **given)
    log = folders / "calibration" / "trials.json"
    assert len(json.loads(log.read_text(encoding="utf-8"))["trials"]) == 5
    first = world.calibrate(made.adp, **given)
    total = len(json.loads(log.read_text(encoding="utf-8"))["trials"])
    assert len(runs) == 6 + total - 5
    again = world.calibrate(made.adp, **given)
    assert len(runs) == 6 + total - 5 and again.result[1] == first.result[1], "everything was read off the log"
    world.calibrate(made.adp, **given, seed=8)
    assert len(runs) >= 6 + 2 * total - 5 - 8, "other settings are other trials"


def test_what_the_file_holds_can_be_calibrated_without_features(
    world: World, made: SimpleNamespace, load_module: Any, repository: Path
) -> None:
    from dataclasses import replace

    move = replace(random_move(2, made.adp.predictor.channels, from_to=False), source="prompt-pairs")
    file = replace(made.adp, moves={"light": move})
    out = world.calibrate(file, classifier=world.classifier(), vae=world.vae).result[0]
    assert out.moves["light"].source == "prompt-pairs" and not torch.equal(out.moves["light"].sizes, move.sizes)
    assert list(out.info["calibration"]["light"]["compare_directions"]["hits"]) == ["prompt-pairs"]


def test_calibrate_adp_refuses_in_one_sentence(world: World, made: SimpleNamespace) -> None:
    from equipoise.methods.labels.labels import LabelSet

    given = {"features": made.features, "labels": made.labels}
    blind = SimpleNamespace(name="blind", attributes={"age": ("young", "old")}, probabilities=None)
    turned = LabelSet({"light": ("dim", "bright")}, made.labels.files, dict(made.labels.probabilities))
    cases: list[tuple[str, dict[str, Any]]] = [
        ("no direction to try: connect features", {}),
        ("features and labels belong together", {"features": made.features}),
        ("does not know 'beard', only light", {**given, "attribute": "beard"}),
        ("cannot be the name of a calibration", {**given, "name": "../x"}),
        ("a trial of 3 images cannot show 2 classes", {**given, "images": 3}),
        ("connect a VAE", {**given, "classifier": world.classifier()}),
        ("'blind' does not know 'light' with the classes dark, bright", {**given, "classifier": blind, "vae": world.vae}),
        ("label set does not know .light. .*light: dim, bright", {**given, "labels": turned}),
        ("was made for 'tiny' and the connected MODEL is 'other'", {**given, "model": other_model()}),
    ]
    for match, settings in cases:
        with pytest.raises(ValueError, match=match) as error:
            world.calibrate(made.adp, **settings)
        sentence(error)


def other_model() -> Any:
    from equipoise.host.small_models.adm_model import patcher_from

    state_dict, meta = tiny("plain")
    return patcher_from("other", state_dict, meta | {"base_model": "other"})
