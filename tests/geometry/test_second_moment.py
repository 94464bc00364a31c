"""The second moment of an embedding: from any blocks the same, by its definition, over the whole range of floats."""

import numpy as np
import pytest

from capsolve.geometry import second_moment
from capsolve.geometry.second_moment import SecondMoment, row_blocks, summarise_and_answer

EPS = np.finfo(float).eps
W = np.random.default_rng(0).standard_normal((40, 7))


def filled(*blocks):
    moment = SecondMoment()
    for block in blocks:
        moment.add(block)
    return moment


def by_definition(W):
    products = W @ W.T
    return np.diag(products) ** 2 / (products**2).sum(axis=1)


# A capacity is a quotient of two sums of D² products of sums of n: some tens of roundings here.
TOLERANCE = {"rtol": 100 * EPS}


def test_capacities_and_interference_by_definition():
    moment = filled(W)
    np.testing.assert_allclose(moment.capacities(W), by_definition(W), **TOLERANCE)
    unit = W / np.linalg.norm(W, axis=1, keepdims=True)
    others = ((unit @ W.T) ** 2).sum(axis=1) - (W**2).sum(axis=1)
    np.testing.assert_allclose(moment.interference(W), others, rtol=1000 * EPS)
    eigenvalues = np.linalg.eigvalsh(W.T @ W)[::-1]
    np.testing.assert_allclose(moment.spectrum(), eigenvalues, rtol=1e-12)


@pytest.mark.parametrize("cuts", [[1], [39], [3, 4, 20], list(range(1, 40))])
def test_blocks_added_or_merged_make_no_difference(cuts):
    blocks = np.split(W, cuts)
    wanted = filled(W).capacities(W)
    np.testing.assert_allclose(filled(*blocks).capacities(W), wanted, **TOLERANCE)
    merged = SecondMoment()
    for block in blocks:
        merged.merge(filled(block))
    merged.merge(SecondMoment())
    np.testing.assert_allclose(merged.capacities(W), wanted, **TOLERANCE)
    # and it matters that all are there
    assert np.abs(filled(*blocks[1:]).capacities(W) - wanted).max() > 1e-3


def test_a_merge_leaves_the_other_as_it_was():
    one, other = filled(W[:20]), filled(1e3 * W[20:])
    before = other.capacities(W[20:]).copy()
    one.merge(other)
    np.testing.assert_array_equal(other.capacities(W[20:]), before)


@pytest.mark.parametrize("power", [-200, 0, 200])
def test_lengths_do_not_matter_and_may_differ_as_floats_can(power):
    scaled = W * 10.0**power
    np.testing.assert_allclose(filled(scaled).capacities(scaled), by_definition(W), **TOLERANCE)
    apart = np.array([[1e-200, 0.0], [0.0, 1e200], [0.0, 1e200]])
    np.testing.assert_allclose(filled(apart).capacities(apart), [1.0, 0.5, 0.5], **TOLERANCE)


def test_small_blocks_give_what_large_ones_give(monkeypatch):
    wanted = filled(W).capacities(W)
    monkeypatch.setattr(second_moment, "_ADD", 14)
    monkeypatch.setattr(second_moment, "_MEASURE", 21)
    np.testing.assert_allclose(filled(W).capacities(W), wanted, **TOLERANCE)


def test_rows_are_cut_into_blocks_of_a_size():
    for entries, count in ((10**6, 1), (70, 4), (7, 40), (1, 40)):
        blocks = row_blocks(W, entries)
        assert len(blocks) == count
        np.testing.assert_array_equal(np.concatenate(blocks), W)
    batch = np.stack([W, 2 * W])
    assert [block.shape for block in row_blocks(batch, 2 * 7 * 30)] == [(2, 30, 7), (2, 10, 7)]


@pytest.mark.parametrize("chunks", [(40, 7), (9, 7), (1, 3)])
def test_dask_chunks_are_summarised_first_and_answered_then(chunks):
    array = pytest.importorskip("dask.array").from_array(W, chunks=chunks)
    found = summarise_and_answer(array, SecondMoment, SecondMoment.capacities, np.dtype(float))
    assert found.shape == (40,)
    np.testing.assert_allclose(found.compute(scheduler="synchronous"), by_definition(W), **TOLERANCE)
    at_once = summarise_and_answer(W, SecondMoment, SecondMoment.capacities, np.dtype(float))
    np.testing.assert_allclose(at_once, by_definition(W), **TOLERANCE)


def test_what_cannot_be_summed():
    with pytest.raises(ValueError, match="add the rows of W"):
        SecondMoment().capacities(W)
    with pytest.raises(ValueError, match="same number of dimensions in every block, got 3 after 7"):
        filled(W, W[:, :3])
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="W must be finite"):
            filled(np.array([[1.0, bad]]))
