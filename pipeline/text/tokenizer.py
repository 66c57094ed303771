"""Hugging Face tokenisers from a local folder, and the token tables made with them."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipeline.text.template import InputTemplate, Layout, Tokenization

# Data sets write a missing title as nothing or as a dash (RocketQA's corpora).
MISSING_TITLES = ("", "-")

# Texts handed to the tokeniser at once: it keeps some hundred bytes per token until they are read.
TEXTS_AT_ONCE = 4096

# A fast tokeniser can be built from any of these sets of files without guessing.
FAST_FILES = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))


# Exported rankers may have it before their own rules (`pipeline.models.title_break`).
_TITLE_BREAK = {
    "type": "Split",
    "pattern": {"String": "\t"},
    "behavior": "Removed",
    "invert": False,
}


@dataclass(frozen=True)
class QueryTokens:
    """Tokens of a batch of queries.

    Attributes:
        table: `ids` list<int32>, without special tokens, cut to what the longest input can use.
        lengths: full lengths before that cut, [rows].
    """

    table: pa.Table
    lengths: NDArray[np.int64]


@dataclass(frozen=True)
class PassageTokens:
    """Tokens of a batch of passages.

    Attributes:
        table: `title_ids` and `text_ids` list<int32>, cut as queries are, a missing title being
            empty, and `content_hash` int64.
        title_lengths: full lengths of the titles, [rows].
        text_lengths: full lengths of the texts, [rows].
    """

    table: pa.Table
    title_lengths: NDArray[np.int64]
    text_lengths: NDArray[np.int64]


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Open the fast tokeniser of a checkpoint folder. Nothing is fetched, no code of it runs.

    Raises:
        FileNotFoundError: the folder has no tokeniser files.
        ValueError: the folder holds a tokeniser that is damaged or not a fast one.
    """
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not any(present.issuperset(files) for files in FAST_FILES):
        slow = sorted(name for name in present if name.endswith((".model", ".vocab")))
        if slow:
            # Loading would succeed for some of these and map every text to the unknown token.
            raise ValueError(
                f"{folder} has a tokeniser only as {', '.join(slow)}, and reading that without a "
                "fast tokeniser's tokenizer.json is not reliable: save the checkpoint once with "
                "AutoTokenizer.from_pretrained(name).save_pretrained(folder)"
            )
        raise FileNotFoundError(
            f"{folder} has no tokeniser: expected tokenizer.json (or a vocabulary: "
            f"{' or '.join(' with '.join(files) for files in FAST_FILES[1:])})"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the library that parses tokenizer.json raises no narrower one
        raise ValueError(
            f"{folder} has a tokeniser that cannot be loaded ({type(error).__name__}: "
            f"{str(error).strip()[:200]}): fetch its files again, or take another checkpoint"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(
            f"{folder} has a {type(tokenizer).__name__}, which has no fast form: use a checkpoint "
            "with a tokenizer.json"
        )
    return tokenizer


def input_template(tokenizer: PreTrainedTokenizerFast, tokenization: Tokenization) -> InputTemplate:
    """Derive special tokens and segment ids from the tokeniser's own layout of pairs.

    Raises:
        ValueError: the tokeniser has no padding token, or a length leaves no room for text.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError(f"{tokenizer.name_or_path} has no padding token: give it a pad_token")
    missing, _ = _encode(tokenizer, [tokenization.missing_title], limit=8)
    return InputTemplate(
        tokenization=tokenization,
        single=_layout(tokenizer, 1),
        pair=_layout(tokenizer, 2),
        pad_id=tokenizer.pad_token_id,
        pad_type=tokenizer.pad_token_type_id,
        vocab_size=len(tokenizer),
        missing_title_ids=tuple(missing[0].as_py()) if tokenization.title else (),
        tokenizer_digest=tokenizer_digest(tokenizer),
    )


def tokenizer_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """SHA-256, in hex, of all that decides which ids a text becomes.

    Made of the vocabulary, the rules by which texts are normalised, split and joined from pieces,
    and the special tokens around one and two sequences; neither of the files that these were read
    from nor of lengths, segment ids and names.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    rules = {
        "vocabulary": tokenizer.get_vocab(),
        "model": content["model"],
        "normalizer": content["normalizer"],
        "pre_tokenizer": _without_title_break(content["pre_tokenizer"]),
        "specials": [_layout(tokenizer, sequences).specials for sequences in (1, 2)],
    }
    canonical = json.dumps(rules, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _without_title_break(rules: Any) -> Any:
    """The splitting without a break at tabs, which texts have none of."""
    steps = (rules or {}).get("pretokenizers", ())
    return steps[1] if len(steps) == 2 and steps[0] == _TITLE_BREAK else rules


def tokenize_queries(
    tokenizer: PreTrainedTokenizerFast, template: InputTemplate, texts: Sequence[str]
) -> QueryTokens:
    """Token table of queries (kind Tokens, table queries)."""
    ids, lengths = _encode(tokenizer, texts, template.query_limit)
    return QueryTokens(pa.table({"ids": ids}), lengths)


def tokenize_passages(
    tokenizer: PreTrainedTokenizerFast,
    template: InputTemplate,
    titles: Sequence[str],
    texts: Sequence[str],
) -> PassageTokens:
    """Token table of passages (kind Tokens, table passages)."""
    used = [_used_title(title, template.tokenization) for title in titles]
    title_ids, title_lengths = _encode(tokenizer, used, template.passage_limit)
    text_ids, text_lengths = _encode(tokenizer, texts, template.passage_limit)
    hashes = [content_hash(title, text) for title, text in zip(used, texts, strict=True)]
    table = pa.table(
        {
            "title_ids": title_ids,
            "text_ids": text_ids,
            "content_hash": pa.array(hashes, pa.int64()),
        }
    )
    return PassageTokens(table, title_lengths, text_lengths)


def content_hash(title: str, text: str) -> int:
    """64-bit signed hash of a passage, equal for passages that read the same.

    Case, spacing and Unicode compatibility forms do not count. The value is the same on every
    machine and in every run.
    """
    normalised = unicodedata.normalize("NFKC", f"{title} {text}").casefold()
    words = " ".join(normalised.split())
    digest = hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _used_title(title: str, tokenization: Tokenization) -> str:
    return title if tokenization.title and title.strip() not in MISSING_TITLES else ""


def _encode(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], limit: int
) -> tuple[pa.ListArray, NDArray[np.int64]]:
    backend = tokenizer.backend_tokenizer
    # tokenizer.json may carry the truncation and padding it was last used with.
    backend.no_truncation()
    backend.no_padding()
    lengths = np.zeros(len(texts), dtype=np.int64)
    rows: list[NDArray[np.int32]] = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        chunk = list(texts[start : start + TEXTS_AT_ONCE])
        for encoding in backend.encode_batch_fast(chunk, add_special_tokens=False):
            lengths[len(rows)] = len(encoding)
            rows.append(np.asarray(encoding.ids[:limit], dtype=np.int32))
    offsets = np.zeros(len(rows) + 1, dtype=np.int32)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    values = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)), lengths


def _layout(tokenizer: PreTrainedTokenizerFast, sequences: int) -> Layout:
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    encoding: Any = backend.encode(*["a"] * sequences)
    # A model that takes no segment ids has an embedding for segment 0 at most.
    typed = "token_type_ids" in tokenizer.model_input_names
    specials: list[list[int]] = [[] for _ in range(sequences + 1)]
    special_types: list[list[int]] = [[] for _ in range(sequences + 1)]
    sequence_types = [0] * sequences
    seen = 0
    for token, kind, owner in zip(
        encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True
    ):
        segment = kind if typed else 0
        if owner is None:
            specials[seen].append(token)
            special_types[seen].append(segment)
        else:
            seen = owner + 1
            sequence_types[owner] = segment
    if seen != sequences:
        raise ValueError(
            f"{tokenizer.name_or_path} drops a sequence of its layout of {sequences}: its "
            "post-processor cannot be used for retrieval inputs"
        )
    return Layout(
        specials=tuple(map(tuple, specials)),
        special_types=tuple(map(tuple, special_types)),
        sequence_types=tuple(sequence_types),
    )
