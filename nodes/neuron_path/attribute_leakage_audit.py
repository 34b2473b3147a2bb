"""Attribute Leakage Audit."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ...charts.neuron_path.leakage import leakage_chart
from ...host.core.blocked import blocked
from ...host.core.progress import host_progress
from ...host.neuron_path.models import pixels_of
from ...host.neuron_path.neuron_audit import audited_nets
from ...methods.neuron_path.leakage_audit import AuditSettings, Carriers, LeakageAudit, audit_leakage, leak_carriers
from ...methods.neuron_path.neuron_text import pairs
from ...methods.neuron_path.path_settings import MARGIN, OBJECTIVES
from ...models.neuron_vit import NeuronVit
from ..core.inputs import fixed_seed, names_of
from ..core.sockets import LAB, NeuronPaths, ZeroShot, schema
from ..core.ui import as_image, shown
from .neuron_inputs import MOST_NEURONS, PATH, VISION
from .neuron_path_effect import MORE_HEADS


class AttributeLeakageAudit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseAttributeLeakageAudit",
            display_name="Attribute Leakage Audit",
            category=LAB,
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
                    "cannot tell a correlation in the images from a leak. A joint target makes such images.",
                ),
                *VISION.inputs(),
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
                PATH.memory(),
                *(ZeroShot.Input(name, optional=True, tooltip="Another attribute of the CLIP vision model.") for name in more_head_ids()),
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
    def execute(cls, images: torch.Tensor, attributes: str, source: str, target: str, seed: int, **widgets: Any) -> io.NodeOutput:
        heads = [widgets.get(name) for name in ("zero_shot_head", *more_head_ids())]
        nets = audited_nets(widgets.get("classifier"), widgets.get("clip_vision"), heads, names_of(attributes))
        named = pair_of(source, target, tuple(nets))
        net = next(iter(nets.values()))
        model, pixels = VISION.name(widgets, net), pixels_of(net, images)
        settings = AuditSettings(PATH.take(widgets), widgets["control_draws"], widgets["least"], seed)
        audit = audit_leakage(nets, pixels, settings, host_progress("Attribute Leakage Audit"))
        a, b = named or largest_leak(audit)
        try:
            carriers = leak_carriers(nets[b], pixels, audit.read[a], a, b, seed=seed, progress=host_progress("Attribute Leakage Audit"))
        except ValueError as error:
            if named:
                raise
            carriers, reason = None, str(error)  # the audit is useful without carriers
        caption = f"{audit.images} images, {model}, {widgets['top_k']} neurons of each layer"
        if carriers is None:
            lines, carrier_outputs = [f"no carriers: {reason}"], (blocked(reason), blocked(reason))
        else:
            lines = carrier_lines(carriers, nets, audit.leak(a, b).flagged)
            carrier_outputs = (carriers.file(nets[b], model), pairs(carriers.neurons))
        chart, report = audit_image(audit, caption), "\n".join([caption, *audit_lines(audit), *lines])
        return io.NodeOutput(chart, report, *carrier_outputs, len(audit.warnings()), ui=shown(cls, chart, report))


def more_head_ids() -> list[str]:
    """Return the ids of the sockets for further zero-shot heads."""
    return [f"zero_shot_head_{i + 2}" for i in range(MORE_HEADS)]


def audit_image(audit: LeakageAudit, caption: str) -> torch.Tensor:
    """Draw the audit of every pair as an IMAGE.

    The overlap of the paths, and the labels that change.
    """
    flagged = [(audit.attributes.index(x.source), audit.attributes.index(x.target)) for x in audit.flagged]
    control = torch.tensor([[audit.leak(x, y).control_flips for y in audit.attributes] for x in audit.attributes])
    tables = (audit.table(what).numpy() for what in ("cosine", "flips"))
    return as_image(leakage_chart(audit.attributes, *tables, control.numpy(), flagged, audit.warnings(), caption))


def pair_of(source: str, target: str, names: tuple[str, ...]) -> tuple[str, str] | None:
    """Return the pair that the user named; None if a name is empty.

    Raises ValueError for one that is not audited.
    """
    a, b = source.strip(), target.strip()
    if not a or not b:
        return None
    for name in (a, b):
        if name not in names:
            raise ValueError(f"'{name}' is not audited; audited are: {', '.join(names)}.")
    if a == b:
        raise ValueError(f"carriers run from one attribute into another, and both are '{a}': name two, or none.")
    return a, b


def largest_leak(audit: LeakageAudit) -> tuple[str, str]:
    """Return the pair with the largest leak.

    Removing one's path changes most of the other's labels, beyond random paths.
    """
    worst = max((x for x in audit.leaks if x.source != x.target), key=lambda x: (x.excess_flips.mean, x.excess_moved.mean))
    return worst.source, worst.target


def audit_lines(audit: LeakageAudit) -> list[str]:
    """Write the warnings and a line for each pair."""
    warnings = audit.warnings() or ["no leak: no attribute's labels lean on another's path more than on random ones"]
    return [*warnings, f"differences hold with {audit.level:.1%} each, 95% together", *(x.text() for x in audit.leaks)]


def carrier_lines(c: Carriers, nets: dict[str, NeuronVit], warned: bool) -> list[str]:
    """Describe the carriers and the effect of removing them.

    On images that did not choose them.
    """
    of = nets[c.source].labels
    worth = "" if warned else " (no warning: nothing here needs an edit)"
    return [
        f"carriers of {c.source} into {c.target}: {c.neurons.shape[1]} neurons of each layer{worth}",
        f"'{nets[c.target].labels[c.label]}' is read {c.before.text('.1%')} apart between {of[c.classes[0]]} and {of[c.classes[1]]};"
        f" without them {c.after.text('.1%')}; {c.flips.text('.1%')} of labels change (images that did not choose them)",
    ]


NODES = [AttributeLeakageAudit]
