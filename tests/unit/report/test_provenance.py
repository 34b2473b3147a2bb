"""Where images came from, read off a queued graph."""

from __future__ import annotations

from equipoise.methods.report.provenance import name_of, seeds, settings, texts, upstream, values_of

GRAPH = {
    "1": {"class_type": "Load", "inputs": {"file": "model.safetensors"}, "_meta": {"title": "Load"}},
    "2": {"class_type": "PrimitiveInt", "inputs": {"value": 7}},
    "3": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "seed": ["2", 0], "steps": 20}, "_meta": {"title": "Plain"}},
    "4": {"class_type": "Guidance", "inputs": {"model": ["1", 0], "strength": 1.0, "note": "a\nlong   text " * 60}},
    "5": {"class_type": "KSampler", "inputs": {"model": ["4", 0], "seed": 7, "steps": 20, "latent": ["1", 1]}},
    "6": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0]}},
    "7": {"class_type": "Cloud", "inputs": {"samples": ["5", 0], "api_key": "hush", "noise_seed": 11}},
    "8": {"class_type": "Report", "inputs": {"base": ["6", 0], "steered": ["7", 0], "labeller": ["404", 0], "name": "x"}},
}


def test_what_feeds_first_comes_first() -> None:
    assert upstream(GRAPH, "8", ["base"]) == ["1", "2", "3", "6"]
    assert upstream(GRAPH, "8", ["base", "steered"]) == ["1", "2", "3", "6", "4", "5", "7"]
    assert upstream(GRAPH, "8", ["labeller", "name", "nothing"]) == [] and upstream(GRAPH, "9", ["base"]) == []


def test_settings_say_which_images_they_made() -> None:
    rows = settings(GRAPH, "8", ["base", "steered", "reference"])
    assert [(node, which) for node, which, _ in rows] == [
        ("Load", "all"),
        ("PrimitiveInt", "base"),
        ("Plain (KSampler)", "base"),
        ("Guidance", "steered"),
        ("KSampler", "steered"),
        ("Cloud", "steered"),
    ]
    told = {node: values for node, _, values in rows}
    assert told["Plain (KSampler)"] == "steps=20" and told["Load"] == "file=model.safetensors"
    assert told["Guidance"].startswith("strength=1.0, note=a long text a long") and len(told["Guidance"]) < 450


def test_of_three_sets_two_may_have_a_node_in_common() -> None:
    graph = GRAPH | {"8": {"class_type": "Report", "inputs": {"base": ["6", 0], "steered": ["7", 0], "reference": ["2", 0]}}}
    told = {node: which for node, which, _ in settings(graph, "8", ["base", "steered", "reference"])}
    assert told["Load"] == "base, steered" and told["PrimitiveInt"] == "base, reference" and told["Guidance"] == "steered"
    assert settings(graph, "8", ["base"])[0][1] == "base"


def test_what_looks_like_a_password_is_not_told() -> None:
    assert values_of(GRAPH["7"]) == "api_key=..., noise_seed=11"


def test_seeds_also_where_they_are_linked() -> None:
    assert seeds(GRAPH, "8", "base") == [7] and seeds(GRAPH, "8", "steered") == [7, 11]


def test_a_loop_ends() -> None:
    loop = {"1": {"class_type": "A", "inputs": {"x": ["2", 0]}}, "2": {"class_type": "B", "inputs": {"x": ["1", 0], "base": ["1", 0]}}}
    assert set(upstream(loop, "2", ["base"])) == {"1", "2"}


def test_a_deep_graph_needs_no_deep_stack() -> None:
    deep = {str(i): {"class_type": "A", "inputs": {"x": [str(i + 1), 0]}} for i in range(5000)}
    assert len(upstream(deep, "0", ["x"])) == 4999


def test_names_and_texts() -> None:
    assert name_of({"class_type": "A"}) == "A" and name_of({"class_type": "A", "_meta": {"title": "B"}}) == "B (A)"
    assert list(texts(GRAPH, ["1", "2"])) == [("Load file", "model.safetensors")]
