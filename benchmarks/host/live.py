"""``bench live``: measure the live bar's cost and the number of states it shows.

Guided batches of the shipped unconditional model run through a real server on one core, 20 steps each. live_probe.py measures inside the
server: time of sampling, time of making messages and handing them over, and time of writing them to the socket, each as wall-clock time
and as processor time of its thread, which other programs do not lengthen.

Runs with and without a web-socket client alternate. The host sends its own progress only to a client too, so the ratio of both includes
it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import tempfile
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...shipped import weights
from ..core.host_server import HostServer
from .ledger import ledger_graph

STEPS, IMAGES, FEW = 20, 16, 4
"""Steps and images of the shipped quickstart, and images of a run so short that messages weigh more and are fewer."""
PAIRS = {True: 5, False: 20}
PROBE = "live_probe.py"
WALL, PROCESSOR = 0, 1
"""Index of a clock in a call's two times."""


class LiveClient:
    """Receive the live bar's ``messages`` of a server in another thread, as a context manager."""

    def __init__(self, port: int) -> None:
        self.name, self.messages = f"bench-{uuid.uuid4().hex}", []
        self._address = f"ws://127.0.0.1:{port}/ws?clientId={self.name}"
        self._ready, self._thread = threading.Event(), threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True)
        self._socket: Any = None
        self._loop: Any = None

    def __enter__(self) -> LiveClient:
        self._thread.start()
        if not self._ready.wait(30):
            raise RuntimeError("The server did not answer the web-socket client within 30 seconds. Run the benchmark again.")
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._socket.close(), self._loop).result(10)
        self._thread.join(10)

    async def _listen(self) -> None:
        import aiohttp  # the host requires it

        self._loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession() as session, session.ws_connect(self._address) as self._socket:
            async for message in self._socket:
                self._ready.set()  # the host greets
                if message.type == aiohttp.WSMsgType.TEXT:
                    event = json.loads(message.data)
                    if event["type"] == "equipoise.reading":
                        self.messages.append(event["data"])


def guided_graph(seed: int, images: int) -> dict[str, Any]:
    """Make the ledger benchmark's graph for a guided batch, without the ledger."""
    nodes = ledger_graph("eyeglasses", seed, "", guided_by_it=False, steps=STEPS)
    for name in ("ledger", "labeller", "record"):
        del nodes[name]
    nodes["latent"]["inputs"]["batch_size"] = images
    return nodes | {"show": {"class_type": "PreviewImage", "inputs": {"images": ["image", 0]}}}


def one_run(server: HostServer, seed: int, listens: bool, images: int = IMAGES) -> dict[str, Any]:
    """Queue a batch; returns the probe's figures and the number of messages and states."""
    if not listens:
        ended, messages = server.wait(server.queue(guided_graph(seed, images))), []
    else:
        with LiveClient(server.port) as client:
            answer = server.post("/prompt", {"prompt": guided_graph(seed, images), "client_id": client.name})
            if "prompt_id" not in answer:
                raise RuntimeError(f"The server refused the graph: {json.dumps(answer)[:1000]}")
            ended = server.wait(answer["prompt_id"])
            messages = client.messages
    if ended.error:
        raise RuntimeError(f"A queued graph failed: {ended.error}")
    measured = server.get("/equipoise_live_probe")
    states = {json.dumps(message["attributes"]) for message in messages}
    return {**measured, "messages": len(messages), "states": len(states)}


def total_seconds(calls: Sequence[Sequence[float]], clock: int) -> float:
    """Add up the seconds of all calls by one clock."""
    return sum(call[clock] for call in calls)


def live_share(run: dict[str, Any], clock: int) -> float:
    """Divide the time of making and sending messages by the time of sampling."""
    return (total_seconds(run["tell"], clock) + total_seconds(run["send"], clock)) / total_seconds(run["sampling"], clock)


def run(quick: bool = False) -> dict[str, Any]:
    """Measure alternating pairs (20, or 5 if quick), then as many short runs.

    One run of each kind before the first pair is a warm-up.
    """
    with tempfile.TemporaryDirectory(prefix="equipoise-bench-live-") as temporary:
        pack = Path(temporary) / "custom_nodes" / PROBE
        pack.parent.mkdir()
        shutil.copy(Path(__file__).with_name(PROBE), pack)
        with HostServer(Path(temporary)) as server:
            for listens in (True, False):
                one_run(server, int(listens), listens)
            pairs = []
            for i in range(PAIRS[quick]):
                order = (True, False) if i % 2 == 0 else (False, True)
                drawn = {listens: one_run(server, 100 + 2 * i + listens, listens) for listens in order}
                pairs.append((drawn[True], drawn[False]))
            short = [one_run(server, 200 + i, True, FEW) for i in range(PAIRS[quick])]
    return {**live_figures(pairs), "short_runs": {"images": FEW, "runs": len(short), **message_figures(short)}}


def live_figures(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Summarise pairs of runs (with a client, without)."""
    listened, silent = [a for a, _ in pairs], [b for _, b in pairs]
    took = [(total_seconds(a["sampling"], WALL), total_seconds(b["sampling"], WALL)) for a, b in pairs]
    ratios = [a / b for a, b in took]
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    shown = message_figures(listened)
    return {
        "model": weights.DIFFUSION.name,
        "steps": STEPS,
        "images": IMAGES,
        "pairs": len(pairs),
        **shown,
        "bars": {"share_of_sampling": 0.01, "states": 5},
        "met": shown["share_of_sampling"]["largest"] <= 0.01 and shown["states"]["fewest"] >= 5,
        "share_without_a_client": {"median": _middle(silent, PROCESSOR), "largest": max(live_share(r, PROCESSOR) for r in silent)},
        "sampling_seconds": {"with": statistics.median(a for a, _ in took), "without": statistics.median(b for _, b in took)},
        "ratio_with_to_without": {"median": statistics.median(ratios), "quartiles": [quartiles[0], quartiles[2]]},
    }


def message_figures(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Summarise runs with a client: cost, number of messages and number of states."""
    return {
        "share_of_sampling": {"median": _middle(runs, PROCESSOR), "largest": max(live_share(r, PROCESSOR) for r in runs)},
        "share_of_sampling_by_the_wall": {"median": _middle(runs, WALL), "largest": max(live_share(r, WALL) for r in runs)},
        "messages": {"fewest": min(r["messages"] for r in runs), "most": max(r["messages"] for r in runs)},
        "states": {"fewest": min(r["states"] for r in runs), "most": max(r["states"] for r in runs)},
        "microseconds_per_message": {
            name: 1e6 * sum(total_seconds(r[what], PROCESSOR) for r in runs) / sum(r["messages"] for r in runs)
            for name, what in (("compose_and_hand_over", "tell"), ("write_to_the_socket", "send"))
        },
        "bytes_per_message": statistics.mean(n for r in runs for n in r["bytes"]),
    }


def _middle(runs: list[dict[str, Any]], clock: int) -> float:
    return statistics.median(live_share(r, clock) for r in runs)
