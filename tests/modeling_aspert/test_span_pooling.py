"""Range maxima against a loop over tokens: values and gradients, for spans and for the contexts between two spans."""

from __future__ import annotations

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_aspert.span_pooling import range_levels, range_max, range_max_table


def hand_values() -> torch.Tensor:
    return torch.tensor([[[1.0, -1.0], [3.0, -5.0], [2.0, -2.0], [0.0, -9.0]]])


def pooled(hidden: torch.Tensor, ranges: list[tuple[int, int]], sentence: int = 0) -> torch.Tensor:
    starts = torch.tensor([start for start, _ in ranges])
    ends = torch.tensor([end for _, end in ranges])
    return range_max(range_max_table(hidden), torch.full_like(starts, sentence), starts, ends)


def test_hand_example():
    """Four tokens, two dimensions; negative maxima stay negative, an empty range is zero."""
    result = pooled(hand_values(), [(0, 1), (0, 4), (1, 3), (2, 4), (3, 4), (2, 2), (4, 4), (3, 1)])
    expected = [[1, -1], [3, -1], [3, -2], [2, -2], [0, -9], [0, 0], [0, 0], [0, 0]]
    assert result.tolist() == expected


def test_table_holds_all_windows_of_a_power_of_two():
    hidden = torch.randn(2, 11, 3, generator=torch.Generator().manual_seed(0))
    table = range_max_table(hidden)
    assert table.shape == (4, 2, 11, 3)
    for level in range(4):
        for start in range(11):
            assert torch.equal(table[level, :, start], hidden[:, start : start + 2**level].amax(1))


def test_levels():
    widths = torch.tensor([-3, 0, 1, 2, 3, 4, 7, 8, 15, 16, 100])
    level, width = range_levels(widths, num_levels=5)
    assert level.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert width.tolist() == [1, 1, 1, 2, 2, 4, 4, 8, 8, 16, 16]


@pytest.mark.parametrize("length", range(1, 41))
def test_every_range_of_a_sentence(length):
    generator = torch.Generator().manual_seed(length)
    hidden = torch.randn(2, length, 3, generator=generator)
    ranges = [(start, end) for start in range(length + 1) for end in range(start, length + 1)]
    for sentence in range(2):
        expected = torch.stack(
            [hidden[sentence, start:end].amax(0) if end > start else torch.zeros(3) for start, end in ranges]
        )
        assert torch.equal(pooled(hidden, ranges, sentence), expected)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_values_and_gradients(data):
    """Two padded sentences; padding holds NaN, and no gradient reaches it."""
    length = data.draw(st.integers(1, 40), "length")
    real = data.draw(st.integers(1, length), "real")
    seed = data.draw(st.integers(0, 10**6), "seed")
    ends = [data.draw(st.integers(0, real), "end") for _ in range(6)]
    ranges = [(data.draw(st.integers(0, end), "start"), end) for end in ends]
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(2, length, 4, generator=generator, dtype=torch.float64)
    hidden[1, real:] = float("nan")
    weights = torch.randn(len(ranges), 4, generator=generator, dtype=torch.float64)

    ours = hidden.clone().requires_grad_()
    result = pooled(ours, ranges, sentence=1)
    (result * weights).sum().backward()
    slow = hidden.clone().requires_grad_()
    expected = torch.stack([reference.max_pool(slow[1], start, end) for start, end in ranges])
    assert torch.equal(result, expected)
    if expected.requires_grad:
        (expected * weights).sum().backward()
        torch.testing.assert_close(ours.grad, slow.grad, rtol=1e-12, atol=1e-12)
    else:
        assert not ours.grad.any()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_context_between_two_spans(data):
    """[min end, max start) is what the definition of c(s1, s2) means, nested and overlapping spans included."""
    length = data.draw(st.integers(1, 20), "length")
    spans = []
    for _ in range(2):
        start = data.draw(st.integers(0, length - 1), "start")
        spans.append((start, data.draw(st.integers(start + 1, length), "end")))
    hidden = torch.randn(1, length, 2, generator=torch.Generator().manual_seed(length))
    first, second = spans
    start, end = min(first[1], second[1]), max(first[0], second[0])
    assert torch.equal(pooled(hidden, [(start, end)])[0], reference.context(hidden[0], first, second))


def test_context_by_hand():
    """Apart, apart the other way round, adjacent, nested, overlapping, equal."""
    hidden = torch.tensor([[1.0], [2.0], [7.0], [5.0], [6.0]])
    cases = {
        ((0, 1), (4, 5)): 7.0,
        ((4, 5), (0, 1)): 7.0,
        ((3, 5), (0, 2)): 7.0,
        ((0, 2), (2, 3)): 0.0,
        ((0, 5), (2, 3)): 0.0,
        ((0, 3), (2, 5)): 0.0,
        ((1, 2), (1, 2)): 0.0,
    }
    for (first, second), expected in cases.items():
        assert reference.context(hidden, first, second).item() == expected


def test_long_range():
    """512 tokens, every width: no fixed limit."""
    hidden = torch.randn(1, 512, 1, generator=torch.Generator().manual_seed(5))
    ranges = [(0, width) for width in range(1, 513)]
    assert torch.equal(pooled(hidden, ranges)[:, 0], hidden[0, :, 0].cummax(0).values)


def test_equal_values_share_one_unit_of_gradient():
    hidden = torch.full((1, 6, 1), 2.0, requires_grad=True)
    pooled(hidden, [(1, 6)]).sum().backward()
    assert hidden.grad.sum().item() == pytest.approx(1.0)
    assert hidden.grad[0, 0, 0] == 0


def test_shapes_of_indices_are_kept():
    hidden = torch.randn(2, 5, 3)
    starts = torch.tensor([[0, 1, 0], [2, 3, 0]])
    ends = torch.tensor([[2, 5, 0], [3, 4, 5]])
    batch = torch.arange(2).unsqueeze(1).expand_as(starts)
    result = range_max(range_max_table(hidden), batch, starts, ends)
    assert result.shape == (2, 3, 3)
    assert torch.equal(result[1, 2], hidden[1].amax(0))
    assert not result[0, 2].any()
