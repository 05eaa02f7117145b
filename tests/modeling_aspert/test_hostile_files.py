"""Folders of models and encoders from strangers: no code runs, no other file is opened, one error names the file."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

import aspert_cli
import data_scripts
import train
from modeling_aspert import AspertConfig, AspertForJointExtraction, AspertProcessor, model_files
from modeling_aspert.processing_aspert import candidate_spans, lowercases
from modeling_aspert.saved_models import is_trained, load_saved
from tests.training_corpus import TYPES, make_corpus, make_encoder

ROOT = Path(__file__).resolve().parents[2]
TRAP = "open({canary!r}, 'w').close()\nclass T: pass\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny.make_model().save_pretrained(tmp_path / "model")
    tiny.make_processor().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def whole_export(tmp_path_factory) -> Path:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    from modeling_aspert.onnx_export import export_onnx

    folder = tmp_path_factory.mktemp("onnx") / "export"
    export_onnx(tiny.make_model(), tiny.make_processor(), folder)
    return folder


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    make_corpus(tmp_path / "data", 6, 2, 2)
    return make_encoder(tmp_path / "encoder")


def edit(file: Path, **fields: Any) -> None:
    """Set fields of a JSON file; a double underscore goes into an object."""
    values = json.loads(file.read_text())
    for name, value in fields.items():
        outer, _, inner = name.partition("__")
        (values[outer] if inner else values)[inner or outer] = value
    file.write_text(json.dumps(values))


def predict(model: Path, *options: str) -> list[str]:
    return ["aspert", "predict", str(model), *(options or ("--text", "Ada"))]


def training(encoder: Path) -> list[str]:
    data, output = encoder.parent / "data", encoder.parent / "output"
    return [
        "train.py",
        "--dataset",
        str(data),
        "--encoder",
        str(encoder),
        "--output_dir",
        str(output),
        "--use_cpu",
        "1",
    ]


def refusal(command: list[str], capsys: Any, monkeypatch: Any) -> str:
    """What is said on one line, with nothing printed."""
    if command[0] == "aspert":
        code = aspert_cli.main(command[1:])
    else:
        monkeypatch.setattr(sys, "argv", command)
        code = train.main()
    out, err = capsys.readouterr()
    assert code == 2 and not out and "Traceback" not in err, err
    return [line for line in err.splitlines() if line.startswith("error: ")][-1]


# -- code ----------------------------------------------------------------------------------------------------------


def in_a_process(command: list[str], canary: Path, code: int = 2) -> str:
    """The last line of a command whose stdin says `y`; neither code nor stdin may have been touched."""
    program = ["-m", "aspert_cli"] if command[0] == "aspert" else [str(ROOT / command[0])]
    read, write = os.pipe()
    os.write(write, b"y\ny\nMarie\n")
    os.close(write)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(canary.parent / "modules")}
    done = subprocess.run(
        [sys.executable, *program, *command[1:]], cwd=ROOT, stdin=read, capture_output=True, text=True, env=environment
    )
    left = os.read(read, 100)
    os.close(read)
    assert not canary.exists(), "code beside the weights has run"
    assert left == b"y\ny\nMarie\n"
    assert done.returncode == code and "Traceback" not in done.stderr and "[y/N]" not in done.stdout
    return done.stderr.splitlines()[-1]


def with_tokenizer_code(folder: Path) -> Path:
    """A tokenizer whose code lies in the folder; the file that it would leave."""
    canary = folder.parent / "canary"
    (folder / "evil.py").write_text(TRAP.format(canary=str(canary)))
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]}, tokenizer_class="EvilT")
    return canary


def with_encoder_code(folder: Path) -> Path:
    canary = folder.parent / "canary"
    (folder / "evil.py").write_text(TRAP.format(canary=str(canary)))
    edit(folder / "config.json", auto_map={"AutoConfig": "evil.T", "AutoModel": "evil.T"}, model_type="trojan")
    return canary


@pytest.mark.parametrize("options", [(), ("--text", "Ada")])
def test_code_of_a_tokenizer_is_not_run_and_stdin_not_asked(model, options):
    command = ["aspert", "predict", str(model), *options]
    error = in_a_process(command, with_tokenizer_code(model))
    assert error.startswith(f"error: {model}: the processor: its tokenizer is code beside the weights")


def test_code_of_an_exports_tokenizer_is_not_run(whole_export, tmp_path):
    folder = shutil.copytree(whole_export, tmp_path / "onnx")
    error = in_a_process(["aspert", "predict", str(folder)], with_tokenizer_code(folder))
    assert error.startswith(f"error: {folder}: the processor: its tokenizer is code beside the weights")


def test_code_of_an_encoder_is_not_run_by_a_training(encoder):
    error = in_a_process(training(encoder), with_encoder_code(encoder))
    assert error.startswith(f"error: {encoder}/config.json: ") and "model type 'trojan'" in error


def test_an_encoders_tokenizer_is_that_of_its_type(encoder):
    """transformers has one for BERT: that is taken, not the code."""
    command = [*training(encoder), "--num_train_epochs", "1", "--do_predict", "false"]
    in_a_process(command, with_tokenizer_code(encoder), code=0)


def test_code_of_an_encoder_is_not_run_by_the_import_of_spert(encoder, tmp_path):
    (tmp_path / "types.json").write_text(json.dumps(TYPES))
    weights = {"size_embeddings.weight": torch.zeros(100, 25)}
    for name, outputs, columns in (("entity_classifier", 4, 89), ("rel_classifier", 3, 146)):
        weights |= {f"{name}.weight": torch.zeros(outputs, columns), f"{name}.bias": torch.zeros(outputs)}
    save_file(weights, encoder / "model.safetensors")
    command = ["aspert", "import-spert", str(encoder), "--types", str(tmp_path / "types.json")]
    error = in_a_process([*command, "--output", str(tmp_path / "out")], with_encoder_code(encoder))
    assert "does not know the model type 'trojan'" in error


def test_a_user_may_allow_the_code_of_a_tokenizer(model, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    with_tokenizer_code(model)
    code = "from transformers import BertTokenizer\nclass T(BertTokenizer): pass\n"
    (model / "evil.py").write_text(code)
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        AspertProcessor.from_pretrained(model)
    assert type(AspertProcessor.from_pretrained(model, trust_remote_code=True).tokenizer).__name__ == "T"


def test_a_configuration_names_no_attention_of_the_hub(model):
    """transformers runs kernels of the Hub where the package `kernels` is installed."""
    evil = {"attn_implementation": "evil/kernel", "_attn_implementation": "evil/kernel"}
    edit(model / "config.json", **evil, **{f"encoder_config__{name}": value for name, value in evil.items()})
    config = AspertForJointExtraction.from_pretrained(model).config
    assert not any("evil" in str(part._attn_implementation) for part in (config, config.encoder_config))


# -- weights -------------------------------------------------------------------------------------------------------


class Trap:
    """Leaves a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return open, (str(self.canary), "w")


