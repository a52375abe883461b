"""Tokenizers are trained here on a suite's training tasks, or loaded through transformers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mhrctl.artifacts.reading import reading
from mhrctl.config.tasks import TRAINED_TOKENIZERS
from mhrctl.errors import DataError

SENTINELS = 32
"""Sentinels `<extra_id_0>` ... of span corruption."""
SPECIAL = ["<pad>", "</s>", "<unk>", *(f"<extra_id_{index}>" for index in range(SENTINELS))]
"""T5's order: pad 0, end 1, unknown 2."""


def train_tokenizer(kind: str, texts: Iterable[str], *, vocab_size: int) -> PreTrainedTokenizerBase:
    """Train a tokenizer that ends every text with `</s>`, as T5's does.

    Args:
        kind: `word` (words and punctuation, for small closed vocabularies) or `bpe` (byte-pair encoding over words).
        texts: what it is trained on.
        vocab_size: entries at most, the special ones included.
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
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=SPECIAL[3:],
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(name: str, *, revision: str = "main") -> PreTrainedTokenizerBase:
    """Load a tokenizer from the hub or a folder; no code of the repository is run.

    Raises:
        DataError: if there is none, or it has no padding token.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"tokenizer {name!r} (revision {revision}): cannot be loaded: {first}") from error
    if tokenizer.pad_token_id is None:
        raise DataError(f"tokenizer {name!r}: has no padding token")
    return tokenizer


def is_trained_here(name: str) -> bool:
    """Return whether `prepare.tokenizer` asks for a tokenizer of the suite's own."""
    return name in TRAINED_TOKENIZERS


def saved_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer that the prepare stage wrote."""
    with reading(folder):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    return tokenizer
