"""The whole chain where the truth is known: directions planted in features, an autoencoder trained on them, features found, h steered.

The attribute is two directions, each at its place; four others, each at its own, have nothing to do with it. What counts is not what a
reader says of a steered h but the planted directions themselves: the projections of h on them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from equipoise.methods.adp.train import train_adp
from equipoise.methods.bias_features.find import AttributionSettings, find_bias_features, reader_of
from equipoise.methods.bias_features.run import SteeringRun, SteerSettings, everyone
from equipoise.methods.core.run import Call
from equipoise.methods.data.feature_set import FeatureSetWriter, open_feature_set
from equipoise.methods.labels.labels import LabelSet
from equipoise.methods.sae.train import train_sae
from equipoise.methods.sae.training import SaeSettings
from equipoise.models.bias_features import BiasFeatures
from equipoise.models.sae import SaeFile
from torch import Tensor

CHANNELS, NAMED, SITE = 24, 6, "output.1"
LEFT, RIGHT = 0, 1
"""The attribute: both are there with glasses, and neither is without."""
CELLS = (5, 6, 1, 9, 10, 13)
LEVELS = torch.tensor([-2.0, 0.0, 2.0])
GAIN = torch.tensor([0.4, 1.0, 2.0])
"""What features are multiplied by at each level: only normalisation brings them to one scale."""
CLASSES = {"glasses": ("no", "yes"), "hat": ("no", "yes")}
HAT = 2


def directions() -> Tensor:
    """Orthonormal, [24, 24]: the first six have their places, the others are everywhere at random."""
    return torch.linalg.qr(torch.randn(CHANNELS, CHANNELS, generator=torch.Generator().manual_seed(11)))[0].T.contiguous()


def images(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """h [n, 3 levels, 24, 4, 4], and which of the six directions are there, bool [n, 6]."""
    generator = torch.Generator().manual_seed(seed)
    there = torch.rand(n, NAMED, generator=generator) < 0.5
    there[:, RIGHT] = there[:, LEFT]
    z = (torch.rand(n, CHANNELS, 16, generator=generator) + 0.5) * (torch.rand(n, CHANNELS, 16, generator=generator) < 0.08)
    z[:, :NAMED] = 0
    for d, cell in enumerate(CELLS):
        z[:, d, cell] = there[:, d] * (1.2 + 0.6 * torch.rand(n, generator=generator))
    h = torch.einsum("ndg,dc->ncg", z, directions()).view(n, 1, CHANNELS, 4, 4) * GAIN[:, None, None, None]
    return h + 0.01 * torch.randn(h.shape, generator=generator) + 0.5, there


def projections(h: Tensor, level: int) -> Tensor:
    """The planted truth of h [n, 24, 4, 4] at one of the levels: every named direction at its place, [n, 6]."""
    x = ((h - 0.5) / GAIN[level]).flatten(2)
    return torch.stack([x[:, :, cell] @ directions()[d] for d, cell in enumerate(CELLS)], 1)


@dataclass(frozen=True)
class Chain:
    sae: SaeFile
    found: BiasFeatures


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("planted")
    h, there = images(360, 1)
    writer = FeatureSetWriter(folder, {"base_model": "planted", "site": SITE, "channels": CHANNELS, "map": [4, 4]})
    names = tuple(f"{i}.png" for i in range(len(h)))
    writer.add(h, LEVELS, list(names), list(range(len(h))), [""] * len(h))
    labels = LabelSet(CLASSES, names, {"glasses": torch.eye(2)[there[:, LEFT].long()], "hat": torch.eye(2)[there[:, HAT].long()]})
    features = open_feature_set(folder)
    sae = train_sae(features, SaeSettings(latents=48, k=4, steps=700, batch=512))
    reader = reader_of(train_adp(features, labels, "linear", 10), sae)
    return Chain(sae, find_bias_features(features, labels, sae, reader, ["glasses"], AttributionSettings(tau=4, resamples=20)))


def steered(chain: Chain, name: str, found: BiasFeatures | None = None, level: int = 1) -> tuple[Tensor, Tensor, Tensor, float]:
    """Planted truth of fresh images before and after all are sent to a class, [n, 6] each, which directions are there, and the mean length
    of the edit."""
    h, there = images(200, 2)
    h = h[:, level]
    run = SteeringRun(chain.sae, found or chain.found, SteerSettings(everyone(CLASSES, "glasses", name)))
    sigma = float(torch.exp(-LEVELS[level] / 2))
    out = run.edit(SITE, h, Call.read({"sigmas": torch.full((len(h),), sigma), "cond_or_uncond": [0]}))
    return projections(h, level), projections(out, level), there, float((out - h).flatten(1).norm(dim=1).mean())


def test_the_planted_directions_are_on_top(chain: Chain) -> None:
    a = chain.found.attribute("glasses")
    best = a.best("yes")
    cosine = chain.sae.sae.decoder[a.features[best]] @ directions().T
    assert sorted(cosine[:2].argmax(1).tolist()) == [LEFT, RIGHT] and float(cosine[:2].amax(1).min()) > 0.95
    assert float(a.scores[1, best[1]]) > 3 * float(a.scores[1, best[2:3]].sum()), "what comes after them carries little"
    profile = a.profile().delta[2, 1, 0, best[:2]].flatten(1)
    assert [CELLS[d] for d in cosine[:2].argmax(1).tolist()] == profile.argmax(1).tolist(), "each at its place"


@pytest.mark.parametrize("level", range(3))
@pytest.mark.parametrize("name", CLASSES["glasses"])
def test_steering_moves_what_was_planted_and_nothing_else(chain: Chain, name: str, level: int) -> None:
    before, after, there, _ = steered(chain, name, level=level)
    yes = name == "yes"
    assert 0.4 < float((before[:, LEFT] > 0.7).float().mean()) < 0.6
    for d in (LEFT, RIGHT):
        assert float(((after[:, d] > 0.7) == yes).float().mean()) >= 0.98, "nearly all are of the class"
    others = range(RIGHT + 1, NAMED)
    assert torch.equal(after[:, others] > 0.7, there[:, others]), "the other directions are as they were"
    assert float((after - before)[:, others].abs().mean()) < 0.02


def test_as_many_other_features_turned_as_much_do_not_move_it(chain: Chain) -> None:
    """The control: the same profile on latents that were not found."""
    a = chain.found.attribute("glasses")
    free = [i for i in torch.randperm(48, generator=torch.Generator().manual_seed(5)).tolist() if i not in set(a.features.tolist())]
    swapped = replace(a, features=torch.tensor(free[: len(a.features)]).sort().values)
    found = replace(chain.found, attributes={"glasses": swapped})
    assert steered(chain, "yes", found)[3] > 0.5 * steered(chain, "yes")[3], "they are turned, too"
    for name in CLASSES["glasses"]:
        before, after, _, _ = steered(chain, name, found)
        for d in (LEFT, RIGHT):
            assert float(((after[:, d] > 0.7) == (before[:, d] > 0.7)).float().mean()) > 0.95, "images stay what they were"
