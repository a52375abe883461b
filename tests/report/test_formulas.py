"""Table 1: the text of a formula, its function, and the exact counts of T5-XL."""

from __future__ import annotations

import re

import pytest

from mhrctl.config.methods import METHODS
from mhrctl.report.formulas import FORMULAS, Formula, Sizes, t5_shapes, total
from mhrctl.report.printed import printed

PRE_TRAINING, FINE_TUNING, INFERENCE = range(3)
XL = list(t5_shapes(d_model=2048, d_ff=5120, layers=24))
EXACT = printed()["exact_parameter_counts_t5_xl"]
SIZES = (Sizes(d=13, w=42, r=2, K=3, T=5, H=7), Sizes(d=4096, w=2048 * 2048, r=16, K=8, T=313, H=64))


def xl(method: str, phase: int, *, rank: int = 1, skills: int = 8, tasks: int = 313, heads: int = 64) -> int:
    return total(FORMULAS[method][phase], XL, rank=rank, skills=skills, tasks=tasks, heads=heads)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("formula", [formula for row in FORMULAS.values() for formula in row], ids=lambda f: f.text)
def test_the_text_says_what_the_function_counts(formula: Formula, sizes: Sizes) -> None:
    code = re.sub(r"(?<=\w) (?=\w)", "*", formula.text)  # "K d r + T K" is K*d*r + T*K
    assert eval(code, {"__builtins__": {}}, vars(sizes)) == formula.count(sizes)  # noqa: S307 - our own literals


@pytest.mark.parametrize(
    ("method", "counts"),
    [  # by hand for a layer of 6 x 7, r = 2, K = 3, T = 5, H = 7
        ("full_ft", (42, 42, 42)),
        ("lora", (26, 26, 26)),
        ("poly", (78 + 15, 78 + 3, 26)),
        ("poly_z", (78 + 15, 3, 26)),
        ("poly_mu", (78 + 15, 26, 26)),
        ("mhr", (78 + 105, 78 + 21, 26)),
        ("mhr_z", (78 + 105, 21, 26)),
        ("mhr_mu", (78 + 105, 26, 26)),
    ],
)
def test_counts_by_hand(method: str, counts: tuple[int, int, int]) -> None:
    assert tuple(formula.count(SIZES[0]) for formula in FORMULAS[method]) == counts


def test_rows_are_methods() -> None:
    assert set(FORMULAS) <= set(METHODS)


def test_t5_xl_has_432_adapted_layers() -> None:
    assert len(XL) == 432
    assert XL.count((2048, 2048)) == (24 + 24 + 24) * 4  # q k v o of the encoder, the decoder, and across
    assert XL.count((2048, 5120)) == 48 * 2
    assert XL.count((5120, 2048)) == 48


def test_exact_counts_of_t5_xl() -> None:
    assert xl("lora", PRE_TRAINING) == EXACT["lora_rank1_full"]
    assert xl("lora", PRE_TRAINING, rank=16) == EXACT["lora_rank16_full"]
    assert xl("poly", PRE_TRAINING, tasks=0) == EXACT["poly_inventory_8"]
    assert xl("mhr", PRE_TRAINING, tasks=0) == EXACT["poly_inventory_8"]
    assert xl("poly_z", FINE_TUNING) == EXACT["z_one_task_heads1"]
    assert xl("mhr_z", FINE_TUNING, heads=1) == EXACT["z_one_task_heads1"]
    assert xl("mhr_z", FINE_TUNING, heads=8) == EXACT["z_one_task_heads8"]
    assert xl("mhr_z", FINE_TUNING) == EXACT["z_one_task_heads64"]
    assert xl("mhr", FINE_TUNING) == EXACT["poly_inventory_8"] + EXACT["z_one_task_heads64"]
    assert xl("mhr", PRE_TRAINING) == EXACT["poly_inventory_8"] + 313 * EXACT["z_one_task_heads64"]


@pytest.mark.parametrize("method", [method for method in FORMULAS if method != "full_ft"])
def test_every_adapter_is_one_lora_at_inference(method: str) -> None:
    assert xl(method, INFERENCE) == EXACT["lora_rank1_full"]


@pytest.mark.parametrize("method", ["poly_mu", "mhr_mu"])
def test_an_average_trains_as_much_as_a_lora(method: str) -> None:
    assert xl(method, FINE_TUNING) == EXACT["lora_rank1_full"]
