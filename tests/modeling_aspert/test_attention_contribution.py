"""Algorithms 1 and 2 against loops over tokens: values and gradients, every switch, padding with garbage and NaN."""

from __future__ import annotations

import itertools
from unittest import mock

import numpy as np
import pytest
import reference
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_aspert import attention_contribution
from modeling_aspert.attention_contribution import attentional_contribution
from modeling_aspert.configuration_aspert import (
    CONTRIBUTION_DIRECTIONS,
    CONTRIBUTION_POOLINGS,
    CONTRIBUTION_SCOPES,
)
from modeling_aspert.sentence_packing import Packing

SWITCHES = list(itertools.product(CONTRIBUTION_POOLINGS, CONTRIBUTION_SCOPES, CONTRIBUTION_DIRECTIONS, (True, False)))
THRESHOLDS = (0.0, 0.2, 0.5)
LAYERS, HEADS = 2, 3


def masks(length: int, real: int, specials: int) -> tuple[list[int], list[int]]:
    """Attention mask and special tokens mask: one special token first, one last among the real ones."""
    special = [0] * length
    if specials >= 1:
        special[0] = 1
    if specials >= 2:
        special[real - 1] = 1
    special[real:] = [1] * (length - real)
    return [1] * real + [0] * (length - real), special


def compare(
    length: int,
    reals: list[int],
    specials: int,
    seed: int,
    spans: list[list[tuple[int, int]]],
    one_key: bool = False,
    offsets: torch.Tensor | None = None,
    **switches,
):
    """Ours in fp32 and the loops in fp64, on the same fp32 attention."""
    generator = np.random.default_rng(seed)
    batch = [tiny.random_attention(generator, LAYERS * HEADS, length, real).float() for real in reals]
    if one_key:
        for attention, real in zip(batch, reals):
            attention[:, :real, real:] = 0
    stacked = torch.stack(batch)
    layers = [stacked[:, layer * HEADS : (layer + 1) * HEADS].clone() for layer in range(LAYERS)]
    for layer in layers:
        layer.requires_grad_(not one_key)
    both_masks = [masks(length, real, specials) for real in reals]
    result = attentional_contribution(
        layers,
        torch.tensor(spans),
        torch.tensor([mask for mask, _ in both_masks]),
        torch.tensor([special for _, special in both_masks]),
        one_key=one_key,
        offsets=offsets,
        **switches,
    )
    size = LAYERS * HEADS * (2 if switches["direction"] == "both" else 1)
    assert result.shape == (len(reals), len(spans[0]), size)
    assert result.dtype == torch.float32
    if one_key:
        for row, (mask, special) in enumerate(both_masks):
            slow = [
                reference.contribution(batch[row].double(), span, mask, special, **switches) for span in spans[row]
            ]
            torch.testing.assert_close(result[row].double(), torch.stack(slow), rtol=1e-5, atol=2e-6)
        return
    weights = torch.from_numpy(generator.normal(size=result.shape)).float()
    (result * weights).sum().backward()

    for row, (mask, special) in enumerate(both_masks):
        slow = batch[row].double().requires_grad_()
        expected = torch.stack([reference.contribution(slow, span, mask, special, **switches) for span in spans[row]])
        torch.testing.assert_close(result[row].double(), expected, rtol=1e-5, atol=2e-6)
        ours = torch.cat([layer.grad[row] for layer in layers])
        if expected.requires_grad:
            (expected * weights[row].double()).sum().backward()
            torch.testing.assert_close(ours.double(), slow.grad, rtol=1e-5, atol=2e-6)
        else:
            # what a strip adds and its block takes away again may leave a rounding error
            torch.testing.assert_close(ours, torch.zeros_like(ours), rtol=0, atol=2e-6)
        assert not ours[:, reals[row] :].any()
        assert not ours[:, :, reals[row] :].any()


@pytest.mark.parametrize(("pooling", "scope", "direction", "special_tokens"), SWITCHES)
def test_every_switch(pooling, scope, direction, special_tokens):
    """Two sentences, one padded; single words, borders, a wide span, the whole sentence."""
    spans = [[(1, 2), (1, 4), (10, 11), (2, 9), (1, 11)], [(1, 2), (5, 6), (1, 6), (3, 5), (2, 4)]]
    for threshold in THRESHOLDS:
        compare(
            12,
            [12, 7],
            specials=2,
            seed=7,
            spans=spans,
            threshold=threshold,
            pooling=pooling,
            scope=scope,
            direction=direction,
            special_tokens=special_tokens,
        )


