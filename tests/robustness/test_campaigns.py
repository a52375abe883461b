"""The campaigns can fail: a bug put in on purpose is counted as what it is."""

from __future__ import annotations

import json

import pytest

from tests.robustness.outcomes import Campaign, Ended, Kind, sampled, table
from tests.robustness.readers import READERS, judge
from tests.robustness.test_flipped_bits import Flip, tried
from tests.robustness.workshop import Workshop

ONE_LINE = "error: params.yaml:3: wrong; mend it\n"


@pytest.mark.parametrize(
    ("code", "err", "kind"),
    [
        (0, "", "right"),
        (2, ONE_LINE, "refused"),
        (2, f"warning: mind this\n{ONE_LINE}", "refused"),
        (2, " Usage: mhrctl adapt [OPTIONS]\n\n No such option: --no\n", "unexpected"),
        (1, ONE_LINE, "unexpected"),
        (2, f"{ONE_LINE}and another line\n", "unexpected"),
        (2, 2 * ONE_LINE, "unexpected"),
        (2, "", "unexpected"),
        (-9, "", "unexpected"),
        (1, "Traceback (most recent call last):\n  ...\nKeyError: 1\n", "tracebacks"),
        (0, "Traceback (most recent call last):\n  ...\nKeyError: 1\n", "tracebacks"),
    ],
)
def test_ends_are_told_apart(code: int, err: str, kind: Kind) -> None:
    assert Ended(("adapt",), code, "", err).kind() == kind
    assert Ended(("adapt",), code, "", err, hung=True).kind() == "hangs"


def test_the_environments_faults_may_have_another_exit_code() -> None:
    assert Ended(("adapt",), 1, "", ONE_LINE).kind(codes=(1, 2)) == "refused"


def test_a_bad_case_fails_its_campaign_and_stands_in_the_table() -> None:
    campaign = Campaign("toys")
    campaign.count("a", "right", Ended(("adapt",), 0, "", ""))
    campaign.require_clean()
    campaign.count("b", "silent", Ended(("adapt",), 0, "", ""), "other bytes")
    with pytest.raises(AssertionError, match=r"toys: {'silent': 1} of 2\nsilent: b: mhrctl adapt: exit 0: other bytes"):
        campaign.require_clean()
    lines = [line.split() for line in table([{"name": "toys", **campaign.counts}])]
    assert lines[0] == ["campaign", "tried", "right", "refused", "unexpected", "tracebacks", "silent", "lost", "hangs"]
    assert lines[1] == ["toys", "2", "1", "0", "0", "0", "1", "0", "0"]
    with pytest.raises(AssertionError, match="nothing was tried"):
        Campaign("none").require_clean()


def test_a_quick_form_takes_cases_of_the_whole_list() -> None:
    assert sampled([*range(100)], "quick", 4) == [0, 25, 50, 75]
    assert sampled([*range(100)], "long", 4) == [*range(100)]


def test_a_bug_is_counted_as_a_traceback(workshop: Workshop) -> None:
    """A bug is injected: the command's own function raises what nobody meant."""
    ended = workshop.run(
        "report", "--table", "1", patches=(("mhrctl.config.resolve", "Settings.__init__", {"raises": "a bug"}),)
    )
    assert ended.code == 1
    assert ended.kind() == "tracebacks"
    assert "RuntimeError: a bug" in ended.err


def test_a_hang_is_counted_and_ended(workshop: Workshop) -> None:
    """A command that waits is injected."""
    ended = workshop.run("check", limit=0.5, patches=(("mhrctl.config.resolve", "Settings.__init__", {"sleeps": 600}),))
    assert ended.kind() == "hangs"
    assert ended.seconds < 300


def test_other_bytes_are_counted_as_silent(workshop: Workshop) -> None:
    """An exit 0 with other files is no success, whatever the command says."""
    reader = READERS["adapt lora"]
    weights = workshop.root / "data/pretrain/lora-s1/adapters.safetensors"
    damaged = "data/adapt/lora-s0/validation.csv"
    (workshop.root / damaged).write_text(weights.parent.joinpath("validation.csv").read_text())
    ended = Ended(reader.argv, 0, "", "")
    assert judge(workshop, ended, reader, damaged, answer="", absent=False)[0] == "silent"
    workshop.restore()
    assert judge(workshop, ended, reader, damaged, answer="", absent=False)[0] == "right"
    (workshop.root / "tasks/test/swap.jsonl").write_text("")
    assert judge(workshop, ended, reader, damaged, answer="", absent=False)[0] == "lost"
    workshop.restore()
    answer = READERS["query"]
    assert judge(workshop, Ended(answer.argv, 0, "b", ""), answer, "x", answer="a", absent=False)[0] == "silent"


def test_a_damage_that_is_not_looked_for_is_counted_as_silent(workshop: Workshop) -> None:
    """A silent acceptance is injected: the comparison with the card's hashes is taken away."""
    case = Flip("data/pretrain/lora-s0/adapters.safetensors", "adapt lora", _bit_of_a_number(workshop), absent=True)
    assert tried(workshop, case, "")[0] == "refused"
    patches = (("mhrctl.artifacts.reading", "verify", {"returns": None}),)
    assert tried(workshop, case, "", patches=patches)[0] == "silent"


def _bit_of_a_number(workshop: Workshop) -> int:
    """A bit in the middle of the mantissa of the last tensor's last number: a number like any other."""
    return 8 * (workshop.root / "data/pretrain/lora-s0/adapters.safetensors").stat().st_size - 8 * 2 + 3


def test_a_refusal_that_names_another_thing_is_unexpected(workshop: Workshop) -> None:
    reader = READERS["adapt lora"]
    ended = Ended(reader.argv, 2, "", "error: something else\n")
    assert judge(workshop, ended, reader, "data/backbone/config.json", answer="", absent=False)[0] == "unexpected"
    ended = Ended(reader.argv, 2, "", "error: data/backbone/config.json: rotten; run `mhrctl backbone`\n")
    assert judge(workshop, ended, reader, "data/backbone/config.json", answer="", absent=False)[0] == "refused"


def test_what_was_changed_is_put_back(workshop: Workshop) -> None:
    card = workshop.root / "data/adapt/lora-s0/card.json"
    before = json.loads(card.read_text())
    workshop.remove("data/adapt")
    (workshop.root / "data/adapt").write_text("a file in the place of a folder")
    (workshop.root / "data/new/deep").mkdir(parents=True)
    assert "data/adapt/lora-s0/card.json" in workshop.changed()
    workshop.restore()
    assert workshop.changed() == []
    assert json.loads(card.read_text()) == before
    assert not (workshop.root / "data/new").exists()
