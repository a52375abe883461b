"""Recipes are how the paper's experiments were run, as settings: docs/recipe.md, sections 3.1 and 3.2.

A recipe stands under what params.yaml says (`recipe: t0`), or over it (`--recipe t0`). `mhrctl check --method NAME` shows what
will run, and where every setting comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mhrctl.errors import ParamsError, unknown

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """A recipe is one set of experiments.

    Attributes:
        summary: which.
        sections: {section of params.yaml: settings}.
        methods: {method: {section: settings}} where a method differs.
    """

    summary: str
    sections: Mapping[str, Settings]
    methods: Mapping[str, Mapping[str, Settings]]


_T0: dict[str, Any] = {
    "optimizer": "adafactor",
    "scale_parameter": True,
    "routing_lr": 0.1,
    "weight_decay": 0.0,
    "warmup": 0.06,
    "clip_norm": 1.0,
    "loss": "token_mean",
    "label_smoothing": 0.0,
    "precision": "bf16",
}
_SUPERNI: dict[str, Any] = {
    "optimizer": "adamw",
    "lr": 1e-3,
    "routing_lr": 0.1,
    "weight_decay": 0.01,
    "warmup": 0.06,
    "clip_norm": 0.1,
    "loss": "example_sum",
    "label_smoothing": 0.1,
    "precision": "bf16",
}
_SUPERNI_PRETRAIN = _SUPERNI | {
    "steps": 25_000,
    "batch_size": 1,
    "accumulation": 8,
    "skills": 8,
    "alpha": 1.0,
    "validate_every": 5000,
    "validate_examples": 100,
    "keep": "best",  # of these five, by validation loss; of T0 the authors took the last
}
_SUPERNI_SECTIONS: dict[str, Settings] = {
    "prepare": {
        "definition": True,
        "positive_examples": 0,
        "examples": 100,
        "max_input_tokens": 1024,
        "max_target_tokens": 128,
    },
    "adapt": _SUPERNI
    | {
        "steps": 1000,
        "batch_size": 2,
        "accumulation": 4,
        "shots": 100,
        "validation": 100,
        "evaluate_every": 130,  # 10 epochs of 100 examples: the steps 130 to 910 alone
        "keep_start": False,
        "keep_last": False,
        "beams": 4,
        "max_new_tokens": 128,
    },
    "evaluate": {"beams": 4, "max_new_tokens": 128, "precision": "bf16"},
}
_SLOW_LORA = {
    method: {"pretrain": {"lr": 5e-5}} for method in ("lora", "lora_big", "lora_matched", "align_lora", "adapter_soup", "ia3")
}
_UNSCALED = {method: {"pretrain": {"scale_parameter": False}} for method in ("poly", "mhr", "random_mu", "c_poly")}

RECIPES = {
    "t0": Recipe(
        "T0 on T5-XL-LM and T0-3B",
        {
            "prepare": {"max_input_tokens": 256, "max_target_tokens": 256},
            "pretrain": _T0
            | {
                "steps": 100_000,
                "batch_size": 8,
                "accumulation": 2,
                "lr": 1e-3,
                "skills": 8,
                "rank": 1,
                "alpha": 1.0,
                "targets": "full",
                "relaxed_bernoulli": False,
            },
            "adapt": _T0
            | {
                "steps": 1000,
                "batch_size": 8,
                "lr": 3e-3,
                "mc_weight": 1.0,
                "unlikelihood_weight": 1.0,
                "length_norm": 1.0,
                "shots": None,
                "validate_on": "test",
                "evaluate_every": 50,
                "evaluate_unit": "epochs",
                "epoch_steps": {"h-swag": 3},  # of batches of 4, two a step
                "keep_start": False,
            },
            "evaluate": {"precision": "bf16"},
        },
        {**_UNSCALED, "ia3": {"pretrain": {"lr": 3e-4}}},
    ),
    "superni": Recipe(
        "Super-NaturalInstructions on T5-XL-LM, light layout, plain sigmoid",
        {
            **_SUPERNI_SECTIONS,
            "pretrain": _SUPERNI_PRETRAIN | {"rank": 1, "targets": "light", "relaxed_bernoulli": False},
        },
        _SLOW_LORA,
    ),
    "superni_attention": Recipe(
        "Super-NaturalInstructions with skills of rank 16 on q k v o and a relaxed Bernoulli",
        {
            **_SUPERNI_SECTIONS,
            "pretrain": _SUPERNI_PRETRAIN | {"rank": 16, "targets": "attention", "relaxed_bernoulli": True, "temperature": 1.0},
        },
        _SLOW_LORA,
    ),
}


def recipe(name: str) -> Recipe:
    """Look up a recipe.

    Raises:
        ParamsError: if there is no such recipe; names the known ones.
    """
    if name not in RECIPES:
        raise ParamsError(unknown("recipe", name, RECIPES))
    return RECIPES[name]
