"""What a batch is read as while it is drawn, told to the front end that queued it: messages over the host's web socket.

A message is composed from what a run has read already; nothing is computed, and no device waited for, to make one. Where the client that
queued the prompt is not connected there is none.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from ...methods.core.batch_run import BatchRun
from ...methods.core.targets import TargetDistribution

EVENT = "equipoise.reading"
APART = 0.1
"""Seconds between two messages about one node, at least."""
CALLBACK = 4
"""Place of the callback among what the host's sampling is called with after the noise."""


class Live:
    """Tells of the runs of one node. It keeps nothing of them but when the last message left, and one that waits for its time.

    ``node``: id of the node whose runs they are; ``clock``: seconds, monotonic.
    """

    def __init__(self, node: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.node, self._clock = node.split("#")[0], clock
        self._last = -APART
        self._waiting: tuple[str, dict[str, Any]] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Live:
        # The host may copy options deeply; the pace is that of the node.
        return self

    def watch(self, run: BatchRun, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What to call the host's sampling with, so that every step of the run is told. The arguments are those after the noise."""
        given = kwargs.get("callback", args[CALLBACK] if len(args) > CALLBACK else None)

        def callback(step: int, x0: Any, x: Any, total: int) -> None:
            if given is not None:
                given(step, x0, x, total)
            self.tell(run, step + 1, total)

        if len(args) > CALLBACK:
            return (*args[:CALLBACK], callback, *args[CALLBACK + 1 :]), kwargs
        return args, {**kwargs, "callback": callback}

    def tell(self, run: BatchRun, step: int, steps: int) -> None:
        """Send what the run holds now: at once where enough time has passed, of the last step later, of others not at all."""
        listener = who_listens()
        if listener is None:
            return
        server, client = listener
        wait = self._last + APART - self._clock()
        if wait <= 0:
            self._waiting, self._last = None, self._clock()
            server.send_sync(EVENT, reading(run, self.node, step, steps), client)
        elif step >= steps:
            planned, self._waiting = self._waiting, (client, reading(run, self.node, step, steps))
            if planned is None:
                server.loop.call_soon_threadsafe(server.loop.call_later, wait, self._send_waiting, server)

    def _send_waiting(self, server: Any) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._last = self._clock()
            server.send_sync(EVENT, waiting[1], waiting[0])


def who_listens() -> tuple[Any, str] | None:
    """The host's server and the client that queued the running prompt; None outside of a server, and where that client is not there."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    client = getattr(server, "client_id", None)
    return (server, client) if client is not None and client in server.sockets else None


def reading(run: BatchRun, node: str, step: int, steps: int) -> dict[str, Any]:
    """The message: ``step`` of ``steps`` done, how many ``images`` the quotas are for, and per attribute its classes, the shares of the
    target and those read last (None: not read yet, or by no predictor), and how many images were assigned to each class (None: not yet).
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
    return {"node": node, "step": step, "steps": steps, "images": images, "exempt": run.exempt, "attributes": attributes}


def _per_class(target: TargetDistribution, counts: list[int], attribute: str) -> list[int]:
    """Images per class of one attribute, from images per cell."""
    place = target.attributes.index(attribute)
    totals = dict.fromkeys(target.classes[place], 0)
    for cell, count in zip(target.cells, counts, strict=True):
        totals[cell[place]] += count
    return list(totals.values())
