"""`init` makes a ready project for a suite, under DVC: params.yaml, dvc.yaml, the expanded grid, a README."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import as_file
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from mhrctl.artifacts.names import Project
from mhrctl.artifacts.writing import replacing
from mhrctl.config.cells import local_loras
from mhrctl.config.resolve import load_params
from mhrctl.config.sections import BackboneParams
from mhrctl.config.sources import HUB_ID, SOURCES
from mhrctl.config.tasks import FramingName
from mhrctl.data.loading import json_object
from mhrctl.errors import DataError, ParamsError, unknown
from mhrctl.evaluation.metrics import OVER_CHOICES
from mhrctl.projects.templates import dvc_yaml, params_yaml, rendered, task_files, template_files
from mhrctl.running.internals import silent_dvc
from mhrctl.suites.files import data_files
from mhrctl.suites.jsonl import ENDING, ROLES, NoRoleError, read_jsonl
from mhrctl.suites.reading import READABLE
from mhrctl.suites.task import Role
from mhrctl.tools.estimate import config_folder, framing_in, framing_needed
from mhrctl.tools.grid import sync

Setup = Literal["git", "subdir", "no_scm", "already"]
"""How a folder comes under DVC: as the root of a git repository, below one, or without git; or it is already."""

DVC = Path(".dvc")
EXTENDED = (Path(".gitignore"), Path(".gitattributes"))
"""Files to which lines are added where the user has one, as DVC itself does."""
PROJECT_FILES = ("params.yaml", "dvc.yaml")
"""Files by which a folder is known to have a project."""
TESTS_BY_NAME = ("jsonl", "hub")
"""Sources whose test tasks are named by `prepare.test_tasks`, where nothing else says which they are."""
POOL = "pool"
"""The template of a project of LoRAs that others trained."""
KEPT = (Path("README.md"), Path(".dvc/plots/curves.json"))
"""Files that are left out where the user has one."""


@dataclass(frozen=True)
class Made:
    """This is what `initialise` did.

    Attributes:
        setup: how the folder came under DVC.
        files: what it wrote, relative to the folder.
        extended: the user's files that got further lines.
        kept: the user's files that stand as they were.
        commands: what to run next, in the folder.
        seen: what was seen of the user's tasks, in words; empty if nobody looked.
    """

    setup: Setup
    files: Sequence[Path]
    extended: Sequence[Path]
    kept: Sequence[Path]
    commands: Sequence[str]
    seen: str = ""


def initialise(
    folder: Path,
    suite: str,
    *,
    tasks: Path | None = None,
    tests: Sequence[str] = (),
    backbone: str | None = None,
    pool: Sequence[str] = (),
    without_git: bool = False,
) -> Made:
    """Make a project: all of it, or nothing if anything fails.

    Args:
        folder: of the project, made if it is missing. Nothing in it is overwritten.
        suite: the source of the tasks, a row of `SOURCES`.
        tasks: the tasks, in place of the suite's own folder inside the project.
        tests: which of them are test tasks, where they do not say so.
        backbone: a hub id or a folder, in place of the suite's own.
        pool: LoRAs that others trained (`pretrain.loras`), as seen from here: then the project is of these, and needs no
            training tasks.
        without_git: set DVC up without git, even inside a git repository.

    Raises:
        ParamsError: if there is no such suite, or it reads no tasks from a folder, or a pool lacks tasks or a backbone.
        DataError: if `tasks`, a LoRA or `backbone` is not there, no task is a test task, the config is no backbone's, a file is
            in the way, or DVC refuses; names it.
    """
    if suite not in SOURCES:
        raise ParamsError(f"--suite: {unknown('suite', suite, SOURCES)}")
    if pool and not (suite == "jsonl" and tasks and backbone):
        raise ParamsError("--pool: needs --path with examples in JSON Lines, and --backbone, the model of the LoRAs")
    path, loras = _tasks(suite, tasks, folder), _loras(pool, folder)
    if all((folder / name).exists() for name in PROJECT_FILES):
        raise DataError(f"{folder}: already has a project ({' and '.join(PROJECT_FILES)}); name another folder")
    command = ["mhrctl", "init", str(folder), "--path", str(tasks), *(["--backbone", backbone] if backbone else [])]
    if pool and tasks:
        tests = tests or _unmarked(tasks)
    seen = _look(suite, tasks, tests, shlex.join(command), needs=("test",) if pool else ROLES)
    setup = dvc_setup(folder, without_git=without_git)
    with TemporaryDirectory() as aside, ExitStack() as undo:
        new = Path(aside)
        model = _backbone(suite, backbone, folder)
        framing = _framing(model, backbone)
        chat = framing == "causal" and _has_chat_template(model, backbone)
        commands = _fill(new, folder, suite, setup, path, tests, model, framing, chat=chat, loras=loras)
        names = [path.relative_to(new) for path in new.rglob("*") if path.is_file()]
        names.sort(key=lambda name: (len(name.parts), name))  # params.yaml and its like first
        there = [name for name in names if (folder / name).exists()]
        _require_free(folder, [name for name in names if name not in (*EXTENDED, *KEPT)], _stage_folders(new))
        try:
            _make_folder(folder, undo)
            if setup != "already":
                _put_under_dvc(folder, setup, undo)
            for name in names:
                if name not in there:
                    _make_folder((folder / name).parent, undo)
                    undo.callback((folder / name).unlink, missing_ok=True)
                    with replacing(folder / name) as aside_file:
                        shutil.copyfile(new / name, aside_file)
                elif name in EXTENDED:
                    _add_lines(folder / name, (new / name).read_text(encoding="utf-8"), undo)
        except OSError as error:
            raise DataError(f"{error.filename or folder}: cannot be written: {error.strerror}") from error
        undo.pop_all()
    return Made(
        setup,
        [name for name in names if name not in there],
        [name for name in there if name in EXTENDED],
        [name for name in there if name in KEPT],
        commands,
        seen,
    )


def dvc_setup(folder: Path, *, without_git: bool) -> Setup:
    """Decide how a folder comes under DVC. A folder inside another DVC project becomes a project of its own."""
    around = [folder.resolve(), *folder.resolve().parents]
    if (folder / DVC).exists():
        return "already"
    if without_git or not any((each / ".git").exists() for each in around):
        return "no_scm"
    return "git" if (around[0] / ".git").exists() else "subdir"


def _tasks(suite: str, tasks: Path | None, folder: Path) -> str | None:
    """`prepare.path`."""
    if tasks is None:
        return None
    if "path" not in SOURCES[suite].places:
        raise ParamsError(f"--path: the suite {suite} makes its tasks itself; leave it out")
    if not tasks.exists():
        raise DataError(f"--path {tasks}: no such file or folder")
    if set(Path(os.path.relpath(tasks, folder)).parts) <= {".."}:
        raise DataError(f"--path {tasks}: holds the project itself; put the tasks into a folder of their own")
    return _seen_from(folder, tasks)


def _look(suite: str, tasks: Path | None, tests: Sequence[str], command: str, *, needs: Sequence[Role]) -> str:
    """Say what the user's tasks are, or what is wrong with them and can be mended later; nothing where they are many.

    Raises:
        ParamsError: if test tasks are named of tasks that say themselves what they are.
        DataError: if there is no test task, with the command that names some.
    """
    if tests and suite not in TESTS_BY_NAME:
        raise ParamsError(f"--test: the tasks of suite {suite} say themselves which are test tasks; leave it out")
    if tasks is None or suite != "jsonl" or sum(file.stat().st_size for file in data_files(tasks, [ENDING]).files) > READABLE:
        return ""
    try:
        read = read_jsonl(tasks, metrics=OVER_CHOICES, tests=tests, needs=needs).tasks
    except NoRoleError as error:
        if not error.names or tests:
            raise DataError(str(error)) from None
        named = shlex.join(word for name in error.names[-2:] for word in ("--test", name))
        counts = f"{len(error.names)} tasks with {error.examples:,} examples"
        how = f"name those to learn from few examples: {command} {named}"
        raise DataError(f"{tasks}: {counts}, and none is a test task; {how}") from None
    except DataError as error:
        if tests:
            raise DataError(str(error).replace("prepare.test_tasks:", "--test:")) from None
        return f"note: {error}"
    roles = [task.role for task in read]
    if tests and set(tests) != {task.name for task in read if task.role == "test"}:
        raise ParamsError(f"--test: lines or folders of {tasks} say already which are test tasks; leave it out")
    examples = sum(len(task.examples) for task in read)
    return f"found {roles.count('training')} training and {roles.count('test')} test tasks, {examples:,} examples in {tasks}"


def _loras(pool: Sequence[str], folder: Path) -> list[str]:
    """`pretrain.loras`: an id of the hub has an `@`."""
    local = local_loras(pool)
    if missing := [each for each in local if not Path(each).exists()]:
        hint = "; an id of the hub has its revision, as in owner/name@main"
        raise DataError(f"--pool {missing[0]}: no such file or folder{hint}")
    return [_seen_from(folder, Path(each)) if each in local else each for each in pool]


def _unmarked(tasks: Path) -> Sequence[str]:
    """The tasks of a file or folder if none says its role; nothing if some do."""
    try:
        read_jsonl(tasks, metrics=OVER_CHOICES, needs=("test",))
    except NoRoleError as error:
        return error.names
    return []


def _backbone(suite: str, backbone: str | None, folder: Path) -> BackboneParams | None:
    name = backbone or SOURCES[suite].studies[0].backbone
    if name is None:
        return None
    if backbone and Path(backbone).is_dir():
        gguf = [path.name for path in Path(backbone).glob("*.gguf")] if not (Path(backbone) / "config.json").is_file() else []
        file = gguf[0] if len(gguf) == 1 else None
        return BackboneParams(source="local", name=_seen_from(folder, Path(backbone)), gguf=file)
    if not HUB_ID.fullmatch(name):
        raise DataError(f"--backbone {name}: no such folder, and no id of the hub")
    return BackboneParams(source="hub", name=name, revision="main")


def _seen_from(folder: Path, path: Path) -> str:
    """A path as the project's params.yaml names it: relative, but for an absolute one that leads out of the project."""
    relative = Path(os.path.relpath(path, folder))
    return (path if path.is_absolute() and ".." in relative.parts else relative).as_posix()


