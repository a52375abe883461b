"""The skills without the routing of the training tasks, from numbers that hold both."""

from __future__ import annotations

from pathlib import Path

from mhrctl.report.figures.kept import kept_skills
from mhrctl.report.results import read_results
from tests.report.figures.made import ROUTING, SKILLS, TASKS, routed
from tests.report.made import write_cells


def test_kept_skills_of_whatever_has_a_routing(metrics: Path) -> None:
    assert kept_skills(read_results(metrics)) == {
        "poly": SKILLS,
        "poly-k16": 2 * SKILLS,
        "poly_z": SKILLS,
        "mhr-h8": SKILLS,
        "mhr_z-h8": SKILLS,
        "mhr_z-h8-block": SKILLS,
        "mhr_z-h8-light": SKILLS // 2,
    }


def test_kept_skills_are_as_t5_xl_has_them(tmp_path: Path) -> None:
    skills, layers, tasks = 17_694_720, 432, 313
    cells = {
        f"{method}{f'-h{heads}' if heads > 1 else ''}-s0": routed(
            method, heads, 0, 60, skills=skills, routing=layers * heads * 8, tasks=tasks
        )
        for method, heads in (("poly", 1), ("poly_z", 1), ("mhr", 8), ("mhr_z", 64))
    }
    assert kept_skills(read_results(write_cells(tmp_path, cells))) == dict.fromkeys(
        ["poly", "poly_z", "mhr-h8", "mhr_z-h64"], skills
    )


def test_nothing_is_kept_where_no_two_methods_share_a_pretraining(tmp_path: Path) -> None:
    cells = {"poly-s0": routed("poly", 1, 0, 60), "mhr_z-h8-s0": routed("mhr_z", 8, 0, 60, routing=8 * ROUTING)}
    assert kept_skills(read_results(write_cells(tmp_path, cells))) == {}


def test_nothing_is_kept_where_methods_disagree_about_the_training_tasks(tmp_path: Path) -> None:
    cells = {
        f"{method}{'-h8' * (heads > 1)}-s0": routed(method, heads, 0, 60, routing=heads * ROUTING, tasks=TASKS + heads)
        for method, heads in (("poly", 1), ("poly_z", 1), ("mhr", 8), ("mhr_z", 8))
    }
    assert kept_skills(read_results(write_cells(tmp_path, cells))) == {}
