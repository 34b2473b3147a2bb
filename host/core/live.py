"""The live bar: readings and quotas of a batch, sent to the front end while the batch is sampled.

A message is composed from what a run has read already. Nothing is computed for it, and no device is waited for. If the client that queued
the prompt is not connected, nothing is sent.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from ...methods.core.batch_run import BatchRun
from ...methods.core.targets import TargetDistribution
from .observer import Observer
from .types import Server

EVENT = "equipoise.reading"
MIN_INTERVAL = 0.1
"""Shortest time between two messages about one node, in seconds."""


class Live(Observer):
    """Send messages about the runs of one node, at most one per ``MIN_INTERVAL``.

    Between messages it keeps the time of the last one, and a message that waits for its time. ``node``: id of the node. ``clock``: seconds,
    monotonic.
    """

    watches_steps = True

    def __init__(self, node: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.node, self._clock = node.split("#")[0], clock
        self._last = -MIN_INTERVAL
        self._waiting: tuple[str, dict[str, Any]] | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> Live:
        # The host may copy options deeply; the pace is that of the node.
        return self

    def stepped(self, run: BatchRun, step: int, steps: int) -> None:
        """Send the state of a run: at once if the interval has passed.

        Later if this is the last step; else not at all.
        """
        connection = connected_client()
        if connection is None:
            return
        server, client = connection
        wait = self._last + MIN_INTERVAL - self._clock()
        if wait <= 0:
            self._waiting, self._last = None, self._clock()
            server.send_sync(EVENT, live_message(run, self.node, step, steps), client)
        elif step >= steps:
            planned, self._waiting = self._waiting, (client, live_message(run, self.node, step, steps))
            if planned is None:
                server.loop.call_soon_threadsafe(server.loop.call_later, wait, self._send_waiting, server)

    def _send_waiting(self, server: Server) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._last = self._clock()
            server.send_sync(EVENT, waiting[1], waiting[0])


def live_bar() -> Live | None:
    """Make the live bar of the node that ComfyUI executes now.

    None outside of a prompt.
    """
    from comfy_execution.utils import get_executing_context  # only inside a host

    context = get_executing_context()
    return None if context is None else Live(context.node_id)


def connected_client() -> tuple[Server, str] | None:
    """Return ComfyUI's server and the client that queued the running prompt.

    None without a server or without that client.
    """
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    client = getattr(server, "client_id", None)
    return (server, client) if client is not None and client in server.sockets else None


def running_prompt() -> dict[str, str | None]:
    """Return the ids of the ``prompt`` that ComfyUI executes now and of its ``workflow``; None where there is none."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    for item in list(getattr(getattr(server, "prompt_queue", None), "currently_running", {}).values()):
        extra = item[3] if len(item) > 3 and isinstance(item[3], dict) else {}
        workflow = ((extra.get("extra_pnginfo") or {}).get("workflow") or {}).get("id")
        return {"prompt": str(item[1]), "workflow": None if workflow is None else str(workflow)}
    return {"prompt": None, "workflow": None}


def running_workflow() -> str | None:
    """Return the id of the workflow whose prompt ComfyUI executes now; None if it was queued without one."""
    return running_prompt()["workflow"]


def live_message(run: BatchRun, node: str, step: int, steps: int) -> dict[str, Any]:
    """Compose the message about a run.

    It says which prompt and workflow were queued, that ``step`` of ``steps`` are done and how many ``images`` the quotas are for. For
    every attribute it has the classes, the target, the shares read last (None: not read yet, or by no predictor), and the images assigned
    to each class (None: not yet).
    """
    target, shares = run.target, run.readings.shares[-1] if run.readings.shares else {}
    counts = run.counts
    if counts is None and run.cells is not None:
        cells = run.cells.tolist()
        counts = [cells.count(c) for c in range(len(target.shares))]
    attributes = [
        {
            "name": attribute,
            "classes": list(classes),
            "target": [round(share, 4) for share in target.marginal(attribute).values()],
            "read": [round(share, 4) for share in shares[attribute]] if attribute in shares else None,
            "assigned": None if counts is None else _per_class(target, counts, attribute),
        }
        for attribute, classes in zip(target.attributes, target.classes, strict=True)
    ]
    images = run.images if counts is None else sum(counts)
    queued = {"node": node, **running_prompt()}
    return {**queued, "step": step, "steps": steps, "images": images, "exempt": run.exempt, "attributes": attributes}


def _per_class(target: TargetDistribution, counts: list[int], attribute: str) -> list[int]:
    """Add up images per cell to images per class of one attribute."""
    position = target.attributes.index(attribute)
    totals = dict.fromkeys(target.classes[position], 0)
    for cell, count in zip(target.cells, counts, strict=True):
        totals[cell[position]] += count
    return list(totals.values())
