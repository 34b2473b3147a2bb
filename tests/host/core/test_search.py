"""The search of the node menu finds the nodes of the main menu by the words that users type."""

from __future__ import annotations

from typing import Any

import pytest

EVERYBODY = {
    "AttributeHistogram", "BalanceLedger", "BalancedPrompts", "BiasFeatureSteer", "DistributionGuidance", "DistributionGuidanceKSampler",
    "FairnessReport", "LearnDirectionsFromPrompts", "LoadADP", "TargetDistribution",
}  # fmt: skip
WORDS = {
    "women": EVERYBODY | {"ExemptFromGuidance", "LoadAttributeClassifier"},
    "gender": EVERYBODY | {"ExemptFromGuidance", "LoadAttributeClassifier"},
    "diversity": EVERYBODY,
    "same face": {"BalancedPrompts", "BiasFeatureSteer", "DistributionGuidance", "DistributionGuidanceKSampler", "TargetDistribution"},
    "wildcard": {"BalancedPrompts", "ImagesInBatchOrder", "TargetDistribution"},
}
"""Word -> nodes that it finds in the main menu, without their prefix."""


@pytest.fixture(scope="module")
def main_menu(host: Any) -> dict[str, list[str]]:
    """Node id without its prefix -> words that find it, for the nodes of the main menu."""
    from equipoise.nodes import all_nodes

    schemas = [node.define_schema() for node in all_nodes()]
    if not all(hasattr(s, "search_aliases") for s in schemas):
        pytest.skip("this version of ComfyUI has no search words.")
    return {s.node_id.removeprefix("Equipoise"): s.search_aliases or [] for s in schemas if s.category == "equipoise"}


@pytest.mark.parametrize("word", WORDS)
def test_a_word_finds_these_nodes(main_menu: dict[str, list[str]], word: str) -> None:
    assert {node for node, words in main_menu.items() if word in words} == WORDS[word]


def test_every_node_of_the_main_menu_is_found_by_one_of_the_words(main_menu: dict[str, list[str]]) -> None:
    assert set(main_menu) == set().union(*WORDS.values())
    assert all(len(words) == len(set(words)) for words in main_menu.values())
