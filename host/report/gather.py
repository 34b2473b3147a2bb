"""Read the images of a fairness report with all networks, and the settings of the queued graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from torch import Tensor

from ...methods.core.targets import TargetDistribution
from ...methods.report import provenance
from ...models.inception import inception_features, missing_inception
from ..core.types import Clip, ClipVision
from ..labels.classifier import HostClassifier
from ..labels.clip_projection import clip_files
from ..labels.clip_zero_shot import text_directions
from .provenance import file_rows, images_row, named_files, software

BASE, STEERED, REFERENCE = "base", "steered", "reference"
CHUNK = 16
"""Images that CLIP reads at once, between which the host can interrupt."""
INCEPTION = "models/equipoise/inception"


@dataclass(frozen=True)
class ReportInputs:
    """The node's inputs.

    Each set of images is an IMAGE [N, H, W, C] in 0..1, in a size of its own.
    """

    base: Tensor
    """Images from plain sampling."""

    steered: Tensor
    """Images from guided or steered sampling."""

    judge: HostClassifier
    """The classifier that measures."""

    target: TargetDistribution | None = None
    """Shares that were asked for; None compares with equal shares."""

    second: HostClassifier | None = None
    """A second judge, shown next to the first."""

    labeller: HostClassifier | None = None
    """The classifier that gave the labels for training."""

    reference: Tensor | None = None
    """Images for measures of quality."""

    vision: ClipVision = None
    """CLIP_VISION for measures of quality and similarity; None leaves them out."""

    clip: Clip = None
    """CLIP for the agreement of images and prompt; None leaves it out."""

    prompt: str = ""
    """The prompt of all images, if there is one."""

    inception: bool = False
    """Whether distances in Inception features are measured."""

    attributes: tuple[str, ...] = ()
    """Attributes to show; empty: those of the target, or all."""

    same_seeds: bool = True
    """Whether images at one place of both sets have one seed."""

    batch: int = 1
    """Number of steered images that were sampled together."""


@dataclass(frozen=True)
class ClassReadings:
    """A classifier's probabilities of each set, attribute -> [N, K]."""

    name: str
    """The classifier's name."""

    classes: Mapping[str, Sequence[str]]
    """Attribute -> class names, in the order of the probabilities."""

    base: Mapping[str, Tensor]
    """Probabilities of the base images."""

    steered: Mapping[str, Tensor]
    """Probabilities of the steered images."""

    reference: Mapping[str, Tensor] | None = None
    """Probabilities of the reference images, if they are read."""


@dataclass(frozen=True)
class SetFeatures:
    """A network's features of each set, [N, D]."""

    name: str
    """The network's name."""

    base: Tensor
    """Features of the base images."""

    steered: Tensor
    """Features of the steered images."""

    reference: Tensor | None = None
    """Features of the reference images, if there are any."""

    clip: bool = False
    """Whether the features are projected CLIP embeddings."""


@dataclass(frozen=True)
class Gathered:
    """Everything that the networks read in the images."""

    judges: tuple[ClassReadings, ...]
    """Readings of one or two judges."""

    targets: tuple[tuple[Sequence[str], Sequence[float]] | None, ...]
    """The target in each judge's class order; None without a target."""

    others: tuple[ClassReadings, ...]
    """Readings of the labeller, if there is one."""

    features: tuple[SetFeatures, ...]
    """Features by network."""

    prompt: tuple[Tensor, Tensor, Tensor] | None
    """CLIP embeddings of the base images, the steered images and the prompt."""

    missing: tuple[str, ...]
    """Sentences on measures that were asked for and could not be taken."""


