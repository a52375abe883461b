"""Generation and losses for many tasks side by side equal those of one task alone."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from torch.nn import functional
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, T5ForConditionalGeneration

from mhrctl.adapters.config import InventoryConfig
from mhrctl.adapters.inventory import Inventory
from mhrctl.data.examples import Sample
from mhrctl.errors import DivergedError
from mhrctl.evaluation import prediction
from mhrctl.evaluation.metrics import Answer
from mhrctl.evaluation.prediction import Generation, answer, choose, own_rows, predict, sample_losses
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.attach import inject
from mhrctl.models.backbones import vocabulary
from mhrctl.models.decoder_only import PACKS
from mhrctl.models.speed import Speed
from mhrctl.training.objective import Objective
from tests.adapters.test_inventory import randomised
from tests.models.families import changed_weights, decoder, decoder_logits, merged

CPU = torch.device("cpu")


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    vocabulary = {"<pad>": 0, "</s>": 1} | {f"w{number}": number for number in range(2, 64)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>")


@pytest.fixture
def samples() -> list[list[Sample]]:
    """Runs of three and five samples of different lengths."""
    rng = np.random.default_rng(0)

    def sample(length: int) -> Sample:
        return Sample(0, rng.integers(2, 64, length), rng.integers(2, 64, 3))

    return [[sample(length) for length in (4, 7, 2)], [sample(length) for length in (3, 3, 8, 5, 6)]]


@pytest.fixture
def inventory(tiny_t5: T5ForConditionalGeneration) -> Inventory:
    base = Inventory(inject(tiny_t5, "full"), InventoryConfig(heads=4, skills=2), tasks=3)
    with torch.no_grad():
        for bank in base.lora_B:
            bank.normal_(std=0.3)
    runs = base.for_new_tasks([1, 2], train_skills=True)
    with torch.no_grad():
        for parameter in runs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return runs


@pytest.mark.parametrize("beams", [1, 2])
def test_answers_side_by_side_equal_answers_alone(
    tiny_t5: T5ForConditionalGeneration,
    inventory: Inventory,
    tokenizer: PreTrainedTokenizerBase,
    samples: list[list[Sample]],
    beams: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prediction, "BATCH_ROWS", 4 * beams)  # two rows a run and batch: the runs end in different batches
    together = predict(AdaptedModel(tiny_t5, inventory), tokenizer, samples, generation=Generation(beams, 4), device=CPU)
    for run, of_run in enumerate(samples):
        model = AdaptedModel(tiny_t5, inventory.select([run]))
        for row, sample in enumerate(of_run):
            (alone,) = predict(model, tokenizer, [[sample]], generation=Generation(beams, 4), device=CPU)
            assert together[run][row] == alone[0]
    assert len({answer for run in together for answer in run}) > 1


def test_losses_side_by_side_equal_losses_alone(
    tiny_t5: T5ForConditionalGeneration, inventory: Inventory, samples: list[list[Sample]]
) -> None:
    objective = Objective("token_mean", 0.0)
    together = sample_losses(AdaptedModel(tiny_t5, inventory), samples, own_rows(2), objective=objective, device=CPU)
    for run, of_run in enumerate(samples):
        model = AdaptedModel(tiny_t5, inventory.select([run]))
        (alone,) = sample_losses(model, [of_run], own_rows(1), objective=objective, device=CPU)
        assert together[run] == pytest.approx(alone, rel=1e-5)


def with_choices(run: list[Sample], count: int) -> list[Sample]:
    """The samples with answer choices of different lengths."""
    rng = np.random.default_rng(count)
    return [
        Sample(row.task, row.input_ids, row.target_ids, tuple(rng.integers(2, 64, 1 + number) for number in range(count)), 0)
        for row in run
    ]


def test_choices_are_scored_like_one_at_a_time(tiny_t5: T5ForConditionalGeneration, samples: list[list[Sample]]) -> None:
    """Runs of two and of four choices side by side, against the loss of every choice alone under the run's own adapters."""
    inventory = randomised(Inventory(inject(tiny_t5, "full"), InventoryConfig(heads=4, skills=3))).for_new_tasks(
        [1, 2], train_skills=True
    )
    runs = [with_choices(samples[0], 2), with_choices(samples[1], 4)]
    objective = Objective("token_mean", 0.0)
    together = choose(AdaptedModel(tiny_t5, inventory), runs, objective=objective, device=CPU)
    for number, run in enumerate(runs):
        alone = AdaptedModel(tiny_t5, inventory.select([number]))
        for row, sample in enumerate(run):
            one = [[Sample(0, sample.input_ids, choice)] for choice in sample.choices]
            losses = [sample_losses(alone, [each], own_rows(1), objective=objective, device=CPU)[0] for each in one]
            assert together[number][row] == losses.index(min(losses))


