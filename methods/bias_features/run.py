"""Bias-feature steering: what happens to h at one U-Net call when features of an autoencoder are turned.

After DiffLens (Shi et al., CVPR 2025): h is encoded, chosen activations are changed, and only the decoded change is added to h, so that
the autoencoder's error is kept. Unlike there, every image has a class of its own, features are turned by place, activations stay
non-negative, and one U-Net pass does it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.adp import AdpFile
from ...models.bias_features import AttributeFeatures, BiasFeatures, Profile
from ...models.sae import SaeFile
from ...models.sites import GRID, average
from ..core.batch_run import AUTO, BatchRun, BatchSettings, active
from ..core.rows import Rows
from ..core.targets import TargetDistribution, make_target

PROFILE, SCALE, ADD, SUPPRESS = "profile", "scale", "add", "suppress"
STEER_MODES = (PROFILE, SCALE, ADD, SUPPRESS)
CALIBRATED = "calibrated"


@dataclass(frozen=True)
class SteerSettings(BatchSettings):
    """What the user chose.

    ``strength``: -2 to 2, below 0 towards the opposite (for two classes the other class, else away from the class). ``mode``: "profile"
    adds the class profile by place; "scale" multiplies the class's features by ``amount`` at all positions, "add" adds ``amount`` to them
    (the paper's forms), "suppress" turns them down to nothing. ``source``: which profile ("calibrated": the file's default). ``features``:
    how many of the class's best are turned (0: all that the file holds). ``only``: numbers of latents; where there are any, these are
    turned instead. ``mask``: [1 or N, H, W] in 0..1, resized to the feature map.
    """

    mode: str = PROFILE
    source: str = CALIBRATED
    features: int = 0
    only: tuple[int, ...] = ()
    amount: float = 3.0
    mask: Tensor | None = None


@dataclass(frozen=True)
class SteerWay:
    """How one attribute is steered: a profile (None: at all positions) of features int64 [F]; ``turned`` bool [K, F]: which of them belong
    to a class's edit."""

    site: str
    features: Tensor
    turned: Tensor
    profile: Profile | None

    @property
    def assign(self) -> str:
        """How images are assigned."""
        return AUTO if self.profile is None else self.profile.assign

    @property
    def window(self) -> tuple[float, float]:
        """log-SNR between which it acts."""
        return (-math.inf, math.inf) if self.profile is None else self.profile.window

    def to(self, device: torch.device) -> SteerWay:
        """The same on a device."""
        profile = None if self.profile is None else self.profile.to(device)
        return SteerWay(self.site, self.features.to(device), self.turned.to(device), profile)


class SteeringRun(BatchRun):
    """State of one run: images are assigned a class, and the features of their class are turned.

    ``adp``: reads images, for assignment by least change and for profiles that depend on what an image is now; without one images are
    assigned at random from the seed. Raises ValueError, in a sentence, for attributes, classes and profiles that the file does not hold.
    """

    what = "bias-feature steering"

    def __init__(self, sae: SaeFile, bias: BiasFeatures, settings: SteerSettings, adp: AdpFile | None = None) -> None:
        if settings.mode not in STEER_MODES:
            raise ValueError(f"features are steered by mode {', '.join(STEER_MODES)}, not '{settings.mode}'.")
        known = {a: bias.attribute(a).classes for a in settings.target.attributes}
        target = settings.target.reordered(known)
        check_only(bias, settings)
        ways = {a: steer_way(bias.site, bias.attribute(a), settings) for a in target.attributes}
        reader = None if adp is None else adp.predictor
        if reader is not None:
            for a in target.attributes:
                if a in reader.attributes and tuple(reader.attributes[a]) != known[a]:
                    raise ValueError(
                        f"the ADP reads '{a}' with the classes {', '.join(reader.attributes[a])}, and the bias features have "
                        f"{', '.join(known[a])}: load an ADP with the same classes in the same order."
                    )
        super().__init__(reader, adp.site if adp is not None else bias.site, settings, target, ways)
        self.site, self._sae, self._source = bias.site, sae.sae, sae.sae
        self.features = torch.cat([w.features for w in ways.values()]).unique()
        self._edits = self._edits_seen = 0

    def edited_since_asked(self) -> bool:
        """Whether any call was edited since this was asked last."""
        new = self._edits > self._edits_seen
        self._edits_seen = self._edits
        return new

    @property
    def sites(self) -> set[str]:
        """Where this run has to be called."""
        return {self.site, *([self.read_at] if self.reads else [])}

    def _prepare(self, device: torch.device) -> None:
        if self._device == device:
            return
        self._sae = self._source.on(device)
        super()._prepare(device)

    def _drop(self) -> None:
        super()._drop()
        self._sae, self._source = None, None

    def step(self, site: str, h: Tensor, rows: Rows, level: float) -> Tensor:
        """One call's edit of the chosen rows; h itself where nothing is changed."""
        if site != self.site or not self.assign(rows, level):
            return h
        index = self.edited(rows).nonzero().flatten().to(h.device)
        ways = {a: w for a, w in self._here.items() if active(w, level)}
        if not len(index) or not ways:
            return h
        image, classes = rows.image.to(h.device)[index], self.classes(h.device)
        part, at = h[index], torch.full((len(index),), level, device=h.device)
        features = self.features.to(h.device)
        z = self._sae.active(part, at, features)
        turned = z
        for a, way in ways.items():
            places = torch.searchsorted(features, way.features)
            reading = self.reading_of(a, image)
            new = turned_activations(z[:, places], way, classes[a][image], reading, level, self.settings)
            turned = turned.index_add(1, places, new - z[:, places])
        dz = turned.clamp(min=0) - z
        if self.settings.mask is not None:
            place = image if self.places is None else torch.tensor(self.places, device=image.device)[image]
            dz = dz * resized_mask(self.settings.mask, place, z.shape[-2:]).to(dz)
        if not dz.any():
            return h
        self._edits += 1
        out = h.clone()
        out[index] = (part.float() + self._sae.delta(dz, at, features)).to(h.dtype)
        return out


