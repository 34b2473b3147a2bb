"""Charts of bias features: ranked lists and the atlas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from equipoise.charts.bias_features.feature_atlas import TILE, AtlasRow, feature_atlas
from equipoise.charts.bias_features.ranking import bias_features_chart, ranking_facts
from equipoise.charts.core.heat import heat_over
from equipoise.methods.bias_features.atlas import exciting_images
from equipoise.methods.data.feature_set import FeatureSetWriter, open_feature_set
from equipoise.models.bias_features import CLASS_DIFFERENCE, AttributeFeatures, Profile
from equipoise.models.sae import SaeFile, SparseAutoencoder

KNOTS = torch.tensor([-5.0, 0.0, 5.0])


def found(k: int = 2, f: int = 6, causal: float = float("nan")) -> AttributeFeatures:
    generator = torch.Generator().manual_seed(0)
    by_level = torch.randn(3, k, f, generator=generator)
    delta = torch.randn(3, k, 1, f, 4, 4, generator=generator)
    return AttributeFeatures(
        tuple("abc"[:k]),
        torch.arange(f) * 7,
        by_level.mean(0),
        by_level,
        torch.rand(k, f, generator=generator),
        torch.rand(f, generator=generator),
        torch.full((k, f), causal),
        KNOTS,
        {CLASS_DIFFERENCE: Profile(KNOTS, delta, torch.ones(3, k))},
    )


def test_the_ranked_chart_grows_with_what_it_shows() -> None:
    facts = ranking_facts(found())
    whole = bias_features_chart("hair", facts)
    few = bias_features_chart("hair", facts, per_class=1, window=(-1.0, 4.0))
    assert whole.dtype == np.uint8 and whole.shape[1:] == (960, 3) and whole.shape[0] > few.shape[0] and few.min() < 60
    turned = bias_features_chart("hair", ranking_facts(found(causal=0.25)), per_class=1)
    assert (turned != few).any()
    three = bias_features_chart("skin", ranking_facts(found(3)))
    assert three.shape[0] > whole.shape[0]


def test_features_whose_stability_is_not_known_are_drawn_all_the_same() -> None:
    facts = ranking_facts(found())
    nan = np.full_like(facts.stability, np.nan)
    drawn = bias_features_chart("hair", replace(facts, stability=nan, side_effect=nan[0]))
    assert drawn.shape == bias_features_chart("hair", facts).shape
    with pytest.raises(ValueError, match="speaks for a class of 'hair'; met none"):
        bias_features_chart("hair", replace(facts, scores=-np.abs(facts.scores) - 1))


def test_the_place_of_a_feature_is_that_where_it_carries_something() -> None:
    a = found()
    delta = torch.zeros(3, 2, 1, 6, 4, 4)
    delta[0, :, :, :, 0, 0], delta[2, :, :, :, 3, 3] = 1.0, 1.0
    a.scores_by_level[:] = torch.tensor([0.0, 0.0, 0.2])[:, None, None]
    a.profiles[CLASS_DIFFERENCE] = Profile(KNOTS, delta, torch.ones(3, 2))
    places = ranking_facts(a).cells
    assert places.shape == (2, 6, 4, 4) and (places[:, :, 3, 3] > 0.99).all() and (places[:, :, 0, 0] < 0.01).all()


def row(n: int = 3, name: str = "#7", **more: Any) -> AtlasRow:
    generator = torch.Generator().manual_seed(n)
    images, heat = torch.rand(n, 3, 16, 16, generator=generator), torch.rand(n, 4, 4, generator=generator)
    return AtlasRow(name, images, heat, KNOTS, torch.rand(3, generator=generator), **more)


def test_the_atlas_has_a_row_per_feature() -> None:
    one = feature_atlas([row(scores={"yes": 0.2, "no": -0.1}, notes=("x 0.3",))])
    two = feature_atlas([row(), row(9, "#8")], "atlas", overlay=False)
    assert one.shape[1:] == (960, 3) and two.shape[0] > one.shape[0] + TILE and one.dtype == np.uint8
    tall = feature_atlas([AtlasRow("#1", np.zeros((1, 3, 200, 100), np.uint8), np.ones((1, 2, 2)), KNOTS, KNOTS * 0)])
    assert tall.shape[0] == one.shape[0]
    told = feature_atlas([row(scores={"yes": 0.2, "no": -0.1}, notes=("x 0.3",))], legend=("x: a figure", "and", "more"))
    assert told.shape[0] > one.shape[0] and (told[: one.shape[0] - 60] == one[:-60]).all() and (told[-70:-20, 24:120] < 200).any()


def test_heat_turns_an_image_red_where_it_is() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[1, 1] = 1
    laid = heat_over(np.full((64, 64, 3), 100, np.float32), heat, 1.0)
    hot, cold = laid[22, 22], laid[60, 60]
    assert hot[0] > hot[2] + 50 and abs(cold[0] - cold[2]) < 3


def test_an_atlas_without_rows_or_with_maps_that_do_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one feature"):
        feature_atlas([])
    with pytest.raises(ValueError, match=r"as many maps of heat \[N, h, w\]; met \[3, 3, 16, 16\] and \[2, 4, 4\]"):
        feature_atlas([AtlasRow("#7", torch.rand(3, 3, 16, 16), torch.rand(2, 4, 4), KNOTS, KNOTS)])


def test_the_images_that_excite_a_feature_most(tmp_path: Path) -> None:
    """Channel c is latent c; image i has channel 1 at place (1, 2) with strength i, at the cleaner level only."""
    x = torch.zeros(10, 3, 3, 8, 8)
    x[:, 1:, 1, 1, 2] = torch.arange(10.0)[:, None]
    x[:, :, 0, 7, 7] = 1.0
    x[4, :, 0, 7, 7] = 3.0
    writer = FeatureSetWriter(tmp_path, {"base_model": "tiny", "site": "middle", "channels": 3, "kind": "spatial", "map": [8, 8]})
    pooled = torch.nn.functional.adaptive_avg_pool2d(x.flatten(0, 1), 4).unflatten(0, (10, 3))
    writer.add(pooled, KNOTS, [f"{i}.png" for i in range(10)], [0] * 10, [""] * 10, spatial=(x, KNOTS))
    sae = SparseAutoencoder(3, 3, 2, KNOTS)
    sae.encoder.data, sae.decoder.data = torch.eye(3), torch.eye(3)
    file, features = SaeFile(sae, "middle", "tiny"), open_feature_set(tmp_path)
    one, zero = exciting_images(features, file, [1, 0], 3)
    assert one.feature == 1 and one.images == (9, 8, 7) and zero.images[0] == 4
    assert one.heat.shape == (3, 8, 8) and one.heat[0].argmax() == 1 * 8 + 2 and float(one.heat[0].max()) == pytest.approx(6.0)
    assert one.by_level[0] == 0 and one.by_level[1] > 0 and one.knots.tolist() == KNOTS.tolist()
    with pytest.raises(ValueError, match="numbered from 0 to 2.*met 3"):
        exciting_images(features, file, [0, 3])
    with pytest.raises(ValueError, match="recorded at 'middle' and the autoencoder belongs to 'output.1'"):
        exciting_images(features, SaeFile(sae, "output.1", "tiny"), [0])