def gather(inputs: ReportInputs, graph: provenance.Graph | None = None, node_id: str | None = None) -> Gathered:
    """Read all images with all networks. Checks all inputs first.

    Raises ValueError for images that are empty, not finite or not images, for a classifier that does not know the target or
    an attribute, and for sets of different length with same_seeds; the host's exception where the user interrupts.
    """
    for name, images in sets_of(inputs).items():
        check_images(images, name)
    if inputs.same_seeds and len(inputs.base) != len(inputs.steered):
        raise ValueError(
            f"with the same seeds there are as many base images as steered ones; met {len(inputs.base)} and {len(inputs.steered)}: switch "
            "same_seeds off, or connect images of the same seeds."
        )
    shown = [c for c in (inputs.judge, inputs.second) if c is not None]
    targets = tuple(target_for(c, inputs.target) for c in shown)
    for classifier in shown:
        check_attributes(classifier, inputs.attributes)
    networks = [*shown, *([inputs.labeller] if inputs.labeller is not None else [])]
    names = _distinct([c.name for c in networks])
    read = tuple(_read(c, n, inputs, reference=i == 0) for i, (c, n) in enumerate(zip(networks, names, strict=True)))
    features, prompt, missing = _features(inputs, graph, node_id)
    return Gathered(read[: len(shown)], targets, read[len(shown) :], tuple(features), prompt, tuple(missing))


def interruptible() -> None:
    """Raise the host's exception where the user interrupts."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def sets_of(inputs: ReportInputs) -> dict[str, Tensor]:
    """Return the sets of images that are connected, by name."""
    sets = {BASE: inputs.base, STEERED: inputs.steered, REFERENCE: inputs.reference}
    return {name: images for name, images in sets.items() if images is not None}


def check_images(images: Tensor, name: str) -> None:
    """Raise ValueError unless a batch is an IMAGE with finite values."""
    if images.ndim != 4 or not len(images) or images.shape[-1] not in (3, 4):
        raise ValueError(f"the {name} images are a batch of shape [N, H, W, 3 or 4]; met {list(images.shape)}: connect decoded images.")
    broken = ~torch.isfinite(images.detach().flatten(1)).all(1)
    if broken.any():
        many = f"all {len(images)}" if broken.all() else f"{int(broken.sum())} of {len(images)}"
        raise ValueError(
            f"{many} {name} images hold values that are no numbers (NaN), which viewers show as black: the VAE or the model may have "
            "overflowed in half precision (--fp32-vae); take them out."
        )


def target_for(classifier: HostClassifier, target: TargetDistribution | None) -> tuple[Sequence[str], Sequence[float]] | None:
    """Return attributes and shares in a classifier's class order. Raises ValueError for unknown ones."""
    if target is None:
        return None
    try:
        ordered = target.reordered(classifier.attributes)
    except ValueError as error:
        raise ValueError(f"The classifier '{classifier.name}' cannot measure this target: {error}") from error
    return ordered.attributes, ordered.shares


def check_attributes(classifier: HostClassifier, attributes: Sequence[str]) -> None:
    """Raise ValueError for an attribute that a classifier does not read."""
    unknown = next((a for a in attributes if a not in classifier.attributes), None)
    if unknown is not None:
        known = "; ".join(f"{a} ({', '.join(c)})" for a, c in classifier.attributes.items())
        raise ValueError(f"the classifier '{classifier.name}' does not read '{unknown}'; it reads: {known}.")


def origin(inputs: ReportInputs, graph: provenance.Graph | None, node_id: str | None, hashed: bool) -> dict[str, Any]:
    """Collect the settings, files and software that a page names.

    As ``settings``, ``files`` and ``software``, as far as the queued graph shows them.
    """
    sets = sets_of(inputs)
    rows = [images_row(name, images) for name, images in sets.items()]
    settings, seeds = [], ""
    if graph and node_id is not None and str(node_id) in graph:
        settings = provenance.settings(graph, node_id, sets)
        nodes = provenance.upstream(graph, node_id, list(graph[str(node_id)].get("inputs", {})))
        rows = [*file_rows(named_files(provenance.texts(graph, nodes)), hashed), *rows]
        known = {name: provenance.seeds(graph, node_id, name) for name in sets}
        seeds = "; ".join(f"{name}: {', '.join(map(str, s))}" for name, s in known.items() if s)
    lines = [f"Seeds in the graph: {seeds}."] if seeds else []
    return {"settings": settings, "files": rows, "software": [*lines, software()]}


