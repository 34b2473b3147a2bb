"""Calibration of profiles on a bench whose outcome is a known function of the size: what is found, and not run twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from equipoise.methods.bias_features.calibrate_profile import ProfileBench
from equipoise.methods.bias_features.run import SteerSettings
from equipoise.methods.core.trials import TrialLog, TrialReadings, Trials
from equipoise.models.bias_features import CLASS_DIFFERENCE, LEARNED, AttributeFeatures, BiasFeatures, Profile

KNOTS = torch.tensor([-7.0, -2.0, 3.0])
CLASSES, OTHERS, N = ("short", "long"), ("no", "yes"), 100


def profile(source: str, seed: int = 0) -> Profile:
    delta = torch.randn(3, 2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(seed))
    return Profile(KNOTS, delta, torch.ones(3, 2), source=source)


def features(classes: tuple[str, ...], *profiles: Profile) -> AttributeFeatures:
    zeros = torch.zeros(2, 4)
    by_level = torch.zeros(3, 2, 4)
    return AttributeFeatures(
        classes, torch.arange(4), zeros, by_level, zeros, torch.zeros(4), zeros, KNOTS, {p.source: p for p in profiles}
    )


def file(*profiles: Profile) -> BiasFeatures:
    return BiasFeatures({"hair": features(CLASSES, *profiles), "hat": features(OTHERS)}, "middle", "toy", "0" * 16, 8, 16)


class World:
    """Images that are all sent to class k become it from a size of ``need[k]`` on, the fewer the smaller the size; hats come with long hair
    by ``hats``."""

    def __init__(self, need: tuple[float, float], hats: Callable[[float], float] = lambda size: 0.0, cut_after: int = 10**6) -> None:
        self.need, self.hats, self.left, self.calls = need, hats, cut_after, 0

    def __call__(self, bias: BiasFeatures | None, settings: SteerSettings | None) -> TrialReadings:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.calls += 1
        if bias is None or settings is None:
            return self._seen(torch.arange(N) % 2, 0)
        used = bias.attribute("hair").profile()
        shares = settings.target.shares
        sent = torch.arange(N) % 2 if shares[0] == shares[1] else torch.full((N,), int(shares[1] > 0.5))
        size = [float(used.sizes[1, k]) * settings.strength for k in range(2)]
        reach = torch.tensor([min(1.0, max(0.0, size[k] / self.need[k])) for k in range(2)])
        arrived = torch.rand(N, generator=torch.Generator().manual_seed(1)) < 0.02 + 0.98 * reach[sent]
        return self._seen(torch.where(arrived, sent, 1 - sent), round(N * self.hats(max(size))), sent)

    @staticmethod
    def _seen(hair: torch.Tensor, hats: int, sent: torch.Tensor | None = None) -> TrialReadings:
        return TrialReadings({"hair": torch.eye(2)[hair], "hat": torch.eye(2)[(torch.arange(N) < hats).long()]}, sent)


def bench(world: World, *profiles: Profile, log: Path | None = None) -> ProfileBench:
    return ProfileBench(file(*profiles), "hair", Trials(world, N, TrialLog(log, {"judge": "the test"})))


@pytest.mark.parametrize("need", [(0.4, 0.9), (1.5, 3.0), (1.0, 0.6)])
def test_bisection_finds_the_strength_that_was_planted(need: tuple[float, float]) -> None:
    learned = profile(LEARNED)
    tried = bench(World(need), learned)
    for k in range(2):
        # 97% are enough, and are there at 0.97 of what all need.
        assert 0.95 / 2**0.25 <= tried.strength_of(learned, k) / need[k] <= 2**0.25


def test_where_nothing_is_enough_the_strength_that_brings_most_is_kept() -> None:
    learned = profile(LEARNED)
    assert bench(World((8.0, 1.0)), learned).strength_of(learned, 0) == 4.0


def test_sizes_are_those_of_each_class_and_the_better_profile_is_used() -> None:
    learned, difference = profile(LEARNED), profile(CLASS_DIFFERENCE, 1)
    world = World((0.6, 2.5))
    done = bench(world, difference, learned).calibrate({"judge": "the test"})
    found = done.file.attribute("hair")
    assert set(found.profiles) == {LEARNED, CLASS_DIFFERENCE} and found.default in found.profiles
    record = done.file.info["calibration"]["hair"]
    assert record["images"] == N and record["judge"] == "the test" and record["enough"] == 0.97
    assert min(record["share"][LEARNED]) >= 0.97
    sizes = found.profiles[LEARNED].sizes
    assert 0.45 <= float(sizes[1, 0]) <= 0.75 and 2.0 <= float(sizes[1, 1]) <= 3.1 and torch.equal(sizes[0], sizes[2])
    assert torch.equal(found.profiles[LEARNED].delta, learned.delta), "sizes alone are changed"
    assert done.lines[0].startswith(f"hair: with '{found.default}' at strength 1, of 100 images sent to each class these show it: short ")
    assert {t["class"] for t in done.trials} == set(CLASSES) and all(t["source"] == found.default for t in done.trials)
    assert all({"size", "share"} <= t.keys() for t in done.trials)


def test_quality_ends_where_other_attributes_drift() -> None:
    """Beyond strength 1.25 of what was enough hats come along."""
    learned = profile(LEARNED)
    world = World((1.0, 1.0), hats=lambda size: 0.5 if size > 1.4 else 0.0)
    done = bench(world, learned).calibrate()
    assert done.record["quality"]["limit"] == 1.25 and "the drift of other attributes rises" in done.record["quality"]["text"]
    calm = bench(World((1.0, 1.0)), learned).calibrate()
    assert calm.record["quality"] == {"limit": 2.0, "text": "quality holds up to strength 2; no higher strength was tried"}


def test_trials_are_not_repeated_after_a_cut(tmp_path: Path) -> None:
    learned, path = profile(LEARNED), tmp_path / "log.json"
    whole = World((0.6, 2.5))
    wanted = bench(whole, learned).calibrate()
    cut = World((0.6, 2.5), cut_after=5)
    with pytest.raises(KeyboardInterrupt):
        bench(cut, learned, log=path).calibrate()
    rest = World((0.6, 2.5))
    again = bench(rest, learned, log=path).calibrate()
    assert cut.calls + rest.calls == whole.calls and again.lines == wanted.lines and again.trials == wanted.trials
    assert torch.equal(again.file.attribute("hair").profile().sizes, wanted.file.attribute("hair").profile().sizes)
    none = World((0.6, 2.5))
    bench(none, learned, log=path).calibrate()
    assert none.calls == 0


def test_plain_images_that_were_not_judged_for_an_attribute_are_made_again(tmp_path: Path) -> None:
    """One name may serve calibrations of several attributes, one after the other."""
    log = TrialLog(tmp_path / "log.json", {})
    log.keep("plain", {"read": {"hat": [0] * N}, "unsure": {"hat": 0.0}})
    world = World((0.6, 2.5))
    tried = ProfileBench(file(profile(LEARNED)), "hair", Trials(world, N, log))
    assert set(tried.plain()["read"]) == {"hair", "hat"} and world.calls == 1
    tried.plain()
    assert world.calls == 1


def test_a_gain_is_of_one_class() -> None:
    made = profile(LEARNED).with_gain(1, 2.5)
    assert torch.equal(made.sizes, torch.tensor([[1.0, 2.5]] * 3))


class Doubter(World):
    """Without doubt some images never arrive; with it all do, at the size that is needed."""

    def __call__(self, bias: BiasFeatures | None, settings: SteerSettings | None) -> TrialReadings:
        seen = super().__call__(bias, settings)
        if bias is None or bias.attribute("hair").profile().doubt > 1 or seen.cells is None:
            return seen
        stuck = torch.arange(N) < 6
        hair = torch.where(stuck, 1 - seen.cells, seen.read["hair"].argmax(-1))
        return TrialReadings({**seen.read, "hair": torch.eye(2)[hair]}, seen.cells)


@pytest.mark.parametrize("world", [World((1.0, 1.0)), Doubter((1.0, 1.0))])
def test_the_reading_is_doubted_where_that_brings_more_images(world: World) -> None:
    from_to = replace(profile(LEARNED), delta=torch.randn(3, 2, 2, 4, 4, 4))
    made = bench(world, from_to).calibrate()
    doubt = 2.0 if isinstance(world, Doubter) else 1.0
    assert made.file.attribute("hair").profile().doubt == made.record["doubt"][LEARNED] == doubt
    assert bench(Doubter((1.0, 1.0)), profile(LEARNED)).calibrate().record["doubt"][LEARNED] == 1.0, "no reading, no doubt"
