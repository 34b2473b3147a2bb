"""Neuron paths as files: the neurons of every layer that decide a class, image by image, with what each adds and what all do together.

Wang et al., "Discovering Influential Neuron Path in Vision Transformers", ICLR 2025. A path holds for the network that it was found in: the
network's fingerprint is kept, and any other is refused.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .files import FileFormat, named_classes, write_safetensors
from .neuron_vit import NeuronVit

FORMAT = FileFormat(
    "equipoise-neuron-path", other="holds no neuron paths", choose="choose a file that Save Neuron Path wrote", mend="find the path again"
)
_FIGURES = ("activation", "contribution", "joint", "additive", "objective")


@dataclass(frozen=True)
class NeuronPathFile:
    """Paths of B images through L layers, with K neurons in each.

    As a file holds them. Raises ValueError if shapes do not fit each other.
    """

    method: str
    """Search or baseline that made the paths."""
    attribute: str
    """Attribute that the head reads."""
    labels: tuple[str, ...]
    """Classes of the head, in order."""
    target: tuple[str, ...]
    """Class of each image."""
    path: Tensor
    """Neurons int64 [B, L, K], best first."""
    activation: Tensor
    """Activations of these neurons in the clean image, [B, L, K]."""
    contribution: Tensor
    """What each neuron adds to the additive part, [B, L, K]."""
    joint: Tensor
    """Joint attribution score [B]; NaN: not measured."""
    additive: Tensor
    """Fall of the objective when the whole path is removed, [B]; NaN: not measured."""
    objective: Tensor
    """Objective of the clean image, [B]; NaN: not measured."""
    neurons: int
    """Neurons of a layer."""
    fingerprint: str
    """Fingerprint of the network (:meth:`.neuron_vit.NeuronVit.fingerprint`)."""
    shared: bool = False
    """Whether paths belong to classes, so that rows of one class are the same."""
    info: dict[str, Any] = field(default_factory=dict)
    """Settings, and the model's name."""

    def __post_init__(self) -> None:
        shape = tuple(self.path.shape)
        if len(shape) != 3 or not self.path.numel() or self.path.is_floating_point():
            raise ValueError(
                f"neuron paths are whole numbers of the shape images x layers x neurons, and these have the shape {list(shape)}."
            )
        for name in _FIGURES:
            met, wanted = tuple(getattr(self, name).shape), shape if name in _FIGURES[:2] else shape[:1]
            if met != wanted:
                raise ValueError(f"{name} of {shape[0]} neuron path(s) has the shape {list(met)}, expected {list(wanted)}.")
        if len(self.target) != shape[0] or set(self.target) - set(self.labels):
            raise ValueError(
                f"{shape[0]} neuron path(s) need as many classes out of {', '.join(self.labels)}, and got {list(self.target)}."
            )
        low, high = int(self.path.min()), int(self.path.max())
        if not 0 <= low <= high < self.neurons:
            raise ValueError(f"neurons of a path have numbers from 0 to {self.neurons - 1}, and these have {low} to {high}.")
        if self.shared and any(len(self.path[[i for i, t in enumerate(self.target) if t == c]].unique(dim=0)) > 1 for c in self.classes):
            raise ValueError("a shared neuron path must be the same for all images of a class, and these differ.")

    @property
    def images(self) -> int:
        """Number of paths."""
        return self.path.shape[0]

    @property
    def depth(self) -> int:
        """Number of layers."""
        return self.path.shape[1]

    @property
    def top_k(self) -> int:
        """Neurons of a layer that are on the path."""
        return self.path.shape[2]

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes that there are paths of, in the head's order."""
        return tuple(c for c in self.labels if c in self.target)

    def targets(self) -> Tensor:
        """Return the position in the head of each image's class, int64 [B]."""
        return torch.tensor([self.labels.index(t) for t in self.target])

    def of_class(self, label: str) -> NeuronPathFile:
        """Return the paths of one class.

        Raises ValueError, naming the known classes.
        """
        if label not in self.target:
            raise ValueError(f"there is no path of the class '{label}' of '{self.attribute}'; there are: {', '.join(self.classes)}.")
        return self.rows([i for i, t in enumerate(self.target) if t == label])

    def for_images(self, labels: Sequence[str]) -> Tensor:
        """Return a path for each of B images, int64 [B, L, K].

        Its own, or, if paths are shared, that of its class.

        Raises ValueError for another number of images, and for a class without a path.
        """
        if not self.shared:
            if len(labels) != self.images:
                raise ValueError(
                    f"there are {self.images} neuron path(s), one for each image, and {len(labels)} image(s): connect the images that the "
                    "paths were found in, or make a class path of them."
                )
            return self.path
        if len(self.path.unique(dim=0)) == 1:
            return self.path[:1].expand(len(labels), -1, -1)
        for label in labels:
            if label not in self.target:
                raise ValueError(f"there is no path of the class '{label}' of '{self.attribute}'; there are: {', '.join(self.classes)}.")
        return self.path[[self.target.index(label) for label in labels]]

    def rows(self, index: Sequence[int]) -> NeuronPathFile:
        """Return some of the paths."""
        chosen = torch.tensor(list(index), dtype=torch.long)
        parts = {name: getattr(self, name)[chosen] for name in ("path", *_FIGURES)}
        return replace(self, target=tuple(self.target[i] for i in index), **parts)

    def text(self) -> str:
        """Describe the file in lines."""
        what = "a path for each class" if self.shared else "a path for each image"
        count = Counter(self.target)
        model = self.info.get("model") or "a vision transformer"
        unit = "channels of all patches" if self.info.get("rows") == "patches" else "neurons at the CLS token"
        lines = [
            f"{self.attribute} by {self.method} in {model} ({self.fingerprint}): {what}, "
            + ", ".join(c if self.shared else f"{c} {count[c]}" for c in self.classes),
            f"{self.depth} layers, {self.top_k} of {self.neurons} {unit} in each",
        ]
        if bool(self.joint.isnan().any()):
            return "\n".join([*lines, "joint score and additive part were not measured: no model was connected"])
        score = f"{self.info.get('objective', 'objective')} {float(self.objective.mean()):.4g}"
        scores = (
            f"mean joint score {float(self.joint.mean()):.4g}; additive part (lost if the path is removed and later layers keep their "
            "values) "
        )
        return "\n".join([*lines, f"{scores}{float(self.additive.mean()):.4g} of the {score}"])