def _framing(backbone: BackboneParams | None, place: str | None) -> FramingName | None:
    """`prepare.framing`, by the config of the backbone; None if it is not at hand."""
    if backbone is None:
        return "encoder_decoder"
    if backbone.source == "hub":
        return framing_needed(backbone, Path())
    folder = Path(str(place))
    if backbone.gguf is not None:
        return _gguf_framing(folder / backbone.gguf)
    return framing_in(folder, str(place)) if (folder / "config.json").is_file() else None


def _gguf_framing(file: Path) -> FramingName | None:
    """The same by the name of the architecture, with which a GGUF file begins; None if it begins otherwise.

    The config that transformers makes of it would take half a minute.
    """
    with file.open("rb") as opened:
        start = opened.read(128)
    named = re.match(rb"GGUF.{20}\x14\0{7}general\.architecture\x08\0{3}(.)\0{7}", start, re.DOTALL)
    if named is None:
        return None
    name = start[named.end() : named.end() + named[1][0]]
    return "encoder_decoder" if name.startswith(b"t5") else "causal"


def _has_chat_template(backbone: BackboneParams | None, place: str | None) -> bool:
    """Whether a tokenizer with a chat template is at hand beside the config of a backbone, as an instruct model has one."""
    if backbone is None:
        return False
    folder = config_folder(backbone, Path()) if backbone.source == "hub" else Path(str(place))
    if folder is None:
        return False
    settings = folder / "tokenizer_config.json"
    in_settings = settings.is_file() and json_object(settings).get("chat_template")
    return bool(in_settings) or (folder / "chat_template.jinja").is_file()


