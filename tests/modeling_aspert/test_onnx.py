"""Models exported to ONNX give the scores and records of the models themselves."""

from __future__ import annotations

import collections
import importlib.util
import json
import math
from unittest import mock

import pytest
import torch
from tiny import MAX_POSITIONS, RECORDS, make_batch, make_encoder_folder, make_model, make_processor

import aspert_cli
from benchmarks import fast_mode, page
from modeling_aspert import ExtractionOptions, Extractor, onnx_model
from modeling_aspert.extraction import Sentence

pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")

import onnx

from modeling_aspert import onnx_export
from modeling_aspert.onnx_export import export_onnx
from modeling_aspert.onnx_model import AspertOnnxModel

PAPER: dict = {}
SPERT = {"attentional_contribution": False, "span_classifier": "linear"}
BEST = {"word_shapes": True, "span_boundaries": True, "relation_classifier": "mlp", "relation_entity_types": True}
MAXIMA = {
    "contribution_pooling": "max",
    "contribution_direction": "both",
    "contribution_special_tokens": False,
    "relation_none_class": True,
    "relation_contribution": False,
}
SQUARES = {"contribution_pooling": "max", "contribution_scope": "span", "width_embedding": False}
BLOCKS = {"contribution_scope": "span", "contribution_direction": "both", "contribution_threshold": 0.0}
ROWS = {"contribution_pooling": "sum", "contribution_scope": "sentence", "contribution_direction": "to_span"}

# word counts of the sentences in a batch: other lengths and batch sizes than any that an export is traced with
SHAPES = [(1,), (2, 1), (5, 1, 3), (13,), (13, 6, 2, 1, 9), (40, 2)]
WORDS = RECORDS[0]["tokens"] + RECORDS[1]["tokens"]