@pytest.mark.parametrize(("pooling", "scope", "direction", "special_tokens"), SWITCHES)
def test_packed_rows(pooling, scope, direction, special_tokens):
    """Sentences that share rows: the same values and gradients as one row a sentence."""
    reals, length = [9, 4, 5, 3], 10
    generator = np.random.default_rng(11)
    single = torch.zeros(len(reals), HEADS, length, length)
    packing = Packing(reals, length, torch.device("cpu"))
    assert packing.rows == [[0], [2, 1], [3]]
    rows = torch.zeros(len(packing.rows), HEADS, 9, 9)
    rows[2, :, 3:] = float("nan")
    for number, real in enumerate(reals):
        block = tiny.random_attention(generator, HEADS, real, real).float()
        single[number, :, :real, :real] = block
        place = slice(int(packing.starts[number]), int(packing.starts[number]) + real)
        rows[packing.row[number, 0], :, place, place] = block
    both_masks = [masks(length, real, 2) for real in reals]
    spans = torch.tensor([[(1, 2), (2, 8)], [(1, 3), (2, 3)], [(1, 4), (3, 4)], [(1, 2), (1, 2)]])
    weights = torch.from_numpy(generator.normal(size=(*spans.shape[:2], 1))).float()
    found = []
    for maps, how in ((single.requires_grad_(), None), (rows.requires_grad_(), packing)):
        result = attentional_contribution(
            [maps],
            spans,
            torch.tensor([mask for mask, _ in both_masks]),
            torch.tensor([special for _, special in both_masks]),
            threshold=0.2,
            pooling=pooling,
            scope=scope,
            direction=direction,
            special_tokens=special_tokens,
            packing=how,
        )
        (result * weights).sum().backward()
        found.append(result.detach())
    assert found[0].any()
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)
    for number, real in enumerate(reals):
        place = slice(int(packing.starts[number]), int(packing.starts[number]) + real)
        of_row = rows.grad[packing.row[number, 0], :, place, place]
        torch.testing.assert_close(of_row, single.grad[number, :, :real, :real], rtol=1e-5, atol=1e-6)


@st.composite
def sentences(draw):
    """The first arguments of `compare`: two sentences of 1 to 40 sub-words, with and without special tokens."""
    length = draw(st.integers(1, 40))
    reals = [draw(st.integers(1, length)), length]
    specials = min(draw(st.integers(0, 2)), min(reals) - 1)
    spans = []
    for real in reals:
        first, last = min(specials, 1), real - max(specials - 1, 0)
        starts = [draw(st.integers(first, last - 1)) for _ in range(2)]
        spans.append([(start, draw(st.integers(start + 1, last))) for start in starts])
    seed = draw(st.integers(0, 10**6))
    return {"length": length, "reals": reals, "specials": specials, "spans": spans, "seed": seed}


def switches(thresholds):
    """The switches of `compare`."""
    return st.fixed_dictionaries(
        {
            "threshold": st.sampled_from(thresholds),
            "pooling": st.sampled_from(CONTRIBUTION_POOLINGS),
            "scope": st.sampled_from(CONTRIBUTION_SCOPES),
            "direction": st.sampled_from(CONTRIBUTION_DIRECTIONS),
            "special_tokens": st.booleans(),
        }
    )


# whether maps are joined or worked on layer by layer
small_maps = pytest.mark.parametrize("small", [0, 2**16], ids=["by layer", "joined"])


@small_maps
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_any_length(small, data):
    """O may be empty."""
    with mock.patch.object(attention_contribution, "_SMALL", small):
        compare(
            **data.draw(sentences()),
            **data.draw(switches(thresholds=(0.0, 0.1, 0.5, 0.9))),
        )


@small_maps
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_one_key(small, data):
    """The way of inference, where a row has at most one key above the threshold: the values; and that of exports,
    which are told how far a span may reach."""
    with mock.patch.object(attention_contribution, "_SMALL", small):
        drawn = data.draw(sentences())
        compare(
            **drawn,
            one_key=True,
            offsets=torch.arange(drawn["length"] + 1) if data.draw(st.booleans()) else None,
            **data.draw(switches(thresholds=(0.5, 0.7))),
        )


# one head, four tokens: [CLS], a, b, [SEP]; rows sum to 1
HAND = torch.tensor(
    [
        [0.70, 0.10, 0.10, 0.10],
        [0.05, 0.05, 0.85, 0.05],
        [0.60, 0.20, 0.10, 0.10],
        [0.10, 0.10, 0.10, 0.70],
    ]
)


