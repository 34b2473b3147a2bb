"""Classifiers and CLIP vision models with some of their neurons edited, as every other node takes them; the originals stay as they are.

A classifier is edited by hooks that stand only during its forward pass. A CLIP_VISION is a shallow copy whose cloned patcher carries
object patches on the perceptrons' activations: the host puts them in when the copy is used and takes them away when the original is, so
CLIP Vision Encode and whatever else encodes images with it run on the edited model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import torch
from torch import Tensor, nn

from ...methods.neuron_path.neuron_edits import ALL_ROWS, ONE_ROW, NeuronEdit
from ...models.attribute_classifier import AttributeClassifier
from ...models.digests import values_digest
from ...models.neuron_adapters import IN_LAYER, LAYER
from ...models.neuron_vit import CLS, NeuronVit
from ...models.zero_shot_head import ZeroShotHead
from ..core.types import ClipVision, Model
from ..labels.classifier import HostClassifier
from ..labels.clip_zero_shot import EDIT_MARK
from .models import vision_of

ROWS = (ONE_ROW, ALL_ROWS)
PATCHED = "vision_model.encoder.layers.{}.mlp.activation"
Change = Callable[[int, Tensor], Tensor]
"""change(layer, hidden [B, N, D] of all tokens) -> the hidden vectors to go on with."""


class EditedNetwork(AttributeClassifier):
    """A classifier's network with edited neurons.

    Hidden vectors are changed before each layer's second linear map, in its own forward passes alone. The original network is shared, not
    copied.
    """

    architecture = "edited"

    def __init__(self, network: AttributeClassifier, change: Change) -> None:
        super().__init__(network.attributes, network.image_size)
        self.network, self._change = network, change

    @property
    def config(self) -> dict[str, Any]:
        """Configuration of the original network."""
        return self.network.config

    def preprocess(self, images: Tensor) -> Tensor:
        """Preprocess images as the original does."""
        return self.network.preprocess(images)

    def features(self, pixels: Tensor) -> Tensor:
        """Compute features with the edits."""
        with hooked(self.network, self._change):
            return self.network.features(pixels)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Compute logits with the edits."""
        with hooked(self.network, self._change):
            return self.network(pixels)


class EditedClassifier(HostClassifier):
    """What the socket EQUIPOISE_CLASSIFIER carries, with neurons edited.

    ``original``: the classifier it was made of; ``edits``: one after the other; its patcher is the original's, so that the weights are in
    memory once.
    """

    def __init__(self, original: HostClassifier, edits: Sequence[NeuronEdit], rows: str, net: NeuronVit) -> None:
        self.original, self.edits, self.rows = original, tuple(edits), rows
        self.name, self.attributes, self.patcher = f"{original.name} (edited)", original.attributes, original.patcher
        self.model = EditedNetwork(original.model, changing(self.edits, rows, net.rows))

    def fingerprint(self) -> str:
        """Return the original's fingerprint with a hash of the edits."""
        return f"{self.original.fingerprint()}|{digest_of(self.edits, self.rows)}"


class EditedActivation:
    """In the place of one layer's activation: what it gives, changed."""

    def __init__(self, activation: Callable[[Tensor], Tensor], layer: int, change: Change) -> None:
        self.activation, self.layer, self.change = activation, layer, change

    def __call__(self, x: Tensor) -> Tensor:
        return self.change(self.layer, self.activation(x))


def edited_classifier(classifier: HostClassifier, edit: NeuronEdit, rows: str, net: NeuronVit) -> EditedClassifier:
    """Return a classifier with one more edit.

    ``net``: its transformer (:func:`unedited_net`).
    """
    if isinstance(classifier, EditedClassifier):
        if classifier.rows != rows:
            raise ValueError(f"this classifier was edited at '{classifier.rows}' already: choose the same rows, or edit the original.")
        return EditedClassifier(classifier.original, (*classifier.edits, edit), rows, net)
    return EditedClassifier(classifier, (edit,), rows, net)


def edited_clip_vision(vision: ClipVision, edit: NeuronEdit, rows: str) -> Any:
    """Return a CLIP_VISION with one more edit.

    Raises ValueError if the rows of an earlier edit were others.
    """
    earlier, met = edits_of(vision), getattr(vision, "equipoise_rows", rows)
    if met != rows:
        raise ValueError(f"this CLIP vision model was edited at '{met}' already: choose the same rows, or edit the original.")
    original = original_of(vision)
    edits = (*earlier, edit)
    made = _patched(original, changing(edits, rows, CLS))
    made.equipoise_original, made.equipoise_edits, made.equipoise_rows = original, edits, rows
    setattr(made, EDIT_MARK, digest_of(edits, rows))
    return made


