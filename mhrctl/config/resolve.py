"""params.yaml becomes what a cell runs with, from recipes, methods, variants and overrides, in layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mhrctl.config.cells import Cell, CellParams, grid_cells
from mhrctl.config.complaints import complaint, name
from mhrctl.config.fields import Closed
from mhrctl.config.grid import PLAIN, MethodAxes, Variant
from mhrctl.config.grid import Override as CellOverride
from mhrctl.config.methods import METHODS, Method, reads
from mhrctl.config.options import NoOptions
from mhrctl.config.overrides import Override, layer_of, over, put_into, read_overrides
from mhrctl.config.params import Params
from mhrctl.config.reading import Document, Place, read_yaml
from mhrctl.config.recipes import RECIPES, Recipe, recipe
from mhrctl.config.sections import AdaptParams, PretrainParams
from mhrctl.errors import ParamsError, unknown

PARAMS_FILE = "params.yaml"
CELL_SECTIONS = ("pretrain", "adapt", "evaluate")

STRUCTURE = {"skills", "rank", "alpha", "dropout", "targets", "granularity", "routing_blocks", "under", "pool", "pool_by"}
"""Settings of `pretrain` that make an adapter; training it on keeps what it has."""


Layer = tuple[str, Mapping[str, Any]]
"""Where settings come from, and the settings."""


@dataclass(frozen=True)
class Settings:
    """Settings are params.yaml as it was read, and what the command line put around it.

    Attributes:
        params: the file, with the recipe and `--set` folded in.
        document: the file as it stands.
        written: {section: settings} that the file itself says.
        on_top: {section: settings} of `--set`.
        recipe: the recipe's name, if there is one.
        recipe_wins: whether the recipe goes over the file (`--recipe`) or under it (`recipe:` in the file).
    """

    params: Params
    document: Document = field(default_factory=lambda: Document(Path(PARAMS_FILE), {}))
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
            (f"grid.overrides.{overridden}", getattr(grid.overrides.get(overridden, CellOverride()), section)),
            (f"trial {cell.trial}", dict(cell.settings) if section == "adapt" else {}),
            ("--set", self.on_top.get(section, {})),
        ]
        if section == "pretrain" and cell.extra_steps:
            if vain := sorted(STRUCTURE & self.on_top.get(section, {}).keys()):
                raise ParamsError(f"--set pretrain.{vain[0]}: extra steps train the adapter that there is, as it is")
            if vain := sorted({"steps", "uniform_steps"} & self.on_top.get(section, {}).keys()):
                raise ParamsError(f"--set pretrain.{vain[0]}: --extra-steps says how many steps there are; leave it out")
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
    document = read_params(path)
    written = {key: section for key, section in _copy(document.tree).items() if isinstance(section, dict)}
    base = _with_recipe(_copy(document.tree), recipe_name)
    overrides, tree = read_overrides(sets), _copy(base)
    for override in overrides:
        put_into(tree, override)
    try:
        params = Params.model_validate(tree)
    except ValidationError as error:
        if overrides and _is_valid(base):
            raise ParamsError(_of_set(error, overrides)) from None
        place, message = complaint(error, Params)
        raise ParamsError(f"{document.at(place)}: {name(place)}: {message}") from None
    _require_cells(document, params)
    on_top = layer_of(overrides, CELL_SECTIONS)
    chosen = recipe_name or params.recipe
    return Settings(params, document, written, on_top, chosen, recipe_wins=recipe_name is not None)


def read_params(path: Path) -> Document:
    """Read params.yaml as it stands.

    Raises:
        ParamsError: in one line, if it cannot be read or has no sections.
    """
    if not path.exists() and not path.is_symlink():
        raise ParamsError(
            f"{path}: no such file; `mhrctl init` makes a project in {path.parent.resolve()}, `-C FOLDER` names another"
        )
    document = read_yaml(path)
    if not isinstance(document.tree, dict):
        raise ParamsError(f"{path}:1: expected the sections {', '.join(Params.model_fields)}")
    return document


def _copy(value: Any) -> Any:  # noqa: ANN401 - a tree of YAML
    """A tree of its own, in which nothing stands twice as it does where aliases were written."""
    if isinstance(value, dict):
        return {key: _copy(each) for key, each in value.items()}
    return [_copy(each) for each in value] if isinstance(value, list) else value


def _with_recipe(tree: dict[str, Any], recipe_name: str | None) -> dict[str, Any]:
    """The file's tree with the settings of a recipe, over it (of `--recipe`) or under it (of the file)."""
    chosen = recipe_name or tree.get("recipe")
    if recipe_name or (isinstance(chosen, str) and chosen in RECIPES):
        for section, settings in recipe(str(chosen)).sections.items():
            said = tree.get(section)
            if said is None or isinstance(said, dict):
                tree[section] = {**(said or {}), **settings} if recipe_name else {**settings, **(said or {})}
    return tree


def _is_valid(tree: Mapping[str, Any]) -> bool:
    try:
        Params.model_validate(tree)
    except ValidationError:
        return False
    return True


def _of_set(error: ValidationError, overrides: Sequence[Override]) -> str:
    """Say what is wrong with `--set`, where the file by itself is right."""
    place, message = complaint(error, Params)
    near = [each for each in overrides if each.place == place[: len(each.place)]]
    near += [each for each in overrides if each.place[:1] == place[:1]]
    override = (near or list(overrides))[0]
    about = "" if override.place == place else f"{name(place)}: "
    return f"--set {name(override.place)}: {about}{message}"


