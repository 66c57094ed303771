from __future__ import annotations

import itertools

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from pipeline.text.truncation import longest_first


def token_by_token(first: int, second: int, room: int) -> tuple[int, int]:
    while first + second > room:
        if first > second:
            first -= 1
        else:
            second -= 1
    return first, second


def test_closed_form_equals_removing_tokens_one_by_one() -> None:
    lengths = np.array(list(itertools.product(range(20), range(20))))
    for room in range(2, 42):
        kept = np.stack(longest_first(lengths[:, 0], lengths[:, 1], room), axis=1)
        expected = [token_by_token(int(a), int(b), room) for a, b in lengths]
        np.testing.assert_array_equal(kept, expected)


def test_lengths_cut_to_the_room_lead_to_the_same_result() -> None:
    lengths = np.array(list(itertools.product(range(40), range(40))))
    for room in (2, 7, 16):
        full = longest_first(lengths[:, 0], lengths[:, 1], room)
        cut = longest_first(*np.minimum(lengths, room).T, room)
        np.testing.assert_array_equal(full, cut)


@pytest.mark.parametrize("room", [2, 3, 7, 12, 13])
def test_hugging_face_gives_the_odd_token_to_the_second_sequence(room: int) -> None:
    """One token goes elsewhere where the room is odd and both sequences are cut to share it."""
    theirs = Tokenizer(models.WordLevel({"w": 0}, unk_token="w"))
    theirs.pre_tokenizer = pre_tokenizers.Whitespace()
    theirs.enable_truncation(room, strategy="longest_first")
    for first, second in itertools.product(range(1, 20), repeat=2):
        encoding = theirs.encode("w " * first, "w " * second)
        found = tuple(encoding.sequence_ids.count(sequence) for sequence in (0, 1))
        ours = tuple(int(kept) for kept in longest_first(first, second, room))
        if room % 2 and second >= first > room // 2:
            assert ours == (room // 2 + 1, room // 2)
            assert found == (room // 2, room // 2 + 1)
        else:
            assert ours == found
