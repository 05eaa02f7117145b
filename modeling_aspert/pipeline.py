"""The transformers pipeline "joint-extraction": text in; entities and the relations between them out."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from transformers import Pipeline

from .extraction import ExtractionOptions, Extractor

TASK = "joint-extraction"
_OPTIONS = sorted({"is_split_into_words", *(option.name for option in fields(ExtractionOptions))})

# of what `save_pretrained` takes, what a push needs
_PUSH = ("push_to_hub", "repo_id", "commit_message", "private", "token", "revision")


class JointExtractionPipeline(Pipeline):
    """Joint entity and relation extraction: ``pipeline("joint-extraction", model=...)``.

    Input: a string; a list of words with ``is_split_into_words=True``; a mapping with "text" and "entities" (character
    offsets; then only relations are predicted), or with "tokens" and no "text" (and "entities" in words); or a list, a
    generator or a `datasets` column of these. One input gives one result, a list gives a list, anything else is streamed.

    Result, of plain JSON types: ``{"text", "entities": [{"id", "type", "text", "start", "end", "score"}],
    "relations": [{"type", "head", "tail", "score"}]}``; start and end count characters, end-exclusive, and
    ``text[start:end]`` is the entity's text; head and tail are entity ids, which are positions in the list of entities.
    Given entities keep the order in which they were given, so entity i of the result is the given entity i.

    Options, here or in each call: those of :class:`ExtractionOptions`, and ``is_split_into_words``.

    Raises:
        TypeError: an option that there is not, or a threshold that is not a number.
        ValueError: an option out of range, or an input of another form.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False

    def __call__(
        self, inputs: Any, **options: Any
    ) -> dict[str, Any] | list[dict[str, Any]] | Iterator[dict[str, Any]]:
        split = options.pop("is_split_into_words", self._preprocess_params.get("is_split_into_words", False))
        if not isinstance(split, bool):
            raise TypeError(f"is_split_into_words = {split!r} is not valid: it must be True or False")
        extractor = self._extractor(**options)
        if _is_single(inputs, split):
            return next(extractor.extract([_as_input(inputs, split)]))
        results = extractor.extract(_as_input(value, split) for value in inputs)
        return list(results) if isinstance(inputs, (list, tuple)) else results

    def _extractor(self, **options: Any) -> Extractor:
        if self.processor is None:
            raise ValueError("processor is missing: give the model's AspertProcessor")
        if options.get("batch_size") is None:
            options.pop("batch_size", None)
        options.pop("num_workers", None)
        _check_names(options)
        settings = {**self._forward_params, **options}
        if self._batch_size is not None:
            settings.setdefault("batch_size", self._batch_size)
        return Extractor(self.model, self.processor, ExtractionOptions(**settings))

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Model, processor and their code in one folder; the base class would leave the processor out."""
        # the processor first: its push leaves an empty card, which the model's push replaces
        self.processor.save_pretrained(save_directory, **{name: kwargs[name] for name in _PUSH if name in kwargs})
        self.model.save_pretrained(save_directory, **kwargs)

    def _upload_modified_files(self, *args: Any, **kwargs: Any) -> Any:
        # the model's, which brings its card
        return self.model._upload_modified_files(*args, **kwargs)

    # the steps of the base class, for callers that run them one by one

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        # transformers' own, which it leaves among the options
        options.pop("local_files_only", None)
        _check_names(options)
        preprocess = {name: options.pop(name) for name in ("is_split_into_words",) if name in options}
        ExtractionOptions(**options)
        return preprocess, options, {}

    def preprocess(self, inputs: Any, is_split_into_words: bool = False) -> dict[str, Any]:
        return {"inputs": _as_input(inputs, is_split_into_words)}

    def _forward(self, model_inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
        return next(self._extractor(**options).extract([model_inputs["inputs"]]))

    def postprocess(self, model_outputs: dict[str, Any]) -> dict[str, Any]:
        return model_outputs


def _check_names(options: Iterable[str]) -> None:
    for name in options:
        if name not in _OPTIONS:
            nearest = difflib.get_close_matches(name, _OPTIONS, n=1)
            meant = f"did you mean {nearest[0]!r}? Choose" if nearest else "choose"
            raise TypeError(f"unknown option {name!r}: {meant} from {_OPTIONS}")


def _is_single(inputs: Any, is_split_into_words: bool) -> bool:
    if hasattr(inputs, "columns") and hasattr(inputs, "iloc"):
        # a loop over it would be one over its names
        raise TypeError(
            f"a {type(inputs).__name__} is no list of texts: give one column, such as extract(table['text'])"
        )
    if isinstance(inputs, (str, bytes, Mapping)):
        return True
    if is_split_into_words and isinstance(inputs, (list, tuple)):
        return len(inputs) > 0 and all(isinstance(word, str) for word in inputs)
    # not `Iterable`, which does not know of the columns of `datasets`; what cannot be iterated over is for the
    # extractor to refuse
    return not hasattr(inputs, "__iter__") and not hasattr(inputs, "__getitem__")


def _as_input(value: Any, is_split_into_words: bool) -> Any:
    return {"tokens": value} if is_split_into_words and not isinstance(value, Mapping) else value
