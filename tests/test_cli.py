"""The `aspert` command: forms of input and output, resuming, errors of one line, exit codes."""

from __future__ import annotations

import io
import itertools
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet
import pytest
import transformers
from safetensors.torch import load_file
from transformers import FNetConfig, PretrainedConfig

import aspert_cli
import data_scripts
from data_scripts.splitting import UNITS
from modeling_aspert import AspertConfig, Extractor, commands, extraction
from modeling_aspert.extraction import Sentence
from modeling_aspert.visualization import visualize
from modeling_aspert.voting import vote

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "modeling_aspert"))

from tiny import RECORDS, make_model, make_processor  # noqa: E402

TYPES = {
    "entities": {"Person": {}, "Place": {}, "Company": {}},
    "relations": {"works-for": {}, "lives-in": {}, "married-to": {"symmetric": True}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_model().save_pretrained(folder)
    make_processor().save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path) -> Path:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(RECORDS))
    (tmp_path / "types.json").write_text(json.dumps(TYPES))
    return path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def failed(capsys, *argv: str) -> str:
    """The one line of a command that must fail."""
    assert aspert_cli.main([str(argument) for argument in argv]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ") and "Traceback" not in message
    return message


def test_help_is_fast_and_imports_nothing_heavy():
    code = "import aspert_cli, sys; aspert_cli.build_parser().format_help(); print('torch' in sys.modules or 'transformers' in sys.modules)"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert time.perf_counter() - started < 5  # a loaded machine; benchmarks/speed.py measures
    for command in ("predict", "evaluate", "convert", "split", "validate", "show", "info", "import-spert", "demo"):
        assert command in aspert_cli.build_parser().format_help()


def test_choices_are_the_library_s():
    from modeling_aspert import export, streaming

    assert tuple(aspert_cli._OUTPUT_FORMATS) == tuple(export.FORMATS)
    assert tuple(aspert_cli._INPUT_FORMATS) == tuple(streaming.INPUT_FORMATS)
    assert set(aspert_cli._CONVERT_FORMATS) == set(data_scripts.converters.FORMATS)
    assert tuple(aspert_cli._SPLIT_UNITS) == tuple(UNITS)


def test_no_command_prints_help(capsys):
    assert aspert_cli.main([]) == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "field", "expected"),
    [
        ("predict m --output y.jsonl a.txt b.txt", "inputs", ["a.txt", "b.txt"]),
        ("predict m a.txt --output y.jsonl b.txt --progress c.txt -", "inputs", ["a.txt", "b.txt", "c.txt", "-"]),
        ("predict --output y.jsonl m a.txt", "inputs", ["a.txt"]),
        ("predict m -- --a.txt", "inputs", ["--a.txt"]),
        ("predict m --outp y.jsonl", "inputs", []),
        ("show m --output y.html a.txt", "inputs", ["a.txt"]),
        ("validate a.json --types t.json b.json", "data", ["a.json", "b.json"]),
        ("validate --types t.json a.json b.json", "data", ["a.json", "b.json"]),
        ("evaluate m --output out a.json", "data", "a.json"),
    ],
)
def test_inputs_may_follow_options(words, field, expected):
    args = aspert_cli.build_parser().parse_args(words.split())
    assert getattr(args, field) == expected and getattr(args, "model", "m") == "m"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("predict m --relation-treshold 0.5 a.txt", "there is no option --relation-treshold: did you mean --relation-threshold?"),
        ("predict m --format=json --colunm=x", "there is no option --colunm: did you mean --column?"),
        ("show m --ouput p.html a.txt", "there is no option --ouput: did you mean --output?"),
        ("validate a.json --zzzz", "there is no option --zzzz: see aspert validate --help"),
        ("validate a.json -z", "unrecognized arguments: -z"),
        ("evaluate m a.json b.json", "unrecognized arguments: b.json"),
        ("info m n", "unrecognized arguments: n"),
    ],
)  # fmt: skip
def test_what_a_command_does_not_take_is_told_with_its_usage(capsys, words, said):
    with pytest.raises(SystemExit) as exit_code:
        aspert_cli.main(words.split())
    assert exit_code.value.code == 2
    err, command = capsys.readouterr().err, words.split()[0]
    assert err.startswith(f"usage: aspert {command} ") and err.endswith(f"aspert {command}: error: {said}\n")


def test_a_text_may_begin_with_dashes():
    argv = ["predict", "m", "--text", "-- said Ann", "--text=--no"]
    assert aspert_cli.build_parser().parse_args(argv).text == ["-- said Ann", "--no"]


