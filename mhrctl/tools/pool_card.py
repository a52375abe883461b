"""The README.md of a repository of several exports: what is in which folder, how well each does, and code that loads them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from huggingface_hub import ModelCard, ModelCardData

from mhrctl.artifacts.facts import Base
from mhrctl.errors import counted
from mhrctl.tools.model_card import KINDS, relation_of


def pool_card(repo: str, exports: Mapping[str, tuple[str | None, ModelCardData]], *, base: Base, merged: bool) -> ModelCard:
    """Make the model card of a pool.

    Args:
        repo: where it goes, as the code names it.
        exports: {folder: the task, and the front matter of the export's README.md}.
        base: the backbone of all of them.
        merged: whether they are whole models.
    """
    name, first = repo.rpartition("/")[2], next(iter(exports.values()))[1]
    data = ModelCardData(
        model_name=name,
        base_model=base.name if base.source == "hub" else None,
        base_model_relation=relation_of(base, merged=merged),
        library_name=first.library_name,
        pipeline_tag=first.pipeline_tag,
        tags=list(dict.fromkeys(tag for _, each in exports.values() for tag in each.tags or ())),
        eval_results=[result for _, each in exports.values() for result in each.eval_results or ()] or None,
    )
    what = "model" if merged else "adapter"
    return ModelCard(f"""---
{data.to_yaml()}
---

# {name}

{counted(len(exports), what)} on `{base.name}`{f" at `{base.revision}`" if base.revision else ""}, each in a folder of its own,
whose README.md has an example with code, and the recipe.

{_table(exports)}

```python
{_code(repo, next(iter(exports)), first, base, merged=merged)}
```

`card.json` has the hashes of all files. Made with mhrctl: `mhrctl pull {repo}` brings them, and sees that they are whole.
""")


def _table(exports: Mapping[str, tuple[str | None, ModelCardData]]) -> str:
    """What is where, with the scores where there are any."""
    scores = {
        folder: {each.metric_name or each.metric_type: f"{each.metric_value:.1f}" for each in data.eval_results or ()}
        for folder, (_, data) in exports.items()
    }
    metrics = list(dict.fromkeys(metric for of_one in scores.values() for metric in of_one))
    rows = [["folder", "task", *metrics], ["---", "---", *("--:" for _ in metrics)]]
    for folder, (task, _) in exports.items():
        rows.append(
            [f"`{folder}`", (task or "all").replace("|", "\\|"), *(scores[folder].get(metric, "") for metric in metrics)]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _code(repo: str, folder: str, data: ModelCardData, base: Base, *, merged: bool) -> str:
    """The code that loads the first; of adapters, a second one is loaded beside it."""
    auto = next(kind.auto for kind in KINDS.values() if kind.tag == data.pipeline_tag)
    where = f"{json.dumps(repo)}, subfolder={json.dumps(folder)}"
    if merged:
        return f"from transformers import {auto}\n\nmodel = {auto}.from_pretrained({where})"
    at = f", revision={json.dumps(base.revision)}" if base.revision else ""
    return "\n".join(
        [
            "from peft import PeftModel",
            f"from transformers import {auto}",
            "",
            f"backbone = {auto}.from_pretrained({json.dumps(base.name)}{at})",
            f"model = PeftModel.from_pretrained(backbone, {where})  # others: model.load_adapter(..., adapter_name=...)",
        ]
    )
