"""Names, texts, numbers and images that no user should give, as hypothesis draws them, to functions and nodes of the host; and a server
that is given damaged files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.graph_server import Server
from equipoise_mutations import bad_input
from equipoise_nodes import execute
from hypothesis import given
from hypothesis import strategies as st

HOSTILE = ("../x", "..", ".", "", " ", "a/../../x", "/etc/passwd", "C:\\x", "\\\\server\\share", "~/x", "a\0b", "con", "NUL.txt",
           "com1", "x" * 300, "input/" + "x" * 300,
           "x.", "x ", "a:b", "a|b", "*", "\u202egnp", "\ud800", "-rf", ".hidden",
           "a\nb", "input/../../x", "x\\..\\..\\y", "%2e%2e/x")  # fmt: skip
LONGER = st.builds(lambda a, b: a + b, st.sampled_from(HOSTILE), st.text(max_size=5))
NAMES = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=40), LONGER, st.from_regex(r"[\w .,-]{1,12}", fullmatch=True))
NUMBERS = st.sampled_from(("1", "0", "-1", "nan", "inf", "1e400", "50%", "150%", "", "x", "1/0", "\u0661", "0.5.5", "=", "1e-320"))


def refusal(call: Callable[[], Any]) -> str:
    """What a call says that was refused, "" where it was not; anything but ValueError and FileNotFoundError is raised on."""
    try:
        call()
    except (ValueError, FileNotFoundError) as error:
        text = str(error)
        assert text.strip().endswith(".") and len(text) < 3000, text
        return text
    return ""


def test_no_name_leads_out_of_its_folder(prompt: Any) -> None:
    import folder_paths
    from equipoise.host.core import trials as host_trials
    from equipoise.host.core.fit import session as learning
    from equipoise.host.data import feature_sets
    from equipoise.host.datasets import datasets
    from equipoise.host.datasets.train_classifier import CLASSIFIER_FILES
    from equipoise.host.report import write as reports
    from equipoise.host.sae.train import SAE_FILES
    from equipoise.nodes.adp.save_adp import ADP_FILES

    root = Path(folder_paths.base_path).resolve()
    places = [
        (datasets.dataset_folder, datasets.datasets_root()),
        (feature_sets.set_folder, feature_sets.features_root()),
        (host_trials.log_path, Path(folder_paths.get_output_directory(), "equipoise", "calibration")),
        (learning.learning_path, Path(folder_paths.get_output_directory(), "equipoise", "learning")),
        *((kind.path, kind.path("a").parent) for kind in (ADP_FILES, SAE_FILES, CLASSIFIER_FILES)),
        (lambda name: reports.reports_root() / reports._stem(name), reports.reports_root()),
    ]
    seen = {"kept": 0, "refused": 0}

    @bad_input(200)
    @given(NAMES)
    def one(name: str) -> None:
        for path_of, folder in places:
            try:
                path = path_of(name)
            except ValueError as error:
                assert "cannot be the name" in str(error), error
                seen["refused"] += 1
                continue
            assert path.resolve().parent == folder.resolve() and path.name.encode("utf-8"), path
            seen["kept"] += 1
        for find in (datasets.find_dataset, feature_sets.picture_files):
            assert refusal(lambda find=find: find(name)) or not name.strip()
        assert datasets.dataset_fingerprint(name) and feature_sets.set_fingerprint(name)

    one()
    assert min(seen.values()) > 50
    assert root.is_dir()


def test_targets_are_read_or_refused_in_a_sentence(prompt: Any) -> None:
    from equipoise.methods.core.target_text import PRESETS
    from equipoise.nodes.guidance.target_distribution import TargetDistributionNode

    words = st.sampled_from(("yes", "no", "eyeglasses", "hair", "=", ",", "\n", "/", " x ", ":", "\0", "a" * 500, "\u00e9")) | NUMBERS
    texts = st.lists(words, max_size=8).map("".join)
    seen = {"read": 0, "refused": 0}

    @bad_input(200)
    @given(texts | st.sampled_from(("eyeglasses", "eyeglasses x hair")), st.sampled_from(PRESETS), texts)
    def one(attribute: str, preset: str, weights: str) -> None:
        said = refusal(lambda: TargetDistributionNode.execute(attribute, preset, weights))
        seen["refused" if said else "read"] += 1
        if not said:
            target = TargetDistributionNode.execute(attribute, preset, weights).result[0]
            assert abs(sum(target.shares) - 1) < 1e-6 and all(0 <= s <= 1 for s in target.shares)

    one()
    assert seen["refused"] > 50


def test_images_of_any_shape_are_read_or_refused(prompt: Any, repository: Path) -> None:
    from equipoise.host.datasets.datasets import datasets_root
    from equipoise.host.labels.classifier import load_host_classifier
    from equipoise.nodes.datasets.save_balanced_dataset import SaveBalancedDataset
    from equipoise.shipped.weights import LABELLER

    classifier = load_host_classifier(LABELLER.name)
    sides = st.sampled_from((0, 1, 2, 3, 4, 7, 33))
    before = {p.name for p in datasets_root().parent.parent.iterdir()} if datasets_root().parent.parent.is_dir() else set()

    @bad_input(60)
    @given(st.lists(sides, min_size=1, max_size=5), st.sampled_from((0.5, float("nan"), float("inf"), -3.0, 1e9)), NAMES, NUMBERS)
    def one(shape: list[int], value: float, name: str, split: str) -> None:
        images = torch.full(shape, value)
        read = refusal(lambda: classifier.probabilities(images))
        assert read or (len(shape) == 4 and min(shape) > 0)
        saved = refusal(lambda: execute(SaveBalancedDataset, images, name, split, "", 0, "", 0.0, "generated", classifier))
        assert saved, "no split is named as these are"

    one()
    after = {p.name for p in datasets_root().parent.parent.iterdir()} if datasets_root().parent.parent.is_dir() else set()
    assert after <= before | {"equipoise"}


def bomb(side: int) -> bytes:
    """A PNG of side x side pixels that is a few hundred bytes and would be gigabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("content", [bomb(60_000), bomb(2**31 - 1), bomb(0), b"", b"\x89PNG\r\n\x1a\n", b"not a picture"], ids=range(6))
