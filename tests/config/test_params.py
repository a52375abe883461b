"""params.yaml: what is accepted, and how what is not is rejected."""

from __future__ import annotations

from pathlib import Path

import pytest

from mhrctl.config.cells import grid_cells
from mhrctl.config.resolve import load_params
from mhrctl.errors import ParamsError

ROOT = Path(__file__).parents[2]


def edited(project: Path, old: str, new: str) -> Path:
    path = project / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  skills: 2", "  skils: 2", r"params.yaml:12: pretrain.skils: unknown key 'skils'; did you mean 'skills'\?$"),
        ("  skills: 2", "  skills: two", r"params.yaml:12: pretrain.skills: Input should be a valid integer \(got 'two'\)"),
        ("  skills: 2", "  skills: 0", r"params.yaml:12: pretrain.skills: Input should be greater than 0 \(got 0\)"),
        (
            "source: jsonl",
            "source: web",
            r"params.yaml:2: prepare.source: Input should be 'compositional', 'superni', 't0', 'jsonl' or 'hub'",
        ),
        (
            "  skills: 2",
            "  balance: tokens",
            r"params.yaml:12: pretrain.balance: balance tokens needs a window of two or more micro-batches",
        ),
        ("  path: tasks", "", r"params.yaml:1: prepare: source jsonl needs `path`"),
        ("  shots: 3", "", r"params.yaml:20: adapt.shots: is missing"),
        ("    lora:", "    lara:", r"params.yaml:39: grid.methods.lara: unknown method 'lara'; did you mean 'lora'\?"),
        ("mhr: {heads: [4]}", "mhr:", r"params.yaml:41: grid.methods.mhr.heads: mhr needs `heads`"),
        ("    lora:", "    lora: {heads: [2]}", r"params.yaml:39: grid.methods.lora.heads: lora has no `heads`"),
        ("mhr_z: {heads: [4]}", "mhr_z: {heads: [4], pretrain: {lr: 1}}", r"mhr_z shares the pre-training of mhr"),
        ("seeds: [0]", "seeds: [0, 0]", r"params.yaml:37: grid.seeds.1: 0 occurs twice"),
        ("seeds: [0]", "seeds: [0", r"params.yaml:3\d: not valid YAML"),
    ],
)
def test_mistakes_are_rejected_with_file_line_and_key(project: Path, old: str, new: str, message: str) -> None:
    path = edited(project, old, new)
    with pytest.raises(ParamsError, match=message):
        load_params(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "max_new_tokens: 4",
            "beams: 100000",
            r"params.yaml:26: adapt.beams: Input should be less than or equal to 1000 \(got 100000\)",
        ),
        (
            "max_new_tokens: 4",
            "max_new_tokens: 1000000000000",
            r"adapt.max_new_tokens: Input should be less than or equal to 100000",
        ),
        (
            "layers: 1,",
            "layers: 1000000000,",
            r"params.yaml:9: backbone.scratch.layers: Input should be less than or equal to 1000",
        ),
        (
            "  tokenizer: word",
            "  tokenizer: word\n  vocab_size: 1" + "0" * 23,
            r"prepare.vocab_size: .* equal to 10000000 \(got 10",
        ),
        (
            "  tokenizer: word",
            f"  tokenizer: {'x' * 5000}",
            r"prepare.tokenizer: String should have at most 4096 characters .*\.\.\.'\)$",
        ),
        (
            "  tokenizer: word",
            "  tokenizer: gpt\n  vocab_size: 9",
            r"params.yaml:5: prepare.vocab_size: tokenizer gpt has the entries",
        ),
        ("  skills: 2", "  lr: .nan", r"params.yaml:12: pretrain.lr: .nan is not a finite number"),
        (
            "  skills: 2",
            "  targets: '(['",
            r"params.yaml:12: pretrain.targets: neither a layout \(full, light, attention\) nor a regular expression",
        ),
        ("  skills: 2", "  targets: [q, q]", r"params.yaml:12: pretrain.targets.1: 'q' occurs twice"),
        ("tables: [1, 2]", "tables: [1, 1]", r"params.yaml:32: report.tables.1: 1 occurs twice"),
        ("tables: [1, 2]", "tables: [9]", r"params.yaml:32: report.tables.0: Input should be 1, 2, 3, 4, 5, 6 or 'pool'"),
        ("mhr: {heads: [4]}", "mhr: {heads: [4, 4]}", r"params.yaml:41: grid.methods.mhr.heads.1: 4 occurs twice"),
        ("    lora:", "    lora: {extra_steps: [5, 5]}", r"grid.methods.lora.extra_steps.1: 5 occurs twice"),
        ("    lora:", "    lora: {variants: [plain, plain]}", r"grid.methods.lora.variants.1: 'plain' occurs twice"),
        ("    lora:", "    lora: {search: {lr: [0.1, 0.1]}}", r"grid.methods.lora.search.lr.1: 0.1 occurs twice"),
        (
            "    lora:",
            "    lora: {search: {routing_lr: [0.1]}}",
            r"grid.methods.lora.search.routing_lr: lora does not read adapt",
        ),
        (
            "    lora:",
            "    lora: {pretrain: {skills: 9}}",
            r"params.yaml:39: grid.methods.lora.pretrain.skills: lora does not read",
        ),
        (
            "mhr_z: {heads: [4]}",
            "mhr_z: {heads: [4], adapt: {lr: 0.1}}",
            r"grid.methods.mhr_z.adapt.lr: mhr_z does not read adapt.lr",
        ),
        (
            "  methods:\n    lora:",
            "  variants: {v: {pretrain: {skills: 9}}}\n  methods:\n    lora: {variants: [v]}",
            r"params.yaml:40: grid.methods.lora.variants.0: lora reads nothing of what variant 'v' sets",
        ),
        ("seeds: [0]", f"seeds: {list(range(20_000))}", r"grid.seeds: List should have at most 10000 items"),
        (
            "    lora:",
            f"    lora: {{search: {{lr: {[n / 7 for n in range(1, 900)]}, warmup: {[n / 900 for n in range(1, 900)]}}}}}",
            r"cells; at",
        ),
        ("batch_size: 4}", "batch_size: 4}\n  gguf: a.gguf", r"params.yaml:10: backbone.gguf: source scratch has no `gguf`"),
        (
            "batch_size: 4}",
            "batch_size: 4, architecture: bert}",
            r"params.yaml:9: backbone.scratch.architecture: .*'t5' or 'llama'",
        ),
        (
            "batch_size: 4}",
            "batch_size: 4}\n  revision: main",
            r"params.yaml:10: backbone.revision: source scratch has no `revision`",
        ),
        ("index:\n", "index:\n  revision: v2\n", r"params.yaml:18: index.revision: encoder tfidf has no `revision`"),
        (
            "grid:\n",
            "run: {slots: {pretrain: 0}}\ngrid:\n",
            r"params.yaml:36: run.slots.pretrain: Input should be greater than 0",
        ),
        (
            "grid:\n",
            "run: {slots: {train: 1}}\ngrid:\n",
            r"params.yaml:36: run.slots.train: Input should be 'prepare', 'backbone'",
        ),
        (
            "  seeds: [0]",
            "  seeds: [0]\n  variants: {unused: {pretrain: {rank: 2}, adapt: {rat: 1}}}",
            r"params.yaml:38: grid.variants.unused.adapt.rat: unknown key",
        ),
        (
            "  seeds: [0]",
            "  seeds: [0]\n  variants: {../x: {pretrain: {rank: 2}}}",
            r"params.yaml:38: grid.variants.../x: variant '../x': a name is",
        ),
        (
            "  seeds: [0]",
            f"  seeds: [0]\n  variants: {{{'v' * 65}: {{pretrain: {{rank: 2}}}}}}",
            r"a name is lower-case letters",
        ),
    ],
)
def test_what_nobody_can_mean_or_nothing_would_come_of_is_rejected(project: Path, old: str, new: str, message: str) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ParamsError, match=message) as caught:
        load_params(path)
    assert len(str(caught.value)) < 1000


def test_large_settings_that_somebody_means_pass(project: Path) -> None:
    path = project / "params.yaml"
    text = path.read_text().replace("  tokenizer: word", "  tokenizer: bpe\n  vocab_size: 262144\n  max_input_tokens: 32768")
    text = text.replace("  steps: 4\n  batch_size: 4", "  steps: 1000000\n  batch_size: 2048", 1)
    text = text.replace("seeds: [0]", f"seeds: {list(range(75))}").replace(
        "    poly:", "    poly: {search: {lr: [0.1, 0.2, 0.3]}}"
    )
    path.write_text(text.replace("mhr: {heads: [4]}", "mhr: {heads: [1, 2, 4, 8, 16, 32, 64, 128]}"))
    settings = load_params(path)
    assert settings.params.prepare.vocab_size == 262_144
    assert len(grid_cells(settings.params)) == 75 * (1 + 3 + 8 + 1 + 1)
