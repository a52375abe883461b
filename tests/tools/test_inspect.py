"""What an inspection reads, writes and rejects, on outputs made by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.files import save_adapter
from mhrctl.adapters.inventory import Inventory
from mhrctl.analysis.routing_measures import Inspection, Routing
from mhrctl.analysis.routing_similarity import correlate, routing_similarity
from mhrctl.artifacts.cards import Card, write_card
from mhrctl.artifacts.facts import AdaptFacts, IndexFacts, Parameters, PrepareFacts, PretrainFacts
from mhrctl.artifacts.hashing import digest
from mhrctl.artifacts.names import Project
from mhrctl.config.cells import Cell
from mhrctl.config.methods import METHODS
from mhrctl.errors import ArtifactError, ParamsError
from mhrctl.tools.inspect import MAX_PANELS, Findings, inspect, require_drawable

LAYERS = {f"{coder}.block.{block}.layer.0.SelfAttention.q": (8, 8) for coder in ("encoder", "decoder") for block in (0, 1, 2)}
NAMES = list(LAYERS)
TRAINING = ["copy", 'odd $x_1$ <b> & "q"', "../first", "last", "[red]swap"]
TESTS = ["new", "newer"]
PRETRAINED = "data/pretrain/mhr-h2-s0"
FILES = {"card.json", "heatmaps.png", "heatmaps.svg", "routing.json", "similarity.png", "similarity.svg"}


def write_stage(folder: Path, stage: str, adapter: Inventory, tasks: list[str], **parents: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_adapter(adapter, folder / "adapters.safetensors")
    params: dict[str, Any] = {"adapt": {"shots": 3, "validation": 3}} if stage == "adapt" else {}
    method, heads, seed = re.fullmatch(r"(\w+)(?:-h(\d+))?-s(\d+)", folder.name).groups()
    params["cell"] = {"method": method, "heads": int(heads or 1), "seed": int(seed)}
    pretrained = PretrainFacts(suite="made", tasks=tasks, backbone="none", parameters=Parameters())
    adapted = AdaptFacts(suite="made", tasks=tasks, shots={}, validation={}, backbone="none", parameters=Parameters())
    write_card(folder, Card.of(stage, params, parents, adapted if stage == "adapt" else pretrained))


def drawn_inventory(*, runs: int = 1, **settings: Any) -> Inventory:
    torch.manual_seed(0)
    inventory = Inventory(LAYERS, InventoryConfig(skills=4, **settings), tasks=len(TRAINING) if runs == 1 else 1, runs=runs)
    assert inventory.routing is not None
    torch.nn.init.normal_(inventory.routing, std=2)
    return inventory


@pytest.fixture
def look(tmp_path: Path) -> Callable[..., Findings]:
    """Inspects the routing of a project that has nothing but a pre-training and an adaptation of two heads."""
    pretrained = tmp_path / PRETRAINED
    write_stage(pretrained, "pretrain", drawn_inventory(heads=2), TRAINING)
    write_stage(
        tmp_path / "data/adapt/mhr-h2-s0",
        "adapt",
        drawn_inventory(heads=2, runs=2),
        TESTS,
        start=pretrained / "adapters.safetensors",
    )

    def inspected(method: str = "mhr", **changes: Any) -> Findings:
        options = {"project": Project(tmp_path), "out": tmp_path / "out", "stage": "pretrain"}
        heads = 2 if METHODS[method].multi_head else 1
        return inspect(Cell(method=method, heads=heads), **{**options, **changes})

    return inspected


def record(tmp_path: Path) -> Any:
    return json.loads((tmp_path / "out/routing.json").read_text())


def write_index(tmp_path: Path, data_sets: dict[str, list[str]]) -> np.ndarray[Any, Any]:
    """Write an index of data sets, and the task table that says whose templates are what; returns the vectors."""
    prepared, folder = tmp_path / "data/prepare", tmp_path / "data/index"
    for each in (prepared, folder):
        each.mkdir(parents=True, exist_ok=True)
    rows = [{"name": task, "role": "training", "dataset": name} for name, tasks in data_sets.items() for task in tasks]
    (prepared / "tasks.json").write_text(json.dumps({"tasks": rows}))
    write_card(prepared, Card.of("prepare", {}, {}, PrepareFacts(suite="made", tokenizer="none", vocab_size=0)))
    vectors = np.random.default_rng(0).normal(size=(len(data_sets), 6)).astype(np.float32)
    tensors = {"vectors": vectors, "idf": np.ones(6, np.float32)}
    save_file(tensors, folder / "index.safetensors", {"tasks": json.dumps(list(data_sets))})
    write_card(
        folder,
        Card.of(
            "index",
            {"encoder": "tfidf", "revision": "main"},
            {},
            IndexFacts(suite="made", tasks=list(data_sets), encoder="a test"),
        ),
    )
    return vectors


def test_the_numbers_of_every_part_and_head_are_written(tmp_path: Path, look: Callable[..., Findings]) -> None:
    look()
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    written = record(tmp_path)
    assert (written["cell"], written["stage"], written["heads"], written["skills"]) == ("mhr-h2-s0", "pretrain", 2, 4)
    assert written["tasks"] == TRAINING
    assert list(written["groups"]) == NAMES
    expected = Inspection.of(Routing.of(drawn_inventory(heads=2), TRAINING))
    for layer, part in written["groups"].items():
        assert part["heads"] == [pytest.approx(vars(head), abs=1e-6) for head in expected.heads[layer]]
        assert part["efficiency"] == pytest.approx(np.mean([head["efficiency"] for head in part["heads"]]), abs=1e-6)
    for coder, layers in {"encoder": NAMES[:3], "decoder": NAMES[3:], "overall": NAMES}.items():
        mean = np.mean([written["groups"][layer]["effective_skills"] for layer in layers])
        assert written[coder]["effective_skills"] == pytest.approx(mean, abs=2e-6)
    assert written["inputs"] is None


def test_names_of_tasks_lead_nowhere_and_are_shown_as_they_are(tmp_path: Path, look: Callable[..., Findings]) -> None:
    look()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]
    shown = (tmp_path / "out/similarity.svg").read_text()
    assert 'odd $x_1$ &lt;b&gt; &amp; "q"' in shown
    assert "[red]swap" in shown


def test_the_same_routing_gives_the_same_bytes_and_replaces_what_was_there(
    tmp_path: Path, look: Callable[..., Findings]
) -> None:
    look()
    before = digest(tmp_path / "out")
    (tmp_path / "out/routing.json").write_text("stale")
    look()
    assert digest(tmp_path / "out") == before
    (tmp_path / "out/mine").touch()
    with pytest.raises(ArtifactError, match="holds mine, which its card does not list"):
        look()
    (tmp_path / "out/mine").unlink()
    look(layers=[NAMES[0]])
    assert digest(tmp_path / "out") != before


def test_another_folder_is_not_replaced(tmp_path: Path, look: Callable[..., Findings]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").touch()
    with pytest.raises(ArtifactError, match=r"out: holds other things"):
        look()


def test_pairs_come_the_most_alike_first(look: Callable[..., Findings]) -> None:
    pairs = look().pairs
    similarity = routing_similarity(Routing.of(drawn_inventory(heads=2), TRAINING))
    assert len(pairs) == 10
    assert [pair.routing for pair in pairs] == sorted((pair.routing for pair in pairs), reverse=True)
    for pair in pairs:
        one, other = map(TRAINING.index, pair.tasks)
        assert pair.routing == similarity[one, other]
        assert one != other


def test_an_index_is_compared_with(tmp_path: Path, look: Callable[..., Findings]) -> None:
    vectors = write_index(tmp_path, {task: [task] for task in TRAINING}).astype(float)
    comparison = look().comparison
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    routing = Routing.of(drawn_inventory(heads=2), TRAINING)
    expected = correlate(routing_similarity(routing), (unit @ unit.T).round(6))
    assert comparison is not None
    assert comparison.correlation is not None
    assert expected is not None
    assert comparison.correlation.spearman == pytest.approx(expected.spearman)
    written = record(tmp_path)
    assert written["inputs"]["encoder"] == "a test"
    assert written["inputs"]["correlation"]["pairs"] == 10
    assert written["inputs"]["of_weights"] != written["inputs"]["correlation"]
    one, other = (TRAINING.index(name) for name in written["most_alike"][0]["tasks"])
    assert written["most_alike"][0]["inputs"] == pytest.approx(unit[one] @ unit[other], abs=1e-6)
    assert "index" in json.loads((tmp_path / "out/card.json").read_text())["parents"]


def test_templates_share_the_inputs_of_their_data_set(tmp_path: Path, look: Callable[..., Findings]) -> None:
    write_index(tmp_path, {"rest": [TRAINING[3], TRAINING[0]], "odd": [TRAINING[1], TRAINING[4]], "first": [TRAINING[2]]})
    alike = {frozenset(pair.tasks): pair.inputs for pair in look().pairs}
    assert [pair for pair, cosine in alike.items() if cosine == pytest.approx(1)] == [
        pair for pair in alike if pair in ({"copy", "last"}, {TRAINING[1], "[red]swap"})
    ]
    assert alike[frozenset({"copy", TRAINING[1]})] == alike[frozenset({"last", "[red]swap"})]


def test_an_index_of_other_tasks_is_rejected(tmp_path: Path, look: Callable[..., Findings]) -> None:
    write_index(tmp_path, {task: [task] for task in [*TRAINING[:-1], "other"]})
    with pytest.raises(ArtifactError, match=r"index: made for other tasks \(it has no \[red\]swap\); run `mhrctl index`"):
        look()
    assert not (tmp_path / "out").exists()


def test_adapted_tasks_stand_beside_training_tasks(tmp_path: Path, look: Callable[..., Findings]) -> None:
    findings = look(stage="adapt")
    tests = Routing.of(drawn_inventory(heads=2, runs=2), TESTS)
    training = Routing.of(drawn_inventory(heads=2), TRAINING)
    assert findings.measured == Inspection.of(tests)
    assert findings.training == Inspection.of(training)
    similarity = routing_similarity(training.with_tasks(tests))[5:, :5]
    nearest = {test: TRAINING[place] for test, place in zip(TESTS, similarity.argmax(1), strict=True)}
    assert dict(pair.tasks for pair in findings.pairs) == nearest
    written = record(tmp_path)
    assert (written["tasks"], written["training"]["tasks"]) == (TESTS, TRAINING)
    assert all(name in (tmp_path / "out/heatmaps.svg").read_text() for name in ("newer", "copy"))


def test_an_adaptation_of_another_pre_training_is_rejected(tmp_path: Path, look: Callable[..., Findings]) -> None:
    write_stage(tmp_path / PRETRAINED, "pretrain", drawn_inventory(heads=2, rank=2), TRAINING)
    with pytest.raises(ArtifactError, match=r"has changed since; run `mhrctl adapt mhr-h2-s0`"):
        look(stage="adapt")


def test_a_shared_routing_is_one_part(tmp_path: Path, look: Callable[..., Findings]) -> None:
    write_stage(tmp_path / PRETRAINED, "pretrain", drawn_inventory(heads=2, granularity="model"), TRAINING)
    look(layers=["model"])
    written = record(tmp_path)
    assert list(written["groups"]) == ["model"]
    assert (written["encoder"], written["decoder"]) == (None, None)
    assert written["overall"]["sparsity"] == written["groups"]["model"]["sparsity"]
    write_stage(tmp_path / PRETRAINED, "pretrain", drawn_inventory(heads=2, granularity="coder"), TRAINING)
    look()
    assert list(record(tmp_path)["groups"]) == ["encoder", "decoder"]


@pytest.mark.parametrize(
    ("method", "stage", "message"),
    [
        ("lora", "pretrain", "lora: has no routing; inspect --stage pretrain is of poly, poly_z, poly_mu, mhr, mhr_z, mhr_mu"),
        ("full_ft", "adapt", "full_ft: has no routing; inspect --stage adapt is of poly, poly_z, mhr, mhr_z"),
        ("random_mu", "pretrain", "random_mu: draws its routing at random"),
        ("hydra_lora", "pretrain", "hydra_lora: routes tokens, in each layer by what it reads, and not tasks"),
        ("smear", "adapt", "smear: routes examples, in each layer by what it reads of their prompts, and not tasks"),
        ("adapter_soup", "pretrain", "adapter_soup: gives each training task an adapter of its own"),
        ("mhr_mu", "adapt", "mhr_mu: adapts the average of the skills, without a routing; inspect --stage adapt is of poly,"),
    ],
)
def test_methods_without_a_routing_are_rejected(look: Callable[..., Findings], method: str, stage: str, message: str) -> None:
    with pytest.raises(ParamsError) as raised:
        look(method, stage=stage)
    assert message in str(raised.value)


def test_a_method_shares_the_routing_of_its_pre_training(tmp_path: Path, look: Callable[..., Findings]) -> None:
    for method in ("mhr", "mhr_z", "mhr_mu"):
        look(method)
        assert record(tmp_path)["cell"] == "mhr-h2-s0"


def test_a_layer_is_chosen_by_the_name_that_people_read(tmp_path: Path, look: Callable[..., Findings]) -> None:
    look(layers=["decoder 1 self-attention q"])
    card = json.loads((tmp_path / "out/card.json").read_text())
    assert card["params"]["layers"] == ["decoder.block.1.layer.0.SelfAttention.q"]
    assert re.search(r"decoder 1.*self-attention q", (tmp_path / "out/heatmaps.svg").read_text(), re.DOTALL)
    with pytest.raises(ParamsError, match=r"--layer: unknown layer '.*SelfAttention.k'; did you mean '.*SelfAttention.q'"):
        look(layers=[NAMES[0][:-1] + "k"])


def test_what_is_not_there_or_too_much_is_rejected() -> None:
    routing = Routing.of(drawn_inventory(heads=2), TRAINING)
    for head in (0, 3):
        with pytest.raises(ParamsError, match=f"--head {head}: there are the heads 1 to 2"):
            require_drawable(routing, heads=[head])
    many = Routing(("a",), {f"layer {number}": np.zeros((1, 1, 2)) for number in range(MAX_PANELS + 1)})
    with pytest.raises(ParamsError, match="25 heat maps do not fit on a page; choose at most 24"):
        require_drawable(many, list(many.logits))
    require_drawable(many, list(many.logits)[1:], [1])
