"""Texts become tokens piece by piece where a tokenizer splits at white space first: nearly every piece was met before.

The tokens are those that the tokenizer gives of the whole texts. That is known of tokenizers whose parts all look at one
piece at a time (`_is_piecewise`), as T5's and those that are trained here do; any other is asked for whole texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mhrctl.data.tokenization import around, bare_tokens, whole_tokens

ROUND = 1000
"""Texts at a time: their lines are held in parts."""
KNOWN = 2**18
"""Pieces that are remembered: the first are the frequent ones, and names and numbers never end."""
SPLITS_ELSEWHERE = "\x1c\x1d\x1e\x1f"
"""Python's `split` takes these for white space, and tokenizers do not."""
NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Precompiled", "Sequence"}
"""Normalizers that change letters, and never what is in another piece."""
MODELS = {"BPE", "Unigram", "WordLevel", "WordPiece"}


class Pieces:
    """These are a tokenizer's tokens of texts, with the pieces of texts remembered.

    They are asked as the tokenizer is, and can stand in its place where texts become tokens.

    Attributes:
        piecewise: whether they are made piece by piece.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.piecewise = _is_piecewise(tokenizer)
        self._around = around(tokenizer) if self.piecewise else ([], [])
        self._known: dict[str, list[int]] = {}
        self._odd: set[str] = set()

    def __call__(
        self,
        texts: list[str],
        *,
        add_special_tokens: bool = True,
        **options: bool,  # noqa: ARG002 - of a tokenizer
    ) -> dict[str, list[list[int]]]:
        """Return the tokens of texts as `input_ids`, those that the tokenizer puts around a text among them or not."""
        tokens = whole_tokens if add_special_tokens else bare_tokens
        if not self.piecewise:
            return {"input_ids": tokens(self._tokenizer, texts)}
        rows: list[list[int]] = []
        before, after = self._around if add_special_tokens else ([], [])
        for start in range(0, len(texts), ROUND):
            some = texts[start : start + ROUND]
            bare = self._bare(some)
            whole = iter(tokens(self._tokenizer, [text for text, ids in zip(some, bare, strict=True) if ids is None]))
            rows += [next(whole) if ids is None else [*before, *ids, *after] for ids in bare]
        return {"input_ids": rows}

    def _bare(self, texts: Sequence[str]) -> list[list[int] | None]:
        """The tokens of texts; None of one that has a piece which does not stand alone."""
        lines = [text.split("\n") for text in texts]
        pieces = {line: line.split() for of_text in lines for line in of_text}  # a task's texts share most of theirs
        known = self._learned(pieces.values())
        ids: dict[str, list[int]] = {}
        odd = self._odd_lines(pieces)
        for line, parts in pieces.items():
            if line not in odd:
                ids[line] = of_line = []
                for part in parts:
                    of_line += known[part]
        return [None if odd and not odd.isdisjoint(of_text) else _joined(of_text, ids) for of_text in lines]

    def _odd_lines(self, pieces: Mapping[str, Sequence[str]]) -> set[str]:
        """Lines with a piece that does not stand alone, or whose pieces are not the tokenizer's."""
        odd = {line for line, parts in pieces.items() if not self._odd.isdisjoint(parts)} if self._odd else set()
        every = "".join(pieces)
        for mark in SPLITS_ELSEWHERE:
            if mark in every:
                odd.update(line for line in pieces if mark in line)
        return odd

    def _learned(self, pieces: Iterable[Sequence[str]]) -> Mapping[str, list[int]]:
        """The tokens of all pieces that stand alone; those that do not are put among the odd ones."""
        known, odd = self._known, self._odd
        fresh = [piece for piece in set().union(*pieces) if piece not in known and piece not in odd]
        if not fresh:
            return known
        tokens = dict(zip(fresh, bare_tokens(self._tokenizer, fresh), strict=True))
        self._test([piece for piece in fresh if not piece.isascii()], tokens)
        if len(known) + len(tokens) > KNOWN:
            return {**known, **tokens}
        known.update(tokens)
        return known

    def _test(self, pieces: Sequence[str], tokens: dict[str, list[int]]) -> None:
        """Take out pieces that are not the same tokens within a text, as one that begins with an accent of a space may be."""
        if not pieces:
            return
        (word,) = bare_tokens(self._tokenizer, ["a"])
        within = bare_tokens(self._tokenizer, [f"a {piece} a" for piece in pieces])
        for piece, ids in zip(pieces, within, strict=True):
            if ids != [*word, *tokens[piece], *word]:
                self._odd.add(piece)
                del tokens[piece]


def _joined(lines: Sequence[str], ids: Mapping[str, list[int]]) -> list[int]:
    row: list[int] = []
    for line in lines:
        row += ids[line]
    return row


def _is_piecewise(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokens of a text are those of its pieces between white space, by what a tokenizer is made of."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return False
    tree: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    splits, model = tree["pre_tokenizer"] or {}, tree["model"]
    first = splits.get("pretokenizers", [splits])[0]
    return (
        first.get("type") == "WhitespaceSplit"
        and model["type"] in MODELS
        and not model.get("dropout")
        and _types(tree["normalizer"]) <= NORMALIZERS
        and _is_added_once(tree["post_processor"])
        and not any(letter.isspace() for token in tree["added_tokens"] for letter in token["content"])
    )


def _types(normalizer: Mapping[str, Any] | None) -> set[str]:
    if normalizer is None:
        return set()
    return {normalizer["type"]}.union(*map(_types, normalizer.get("normalizers", ())))


def _is_added_once(processor: Mapping[str, Any] | None) -> bool:
    """Whether special tokens come before and after a text, if there are any."""
    if processor is None:
        return True
    return processor["type"] == "TemplateProcessing" and sum("Sequence" in part for part in processor["single"]) == 1
