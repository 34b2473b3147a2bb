"""Measure, inside a server, the time of sampling and of the live bar.

ComfyUI loads this file as another custom node. It wraps three functions: the host's sampling; this pack's ``Live.stepped``, which makes a
message and hands it over; and the host's ``send_json``, which writes the message to the socket. ``GET /equipoise_live_probe`` returns all
measurements since the last request.
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
    """Forget all measurements.

    ``sampling``, ``tell`` (in the sampling thread) and ``send`` (in the server's loop) list the seconds of each call and its thread's
    processor time; ``bytes`` lists the sizes of messages.
    """
    measured.update(sampling=[], tell=[], send=[], bytes=[])


def clocks() -> tuple[float, float]:
    """Return wall-clock seconds and this thread's processor seconds."""
    return time.perf_counter(), time.thread_time()


def note(what: str, since: tuple[float, float]) -> None:
    """Record the time of a call that has ended."""
    measured[what].append([now - then for now, then in zip(clocks(), since, strict=True)])


def watch_sampling() -> None:
    """Wrap the host's sampling."""
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
    """Wrap this pack's ``Live.tell``.

    ComfyUI has loaded the pack by now, under a name of its choice.
    """
    for name, module in list(sys.modules.items()):
        if name.endswith(".host.core.live") and not hasattr(module.Live.stepped, "watched"):
            tell = module.Live.stepped

            def watched(self: Any, *args: Any, tell: Any = tell, **kwargs: Any) -> None:
                started = clocks()
                tell(self, *args, **kwargs)
                note("tell", started)

            watched.watched = True
            module.Live.stepped = watched


def watch_sending() -> None:
    """Wrap the host's sending, and add the route."""
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
