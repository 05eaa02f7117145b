"""Configuration of ASpERT: everything that inference needs, so that a checkpoint needs no side file."""

from __future__ import annotations

import difflib
import inspect
import math
import os
from collections.abc import Sequence
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig

from .model_files import local_file, read_config

CONTRIBUTION_POOLINGS = ("mean", "sum", "max")
CONTRIBUTION_SCOPES = ("context", "sentence", "span")
CONTRIBUTION_DIRECTIONS = ("from_span", "to_span", "both")
CLASSIFIERS = ("mlp", "linear")
ENTITY_OVERLAPS = ("allow", "flat")
# "none" is for special tokens; scripts without case are "lower"
WORD_SHAPES = ("none", "lower", "capitalized", "upper", "initial", "mixed", "number", "alphanumeric", "symbol")
NONE_TYPE = "none"
# never kept in the encoder's configuration: a saved model must not name code that runs when it is loaded
_REMOTE_CODE = ("auto_map", "trust_remote_code")
# far more than any encoder has; a network is built before it is compared with its weights
_MOST_LAYERS = 1000
_DTYPES = ("float16", "bfloat16", "float32", "float64")
# what transformers stores of entity_types
_DERIVED = ("id2label", "label2id", "num_labels")
# properties that forward to the encoder's configuration
_FORWARDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")

# Named architectures: the paper's model, its baseline, the baseline of Table 1, and what won on development data.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "spert": {"attentional_contribution": False, "span_classifier": "linear"},
    "spert_prime": {"attentional_contribution": False, "span_classifier": "linear", "width_embedding": False},
    "best": {"word_shapes": True},
}
# What of a training goes with a preset where it is not said: fields of `train.py`.
PRESET_TRAINING: dict[str, dict[str, Any]] = {"best": {"learn_constraints": True}}