def test_predict_a_text(folder, capsys):
    assert aspert_cli.main(["predict", str(folder), "--text", "Marie married Pierre .", "--text", "Stop"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["text"] == "Marie married Pierre ." and second["id"] == 1
    for entity in first["entities"]:
        assert first["text"][entity["start"] : entity["end"]] == entity["text"]


def test_predict_words_equals_the_extractor(folder, data, tmp_path):
    assert aspert_cli.main(["predict", str(folder), str(data), "--output", str(tmp_path / "out.jsonl")]) == 0
    predicted = lines(tmp_path / "out.jsonl")
    expected = Extractor(make_model(), make_processor()).annotate(Sentence(record["tokens"]) for record in RECORDS)
    assert [record["tokens"] for record in predicted] == [record["tokens"] for record in RECORDS]
    for record, annotation in zip(predicted, expected):
        assert {"entities": record["entities"], "relations": record["relations"]} == annotation
    assert predicted[0]["orig_id"] == "a"


@pytest.mark.parametrize("format", [name for name in aspert_cli._OUTPUT_FORMATS if name != "spacy"])
def test_predict_writes_every_format(folder, tmp_path, capsys, format):
    source = tmp_path / "in.txt"
    source.write_text("Marie married Pierre .\n\nAda Lovelace worked for Analytical Engines .\n")
    output = tmp_path / f"out_{format}"
    assert aspert_cli.main(["predict", str(folder), "--output", str(output), "--format", format, str(source)]) == 0
    assert capsys.readouterr().err.endswith(f"{output}: 3 records written, format {format}\n")
    assert output.exists() and (output.is_dir() or output.stat().st_size)


@pytest.mark.parametrize(
    ("suffix", "begin"),
    [
        (".parquet", b"PAR1"), (".json", b"[\n{"), (".graphml", b"<?xml"), (".nt", b"_:r0 <http"),
        (".jsonl", b'{"id": 0'), (".ndjson", b'{"id": 0'), (".JSON", b"[\n{"), ("", b'{"id": 0'),
    ],
)  # fmt: skip
def test_the_suffix_of_the_output_gives_the_format(folder, tmp_path, suffix, begin):
    output = tmp_path / f"out{suffix}"
    argv = ["predict", str(folder), "--text", "Marie married Pierre .", "--entity-threshold", "0"]
    assert aspert_cli.main([*argv, "--output", str(output)]) == 0
    assert output.read_bytes().startswith(begin)


def test_outputs_are_refused_before_the_model_is_loaded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(commands, "load", None)
    monkeypatch.chdir(tmp_path)
    argv = ["predict", "model", "--text", "x"]
    csv = "out.csv: the format csv writes a folder with entities.csv and relations.csv: give the name of a folder"
    assert csv in failed(capsys, *argv, "--output", "out.csv")
    assert csv in failed(capsys, *argv, "--output", "out.csv", "--format", "csv")
    contradiction = "out.json: the suffix .json does not go with the format parquet: leave one of them out"
    assert contradiction in failed(capsys, *argv, "--output", "out.json", "--format", "parquet")
    packed = "out.jsonl.gz: nothing is written as .gz: take one of .jsonl, .json"
    assert packed in failed(capsys, *argv, "--output", "out.jsonl.gz", "--format", "jsonl")
    for name in ("z.html", "z.ttl", "z.txt", "z.v2"):
        said = failed(capsys, *argv, "--output", name)
        page = " (`aspert show` draws pages)" if name == "z.html" else ""
        assert said.startswith(f"error: {name}: the suffix {name[1:]} means no format{page}: give --format jsonl or ")
    page = (
        "error: s.jsonl: an HTML page does not go with the suffix .jsonl: name it s.html; other formats are written by"
    )
    assert page in failed(capsys, "show", *argv[1:], "--output", "s.jsonl")
    assert "--format csv needs --output" in failed(capsys, *argv, "--format", "csv")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "full exists and is no empty folder" in failed(capsys, *argv, "--output", "full", "--format", "csv")
    assert "error: . is no file" in failed(capsys, *argv, "--output", ".")
    assert "error: . is no file" in failed(capsys, "show", *argv[1:], "--output", ".")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full"]


def test_types_that_the_format_refuses_are_refused_before_the_work(tmp_path, monkeypatch, capsys):
    def run(*_, **__):
        raise AssertionError("work was done")

    model = make_model()
    model.config.entity_types = ["Person", "a;b", "Place"]
    monkeypatch.setattr(commands, "load", lambda args: Extractor(model, make_processor()))
    argv = ["predict", "model", "--text", "x", "--output", tmp_path / "out", "--format"]
    with monkeypatch.context() as patch:
        patch.setattr(commands, "_run", run)
        assert "type 'a;b' is no name in brat" in failed(capsys, *argv, "brat")
        assert "type 'a;b' holds ';', which separates labels in Neo4j" in failed(capsys, *argv, "neo4j")
        model.config.entity_types = ["Person", "b", "Place"]
        model.config.relation_types = ["works for", *model.config.relation_types[1:]]
        assert "type 'works for' is no name in brat" in failed(capsys, *argv, "brat")
    assert not list(tmp_path.iterdir())
    assert aspert_cli.main(list(map(str, [*argv, "neo4j"]))) == 0


def test_inputs_are_refused_before_the_model_is_loaded(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "load", None)
    page, missing = tmp_path / "page.html", tmp_path / "missing.txt"
    assert "missing.txt: no such file or folder" in failed(capsys, "show", folder, missing, "--output", page)
    assert "missing.json: does not exist" in failed(capsys, "evaluate", folder, tmp_path / "missing.json")
    for command in (["predict"], ["show", "--output", page]):
        argv = [*command, folder, "--text", "x"]
        said = "error: --column body is for input files, not for --text: leave it out"
        assert failed(capsys, *argv, "--column", "body") == said
        assert "--input-format csv is for input files" in failed(capsys, *argv, "--input-format", "csv")
    pipe(monkeypatch, ["body", "Rome"])
    said = failed(capsys, "predict", folder, "--column", "body")
    assert said.startswith("error: -: taken for text, but --column body goes with jsonl, ")


@pytest.mark.parametrize("command", ["predict", "show", "evaluate", "info", "export-onnx"])
def test_a_revision_of_a_folder_is_refused(folder, data, tmp_path, monkeypatch, capsys, command):
    monkeypatch.setattr("modeling_aspert.onnx_export.check_extra", lambda: None)
    others = {
        "predict": ["--text", "x"],
        "show": ["--text", "x", "--output", tmp_path / "page.html"],
        "evaluate": [data],
        "export-onnx": ["--output", tmp_path / "out"],
    }
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "spans.onnx").touch()
    for model in (folder, tmp_path / "exported"):
        said = f"error: revision v1 is for a Hub name, but {model} is a folder: leave it out"
        assert failed(capsys, command, model, *others.get(command, []), "--revision", "v1") == said


def test_failures_leave_no_folder(folder, tmp_path, capsys):
    (tmp_path / "here").mkdir()
    for output in (tmp_path / "model", tmp_path / "a" / "b" / "model", tmp_path / "here" / "model"):
        assert "no SpERT weights" in failed(capsys, "import-spert", tmp_path, "--types", "t.json", "--output", output)
        assert "does not exist" in failed(capsys, "evaluate", folder, tmp_path / "no.json", "--output", output)
    assert [path.name for path in tmp_path.iterdir()] == ["here"] and not list((tmp_path / "here").iterdir())


def test_evaluate_offers_what_it_uses(folder, data, capsys):
    for option in (["--word-splitter", "whitespace"], ["--language", "de"], ["--no-sentence-splitting"]):
        with pytest.raises(SystemExit) as exit_code:
            aspert_cli.main(["evaluate", str(folder), str(data), *option])
        assert exit_code.value.code == 2 and option[0] in capsys.readouterr().err


def test_evaluate_on_foreign_labels_tells_the_first_problem(folder, tmp_path, capsys):
    record = {"tokens": ["Argo"], "entities": [{"type": "Boat", "start": 0, "end": 1}], "relations": []}
    path = tmp_path / "boats.json"
    path.write_text(json.dumps([record] * 1501))
    assert aspert_cli.main(["evaluate", str(folder), str(path)]) == 2
    warning, message = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"warning: {path}: its entity types (Boat) are none of the model's (Person, ")
    assert message.startswith(f"error: 1501 problems, the first: {path}: record 0: entities[0].type = 'Boat': ")
    assert message.endswith(" (`aspert validate FILE` lists all)")
    assert message.count("'Boat'") <= 2 and len(message) < 300 + len(str(path))


def test_info_of_an_encoder_without_heads(tmp_path, capsys):
    encoder = FNetConfig(hidden_size=16, num_hidden_layers=2, intermediate_size=16, vocab_size=50)
    fields = {"entity_types": ["Place"], "attentional_contribution": False}
    AspertConfig(encoder_config=encoder, **fields).save_pretrained(tmp_path)
    assert aspert_cli.main(["info", str(tmp_path)]) == 0
    assert "fnet, 2 layers x 16\n" in capsys.readouterr().out


def test_info(folder, tmp_path, capsys):
    def info() -> dict[str, str]:
        assert aspert_cli.main(["info", str(model)]) == 0
        return dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())

    model = tmp_path / "model"
    shutil.copytree(folder, model)
    shown = {name: value.strip() for name, value in info().items()}
    parameters = sum(weights.numel() for weights in load_file(model / "model.safetensors").values())
    expected = {
        "parameters": f"{parameters:,}", "saved with": f"transformers {transformers.__version__}",
        "word shapes": "off", "entity threshold": "0.0", "entity overlap": "allow", "constraints": "off",
        "word splitter": "rules", "language": "en",
    }  # fmt: skip
    assert {name: shown[name] for name in expected} == expected
    assert "dev micro F1" not in shown and "test micro F1" not in shown
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(
        json.dumps({**config, "relation_type_constraints": {}, "entity_overlap": "flat"})
    )
    (model / "eval_results.json").write_text('{"eval_ner_micro_f1": 90.0, "eval_re_strict_micro_f1": 70.125}')
    (model / "test_results.json").write_text('{"test_ner_micro_f1": 1.0}')
    (model / "scores_test.json").write_text('{"ner_micro_f1": 80.0, "re_boundaries_micro_f1": 60.0}')
    shown = {name: value.strip() for name, value in info().items()}
    assert (shown["constraints"], shown["entity overlap"]) == ("on", "flat")
    assert shown["dev micro F1"] == "NER 90.00, RE strict 70.12"
    assert shown["test micro F1"] == "NER 80.00, RE boundaries 60.00"
    (model / "test_results.json").write_text('{"test_ner_micro_f1": "high"}')
    expected = f"error: {model}/test_results.json: test_ner_micro_f1 = 'high' is no number: evaluate the model again"
    assert failed(capsys, "info", model) == expected


