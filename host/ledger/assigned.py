"""The text 'assigned': the class that every image of a run was assigned, which run it was, as JSON between nodes."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ...methods.core.targets import TargetDistribution
from ...methods.ledger.ledger import RunKey


def assigned_text(target: TargetDistribution, cells: Sequence[int] | None, run: RunKey | None, missed: int | None = None) -> str:
    """Write the cell of every image as JSON; None where none was assigned.

    ``missed``: number of images that a classifier reads as another class, where one was asked.
    """
    names = None if cells is None else [target.names[cell] for cell in cells]
    record = {"attributes": list(target.attributes), "assigned": names, "missed": missed}
    if run is not None:
        record["run"] = {"prompt": run.run, "node": run.node}
    return json.dumps(record)


def read_assigned(text: str, target: TargetDistribution, n: int) -> tuple[list[tuple[str, ...]] | None, RunKey | None]:
    """Read the output 'assigned' of a sampler.

    Return the classes per image, in the order of the target, and the run.
    Returns (None, None) for "". Raises ValueError where it is not such a text, or has other attributes or another number of images.
    """
    if not text.strip():
        return None, None
    try:
        message = json.loads(text)
        attributes, names, run = message["attributes"], message["assigned"], message.get("run")
        key = None if run is None else RunKey(str(run["prompt"]), str(run["node"]))
        if sorted(attributes) != sorted(target.attributes):
            raise ValueError(f"it is about {', '.join(map(str, attributes))}, and the target is about {', '.join(target.attributes)}")
        if names is None:
            return None, key
        if len(names) != n:
            raise ValueError(f"it is about {len(names)} images, and {n} are connected")
        order = [attributes.index(a) for a in target.attributes]
        known = {"/".join(cell[order.index(i)] for i in range(len(order))): cell for cell in target.cells}
        return [known[name] for name in names], key
    except KeyError as error:
        raise ValueError(
            f"'assigned' has no {error}, or a class that the classifier does not know: connect the sampler's output of that name."
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"'assigned' does not belong to these images ({error}): connect the output of the sampler that made them."
        ) from error
