"""The speed and memory benchmarks on a tiny random encoder: what they time is what they say."""

from __future__ import annotations

import json
import math
import re
import subprocess

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

import modeling_aspert.modeling_aspert as network
from benchmarks import memory, page, speed, timing
from benchmarks.setting import Setting
from benchmarks.workloads import (
    Extraction,
    attention_of,
    calibrate,
    heads_only,
    sentences_of_length,
    without_contribution,
)
from modeling_aspert import AspertForJointExtraction
from modeling_aspert.scoring import compute_scores


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with a random two-layer BERT whose vocabulary is the alphabet."""
    folder = tmp_path_factory.mktemp("tiny")
    letters = [chr(code) for code in range(33, 127)]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = Tokenizer(models.WordPiece({token: id for id, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokens), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def setting(tiny):
    arguments = speed.build_parser().parse_args(["--encoder", tiny, "--dataset", "quickstart"])
    return Setting(arguments, limit=12)


# -- timing --------------------------------------------------------------------------------------------------------


def test_rounds_alternate_and_warm_up_is_not_timed():
    calls = []
    work = {name: lambda name=name: calls.append(name) for name in "AB"}
    seconds = timing.alternate(work, repeats=2, warmup=1)
    assert calls == list("ABABAB")
    assert {name: len(values) for name, values in seconds.items()} == {"A": 2, "B": 2}


def test_pieces_take_turns_and_their_times_add_up():
    calls, now = [], [0.0]

    def piece(name, spend):
        def work():
            calls.append(name)
            now[0] += spend

        return work

    work = {"A": [piece("A1", 1.0), piece("A2", 2.0), piece("A3", 4.0)], "B": piece("B", 8.0)}
    assert timing.alternate(work, repeats=2, warmup=0, clock=lambda: now[0]) == {"A": [7.0, 7.0], "B": [8.0, 8.0]}
    assert calls == ["A1", "B", "A2", "A3"] * 2


def test_speed_ratio_by_hand():
    # rounds: 2 s against 3 s, 1 s against 4 s, 2 s against 4 s
    assert timing.speed_ratio([2.0, 1.0, 2.0], [3.0, 4.0, 4.0]) == {"median": 2.0, "low": 1.5, "high": 4.0}
    with pytest.raises(ValueError, match="cannot be compared"):
        timing.speed_ratio([1.0], [1.0, 2.0])


def test_a_stage_does_not_count_the_stages_inside_it(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def spend(seconds):
        now[0] += seconds

    clock = timing.StageClock()
    inner = clock.wrap("inner", lambda: spend(2.0))
    outer = clock.wrap("outer", lambda: (spend(1.0), inner(), inner()))
    outer()
    assert clock.seconds == {"outer": 1.0, "inner": 4.0}


def test_patches_are_taken_back_also_after_an_error():
    class Owner:
        name = "class"

    owner = Owner()
    with pytest.raises(RuntimeError), timing.patched([(owner, "name", "patched")]):
        assert owner.name == "patched"
        raise RuntimeError
    assert "name" not in vars(owner) and owner.name == "class"


# -- workloads -----------------------------------------------------------------------------------------------------


def test_pieces_and_whole_batches_are_the_same_work(setting):
    model = setting.model(True)
    extraction = Extraction(model, setting.processor, setting.test, batch_size=4)

    def found(annotations):
        bare = [
            [{**item, "score": 0} for part in ("entities", "relations") for item in one[part]] for one in annotations
        ]
        return sorted(map(str, bare))

    whole = extraction()
    assert [record["tokens"] for record in whole] == [record["tokens"] for record in setting.test]
    assert any(record["relations"] for record in whole)
    assert found(record for piece in extraction.pieces() for record in piece()) == found(whole)
    assert found(extraction.in_whole_batches()) == found(whole)
    lengths = [len(batch["input_ids"][0]) for batch in extraction.encoder_batches()]
    assert lengths == sorted(lengths, reverse=True) and len(lengths) == 3


def test_heads_are_calibrated_to_the_counts(setting):
    model = setting.model(False)
    predicted = calibrate(Extraction(model, setting.processor, setting.test, 16), entities=20, relations=7)
    # a symmetric relation found in both directions counts once; logits of random heads lie close together
    assert predicted["entities"] == 20 and 3 <= predicted["relations"] <= 10
    predicted = calibrate(Extraction(model, setting.processor, setting.test, 5), entities=0, relations=None)
    assert predicted == {"entities": 0, "relations": 0}


def test_entities_lie_where_the_corpus_has_them(setting):
    records = Extraction(setting.model(True), setting.processor, setting.test, 16)()
    scores = compute_scores(records, setting.test)
    assert scores["ner_micro_f1"] > 50


@pytest.mark.parametrize(
    "fields", [{}, {"span_boundaries": True, "relation_entity_types": True}, {"relation_contribution": False}]
)
def test_without_the_contribution_all_else_is_the_same(tiny, setting, monkeypatch, fields):
    torch.manual_seed(0)
    model = AspertForJointExtraction.from_encoder_pretrained(tiny, **setting.labels, **fields)
    off = without_contribution(model)
    assert off.config.contribution_size == 0 and attention_of(off.encoder) == "sdpa"
    real = network.attentional_contribution
    monkeypatch.setattr(network, "attentional_contribution", lambda *args, **options: real(*args, **options) * 0)
    outputs = []
    for one in (model, off):
        extraction = Extraction(one, setting.processor, setting.test, 16)
        outputs.append(extraction.forward(setting.processor.encode(extraction.words))[0])
    assert outputs[0].pair_mask.any()
    torch.testing.assert_close(outputs[1].span_logits, outputs[0].span_logits)
    torch.testing.assert_close(outputs[1].relation_logits, outputs[0].relation_logits)


@pytest.mark.parametrize("length", [5, 64, 200])
def test_sentences_have_the_length_asked_for(setting, length):
    sentences = sentences_of_length(setting.test, setting.processor, length, 3)
    encoded = setting.processor.encode([sentence["tokens"] for sentence in sentences])
    assert [sentence.num_tokens for sentence in encoded] == [length] * 3


def test_heads_only_does_not_run_the_encoder(setting):
    model = setting.model(True)
    encoder, calls = model.encoder, []
    work = heads_only(Extraction(model, setting.processor, setting.test, 4))
    hook = encoder.register_forward_hook(lambda *args: calls.append(1))
    work()
    hook.remove()
    assert not calls and model.encoder is encoder


def test_stages_add_up_and_leave_no_wrapper(setting):
    extraction = Extraction(setting.model(True), setting.processor, setting.test, 4)
    stages = extraction.profile()
    assert set(stages) >= {"tokenise", "encode", "pool", "contribute", "classify spans", "classify pairs", "decode"}
    assert all(seconds >= 0 for seconds in stages.values())
    assert not hasattr(extraction.processor.encode, "__wrapped__") and "encode" not in vars(extraction.processor)


# -- commands ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_smoke_run_gives_every_ratio(tiny, tmp_path, capsys):
    output = tmp_path / "speed.json"
    sections = ["extraction", "lengths", "heads", "training", "profile", "loading"]
    call = ["--smoke", "--encoder", tiny, "--dataset", "quickstart", "--sections", *sections]
    assert speed.main([*call, "--output", str(output)]) == 0
    content = json.loads(output.read_text(encoding="utf-8"))
    names = {entry["name"] for entry in content["ratios"]}
    assert names >= {
        "extraction ÷ bare encoder", "contribution on ÷ off: extraction", "sentence of 64 ÷ bare encoder",
        "heads: time a sub-word, 128 ÷ 64", "training ÷ bare encoder", "contribution on ÷ off: training",
        "loading a prepared corpus: s", "extraction in ONNX ÷ bare encoder",
    }  # fmt: skip
    for entry in content["ratios"]:
        assert 0 < entry["low"] <= entry["median"] <= entry["high"] < math.inf
        assert ("met" in entry) == ("target" in entry)
    assert content["skipped"] == [{"what": "all ratios to SpERT", "why": "no --spert"}]
    assert content["attention"]["bare encoder"] == "sdpa" == content["attention"]["ours, contribution off"]
    assert "| extraction ÷ bare encoder, batch 16 |" in capsys.readouterr().out

    (tmp_path / "page.md").write_text(
        "By hand.\n<!-- begin speed.json -->\n<!-- end speed.json -->\n<!-- begin x.json -->\n<!-- end x.json -->\n",
        encoding="utf-8",
    )
    place = ["--page", str(tmp_path / "page.md"), "--results", str(tmp_path)]
    assert page.main([*place, "--check"]) == 1
    assert page.main(place) == 0
    assert page.main([*place, "--check"]) == 0
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert (
        "| extraction ÷ bare encoder, batch 16 |" in text
        and "Not measured yet" in text
        and text.startswith("By hand.")
    )


def test_without_the_extra_the_rest_is_measured(tiny, monkeypatch):
    def missing(*packages):
        raise ImportError("onnxruntime is not installed: pip install 'aspert[onnx]'")

    monkeypatch.setattr("modeling_aspert.onnx_export.require", missing)
    call = ["--smoke", "--encoder", tiny, "--dataset", "quickstart", "--sections", "extraction"]
    content = speed.measure_all(speed.build_parser().parse_args(call))
    assert {
        "what": "extraction in ONNX",
        "why": "onnxruntime is not installed: pip install 'aspert[onnx]'",
    } in content["skipped"]
    names = {entry["name"] for entry in content["ratios"]}
    assert "extraction ÷ bare encoder" in names and "extraction in ONNX ÷ bare encoder" not in names


def test_wrong_calls_are_refused(tiny, tmp_path, capsys):
    call = ["--smoke", "--encoder", tiny, "--dataset", "quickstart"]
    assert speed.main([*call, "--model", str(tmp_path)]) == 2
    assert speed.main([*call, "--spert", str(tmp_path), "--spert-weights", str(tmp_path)]) == 2
    if not torch.cuda.is_available():
        assert speed.main([*call, "--device", "cuda"]) == 2
    errors = capsys.readouterr().err
    assert "no trained ASpERT model" in errors and "--spert-types" in errors


def test_the_performance_page_is_up_to_date():
    assert page.main(["--check"]) == 0


def test_figures_of_the_page_come_from_result_files():
    text = page.PAGE.read_text(encoding="utf-8")
    by_hand = re.sub(r"<!-- begin .*?<!-- end [^>]*>", "", text, flags=re.DOTALL)
    assert not re.search(r"\d (ms|MiB|GiB|sentences a second)\b|\d (?:×|times) (?:faster|slower)", by_hand)


# -- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "most", "expected"), [(0, 64, 0), (1, 64, 1), (5, 64, 5), (16, 64, 16), (99, 64, 64), (3, 2, 2)]
)
def test_the_largest_batch_is_found(limit, most, expected):
    asked = []

    def fits(batch):
        asked.append(batch)
        return batch <= limit

    assert memory.largest(fits, most) == expected
    assert len(asked) == len(set(asked)) and max(asked) <= max(most, 1)


def test_a_peak_is_seen_though_it_is_freed():
    def work():
        torch.ones(64 * 2**18)

    figures = memory._resident_peak(work)
    assert 60 <= figures["above_mib"] <= 90
    assert memory._resident_peak(lambda: None)["above_mib"] < 10


def test_a_child_measures_and_a_failing_child_says_why(tiny, monkeypatch):
    call = ["extremes", "--encoder", tiny, "--dataset", "quickstart", "--data-limit", "4"]
    arguments = memory.build_parser().parse_args(call)
    measured = memory.measure(arguments, length=32, entities="all")
    assert measured["peak_mib"] > measured["resting_mib"] > 50
    assert "classify pairs" in measured["stages"]
    ended = subprocess.CompletedProcess([], 1, "", "Traceback\nRuntimeError: not enough memory\n")
    monkeypatch.setattr(memory.subprocess, "run", lambda *args, **kwargs: ended)
    assert memory.measure(arguments, length=32)["failed"] == "RuntimeError: not enough memory"
