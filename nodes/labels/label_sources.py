"""Label Features With Classifier, With CLIP, With Skin Tone, From Prompts and From CSV: one node per source of labels."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from comfy_api.latest import io, ui

from ...host.labels.classifier import HostClassifier
from ...host.labels.clip_projection import files_behind
from ...host.labels.clip_zero_shot import COSINE, clip_source
from ...host.labels.labelling import ImageSource, classifier_source, label_file, label_file_fingerprint, label_images, skin_tone_source
from ...methods.data.feature_set import FeatureSet
from ...methods.labels.label_text import labels_from_prompts, parse_classes
from ...methods.labels.labels import LabelSet, for_entries, joined, read_csv, read_csv_as
from ...methods.labels.regions import Region, parse_box
from ...methods.labels.zero_shot import phrasings, read_templates
from ..core.sockets import TRAINING, Classifier, Features, Labels, schema

PERCEIVED = "Labels describe how something looks in a picture. They say nothing about who a person is."
CLASSES_TIP = "Attributes and their classes, one attribute per line, as attribute: class=phrase|phrase, class=phrase. You choose the names."
CLIP_CLASSES = "eyeglasses: yes=eyeglasses|glasses, no=uncovered eyes|bare eyes"
CLIP_TEMPLATES = "a photo of a person with {}\na portrait of a person with {}\na close-up photo of a face with {}"
PROMPT_CLASSES = "eyeglasses: yes=with eyeglasses|wearing glasses, no=..."
REFUSE, UNSURE = "refuse", "unsure"


def _features_input() -> Any:
    return Features.Input("features", tooltip="The feature set whose pictures are labelled, from Record Features or Load Features.")


def _region_inputs() -> list[Any]:
    return [
        io.String.Input(
            "crop",
            default="",
            tooltip="Part of every picture to read: left, top, width, height, as shares of the picture, such as 0.25, 0.1, 0.5, 0.6. "
            "Empty: the whole picture. There is no face detector, so say where the faces are.",
        ),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="Where to look within the crop. One mask for all pictures, stretched to them, or one for each in the order of the set.",
        ),
    ]


def _labels_input() -> Any:
    return Labels.Input("labels", optional=True, tooltip="Labels of other attributes of the same set. The new labels are added to them.")


def _outputs() -> list[Any]:
    return [
        Labels.Output("labelled", display_name="labels", tooltip="Class probabilities of every picture, for Label Features and Train ADP."),
        io.String.Output("report", display_name="report", tooltip="How often each class occurs, and the share of unsure pictures."),
    ]


def _answer(earlier: LabelSet | None, found: LabelSet, *more: str) -> io.NodeOutput:
    report = "\n".join([found.lines(), *filter(None, more)])
    return io.NodeOutput(joined(earlier, found), report, ui=ui.PreviewText(report))


def _problem(*readers: Callable[[], Any]) -> bool | str:
    """What the host wants of validate_inputs: True, or the first error's sentence. So a typing error shows before anything is sampled."""
    try:
        for read in readers:
            read()
    except ValueError as error:
        return str(error)
    return True


def _region(crop: str, mask: torch.Tensor | None) -> Region:
    return Region(parse_box(crop), None if mask is None else mask if mask.ndim == 3 else mask[None])


def _label(features: FeatureSet, source: ImageSource, crop: str, mask: torch.Tensor | None) -> tuple[LabelSet, dict[str, torch.Tensor]]:
    return label_images(features, source, _region(crop, mask))


