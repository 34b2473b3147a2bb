"""Prune Classifier Curve."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ...charts.neuron_path.prune_curve import PrunedPoint, prune_chart
from ...host.core.progress import host_progress
from ...host.neuron_path.models import pixels_of, targets_of
from ...methods.neuron_path.image_estimates import Estimate
from ...methods.neuron_path.path_settings import MARGIN, OBJECTIVES
from ...methods.neuron_path.prune_curve import PruneCurve, PruneSettings, prune_curve
from ...models.neuron_path import NeuronPathFile
from ...models.neuron_vit import NeuronVit
from ..core.inputs import fixed_seed, names_of
from ..core.sockets import LAB, NeuronPaths, schema
from ..core.ui import as_image, shown
from .neuron_inputs import LAYERS, PATH, VISION, attribute_input


class PruneClassifierCurve(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoisePruneClassifierCurve",
            display_name="Prune Classifier Curve",
            category=LAB,
            description=(
                "Measures how few neurons a label needs. It finds class paths in half of the images, silences all other "
                "neurons and reads the other half, with random neurons as a control. Pruning saves neither time nor memory."
            ),
            search_aliases=["pruning", "sparsity", "keep only", "ablation", "neuron", "top-k", "compression"],
            inputs=[
                io.Image.Input("images", tooltip="Images of all classes: at least 8, better 100 or more. Every second image is held out."),
                *VISION.inputs(),
                attribute_input(),
                io.String.Input(
                    "truth",
                    default="",
                    tooltip="True classes, one per image, separated by commas. Empty: the classes that the full model reads.",
                ),
                io.String.Input(
                    "kept", default="1, 5, 10, 20, 50", tooltip="Number of neurons to keep per layer and class. The node tries each number."
                ),
                io.String.Input(
                    "pruned",
                    default="0.1, 0.3, 0.5, 1",
                    tooltip="Probability that each other neuron is silenced. The node tries each value.",
                ),
                PATH.search("How paths are found. The help page of Find Neuron Path explains the choices."),
                io.Combo.Input(
                    "objective",
                    options=list(OBJECTIVES),
                    default=MARGIN,
                    tooltip="Score that paths explain. The help page of Find Neuron Path explains the choices.",
                ),
                *LAYERS.inputs("prune"),
                io.Int.Input(
                    "control_draws",
                    default=3,
                    min=1,
                    max=100,
                    tooltip="Number of random selections to compare with. They have as many neurons in the same layers.",
                ),
                fixed_seed("Seed of the control, and of the silenced neurons if the probability is below 1."),
                PATH.memory(),
            ],
            outputs=[
                io.Image.Output(
                    "chart", display_name="chart", tooltip="Accuracy and probability on held-out images, by number of neurons kept."
                ),
                io.String.Output(
                    "report", display_name="report", tooltip="The table with 95% intervals, the recommended number, and what pruning saves."
                ),
                NeuronPaths.Output(
                    "neuron_path",
                    display_name="neuron path",
                    tooltip="The neurons of the recommended number, for keep-only in Edit Vision Neurons.",
                ),
                io.Int.Output(
                    "recommended",
                    display_name="recommended",
                    tooltip="Recommended number of neurons per layer and class. 0 means that no number is enough.",
                ),
            ],
        )

    @classmethod
    def execute(cls, images: torch.Tensor, attribute: str, truth: str, kept: str, pruned: str, **widgets: Any) -> io.NodeOutput:
        net = VISION.take(widgets, attribute)
        pixels = pixels_of(net, images)
        settings = PruneSettings(
            layers=LAYERS.take(widgets, net),
            kept=tuple(int(k) for k in numbers(kept, "kept")),
            shares=tuple(numbers(pruned, "pruned")),
            path=PATH.take(widgets),
            control_draws=widgets["control_draws"],
            seed=widgets["seed"],
        )
        true = targets_of(net, pixels, truth) if truth.strip() else None
        curve = prune_curve(net, pixels, true, settings, host_progress("Prune Classifier Curve"))
        name = VISION.name(widgets, net)
        caption = f"{name}: {curve.fitted} images chose neurons, {curve.images} others are read"
        chart = as_image(prune_picture(f"how few neurons {net.name} needs", curve, caption))
        report = "\n".join([name, *curve.lines(net)])
        file = recommended_path(curve, net, settings, name)
        return io.NodeOutput(chart, report, file, curve.recommended or 0, ui=shown(cls, chart, report))


def numbers(text: str, what: str) -> list[float]:
    """Read numbers between commas.

    Raises ValueError for anything else.
    """
    try:
        return [float(x) for x in names_of(text)]
    except ValueError as error:
        raise ValueError(f"'{what}' takes numbers with commas between them, and met '{text[:60]}'.") from error


def prune_picture(title: str, curve: PruneCurve, caption: str) -> Any:
    """Draw the curve."""

    def bounds(e: Estimate) -> tuple[float, float, float]:
        return e.mean, e.low, e.high

    points = [
        PrunedPoint(p.kept, p.share, *(bounds(e) for e in (p.accuracy, p.probability, p.control_accuracy, p.control_probability)))
        for p in curve.points
    ]
    return prune_chart(title, points, (curve.accuracy.mean, curve.probability.mean), curve.recommended, caption, curve.known)


def recommended_path(curve: PruneCurve, net: NeuronVit, s: PruneSettings, model: str) -> NeuronPathFile:
    """Return the paths of the recommended number of neurons.

    A row for each class; of the largest number if none is recommended.
    """
    path = curve.paths[:, :, : curve.recommended or max(s.kept)]
    nothing, zeros = torch.full((len(path),), torch.nan), torch.zeros(path.shape)
    target = tuple(net.labels[c] for c in curve.classes)
    info = {"model": model, "objective": s.path.objective, "rows": net.rows}
    scores = (zeros, zeros, nothing, nothing, nothing)
    return NeuronPathFile("pruning", net.name, net.labels, target, path, *scores, net.neurons, net.fingerprint(), True, info)


NODES = [PruneClassifierCurve]
