"""``equipoise convert``: what checkpoints look like in the wild, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.cli import main as cli
from equipoise.cli.convert import convert, find_weights, parse_metadata
from equipoise.models.adm_unet import AdmConfig, AdmUNet, build_unet
from equipoise.models.files import read_metadata, read_safetensors


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    config = AdmConfig(3, 6, 32, (1, 2), 1, (False, True), num_classes=3, num_head_channels=32)
    return AdmUNet(config).state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def call(*words: object) -> int:
    return cli.main(["convert", *(str(w) for w in words)])


def test_a_checkpoint_becomes_a_model(tmp_path: Path, weights: Any, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "in.pt", tmp_path / "out.safetensors"
    torch.save({"step": 7, "model": {k: v + 1 for k, v in weights.items()}, "ema": {**weights, "decay": 0.999}}, source)
    assert call(source, target, "--metadata", "num_head_channels=32", "--metadata", "noise_schedule=linear") == 0
    tensors, metadata = read_safetensors(target)
    assert same(tensors, weights)
    assert metadata == {"num_head_channels": "32", "noise_schedule": "linear", "converted_from": "in.pt"}
    assert build_unet(tensors, metadata).config.num_head_channels == 32
    said = capsys.readouterr().out
    assert "taken from 'ema'" in said and "Left out, because they are not tensors: decay." in said
    assert "ADM U-Net: 3 channels in, 6 out (learned sigma), 3 classes." in said
    assert "32-channel heads, legacy head order (assumed)" in said


@pytest.mark.parametrize(
    ("wrap", "nesting", "prefix"),
    [
        (lambda w: w, (), ""),
        (lambda w: {"state_dict": w, "epoch": 3}, ("state_dict",), ""),
        (lambda w: {"state_dict": {"model": w}}, ("state_dict", "model"), ""),
        (lambda w: {"model": {k: v * 2 for k, v in w.items()}, "model_ema": w}, ("model_ema",), ""),
        (lambda w: {f"module.{k}": v for k, v in w.items()}, (), "module."),
        (lambda w: {"state_dict": {f"module.model.{k}": v for k, v in w.items()}}, ("state_dict",), "module.model."),
        (lambda w: {k: torch.nn.Parameter(v) for k, v in w.items()}, (), ""),
    ],
)
def test_nesting_and_prefixes(wrap: Any, nesting: tuple[str, ...], prefix: str, weights: Any) -> None:
    found = convert(wrap(weights), {"num_head_channels": "32"})
    assert same(found.tensors, weights)
    assert (found.nesting, found.prefix) == (nesting, prefix)
    assert found.adm is not None and found.adm.num_classes == 3


def test_other_networks_keep_their_names() -> None:
    shared = torch.arange(4.0)
    found = convert({"model.a": shared, "model.b": shared[1:], "note": "x"})
    assert found.adm is None and found.prefix == "" and found.dropped == ("note",)
    assert sorted(found.tensors) == ["model.a", "model.b"]
    assert found.tensors["model.a"].data_ptr() != shared.data_ptr()
    assert "not an ADM" in found.describe()[-1]


def test_an_adm_network_is_checked(weights: Any) -> None:
    short = {k: v for k, v in weights.items() if k != "out.0.weight"}
    with pytest.raises(ValueError, match="do not fit the ADM U-Net that they describe"):
        convert(short, {"num_head_channels": "32"})
    with pytest.raises(ValueError, match="cannot be split"):
        convert(weights, {"num_heads": "5"})


@pytest.mark.parametrize("checkpoint", [{}, [], 3, {"step": 4}, {"state_dict": {}}, {"model": {"a": 1}}])
def test_no_weights_is_said(checkpoint: Any) -> None:
    with pytest.raises(ValueError, match="no weights were found in the checkpoint"):
        find_weights(checkpoint)


def test_sparse_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match="'w' is sparse or quantised"):
        convert({"w": torch.eye(3).to_sparse()})


class Surprise:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit('this must not run')",))


def test_what_could_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "in.pt", tmp_path / "out.safetensors"
    torch.save({"w": torch.zeros(1), "x": Surprise()}, source)
    assert call(source, target) == 1
    assert "'in.pt' holds objects besides tensors" in capsys.readouterr().err
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 not a zip", b"\x80\x02}q"])
def test_what_is_no_checkpoint_is_said(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.pt").write_bytes(content)
    assert call(tmp_path / "in.pt", tmp_path / "out.safetensors") == 1
    said = capsys.readouterr().err
    assert "'in.pt' is not a PyTorch checkpoint, or is cut short: copy or download it again." in said and said.count("\n") == 1


def test_a_cut_checkpoint_is_said(tmp_path: Path, weights: Any, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.pt"
    torch.save(weights, source)
    source.write_bytes(source.read_bytes()[:-2000])
    assert call(source, tmp_path / "out.safetensors") == 1
    assert "cut short" in capsys.readouterr().err


def test_wrong_arguments_are_said(tmp_path: Path, weights: Any, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.pt"
    torch.save(weights, source)
    cases = [
        ((tmp_path / "none.pt", tmp_path / "o.safetensors"), "there is no file"),
        ((source, tmp_path / "o.pt"), "should end in .safetensors"),
        ((tmp_path / "a.safetensors", tmp_path / "o.safetensors"), "is already a safetensors file"),
        ((source, tmp_path / "o.safetensors", "--metadata", "heads"), "expects key=value and met 'heads'"),
        ((source, tmp_path / "o.safetensors", "--metadata", "num_heads=four"), "should be a whole number"),
    ]
    for words, answer in cases:
        assert call(*words) == 1
        assert answer in capsys.readouterr().err
    assert not (tmp_path / "o.safetensors").exists()


def test_metadata_pairs() -> None:
    assert parse_metadata(["a=1", "b = x=y "]) == {"a": "1", "b": "x=y"}
    with pytest.raises(ValueError, match="twice"):
        parse_metadata(["a=1", "a=2"])


def test_half_precision_is_kept(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3).half()}, tmp_path / "in.pt")
    assert call(tmp_path / "in.pt", tmp_path / "out.safetensors") == 0
    assert read_safetensors(tmp_path / "out.safetensors")[0]["w"].dtype == torch.float16
    assert read_metadata(tmp_path / "out.safetensors") == {"converted_from": "in.pt"}