def _fill(
    new: Path,
    folder: Path,
    suite: str,
    setup: Setup,
    tasks: str | None,
    tests: Sequence[str],
    backbone: BackboneParams | None,
    framing: FramingName | None,
    *,
    chat: bool,
    loras: Sequence[str],
) -> list[str]:
    """Write the project's files into the empty folder `new`, and return the commands to run next in `folder`."""
    source, project = SOURCES[suite], Project(new)
    study = source.study(backbone.name if backbone and backbone.source == "hub" else None)
    template = POOL if loras else study.template
    text = params_yaml(template, tasks=tasks, tests=tests, backbone=backbone, framing=framing, chat=chat, loras=loras)
    project.params.write_text(text, encoding="utf-8")
    settings = load_params(project.params)
    sync(settings, project)
    (new / "dvc.yaml").write_text(dvc_yaml(settings.params), encoding="utf-8")
    with as_file(template_files()) as templates:
        (new / ".dvc/plots").mkdir(parents=True)
        shutil.copyfile(templates / "curves.json", new / ".dvc/plots/curves.json")
        shutil.copyfile(templates / "gitattributes", new / ".gitattributes")
        if source.example and not tasks:
            copy = shutil.copytree if (templates / source.example).is_dir() else shutil.copyfile
            copy(templates / source.example, new / source.example)
    roots = {Path(path).parts[0] for path in task_files(settings.params.prepare)}
    fetched = [name for name in source.fetch if name in roots]
    (new / ".gitignore").write_text(rendered("gitignore", fetched=fetched), encoding="utf-8")
    missing = [source.fetch[name] for name in fetched if not (folder / name).exists()]
    report = f"mhrctl report --table {study.table}" if study.table else "mhrctl report"
    commands = [*missing, "mhrctl check", "mhrctl run", report, *(["mhrctl export ties"] if loras else [])]
    about = f"{template}.md" if (template_files() / f"{template}.md.jinja").is_file() else None
    words = {
        "title": study.title or folder.resolve().name,
        "summary": source.summary,
        "about": about,
        "tasks": tasks,
        "backbone": backbone,
    }
    readme = rendered("README.md", setup=setup, commands=commands, **words)
    (new / "README.md").write_text(readme, encoding="utf-8")
    return commands


