"""CLIP Attribute Classifier."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.labels.clip_classifier import ClipClassifier
from ...host.labels.clip_projection import clip_files
from ...methods.labels.label_text import parse_classes
from ...methods.labels.zero_shot import phrasings, read_templates
from ..core.queued import queued_graph, queued_id
from ..core.sockets import MEASURE, Classifier, schema
from .source_inputs import CLASSES_TIP, CLIP_CLASSES, CLIP_TEMPLATES, first_problem


class CLIPAttributeClassifier(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseCLIPAttributeClassifier",
            display_name="CLIP Attribute Classifier",
            category=MEASURE,
            description=(
                "Makes a classifier from CLIP and your words (CLIP zero-shot, Radford et al. 2021). It counts images by classes that you "
                "describe, without any training. It reads how something looks, not who a person is, and it makes errors."
            ),
            search_aliases=["zero-shot", "judge", "count", "gender", "women", "diversity", "attribute"],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            inputs=[
                io.ClipVision.Input("clip_vision", tooltip="CLIP's image encoder, from Load CLIP Vision. It must match clip."),
                io.Clip.Input(
                    "clip",
                    tooltip="Text encoder of the same CLIP, with its projection: from an SDXL checkpoint for ViT-bigG, from SD2.x for "
                    "ViT-H, from OpenAI's full ViT-L/14 for ViT-L. SD1.5 checkpoints have none.",
                ),
                io.String.Input(
                    "classes",
                    default=CLIP_CLASSES,
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip=f"{CLASSES_TIP} CLIP compares the phrases. Describe what is visible, because CLIP hardly understands 'no' "
                    "and 'without'.",
                ),
                io.String.Input(
                    "templates",
                    default=CLIP_TEMPLATES,
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip="Sentences for the phrases, one per line. Each phrase takes the place of {}. All sentences are averaged. A "
                    "line with only {} uses the phrases as they are.",
                ),
            ],
            outputs=[
                Classifier.Output(
                    "classifier", display_name="classifier", tooltip="For Attribute Histogram and the other nodes that count images."
                ),
                io.String.Output("text", display_name="text", tooltip="The attributes with their classes, and which text encoder is used."),
            ],
        )

    @classmethod
    def validate_inputs(cls, classes: str | None, templates: str | None) -> bool | str:
        def read() -> None:
            for attribute, named in parse_classes(classes).items():
                for members in named.values():
                    phrasings(members, (), attribute)

        return first_problem(*([read] if classes else []), lambda: read_templates(templates or ""))

    @classmethod
    def execute(cls, clip_vision: io.ClipVision.Type, clip: io.Clip.Type, classes: str, templates: str) -> io.NodeOutput:
        files = clip_files(queued_graph(cls), queued_id(cls))
        classifier = ClipClassifier(clip_vision, clip, parse_classes(classes), read_templates(templates), files)
        lines = [f"{a}: {', '.join(c)}" for a, c in classifier.attributes.items()]
        return io.NodeOutput(classifier, "\n".join([*lines, f"CLIP: {classifier.note}"]))


NODES = [CLIPAttributeClassifier]
