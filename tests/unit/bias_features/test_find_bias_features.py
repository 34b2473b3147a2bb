"""Bias features found where the truth is known: sparse sums of known atoms, some of which stand for attributes, at known places."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from equipoise.benchmarks.bias_features.integrated_gradients import integrated_gradients
from equipoise.methods.adp.train import train_adp
from equipoise.methods.bias_features.attribution import resamples, sure_classes
from equipoise.methods.bias_features.class_activations import ClassMeans
from equipoise.methods.bias_features.feature_ranking import rank, rank_stability, side_effects
from equipoise.methods.bias_features.find import AttributionSettings, every_level, find_bias_features, reader_of, some_images
from equipoise.methods.bias_features.linear_readout import affine_logits, pooled_codes
from equipoise.methods.bias_features.run import profile_delta
from equipoise.methods.data.feature_set import FeatureSet, FeatureSetWriter, open_feature_set
from equipoise.methods.labels.labels import LabelSet
from equipoise.methods.sae.train import train_sae
from equipoise.methods.sae.training import SaeSettings
from equipoise.models.adp import AdpFile, AttributePredictor
from equipoise.models.bias_features import BiasFeatures
from equipoise.models.sae import SaeFile, SparseAutoencoder
from torch import Tensor
from torch.nn.functional import normalize

LEVELS = torch.tensor([-3.0, 0.0, 3.0])
CLASSES = {"glasses": ("no", "yes"), "skin": ("light", "medium", "dark")}
GLASSES, BARE, LIGHT, MEDIUM, DARK, PALE = range(6)
"""Atoms: BARE is there without glasses; PALE with light and medium skin alike."""
CELLS = {GLASSES: 5, BARE: 6, LIGHT: 9, MEDIUM: 9, DARK: 9, PALE: 10}


def atoms(count: int, channels: int) -> Tensor:
    """Unit vectors, orthogonal where there are no more than channels: [count, channels]."""
    generator = torch.Generator().manual_seed(7)
    if count <= channels:
        return torch.linalg.qr(torch.randn(channels, channels, generator=generator))[0][:count].contiguous()
    return normalize(torch.randn(count, channels, generator=generator), dim=1)


def plant(folder: Path, known: Tensor, n: int = 300) -> tuple[FeatureSet, LabelSet]:
    """Images whose features are sums of ``known`` atoms [A, C]: the first six at their cells where the image's classes have them, the
    others anywhere at random. At the noisiest level everything is at a third, so that only normalisation brings it back."""
    generator = torch.Generator().manual_seed(3)
    glasses, skin = (torch.randint(k, (n,), generator=generator) for k in (2, 3))
    there = {GLASSES: glasses == 1, BARE: glasses == 0, LIGHT: skin == 0, MEDIUM: skin == 1, DARK: skin == 2, PALE: skin < 2}
    z = (torch.rand(n, len(known), 16, generator=generator) + 0.5) * (torch.rand(n, len(known), 16, generator=generator) < 0.1)
    for atom, images in there.items():
        z[:, atom] = 0
        z[:, atom, CELLS[atom]] = images * (1.2 + 0.6 * torch.rand(n, generator=generator))
    h = torch.einsum("nag,ac->ncg", z, known).view(n, -1, 4, 4)
    rows = torch.stack([h / 3, h, h], 1)
    rows += 0.01 * torch.randn(rows.shape, generator=generator)
    writer = FeatureSetWriter(folder, {"base_model": "planted", "site": "output.1", "channels": known.shape[1], "map": [4, 4]})
    for start in range(0, n, 100):
        names = [f"{i}.png" for i in range(start, min(start + 100, n))]
        writer.add(3 * rows[start : start + 100] + 1, LEVELS, names, list(range(len(names))), [""] * len(names))
    tables = {a: torch.eye(len(CLASSES[a]))[y] for a, y in (("glasses", glasses), ("skin", skin))}
    return open_feature_set(folder), LabelSet(CLASSES, tuple(f"{i}.png" for i in range(n)), tables)


def exact_sae(known: Tensor) -> SaeFile:
    """An autoencoder whose latents are the atoms."""
    sae = SparseAutoencoder(known.shape[1], len(known), min(10, len(known)), LEVELS)
    sae.encoder.data, sae.decoder.data = known.clone(), known.clone()
    sae.mean.fill_(1.0)
    sae.scale.copy_(torch.tensor([1.0, 3.0, 3.0]))
    return SaeFile(sae.eval().requires_grad_(False), "output.1", "planted")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureSet, LabelSet, SaeFile, AdpFile]:
    known = atoms(16, 16)
    features, labels = plant(tmp_path_factory.mktemp("planted"), known)
    return features, labels, exact_sae(known), train_adp(features, labels, "linear", 10)


@pytest.fixture(scope="module")
def found(planted: tuple[FeatureSet, LabelSet, SaeFile, AdpFile]) -> BiasFeatures:
    features, labels, sae, adp = planted
    return find_bias_features(features, labels, sae, reader_of(adp, sae), list(CLASSES), AttributionSettings(tau=2, resamples=40))


def test_the_planted_features_are_on_top_of_their_classes(found: BiasFeatures) -> None:
    for attribute, truth in (("glasses", {"yes": GLASSES, "no": BARE}), ("skin", {"light": LIGHT, "medium": MEDIUM, "dark": DARK})):
        a = found.attribute(attribute)
        for name, atom in truth.items():
            best = a.best(name)
            assert int(a.features[best[0]]) == atom, (name, a.features[best])
            assert a.stability[a.class_index(name), best[0]] == 1
            others = a.scores[a.class_index(name)].clone()
            others[best[0]] = 0
            assert a.scores[a.class_index(name), best[0]] > 2 * others.max()


def test_two_classes_are_each_others_opposite_and_levels_add_up(found: BiasFeatures) -> None:
    a = found.attribute("glasses")
    assert torch.allclose(a.scores[0], -a.scores[1], atol=1e-5)
    assert torch.allclose(a.scores_by_level.mean(0), a.scores, atol=1e-5)  # every level has as many rows
    assert found.attribute("glasses").knots.tolist() == LEVELS.tolist()


def test_a_feature_that_classes_share_is_left_out(planted: tuple[FeatureSet, LabelSet, SaeFile, AdpFile], found: BiasFeatures) -> None:
    assert found.info["attributes"]["skin"]["shared"] == [PALE]
    assert PALE not in found.attribute("skin").features
    features, labels, sae, adp = planted
    kept = find_bias_features(features, labels, sae, reader_of(adp, sae), ["skin"], AttributionSettings(tau=2, shared=1.0, resamples=0))
    assert PALE in kept.attribute("skin").features
    assert kept.attribute("skin").stability.isnan().all()


def test_profiles_show_where_a_feature_differs(found: BiasFeatures) -> None:
    a = found.attribute("glasses")
    profile = a.profile()
    place = a.features.tolist().index(GLASSES)
    delta = profile.delta[:, 1, 0, place].flatten(1)
    step = float(LEVELS[1] - LEVELS[0])
    assert profile.knots.tolist() == [float(LEVELS[0]) - step, *LEVELS.tolist(), float(LEVELS[-1]) + step] and (profile.sizes == 1).all()
    assert profile.delta.shape[:3] == (5, 2, 1) and not delta[[0, -1]].any()
    delta = delta[1:-1]
    assert (delta.argmax(1) == CELLS[GLASSES]).all() and torch.allclose(delta[:, CELLS[GLASSES]], torch.full((3,), 1.5), atol=0.1)
    assert delta[:, [c for c in range(16) if c != CELLS[GLASSES]]].abs().max() < 0.05
    assert torch.allclose(profile.delta[:, 0], -profile.delta[:, 1], atol=1e-5)


def test_beyond_the_recorded_levels_a_profile_falls_to_nothing(found: BiasFeatures) -> None:
    profile = found.attribute("glasses").profile()
    step, (low, high) = float(LEVELS[1] - LEVELS[0]), profile.window
    assert (low, high) == (float(LEVELS[0]) - step, float(LEVELS[-1]) + step)

    def largest(level: float) -> float:
        return float(profile_delta(profile, torch.tensor([1]), None, level, (4, 4)).abs().max())

    for end, outwards in ((float(LEVELS[0]), -step), (float(LEVELS[-1]), step)):
        assert largest(end + outwards / 2) == pytest.approx(largest(end) / 2, rel=1e-4) and largest(end + outwards) == 0


def test_scores_are_given_for_the_recorded_levels_alone() -> None:
    knots, count = torch.arange(-3.0, 4.0), torch.tensor([0.0, 4, 0, 4, 0, 0, 0])
    means = ClassMeans(count[:, None].expand(-1, 2), torch.zeros(7, 2, 1, 16), torch.zeros(7, 2, 1, 16))
    scores, levels = every_level(torch.arange(7.0)[:, None, None], means, knots)
    assert levels.tolist() == [-2, -1, 0] and scores.flatten().tolist() == [1, 2, 3], "the middle one from its neighbours"


def test_side_effects_tell_features_of_one_attribute_from_those_of_another(found: BiasFeatures) -> None:
    a = found.attribute("glasses")
    assert a.side_effect[a.features.tolist().index(GLASSES)] < 0.1


def test_features_that_carry_more_of_other_attributes_can_be_left_out(planted: tuple[FeatureSet, LabelSet, SaeFile, AdpFile]) -> None:
    features, labels, sae, adp = planted
    whole, few = (
        find_bias_features(
            features, labels, sae, reader_of(adp, sae), ["glasses"], AttributionSettings(tau=16, resamples=0, max_side_effect=most)
        )
        for most in (float("inf"), 1.0)
    )
    effects = whole.attribute("glasses").side_effect
    assert (effects > 1).any() and (few.attribute("glasses").side_effect <= 1).all()
    assert set(few.attribute("glasses").features.tolist()) == set(whole.attribute("glasses").features[effects <= 1].tolist())
    assert few.info["beside"] == 1.0 and whole.info["beside"] is None


def test_ablating_them_lowers_the_readout_more_than_random_ones(found: BiasFeatures) -> None:
    for attribute in CLASSES:
        for name, result in found.info["attributes"][attribute]["ablation"].items():
            assert result["difference"][1] > 0.1 and result["top"][0] > 0.1, (attribute, name, result)
            assert result["top"][1] <= result["top"][0] <= result["top"][2] and 0.7 < result["activation"] < 3
            assert result["images"] + sum(found.info["attributes"][attribute]["images"].values()) > 0


def test_sums_over_a_set_are_those_of_its_images(planted: tuple[FeatureSet, LabelSet, SaeFile, AdpFile]) -> None:
    """The streamed contrast at one level against attributions written out image by image."""
    features, labels, sae, adp = planted
    reader = reader_of(adp, sae)
    settings = AttributionSettings(tau=16, shared=1.0, baseline="zero", resamples=0, held_out=False)
    a = find_bias_features(features, labels, sae, reader, ["skin"], settings).attribute("skin")
    from equipoise.methods.data.feature_set import iterate_shards

    rows = [(h[level == 0.0].float(), ids[level == 0.0]) for h, level, ids in iterate_shards(features.folder, features.entries)]
    h, classes = torch.cat([r[0] for r in rows]), labels.probabilities["skin"].argmax(1)[torch.cat([r[1] for r in rows])]
    level = torch.zeros(len(h))
    each = integrated_gradients(sae.sae, reader, "skin", pooled_codes(sae.sae, h, level), level)[:, 2, a.features].flatten(2)
    z = pooled_codes(sae.sae, h, level)[:, a.features].flatten(2)
    of = [classes == c for c in range(3)]
    contrast = each[of[2]].mean(0) - (each[of[0]].mean(0) + each[of[1]].mean(0)) / 2
    gap = z[of[2]].mean(0) - (z[of[0]].mean(0) + z[of[1]].mean(0)) / 2
    error = z[of[2]].var(0, unbiased=False) / of[2].sum() + sum(z[m].var(0, unbiased=False) / m.sum() for m in of[:2]) / 4
    # Where the reader agrees: the class's weights against the others', through the decoder, at the classes' mean.
    centre = torch.stack([pooled_codes(sae.sae, h[m], level[m]).mean(0) for m in of]).mean(0)
    weights, b = affine_logits(sae.sae, reader, "skin", 0.0)
    p = (weights.flatten(1) @ centre.flatten() + b).softmax(0)
    raises = (weights[2] - torch.einsum("k,kfg->fg", p, weights))[a.features]
    counts = (gap.abs() > 2 * error.sqrt()) & (gap.sign() == raises.sign())
    expected = (contrast * gap.sign() * counts).sum(1)
    assert torch.allclose(a.scores_by_level[1, 2], expected, atol=1e-4) and expected.abs().max() > 0.02


def test_a_reader_that_is_not_linear_finds_them_too(planted: tuple[FeatureSet, LabelSet, SaeFile, AdpFile]) -> None:
    features, labels, sae, _ = planted
    reader = reader_of(train_adp(features, labels.only(["glasses"]), "mlp", 6), sae)
    a = find_bias_features(features, labels, sae, reader, ["glasses"], AttributionSettings(tau=2, resamples=5, points=6)).attribute(
        "glasses"
    )
    assert [int(a.features[a.best(c)[0]]) for c in ("no", "yes")] == [BARE, GLASSES]
    assert a.side_effect.isnan().all()  # nothing else is read


def test_an_autoencoder_that_was_trained_on_the_set_has_the_planted_directions_on_top(tmp_path: Path) -> None:
    known = atoms(40, 24)
    features, labels = plant(tmp_path, known, 400)
    sae = train_sae(features, SaeSettings(latents=64, k=4, steps=900, batch=512))
    adp = train_adp(features, labels, "linear", 10)
    file = find_bias_features(features, labels, sae, reader_of(adp, sae), ["glasses"], AttributionSettings(tau=8, resamples=20))
    a = file.attribute("glasses")
    for name, atom in (("yes", GLASSES), ("no", BARE)):
        best = sae.sae.decoder[a.features[a.best(name, 1)]]
        assert float(normalize(best, dim=1)[0] @ known[atom]) > 0.9, name
    assert file.sae_digest == sae.digest and file.site == "output.1"


def test_what_does_not_fit_is_refused(planted: tuple[FeatureSet, LabelSet, SaeFile, AdpFile]) -> None:
    features, labels, sae, adp = planted
    reader = reader_of(adp, sae)
    with pytest.raises(ValueError, match="does not read 'age'; it reads: glasses, skin"):
        find_bias_features(features, labels, sae, reader, ["age"])
    with pytest.raises(ValueError, match="recorded at 'output.1' and the autoencoder belongs to 'middle'"):
        find_bias_features(features, labels, SaeFile(sae.sae, "middle", "planted"), reader, ["skin"])
    with pytest.raises(ValueError, match="recorded on 'planted' and the autoencoder was trained on 'sd15'"):
        find_bias_features(features, labels, SaeFile(sae.sae, "output.1", "sd15"), reader, ["skin"])
    with pytest.raises(ValueError, match="16 channels and the autoencoder takes 9"):
        find_bias_features(features, labels, SaeFile(SparseAutoencoder(9, 20, 3, LEVELS), "output.1", "planted"), reader, ["skin"])
    with pytest.raises(ValueError, match="reads features at 'output.1' and the autoencoder's are at 'middle'"):
        reader_of(adp, SaeFile(sae.sae, "middle", "planted"))
    with pytest.raises(ValueError, match="holds no predictor"):
        reader_of(AdpFile(None, {}, "planted"), sae)
    other = AttributePredictor({"skin": ("pale", "medium", "dark")}, 16, LEVELS, "linear")
    with pytest.raises(ValueError, match="classes pale, medium, dark of the predictor; it knows .*skin: light, medium, dark"):
        find_bias_features(features, labels, sae, other, ["skin"])
    with pytest.raises(ValueError, match="no feature speaks for any class"):
        find_bias_features(features, labels, sae, AttributePredictor(CLASSES, 16, LEVELS, "linear"), ["skin"])
    for wrong in ({"tau": 0}, {"max_side_effect": 0.0}, {"baseline": "black"}, {"window": (1.0, 0.0)}):
        with pytest.raises(ValueError, match="are 1 or more|a baseline is|a window goes"):
            AttributionSettings(**wrong)


def test_it_can_be_interrupted(planted: tuple[FeatureSet, LabelSet, SaeFile, AdpFile]) -> None:
    features, labels, sae, adp = planted
    seen: list[int] = []

    def progress(done: int, total: int, figures: dict[str, float]) -> None:
        seen.append(done)
        assert total == 2 * 255 * 3 + 45 * 3
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_bias_features(features, labels, sae, reader_of(adp, sae), ["skin"], progress=progress)
    assert seen == sorted(seen) and len(seen) > 3


def test_large_sets_are_thinned_with_every_class_kept() -> None:
    rare = torch.eye(2)[(torch.arange(500) >= 495).long()]
    common = torch.eye(3)[torch.arange(500) % 3]
    chosen = some_images({"rare": rare, "common": common}, 500, 40, 0)
    assert len(chosen) == len(set(chosen)) == 40 and chosen == sorted(chosen)
    assert {495, 496, 497, 498, 499} <= set(chosen)
    assert some_images({"rare": rare}, 500, 500, 0) == list(range(500))


def test_ranking_and_its_parts() -> None:
    scores = torch.tensor([[5.0, 4.0, 3.0, 0.5, -1.0], [-5.0, 3.9, 1.0, 2.0, 0.0], [-5.0, -9.0, -3.0, -3.0, 1.0]])
    r = rank(scores, 2, 0.5)
    assert [x.tolist() for x in r.lists] == [[0, 2], [3], [4]] and r.shared.tolist() == [1] and r.features.tolist() == [0, 2, 3, 4]
    r = rank(scores, 2, 1.0)
    assert [x.tolist() for x in r.lists] == [[0, 1], [3], [4]] and not len(r.shared)
    resampled = torch.stack([scores, scores.roll(1, 1)])
    assert rank_stability(resampled, torch.tensor([0, 1]), 2)[0].tolist() == [0.5, 1.0]
    effects = side_effects({"a": scores, "b": scores / 2, "c": scores / 4}, "a", torch.tensor([0, 3]))
    assert torch.allclose(effects, torch.tensor([0.75, 0.75]))
    p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.45, 0.55], [0.05, 0.95]])
    assert sure_classes(p, 0.8).tolist() == [0, -1, -1, 1] and sure_classes(p[:3], 0.8).tolist() == [0, -1, 1]
    counts = resamples(torch.tensor([0, 1, 1, -1, 0]), 2, 30, 0)
    assert (counts[:, [0, 4]].sum(1) == 2).all() and (counts[:, [1, 2]].sum(1) == 2).all() and (counts[:, 3] == 0).all()