def test_runs_with_choices_choose_and_runs_without_generate(
    tiny_t5: T5ForConditionalGeneration, samples: list[list[Sample]], tokenizer: PreTrainedTokenizerBase
) -> None:
    inventory = randomised(Inventory(inject(tiny_t5, "full"), InventoryConfig(heads=4, skills=3))).for_new_tasks(
        [1, 2], train_skills=True
    )
    model = AdaptedModel(tiny_t5, inventory)
    runs = [with_choices(samples[0], 2), samples[1]]
    texts = [["yes", "no"]] * len(runs[0])
    answers = answer(model, tokenizer, runs, [texts, []], generation=Generation(1, 3), device=CPU)
    assert all(answer.text == texts[0][answer.place] for answer in answers[0] if answer.place is not None)
    assert {answer.place for answer in answers[0]} <= {0, 1}
    generated = predict(model, tokenizer, samples, generation=Generation(1, 3), device=CPU)
    assert answers[1] == [Answer(text) for text in generated[1]]


@pytest.mark.parametrize("beams", [1, 2])
def test_no_answer_comes_of_logits_that_are_not_finite(
    tiny_t5: T5ForConditionalGeneration,
    inventory: Inventory,
    tokenizer: PreTrainedTokenizerBase,
    samples: list[list[Sample]],
    beams: int,
) -> None:
    with torch.no_grad():
        inventory.lora_B[0][1].fill_(torch.inf)  # of the second run
    model, generation = AdaptedModel(tiny_t5, inventory), Generation(beams, 4)
    with pytest.raises(DivergedError, match=r"^what the model computes for last is not finite$"):
        answer(model, tokenizer, samples, [[], []], generation=generation, device=CPU, names=["first", "last"])
    answer(AdaptedModel(tiny_t5, inventory.select([0])), tokenizer, samples[:1], [[]], generation=generation, device=CPU)
    offered = [[replace(sample, choices=(np.array([5, 1]), np.array([7, 8, 1]))) for sample in run] for run in samples]
    texts = [[["a", "b"]] * len(run) for run in samples]
    with pytest.raises(DivergedError, match=r"^what the model computes for run 1 is not finite$"):
        answer(model, tokenizer, offered, texts, generation=generation, device=CPU)


@pytest.fixture(params=[True, False], ids=["packed", "padded"])
def decoder_only(request: pytest.FixtureRequest) -> AdaptedModel:
    """A tiny Llama, with the adapters of two runs."""
    backbone: Any = deepcopy(decoder("llama"))
    setattr(backbone, PACKS, request.param)
    torch.manual_seed(0)
    base = randomised(Inventory(inject(backbone, "full"), InventoryConfig(heads=4, skills=3), tasks=1))
    runs = base.for_new_tasks([1, 2], train_skills=True)
    with torch.no_grad():
        for parameter in runs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return AdaptedModel(backbone, runs)


