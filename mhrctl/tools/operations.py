"""How much a stage computes for a cell is estimated from the backbone's shape and the lengths of texts.

A token that goes through a weight is a multiplication and an addition. What attention does among tokens, padding and the
adapters themselves are left out: of the backbones and lengths that there are here they are a small part.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mhrctl.artifacts.names import TASKS, TEST_EXAMPLES, TRAINING_EXAMPLES, Project
from mhrctl.artifacts.reading import DAMAGE, read_json_of, reading
from mhrctl.config.methods import Method
from mhrctl.config.options import TaskRouteOptions
from mhrctl.config.sections import AdaptParams, EvaluateParams, OptimisationParams, PretrainParams, ScratchParams
from mhrctl.config.tasks import PrepareParams
from mhrctl.errors import ArtifactError, MhrctlError
from mhrctl.evaluation.metrics import OVER_CHOICES
from mhrctl.models.layouts import OUTPUTS
from mhrctl.models.speed import Speed
from mhrctl.suites.task import TaskCounts

ENCODER = "encoder"
CROSS_ATTENTION = ("EncDecAttention", "encoder_attn", "cross_attn")
"""Whose keys and values are of the encoder's tokens."""
KEYS_AND_VALUES = ("k", "v", "k_proj", "v_proj")
Side = Literal["inputs", "targets", "both", "output"]
"""Tokens that go through a layer: those of inputs, of targets, of both (in a causal model), and those that are predicted."""
FORWARD, FROZEN, WHOLE = 2, 4, 6
"""Operations a weight and token: of a forward pass; of a training step through frozen weights, and of one that trains them."""
PASSES = 3
"""Forward passes whose time a training step takes where it is the calls that take time."""
BATCH_ROWS, VALIDATED_TASKS = 256, 16
"""Rows of a batch that is answered (`evaluation.prediction`), and tasks of one that is validated (`evaluation.validation`)."""
GROUPS = 8
"""Row groups of an examples file that lengths are measured on, at most."""


@dataclass(frozen=True)
class Lengths:
    """These are mean lengths of texts, in tokens.

    Attributes:
        inputs: of the inputs.
        targets: of the targets.
        choices: answer choices of an example; 0 where answers are generated, as of most tasks.
    """

    inputs: float
    targets: float
    choices: float = 0.0


NOTHING = Lengths(0, 0)


@dataclass(frozen=True)
class Texts:
    """What is known of a suite's texts.

    Attributes:
        training: of the training tasks.
        test: of the test tasks.
        tested: examples of the test splits, of all tasks together.
        longest: inputs and targets.
        measured: whether they are counted; otherwise they are as long, and as many, as settings allow.
    """

    training: Lengths
    test: Lengths
    tested: int
    longest: Lengths
    measured: bool


@dataclass(frozen=True)
class Work:
    """Work is what takes time: operations, and forward passes, each of which takes some time however little it computes."""

    operations: float = 0.0
    calls: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.operations + other.operations, self.calls + other.calls)


@dataclass(frozen=True)
class Weights:
    """These are a backbone's weights by the tokens that go through them.

    Attributes:
        inputs: of the encoder, and keys and values of the attention to it; of a causal model all but the output layer.
        targets: of the decoder, or the same.
        output: of the output layer, which targets go through.
        layers: linear layers.
    """

    inputs: int
    targets: int
    output: int
    layers: int

    @classmethod
    def of(cls, linears: Mapping[str, tuple[int, int]]) -> Weights:
        """Sort the linear layers of a backbone."""
        sums: Counter[Side] = Counter()
        for name, side in sides(linears).items():
            sums[side] += linears[name][0] * linears[name][1]
        return cls(sums["inputs"] + sums["both"], sums["targets"] + sums["both"], sums["output"], len(linears))

    def read(self, texts: Lengths) -> float:
        """Return the multiplications of a forward pass of an example."""
        return self.inputs * texts.inputs + (self.targets + self.output) * texts.targets

    def answered(self, texts: Lengths, *, beams: int, longest: int) -> float:
        """Return those of an answer to an example: of all its choices, or of a generated text about as long as a target."""
        tokens = texts.targets * texts.choices if texts.choices else beams * min(longest, texts.targets)
        return self.inputs * texts.inputs + (self.targets + self.output) * tokens


