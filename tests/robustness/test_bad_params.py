"""Wrong settings: each is refused in one line that names the setting, and in params.yaml its line; none is taken in silence."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from mhrctl.config.params import Params
from tests.robustness.conftest import PARAMS, Counting
from tests.robustness.outcomes import Campaign, Ended, Kind, sampled
from tests.robustness.workshop import Workshop

FORMS = pytest.mark.parametrize("form", ["quick", pytest.param("long", marks=pytest.mark.slow)])
Keys = tuple[str, ...]
QUICK = 20.0
"""Seconds after which reading params.yaml hangs."""
NAN, INF = float("nan"), float("inf")
WRONG: dict[str, tuple[Any, ...]] = {
    "integer": (-1, 1.5, "x", [], {"a": 1}, NAN, True, 10**23),
    "number": (-1.5, "x", [], {"a": 1}, NAN, INF, -INF, True),
    "boolean": (7, "maybe", [], {"a": 1}, "\ud83d".encode("utf-16", "surrogatepass").decode("utf-16", "replace")),
    "string": (7, [], {"a": 1}, True, 1.5),
    "enum": ("nope", 7, ["nope"], {"a": 1}, ""),
    "array": (7, "x", {"a": 1}, True),
    "object": (7, "x", [1], True),
}
"""{type of a setting: values that it cannot have}"""
ALLOWED = {("adapt", "soup_min_cosine")}
"""Numbers that may be negative."""
MANY_TYPES = {"pretrain.targets", "prepare.config", "prepare.test.config"}


def leaves(schema: dict[str, Any], whole: dict[str, Any], keys: Keys = ()) -> Iterator[tuple[Keys, str]]:
    """Yield (keys, type) of each setting of a JSON schema."""
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
    if "anyOf" in schema:
        for option in schema["anyOf"]:
            if option.get("type") != "null":
                yield from leaves(option, whole, keys)
        return
    if "enum" in schema or "const" in schema:
        yield keys, "enum"
    elif "properties" in schema:
        if keys:
            yield keys, "object"
        for name, inner in schema["properties"].items():
            yield from leaves(inner, whole, (*keys, name))
    elif "type" in schema:
        yield keys, schema["type"]


def wrong_values() -> list[tuple[Keys, Any]]:
    """Return (keys, value) for all settings and the values that they cannot have."""
    schema = Params.model_json_schema()
    settings_of = dict(leaves(schema, schema))
    return [
        (keys, value)
        for keys, kind in settings_of.items()
        if ".".join(keys) not in MANY_TYPES
        for value in WRONG[kind]
        if not (keys in ALLOWED and value == -1.5) and keys[0] != "run"
    ]


def with_value(keys: Keys, value: object) -> str:
    """Return params.yaml with a setting put in."""
    yaml = YAML(typ="safe", pure=True)
    tree: Any = yaml.load(PARAMS)
    inner = tree
    for key in keys[:-1]:
        if not isinstance(inner.get(key), dict):
            inner[key] = {}
        inner = inner[key]
    inner[keys[-1]] = copy.deepcopy(value)
    stream = io.StringIO()
    yaml.default_flow_style = False
    yaml.dump(tree, stream)
    return stream.getvalue()


def as_yaml(value: object) -> str:
    """Return a value in the flow style of YAML, in one line."""
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.width = 10**6
    yaml.dump([value], stream)
    return stream.getvalue().strip()[1:-1]


def judged(ended: Ended, *names: str, codes: tuple[int, ...] = (2,)) -> tuple[Kind, str]:
    """Say how a wrong setting ended: right is a refusal that names it."""
    kind = ended.kind(codes)
    if kind == "right" or (kind == "refused" and ended.errors and not ended.complaints):
        return "silent", "taken"
    if kind == "refused" and not all(ended.says(name) for name in names):
        return "unexpected", f"names no {names}: {ended.errors or ended.err[-200:]}"
    return kind, ""


@FORMS
def test_wrong_values_are_refused_with_their_line(workshop: Workshop, counting: Counting, form: str) -> None:
    campaign = counting(f"bad params: params.yaml ({form})")
    for keys, value in sampled(wrong_values(), form, 12):
        (workshop.root / "params.yaml").write_text(with_value(keys, value))
        ended = workshop.run("check", limit=QUICK)
        campaign.count(f"{'.'.join(keys)}: {value!r}", *_sorted(judged(ended, keys[-1], "params.yaml:"), ended))
    campaign.require_clean()


@FORMS
def test_wrong_values_are_refused_by_set(workshop: Workshop, counting: Counting, form: str) -> None:
    campaign = counting(f"bad params: --set ({form})")
    for keys, value in sampled([case for case in wrong_values() if len(case[0]) > 1], form, 8):
        text = f"{'.'.join(keys)}={as_yaml(value)}"
        ended = workshop.run("check", "--set", text)
        campaign.count(f"--set {text}", *_sorted(judged(ended, keys[-1]), ended))
    campaign.require_clean()


def _sorted(judgement: tuple[Kind, str], ended: Ended) -> tuple[Kind, Ended, str]:
    return judgement[0], ended, judgement[1]


FILES: dict[str, bytes] = {
    "empty": b"",
    "of spaces": b"  \n\n",
    "a list": b"[1, 2]\n",
    "a text": b"hello\n",
    "unclosed": b"prepare: {source: jsonl\n",
    "tabs": b"prepare:\n\tsource: jsonl\n",
    "Latin-1": PARAMS.encode() + b"# caf\xe9\n",
    "NUL": PARAMS.encode() + b"# \x00\n",
    "binary": bytes(range(256)),
    "doubled key": PARAMS.encode() + b"recipe: null\n",
    "doubled inner key": PARAMS.encode().replace(b"{max_new_tokens: 4}", b"{max_new_tokens: 4, max_new_tokens: 5}"),
    "two documents": PARAMS.encode() + b"---\nrecipe: null\n",
    "a tag": PARAMS.encode().replace(b"recipe: null", b"recipe: !!python/object/apply:os.system ['true']"),
    "an unknown alias": PARAMS.encode().replace(b"recipe: null", b"recipe: *there"),
    "itself": PARAMS.encode().replace(b"grid:", b"grid: &grid").replace(b"    lora:\n", b"    lora: *grid\n"),
    "aliases that multiply": b"a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + b"".join(b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 12))
    + PARAMS.encode(),
    "aliases that merge": b"a0: &a0 {k0: 1}\n"
    + b"".join(b"a%d: &a%d {<<: [%s], k%d: 1}\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9), i) for i in range(1, 9))
    + PARAMS.encode(),
    "deep": PARAMS.encode().replace(b"recipe: null", b"recipe: " + b"[" * 5000 + b"]" * 5000),
    "a number of 5000 digits": PARAMS.encode().replace(b"skills: 2", b"skills: " + b"9" * 5000),
    "a recipe that is unknown": PARAMS.encode().replace(b"recipe: null", b"recipe: t5"),
    "an unknown section": PARAMS.encode() + b"prepair: {}\n",
    "no grid": PARAMS.encode().split(b"grid:")[0],
    "no methods": PARAMS.encode().split(b"  methods:")[0],
    "a number as key": PARAMS.encode() + b"1: 2\n",
    "an unhashable key": PARAMS.encode() + b"? [a, b]\n: 1\n",
}
"""Files in the place of params.yaml."""


@FORMS
def test_files_that_are_no_params_are_refused(workshop: Workshop, counting: Counting, form: str) -> None:
    campaign = counting(f"bad params: files ({form})")
    commands = (("check",), ("grid", "sync", "--check"), ("pretrain", "-m", "lora"))
    for number, (name, argv) in enumerate((name, argv) for name in FILES for argv in commands):
        if form == "quick" and number % 7:  # so that each command has files of all sorts
            continue
        (workshop.root / "params.yaml").write_bytes(FILES[name])
        ended = workshop.run(*argv, limit=QUICK)
        campaign.count(name, *_sorted(judged(ended, "params.yaml"), ended))
    campaign.require_clean()


PATHS: dict[str, str] = {
    "a lone surrogate": '"\\ud83d"',
    "a NUL": '"ta\\0sks"',
    "10,000 letters": "a" * 10_000,
    "300 letters": "a" * 300,
    "no such folder": "nowhere",
    "a file": "params.yaml",
    "a device": "/dev/null",
    "empty": '""',
    "blanks": '"  "',
    "a line break": '"ta\\nsks"',
}


@pytest.mark.parametrize("name", PATHS)
def test_paths_that_lead_nowhere_are_refused_where_they_are_read(workshop: Workshop, counting: Counting, name: str) -> None:
    campaign = counting("bad params: paths")
    (workshop.root / "params.yaml").write_text(PARAMS.replace("path: tasks", f"path: {PATHS[name]}"))
    for argv in (("check",), ("prepare",)):
        ended = workshop.run(*argv, limit=QUICK)
        kind, why = judged(ended, codes=(1, 2))  # some names the system cannot have, which is the environment's fault
        if kind == "refused" and not any(ended.says(place) for place in ("prepare", "tasks", "params.yaml:", PATHS[name])):
            kind, why = "unexpected", f"names no setting: {ended.errors}"
        campaign.count(name, *_sorted((kind, why), ended))
    campaign.require_clean()


@pytest.mark.parametrize("shape", ["missing", "a folder", "a link to nothing", "a link to itself"])
def test_params_that_cannot_be_opened_are_refused(workshop: Workshop, counting: Counting, shape: str) -> None:
    campaign = counting("bad params: files")
    path = workshop.root / "params.yaml"
    path.unlink()
    if shape == "a folder":
        path.mkdir()
    elif shape != "missing":
        path.symlink_to("nowhere" if shape == "a link to nothing" else "params.yaml")
    for argv in (("check",), ("grid", "sync"), ("prepare",)):
        ended = workshop.run(*argv)
        campaign.count(shape, *_sorted(judged(ended, "params.yaml"), ended))
    campaign.require_clean()


MEANINGLESS: list[tuple[Keys, Any, str]] = [
    (("grid", "seeds"), [0, 0], "seeds"),
    (("grid", "seeds"), [], "seeds"),
    (("grid", "seeds"), [2**31], "seeds"),
    (("grid", "methods", "lora"), {"heads": [4]}, "heads"),
    (("grid", "methods", "lora"), {"adapt": {"lr": -1}}, "lr"),
    (("grid", "methods", "lora"), {"adapt": {"nope": 1}}, "nope"),
    (("grid", "methods", "lora"), {"pretrain": {"lr": "fast"}}, "lr"),
    (("grid", "methods", "lora"), {"variants": ["nope"]}, "nope"),
    (("grid", "methods", "lora"), {"variants": ["plain", "plain"]}, "plain"),
    (("grid", "methods", "lora"), {"extra_steps": [0]}, "extra_steps"),
    (("grid", "methods", "lora"), {"search": {"lr": []}}, "search"),
    (("grid", "methods", "lora"), {"search": {"lr": [-1.0]}}, "lr"),
    (("grid", "methods", "lora"), {"search": {"nope": [1]}}, "nope"),
    (("grid", "methods", "mhr"), None, "heads"),
    (("grid", "methods", "mhr"), {"heads": [3]}, "heads"),
    (("grid", "methods", "mhr"), {"heads": [4, 4]}, "heads"),
    (("grid", "methods", "mhr"), {"heads": {}}, "heads"),
    (("grid", "methods", "mhr"), {"heads": {"plain": []}}, "heads"),
    (("grid", "methods", "mhr"), {"heads": {"plain": 4}}, "plain"),
    (("grid", "methods", "mhr"), {"heads": {"plain": [4], "nope": [4]}}, "nope"),
    (("grid", "methods", "lora"), {"extra_steps": {"plain": [0]}}, "extra_steps"),
    (("grid", "methods", "lora"), {"extra_steps": {"nope": [3]}}, "nope"),
    (("grid", "methods", "mhr_mu"), {"heads": [4], "pretrain": {"lr": 0.1}}, "pretrain"),
    (("grid", "methods", "nope"), None, "nope"),
    (("grid", "variants"), {"../out": {"pretrain": {"rank": 2}}}, "variants"),
    (("grid", "variants"), {"light": {"pretrain": {"nope": 2}}}, "nope"),
    (("grid", "variants"), {"light": {"pretrain": {"rank": -2}}}, "rank"),
    (("grid", "variants"), {"light": {"pretrain": {}}}, "light"),
    (("grid", "variants"), {"plain": {"pretrain": {"rank": 2}}}, "plain"),
    (("grid", "overrides"), {"nope-s0": {"adapt": {"lr": 0.1}}}, "nope-s0"),
    (("grid", "overrides"), {"lora-s0": {"adapt": {"lr": "x"}}}, "lr"),
    (("grid", "overrides"), {"lora-s0": {"adapt": {"nope": 1}}}, "nope"),
    (("grid", "overrides"), {"lora-s0": {"prepare": {"seed": 1}}}, "lora-s0"),
    (("pretrain", "targets"), "nope_at_all", "targets"),
    (("pretrain", "targets"), "(a+)+b", "targets"),
    (("pretrain", "targets"), "(", "targets"),
    (("pretrain", "targets"), [], "targets"),
    (("pretrain", "targets"), ["q", "nope"], "targets"),
    (("pretrain", "rank"), 10**6, "rank"),
    (("pretrain", "skills"), 10**9, "skills"),
    (("pretrain", "uniform_steps"), 5, "uniform_steps"),
    (("pretrain", "options"), {"copies": 3}, "options"),
    (("pretrain", "lr"), 10**39, "lr"),
    (("adapt", "epoch_steps"), {"no_such_task": 3}, "no_such_task"),
    (("adapt", "beams"), 100_000, "beams"),
    (("adapt", "max_new_tokens"), 10**12, "max_new_tokens"),
    (("adapt", "shots"), 10**6, "shots"),
    (("adapt", "validation"), 10**6, "validation"),
    (("evaluate", "beams"), 100_000, "beams"),
    (("evaluate", "max_new_tokens"), 10**12, "max_new_tokens"),
    (("prepare", "vocab_size"), 10**23, "vocab_size"),
    (("prepare", "source"), "nope", "source"),
    (("prepare", "hub"), "a/b", "hub"),
    (("prepare", "max_rows"), 3, "max_rows"),
    (("prepare", "test_tasks"), ["nope"], "nope"),
    (("prepare", "tokenizer"), "no/such/folder", "tokenizer"),
    (("backbone", "source"), "local", "name"),
    (("backbone", "scratch", "layers"), 10**9, "layers"),
    (("backbone", "scratch", "d_model"), 10**9, "d_model"),
    (("backbone", "scratch", "nope"), 1, "nope"),
    (("report", "tables"), [99], "tables"),
    (("index", "examples"), 0, "examples"),
    (("run", "slots"), {"adapt": 0}, "slots"),
    (("run", "slots"), {"adapt": NAN}, "slots"),
    (("run", "slots"), {"nope": 1}, "slots"),
]
"""Settings that are of the right type and mean nothing, or too much: (keys, value, what the refusal names)."""


@FORMS
def test_settings_that_mean_nothing_are_refused_by_check(workshop: Workshop, counting: Counting, form: str) -> None:
    campaign = counting(f"bad params: no meaning ({form})")
    for keys, value, name in sampled(MEANINGLESS, form, 12):
        (workshop.root / "params.yaml").write_text(with_value(keys, value))
        ended = workshop.run("check", limit=QUICK)
        campaign.count(f"{'.'.join(keys)}: {value!r}", *_sorted(judged(ended, name), ended))
    campaign.require_clean()


def hold(campaign: Campaign, workshop: Workshop, content: bytes) -> None:
    """Check that whatever stands in params.yaml, the command ends well."""
    Path(workshop.root / "params.yaml").write_bytes(content)
    ended = workshop.run("check")
    campaign.count(repr(content[:100]), ended.kind(), ended)
    assert ended.kind() in {"right", "refused"}, ended.err[-500:]


@pytest.mark.parametrize("examples", [5, pytest.param(300, marks=pytest.mark.slow)])
def test_params_of_any_bytes_end_in_one_line(workshop: Workshop, counting: Counting, examples: int) -> None:
    """A piece of params.yaml is replaced by whatever hypothesis thinks of."""
    campaign = counting(f"bad params: any bytes ({examples})")
    whole = PARAMS.encode()
    pieces = st.one_of(st.binary(max_size=20), st.text(alphabet="{}[]:-*&!|>'\"%@`,? \n\t0.eE+_~", max_size=12).map(str.encode))

    @settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=[*HealthCheck])
    @given(st.integers(0, len(whole)), st.integers(0, 12), pieces)
    def any_bytes(start: int, length: int, piece: bytes) -> None:
        hold(campaign, workshop, whole[:start] + piece + whole[start + length :])

    any_bytes()
