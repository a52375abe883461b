"""The stage `backbone` takes the frozen encoder-decoder from the hub or a folder, or trains a small T5."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, T5Config, T5ForConditionalGeneration

from mhrctl.artifacts import provenance
from mhrctl.artifacts.cards import Card, read_card, write_card
from mhrctl.artifacts.facts import BackboneFacts
from mhrctl.artifacts.names import BACKBONE_EXAMPLES, TOKENIZER, TRAINING_EXAMPLES
from mhrctl.artifacts.writing import writing
from mhrctl.config.sections import BackboneParams, ScratchParams
from mhrctl.data.batches import Batch, Order, collate
from mhrctl.data.examples import Examples, Sample
from mhrctl.data.tokenization import Ending, entries, saved_tokenizer, sentinel_ids
from mhrctl.errors import DataError, ParamsError
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.backbones import config_digest, fingerprint, is_tied, load_pretrained, settle, vocabulary
from mhrctl.models.generation import require_tokenizer
from mhrctl.training.divergence import Training
from mhrctl.training.execution import Execution
from mhrctl.training.loop import Schedule, fit
from mhrctl.training.objective import Objective

NOISE_DENSITY = 0.15
MEAN_SPAN = 3
WARMUP = 0.05
CLIP_NORM = 1.0
LOG_EVERY = 50
"""Steps between two looks at the loss: each waits for the device."""


def backbone(
    params: BackboneParams,
    *,
    prepared: Path,
    root: Path,
    out: Path,
    execution: Execution,
) -> Card[BackboneFacts]:
    """Write a backbone into `out`: its weights if it was trained here, a pinned reference to them otherwise.

    Args:
        params: the section of params.yaml.
        prepared: output of the prepare stage.
        root: what a relative `params.name` of a local backbone is relative to.
        out: the output folder.
        execution: how to train; its recorder takes loss and rate, if the backbone is trained here.

    Raises:
        DataError: if the backbone cannot be loaded or the tokenizer does not fit it.
    """
    read_card(prepared, stage="prepare", command="mhrctl prepare")
    tokenizer = saved_tokenizer(prepared / TOKENIZER)
    local = params.source == "local"
    with writing(out) as folder:
        if params.source == "scratch":
            model: PreTrainedModel = train_scratch(
                params.scratch,
                prepared,
                tokenizer,
                seed=params.seed,
                execution=execution,
            )
            model.save_pretrained(str(folder))
            name, revision = f"scratch-{model.num_parameters() / 1e6:.1f}M", None
            how = settle(model, params.generation, where=name)
        else:
            name, revision = str(params.name), params.revision
            if local and not (root / name).is_dir():
                raise DataError(f"backbone.name {str(root / name)!r}: cannot be loaded: there is no such folder")
            model, how = load_pretrained(str(root / name) if local else name, revision=revision, generation=params.generation)
            revision = getattr(model.config, "_commit_hash", None) or revision
        require_tokenizer(tokenizer, how, vocabulary=vocabulary(model), where=name, place=str(prepared))
        facts = BackboneFacts(
            source=params.source,
            name=name,
            path=os.path.relpath(root / name, out) if local else None,
            revision=revision,
            parameters=model.num_parameters(),
            tied_output=is_tied(model),
            fingerprint=fingerprint(model, how.settings),
            generation=dict(how.settings),
            config=config_digest(root / name) if local else None,
        )
        card = provenance.of_backbone(params, prepared=prepared, root=root).card(facts, threads=execution.threads)
        write_card(folder, card)
    return card


def train_scratch(
    params: ScratchParams,
    prepared: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    execution: Execution,
) -> PreTrainedModel:
    """Train a small T5 by span corruption of the training tasks' prompts, and on the suite's backbone tasks if it has any."""
    torch.manual_seed(seed)
    batches = _Batches(prepared, tokenizer, batch_size=params.batch_size, denoising=params.denoising, seed=seed)
    size = max(entries(tokenizer), 1 + max(batches.sentinels, default=0))
    pad = int(tokenizer.pad_token_id)
    model = T5ForConditionalGeneration(scratch_config(params, size, pad=pad, end=Ending.of(tokenizer).end))
    accelerator = execution.accelerator
    wrapped = accelerator.prepare(AdaptedModel(model, None))
    optimizer = accelerator.prepare(torch.optim.AdamW(model.parameters(), lr=params.lr, weight_decay=0.01))
    steps = fit(
        wrapped,
        optimizer,
        batches=batches,
        objective=Objective("token_mean", 0.0),
        clip=lambda: accelerator.clip_grad_norm_(model.parameters(), CLIP_NORM),
        accelerator=accelerator,
        schedule=Schedule(params.steps, WARMUP, seed),
        training=Training("backbone", "backbone.scratch"),
    )
    with execution.track("backbone", params.steps) as bar:
        for step in steps:
            note = ""
            if step.number % LOG_EVERY == 0:
                step.require_finite()
                loss = step.losses.mean().item()
                execution.recorder.log(step.number, {"loss": loss, "lr": optimizer.param_groups[0]["lr"]})
                note = f"loss {loss:.3f}"
            bar.advance(note=note)
    model.eval()
    return model.cpu()


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
    """Micro-batches of span corruption and backbone tasks, in fixed proportion.

    Attributes:
        sentinels: tokens that stand for what is masked; none where nothing is.
    """

    def __init__(
        self, prepared: Path, tokenizer: PreTrainedTokenizerBase, *, batch_size: int, denoising: float, seed: int
    ) -> None:
        self._texts = Examples.read(prepared / TRAINING_EXAMPLES).of(split="train").scored()
        self._tasks = Examples.read(prepared / BACKBONE_EXAMPLES).of(split="train").scored()
        if not (self._tasks or denoising):
            raise ParamsError(
                "backbone.scratch.denoising 0: this suite has no backbone tasks, so span corruption is all that there is to"
                " train on; set it above 0"
            )
        self._noisy = batch_size if not self._tasks else round(batch_size * denoising)
        self._clean = batch_size - self._noisy
        self._orders = Order(len(self._texts), f"{seed}/texts"), Order(max(1, len(self._tasks)), f"{seed}/tasks")
        self.sentinels = sentinel_ids(tokenizer) if self._noisy else []
        self._seed = seed

    def __call__(self, micro: int) -> Batch:
        noisy = [
            span_corruption(self._texts[row], self.sentinels, random.Random(f"{self._seed}/{micro}/{row}"))
            for row in self._orders[0].slice(micro * self._noisy, self._noisy)
        ]
        clean = [self._tasks[row] for row in self._orders[1].slice(micro * self._clean, self._clean)]
        return collate([*noisy, *clean], [[0]])


def span_corruption(sample: Sample, sentinels: list[int], rng: random.Random) -> Sample:
    """Denoise as T5 does: 15 % of the tokens in spans of 3 on average become sentinels, which the target spells out.

    Args:
        sample: its input is the text; its last token, the end, is never masked.
        sentinels: ids of `<extra_id_0>` and so on.
        rng: chooses the spans.
    """
    text, end = sample.input_ids[:-1], sample.input_ids[-1:]
    noise = max(1, round(len(text) * NOISE_DENSITY))
    spans = min(max(1, round(noise / MEAN_SPAN)), len(sentinels), max(1, len(text) - noise))
    masked, kept = _parts(noise, spans, rng), _parts(max(len(text) - noise, spans), spans, rng)
    inputs, targets, at = [], [], 0
    for sentinel, keep, hide in zip(sentinels, kept, masked, strict=False):
        inputs += [*text[at : at + keep], sentinel]
        targets += [sentinel, *text[at + keep : at + keep + hide]]
        at += keep + hide
    return Sample(sample.task, np.array([*inputs, *text[at:], *end]), np.array([*targets, *end]))


def _parts(total: int, parts: int, rng: random.Random) -> list[int]:
    """`parts` positive numbers that sum to `total`."""
    cuts = sorted(rng.sample(range(1, total), parts - 1))
    return [after - before for before, after in zip([0, *cuts], [*cuts, total], strict=True)]
