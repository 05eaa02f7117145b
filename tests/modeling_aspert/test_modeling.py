"""The network against the classifiers written out from the equations; loss, switches, pairs, memory, precision."""

from __future__ import annotations

import copy
from unittest import mock

import accelerate
import pytest
import reference
import tiny
import torch
from torch.nn import functional as F

from modeling_aspert import AspertForJointExtraction
from modeling_aspert.modeling_aspert import (
    CHUNK_PAIR_VALUES,
    FEW_PAIR_VALUES,
    MAX_WIDTH_ROWS,
    AspertOutput,
    pairs_of_entities,
)

NO_DROPOUT = {
    "encoder_fields": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "classifier_dropout": 0.0,
    "mlp_dropout": 0.0,
}
C = tiny.LAYERS * tiny.HEADS
SWITCHES = [
    {},
    {"contribution_threshold": 0.0},
    {"contribution_pooling": "sum"},
    {"contribution_pooling": "max"},
    {"contribution_scope": "sentence", "contribution_threshold": 0.2},
    {"contribution_scope": "span"},
    {"contribution_direction": "to_span"},
    {"contribution_direction": "both", "contribution_pooling": "max"},
    {"contribution_special_tokens": False},
    {"attentional_contribution": False},
    {"relation_contribution": False},
    {"relation_contribution": False, "contribution_direction": "both", "width_embedding": False},
    {"span_classifier": "linear"},
    {"width_embedding": False},
    {"relation_none_class": True},
    {"span_boundaries": True},
    {"relation_entity_types": True, "relation_contribution": False},
    {"relation_classifier": "mlp", "relation_classifier_size": 16},
    {
        "span_boundaries": True,
        "relation_entity_types": True,
        "relation_classifier": "mlp",
        "relation_none_class": True,
    },
    {"attentional_contribution": False, "span_classifier": "linear"},
    {"attentional_contribution": False, "span_classifier": "linear", "width_embedding": False},
]


def switch_name(fields: dict) -> str:
    return ",".join(f"{name}={value}" for name, value in fields.items()) or "paper"


def slow_sentences(model: AspertForJointExtraction, batch: dict[str, torch.Tensor]) -> list[reference.SlowAspert]:
    """The reference on the encoder's own hidden states and attentions, one object a sentence."""
    wanted = model.config.attentional_contribution
    weights = dict(model.named_parameters())
    encoded = model.encoder(batch["input_ids"], batch["attention_mask"], output_attentions=wanted)
    special = {tiny.make_processor().tokenizer.cls_token_id, tiny.make_processor().tokenizer.sep_token_id}
    sentences = []
    for row, (ids, mask) in enumerate(zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist())):
        sentences.append(
            reference.SlowAspert(
                model.config,
                weights,
                encoded.last_hidden_state[row],
                reference.channels(encoded.attentions, row) if wanted else None,
                mask,
                [int(token in special or not real) for token, real in zip(ids, mask)],
            )
        )
    return sentences


def slow_logits(model, batch) -> tuple[list[list[torch.Tensor]], list[list[torch.Tensor]]]:
    """Reference logits of the batch's real spans and pairs, by sentence."""
    spans, pairs = [], []
    for row, slow in enumerate(slow_sentences(model, batch)):
        tokens, widths = batch["spans"][row].tolist(), batch["span_widths"][row].tolist()
        real = [index for index in range(len(tokens)) if batch["span_mask"][row, index]]
        spans.append([slow.span_logits(tuple(tokens[index]), widths[index]) for index in real])
        chosen = [pair for pair, keep in zip(batch["pairs"][row].tolist(), batch["pair_mask"][row]) if keep]
        pairs.append(
            [
                slow.relation_logits(tuple(tokens[head]), widths[head], tuple(tokens[tail]), widths[tail])
                for head, tail in chosen
            ]
        )
    return spans, pairs


