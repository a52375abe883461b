"""Options and settings from Python come to the commands as their command lines would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mhrctl.api.commands import options, overrides, parsed, run_command, silenced
from mhrctl.cli import display
from mhrctl.config.overrides import read_overrides
from mhrctl.errors import ArtifactError, ParamsError


def test_options_are_written_as_words() -> None:
    assert options(max_new_tokens=3, force=True, shard=False, recipe=None, off=["packing", "all"], track=()) == [
        "--max-new-tokens=3",
        "--force",
        "--off=packing",
        "--off=all",
    ]
    assert options(project=Path("a b"), set=["x.y=-1"]) == ["--project=a b", "--set=x.y=-1"]


@pytest.mark.parametrize(
    "value",
    [
        3,
        -3,
        1e-05,
        2.5,
        1e22,
        True,
        False,
        None,
        "text",
        "1",
        "true",
        "a: b # c",
        "é\n",
        "",
        [1, "2"],
        {"heads": [1, 8]},
        (1, 2),
    ],
)
def test_settings_keep_their_values_and_types(value: Any) -> None:
    (override,) = read_overrides(overrides({"section.key": value}))
    expected = list(value) if isinstance(value, tuple) else value
    assert (override.value, type(override.value)) == (expected, type(expected))
    assert overrides(None) == []


def test_a_setting_that_no_file_can_hold_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"^settings: Object of type PosixPath is not JSON serializable$"):
        overrides({"prepare.path": Path("a")})


def test_what_is_not_said_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MHRCTL_DEVICE", "cpu")
    monkeypatch.setenv("MHRCTL_THREADS", "3")
    chosen = parsed("predict", [])
    assert (chosen["device"], chosen["threads"], chosen["off"]) == ("cpu", 3, [])
    assert parsed("predict", options(threads=2, off=["packing"]))["threads"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads=0"], r"^--threads 0: must be a whole number from 1 to 1024"),
        (["--device=tpu"], r"^--device tpu: choose `auto` or `cpu`"),
        (["--stage=nothing"], r"^--stage nothing: choose adapt, average or pretrain"),
        (["--colour=red"], r"^unknown option --colour"),
    ],
)
def test_options_that_are_wrong_are_said_in_the_line_of_the_command(arguments: list[str], message: str) -> None:
    with pytest.raises(ParamsError, match=message) as error:
        parsed("predict", arguments)
    assert "\n" not in str(error.value)
    with pytest.raises(ParamsError, match=message):
        run_command("predict", arguments)


def test_a_command_says_what_it_says_unless_it_is_to_be_quiet(copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    run_command("prepare", options(project=copy))
    assert "is up to date" in capfd.readouterr().err
    run_command("prepare", options(project=copy), quiet=True)
    run_command("report", options(project=copy), quiet=True)
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ArtifactError, match="no finished pretrain output"):
        run_command("adapt", [*options(project=copy), "--", "mhr-h2-s0"], quiet=True)
    with silenced():
        with silenced(silent=False):
            display.done("nothing")
        display.done("nothing")
    display.done("something")
    assert capfd.readouterr() == ("", "something\n")