class AspertConfig(PretrainedConfig):
    """Configuration of :class:`AspertForJointExtraction`; the defaults are the paper's model (Table 3).

    Args:
        encoder_config: configuration of any `AutoModel` encoder, as an object or a dict with `model_type`.
        entity_types: names of the T_e entity types, without none (none has index 0 in the model).
        relation_types: names of the T_r relation types, without none.
        symmetric_relations: those of `relation_types` whose head and tail may be exchanged.
        max_span_width: widest candidate span, in words.
        word_shapes: add an embedding of each word's shape (its case, digits or symbols) to the encoder's input
            embeddings, from which an uncased encoder learns what its tokenizer drops (not in the paper).
        attentional_contribution: join f_a(s) to the span representation (Eq. 6). False adds no columns at all and
            frees the encoder's attention implementation.
        contribution_threshold: theta of Algorithm 2, in [0, 1); 0 means no gate.
        contribution_pooling: "mean", "sum" or "max" (Table 7).
        contribution_scope: "context" (Algorithm 1), "sentence" (the prose of Section 4.2) or "span".
        contribution_direction: "from_span", "to_span" or "both".
        contribution_special_tokens: whether special tokens count on the other side of the span.
        relation_contribution: whether Eq. 4 inherits f_a from Eq. 6.
        span_classifier: "mlp" (Eq. 8-9) or "linear" (Eq. 3, SpERT).
        span_classifier_size: hidden units m of the MLP.
        span_boundaries: join the hidden states of the span's first and last sub-words to the max-pooled ones (not in
            the paper).
        width_embedding: join an embedding of the width in words (False is SpERT' of Table 1).
        width_embedding_size: its size n.
        relation_classifier: "linear" (Eq. 5) or "mlp" with one hidden layer (not in the paper).
        relation_classifier_size: hidden units of that MLP.
        relation_entity_types: join the span classifier's T_e + 1 probabilities, of none and the entity types, to both
            entities of a pair, without a gradient (not in the paper).
        classifier_dropout: dropout on the input of both classifiers.
        mlp_dropout: dropout on the hidden layer of the MLP.
        relation_none_class: add a none output, the last one, that vetoes a pair (Section 3.4's text).
        entity_threshold: least probability of an entity's type; 0 as in the paper.
        entity_overlap: "allow" overlapping entities, as in the paper, or keep the best of them: "flat".
        relation_threshold: alpha; a relation is kept where its probability is >= alpha.
        relation_type_constraints: for a relation type, the (head, tail) entity types that it may join; a type that is
            not named joins any. None: no constraints. `learn_constraints` learns them from training data.
        span_loss_weight: lambda of Eq. 10.
        initializer_range: standard deviation of the initial weights of heads and width table.

    Raises:
        ValueError: a value out of range, a duplicate label, or an unknown field that resembles a known one.
    """

    model_type = "aspert"
    sub_configs = {"encoder_config": AutoConfig}

    def __init__(
        self,
        encoder_config: PretrainedConfig | dict[str, Any] | None = None,
        entity_types: Sequence[str] = (),
        relation_types: Sequence[str] = (),
        symmetric_relations: Sequence[str] = (),
        max_span_width: int = 10,
        word_shapes: bool = False,
        attentional_contribution: bool = True,
        contribution_threshold: float = 0.5,
        contribution_pooling: str = "mean",
        contribution_scope: str = "context",
        contribution_direction: str = "from_span",
        contribution_special_tokens: bool = True,
        relation_contribution: bool = True,
        span_classifier: str = "mlp",
        span_classifier_size: int = 784,
        span_boundaries: bool = False,
        width_embedding: bool = True,
        width_embedding_size: int = 25,
        relation_classifier: str = "linear",
        relation_classifier_size: int = 784,
        relation_entity_types: bool = False,
        classifier_dropout: float = 0.1,
        mlp_dropout: float = 0.1,
        relation_none_class: bool = False,
        entity_threshold: float = 0.0,
        entity_overlap: str = "allow",
        relation_threshold: float = 0.4,
        relation_type_constraints: dict[str, list[list[str]]] | None = None,
        span_loss_weight: float = 1.0,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        self._refuse_misspelt(kwargs)
        # derived from entity_types below; a stored copy must not win
        stored = {name: kwargs.pop(name, None) for name in _DERIVED}
        if not __name__.startswith("transformers_modules."):
            # the pipeline's code beside the weights is for processes without this package
            kwargs.pop("custom_pipelines", None)
        self.encoder_config = _encoder_config(encoder_config)
        for name in _FORWARDED:
            value, own = kwargs.pop(name, None), getattr(self, name, None)
            if value not in (None, own):
                raise ValueError(
                    f"AspertConfig.{name} = {value!r} is not valid: it is the encoder's {own}, leave it out"
                )
        for name, labels in (
            ("entity_types", entity_types),
            ("relation_types", relation_types),
            ("symmetric_relations", symmetric_relations),
        ):
            if not isinstance(labels, (list, tuple)):
                raise ValueError(f"AspertConfig.{name} = {labels!r} is not valid: it must be a list of names")
            setattr(self, name, list(labels))
            # before transformers checks what is derived from them
            self._check_labels(name)
        self.max_span_width = max_span_width
        self.word_shapes = word_shapes
        self.attentional_contribution = attentional_contribution
        self.contribution_threshold = contribution_threshold
        self.contribution_pooling = contribution_pooling
        self.contribution_scope = contribution_scope
        self.contribution_direction = contribution_direction
        self.contribution_special_tokens = contribution_special_tokens
        self.relation_contribution = relation_contribution
        self.span_classifier = span_classifier
        self.span_classifier_size = span_classifier_size
        self.span_boundaries = span_boundaries
        self.width_embedding = width_embedding
        self.width_embedding_size = width_embedding_size
        self.relation_classifier = relation_classifier
        self.relation_classifier_size = relation_classifier_size
        self.relation_entity_types = relation_entity_types
        self.classifier_dropout = classifier_dropout
        self.mlp_dropout = mlp_dropout
        self.relation_none_class = relation_none_class
        self.entity_threshold = entity_threshold
        self.entity_overlap = entity_overlap
        self.relation_threshold = relation_threshold
        self.relation_type_constraints = relation_type_constraints
        self.span_loss_weight = span_loss_weight
        self.initializer_range = initializer_range
        _check_dtype("AspertConfig.", kwargs)
        if kwargs.get("transformers_weights") is not None:
            raise ValueError("AspertConfig.transformers_weights is not read: name the weights model.safetensors")
        # the Trainer compares it with the tokenizer's
        kwargs.setdefault("pad_token_id", getattr(self.encoder_config, "pad_token_id", None))
        super().__init__(id2label=self.id2label, label2id=self.label2id, **kwargs)
        self.check()
        for name in ("id2label", "num_labels"):
            if (value := stored[name]) and _as_stored(value) != _as_stored(getattr(self, name)):
                raise ValueError(
                    f"AspertConfig.{name} = {value!r} contradicts entity_types = {self.entity_types!r}: they must be those "
                    f"that the weights were trained with; {name} may be left out"
                )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # whose code is published is for its author to say
        cls._auto_class = None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "entity_types" and isinstance(value, (list, tuple)):
            self.id2label = dict(enumerate([NONE_TYPE, *value]))
            self.label2id = {label: index for index, label in self.id2label.items()}

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """As every configuration's, where all fields are valid, so that what is saved can be loaded.

        Raises:
            ValueError: a field that was changed to what is not valid.
        """
        self.check()
        if list(self.id2label.values()) != [NONE_TYPE, *self.entity_types]:
            raise ValueError(
                f"AspertConfig.id2label = {self.id2label!r} contradicts entity_types = {self.entity_types!r}: rename the "
                "types in entity_types, id2label follows"
            )
        super().save_pretrained(save_directory, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As every configuration's, but fields in ``kwargs`` are checked as stored ones are, and what a file names of
        code on the Hub is left out."""
        model_type = config_dict.get("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ValueError(
                f"model_type = {model_type!r}, not {cls.model_type!r}: this is no model of this library; "
                "AspertForJointExtraction.from_encoder_pretrained makes one of an encoder"
            )
        fields = {key: value for key, value in config_dict.items() if not _is_kernel(key, value)}
        given = {name: kwargs.pop(name) for name in (*cls.field_names(), *_DERIVED) if name in kwargs}
        if "entity_types" in given:
            for name in _DERIVED:
                fields.pop(name, None)
        stored, encoder = (values.get("encoder_config") for values in (fields, given))
        if isinstance(stored, dict) and isinstance(encoder, dict):
            # a part of it leaves the rest as it was
            given["encoder_config"] = {**stored, **encoder}
        return super().from_dict({**fields, **given}, **kwargs)

    @classmethod
    def field_names(cls) -> list[str]:
        """The names of all fields, in their order; of a subclass, those of the classes above it first."""
        classes = [parent for parent in reversed(cls.__mro__) if issubclass(parent, AspertConfig)]
        names = dict.fromkeys(name for parent in classes for name in inspect.signature(parent.__init__).parameters)
        return [name for name in names if name not in ("self", "kwargs")]

    @classmethod
    def from_preset(cls, preset: str, **fields: Any) -> AspertConfig:
        """A configuration of a named architecture ("paper", "spert", "spert_prime", "best"), other fields on top.

        Raises:
            ValueError: unknown preset.
        """
        return cls(**{**preset_fields(preset), **fields})

    @property
    def hidden_size(self) -> int:
        """d of the encoder."""
        return self.encoder_config.hidden_size

    @property
    def num_hidden_layers(self) -> int:
        """L of the encoder."""
        return self.encoder_config.num_hidden_layers

    @property
    def num_attention_heads(self) -> int:
        """H of the encoder."""
        return self.encoder_config.num_attention_heads

    @property
    def vocab_size(self) -> int:
        """Rows of the encoder's table of sub-words; `resize_token_embeddings` sets it."""
        return self.encoder_config.vocab_size

    @vocab_size.setter
    def vocab_size(self, value: int) -> None:
        self.encoder_config.vocab_size = value

    @property
    def num_attention_channels(self) -> int:
        """C = L * H of the encoder. Raises ValueError for an encoder without attention heads."""
        heads = getattr(self.encoder_config, "num_attention_heads", None)
        if not isinstance(heads, int):
            raise ValueError(
                f"the encoder ({self.encoder_config.model_type}) has no attention heads, whose weights are features of "
                "this model: choose another encoder, or set attentional_contribution=False"
            )
        return self.encoder_config.num_hidden_layers * heads

    @property
    def contribution_size(self) -> int:
        """Columns that f_a adds to a span: C, 2C for direction "both", 0 where the contribution is off."""
        if not self.attentional_contribution:
            return 0
        return self.num_attention_channels * (2 if self.contribution_direction == "both" else 1)

    @property
    def num_relation_outputs(self) -> int:
        """T_r, plus one for the none class."""
        return len(self.relation_types) + int(self.relation_none_class)

    @property
    def symmetric_flags(self) -> list[bool]:
        """For each relation type, in order, whether it is symmetric."""
        return [relation in self.symmetric_relations for relation in self.relation_types]

    def check(self) -> None:
        """Raise ValueError, naming field, value and mend, unless every field is valid."""
        for name in (
            "word_shapes",
            "attentional_contribution",
            "contribution_special_tokens",
            "relation_contribution",
            "span_boundaries",
            "width_embedding",
            "relation_entity_types",
            "relation_none_class",
        ):
            self._check(name, isinstance(getattr(self, name), bool), "true or false")
        for name in ("max_span_width", "span_classifier_size", "width_embedding_size", "relation_classifier_size"):
            value = getattr(self, name)
            self._check(name, isinstance(value, int) and not isinstance(value, bool) and value >= 1, "an integer >= 1")
        choices = {
            "contribution_pooling": CONTRIBUTION_POOLINGS,
            "contribution_scope": CONTRIBUTION_SCOPES,
            "contribution_direction": CONTRIBUTION_DIRECTIONS,
            "span_classifier": CLASSIFIERS,
            "entity_overlap": ENTITY_OVERLAPS,
            "relation_classifier": CLASSIFIERS,
        }
        for name, allowed in choices.items():
            self._check(name, getattr(self, name) in allowed, f"one of {', '.join(allowed)}")
        for name in ("contribution_threshold", "classifier_dropout", "mlp_dropout"):
            self._check(name, _is_number(value := getattr(self, name)) and 0 <= value < 1, "a number in [0, 1)")
        for name in ("entity_threshold", "relation_threshold"):
            self._check(name, _is_number(value := getattr(self, name)) and 0 <= value <= 1, "a number in [0, 1]")
        for name in ("span_loss_weight", "initializer_range"):
            self._check(name, _is_number(value := getattr(self, name)) and value >= 0, "a number >= 0")
        for name in ("entity_types", "relation_types", "symmetric_relations"):
            labels = getattr(self, name)
            self._check_labels(name)
            self._check(name, len(set(labels)) == len(labels), "a list without duplicates")
        self._check(
            "entity_types", NONE_TYPE not in self.entity_types, f"a list without {NONE_TYPE!r}, which is implied"
        )
        constraints = self.relation_type_constraints
        self._check(
            "relation_type_constraints",
            constraints is None
            or isinstance(constraints, dict)
            and all(
                relation in self.relation_types
                and isinstance(pairs, (list, tuple))
                and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs)
                and all(end in self.entity_types for pair in pairs for end in pair)
                for relation, pairs in constraints.items()
            ),
            "a mapping of relation_types to lists of [head, tail] out of entity_types",
        )
        unknown = [label for label in self.symmetric_relations if label not in self.relation_types]
        self._check("symmetric_relations", not unknown, f"a subset of relation_types {self.relation_types}")

    def _check_labels(self, name: str) -> None:
        labels = getattr(self, name)
        self._check(
            name, all(isinstance(label, str) and label.strip() for label in labels), "a list of non-empty names"
        )
        # they reach terminals and pages
        self._check(
            name, all(map(str.isprintable, labels)), "a list of names without characters that cannot be printed"
        )

    def _check(self, name: str, valid: bool, mend: str) -> None:
        if not valid:
            raise ValueError(f"AspertConfig.{name} = {getattr(self, name)!r} is not valid: it must be {mend}")

    @classmethod
    def _refuse_misspelt(cls, unknown: dict[str, Any]) -> None:
        own = cls.field_names()
        inherited = set(inspect.signature(PretrainedConfig.__init__).parameters) | set(dir(PretrainedConfig))
        for name in unknown:
            close = difflib.get_close_matches(name, own, n=1, cutoff=0.8)
            if close and name not in inherited:
                raise ValueError(f"AspertConfig has no field {name!r}: did you mean {close[0]!r}?")


def preset_fields(preset: str) -> dict[str, Any]:
    """The fields of a named architecture. Raises ValueError for a name that there is not."""
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[preset]


def pretrained_encoder_config(name_or_path: str | os.PathLike[str], **place: Any) -> PretrainedConfig:
    """The configuration of a pre-trained encoder. Code beside it is never run.

    Args:
        place: where it lies besides its name, see `model_files.take_place`.

    Raises:
        OSError: no such encoder.
        ValueError: a file that is no configuration of an encoder that transformers knows.
    """
    file = local_file(name_or_path, "config.json", place)
    fields = read_config(name_or_path, **place)
    # early encoders have none
    model_type = fields.get("model_type")
    if model_type == AspertConfig.model_type:
        raise ValueError(
            f"{file}: {_TRAINED}: load it with AspertForJointExtraction.from_pretrained({str(name_or_path)!r})"
        )
    if model_type is not None and model_type not in CONFIG_MAPPING:
        raise ValueError(f"{file}: {_UNKNOWN_TYPE.format(model_type)}")
    if fields.get("transformers_weights") is not None:
        raise ValueError(f"{file}: transformers_weights is not read: name the weights model.safetensors")
    try:
        _check_sizes(fields)
        _check_dtype("", fields)
        return AutoConfig.from_pretrained(name_or_path, trust_remote_code=False, **place)
    except OSError:
        raise
    except Exception as error:  # each encoder checks its fields in its own way
        raise ValueError(f"{file}: no configuration of an encoder: {' '.join(str(error).split())}") from error


_UNKNOWN_TYPE = (
    "this version of transformers does not know the model type {!r}; encoders whose code lies beside their weights are "
    "not run"
)
_TRAINED = "a trained ASpERT model, not an encoder"


# families that count positions from the row behind the padding index, so that the rows up to it are unused
_POSITIONS_BEHIND_PADDING = (
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "layoutlmv3",
    "lilt",
    "longformer",
    "luke",
    "markuplm",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)


def first_position(config: PretrainedConfig) -> int:
    """The row of an encoder's position table that its first sub-word takes."""
    if config.model_type not in _POSITIONS_BEHIND_PADDING:
        return 0
    # MPNet's padding index is 1, whatever its configuration says
    return 1 + (1 if config.model_type == "mpnet" else config.pad_token_id)


def _encoder_config(config: PretrainedConfig | dict[str, Any] | None) -> PretrainedConfig:
    model_type = config.get("model_type") if isinstance(config, dict) else getattr(config, "model_type", None)
    if model_type == AspertConfig.model_type:
        raise ValueError(
            f"AspertConfig.encoder_config is that of {_TRAINED}: load the model with "
            "AspertForJointExtraction.from_pretrained, or pass its encoder_config"
        )
    if isinstance(config, PretrainedConfig):
        for name in _REMOTE_CODE:
            vars(config).pop(name, None)
        return config
    if config is None:
        return AutoConfig.for_model("bert")
    if not isinstance(config, dict):
        raise ValueError(
            f"AspertConfig.encoder_config = {config!r} is not valid: it must be the encoder's own configuration"
        )
    fields = {key: value for key, value in config.items() if key not in _REMOTE_CODE and not _is_kernel(key, value)}
    if "model_type" not in fields:
        raise ValueError("AspertConfig.encoder_config has no 'model_type': pass the encoder's own configuration")
    del fields["model_type"]
    if model_type not in CONFIG_MAPPING:
        raise ValueError(f"AspertConfig.encoder_config: {_UNKNOWN_TYPE.format(model_type)}")
    try:
        _check_sizes(fields)
        _check_dtype("", fields)
        return AutoConfig.for_model(model_type, **fields)
    except Exception as error:  # each encoder checks its fields in its own way
        reason = " ".join(str(error).split())
        raise ValueError(f"AspertConfig.encoder_config is no configuration of {model_type!r}: {reason}") from error


def _check_sizes(fields: dict[str, Any]) -> None:
    """Refuse an encoder of so many layers, or groups of layers, that building it would not end."""
    for name, value in fields.items():
        if isinstance(value, int) and ("layer" in name or "group" in name) and value > _MOST_LAYERS:
            raise ValueError(f"{name} = {value} is not valid: it must be at most {_MOST_LAYERS}")


def _check_dtype(prefix: str, fields: dict[str, Any]) -> None:
    for key in ("dtype", "torch_dtype"):
        value = fields.get(key)
        if value is not None and str(value).removeprefix("torch.") not in _DTYPES:
            raise ValueError(f"{prefix}{key} = {value!r} is not valid: it must be one of {', '.join(_DTYPES)}")


def _is_kernel(key: str, value: Any) -> bool:
    """Whether a field names an implementation that lies on the Hub: code, which the `kernels` package would run."""
    return key.endswith("_implementation") and "/" in str(value)


def _as_stored(labels: Any) -> Any:
    return {str(index): label for index, label in labels.items()} if isinstance(labels, dict) else labels


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
