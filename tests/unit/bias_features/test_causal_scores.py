"""Causal scores on worlds whose answer is known: what is turned and where, what is counted, and what is not run twice."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from equipoise.charts.bias_features.ranking import bias_features_chart, ranking_facts
from equipoise.methods.bias_features.causal_scores import CausalBench
from equipoise.methods.bias_features.extend_features import with_features
from equipoise.methods.bias_features.run import SteeringRun, SteerSettings, everyone
from equipoise.methods.bias_features.turn_alone import NOTHING, Turn, turned_file, turns_of
from equipoise.methods.bias_features.typical_activations import ActivationRun, ActivationSums
from equipoise.methods.core.run import Call
from equipoise.methods.core.trials import TrialLog, TrialReadings, Trials
from equipoise.models.bias_features import (
    CLASS_DIFFERENCE,
    LEARNED,
    AttributeFeatures,
    BiasFeatures,
    Profile,
    load_bias_features,
    save_bias_features,
)
from equipoise.models.sae import SaeFile, SparseAutoencoder
from torch import Tensor

SITE, C, M, N = "output.1", 6, 24, 50
KNOTS = torch.tensor([-6.0, -3.0, 0.0, 3.0])
GLASSES, HAIR = ("yes", "no"), ("short", "medium", "long")
CAUSE, OPPOSITE, IDLE, REST = 3, 7, 11, 19
"""Latents of "glasses" in the order of their scores: one that brings glasses, one that is read for them and takes them away, two that do
nothing; REST speaks for "no"."""


def profile(places: list[int], classes: int, source: str = CLASS_DIFFERENCE) -> Profile:
    """Feature f is more active in its class (f modulo classes) at its place and half as much at the next, but for the noisiest knot."""
    delta = torch.zeros(len(KNOTS), classes, 1, len(places), 16)
    for f, place in enumerate(places):
        delta[1:, :, 0, f, place] = 2.0
        delta[1:, :, 0, f, place + 1] = 1.2
        delta[1:, :, 0, f, place + 2] = 0.2
    return Profile(KNOTS, delta.unflatten(-1, (4, 4)), torch.ones(len(KNOTS), classes), source=source)


def attribute(classes: tuple[str, ...], latents: list[int], scores: list[list[float]], places: list[int]) -> AttributeFeatures:
    k, f = len(classes), len(latents)
    table = torch.tensor(scores)
    return AttributeFeatures(
        classes, torch.tensor(latents), table, table[None], torch.ones(k, f), torch.zeros(f), torch.full((k, f), math.nan),
        torch.zeros(1), {CLASS_DIFFERENCE: profile(places, k)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def sae() -> SaeFile:
    net = SparseAutoencoder(C, M, 8, torch.tensor([-6.0, 6.0]))
    net.mean.copy_(torch.randn(2, C, generator=torch.Generator().manual_seed(2)))
    return SaeFile(net.eval().requires_grad_(False), SITE, "tiny")


@pytest.fixture
def file(sae: SaeFile) -> BiasFeatures:
    glasses = attribute(GLASSES, [CAUSE, OPPOSITE, IDLE, REST], [[0.5, 0.4, 0.3, -0.2], [-0.5, -0.4, -0.3, 0.2]], [5, 0, 9, 10])
    hair = attribute(HAIR, [CAUSE, 1, 2], [[0.3, 0.0, 0.0], [0.0, 0.2, 0.0], [-0.1, 0.0, 0.1]], [5, 4, 8])
    return BiasFeatures({"glasses": glasses, "hair": hair}, SITE, "tiny", sae.digest, C, M)


class World:
    """N images, ten with glasses. CAUSE gives glasses to an image for every unit of activation that is added, and some hair to every
    second of them; taken away, it takes one's glasses. OPPOSITE takes two away when turned up."""

    def __init__(self, cut_after: int = 10**6) -> None:
        self.left, self.turned, self.listened = cut_after, [], 0

    def _count(self) -> None:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1

    @staticmethod
    def _seen(glasses: int, hairy: int = 0) -> TrialReadings:
        yes = torch.arange(N) < glasses
        hair = (torch.arange(N) < hairy).long() * 2
        return TrialReadings({"glasses": torch.eye(2)[(~yes).long()], "hair": torch.eye(3)[hair]})

    def listen(self, turns: list[Turn]) -> tuple[TrialReadings, list[float | None]]:
        self._count()
        self.listened += 1
        return self._seen(10), [None if t.latent == REST else 0.5 for t in turns]

    def sample(self, file: BiasFeatures, settings: SteerSettings) -> TrialReadings:
        self._count()
        (found,) = file.attributes.values()
        (latent,) = found.features.tolist()
        added = float(found.profile().delta.flatten()[found.profile().delta.flatten().abs().argmax()])
        self.turned.append((latent, round(added, 3)))
        change = {CAUSE: -1 if added < 0 else round(added), OPPOSITE: 0 if added < 0 else -2}.get(latent, 0)
        return self._seen(10 + change, change // 2 if latent == CAUSE and added > 0 else 0)


def bench(
    file: BiasFeatures, world: World, log: Path | None = None, attributes: tuple[str, ...] = ("glasses",), per_class: int = 2
) -> CausalBench:
    return CausalBench(file, attributes, Trials(world.sample, N, TrialLog(log, {"judge": "the test"})), per_class, 12.0)


# -- what is turned ------------------------------------------------------------------------------------------------------------------


def test_the_shortlist_is_the_best_of_every_class_and_each_is_turned_at_its_places(file: BiasFeatures) -> None:
    turns = turns_of("glasses", file.attribute("glasses"), 2)
    assert [t.latent for t in turns] == [CAUSE, REST, OPPOSITE] and [t.own for t in turns] == [0, 1, 0]
    assert turns[0].positions.flatten().nonzero().flatten().tolist() == [5, 6], "where the profile is at least half its largest"
    assert turns[0].levels.tolist() == [False, True, True, True] and turns[0].surplus == 2.0
    assert len({t.key for t in turns}) == 3
    assert turns[0].key == turns_of("hair", file.attribute("hair"), 1)[0].key, "the same turn, for whichever attribute"


def test_a_feature_that_is_nowhere_more_active_has_no_place(file: BiasFeatures) -> None:
    a = file.attribute("glasses")
    p = a.profiles[CLASS_DIFFERENCE]
    less = p.delta.clone()
    less[:, :, :, 0] *= -1
    changed = replace(a, profiles={CLASS_DIFFERENCE: replace(p, delta=less)})
    assert [t.latent for t in turns_of("glasses", changed, 2)] == [REST, OPPOSITE]
    with pytest.raises(ValueError, match="no feature of 'glasses' speaks for a class"):
        turns_of("glasses", replace(a, scores=-a.scores.abs()), 2)
    with pytest.raises(ValueError, match="have no 'class-difference' profile"):
        turns_of("glasses", replace(a, profiles={LEARNED: replace(p, source=LEARNED)}), 2)


def test_one_feature_alone_is_turned_at_its_places_alone(sae: SaeFile, file: BiasFeatures) -> None:
    """Up adds, down takes all away; other features, other places and noise levels beyond the profile stay as they are."""
    turn = turns_of("glasses", file.attribute("glasses"), 1)[0]
    h = 2 * torch.randn(5, C, 8, 8, generator=torch.Generator().manual_seed(4))
    level = torch.zeros(5)
    z = sae.sae.encode(h, level)
    here = turn.positions.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert z[:, CAUSE][:, here].gt(0).any() and z[:, CAUSE][:, ~here].gt(0).any()

    def out(added: float, sigma: float = 1.0) -> Tensor:
        settings = SteerSettings(everyone({"glasses": GLASSES}, "glasses", "yes"))
        run = SteeringRun(sae, turned_file(file, turn, added), settings)
        return run.edit(SITE, h, Call.read({"sigmas": torch.full((5,), sigma), "cond_or_uncond": [0]}))

    for added, wanted in ((3.5, z[:, CAUSE] + 3.5), (NOTHING, torch.zeros(5, 8, 8))):
        dz = torch.zeros_like(z)
        dz[:, CAUSE] = torch.where(here, wanted - z[:, CAUSE], 0.0)
        assert torch.allclose(out(added) - h, sae.sae.delta(dz, level), atol=1e-5)
    assert out(3.5, sigma=100.0) is h and not torch.equal(out(3.5, sigma=2.0), h)


# -- what is typical -----------------------------------------------------------------------------------------------------------------


def test_what_is_typical_is_measured_where_a_feature_is_turned_and_nothing_changes(sae: SaeFile, file: BiasFeatures) -> None:
    turns = turns_of("glasses", file.attribute("glasses"), 4)
    sums = ActivationSums.of(turns)
    expected = torch.zeros(2, len(turns))
    for seed, sigma, marks in ((0, 1.0, [1, 0]), (1, 2.0, [0]), (2, 100.0, [0]), (3, 1.0, [1])):
        h = 2 * torch.randn(3 * len(marks), C, 8, 8, generator=torch.Generator().manual_seed(seed))
        run = ActivationRun(sae, turns, sums)
        assert run.edit(SITE, h, Call.read({"sigmas": torch.full((3,), sigma), "cond_or_uncond": marks})) is h
        run.release()
        if sigma < 100 and 0 in marks:  # within the profile's noise levels, and the positive's rows
            part = h[3 * marks.index(0) :][:3]
            z = sae.sae.encode(part, torch.full((3,), -2 * math.log(sigma)))
            for j, t in enumerate(turns):
                v = z[:, t.latent][:, t.positions.repeat_interleave(2, 0).repeat_interleave(2, 1)]
                expected[:, j] += torch.stack([v.sum(), (v > 0).sum()])
    assert torch.allclose(sums.total, expected[0], rtol=1e-4) and torch.equal(sums.count, expected[1])
    assert sums.typical() == pytest.approx((expected[0] / expected[1]).tolist(), rel=1e-4)
    assert ActivationSums.of(turns).typical() == [None] * len(turns)


# -- what is counted -----------------------------------------------------------------------------------------------------------------


def test_scores_are_those_that_were_planted(file: BiasFeatures) -> None:
    world = World()
    made = bench(file, world).measure(world.listen, {"judge": "the test"})
    causal = made.file.attribute("glasses").causal
    assert causal[0].tolist()[:2] == pytest.approx([7 / N, -2 / N]) and causal[1].tolist()[:2] == pytest.approx([-7 / N, 2 / N])
    assert causal[:, 2].isnan().all() and (causal[:, 3] == 0).all()
    assert file.attribute("glasses").causal.isnan().all() and made.file.attribute("hair") is file.attribute("hair")
    # Twelve times what is typical; the largest surplus for the one that was never seen active.
    assert world.turned == [(CAUSE, 6.0), (CAUSE, NOTHING), (REST, 24.0), (REST, NOTHING), (OPPOSITE, 6.0), (OPPOSITE, NOTHING)]
    record = made.file.info["causal"]["glasses"]
    assert record["features"] == [CAUSE, REST, OPPOSITE] and record["plain"] == [0.2, 0.8] and record["judge"] == "the test"
    assert record["images"] == N and record["amount"] == 12 and record["beside"][0] == {"hair": round(3 / N, 4)}
    share = 7 / N
    assert record["error"][0][0] == pytest.approx(math.sqrt(share * (1 - share) / N), abs=1e-4)
    assert "hair" not in made.file.info["causal"]


def test_the_report_says_what_features_do(file: BiasFeatures) -> None:
    world = World()
    lines = bench(file, world).measure(world.listen).lines
    assert lines[0] == (
        "glasses: 3 features turned alone, up by 12 times their typical activation, and down to 0; 50 images per trial (plain images: "
        "yes 20%, no 80%)"
    )
    assert lines[1] == f"  'yes', change of its share in points: #{CAUSE} +14 +- 10, #{OPPOSITE} -4 +- 5"
    assert lines[2] == f"  'no', change of its share in points: #{REST} +0 +- 0"
    assert lines[3] == "  of 3 features, 1 bring the class that they speak for, 1 take it away, 1 do neither" and len(lines) == 4
    both = bench(file, world, attributes=("glasses", "hair"), per_class=1).measure(world.listen).lines
    assert both[-1] == f"  1 change another attribute more than this one: #{CAUSE} glasses 14", "hair gains fewer points than glasses do"


def test_trials_are_not_repeated_after_a_cut(file: BiasFeatures, tmp_path: Path) -> None:
    whole, path = World(), tmp_path / "log.json"
    assert bench(file, whole).pending == 7
    wanted = bench(file, whole).measure(whole.listen)
    cut = World(cut_after=4)
    with pytest.raises(KeyboardInterrupt):
        bench(file, cut, path).measure(cut.listen)
    assert bench(file, cut, path).pending == 3
    rest = World()
    again = bench(file, rest, path).measure(rest.listen)
    assert rest.listened == 0 and cut.turned + rest.turned == whole.turned and bench(file, rest, path).pending == 0
    assert again.lines == wanted.lines and torch.equal(
        again.file.attribute("glasses").causal.nan_to_num(9), wanted.file.attribute("glasses").causal.nan_to_num(9)
    )
    none = World(cut_after=0)
    assert bench(file, none, path).measure(none.listen).lines == wanted.lines
    more = World()
    longer = bench(file, more, path, per_class=3).measure(more.listen)
    assert more.turned == [(IDLE, 6.0), (IDLE, NOTHING)] and longer.file.attribute("glasses").causal.isfinite().all()


def test_a_feature_of_two_attributes_is_turned_once(file: BiasFeatures) -> None:
    world = World()
    made = bench(file, world, attributes=("glasses", "hair"), per_class=1).measure(world.listen).file
    assert world.listened == 1 and [latent for latent, _ in world.turned].count(CAUSE) == 2
    hair = made.attribute("hair").causal[:, 0]
    assert hair.tolist() == pytest.approx([-3 / N, 0, 3 / N]) and set(made.info["causal"]) == {"glasses", "hair"}


# -- what is kept and shown ----------------------------------------------------------------------------------------------------------


def test_causal_scores_are_kept_in_the_file_and_beside_added_features(file: BiasFeatures, tmp_path: Path) -> None:
    world = World()
    made = bench(file, world).measure(world.listen).file
    causal = made.attribute("glasses").causal
    save_bias_features(made, tmp_path / "made.safetensors")
    loaded = load_bias_features(tmp_path / "made.safetensors")
    assert torch.equal(loaded.attribute("glasses").causal.nan_to_num(9), causal.nan_to_num(9)) and causal.isnan().any()
    assert loaded.info["causal"] == made.info["causal"]
    wider = with_features(made.attribute("glasses"), torch.tensor([0, 20]))
    assert torch.equal(wider.causal[:, :4].nan_to_num(9), causal.nan_to_num(9)) and wider.causal[:, 4:].isnan().all()


def test_the_chart_shows_them_where_they_were_measured(file: BiasFeatures) -> None:
    world = World()
    made = bench(file, world, per_class=1).measure(world.listen).file
    plain = bias_features_chart("glasses", ranking_facts(file.attribute("glasses")))
    shown = bias_features_chart("glasses", ranking_facts(made.attribute("glasses")))
    assert plain.shape == shown.shape and (plain != shown).any()
