"""What says which version this is agrees, and a wheel has what it must."""

import re
from importlib.resources import files
from pathlib import Path

from ruamel.yaml import YAML

from mhrctl import __version__
from mhrctl.artifacts.versions import STAGE_VERSIONS

ROOT = Path(__file__).parents[2]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_changelog_begins_with_what_is_unreleased_and_then_this_version() -> None:
    assert re.findall(r"^## \[(.+?)\]", CHANGELOG, flags=re.MULTILINE)[:2] == ["Unreleased", __version__]


def test_the_changelog_knows_every_raised_stage() -> None:
    stages = "".join(re.findall(r"^### Stages\n(.*?)(?=^##|\Z)", CHANGELOG, flags=re.MULTILINE | re.DOTALL))
    for stage, version in STAGE_VERSIONS.items():
        sentences = [sentence for sentence in re.split(r"\.\s|\.$", stages) if f"`{stage}`" in sentence]
        assert any(re.search(rf"\bat {version}\b", sentence) for sentence in sentences), f"{stage} is at {version}"


def test_the_citation_is_of_this_version() -> None:
    citation = YAML(typ="safe").load(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    assert {"arXiv:2211.03831"} == {name["value"] for paper in citation["references"] for name in paper.get("identifiers", [])}


def test_the_package_is_typed() -> None:
    assert (files("mhrctl") / "py.typed").is_file()