def assert_same(ours: torch.Tensor, mask: torch.Tensor, slow: list[list[torch.Tensor]], tolerance: float = 2e-5):
    for row, logits in enumerate(slow):
        assert int(mask[row].sum()) == len(logits)
        if logits:
            torch.testing.assert_close(ours[row][mask[row]], torch.stack(logits), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("few", [0, 2**30], ids=["shared", "alone"])
@pytest.mark.parametrize("fields", SWITCHES, ids=switch_name)
def test_logits_equal_the_equations(monkeypatch, fields, few):
    """Evaluation (where projections are shared between spans and pairs, or pairs are few) and training without dropout,
    both the equations."""
    monkeypatch.setattr("modeling_aspert.modeling_aspert.FEW_PAIR_VALUES", few)
    model = tiny.make_model(**fields, **NO_DROPOUT)
    batch = tiny.make_batch(model.config, negative_entity_count=12, negative_relation_count=4)
    with torch.no_grad():
        evaluated, trained = model.eval()(**batch), model.train()(**batch)
    for name, mask in (("span_logits", batch["span_mask"]), ("relation_logits", batch["pair_mask"])):
        torch.testing.assert_close(evaluated[name][mask], trained[name][mask], rtol=2e-5, atol=2e-5)
    spans, pairs = slow_logits(model.eval(), batch)
    assert_same(evaluated.span_logits, batch["span_mask"], spans)
    assert_same(evaluated.relation_logits, batch["pair_mask"], pairs)
    assert not evaluated.relation_logits[~batch["pair_mask"]].any()


@pytest.mark.parametrize("fields", [*SWITCHES, {"span_loss_weight": 0.3}], ids=switch_name)
def test_gradients_equal_the_equations(fields):
    """Eq. 10 by loops, through both classifiers, the contribution and the encoder: every parameter's gradient."""
    model = tiny.make_model(**fields, **NO_DROPOUT).train()
    batch = tiny.make_batch(model.config, negative_entity_count=12, negative_relation_count=4)
    weights = list(model.parameters())
    output = model(**batch)
    ours = torch.autograd.grad(output.loss, weights, allow_unused=True)

    spans, pairs = slow_logits(model, batch)
    span_logits = torch.stack([logits for sentence in spans for logits in sentence])
    pair_logits = torch.stack([logits for sentence in pairs for logits in sentence])
    span_loss = F.cross_entropy(span_logits, batch["span_labels"][batch["span_mask"]])
    targets = batch["pair_labels"][batch["pair_mask"]].to(pair_logits)
    if model.config.relation_none_class:
        targets = torch.cat([targets, 1 - targets.amax(-1, keepdim=True)], dim=-1)
    loss = model.config.span_loss_weight * span_loss + F.binary_cross_entropy_with_logits(pair_logits, targets)
    torch.testing.assert_close(output.loss, loss, rtol=1e-5, atol=1e-6)
    slow = torch.autograd.grad(loss, weights, allow_unused=True)
    for (name, _), one, other in zip(model.named_parameters(), ours, slow, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("fields", SWITCHES, ids=switch_name)
def test_weight_shapes(fields):
    """A switch that is off adds no columns, not columns of zeros."""
    config = tiny.make_config(**fields)
    weights = AspertForJointExtraction(config).state_dict()
    d, width = tiny.HIDDEN_SIZE, 5 if config.width_embedding else 0
    contribution = 0
    if config.attentional_contribution:
        contribution = 2 * C if config.contribution_direction == "both" else C
    span = d * (3 if config.span_boundaries else 1) + contribution + width
    if config.span_classifier == "mlp":
        assert weights["span_classifier.input.weight"].shape == (24, span + d)
        assert weights["span_classifier.output.weight"].shape == (4, 24)
    else:
        assert weights["span_classifier.input.weight"].shape == (4, span + d)
        assert "span_classifier.output.weight" not in weights
    related = span - (0 if config.relation_contribution else contribution) + 4 * config.relation_entity_types
    outputs = 4 if config.relation_none_class else 3
    if config.relation_classifier == "mlp":
        hidden = config.relation_classifier_size
        assert weights["relation_classifier.input.weight"].shape == (hidden, related + d + related)
        assert weights["relation_classifier.output.weight"].shape == (outputs, hidden)
    else:
        assert weights["relation_classifier.output.weight"].shape == (outputs, related + d + related)
    assert ("width_embedding.weight" in weights) == config.width_embedding
    if config.width_embedding:
        assert weights["width_embedding.weight"].shape == (MAX_WIDTH_ROWS, width) == (100, 5)
    assert not any("pooler" in name for name in weights)


def test_dropout_is_where_the_paper_has_it():
    """0.1 on the input of both classifiers and in the MLP: two training passes differ, two evaluations do not."""
    quiet = {"encoder_fields": NO_DROPOUT["encoder_fields"]}
    for fields in ({"classifier_dropout": 0.1, "mlp_dropout": 0.0}, {"classifier_dropout": 0.0, "mlp_dropout": 0.1}):
        model = tiny.make_model(**fields, **quiet)
        batch = tiny.make_batch(model.config)
        with torch.no_grad():
            torch.manual_seed(0)
            first, second = model.train()(**batch), model(**batch)
            assert not torch.equal(first.span_logits, second.span_logits)
            same = torch.equal(first.relation_logits, second.relation_logits)
            assert same == (fields["classifier_dropout"] == 0.0)
            assert torch.equal(model.eval()(**batch).span_logits, model(**batch).span_logits)


def test_width_table_is_clamped():
    """Spans of 100 words and more share the last row."""
    model = tiny.make_model()
    batch = tiny.make_batch(model.config, training=False)
    del batch["word_spans"]
    logits = []
    for width in (98, 99, 100, 5000):
        batch["span_widths"] = torch.full_like(batch["span_widths"], width)
        logits.append(model(**batch).span_logits)
    assert not torch.equal(logits[0], logits[1])
    assert torch.equal(logits[1], logits[2])
    assert torch.equal(logits[1], logits[3])


def test_initial_weights():
    """Heads and width table start N(0, 0.02), biases 0; here from more than 100,000 draws."""
    torch.manual_seed(1)
    model = AspertForJointExtraction(tiny.make_config(span_classifier_size=1500, width_embedding_size=100))
    for name, parameter in model.named_parameters():
        if name.startswith("encoder."):
            continue
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.numel() > 4000:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05), name
            assert abs(parameter.mean().item()) < 0.001, name
            # a normal distribution: 4.55 percent lie beyond two standard deviations, a uniform one has none there
            assert (parameter.abs() > 0.04).float().mean().item() == pytest.approx(0.0455, abs=0.012), name


# ---------------------------------------------------------------------------- classifiers with layers of others


class WithDelta(torch.nn.Module):
    """A layer and what an adapter adds to it, as LoRA does; ``weight`` is the layer's own, as there."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.delta = torch.nn.Linear(layer.in_features, layer.out_features, bias=False)
        torch.nn.init.normal_(self.delta.weight, 0.0, 0.3)

    @property
    def weight(self) -> torch.Tensor:
        return self.layer.weight

    @property
    def bias(self) -> torch.Tensor:
        return self.layer.bias

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.layer(values) + self.delta(values)


KINDS = pytest.mark.parametrize("kind", ["linear", "mlp"])


def classifier_layers(model: AspertForJointExtraction) -> list[tuple[torch.nn.Module, str, torch.nn.Linear]]:
    return [
        (classifier, name, layer)
        for classifier in (model.span_classifier, model.relation_classifier)
        for name, layer in classifier.named_children()
        if isinstance(layer, torch.nn.Linear)
    ]


def candidates(model: AspertForJointExtraction) -> dict[str, torch.Tensor]:
    """A batch of all spans, and of more pairs than are scored one by one."""
    batch = tiny.make_batch(model.config, training=False)
    del batch["word_spans"]
    spans = torch.arange(batch["spans"].shape[1])
    pairs = torch.cartesian_prod(spans, spans).expand(len(batch["spans"]), -1, -1)
    batch |= {"pairs": pairs, "pair_mask": batch["span_mask"].gather(1, pairs.amax(-1))}
    assert int(batch["pair_mask"].sum()) > FEW_PAIR_VALUES
    return batch


@KINDS
def test_an_adapter_counts_in_evaluation(monkeypatch, kind):
    """As much as the same change of the weights, whatever is worked on at once."""
    monkeypatch.setattr("modeling_aspert.modeling_aspert.CHUNK_SPANS", 7)
    monkeypatch.setattr("modeling_aspert.modeling_aspert.CHUNK_PAIR_VALUES", 5000)
    model = tiny.make_model(span_classifier=kind, relation_classifier=kind)
    merged, batch = copy.deepcopy(model), candidates(model)
    with torch.no_grad():
        plain = model(**batch)
        for (parent, name, layer), (_, _, other) in zip(classifier_layers(model), classifier_layers(merged)):
            setattr(parent, name, WithDelta(layer))
            other.weight += getattr(parent, name).delta.weight
        found, expected = model(**batch), merged(**batch)
    for name in ("span_logits", "relation_logits"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)
        assert (found[name] - plain[name]).abs().max() > 0.1


@KINDS
def test_offloaded_weights(kind):
    """They come with a hook of each layer; without it there is nothing to multiply with."""
    model = tiny.make_model(span_classifier=kind, relation_classifier=kind, word_shapes=True)
    batch = candidates(model)
    with torch.no_grad():
        expected = model(**batch)
        offloaded = accelerate.cpu_offload(copy.deepcopy(model), execution_device=torch.device("cpu"))
        assert all(parameter.is_meta for parameter in offloaded.parameters())
        found = offloaded(**batch)
    for name in ("span_logits", "relation_logits"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)


@KINDS
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*quantize_per_tensor")
def test_quantised_classifiers(kind):
    model = tiny.make_model(span_classifier=kind, relation_classifier=kind)
    batch = candidates(model)
    quantization = pytest.importorskip("torch.ao.quantization", reason="moved to torchao")
    quantised = quantization.quantize_dynamic(model, {torch.nn.Linear})
    assert not classifier_layers(quantised)
    with torch.no_grad():
        found, expected = quantised(**batch), model(**batch)
    for name in ("span_logits", "relation_logits"):
        error = (found[name] - expected[name]).abs().mean() / expected[name].std()
        assert 0 < error < 0.1


# ------------------------------------------------------------------------------------------------------ pairs


def test_pairs_are_all_ordered_pairs_of_predicted_entities():
    model = tiny.make_model(seed=4)
    batch = tiny.make_batch(model.config, training=False)
    del batch["word_spans"]
    output = model(**batch)
    found = 0
    for row in range(len(batch["spans"])):
        entities = [
            index
            for index in range(batch["spans"].shape[1])
            if batch["span_mask"][row, index] and output.span_logits[row, index].argmax() > 0
        ]
        expected = [[head, tail] for head in entities for tail in entities if head != tail]
        assert output.pairs[row][output.pair_mask[row]].tolist() == expected
        found += len(expected)
    assert found > 20
    given = model(**batch, pairs=output.pairs, pair_mask=output.pair_mask)
    assert torch.equal(given.relation_logits, output.relation_logits)
    slow_batch = {**batch, "pairs": output.pairs[:, :6], "pair_mask": output.pair_mask[:, :6]}
    _, pairs = slow_logits(model, slow_batch)
    assert_same(output.relation_logits[:, :6], output.pair_mask[:, :6], pairs)


def test_pairs_of_entities_by_hand():
    pairs, mask = pairs_of_entities(
        torch.tensor([[False, True, False, True], [False] * 4, [True, False, True, True], [True, False, False, False]])
    )
    assert mask.sum(-1).tolist() == [2, 0, 6, 0]
    assert pairs.shape == (4, 6, 2)
    assert pairs[0, :2].tolist() == [[1, 3], [3, 1]]
    assert pairs[2].tolist() == [[0, 2], [0, 3], [2, 0], [2, 3], [3, 0], [3, 2]]


def test_pairs_of_entities_ask_the_device_once(monkeypatch):
    is_entity = torch.rand(5, 9, generator=torch.Generator().manual_seed(0)) > 0.5
    asked = []
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "__int__", lambda tensor: asked.append(tensor.item()) or asked[-1])
        pairs, mask = pairs_of_entities(is_entity)
    assert asked == [is_entity.sum(-1).max().item()]
    counts = is_entity.sum(-1)
    assert mask.sum(-1).tolist() == (counts * (counts - 1)).tolist()
    assert pairs.shape[1] == int(counts.max() * (counts.max() - 1))
    for none in (torch.zeros(0, 4), torch.zeros(3, 0)):
        pairs, mask = pairs_of_entities(none.bool())
        assert pairs.shape == (len(none), 0, 2) and mask.shape == (len(none), 0)


def test_padded_spans_are_never_entities():
    model = tiny.make_model(seed=4)
    with torch.no_grad():
        model.span_classifier.output.bias[1] = 100.0
    batch = tiny.make_batch(model.config, training=False)
    del batch["word_spans"]
    output = model(**batch)
    counts = batch["span_mask"].sum(-1)
    assert output.pair_mask.sum(-1).tolist() == (counts * (counts - 1)).tolist()
    for row, count in enumerate(counts):
        if count > 1:
            assert output.pairs[row][output.pair_mask[row]].max() == count - 1


@pytest.mark.parametrize("training", [True, False])
def test_no_entities_and_no_pairs(training):
    model = tiny.make_model()
    with torch.no_grad():
        model.span_classifier.output.bias[0] = 100.0
    batch = tiny.make_batch(model.config, training=False)
    del batch["word_spans"]
    output = model.train(training)(**batch)
    assert output.pairs.shape == (4, 0, 2)
    assert output.relation_logits.shape == (4, 0, 3)
    assert output.pair_mask.shape == (4, 0)


def test_span_mask_and_pair_mask_default_to_all():
    model = tiny.make_model()
    batch = tiny.make_batch(model.config, indices=[0])
    labels = ("span_labels", "pair_labels")
    bare = {name: value for name, value in batch.items() if name not in ("span_mask", "pair_mask", *labels)}
    output = model(**bare)
    assert torch.equal(output.span_logits, model(**batch).span_logits)
    assert torch.equal(output.relation_logits, model(**batch).relation_logits)
    assert output.pair_mask.all()
    assert output.loss is None


# ------------------------------------------------------------------------------------------------------- loss


@pytest.mark.parametrize("none_class", [False, True])
@pytest.mark.parametrize("counts", [None, (77, 31)])
def test_loss_is_equation_10(none_class, counts):
    model = tiny.make_model(relation_none_class=none_class, span_loss_weight=0.7)
    batch = tiny.make_batch(model.config)
    output = model(**batch, num_items_in_batch=torch.tensor(counts) if counts else None)
    spans, pairs = batch["span_mask"], batch["pair_mask"]
    expected = reference.loss(
        output.span_logits[spans].tolist(),
        batch["span_labels"][spans].tolist(),
        output.relation_logits[pairs].tolist(),
        batch["pair_labels"][pairs].tolist(),
        span_loss_weight=0.7,
        none_class=none_class,
        num_spans=counts and counts[0],
        num_pairs=counts and counts[1],
    )
    ours = [output.loss.item(), output.span_loss.item(), output.relation_loss.item()]
    assert ours == pytest.approx(expected, rel=1e-5)


def test_loss_by_hand():
    """Zero weights: L^s = ln 4 (three types and none), L^r = ln 2 (every sigmoid is one half)."""
    model = tiny.make_model()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("encoder."):
                parameter.zero_()
    output = model(**tiny.make_batch(model.config))
    assert output.span_loss.item() == pytest.approx(1.386294, abs=1e-5)
    assert output.relation_loss.item() == pytest.approx(0.693147, abs=1e-5)


def test_split_batches_add_up_to_the_whole():
    """Sums over the effective counts: a batch in two parts gives the loss and the gradients of the whole."""
    model = tiny.make_model(**NO_DROPOUT).train()
    whole = tiny.make_batch(model.config)
    counts = torch.stack([whole["span_mask"].sum(), whole["pair_mask"].sum()])
    loss = model(**whole).loss
    loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    total = 0.0
    for indices in ([0], [1, 2], [3]):
        part = model(**tiny.make_batch(model.config, indices=indices), num_items_in_batch=counts).loss
        part.backward()
        total += part.item()
    assert total == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad, expected[name], rtol=2e-4, atol=2e-6, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_batch_without_pairs_adds_nothing():
    """L^r is 0, and every parameter has a finite gradient: zeros in the relation classifier, never None or NaN."""
    model = tiny.make_model().train()
    batch = tiny.make_batch(model.config, indices=[2, 3])
    assert batch["pairs"].shape[1] == 0
    output = model(**batch)
    assert output.relation_loss.item() == 0.0
    assert output.loss.item() == pytest.approx(output.span_loss.item())
    output.loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert not model.relation_classifier.output.weight.grad.any()


def test_masked_labels_are_ignored():
    model = tiny.make_model()
    batch = tiny.make_batch(model.config)
    before = model(**batch).loss
    batch["span_labels"][~batch["span_mask"]] = -100
    batch["pair_labels"][~batch["pair_mask"]] = -100
    assert torch.equal(model(**batch).loss, before)


@pytest.mark.parametrize("none_class", [False, True])
def test_masked_out_is_as_left_out(none_class):
    """Loss and gradients are those of the chosen spans and pairs alone; the others have logits, but no gradient."""
    model = tiny.make_model(relation_none_class=none_class).train()
    batch = tiny.make_batch(model.config)
    spans, pairs = batch["span_mask"], batch["pair_mask"]
    assert not spans.all() and not pairs.all()
    output = model(**batch)
    logits = [output.span_logits, output.relation_logits]
    assert all(torch.isfinite(values).all() for values in logits)
    targets = batch["pair_labels"].float()
    if none_class:
        targets = torch.cat([targets, 1 - targets.amax(-1, keepdim=True)], dim=-1)
    expected = F.cross_entropy(logits[0][spans], batch["span_labels"][spans]) + F.binary_cross_entropy_with_logits(
        logits[1][pairs], targets[pairs]
    )
    torch.testing.assert_close(output.loss, expected)
    found, wanted = (torch.autograd.grad(loss, logits, retain_graph=True) for loss in (output.loss, expected))
    for ours, slow, mask in zip(found, wanted, (spans, pairs)):
        torch.testing.assert_close(ours, slow, rtol=1e-5, atol=1e-7)
        assert ours[mask].any() and not ours[~mask].any()


def test_the_loss_does_not_wait_for_the_device():
    """Masks choose nothing: how much that is would have to be asked for."""
    model = tiny.make_model()
    batch = tiny.make_batch(model.config)
    output = model(**batch)
    given = (output.span_logits, output.relation_logits, batch["span_labels"], batch["pair_labels"])
    with mock.patch.object(torch.Tensor, "__getitem__", side_effect=AssertionError):
        losses = model._losses(*given, batch["span_mask"], batch["pair_mask"], None)
    assert torch.equal(losses[0], output.span_loss) and torch.equal(losses[1], output.relation_loss)


def test_labels_of_pairs_need_pairs():
    model = tiny.make_model()
    batch = tiny.make_batch(model.config)
    for left_out in (("pairs",), ("pairs", "pair_mask")):
        with pytest.raises(ValueError, match="pair_labels.*are those of pairs.*give these too"):
            model(**{name: values for name, values in batch.items() if name not in left_out})


def test_none_class_target_is_one_for_negative_pairs():
    """One positive pair (type 1) and one negative: targets (0, 1, 0; none 0) and (0, 0, 0; none 1)."""
    model = tiny.make_model(relation_none_class=True)
    batch = tiny.make_batch(model.config, indices=[1], negative_relation_count=1)
    positives = int(batch["pair_labels"].any(-1).sum())
    output = model(**batch)
    (gradient,) = torch.autograd.grad(output.relation_loss, output.relation_logits)
    pushed_up = gradient[0] < 0
    assert pushed_up[:positives, -1].tolist() == [False] * positives
    assert pushed_up[positives:].tolist() == [[False, False, False, True]]


@pytest.mark.filterwarnings("error:Initializing zero-element")
def test_without_relation_types():
    """A model for entities alone trains and predicts, with and without the none class."""
    records = [{**record, "relations": []} for record in tiny.RECORDS]
    for none_class in (False, True):
        model = tiny.make_model(relation_types=[], symmetric_relations=[], relation_none_class=none_class).train()
        loss = model(**tiny.make_batch(model.config, records=records)).loss
        loss.backward()
        assert torch.isfinite(loss)


# --------------------------------------------------------------------------------------------------- gradients


def test_contribution_reaches_query_and_key_projections():
    """The point of the method: with every other way cut, the gate's kept values still train queries and keys."""
    model = tiny.make_model()
    batch = tiny.make_batch(model.config)
    model(**batch, output_contribution=True).contribution[batch["span_mask"]].sum().backward()
    for name, parameter in tiny.query_key_parameters(model):
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 1e-4, name


def test_contribution_is_returned_on_request():
    model = tiny.make_model()
    batch = tiny.make_batch(model.config, negative_entity_count=5)
    assert model(**batch).contribution is None
    output = model(**batch, output_contribution=True)
    assert output.contribution.shape == (*batch["span_widths"].shape, C)
    for row, slow in enumerate(slow_sentences(model, batch)):
        for index in range(int(batch["span_mask"][row].sum())):
            expected = slow.contribution(tuple(batch["spans"][row, index].tolist()))
            torch.testing.assert_close(output.contribution[row, index], expected, rtol=1e-4, atol=1e-5)
    off = tiny.make_model(attentional_contribution=False)
    assert off(**batch, output_contribution=True).contribution is None


def test_attention_dropout_reaches_the_contribution():
    """In training A is what the encoder returns after attention dropout."""
    fields = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.5}
    model = tiny.make_model(encoder_fields=fields, contribution_threshold=0.0, contribution_scope="sentence")
    model.config.contribution_pooling = "sum"
    batch = tiny.make_batch(model.config, indices=[0])
    width = (batch["spans"][..., 1] - batch["spans"][..., 0]).unsqueeze(-1).float()
    first_layer = slice(0, tiny.HEADS)
    quiet = model.eval()(**batch, output_contribution=True).contribution[..., first_layer]
    torch.testing.assert_close(quiet, width.expand_as(quiet), rtol=1e-4, atol=1e-4)
    loud = model.train()(**batch, output_contribution=True).contribution[..., first_layer]
    assert (loud - width).abs().mean() > 0.05