def _stage_folders(new: Path) -> list[Path]:
    """The folders that the stages write."""
    return [Path(name) for name in sorted(set(re.findall(r"data/[a-z]+", (new / "dvc.yaml").read_text(encoding="utf-8"))))]


def _require_free(folder: Path, *names: Sequence[Path]) -> None:
    """Check that nothing stands where something will be written.

    Raises:
        DataError: naming the first that does.
    """
    targets = [folder / name for each in names for name in each]
    blocked = [path for target in targets for path in target.parents if path.exists() and not path.is_dir()]
    if taken := [*blocked, *(path for path in targets if os.path.lexists(path))]:
        raise DataError(f"{taken[0]}: is in the way and will not be overwritten; move it away, or name another folder")


def _make_folder(folder: Path, undo: ExitStack) -> None:
    for each in [*reversed(folder.parents), folder]:
        if not each.exists():
            each.mkdir()
            undo.callback(each.rmdir)


def _put_under_dvc(folder: Path, setup: Setup, undo: ExitStack) -> None:
    """Make the folder a project of DVC's that sends no analytics."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    undo.callback(shutil.rmtree, folder / DVC, ignore_errors=True)
    if not (folder / ".dvcignore").exists():
        undo.callback((folder / ".dvcignore").unlink, missing_ok=True)
    try:
        with silent_dvc():
            repo = Repo.init(str(folder), no_scm=setup == "no_scm", subdir=setup == "subdir")
            with repo, repo.config.edit("repo") as config:
                config["core"]["analytics"] = "false"
    except DvcException as error:
        said = " ".join(str(error).split())
        raise DataError(f"{folder}: `dvc init`: {said} Or leave git out of it with --no-scm.") from error


def _add_lines(path: Path, wanted: str, undo: ExitStack) -> None:
    before = path.read_bytes()
    undo.callback(path.write_bytes, before)
    lines = before.decode().splitlines()
    missing = [line for line in wanted.splitlines() if line not in lines]
    if missing:
        end = b"" if not before or before.endswith(b"\n") else b"\n"
        path.write_bytes(before + end + "".join(f"{line}\n" for line in missing).encode())