def parse_latents(text: str) -> tuple[int, ...]:
    """Numbers of latents as users write them: "7, #123" (empty: none). Raises ValueError for anything else."""
    words = text.replace(",", " ").replace(";", " ").split()
    numbers = [word.removeprefix("#") for word in words]
    wrong = [word for word, number in zip(words, numbers, strict=True) if not (number.isascii() and number.isdigit() and len(number) < 10)]
    if wrong:
        raise ValueError(
            f"'only' takes numbers of features, such as '7, 123' (Feature Atlas shows them), or nothing at all; '{wrong[0][:40]}' is no "
            "such number."
        )
    return tuple(dict.fromkeys(int(number) for number in numbers))


def check_only(bias: BiasFeatures, settings: SteerSettings) -> None:
    """Raise ValueError for a latent that is asked for and belongs to no attribute of the target."""
    attributes = settings.target.attributes
    known = {int(n) for a in attributes for n in bias.attribute(a).features}
    unknown = [f"#{n}" for n in settings.only if n not in known]
    if unknown:
        raise ValueError(
            f"{', '.join(unknown[:6])} is not among the bias features of {', '.join(attributes)} in this file: take numbers that Feature "
            "Atlas shows for them."
        )


def steer_way(site: str, found: AttributeFeatures, settings: SteerSettings) -> SteerWay:
    """The chosen features of an attribute, and the profile where one is asked for. ValueError where the file does not hold it."""
    k, f = len(found.classes), len(found.features)
    count = None if settings.only else settings.features or None
    turned = torch.zeros(k, f, dtype=torch.bool)
    for i, name in enumerate(found.classes):
        turned[i, found.best(name, count)] = True
    profile = None
    if settings.mode == PROFILE:
        # A profile turns a feature for every class, whichever it speaks for.
        profile = found.profile("" if settings.source == CALIBRATED else settings.source)
        turned = (torch.ones(f, dtype=torch.bool) if count is None else turned.any(0)).expand(k, f)
    if settings.only:
        turned = turned & torch.isin(found.features, torch.tensor(settings.only, dtype=found.features.dtype))
    return SteerWay(site, found.features, turned, profile)


def turned_activations(
    z: Tensor, way: SteerWay, classes: Tensor, reading: Tensor | None, level: float, settings: SteerSettings
) -> Tensor:
    """Activations z [R, F, H, W] as they are to be, not yet kept above 0; classes int64 [R], reading [R, K] or None."""
    s = settings.strength
    chosen, sign = _opposite(classes, way.turned.shape[0], s)
    turned = way.turned[chosen][:, :, None, None]
    if settings.mode == PROFILE:
        delta = profile_delta(way.profile, chosen, reading, level, z.shape[-2:])
        return torch.where(turned, z + sign * abs(s) * delta, z)
    if settings.mode == SUPPRESS:
        return torch.where(turned, z * (1 - min(1.0, abs(s))), z)
    if settings.mode == SCALE:
        return torch.where(turned, z * max(0.0, 1 + sign * abs(s) * (settings.amount - 1)), z)
    return torch.where(turned, z + sign * abs(s) * settings.amount, z)


def _opposite(classes: Tensor, count: int, strength: float) -> tuple[Tensor, float]:
    """Whose profile is used, and with which sign: below 0 that of the other class where there are two, else minus the class's own."""
    if strength >= 0:
        return classes, 1.0
    return (1 - classes, 1.0) if count == 2 else (classes, -1.0)


def profile_delta(profile: Profile, classes: Tensor, reading: Tensor | None, level: float, size: tuple[int, int]) -> Tensor:
    """Return what a profile adds at strength 1: float32 [R, F, H, W] for classes int64 [R] and a reading [R, K] (None: uniform)."""
    return on_map(profile.towards(classes, reading, level), *size)


def on_map(values: Tensor, height: int, width: int) -> Tensor:
    """Values on the 4x4 grid [R, F, 4, 4] brought to a map's size: nearest; averages where the map is smaller than the grid."""
    if (height, width) == (GRID, GRID):
        return values
    if min(height, width) < GRID:
        return average(values, height, width)
    return F.interpolate(values, size=(height, width), mode="nearest")


def resized_mask(mask: Tensor, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask [1 or N, H, W] for the rows' images: [R, 1, h, w]. ValueError where it has another number of images than the batch."""
    m = mask[:, None].float()
    if len(m) > 1 and int(image.max()) >= len(m):
        raise ValueError(f"the mask has {len(m)} images and the batch more: give one mask for all, or one for every image.")
    small = average(m, *size)
    return small[torch.zeros_like(image, device=small.device) if len(m) == 1 else image.to(small.device)]


def everyone(known: Mapping[str, tuple[str, ...]], attribute: str, name: str) -> TargetDistribution:
    """The target that sends every image to one class."""
    return make_target({attribute: {c: float(c == name) for c in known[attribute]}})
