"""Push to a Hub and load from it, in processes of their own: with the package, without it, offline, and a hostile one."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hub_server import HubServer
from huggingface_hub import ModelCard

from modeling_aspert.model_card import MARK

REPO = "org/aspert-tiny"
ROOT = Path(__file__).resolve().parents[2]
TEXTS = [
    "Ada Lovelace worked for Analytical Engines in London. Marie married Pierre in Paris.",
    "\u200bNaïve cafés 😀 in Genève\r\n",
    "",
]
# what the files beside the weights may import, which is what the card tells to install, or comes with transformers
REMOTE_REQUIREMENTS = {"torch", "transformers", "numpy", "safetensors", "tokenizers", "regex", "pysbd"}

PREDICT = f"""
import json, os, sys
TEXTS = {TEXTS!r}

def predict(model, processor):
    from modeling_aspert import JointExtractionPipeline
    return JointExtractionPipeline(model=model, processor=processor)(TEXTS)

def report(**values):
    with open(os.environ["REPORT"], "w") as file:
        json.dump(values, file)
"""
PUSH = (
    PREDICT
    + """
import tiny
from transformers import AutoModel, pipeline
from modeling_aspert import AspertForJointExtraction, AspertProcessor, AspertTrainer, AspertTrainingArguments
from modeling_aspert.model_card import ModelCardData, write_model_card
from modeling_aspert.scoring import compute_scores

REPO = "org/aspert-tiny"
model, processor = tiny.make_model(), tiny.make_processor()
scores = compute_scores(tiny.RECORDS, tiny.RECORDS, tiny.ENTITY_TYPES, tiny.RELATION_TYPES)
model.save_pretrained("trained")
write_model_card("trained", ModelCardData(model.config, dataset="made up", scores={"test": scores}))
local = predict(model, processor)
# the processor first: its push leaves an empty card, which the model's push replaces
processor.push_to_hub(REPO)
AspertForJointExtraction.from_pretrained("trained").push_to_hub(REPO)

extract = pipeline("joint-extraction", model=model, processor=processor)
extract.push_to_hub("org/pipeline")
extract.save_pretrained("saved", push_to_hub=True, repo_id="org/saved")
arguments = AspertTrainingArguments(
    output_dir="run",
    hub_model_id="org/trainer",
    max_steps=1,
    eval_strategy="no",
    save_strategy="no",
    load_best_model_at_end=False,
    use_cpu=True,
)
trainer = AspertTrainer(tiny.make_model(), arguments, processor, train_dataset=tiny.make_dataset(model.config))
trainer.train()
with open("run/predictions_test.jsonl", "w") as file:
    file.write("the corpus")
trainer.push_to_hub()

processor = AspertProcessor.from_pretrained(REPO)
report(
    local=local,
    classes=predict(AspertForJointExtraction.from_pretrained(REPO), processor),
    auto=predict(AutoModel.from_pretrained(REPO, trust_remote_code=True), processor),
    pipeline=pipeline("joint-extraction", model=REPO)(TEXTS),
)
"""
)
TRAIN = (
    PREDICT
    + f"""
import pathlib, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
import train
from training_corpus import arguments, make_corpus, make_encoder

for folder in ("corpus", "encoder"):
    pathlib.Path(folder).mkdir()
corpus, encoder = make_corpus(pathlib.Path("corpus")), make_encoder(pathlib.Path("encoder"))
fields = {{"num_train_epochs": 2, "push_to_hub": "true", "hub_model_id": "org/trained"}}
for resumed in ({{}}, {{"resume_from_checkpoint": "true"}}):
    train.run(*train.parse_arguments(arguments(corpus, encoder, pathlib.Path("output"), **fields, **resumed)))
# goes on with what was pushed, at a rate that changes nothing
fields = {{"num_train_epochs": 1, "learning_rate": 0.0}}
train.run(*train.parse_arguments(arguments(corpus, "org/trained", pathlib.Path("more"), **fields)))
weights = [pathlib.Path(folder, "model.safetensors").read_bytes() for folder in ("output", "more")]
report(written=os.listdir("output"), went_on=os.listdir("more"), same=weights[0] == weights[1])
"""
)
# runs without this package: the network comes from the files beside the weights
REMOTE = (
    PREDICT
    + """