# ------------------------------------------------------------------------------------------------- subclasses


@pytest.mark.parametrize("fields", [{}, SWITCHES[11], SWITCHES[18]], ids=switch_name)
def test_a_subclass_adds_a_feature_of_spans(tmp_path, fields):
    """One column in the span classifier, two in the relation classifier; the rest is as it was."""
    config = tiny.make_config(**fields)
    plain, model = AspertForJointExtraction(config).eval(), tiny.WithStart(config).eval()
    for layer, parent, columns in (
        (model.span_classifier.input, plain.span_classifier.input, 1),
        (model.relation_classifier.first, plain.relation_classifier.first, 2),
    ):
        assert layer.in_features == parent.in_features + columns
    batch = tiny.make_batch(config)
    model(**batch).loss.backward()
    size = sum(model._span_sizes().values())
    assert model.span_classifier.input.weight.grad[:, size - 1].any()
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(tiny.WithStart.from_pretrained(tmp_path)(**batch).loss, model(**batch).loss)


# ---------------------------------------------------------------------------------------- output and precision


def test_tuple_output():
    model = tiny.make_model()
    batch = tiny.make_batch(model.config)
    output, parts = model(**batch), model(**batch, return_dict=False)
    assert isinstance(output, AspertOutput)
    assert isinstance(parts, tuple)
    expected = [output.loss, output.span_loss, output.relation_loss, output.span_logits, output.relation_logits]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(parts, expected))
    assert len(parts) == 7
    model.config.return_dict = False
    assert isinstance(model(**batch), tuple)
    assert isinstance(model(**batch, return_dict=True), AspertOutput)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("direction", ["from_span", "both"])
