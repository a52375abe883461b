"""New projects: what is made, under which DVC, and that nothing of the user's is lost."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import BertConfig, LlamaConfig, T5Config

from mhrctl.artifacts.names import Project
from mhrctl.config.resolve import load_params
from mhrctl.config.sources import SOURCES
from mhrctl.errors import DataError, ParamsError
from mhrctl.evaluation.metrics import OVER_CHOICES
from mhrctl.projects.templates import template_files
from mhrctl.suites.jsonl import read_jsonl
from mhrctl.tools.grid import differences, expand
from mhrctl.tools.init import initialise
from tests.conftest import Run
from tests.data.kinds import CHATS, gpt_2
from tests.models.gguf_files import write_gguf
from tests.test_dvc import dvc

SITUATIONS = ["git", "subdir", "no_scm"]


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def place(tmp_path: Path, setup: str) -> Path:
    """A folder that is a git root, one below it, or one without git."""
    if setup != "no_scm":
        git(tmp_path, "init", "--quiet")
    return tmp_path / "studies/first" if setup == "subdir" else tmp_path


def everything(folder: Path) -> dict[str, bytes]:
    """{name: content} of all files, git's own left out, and of the empty folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
        if ".git" not in path.parts
    }


@pytest.mark.parametrize("setup", SITUATIONS)
@pytest.mark.parametrize("suite", ["compositional", "jsonl"])
def test_dvc_finds_every_stage_to_be_run(tmp_path: Path, suite: str, setup: str) -> None:
    folder = place(tmp_path, setup)
    made = initialise(folder, suite)
    assert made.setup == setup
    new = set(json.loads(dvc(folder, "status", "--json")))
    cells = [path.stem for path in (folder / "data/cells").glob("*-s*.json")]
    assert len(cells) in (5, 10)
    assert {f"{stage}@{cell}" for cell in cells for stage in ("adapt", "evaluate")} <= new
    assert {"prepare", "backbone", "pretrain@mhr-h8-s0", "average@mhr-h8-s0", "report"} <= new
    assert "Running stage 'prepare'" in dvc(folder, "repro", "--dry", "--single-item", "prepare")
    assert "analytics = false" in (folder / ".dvc/config").read_text()


@pytest.mark.parametrize("suite", SOURCES)
def test_every_suite_has_a_grid_in_step(tmp_path: Path, suite: str, run: Run) -> None:
    folder = tmp_path / "new/project"
    made = initialise(folder, suite)
    assert {str(name) for name in made.files} == {name for name in everything(folder) if (folder / name).is_file()} - {
        ".dvc/config",
        ".dvc/tmp/btime",
        ".dvcignore",
    }
    project = Project(folder)
    assert differences(expand(load_params(project.params), project), project) == []
    assert run("grid", "sync", "--check", "-C", folder) == 0
    readme = (folder / "README.md").read_text()
    assert all(f"$ {command}" in readme for command in made.commands)


@pytest.mark.slow
def test_the_example_tasks_run_end_to_end(tmp_path: Path, run: Run) -> None:
    initialise(tmp_path, "jsonl")
    params = tmp_path / "params.yaml"
    text = params.read_text().replace("steps: 300", "steps: 2").replace("steps: 200", "steps: 2")
    text = text.replace("steps: 50", "steps: 2").replace("evaluate_every: 10", "evaluate_every: 1")
    params.write_text(text[: text.index("    poly:")])
    assert run("grid", "sync", "-C", tmp_path) == 0
    dvc(tmp_path, "repro")
    assert "up to date" in dvc(tmp_path, "status")
    assert json.loads((tmp_path / "data/metrics/evaluate/lora-s0.json").read_text())["suite"] == "jsonl"


def test_a_project_without_git_goes_over_to_git(tmp_path: Path) -> None:
    """As the project's README says, with an output in place of the stages'."""
    initialise(tmp_path, "jsonl")
    (tmp_path / "dvc.yaml").write_text("stages: {one: {cmd: mkdir -p data/one, outs: [data/one]}}\n")
    dvc(tmp_path, "repro")
    git(tmp_path, "init", "--quiet")
    for command in (["config", "--unset", "core.no_scm"], ["repro"], ["commit", "--force"]):
        dvc(tmp_path, *command)
    assert (tmp_path / "data/.gitignore").read_text() == "/one\n"


def test_the_example_tasks_show_each_form() -> None:
    suite = read_jsonl(Path(str(template_files() / "tasks")), metrics=OVER_CHOICES)
    assert [(task.name, task.role, task.metric) for task in suite.tasks] == [
        ("sentiment", "training", "accuracy"),
        ("who", "training", "rouge_l"),
        ("topic", "test", "accuracy"),
    ]
    assert {len(example.targets) for task in suite.tasks for example in task.examples} == {1, 2}