def test_a_picture_that_is_none_is_refused(prompt: Any, tmp_path: Path, content: bytes) -> None:
    from equipoise.host.data.feature_sets import read_picture

    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="the picture 'bad.png' cannot be read"):
        read_picture(path)


def test_the_server_refuses_damaged_files_in_words_and_lives(server_current: Server) -> None:
    """Every loader, given files whose headers lie; afterwards the server still works."""
    header = b'{"__metadata__":{"format":"equipoise-adp"},"w":{"dtype":"F32","shape":[1000000000,9],"data_offsets":[0,36000000000]}}'
    contents = {
        "longheader": struct.pack("<Q", 2**62) + b"{}",
        "lyingshape": struct.pack("<Q", len(header)) + header,
        "deep": struct.pack("<Q", 6000) + b'{"a":' * 1200,
        "empty": b"",
    }
    loaders = {
        "adp": ("EquipoiseLoadADP", "adp_name"),
        "sae": ("EquipoiseLoadSAE", "sae_name"),
        "bias_features": ("EquipoiseLoadBiasFeatures", "bias_features_name"),
        "diffusion": ("EquipoiseLoadUnconditionalDiffusion", "model_name"),
    }
    for kind in loaders:
        folder = server_current.base / "models" / "equipoise" / kind
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / f"bad_{name}.safetensors").write_bytes(content)
    for kind, (node, key) in loaders.items():
        for name in contents:
            graph = {
                "1": {"class_type": node, "inputs": {key: f"bad_{name}.safetensors"}},
                "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
            }
            outcome = server_current.queue(graph)
            assert f"'bad_{name}.safetensors' is not a whole safetensors file" in outcome.error, (kind, name, outcome.error)
    escape = {"1": {"class_type": "EquipoiseLoadADP", "inputs": {"adp_name": "../../../x.safetensors"}},
              "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}  # fmt: skip
    if not server_current.post("/prompt", {"prompt": escape})["node_errors"]:  # the oldest host does not look at combos before it runs
        assert "is not in models/equipoise/adp" in server_current.queue({**escape, "3": escape["2"]}).error
    good = {
        "1": {"class_type": "EquipoiseTargetDistribution", "inputs": {"attribute": "a", "preset": "weights", "weights": "yes=1, no=1"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 1]}},
    }
    assert not server_current.queue(good).error
