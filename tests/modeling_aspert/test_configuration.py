"""AspertConfig: the paper's defaults, refusal of wrong values, and what is saved."""

from __future__ import annotations

import inspect
import json

import pytest
import tiny
from transformers import AutoConfig, BertConfig, FNetConfig

from modeling_aspert import AspertConfig
from modeling_aspert.configuration_aspert import PRESET_TRAINING, PRESETS, pretrained_encoder_config


def test_defaults_are_the_papers_model():
    """Table 3 and Section 4: MLP of 784, width embedding of 25, theta 0.5, alpha 0.4, dropout 0.1, lambda 1."""
    config = AspertConfig()
    assert config.attentional_contribution is True
    assert (config.contribution_threshold, config.contribution_pooling) == (0.5, "mean")
    assert (config.contribution_scope, config.contribution_direction) == ("context", "from_span")
    assert config.contribution_special_tokens is True
    assert config.relation_contribution is True
    assert (config.span_classifier, config.span_classifier_size) == ("mlp", 784)
    assert (config.width_embedding, config.width_embedding_size) == (True, 25)
    assert (config.classifier_dropout, config.mlp_dropout) == (0.1, 0.1)
    assert (config.relation_none_class, config.relation_threshold) == (False, 0.4)
    assert (config.span_loss_weight, config.max_span_width, config.initializer_range) == (1.0, 10, 0.02)


def test_presets():
    types = {"entity_types": ["a"], "relation_types": ["r"]}
    paper, spert, prime = (AspertConfig.from_preset(name, **types) for name in ("paper", "spert", "spert_prime"))
    assert paper.to_dict() == AspertConfig(**types).to_dict()
    assert (spert.attentional_contribution, spert.span_classifier, spert.width_embedding) == (False, "linear", True)
    assert spert.relation_none_class is False
    assert (prime.attentional_contribution, prime.span_classifier, prime.width_embedding) == (False, "linear", False)
    assert AspertConfig.from_preset("spert", span_classifier="mlp").span_classifier == "mlp"
    with pytest.raises(ValueError, match="unknown preset 'bert'.*paper, spert, spert_prime"):
        AspertConfig.from_preset("bert")


def test_what_goes_with_a_preset_in_a_training_is_of_a_preset_that_there_is():
    assert PRESET_TRAINING == {"best": {"learn_constraints": True}} and set(PRESET_TRAINING) <= set(PRESETS)


def test_what_is_saved_can_be_loaded(tmp_path):
    config = AspertConfig(entity_types=["a", "b"], relation_types=["r"])
    config.entity_types = ["Person", "City"]
    config.save_pretrained(tmp_path)
    loaded = AspertConfig.from_pretrained(tmp_path)
    assert loaded.entity_types == ["Person", "City"]
    assert loaded.id2label == {0: "none", 1: "Person", 2: "City"} and loaded.label2id["City"] == 2
    config.id2label = {0: "none", 1: "X", 2: "Y"}
    with pytest.raises(ValueError, match="contradicts entity_types.*rename the types in entity_types"):
        config.save_pretrained(tmp_path)
    config.entity_types = ["a", "b"]
    config.relation_threshold = 1.5
    with pytest.raises(ValueError, match="relation_threshold = 1.5 is not valid"):
        config.save_pretrained(tmp_path)


def test_field_names():
    names = AspertConfig.field_names()
    assert (names[0], names[-1]) == ("encoder_config", "initializer_range")
    assert ["self", *names, "kwargs"] == list(inspect.signature(AspertConfig.__init__).parameters)
    assert OwnConfig.field_names() == [*names, "own"]


class OwnConfig(AspertConfig):
    """A configuration of somebody's own."""

    def __init__(self, own=1, **kwargs):
        self.own = own
        super().__init__(**kwargs)


def test_sizes():
    """144 channels for 12 layers of 12 heads (Section 4.2); twice for both directions; none where it is off."""
    base = BertConfig()
    assert AspertConfig(base).num_attention_channels == 144
    assert AspertConfig(base).contribution_size == 144
    assert AspertConfig(base, contribution_direction="both").contribution_size == 288
    assert AspertConfig(base, attentional_contribution=False).contribution_size == 0
    assert AspertConfig(base, relation_types=["r", "q"]).num_relation_outputs == 2
    assert AspertConfig(base, relation_types=["r", "q"], relation_none_class=True).num_relation_outputs == 3