def sides(linears: Iterable[str]) -> dict[str, Side]:
    """Say for each linear layer of a backbone, by its name, which tokens go through it."""
    parts = {name: name.split(".") for name in linears}
    encodes = any(ENCODER in each for each in parts.values())

    def side(each: list[str]) -> Side:
        if not set(OUTPUTS).isdisjoint(each):
            return "output"
        if not encodes:
            return "both"
        crosses = not set(CROSS_ATTENTION).isdisjoint(each) and each[-1] in KEYS_AND_VALUES
        return "inputs" if crosses or ENCODER in each else "targets"

    return {name: side(each) for name, each in parts.items()}


def texts_of(project: Project, params: PrepareParams, tasks: TaskCounts) -> Texts:
    """Measure the texts of the prepare stage's output, or take the longest that its settings allow."""
    longest = Lengths(params.max_input_tokens, params.max_target_tokens)
    unknown = Texts(longest, longest, params.examples * tasks.test, longest, measured=False)
    folder = project.output("prepare")
    if not (folder / TASKS).exists():
        return unknown
    try:
        with reading(folder / TASKS):
            rows = read_json_of(folder / TASKS)["tasks"]
            tests = [row for row in rows if row["role"] == "test"]
            tested = sum(row["splits"].get("test", 0) for row in tests)
            chosen = sum(row["metric"] in OVER_CHOICES for row in tests) > len(tests) / 2
        known = [_lengths(folder / name) for name in (TRAINING_EXAMPLES, TEST_EXAMPLES)]
    except MhrctlError:  # `check --deep` says it
        return unknown
    (training, most), (test, most_tested) = ((mean or longest, most or longest) for mean, most in known)
    test = test if chosen else replace(test, choices=0.0)
    of_both = Lengths(max(most.inputs, most_tested.inputs), max(most.targets, most_tested.targets))
    return Texts(training, test, tested, of_both, measured=True)


