"""Checkpoints of trainings: taken over whole, or refused with nothing changed, whatever is wrong with the file."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.methods.core.checkpoint import RESUMED, checkpoint_tensors, restore
from equipoise.methods.core.trainer import AveragedSettings, AveragedTraining
from equipoise.methods.sae.training import SaeSettings, SaeTraining
from equipoise.models.sae import TOPK, SparseAutoencoder
from equipoise_mutations import bad_input, damaged
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn


def trained(seed: int, steps: int = 3) -> tuple[nn.Module, torch.optim.Adam]:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return net, optimizer


def bits(net: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return copy.deepcopy([*checkpoint_tensors({"net": net}, optimizer).values()])


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_what_was_written_comes_back() -> None:
    net, optimizer = trained(0)
    other, its = trained(1, steps=0)
    restore({"net": other}, its, checkpoint_tensors({"net": net}, optimizer))
    assert same(bits(other, its), bits(net, optimizer))


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("net.0.weight", None, "'net' lacks"),
        ("net.0.weight", torch.zeros(4, 4), "'net.0.weight' is"),
        ("net.0.weight", torch.zeros(4, 3, dtype=torch.float16), "'net.0.weight' is"),
        ("net.0.weight", torch.full((4, 3), float("nan")), "'net.0.weight' is not finite"),
        ("net.more", torch.zeros(1), "'net' lacks or has too many"),
        ("optimizer.0.exp_avg", None, "'optimizer.0' lacks"),
        ("optimizer.0.exp_avg", torch.zeros(2), "'optimizer.0.exp_avg' is"),
        ("optimizer.99.exp_avg", torch.zeros(2), "belongs to no parameter"),
        ("optimizer.x.step", torch.zeros(()), "belongs to no parameter"),
        ("optimizer.5.exp_avg_sq", torch.full((2,), float("inf")), "not finite"),
    ],
)
def test_what_does_not_fit_changes_nothing(key: str, value: Tensor | None, told: str) -> None:
    tensors = checkpoint_tensors({"net": (made := trained(0))[0]}, made[1])
    tensors = {k: v for k, v in tensors.items() if k != key} | ({} if value is None else {key: value})
    net, optimizer = trained(1)
    before = bits(net, optimizer)
    with pytest.raises(ValueError, match=told):
        restore({"net": net}, optimizer, tensors)
    assert same(bits(net, optimizer), before)


def averaged(folder: Path) -> AveragedTraining:
    net, _ = trained(2, steps=0)
    return AveragedTraining(net, AveragedSettings(0.1, 10, 0), folder)


def autoencoder(folder: Path) -> SaeTraining:
    torch.manual_seed(0)
    sae = SparseAutoencoder(4, 8, 2, torch.linspace(-2, 2, 3), TOPK)
    return SaeTraining(sae, SaeSettings(latents=8, k=2, steps=10), path=folder / "sae.safetensors")


def _state_file(folder: Path) -> Path:
    state = averaged(folder)
    state.update(state.module(torch.randn(5, 3)).square().sum())
    state.save()
    return folder / "state.safetensors"


def _sae_file(folder: Path) -> Path:
    state = autoencoder(folder)
    state.update(torch.randn(16, 4), torch.zeros(16))
    state.save()
    return folder / "sae.safetensors"


def _resume_state(path: Path) -> tuple[bool, bool]:
    state = averaged(path.parent)
    before = bits(state.module, state.optimiser)
    try:
        state.resume()
    except ValueError as error:
        assert str(error).startswith("'state.safetensors' in ") and "move that folder away" in str(error) and "\n" not in str(error)
        return False, same(bits(state.module, state.optimiser), before) and state.step == 0
    return True, state.step == 1


def _resume_sae(path: Path) -> tuple[bool, bool]:
    state = autoencoder(path.parent)
    before = bits(state.sae, state.optimiser)
    resumed = state.resume() == RESUMED
    return resumed, state.step == 1 if resumed else same(bits(state.sae, state.optimiser), before) and state.step == 0


KINDS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], tuple[bool, bool]]]] = {
    "training": (_state_file, _resume_state),
    "autoencoder": (_sae_file, _resume_sae),
}


@pytest.fixture(scope="module", params=sorted(KINDS))
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return resume(bytes) -> (was it taken, is the state then of the right step), and the bytes of a good checkpoint."""
    write, resume = KINDS[request.param]
    path = write(tmp_path_factory.mktemp(request.param))
    whole = path.read_bytes()
    assert resume(path) == (True, True)
    return lambda content: (path.write_bytes(content), resume(path))[1], whole


@bad_input(120)
@given(st.data())
def test_a_damaged_checkpoint_is_taken_whole_or_not_at_all(kept: Any, data: Any) -> None:
    resumed, whole = kept
    _, right_step = resumed(damaged(data.draw, whole))
    assert right_step
