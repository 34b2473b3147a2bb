"""Inputs and outputs of the nodes that record feature sets."""

from __future__ import annotations

from comfy_api.latest import io

from ...host.core.versions import advanced
from ...host.data.feature_sets import FEATURES_PATH
from ...host.data.recorder import RecordingOutcome
from ...models.sites import MIDDLE
from ..core.inputs import Widgets
from ..core.sockets import Features
from ..core.ui import shown


def set_name_input(default: str) -> io.Input:
    """Return the name of the feature set."""
    return io.String.Input(
        "set_name",
        default=default,
        tooltip=f"Name of the feature set, a folder in {FEATURES_PATH}. If a set with this name and the same settings exists, the "
        "node continues it.",
    )


def spatial_input() -> io.Input:
    """Return the noise levels at which maps are kept without pooling."""
    return io.String.Input(
        "spatial_levels",
        default="",
        tooltip="Noise levels for training an autoencoder. Near each of them, one call is also kept without pooling. Give "
        "log-SNR values such as -2, 0, 2, or sigmas such as sigma=2.5. Empty: none. An SDXL image at 1024 takes 2.6 MB per "
        "level.",
    )


def site_input() -> io.Input:
    """Return the site to record."""
    return advanced(
        io.String.Input(
            "site",
            default=MIDDLE,
            optional=True,
            tooltip="Place in the U-Net to record: 'middle', which an ADP reads, or the output of an up block, 'output.N', for "
            "an autoencoder there. Maps of up blocks are larger, so set spatial_levels too.",
        )
    )


def site_of(widgets: Widgets) -> str:
    """Return the site to record; the middle block if none is named."""
    return widgets.get("site", MIDDLE).strip() or MIDDLE


def recording_outputs() -> list[io.Output]:
    """List the feature set, the report and the latest pictures."""
    return [
        Features.Output("features", display_name="features", tooltip="The feature set, for Label Features and Train ADP."),
        io.String.Output("report", display_name="report", tooltip="What was recorded, the disk space, and warnings."),
        io.Image.Output("pictures", display_name="IMAGE", tooltip="The latest batch of pictures."),
    ]


def recording_output(cls: type[io.ComfyNode], outcome: RecordingOutcome) -> io.NodeOutput:
    """Return the outputs of a recording, shown on the node too."""
    return io.NodeOutput(outcome.features, outcome.report, outcome.images, ui=shown(cls, outcome.images, outcome.report))
