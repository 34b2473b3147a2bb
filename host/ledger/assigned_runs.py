"""The output 'assigned' of a patch: what its runs were assigned is known only after the node has been executed."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence

from ...methods.core.batch_run import BatchRun
from ...methods.ledger.ledger import RunKey
from ..core.types import Graph
from .assigned import assigned_text
from .ledgers import drawn_by, running_node

MOST_RUNS = 256
"""Number of runs whose classes are remembered."""


class AssignedRuns:
    """Collect the classes of the images of a patch's runs, by the node that sampled them.

    A node that reads images gets this object before they are sampled, and asks it after that.
    """

    def __init__(self) -> None:
        self._texts: OrderedDict[RunKey | None, str] = OrderedDict()

    def __deepcopy__(self, memo: dict[int, object]) -> AssignedRuns:
        # The host may copy what nodes return. All copies mean the same runs.
        return self

    def __str__(self) -> str:
        """Return the text of the latest run."""
        return next(reversed(self._texts.values()), "")

    def add(self, run: BatchRun) -> None:
        """Note the classes of a run that ended well."""
        key = running_node()
        cells = run.cells if run.batch_plan is None else run.batch_plan.cells
        self._texts.pop(key, None)
        self._texts[key] = assigned_text(run.target, None if cells is None else cells.tolist(), key)
        while len(self._texts) > MOST_RUNS:
            self._texts.popitem(last=False)

    def text_of(self, keys: Sequence[RunKey], images: int) -> str:
        """Return the text of the run that made these images; "" if no run is known.

        ``keys``: nodes that may have made them, nearest first. Images that the host sampled as a list and then joined are the runs of one
        node, in the order of the list.
        """
        for key in keys:
            entries = self._of_list(key)
            if len(entries) > 1 and sum(len(json.loads(text)["assigned"] or []) for text in entries) == images:
                return _joined(entries)
            if key in self._texts:
                return self._texts[key]
        return str(self)

    def _of_list(self, key: RunKey) -> list[str]:
        """Return the texts of all entries of the list to which a run belongs, in order."""
        node = key.node.partition("#")[0]
        same = {k: text for k, text in self._texts.items() if k is not None and k.run == key.run and k.node.partition("#")[0] == node}
        return [same[k] for k in sorted(same, key=lambda k: int(k.node.partition("#")[2] or 0))]


def _joined(texts: Sequence[str]) -> str:
    """Join the texts of several runs into one."""
    records = [json.loads(text) for text in texts]
    return json.dumps({**records[0], "assigned": [name for record in records for name in record["assigned"] or []]})


def assigned_now(assigned: str | AssignedRuns | None, graph: Graph | None, images: int) -> str:
    """Read the input 'assigned' of the node that ComfyUI executes now: the text about its images, "" if there is none.

    ``graph``: the queued graph, in which the node that sampled the images is looked up.
    """
    if not isinstance(assigned, AssignedRuns):
        return assigned or ""
    own = running_node()
    return assigned.text_of(drawn_by(graph, own) if own is not None else [], images)
