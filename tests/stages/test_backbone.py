"""backbone: scratch, local, and the traps of loading."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    BertConfig,
    BertLMHeadModel,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5ForConditionalGeneration,
)

from mhrctl.artifacts.hashing import digest
from mhrctl.config.sections import BackboneParams, ScratchParams
from mhrctl.data.batches import collate
from mhrctl.data.denoising import language_modelling
from mhrctl.data.examples import Examples
from mhrctl.data.tokenization import SENTINELS, entries, saved_tokenizer
from mhrctl.errors import ArtifactError, DataError, ParamsError
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.backbones import fingerprint, is_tied, load_backbone
from mhrctl.models.decoder_only import PACKS
from mhrctl.stages.backbone import backbone, train_scratch
from mhrctl.training import checkpoint
from mhrctl.training.execution import Execution
from tests.conftest import Run, mhrctl
from tests.data.kinds import CHATS
from tests.models.gguf_files import write_gguf


def make(project: Path, accelerator: Accelerator, **options: Any) -> Path:
    out = project / "backbone"
    prepared = project / "data/prepare"
    backbone(
        BackboneParams(**options),
        prepared=prepared,
        root=project,
        out=out,
        scratch=project / "data/scratch",
        execution=Execution(accelerator),
    )
    return out


def unsaved(folder: Path, accelerator: Accelerator) -> dict[str, Any]:
    """How to train a backbone without a stage around it."""
    return {"execution": Execution(accelerator), "checkpoint": folder / "scratch.safetensors", "key": "k"}


def test_scratch_is_loaded_as_it_was_trained(walked: Path) -> None:
    model, recorded = load_backbone(walked / "data/backbone")
    assert fingerprint(model) == recorded
    assert is_tied(model)
    assert not list((walked / "data/backbone").glob("*.bin"))


def test_an_untied_checkpoint_stays_untied(copy: Path, accelerator: Accelerator, tiny_t5: T5ForConditionalGeneration) -> None:
    tiny_t5.lm_head.weight = nn.Parameter(torch.randn_like(tiny_t5.lm_head.weight))
    tiny_t5.save_pretrained(copy / "checkpoint")
    out = make(copy, accelerator, source="local", name="checkpoint")
    model, _ = load_backbone(out)
    assert not is_tied(model)
    assert torch.equal(model.state_dict()["lm_head.weight"], tiny_t5.lm_head.weight)
    assert torch.equal(model.state_dict()["shared.weight"], tiny_t5.shared.weight)
    assert json.loads((out / "card.json").read_text())["facts"]["tied_output"] is False
    assert not list(out.glob("*.safetensors"))  # a reference, not a copy


def test_changed_weights_are_noticed(copy: Path, accelerator: Accelerator, tiny_t5: T5ForConditionalGeneration) -> None:
    tiny_t5.save_pretrained(copy / "checkpoint")
    out = make(copy, accelerator, source="local", name="checkpoint")
    with torch.no_grad():
        tiny_t5.shared.weight[0, 0] += 1
    tiny_t5.save_pretrained(copy / "checkpoint")
    with pytest.raises(ArtifactError, match=r"not those that the card names; run `mhrctl backbone`"):
        load_backbone(out)


def frame(project: Path, *, chat: str = "", tokenizer: str = "word") -> None:
    """Prepare a project's examples for causal models."""
    params = project / "params.yaml"
    settings = f"  tokenizer: {tokenizer}\n  framing: causal\n{chat}"
    params.write_text(params.read_text().replace("  tokenizer: word\n", settings))
    assert mhrctl("prepare", "-C", project) == 0


