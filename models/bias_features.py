"""Bias features: which latents of a sparse autoencoder carry an attribute, how sure that is, and how they are turned to steer by.

After DiffLens (Shi et al., CVPR 2025), which keeps one list of features per class; here every feature has its scores by class and noise
level, and a profile says where on the map, at which noise levels and by how much it is turned.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from .files import FileFormat, check_finite, named_classes, write_safetensors
from .level_table import ASSIGNMENTS, SEEDED, LevelTable
from .noise_level import check_knots

FORMAT = FileFormat(
    "equipoise-bias-features",
    other="holds no bias features",
    choose="choose a file from models/equipoise/bias_features that Find Bias Features wrote",
    mend="find the features again",
)
CLASS_DIFFERENCE, LEARNED = "class-difference", "learned"


class IsSae(Protocol):
    """The parts of a :class:`.sae.SaeFile` that bias features need."""

    @property
    def site(self) -> str:
        """Site of the denoiser at which the autoencoder reads."""

    @property
    def digest(self) -> str:
        """Return a short hash of the autoencoder's tensors."""


@dataclass(frozen=True)
class Profile(LevelTable):
    """Edit of bias features, for the classes of one attribute.

    A table over features of an autoencoder.
    """

    values_field = "delta"

    knots: Tensor
    """Ascending log-SNR [T]."""
    delta: Tensor
    """Activations to add by place towards class k, [T, K, R, F, 4, 4], in the autoencoder's (normalised) units."""
    sizes: Tensor
    """Multipliers at strength 1, [T, K]; 0 outside the window."""
    assign: str = SEEDED
    """How images get their class: "seeded", or "reading" (least change by a reading)."""
    source: str = CLASS_DIFFERENCE
    """How the profile was made: "class-difference" or "learned"."""
    relative: bool = False
    """Whether the reading's mean profile is subtracted (R = 1)."""
    doubt: float = 1.0
    """Temperature of the reading where R is K, because images that are being steered read as their class early."""

    def softened(self, reading: Tensor) -> Tensor:
        """Raise probabilities [N, K] to 1 / doubt and normalise them.

        Unchanged, bit for bit, if doubt is 1.
        """
        return reading if self.doubt == 1 else (reading.clamp(min=1e-9).log() / self.doubt).softmax(-1)


@dataclass(frozen=True)
class AttributeFeatures:
    """The features of one attribute with K classes, by the autoencoder's latent numbers.

    Raises ValueError where shapes do not fit each other.
    """

    classes: tuple[str, ...]
    """Class names."""
    features: Tensor
    """Latent numbers int64 [F]: the union over classes, best first."""
    scores: Tensor
    """Signed contrast attribution over all noise levels, [K, F]; positive where presence speaks for the class."""
    scores_by_level: Tensor
    """The same by noise level, [T, K, F]."""
    stability: Tensor
    """Share of bootstrap resamples in which a feature is among the class's best, [K, F]."""
    side_effect: Tensor
    """Attribution to the other attributes, relative to that on this one, [F]; NaN: no other was read."""
    causal: Tensor
    """Share read as class k with the feature alone turned up, minus that with it turned down, [K, F]; NaN: not measured."""
    knots: Tensor
    """Log-SNR [T] of ``scores_by_level``."""
    profiles: dict[str, Profile] = field(default_factory=dict)
    """Source -> how to steer."""
    default: str = ""
    """Source of the profile that calibration chose; "" if none is calibrated."""

    def __post_init__(self) -> None:
        k, f, t = len(self.classes), len(self.features), len(self.knots)
        expected = {"scores": (k, f), "scores_by_level": (t, k, f), "stability": (k, f), "side_effect": (f,), "causal": (k, f)}
        for name, shape in expected.items():
            met = tuple(getattr(self, name).shape)
            if met != shape:
                raise ValueError(f"{name} of {f} features and {k} classes has shape {list(met)}, expected {list(shape)}.")
        for source, p in self.profiles.items():
            if not p.fits(k, f) or p.assign not in ASSIGNMENTS:
                raise ValueError(
                    f"the profile '{source}' of {f} features and {k} classes has a delta of shape {list(p.delta.shape)}, sizes of shape "
                    f"{list(p.sizes.shape)}, {len(p.knots)} noise levels and assignment '{p.assign}'."
                )
        if self.default and self.default not in self.profiles:
            raise ValueError(f"the default profile '{self.default}' is not among {', '.join(self.profiles) or 'none'}.")

    def class_index(self, name: str) -> int:
        """Return the index of a class.

        Raises ValueError, naming the known classes.
        """
        if name not in self.classes:
            raise ValueError(f"there is no class '{name}' in these bias features; there are: {', '.join(self.classes)}.")
        return self.classes.index(name)

    def profile(self, source: str = "") -> Profile:
        """Return a profile by its source; "" is the default one.

        If none is calibrated, a learned profile comes before one that was computed from features. Raises ValueError, naming the known
        sources.
        """
        if not self.profiles:
            raise ValueError("these bias features have no profile, so they cannot steer: find them again.")
        chosen = source or self.default or (LEARNED if LEARNED in self.profiles else next(iter(self.profiles)))
        if chosen not in self.profiles:
            raise ValueError(f"these bias features have no profile '{chosen}'; they have: {', '.join(self.profiles)}.")
        return self.profiles[chosen]

    def best(self, name: str, count: int | None = None) -> Tensor:
        """Return the features that speak most for a class, best first.

        Indices into ``features``, int64. Raises ValueError for an unknown class.
        """
        scores = self.scores[self.class_index(name)]
        order = scores.argsort(descending=True, stable=True)
        return order[scores[order] > 0][:count]


