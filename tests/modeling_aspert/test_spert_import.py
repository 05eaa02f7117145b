"""SpERT's weights in ASpERT's columns: SpERT's formulas on a tiny checkpoint, and its own predictions on CoNLL04."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import reference
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from modeling_aspert import AspertDataCollator, AspertForJointExtraction
from modeling_aspert.decoding import decode, join_records
from modeling_aspert.spert_import import load_spert

WIDTH = 25


@pytest.fixture
def checkpoint(tmp_path) -> tuple[Path, Path]:
    """A folder as SpERT's code leaves it, with random weights, and a types file."""
    torch.manual_seed(0)
    folder = tmp_path / "spert"
    encoder = AutoModel.from_config(tiny.make_encoder_config(), attn_implementation="eager")
    encoder.save_pretrained(folder)
    tiny.make_tokenizer().save_pretrained(folder)
    d = tiny.HIDDEN_SIZE
    weights = {f"bert.{name}": tensor.clone() for name, tensor in encoder.state_dict().items()}
    weights["entity_classifier.weight"] = torch.randn(4, 2 * d + WIDTH)
    weights["entity_classifier.bias"] = torch.randn(4)
    weights["rel_classifier.weight"] = torch.randn(2, 3 * d + 2 * WIDTH)
    weights["rel_classifier.bias"] = torch.randn(2)
    weights["size_embeddings.weight"] = torch.randn(100, WIDTH)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    types = tmp_path / "types.json"
    types.write_text(
        json.dumps(
            {
                "entities": {name: {"short": name, "verbose": name} for name in ("Loc", "Org", "Peop")},
                "relations": {
                    "Work": {"short": "W", "verbose": "Work", "symmetric": False},
                    "Near": {"short": "N", "verbose": "Near", "symmetric": True},
                },
            }
        )
    )
    return folder, types


def candidates(model, processor, sentences: list[list[str]]) -> dict[str, torch.Tensor]:
    return AspertDataCollator(processor, model.config, training=False).collate_candidates(processor.encode(sentences))


def test_logits_are_sperts(checkpoint):
    """entity = W [h_CLS ; pool ; width], relation = W [context ; pool_1 ; pool_2 ; width_1 ; width_2]."""
    model, processor = load_spert(*checkpoint, max_span_width=3)
    weights = load_file(checkpoint[0] / "model.safetensors")
    batch = candidates(model, processor, [["Ada", "Lovelace", "married", "London", "."]])
    del batch["word_spans"]
    spans, widths = batch["spans"][0].tolist(), batch["span_widths"][0].tolist()
    pairs = [(0, 5), (5, 0), (1, 0), (2, 9), (11, 3)]
    batch["pairs"] = torch.tensor([pairs])
    with torch.no_grad():
        output = model(**batch)
        hidden = model.encoder(batch["input_ids"], batch["attention_mask"]).last_hidden_state[0]
    pooled = [reference.max_pool(hidden, *span) for span in spans]
    sizes = [weights["size_embeddings.weight"][width] for width in widths]
    for index in range(len(spans)):
        vector = torch.cat([hidden[0], pooled[index], sizes[index]])
        expected = weights["entity_classifier.weight"] @ vector + weights["entity_classifier.bias"]
        torch.testing.assert_close(output.span_logits[0, index], expected, rtol=1e-5, atol=2e-5)
    for position, (head, tail) in enumerate(pairs):
        between = reference.context(hidden, tuple(spans[head]), tuple(spans[tail]))
        vector = torch.cat([between, pooled[head], pooled[tail], sizes[head], sizes[tail]])
        expected = weights["rel_classifier.weight"] @ vector + weights["rel_classifier.bias"]
        torch.testing.assert_close(output.relation_logits[0, position], expected, rtol=1e-5, atol=2e-5)


def test_configuration_of_an_import(checkpoint):
    model, processor = load_spert(*checkpoint, max_span_width=7, relation_threshold=0.3)
    config = model.config
    assert not config.attentional_contribution
    assert (config.span_classifier, config.width_embedding, config.relation_none_class) == ("linear", True, False)
    assert (config.entity_types, config.relation_types) == (["Loc", "Org", "Peop"], ["Work", "Near"])
    assert config.symmetric_relations == ["Near"]
    assert (config.max_span_width, config.relation_threshold, config.width_embedding_size) == (7, 0.3, WIDTH)
    assert not model.training
    assert processor.max_tokens == tiny.MAX_POSITIONS
    assert str(checkpoint[0].parent) not in json.dumps(config.to_dict())


def test_import_saves_and_loads(checkpoint, tmp_path):
    model, processor = load_spert(*checkpoint)
    model.save_pretrained(tmp_path / "joint")
    batch = candidates(model, processor, [["Ada", "married", "."]])
    del batch["word_spans"]
    loaded = AspertForJointExtraction.from_pretrained(tmp_path / "joint")
    assert torch.equal(loaded(**batch).span_logits, model(**batch).span_logits)


def test_a_cased_checkpoint_without_a_tokenizer_configuration(checkpoint):
    """SpERT's code leaves vocab.txt; its CoNLL04 model is of a cased BERT."""
    folder, _ = checkpoint
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    _, processor = load_spert(*checkpoint)
    pieces = processor.tokenizer.convert_ids_to_tokens(processor.encode([["Ada", "London"]])[0].input_ids)
    assert pieces == ["[CLS]", "Ada", "London", "[SEP]"]


