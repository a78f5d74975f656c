"""Graphs: order, ancestors, and what is no graph."""

import itertools

import pytest

from causal_spark.errors import ConfigError
from causal_spark.root_cause.graph import causal_graph
from tests.root_cause.systems import DIAMOND, EDGES


def test_the_order_does_not_depend_on_that_of_the_edges() -> None:
    for edges in itertools.islice(itertools.permutations(EDGES), 0, 720, 37):
        assert causal_graph(edges) == DIAMOND
    assert DIAMOND.nodes == ("a", "b", "c", "d", "e")
    assert DIAMOND.parents == ((), (0,), (0,), (1, 2), (1, 3))


def test_parents_come_before_children_whatever_they_are_called() -> None:
    graph = causal_graph([("z", "m"), ("m", "a"), ("z", "a")], ["k"])
    assert graph.nodes == ("k", "z", "m", "a")
    assert graph.parents == ((), (), (1,), (1, 2))


def test_lineage_and_descendants() -> None:
    assert DIAMOND.lineage(3) == (0, 1, 2, 3)
    assert DIAMOND.lineage(0) == (0,)
    assert DIAMOND.descendants(1) == {3, 4}
    assert DIAMOND.descendants(4) == set()


def test_a_part_of_a_graph_keeps_its_edges() -> None:
    part = DIAMOND.within((0, 1, 3))
    assert part.nodes == ("a", "b", "d")
    assert part.parents == ((), (0,), (1,))


@pytest.mark.parametrize(
    ("edges", "told"),
    [
        (
            [("a", "b"), ("b", "c"), ("c", "a")],
            "cycle: a -> b -> c -> a|cycle: b -> c -> a -> b|cycle: c -> a -> b -> c",
        ),
        ([("a", "a")], "'a' to itself"),
        ([("a", "b"), ("a", "b")], "twice"),
    ],
)
def test_what_is_no_graph_is_refused(edges: list[tuple[str, str]], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        causal_graph(edges)
