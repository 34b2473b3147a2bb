"""Zero-Shot Attribute Head."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...host.core import files as model_files
from ...host.labels.clip_projection import clip_files
from ...host.neuron_path.zero_shot_heads import KEY, ZERO_SHOT_FILES, load_head, make_head
from ...methods.labels.label_text import parse_classes
from ...methods.labels.zero_shot import LOGIT_SCALE, phrasings, read_templates
from ..core.inputs import overwrite_input
from ..core.queued import queued_graph, queued_id
from ..core.sockets import LAB, ZeroShot, schema
from ..labels.source_inputs import CLIP_CLASSES, CLIP_TEMPLATES

NONE = "none"


class ZeroShotAttributeHead(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseZeroShotAttributeHead",
            display_name="Zero-Shot Attribute Head",
            category=LAB,
            description=(
                "Makes a classifier's head from words: CLIP's text embeddings of the classes of an attribute (Radford et "
                "al. 2021). The neuron path nodes can then find which neurons of CLIP's image encoder decide a class. Classes "
                "describe what is perceived. Next: Find Neuron Path."
            ),
            search_aliases=["clip", "zero-shot", "text classes", "labels", "classifier", "neuron path", "attribute"],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            inputs=[
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="CLIP's text encoder with its projection: from an SDXL checkpoint for ViT-bigG, from SD2.x for ViT-H, from "
                    "OpenAI's full ViT-L/14 for ViT-L. SD1.5 checkpoints have none. Not needed if you load a file of embeddings.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="The image encoder that the head is for. It decides which text model of an SDXL clip is used. A clip that "
                    "does not belong to it is refused.",
                ),
                io.String.Input(
                    "classes",
                    default=CLIP_CLASSES,
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip="The attribute and its classes, as attribute: class=phrase|phrase, class=phrase. You choose the names. "
                    "CLIP compares the phrases. Describe what is seen, because CLIP hardly understands 'no' and 'without'.",
                ),
                io.String.Input(
                    "templates",
                    default=CLIP_TEMPLATES,
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip="Sentences, one per line. Each phrase replaces {}. All sentences are averaged. A single {} uses the "
                    "phrases as they are.",
                ),
                io.Float.Input(
                    "scale",
                    default=LOGIT_SCALE,
                    min=0.1,
                    max=1000.0,
                    step=1.0,
                    round=0.01,
                    tooltip="Factor of the cosines before the softmax. OpenAI's CLIP uses 100. A lower factor makes the head less sure.",
                ),
                io.Combo.Input(
                    "head_name",
                    options=[NONE, *model_files.choices(KEY)],
                    default=NONE,
                    tooltip=f"A file from {model_files.folder_hint(KEY)}, instead of clip, classes and templates: a head saved here, or "
                    "text embeddings with a tensor for each class.",
                ),
                io.String.Input(
                    "save_as", default="", tooltip="Name under which the head is saved in that folder. Empty: the head is not saved."
                ),
                overwrite_input(),
            ],
            outputs=[
                ZeroShot.Output(
                    "head",
                    display_name="zero-shot head",
                    tooltip="The head, for the neuron path nodes together with the CLIP vision model.",
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="Dimensions, whether CLIP's projections were found in their files, and how alike the classes are as texts.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, classes: str, templates: str) -> bool | str:
        try:
            for attribute, named in parse_classes(classes or CLIP_CLASSES).items():
                for members in named.values():
                    phrasings(members, (), attribute)
            read_templates(templates or "")
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, head_name: str = NONE, **_: Any) -> str:
        return NONE if head_name == NONE else model_files.fingerprint(KEY, head_name)

    @classmethod
    def execute(
        cls,
        clip: io.Clip.Type | None = None,
        clip_vision: io.ClipVision.Type | None = None,
        classes: str = CLIP_CLASSES,
        templates: str = CLIP_TEMPLATES,
        scale: float = LOGIT_SCALE,
        head_name: str = NONE,
        save_as: str = "",
        overwrite: bool = False,
    ) -> io.NodeOutput:
        if (clip is None) == (head_name == NONE):
            met = "neither is given" if clip is None else "both are given"
            raise ValueError(f"a zero-shot head is made of a CLIP and classes, or loaded from a file, and {met}: choose one of the two.")
        if clip is None:
            head, source = load_head(head_name, scale), f"loaded from '{head_name}'"
        else:
            files = clip_files(queued_graph(cls), queued_id(cls))
            head, source = make_head(clip, parse_classes(classes), read_templates(templates), scale, files, clip_vision)
        report = f"{head.text()}\n{source}"
        if save_as.strip():
            report += f"\nsaved: {ZERO_SHOT_FILES.saved_text(ZERO_SHOT_FILES.write(head, save_as, overwrite))}"
        return io.NodeOutput(head, report, ui=ui.PreviewText(report))


NODES = [ZeroShotAttributeHead]
