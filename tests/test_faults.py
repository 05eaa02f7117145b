"""Faults of the machine: kills at random moments, full disks, folders that cannot be written, Ctrl-C.

What is left under its own name is whole, and the same command again ends as a run that nothing disturbed. Trainings
that are killed or interrupted are in test_train.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModel

import data_scripts
from tests.modeling_aspert import tiny
from tests.training_corpus import arguments, make_corpus, make_encoder
from tests.training_worker import (
    Child,
    aspert_main,
    export,
    kill_repeatedly,
    prepare,
    train_main,
    wait_for,
    with_small_files,
    without_privileges,
)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets_cache")))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, data in all formats, and the cache of a prepared corpus."""
    folder = tmp_path_factory.mktemp("inputs")
    tiny.make_model().save_pretrained(folder / "model")
    tiny.make_processor().save_pretrained(folder / "model")
    make_encoder(folder / "encoder")
    make_corpus(folder / "corpus", train=3000)
    make_corpus(folder / "small_corpus")
    prepare(folder / "corpus", folder / "cache")
    (folder / "data.json").write_text(json.dumps(tiny.RECORDS))
    (folder / "in.txt").write_text("".join(f"Marie married Pierre in Paris number {n} .\n" for n in range(200)))
    _write_sources(folder)
    _write_spert(folder / "spert")
    return folder


def _write_sources(folder: Path) -> None:
    count = 3000
    document = {
        "sentences": [["Ann", "lives", "in", "Rome", "."]],
        "ner": [[[0, 0, "Person"], [3, 3, "Place"]]],
        "relations": [[[0, 0, 3, 3, "Lives_In"]]],
    }
    dygie, drug_ae, texts, annotations, corp = [], [], [], [], []
    for number in range(count):
        dygie.append(json.dumps({"doc_key": f"d{number}", **document}))
        drug_ae.append(f"{number}|Aspirin brings nausea .|nausea|15|21|Aspirin|0|7")
        texts.append("Ann lives in Rome .\n")
        start, first, second = number * len(texts[0]), 2 * number + 1, 2 * number + 2
        annotations += [
            f"T{first}\tPerson {start} {start + 3}\tAnn",
            f"T{second}\tPlace {start + 13} {start + 17}\tRome",
        ]
        annotations += [f"R{number + 1}\tLives_In Arg1:T{first} Arg2:T{second}"]
        words = enumerate([("Peop", "Ann"), ("O", "lives"), ("O", "in"), ("Loc", "Rome")])
        corp += [f"{number}\t{kind}\t{row}\tO\tX\t{word}\tO\tO\tO" for row, (kind, word) in words]
        corp += ["", "0\t3\tLive_In", ""]
    for name, lines in (("dygie", dygie), ("drug-ae", drug_ae), ("corp", corp), ("brat.ann", annotations)):
        (folder / name).write_text("\n".join(lines) + "\n")
    (folder / "brat.txt").write_text("".join(texts))


def _write_spert(folder: Path) -> None:
    """A folder as SpERT's code leaves it, with random weights."""
    encoder = AutoModel.from_config(tiny.make_encoder_config(), attn_implementation="eager")
    encoder.save_pretrained(folder)
    tiny.make_tokenizer().save_pretrained(folder)
    weights = {f"bert.{name}": tensor.clone() for name, tensor in encoder.state_dict().items()}
    sizes = {"entity_classifier": (3, 2 * tiny.HIDDEN_SIZE + 25), "rel_classifier": (1, 3 * tiny.HIDDEN_SIZE + 50)}
    for name, (outputs, columns) in sizes.items():
        weights |= {f"{name}.weight": torch.randn(outputs, columns), f"{name}.bias": torch.randn(outputs)}
    weights["size_embeddings.weight"] = torch.randn(100, 25)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    types = {"entities": {"Loc": {}, "Peop": {}}, "relations": {"Live_In": {}}}
    (folder / "types.json").write_text(json.dumps(types))


# -- kills --------------------------------------------------------------------------------------------------------

OLD = {"": b"old"}


def outputs(folder: Path) -> dict[str, dict[str, bytes]]:
    """The content of each file and folder, temporary ones (`.name`) aside."""
    return {entry.name: tree(entry) for entry in folder.iterdir() if not entry.name.startswith(".")}


def tree(entry: Path) -> dict[str, bytes]:
    files = [entry] if entry.is_file() else [path for path in entry.rglob("*") if path.is_file()]
    return {str(path.relative_to(entry)).removeprefix("."): path.read_bytes() for path in files}