@pytest.mark.parametrize(
    ("span", "switches", "expected"),
    [
        # row a passes only at b; O = {[CLS], b, [SEP]}
        ((1, 2), {}, 0.85 / 3),
        ((1, 2), {"pooling": "sum"}, 0.85),
        ((1, 2), {"scope": "sentence"}, 0.85 / 4),
        ((1, 2), {"scope": "span"}, 0.0),
        ((1, 2), {"special_tokens": False}, 0.85),
        ((1, 2), {"threshold": 0.0}, 0.95 / 3),
        ((1, 2), {"threshold": 0.85}, 0.0),
        ((1, 2), {"direction": "to_span"}, 0.0),
        ((1, 2), {"direction": "to_span", "threshold": 0.0}, (0.1 + 0.2 + 0.1) / 3),
        ((2, 3), {"direction": "to_span"}, 0.85 / 3),
        # a and b together: only b -> [CLS] leaves the span; |s| * |O| = 2 * 2
        ((1, 3), {}, 0.60 / 4),
        ((1, 3), {"pooling": "max"}, 0.60),
        ((1, 3), {"scope": "sentence"}, (0.85 + 0.60) / 8),
        ((1, 3), {"scope": "span"}, 0.85 / 4),
        ((1, 3), {"scope": "span", "pooling": "max"}, 0.85),
        # nothing is left outside: 0
        ((1, 3), {"special_tokens": False}, 0.0),
        ((1, 3), {"special_tokens": False, "pooling": "max"}, 0.0),
    ],
)
def test_by_hand(span, switches, expected):
    result = attentional_contribution(
        [HAND[None, None]], torch.tensor([[span]]), torch.ones(1, 4), torch.tensor([[1, 0, 0, 1]]), **switches
    )
    assert result.shape == (1, 1, 1)
    assert result.item() == pytest.approx(expected, abs=1e-7)


def test_defaults_are_the_papers():
    """theta 0.5, mean, context, queries in the span, special tokens count."""
    arguments = ([HAND[None, None]], torch.tensor([[(1, 3)]]), torch.ones(1, 4))
    explicit = attentional_contribution(
        *arguments, threshold=0.5, pooling="mean", scope="context", direction="from_span", special_tokens=True
    )
    assert torch.equal(attentional_contribution(*arguments), explicit)


@pytest.mark.parametrize("pooling", CONTRIBUTION_POOLINGS)
def test_gate_is_strict_and_a_constant(pooling):
    """Of two queries the one that gives exactly theta is left out; the other's value counts, and alone has a gradient."""
    attention = torch.tensor([[[[0.5, 0.5], [0.51, 0.49]]]], requires_grad=True)
    spans = torch.tensor([[(0, 1), (1, 2)]])
    result = attentional_contribution([attention], spans, torch.ones(1, 2), threshold=0.5, pooling=pooling)
    assert result[0, :, 0].tolist() == [0.0, pytest.approx(0.51)]
    result.sum().backward()
    assert attention.grad[0, 0].tolist() == [[0.0, 0.0], [1.0, 0.0]]


def test_channels_are_layer_by_layer():
    """c = layer * H + head, first layer first; "both" is from_span then to_span."""
    generator = np.random.default_rng(0)
    layers = [tiny.random_attention(generator, 2, 6, 6).float()[None] for _ in range(3)]
    arguments = (torch.tensor([[(2, 4)]]), torch.ones(1, 6))
    both = attentional_contribution(layers, *arguments, threshold=0.0, direction="both")[0, 0]
    for layer, head in itertools.product(range(3), range(2)):
        alone = [layers[layer][:, head : head + 1]]
        for side, direction in enumerate(("from_span", "to_span")):
            expected = attentional_contribution(alone, *arguments, threshold=0.0, direction=direction).item()
            assert both[side * 6 + layer * 2 + head].item() == pytest.approx(expected, abs=1e-6)


def test_special_tokens_off_needs_their_mask():
    with pytest.raises(ValueError, match="special_tokens_mask"):
        attentional_contribution([HAND[None, None]], torch.tensor([[(1, 2)]]), torch.ones(1, 4), special_tokens=False)


def test_half_precision_attention_is_worked_on_in_fp32():
    """Equal to the fp32 result on the rounded attention, to the last bit; the gradient returns in bf16."""
    generator = np.random.default_rng(2)
    attention = torch.stack([tiny.random_attention(generator, 4, 30, 30)]).to(torch.bfloat16).requires_grad_()
    spans, mask = torch.tensor([[(1, 5), (7, 29)]]), torch.ones(1, 30)
    result = attentional_contribution([attention], spans, mask, pooling="sum")
    assert result.dtype == torch.float32
    assert torch.equal(result, attentional_contribution([attention.detach().float()], spans, mask, pooling="sum"))
    result.sum().backward()
    assert attention.grad.dtype == torch.bfloat16
    assert attention.grad.any()