def test_labels():
    config = AspertConfig(entity_types=["Loc", "Org"], relation_types=["a", "b", "c"], symmetric_relations=["c", "a"])
    assert config.symmetric_flags == [True, False, True]
    assert config.id2label == {0: "none", 1: "Loc", 2: "Org"}
    assert config.label2id == {"none": 0, "Loc": 1, "Org": 2}
    assert config.num_labels == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("contribution_threshold", 1.0),
        ("contribution_threshold", -0.1),
        ("contribution_threshold", float("nan")),
        ("contribution_threshold", True),
        ("contribution_pooling", "avg"),
        ("contribution_scope", "sentences"),
        ("contribution_direction", "from"),
        ("contribution_special_tokens", "no"),
        ("attentional_contribution", 1),
        ("relation_contribution", None),
        ("span_classifier", "MLP"),
        ("span_classifier_size", 0),
        ("width_embedding", "false"),
        ("width_embedding_size", 2.5),
        ("classifier_dropout", 1.0),
        ("mlp_dropout", -1),
        ("relation_none_class", 0),
        ("relation_threshold", 1.5),
        ("span_loss_weight", -1),
        ("span_loss_weight", float("inf")),
        ("max_span_width", 0),
        ("max_span_width", True),
        ("entity_types", ["Loc", "Loc"]),
        ("entity_types", ["none"]),
        ("entity_types", [""]),
        ("entity_types", [3]),
        ("entity_types", [" "]),
        ("entity_types", ["\x1b[2J"]),
        ("relation_types", ["a\nb"]),
        ("relation_types", ["r", "r"]),
        ("symmetric_relations", ["unknown"]),
    ],
)
def test_wrong_values_are_refused_with_field_and_value(field, value):
    with pytest.raises(ValueError) as caught:
        AspertConfig(**{field: value})
    message = str(caught.value)
    assert f"AspertConfig.{field}" in message
    assert repr(value) in message
    assert "must be" in message


@pytest.mark.parametrize("threshold", [0, 0.0, 0.999])
def test_thresholds_at_the_edge(threshold):
    assert (
        AspertConfig(contribution_threshold=threshold, relation_threshold=threshold).contribution_threshold
        == threshold
    )


def test_misspelt_fields_are_refused():
    with pytest.raises(ValueError, match="'relation_treshold'.*'relation_threshold'"):
        AspertConfig(relation_treshold=0.3)
    with pytest.raises(ValueError, match="did you mean 'contribution_pooling'"):
        AspertConfig(contribution_poling="max")


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_save_and_load(tmp_path, family):
    config = tiny.make_config(
        family,
        contribution_scope="span",
        contribution_pooling="max",
        contribution_direction="both",
        contribution_threshold=0.25,
        contribution_special_tokens=False,
        relation_contribution=False,
        relation_none_class=True,
        relation_threshold=0.3,
        span_loss_weight=2.5,
        max_span_width=7,
    )
    config.save_pretrained(tmp_path)
    for loaded in (AspertConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is AspertConfig
        assert type(loaded.encoder_config) is type(config.encoder_config)
        # where it was loaded from is not a part of it
        assert {**loaded.to_dict(), "_name_or_path": ""} == config.to_dict()
        assert loaded.contribution_size == 2 * tiny.LAYERS * tiny.HEADS


def test_labels_edited_in_a_file(tmp_path):
    """id2label follows them where it is left out; where it says otherwise, one of both is wrong."""
    AspertConfig(entity_types=["a", "b"]).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    stored = {**json.loads(file.read_text()), "entity_types": ["a", "b", "c"]}
    file.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"id2label = .*'2': 'b'} contradicts entity_types = \['a', 'b', 'c'\]"):
        AspertConfig.from_pretrained(tmp_path)
    del stored["id2label"]
    file.write_text(json.dumps(stored))
    assert AspertConfig.from_pretrained(tmp_path).id2label == {0: "none", 1: "a", 2: "b", 3: "c"}


@pytest.mark.parametrize("as_dict", [True, False])
def test_remote_code_is_stripped_from_the_encoder(tmp_path, as_dict):
    """A saved model names no code of the encoder's that would run when it is loaded."""
    evil = {"auto_map": {"AutoModel": "evil.Model"}, "trust_remote_code": True}
    encoder_config = tiny.make_encoder_config(**evil)
    config = AspertConfig(encoder_config.to_dict() if as_dict else encoder_config)
    config.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())["encoder_config"]
    assert not {"auto_map", "trust_remote_code"} & set(stored)
    stored_evil = {**stored, **evil}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "aspert", "encoder_config": stored_evil}))
    loaded = AspertConfig.from_pretrained(tmp_path)
    assert not {"auto_map", "trust_remote_code"} & set(loaded.encoder_config.to_dict())


def test_encoder_without_a_model_type():
    with pytest.raises(ValueError, match="model_type"):
        AspertConfig({"hidden_size": 32})


def test_a_trained_model_is_no_encoder(tmp_path):
    tiny.make_config().save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="config.json: a trained ASpERT model, not an encoder: load it with .*from_pre"
    ):
        pretrained_encoder_config(tmp_path)
    for config in (AspertConfig(), AspertConfig().to_dict()):
        with pytest.raises(ValueError, match="encoder_config is that of a trained ASpERT model, not an encoder"):
            AspertConfig(config)