def check_network(paths: NeuronPathFile, net: NeuronVit) -> None:
    """Raise ValueError if paths were found in another network.

    Their numbers would mean other neurons.
    """
    met = net.fingerprint()
    if paths.fingerprint == met:
        return
    theirs = f"{paths.info.get('model') or 'a model'} with {paths.depth} layers of {paths.neurons} neurons, {paths.fingerprint}"
    raise ValueError(
        f"this neuron path was found in another model ({theirs}) than the connected one ({net.depth} layers of {net.neurons} neurons, "
        f"{met}): connect the model that it was found in, or find a path in this one."
    )


def save_neuron_path(paths: NeuronPathFile, path: str | os.PathLike[str]) -> None:
    """Write neuron paths as safetensors."""
    tensors = {"path": paths.path.long(), **{name: getattr(paths, name).float() for name in _FIGURES}}
    meta = {
        **FORMAT.header(),
        "method": paths.method,
        "attribute": paths.attribute,
        "labels": json.dumps(paths.labels),
        "target": json.dumps(paths.target),
        "neurons": str(paths.neurons),
        "fingerprint": paths.fingerprint,
        "shared": json.dumps(paths.shared),
        "info": json.dumps(paths.info),
    }
    write_safetensors(path, tensors, meta)


def load_neuron_path(path: str | os.PathLike[str]) -> NeuronPathFile:
    """Load what :func:`save_neuron_path` wrote, on the CPU.

    Raises ValueError where the file is of another kind or damaged.
    """
    return FORMAT.load(path, _read_neuron_path)


def _read_neuron_path(tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> NeuronPathFile:
    return NeuronPathFile(
        method=meta["method"],
        attribute=meta["attribute"],
        labels=named_classes({meta["attribute"]: json.loads(meta["labels"])})[meta["attribute"]],
        target=tuple(json.loads(meta["target"])),
        path=tensors["path"],
        **{name: tensors[name].float() for name in _FIGURES},
        neurons=int(meta["neurons"]),
        fingerprint=meta["fingerprint"],
        shared=bool(json.loads(meta["shared"])),
        info=dict(json.loads(meta["info"])),
    )
