"""Label Features With CLIP."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ...host.labels.clip_projection import clip_files
from ...host.labels.clip_zero_shot import COSINE, clip_source
from ...methods.data.feature_set import FeatureSet
from ...methods.labels.label_text import parse_classes
from ...methods.labels.labels import LabelSet
from ...methods.labels.regions import parse_box
from ...methods.labels.zero_shot import phrasings, read_templates
from ..core.queued import queued_graph, queued_id
from ..core.sockets import MAKE, schema
from .source_inputs import (
    CLASSES_TIP,
    CLIP_CLASSES,
    CLIP_TEMPLATES,
    PERCEIVED,
    features_input,
    first_problem,
    label_output,
    label_outputs,
    labels_in_region,
    labels_input,
    region_inputs,
)


class LabelFeaturesWithCLIP(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLabelFeaturesWithCLIP",
            display_name="Label Features With CLIP",
            category=MAKE,
            description=(
                "Labels the pictures of a feature set with classes that you describe in words (CLIP zero-shot, Radford et al. "
                "2021). Each class is the mean of a few phrases. The CLIP must hold its text projection and match the image encoder. "
                + PERCEIVED
            ),
            search_aliases=["zero-shot", "annotate", "clip vision", "text classes", "attribute"],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            inputs=[
                features_input(),
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
                *region_inputs(),
                labels_input(),
            ],
            outputs=label_outputs(),
        )

    @classmethod
    def validate_inputs(cls, classes: str, templates: str, crop: str) -> bool | str:
        def read() -> None:
            for attribute, named in parse_classes(classes).items():
                for members in named.values():
                    phrasings(members, (), attribute)

        return first_problem(*([read] if classes else []), lambda: read_templates(templates or ""), lambda: parse_box(crop or ""))

    @classmethod
    def execute(
        cls,
        features: FeatureSet,
        clip_vision: io.ClipVision.Type,
        clip: io.Clip.Type,
        classes: str = CLIP_CLASSES,
        templates: str = CLIP_TEMPLATES,
        crop: str = "",
        mask: torch.Tensor | None = None,
        labels: LabelSet | None = None,
    ) -> io.NodeOutput:
        files = clip_files(queued_graph(cls), queued_id(cls))
        source, encoder = clip_source(clip_vision, clip, parse_classes(classes), read_templates(templates), files)
        new_labels, other = labels_in_region(features, source, crop, mask)
        cosine = float(other[COSINE].median())
        near = "about 0.15 to 0.35 where phrases, text and image encoder fit; near 0 the encoders do not belong together"
        return label_output(
            labels, new_labels, f"CLIP: {encoder}; the best phrase's cosine is {cosine:.2f} for the median picture ({near})"
        )


NODES = [LabelFeaturesWithCLIP]
