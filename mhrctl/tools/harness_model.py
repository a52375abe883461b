"""A backbone with adapters answers lm-evaluation-harness as its own models do: likelihoods of texts, and generated texts.

Prompts of other people's tasks become tokens as the harness's `hf` model makes them, so that scores can be compared with those
of other models; those of tasks that `mhrctl export --to harness` wrote become tokens as the prepare stage makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text, resolve_max_length
from lm_eval.models.utils_hf import stop_sequences_criteria
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mhrctl.adapters.adapter import Adapter
from mhrctl.data.batches import IGNORED, Ragged, collate
from mhrctl.data.chat import ASSISTANT
from mhrctl.data.examples import Sample
from mhrctl.data.framing import Framed
from mhrctl.data.tokenization import bare_tokens
from mhrctl.errors import DataError, DivergedError, ParamsError
from mhrctl.evaluation.answering import folded_if_shared
from mhrctl.evaluation.prediction import BATCH_TOKENS, Generation, own_rows, predict
from mhrctl.models.adapted import AdaptedModel
from mhrctl.models.backbones import vocabulary
from mhrctl.models.generation import stops
from mhrctl.tools.harness_tasks import Way
from mhrctl.training.execution import Execution

LOGITS = 2**25
"""Logits that are made at a time: 128 MiB in fp32."""
ANSWER_TOKENS = 256
"""Longest answer where a task says none, as the harness's models have it."""
Ids = Sequence[int]
T = TypeVar("T")