class Place:
    """A folder where a command writes again and again, and what is there when nothing disturbs it.

    Args:
        old: files that are there before.
        outputs: what is there under its own name.
        resumable: an output that grows as NAME.partial.
    """

    def __init__(self, folder: Path, *old: str, outputs: Callable[[Path], Any] = outputs, resumable: str = "") -> None:
        self.folder, self.old, self.outputs, self.resumable = folder, old, outputs, resumable
        self.expected: dict[str, dict[str, bytes]] = {}

    def begin(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for name in self.old:
            (self.folder / name).write_bytes(b"old")

    def check(self) -> None:
        found = self.outputs(self.folder)
        partial = found.pop(f"{self.resumable}.partial", OLD)[""]
        settings = found.pop(f"{self.resumable}.partial.json", OLD)[""]
        if self.resumable and partial not in (b"", b"old"):
            assert self.expected[self.resumable][""].startswith(partial)
            json.loads(settings)
        for name, content in found.items():
            assert content in (OLD, self.expected[name]), name

    def end(self) -> None:
        found = self.outputs(self.folder)
        self.expected = self.expected or found
        assert found == self.expected

    def kill_repeatedly(self, n_kills: int, start: Callable[[], Child]) -> None:
        kill_repeatedly(n_kills, self.folder, start, self.begin, self.check, self.end)


def kills(name: str, quick: str, *others: str) -> pytest.MarkDecorator:
    """2 kills of one kind in the quick tests, 50 of each in the slow ones."""
    slow = [pytest.param(kind, 50, marks=pytest.mark.slow) for kind in (quick, *others)]
    return pytest.mark.parametrize((name, "n_kills"), [(quick, 2), *slow])


@kills("source", "dygie", "drug-ae", "brat.txt", "corp")
def test_conversion_is_killed(inputs: Path, tmp_path: Path, source: str, n_kills: int) -> None:
    output = "out.json" if source in ("dygie", "brat.txt") else "out.jsonl"
    # a types file that is there would grow
    place = Place(tmp_path / "place", output)
    argv = ["convert", source.removesuffix(".txt"), inputs / source, place.folder / output]
    argv += ["--types-output", place.folder / "types.json"]
    place.kill_repeatedly(n_kills, lambda: Child(tmp_path / "log", aspert_main, argv))
    assert len(data_scripts.read_records(place.folder / output)) == 3000


def prepared(cache: Path) -> dict[str, dict[str, bytes]]:
    return {folder.name: tree(folder) for folder in cache.glob("*/*/1.0.0")}


@pytest.mark.parametrize("n_kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_preparation_is_killed(inputs: Path, tmp_path: Path, n_kills: int) -> None:
    place = Place(tmp_path / "place", outputs=prepared)
    place.kill_repeatedly(n_kills, lambda: Child(tmp_path / "log", prepare, inputs / "corpus", place.folder))
    data = data_scripts.load(inputs / "corpus", cache_dir=place.folder)
    for split, rows in data.items():
        records = data_scripts.read_records(inputs / "corpus" / f"{split}.json")
        assert [row["tokens"] for row in rows] == [record["tokens"] for record in records]


@kills("format", "json", "jsonl", "parquet")
def test_export_is_killed(inputs: Path, tmp_path: Path, format: str, n_kills: int) -> None:
    names = [f"{split}.{format}" for split in ("train", "dev", "test")]
    place = Place(tmp_path / "place", *names, "types.json")
    argv = inputs / "corpus", inputs / "cache", place.folder, format
    place.kill_repeatedly(n_kills, lambda: Child(tmp_path / "log", export, *argv))
    assert outputs(place.folder).keys() == {*names, "types.json"}


THRESHOLDS = ["--entity-threshold", "0.7", "--relation-threshold", "0.9"]


@kills("format", "jsonl", "json", "parquet", "csv", "brat", "spacy", "ntriples", "graphml", "neo4j")
def test_prediction_is_killed(inputs: Path, tmp_path: Path, format: str, n_kills: int) -> None:
    place = Place(tmp_path / "place", resumable="out" if format == "jsonl" else "")
    argv = ["predict", inputs / "model", inputs / "in.txt", "--format", format, "--output", place.folder / "out"]
    place.kill_repeatedly(n_kills, lambda: Child(tmp_path / "log", aspert_main, [*argv, *THRESHOLDS]))


# -- no room, no permission ----------------------------------------------------------------------------------------

COMMANDS = {
    "predict": "predict {inputs}/model {inputs}/in.txt --output {place}/out.jsonl",
    "predict, Parquet": "predict {inputs}/model {inputs}/in.txt --output {place}/out --format parquet",
    "predict, CSV": "predict {inputs}/model {inputs}/in.txt --output {place}/out --format csv",
    "evaluate": "evaluate {inputs}/model {inputs}/data.json --output {place}/out",
    "show": "show {inputs}/model {inputs}/in.txt --output {place}/page.html",
    "convert": "convert dygie {inputs}/dygie {place}/out.json",
    "import-spert": "import-spert {inputs}/spert --types {inputs}/spert/types.json --output {place}/out",
    "export-onnx": "export-onnx {inputs}/model --output {place}/out",
    "prepare": "",
    "export": "",
    "train": "",
}
SLOW = {"export-onnx"}
EACH_COMMAND = pytest.mark.parametrize(
    "command", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in COMMANDS]
)
ROOM = 2**14  # bytes, less than each output


def call(command: str, inputs: Path, place: Path) -> tuple[Any, ...]:
    """A function and its arguments."""
    if command == "prepare":
        return prepare, inputs / "corpus", place
    if command == "export":
        return export, inputs / "corpus", inputs / "cache", place, "json"
    if command == "train":
        return train_main, arguments(inputs / "small_corpus", inputs / "encoder", place / "out")
    words = [word.format(inputs=inputs, place=place) for word in COMMANDS[command].split()]
    return aspert_main, words + (THRESHOLDS if words[0] in ("predict", "show") else [])


def refusal(child: Child) -> str:
    """The one line that a command says."""
    assert child.wait() == 2, child.output
    assert "Traceback" not in child.output
    (line,) = (line for line in child.output.splitlines() if line.startswith("error: "))
    assert child.output.endswith(f"{line}\n")
    return line


@pytest.fixture(params=["small disk", "small files"])
def crowded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, tuple[Any, ...]]]:
    """A folder without room, and what is to be called before the function that writes there."""
    place = tmp_path / "place"
    place.mkdir()
    if request.param == "small files":
        yield place, (with_small_files, ROOM)
        return
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield place, ()
    subprocess.run(["umount", place], check=True)


