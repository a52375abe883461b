"""Tokenizers are trained here on a suite's training tasks, or loaded through transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mhrctl.artifacts.reading import reading
from mhrctl.config.tasks import TRAINED_TOKENIZERS
from mhrctl.data.loading import json_object, loading
from mhrctl.errors import ArtifactError, DataError, ParamsError
from mhrctl.hub import did_you_mean, fetching

SENTINELS = 32
"""Sentinels `<extra_id_0>` ... of span corruption."""
SPECIAL = ["<pad>", "</s>", "<unk>", *(f"<extra_id_{index}>" for index in range(SENTINELS))]
"""T5's order: pad 0, end 1, unknown 2."""
_FILES = ("tokenizer.json", "tokenizer_config.json")
SOURCES = (
    *_FILES,
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "tokenizer.tiktoken",
)
"""Files that a tokenizer on the hub may be in."""
WAY_OUT = "set prepare.tokenizer to a folder, and backbone.name too, with backbone.source: local"
_IDS_ALONE = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
_PROBE = "a"
"""A text that shows what a tokenizer puts around texts."""


Tokenizes = Callable[..., Mapping[str, Any]]
"""This makes tokens of texts, with the arguments of a tokenizer of transformers and its `input_ids`."""


def train_tokenizer(kind: str, texts: Iterable[str], *, vocab_size: int, ends_texts: bool = True) -> PreTrainedTokenizerBase:
    """Train a tokenizer.

    Args:
        kind: `word` (words and punctuation, for small closed vocabularies) or `bpe` (byte-pair encoding over words).
        texts: what it is trained on.
        vocab_size: entries at most, the special ones included.
        ends_texts: whether it puts `</s>` after every text, as T5's does.

    Raises:
        ParamsError: if the special tokens, or those and all letters of a `bpe`, are more.
    """
    if kind == "word":
        tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
        trainer: trainers.Trainer = trainers.WordLevelTrainer(
            vocab_size=vocab_size, special_tokens=SPECIAL, show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    least = tokenizer.get_vocab_size()
    if least > vocab_size or least == len(SPECIAL):
        letters = "" if kind == "word" else " and the letters of the training texts"
        raise ParamsError(
            f"vocab_size {vocab_size}: {'less than' if least > vocab_size else 'no more than'} the {least} entries that"
            f" {len(SPECIAL)} special tokens{letters} need; set a larger one"
        )
    if ends_texts:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=SPECIAL[3:],
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(
    name: str, *, revision: str = "main", gguf: str | None = None, pads_with_end: bool = False
) -> PreTrainedTokenizerBase:
    """Load a tokenizer from the hub or a folder; no code of the repository is run.

    Args:
        name: hub id or folder.
        revision: on the hub.
        gguf: a GGUF file there that the tokenizer is in; None takes the tokenizer's own files.
        pads_with_end: let the end token be the padding of a tokenizer that has none.

    Raises:
        DataError: if there is none, its files are damaged, or it has no padding or end token.
    """
    what = f"tokenizer {name!r} (revision {revision})"
    if gguf is not None:
        what = f"tokenizer_gguf {gguf!r} of {name!r}"
        if Path(name).is_dir() and not (Path(name) / gguf).is_file():
            raise DataError(f"{what}: there is no such file")
    for file in _FILES if gguf is None else ():
        if (path := Path(name) / file).exists():
            json_object(path)
    options = {} if gguf is None else {"gguf_file": gguf}
    with (
        loading(what, hint=did_you_mean(name)),
        fetching(name, what=what, way_out=WAY_OUT, files=SOURCES if gguf is None else (gguf,), revision=revision),
    ):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=False, **options
        )
    if gguf is not None:
        tokenizer = _of_the_file(tokenizer)
    if tokenizer.pad_token_id is None and pads_with_end:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(end_token(tokenizer))
    if tokenizer.pad_token_id is None:
        raise DataError(f"tokenizer {name!r}: has no padding token; add `pad_token` to its tokenizer_config.json")
    with loading(what):  # which asks it for the tokens of a text, that a damaged one has not
        Ending.of(tokenizer)
    return tokenizer


