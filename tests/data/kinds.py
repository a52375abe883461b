"""Small tokenizers of the kinds that causal models have, made as theirs are."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

TEXTS = [
    "Definition: name the capital.\n\nNow complete the following example -\nInput: France\nOutput: Paris",
    "the answer is the other answer, and that is all there is to say of it",
    "Output: answer\nOutput: the Paris of the South",
]
LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def wrapped(backend: Tokenizer, **special: str) -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **special)


def begun(backend: Tokenizer, begin: str) -> None:
    """Put the begin token before every text, as a template does."""
    backend.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, backend.token_to_id(begin))]
    )


def bytes_as(pre_tokenizer: pre_tokenizers.PreTokenizer, special: list[str]) -> Tokenizer:
    """Byte-pair encoding over bytes, which can say every text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return backend


def gpt_2() -> PreTrainedTokenizerBase:
    """No token before a text, no padding token; end, begin and unknown are one."""
    name = "<|endoftext|>"
    backend = bytes_as(pre_tokenizers.ByteLevel(add_prefix_space=False), [name])
    return wrapped(backend, bos_token=name, eos_token=name, unk_token=name)


def llama_3() -> PreTrainedTokenizerBase:
    """A begin token, no padding token; Qwen's splits texts in the same manner."""
    split = pre_tokenizers.Split(Regex(LLAMA_3), "isolated")
    splits = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    backend = bytes_as(splits, ["<|begin|>", "<|end|>"])
    begun(backend, "<|begin|>")
    return wrapped(backend, bos_token="<|begin|>", eos_token="<|end|>")


def pieces(begin: str, end: str) -> Tokenizer:
    """Byte-pair encoding over words with a mark for the space before them, as sentencepiece has it; other letters are bytes."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    trained.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    learned = json.loads(trained.to_str())["model"]
    names = ["<unk>", begin, end, *(f"<0x{number:02X}>" for number in range(256)), *learned["vocab"]]
    vocabulary = {name: number for number, name in enumerate(names)}
    merges = [(left, right) for left, right in learned["merges"]]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    begun(backend, begin)
    return backend


_SPACES: list[decoders.Decoder] = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]


def llama_2() -> PreTrainedTokenizerBase:
    """A space goes before every text, and between special tokens before every part of it."""
    backend = pieces("<s>", "</s>")
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.decoder = decoders.Sequence([*_SPACES, decoders.Strip(" ", 1, 0)])
    return wrapped(backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def mistral() -> PreTrainedTokenizerBase:
    """A space goes before the first part alone."""
    backend = pieces("<s>", "</s>")
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence([*_SPACES, decoders.Strip(" ", 1, 0)])
    return wrapped(backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def gemma() -> PreTrainedTokenizerBase:
    """Spaces are replaced, and none goes before a text; there is a padding token."""
    backend = pieces("<bos>", "<eos>")
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence(_SPACES)
    return wrapped(backend, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<unk>")


def words() -> PreTrainedTokenizerBase:
    """Whole words, without a token before a text, and with an end token after it, which a causal prompt must not have."""
    backend = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "Output:": 3, "answer": 4}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return wrapped(backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


BYTES: dict[str, Callable[[], PreTrainedTokenizerBase]] = {"gpt_2": gpt_2, "llama_3": llama_3}
PIECES: dict[str, Callable[[], PreTrainedTokenizerBase]] = {"llama_2": llama_2, "mistral": mistral, "gemma": gemma}
KINDS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {**BYTES, **PIECES, "words": words}


def chatted(
    tokenizer: PreTrainedTokenizerBase, template: str, *special: str, ordinary: Sequence[str] = ()
) -> PreTrainedTokenizerBase:
    """A tokenizer with a chat template of our own words, and with the tokens that it puts."""
    tokenizer.add_special_tokens({"additional_special_tokens": [*special]})
    tokenizer.add_tokens([*ordinary])
    tokenizer.chat_template = template
    return tokenizer


_PADDED = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
_IN_FORM = f"{_PADDED}{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}"


def marked() -> PreTrainedTokenizerBase:
    """Marks around turns of any role, as Qwen 2 has them; texts end otherwise."""
    return chatted(gpt_2(), _IN_FORM, "<|im_start|>", "<|im_end|>")


def loud() -> PreTrainedTokenizerBase:
    """The same marks as ordinary tokens, which a decoder would show."""
    return chatted(gpt_2(), _IN_FORM, ordinary=["<|im_start|>", "<|im_end|>"])


def thinking() -> PreTrainedTokenizerBase:
    """A model thinks before it answers, unless it is told not to, as Qwen 3."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
    )
    return chatted(gpt_2(), template, "<|im_start|>", "<|im_end|>")


def always_thinking() -> PreTrainedTokenizerBase:
    """A model that cannot be told not to think."""
    template = thinking().chat_template
    assert isinstance(template, str)
    opened = template.replace(
        "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n", "{% if 1 %}<think>\n"
    )
    return chatted(gpt_2(), opened, "<|im_start|>", "<|im_end|>")


def dated() -> PreTrainedTokenizerBase:
    """A begin token, headers, and a system's turn with the day, as Llama 3 has them."""
    template = (
        "{{ bos_token }}{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "<|head|>system<|/head|>\n\nToday: {{ date_string }}\n\n"
        "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% set messages = messages[1:] %}{% endif %}"
        "<|eot|>"
        "{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
        "{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
    )
    return chatted(llama_3(), template, "<|head|>", "<|/head|>", "<|eot|>")


def instructed() -> PreTrainedTokenizerBase:
    """A space before the answer and one before its end, as Llama 2; a system's words are the beginning of the user's."""
    template = (
        "{% if messages[0].role == 'system' %}{% set lead = '<<S>>' + messages[0].content + '<</S>>' %}"
        "{% set messages = messages[1:] %}{% else %}{% set lead = '' %}{% endif %}"
        "{% for m in messages %}{% if m.role == 'user' %}"
        "{{ bos_token + '[I] ' + (lead if loop.first else '') + m.content + ' [/I]' }}"
        "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
    )
    return chatted(llama_2(), template)


def without_system() -> PreTrainedTokenizerBase:
    """Turns of user and model alone, one after the other, as Gemma's; a system is refused."""
    template = (
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
        "{% for m in messages %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('not in turn') }}{% endif %}"
        "<turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end>\n{% endfor %}"
        "{% if add_generation_prompt %}<turn>model\n{% endif %}"
    )
    return chatted(gemma(), template, "<turn>", "<end>")


def unmarked() -> PreTrainedTokenizerBase:
    """No token of its own ends a turn."""
    template = (
        "{% for m in messages %}{{ '### Answer:\n' if m.role == 'assistant' else '### Ask:\n' }}{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}### Answer:\n{% endif %}"
    )
    return chatted(mistral(), template)


CHATS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    make.__name__: make for make in (marked, loud, thinking, always_thinking, dated, instructed, without_system, unmarked)
}
"""Tokenizers with chat templates of every form."""