class LabelFeaturesWithClassifier(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLabelFeaturesWithClassifier",
            display_name="Label Features With Classifier",
            category=TRAINING,
            description=(
                "Labels the pictures of a feature set with a classifier: a file of this pack, or a folder with a transformers "
                "image classifier. Readings are kept in the set, so each picture is read once. " + PERCEIVED
            ),
            search_aliases=["annotate", "hugging face", "transformers", "vit", "fairface", "attribute"],
            inputs=[
                _features_input(),
                Classifier.Input(
                    "classifier",
                    tooltip="Classifier that gives the labels, from Load Attribute Classifier. Measure results later with another one.",
                ),
                io.String.Input(
                    "attributes",
                    default="",
                    tooltip="Attributes to label, separated by commas. Empty: all that the classifier reads.",
                ),
                *_region_inputs(),
                _labels_input(),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def validate_inputs(cls, crop: str) -> bool | str:
        return _problem(lambda: parse_box(crop or ""))

    @classmethod
    def execute(
        cls,
        features: FeatureSet,
        classifier: HostClassifier,
        attributes: str = "",
        crop: str = "",
        mask: torch.Tensor | None = None,
        labels: LabelSet | None = None,
    ) -> io.NodeOutput:
        source = classifier_source(classifier, [a.strip() for a in re.split(r"[,;\n]", attributes) if a.strip()])
        found, _ = _label(features, source, crop, mask)
        return _answer(labels, found)


class LabelFeaturesWithCLIP(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLabelFeaturesWithCLIP",
            display_name="Label Features With CLIP",
            category=TRAINING,
            description=(
                "Labels the pictures of a feature set with classes that you describe in words (CLIP zero-shot, Radford et al. "
                "2021). Each class is the mean of a few phrases. The CLIP must hold its text projection and match the image encoder. "
                + PERCEIVED
            ),
            search_aliases=["zero-shot", "annotate", "clip vision", "text classes", "attribute"],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            inputs=[
                _features_input(),
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
                *_region_inputs(),
                _labels_input(),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def validate_inputs(cls, classes: str, templates: str, crop: str) -> bool | str:
        def read() -> None:
            for attribute, named in parse_classes(classes).items():
                for members in named.values():
                    phrasings(members, (), attribute)

        return _problem(*([read] if classes else []), lambda: read_templates(templates or ""), lambda: parse_box(crop or ""))

    @classmethod
    def execute(
        cls,
        features: FeatureSet,
        clip_vision: Any,
        clip: Any,
        classes: str = CLIP_CLASSES,
        templates: str = CLIP_TEMPLATES,
        crop: str = "",
        mask: torch.Tensor | None = None,
        labels: LabelSet | None = None,
    ) -> io.NodeOutput:
        hidden = cls.hidden
        files = {
            what: files_behind(getattr(hidden, "prompt", None), getattr(hidden, "unique_id", None), name)
            for what, name in (("vision", "clip_vision"), ("clip", "clip"))
        }
        source, told = clip_source(clip_vision, clip, parse_classes(classes), read_templates(templates), files)
        found, other = _label(features, source, crop, mask)
        cosine = float(other[COSINE].median())
        near = "about 0.15 to 0.35 where phrases, text and image encoder fit; near 0 the encoders do not belong together"
        return _answer(labels, found, f"CLIP: {told}; the best phrase's cosine is {cosine:.2f} for the median picture ({near})")


class LabelFeaturesWithSkinTone(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLabelFeaturesWithSkinTone",
            display_name="Label Features With Skin Tone",
            category=TRAINING,
            description=(
                "Labels the pictures of a feature set by perceived skin tone, without a classifier: the individual typology "
                "angle in Lab (Chardon et al. 1991), in six classes, over a mask or an ellipse in the middle. Light and white balance "
                "change the angle."
            ),
            search_aliases=["ITA", "individual typology angle", "lab", "annotate", "attribute"],
            inputs=[
                _features_input(),
                io.String.Input("attribute", default="skin_tone", tooltip="Name of the attribute in labels, ADP files and targets."),
                io.Float.Input(
                    "softness",
                    default=0.5,
                    min=0.0,
                    max=4.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Width of the borders between classes, in units of the spread between the skin pixels of a picture, at "
                    "least 1 degree. 0 gives each picture exactly one class.",
                ),
                *_region_inputs(),
                _labels_input(),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def validate_inputs(cls, attribute: str, crop: str) -> bool | str:
        return _problem(lambda: parse_classes(f"{(attribute or 'name').strip()}: a, b"), lambda: parse_box(crop or ""))

    @classmethod
    def execute(
        cls,
        features: FeatureSet,
        attribute: str = "skin_tone",
        softness: float = 0.5,
        crop: str = "",
        mask: torch.Tensor | None = None,
        labels: LabelSet | None = None,
    ) -> io.NodeOutput:
        (name,) = parse_classes(f"{attribute.strip()}: a, b")
        found, other = _label(features, skin_tone_source(name, softness), crop, mask)
        angle, read = other["ita"][:, 0], other["ita"][:, 1] > 0.5
        if not read.any():
            return _answer(labels, found, "no picture could be read: too little under the mask has a colour that skin can have")
        seen, unread = angle[read], int((~read).sum())
        note = f"ITA from {seen.min():.0f} to {seen.max():.0f} degrees, median {seen.median():.0f}"
        if unread:
            note += f"; {unread} pictures were not read (too little skin colour under the mask) and have equal probabilities"
        return _answer(labels, found, note)


class LabelFeaturesFromPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLabelFeaturesFromPrompts",
            display_name="Label Features From Prompts",
            category=TRAINING,
            description=(
                "Labels the pictures of a feature set by the words of the prompts that made them. Use it for models that follow "
                "such words reliably, and check with Label Features. No picture is read. " + PERCEIVED
            ),
            search_aliases=["annotate", "caption", "words", "attribute"],
            inputs=[
                _features_input(),
                io.String.Input(
                    "classes",
                    default=PROMPT_CLASSES,
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip=f"{CLASSES_TIP} The phrases must occur in the prompts as whole words. Three dots stand for all prompts that "
                    "no other class names.",
                ),
                io.Combo.Input(
                    "unmatched",
                    options=[REFUSE, UNSURE],
                    default=REFUSE,
                    tooltip="What to do with a prompt that names no class. refuse: stop and name the prompt. unsure: give its picture "
                    "equal probabilities.",
                ),
                _labels_input(),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def validate_inputs(cls, classes: str) -> bool | str:
        return _problem(lambda: parse_classes(classes)) if classes else True

    @classmethod
    def execute(
        cls, features: FeatureSet, classes: str = PROMPT_CLASSES, unmatched: str = REFUSE, labels: LabelSet | None = None
    ) -> io.NodeOutput:
        spec = parse_classes(classes)
        prompts = [e.prompt for e in features.entries]
        found = LabelSet(
            {a: tuple(named) for a, named in spec.items()},
            tuple(e.file for e in features.entries),
            {a: labels_from_prompts(prompts, named, a, unmatched == UNSURE) for a, named in spec.items()},
            dict.fromkeys(spec, "prompts"),
        )
        return _answer(labels, found)


class LabelFeaturesFromCSV(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EquipoiseLabelFeaturesFromCSV",
            display_name="Label Features From CSV",
            category=TRAINING,
            description=(
                "Labels the pictures of a feature set from a table of file names and labels. The header is file,ATTRIBUTE with "
                "class names, or file,ATTRIBUTE:CLASS,... with probabilities. " + PERCEIVED
            ),
            search_aliases=["annotate", "table", "spreadsheet", "annotations", "attribute"],
            inputs=[
                _features_input(),
                io.String.Input(
                    "file_name",
                    default="labels.csv",
                    tooltip="A CSV file in ComfyUI's input folder, or the table of a feature set as SET/labels.csv. UTF-8, with commas, "
                    "semicolons or tabs.",
                ),
                io.String.Input(
                    "classes",
                    default="",
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip="Empty: all attributes and classes of the file. Otherwise one attribute per line, as attribute: class, "
                    "class. Other classes are refused. class=a|b merges names of the file.",
                ),
                io.Boolean.Input(
                    "ignore_other_images",
                    default=False,
                    tooltip="What to do with rows for pictures that are not in the set. Off: stop and name the first. On: leave them out.",
                ),
                _labels_input(),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def validate_inputs(cls, classes: str) -> bool | str:
        return _problem(lambda: parse_classes(classes)) if classes and classes.strip() else True

    @classmethod
    def fingerprint_inputs(cls, file_name: str | None = None, **_: Any) -> str:
        return label_file_fingerprint(file_name or "")

    @classmethod
    def execute(
        cls,
        features: FeatureSet,
        file_name: str = "labels.csv",
        classes: str = "",
        ignore_other_images: bool = False,
        labels: LabelSet | None = None,
    ) -> io.NodeOutput:
        path = label_file(file_name)
        table = read_csv_as(path, parse_classes(classes)) if classes.strip() else read_csv(path)
        rows = for_entries(table, features.entries, every_class=False, ignore_others=ignore_other_images)
        found = LabelSet(dict(table.attributes), tuple(e.file for e in features.entries), rows, dict(table.sources))
        return _answer(labels, found)


NODES = [
    LabelFeaturesWithClassifier,
    LabelFeaturesWithCLIP,
    LabelFeaturesWithSkinTone,
    LabelFeaturesFromPrompts,
    LabelFeaturesFromCSV,
]
