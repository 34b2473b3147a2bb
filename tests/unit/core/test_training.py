"""A training that was interrupted and resumed ends where an uninterrupted one ends, bit for bit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from equipoise.methods.core.trainer import AveragedSettings, AveragedTraining, Progress, warmup_cosine
from torch import Tensor, nn

TOTAL = 12


def make(folder: Path, seed: int = 5) -> AveragedTraining:
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))
    return AveragedTraining(module, AveragedSettings(1e-2, TOTAL, seed, warmup=3, weight_decay=0.01, average=0.9), folder)


def loss_of(state: AveragedTraining, stop_at: int | None = None) -> Callable[[torch.Generator], Tensor]:
    def loss(generator: torch.Generator) -> Tensor:
        if state.step == stop_at:
            raise KeyboardInterrupt
        return (state.module(torch.randn(16, 4, generator=generator)) ** 2).mean()

    return loss


def everything(state: AveragedTraining) -> dict[str, Tensor]:
    found = {f"module.{k}": v for k, v in state.module.state_dict().items()}
    found |= {f"ema.{k}": v for k, v in state.ema.state_dict().items()}
    for index, slot in state.optimiser.state_dict()["state"].items():
        found |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in slot.items()}
    return found


def uninterrupted(folder: Path) -> AveragedTraining:
    state = make(folder)
    state.train(loss_of(state), every=4)
    return state


@pytest.mark.parametrize("stops", [(1,), (5,), (4, 11)])
def test_resumed_equals_uninterrupted(tmp_path: Path, stops: tuple[int, ...]) -> None:
    for stop in stops:
        state = make(tmp_path / "stopped")
        with pytest.raises(KeyboardInterrupt):
            state.train(loss_of(state, stop), every=4)
        assert state.step == stop
    state = make(tmp_path / "stopped")
    state.train(loss_of(state), every=4)
    a, b = everything(uninterrupted(tmp_path / "whole")), everything(state)
    assert a.keys() == b.keys() and len(a) > 20
    assert all(torch.equal(a[k], b[k]) for k in a), [k for k in a if not torch.equal(a[k], b[k])]
    assert state.step == TOTAL and [f["step"] for f in state.log] == [4, 8, 12]


def test_progress_may_interrupt(tmp_path: Path) -> None:
    def give_up(step: int, total: int, figures: dict[str, float]) -> None:
        assert (total, figures["step"]) == (TOTAL, step)
        if step == 8:
            raise RuntimeError("enough")

    progress: Progress = give_up
    state = make(tmp_path / "stopped")
    with pytest.raises(RuntimeError, match="enough"):
        state.train(loss_of(state), progress, every=4)
    state = make(tmp_path / "stopped")
    state.train(loss_of(state), every=4)
    a, b = everything(uninterrupted(tmp_path / "whole")), everything(state)
    assert all(torch.equal(a[k], b[k]) for k in a)
    losses = [json.loads((tmp_path / folder / "log.json").read_text(encoding="utf-8"))["log"] for folder in ("stopped", "whole")]
    assert [f["loss"] for f in losses[0]] == [f["loss"] for f in losses[1]]


def test_an_interrupt_within_a_step_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the optimiser's step and the average's update the weights belong to no step: they are not saved."""
    state = make(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        state.train(loss_of(state, 6), every=4)
    state = make(tmp_path / "stopped")
    state.resume()
    real = state.optimiser.step

    def cut_off() -> None:
        real()
        if state.step == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(state.optimiser, "step", cut_off)
    with pytest.raises(KeyboardInterrupt):
        state.train(loss_of(state), every=4)
    state = make(tmp_path / "stopped")
    state.resume()
    assert state.step == 6
    state.train(loss_of(state), every=4)
    a, b = everything(uninterrupted(tmp_path / "whole")), everything(state)
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_another_order_of_batches_ends_elsewhere(tmp_path: Path) -> None:
    """The equality above is no accident: a state whose seed differs ends with other weights."""
    state = make(tmp_path / "other", seed=6)
    state.train(loss_of(state))
    assert not torch.equal(state.module[0].weight, uninterrupted(tmp_path / "whole").module[0].weight)


def test_finished_training_is_not_repeated(tmp_path: Path) -> None:
    done = uninterrupted(tmp_path)
    again = make(tmp_path)

    def never(*_: object) -> None:
        raise AssertionError("a step was taken")

    again.train(never)
    assert again.step == TOTAL and torch.equal(again.ema[0].weight, done.ema[0].weight)


def test_nothing_to_resume(tmp_path: Path) -> None:
    state = make(tmp_path / "stopped")
    before = everything(state)
    assert not state.resume()
    assert state.step == 0 and all(torch.equal(v, before[k]) for k, v in everything(state).items())


def test_seconds_add_up_over_runs(tmp_path: Path) -> None:
    started = time.monotonic()
    state = make(tmp_path)
    state.seconds = 100.0
    state.save()
    again = make(tmp_path)
    assert again.resume()
    elapsed = again.elapsed()
    assert 100.0 <= elapsed <= 100.0 + time.monotonic() - started


def test_moving_average_lies_behind_the_weights(tmp_path: Path) -> None:
    state = uninterrupted(tmp_path)
    start = make(tmp_path).module[0].weight
    now, averaged = state.module[0].weight, state.ema[0].weight
    assert (averaged - start).norm() < (now - start).norm()
    assert not averaged.requires_grad


def test_learning_rate_schedule() -> None:
    assert warmup_cosine(0, 100, 10) == pytest.approx(0.1)
    assert warmup_cosine(9, 100, 10) == pytest.approx(1.0)
    assert warmup_cosine(10, 100, 10) == pytest.approx(1.0)
    assert warmup_cosine(55, 100, 10) == pytest.approx(0.51)
    assert warmup_cosine(100, 100, 10) == pytest.approx(0.02) == warmup_cosine(500, 100, 10)
