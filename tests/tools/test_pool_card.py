"""The model card of several exports."""

from __future__ import annotations

from huggingface_hub import EvalResult, ModelCardData

from mhrctl.artifacts.facts import Base
from mhrctl.tools.pool_card import pool_card

BASE = Base(source="hub", name="google/flan-t5-small", revision="c" * 40)


def front_matter(task: str, **scores: float) -> ModelCardData:
    results = [
        EvalResult("text2text-generation", "suite", task, metric, value, dataset_config=task, metric_name=metric.upper())
        for metric, value in scores.items()
    ]
    tags = ["mhrctl", "lora"]
    kind = "text2text-generation"
    return ModelCardData(model_name=task, library_name="peft", pipeline_tag=kind, tags=tags, eval_results=results or None)


def test_it_has_the_results_of_all_and_a_table() -> None:
    exports = {"a": ("a|b", front_matter("a", f1=12.34)), "c": ("c", front_matter("c", f1=5.0, em=1.0))}
    card = pool_card("me/lists", exports, base=BASE, merged=False)
    results = [(each.dataset_name, each.metric_type, each.metric_value) for each in card.data.get("eval_results") or ()]
    assert results == [("a", "f1", 12.34), ("c", "f1", 5.0), ("c", "em", 1.0)]
    assert (card.data.get("base_model"), card.data["base_model_relation"]) == (BASE.name, "adapter")
    assert card.data.get("tags") == ["mhrctl", "lora"]
    assert r"| `a` | a\|b | 12.3 |  |" in card.text
    assert "| `c` | c | 5.0 | 1.0 |" in card.text
    assert f'AutoModelForSeq2SeqLM.from_pretrained("{BASE.name}", revision="{BASE.revision}")' in card.text


def test_whole_models_are_loaded_without_an_adapter_library() -> None:
    card = pool_card("me/lists", {"a": (None, front_matter("a"))}, base=BASE, merged=True)
    assert card.data["base_model_relation"] == "finetune"
    assert 'AutoModelForSeq2SeqLM.from_pretrained("me/lists", subfolder="a")' in card.text
    assert "peft" not in card.text
    assert "| `a` | all |" in card.text
