"""`--set`: what it says, and what is refused because nothing would come of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mhrctl.config.cells import Cell
from mhrctl.config.overrides import Override, layer_of, over, put_into, read_overrides, require_sections
from mhrctl.config.resolve import load_params, require_read
from mhrctl.errors import ParamsError
from tests.config.mutations import complaint_of


def test_overrides_are_taken_apart() -> None:
    assert read_overrides(["pretrain.lr=1e-3", "pretrain.options={a: 1}", "pretrain.options.b=x=y"]) == [
        Override(("pretrain", "lr"), 0.001),
        Override(("pretrain", "options"), {"a": 1}),
        Override(("pretrain", "options", "b"), "x=y"),
    ]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["recipe=t0"], r"--set recipe=t0: expected SECTION.KEY=VALUE"),
        (["pretrain.lr"], r"--set pretrain.lr: expected SECTION.KEY=VALUE"),
        (["pretrain.=1"], r"--set pretrain.=1: expected SECTION.KEY=VALUE"),
        ([".".join("a" * 100) + "=1"], r"expected SECTION.KEY=VALUE"),
        (["pretrain.lr=.inf"], r"--set pretrain.lr: '.inf' is .inf is not a finite number"),
        (["pretrain.lr=1", "adapt.lr=1", "pretrain.lr=1"], r"--set pretrain.lr: is given twice; give a setting once"),
        (
            ["pretrain.options.a=1", "pretrain.options={}"],
            r"--set pretrain.options: leaves nothing of --set pretrain.options.a",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        read_overrides(texts)


def test_sections_that_a_command_does_not_read_are_refused() -> None:
    require_sections(["adapt.lr=1", "grid.seeds=[1]"], ["adapt", "grid"])
    with pytest.raises(ParamsError, match=r"--set pretrain.lr=1: this command reads the section `adapt` only"):
        require_sections(["adapt.lr=1", "pretrain.lr=1"], ["adapt", "grid"])
    with pytest.raises(ParamsError, match=r"reads the sections adapt, report only"):
        require_sections(["x.y=1"], ["adapt", "report"])


@pytest.mark.parametrize(
    ("text", "reads", "meant"),
    [
        ("steps=5", ["pretrain", "adapt", "grid"], "; did you mean `pretrain.steps` or `adapt.steps`?"),
        ("steps=5", ["adapt", "grid"], "; did you mean `adapt.steps`?"),
        ("stpes=5", ["adapt.steps"], "; did you mean `adapt.steps`?"),
        ("Tokenizer=word", ["prepare"], "; did you mean `prepare.tokenizer`?"),
        ("steps=5", ["prepare"], ""),
        ("recipe=t0", ["prepare"], ""),
    ],
)
def test_a_setting_without_its_section_is_answered_with_where_it_is(text: str, reads: list[str], meant: str) -> None:
    with pytest.raises(ParamsError) as raised:
        require_sections([text], reads)
    assert str(raised.value) == f"--set {text}: expected SECTION.KEY=VALUE{meant}"


def test_they_go_into_the_tree_and_into_a_layer() -> None:
    overrides = read_overrides(["grid.methods.lora.adapt.lr=1.0", "adapt.epoch_steps.a=3", "adapt.lr=0.5"])
    tree: dict[str, object] = {"grid": {"methods": {"lora": None}}}
    for override in overrides:
        put_into(tree, override)
    assert tree == {"grid": {"methods": {"lora": {"adapt": {"lr": 1.0}}}}, "adapt": {"epoch_steps": {"a": 3}, "lr": 0.5}}
    layer = layer_of(overrides, ["adapt"])
    assert layer == {"adapt": {"epoch_steps": {"a": 3}, "lr": 0.5}}
    assert over({"b": 2}, layer["adapt"]["epoch_steps"]) == {"a": 3, "b": 2}
    assert over({"b": 2}, {"a": 3}) == {"a": 3}


def test_the_option_is_blamed_only_for_what_it_makes_wrong(project: Path) -> None:
    path = project / "params.yaml"
    with pytest.raises(ParamsError, match=r"^--set pretrain.uniform_steps: uniform_steps 9 is more than steps 4"):
        load_params(path, ["adapt.lr=1.0", "pretrain.uniform_steps=9"])
    with pytest.raises(ParamsError, match=r"^--set pretrain.steps: pretrain.uniform_steps: uniform_steps 3 is more"):
        path.write_text(path.read_text().replace("  skills: 2", "  skills: 2\n  uniform_steps: 3"))
        load_params(path, ["pretrain.steps=2"])
    path.write_text(path.read_text().replace("  skills: 2", "  skills: two"))
    with pytest.raises(ParamsError, match=r"params.yaml:12: pretrain.skills"):
        load_params(path, ["adapt.lr=-1"])


def test_a_method_that_does_not_read_it_refuses_it(project: Path) -> None:
    read = load_params(project / "params.yaml", ["adapt.routing_lr=0.5"])
    require_read(read, Cell(method="poly"))
    with pytest.raises(ParamsError, match=r"--set adapt.routing_lr: lora does not read it; leave it out"):
        require_read(read, Cell(method="lora"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    st.one_of(
        st.text(max_size=40),
        st.text(max_size=20).map(lambda text: f"adapt.lr={text}"),
        st.text(max_size=9).map("a.{}=1".format),
    )
)
def test_any_text_is_params_or_one_line(project: Path, text: str) -> None:
    said = complaint_of(lambda: load_params(project / "params.yaml", [text]))
    assert said is None or (said.startswith("--set ") and said.isprintable())
