import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bixt3d.datasets.split import check_split, stratified_split


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=120),
    st.floats(0, 0.95),
    st.integers(0, 5),
)
def test_parts_partition_and_keep_the_class_shares(labels, fraction, seed):
    labels = np.array(labels)
    kept, held_out = stratified_split(labels, fraction, seed)
    assert np.array_equal(np.sort(np.concatenate([kept, held_out])), np.arange(len(labels)))
    for label in set(labels.tolist()):
        n, out = (labels == label).sum(), (labels[held_out] == label).sum()
        if fraction == 0 or n == 1:
            assert out == 0
        else:
            assert out == min(max(round(fraction * n), 1), n - 1)


def test_the_choice_is_fixed_for_good():
    # recomputed here from the rule: the two of ten with the smallest SHA-256 of "seed/label/rank"
    labels = np.array([4] * 10)
    order = sorted(range(10), key=lambda rank: hashlib.sha256(f"7/4/{rank}".encode()).hexdigest())
    assert stratified_split(labels, 0.2, 7)[1].tolist() == sorted(order[:2])


def test_another_seed_holds_out_others():
    labels = np.repeat(np.arange(5), 40)
    assert not np.array_equal(stratified_split(labels, 0.1, 0)[1], stratified_split(labels, 0.1, 1)[1])


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_bad_fraction(fraction):
    with pytest.raises(ValueError, match="val_fraction"):
        stratified_split(np.zeros(3, dtype=int), fraction, 0)


def test_bad_split():
    with pytest.raises(ValueError, match=r"'valid', expected one of test, train, val"):
        check_split("valid", 0.1)
    with pytest.raises(ValueError, match="val_fraction=0"):
        check_split("val", 0)
