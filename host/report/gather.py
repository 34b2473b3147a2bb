"""What a fairness report needs of the host: networks that read images, and the queued graph that tells where they came from."""

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
from ...models.inception import inception_features, missing
from ..labels.classifier import HostClassifier
from ..labels.clip_projection import files_behind
from ..labels.clip_zero_shot import text_directions
from .provenance import file_rows, images_row, named_files, software

BASE, STEERED, REFERENCE = "base", "steered", "reference"
CHUNK = 16
"""Images that CLIP reads at once, between which the host can interrupt."""
INCEPTION = "models/equipoise/inception"


@dataclass(frozen=True)
class ReportInputs:
    """What the node was given. Images: IMAGE [N, H, W, C] in 0..1, each set of a size of its own."""

    base: Tensor
    steered: Tensor
    judge: HostClassifier
    target: TargetDistribution | None = None
    second: HostClassifier | None = None
    labeller: HostClassifier | None = None
    reference: Tensor | None = None
    vision: Any = None
    clip: Any = None
    prompt: str = ""
    inception: bool = False
    attributes: tuple[str, ...] = ()
    same_seeds: bool = True
    batch: int = 1


@dataclass(frozen=True)
class ClassReadings:
    """A classifier's probabilities of each set, attribute -> [N, K], with the classes of its attributes."""

    name: str
    classes: Mapping[str, Sequence[str]]
    base: Mapping[str, Tensor]
    steered: Mapping[str, Tensor]
    reference: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class SetFeatures:
    """A network's features of each set, [N, D]. ``clip``: they are projected CLIP embeddings."""

    name: str
    base: Tensor
    steered: Tensor
    reference: Tensor | None = None
    clip: bool = False


@dataclass(frozen=True)
class Gathered:
    """``judges``: one or two, with ``targets`` in their class order (None where none is given); ``others``: the labeller, if any.
    ``prompt``: CLIP embeddings of base images, steered images and prompt. ``untold``: what was asked for and could not be had."""

    judges: tuple[ClassReadings, ...]
    targets: tuple[tuple[Sequence[str], Sequence[float]] | None, ...]
    others: tuple[ClassReadings, ...]
    features: tuple[SetFeatures, ...]
    prompt: tuple[Tensor, Tensor, Tensor] | None
    untold: tuple[str, ...]


def gather(given: ReportInputs, graph: provenance.Graph | None = None, node_id: str | None = None) -> Gathered:
    """Read all images with all networks. What does not fit is refused before anything is read.

    Raises ValueError, in a sentence, for images that are empty, not finite or not images, for a classifier that does not know the target or
    an attribute, and where seeds are said to be the same and numbers differ; the host's exception where the user interrupts.
    """
    for name, images in sets_of(given).items():
        check_images(images, name)
    if given.same_seeds and len(given.base) != len(given.steered):
        raise ValueError(
            f"with the same seeds there are as many base images as steered ones; met {len(given.base)} and {len(given.steered)}: switch "
            "same_seeds off, or connect images of the same seeds."
        )
    shown = [c for c in (given.judge, given.second) if c is not None]
    targets = tuple(target_for(c, given.target) for c in shown)
    for classifier in shown:
        check_attributes(classifier, given.attributes)
    networks = [*shown, *([given.labeller] if given.labeller is not None else [])]
    names = _distinct([c.name for c in networks])
    read = tuple(_read(c, n, given, reference=i == 0) for i, (c, n) in enumerate(zip(networks, names, strict=True)))
    features, prompt, untold = _features(given, graph, node_id)
    return Gathered(read[: len(shown)], targets, read[len(shown) :], tuple(features), prompt, tuple(untold))


def interruptible() -> None:
    """Raise the host's exception where the user interrupts."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def sets_of(given: ReportInputs) -> dict[str, Tensor]:
    """The sets of images that there are, by name."""
    sets = {BASE: given.base, STEERED: given.steered, REFERENCE: given.reference}
    return {name: images for name, images in sets.items() if images is not None}


def check_images(images: Tensor, name: str) -> None:
    """Raise ValueError for a batch that is no IMAGE, is empty, or holds values that are not finite."""
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
    """Attributes and shares in a classifier's class order. Raises ValueError where it does not know them."""
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


def origin(given: ReportInputs, graph: provenance.Graph | None, node_id: str | None, hashed: bool) -> dict[str, Any]:
    """``settings``, ``files`` and ``software`` for the page, from the queued graph; what cannot be told is left out."""
    sets = sets_of(given)
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
    """Names with a number where two are the same."""
    return [n if n not in names[:i] else f"{n} ({names[:i].count(n) + 1})" for i, n in enumerate(names)]


def _read(classifier: HostClassifier, name: str, given: ReportInputs, reference: bool) -> ClassReadings:
    """Probabilities of base and steered images, and of the reference where they are asked for."""
    sets = {k: classifier.probabilities(i) for k, i in sets_of(given).items() if k != REFERENCE or reference}
    return ClassReadings(name, classifier.attributes, **sets)


def _features(
    given: ReportInputs, graph: Mapping[str, Any] | None, node_id: str | None
) -> tuple[list[SetFeatures], tuple[Tensor, Tensor, Tensor] | None, list[str]]:
    """Features of CLIP's image encoder and of Inception, where they are wanted, and of the judge; embeddings of images and prompt."""
    sets, found, prompted, untold = sets_of(given), [], None, []
    if given.vision is not None:
        files = {what: files_behind(graph, node_id, name) for what, name in (("vision", "clip_vision"), ("clip", "clip"))}
        name = files["vision"][0].name if files["vision"] else "the connected CLIP_VISION"
        projected = isinstance(getattr(getattr(given.vision.model, "visual_projection", None), "weight", None), Tensor)
        found.append(SetFeatures(name, **{k: vision_features(given.vision, i) for k, i in sets.items()}, clip=projected))
        if given.prompt.strip() and given.clip is not None:
            direction, _ = text_directions(given.clip, {"prompt": {"text": (given.prompt.strip(),)}}, ("{}",), files, given.vision)
            prompted = found[0].base, found[0].steered, direction["prompt"]
    if given.prompt.strip() and prompted is None:
        untold.append("Agreement with the prompt is not stated: it needs clip_vision and clip, the image and the text encoder of one CLIP.")
    if given.inception and (why := missing(inception_folder())):
        untold.append(f"{why} Weights belong into {INCEPTION}.")
    elif given.inception:
        found.append(SetFeatures("Inception (clean-fid)", **{k: _inception(i) for k, i in sets.items()}))
    found.append(SetFeatures(f"{given.judge.name} (the judge's own features)", **{k: given.judge.embed(i) for k, i in sets.items()}))
    return found, prompted, untold


def inception_folder() -> Path:
    """Where clean-fid's weights are looked for."""
    return Path(folder_paths.models_dir) / "equipoise" / "inception"


def _inception(images: Tensor) -> Tensor:
    bar = comfy.utils.ProgressBar(len(images))

    def progress(done: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done)

    device = comfy.model_management.get_torch_device()
    return inception_features(images[..., :3].movedim(-1, 1), inception_folder(), device, progress)


def vision_features(vision: Any, images: Tensor) -> Tensor:
    """A CLIP_VISION's image embeddings, float32 [N, D] on the CPU: CLIP's projected ones, or what another encoder gives in their place.

    Images are cropped to their square middle, as the host does by default. Raises ValueError where the encoder gives no such vectors.
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