def test_encoder_in_a_subfolder(tmp_path):
    tiny.make_encoder_config("roberta").save_pretrained(tmp_path)
    tiny.make_encoder_config("bert", num_hidden_layers=3).save_pretrained(tmp_path / "enc")
    config = pretrained_encoder_config(tmp_path, subfolder="enc")
    assert (config.model_type, config.num_hidden_layers) == ("bert", 3)
    (tmp_path / "enc" / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="enc/config.json: no JSON object"):
        pretrained_encoder_config(tmp_path, subfolder="enc")


# -- fields given to from_pretrained -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"), [("relation_threshold", 5), ("span_classifier", "MLP"), ("relation_types", ["r", "r"])]
)
def test_given_fields_are_checked(tmp_path, field, value):
    tiny.make_config().save_pretrained(tmp_path)
    for config_class in (AspertConfig, OwnConfig):
        with pytest.raises(ValueError, match=f"AspertConfig.{field} = "):
            config_class.from_pretrained(tmp_path, **{field: value})


def test_given_fields_win_over_stored_ones(tmp_path):
    config = tiny.make_config()
    config.save_pretrained(tmp_path)
    loaded, unused = AspertConfig.from_pretrained(
        tmp_path,
        relation_threshold=0.3,
        encoder_config={"attention_probs_dropout_prob": 0.5},
        unknown=1,
        return_unused_kwargs=True,
    )
    assert unused == {"unknown": 1}
    assert loaded.relation_threshold == 0.3
    # the rest of the encoder's configuration is as it was stored
    expected = config.encoder_config.to_dict() | {"attention_probs_dropout_prob": 0.5}
    assert loaded.encoder_config.to_dict() == expected != config.encoder_config.to_dict()


def test_given_entity_types_are_saved_and_loaded(tmp_path):
    tiny.make_config().save_pretrained(tmp_path)
    loaded = AspertConfig.from_pretrained(tmp_path, entity_types=["a"])
    assert loaded.id2label == {0: "none", 1: "a"} and loaded.label2id == {"none": 0, "a": 1}
    loaded.save_pretrained(tmp_path)
    assert AspertConfig.from_pretrained(tmp_path).entity_types == ["a"]
    with pytest.raises(ValueError, match=r"id2label = .* contradicts entity_types = \['a'\]"):
        AspertConfig.from_pretrained(tmp_path, id2label={0: "none", 1: "b"})
    with pytest.raises(ValueError, match=r"num_labels = 9 contradicts entity_types = \['a'\]"):
        AspertConfig.from_pretrained(tmp_path, num_labels=9)
    assert AspertConfig.from_pretrained(tmp_path, num_labels=2).num_labels == 2


# -- what the encoder's configuration is asked for -----------------------------------------------------------------

FORWARDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_sizes_of_the_encoder(tmp_path, family):
    """DeepSpeed's "auto" asks for hidden_size; nothing of it is stored."""
    config = tiny.make_config(family)
    own = [getattr(config, name) for name in FORWARDED]
    assert own == [getattr(config.encoder_config, name) for name in FORWARDED]
    assert own[:3] == [tiny.HIDDEN_SIZE, tiny.LAYERS, tiny.HEADS]
    config.save_pretrained(tmp_path)
    assert not set(FORWARDED) & (set(config.to_dict()) | set(json.loads((tmp_path / "config.json").read_text())))


def test_sizes_of_the_encoder_are_read_only():
    config = AspertConfig()
    for name in FORWARDED[:3]:
        with pytest.raises(AttributeError):
            setattr(config, name, 7)
    assert not hasattr(AspertConfig(FNetConfig()), "num_attention_heads")


def test_sizes_of_the_encoder_that_a_file_repeats(tmp_path):
    file = tmp_path / "config.json"
    tiny.make_config().save_pretrained(tmp_path)
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({**stored, "hidden_size": tiny.HIDDEN_SIZE}))
    assert AspertConfig.from_pretrained(tmp_path).hidden_size == tiny.HIDDEN_SIZE
    file.write_text(json.dumps({**stored, "num_hidden_layers": 10**7}))
    with pytest.raises(ValueError, match="num_hidden_layers = 10000000 is not valid: it is the encoder's 2, leave it"):
        AspertConfig.from_pretrained(tmp_path)


def test_a_resize_is_the_encoders(tmp_path):
    model = tiny.make_model()
    rows = model.config.vocab_size + 3
    model.resize_token_embeddings(rows)
    assert model.config.vocab_size == model.config.encoder_config.vocab_size == rows
    model.config.save_pretrained(tmp_path)
    assert "vocab_size" not in json.loads((tmp_path / "config.json").read_text())
    assert AspertConfig.from_pretrained(tmp_path).vocab_size == rows


def test_what_is_no_model_of_this_library_is_said(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="model_type = 'bert', not 'aspert': this is no model of this library"):
        AspertConfig.from_pretrained(tmp_path)


def test_an_encoder_that_cannot_be_found_is_named(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OSError, match="nowhere/none"):
        pretrained_encoder_config("nowhere/none", local_files_only=True)