import sys


class WithoutThisPackage:  # as on a machine where it is not installed
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("modeling_aspert", "data_scripts"):
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, WithoutThisPackage())
try:
    import modeling_aspert
except ModuleNotFoundError:
    pass
else:
    raise AssertionError("the package must not be importable here")
from transformers import AutoModel, AutoProcessor, pipeline

REPO = "org/aspert-tiny"
extract = pipeline("joint-extraction", model=REPO, trust_remote_code=True)
model = AutoModel.from_pretrained(REPO, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(REPO, trust_remote_code=True)
for value in (extract, model, processor):
    assert type(value).__module__.startswith("transformers_modules."), type(value)
values = {"pipeline": extract(TEXTS), "auto": type(extract)(model=model, processor=processor)(TEXTS)}
"""
)
OFFLINE = (
    REMOTE
    + f"""
sys.meta_path.pop(0)
sys.path.insert(0, {str(ROOT)!r})
from modeling_aspert import AspertForJointExtraction, AspertProcessor
values["classes"] = predict(AspertForJointExtraction.from_pretrained(REPO), AspertProcessor.from_pretrained(REPO))
report(**values)
"""
)
HOSTILE = (
    PREDICT
    + """
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from modeling_aspert import AspertForJointExtraction, AspertProcessor

def refusal(action):
    try:
        action()
    except (OSError, ValueError) as error:
        return str(error)

REPO = "org/hostile"
model = AspertForJointExtraction.from_pretrained(REPO)
values = {
    "classes": predict(model, AspertProcessor.from_pretrained(REPO)),
    "auto": predict(AutoModel.from_pretrained(REPO), AutoProcessor.from_pretrained(REPO)),
    "pipeline": pipeline("joint-extraction", model=REPO)(TEXTS),
    "encoder_config": model.config.encoder_config.to_dict(),
    "unknown_encoder": refusal(lambda: AspertForJointExtraction.from_pretrained("org/hostile-encoder")),
    "unknown_model": refusal(lambda: pipeline("joint-extraction", model="org/hostile-model")),
    "pickle": refusal(lambda: AspertForJointExtraction.from_pretrained("org/pickle")),
    "pickled_part": refusal(lambda: AspertForJointExtraction.from_pretrained("org/pickled-part")),
    "unknown_tokenizer": refusal(lambda: AspertProcessor.from_pretrained("org/unknown-tokenizer")),
    "trained": refusal(lambda: AspertForJointExtraction.from_encoder_pretrained(REPO)),
    "ran": os.path.exists("MARKER"),
}
# the same file does leave its mark when it is run, so the trap was set
get_class_from_dynamic_module("modeling_aspert.AspertForJointExtraction", REPO)
report(**values, trap=os.path.exists("MARKER"))
"""
)
CASED = """
import json, os
from modeling_aspert import AspertProcessor

found = {}
for name in ("org/cased", "org/stated"):
    processor = AspertProcessor.from_encoder_pretrained(name)
    found[name] = processor.encode([["Paris", "paris"]])[0].input_ids[1:-1].tolist()
with open(os.environ["REPORT"], "w") as file:
    json.dump(found, file)
"""
TRAP = b"open('MARKER', 'w').close()\nclass AspertForJointExtraction: pass\n"


def run(script: str, folder: Path, hub: HubServer, package: bool = True, **variables: str) -> dict[str, Any]:
    """Runs a script in a process of its own, which takes `hub` for the Hub; returns what it reports."""
    folder.mkdir(exist_ok=True)
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON", "TRANSFORMERS_"))
    }
    paths = [str(ROOT), str(Path(__file__).parent)] if package else []
    environment = {
        **own,
        **hub.environment(folder / "home"),
        "REPORT": str(folder / "report.json"),
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    (folder / "report.json").unlink(missing_ok=True)
    process = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert not hub.errors, hub.errors
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def pushed(hub, tmp_path_factory) -> dict[str, Any]:
    return run(PUSH, tmp_path_factory.mktemp("push"), hub)


@pytest.fixture(scope="module")
def stranger(hub, pushed, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """The folder, with the filled cache, of a process without this package, and what it reports."""
    folder = tmp_path_factory.mktemp("stranger")
    return folder, run(REMOTE + "report(**values)", folder, hub, package=False)


@pytest.fixture(scope="module")
def trained(hub, tmp_path_factory) -> dict[str, Any]:
    return run(TRAIN, tmp_path_factory.mktemp("train"), hub)


@pytest.mark.parametrize("repository", [REPO, "org/pipeline", "org/saved", "org/trainer", "org/trained"])
def test_a_push_has_all_files_and_no_pickle(hub, pushed, trained, repository):
    """And nothing of the corpus: `train.py` has its predictions, and errors, in the same folder."""
    assert {"run.json", "predictions_test.jsonl", "test_results.json"} <= set(trained["written"])
    files = hub.repositories[repository].files
    code = {path for path in files if path.endswith(".py")}
    pictures = {path for path in files if path.endswith(".png")}
    assert set(files) - code - pictures == {
        ".gitattributes",
        "README.md",
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads(files["config.json"])
    assert config["auto_map"] == {
        "AutoConfig": "configuration_aspert.AspertConfig",
        "AutoModel": "modeling_aspert.AspertForJointExtraction",
    }
    pipeline = {"impl": "pipeline.JointExtractionPipeline", "pt": ["AutoModel"], "type": "text"}
    assert config["custom_pipelines"] == {"joint-extraction": pipeline}
    processor = json.loads(files["processor_config.json"])
    assert processor["auto_map"] == {"AutoProcessor": "processing_aspert.AspertProcessor"}
    assert MARK in files["README.md"].decode()


def test_the_code_beside_the_weights_is_complete(hub, pushed):
    files = hub.repositories[REPO].files
    relative, absolute = set(), set()
    for path in files:
        if path.endswith(".py"):
            for node in ast.walk(ast.parse(files[path])):
                if isinstance(node, ast.ImportFrom) and node.level:
                    relative.add(f"{node.module}.py")
                elif isinstance(node, ast.ImportFrom):
                    absolute.add(node.module.partition(".")[0])
                elif isinstance(node, ast.Import):
                    absolute.update(name.name.partition(".")[0] for name in node.names)
    assert relative <= set(files)
    assert absolute - sys.stdlib_module_names <= REMOTE_REQUIREMENTS
    assert "model_card.py" not in files


def test_a_push_brings_the_card(hub, pushed):
    files = hub.repositories[REPO].files
    text = files["README.md"].decode()
    card = ModelCard(text)
    assert card.data.model_name == "aspert-tiny"
    assert {(result.dataset_name, result.dataset_split) for result in card.data.eval_results} == {("made up", "test")}
    assert len(card.data.eval_results) == 6
    assert text.count('model = "org/aspert-tiny"\n') == 2
    assert "\n# aspert-tiny\n" in text
    assert set(re.findall(r"!\[.*?\]\((.*?)\)", text)) == {path for path in files if path.endswith(".png")}


@pytest.mark.parametrize("way", ["classes", "auto", "pipeline"])
def test_loaded_from_the_hub_it_predicts_the_same(pushed, way):
    assert pushed["local"][0]["entities"] and pushed["local"][0]["relations"]
    assert pushed[way] == pushed["local"]


@pytest.mark.parametrize("way", ["auto", "pipeline"])
def test_the_code_beside_the_weights_predicts_the_same(pushed, stranger, way):
    assert stranger[1][way] == pushed["local"]


def test_from_a_filled_cache_without_a_connection(hub, pushed, stranger):
    hub.stop()
    requests = len(hub.requests)
    found = run(OFFLINE, stranger[0], hub, package=False, HF_HUB_OFFLINE="1")
    assert found == {way: pushed["local"] for way in ("auto", "pipeline", "classes")}
    assert len(hub.requests) == requests


def test_nothing_remote_runs_unasked(hub, pushed, tmp_path):
    files = dict(hub.repositories[REPO].files)
    files |= {path: TRAP for path in files if path.endswith(".py")}
    config, processor, tokenizer = (
        json.loads(files[f"{name}.json"]) for name in ("config", "processor_config", "tokenizer_config")
    )
    classes = ("AutoConfig", "AutoModel", "AutoModelForTokenClassification", "AutoProcessor", "AutoTokenizer")
    trap = {name: "modeling_aspert.AspertForJointExtraction" for name in classes}
    config["auto_map"] = processor["auto_map"] = tokenizer["auto_map"] = trap
    config["trust_remote_code"] = processor["trust_remote_code"] = tokenizer["trust_remote_code"] = True
    elsewhere = {name: f"org/hostile--{value}" for name, value in trap.items()}
    config["encoder_config"] |= {"auto_map": elsewhere, "trust_remote_code": True}
    files["processor_config.json"] = json.dumps(processor).encode()
    files["tokenizer_config.json"] = json.dumps(tokenizer).encode()
    unknown_encoder = {**config, "encoder_config": {**config["encoder_config"], "model_type": "trojan"}}
    with HubServer() as server:
        server.add("org/hostile", {**files, "config.json": json.dumps(config).encode()})
        server.add("org/hostile-encoder", {**files, "config.json": json.dumps(unknown_encoder).encode()})
        server.add(
            "org/hostile-model", {**files, "config.json": json.dumps({**config, "model_type": "trojan"}).encode()}
        )
        pickled = dict(hub.repositories[REPO].files)
        buffer = io.BytesIO()
        torch.save(safetensors.torch.load(pickled.pop("model.safetensors")), buffer)
        server.add("org/pickle", {**pickled, "pytorch_model.bin": buffer.getvalue()})
        index = {"metadata": {}, "weight_map": {"span_classifier.output.bias": "w.bin"}}
        parts = {"model.safetensors.index.json": json.dumps(index).encode(), "w.bin": buffer.getvalue()}
        server.add("org/pickled-part", {**pickled, **parts})
        tokenizer["tokenizer_class"] = "Trojan"
        tokenizer["auto_map"]["AutoTokenizer"] = [None, trap["AutoTokenizer"]]
        unknown_tokenizer = {"tokenizer_config.json": json.dumps(tokenizer).encode()}
        server.add("org/unknown-tokenizer", {**hub.repositories[REPO].files, **unknown_tokenizer})
        found = run(HOSTILE, tmp_path, server, DISABLE_SAFETENSORS_CONVERSION="1")
    assert not found["ran"] and found["trap"]
    for way in ("classes", "auto", "pipeline"):
        assert found[way] == pushed["local"]
    assert not {"auto_map", "trust_remote_code"} & set(found["encoder_config"])
    assert "trojan" in found["unknown_encoder"]
    assert "trust_remote_code=True" in found["unknown_model"]
    assert "safetensors" in (found["pickle"] or "a pickle was loaded")
    assert "'w.bin', which is no name of a safetensors file" in (found["pickled_part"] or "a pickle was loaded")
    assert "trust_remote_code=True" in (found["unknown_tokenizer"] or "code was run")
    assert "org/hostile/config.json: a trained ASpERT model, not an encoder" in (found["trained"] or "it was loaded")


def test_a_training_goes_on_with_a_model_of_the_hub(trained):
    assert {"model.safetensors", "run.json", "test_results.json"} <= set(trained["went_on"])
    assert trained["same"]


def test_a_cased_encoder_of_the_hub_is_not_lower_cased(tmp_path):
    """As allenai/scibert_scivocab_cased and dmis-lab/biobert-base-cased-v1.1: vocab.txt and config.json."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Paris", "paris"]
    config = {"model_type": "bert", "vocab_size": len(vocabulary)}
    files = {"vocab.txt": "\n".join(vocabulary).encode(), "config.json": json.dumps(config).encode()}
    with HubServer() as server:
        server.add("org/cased", files)
        server.add("org/stated", {**files, "tokenizer_config.json": b'{"do_lower_case": true}'})
        found = run(CASED, tmp_path, server)
    assert found == {"org/cased": [5, 6], "org/stated": [6, 6]}
