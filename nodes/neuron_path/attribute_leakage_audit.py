"""Attribute Leakage Audit."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ...charts.neuron_path.leakage import leakage_chart
from ...host.core.blocked import blocked
from ...host.core.progress import host_progress
from ...host.labels.classifier import HostClassifier
from ...host.neuron_path.models import model_name, pixels_of
from ...host.neuron_path.neuron_audit import audited_nets
from ...methods.neuron_path.leakage_audit import AuditSettings, Carriers, LeakageAudit, audit_leakage, leak_carriers
from ...methods.neuron_path.neuron_text import pairs
from ...methods.neuron_path.path_settings import MARGIN, OBJECTIVES, PathSettings
from ...models.neuron_vit import NeuronVit
from ..core.shared_inputs import fixed_seed, names_of
from ..core.sockets import NEURONS, NeuronPaths, ZeroShot, schema
from ..core.ui import as_image, shown
from .neuron_inputs import MOST_NEURONS, memory_input, vision_inputs
from .neuron_path_effect import MORE_HEADS


class AttributeLeakageAudit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseAttributeLeakageAudit",
            display_name="Attribute Leakage Audit",
            category=NEURONS,
            description=(
                "Tests whether a classifier reads one perceived attribute from another. It removes the neurons that decide one "
                "attribute and counts how many labels of the others change, compared with random neurons. Edit Vision Neurons can remove "
                "the neurons of the largest leak."
            ),
            search_aliases=["bias", "shortcut", "spurious", "entanglement", "leak", "audit", "neuron", "fairness", "correlation"],
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="At least 8 images, better 100 or more. The attributes must be independent in them, because the audit "
                    "cannot tell a correlation in the images from a leak. Joint Target makes such images.",
                ),
                *vision_inputs(),
                io.String.Input(
                    "attributes",
                    default="",
                    tooltip="Attributes of the classifier to compare, separated by commas. Empty: all of them. Zero-shot heads are "
                    "always all compared.",
                ),
                io.Int.Input("top_k", default=8, min=1, max=MOST_NEURONS, tooltip="Number of neurons per layer in the path of an image."),
                io.Combo.Input(
                    "objective",
                    options=list(OBJECTIVES),
                    default=MARGIN,
                    tooltip="The score that paths explain. The margin over the next best class also works for images of which the model "
                    "is sure.",
                ),
                io.Float.Input(
                    "least",
                    default=0.02,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    tooltip="The audit reports a leak if it changes at least this share of labels more than random paths do. 0.02 is 2%.",
                ),
                io.Int.Input(
                    "control_draws",
                    default=5,
                    min=1,
                    max=100,
                    tooltip="Random paths per image. They have the same size and the same layers as the real path.",
                ),
                io.String.Input(
                    "source",
                    default="",
                    tooltip="Attribute whose carriers you want. If source or target is empty, you get the carriers of the largest leak.",
                ),
                io.String.Input("target", default="", tooltip="Attribute whose labels the carriers change."),
                fixed_seed("Seed of the random paths, of the halves of the images and of the intervals."),
                memory_input(),
                *(
                    ZeroShot.Input(f"zero_shot_head_{i + 2}", optional=True, tooltip="Another attribute of the CLIP vision model.")
                    for i in range(MORE_HEADS)
                ),
            ],
            outputs=[
                io.Image.Output(
                    "chart",
                    display_name="chart",
                    tooltip="Overlap of the paths and share of labels that change, for every pair, with warnings.",
                ),
                io.String.Output(
                    "report", display_name="report", tooltip="Warnings, the figures of every pair with intervals, and what the carriers do."
                ),
                NeuronPaths.Output(
                    "carriers",
                    display_name="carriers",
                    tooltip="Neurons that carry the largest leak, or the leak of the pair you named. For Edit Vision Neurons. Use them "
                    "only if the audit warns.",
                ),
                io.String.Output("neurons", display_name="neurons", tooltip="The same neurons as text, layer:neuron, separated by commas."),
                io.Int.Output("leaks", display_name="leaks", tooltip="Number of leaks in the report. 0 means that the audit found none."),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        attributes: str,
        top_k: int,
        objective: str,
        least: float,
        control_draws: int,
        source: str,
        target: str,
        seed: int,
        memory_mb: int,
        classifier: HostClassifier | None = None,
        clip_vision: Any = None,
        zero_shot_head: Any = None,
        **more: Any,
    ) -> io.NodeOutput:
        heads = [zero_shot_head, *(more[k] for k in sorted(more))]
        nets = audited_nets(classifier, clip_vision, heads, names_of(attributes))
        wanted = pair_of(source, target, tuple(nets))
        net = next(iter(nets.values()))
        pixels = pixels_of(net, images)
        path = PathSettings(objective=objective, top_k=top_k, memory_mb=memory_mb)
        found = audit_leakage(nets, pixels, AuditSettings(path, control_draws, least, seed), host_progress())
        a, b = wanted or largest_leak(found)
        carriers, reason = None, ""
        try:
            carriers = leak_carriers(nets[b], pixels, found.read[a], a, b, seed=seed, progress=host_progress())
        except ValueError as error:
            if wanted:
                raise
            reason = str(error)  # the audit itself is worth having
        caption = f"{found.images} images, {model_name(net, classifier)}, {top_k} neurons of each layer"
        flagged = [(found.attributes.index(x.source), found.attributes.index(x.target)) for x in found.flagged]
        control = torch.tensor([[found.leak(x, y).control_flips for y in found.attributes] for x in found.attributes])
        tables = (found.table(what).numpy() for what in ("cosine", "flips"))
        warnings = found.warnings()
        chart = as_image(leakage_chart(found.attributes, *tables, control.numpy(), flagged, warnings, caption))
        if carriers is None:
            told, given = [f"no carriers: {reason}"], (blocked(reason), blocked(reason))
        else:
            told = carrier_lines(carriers, nets, found.leak(a, b).flagged)
            given = (carriers.file(nets[b], model_name(net, classifier)), pairs(carriers.neurons))
        report = "\n".join([caption, *audit_lines(found), *told])
        return io.NodeOutput(chart, report, *given, len(warnings), ui=shown(cls, chart, report))


def pair_of(source: str, target: str, names: tuple[str, ...]) -> tuple[str, str] | None:
    """A pair that is named; None where either is empty. Raises ValueError for one that is not audited."""
    a, b = source.strip(), target.strip()
    if not a or not b:
        return None
    for name in (a, b):
        if name not in names:
            raise ValueError(f"'{name}' is not audited; audited are: {', '.join(names)}.")
    if a == b:
        raise ValueError(f"carriers run from one attribute into another, and both are '{a}': name two, or none.")
    return a, b


def largest_leak(found: LeakageAudit) -> tuple[str, str]:
    """The pair in which removing one's path changes most of the other's labels, beyond random paths."""
    worst = max((x for x in found.leaks if x.source != x.target), key=lambda x: (x.excess_flips.mean, x.excess_moved.mean))
    return worst.source, worst.target


def audit_lines(found: LeakageAudit) -> list[str]:
    """Warnings and a line for each pair."""
    warnings = found.warnings() or ["no leak: no attribute's labels lean on another's path more than on random ones"]
    return [*warnings, f"differences hold with {found.level:.1%} each, 95% together", *(x.text() for x in found.leaks)]


def carrier_lines(c: Carriers, nets: dict[str, NeuronVit], warned: bool) -> list[str]:
    """What the carriers are, and what their removal does to images that did not choose them."""
    of = nets[c.source].labels
    worth = "" if warned else " (no warning: nothing here needs an edit)"
    return [
        f"carriers of {c.source} into {c.target}: {c.neurons.shape[1]} neurons of each layer{worth}",
        f"'{nets[c.target].labels[c.label]}' is read {c.before.text('.1%')} apart between {of[c.classes[0]]} and {of[c.classes[1]]};"
        f" without them {c.after.text('.1%')}; {c.flips.text('.1%')} of labels change (images that did not choose them)",
    ]


NODES = [AttributeLeakageAudit]