def save_gpt(folder: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(n_layer=1, n_embd=8, n_head=1, n_positions=64, vocab_size=80, eos_token_id=1, bos_token_id=1)
    GPT2LMHeadModel(config).save_pretrained(folder)


def save_bloom(folder: Path) -> None:
    torch.manual_seed(0)
    BloomForCausalLM(BloomConfig(n_layer=1, hidden_size=8, n_head=2, vocab_size=80, eos_token_id=1)).save_pretrained(folder)


@pytest.mark.parametrize("save", [save_gpt, save_bloom])
def test_a_causal_model_is_tested_and_packs_or_pads(
    copy: Path, run: Run, capfd: pytest.CaptureFixture[str], save: Callable[[Path], None]
) -> None:
    frame(copy)
    save(copy / "checkpoint")
    capfd.readouterr()
    assert run("backbone", "--set", "backbone.source=local", "--set", "backbone.name=checkpoint", "-C", copy) == 0
    said, facts = capfd.readouterr().err, read_facts(copy / "data/backbone")
    model, _ = load_backbone(copy / "data/backbone")
    assert getattr(model, PACKS) == facts["packing"] == (save is save_gpt)
    if facts["packing"]:
        assert "packs sequences" in said
        assert "padded_because" not in facts
    else:
        assert facts["padded_because"].startswith("packed logits differ by ")
        assert f"pads sequences: {facts['padded_because']}" in said
    assert "generation" not in facts  # the end pads where a checkpoint has no padding, and nothing is made of it
    assert model.config.pad_token_id == 1


def test_an_encoder_decoders_card_says_nothing_of_packing(walked: Path) -> None:
    assert not {"packing", "padded_because"} & read_facts(walked / "data/backbone").keys()
    assert "architecture" not in json.loads((walked / "data/backbone/card.json").read_text())["params"]["scratch"]


def test_a_model_that_reads_ahead_is_rejected(copy: Path, accelerator: Accelerator) -> None:
    frame(copy)
    BertLMHeadModel(
        BertConfig(
            vocab_size=80, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, eos_token_id=1
        )
    ).save_pretrained(copy / "bert")
    with pytest.raises(DataError, match=r"a bert model; an encoder-decoder"):
        make(copy, accelerator, source="local", name="bert")


def test_what_ends_a_turn_of_a_chat_need_be_no_end_of_the_backbone(copy: Path, accelerator: Accelerator) -> None:
    CHATS["marked"]().save_pretrained(str(copy / "theirs"))
    sizes: dict[str, Any] = {"n_layer": 1, "n_embd": 8, "n_head": 1, "n_positions": 64}
    GPT2LMHeadModel(GPT2Config(**sizes, vocab_size=400, eos_token_id=0, bos_token_id=0)).save_pretrained(copy / "gpt")
    frame(copy, chat="  chat: true\n", tokenizer="theirs")
    facts = read_facts(make(copy, accelerator, source="local", name="gpt"))
    assert facts["packing"]
    assert "generation" not in facts  # the checkpoint is as it was; what reads answers has the tokenizer


def test_examples_are_framed_for_the_kind_of_the_backbone(
    copy: Path, accelerator: Accelerator, tiny_t5: T5ForConditionalGeneration
) -> None:
    save_gpt(copy / "gpt")
    tiny_t5.save_pretrained(copy / "t5")
    llama = SCRATCH | {"architecture": "llama"}
    with pytest.raises(ParamsError, match=r"backbone.name 'gpt': is a causal .*; set prepare.framing: causal$"):
        make(copy, accelerator, source="local", name="gpt")
    with pytest.raises(ParamsError, match=r"backbone.scratch.architecture llama: is a causal .*; set prepare.framing: causal$"):
        make(copy, accelerator, source="scratch", scratch=llama)
    frame(copy)
    with pytest.raises(ParamsError, match=r"backbone.name 't5': is an encoder-decoder, .*; set prepare.framing: encoder_deco"):
        make(copy, accelerator, source="local", name="t5")
    with pytest.raises(ParamsError, match=r"backbone.scratch.architecture t5: is an encoder-decoder, .*framing: encoder_deco"):
        make(copy, accelerator, source="scratch", scratch=SCRATCH)


def test_a_gguf_file_becomes_the_stages_own_weights(copy: Path, accelerator: Accelerator) -> None:
    (copy / "models").mkdir()
    write_gguf(copy / "models/tiny.gguf")
    asked = {"source": "local", "name": "models", "gguf": "tiny.gguf"}
    with pytest.raises(ParamsError, match=r"backbone.name 'models': is a causal .*; set prepare.framing: causal$"):
        make(copy, accelerator, **asked)
    frame(copy)
    out = make(copy, accelerator, **asked)
    facts = read_facts(out)
    assert (facts["gguf"], facts["packing"], facts["source"]) == ("tiny.gguf", True, "local")
    assert "config" not in facts
    (copy / "models/tiny.gguf").unlink()  # which is read once
    model, recorded = load_backbone(out)
    assert fingerprint(model) == recorded == facts["fingerprint"]
    config = out / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(ArtifactError, match=r"config.json: .*; run `mhrctl backbone"):
        load_backbone(out)
    with pytest.raises(DataError, match=r"backbone.gguf 'tiny.gguf': there is no such file in .*models$"):
        make(copy, accelerator, **asked)


def test_a_scratch_llama_learns_prompts_and_packs(copy: Path, accelerator: Accelerator) -> None:
    frame(copy)
    sizes = SCRATCH | {"architecture": "llama", "steps": 40, "lr": 0.02, "batch_size": 12}
    out = make(copy, accelerator, source="scratch", scratch=sizes)
    model, recorded = load_backbone(out)
    assert isinstance(model, LlamaForCausalLM)
    assert (fingerprint(model), read_facts(out)["packing"]) == (recorded, True)
    assert model.config.vocab_size == entries(saved_tokenizer(copy / "data/prepare/tokenizer"))
    assert (model.config.pad_token_id, model.config.eos_token_id, model.config.head_dim) == (0, 1, 4)
    samples = Examples.read(copy / "data/prepare/training_tasks.parquet").of(split="train").scored()
    learned = [language_modelling(sample) for sample in samples]
    assert all(
        [*each.input_ids, *each.target_ids] == list(sample.input_ids) for each, sample in zip(learned, samples, strict=True)
    )
    assert {len(each.input_ids) for each in learned} == {1}
    batch = collate(learned, [[0]])
    with torch.no_grad():
        losses = AdaptedModel(model, None)(None, batch.inputs, batch.targets)
    assert losses.sum() / len(batch.targets.tokens) < 0.5 * np.log(model.config.vocab_size)
    again = make(copy, accelerator, source="scratch", scratch=sizes)
    assert read_facts(again)["fingerprint"] == recorded


def test_a_scratch_llama_needs_something_to_learn(copy: Path, accelerator: Accelerator) -> None:
    frame(copy)
    with pytest.raises(ParamsError, match=r"denoising 0: this suite has no backbone tasks, so plain language modelling is all"):
        make(copy, accelerator, source="scratch", scratch=SCRATCH | {"architecture": "llama", "denoising": 0.0})


def test_a_tokenizer_too_large_is_rejected(copy: Path, accelerator: Accelerator) -> None:
    from mhrctl.stages.backbone import scratch_config

    small = T5ForConditionalGeneration(scratch_config(BackboneParams(source="scratch").scratch.model_copy(), 20))
    small.save_pretrained(copy / "small")
    with pytest.raises(
        DataError, match=r"a tokenizer of \d+ entries does not fit .*small, which has 20; set prepare.tokenizer"
    ):
        make(copy, accelerator, source="local", name="small")


def write_generation(folder: Path, **settings: Any) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_settings_of_generation_are_part_of_the_fingerprint_and_can_be_undone(
    copy: Path, accelerator: Accelerator, tiny_t5: T5ForConditionalGeneration
) -> None:
    tiny_t5.save_pretrained(copy / "checkpoint")
    plain = read_facts(make(copy, accelerator, source="local", name="checkpoint"))
    assert plain["fingerprint"] == fingerprint(tiny_t5)
    assert "generation" not in plain
    write_generation(copy / "checkpoint", min_length=12, no_repeat_ngram_size=2)
    out = make(copy, accelerator, source="local", name="checkpoint")
    shaped = read_facts(out)
    assert shaped["generation"] == {"min_length": 12, "no_repeat_ngram_size": 2}
    assert shaped["fingerprint"] != plain["fingerprint"]
    assert load_backbone(out)[0].generation_config.min_length == 12
    for undone in ({"neutral": True}, {"min_length": 0, "no_repeat_ngram_size": None}):
        out = make(copy, accelerator, source="local", name="checkpoint", generation=undone)
        assert read_facts(out)["fingerprint"] == plain["fingerprint"]
        assert not load_backbone(out)[0].generation_config.min_length


def read_facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "card.json").read_text())["facts"]