def in_parts(folder: Path, part: Any) -> None:
    """An index in place of the weights, which says that they lie in `part`."""
    weights = load_file(folder / "model.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(weights, part)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    torch.save(weights, folder / "w.bin")
    shutil.copytree(folder, folder.parent / "other")
    (folder / "model.safetensors").rename(folder / "part.safetensors")


PARTS = ["w.bin", "../other/model.safetensors", "/etc/passwd", "sub/a.safetensors", "..\\a.safetensors", 3, None]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", ["model", "encoder"])
def test_parts_of_weights_are_safetensors_beside_their_index(kind, part, request, capsys, monkeypatch):
    folder = request.getfixturevalue(kind)
    in_parts(folder, part)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    error = refusal(predict(folder) if kind == "model" else training(folder), capsys, monkeypatch)
    assert f"{folder}/model.safetensors.index.json: " in error and f"lies in {part!r}" in error


def test_whole_parts_are_loaded(model):
    expected = AspertForJointExtraction.from_pretrained(model).state_dict()
    in_parts(model, "part.safetensors")
    found = AspertForJointExtraction.from_pretrained(model).state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    (model / "part.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"index\.json: 'part\.safetensors' is missing"):
        AspertForJointExtraction.from_pretrained(model)


@pytest.mark.parametrize("index", ["[]", "{", '{"weight_map": []}', '{"weight_map": {"a": "b.safetensors"}}'])
def test_an_index_that_is_none(model, index):
    in_parts(model, "part.safetensors")
    (model / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json: no "):
        AspertForJointExtraction.from_pretrained(model)


def test_a_pickle_given_as_the_model_is_not_opened(model, tmp_path):
    (tmp_path / "w.bin").write_bytes(pickle.dumps(Trap(tmp_path / "canary")))
    with pytest.raises(ValueError, match="w.bin: no safetensors; a pickle can run code"):
        AspertForJointExtraction.from_pretrained(tmp_path / "w.bin", config=AspertConfig.from_pretrained(model))
    assert not (tmp_path / "canary").exists()


def test_a_configuration_does_not_choose_the_weights(model, encoder):
    for folder, load in ((model, AspertForJointExtraction.from_pretrained), (encoder, load_encoder)):
        edit(folder / "config.json", transformers_weights="../other.safetensors")
        with pytest.raises(ValueError, match="transformers_weights is not read"):
            load(folder)


def test_adapters_are_refused_where_they_would_be_loaded(model, monkeypatch):
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/model"}')
    AspertForJointExtraction.from_pretrained(model)
    monkeypatch.setattr(model_files, "is_peft_available", lambda: True)
    with pytest.raises(ValueError, match="adapter_config.json: adapters are not loaded"):
        AspertForJointExtraction.from_pretrained(model)


@pytest.mark.parametrize("in_a_file_of_its_own", [True, False])
def test_a_processor_names_no_other_models(model, in_a_file_of_its_own):
    named = {"audio_tokenizer_class": "DacModel", "audio_tokenizer_name_or_path": "../evil"}
    if in_a_file_of_its_own:
        (model / "audio_tokenizer_config.json").write_text(json.dumps(named))
    else:
        edit(model / "processor_config.json", audio_tokenizer=named)
    with pytest.raises(ValueError, match=r"_config\.json: an audio tokenizer"):
        AspertProcessor.from_pretrained(model)


def load_encoder(folder: Path) -> AspertForJointExtraction:
    return AspertForJointExtraction.from_encoder_pretrained(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", ["model", "encoder"])
def test_weights_that_are_no_numbers(kind, value, request):
    folder = request.getfixturevalue(kind)
    name = {"model": "span_classifier.output.bias", "encoder": "embeddings.LayerNorm.weight"}[kind]
    weights = load_file(folder / "model.safetensors")
    weights[name][-1] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    load = {"model": AspertForJointExtraction.from_pretrained, "encoder": load_encoder}[kind]
    with pytest.raises(ValueError, match=f"{name} has values that are NaN or infinite"):
        load(folder)


def test_large_weights_are_numbers(model):
    """Their sum is infinite, they are not."""
    weights = load_file(model / "model.safetensors")
    weights["span_classifier.output.bias"][:] = 3e38
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    AspertForJointExtraction.from_pretrained(model)


@pytest.mark.parametrize("kind", ["model", "encoder"])
def test_weights_of_integers(kind, request):
    folder = request.getfixturevalue(kind)
    weights = {name: tensor.int() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    load = {"model": AspertForJointExtraction.from_pretrained, "encoder": load_encoder}[kind]
    with pytest.raises(ValueError, match=r"model\.safetensors: .* holds I32, not floating-point numbers"):
        load(folder)


# -- what does not fit ---------------------------------------------------------------------------------------------


def half(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


ENCODER_FAULTS = {
    "weights cut off": (lambda f: half(f / "model.safetensors"), "model.safetensors: no safetensors that can be read"),
    "weights empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors: no safetensors"),
    "configuration cut off": (lambda f: half(f / "config.json"), "config.json: no"),
    "configuration a list": (lambda f: (f / "config.json").write_text("[]"), "config.json: no JSON object"),
    "no configuration": (lambda f: (f / "config.json").unlink(), "config.json: does not exist"),
    "width a string": (lambda f: edit(f / "config.json", hidden_size="32"), "config.json: no configuration"),
    "another width": (lambda f: edit(f / "config.json", hidden_size=64), "but config.json makes it"),
    "more layers": (lambda f: edit(f / "config.json", num_hidden_layers=3), ".layer.2."),
    "endless layers": (lambda f: edit(f / "config.json", num_hidden_layers=10**7), "num_hidden_layers = 10000000"),
    "dtype a function": (
        lambda f: edit(f / "config.json", dtype="save"),
        "config.json: no configuration of an encoder",
    ),
    "tokenizer cut off": (lambda f: half(f / "tokenizer.json"), "tokenizer.json: no JSON"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "BertTokenizer has no vocabulary"),
    "a larger tokenizer": (lambda f: edit(f / "config.json", vocab_size=9), "[9, 32]"),
}


@pytest.mark.parametrize("fault", ENCODER_FAULTS)
def test_encoders_that_cannot_be_used(encoder, fault, capsys, monkeypatch):
    change, expected = ENCODER_FAULTS[fault]
    change(encoder)
    error = refusal(training(encoder), capsys, monkeypatch)
    assert error.startswith(f"error: {encoder}") and expected in error


def test_what_is_trained(model, encoder, tmp_path):
    assert is_trained(str(model)) and not is_trained(str(encoder))
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        is_trained(str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="config.json: does not exist"):
        is_trained(str(tmp_path))


@pytest.mark.parametrize("load", [AspertForJointExtraction, AspertProcessor])
def test_a_trained_model_is_no_encoder(model, load):
    with pytest.raises(ValueError, match="config.json: a trained ASpERT model, not an encoder: load it with"):
        load.from_encoder_pretrained(model)


def test_the_case_of_a_training(encoder, model, capsys, monkeypatch):
    schema = data_scripts.load_schema(encoder.parent / "data")
    for lowercase in (True, False):
        arguments = train.parse_arguments([*training(encoder)[1:], "--lowercase", str(lowercase)])
        _, processor = train._load_model(*arguments, schema, ())
        assert lowercases(processor.tokenizer) is lowercase
    error = refusal([*training(model), "--lowercase", "true"], capsys, monkeypatch)
    assert error == f"error: {model} is a trained model: lowercase cannot be changed, leave them out"


def with_ids(folder: Path, first: int) -> None:
    fields = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = fields["model"]["vocab"]
    vocabulary.update({word: number + first for word, number in vocabulary.items() if not word.startswith("[")})
    (folder / "tokenizer.json").write_text(json.dumps(fields))


MODEL_FAULTS = {
    "sub-words beyond the table": (lambda f: with_ids(f, 300), "the tokenizer has a sub-word 517, but the encoder"),
    "positions beyond the table": (
        lambda f: edit(f / "processor_config.json", max_tokens=100000),
        "max_tokens = 100000 is not valid: the encoder has positions for 128 sub-words",
    ),
    "dtype a function": (lambda f: edit(f / "config.json", dtype="save"), "config.json: AspertConfig.dtype = 'save'"),
    "dtype of the encoder": (lambda f: edit(f / "config.json", encoder_config__dtype="save"), "dtype = 'save'"),
    "processor a list": (
        lambda f: (f / "processor_config.json").write_text("[]"),
        "processor_config.json: no JSON object",
    ),
    "tokenizer a list": (lambda f: (f / "tokenizer.json").write_text("[]"), "tokenizer.json: no JSON object"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json: does not exist"),
    "endless layers": (
        lambda f: edit(f / "config.json", encoder_config__num_hidden_layers=10**7),
        "num_hidden_layers = 10000000 is not valid: it must be at most 1000",
    ),
    "escapes in a type": (
        lambda f: edit(f / "config.json", entity_types=["\x1b]0;a\x07", "b", "c"], id2label={}),
        r"AspertConfig.entity_types = ['\x1b]0;a\x07', 'b', 'c'] is not valid",
    ),
    "types that contradict others": (
        lambda f: edit(f / "config.json", entity_types=["Company", "Person", "Place"]),
        "AspertConfig.id2label = {'0': 'none', '1': 'Person', '2': 'Place', '3': 'Company'} contradicts entity_types",
    ),
}


@pytest.mark.parametrize("fault", MODEL_FAULTS)
def test_models_that_cannot_be_used(model, fault, capsys, monkeypatch):
    change, expected = MODEL_FAULTS[fault]
    change(model)
    error = refusal(predict(model), capsys, monkeypatch)
    assert error.startswith(f"error: {model}") and expected in error


def test_info_builds_no_endless_encoder(model, capsys, monkeypatch):
    edit(model / "config.json", encoder_config__num_hidden_layers=10**7)
    assert "at most 1000" in refusal(["aspert", "info", str(model)], capsys, monkeypatch)


def test_no_limit_is_the_encoders_limit(model):
    edit(model / "processor_config.json", max_tokens=None)
    assert load_saved(str(model))[1].max_tokens == tiny.MAX_POSITIONS


def test_wide_candidates_cost_what_the_sentence_allows(model):
    """A width of 10**9 words allocated 8 GB for one word."""
    assert candidate_spans(3, 10**9).tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert candidate_spans(0, 10**9).shape == (0, 2)
    edit(model / "config.json", max_span_width=10**9)
    assert aspert_cli.main(predict(model)[1:]) == 0


# -- exports -------------------------------------------------------------------------------------------------------


EXPORT_FAULTS = {
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json: does not exist"),
    "no configuration": (lambda f: (f / "config.json").unlink(), "config.json: does not exist"),
    "fewer entity types": (
        lambda f: edit(f / "config.json", entity_types=["Person"], id2label={}),
        "spans.onnx scores 4 entity types and none, but config.json lists 2: export the model again",
    ),
    "fewer relation types": (
        lambda f: edit(f / "config.json", relation_types=["married-to"]),
        "relations.onnx scores 3 relation outputs, but config.json lists 1: export the model again",
    ),
}


@pytest.mark.parametrize("fault", EXPORT_FAULTS)
def test_exports_that_cannot_be_used(whole_export, tmp_path, fault, capsys, monkeypatch):
    change, expected = EXPORT_FAULTS[fault]
    folder = shutil.copytree(whole_export, tmp_path / "export")
    change(folder)
    error = refusal(predict(folder), capsys, monkeypatch)
    assert error.startswith(f"error: {folder}") and expected in error