@dataclass(frozen=True)
class BiasFeatures:
    """A file of bias features: attribute -> features, and which autoencoder they number."""

    attributes: dict[str, AttributeFeatures]
    """Attribute -> its features."""
    site: str
    """Site of the autoencoder."""
    base_model: str
    """Name of the diffusion model."""
    sae_digest: str
    """:attr:`.sae.SaeFile.digest` of the autoencoder."""
    channels: int
    """Channels of h at the site."""
    latents: int
    """Latents of the autoencoder."""
    info: dict[str, Any] = field(default_factory=dict)
    """How the features were found, and calibration by attribute."""

    def __post_init__(self) -> None:
        for name, a in self.attributes.items():
            if len(a.features) and not 0 <= int(a.features.min()) <= int(a.features.max()) < self.latents:
                raise ValueError(f"'{name}' has feature numbers beyond the {self.latents} latents of the autoencoder.")

    def attribute(self, name: str) -> AttributeFeatures:
        """Return the features of an attribute.

        Raises ValueError, naming the known attributes.
        """
        if name not in self.attributes:
            raise ValueError(
                f"there are no bias features of '{name}' in this file; it has those of: {', '.join(self.attributes) or 'none'}."
            )
        return self.attributes[name]

    def text(self) -> str:
        """Describe the file, a line per attribute."""
        model = self.base_model or "an unnamed model"
        lines = [f"bias features for {model} at {self.site}, autoencoder {self.sae_digest} ({self.latents} latents)"]
        for name, a in self.attributes.items():
            share = ", ".join(f"{c} {len(a.best(c))}" for c in a.classes)
            steer = [f"{source}{' (default)' if source == a.default else ''}" for source in a.profiles]
            how = f"profiles: {', '.join(steer)}" if steer else "no profile"
            if a.default:
                low, high = a.profiles[a.default].window
                how += f", turned over log-SNR {low:.1f} to {high:.1f}"
            else:
                how += ", not calibrated"
            lines.append(f"{name}: {len(a.features)} features ({share}); {how}")
        return "\n".join(lines)


def check_sae(bias: BiasFeatures, sae: IsSae) -> None:
    """Raise ValueError if bias features were found in another autoencoder.

    Their numbers would mean other features.
    """
    if bias.sae_digest == sae.digest:
        return
    where = f" at {sae.site}" if sae.site != bias.site else ""
    raise ValueError(
        f"these bias features were found in the autoencoder {bias.sae_digest} at {bias.site}, and the connected autoencoder is "
        f"{sae.digest}{where}: load the autoencoder that they were found in, or find bias features in the connected one."
    )


_EXACT = ("features", "scores", "scores_by_level", "stability", "side_effect", "causal", "knots")


def save_bias_features(bias: BiasFeatures, path: str | os.PathLike[str]) -> None:
    """Write bias features as safetensors: profiles in fp16, all else as it is."""
    tensors: dict[str, Tensor] = {}
    stated: dict[str, Any] = {}
    for name, a in bias.attributes.items():
        tensors |= {f"{name}.{part}": getattr(a, part) for part in _EXACT}
        for source, p in a.profiles.items():
            tensors |= p.stored(f"{name}.profile.{source}")
        profiles = {source: {"assign": p.assign, "relative": p.relative, "doubt": p.doubt} for source, p in a.profiles.items()}
        stated[name] = {"classes": list(a.classes), "default": a.default, "profiles": profiles}
    meta = {
        **FORMAT.header(),
        "base_model": bias.base_model,
        "site": bias.site,
        "sae": bias.sae_digest,
        "channels": str(bias.channels),
        "latents": str(bias.latents),
        "normalisation": "activations in the autoencoder's units (h minus its mean, divided by its scale, interpolated over log-SNR)",
        "attributes": json.dumps(stated),
        "info": json.dumps(bias.info),
    }
    if "licence" in bias.info:
        meta["licence"] = str(bias.info["licence"])
    write_safetensors(path, tensors, meta)


def load_bias_features(path: str | os.PathLike[str]) -> BiasFeatures:
    """Load what :func:`save_bias_features` wrote, in float32 on the CPU.

    Raises ValueError where it is of another kind or damaged.
    """
    return FORMAT.load(path, _read_bias_features)


def _read_bias_features(tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> BiasFeatures:
    sizes = int(meta["channels"]), int(meta["latents"])
    if min(sizes) < 1:
        raise ValueError(f"it states {sizes[0]} channels and {sizes[1]} latents")
    attributes = {a: _read_attribute(tensors, a, stated) for a, stated in json.loads(meta["attributes"]).items()}
    info = dict(json.loads(meta.get("info", "{}")))
    return BiasFeatures(attributes, meta["site"], meta["base_model"], meta["sae"], *sizes, info)


def _read_attribute(tensors: Mapping[str, Tensor], name: str, stated: Mapping[str, Any]) -> AttributeFeatures:
    profiles = {}
    for source, p in stated["profiles"].items():
        parts = Profile.read_stored(tensors, f"{name}.profile.{source}")
        doubt = float(p.get("doubt", 1.0))
        profiles[source] = Profile(**parts, assign=p["assign"], source=source, relative=bool(p["relative"]), doubt=doubt)
    own = {part: tensors[f"{name}.{part}"] for part in _EXACT}
    check_knots(own["knots"])
    check_finite({part: own[part] for part in ("scores", "scores_by_level", "stability")})
    features = own["features"]
    numbered = features.ndim == 1 and not features.is_floating_point()
    if not numbered or bool((features < 0).any()):
        raise ValueError(f"the features of '{name}' are not whole numbers from 0")
    classes = named_classes({name: stated["classes"]})[name]
    return AttributeFeatures(classes, **own, profiles=profiles, default=str(stated["default"]))