@pytest.mark.parametrize("length", [200, 256, 257, 600])
@pytest.mark.parametrize("scope", ["context", "span"])
def test_one_key_where_products_round_to_bf16(monkeypatch, scope, length):
    """As some processors do on request, for all of a length that bf16 does not count to: values may round, but no key
    becomes its neighbour."""
    generator = torch.Generator().manual_seed(length)
    keys = (torch.arange(length) + torch.randint(-5, 6, (3, length), generator=generator)).clamp(0, length - 1)
    attention = torch.zeros(1, 3, length, length)
    attention.scatter_(-1, keys[None, :, :, None], 0.75)
    starts = torch.arange(0, length - 9, 5)
    spans = torch.stack([starts, starts + 1 + starts % 9], dim=-1)[None]
    arguments = ([attention], spans, torch.ones(1, length))
    expected = attentional_contribution(*arguments, scope=scope, pooling="sum")
    linear = attention_contribution.F.linear
    monkeypatch.setattr(
        attention_contribution.F, "linear", lambda *given: linear(*(part.bfloat16().float() for part in given))
    )
    found = attentional_contribution(*arguments, scope=scope, pooling="sum", one_key=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert expected.any()


@pytest.mark.parametrize("length", [1, 2, 3, 8, 13])
def test_sums_without_a_running_sum(length):
    """What takes the place of CUDA's running sum, which is not deterministic: values and gradients."""
    rows = torch.randn(2, length, 3, dtype=torch.float64, requires_grad=True)
    expected = rows.cumsum(1)
    found = attention_contribution._doubled_sums(rows)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(rows)
    ours, slow = (torch.autograd.grad((sums * weights).sum(), rows)[0] for sums in (found, expected))
    torch.testing.assert_close(ours, slow)


@pytest.mark.parametrize("scope", CONTRIBUTION_SCOPES)
def test_maxima_look_for_the_widest_span_once(monkeypatch, scope):
    """And not once a layer, which each time would wait for the device."""
    maps = [tiny.random_attention(np.random.default_rng(layer), 2, 9, 9).float()[None] for layer in range(3)]
    monkeypatch.setattr(attention_contribution, "_SMALL", 0)
    asked = []
    monkeypatch.setattr(torch.Tensor, "__int__", lambda tensor: asked.append(tensor.item()) or asked[-1])
    attentional_contribution(maps, torch.tensor([[(1, 3), (2, 6)]]), torch.ones(1, 9), pooling="max", scope=scope)
    assert asked == ([4] if scope == "context" else [])


@pytest.mark.parametrize("scope", CONTRIBUTION_SCOPES)
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_accuracy_at_512(scope, threshold):
    """Sums over 512 sub-words from fp32 prefix sums are within 5e-4 of fp64, and never negative."""
    generator = np.random.default_rng(3)
    attention = tiny.random_attention(generator, 3, 512, 512, sharpness=4.0).float()
    spans = [(1, 2), (1, 11), (255, 260), (505, 511), (1, 511), (510, 511), (0, 512), (0, 1), (400, 410)]
    result = attentional_contribution(
        [attention[None]], torch.tensor([spans]), torch.ones(1, 512), threshold=threshold, pooling="sum", scope=scope
    )[0]
    gated = torch.where(attention > threshold, attention, 0.0).double()
    for row, (start, end) in zip(result.double(), spans):
        strip, block = gated[:, start:end].sum((1, 2)), gated[:, start:end, start:end].sum((1, 2))
        expected = {"context": strip - block, "sentence": strip, "span": block}[scope]
        assert (row - expected).abs().max() < 5e-4
        assert (row >= 0).all()


def test_untouched_inputs():
    """The model's attentions are not written to."""
    attention = torch.stack([tiny.random_attention(np.random.default_rng(4), 2, 8, 8).float()])
    before = attention.clone()
    for pooling, scope, direction, _ in SWITCHES:
        attentional_contribution(
            [attention], torch.tensor([[(1, 3)]]), torch.ones(1, 8), pooling=pooling, scope=scope, direction=direction
        )
    assert torch.equal(attention, before)


def test_no_spans():
    for pooling, scope in itertools.product(CONTRIBUTION_POOLINGS, CONTRIBUTION_SCOPES):
        result = attentional_contribution(
            [HAND[None, None]], torch.zeros(1, 0, 2, dtype=torch.long), torch.ones(1, 4), pooling=pooling, scope=scope
        )
        assert result.shape == (1, 0, 1)


@pytest.mark.parametrize("pooling", ["mean", "sum", "max"])
@pytest.mark.parametrize("scope", ["context", "sentence", "span"])
def test_autocast_changes_nothing(scope: str, pooling: str) -> None:
    """Sums over hundreds of columns are of no use in half precision."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, 2, 300, 300, generator=generator).mul(4).softmax(-1) for _ in range(2)]
    starts = torch.arange(1, 280, 7)
    spans = torch.stack([starts, starts + 1 + starts % 10], dim=-1).unsqueeze(0)
    arguments = {"threshold": 0.0, "pooling": pooling, "scope": scope, "direction": "both"}
    plain = attentional_contribution(maps, spans, torch.ones(1, 300), **arguments)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = attentional_contribution(maps, spans, torch.ones(1, 300), **arguments)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, plain)