def _distinct(names: Sequence[str]) -> list[str]:
    """Add numbers to names that occur more than once."""
    return [n if n not in names[:i] else f"{n} ({names[:i].count(n) + 1})" for i, n in enumerate(names)]


def _read(classifier: HostClassifier, name: str, inputs: ReportInputs, reference: bool) -> ClassReadings:
    """Read base and steered images, and the reference images if ``reference`` is set."""
    sets = {k: classifier.probabilities(i) for k, i in sets_of(inputs).items() if k != REFERENCE or reference}
    return ClassReadings(name, classifier.attributes, **sets)


def _features(
    inputs: ReportInputs, graph: Mapping[str, Any] | None, node_id: str | None
) -> tuple[list[SetFeatures], tuple[Tensor, Tensor, Tensor] | None, list[str]]:
    """Compute features of CLIP, Inception and the judge, and CLIP embeddings of the prompt.

    Also returns the sentences on what is missing.
    """
    sets, networks, prompted, missing = sets_of(inputs), [], None, []
    if inputs.vision is not None:
        files = clip_files(graph, node_id)
        name = files["vision"][0].name if files["vision"] else "the connected CLIP_VISION"
        projected = isinstance(getattr(getattr(inputs.vision.model, "visual_projection", None), "weight", None), Tensor)
        networks.append(SetFeatures(name, **{k: vision_features(inputs.vision, i) for k, i in sets.items()}, clip=projected))
        if inputs.prompt.strip() and inputs.clip is not None:
            direction, _ = text_directions(inputs.clip, {"prompt": {"text": (inputs.prompt.strip(),)}}, ("{}",), files, inputs.vision)
            prompted = networks[0].base, networks[0].steered, direction["prompt"]
    if inputs.prompt.strip() and prompted is None:
        missing.append(
            "Agreement with the prompt is not stated: it needs clip_vision and clip, the image and the text encoder of one CLIP."
        )
    problem = missing_inception(inception_folder()) if inputs.inception else ""
    if problem:
        missing.append(f"{problem} Weights belong into {INCEPTION}.")
    elif inputs.inception:
        networks.append(SetFeatures("Inception (clean-fid)", **{k: _inception(i) for k, i in sets.items()}))
    networks.append(SetFeatures(f"{inputs.judge.name} (the judge's own features)", **{k: inputs.judge.embed(i) for k, i in sets.items()}))
    return networks, prompted, missing


def inception_folder() -> Path:
    """Return the folder of clean-fid's weights."""
    return Path(folder_paths.models_dir) / "equipoise" / "inception"


def _inception(images: Tensor) -> Tensor:
    bar = comfy.utils.ProgressBar(len(images))

    def progress(done: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done)

    device = comfy.model_management.get_torch_device()
    return inception_features(images[..., :3].movedim(-1, 1), inception_folder(), device, progress)


def vision_features(vision: ClipVision, images: Tensor) -> Tensor:
    """Compute a CLIP_VISION's image embeddings, float32 [N, D] on the CPU.

    Embeddings of CLIP are projected. Images are cropped to their square middle, as the host does by default.
    Raises ValueError where the encoder gives no such vectors.
    """
    bar, parts = comfy.utils.ProgressBar(len(images)), []
    for chunk in images[..., :3].split(CHUNK):
        comfy.model_management.throw_exception_if_processing_interrupted()
        embeds = vision.encode_image(chunk)["image_embeds"]
        if not isinstance(embeds, Tensor) or embeds.ndim != 2:
            raise ValueError("this image encoder gives no vector per image: load a CLIP with Load CLIP Vision, or connect none.")
        parts.append(embeds.float().cpu())
        bar.update(len(chunk))
    return torch.cat(parts)
