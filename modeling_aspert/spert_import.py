"""Checkpoints of SpERT's own code turned into ASpERT models.

SpERT concatenates an entity as [h_CLS ; max-pool ; width] and a relation as [context ; pool_1 ; pool_2 ; width_1 ;
width_2]; here they are [max-pool ; width ; h_0] and [pool_1 ; width_1 ; context ; pool_2 ; width_2], so the columns
of the two classifiers are reordered. Nothing else changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from data_scripts import LabelSchema

from .configuration_aspert import AspertConfig, pretrained_encoder_config
from .model_files import naming
from .modeling_aspert import AspertForJointExtraction
from .processing_aspert import AspertProcessor


def load_spert(
    directory: str | Path, types_file: str | Path, max_span_width: int = 10, relation_threshold: float = 0.4
) -> tuple[AspertForJointExtraction, AspertProcessor]:
    """The model and processor of a SpERT checkpoint.

    Args:
        directory: a folder with config.json, model.safetensors and the tokenizer's files.
        types_file: SpERT's types file; its order is the order of the outputs.
        max_span_width: SpERT's ``max_span_size``, in words.
        relation_threshold: SpERT's ``rel_filter_threshold``.

    Raises:
        FileNotFoundError: a file is missing; a pickled checkpoint is refused.
        ValueError: the weights do not fit the types file, or a file is not what it should be.
    """
    directory, types_file = Path(directory), Path(types_file)
    weights_file = directory / "model.safetensors"
    if not weights_file.is_file():
        pickled = directory / "pytorch_model.bin"
        reason = (
            f"{pickled} is a pickle, which can run code when read; convert it to safetensors first"
            if pickled.is_file()
            else f"{weights_file} does not exist"
        )
        raise FileNotFoundError(f"no SpERT weights: {reason}")
    schema = LabelSchema.from_file(types_file)
    with naming(weights_file):
        weights = {name: tensor.float() for name, tensor in load_file(weights_file).items()}
    _check_weights(weights, weights_file, types_file, len(schema.entity_types), len(schema.relation_types))

    encoder_config = pretrained_encoder_config(directory)
    encoder_config.architectures = None
    # a path of this machine is nobody's business
    encoder_config.name_or_path = ""
    config = AspertConfig.from_preset(
        "spert",
        encoder_config=encoder_config,
        **schema.labels,
        width_embedding_size=weights["size_embeddings.weight"].shape[1],
        max_span_width=max_span_width,
        relation_threshold=relation_threshold,
    )
    model = AspertForJointExtraction(config)
    try:
        model.load_state_dict(convert_spert_weights(weights, encoder_config.hidden_size))
    except RuntimeError as error:
        raise ValueError(
            f"{weights_file}: its weights are not those of {directory / 'config.json'}: copy the whole folder again "
            f"({' '.join(str(error).split())})"
        ) from None
    return model.eval(), AspertProcessor.from_encoder_pretrained(directory)


def convert_spert_weights(weights: Mapping[str, Tensor], hidden_size: int) -> dict[str, Tensor]:
    """SpERT's state dict with our names and column order; its pooling layer, which it never uses, is left out."""
    width = weights["size_embeddings.weight"].shape[1]
    converted = {
        f"encoder.{name.removeprefix('bert.')}": tensor
        for name, tensor in weights.items()
        if name.startswith("bert.") and not name.startswith("bert.pooler.") and not name.endswith("position_ids")
    }
    sentence, pool, size = weights["entity_classifier.weight"].split([hidden_size, hidden_size, width], dim=1)
    converted["span_classifier.input.weight"] = torch.cat([pool, size, sentence], dim=1)
    converted["span_classifier.input.bias"] = weights["entity_classifier.bias"]
    context, head, tail, head_size, tail_size = weights["rel_classifier.weight"].split(
        [hidden_size, hidden_size, hidden_size, width, width], dim=1
    )
    converted["relation_classifier.output.weight"] = torch.cat([head, head_size, context, tail, tail_size], dim=1)
    converted["relation_classifier.output.bias"] = weights["rel_classifier.bias"]
    converted["width_embedding.weight"] = weights["size_embeddings.weight"]
    return converted


def _check_weights(
    weights: Mapping[str, Tensor], weights_file: Path, types_file: Path, num_entities: int, num_relations: int
) -> None:
    expected = {
        f"{classifier}.{part}": outputs
        for classifier, outputs in (
            ("entity_classifier", (num_entities + 1, "entity types and none")),
            ("rel_classifier", (num_relations, "relation types")),
        )
        for part in ("weight", "bias")
    }
    for name in ("size_embeddings.weight", *expected):
        if name not in weights:
            raise ValueError(f"{weights_file} has no {name}: it is not a checkpoint of SpERT's code")
        dimensions = 1 if name.endswith("bias") else 2
        if weights[name].dim() != dimensions:
            raise ValueError(
                f"{weights_file}: {name} has {weights[name].dim()} dimensions, not {dimensions}: copy it again"
            )
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise ValueError(
                f"{weights_file}: {name} holds NaN or infinite numbers: the training diverged, or copy it again"
            )
    for name, (outputs, what) in expected.items():
        if len(weights[name]) != outputs:
            raise ValueError(
                f"{weights_file}: {name} has {len(weights[name])} outputs, but {types_file} lists {outputs} {what}: "
                "pass the types file that the checkpoint was trained with"
            )
