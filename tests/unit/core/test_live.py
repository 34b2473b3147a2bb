"""What the front end is told of a run while it is drawn, how often, and to whom."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_adp import random_adp
from equipoise.host.core.live import EVENT, MIN_INTERVAL, Live, connected_client, live_message
from equipoise.host.core.observer import report_steps
from equipoise.methods.core.run import Call
from equipoise.methods.core.target_text import parse_target
from equipoise.methods.guidance.run import GuidanceRun, GuidanceSettings

ATTRIBUTES = {"eyeglasses": ("no", "yes"), "skin": ("light", "medium", "dark")}


class Server:
    """What the host's server does that matters here: it notes what is sent, and runs what is planned when it is told to."""

    def __init__(self) -> None:
        self.client_id, self.sockets = "me", {"me": object()}
        self.sent: list[tuple[str, dict[str, Any], str]] = []
        self.planned: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []
        self.loop = SimpleNamespace(
            call_soon_threadsafe=lambda function, *a: function(*a),
            call_later=lambda wait, function, *a: self.planned.append((wait, function, a)),
        )

    def send_sync(self, event: str, data: dict[str, Any], sid: str) -> None:
        self.sent.append((event, data, sid))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=made)))
    return made


@pytest.fixture(scope="module")
def adp(load_module: Callable[[Path, str], Any], repository: Path) -> Any:
    return random_adp(ATTRIBUTES, 6)


@pytest.fixture
def run(adp: Any) -> GuidanceRun:
    return GuidanceRun(adp, GuidanceSettings(parse_target("eyeglasses x skin: uniform", ATTRIBUTES), assign="reading"))


def call(run: GuidanceRun, images: int = 12) -> None:
    h = 3 * torch.randn(images, 6, 8, 8, generator=torch.Generator().manual_seed(1))
    for site in sorted(run.sites):
        run.edit(site, h, Call.read({"sigmas": torch.full((images,), 1.3), "cond_or_uncond": [0]}))


def test_a_message_holds_readings_quotas_and_the_target(run: GuidanceRun) -> None:
    before = live_message(run, "7", 1, 20)
    assert [(a["read"], a["assigned"]) for a in before["attributes"]] == [(None, None)] * 2 and before["images"] is None
    call(run)
    told = json.loads(json.dumps(live_message(run, "7", 2, 20)))
    glasses, skin = told["attributes"]
    assert (told["node"], told["step"], told["steps"], told["images"], told["exempt"]) == ("7", 2, 20, 12, False)
    assert glasses["name"] == "eyeglasses" and glasses["classes"] == ["no", "yes"] and glasses["target"] == [0.5, 0.5]
    assert skin["classes"] == ["light", "medium", "dark"] and skin["target"] == [0.3333] * 3
    assert glasses["assigned"] == [6, 6] and skin["assigned"] == [4, 4, 4]
    for attribute in told["attributes"]:
        assert attribute["read"] == pytest.approx(run.readings.shares[-1][attribute["name"]], abs=1e-4)


def test_classes_given_beforehand_are_counted(adp: Any) -> None:
    cells = (0, 1, 5, 5, 5)
    run = GuidanceRun(adp, GuidanceSettings(parse_target("eyeglasses x skin: uniform", ATTRIBUTES), cells=cells))
    call(run, 5)
    glasses, skin = live_message(run, "7", 1, 2)["attributes"]
    assert glasses["assigned"] == [2, 3] and skin["assigned"] == [1, 1, 3]


def test_at_most_ten_a_second_and_always_the_last(server: Server, run: GuidanceRun) -> None:
    now = [100.0]
    live = Live("7#2", lambda: now[0])
    for step in range(1, 101):
        now[0] += 0.01
        live.stepped(run, step, 100)
    steps = [data["step"] for _, data, _ in server.sent]
    assert 8 <= len(steps) <= 10 and steps[0] == 1 and 100 not in steps
    assert {(event, data["node"], sid) for event, data, sid in server.sent} == {(EVENT, "7", "me")}
    ((wait, function, arguments),) = server.planned
    assert 0 < wait <= MIN_INTERVAL
    function(*arguments)
    assert server.sent[-1][1]["step"] == 100


def test_short_runs_in_a_row_keep_the_pace(server: Server, run: GuidanceRun) -> None:
    """Runs shorter than the pause: the last state of the latest is what waits, once."""
    now = [0.0]
    live = Live("7", lambda: now[0])
    for _ in range(5):
        for step in (1, 2):
            now[0] += 0.01
            live.stepped(run, step, 2)
    assert len(server.sent) == len(server.planned) == 1


def test_nothing_is_composed_where_nobody_listens(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.sockets.clear()
    assert connected_client() is None
    Live("7").stepped(None, 1, 2)  # type: ignore[arg-type]  # a run would be looked at
    server.client_id = None
    assert connected_client() is None
    monkeypatch.delitem(sys.modules, "server")
    assert connected_client() is None and not server.sent


@pytest.mark.parametrize("given", ["none", "place", "name"])
def test_the_callback_that_was_given_is_called_first(server: Server, run: GuidanceRun, given: str) -> None:
    called: list[Any] = []

    def own(*a: Any) -> None:
        called.append((a, len(server.sent)))

    if given == "place":
        args, kwargs = report_steps([Live("7")], run, ("latent", "sampler", "sigmas", None, own, True, 5), {"latent_shapes": None})
        assert args[:4] == ("latent", "sampler", "sigmas", None) and args[5:] == (True, 5) and kwargs == {"latent_shapes": None}
        callback = args[4]
    else:
        args, kwargs = report_steps([Live("7")], run, ("latent",), {"seed": 1, **({"callback": own} if given == "name" else {})})
        assert args == ("latent",) and kwargs["seed"] == 1
        callback = kwargs["callback"]
    callback(0, "x0", "x", 20)
    assert called == ([] if given == "none" else [((0, "x0", "x", 20), 0)])
    assert [data["step"] for _, data, _ in server.sent] == [1]


def test_a_deep_copy_keeps_the_pace() -> None:
    live = Live("7")
    assert copy.deepcopy({"live": live})["live"] is live
