"""What stands between title and text where an exported ranker reads them as one sequence.

In training the ids of a title are followed by those of its text, each tokenised alone. A space
gives the same ids where a tokenizer forgets white space, or marks the start of every word
(WordPiece, most sentencepiece models). Where the first word of a text has other ids than the same
word further on (byte-level BPE), the export's tokenizer is told to break at a tab, and a tab takes
the place of the space. Texts themselves have no tabs: `ingest` takes them out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from pipeline.models.card import Separator
from pipeline.models.layout import read_json, write_json

_TITLED = (("a title", "the text"), ("Titles", "Text"), ("1", "2"), ("What?", "(this)"))


def write_separator(folder: Path) -> Separator:
    """Find what separates titles from texts for the tokenizer of an exported ranker.

    Where that is a tab, the tokenizer in `folder` is written anew, with a break at tabs.
    """
    tokenizer = AutoTokenizer.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False
    )
    if all(_space_separates(tokenizer, *titled) for titled in _TITLED):
        return " "
    backend = tokenizer.backend_tokenizer
    steps = [pre_tokenizers.Split("\t", "removed")]
    if backend.pre_tokenizer is not None:
        steps.append(backend.pre_tokenizer)
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.save_pretrained(str(folder))
    # A class of the model's own would build its rules anew, without the break.
    path = folder / "tokenizer_config.json"
    write_json(path, {**read_json(path), "tokenizer_class": "PreTrainedTokenizerFast"})
    return "\t"


def _space_separates(tokenizer: Any, title: str, text: str) -> bool:
    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    return ids(f"{title} {text}") == ids(title) + ids(text)