def test_a_name_that_is_no_model_is_named(tmp_path, monkeypatch, capsys):
    def unreachable(*args, **kwargs):
        raise OSError("We cannot connect\nCheck your connection")

    monkeypatch.setattr(PretrainedConfig, "get_config_dict", unreachable)
    monkeypatch.chdir(tmp_path)
    expected = "error: nope: neither a folder here nor a model that the Hub gives (We cannot connect)"
    assert failed(capsys, "predict", "nope", "--text", "x") == expected
    assert failed(capsys, "info", "nope") == expected
    assert failed(capsys, "info", "nope", "--revision", "v1") == expected


def test_help_says_what_is_resumed_and_what_is_ignored(capsys):
    with pytest.raises(SystemExit):
        aspert_cli.main(["predict", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "the other formats begin anew" in said and "those that input records hold are ignored" in said
    assert "default: by the suffix of --output" in said


def test_predict_reads_columns_and_standard_input(folder, tmp_path):
    table = tmp_path / "in.csv"
    table.write_text('id,body\nx,"Marie married Pierre ."\n')
    output = tmp_path / "out.jsonl"
    assert aspert_cli.main(["predict", str(folder), str(table), "--column", "body", "--output", str(output)]) == 0
    assert lines(output)[0]["id"] == "x"
    command = [sys.executable, "-m", "aspert_cli", "predict", str(folder)]
    done = subprocess.run(command, cwd=ROOT, input="Marie married Pierre .\nStop\n", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["Marie married Pierre .", "Stop"]


def test_options_reach_the_model(folder, tmp_path):
    def relations(*options: str) -> list[dict]:
        output = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        text = " ".join(RECORDS[0]["tokens"])
        assert aspert_cli.main(["predict", str(folder), "--text", text, "--output", str(output), *options]) == 0
        return lines(output)[0]["relations"]

    assert len(relations("--relation-threshold", "0")) > len(relations("--relation-threshold", "0.9"))
    only = relations("--relation-threshold", "1", "--relation-threshold", "lives-in=0")
    assert {relation["type"] for relation in only} == {"lives-in"}


def test_progress_shows_rate_and_time_left(folder, tmp_path, capsys):
    source = tmp_path / "in.txt"
    source.write_text("Stop\n" * 3)
    command = ["predict", str(folder), str(source), "--output", str(tmp_path / "out.jsonl")]
    assert aspert_cli.main(command) == 0
    assert "records/s" not in capsys.readouterr().err
    assert aspert_cli.main([*command, "--progress"]) == 0
    last = capsys.readouterr().err.split("\r")[-1].partition("\n")[0]
    # 100%|█| 3/3 [elapsed<left, rate]
    assert re.search(r"100%.* 3/3 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+ records/s\]", last), last


def test_a_killed_prediction_goes_on(folder, tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("".join(f"Marie married Pierre in Paris number {number} .\n" for number in range(1000)))
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    command = [sys.executable, "-m", "aspert_cli", "predict", str(folder), str(source), "--output"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    subprocess.run([*command, str(whole)], cwd=ROOT, env=environment, check=True, capture_output=True)
    partial = killed.with_name(killed.name + ".partial")
    process = subprocess.Popen([*command, str(killed)], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (partial.exists() and partial.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.exists() and partial.exists()
    subprocess.run([*command, str(killed)], cwd=ROOT, env=environment, check=True, capture_output=True)
    assert killed.read_bytes() == whole.read_bytes()
    assert not partial.exists()


def interrupted(monkeypatch, records: int, *argv: str) -> None:
    """A command that is interrupted after so many records."""
    run = commands._run

    def some(*args, **kwargs):
        yield from itertools.islice(run(*args, **kwargs), records)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commands, "_run", some)
        assert aspert_cli.main(list(map(str, argv))) == 130


def test_an_interrupted_prediction_of_long_records_goes_on(folder, tmp_path, monkeypatch, capsys):
    """Chunks end at a million characters, here with every tenth record: what is kept ends there too."""
    source, whole, other = tmp_path / "in.txt", tmp_path / "whole.jsonl", tmp_path / "other.jsonl"
    source.write_text("".join(f"Marie married Pierre number {number} .{' ' * 100_000}\n" for number in range(32)))
    assert aspert_cli.main(["predict", str(folder), str(source), "--output", str(whole)]) == 0
    interrupted(monkeypatch, 27, "predict", folder, source, "--output", other)
    assert aspert_cli.main(["predict", str(folder), str(source), "--output", str(other)]) == 0
    assert "20 records are there from a run before" in capsys.readouterr().err
    assert other.read_bytes() == whole.read_bytes()


def pipe(monkeypatch, texts: list[str]) -> None:
    """Standard input of these lines."""
    content = "".join(f"{text}\n" for text in texts)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))


@pytest.mark.parametrize("records", [1, 5, 11, 20])
def test_chunks_of_a_resumed_run_are_those_of_a_whole_one(folder, tmp_path, monkeypatch, records):
    """Chunks of 4 inputs or 300 characters: the extractor is given the same lists, from the first unfinished one."""
    monkeypatch.setattr(commands, "CHUNK_INPUTS", 4)
    monkeypatch.setattr(extraction, "CHUNK_CHARACTERS", 300)
    sizes = [20, 20, 290, 20, 400, 20, 20, 20, 20, 20, 20, 280, 20, 20, 300, 20, 20, 20, 20, 20]
    ends = [3, 5, 9, 12, 15, 19, 20]
    source, whole, other = tmp_path / "in.jsonl", tmp_path / "whole.jsonl", tmp_path / "other.jsonl"
    words = [["Marie"] * (size // 5) for size in sizes]
    inputs = [{"tokens": tokens} if number % 3 else {"text": "".join(tokens)} for number, tokens in enumerate(words)]
    source.write_text("".join(f"{json.dumps(one)}\n" for one in inputs))
    seen = []
    run = commands._run

    def watched(extractor, chunks, as_words):
        chunks = list(chunks)
        seen.append([len(chunk) for chunk in chunks])
        return run(extractor, chunks, as_words)

    monkeypatch.setattr(commands, "_run", watched)
    options = ["--entity-threshold", "0.7", "--relation-threshold", "0.9", "--output"]
    assert aspert_cli.main(["predict", str(folder), str(source), *options, str(whole)]) == 0
    assert list(itertools.accumulate(seen[0])) == ends
    interrupted(monkeypatch, records, "predict", folder, source, *options, other)
    assert aspert_cli.main(["predict", str(folder), str(source), *options, str(other)]) == 0
    assert seen[2] == [size for size, end in zip(seen[0], ends) if end > records]
    assert other.read_bytes() == whole.read_bytes()


def test_resuming_standard_input_compares_it(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "CHUNK_INPUTS", 4)
    texts = [f"Marie married Pierre number {number} ." for number in range(12)]
    whole, output = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    argv = ["predict", str(folder), "--output", str(output)]
    pipe(monkeypatch, texts)
    assert aspert_cli.main([*argv[:3], str(whole)]) == 0
    pipe(monkeypatch, texts)
    interrupted(monkeypatch, 6, *argv)
    mend = f"give the same inputs, or delete {output}.partial to begin anew"
    for others, problem in [
        ([*texts[:3], "Stop", *texts[4:]], ": record 3 was made of another input than the present one: "),
        ([*texts[:5], "Stop", *texts[6:]], ": record 5 was made of another input than the present one: "),
        (texts[:4], " holds 6 records, but there are only 4 inputs: "),
    ]:
        pipe(monkeypatch, others)
        assert failed(capsys, *argv) == f"error: {output}.partial{problem}{mend}"
    pipe(monkeypatch, texts)
    assert aspert_cli.main(argv) == 0
    assert re.search(r": 4 records are there .*\n.*: 12 records written, format jsonl\n$", capsys.readouterr().err)
    assert output.read_bytes() == whole.read_bytes()


def test_memory_of_long_records(folder, tmp_path):
    """20 texts of 50 kB in chunks of 50 kB: the highest memory grows by a text's, not by that of all."""
    source = tmp_path / "in.txt"
    source.write_text(("Marie married Pierre in Paris . " * 1600 + "\n") * 20)
    script = """
import resource, sys
import aspert_cli
from modeling_aspert import Extractor, commands, extraction
extraction.CHUNK_CHARACTERS = 50_000
nothing = {"entities": [], "relations": []}
Extractor._annotate_chunk = lambda self, sentences: [dict(nothing) for _ in sentences]
run, peaks = commands._run, []
def watched(*args, **kwargs):
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    yield from run(*args, **kwargs)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
commands._run = watched
assert aspert_cli.main(["predict", *sys.argv[1:]]) == 0
print(peaks[1] - peaks[0])
"""
    command = [sys.executable, "-c", script, str(folder), str(source), "--output", str(tmp_path / "out.jsonl")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 12_000  # KiB; 30,000 and more in one chunk


def test_a_long_run_gives_freed_memory_back(folder, tmp_path, monkeypatch):
    """Between chunks, and not more often than it must."""
    monkeypatch.setattr(commands, "CHUNK_INPUTS", 2)
    source = tmp_path / "in.txt"
    source.write_text("Marie married Pierre .\n" * 10)
    trimmed = []
    monkeypatch.setattr(commands, "_trim_memory", lambda: trimmed.append(1))
    argv = ["predict", str(folder), str(source), "--output", str(tmp_path / "out.jsonl")]
    monkeypatch.setattr(commands, "_TRIM_SECONDS", 3600)
    assert aspert_cli.main(argv) == 0
    assert not trimmed
    monkeypatch.setattr(commands, "_TRIM_SECONDS", 0)
    assert aspert_cli.main(argv) == 0
    assert len(trimmed) == 5


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory and can be asked for it")
def test_freed_memory_goes_back_to_the_system():
    """128 MiB of small blocks below one that stays: freed, they are still the process's, and then no more."""
    script = """
import torch
from modeling_aspert import commands
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4 // 1024
blocks = [torch.ones(2**14) for _ in range(2048)]
del blocks[:-1]
before = resident()
commands._trim_memory()
print(before - resident())
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


def test_a_metric_that_there_is_not_is_refused_at_once(folder, data, monkeypatch, capsys):
    monkeypatch.setattr(commands, "load_saved", None)
    message = failed(capsys, "learn-thresholds", folder, data, "--metric", "f1")
    assert message.startswith("error: metric = 'f1' is not valid: choose one of ner_micro_precision, ")


def test_inputs_that_were_mended_go_on(folder, tmp_path, monkeypatch, capsys):
    """As an error asks for: the file is another, but what was done of it is the same."""
    monkeypatch.setattr(commands, "CHUNK_INPUTS", 2)
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    records = [json.dumps({"text": f"Marie married Pierre number {number} ."}) for number in range(6)]
    source.write_text("\n".join([*records[:5], '{"text": 5}']))
    argv = "predict", folder, source, "--output", output
    assert "line 6: 'text' is a number, give a string" in failed(capsys, *argv)
    source.write_text("\n".join(records))
    assert aspert_cli.main([*map(str, argv)]) == 0
    assert "4 records are there from a run before" in capsys.readouterr().err
    assert [record["text"][-3] for record in lines(output)] == list("012345")


def test_resuming_with_a_model_trained_anew_is_refused(folder, tmp_path, monkeypatch, capsys):
    model, source, output = tmp_path / "model", tmp_path / "in.txt", tmp_path / "out.jsonl"
    shutil.copytree(folder, model)
    source.write_text("Marie married Pierre .\n" * 3)
    argv = "predict", model, source, "--output", output
    interrupted(monkeypatch, 2, *argv)
    os.utime(model / "model.safetensors", (0, 0))
    assert "was begun with" in failed(capsys, *argv)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "processor_config.json", "spans.onnx"])
def test_resuming_with_a_changed_file_of_the_model_is_refused(folder, tmp_path, monkeypatch, capsys, file):
    model, source, output = tmp_path / "model", tmp_path / "in.txt", tmp_path / "out.jsonl"
    shutil.copytree(folder, model)
    source.write_text("Marie married Pierre .\n" * 3)
    argv = "predict", model, source, "--output", output
    interrupted(monkeypatch, 2, *argv)
    monkeypatch.setattr(commands, "is_export", lambda folder: False)
    with open(model / file, "a") as changed:
        changed.write("\n")
    message = failed(capsys, *argv)
    assert "was begun with model files {" in message or "model files null" in message
    assert str(model / file) in message and "give the same settings" in message


def test_an_output_in_the_folder_of_its_inputs_goes_on(folder, tmp_path, monkeypatch):
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(12):
        (texts / f"{number:02}.txt").write_text(f"Marie married Pierre number {number} .")
    whole = tmp_path / "whole.jsonl"
    assert aspert_cli.main(["predict", str(folder), str(texts), "--output", str(whole)]) == 0
    monkeypatch.setattr(commands, "CHUNK_INPUTS", 4)
    argv = "predict", folder, texts, "--output", texts / "out.jsonl"
    interrupted(monkeypatch, 6, *argv)
    assert aspert_cli.main([*map(str, argv)]) == 0
    assert (texts / "out.jsonl").read_bytes() == whole.read_bytes()


def test_an_output_that_is_an_input_is_refused(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "load", None)
    monkeypatch.chdir(tmp_path)
    dygie = '{"doc_key": "d", "sentences": [["Ann"]], "ner": [[[0, 0, "Person"]]], "relations": [[]]}\n'
    contents = {"in.jsonl": '{"text": "Ann"}\n', "x.html": "Ann\n", "texts/a.txt": "Ann\n", "f.jsonl": dygie}
    contents |= {"b.txt": "Ann\n", "b.ann": "T1\tPerson 0 3\tAnn\n", "spert/config.json": "{}"}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "link.jsonl").symlink_to("in.jsonl")
    for command in (
        "predict m in.jsonl --output in.jsonl",
        "predict m in.jsonl --output link.jsonl",
        "predict m texts --output texts/a.txt",
        "show m x.html --output ./x.html",
        "convert dygie f.jsonl f.jsonl",
        "convert dygie f.jsonl out.json --types-output out.json",
        "convert dygie f.jsonl out.json --types-output f.jsonl",
        "convert brat b.txt out.json --types-output b.ann",
        "convert brat . out.json --types-output b.txt",
        "import-spert spert --types t.json --output spert",
    ):
        assert "which would be overwritten: " in failed(capsys, *command.split()), command
    assert {name: (tmp_path / name).read_text() for name in contents} == contents
    assert not (tmp_path / "out.json").exists()


def test_a_model_is_not_exported_over_another(folder, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    before = {file.name: file.read_bytes() for file in other.iterdir()}
    assert f"{other} holds a model" in failed(capsys, "export-onnx", folder, "--output", other)
    assert {file.name: file.read_bytes() for file in other.iterdir()} == before


def test_validate_goes_on_after_a_file_that_cannot_be_read(tmp_path, capsys):
    (tmp_path / "a.json").write_text("")
    (tmp_path / "b.json").write_text("[{}]")
    assert aspert_cli.main(["validate", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 2
    said = capsys.readouterr()
    assert "a.json: the file is empty" in said.out and "b.json: 1 record, " in said.out
    assert said.err == "error: files with errors: 2 of 2\n"


def test_nothing_to_do_is_said(folder, tmp_path, capsys):
    for name, content in (("a.jsonl", ""), ("a.json", "[]"), ("a.csv", "text\n"), ("a.txt", "")):
        (tmp_path / name).write_text(content)
        output = tmp_path / f"{name}.jsonl"
        assert aspert_cli.main(["predict", str(folder), str(tmp_path / name), "--output", str(output)]) == 0
        said = f"{output}: 0 records written, format jsonl"
        warning = f"warning: {tmp_path / name}: no record, there was nothing to do"
        assert capsys.readouterr().err.splitlines() == [warning, said]
        assert output.read_bytes() == b""


def test_a_device_that_is_none_is_named(folder, capsys):
    message = failed(capsys, "predict", folder, "--text", "x", "--device", "foo")
    assert message.startswith("error: --device foo cannot be used (") and message.endswith(
        "choose cpu, cuda, cuda:1, mps ..."
    )


def test_resuming_with_other_options_is_refused(folder, tmp_path, capsys):
    source, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("Stop\n")
    assert aspert_cli.main(["predict", str(folder), str(source), "--output", str(output)]) == 0
    settings = {"model": "another", "options": {}}
    output.with_name("out.jsonl.partial").write_text("{}\n")
    output.with_name("out.jsonl.partial.json").write_text(json.dumps(settings))
    assert "was begun with" in failed(capsys, "predict", folder, source, "--output", output)


def test_evaluate(folder, data, tmp_path, capsys):
    assert aspert_cli.main(["evaluate", str(folder), str(data), "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "RE boundaries" in said.out
    assert said.err.endswith(
        f"{tmp_path / 'out'}: scores, predictions and a page of errors of 4 records written (scores_data.json, "
        "predictions_data.jsonl, error_analysis_data.html)\n"
    )
    scores = json.loads((tmp_path / "out" / "scores_data.json").read_text())
    assert {"ner_micro_f1", "re_strict_macro_f1", "per_type"} <= set(scores)
    assert len(lines(tmp_path / "out" / "predictions_data.jsonl")) == len(RECORDS)
    assert (tmp_path / "out" / "error_analysis_data.html").read_text().startswith("<!doctype html>")


def test_predict_on_raw_sentences_equals_the_evaluation(folder, tmp_path):
    """Words joined by blanks, split at blanks again: the evaluation's entities and relations, sentence by sentence."""
    hard = "Dr. Ada didn't leave Paris-Orly . \u201cNo !\u201d said Marie ? 1,250.5 l'Italie U.S. a\u0301 \U0001f98a Stop . . ."
    gold = [record["tokens"] for record in RECORDS] + [hard.split(), ["Marie"], hard.lower().split() * 3]
    source, annotated = tmp_path / "raw.txt", tmp_path / "gold.json"
    source.write_text("".join(" ".join(words) + "\n" for words in gold), encoding="utf-8")
    annotated.write_text(json.dumps([{"tokens": words, "entities": [], "relations": []} for words in gold]))
    assert aspert_cli.main(["evaluate", str(folder), str(annotated), "--output", str(tmp_path / "out")]) == 0
    output = tmp_path / "raw.jsonl"
    options = ["--word-splitter", "whitespace", "--no-sentence-splitting", "--output", str(output)]
    assert aspert_cli.main(["predict", str(folder), str(source), *options]) == 0

    def facts(record, entities):
        """Entities and relations with scores, by what they are about."""
        found = {entity: one["score"] for entity, one in zip(entities, record["entities"])}
        for one in record["relations"]:
            found[one["type"], entities[one["head"]], entities[one["tail"]]] = one["score"]
        return found

    evaluated, predicted = lines(tmp_path / "out" / "predictions_gold.jsonl"), lines(output)
    assert len(evaluated) == len(predicted) == len(gold)
    n_facts = 0
    for words, ours, raw in zip(gold, evaluated, predicted):
        assert ours["tokens"] == words and raw["text"] == " ".join(words)
        # the number of the word that begins at a character, and of the one behind the word that ends at it
        starts, ends, position = {}, {}, 0
        for number, word in enumerate(words):
            starts[position], ends[position + len(word)] = number, number + 1
            position += len(word) + 1
        expected = facts(ours, [(one["type"], one["start"], one["end"]) for one in ours["entities"]])
        found = facts(raw, [(one["type"], starts[one["start"]], ends[one["end"]]) for one in raw["entities"]])
        assert found == pytest.approx(expected, abs=1e-5)
        n_facts += len(expected)
    assert n_facts > 100


def test_validate(data, tmp_path, capsys):
    types = str(tmp_path / "types.json")
    assert aspert_cli.main(["validate", str(data), "--types", types]) == 0
    out = capsys.readouterr().out
    assert "4 records, 0 errors" in out
    # of the types file, also the types that do not occur
    types_of = {
        kind: Counter(one["type"] for record in RECORDS for one in record[kind]) for kind in ("entities", "relations")
    }
    for kind, counted in types_of.items():
        (line,) = (line for line in out.splitlines() if line.startswith(f"  {kind}: "))
        found = {name: int(count) for name, count in re.findall(r"(\S+) (\d+)(?:,|$)", line.partition(": ")[2])}
        assert found == {**dict.fromkeys(TYPES[kind], 0), **counted}
    copy = tmp_path / "test.json"
    copy.write_text(json.dumps([{**RECORDS[0], "tokens": ["Other", *RECORDS[0]["tokens"]]}, *RECORDS[1:3]]))
    assert aspert_cli.main(["validate", str(data), str(copy)]) == 0
    said = (
        f"warning: {copy}: tokens: 2 of 3 sentences stand in {data}, too (NAMES); leave them out of one of the two\n"
    )
    names = [f"orig_id {one['orig_id']!r}" if one.get("orig_id") else f"record {n}" for n, one in enumerate(RECORDS)]
    said = said.replace("NAMES", ", ".join(names[1:3]))
    assert capsys.readouterr().out.endswith(said)
    broken = [{**RECORDS[0], "entities": [{"type": "Persn", "start": 0, "end": 99}]}]
    data.write_text(json.dumps(broken))
    assert aspert_cli.main(["validate", str(data), "--types", types]) == 2
    out = capsys.readouterr().out
    assert "data.json" in out and "record 0" in out and "entities[0]" in out and "'Person'" in out


def test_commands_on_data_import_nothing_heavy(data, tmp_path):
    doccano = tmp_path / "doccano.jsonl"
    doccano.write_text(json.dumps({"id": 1, "text": "Ann sings.", "entities": [], "relations": []}))
    commands = [
        ["validate", str(data)],
        ["convert", "doccano", str(doccano), str(tmp_path / "converted.json")],
        ["split", str(data), "--output", str(tmp_path / "splits"), "--by", "sentence"],
    ]
    code = "import aspert_cli, sys; print(aspert_cli.main(sys.argv[1:]), 'torch' in sys.modules, 'transformers' in sys.modules)"
    for command in commands:
        done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, cwd=ROOT)
        assert done.stdout.splitlines()[-1:] == ["0 False False"], done


def test_validate_folds_what_is_alike(tmp_path, capsys):
    """Records of doccano: one cause, one line."""
    path = tmp_path / "doccano.jsonl"
    path.write_text("".join(json.dumps({"text": "Ann", "entities": [[0, 3, "PER"]]}) + "\n" for _ in range(300)))
    assert aspert_cli.main(["validate", str(path)]) == 2
    said = capsys.readouterr()
    error, summary = said.out.splitlines()
    assert error.startswith(f"error: {path}: record 0: tokens: the key is missing: the record holds a text")
    assert error.endswith(", or aspert for what `aspert predict` wrote (300 such problems, this is the first)")
    assert summary == f"{path}: 300 records, 300 errors, 0 warnings"
    path.write_text("{\n" * 30)
    assert aspert_cli.main(["validate", str(path)]) == 2
    assert len(capsys.readouterr().out.splitlines()) == 30  # each names its line
    (tmp_path / "types.json").write_text('{"entities": {"none": {}}, "relations": []}')
    assert aspert_cli.main(["validate", str(path), "--types", str(tmp_path / "types.json")]) == 2
    first, second, last = capsys.readouterr().err.splitlines()
    assert "types.json: entities.none: a reserved name" in first and "relations: a list" in second
    assert last == "error: 2 problems: nothing was done"


def test_convert_tells_all_problems(tmp_path, capsys):
    """Up to 20 lines, and the number of the others."""
    (tmp_path / "a.txt").write_text("Ann sings")
    for count, shown, rest in ((2, 2, []), (25, 20, ["… and 5 more"])):
        lines = [f"T{n}\tPerson 0 {n + 3}\tBob" for n in range(1, count + 1)]
        (tmp_path / "a.ann").write_text("\n".join(lines))
        assert aspert_cli.main(["convert", "brat", str(tmp_path / "a.txt"), str(tmp_path / "out.json")]) == 2
        said = capsys.readouterr().err.splitlines()
        assert said[shown:] == [*rest, f"error: {count} problems: nothing was done"]
        assert all(f"a.ann: line {n} = 'Person 0 {n + 3}'" in said[n - 1] for n in range(1, shown + 1))
    assert not (tmp_path / "out.json").exists()


def test_convert_and_info_and_show(folder, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("Marie married Pierre .\n")
    (tmp_path / "a.ann").write_text(
        "T1\tPerson 0 5\tMarie\nT2\tPerson 14 20\tPierre\nR1\tmarried-to Arg1:T1 Arg2:T2\n"
    )
    output = tmp_path / "a.json"
    command = ["convert", "brat", str(tmp_path / "a.txt"), str(output), "--types-output", str(tmp_path / "t.json")]
    assert aspert_cli.main([*command, "--symmetric", "married-to"]) == 0
    said = f"{output}: 1 sentences, 2 entities, 1 relations\n  entities: Person 2\n  relations: married-to 1\n"
    assert capsys.readouterr().out == said
    assert json.loads((tmp_path / "t.json").read_text())["relations"]["married-to"]["symmetric"] is True
    assert aspert_cli.main(["info", str(folder)]) == 0
    assert "married-to (symmetric)" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert (
        aspert_cli.main(["show", str(folder), "--text", "<script>alert(1)</script> Marie", "--output", str(page)]) == 0
    )
    assert "<script>alert(1)" not in page.read_text()


def test_learn_thresholds_tells_the_score_before_and_after(tmp_path, data, capsys):
    """As `evaluate` gives them with the thresholds of before and with those that were stored."""
    folder = tmp_path / "model"
    make_model().save_pretrained(folder)
    make_processor().save_pretrained(folder)
    metric = "ner_micro_f1"

    def score() -> float:
        assert aspert_cli.main(["evaluate", str(folder), str(data), "--output", str(tmp_path / "out")]) == 0
        capsys.readouterr()
        return json.loads((tmp_path / "out" / "scores_data.json").read_text())[metric]

    before = score()
    assert aspert_cli.main(["learn-thresholds", str(folder), str(data), "--metric", metric]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    after = score()
    assert said == f"{metric} on {data}: {after:.2f} (before: {before:.2f})" and after >= before


def test_learn_constraints(tmp_path, data, capsys):
    folder = tmp_path / "model"
    make_model().save_pretrained(folder)
    assert aspert_cli.main(["learn-constraints", str(folder), str(data)]) == 0
    assert "works-for: Person -> Company" in capsys.readouterr().out
    config = json.loads((folder / "config.json").read_text())
    assert config["relation_type_constraints"]["works-for"] == [["Person", "Company"]]
    # the code of the pipeline still travels with the folder
    assert "custom_pipelines" in config and "auto_map" in config


def test_learn_constraints_checks_its_data(tmp_path, data, capsys):
    folder = tmp_path / "model"
    make_model().save_pretrained(folder)
    before = (folder / "config.json").read_bytes()
    person, place = ({"type": kind, "start": n, "end": n + 1} for n, kind in enumerate(("Person", "Place")))
    good = {"tokens": ["Ada", "Paris"], "entities": [person, place], "relations": []}
    for change, problem in (
        ({"entities": None}, "entities"),
        ({"relations": [{"type": "lives-in", "head": 0, "tail": 9}]}, "relations[0].tail = 9: no such entity"),
        ({"relations": [{"type": "lives-in", "head": -1, "tail": 0}]}, "relations[0].head = -1: negative"),
        ({"entities": [{**person, "type": "Boat"}]}, "entities[0].type = 'Boat': an unknown entity type"),
        (
            {"relations": [{"type": "eats", "head": 0, "tail": 1}]},
            "relations[0].type = 'eats': an unknown relation type",
        ),
        ({"entities": [{**person, "end": 99}]}, "entities[0].end = 99: past the end"),
        ({"entities": [{**person, "start": "0"}]}, "entities[0].start = '0': a string"),
    ):
        data.write_text(json.dumps([{**good, **change}]))
        assert f"{data}: record 0: {problem}" in failed(capsys, "learn-constraints", folder, data)
    data.write_text("[]")
    assert f"{data}: there is no record" in failed(capsys, "learn-constraints", folder, data)
    data.write_text(json.dumps([{**good, "entities": []}]))
    for command in ("learn-constraints", "learn-thresholds"):
        assert f"{data}: no entities, from which nothing can be learnt" in failed(capsys, command, folder, data)
    for command in ("info", "predict"):
        other = ["--text", "x"] if command == "predict" else []
        assert f"{data}: a file, not the folder of a model" in failed(capsys, command, data, *other)
    assert (folder / "config.json").read_bytes() == before
    data.write_text(json.dumps([good]))
    (folder / "config.json").write_text('{"a')
    assert f"{folder}/config.json: no JSON (" in failed(capsys, "learn-constraints", folder, data)


def test_an_output_of_no_name_is_refused(folder, data, capsys):
    for output in ("-", ""):
        for command in (["predict", folder, "--text", "x"], ["show", folder, "--text", "x"]):
            assert f"--output {output!r} is no name of a file" in failed(capsys, *command, "--output", output)


def test_errors_are_one_line(folder, data, tmp_path, capsys):
    assert "no such folder" in failed(capsys, "predict", tmp_path / "nothing", "--text", "x")
    assert "nothing.txt" in failed(capsys, "predict", folder, tmp_path / "nothing.txt")
    assert "relation types are" in failed(capsys, "predict", folder, "--text", "x", "--relation-threshold", "a=0.5")
    assert "entity_threshold" in failed(capsys, "predict", folder, "--text", "x", "--entity-threshold", "3")
    assert "needs --output" in failed(capsys, "predict", folder, "--text", "x", "--format", "csv")
    assert "not both" in failed(capsys, "predict", folder, data, "--text", "x")
    assert "word splitter" in failed(capsys, "predict", folder, "--text", "x", "--word-splitter", "spaces")
    assert "language" in failed(capsys, "predict", folder, "--text", "x", "--language", "xx")
    assert "no SpERT weights" in failed(capsys, "import-spert", tmp_path, "--types", data, "--output", tmp_path / "o")
    bad = tmp_path / "bad.json"
    bad.write_text('[{"tokens": ["a"')
    assert "bad.json" in failed(capsys, "evaluate", folder, bad)
    with pytest.raises(SystemExit) as exit_code:
        aspert_cli.main(["predict", str(folder), "--format", "nothing"])
    assert exit_code.value.code == 2


def test_import_spert(spert_reference, corpora, tmp_path, capsys):
    """From SpERT's checkpoint through the command line to SpERT's own predictions."""
    output = tmp_path / "model"
    types = spert_reference / "conll04_types.json"
    assert aspert_cli.main(["import-spert", str(spert_reference), "--types", str(types), "--output", str(output)]) == 0
    test = corpora / "conll04" / "conll04_test.json"
    assert aspert_cli.main(["predict", str(output), str(test), "--output", str(tmp_path / "p.jsonl")]) == 0
    reference = json.loads((spert_reference / "predictions_test.json").read_text())
    predicted = lines(tmp_path / "p.jsonl")
    assert len(predicted) == len(reference) == 288

    def entries(record):
        entities = {(one["start"], one["end"], one["type"]): one["score"] for one in record["entities"]}
        relations = {(one["head"], one["tail"], one["type"]): one["score"] for one in record["relations"]}
        return entities, relations

    for ours, theirs in zip(predicted, reference):
        for mine, other in zip(entries(ours), entries(theirs)):
            assert mine.keys() == other.keys()
            assert all(abs(mine[key] - other[key]) < 1e-4 for key in mine)


def test_a_traceback_on_request(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASPERT_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        aspert_cli.main(["info", str(tmp_path / "nothing")])
    monkeypatch.delenv("ASPERT_TRACEBACK")
    assert aspert_cli.main(["info", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_convert_by_sentences(tmp_path, capsys):
    """Predictions of a text are converted by the sentences that they were made of."""
    text = "Ann lives in Rome. Bob moved to Oslo."
    entities = [{"id": 0, "type": "Person", "text": "Bob", "start": 19, "end": 22, "score": 0.9}]
    path, output = tmp_path / "predicted.jsonl", tmp_path / "out.json"
    path.write_text(json.dumps({"text": text, "entities": entities, "relations": []}))
    command = ["convert", "aspert", str(path), str(output)]
    for more, sentences in ((), 1), (("--split-sentences",), 2), (("--split-sentences", "--language", "de"), 2):
        assert aspert_cli.main([*command, *more]) == 0
        assert len(json.loads(output.read_text())) == sentences
    capsys.readouterr()
    assert aspert_cli.main([*command, "--language", "de"]) == 2
    assert "--language de is for --split-sentences: add it" in capsys.readouterr().err
    assert aspert_cli.main([*command, "--split-sentences", "--language", "xx"]) == 2
    assert "no sentence rules for language 'xx'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def voters(tmp_path_factory) -> list[Path]:
    """Models that agree on some entities only."""
    folders = [tmp_path_factory.mktemp(f"voter_{seed}") for seed in range(3)]
    for seed, folder in enumerate(folders):
        make_model(seed=seed, entity_threshold=0.6).save_pretrained(folder)
        make_processor().save_pretrained(folder)
    return folders


def test_models_vote(voters, data, tmp_path, capsys):
    """Predictions, scores and pages are those of the vote."""
    first, *others = (str(folder) for folder in voters)
    votes = [word for other in others for word in ("--vote", other)]
    for number, folder in enumerate(voters):
        assert aspert_cli.main(["predict", str(folder), str(data), "--output", str(tmp_path / f"{number}.jsonl")]) == 0
    each = [lines(tmp_path / f"{number}.jsonl") for number in range(3)]
    output, table, page = (tmp_path / name for name in ("voted.jsonl", "voted.parquet", "voted.html"))
    assert aspert_cli.main(["predict", first, *votes, str(data), "--output", str(output)]) == 0
    expected = [{**records[0], **vote(records)} for records in zip(*each, strict=True)]
    assert lines(output) == expected
    assert lines(output) not in each
    assert aspert_cli.main(["predict", first, str(data), *votes, "--output", str(table)]) == 0
    rows = pyarrow.parquet.read_table(table).to_pylist()
    assert [len(row["entities"]) for row in rows] == [len(record["entities"]) for record in expected]
    assert aspert_cli.main(["evaluate", first, str(data), *votes, "--output", str(tmp_path / "scores")]) == 0
    assert [record["entities"] for record in lines(tmp_path / "scores" / "predictions_data.jsonl")] == [
        record["entities"] for record in expected
    ]
    assert aspert_cli.main(["show", first, str(data), *votes, "--output", str(page)]) == 0
    loaded = commands.load(aspert_cli.build_parser().parse_args(["show", first, *votes, "--output", str(page)]))
    found = loaded.extract({"tokens": record["tokens"]} for record in expected)
    drawn = [{"id": record["orig_id"], **one} for record, one in zip(expected, found, strict=True)]
    symmetric = loaded.model.config.symmetric_relations
    assert page.read_text(encoding="utf-8") == visualize(drawn, symmetric_relations=symmetric).html


def test_a_stopped_run_goes_on_with_the_same_voters_only(voters, tmp_path, monkeypatch, capsys):
    first, second, third = voters
    texts, output = tmp_path / "texts.txt", tmp_path / "out.jsonl"
    texts.write_text("Ada met Marie.\n" * 10)
    monkeypatch.setattr(commands, "CHUNK_INPUTS", 4)
    command = ["predict", first, texts, "--output", output, "--vote"]
    interrupted(monkeypatch, 6, *command, second)
    assert "model files" in failed(capsys, *command, third)
    assert aspert_cli.main([*map(str, command), str(second)]) == 0
    assert "going on after them" in capsys.readouterr().err and len(lines(output)) == 10


def test_what_does_not_vote_together(folder, voters, data, tmp_path, capsys):
    make_model(relation_types=["works-for"], symmetric_relations=[]).save_pretrained(tmp_path / "other")
    make_processor().save_pretrained(tmp_path / "other")
    message = failed(capsys, "evaluate", folder, data, "--vote", tmp_path / "other")
    assert (
        f"{tmp_path / 'other'} has the relation_types ['works-for'], and the first of the models that vote ["
        in message
    )
    message = failed(capsys, "evaluate", folder, data, "--vote", tmp_path / "nothing")
    assert message == f"error: {tmp_path / 'nothing'}: no such folder"
    first, second, _ = voters
    again = first / ".." / first.name
    for twice in ((first,), (again,), (second, second)):
        votes = [word for name in twice for word in ("--vote", name)]
        assert f"--vote {twice[-1]}: it is among the models already" in failed(capsys, "evaluate", first, data, *votes)
    # the scores of a vote are no model's
    for place in (first, second):
        message = failed(capsys, "evaluate", first, data, "--vote", second, "--output", place)
        assert f"--output {place} holds a model" in message and not (place / "scores_data.json").exists()
    # the revision is that of the first model, here a folder, which has none
    assert f"but {first} is a folder" in failed(
        capsys, "evaluate", first, data, "--vote", second, "--revision", "main"
    )


def test_split_writes_a_folder_to_train_on(tmp_path, capsys):
    """The types file is copied as it is; what the splits lack is said, and nothing is overwritten."""
    records = [
        {
            "tokens": ["Ann", "met", str(number // 2)],
            "entities": [{"type": "Person", "start": 0, "end": 1}, {"type": "Day", "start": 2, "end": 3}],
            "relations": [{"type": "On", "head": 0, "tail": 1}] if number < 2 else [],
            "orig_id": f"text_{number // 2}_{number % 2}",
        }
        for number in range(20)
    ]
    path, types, folder = tmp_path / "a.json", tmp_path / "types.json", tmp_path / "new/folder"
    path.write_text(json.dumps(records))
    types.write_text('{"entities": {"Day": {}, "Person": {}}, "relations": {"On": {"symmetric": true}}}')
    command = ["split", str(path), "--output", str(folder)]
    assert aspert_cli.main([*command, "--types", str(types), "--dev", "0.2"]) == 0
    said = capsys.readouterr()
    assert (folder / "types.json").read_bytes() == types.read_bytes()
    data = data_scripts.load(folder)
    assert {name: len(part) for name, part in data.items()} == {"train": 14, "dev": 4, "test": 2}
    assert sorted(name for part in data.values() for name in part["orig_id"]) == sorted(r["orig_id"] for r in records)
    assert f"{folder}/dev.json: 4 of 20 records\n  entities: Day 4, Person 4\n  relations: " in said.out
    assert "10 of 20 sentences stand in the file before" in said.err
    assert aspert_cli.main(command) == 2
    assert f"{folder}/train.json is there already, and would be overwritten" in capsys.readouterr().err
    # another seed takes the document with the only relations, which train then lacks
    for seed in range(50):
        if "On" not in json.dumps(data_scripts.split_records(records, dev=0, test=0.5, seed=seed)["train"]):
            break
    other = tmp_path / "other"
    command[-1] = str(other)
    assert aspert_cli.main([*command, "--dev", "0", "--test", "0.5", "--seed", str(seed)]) == 0
    said = capsys.readouterr().err
    assert f"warning: {other}/test.json: relations.type = 'On': does not occur in {other}/train.json" in said
    assert f"warning: {other}/types.json: no relation is symmetric; name a types file" in said
    assert sorted(path.name for path in other.iterdir()) == ["test.json", "train.json", "types.json"]


def test_split_beside_its_input(tmp_path, capsys):
    """What `convert` wrote into a folder is split in that folder; files that are not written may be there."""
    records = [{"tokens": [f"w{number}"], "entities": [], "relations": []} for number in range(10)]
    records[0]["entities"] = [{"type": "Person", "start": 0, "end": 1}]
    (tmp_path / "all.json").write_text(json.dumps(records))
    (tmp_path / "dev.json").write_text("[]")
    types = tmp_path / "types.json"
    types.write_text('{"entities": {"Person": {}}, "relations": {}}')
    command = ["split", str(tmp_path / "all.json"), "--output", str(tmp_path), "--types", str(types)]
    assert f"{tmp_path}/dev.json is there already" in failed(capsys, *command)
    assert aspert_cli.main([*command, "--dev", "0"]) == 0
    assert types.read_text() == '{"entities": {"Person": {}}, "relations": {}}'
    assert [len(json.loads((tmp_path / f"{name}.json").read_text())) for name in ("train", "dev", "test")] == [9, 0, 1]
    assert "train.json is there already" in failed(capsys, "split", tmp_path / "train.json", "--output", tmp_path)


def test_split_says_where_documents_are_large(tmp_path, capsys):
    entities = [{"type": "A", "start": 0, "end": 1}]
    records = [
        {"tokens": [f"{name}{n}"], "entities": entities, "relations": [], "orig_id": f"{name}_{n}"}
        for name in ("ace", "bio", "web")
        for n in range(30)
    ]
    (tmp_path / "all.json").write_text(json.dumps(records))
    command = ["split", str(tmp_path / "all.json"), "--output"]
    assert aspert_cli.main([*command, str(tmp_path / "a")]) == 0
    said = capsys.readouterr().err
    assert (
        f"{tmp_path}/a/dev.json: 33% of the records, not 10%: the documents are few or large; split by sentence"
        in said
    )
    assert aspert_cli.main([*command, str(tmp_path / "b"), "--by", "sentence"]) == 0
    assert capsys.readouterr().err == ""


def test_split_writes_nothing_where_it_cannot(tmp_path, capsys):
    path, folder = tmp_path / "a.json", tmp_path / "out"
    record = {"tokens": ["Ann"], "entities": [{"type": "Person", "start": 0, "end": 1}], "relations": []}
    for content, options, said in (
        ([record] * 4, (), f"{path}: 4 records of 1 document cannot be split into 3 parts: add data"),
        ([record], ("--dev", "0.5", "--test", "0.5"), f"{path}: dev = 0.5 and test = 0.5 are not valid"),
        ([{**record, "tokens": []}], (), "record 0: tokens = []: the sentence is empty"),
        ([{**record, "entities": []}] * 4, (), f"{path}: no entities, and so no types"),
    ):
        path.write_text(json.dumps(content))
        assert said in failed(capsys, "split", path, "--output", folder, *options)
        assert not folder.exists()


def test_validate_draws_what_is_sound(tmp_path, capsys):
    records = [
        {
            "tokens": ["Ann", "lives", "in", "Rome"],
            "entities": [{"type": "Person", "start": 0, "end": 1}, {"type": "Place", "start": 3, "end": 4}],
            "relations": [{"type": "Lives_In", "head": 0, "tail": 1}],
        }
    ]
    good, bad, page = tmp_path / "good.json", tmp_path / "bad.json", tmp_path / "page.html"
    good.write_text(json.dumps(records))
    bad.write_text(json.dumps([{**records[0], "tokens": ["Bert"]}]))
    assert aspert_cli.main(["validate", str(bad), str(good), "--page", str(page)]) == 2
    assert f"1 records drawn in {page}" in capsys.readouterr().out
    drawn = page.read_text()
    assert "Lives_In" in drawn and "Rome" in drawn and "Bert" not in drawn
    for wrong, said in ((good, "good.json"), (tmp_path / "page.csv", "name it page.html")):
        assert aspert_cli.main(["validate", str(good), "--page", str(wrong)]) == 2
        assert said in capsys.readouterr().err
    assert json.loads(good.read_text()) == records
