from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources.id_index import IdIndex, SeenIds

IDS = st.text(max_size=3)


@settings(max_examples=50, deadline=None)
@given(blocks=st.lists(st.lists(IDS, max_size=12), max_size=12), asked=st.lists(IDS, max_size=12))
def test_equals_a_dict(blocks, asked):
    index, expected = IdIndex(), {}
    for block in blocks:
        fresh = []
        for one in block:
            fresh.append(one not in expected)
            expected.setdefault(one, len(expected))
        assert index.add(block).tolist() == fresh
    assert len(index) == len(expected)
    assert index.find(asked).tolist() == [expected.get(one, -1) for one in asked]


@settings(max_examples=30, deadline=None)
@given(ids=st.lists(IDS, max_size=40), block=st.integers(1, 7))
def test_each_id_passes_once(ids, block):
    seen = SeenIds()
    seen.BLOCK = block
    assert list(seen.first_times((one, one) for one in ids)) == list(dict.fromkeys(ids))


def test_few_bytes_per_id():
    count, block = 100_000, 4_000
    index = IdIndex()
    tracemalloc.start()
    for start in range(0, count, block):
        index.add([f"passage-{number}" for number in range(start, start + block)])
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 13 * count
    assert peak < 45 * count
    rows = index.find([f"passage-{number}" for number in (0, 17, count - 1)] + ["passage--1"])
    assert rows.tolist() == [0, 17, count - 1, -1]
    assert rows.dtype == np.int32
