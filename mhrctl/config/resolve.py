"""params.yaml becomes what a cell runs with, from recipes, methods, variants and overrides, in layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from mhrctl.config.cells import Cell, CellParams, grid_cells
from mhrctl.config.fields import Closed
from mhrctl.config.methods import METHODS
from mhrctl.config.params import PLAIN, MethodAxes, Params, PretrainParams, Variant
from mhrctl.config.recipes import RECIPES, Recipe, recipe
from mhrctl.errors import ParamsError, unknown

PARAMS_FILE = "params.yaml"
CELL_SECTIONS = ("pretrain", "adapt", "evaluate")

STRUCTURE = {"skills", "rank", "alpha", "dropout", "targets", "granularity", "routing_blocks"}
"""Settings of `pretrain` that make an adapter; training it on keeps what it has."""


class _Within(dict[str, Any]):
    """Values of a setting that is itself a mapping, which go into what it is and not in its place."""


Layer = tuple[str, Mapping[str, Any]]
"""Where settings come from, and the settings."""


@dataclass(frozen=True)
class Settings:
    """Settings are params.yaml as it was read, and what the command line put around it.

    Attributes:
        params: the file, with the recipe and `--set` folded in.
        written: {section: settings} that the file itself says.
        on_top: {section: settings} of `--set`.
        recipe: the recipe's name, if there is one.
        recipe_wins: whether the recipe goes over the file (`--recipe`) or under it (`recipe:` in the file).
    """

    params: Params
    written: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    on_top: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    recipe: str | None = None
    recipe_wins: bool = False

    def layers(self, cell: Cell, section: str) -> list[Layer]:
        """Return the layers of a cell's section, later ones over earlier ones."""
        grid = self.params.grid
        variant = cell.variant
        owner = cell.pretrain_cell if section == "pretrain" else cell
        row = METHODS[owner.method]
        axes = grid.methods.get(owner.method, MethodAxes())
        chosen = grid.variants.get(variant)
        if variant != PLAIN and chosen is None:
            raise ParamsError(f"--variant: {unknown('variant', variant, [PLAIN, *grid.variants])}")
        known = RECIPES[self.recipe] if self.recipe else Recipe("", {}, {})
        from_recipe: Layer = (f"recipe {self.recipe}", known.sections.get(section, {}))
        for_method: Layer = (f"recipe {self.recipe}, {owner.method}", known.methods.get(owner.method, {}).get(section, {}))
        written: Layer = (PARAMS_FILE, self.written.get(section, {}))
        at_method: Layer = (f"grid.methods.{owner.method}", getattr(axes, section, {}))
        of_row: Layer = (f"method {row.name}", row.settings.get(section, {}))
        if self.recipe_wins:
            general = [written, at_method, from_recipe, of_row, for_method]
        else:
            general = [from_recipe, written, of_row, for_method, at_method]
        overridden = cell.name if cell.extra_steps else owner.name
        layers = [
            *general,
            (f"grid.variants.{variant}", getattr(chosen, section, {}) if isinstance(chosen, Variant) else {}),
            (f"grid.overrides.{overridden}", grid.overrides.get(overridden, {}).get(section, {})),  # type: ignore[call-overload]
            (f"trial {cell.trial}", dict(cell.settings) if section == "adapt" else {}),
            ("--set", self.on_top.get(section, {})),
        ]
        if section == "pretrain" and cell.extra_steps:
            if vain := sorted(STRUCTURE & self.on_top.get(section, {}).keys()):
                raise ParamsError(f"--set pretrain.{vain[0]}: extra steps train the adapter that there is, as it is")
            layers.append(("extra steps", {"steps": cell.extra_steps, "uniform_steps": 0}))
        return [(source, settings) for source, settings in layers if settings]


def load_params(path: Path, sets: Sequence[str] = (), recipe_name: str | None = None) -> Settings:
    """Read params.yaml, with a recipe and `section.key=value` overrides.

    Args:
        path: the file.
        sets: overrides in the form of `--set`; values are read as YAML.
        recipe_name: of `--recipe`, which goes over the file.

    Raises:
        ParamsError: in one line with file, line, key and what is allowed.
    """
    tree = _read_yaml(path)
    written = {name: dict(section) for name, section in tree.items() if isinstance(section, dict)}
    name = recipe_name or tree.get("recipe")
    if recipe_name or (isinstance(name, str) and name in RECIPES):
        for section, settings in recipe(str(name)).sections.items():
            said = tree.get(section)
            if said is None or isinstance(said, dict):
                tree[section] = {**(said or {}), **settings} if recipe_name else {**settings, **(said or {})}
    on_top: dict[str, dict[str, Any]] = {}
    overridden = [_apply_set(tree, on_top, text) for text in sets]
    try:
        params = Params.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = _key(first)
        where = "--set" if key in overridden else f"{path}:{_line(path, first['loc'])}"
        raise ParamsError(f"{where}: {key}: {_message(first)}") from None
    _require_cells(path, params)
    return Settings(params, written, on_top, name, recipe_wins=recipe_name is not None)