def test_autocast_is_finite(direction, dtype):
    model = tiny.make_model(contribution_direction=direction).train()
    batch = tiny.make_batch(model.config)
    with torch.autocast("cpu", dtype):
        output = model(**batch, output_contribution=True)
    assert output.loss.dtype == torch.float32
    assert output.contribution.dtype == torch.float32
    output.loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.float32
        assert torch.isfinite(parameter.grad).all(), name
    with torch.autocast("cpu", dtype), torch.no_grad():
        rough = model.eval()(**batch)
    exact = model(**batch)
    torch.testing.assert_close(rough.span_logits.float(), exact.span_logits, rtol=0.1, atol=0.3)


def test_whole_model_in_bf16():
    model = tiny.make_model().to(torch.bfloat16)
    batch = tiny.make_batch(model.config, training=False)
    del batch["word_spans"]
    output = model(**batch)
    assert output.span_logits.dtype == torch.bfloat16
    assert torch.isfinite(output.relation_logits).all()


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_dtype_the_encoder_was_saved_in_does_not_count(stored):
    """An encoder whose config.json says half precision: encoder and heads are of one dtype, fp32 unless asked."""
    model = AspertForJointExtraction(tiny.make_config(encoder_fields={"dtype": stored}))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    model(**tiny.make_batch(model.config)).loss.backward()


