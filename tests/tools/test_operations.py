"""Operations, against what torch counts, and lengths of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, T5ForConditionalGeneration

from mhrctl.artifacts.names import TEST_EXAMPLES, TRAINING_EXAMPLES, Project
from mhrctl.config.methods import METHODS
from mhrctl.config.resolve import load_params
from mhrctl.config.sections import AdaptParams, EvaluateParams, PretrainParams, ScratchParams
from mhrctl.data.examples import Examples
from mhrctl.evaluation.prediction import BATCH_ROWS as ANSWERED
from mhrctl.evaluation.validation import VALIDATED_TASKS as VALIDATED
from mhrctl.models.attach import linear_shapes
from mhrctl.stages.backbone import scratch_config
from mhrctl.suites.task import TaskCounts
from mhrctl.tools.operations import BATCH_ROWS, VALIDATED_TASKS, Lengths, Suite, Texts, Weights, texts_of, validations

SIZES = ScratchParams(d_model=32, d_ff=64, d_kv=8, attention_heads=4, layers=2)
WEIGHTS = Weights(inputs=1000, targets=500, output=100, layers=10)
ADAPT: dict[str, Any] = {"steps": 10, "batch_size": 2, "shots": 4, "validation": 8, "evaluate_every": 5, "max_new_tokens": 4}


def t5() -> PreTrainedModel:
    model: PreTrainedModel = T5ForConditionalGeneration(scratch_config(SIZES, 100))
    return model


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=100)
    )


def counted(model: PreTrainedModel, **inputs: torch.Tensor) -> int:
    """Operations of the linear layers in a forward pass, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        model.eval()(**inputs)
    return sum(counts(counter).get(op, 0) for op in (torch.ops.aten.mm, torch.ops.aten.addmm))


def counts(counter: FlopCounterMode) -> Any:
    return counter.get_flop_counts()["Global"]


def test_a_forward_pass_of_an_encoder_decoder_is_what_torch_counts() -> None:
    model = t5()
    weights = Weights.of(linear_shapes(model))
    inputs, targets = torch.ones(3, 11, dtype=torch.long), torch.ones(3, 5, dtype=torch.long)
    operations = counted(model, input_ids=inputs, labels=targets)
    assert operations == 3 * 2 * weights.read(Lengths(11, 5))


def test_a_forward_pass_of_a_causal_model_is_what_torch_counts_but_for_predictions_of_the_prompt() -> None:
    model = llama()
    weights = Weights.of(linear_shapes(model))
    operations = counted(model, input_ids=torch.ones(3, 16, dtype=torch.long))
    assert operations == 3 * 2 * (weights.read(Lengths(11, 5)) + 11 * weights.output)


def test_half_the_operations_of_training_are_of_the_forward_pass() -> None:
    model = t5()
    model.requires_grad_(requires_grad=False)
    model.get_input_embeddings().requires_grad_()  # so that gradients go through all layers
    inputs, targets = torch.ones(3, 11, dtype=torch.long), torch.ones(3, 5, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=inputs, labels=targets).loss.backward()
    operations = counts(counter)[torch.ops.aten.mm]
    suite = suite_of(Lengths(11, 5), weights=Weights.of(linear_shapes(model)))
    frozen = suite.pretrain(METHODS["lora"], pretrain(steps=1, batch_size=3, validate_examples=0)).operations
    assert frozen == pytest.approx(operations, rel=0.05)  # the output layer is the embedding, whose gradient is a part
    whole = suite.pretrain(METHODS["full_ft"], pretrain(steps=1, batch_size=3, validate_examples=0)).operations
    assert whole == 1.5 * frozen


def pretrain(**settings: Any) -> PretrainParams:
    return PretrainParams(**{"steps": 100, "batch_size": 4, **settings})


def suite_of(texts: Lengths, *, tested: int = 60, weights: Weights = WEIGHTS) -> Suite:
    return Suite(weights, Texts(texts, texts, tested, texts, measured=True), TaskCounts(training=40, datasets=4, test=3))


def test_pre_training_is_steps_and_validations() -> None:
    suite, lora = suite_of(Lengths(10, 2)), METHODS["lora"]
    example = 1000 * 10 + 600 * 2
    bare = suite.pretrain(lora, pretrain(validate_examples=0))
    assert (bare.operations, bare.calls) == (4 * 100 * 4 * example, 3 * 100)
    once = suite.pretrain(lora, pretrain(validate_examples=5))
    assert once.operations - bare.operations == 2 * 40 * 5 * example
    often = suite.pretrain(lora, pretrain(validate_examples=5, validate_every=25))
    assert often.operations - bare.operations == 5 * (once.operations - bare.operations)
    double = suite.pretrain(lora, pretrain(validate_examples=0, accumulation=2))
    assert (double.operations, double.calls) == (2 * bare.operations, 2 * bare.calls)
    private = suite.pretrain(METHODS["adapter_soup"], pretrain(validate_examples=0))
    assert (private.operations, private.calls) == (bare.operations, 3 * 25)  # four data sets side by side