class HarnessModel(LM):  # type: ignore[misc] # the harness has no types
    """It answers the harness's requests, each by the adapter of its task."""

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        framed: Framed,
        *,
        most_input: int,
        most_target: int,
        execution: Execution,
    ) -> None:
        """Take a backbone that is where it runs.

        Args:
            backbone: with slots for all adapters.
            tokenizer: of the project.
            framed: makes tokens of prompts and answers as the prepare stage does.
            most_input: tokens of a prompt of ours.
            most_target: tokens of a choice of ours.
            execution: how to run.
        """
        super().__init__()
        self.tokenizer, self._backbone, self._framed, self._execution = tokenizer, backbone, framed, execution
        self._most_input, self._most_target = most_input, most_target
        self._longest: int = resolve_max_length(backbone.config, tokenizer)
        self._adapters: Sequence[Adapter | None] = [None]
        self._ways: Mapping[str, Way] = {}

    def attach(self, adapters: Sequence[Adapter | None], ways: Mapping[str, Way]) -> None:
        """Answer from now on with these adapters.

        Args:
            adapters: each of one run; None is the bare backbone.
            ways: {task: how it is put}.
        """
        self._adapters, self._ways = adapters, ways

    @property
    def tokenizer_name(self) -> str:
        """What the harness calls the chat template."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """Return a conversation as the model reads it, up to where its answer begins, or goes on."""
        chat = self._framed.chat
        if chat is None:
            raise ValueError("the project's prompts are no chats")
        turns = [(message["role"], message["content"]) for message in chat_history]
        if add_generation_prompt or turns[-1][0] != ASSISTANT:
            return chat.prompt(turns)
        return f"{chat.prompt(turns[:-1])}{chat.gap}{turns[-1][1]}"

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each text after its context, and whether it is the greedy answer."""
        pairs = self._pairs(requests)

        def answer(model: AdaptedModel, places: Sequence[int]) -> list[tuple[float, bool]]:
            return self._likelihoods(model, [pairs[place] for place in places])

        return self._by_adapter(requests, answer)

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Return the log-likelihood of each whole text, in windows that the model can read."""
        if not self._is_causal:
            raise ParamsError(
                f"--harness {requests[0].task_name}: asks how likely a whole text is, which an encoder-decoder cannot say"
            )
        windows = [self._windows(request.args[0]) for request in requests]

        def answer(model: AdaptedModel, places: Sequence[int]) -> list[float]:
            flat = [pair for place in places for pair in windows[place]]
            said = iter(self._likelihoods(model, flat))
            return [sum(next(said)[0] for _ in windows[place]) for place in places]

        return self._by_adapter(requests, answer)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Return the text that follows each context, up to what the task stops at."""

        def answer(model: AdaptedModel, places: Sequence[int]) -> list[str]:
            texts: dict[int, str] = {}
            for alike in _grouped(places, lambda place: (requests[place].task_name, repr(requests[place].args[1]))).values():
                contexts = [requests[place].args[0] for place in alike]
                task, options = requests[alike[0]].task_name, normalize_gen_kwargs(requests[alike[0]].args[1], ANSWER_TOKENS)
                generate = self._generated_as_evaluated if self._ways[task].is_ours else self._generated
                for place, text in zip(alike, generate(model, contexts, task, dict(options)), strict=True):
                    texts[place] = str(postprocess_generated_text(text, options["until"], None))
            return [texts[place] for place in places]

        return self._by_adapter(requests, answer)

    @property
    def _is_causal(self) -> bool:
        return not self._backbone.config.is_encoder_decoder

    def _by_adapter(self, requests: Sequence[Any], answer: Callable[[AdaptedModel, Sequence[int]], Sequence[T]]) -> list[T]:
        """Answer the requests of each adapter, and return the answers in the order of the requests."""
        answers: dict[int, T] = {}
        groups = _grouped(range(len(requests)), lambda place: self._ways[requests[place].task_name].adapter)
        with self._execution.track("harness", len(requests)) as bar:
            for number, places in groups.items():
                with folded_if_shared(self._backbone, self._adapters[number], self._execution.speed) as attached:
                    model = self._execution.adapted(self._backbone, attached).eval()
                    for chunk in _chunks(places):
                        answers |= zip(chunk, answer(model, chunk), strict=True)
                        bar.advance(len(chunk))
        return [answers[place] for place in range(len(requests))]

    def _pairs(self, requests: Sequence[Any]) -> list[tuple[Ids, Ids]]:
        """The tokens of contexts and of what follows them."""
        pairs: dict[int, tuple[Ids, Ids]] = {}
        for ours, places in _grouped(range(len(requests)), lambda place: self._ways[requests[place].task_name].is_ours).items():
            contexts, answers = zip(*(requests[place].args for place in places), strict=True)
            made = self._as_prepared(contexts, answers) if ours else self._as_the_harness(contexts, answers)
            pairs.update(zip(places, made, strict=True))
        return [pairs[place] for place in range(len(requests))]

    def _as_prepared(self, contexts: Sequence[str], answers: Sequence[str]) -> Iterator[tuple[Ids, Ids]]:
        rows = self._framed.answers.encode(self.tokenizer, answers)
        for context, ids in zip(self._prompts_as_prepared(contexts), rows, strict=True):
            yield context, self._framed.answers.cut(ids, self._most_target)

    def _prompts_as_prepared(self, contexts: Sequence[str]) -> list[list[int]]:
        rows = self._framed.inputs.encode(self.tokenizer, contexts)
        return [self._framed.inputs.cut(ids, self._most_input) for ids in rows]

    def _as_the_harness(self, contexts: Sequence[str], answers: Sequence[str]) -> Iterator[tuple[Ids, Ids]]:
        """As the harness's `hf` model: what follows has no end token, and what is too long loses its beginning."""
        if not self._is_causal:
            encoded = self._framed.inputs.encode(self.tokenizer, contexts)
            for ids, answer in zip(encoded, bare_tokens(self.tokenizer, answers), strict=True):
                yield ids[-self._longest :], answer
            return
        kept = [context.rstrip() for context in contexts]  # spaces belong to the first token of what follows
        wholes = [f"{context}{answer}" for context, answer in zip(contexts, answers, strict=True)]
        before = self._framed.inputs.encode(self.tokenizer, kept)
        for ids, whole in zip(before, self._framed.inputs.encode(self.tokenizer, wholes), strict=True):
            answer = whole[len(ids) :]
            yield (ids or [self._prefix])[-max(1, self._longest + 1 - len(answer)) :], answer

    @property
    def _prefix(self) -> int:
        """The token before a text that has none."""
        first = self.tokenizer.bos_token_id
        return int(self.tokenizer.eos_token_id if first is None else first)

    def _windows(self, text: str) -> list[tuple[Ids, Ids]]:
        (ids,) = bare_tokens(self.tokenizer, [text])
        windows = get_rolling_token_windows(token_list=ids, prefix_token=self._prefix, max_seq_len=self._longest, context_len=1)
        return [make_disjoint_window(window) for window in windows]

    @torch.no_grad()
    def _likelihoods(self, model: AdaptedModel, pairs: Sequence[tuple[Ids, Ids]]) -> list[tuple[float, bool]]:
        """The answers of pairs of tokens; a context is read once for all that follows it."""
        said: dict[int, tuple[float, bool]] = {}
        contexts = _grouped(range(len(pairs)), lambda place: tuple(pairs[place][0]))
        ordered = sorted(contexts.items(), key=lambda item: -len(item[0]))
        for batch in self._batches([(ids, [pairs[place][1] for place in places]) for ids, places in ordered]):
            part, ordered = ordered[: len(batch)], ordered[len(batch) :]
            rows = self._scored(model, batch)
            for (_, places), of_context in zip(part, rows, strict=True):
                said.update(zip(places, of_context, strict=True))
        return [said[place] for place in range(len(pairs))]

    def _batches(self, rows: Sequence[tuple[Ids, Sequence[Ids]]]) -> Iterator[list[tuple[Ids, Sequence[Ids]]]]:
        """Contexts that are read together, as many as memory has room for."""
        each = vocabulary(self._backbone)
        batch: list[tuple[Ids, Sequence[Ids]]] = []
        answers = longest = 0
        for context, following in rows:
            more, long = max(answers, len(following)), max(longest, *map(len, following))
            size = len(batch) + 1
            if batch and (size * more * long * each > LOGITS or size * len(batch[0][0]) > BATCH_TOKENS):
                yield batch
                batch, more, long = [], len(following), max(map(len, following))
            batch.append((context, following))
            answers, longest = more, long
        if batch:
            yield batch

    def _scored(self, model: AdaptedModel, rows: Sequence[tuple[Ids, Sequence[Ids]]]) -> list[list[tuple[float, bool]]]:
        """The answers of a batch, by context."""
        samples = [_sample(context, following) for context, following in rows]
        batch = collate(samples, own_rows(1), with_choices=True).to(self._execution.accelerator.device)
        labels = batch.labels
        logits = model(batch.task_ids, batch.inputs, batch.targets, with_logits=True).float()
        counted = labels != IGNORED
        chosen = logits.gather(-1, labels.clamp(min=0)[..., None])[..., 0] - logits.logsumexp(-1)
        likelihoods = torch.where(counted, chosen, 0).sum(-1)
        greedy = ((logits.argmax(-1) == labels) | ~counted).all(-1)
        if not torch.isfinite(likelihoods).all():
            raise DivergedError("what the model computes is not finite")
        answers = list(zip(likelihoods.tolist(), greedy.tolist(), strict=True))
        width = len(answers) // len(rows)
        return [answers[row * width : row * width + len(following)] for row, (_, following) in enumerate(rows)]

    def _generated_as_evaluated(
        self, model: AdaptedModel, contexts: Sequence[str], task: str, options: Mapping[str, Any]
    ) -> list[str]:
        """The texts that `mhrctl evaluate` would generate."""
        samples = [_sample(ids, ()) for ids in self._prompts_as_prepared(contexts)]
        generation = Generation(options.get("num_beams", 1), options["max_gen_toks"])
        device = self._execution.accelerator.device
        (texts,) = predict(model, self.tokenizer, [samples], generation=generation, device=device, names=[task])
        return texts

    @torch.no_grad()
    def _generated(self, model: AdaptedModel, contexts: Sequence[str], task: str, options: dict[str, Any]) -> Iterator[str]:
        """The texts that a task of others asks for, by its own options."""
        until = [text for text in options.pop("until") if text]
        longest = options.pop("max_gen_toks")
        if not options["do_sample"]:
            options.pop("temperature", None)
        room = self._longest - longest if self._is_causal else self._longest
        if room < 1:
            raise ParamsError(f"--harness {task}: asks for {longest} tokens, and the backbone reads {self._longest} in all")
        rows = [(ids or [self._prefix])[-room:] for ids in self._framed.inputs.encode(self.tokenizer, contexts)]
        size = max(1, BATCH_TOKENS // (max(map(len, rows)) + longest))
        for start in range(0, len(rows), size):
            inputs = Ragged.of([np.asarray(ids) for ids in rows[start : start + size]])
            begun = inputs.longest if self._is_causal else 1
            criteria = stop_sequences_criteria(self.tokenizer, until, begun, len(inputs.lengths))
            device = self._execution.accelerator.device
            try:
                tokens = model.generate(
                    torch.tensor(own_rows(1), device=device),
                    inputs.to(device),
                    max_new_tokens=longest,
                    **stops(model.backbone, self.tokenizer),
                    stopping_criteria=criteria,
                    **options,
                )
            except (TypeError, ValueError) as error:
                raise DataError(f"--harness {task}: generation_kwargs: {str(error).splitlines()[0]}") from error
            yield from self.tokenizer.batch_decode(tokens, skip_special_tokens=True)


def _sample(context: Ids, following: Sequence[Ids]) -> Sample:
    """A context with all that may follow it."""
    return Sample(0, np.asarray(context), np.asarray([], np.int64), tuple(map(np.asarray, following)))


def _grouped(places: Sequence[int], key: Callable[[int], Any]) -> dict[Any, list[int]]:
    """{key: its places}, in their order."""
    groups: dict[Any, list[int]] = {}
    for place in places:
        groups.setdefault(key(place), []).append(place)
    return groups


def _chunks(places: Sequence[int]) -> Iterator[Sequence[int]]:
    """What is answered between two advances of the bar: enough for full batches."""
    size = 1024
    return (places[start : start + size] for start in range(0, len(places), size))