def _require_cells(document: Document, params: Params) -> None:
    """Check that overrides are of cells that there are, and of sections that these have for themselves."""
    if not params.grid.overrides:
        return
    cells = grid_cells(params)
    sections = {cell.name: {"adapt", "evaluate"} for cell in cells} | {
        cell.name: {"pretrain", "evaluate"} for cell in cells if cell.extra_steps
    }
    for cell in cells:
        sections.setdefault(cell.pretrain_cell.name, set()).add("pretrain")
    rows = {each.name: each.row for cell in cells for each in (cell.pretrain_cell, cell)}
    for cell_name, override in params.grid.overrides.items():
        place: Place = ("grid", "overrides", cell_name)
        if cell_name not in sections:
            raise ParamsError(f"{document.at(place)}: grid.overrides: {unknown('cell', name([cell_name]), sections)}")
        for section in override.model_fields_set:
            where = f"{document.at((*place, section))}: grid.overrides.{cell_name}"
            if section not in sections[cell_name]:
                owner = next((cell.pretrain_cell.name for cell in cells if cell.name == cell_name), cell_name)
                raise ParamsError(f"{where}: its {section} is that of another cell: set it at {owner}")
            for key in getattr(override, section):
                if not reads(rows[cell_name], section, key):
                    raise ParamsError(f"{where}: {rows[cell_name].name} does not read {section}.{key}; leave it out")


def resolve_cell(settings: Settings, cell: Cell) -> CellParams:
    """Fold the layers of a cell's sections.

    Raises:
        ParamsError: if a setting has no such key or a wrong value; names the cell and where the setting stands.
    """
    resolved = CellParams(cell=cell, **{section: _folded(settings, cell, section) for section in CELL_SECTIONS})
    try:
        resolved.others()
    except ParamsError as error:
        section, _, key = str(error).partition(" ")[0].partition(".")
        raise ParamsError(f"{setting_at(settings, cell, section, key)}: cell {cell.name}: {error}") from None
    return resolved


def require_read(settings: Settings, cell: Cell) -> None:
    """Check that a cell reads what `--set` says of its sections.

    Raises:
        ParamsError: names the first setting that its method does not read.
    """
    for section, layer in settings.on_top.items():
        row = METHODS[cell.pretrain_cell.method if section == "pretrain" else cell.method]
        for key in layer:
            if not reads(row, section, key):
                raise ParamsError(f"--set {section}.{key}: {row.name} does not read it; leave it out")


def sources(settings: Settings, cell: Cell, section: str) -> dict[str, str]:
    """Return {key: where its value comes from} of a cell's section; keys at their default are left out."""
    return {key: source for source, layer in settings.layers(cell, section) for key in layer}


def _folded(settings: Settings, cell: Cell, section: str) -> Closed:
    model = type(getattr(settings.params, section))
    merged: dict[str, Any] = {}
    for _, layer in settings.layers(cell, section):
        merged |= {key: over(merged.get(key), value) for key, value in layer.items()}
    try:
        folded: Closed = model.model_validate(merged)
    except ValidationError as error:
        place, message = complaint(error, model)
        source = sources(settings, cell, section).get(str(place[0]) if place else "", PARAMS_FILE)
        where = _at(settings, cell, source, (section, *place))
        raise ParamsError(f"{where}: cell {cell.name}, from {source}: {name((section, *place))}: {message}") from None
    if isinstance(folded, PretrainParams):
        row = cell.pretrain_cell.row
        _require_options(settings, cell, section, folded.options, row, row.options)
    if isinstance(folded, AdaptParams):
        _require_options(settings, cell, section, folded.options, cell.row, cell.row.adapt_options)
        if cell.row.makes_soup and folded.leave_out == "examples":
            where = setting_at(settings, cell, section, "leave_out")
            raise ParamsError(
                f"{where}: cell {cell.name}: adapt.leave_out examples: {cell.method} chooses by the examples of the test task;"
                " set adapter, or leave it out for this method"
            )
    return folded


def setting_at(settings: Settings, cell: Cell, section: str, key: str) -> str:
    """Return the file and line of the setting that a cell has."""
    source = sources(settings, cell, section).get(key, PARAMS_FILE)
    return _at(settings, cell, source, (section, key))


def _at(settings: Settings, cell: Cell, source: str, place: Place) -> str:
    """The file and line of a setting that a cell has from `source`; the file alone where it stands elsewhere."""
    document = settings.document
    if source == PARAMS_FILE:
        return document.at(place)
    if source.startswith("grid."):
        return document.at((*source.split("."), *place))
    if source.startswith("trial "):
        return document.at(("grid", "methods", cell.method, "search", *place[1:]))
    return str(document.path)


def _require_options(
    settings: Settings, cell: Cell, section: str, options: Mapping[str, Any], row: Method, known: type[NoOptions]
) -> None:
    """Check that the options of a section are settings of the method."""
    try:
        known.model_validate(options)
    except ValidationError as error:
        place, message = complaint(error, known, at=(section, "options"))
        if not known.model_fields:
            message = f"{row.name} has no settings of its own"
        where = _at(settings, cell, sources(settings, cell, section).get("options", PARAMS_FILE), place)
        raise ParamsError(f"{where}: cell {cell.name}: {name(place)}: {message}") from None