# ---------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_batch_composition_does_not_matter(family):
    """Each sentence alone, in another order, or beside a longer one: the same scores to 1e-5."""
    model = tiny.make_model(family, seed=2)
    together = tiny.make_batch(model.config, family, training=False)
    del together["word_spans"]
    with torch.no_grad():
        output = model(**together)
        for row in range(len(tiny.RECORDS)):
            alone = tiny.make_batch(model.config, family, training=False, indices=[row])
            del alone["word_spans"]
            single = model(**alone)
            spans = alone["spans"].shape[1]
            torch.testing.assert_close(output.span_logits[row, :spans], single.span_logits[0], rtol=1e-5, atol=1e-5)
            kept = output.pair_mask[row]
            assert output.pairs[row][kept].tolist() == single.pairs[0].tolist()
            torch.testing.assert_close(
                output.relation_logits[row][kept], single.relation_logits[0], rtol=1e-5, atol=1e-5
            )


@pytest.mark.parametrize("relation_classifier", ["linear", "mlp"])
def test_chunks_do_not_matter(monkeypatch, relation_classifier):
    model = tiny.make_model(seed=4, relation_classifier=relation_classifier)
    batch = tiny.make_batch(model.config, training=False)
    del batch["word_spans"]
    whole = model(**batch)
    assert whole.relation_logits.abs().sum() > 0
    for name, value in (("FEW_PAIR_VALUES", 0), ("CHUNK_SPANS", 7), ("CHUNK_CONTEXTS", 7), ("CHUNK_PAIR_VALUES", 7)):
        monkeypatch.setattr(f"modeling_aspert.modeling_aspert.{name}", value)
        pieces = model(**batch)
        torch.testing.assert_close(pieces.span_logits, whole.span_logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(pieces.relation_logits, whole.relation_logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_few_pairs_and_many_get_the_same_logits(monkeypatch, autocast):
    model = tiny.make_model(seed=4)
    batch = tiny.make_batch(model.config, training=False)
    del batch["word_spans"]
    found = []
    for few in (0, 2**30):
        monkeypatch.setattr("modeling_aspert.modeling_aspert.FEW_PAIR_VALUES", few)
        with torch.no_grad(), torch.autocast("cpu", enabled=autocast):
            found.append(model(**batch).relation_logits)
    assert found[0].any() and found[0].dtype == found[1].dtype
    tolerance = 0.05 if autocast else 1e-4
    torch.testing.assert_close(found[0], found[1], rtol=tolerance, atol=tolerance)


def test_empty_sentences():
    """A sentence without words, alone and beside another: no spans, no pairs, loss 0."""
    model = tiny.make_model()
    for records in ([{"tokens": []}], [{"tokens": []}, tiny.RECORDS[0]]):
        batch = tiny.make_batch(model.config, training=False, records=records)
        del batch["word_spans"]
        assert not model.eval()(**batch).pair_mask[0].any()
        loss = model.train()(**tiny.make_batch(model.config, records=records)).loss
        loss.backward()
        assert torch.isfinite(loss)


# ----------------------------------------------------------------------------------------------------- memory


def long_batch(model: AspertForJointExtraction, length: int) -> dict[str, torch.Tensor]:
    """One sentence of one-piece words with all candidate spans up to the limit."""
    record = {"tokens": ["London"] * (length - 2), "entities": [], "relations": []}
    batch = tiny.make_batch(model.config, training=False, records=[record])
    del batch["word_spans"]
    assert batch["input_ids"].shape[1] == length
    return batch


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("scope", ["context", "span"])
def test_no_tensor_of_spans_by_tokens(monkeypatch, pooling, scope):
    """256 sub-words, 2,500 spans, forward and backward: far below S*n*d (20 million) and S*C*n*n (1.3 billion)."""
    monkeypatch.setattr(tiny.make_processor(), "max_tokens", 300)
    model = tiny.make_model(
        encoder_fields={"max_position_embeddings": 300},
        max_span_width=10,
        contribution_pooling=pooling,
        contribution_scope=scope,
    ).train()
    batch = long_batch(model, 256)
    num_spans = batch["spans"].shape[1]
    assert num_spans == 2495
    generator = torch.Generator().manual_seed(0)
    batch["span_labels"] = torch.randint(0, 4, (1, num_spans), generator=generator)
    batch["pairs"] = torch.randint(0, num_spans, (1, 1000, 2), generator=generator)
    batch["pair_labels"] = torch.randint(0, 2, (1, 1000, 3), generator=generator).float()
    with tiny.LargestTensor() as largest:
        model(**batch).loss.backward()
    n, levels = 256, 9
    # the sums need the attentions themselves and their prefix sums; "max" a table of [levels, n, n + 1, C]
    bound = C * (n + 1) ** 2 * (levels if pooling == "max" else 1)
    assert largest.values <= bound, largest.operation
    assert bound < num_spans * n * tiny.HIDDEN_SIZE / 4
    assert bound < num_spans * C * n * n / 200


@pytest.mark.parametrize(
    "relation_classifier, relations, adapter",
    [("linear", 3, False), ("mlp", 3, False), ("linear", 0, False), ("linear", 3, True), ("mlp", 3, True)],
)
def test_everything_an_entity_finishes(relation_classifier, relations, adapter):
    """An untrained model takes every span of 64 sub-words for an entity: 330,000 pairs, scored in bounded memory."""
    types = {} if relations else {"relation_types": [], "symmetric_relations": []}
    model = tiny.make_model(max_span_width=10, relation_classifier=relation_classifier, **types)
    with torch.no_grad():
        model.span_classifier.output.bias[1] = 1000.0
    if adapter:
        for parent, name, layer in classifier_layers(model):
            setattr(parent, name, WithDelta(layer))
    batch = long_batch(model, 64)
    num_spans = batch["spans"].shape[1]
    num_pairs = num_spans * (num_spans - 1)
    assert num_pairs == 575 * 574
    with torch.inference_mode(), tiny.LargestTensor() as largest:
        output = model(**batch)
    assert output.relation_logits.shape == (1, num_pairs, relations)
    assert torch.isfinite(output.relation_logits).all()
    # indices [P, 2] are the largest there is, beside the chunks: no [P, d], no [P, E]
    assert largest.values <= max(4 * num_pairs, CHUNK_PAIR_VALUES), largest.operation
    assert num_pairs * model.config.relation_classifier_size > CHUNK_PAIR_VALUES
    first, last = output.pairs[0, [0, -1]].tolist()
    assert (first, last) == ([0, 1], [574, 573])