@EACH_COMMAND
def test_full_disk(inputs: Path, tmp_path: Path, crowded: tuple[Path, tuple[Any, ...]], command: str) -> None:
    place, before = crowded
    said = refusal(Child(tmp_path / "log", *before, *call(command, inputs, place)))
    assert str(place) in said
    assert re.search("No space left on device|File too large", said)
    kept = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file() and path.suffix != ".lock"}
    if command == "predict":
        assert kept == {"out.jsonl.partial", "out.jsonl.partial.json"}
    elif command == "train":
        assert kept == {"out/run.json"}
    else:
        assert not kept


@EACH_COMMAND
def test_folder_that_cannot_be_written(inputs: Path, tmp_path: Path, command: str) -> None:
    place = tmp_path / "place"
    place.mkdir(mode=0o500)
    child = Child(tmp_path / "log", without_privileges, *call(command, inputs, place))
    said = refusal(child)
    assert str(place) in said and "Permission denied" in said
    assert command == "train" or child.output == f"{said}\n", "work was done before"
    assert not list(place.iterdir())


# -- Ctrl-C --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["predict", "predict, CSV"])
def test_interrupt(inputs: Path, tmp_path: Path, command: str) -> None:
    place, whole = tmp_path / "place", tmp_path / "whole"
    place.mkdir()
    partial = place / "out.jsonl.partial"
    child = Child(tmp_path / "log", *call(command, inputs, place))
    # a chunk of records, of which the test's has 16
    wait_for(lambda: partial.read_bytes().count(b"\n") > 15 if partial.exists() else list(place.rglob("*.csv")), child)
    os.kill(child.process.pid, signal.SIGINT)
    assert child.wait() == 130, child.output
    assert child.output.splitlines()[-1].startswith("interrupted: ") and "Traceback" not in child.output
    kept = [partial.name, f"{partial.name}.json"] if command == "predict" else []
    assert sorted(path.name for path in place.iterdir()) == kept
    for folder in (whole, place):
        child = Child(tmp_path / "log", *call(command, inputs, folder))
        assert child.wait() == 0, child.output
    assert ("records are there from a run before" in child.output) == (command == "predict")
    assert outputs(place) == outputs(whole)
