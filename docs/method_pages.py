"""Writes into each page of docs/methods what the methods table and the counts say of it: `make reference`.

A page is written by hand, but for what stands between `BEGIN` and `END`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mhrctl.config.methods import METHODS, READERS, Method, reads
from mhrctl.config.options import NoOptions
from mhrctl.models.attach import linear_shapes
from mhrctl.models.backbones import sized_model
from mhrctl.tools.count import PAPER_BACKBONE, USUAL, Counts, Sizes, count_methods

FOLDER = Path(__file__).with_name("methods")
BEGIN, END = "<!-- written by `make reference` -->\n", "<!-- until here -->"
HEADS = (8, 64)
"""Of `mhr` and its variants, in the counts."""
ROUTED = {
    "none": "none",
    "learned": "learned: a logit for each task, {heads}skill and layer",
    "random": "drawn: a fair coin for each example, skill and layer",
    "task": "none over skills: each task has numbers of its own in each layer",
    "token": "in each layer and for each token, by what the layer reads",
    "input": "in each layer and for each example, by the mean of what the frozen layer reads of its prompt",
    "private": "a LoRA for each training task (of T0, for each data set), and no mixing",
}
STARTS = {
    "pretrain": "what was pre-trained",
    "average": "the average, one LoRA, which `mhrctl average` writes",
    "pool": "all adapters of the pool, and a router that is read off them",
    "soup": "one LoRA that is made of those of the most similar training tasks",
    "route": "nothing: each query is answered by LoRAs of those that were pre-trained, chosen for it",
    "new_lora": "the tuned weights, which stay as they are, and a new LoRA",
}


def written(page: str, row: Method, counts: Mapping[str, list[Counts]]) -> str:
    """Return a page with what is now said of its method.

    Args:
        page: its text.
        row: of the methods table.
        counts: {layout: those of all methods}.
    """
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    facts = "\n".join(_facts(row, counts))
    return f"{before}{BEGIN}\n{facts}\n\n{END}{after}" if rest else page


def _facts(row: Method, counts: Mapping[str, list[Counts]]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    yield f"| routing | {ROUTED[row.routing].format(heads='head, ' if row.multi_head else '')} |"
    yield f"| adaptation starts from | {_start(row)} |"
    yield f"| adaptation trains | {'the routing of the new task' if row.trains_routing_alone else _trained(row)} |"
    shared = [other.name for other in METHODS.values() if other.pretrain == row.pretrain and other.name != row.name]
    if shared:
        yield f"| shares its pre-training with | {', '.join(f'[`{name}`]({name}.md)' for name in shared)} |"
    if row.settings:
        said = (f"`{section}.{key}: {_plain(value)}`" for section, part in row.settings.items() for key, value in part.items())
        yield f"| its row sets | {', '.join(said)} |"
    yield f"| reads, of settings that not all methods read | {_settings(row)} |"
    for words, numbers in (("on all tasks", _on_all), ("for a new task", _on_new)):
        by_layout = {layout: numbers([count for count in counts[layout] if count.method == row.name]) for layout in counts}
        yield f"| trained {words}, T5-XL | {_in_one(by_layout)} |"
    for section, options in (("pretrain", row.options), ("adapt", row.adapt_options)):
        if options is not NoOptions:
            yield from _options(row.name, section, options)


def _start(row: Method) -> str:
    if row.adapts_routing:
        return "the skills, and logits of the new task near 0, so near the average"
    if row.routing == "task":
        return "what all tasks share, and the mean of what each has of its own"
    return STARTS[row.start]


def _trained(row: Method) -> str:
    if row.trains_nothing:
        return "nothing"
    if row.adapts_routing:
        return "the skills and the routing of the new task"
    if row.adds_lora:
        return "the new LoRA"
    if row.routes_queries:
        return "nothing"
    return "all of it" if row.start == "pretrain" else "that LoRA"


def _plain(value: object) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, list) else str(value)


def _settings(row: Method) -> str:
    """The settings that it reads and others do not, by section."""
    read: dict[str, list[str]] = {}
    for section, key in READERS:
        if reads(row, section, key):
            read.setdefault(section, []).append(f"`{key}`")
    return "; ".join(f"[`{section}`](../settings.md#{section}): {', '.join(keys)}" for section, keys in read.items())


def _in_one(by_layout: Mapping[str, str]) -> str:
    """What is said of layouts, once if it is the same of all."""
    same = set(by_layout.values())
    return same.pop() if len(same) == 1 else "; ".join(f"layout `{layout}`: {said}" for layout, said in by_layout.items())


def _on_all(counts: Sequence[Counts]) -> str:
    first = counts[0]
    heads = f" with {first.heads} heads" if first.heads else ""
    return f"{first.multi_task:,}" + (f", and {first.routing:,} logits of 313 tasks{heads}" if first.routing else "")


def _on_new(counts: Sequence[Counts]) -> str:
    if len({count.adaptation for count in counts}) == 1:
        return f"{counts[0].adaptation:,}"
    return ", ".join(f"{count.adaptation:,} with {count.heads} heads" for count in counts)


def _options(name: str, section: str, options: type[NoOptions]) -> Iterator[str]:
    """The settings of its own, in a table."""
    yield ""
    yield f"| `{section}.options` of `{name}` | default | |"
    yield "|---|---|---|"
    for key, field in options.model_fields.items():
        yield f"| `{key}` | `{'null' if field.default is None else field.default}` | {field.description} |"


def counted() -> dict[str, list[Counts]]:
    """Count all methods on the paper's backbone, in its layouts."""
    model = sized_model(PAPER_BACKBONE)
    linears, weights, sizes = linear_shapes(model), model.num_parameters(), replace(Sizes(), heads=HEADS)
    return {layout: count_methods(linears, weights, layout, sizes) for layout in USUAL}


def pages(folder: Path = FOLDER) -> Iterator[tuple[Path, str]]:
    """Each page, and what it should say."""
    counts = counted()
    for name, row in METHODS.items():
        path = folder / f"{name}.md"
        yield path, written(path.read_text(encoding="utf-8"), row, counts)


if __name__ == "__main__":
    for path, text in list(pages()):
        path.write_text(text, encoding="utf-8")