def _require_cells(path: Path, params: Params) -> None:
    """Check that overrides are of cells that there are, and of sections that these have for themselves."""
    cells = grid_cells(params)
    names = {cell.name: {"adapt", "evaluate"} for cell in cells} | {
        cell.name: {"pretrain", "evaluate"} for cell in cells if cell.extra_steps
    }
    for cell in cells:
        names.setdefault(cell.pretrain_cell.name, set()).add("pretrain")
    for name, sections in params.grid.overrides.items():
        where = f"{path}:{_line(path, ('grid', 'overrides', name))}: grid.overrides"
        if name not in names:
            raise ParamsError(f"{where}: {unknown('cell', name, names)}")
        if wrong := [section for section in sections if section not in names[name]]:
            owner = next((cell.pretrain_cell.name for cell in cells if cell.name == name), name)
            raise ParamsError(f"{where}.{name}: its {wrong[0]} is that of another cell: set it at {owner}")


def resolve_cell(settings: Settings, cell: Cell) -> CellParams:
    """Fold the layers of a cell's sections.

    Raises:
        ParamsError: if a setting has no such key or a wrong value; names the cell and where the setting stands.
    """
    return CellParams(cell=cell, **{section: _folded(settings, cell, section) for section in CELL_SECTIONS})  # type: ignore[arg-type]


def sources(settings: Settings, cell: Cell, section: str) -> dict[str, str]:
    """Return {key: where its value comes from} of a cell's section; keys at their default are left out."""
    return {key: source for source, layer in settings.layers(cell, section) for key in layer}


def _folded(settings: Settings, cell: Cell, section: str) -> Closed:
    model = type(getattr(settings.params, section))
    merged: dict[str, Any] = {}
    for _, layer in settings.layers(cell, section):
        merged |= {key: _put_into(merged.get(key), value) for key, value in layer.items()}
    try:
        folded: Closed = model.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        source = sources(settings, cell, section).get(key, PARAMS_FILE)
        message = _message(first, model)
        raise ParamsError(f"{PARAMS_FILE}: cell {cell.name}, from {source}: {section}.{_key(first)}: {message}") from None
    if isinstance(folded, PretrainParams):
        _require_options(cell, folded.options)
    return folded


def _put_into(value: Any, layer: Any) -> Any:  # noqa: ANN401 - any setting
    """What a setting is with a layer over it: the layer itself, unless it only goes into the setting."""
    if not isinstance(layer, _Within):
        return layer
    before = value if isinstance(value, Mapping) else {}
    return {**before, **{key: _put_into(before.get(key), within) for key, within in layer.items()}}


def _require_options(cell: Cell, options: Mapping[str, Any]) -> None:
    """Check that the options of a pre-training are settings of its method."""
    row = cell.pretrain_cell.row
    try:
        row.options.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        message = _message(first, row.options) if row.options.model_fields else f"{row.name} has no settings of its own"
        raise ParamsError(f"{PARAMS_FILE}: cell {cell.name}: pretrain.options.{_key(first)}: {message}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run mhrctl in a project folder, or name one with --project") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ParamsError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    if not isinstance(tree, dict):
        raise ParamsError(f"{path}:1: expected the sections {', '.join(Params.model_fields)}")
    return tree


def _apply_set(tree: dict[str, Any], on_top: dict[str, dict[str, Any]], text: str) -> str:
    """Put an override into the tree, and into `on_top` if it is of a section that cells resolve."""
    key, sign, value = text.partition("=")
    *sections, last = key.strip().split(".")
    if not sign or not sections:
        raise ParamsError(f"--set {text}: expected section.key=value")
    node: Any = tree
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            raise ParamsError(f"--set {text}: {section} is not a section")
    try:
        node[last] = YAML(typ="safe", pure=True).load(value)
    except MarkedYAMLError as error:
        raise ParamsError(f"--set {text}: {value!r} is not valid YAML: {error.problem}") from None
    if sections[0] in CELL_SECTIONS:
        level = on_top.setdefault(sections[0], {})
        for section in sections[1:]:
            level = level.setdefault(section, _Within())
        level[last] = node[last]
    return key.strip()


def _key(error: ErrorDetails) -> str:
    return ".".join(str(part) for part in error["loc"])


def _line(path: Path, loc: Sequence[int | str]) -> int:
    """The line of the deepest key of `loc` that the file has, counted from 1."""
    node: Any = YAML(typ="rt").load(path)
    line = 1
    for part in loc:
        try:
            position = node.lc.item(part) if isinstance(part, int) else node.lc.key(part)
            node, line = node[part], position[0] + 1
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return line


def _message(error: ErrorDetails, root: type[BaseModel] = Params) -> str:
    """What pydantic says is wrong, with what is allowed."""
    if error["type"] == "extra_forbidden":
        parent: Any = root
        for part in error["loc"][:-1]:
            parent = parent.model_fields[part].annotation if part in getattr(parent, "model_fields", {}) else None
        known = list(getattr(parent, "model_fields", {}))
        return unknown("key", str(error["loc"][-1]), known) if known else "unknown key"
    if error["type"] == "missing":
        return "is missing"
    text = error["msg"].removeprefix("Value error, ")
    return text if error["type"] == "value_error" else f"{text} (got {error['input']!r})"