def test_settings_that_changed_since_are_noticed(
    copy: Path, accelerator: Accelerator, tiny_t5: T5ForConditionalGeneration
) -> None:
    tiny_t5.save_pretrained(copy / "checkpoint")
    out = make(copy, accelerator, source="local", name="checkpoint")
    write_generation(copy / "checkpoint", min_length=3)
    with pytest.raises(ArtifactError, match=r"the settings of generation of .*checkpoint are not those that the card names"):
        load_backbone(out)
    write_generation(copy / "checkpoint", min_length=0)
    load_backbone(out)
    config = copy / "checkpoint/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"layer_norm_epsilon": 0.5}))
    with pytest.raises(ArtifactError, match=r"the settings in config.json of .*checkpoint are not those that the card names"):
        load_backbone(out)


def test_a_folder_that_is_not_there_is_no_id_of_the_hub(copy: Path, accelerator: Accelerator) -> None:
    with pytest.raises(DataError, match=r"backbone.name '.*nowhere': cannot be loaded: there is no such folder"):
        make(copy, accelerator, source="local", name="nowhere")


def write_tokenizer(project: Path, words: str, template: str | None) -> None:
    """Put a tokenizer of the user's own in place of the prepared one.

    Args:
        project: whose.
        words: its special tokens, in the order of their ids.
        template: what it puts around texts.
    """
    texts = "a b c d e f g h".split()
    vocabulary = {word: number for number, word in enumerate([*words.split(), *texts])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if template:
        special = [(name, vocabulary[name]) for name in ("<s>", "</s>") if name in template]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", clean_up_tokenization_spaces=False
    )
    theirs.save_pretrained(str(project / "tokenizer"))
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("tokenizer: word", "tokenizer: tokenizer"))
    assert mhrctl("prepare", "-C", project) == 0