def _of_the_file(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A GGUF file's tokenizer without tokens of none of its entries: transformers adds GPT-2's end to any of that kind."""
    tree = json.loads(tokenizer.backend_tokenizer.to_str())
    listed = [token for token in tree["added_tokens"] if token["id"] < len(tree["model"]["vocab"])]
    if listed == tree["added_tokens"]:
        return tokenizer
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(tree | {"added_tokens": listed})),
        clean_up_tokenization_spaces=False,
        chat_template=tokenizer.chat_template,
        **tokenizer.special_tokens_map,
    )


def is_trained_here(name: str) -> bool:
    """Return whether `prepare.tokenizer` asks for a tokenizer of the suite's own."""
    return name in TRAINED_TOKENIZERS


def saved_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer that the prepare stage wrote.

    Raises:
        ArtifactError: if it is damaged or not there.
    """
    with reading(folder), loading(f"{folder}", hint="run `mhrctl prepare`", error=ArtifactError):
        if not (folder / _FILES[-1]).is_file():  # tokenizers in Python have that alone
            raise ArtifactError(f"{folder / _FILES[-1]}: is missing; run `mhrctl prepare`")
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    return tokenizer


def entries(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return how many rows an embedding needs for all tokens of a tokenizer, whose ids may leave some out."""
    return max(len(tokenizer), max(tokenizer.get_vocab().values(), default=-1) + 1)


def sentinel_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of `<extra_id_0>` and so on; those that a tokenizer has not come after all that it has."""
    vocabulary, following = tokenizer.get_vocab(), entries(tokenizer)
    ids = []
    for index in range(SENTINELS):
        known = vocabulary.get(f"<extra_id_{index}>")
        ids.append(following if known is None else known)
        following += known is None
    return ids


@dataclass(frozen=True)
class Ending:
    """An ending is how a text ends in tokens, whatever tokenizer makes them.

    Attributes:
        end: the token that ends a text.
        size: special tokens at the end of an encoded text, the end among them; a cut keeps them.
        is_added: whether the end is put there by `encode`, since the tokenizer puts none.
    """

    end: int
    size: int
    is_added: bool

    @staticmethod
    def of(tokenizer: PreTrainedTokenizerBase) -> Ending:
        """Look at what a tokenizer puts at the end of texts.

        Raises:
            DataError: if it has no end token.
        """
        end, (_, suffix) = end_token(tokenizer), around(tokenizer)
        is_added = end not in suffix
        return Ending(end, len(suffix) + is_added, is_added=is_added)

    def encode(self, tokenizer: Tokenizes, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of texts, every one with the end token."""
        rows = whole_tokens(tokenizer, texts)
        return [[*ids, self.end] for ids in rows] if self.is_added else rows

    def cut(self, ids: list[int], longest: int) -> list[int]:
        """Return the first tokens of a text that are `longest` with its end."""
        if len(ids) <= longest:
            return ids
        size = min(self.size, longest)
        return [*ids[: longest - size], *ids[len(ids) - size :]]


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that ends a text.

    Raises:
        DataError: if there is none.
    """
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if end is None:
        raise DataError(
            f"tokenizer {tokenizer.name_or_path!r}: has no end token, without which no answer ends; add `eos_token`"
            " to its tokenizer_config.json"
        )
    return int(end)


def around(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the special tokens that a tokenizer puts before and after a text."""
    (bare,) = bare_tokens(tokenizer, [_PROBE])
    whole: list[int] = tokenizer(_PROBE, verbose=False)["input_ids"]
    for start in range(len(whole) - len(bare), -1, -1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return [], whole[-1:]


def whole_tokens(tokenizer: Tokenizes, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of texts with those that the tokenizer puts around a text."""
    rows: list[list[int]] = tokenizer(list(texts), **_IDS_ALONE)["input_ids"] if texts else []
    return rows


def bare_tokens(tokenizer: Tokenizes, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of texts without those that the tokenizer puts around a text."""
    rows: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, **_IDS_ALONE)["input_ids"] if texts else []
    return rows
