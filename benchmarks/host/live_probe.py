"""Runs inside a server, as a custom node pack of its own beside this one: how long sampling takes, and how much of it the live bar.

It stands in for three functions, which it calls: the host's sampling, this pack's ``Live.tell``, which composes a message and hands it
over, and the host's ``send_json``, which writes it to the socket. ``GET /equipoise_live_probe`` gives what was measured since it was asked
last.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

EVENT = "equipoise.reading"
NODE_CLASS_MAPPINGS: dict[str, Any] = {}
measured: dict[str, Any] = {}


def reset() -> None:
    """Nothing was measured yet. ``sampling``, ``tell`` (in the sampling thread) and ``send`` (in the server's loop): of every call its
    seconds and, of those, the thread's processor time; ``bytes``: sizes of the messages."""
    measured.update(sampling=[], tell=[], send=[], bytes=[])


def clocks() -> tuple[float, float]:
    """Seconds by the wall, and of this thread on a processor."""
    return time.perf_counter(), time.thread_time()


def note(what: str, since: tuple[float, float]) -> None:
    """A call of something has ended."""
    measured[what].append([now - then for now, then in zip(clocks(), since, strict=True)])


def watch_sampling() -> None:
    """Time the host's sampling, and what of ours is called in it."""
    import comfy.samplers

    plain = comfy.samplers.CFGGuider.sample

    def sample(self: Any, *args: Any, **kwargs: Any) -> Any:
        watch_live()
        started = clocks()
        try:
            return plain(self, *args, **kwargs)
        finally:
            note("sampling", started)

    comfy.samplers.CFGGuider.sample = sample


def watch_live() -> None:
    """Time this pack's part; it is loaded by now, under the name that the host gave it."""
    for name, module in list(sys.modules.items()):
        if name.endswith(".host.core.live") and not hasattr(module.Live.tell, "watched"):
            tell = module.Live.tell

            def watched(self: Any, *args: Any, tell: Any = tell, **kwargs: Any) -> None:
                started = clocks()
                tell(self, *args, **kwargs)
                note("tell", started)

            watched.watched = True
            module.Live.tell = watched


def watch_sending() -> None:
    """Time the host's part."""
    from aiohttp import web
    from server import PromptServer

    plain = PromptServer.send_json

    async def send_json(self: Any, event: str, data: Any, sid: Any = None) -> None:
        started = clocks()
        await plain(self, event, data, sid)
        if event == EVENT:
            note("send", started)
            measured["bytes"].append(len(json.dumps(data)))

    PromptServer.send_json = send_json

    @PromptServer.instance.routes.get("/equipoise_live_probe")
    async def figures(request: Any) -> Any:
        answer = web.json_response(measured)
        reset()
        return answer


if "comfy" in sys.modules:  # inside a server; elsewhere this file is only read
    reset()
    watch_sampling()
    watch_sending()