def original_of(model: Model) -> Any:
    """Return the model that an edited one was made of.

    A model that is not edited is returned itself.
    """
    return model.original if isinstance(model, EditedClassifier) else getattr(model, "equipoise_original", model)


def edits_of(vision: ClipVision) -> tuple[NeuronEdit, ...]:
    """List the edits of a CLIP_VISION."""
    return getattr(vision, "equipoise_edits", ())


def unedited_net(classifier: HostClassifier | None, vision: ClipVision | None, attribute: str = "") -> NeuronVit:
    """Return the transformer of a model before any edit.

    Of a CLIP_VISION, with an empty head, since edits need none. Errors as of :func:`.vision_neurons.vision_of`.
    """
    if classifier is not None or vision is None:
        first = None if classifier is None else original_of(classifier)
        return vision_of(first, vision, None, attribute.strip() or ("" if first is None else next(iter(first.attributes))))
    original = original_of(vision)
    projection = getattr(getattr(original.model, "visual_projection", None), "weight", None)
    width = projection.shape[0] if isinstance(projection, Tensor) else 1
    return vision_of(None, original, ZeroShotHead("", ("first", "second"), torch.eye(2, max(2, width)), 1.0, {}))


def changing(edits: Sequence[NeuronEdit], rows: str, where: str) -> Change:
    """Make the function that edits hidden vectors.

    It edits the rows where neurons are (``where``: as of the network), or all rows.
    """

    def change(layer: int, hidden: Tensor) -> Tensor:
        at = slice(None) if rows == ALL_ROWS else slice(0, 1) if where == CLS else slice(1, None)
        part = hidden[:, at]
        for edit in edits:
            part = edit.applied(layer, part)
        if rows == ALL_ROWS:
            return part
        return torch.cat([part, hidden[:, 1:]], dim=1) if where == CLS else torch.cat([hidden[:, :1], part], dim=1)

    return change


@contextmanager
def hooked(network: nn.Module, change: Change) -> Iterator[None]:
    """Give a network's second linear maps changed hidden vectors, within a context."""
    handles = []
    try:
        for layer, module in second_maps(network).items():

            def before(_: nn.Module, args: tuple[Tensor, ...], layer: int = layer) -> tuple[Tensor, ...]:
                return (change(layer, args[0]), *args[1:])

            handles.append(module.register_forward_pre_hook(before))
        yield
    finally:
        for handle in handles:
            handle.remove()


def second_maps(network: nn.Module) -> dict[int, nn.Module]:
    """List the linear map that reads the neurons of each layer."""
    modules = {}
    for name, module in network.named_modules():
        match = LAYER.search(name)
        if match and match[2] in IN_LAYER["fc2"]:
            modules[int(match[1])] = module
    return modules


def digest_of(edits: Sequence[NeuronEdit], rows: str) -> str:
    """Hash what is edited."""
    parts: list[str | torch.Tensor] = [rows]
    for e in edits:
        parts += [repr((e.operation, e.factor, e.share, e.seed, e.layers, tuple(e.neurons.shape))), e.neurons.long()]
        parts += [] if e.means is None else [e.means.float()]
    return values_digest(parts)


def _patched(original: Any, change: Change) -> Any:
    # An edited clone that was used last may still have its activations in the shared network.
    comfy.model_management.load_model_gpu(original.patcher)
    made = copy.copy(original)
    made.patcher = original.patcher.clone()
    for layer in range(len(original.model.vision_model.encoder.layers)):
        name = PATCHED.format(layer)
        made.patcher.add_object_patch(name, EditedActivation(made.patcher.get_model_object(name), layer, change))
    return made


def described(edit: NeuronEdit, net: NeuronVit, rows: str) -> str:
    """Describe an edit in words."""
    named = int((edit.neurons >= 0).sum()) if edit.neurons.ndim == 2 else int((edit.neurons[0] >= 0).sum())
    at = "all tokens" if rows == ALL_ROWS else "the CLS token" if net.rows == CLS else "the patch tokens"
    how: Mapping[str, str] = {
        "zero": f"{named} neurons are set to 0",
        "scale": f"{named} neurons are multiplied by {edit.factor:g}",
        "mean": f"{named} neurons are held at their mean",
        "keep-only": f"all but {named} neurons are set to 0 with a probability of {edit.share:g}",
    }
    layers = f" in layers {edit.layers[0]} to {edit.layers[1]}" if edit.layers else ""
    return f"{how[edit.operation]} at {at}{layers}, of {net.depth} layers of {net.neurons}"