SCRATCH = {"d_model": 16, "d_ff": 32, "d_kv": 4, "attention_heads": 4, "layers": 1, "steps": 2, "batch_size": 4}


@pytest.mark.parametrize(
    ("words", "template", "pad", "end"),
    [
        ("<s> <pad> </s>", "<s> $A </s>", 1, 2),  # as BART's
        ("<pad> </s>", None, 0, 1),  # nothing ends a text
        ("x y </s> <pad>", "$A </s>", 3, 2),
    ],
)
def test_a_scratch_backbone_takes_its_tokens_from_any_tokenizer(
    copy: Path, accelerator: Accelerator, words: str, template: str, pad: int, end: int
) -> None:
    write_tokenizer(copy, words, template)
    out = make(copy, accelerator, source="scratch", scratch=SCRATCH)
    model, _ = load_backbone(out)
    config, size = model.config, len(saved_tokenizer(copy / "data/prepare/tokenizer"))
    assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (pad, end, pad)
    assert (model.generation_config.pad_token_id, model.generation_config.eos_token_id) == (pad, end)
    assert config.vocab_size == size + SENTINELS  # which the tokenizer has not
    with torch.no_grad():
        model.lm_head.weight[end] = model.lm_head.weight.abs().sum() * torch.ones(16)
    model.generation_config.suppress_tokens = [token for token in range(config.vocab_size) if token != end]
    assert cast("Any", model).generate(torch.tensor([[4, end]]), max_new_tokens=8).tolist() == [[pad, end]]  # and stops there


