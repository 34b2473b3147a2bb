"""Bias-feature steering: the edit of h at one call of the denoiser, made on features of an autoencoder.

After DiffLens (Shi et al., CVPR 2025): h is encoded, some activations are changed, and only the decoded change is added to h, so that the
autoencoder's error stays out of the edit. Unlike there, every image has a class of its own, features are edited by position, activations
stay non-negative, and one U-Net pass is enough.
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
    """Hold what the user chose for steering.

    ``strength`` goes from -2 to 2. Below 0 it edits towards the opposite: the other of two classes, else away from the class.
    """

    mode: str = PROFILE
    """The mode "profile" adds the class profile by position. "scale" multiplies the class's features by ``amount`` at all positions, and
    "add" adds ``amount`` to them (the paper's forms). "suppress" turns them down to 0."""
    source: str = CALIBRATED
    """Which profile is used; "calibrated" for the file's default."""
    features: int = 0
    """How many of the best features of a class are edited; 0 for all that the file holds."""
    only: tuple[int, ...] = ()
    """Numbers of the features that are edited instead, where there are any."""
    amount: float = 3.0
    """Factor of the mode "scale", and summand of the mode "add"."""
    mask: Tensor | None = None
    """Mask [1 or N, H, W] in 0..1, resized to h."""


@dataclass(frozen=True)
class FeatureEdit:
    """Describe how one attribute is steered."""

    site: str
    """Where the autoencoder acts."""
    features: Tensor
    """Numbers of the features, int64 [F]."""
    turned: Tensor
    """Which of them belong to the edit of a class, bool [K, F]."""
    profile: Profile | None
    """Amounts by feature, level and position; None where all positions and levels are edited alike."""

    @property
    def assign(self) -> str:
        """How images are assigned."""
        return AUTO if self.profile is None else self.profile.assign

    @property
    def window(self) -> tuple[float, float]:
        """Levels between which it acts."""
        return (-math.inf, math.inf) if self.profile is None else self.profile.window

    def to(self, device: torch.device) -> FeatureEdit:
        """Return the same edit on a device."""
        profile = None if self.profile is None else self.profile.to(device)
        return FeatureEdit(self.site, self.features.to(device), self.turned.to(device), profile)


def resolve_steering(
    bias: BiasFeatures, settings: SteerSettings, adp: AdpFile | None = None
) -> tuple[TargetDistribution, dict[str, FeatureEdit]]:
    """Return the target in the file's class order, and the edit of every attribute.

    Raises ValueError for attributes, classes, features and profiles that the file does not hold, and for an ADP with other classes.
    """
    if settings.mode not in STEER_MODES:
        raise ValueError(f"'{settings.mode}' is not a mode of steering: choose one of {', '.join(STEER_MODES)}.")
    known = {a: bias.attribute(a).classes for a in settings.target.attributes}
    target = settings.target.reordered(known)
    check_only(bias, settings)
    edits = {a: feature_edit(bias.site, bias.attribute(a), settings) for a in target.attributes}
    read = {} if adp is None or adp.predictor is None else adp.predictor.attributes
    for a in target.attributes:
        if a in read and tuple(read[a]) != known[a]:
            raise ValueError(
                f"the ADP reads '{a}' with the classes {', '.join(read[a])}, and the bias features have {', '.join(known[a])}: load an ADP "
                "with the same classes in the same order."
            )
    return target, edits


class SteeringRun(BatchRun):
    """Assign every image a class, and edit the features of its class.

    ``adp`` reads the images, for assignment by least change and for profiles that depend on the current reading. Without one, images are
    assigned at random from the seed. Raises ValueError as :func:`resolve_steering` does.
    """

    what = "bias-feature steering"

    def __init__(self, sae: SaeFile, bias: BiasFeatures, settings: SteerSettings, adp: AdpFile | None = None) -> None:
        target, edits = resolve_steering(bias, settings, adp)
        predictor, read_at = (None, bias.site) if adp is None else (adp.predictor, adp.site)
        super().__init__(predictor, read_at, settings, target, edits)
        self.site, self._sae, self._source_sae = bias.site, sae.sae, sae.sae
        self.features = torch.cat([edit.features for edit in edits.values()]).unique()
        self._edit_count = self._edits_asked = 0

    def edited_since_asked(self) -> bool:
        """Check whether any call was edited since this was asked last."""
        edited = self._edit_count > self._edits_asked
        self._edits_asked = self._edit_count
        return edited

    def _prepare(self, device: torch.device) -> None:
        if self._device == device:
            return
        self._sae = self._source_sae.on(device)
        super()._prepare(device)

    def _drop(self) -> None:
        super()._drop()
        self._sae, self._source_sae = None, None

    def step(self, site: str, h: Tensor, rows: Rows, level: float) -> Tensor:
        """Edit the chosen rows of h in one call; return h itself if nothing changes."""
        if site != self.site or not self.assign(rows, level):
            return h
        index = self.edited(rows).nonzero().flatten().to(h.device)
        edits = {a: edit for a, edit in self._on_device.items() if active(edit, level)}
        if not len(index) or not edits:
            return h
        image, classes = rows.image.to(h.device)[index], self.classes(h.device)
        part, at = h[index], torch.full((len(index),), level, device=h.device)
        features = self.features.to(h.device)
        z = self._sae.active(part, at, features)
        turned = z
        for a, edit in edits.items():
            columns = torch.searchsorted(features, edit.features)
            reading = self.reading_of(a, image)
            new = turned_activations(z[:, columns], edit, classes[a][image], reading, level, self.settings)
            turned = turned.index_add(1, columns, new - z[:, columns])
        dz = turned.clamp(min=0) - z
        if self.settings.mask is not None:
            in_batch = image if self.image_index is None else torch.tensor(self.image_index, device=image.device)[image]
            dz = dz * resized_mask(self.settings.mask, in_batch, z.shape[-2:]).to(dz)
        if not dz.any():
            return h
        self._edit_count += 1
        out = h.clone()
        out[index] = (part.float() + self._sae.delta(dz, at, features)).to(h.dtype)
        return out


def parse_latents(text: str) -> tuple[int, ...]:
    """Read the numbers of features that a user wrote, such as "7, #123".

    Raises ValueError for anything else.
    """
    words = text.replace(",", " ").replace(";", " ").split()
    numbers = [word.removeprefix("#") for word in words]
    wrong = [word for word, number in zip(words, numbers, strict=True) if not (number.isascii() and number.isdigit() and len(number) < 10)]
    if wrong:
        raise ValueError(
            f"'{wrong[0][:40]}' is not the number of a feature: in 'only', write numbers such as '7, 123', as Feature Atlas shows them, or "
            "leave it empty."
        )
    return tuple(dict.fromkeys(int(number) for number in numbers))


def check_only(bias: BiasFeatures, settings: SteerSettings) -> None:
    """Check that the chosen features belong to attributes of the target.

    Raises ValueError where one does not.
    """
    attributes = settings.target.attributes
    known = {int(n) for a in attributes for n in bias.attribute(a).features}
    unknown = [f"#{n}" for n in settings.only if n not in known]
    if unknown:
        raise ValueError(
            f"{', '.join(unknown[:6])} is not among the bias features of {', '.join(attributes)} in this file: use numbers that Feature "
            "Atlas shows for these attributes."
        )


def feature_edit(site: str, attribute: AttributeFeatures, settings: SteerSettings) -> FeatureEdit:
    """Choose the features of an attribute, and the profile that the settings name.

    Raises ValueError where the file does not hold it.
    """
    k, f = len(attribute.classes), len(attribute.features)
    count = None if settings.only else settings.features or None
    turned = torch.zeros(k, f, dtype=torch.bool)
    for i, name in enumerate(attribute.classes):
        turned[i, attribute.best(name, count)] = True
    profile = None
    if settings.mode == PROFILE:
        # A profile edits a feature for every class, whichever class the feature speaks for.
        profile = attribute.profile("" if settings.source == CALIBRATED else settings.source)
        turned = (torch.ones(f, dtype=torch.bool) if count is None else turned.any(0)).expand(k, f)
    if settings.only:
        turned = turned & torch.isin(attribute.features, torch.tensor(settings.only, dtype=attribute.features.dtype))
    return FeatureEdit(site, attribute.features, turned, profile)


def turned_activations(
    z: Tensor, edit: FeatureEdit, classes: Tensor, reading: Tensor | None, level: float, settings: SteerSettings
) -> Tensor:
    """Edit activations z [R, F, H, W], which may fall below 0.

    ``classes``: int64 [R]; ``reading``: [R, K] or None.
    """
    s = settings.strength
    chosen, sign = _opposite(classes, edit.turned.shape[0], s)
    turned = edit.turned[chosen][:, :, None, None]
    if settings.mode == PROFILE:
        delta = profile_delta(edit.profile, chosen, reading, level, z.shape[-2:])
        return torch.where(turned, z + sign * abs(s) * delta, z)
    if settings.mode == SUPPRESS:
        return torch.where(turned, z * (1 - min(1.0, abs(s))), z)
    if settings.mode == SCALE:
        return torch.where(turned, z * max(0.0, 1 + sign * abs(s) * (settings.amount - 1)), z)
    return torch.where(turned, z + sign * abs(s) * settings.amount, z)


def _opposite(classes: Tensor, count: int, strength: float) -> tuple[Tensor, float]:
    """Return the class whose profile is used, and its sign.

    Below 0: the other of two classes, else minus the class's own.
    """
    if strength >= 0:
        return classes, 1.0
    return (1 - classes, 1.0) if count == 2 else (classes, -1.0)


def profile_delta(profile: Profile, classes: Tensor, reading: Tensor | None, level: float, size: tuple[int, int]) -> Tensor:
    """Return what a profile adds at strength 1.

    float32 [R, F, H, W] for classes int64 [R] and a reading [R, K] (None: uniform).
    """
    return on_map(profile.towards(classes, reading, level), *size)


def on_map(values: Tensor, height: int, width: int) -> Tensor:
    """Resize values [R, F, 4, 4] to the size of h.

    By nearest upsampling, or by averages where h is smaller than the grid.
    """
    if (height, width) == (GRID, GRID):
        return values
    if min(height, width) < GRID:
        return average(values, height, width)
    return F.interpolate(values, size=(height, width), mode="nearest")


def resized_mask(mask: Tensor, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a mask [1 or N, H, W] to [R, 1, h, w].

    Each row gets the mask of its image. Raises ValueError where the mask has too few images.
    """
    m = mask[:, None].float()
    if len(m) > 1 and int(image.max()) >= len(m):
        raise ValueError(f"the mask has {len(m)} images and the batch has more: connect one mask for all images, or one for every image.")
    small = average(m, *size)
    return small[torch.zeros_like(image, device=small.device) if len(m) == 1 else image.to(small.device)]


def everyone(known: Mapping[str, tuple[str, ...]], attribute: str, name: str) -> TargetDistribution:
    """Make the target that assigns every image to one class."""
    return make_target({attribute: {c: float(c == name) for c in known[attribute]}})
