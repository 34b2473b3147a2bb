"""Compare definitions of nodes, and name the changes that break saved graphs and prompts.

A saved graph stores a node's widget values as a list without names, and links by the number of an output. So a new input or output may
follow the others, but none may be moved, removed or made narrower.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FILES = frozenset(
    {"adp_name", "model_name", "classifier_name", "sae_name", "bias_features_name", "neuron_path_name", "head_name", "set_name"}
    | {"dataset_name", "ledger_name", "sampler_name", "scheduler"}
)
"""Combos over what is installed, or over what the host knows: neither their options nor their default are pinned."""
LIMITS = ("min", "max", "step")
KEPT = ("default", *LIMITS, "options", "control_after_generate", "forceInput", "multiselect")
Definition = dict[str, Any]


def definitions(object_info: Mapping[str, Any]) -> dict[str, Definition]:
    """Pin the pack's nodes from the host's /object_info, sorted by id."""
    return {name: definition(object_info[name]) for name in sorted(object_info) if name.startswith("Equipoise")}


def definition(info: Mapping[str, Any]) -> Definition:
    """Pin one node.

    Inputs keep the order in which the front end makes slots and widgets: required ones first.
    """
    inputs = []
    for group in ("required", "optional"):
        order = info.get("input_order", {}).get(group) or list(info["input"].get(group, {}))
        for name in order:
            kind, options = (*info["input"][group][name], {})[:2]
            inputs.append(pinned_input(name, kind, options, group == "required"))
    listed = info.get("output_is_list") or [False] * len(info["output"])
    outputs = []
    for name, kind, many in zip(info["output_name"], info["output"], listed, strict=True):
        outputs.append({"name": name, "type": kind} | ({"list": True} if many else {}))
    return {"inputs": inputs, "outputs": outputs, "output_node": bool(info["output_node"])}


def pinned_input(name: str, kind: Any, options: Mapping[str, Any], required: bool) -> Definition:
    kept: Definition = {"name": name, "type": kind, "required": required}
    if isinstance(kind, list):  # the older way to write a combo
        kept |= {"type": "COMBO", "options": kind}
    for key in KEPT:
        value = options.get(key)
        if value is not None and (value is not False or key == "default"):
            kept[key] = value
    return {k: v for k, v in kept.items() if name not in FILES or k not in ("options", "default")}


def differences(old: Mapping[str, Definition], new: Mapping[str, Definition]) -> tuple[list[str], list[str]]:
    """List changes that break saved graphs or prompts, and changes that do not."""
    breaking = [f"{name}: the node is gone" for name in old if name not in new]
    harmless = [f"{name}: a new node" for name in new if name not in old]
    for name in sorted(old.keys() & new.keys()):
        for found, kinds in zip((breaking, harmless), _node(old[name], new[name]), strict=True):
            found += [f"{name}: {line}" for line in kinds]
    return breaking, harmless


def _node(old: Definition, new: Definition) -> tuple[list[str], list[str]]:
    breaking: list[str] = []
    harmless: list[str] = []
    was, now = ({i["name"]: i for i in d["inputs"]} for d in (old, new))
    breaking += [f"the input '{n}' is gone" for n in was if n not in now]
    common = [n for n in was if n in now]
    if common != [n for n in now if n in was]:
        breaking.append(f"the inputs stand in another order: {', '.join(n for n in now if n in was)}")
    last = max((list(now).index(n) for n in common), default=-1)
    for i, (name, made) in enumerate(now.items()):
        if name in was:
            continue
        if made["required"]:
            breaking.append(f"the new input '{name}' is required: prompts that lack it are refused")
        elif i < last:
            breaking.append(f"the new input '{name}' stands before others: values of saved graphs move by one")
        else:
            harmless.append(f"a new optional input '{name}'")
    for name in common:
        for found, lines in zip((breaking, harmless), _input(was[name], now[name]), strict=True):
            found += [f"the input '{name}' {line}" for line in lines]
    for i, made in enumerate(old["outputs"]):
        kept = new["outputs"][i] if i < len(new["outputs"]) else None
        if kept is None:
            breaking.append(f"the output '{made['name']}' is gone")
        elif (made["type"], made.get("list")) != (kept["type"], kept.get("list")):
            breaking.append(f"output {i} was '{made['name']}' of type {made['type']} and is '{kept['name']}' of type {kept['type']}")
        elif made["name"] != kept["name"]:
            # links are kept by number, so a new name alone is harmless, and another output's name is not
            moved = kept["name"] in {o["name"] for o in old["outputs"]}
            (breaking if moved else harmless).append(f"output {i} was called '{made['name']}' and is called '{kept['name']}'")
    harmless += [f"a new output '{o['name']}'" for o in new["outputs"][len(old["outputs"]) :]]
    if old["output_node"] != new["output_node"]:
        (breaking if old["output_node"] else harmless).append(f"the node is {'' if new['output_node'] else 'no longer '}an output node")
    return breaking, harmless


def _input(old: Definition, new: Definition) -> tuple[list[str], list[str]]:
    breaking: list[str] = []
    harmless: list[str] = []
    if old["type"] != new["type"]:
        breaking.append(f"was of type {old['type']} and is of type {new['type']}")
    if old["required"] != new["required"]:
        line = f"is {'required' if new['required'] else 'optional'} now"
        # an optional input is listed after all required ones: where that moves it, the order says so
        (breaking if new["required"] else harmless).append(line)
    for key in ("control_after_generate", "forceInput", "multiselect"):
        if old.get(key) != new.get(key):
            breaking.append(f"has another '{key}': {old.get(key)} became {new.get(key)}, which changes its widgets")
    gone = [o for o in old.get("options", []) if o not in new.get("options", [])]
    added = [o for o in new.get("options", []) if o not in old.get("options", [])]
    breaking += [f"no longer offers '{option}'" for option in gone]
    harmless += [f"offers '{option}' too" for option in added]
    if not gone and not added and old.get("options") != new.get("options"):
        harmless.append("offers its options in another order")
    for key, narrower in (("min", lambda a, b: b > a), ("max", lambda a, b: b < a)):
        a, b = old.get(key), new.get(key)
        if a != b:
            narrow = b is not None and (a is None or narrower(a, b))
            (breaking if narrow else harmless).append(f"has another {key}: {a} became {b}")
    if old.get("step") != new.get("step"):
        harmless.append(f"has another step: {old.get('step')} became {new.get('step')}")
    if old.get("default") != new.get("default"):
        # a prompt may leave an optional input out, and a required one never
        found, why = (harmless, "") if old["required"] else (breaking, ", which prompts that leave it out get")
        found.append(f"has another default: {old.get('default')!r} became {new.get('default')!r}{why}")
    return breaking, harmless
