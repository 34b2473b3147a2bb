"""What a fairness report needs of the host: networks that read images, and the queued graph that tells where they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..methods import provenance
from ..methods.targets import TargetDistribution
from ..metrics.findings import BASE, REFERENCE, STEERED, Embedding, Findings, Reader, cells_of, find
from ..metrics.inception import inception_features, missing
from .classifier import HostClassifier
from .clip_projection import files_behind
from .clip_zero_shot import text_directions
from .provenance import file_rows, images_row, named_files, software

CHUNK = 16
"""Images that CLIP reads at once, between which the host can interrupt."""
LOADER = "EquipoiseLoadAttributeClassifier"
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
class Gathered:
    """``base_cells`` [N], ``steered_cells`` [M]: class of each image in the judge's first panel."""

    findings: Findings
    base_cells: NDArray[np.int64]
    steered_cells: NDArray[np.int64]
    warnings: tuple[str, ...]


def gather(given: ReportInputs, graph: provenance.Graph | None = None, node_id: str | None = None) -> Gathered:
    """Read all images with all networks, and measure.

    Raises ValueError, in a sentence, for images that are empty, not finite or not images, for a classifier that does not know the target or
    an attribute, and where seeds are said to be the same and numbers differ; the host's exception where the user interrupts.
    """
    sets = {BASE: given.base, STEERED: given.steered, REFERENCE: given.reference}
    for name, images in sets.items():
        if images is not None:
            check_images(images, name)
    if given.same_seeds and len(given.base) != len(given.steered):
        raise ValueError(
            f"with the same seeds there are as many base images as steered ones; met {len(given.base)} and {len(given.steered)}: switch "
            "same_seeds off, or connect images of the same seeds."
        )
    shown = [c for c in (given.judge, given.second) if c is not None]
    targets = [target_for(c, given.target) for c in shown]
    for classifier in shown:
        check_attributes(classifier, given.attributes)
    names = _distinct([c.name for c in (*shown, *([given.labeller] if given.labeller else []))])
    readers = [_reader(c, n, given, reference=i == 0) for i, (c, n) in enumerate(zip(shown, names, strict=False))]
    others = [_reader(given.labeller, names[-1], given)] if given.labeller is not None else []
    embeddings, prompted, told = _embeddings(given, graph, node_id)
    found = find(
        readers,
        targets,
        embeddings,
        others,
        prompted,
        given.attributes,
        given.same_seeds,
        given.batch,
        tick=comfy.model_management.throw_exception_if_processing_interrupted,
    )
    panel = found.judged[0].panels[0]
    warnings = (*told, *warnings_of(given, graph, node_id))
    return Gathered(found, cells_of(readers[0].base, panel), cells_of(readers[0].steered, panel), warnings)


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
    sets = {n: i for n, i in ((BASE, given.base), (STEERED, given.steered), (REFERENCE, given.reference)) if i is not None}
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


