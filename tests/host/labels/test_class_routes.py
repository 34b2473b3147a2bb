"""What the front end asks of the server: classes of files, in words where there are none, and nothing from outside the folders."""

from __future__ import annotations

import json
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from equipoise.models.adp import load_adp
from equipoise.models.attribute_classifier import load_classifier
from equipoise.models.bias_features import load_bias_features

WEIGHTS = {"adp": "adp", "classifier": "attribute_classifiers", "bias_features": "bias_features"}
LOAD = {"adp": load_adp, "classifier": load_classifier, "bias_features": load_bias_features}


def attributes(found: Any) -> dict[str, tuple[str, ...]]:
    """As nodes/guidance/target.py takes them from what is connected."""
    return {a: tuple(getattr(c, "classes", c)) for a, c in found.attributes.items()}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_every_shipped_file_states_what_its_loader_reads(host: Any, repository: Path, kind: str) -> None:
    from equipoise.host.labels.class_routes import attributes_of

    files = sorted((repository / "shipped" / "weights" / WEIGHTS[kind]).glob("*.safetensors"))
    assert files
    for file in files:
        stated, read = attributes_of(kind, file.name), attributes(LOAD[kind](file))
        assert stated == read and list(stated) == list(read)


def test_a_folder_of_transformers_states_its_labels(host: Any) -> None:
    from equipoise.host.labels.class_routes import attributes_of

    folder = host.base / "models" / "attribute_classifiers" / "hats"
    folder.mkdir(parents=True)
    config = {"architectures": ["ViTForImageClassification"], "id2label": {"1": "no hat", "0": "hat"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "model.safetensors").touch()
    try:
        assert attributes_of("classifier", "hats") == {"hats": ("hat", "no hat")}
        (folder / "config.json").write_text("{", encoding="utf-8")
        with pytest.raises(ValueError, match="not readable JSON"):
            attributes_of("classifier", "hats")
    finally:
        for file in list(folder.iterdir()):
            file.unlink()
        folder.rmdir()


@pytest.mark.parametrize("name", ["", "..", "../attribute_classifiers/portraits_judge.safetensors", "/etc/passwd", "nothing.safetensors"])
def test_no_name_leads_out_of_the_folders(host: Any, name: str) -> None:
    from equipoise.host.labels.class_routes import attributes_of

    for kind in WEIGHTS:
        with pytest.raises(ValueError, match="is not in models/"):
            attributes_of(kind, name)
    with pytest.raises(ValueError, match="ask for one of them"):
        attributes_of("checkpoints", name)


def test_a_file_that_states_none_or_nonsense_is_told_in_a_sentence(host: Any) -> None:
    import torch
    from equipoise.host.labels.class_routes import attributes_of
    from equipoise.models.files import write_safetensors

    path = host.base / "models" / "equipoise" / "adp" / "odd.safetensors"
    try:
        for stated, told in ((None, "states no attributes"), ("[1]", "does not fit"), ('{"a": "yes"}', "does not fit")):
            write_safetensors(path, {"x": torch.zeros(1)}, {} if stated is None else {"attributes": stated})
            with pytest.raises(ValueError, match=told):
                attributes_of("adp", "odd.safetensors")
        path.write_bytes(b"no safetensors")
        with pytest.raises(ValueError, match="not a whole safetensors file"):
            attributes_of("adp", "odd.safetensors")
    finally:
        path.unlink(missing_ok=True)


def test_both_hosts_serve_it(server: Any) -> None:
    found = server.get("/api/equipoise/classes?" + urllib.parse.urlencode({"kind": "adp", "name": "portraits.safetensors"}))
    assert found["attributes"]["eyeglasses"] == ["yes", "no"]
    refused = server.get("/equipoise/classes?kind=adp&name=../x")  # in words, and not as an error that the browser logs
    assert "is not in models/equipoise/adp" in refused["error"]