def test_adaptation_is_steps_and_validations_of_each_test_task() -> None:
    suite, lora = suite_of(Lengths(10, 2)), METHODS["lora"]
    example, answer = 1000 * 10 + 600 * 2, 1000 * 10 + 600 * 2
    work = suite.adapt(lora, AdaptParams(**ADAPT))
    assert work.operations == 4 * 3 * 10 * 2 * example + 2 * 3 * (3 * 8) * answer
    by_loss = suite.adapt(lora, AdaptParams(**ADAPT | {"select": "loss"}))
    assert by_loss.operations == work.operations  # of texts of two tokens
    of_test = suite.adapt(lora, AdaptParams(**ADAPT | {"validate_on": "test"}))
    assert of_test.operations - work.operations == 2 * 3 * (60 - 3 * 8) * answer
    assert suite.adapt(METHODS["full_ft"], AdaptParams(**ADAPT)).operations > work.operations
    assert suite.adapt(METHODS["full_ft_then_lora"], AdaptParams(**ADAPT)).operations == work.operations


@pytest.mark.parametrize(
    ("settings", "times"),
    [({}, 3), ({"evaluate_every": 3}, 4), ({"evaluate_unit": "epochs", "evaluate_every": 1}, 6), ({"steps": 0}, 1)],
)
def test_validations_are_counted_with_the_start(settings: dict[str, Any], times: int) -> None:
    assert validations(AdaptParams(**ADAPT | settings)) == times


def test_a_router_tries_adapters_on_examples_and_trains_nothing() -> None:
    suite, example = suite_of(Lengths(10, 2)), 1000 * 10 + 600 * 2
    work = suite.adapt(METHODS["lorauter"], AdaptParams(**ADAPT, options={"examples": 32}))
    assert work.operations == 2 * 7 * (4 * 8 + 2 * 8 + 1 * 16) * example  # each of 7 tasks halves 4 adapters
    assert suite.adapt(METHODS["lora_retriever"], AdaptParams(**ADAPT)).operations == 0


def test_choices_are_read_and_texts_generated() -> None:
    generated, chosen = suite_of(Lengths(10, 2)), suite_of(Lengths(10, 2, choices=3))
    params = EvaluateParams(max_new_tokens=8)
    assert generated.evaluate(params, phases=1).operations == 2 * 60 * (1000 * 10 + 600 * 2)
    assert generated.evaluate(params, phases=1).calls == 2  # a call a token
    assert chosen.evaluate(params, phases=1).operations == 2 * 60 * (1000 * 10 + 600 * 2 * 3)
    assert chosen.evaluate(params, phases=1).calls == 1
    beams = EvaluateParams(max_new_tokens=1, beams=4)
    assert generated.evaluate(beams, phases=2).operations == 2 * 120 * (1000 * 10 + 600 * 4)


def test_batches_are_those_of_the_stages() -> None:
    assert (BATCH_ROWS, VALIDATED_TASKS) == (ANSWERED, VALIDATED)


def test_texts_are_measured_once_they_are_prepared(walked: Path, project: Path) -> None:
    settings = load_params(walked / "params.yaml").params.prepare
    longest = Lengths(settings.max_input_tokens, settings.max_target_tokens)
    unprepared = texts_of(Project(project), settings, TaskCounts(3, 3, 2))
    assert unprepared == Texts(longest, longest, 2 * settings.examples, longest, measured=False)
    texts = texts_of(Project(walked), settings, TaskCounts(3, 3, 2))
    known = {}
    for name in (TRAINING_EXAMPLES, TEST_EXAMPLES):
        examples = Examples.read(walked / "data/prepare" / name)
        known[name] = (
            [len(ids) for ids in examples.column("input_ids")],
            [len(ids) for row in examples.column("target_ids") for ids in row],
        )
    for lengths, name in ((texts.training, TRAINING_EXAMPLES), (texts.test, TEST_EXAMPLES)):
        inputs, targets = known[name]
        assert lengths.inputs == pytest.approx(sum(inputs) / len(inputs))
        assert lengths.targets == pytest.approx(sum(targets) / len(targets))
    assert texts.longest.inputs == max(max(inputs) for inputs, _ in known.values())
    assert texts.test.choices == 0  # of which the tasks have some, and are not scored by them
    assert texts.tested == len(Examples.read(walked / "data/prepare" / TEST_EXAMPLES).of(split="test"))


@pytest.mark.parametrize("name", [TRAINING_EXAMPLES, "tasks.json"])
def test_what_cannot_be_read_is_as_if_it_were_not_there(copy: Path, name: str) -> None:
    settings = load_params(copy / "params.yaml").params.prepare
    (copy / "data/prepare" / name).write_text("{")
    assert not texts_of(Project(copy), settings, TaskCounts(3, 3, 2)).measured
