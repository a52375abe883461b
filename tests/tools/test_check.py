"""What can be proved before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM, T5ForConditionalGeneration

from mhrctl.artifacts.cards import Card, write_card
from mhrctl.artifacts.facts import PrepareFacts
from mhrctl.artifacts.names import Project
from mhrctl.config.cells import grid_cells
from mhrctl.config.params import Params
from mhrctl.config.resolve import load_params, resolve_cell
from mhrctl.data.tokenization import SPECIAL, train_tokenizer
from mhrctl.errors import DataError, ParamsError
from mhrctl.suites.task import Seen, TaskCounts
from mhrctl.tools.check import (
    SPECIAL_TOKENS,
    _tokenizer,
    check_backbone,
    check_suite,
    prepared_tasks,
    shortages,
    unknown_task,
    unmade,
    unmeasured,
    vocab_size,
)
from tests.conftest import Run
from tests.data.kinds import CHATS, gpt_2


def loaded(project: Path, *sets: str) -> Params:
    return load_params(project / "params.yaml", sets).params


def test_tasks_are_counted_from_their_files(project: Path) -> None:
    assert check_suite(loaded(project), Project(project)) == Seen(TaskCounts(3, 3, 2))
    (project / "tasks/test/bad.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"bad.jsonl:1: input is missing"):
        check_suite(loaded(project), Project(project))


@pytest.mark.parametrize(
    "sets",
    [
        ("prepare.tokenizer=no/such/folder",),
        ("backbone.source=hub", "backbone.name=no/such/folder", "backbone.revision=main"),
    ],
)
def test_a_name_that_is_neither_folder_nor_id_is_rejected(project: Path, sets: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"(tokenizer|backbone.name) 'no/such/folder': no such folder, and no id of the hub"):
        check_suite(loaded(project, *sets), Project(project))


def unmeasured_of(project: Path, *sets: str) -> str | None:
    settings = load_params(project / "params.yaml", sets)
    return unmeasured(resolve_cell(settings, cell) for cell in grid_cells(settings.params))


def test_alignment_that_cannot_be_measured_is_said(project: Path) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text() + "    adapter_soup:\n    full_ft_then_lora:\n    mosa: {extra_steps: [3]}\n")
    assert unmeasured_of(project) is None
    assert unmeasured_of(project, "grid.methods.mhr.pretrain.align_every=2") is None
    said = str(unmeasured_of(project, "pretrain.align_every=2"))
    assert said.startswith("pretrain.align_every: the training tasks of adapter_soup, full_ft, mosa share no adapter")
    assert "will refuse adapter_soup-s0, full_ft-s0, mosa-s0, mosa-x3-s0; set it at single methods" in said
    off = [f"{name}: {{pretrain: {{align_every: 0}}}}" for name in ("adapter_soup-s0", "full_ft-s0", "mosa-s0", "mosa-x3-s0")]
    params.write_text(params.read_text().replace("  skills: 2", "  skills: 2\n  align_every: 2"))
    params.write_text(params.read_text() + f"  overrides: {{{', '.join(off)}}}\n")
    assert unmeasured_of(project) is None


def test_outputs_that_nothing_makes_are_said(project: Path) -> None:
    def unmade_of(*sets: str) -> str | None:
        settings = load_params(project / "params.yaml", sets)
        return unmade([resolve_cell(settings, cell) for cell in grid_cells(settings.params)], Project(project))

    assert unmade_of() is None
    assert unmade_of("adapt.under=lora") is None
    assert unmade_of("adapt.under=mhr_mu-h4") is None
    said = str(unmade_of("adapt.under=lora-s100", "grid.methods.poly.pretrain.pool=adapter_soup"))
    assert said.startswith("settings name pretrain/lora-s100, pretrain/adapter_soup-s0, which are not there and which the grid")
    made = project / "data/pretrain/lora-s100/card.json"
    made.parent.mkdir(parents=True)
    made.write_text("{}")
    assert unmade_of("adapt.under=lora-s100") is None


def test_tasks_that_are_prepared_count(project: Path) -> None:
    assert prepared_tasks(Project(project)) is None
    rows = [
        {"role": "training", "dataset": "a"},
        {"role": "training", "dataset": "a"},
        {"role": "test", "dataset": "b"},
        {"role": "backbone", "dataset": "c"},
    ]
    folder = project / "data/prepare"
    folder.mkdir(parents=True)
    (folder / "tasks.json").write_text(json.dumps({"tasks": rows}))
    assert prepared_tasks(Project(project)) == TaskCounts(2, 1, 1)
    assert check_suite(loaded(project), Project(project)).tasks == TaskCounts(2, 1, 1)


def test_what_is_passed_over_is_noted(project: Path) -> None:
    (project / "tasks/test/._swap.jsonl").write_text("x")
    (project / "tasks/notes.txt").write_text("x")
    assert check_suite(loaded(project), Project(project)).notes == {
        "hidden or backup files and folders passed over: test/._swap.jsonl": 1,
        "files without the ending .jsonl passed over: notes.txt": 1,
    }


def test_shots_beyond_the_data_are_reported_once_it_is_prepared(project: Path) -> None:
    settings = load_params(project / "params.yaml", ["adapt.shots=100"])
    cells = [resolve_cell(settings, cell) for cell in grid_cells(settings.params)]
    assert shortages(cells, Project(project)) == []
    rows = [{"name": "swap", "role": "test", "splits": {"test": 4, "pool": 8}}]
    folder = project / "data/prepare"
    folder.mkdir(parents=True)
    (folder / "tasks.json").write_text(json.dumps({"tasks": rows}))
    (line,) = shortages(cells, Project(project))
    assert line.startswith("fewer examples than the 100 shots and 3 of validation")
    assert line.endswith("swap (8)")


def test_what_is_on_the_hub_is_not_looked_at(project: Path) -> None:
    seen = check_suite(loaded(project, "prepare.tokenizer=nobody/model"), Project(project))
    assert seen.unchecked == ("prepare.tokenizer nobody/model on the hub",)
    (project / "model").mkdir()
    assert check_suite(loaded(project, "prepare.tokenizer=model"), Project(project)).unchecked == ()


def test_an_encoder_in_a_folder_must_be_there_if_a_method_asks_it(project: Path) -> None:
    absent = loaded(project, "index.encoder=./encoder")
    check_suite(absent, Project(project))
    soup = loaded(project, "index.encoder=./encoder", "grid.methods={adapter_soup: }")
    with pytest.raises(DataError, match=r"encoder: no such folder; set index.encoder"):
        check_suite(soup, Project(project))
    check_suite(loaded(project, "index.encoder=sentence-transformers/x", "grid.methods={adapter_soup: }"), Project(project))
    (project / "encoder").mkdir()
    check_suite(soup, Project(project))


def test_entries_of_the_tokenizer_are_those_it_has_or_may_have(project: Path) -> None:
    assert vocab_size(loaded(project).prepare, Project(project)) == 8000
    folder = project / "data/prepare"
    folder.mkdir(parents=True)
    write_card(folder, Card.of("prepare", {}, {}, PrepareFacts(suite="jsonl", tokenizer="", vocab_size=77)))
    assert vocab_size(loaded(project).prepare, Project(project)) == 77


LOCAL = ("backbone.source=local", "backbone.name=checkpoint")


@pytest.fixture
def checkpoint(project: Path, tiny_t5: T5ForConditionalGeneration) -> Path:
    tiny_t5.save_pretrained(project / "checkpoint")
    return project / "checkpoint"


def change(path: Path, **settings: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_what_shapes_answers_is_said_before_anything_runs(project: Path, checkpoint: Path) -> None:
    def notes(*sets: str) -> list[str]:
        return check_backbone(loaded(project, *LOCAL, *sets), Project(project))

    assert notes() == []
    change(checkpoint / "generation_config.json", min_length=12, no_repeat_ngram_size=2, num_beams=4)
    assert notes("adapt.max_new_tokens=20") == [
        "generation: min_length 12, no_repeat_ngram_size 2; backbone.generation sets it otherwise",
        "not used of generation_config.json: num_beams; set beams of `adapt` and `evaluate`",
        "warning: answers have 11 tokens at least, and evaluate.max_new_tokens is 4: none ends",
    ]
    assert notes("backbone.generation.neutral=true")[0].startswith("not used of generation_config.json")
    (checkpoint / "generation_config.json").write_text("{")
    with pytest.raises(DataError, match=r"generation_config.json: cannot be read as JSON"):
        notes()


def test_a_decoder_without_a_start_is_rejected_until_it_is_set(project: Path, checkpoint: Path) -> None:
    for name in ("config.json", "generation_config.json"):
        change(checkpoint / name, decoder_start_token_id=None)
    with pytest.raises(DataError, match=r"backbone.name 'checkpoint': neither .* has a decoder_start_token_id; set backbone"):
        check_backbone(loaded(project, *LOCAL), Project(project))
    settings = loaded(project, *LOCAL, "backbone.generation.decoder_start_token_id=0")
    assert check_backbone(settings, Project(project)) == [
        "generation: decoder_start_token_id 0; backbone.generation sets it otherwise"
    ]


def test_a_tokenizer_in_a_folder_must_fit(project: Path, checkpoint: Path) -> None:
    tokenizer = train_tokenizer("word", ["a b c"], vocab_size=60)
    tokenizer.save_pretrained(str(project / "tokenizer"))
    settings = loaded(project, *LOCAL, "prepare.tokenizer=tokenizer")
    assert check_backbone(settings, Project(project)) == []
    for name in ("config.json", "generation_config.json"):
        change(checkpoint / name, eos_token_id=5)
    with pytest.raises(DataError, match=r"prepare.tokenizer 'tokenizer': texts end with </s> \(1\), but .* stops at 5"):
        check_backbone(settings, Project(project))
    (project / "tokenizer/tokenizer.json").write_text("{")
    with pytest.raises(DataError, match=r"tokenizer.json: cannot be read as JSON"):
        check_backbone(settings, Project(project))


def test_a_tokenizer_without_padding_is_for_a_causal_framing(project: Path) -> None:
    gpt_2().save_pretrained(str(project / "tokenizer"))
    settings = ("prepare.tokenizer=tokenizer", "prepare.framing=causal")
    with pytest.raises(DataError, match=r"^prepare.tokenizer .*: has no padding token; add `pad_token`"):
        _tokenizer(loaded(project, settings[0]).prepare, Project(project))
    tokenizer = _tokenizer(loaded(project, *settings).prepare, Project(project))
    assert tokenizer is not None
    assert tokenizer.pad_token_id == gpt_2().eos_token_id


def test_a_chat_needs_a_template_before_anything_runs(project: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    gpt_2().save_pretrained(str(project / "plain"))
    CHATS["marked"]().save_pretrained(str(project / "marked"))
    scratch = "backbone.scratch.architecture=llama"
    settings = ("prepare.framing=causal", "prepare.chat=true", "prepare.tokenizer=plain", scratch)
    with pytest.raises(DataError, match=r"^prepare.tokenizer '.*plain': has no chat template; name the tokenizer of a model"):
        _tokenizer(loaded(project, *settings).prepare, Project(project))
    capfd.readouterr()
    assert run("check", *(word for each in settings for word in ("--set", each)), "-C", project) == 2
    assert "has no chat template" in capfd.readouterr().err
    tokenizer = _tokenizer(loaded(project, *settings[:2], "prepare.tokenizer=marked").prepare, Project(project))
    assert tokenizer is not None
    assert tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_a_tokenizer_in_a_gguf_file_is_left_to_prepare_unless_a_chat_asks_for_its_template(project: Path) -> None:
    settings = ("prepare.tokenizer=models", "prepare.tokenizer_gguf=tiny.gguf", "prepare.framing=causal")
    (project / "models").mkdir()
    with pytest.raises(DataError, match=r"^prepare.tokenizer_gguf 'tiny.gguf' of '.*models': there is no such file$"):
        _tokenizer(loaded(project, *settings).prepare, Project(project))
    (project / "models/tiny.gguf").write_bytes(b"not one")
    assert _tokenizer(loaded(project, *settings).prepare, Project(project)) is None
    assert "the tokenizer in tiny.gguf" in check_suite(loaded(project, *settings), Project(project)).unchecked
    with pytest.raises(DataError, match=r"^prepare.tokenizer_gguf 'tiny.gguf' of '.*models': cannot be loaded: "):
        _tokenizer(loaded(project, *settings, "prepare.chat=true").prepare, Project(project))


def test_a_chat_may_end_otherwise_than_the_backbone(project: Path) -> None:
    causal_backbone(project / "llama", vocabulary=500)
    CHATS["marked"]().save_pretrained(str(project / "marked"))
    change(project / "llama/config.json", vocab_size=500)
    local = ("backbone.source=local", "backbone.name=llama", "prepare.tokenizer=marked", "prepare.framing=causal")
    with pytest.raises(DataError, match=r"texts end with <\|endoftext\|> \(0\), but .* stops at 1"):
        check_backbone(loaded(project, *local), Project(project))
    assert check_backbone(loaded(project, *local, "prepare.chat=true"), Project(project)) == []


def test_a_vocabulary_without_room_for_words_is_rejected(project: Path) -> None:
    assert len(SPECIAL) == SPECIAL_TOKENS
    with pytest.raises(ParamsError, match=r"prepare.vocab_size 35: must be more than the 35 special tokens"):
        check_backbone(loaded(project, "prepare.vocab_size=35"), Project(project))
    assert check_backbone(loaded(project, "backbone.generation.min_length=2"), Project(project)) == [
        "generation: min_length 2, over what the checkpoint says"
    ]


def test_tasks_with_an_epoch_of_their_own_are_tasks_that_there_are(project: Path) -> None:
    where = Project(project)
    assert unknown_task({"swop": 3}, where) is None  # nothing is prepared yet
    tasks = [{"name": "swap", "role": "test", "dataset": "swap"}, {"name": "copy", "role": "training", "dataset": "copy"}]
    where.output("prepare").mkdir(parents=True)
    (where.output("prepare") / "tasks.json").write_text(json.dumps({"tasks": tasks}))
    assert unknown_task({"swap": 3, "h-swag": 3}, where) is None  # the recipe of T0 names h-swag
    assert unknown_task({"swop": 3}, where) == (
        "adapt.epoch_steps: unknown test task 'swop'; did you mean 'swap'? (known: swap)"
    )
    assert unknown_task({"copy": 3}, where) == "adapt.epoch_steps: unknown test task 'copy' (known: swap)"


def causal_backbone(folder: Path, vocabulary: int = 100) -> None:
    """A tiny Llama with a tokenizer of its own."""
    tokenizer = train_tokenizer("word", ["a b c d e f", "g h i j"], vocab_size=vocabulary, ends_texts=False)
    tokenizer.save_pretrained(str(folder))
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def test_the_framing_must_be_that_of_the_backbone(project: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    causal_backbone(project / "llama")
    local = ("backbone.source=local", "backbone.name=llama", "prepare.tokenizer=llama")
    with pytest.raises(
        ParamsError,
        match=r"^prepare.framing encoder_decoder: llama is a causal language model; set prepare.framing: causal$",
    ):
        check_backbone(loaded(project, *local), Project(project))
    assert check_backbone(loaded(project, *local, "prepare.framing=causal"), Project(project)) == []
    with pytest.raises(
        ParamsError,
        match=r"^prepare.framing causal: backbone.scratch.architecture t5 is an encoder-decoder;"
        r" set prepare.framing: encoder_decoder$",
    ):
        check_backbone(loaded(project, "prepare.framing=causal"), Project(project))
    capfd.readouterr()
    assert run("check", *(word for each in local for word in ("--set", each)), "-C", project) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_the_framing_of_a_backbone_that_is_not_at_hand_is_not_looked_at(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_args, **_options: None)
    hub = ("backbone.source=hub", "backbone.name=a/b", "backbone.revision=main")
    for framing in ("causal", "encoder_decoder"):
        assert check_backbone(loaded(project, *hub, f"prepare.framing={framing}"), Project(project)) == []
