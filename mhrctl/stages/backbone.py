"""The stage `backbone` takes the frozen language model from the hub or a folder, or trains a small one."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
    T5ForConditionalGeneration,
)

from mhrctl.artifacts import provenance
from mhrctl.artifacts.cards import Card, read_card, write_card
from mhrctl.artifacts.facts import BackboneFacts
from mhrctl.artifacts.names import BACKBONE_EXAMPLES, TOKENIZER, TRAINING_EXAMPLES
from mhrctl.artifacts.writing import writing
from mhrctl.config.sections import BackboneParams, ScratchParams
from mhrctl.config.tasks import BACKBONE_KINDS, SCRATCH_FRAMINGS, FramingName
from mhrctl.data.batches import Batch, Order, collate
from mhrctl.data.denoising import language_modelling, span_corruption
from mhrctl.data.examples import Examples, Sample
from mhrctl.data.tokenization import Ending, entries, saved_tokenizer, sentinel_ids
from mhrctl.errors import DataError, ParamsError, StoppedError, counted
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.backbones import (
    auto_class,
    config_digest,
    fingerprint,
    framing_of,
    is_tied,
    load_pretrained,
    pretrained_config,
    settle,
    vocabulary,
)
from mhrctl.models.generation import Answering, require_tokenizer
from mhrctl.models.gguf import dequantise, require_file
from mhrctl.models.quantised import is_quantised, require_package
from mhrctl.models.self_test import why_padded
from mhrctl.training.checkpoint import checkpoint_path, checkpoints_of, load_checkpoint, save_checkpoint
from mhrctl.training.divergence import Training
from mhrctl.training.execution import Execution
from mhrctl.training.loop import Schedule, fit
from mhrctl.training.objective import Objective

WARMUP = 0.05
CLIP_NORM = 1.0
WHOLE = "whole"
"""A folder of the output that holds the weights of a GGUF file until they are quantised."""
LOG_EVERY = 50
"""Steps between two looks at the loss: each waits for the device."""


def backbone(
    params: BackboneParams,
    *,
    prepared: Path,
    root: Path,
    out: Path,
    scratch: Path,
    execution: Execution,
) -> Card[BackboneFacts]:
    """Write a backbone into `out`: its weights if it was trained here, a pinned reference to them otherwise.

    Args:
        params: the section of params.yaml.
        prepared: output of the prepare stage.
        root: what a relative `params.name` of a local backbone is relative to.
        out: the output folder.
        scratch: folder for the checkpoints of a training in progress.
        execution: how to train; its recorder takes loss and rate, if the backbone is trained here.

    Raises:
        DataError: if the backbone cannot be loaded or the tokenizer does not fit it, or no batch of it is right.
        ParamsError: if examples are framed for the other kind of backbone.
        StoppedError: if its training was asked to stop, and has left a checkpoint.
    """
    made = provenance.of_backbone(params, prepared=prepared, root=root)
    if params.quantisation is not None:
        require_package(params.quantisation)
    examples = read_card(prepared, stage="prepare", command="mhrctl prepare").facts
    framing, chat = examples.framing, examples.chat is not None
    tokenizer = saved_tokenizer(prepared / TOKENIZER)
    local = params.source == "local"
    with writing(out) as folder:
        if params.source == "scratch":
            architecture = params.scratch.architecture
            _require_framing(framing, SCRATCH_FRAMINGS[architecture], f"backbone.scratch.architecture {architecture}")
            model: PreTrainedModel = train_scratch(
                params.scratch,
                prepared,
                tokenizer,
                seed=params.seed,
                execution=execution,
                checkpoint=checkpoint_path(scratch, None, stage="backbone"),
                key=made.key(threads=execution.threads),
            )
            model.save_pretrained(str(folder))
            name, revision = f"scratch-{model.num_parameters() / 1e6:.1f}M", None
            how = settle(model, params.generation, where=name)
        else:
            name = str(params.name)
            model, how, revision = _fetch(params, folder, framing=framing, root=root)
        require_tokenizer(tokenizer, how, vocabulary=vocabulary(model), where=name, place=str(prepared), chat=chat)
        causal = framing_of(model.config) == "causal"
        padded_because = why_padded(model, where=name) if causal else None
        parameters, tied = model.num_parameters(), is_tied(model)
        if params.quantisation is not None:
            del model  # which is the largest that the stage holds
            model = _quantised(params, folder, root=root)
        facts = BackboneFacts(
            source=params.source,
            name=name,
            path=os.path.relpath(root / name, out) if local else None,
            revision=revision,
            parameters=parameters,
            tied_output=tied,
            fingerprint=fingerprint(model, how.settings),
            generation=dict(how.settings),
            config=config_digest(root / name) if local and params.gguf is None and params.quantisation is None else None,
            gguf=params.gguf,
            quantisation=params.quantisation,
            packing=padded_because is None if causal else None,
            padded_because=padded_because,
        )
        card = made.card(facts, threads=execution.threads)
        write_card(folder, card)
    for path in checkpoints_of(scratch, None, stage="backbone"):
        path.unlink()
    return card


def _fetch(
    params: BackboneParams, folder: Path, *, framing: FramingName, root: Path
) -> tuple[PreTrainedModel, Answering, str | None]:
    """Load a backbone from the hub or a folder; a GGUF file becomes ordinary weights in the output.

    Args:
        params: the section of params.yaml.
        folder: the output.
        framing: of the examples.
        root: what a relative folder is relative to.

    Returns:
        The model, how it comes to answers, and its revision on the hub.
    """
    name, local = str(params.name), params.source == "local"
    if local and not (root / name).is_dir():
        raise DataError(f"backbone.name {str(root / name)!r}: cannot be loaded: there is no such folder")
    if local and params.gguf is not None:
        require_file(root / name, params.gguf)
    place, commit = str(root / name) if local else name, None
    config = pretrained_config(place, revision=params.revision, gguf=params.gguf)
    _require_framing(framing, framing_of(config), f"backbone.name {name!r}")
    if params.gguf is not None:
        where = f"backbone.gguf {params.gguf!r}"
        whole = folder if params.quantisation is None else folder / WHOLE
        commit = dequantise(auto_class(config), place, params.gguf, whole, revision=params.revision, where=where)
        place = str(whole)
    model, how = load_pretrained(place, revision=params.revision, generation=params.generation)
    return model, how, commit or getattr(model.config, "_commit_hash", None) or params.revision


def _quantised(params: BackboneParams, folder: Path, *, root: Path) -> PreTrainedModel:
    """Write the weights of a backbone with those of its linear layers quantised, and load what was written.

    Args:
        params: the section of params.yaml.
        folder: the output; the whole weights are in it, if they are of a GGUF file.
        root: what a relative folder is relative to.
    """
    where, whole = f"backbone.name {params.name!r}", folder / WHOLE
    place = str(whole) if whole.exists() else str(root / str(params.name)) if params.source == "local" else str(params.name)
    revision = None if whole.exists() else params.revision
    model, _ = load_pretrained(place, revision=revision, generation=params.generation, quantisation=params.quantisation)
    if not is_quantised(model):
        raise DataError(
            f"{where}: backbone.quantisation {params.quantisation} does nothing to a {model.config.model_type} model"
        )
    model.save_pretrained(str(folder))
    del model
    if whole.exists():
        shutil.rmtree(whole)
    return load_pretrained(str(folder), generation=params.generation, quantised=True)[0]


def _require_framing(framing: FramingName, needed: FramingName, what: str) -> None:
    """Check that examples are framed for the kind of a backbone.

    Raises:
        ParamsError: if they are not.
    """
    if framing != needed:
        kind = BACKBONE_KINDS[needed]
        raise ParamsError(f"{what}: is {kind}, but the examples are framed for the other kind; set prepare.framing: {needed}")


def train_scratch(
    params: ScratchParams,
    prepared: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    execution: Execution,
    checkpoint: Path,
    key: str,
) -> PreTrainedModel:
    """Train a small model on the training tasks' prompts, and on the suite's backbone tasks if it has any.

    A T5 learns the prompts by span corruption, a Llama by plain language modelling.

    Args:
        params: its sizes, and how it is trained.
        prepared: output of the prepare stage.
        tokenizer: of the examples.
        seed: of its weights and of all that is drawn.
        execution: how to train.
        checkpoint: the file of the last checkpoint, from which it goes on.
        key: identifies the training.

    Raises:
        DataError: if there are no training tasks.
        StoppedError: if it is asked to stop, and has left a checkpoint.
    """
    torch.manual_seed(seed)
    batches = _Batches(prepared, tokenizer, params, seed=seed)
    size = max(entries(tokenizer), 1 + max(batches.sentinels, default=0))
    model = _untrained(params, tokenizer, size)
    accelerator = execution.accelerator
    wrapped = accelerator.prepare(AdaptedModel(model, None))
    optimizer = accelerator.prepare(torch.optim.AdamW(model.parameters(), lr=params.lr, weight_decay=0.01))
    parameters = dict(model.named_parameters())
    training = {"key": key, "parameters": parameters, "optimizer": optimizer}
    first, _ = load_checkpoint(checkpoint, warn=execution.warn, **training)
    steps = fit(
        wrapped,
        optimizer,
        batches=batches,
        objective=Objective("token_mean", 0.0),
        clip=lambda: accelerator.clip_grad_norm_(model.parameters(), CLIP_NORM),
        accelerator=accelerator,
        schedule=Schedule(params.steps, WARMUP, seed, first=first),
        training=Training("backbone", "backbone.scratch"),
    )
    about = f"{counted(model.num_parameters(), 'parameter')}, {counted(params.steps, 'step')} of"
    about += f" {counted(params.batch_size, 'example')}, {accelerator.device}"
    with execution.track("backbone", params.steps, about=about) as bar, execution.pausing() as pauses:
        bar.resume(first)
        for step in steps:
            note, pause = "", pauses.after(step.number)
            if step.number % LOG_EVERY == 0:
                step.require_finite()
                loss = step.losses.mean().item()
                execution.recorder.log(step.number, {"loss": loss, "lr": optimizer.param_groups[0]["lr"]})
                note = f"loss {loss:.3f}"
            if pause.saves:
                step.require_finite()
                save_checkpoint(checkpoint, step=step.number, log=[], **training)
            bar.advance(note=note)
            if pause.stops:
                raise StoppedError(f"stopped at step {step.number:,} of {params.steps:,}")
    model.eval()
    return model.cpu()


def _untrained(params: ScratchParams, tokenizer: PreTrainedTokenizerBase, size: int) -> PreTrainedModel:
    """A model of random weights that takes its special tokens from a tokenizer."""
    end = Ending.of(tokenizer).end
    pad = end if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    if params.architecture == "llama":
        return LlamaForCausalLM(causal_config(params, size, pad=pad, end=end, begin=tokenizer.bos_token_id))
    model: PreTrainedModel = T5ForConditionalGeneration(scratch_config(params, size, pad=pad, end=end))
    return model


def causal_config(
    params: ScratchParams, vocab_size: int, *, pad: int = 0, end: int = 1, begin: int | None = None
) -> LlamaConfig:
    """Make the config of a Llama with tied embeddings.

    Args:
        params: its sizes.
        vocab_size: tokens that it knows.
        pad: the padding token.
        end: the token that ends a text.
        begin: the token that begins one, if there is any.
    """
    options: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": params.d_model,
        "intermediate_size": params.d_ff,
        "head_dim": params.d_kv,
        "num_attention_heads": params.attention_heads,
        "num_key_value_heads": params.attention_heads,
        "num_hidden_layers": params.layers,
        "tie_word_embeddings": True,
        "pad_token_id": pad,
        "eos_token_id": end,
        "bos_token_id": begin,
    }
    return LlamaConfig(**options)


def scratch_config(params: ScratchParams, vocab_size: int, *, pad: int = 0, end: int = 1) -> T5Config:
    """Make the config of a T5 with gated GELU, tied embeddings and no dropout, whose decoder starts with padding.

    Args:
        params: its sizes.
        vocab_size: tokens that it knows.
        pad: the padding token.
        end: the token that ends a text.
    """
    return T5Config(
        vocab_size=vocab_size,
        d_model=params.d_model,
        d_ff=params.d_ff,
        d_kv=params.d_kv,
        num_heads=params.attention_heads,
        num_layers=params.layers,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=pad,
        eos_token_id=end,
        tie_word_embeddings=True,  # type: ignore[call-arg]
        decoder_start_token_id=pad,
    )


class _Batches:
    """Micro-batches of prompts to learn (by span corruption or plain language modelling) and backbone tasks, in proportion.

    Attributes:
        sentinels: tokens that stand for what is masked; none where nothing is.
    """

    def __init__(self, prepared: Path, tokenizer: PreTrainedTokenizerBase, params: ScratchParams, *, seed: int) -> None:
        batch_size, denoising, self._causal = params.batch_size, params.denoising, params.architecture == "llama"
        self._texts = Examples.read(prepared / TRAINING_EXAMPLES).of(split="train").scored()
        if not self._texts:
            raise DataError("backbone.source scratch: there are no training tasks to train it on; name a model (hub, local)")
        if self._causal:  # of a prompt of one token there is nothing to predict
            self._texts = [text for text in self._texts if len(text.input_ids) > 1]
        self._tasks = Examples.read(prepared / BACKBONE_EXAMPLES).of(split="train").scored()
        if not (self._tasks or denoising):
            raise ParamsError(
                f"backbone.scratch.denoising 0: this suite has no backbone tasks, so {self._learning} is all that there is to"
                " train on; set it above 0"
            )
        self._noisy = batch_size if not self._tasks else round(batch_size * denoising)
        self._clean = batch_size - self._noisy
        self._orders = Order(max(1, len(self._texts)), f"{seed}/texts"), Order(max(1, len(self._tasks)), f"{seed}/tasks")
        if self._noisy and not self._texts:
            raise ParamsError(f"backbone.scratch.denoising {denoising}: no prompt has two tokens for {self._learning}; set 0")
        self.sentinels = sentinel_ids(tokenizer) if self._noisy and not self._causal else []
        self._seed = seed

    def __call__(self, micro: int) -> Batch:
        noisy = [self._learned(micro, row) for row in self._orders[0].slice(micro * self._noisy, self._noisy)]
        clean = [self._tasks[row] for row in self._orders[1].slice(micro * self._clean, self._clean)]
        return collate([*noisy, *clean], [[0]])

    @property
    def _learning(self) -> str:
        return "plain language modelling" if self._causal else "span corruption"

    def _learned(self, micro: int, row: int) -> Sample:
        """A prompt as a sample to learn."""
        if self._causal:
            return language_modelling(self._texts[row])
        return span_corruption(self._texts[row], self.sentinels, random.Random(f"{self._seed}/{micro}/{row}"))
