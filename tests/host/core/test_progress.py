"""Stages of long work: short work is silent, long work says what is left, and the user can interrupt it."""

from __future__ import annotations

import logging
from typing import Any

import pytest


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def worked(prompt: Any, caplog: pytest.LogCaptureFixture) -> Any:
    """Do ``total`` steps of ``each`` seconds; the first takes ``loading`` seconds more. Return the lines of the log."""
    from equipoise.host.core.progress import WorkStage

    def work(total: int, each: float, loading: float = 0.0, begin: int = 0) -> list[str]:
        clock = Clock()
        with caplog.at_level(logging.INFO, "equipoise"):
            stage = WorkStage("Train ADP", total, clock)
            clock.now += loading
            for done in range(begin + 1, total + 1):
                clock.now += each
                stage.update(done)
        return caplog.messages

    return work


def test_short_work_writes_nothing(worked: Any) -> None:
    assert worked(100, 0.04) == []


def test_an_estimate_does_not_count_what_loading_or_an_earlier_run_took(worked: Any) -> None:
    first, *_, last = worked(200, 2.0, loading=60.0, begin=100)
    assert first == "Train ADP: step 102 of 200, about 3 min left."
    assert last == "Train ADP: done in 4 min."


def test_the_user_can_interrupt_a_stage(prompt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management
    from equipoise.host.core.progress import WorkStage

    monkeypatch.setattr(comfy.model_management, "interrupt_processing", True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        WorkStage("Train ADP", 10).update(1)


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (80, "80 s"), (100, "2 min"), (3500, "58 min"), (7900, "2 h 12 min")])
def test_durations_are_written_as_one_says_them(prompt: Any, seconds: float, text: str) -> None:
    from equipoise.host.core.progress import duration

    assert duration(seconds) == text