def warnings_of(given: ReportInputs, graph: provenance.Graph | None, node_id: str | None) -> list[str]:
    """What makes the figures doubtful, as far as the inputs and the graph tell."""
    found = []
    judge = given.judge
    if given.labeller is not None and same_network(judge, given.labeller):
        found.append(
            f"The labeller and the judge are the same network ('{judge.name}'): what was made by its labels is too well liked by it. "
            "Choose a judge that took no part."
        )
    if given.second is not None and same_network(judge, given.second):
        found.append(f"Both classifiers are the same network ('{judge.name}'): the second one confirms nothing.")
    if graph and node_id is not None:
        makers = provenance.upstream(graph, node_id, [STEERED])
        loaded = [graph[n].get("inputs", {}).get("classifier_name") for n in makers if graph[n].get("class_type") == LOADER]
        if judge.name in loaded:
            found.append(
                f"The judge '{judge.name}' took part in making the steered images (see Settings): its counts are too kind to them."
            )
        seeds = {name: provenance.seeds(graph, node_id, name) for name in (BASE, STEERED)}
        if given.same_seeds and len(seeds[BASE]) == len(seeds[STEERED]) == 1 and seeds[BASE] != seeds[STEERED]:
            found.append(
                f"same_seeds is on, and the graph has the seed {seeds[BASE][0]} for base and {seeds[STEERED][0]} for steered images: "
                "similarity and drift are then of unrelated images."
            )
    if given.base.shape == given.steered.shape and torch.equal(given.base, given.steered):
        found.append("Base and steered images are equal, bit for bit: nothing was steered, or one output is connected twice.")
    elif given.base.shape[1:3] != given.steered.shape[1:3]:
        (h, w), (h2, w2) = given.base.shape[1:3], given.steered.shape[1:3]
        found.append(f"Base images are {w} x {h} pixels and steered ones {w2} x {h2}: part of what differs may be the size.")
    if given.reference is not None and any(
        i.shape == given.reference.shape and torch.equal(i, given.reference) for i in (given.base, given.steered)
    ):
        found.append("The reference images are one of the two sets, bit for bit: distances to them say nothing.")
    return found


def same_network(a: HostClassifier, b: HostClassifier) -> bool:
    """Whether two classifiers are one: the same object, or the same weights under whatever name."""
    first, second = a.model.state_dict(), b.model.state_dict()
    return a is b or (first.keys() == second.keys() and all(_equal(first[k], second[k]) for k in first))


def _equal(a: Any, b: Any) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and torch.equal(a.detach().cpu(), b.detach().cpu())


def _distinct(names: Sequence[str]) -> list[str]:
    """Names with a number where two are the same."""
    return [n if n not in names[:i] else f"{n} ({names[:i].count(n) + 1})" for i, n in enumerate(names)]


def _reader(classifier: HostClassifier, name: str, given: ReportInputs, reference: bool = False) -> Reader:
    read = classifier.probabilities
    real = read(given.reference) if reference and given.reference is not None else None
    return Reader(name, classifier.attributes, read(given.base), read(given.steered), real)


def _embeddings(
    given: ReportInputs, graph: Mapping[str, Any] | None, node_id: str | None
) -> tuple[list[Embedding], tuple[Tensor, Tensor, Tensor] | None, list[str]]:
    """Features of CLIP's image encoder, where one is given, and of the judge; embeddings of images and prompt; what could not be had."""
    sets = (given.base, given.steered, given.reference)
    embeddings, told, prompted = [], [], None
    if given.vision is not None:
        files = {what: files_behind(graph, node_id, name) for what, name in (("vision", "clip_vision"), ("clip", "clip"))}
        name = files["vision"][0].name if files["vision"] else "the connected CLIP_VISION"
        projected = isinstance(getattr(getattr(given.vision.model, "visual_projection", None), "weight", None), Tensor)
        base, steered, reference = (None if s is None else vision_features(given.vision, s) for s in sets)
        assert base is not None and steered is not None
        embeddings.append(Embedding(name, base, steered, reference, clip=projected))
        if given.prompt.strip() and given.clip is not None:
            direction, _ = text_directions(given.clip, {"prompt": {"text": (given.prompt.strip(),)}}, ("{}",), files, given.vision)
            prompted = base, steered, direction["prompt"]
    if given.prompt.strip() and prompted is None:
        told.append("Agreement with the prompt is not stated: it needs clip_vision and clip, the image and the text encoder of one CLIP.")
    if given.inception and (why := missing(inception_folder())):
        told.append(f"{why} Weights belong into {INCEPTION}.")
    elif given.inception:
        base, steered, reference = (None if s is None else _inception(s) for s in sets)
        assert base is not None and steered is not None
        embeddings.append(Embedding("Inception (clean-fid)", base, steered, reference))
    base, steered, reference = (None if s is None else given.judge.embed(s) for s in sets)
    embeddings.append(Embedding(f"{given.judge.name} (the judge's own features)", base, steered, reference))
    return embeddings, prompted, told


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