def tasks_without_roles(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        lines = [{"input": f"ant {number}", "target": "bee"} for number in range(30)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_files_in_one_folder_are_a_project_by_one_command(tmp_path: Path, run: Run) -> None:
    tasks = tasks_without_roles(tmp_path / "mine", ["a", "b", "123", "c"])
    made = initialise(tmp_path / "study", "jsonl", tasks=tasks, tests=["123", "b"])
    assert made.seen == f"found 2 training and 2 test tasks, 120 examples in {tasks}"
    assert load_params(tmp_path / "study/params.yaml").params.prepare.test_tasks == ["123", "b"]
    assert (tmp_path / "study/README.md").read_text().startswith("# study\n")
    assert run("check", "-C", tmp_path / "study") == 0


@pytest.mark.parametrize(
    ("tests", "said"),
    [
        ([], "mine: 3 tasks with 90 examples, and none is a test task; name those to learn from few examples: mhrctl init"),
        (["xyz"], "--test: unknown task 'xyz' (known: a, b, c)"),
        (["a", "b", "c"], "mine: no training task; prepare.test_tasks names all"),
    ],
    ids=str,
)
def test_files_without_a_test_task_make_no_project(tmp_path: Path, tests: list[str], said: str) -> None:
    tasks = tasks_without_roles(tmp_path / "mine", ["a", "b", "c"])
    with pytest.raises(DataError) as raised:
        initialise(tmp_path / "study", "jsonl", tasks=tasks, tests=tests)
    assert said in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_command_that_is_advised_works(tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    tasks = tasks_without_roles(tmp_path / "mine", ["a", "b", "c"])
    assert run("init", tmp_path / "study", "--path", tasks) == 2
    advised = capfd.readouterr().err.rpartition(": mhrctl ")[2].split()
    assert run(*advised) == 0
    assert load_params(tmp_path / "study/params.yaml").params.prepare.test_tasks == ["b", "c"]


def test_test_tasks_are_named_where_nothing_else_says_them(tmp_path: Path) -> None:
    tasks = tasks_without_roles(tmp_path / "mine/training", ["a"]).parent
    tasks_without_roles(tmp_path / "mine/test", ["b"])
    with pytest.raises(ParamsError, match=r"^--test: lines or folders of .*mine say already which are test tasks"):
        initialise(tmp_path / "study", "jsonl", tasks=tasks, tests=["a"])
    with pytest.raises(ParamsError, match=r"^--test: the tasks of suite t0 say themselves which are test tasks"):
        initialise(tmp_path / "study", "t0", tests=["rte"])
    initialise(tmp_path / "study", "hub", tests=["one, two", "past"])
    assert load_params(tmp_path / "study/params.yaml").params.prepare.test_tasks == ["one, two", "past"]


def test_a_line_that_is_wrong_is_said_at_once_and_can_be_mended_later(tmp_path: Path) -> None:
    tasks = tasks_without_roles(tmp_path / "mine", ["a", "b"])
    (tasks / "c.jsonl").write_text('{"inputs": "a", "target": "b"}\n')
    said = f"note: {tasks}/c.jsonl:1: unknown key 'inputs'; did you mean 'input'?"
    assert initialise(tmp_path / "study", "jsonl", tasks=tasks).seen == said
    assert (tmp_path / "study/params.yaml").is_file()


def test_a_folder_with_a_project_is_named(tmp_path: Path) -> None:
    initialise(tmp_path / "study", "jsonl")
    with pytest.raises(DataError, match=r"study: already has a project \(params.yaml and dvc.yaml\); name another folder$"):
        initialise(tmp_path / "study", "jsonl")


def test_git_keeps_the_project_and_leaves_out_what_is_fetched(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    made = initialise(tmp_path, "t0")
    for name in ("t-few/data/x", "promptsource/x", "evaluation/x", "data/log/x", "data/scratch/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    git(tmp_path, "add", "--all")
    staged = set(git(tmp_path, "diff", "--cached", "--name-only").split())
    of_dvc = {".dvc/.gitignore", ".dvc/config", ".dvcignore"}
    assert staged == {str(name) for name in made.files} | of_dvc


def test_what_is_there_need_not_be_fetched(tmp_path: Path) -> None:
    (tmp_path / "natural-instructions").mkdir()
    assert not any("clone" in command for command in initialise(tmp_path, "superni").commands)


def test_the_users_tasks_and_backbone(tmp_path: Path) -> None:
    for name in ("tasks", "model"):
        (tmp_path / name).mkdir()
    folder = tmp_path / "project"
    initialise(folder, "jsonl", tasks=tmp_path / "tasks", backbone=str(tmp_path / "model"))
    params = load_params(folder / "params.yaml").params
    assert params.prepare.path == str(tmp_path / "tasks")
    assert (params.backbone.source, params.backbone.name) == ("local", str(tmp_path / "model"))
    assert params.prepare.tokenizer == params.backbone.name
    assert not (folder / "tasks").exists()
    initialise(tmp_path, "jsonl", tasks=tmp_path / "tasks", backbone="google/t5-large-lm-adapt")
    params = load_params(tmp_path / "params.yaml").params
    assert params.prepare.path == "tasks"
    assert (params.backbone.source, params.prepare.tokenizer) == ("hub", "google/t5-large-lm-adapt")
    assert params.pretrain.steps == 10000  # not the size of the example


@pytest.mark.parametrize(
    ("backbone", "table", "says"),
    [
        ("bigscience/T0_3B", 6, "T0 as in Figure 2 and Table 6, in the full and the light layout, of"),
        ("bigscience/T0", 3, "T0 as in Tables 3 and 5 of"),
    ],
)
def test_a_backbone_of_the_paper_has_its_study(tmp_path: Path, backbone: str, table: int, says: str) -> None:
    made = initialise(tmp_path, "t0", backbone=backbone)
    params = load_params(tmp_path / "params.yaml").params
    assert (params.backbone.name, params.prepare.tokenizer) == (backbone, "google/t5-xl-lm-adapt")
    assert table in params.report.tables
    assert f"data/report/table{table}.md" in (tmp_path / "dvc.yaml").read_text()
    assert made.commands[-1] == f"mhrctl report --table {table}"
    readme = (tmp_path / "README.md").read_text()
    assert says in readme
    assert f"on {backbone}: for a GPU" in readme.replace("\n", " ")


def test_any_other_backbone_has_the_first_study(tmp_path: Path) -> None:
    initialise(tmp_path, "t0", backbone="google/t5-large-lm-adapt")
    params = load_params(tmp_path / "params.yaml").params
    assert (params.backbone.name, params.prepare.tokenizer) == ("google/t5-large-lm-adapt",) * 2
    assert params.grid == load_params(Path(__file__).parents[2] / "pipelines/t0/params.yaml").params.grid
    assert "T5-XL" not in (tmp_path / "README.md").read_text()


def test_a_folder_has_its_own_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bigscience/T0_3B").mkdir(parents=True)
    initialise(Path(), "t0", backbone="bigscience/T0_3B")
    params = load_params(Path("params.yaml")).params
    assert (params.backbone.source, params.prepare.tokenizer) == ("local", "bigscience/T0_3B")
    assert "mhr_z-h64-block" in Path("data/cells/index.yaml").read_text()


@pytest.mark.parametrize("suite", SOURCES)
def test_a_decoder_only_folder_is_framed_as_such(tmp_path: Path, suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    LlamaConfig().save_pretrained(tmp_path / "models/llama")
    T5Config().save_pretrained(tmp_path / "models/t5")
    (tmp_path / "models/unknown").mkdir()
    monkeypatch.chdir(tmp_path)
    for name, framing in (("llama", "causal"), ("t5", "encoder_decoder"), ("unknown", "encoder_decoder")):
        initialise(Path(f"of/{name}"), suite, backbone=f"models/{name}")
        text = (tmp_path / "of" / name / "params.yaml").read_text()
        params = load_params(Path(f"of/{name}/params.yaml")).params
        assert (params.prepare.framing, params.prepare.tokenizer) == (framing, f"../../models/{name}")
        assert params.backbone.name == params.prepare.tokenizer
        assert ("framing" in text) == (name != "t5")
        assert ("  # framing: causal # of a decoder-only backbone" in text) == (name == "unknown")


def test_of_the_hub_the_framing_is_known_by_the_cache_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LlamaConfig().save_pretrained(tmp_path / "cached")
    cached: list[str | None] = [None, str(tmp_path / "cached/config.json")]
    for name, path in zip(("first", "second"), cached, strict=True):
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_args, path=path, **_options: path)
        initialise(tmp_path / name, "jsonl", backbone="some/llama")
    first, second = ((tmp_path / name / "params.yaml").read_text() for name in ("first", "second"))
    assert "\n  # framing: causal #" in first
    assert "\n  framing: causal #" in second


@pytest.mark.parametrize("suite", ["jsonl", "t0"])
def test_a_tokenizer_with_a_chat_template_is_asked_in_chats(
    tmp_path: Path, suite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, make in (("chats", CHATS["marked"]), ("plain", gpt_2)):
        LlamaConfig().save_pretrained(f"models/{name}")
        make().save_pretrained(f"models/{name}")
        initialise(Path(f"of/{name}"), suite, backbone=f"models/{name}")
        text = Path(f"of/{name}/params.yaml").read_text()
        params = load_params(Path(f"of/{name}/params.yaml")).params.prepare
        assert (params.framing, params.chat) == ("causal", name == "chats")
        assert ("chat: true # the tokenizer has a chat template" in text) == (name == "chats")
    settings = Path("models/old")
    LlamaConfig().save_pretrained(settings)
    (settings / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    initialise(Path("of/old"), suite, backbone="models/old")
    assert load_params(Path("of/old/params.yaml")).params.prepare.chat
    T5Config().save_pretrained("models/chats")
    initialise(Path("of/t5"), suite, backbone="models/chats")
    assert "  chat: true" not in Path("of/t5/params.yaml").read_text()


@pytest.mark.parametrize(("name", "framing"), [("llama", "causal"), ("gemma3", "causal"), ("t5", "encoder_decoder")])
def test_a_folder_with_a_gguf_file_has_weights_and_tokenizer_in_it(tmp_path: Path, name: str, framing: str) -> None:
    (tmp_path / "models").mkdir()
    key = b"general.architecture"
    first = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(name)) + name.encode()
    (tmp_path / "models/tiny.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 5, 30) + first + b"more")
    initialise(tmp_path / "project", "jsonl", backbone=str(tmp_path / "models"))
    params = load_params(tmp_path / "project/params.yaml").params
    assert (params.backbone.gguf, params.prepare.tokenizer_gguf) == ("tiny.gguf", "tiny.gguf")
    assert (params.backbone.name, params.prepare.framing) == (params.prepare.tokenizer, framing)


def test_the_framing_of_a_file_that_begins_otherwise_is_the_users_to_say(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for project, files in (("one", ["tiny"]), ("two", ["tiny", "other"])):
        for name in files:
            (tmp_path / f"models/{name}.gguf").write_bytes(b"GGUF" + b"x" * 200)
        initialise(tmp_path / project, "jsonl", backbone=str(tmp_path / "models"))
        text = (tmp_path / project / "params.yaml").read_text()
        assert ("gguf: tiny.gguf" in text) == (project == "one")
        assert "\n  # framing: causal #" in text
        assert "\n  # chat: true # of an instruct model" in text


def test_a_tiny_file_of_the_library_begins_with_its_architecture(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    write_gguf(tmp_path / "models/tiny.gguf")
    initialise(tmp_path / "project", "jsonl", backbone=str(tmp_path / "models"))
    assert load_params(tmp_path / "project/params.yaml").params.prepare.framing == "causal"


def test_a_folder_of_no_backbone_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(DataError, match=r"bert': a bert model; an encoder-decoder .* or a causal language model"):
        initialise(tmp_path / "project", "jsonl", backbone=str(tmp_path / "bert"))
    assert not (tmp_path / "project").exists()


def test_paths_are_relative_to_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    initialise(Path("a/b"), "superni", tasks=Path("mine"))
    assert load_params(Path("a/b/params.yaml")).params.prepare.path == "../../mine"
    assert "/natural-instructions" not in Path("a/b/.gitignore").read_text()


def test_t0_takes_p3_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "p3").mkdir()
    initialise(tmp_path, "t0", tasks=tmp_path / "p3")
    prepare = load_params(tmp_path / "params.yaml").params.prepare
    assert (prepare.path, prepare.hub) == ("p3", None)
    assert "      - p3\n      - t-few/data\n" in (tmp_path / "dvc.yaml").read_text()


@pytest.mark.parametrize(
    ("taken", "named"),
    [
        ("params.yaml", "params.yaml"),
        ("dvc.yaml", "dvc.yaml"),
        ("data/cells/lora-s0.json", "data/cells/lora-s0.json"),
        ("data/pretrain/old", "data/pretrain"),
        ("tasks", "tasks"),
        ("data", "data"),
    ],
)
def test_nothing_is_overwritten(tmp_path: Path, taken: str, named: str) -> None:
    (tmp_path / taken).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / taken).write_text("mine")
    before = everything(tmp_path)
    with pytest.raises(DataError, match=r"is in the way and will not be overwritten") as error:
        initialise(tmp_path, "jsonl")
    assert str(error.value).startswith(f"{tmp_path / named}: ")
    assert everything(tmp_path) == before


def test_a_readme_stays_and_gitignore_gets_lines(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / ".gitignore").write_text("*.pyc\n/data/log/")
    made = initialise(tmp_path, "jsonl")
    assert (tmp_path / "README.md").read_text() == "mine"
    lines = (tmp_path / ".gitignore").read_text().splitlines()
    assert lines[:3] == ["*.pyc", "/data/log/", "/data/inspect/"]
    assert [str(name) for name in (*made.kept, *made.extended)] == ["README.md", ".gitignore"]


def test_a_dvc_project_is_not_initialised_again(tmp_path: Path) -> None:
    dvc(tmp_path, "init", "--no-scm", "--quiet")
    config = (tmp_path / ".dvc/config").read_text()
    assert initialise(tmp_path, "compositional").setup == "already"
    assert (tmp_path / ".dvc/config").read_text() == config
    assert (tmp_path / ".dvc/plots/curves.json").exists()


def test_without_git_inside_a_repository(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert initialise(tmp_path, "jsonl", without_git=True).setup == "no_scm"
    assert "no_scm = True" in (tmp_path / ".dvc/config").read_text()


def test_a_refusal_of_dvc_leaves_nothing(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitignore").write_text("/ignored\n")
    before = everything(tmp_path)
    with pytest.raises(DataError, match=r"is ignored by your SCM tool.*--no-scm"):
        initialise(tmp_path / "ignored/project", "jsonl")
    assert everything(tmp_path) == before


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    (tmp_path / ".gitignore").write_text("*.pyc\n")
    before = everything(tmp_path)
    copy = shutil.copyfile

    def failing(source: Path, target: Path, **options: bool) -> object:
        if tmp_path in Path(target).parents and ".params.yaml." in Path(target).name:
            Path(target).write_text("half")
            raise error
        return copy(source, target, **options)

    monkeypatch.setattr(shutil, "copyfile", failing)
    with pytest.raises((DataError, KeyboardInterrupt)):
        initialise(tmp_path, "jsonl")
    assert everything(tmp_path) == before


def test_bad_arguments_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("project")
    with pytest.raises(ParamsError, match="unknown suite 'supern'; did you mean 'superni'"):
        initialise(folder, "supern")
    with pytest.raises(ParamsError, match="compositional makes its tasks itself"):
        initialise(folder, "compositional", tasks=tmp_path)
    with pytest.raises(DataError, match="--path nowhere: no such file or folder"):
        initialise(folder, "jsonl", tasks=Path("nowhere"))
    with pytest.raises(DataError, match="holds the project itself"):
        initialise(folder, "jsonl", tasks=tmp_path)
    with pytest.raises(DataError, match=r"--backbone \./nowhere: no such folder, and no id of the hub"):
        initialise(folder, "jsonl", backbone="./nowhere")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_stages_need_no_dvc(project: Path) -> None:
    """A folder with params.yaml and tasks alone, and Python without DVC."""
    stages = [["prepare"], ["backbone"], *([stage, "-m", "lora"] for stage in ("pretrain", "adapt", "evaluate")), ["report"]]
    code = (
        "import json, sys; sys.modules['dvc'] = None\n"
        "from mhrctl.cli.app import app\n"
        "for words in json.loads(sys.argv[1]): app(words, standalone_mode=False)\n"
    )
    words = json.dumps([[*stage, "-C", str(project)] for stage in stages])
    ran = subprocess.run(
        [sys.executable, "-c", code, words], cwd=Path(__file__).parents[2], env={**os.environ}, capture_output=True, check=False
    )
    assert ran.returncode == 0, ran.stderr.decode()
    assert (project / "data/report/table2.md").exists()
    assert not (project / ".dvc").exists()


def test_tasks_of_a_pool_are_test_tasks_unless_something_says_a_role(tmp_path: Path) -> None:
    tasks, pool = tasks_without_roles(tmp_path / "mine", ["a", "b"]), [str(tmp_path / "loras")]
    for name in ("model", "loras"):
        (tmp_path / name).mkdir()

    def tests_of(folder: str, *named: str) -> list[str]:
        made = tmp_path / folder
        initialise(made, "jsonl", tasks=tasks, tests=named, backbone=str(tmp_path / "model"), pool=pool)
        params = load_params(made / "params.yaml").params
        assert params.grid.methods["adapter_soup"].pretrain == {"loras": pool}
        return params.prepare.test_tasks

    assert tests_of("none") == ["a", "b"]
    assert tests_of("one", "b") == ["b"]
    tasks_without_roles(tasks / "test", ["c"])
    assert tests_of("said") == []