def test_weights_in_half_precision_run_in_fp32(checkpoint):
    folder, _ = checkpoint
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor.half() for name, tensor in weights.items()}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    model, processor = load_spert(*checkpoint)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    batch = candidates(model, processor, [["Ada"]])
    del batch["word_spans"]
    model(**batch)


def test_pickles_are_refused(checkpoint):
    folder, types = checkpoint
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors does not exist"):
        load_spert(folder, types)
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="pytorch_model.bin is a pickle.*convert it to safetensors"):
        load_spert(folder, types)


def test_wrong_types_file(checkpoint):
    folder, types = checkpoint
    stored = json.loads(types.read_text())
    fewer = {**stored, "entities": {"Loc": stored["entities"]["Loc"]}}
    types.write_text(json.dumps(fewer))
    with pytest.raises(
        ValueError, match=r"entity_classifier.weight has 4 outputs.*types.json lists 2 entity types and none"
    ):
        load_spert(folder, types)
    more = {**stored, "relations": {**stored["relations"], "Extra": {}}}
    types.write_text(json.dumps(more))
    with pytest.raises(
        ValueError, match=r"rel_classifier.weight has 2 outputs.*lists 3 relation types: pass the types file"
    ):
        load_spert(folder, types)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"entities": {"Loc": {}}, "relations": {"Near": {"symetric": true}}}', "symetric"),
        ('{"entities": {"Loc": {}}}', "relations"),
        ('{"entities": ["Loc"], "relations": {}}', "entities"),
        ("[1", "JSON"),
    ],
)
def test_a_types_file_that_is_none(checkpoint, content, said):
    """The errors are those of the types file of a corpus."""
    folder, types = checkpoint
    types.write_text(content)
    with pytest.raises(ValueError, match=rf"types\.json.*{said}"):
        load_spert(folder, types)


@pytest.mark.parametrize("name", ["size_embeddings.weight", "rel_classifier.bias", "entity_classifier.bias"])
def test_not_a_checkpoint_of_sperts(checkpoint, name):
    folder, types = checkpoint
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match=f"no {name}: it is not a checkpoint of SpERT's code"):
        load_spert(folder, types)


def test_weights_that_were_cut_off(checkpoint):
    folder, types = checkpoint
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="model.safetensors"):
        load_spert(folder, types)


def test_predictions_of_sperts_own_code(spert_reference, corpora):
    """All 288 sentences of CoNLL04's test split: entities and relations entry by entry, scores to 1e-4."""
    model, processor = load_spert(spert_reference, spert_reference / "conll04_types.json")
    records = json.loads((corpora / "conll04" / "conll04_test.json").read_text(encoding="utf-8"))
    expected = json.loads((spert_reference / "predictions_test.json").read_text(encoding="utf-8"))
    collator = AspertDataCollator(processor, model.config, training=False)
    encoded = processor.encode([record["tokens"] for record in records])
    order = sorted(range(len(records)), key=lambda index: encoded[index].num_tokens)
    found = {}
    for start in range(0, len(order), 16):
        chunk = order[start : start + 16]
        batch = collator.collate_candidates([encoded[index] for index in chunk])
        word_spans = batch.pop("word_spans")
        with torch.inference_mode():
            decoded = decode(model(**batch), word_spans, batch["span_mask"], model.config)
        found.update(zip(chunk, decoded.per_sentence(len(chunk))))
    predicted = join_records(records, [found[index] for index in range(len(records))], model.config)

    assert len(predicted) == len(expected) == 288
    assert sum(len(record["entities"]) for record in predicted) == 1084
    assert sum(len(record["relations"]) for record in predicted) == 411
    for ours, theirs in zip(predicted, expected):
        assert ours["tokens"] == theirs["tokens"]
        entities = {(entity["start"], entity["end"], entity["type"]): entity["score"] for entity in ours["entities"]}
        assert entities == {
            (entity["start"], entity["end"], entity["type"]): pytest.approx(entity["score"], abs=1e-4)
            for entity in theirs["entities"]
        }
        relations = {(entry["head"], entry["tail"], entry["type"]): entry["score"] for entry in ours["relations"]}
        assert relations == {
            (entry["head"], entry["tail"], entry["type"]): pytest.approx(entry["score"], abs=1e-4)
            for entry in theirs["relations"]
        }


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            "rel_classifier.bias",
            lambda weight: weight * float("nan"),
            "rel_classifier.bias holds NaN or infinite numbers",
        ),
        ("bert.embeddings.LayerNorm.weight", lambda weight: weight / 0, "LayerNorm.weight holds NaN or infinite"),
        ("entity_classifier.weight", lambda weight: weight[:, 1:], "its weights are not those of .*config.json: copy"),
        (
            "bert.embeddings.LayerNorm.bias",
            lambda weight: weight[1:],
            "its weights are not those of .*config.json: copy",
        ),
        (
            "size_embeddings.weight",
            lambda weight: weight[0],
            "size_embeddings.weight has 1 dimensions, not 2: copy it",
        ),
        (
            "rel_classifier.bias",
            lambda weight: weight[0],
            "rel_classifier.bias has 0 dimensions, not 1: copy it again",
        ),
    ],
)
def test_weights_that_do_not_fit(checkpoint, name, change, said):
    folder, types = checkpoint
    weights = load_file(folder / "model.safetensors")
    weights[name] = change(weights[name]).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"model.safetensors: .*{said}"):
        load_spert(folder, types)
