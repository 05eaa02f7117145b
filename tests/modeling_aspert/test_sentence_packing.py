"""Sentences packed into rows: nothing lost, nothing longer, and the same loss and gradients as one row a sentence."""

from __future__ import annotations

import copy
from unittest import mock

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_aspert.configuration_aspert import first_position
from modeling_aspert.modeling_aspert import AspertForJointExtraction
from modeling_aspert.sentence_packing import PACKABLE as PACKABLE_TYPES
from modeling_aspert.sentence_packing import Packing

PACKABLE = ["bert", "roberta", "albert", "mpnet", "electra"]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=10), st.integers(0, 3))
def test_places(lengths, padding):
    """Each token lies in one place beside its neighbours, no row is longer than the longest sentence, and of any two
    rows the second's first sentence found no room in the first."""
    length = max(lengths) + padding
    packing = Packing(lengths, length, torch.device("cpu"))
    assert sorted(sentence for row in packing.rows for sentence in row) == list(range(len(lengths)))
    fill = [sum(lengths[sentence] for sentence in row) for row in packing.rows]
    assert max(fill) == max(lengths)
    for number, row in enumerate(packing.rows[1:], start=1):
        assert all(before + lengths[row[0]] > max(lengths) for before in fill[:number])

    batch = torch.arange(len(lengths) * length).view(len(lengths), length, 1).float()
    packed = packing.pack(batch)
    assert packed.shape == (len(packing.rows), max(lengths), 1)
    unpacked, positions = packing.unpack(packed), packing.positions()
    owner = packing.pack(torch.arange(len(lengths)).view(-1, 1, 1).expand(-1, length, 1))[..., 0]
    together = packing.mask(torch.float32)[:, 0] == 0
    for sentence, size in enumerate(lengths):
        own = batch[sentence, :size, 0]
        assert torch.equal(unpacked[sentence, :size, 0], own)
        row, start = int(packing.row[sentence]), int(packing.starts[sentence])
        assert sentence in packing.rows[row]
        assert torch.equal(packed[row, start : start + size, 0], own)
    mask = packing.pack_mask(torch.ones(len(lengths), length, dtype=torch.bool))
    for row, sentences in enumerate(packing.rows):
        filled = fill[row]
        assert mask[row].tolist() == [True] * filled + [False] * (max(lengths) - filled)
        same = owner[row, :filled, None] == owner[row, None, :filled]
        assert torch.equal(together[row, :filled, :filled], same)
        assert not together[row, :filled, filled:].any()
        assert positions[row, :filled].tolist() == [
            position for sentence in sentences for position in range(lengths[sentence])
        ]


def loss_and_gradients(model, batch):
    output = model(**batch, output_contribution=True)
    model.zero_grad()
    output.loss.backward()
    return output, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("attention", [True, False], ids=["contribution", "sdpa"])
@pytest.mark.parametrize("family", PACKABLE)
def test_equal_to_one_row_a_sentence(family, attention, monkeypatch):
    no_dropout = {name: 0.0 for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")}
    model = tiny.make_model(
        family,
        attentional_contribution=attention,
        encoder_fields=no_dropout,
        word_shapes=True,
        classifier_dropout=0.0,
        mlp_dropout=0.0,
    ).train()
    if not attention and family != "mpnet":
        assert model.encoder.config._attn_implementation == "sdpa"
    batch = tiny.make_batch(model.config, family)
    rows = []
    hook = model.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    packed, gradients = loss_and_gradients(model, batch)
    monkeypatch.setattr(AspertForJointExtraction, "_packing", lambda self, attention_mask: None)
    plain, expected = loss_and_gradients(model, batch)
    hook.remove()
    assert rows == [2, 4]
    torch.testing.assert_close(packed.loss, plain.loss)
    torch.testing.assert_close(packed.span_logits, plain.span_logits, rtol=1e-4, atol=1e-4)
    mask = batch["span_mask"]
    if attention:
        assert packed.contribution[mask].max() > 0
        torch.testing.assert_close(packed.contribution[mask], plain.contribution[mask], rtol=1e-4, atol=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("family", [family for family in tiny.FAMILIES if family not in PACKABLE])
def test_other_encoders_see_a_row_a_sentence(family):
    model = tiny.make_model(family).train()
    batch = tiny.make_batch(model.config, family)
    assert model.config.encoder_config.model_type not in PACKABLE_TYPES
    assert model._packing(batch["attention_mask"]) is None


def test_positions_of_mpnet_do_not_depend_on_its_padding_token():
    assert first_position(tiny.make_encoder_config("mpnet", pad_token_id=3)) == 2
    assert first_position(tiny.make_encoder_config("roberta", pad_token_id=3)) == 4


def test_only_in_training_and_where_it_saves_a_row():
    model = tiny.make_model()
    mask = tiny.make_batch(model.config)["attention_mask"]
    assert model._packing(mask) is None
    assert len(model.train()._packing(mask).rows) == 2
    assert model._packing(mask[:1]) is None
    assert model._packing(torch.ones(3, 7, dtype=torch.long)) is None
    with mock.patch.object(torch.compiler, "is_compiling", return_value=True):
        assert model._packing(mask) is None
    causal = copy.deepcopy(model)
    causal.config.encoder_config.is_decoder = True
    assert causal._packing(mask) is None
    other = copy.deepcopy(model)
    other.encoder.config._attn_implementation = "flash_attention_2"
    assert other._packing(mask) is None
