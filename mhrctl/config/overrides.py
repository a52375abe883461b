"""`--set section.key=value` goes over params.yaml: here it is taken apart, and what would be set in vain is refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mhrctl.config.fields import Closed
from mhrctl.config.params import Params
from mhrctl.config.reading import MAX_DEPTH, Place, read_value, shown
from mhrctl.errors import ParamsError, listed, nearest


class Within(dict[str, Any]):
    """Values of a setting that is itself a mapping, which go into what it is and not in its place."""


@dataclass(frozen=True)
class Override:
    """An override is one `--set`.

    Attributes:
        place: the keys that lead to the setting, of which the first is the section.
        value: what it is set to.
    """

    place: Place
    value: Any

    @property
    def key(self) -> str:
        """The setting as it was named."""
        return ".".join(self.place)


def read_overrides(texts: Sequence[str]) -> list[Override]:
    """Take `--set` options apart.

    Raises:
        ParamsError: if one is not of the form, its value is no YAML, or a later one leaves nothing of it.
    """
    overrides: list[Override] = []
    for text in texts:
        key, _, value = text.partition("=")
        place = _place(text)
        try:
            override = Override(place, read_value(value))
        except ParamsError as error:
            raise ParamsError(f"--set {shown(key)[1:-1]}: {error}") from None
        if lost := [each.key for each in overrides if each.place[: len(place)] == place]:
            said = "is given twice" if lost[0] == override.key else f"leaves nothing of --set {shown(lost[0])[1:-1]}"
            raise ParamsError(f"--set {shown(override.key)[1:-1]}: {said}; give a setting once")
        overrides.append(override)
    return overrides


def _place(text: str, sections: Collection[str] = tuple(Params.model_fields)) -> Place:
    """Return the keys that lead to the setting of a `--set`.

    Raises:
        ParamsError: if it is not of the form; names the settings that may be meant, of these sections.
    """
    key, sign, _ = text.partition("=")
    place = tuple(part.strip() for part in key.split("."))
    if sign and 2 <= len(place) <= MAX_DEPTH and all(place):
        return place
    meant = [f"`{each}`" for each in _settings_called(place[-1], sections)] if len(place) == 1 else []
    hint = f"; did you mean {' or '.join(meant)}?" if meant else ""
    raise ParamsError(f"--set {shown(text)[1:-1]}: expected SECTION.KEY=VALUE{hint}")


def _settings_called(key: str, sections: Collection[str]) -> list[str]:
    """The settings of sections that have this name, or else the nearest to it."""
    keys: dict[str, list[str]] = {}
    for section in (each for each in Params.model_fields if each in sections):
        model = Params.model_fields[section].annotation
        if isinstance(model, type) and issubclass(model, Closed):
            for name in model.model_fields:
                keys.setdefault(name, []).append(f"{section}.{name}")
    return keys.get(nearest(key, keys, likeness=0.75) or "", [])


def require_sections(texts: Sequence[str], reads: Sequence[str]) -> None:
    """Hold `--set` to the sections that a command reads, or single settings of them, so that nothing is set in vain.

    Raises:
        ParamsError: names the first that it does not read.
    """
    for text in texts:
        key = ".".join(_place(text, {each.partition(".")[0] for each in reads}))
        if not any(key == each or key.startswith(f"{each}.") for each in reads):
            named = [each for each in reads if each != "grid"] or reads  # the grid says of which cell a section is
            kind = "setting" if "." in named[0] else "section"
            read = f"the {kind} `{named[0]}`" if len(named) == 1 else f"the {kind}s {listed(named)}"
            raise ParamsError(f"--set {shown(text)[1:-1]}: this command reads {read} only; set it where it is read")


def put_into(tree: dict[str, Any], override: Override) -> None:
    """Put an override into the tree of params.yaml.

    Raises:
        ParamsError: if what it goes into is no mapping.
    """
    node: Any = tree
    for part in override.place[:-1]:
        if node.get(part) is None:  # as where a method is named and nothing is said of it
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise ParamsError(f"--set {shown(override.key)[1:-1]}: {shown(part)[1:-1]} is not a section")
    node[override.place[-1]] = override.value


def layer_of(overrides: Sequence[Override], sections: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return {section: settings} of overrides, for the sections that each cell resolves for itself."""
    layers: dict[str, dict[str, Any]] = {}
    for override in overrides:
        section, *within, last = override.place
        if section in sections:
            level = layers.setdefault(section, {})
            for part in within:
                level = level.setdefault(part, Within())
            level[last] = override.value
    return layers


def over(value: Any, layer: Any) -> Any:  # noqa: ANN401 - any setting
    """Return what a setting is with a layer over it: the layer itself, unless it only goes into the setting."""
    if not isinstance(layer, Within):
        return layer
    before = value if isinstance(value, Mapping) else {}
    return {**before, **{key: over(before.get(key), within) for key, within in layer.items()}}