def words(ids: Sequence[int]) -> str:
    """What the tokenizer makes of tokens, without special ones."""
    return " ".join(f"w{token}" for token in ids if token > 2)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_decoder_only_model_chooses_and_generates_as_each_example_alone(
    decoder_only: AdaptedModel, samples: list[list[Sample]], beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run with choices, of which samples have two or three, and one without: the answers do not repeat the prompt."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{number}": number for number in range(3, 97)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    monkeypatch.setattr(prediction, "BATCH_ROWS", 6 * beams)
    offered = [replace(sample, choices=sample.choices[: 2 + row % 2]) for row, sample in enumerate(with_choices(samples[0], 3))]
    texts = [[f"{row}/{number}" for number in range(len(sample.choices))] for row, sample in enumerate(offered)]
    answers = answer(decoder_only, tokenizer, [offered, samples[1]], [texts, []], generation=Generation(beams, 4), device=CPU)
    adapter, plain = decoder_only.adapter, decoder("llama")
    assert adapter is not None
    slots = adapter(torch.tensor([[0], [0]]))
    places = []
    with torch.no_grad():
        for sample in offered:
            losses = []
            for choice in sample.choices:
                logits = decoder_logits(plain, changed_weights(plain, slots, 0), sample.input_ids.tolist(), choice.tolist())
                losses.append(float(functional.cross_entropy(logits, torch.from_numpy(choice))))
            places.append(losses.index(min(losses)))
        assert answers[0] == [Answer(texts[row][place], place) for row, place in enumerate(places)]
        model = merged(plain, slots, 1)
        for sample, given in zip(samples[1], answers[1], strict=True):
            ids = torch.from_numpy(sample.input_ids)[None]
            options = {"num_beams": beams, "do_sample": False, "max_new_tokens": 4, "attention_mask": torch.ones_like(ids)}
            (whole,) = model.generate(ids, **options).tolist()
            assert given == Answer(words(whole[ids.shape[1] :]))
    assert len({given.text for given in answers[1]}) > 1
    assert len(set(places)) > 1


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_end_at_the_tokenizers_end_whatever_ends_the_checkpoint_has(
    decoder_only: AdaptedModel, samples: list[list[Sample]], beams: int
) -> None:
    """As what ends a turn of a chat, which a base model does not stop at."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{number}": number for number in range(3, 97)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))

    def answers(end: str) -> list[str]:
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token=end)
        return predict(decoder_only, tokenizer, [samples[1]] * 2, generation=Generation(beams, 6), device=CPU)[1]

    long = answers("</s>")
    place, answer = max(enumerate(long), key=lambda each: len(set(each[1].split())))
    first, second, *_ = dict.fromkeys(answer.split())
    stopped = answers(second)
    assert second not in " ".join(stopped).split()
    assert stopped != long
    if beams == 1:
        assert stopped[place] == " ".join(word for word in answer.split()[: answer.split().index(second)])
        assert stopped[place].startswith(first)


def test_a_large_vocabulary_makes_batches_small(
    tiny_t5: T5ForConditionalGeneration,
    inventory: Inventory,
    tokenizer: PreTrainedTokenizerBase,
    samples: list[list[Sample]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows times tokens are bounded, and answers stay what they are; of T5's 32,128 tokens a batch has its 256 rows."""
    model = AdaptedModel(tiny_t5, inventory, speed=Speed(forward=False))
    assert prediction._rows_a_run(model, 1, 1) == 256
    monkeypatch.setattr(prediction, "vocabulary", lambda _: 32_128)
    assert [prediction._rows_a_run(model, each, runs) for each, runs in ((1, 1), (4, 2), (4, 1000))] == [256, 32, 1]
    monkeypatch.setattr(prediction, "vocabulary", lambda _: 262_144)
    assert [prediction._rows_a_run(model, each, runs) for each, runs in ((1, 1), (4, 2), (4, 1000))] == [32, 4, 1]
    monkeypatch.undo()
    whole = predict(model, tokenizer, samples, generation=Generation(1, 4), device=CPU)
    monkeypatch.setattr(prediction, "BATCH_LOGITS", 2 * vocabulary(tiny_t5))
    sizes: list[int] = []
    generate = AdaptedModel.generate

    def counted(self: AdaptedModel, task_ids: torch.Tensor | None, inputs: Any, **options: Any) -> torch.Tensor:
        sizes.append(len(inputs.lengths))
        return generate(self, task_ids, inputs, **options)

    monkeypatch.setattr(AdaptedModel, "generate", counted)
    assert predict(model, tokenizer, samples, generation=Generation(1, 4), device=CPU) == whole
    assert sizes == [2] * 5
    assert predict(AdaptedModel(tiny_t5, inventory), tokenizer, samples, generation=Generation(1, 4), device=CPU) == whole
    assert len(sizes) == 5


def test_batches_of_all_runs_hold_rows_of_similar_length(samples: list[list[Sample]], monkeypatch: pytest.MonkeyPatch) -> None:
    batches = prediction._mixed_batches(samples, 3)
    assert [[len(samples[run][row].input_ids) for run, row in batch] for batch in batches] == [[7, 8, 6], [4, 3, 5], [2, 3]]
    assert batches[0] == [(0, 1), (1, 2), (1, 4)]
    monkeypatch.setattr(prediction, "BATCH_TOKENS", 10)
    assert list(map(len, prediction._mixed_batches(samples, 3))) == [1, 1, 1, 2, 3]


def test_chosen_answers_keep_the_scores_of_their_choices(
    tiny_t5: T5ForConditionalGeneration,
    inventory: Inventory,
    tokenizer: PreTrainedTokenizerBase,
    samples: list[list[Sample]],
) -> None:
    """Minus the mean loss of a choice's tokens, for each of the choices that there are."""
    runs = [with_choices(samples[0], 2), with_choices(samples[1], 3)]
    texts = [[[str(number) for number in range(len(row.choices))] for row in run] for run in runs]
    model = AdaptedModel(tiny_t5, inventory)
    said = answer(model, tokenizer, runs, texts, generation=Generation(1, 4), device=CPU)
    objective = Objective("token_mean", 0.0)
    for number, (run, of_run) in enumerate(zip(runs, said, strict=True)):
        alone = AdaptedModel(tiny_t5, inventory.select([number]))
        for row, each in zip(run, of_run, strict=True):
            one = [[Sample(0, row.input_ids, choice)] for choice in row.choices]
            losses = [sample_losses(alone, [choice], own_rows(1), objective=objective, device=CPU)[0] for choice in one]
            assert list(each.scores) == pytest.approx([-loss for loss in losses], rel=1e-5)
            assert each.place == losses.index(min(losses))
            assert each.text == str(each.place)


def test_runs_may_be_rows_of_one_routing(
    tiny_t5: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, samples: list[list[Sample]]
) -> None:
    inventory = randomised(Inventory(inject(tiny_t5, "full"), InventoryConfig(heads=4, skills=3), tasks=3))
    runs = [with_choices(samples[0], 2), samples[1], with_choices(samples[1], 2)]
    texts: list[list[list[str]]] = [[["a", "b"]] * len(runs[0]), [], [["a", "b"]] * len(runs[2])]
    model = AdaptedModel(tiny_t5, inventory)
    options: dict[str, Any] = {"generation": Generation(1, 4), "device": CPU}
    together = answer(model, tokenizer, runs, texts, routing=[[2, 0, 1]], **options)
    for run, row in enumerate((2, 0, 1)):
        (alone,) = answer(model, tokenizer, [runs[run]], [texts[run]], routing=[[row]], **options)
        assert together[run] == alone
        assert [each.scores for each in together[run]] == [pytest.approx(each.scores, rel=1e-5) for each in alone]
    (other,) = answer(model, tokenizer, [runs[0]], [texts[0]], routing=[[0]], **options)
    assert [each.scores for each in other] != [each.scores for each in together[0]]
