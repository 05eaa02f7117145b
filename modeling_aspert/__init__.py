"""ASpERT: joint entity and relation extraction on Hugging Face transformers."""

from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from ._version import __version__ as __version__
from .configuration_aspert import AspertConfig
from .data_collator import AspertDataCollator
from .dataset import EpochSampler, JointExtractionDataset
from .extraction import ExtractionOptions, Extractor, Sentence
from .modeling_aspert import AspertForJointExtraction, AspertOutput
from .pipeline import TASK, JointExtractionPipeline
from .processing_aspert import AspertProcessor

if TYPE_CHECKING:
    from .trainer import AspertTrainer
    from .training_arguments import AspertTrainingArguments
    from .visualization import visualize
    from .voting import VotingExtractor

AutoConfig.register("aspert", AspertConfig)
AutoModel.register(AspertConfig, AspertForJointExtraction)
AutoProcessor.register(AspertConfig, AspertProcessor)
PIPELINE_REGISTRY.register_pipeline(
    TASK, pipeline_class=JointExtractionPipeline, pt_model=AspertForJointExtraction, type="text"
)
# the code travels with a saved model, so that trust_remote_code=True loads it without this package
AspertConfig.register_for_auto_class()
AspertForJointExtraction.register_for_auto_class("AutoModel")
AspertProcessor.register_for_auto_class("AutoProcessor")

_LAZY = {
    "AspertTrainer": "trainer",
    "AspertTrainingArguments": "training_arguments",
    "VotingExtractor": "voting",
    "visualize": "visualization",
}


def __getattr__(name: str) -> Any:
    # what extraction does not need; the trainer has the heavy parts of transformers
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


__all__ = [
    "TASK",
    "AspertConfig",
    "AspertDataCollator",
    "AspertForJointExtraction",
    "AspertOutput",
    "AspertProcessor",
    "AspertTrainer",
    "AspertTrainingArguments",
    "EpochSampler",
    "ExtractionOptions",
    "Extractor",
    "JointExtractionDataset",
    "JointExtractionPipeline",
    "Sentence",
    "VotingExtractor",
    "visualize",
]
