"""The embedded suite."""

from __future__ import annotations

from mhrctl.suites.compositional import OPERATIONS, apply, read_compositional


def test_sizes_and_roles() -> None:
    tasks = read_compositional().tasks
    roles = [task.role for task in tasks]
    assert (roles.count("backbone"), roles.count("training"), roles.count("test")) == (15, 80, 12)
    assert all(len(task.examples) >= 299 for task in tasks)


def test_targets_follow_the_definition() -> None:
    for task in read_compositional().tasks:
        names = tuple(name for name in task.name.split("_then_") if name != "copy")
        assert task.definition == (", then ".join(OPERATIONS[name][0] for name in names) or "copy the list")
        example = task.examples[7]
        assert example.targets == (" ".join(apply(names, example.input.split())),)
        assert example.targets[0]


def test_test_compositions_occur_in_no_order_in_training() -> None:
    tasks = read_compositional().tasks
    training = {frozenset(task.name.split("_then_")) for task in tasks if task.role == "training"}
    assert not any(frozenset(task.name.split("_then_")) in training for task in tasks if task.role == "test")
    used = {name for pair in training for name in pair}
    assert used == set(OPERATIONS)


def test_the_suite_is_the_same_every_time() -> None:
    assert read_compositional() == read_compositional()


def test_some_operations_by_hand() -> None:
    items = "cat 12 ant 3 cat".split()
    assert apply(("sort",), items) == "3 12 ant cat cat".split()
    assert apply(("unique", "reverse"), items) == "3 ant 12 cat".split()
    assert apply(("rotate_back", "upper"), items) == "CAT CAT 12 ANT 3".split()
    assert apply(("numbers", "double"), items) == "12 12 3 3".split()


def test_a_harder_suite_has_longer_compositions_and_a_backbone_that_has_not_seen_all() -> None:
    tasks = read_compositional(operations=3, unseen=4).tasks
    roles = [task.role for task in tasks]
    assert (roles.count("backbone"), roles.count("training"), roles.count("test")) == (11, 80, 12)
    by_role = {role: {frozenset(task.name.split("_then_")) for task in tasks if task.role == role} for role in set(roles)}
    assert {len(names) for role in ("training", "test") for names in by_role[role]} == {3}
    assert not by_role["training"] & by_role["test"]
    unseen = set(OPERATIONS) - set().union(*by_role["backbone"])
    assert len(unseen) == 4
    assert any(unseen & names for names in by_role["test"])
    assert unseen < set().union(*by_role["training"])