def _lengths(path: Path) -> tuple[Lengths | None, Lengths | None]:
    """Mean lengths of some row groups of an examples file, spread over it, and the longest; None of an empty one.

    Raises:
        ArtifactError: if it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, memory_map=True)
        groups = range(0, file.num_row_groups, max(1, math.ceil(file.num_row_groups / GROUPS)))
        table = file.read_row_groups(list(groups), columns=["input_ids", "target_ids", "choice_ids"])
        if not len(table):
            return None, None
        counts = [pc.list_value_length(lists) for lists in (table["input_ids"], pc.list_flatten(table["target_ids"]))]
        choices = pc.mean(pc.list_value_length(table["choice_ids"])).as_py() or 0.0
        (inputs, targets), most = ([reduce(count).as_py() or 0 for count in counts] for reduce in (pc.mean, pc.max))
    except (*DAMAGE, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: cannot be read ({error})") from None
    return Lengths(inputs, targets, choices), Lengths(*most)


@dataclass(frozen=True)
class Suite:
    """A suite and a backbone decide with a cell's settings how much there is to compute.

    Attributes:
        weights: of the backbone.
        texts: of the suite.
        tasks: of the suite.
    """

    weights: Weights
    texts: Texts
    tasks: TaskCounts

    def backbone(self, params: ScratchParams) -> Work:
        """Return the work of training a small backbone."""
        return self._trained(params.steps * params.batch_size, self.texts.training, WHOLE, params.steps)

    def pretrain(self, row: Method, params: PretrainParams, *, extra: bool = False) -> Work:
        """Return the work of a pre-training, with its validations.

        Args:
            row: the method.
            params: its resolved section.
            extra: whether it trains a single adapter on, and so all tasks together.
        """
        if params.loras:
            return Work()
        texts, steps = self.texts.training, params.steps
        updates: float = steps
        if row.is_private and not extra:  # steps are divided among data sets, of which some are trained side by side
            sets = max(1, self.tasks.datasets + self.tasks.test * params.test_tasks)
            updates = math.ceil(steps / sets) * math.ceil(sets / Speed.together)
        factor = FROZEN if extra else _factor(row)
        trained = self._trained(steps * _examples(params), texts, factor, updates * params.accumulation)
        validated = self.tasks.training * params.validate_examples
        times = 1 + (steps // params.validate_every if params.validate_every else 0)
        calls = params.validate_examples * math.ceil(self.tasks.training / VALIDATED_TASKS)
        return trained + Work(FORWARD * times * validated * self.weights.read(texts), times * calls)

    def adapt(self, row: Method, params: AdaptParams) -> Work:
        """Return the work of adapting to all test tasks, if no task's patience ends before."""
        texts, tasks = self.texts.test, self.tasks.test
        if row.routes_queries:
            return self._chosen(row, params)
        factor = FROZEN if row.adds_lora else _factor(row)
        batches = tasks if factor == WHOLE else math.ceil(tasks / Speed.together)
        updates = batches * params.steps * params.accumulation
        trained = self._trained(tasks * params.steps * _examples(params), texts, factor, updates)
        times = validations(params)
        held_out = self.texts.tested / max(1, tasks) if params.validate_on == "test" else params.validation
        examples = times * tasks * held_out
        if params.select == "loss":
            return trained + Work(FORWARD * examples * self.weights.read(texts), times * batches * held_out)
        return trained + self._answered(examples, params.beams, params.max_new_tokens)

    def evaluate(self, params: EvaluateParams, *, phases: int) -> Work:
        """Return the work of answering all test examples.

        Args:
            params: the resolved section.
            phases: before adaptation, or before and after.
        """
        return self._answered(phases * self.texts.tested, params.beams, params.max_new_tokens)

    def _chosen(self, row: Method, params: AdaptParams) -> Work:
        """The work of choosing each task's adapter by successive halving, if each task has as many examples as may be."""
        if row.compares == "adapters":
            return Work()
        tasks, pool = self.tasks.datasets + self.tasks.test, max(1, self.tasks.datasets)
        examples = TaskRouteOptions.model_validate(params.options).examples
        rounds = math.ceil(math.log2(pool))
        first = max(1, examples >> rounds)
        tried = tasks * pool * first * (1 + rounds / 2)  # in each round half as many, on as many examples again
        return Work(FORWARD * tried * self.weights.read(self.texts.training), tasks * max(examples, rounds))

    def _trained(self, examples: float, texts: Lengths, factor: int, updates: float) -> Work:
        return Work(factor * examples * self.weights.read(texts), PASSES * updates)

    def _answered(self, examples: float, beams: int, longest: int) -> Work:
        texts = self.texts.test
        operations = FORWARD * examples * self.weights.answered(texts, beams=beams, longest=longest)
        batches = math.ceil(examples * (texts.choices or beams) / BATCH_ROWS)
        return Work(operations, batches * (1 if texts.choices else min(longest, texts.targets)))


def validations(params: AdaptParams) -> int:
    """Return how often an adaptation validates its tasks: at the start and at its cadence."""
    every = params.evaluate_every
    if params.evaluate_unit == "epochs":
        every *= max(1, (params.shots or 0) // _examples(params))
    return 1 + params.steps // every


def _examples(params: OptimisationParams) -> int:
    """Examples of a step, of one task when adapting."""
    return params.batch_size * params.accumulation


def _factor(row: Method) -> int:
    from mhrctl.adapters.build import adapter_class

    return WHOLE if adapter_class(row).replaces_weights else FROZEN