def sentence(num_words: int) -> list[str]:
    return [WORDS[position % len(WORDS)] for position in range(num_words)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A tiny BERT in the paper's architecture, its processor, and the folder of its export."""
    model, processor = make_model("bert"), make_processor("bert")
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(model, processor, folder)
    return model, processor, folder


def assert_same_logits(model, onnx, family, tolerance=1e-4) -> None:
    for counts in SHAPES:
        records = [{"tokens": sentence(count), "entities": [], "relations": []} for count in counts]
        batch = make_batch(model.config, family, training=False, records=records)
        del batch["word_spans"]
        # all spans that are given, whatever the scores say, so that relations are compared too
        spans = torch.arange(batch["spans"].shape[1])
        pairs = torch.cartesian_prod(spans, spans)[:200].expand(len(counts), -1, -1)
        for extra in ({}, {"pairs": pairs, "pair_mask": batch["span_mask"].gather(1, pairs.amax(-1))}):
            with torch.no_grad():
                expected = model(**batch, **extra)
            found = onnx(**batch, **extra)
            real = batch["span_mask"]
            torch.testing.assert_close(
                found.span_logits[real], expected.span_logits[real], rtol=0, atol=tolerance, msg=f"{counts} spans"
            )
            assert found.pairs.tolist() == expected.pairs.tolist()
            assert found.pair_mask.tolist() == expected.pair_mask.tolist()
            assert found.relation_logits.shape == expected.relation_logits.shape
            torch.testing.assert_close(
                found.relation_logits, expected.relation_logits, rtol=0, atol=tolerance, msg=f"{counts} relations"
            )


@pytest.mark.parametrize("part_tokens", [20, onnx_model.PART_TOKENS])
def test_logits_are_those_of_the_model(exported, monkeypatch, part_tokens):
    """However many sub-words are computed together."""
    model, _, folder = exported
    monkeypatch.setattr(onnx_model, "PART_TOKENS", part_tokens)
    assert_same_logits(model, AspertOnnxModel(folder), "bert")


@pytest.mark.skipif(not hasattr(torch.onnx, "ops"), reason="torch < 2.9 has no such operation")
def test_attention_is_one_operation_where_it_can_be(exported, monkeypatch):
    """The export works on a copy; what computes something else, or cannot be set, is not used."""
    assert exported[0].encoder.config._attn_implementation == "eager"
    for family, changed, expected in (("bert", 1.0, True), ("bert", 0.5, False), ("mpnet", 1.0, False)):
        model = make_model(family)
        with monkeypatch.context() as patch:
            attention = torch.onnx.ops.attention

            def scaled(*inputs, scale, factor=changed, run=attention, **options):
                return run(*inputs, scale=scale * factor, **options)

            patch.setattr(torch.onnx.ops, "attention", scaled)
            assert onnx_export._use_onnx_attention(model) is expected
        assert model.encoder.config._attn_implementation == ("aspert_onnx" if expected else "eager")


def test_scaled_layers_compute_the_same_and_keep_outliers_apart():
    torch.manual_seed(0)
    layer, values = torch.nn.Linear(8, 4), torch.randn(2, 3, 8)
    values[..., 5] *= 1000
    scaled = onnx_export._ScaledByColumn(layer, values.abs().amax((0, 1)))
    torch.testing.assert_close(scaled(values), layer(values), rtol=1e-5, atol=1e-3)
    with mock.patch.object(onnx_export.F, "linear", side_effect=onnx_export.F.linear) as linear:
        scaled(values)
    seen, given = (part.abs().amax((0, 1)) for part in (linear.call_args.args[0], values))
    torch.testing.assert_close(seen, given.sqrt())

    values = torch.randn(2, 3, 8)
    values[0, 0] *= 1000
    values[1, 2] = 0
    # what is quantised lies in [-1, 1]; each row but that of zeros reaches an end
    for least, given in ((-3.0, values), (-0.2, values.abs() + 0.2), (-0.2, torch.nn.functional.gelu(values))):
        scaled = onnx_export._ScaledByRow(layer, least)
        torch.testing.assert_close(scaled(given), layer(given))
        with mock.patch.object(onnx_export.F, "linear", side_effect=onnx_export.F.linear) as linear:
            scaled(given)
        ends = linear.call_args.args[0].abs().amax(-1).flatten().tolist()
        assert ends == pytest.approx([1, 1, 1, 1, 1, 1 if given.amin() > 0 else 0])


@pytest.mark.parametrize(
    ("family", "switches"),
    [
        ("roberta", BEST),
        pytest.param("mpnet", MAXIMA, marks=pytest.mark.slow),
        ("distilbert", SPERT),
        pytest.param("bert", SQUARES, marks=pytest.mark.slow),
        pytest.param("mpnet", BLOCKS, marks=pytest.mark.slow),
        pytest.param("roberta", ROWS, marks=pytest.mark.slow),
        pytest.param("electra", PAPER, marks=pytest.mark.slow),
    ],
)
def test_logits_of_other_encoders_and_switches(family, switches, tmp_path):
    model = make_model(family, **switches)
    export_onnx(model, make_processor(family), tmp_path)
    assert_same_logits(model, AspertOnnxModel(tmp_path), family)


@pytest.mark.parametrize("overlap", ["allow", "flat"])
def test_records_are_those_of_the_model(exported, overlap):
    model, processor, folder = exported
    onnx, saved = onnx_model.load_exported(folder)
    options = ExtractionOptions(relation_threshold=0.5, entity_overlap=overlap, batch_size=3, stride=3)
    # the last sentence is longer than the encoder, so that it is read in windows
    words = [*(sentence(count) for count in (7, 1, 4, 12, 2)), ["Ada"] * (MAX_POSITIONS + 40)]
    expected = list(Extractor(model, processor, options).annotate(map(Sentence, words)))
    found = list(Extractor(onnx, saved, options).annotate(map(Sentence, words)))
    assert without_scores(found) == without_scores(expected)
    assert sum(len(record["relations"]) for record in found) > 0
    for mine, theirs in zip(found, expected):
        for part in ("entities", "relations"):
            scores = [[item["score"] for item in record[part]] for record in (mine, theirs)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    texts = ["Ada worked in London. Marie married Pierre in Paris.", ""]
    expected = list(Extractor(model, processor, options).extract(texts))
    assert without_scores(Extractor(onnx, saved, options).extract(texts)) == without_scores(expected)


def test_relations_of_given_entities(exported):
    model, processor, folder = exported
    onnx, saved = onnx_model.load_exported(folder)
    given = [Sentence(record["tokens"], record["entities"]) for record in RECORDS[:2]]
    expected = list(Extractor(model, processor).annotate(given))
    assert without_scores(Extractor(onnx, saved).annotate(given)) == without_scores(expected)


def without_scores(records) -> list[dict]:
    return [
        {
            **record,
            **{
                part: [{name: value for name, value in item.items() if name != "score"} for item in record[part]]
                for part in ("entities", "relations")
            },
        }
        for record in records
    ]


def test_int8_stays_close_and_is_smaller(exported, tmp_path):
    model, processor, folder = exported
    export_onnx(model, processor, tmp_path, int8=True)
    # rounding to 8 bits in each of the two layers
    full, small = AspertOnnxModel(folder), AspertOnnxModel(tmp_path)
    batch = make_batch(model.config, training=False)
    del batch["word_spans"]
    expected, found = full(**batch).span_logits, small(**batch).span_logits
    real = batch["span_mask"]
    error = (found - expected)[real].abs().mean() / expected[real].std()
    assert 0 < error < 0.1
    # the export works on a copy
    assert {type(layer) for layer in model.encoder.modules()}.isdisjoint(
        {onnx_export._ScaledByRow, onnx_export._ScaledByColumn}
    )
    matrices = [sizes_of_matrices(place / "spans.onnx") for place in (folder, tmp_path)]
    # all but the last layer, which has few columns
    assert sum(matrices[1][onnx.TensorProto.INT8]) > 0.8 * sum(matrices[0][onnx.TensorProto.FLOAT])
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def sizes_of_matrices(path) -> dict[int, list[int]]:
    """How many values the weights of the matrix products hold, by their type."""
    graph, sizes = onnx.load(path).graph, collections.defaultdict(list)
    used = {name for node in graph.node if "MatMul" in node.op_type for name in node.input}
    for weight in graph.initializer:
        if weight.name in used and len(weight.dims) == 2:
            sizes[weight.data_type].append(math.prod(weight.dims))
    return sizes


def test_the_command_and_what_takes_its_folder(exported, tmp_path, capsys):
    model, processor, _ = exported
    saved, folder, data = tmp_path / "model", tmp_path / "onnx", tmp_path / "words.json"
    model.save_pretrained(saved)
    processor.save_pretrained(saved)
    data.write_text(json.dumps(RECORDS[:2]), encoding="utf-8")
    assert aspert_cli.main(["export-onnx", str(saved), "--output", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} >= {
        "spans.onnx",
        "relations.onnx",
        "config.json",
        "tokenizer.json",
    }
    assert not (folder / "model.safetensors").exists()
    capsys.readouterr()
    printed = []
    for place in (saved, folder):
        assert aspert_cli.main(["predict", str(place), str(data), "--device", "cpu"]) == 0
        printed.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert without_scores(printed[0]) == without_scores(printed[1]) and len(printed[0]) == 2
    assert aspert_cli.main(["predict", str(folder), str(data), "--dtype", "bfloat16"]) == 2
    assert aspert_cli.main(["predict", str(folder), str(data), "--device", "cuda"]) == 2
    (folder / "relations.onnx").unlink()
    assert aspert_cli.main(["predict", str(folder), str(data)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert "--dtype bfloat16" in errors[0] and "runs on the CPU" in errors[1]
    assert "relations.onnx is missing: export the model again" in errors[2]
    assert aspert_cli.main(["export-onnx", str(folder), "--output", str(tmp_path / "again")]) == 2
    (folder / "spans.onnx").rename(folder / "relations.onnx")
    assert aspert_cli.main(["predict", str(folder), str(data)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert "spans.onnx: a model exported to ONNX: give the model that it was made of" in errors[0]
    assert "relations.onnx: a model exported to ONNX: give the model that it was made of" in errors[1]


@pytest.mark.parametrize("part", ["span_classifier.input", "relation_classifier.output"])
def test_what_a_graph_would_leave_out_is_refused(part, tmp_path):
    model = make_model()
    model.get_submodule(part).register_forward_hook(lambda layer, inputs, output: output + 1)
    with pytest.raises(ValueError, match="a classifier has an adapter, a hook .* merge or remove it first"):
        export_onnx(model, make_processor(), tmp_path)


def test_inputs_that_the_export_cannot_take(exported, tmp_path):
    onnx = AspertOnnxModel(exported[2])
    ids = torch.ones(1, MAX_POSITIONS * 2 + 1, dtype=torch.long)
    with pytest.raises(ValueError, match="257 sub-words are more than the export's 256"):
        onnx(ids, ids, torch.tensor([[[1, 2]]]), torch.tensor([[1]]))
    (tmp_path / "relations.onnx").write_bytes(b"")
    (tmp_path / "spans.onnx").write_bytes(b"no graph")
    (tmp_path / "config.json").write_text((exported[2] / "config.json").read_text())
    with pytest.raises(ValueError, match="spans.onnx cannot be read .* export the model again"):
        AspertOnnxModel(tmp_path)


def test_without_the_extra_the_error_names_it(exported, tmp_path, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name.startswith("onnx") else found(name, *rest)
    )
    assert aspert_cli.main(["export-onnx", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert aspert_cli.main(["predict", str(exported[2]), "--text", "Ada"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors == [
        "error: onnx is not installed: pip install 'aspert[onnx]'",
        "error: onnxruntime is not installed: pip install 'aspert[onnx]'",
    ]


def test_the_benchmark_compares_ways(tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise RuntimeError("no compiler")

    monkeypatch.setitem(fast_mode._MAKERS, "compile", fails)
    make_encoder_folder(tmp_path / "encoder")
    call = ["--smoke", "--encoder", str(tmp_path / "encoder"), "--dataset", "quickstart", "--ways", "fp32", "bf16"]
    assert fast_mode.main([*call, "compile", "--output", str(tmp_path / "fast_mode.json")]) == 0
    content = json.loads((tmp_path / "fast_mode.json").read_text(encoding="utf-8"))
    assert list(content["ways"]) == ["fp32", "bf16"]
    for way in content["ways"].values():
        assert way["ratio"] == pytest.approx(content["bare encoder"]["seconds"] / min(way["seconds"]))
    assert content["ways"]["fp32"]["f1 lost"] == {"ner": 0, "re strict": 0}
    assert content["skipped"] == [{"what": "compile", "why": "RuntimeError: no compiler"}]
    assert "| fp32 | " in capsys.readouterr().out
    text = page.fill("<!-- begin fast_mode.json -->\n<!-- end fast_mode.json -->", tmp_path)
    assert "| bf16 | " in text and "Not measured: compile (RuntimeError: no compiler)." in text
    assert fast_mode.main([*call, "--device", "cuda"]) == 2