def test_without_span_corruption_no_sentinels_are_needed(copy: Path, accelerator: Accelerator) -> None:
    tokenizer = saved_tokenizer(copy / "data/prepare/tokenizer")
    params = ScratchParams.model_validate({**SCRATCH, "denoising": 0.0})
    with pytest.raises(ParamsError, match=r"backbone.scratch.denoising 0: this suite has no backbone tasks"):
        train_scratch(params, copy / "data/prepare", tokenizer, seed=0, **unsaved(copy, accelerator))
    loose = copy / "loose"
    loose.mkdir()
    for name in ("training_tasks.parquet", "backbone_tasks.parquet"):
        shutil.copy(copy / "data/prepare/training_tasks.parquet", loose / name)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(
            models.WordLevel({f"w{number}": number for number in range(len(tokenizer))}, unk_token="w2")
        ),
        pad_token="w0",
        eos_token="w1",
    )
    model = train_scratch(params, loose, tokenizer, seed=0, **unsaved(copy, accelerator))
    assert model.config.vocab_size == len(tokenizer)


def test_a_trained_tokenizer_has_all_that_a_scratch_backbone_needs(walked: Path) -> None:
    config = load_backbone(walked / "data/backbone")[0].config
    assert config.vocab_size == len(saved_tokenizer(walked / "data/prepare/tokenizer"))
    assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (0, 1, 0)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ({"eos_token_id": 5}, r"texts end with </s> \(1\), but checkpoint stops at 5; set prepare.tokenizer"),
        ({"pad_token_id": 5}, r"padding is <pad> \(0\), but checkpoint pads with 5; set prepare.tokenizer"),
    ],
)
def test_a_tokenizer_of_other_special_tokens_is_rejected(
    copy: Path, accelerator: Accelerator, tiny_t5: T5ForConditionalGeneration, tokens: dict[str, int], message: str
) -> None:
    tiny_t5.save_pretrained(copy / "checkpoint")
    for name in ("config.json", "generation_config.json"):
        path = copy / "checkpoint" / name
        path.write_text(json.dumps(json.loads(path.read_text()) | tokens))
    with pytest.raises(DataError, match=message):
        make(copy, accelerator, source="local", name="checkpoint")


def test_a_damaged_scratch_backbone_says_what_to_run(copy: Path) -> None:
    config = copy / "data/backbone/config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(ArtifactError, match=r"config.json: .*; run `mhrctl backbone"):
        load_backbone(copy / "data/backbone")


@pytest.mark.parametrize("name", ["data/backbone", ".", "data/backbone/inside"])
def test_a_backbone_is_never_read_from_where_it_is_written(
    copy: Path, run: Run, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    before = {path: path.read_bytes() for path in (copy / "data/backbone").rglob("*") if path.is_file()}
    options = ("--set", "backbone.source=local", "--set", f"backbone.name={name}", "-C", copy)
    for command in (("backbone",), ("backbone", "--force"), ("check",)):
        assert run(*command, *options) == 2
        assert "which would be written while this is read" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in (copy / "data/backbone").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("architecture", ["t5", "llama"])
def test_a_training_that_is_killed_again_and_again_ends_with_the_same_bytes(
    project: Path, run: Run, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    params = project / "params.yaml"
    if architecture == "llama":
        text = params.read_text().replace("  tokenizer: word\n", "  tokenizer: word\n  framing: causal\n")
        params.write_text(text.replace("scratch: {", "scratch: {architecture: llama, "))
    assert run("prepare", "-C", project) == 0
    options = ["backbone", "-C", project, "--set", "backbone.scratch.steps=5"]
    assert run(*options) == 0
    before = digest(project / "data/backbone")

    def killed(*args: Any, **rest: Any) -> None:
        checkpoint.save_checkpoint(*args, **rest)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mhrctl.stages.backbone.save_checkpoint", killed)
        patch.setenv("MHRCTL_CHECKPOINT_SECONDS", "0")
        for _ in range(3):
            assert run(*options, "--force") == 130
        assert checkpoint.last_checkpoint(project / "data/scratch/backbone.safetensors").step == 3
    assert run(*options, "--force") == 0
    assert digest(project / "data/backbone") == before
    assert not list((project / "data/scratch").glob("backbone*"))
