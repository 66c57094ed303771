"""Files by which sentence-transformers finds the parts of a model in its folder.

Written by hand since they are small JSON files: so neither training nor encoding needs
sentence-transformers installed. Class paths and pooling keys are the long-standing ones, which its
older releases know as well as release 6.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from pipeline.models.base import TOKENIZER, TOKENIZER_WANTED
from pipeline.models.encoder import TextEncoder, quiet
from pipeline.models.pooling import Pooling

_MODULE = "sentence_transformers.models"
JOINED_PAIRS = "pipeline.models.joined_pairs.JoinedPairs"


def write_json(path: Path, content: object) -> None:
    """Write `content` as readable JSON, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Parse a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def copy_tokenizer(
    source: Path, target: Path, settings: Mapping[str, object] | None = None
) -> None:
    """Copy a tokenizer's files, changing only the `settings` of its tokenizer_config.json.

    Raises:
        FileNotFoundError: `source` holds no tokenizer.
    """
    files = sorted(path for path in source.iterdir() if TOKENIZER.fullmatch(path.name))
    if not any(path.name != "tokenizer_config.json" for path in files):
        raise FileNotFoundError(f"{source}: no tokenizer there ({TOKENIZER_WANTED})")
    target.mkdir(parents=True, exist_ok=True)
    for path in files:
        shutil.copyfile(path, target / path.name)
    if settings:
        path = target / "tokenizer_config.json"
        write_json(path, {**(read_json(path) if path.exists() else {}), **settings})


def export_tokenizer(source: Path, target: Path, encoder: TextEncoder, max_length: int) -> None:
    """Copy a tokenizer beside an exported encoder.

    Some tokenizers leave out segment ids unless told that the model reads them; here they are told,
    as the encoder was trained with them.
    """
    settings = {"model_max_length": max_length, "model_input_names": encoder.input_names}
    copy_tokenizer(source, target, settings)


def write_tower(
    folder: Path,
    encoder: TextEncoder,
    tokenizer: Path,
    max_length: int,
    query_length: int | None = None,
) -> None:
    """Write one Transformer: weights and config for `AutoModel`, tokenizer, longest inputs.

    Args:
        folder: where.
        encoder: the encoder.
        tokenizer: folder of the tokenizer to copy.
        max_length: longest input in tokens.
        query_length: longest query where one tower reads queries and passages.
    """
    with quiet():
        encoder.model.save_pretrained(folder)
    export_tokenizer(tokenizer, folder, encoder, max_length)
    settings: dict[str, Any] = {"max_seq_length": max_length, "do_lower_case": False}
    if query_length is not None:
        settings |= {"query_length": query_length, "document_length": max_length}
    if hasattr(encoder.model, "pooler"):
        settings["model_args"] = {"add_pooling_layer": False}
    write_json(folder / "sentence_bert_config.json", settings)


def write_router(folder: Path, towers: Mapping[str, str]) -> None:
    """Write a Router at the folder's root: route name -> name of the tower's subfolder."""
    content = {
        "types": dict.fromkeys(towers.values(), f"{_MODULE}.Transformer"),
        "structure": {route: [tower] for route, tower in towers.items()},
        "parameters": {"default_route": "document", "allow_empty_key": True},
    }
    write_json(folder / "router_config.json", content)


def write_pooling(folder: Path, width: int, pooling: Pooling) -> None:
    """Write a Pooling module (cls or mean)."""
    content = {
        "word_embedding_dimension": width,
        "pooling_mode_cls_token": pooling == "cls",
        "pooling_mode_mean_tokens": pooling == "mean",
    }
    write_json(folder / "config.json", content)


def write_dense(folder: Path, linear: nn.Linear, *, tanh: bool, output: str) -> None:
    """Write a Dense module that reads `sentence_embedding` and writes the feature `output`."""
    activation = "torch.nn.modules.activation.Tanh" if tanh else "torch.nn.modules.linear.Identity"
    content = {
        "in_features": linear.in_features,
        "out_features": linear.out_features,
        "bias": True,
        "activation_function": activation,
        "module_input_name": "sentence_embedding",
        "module_output_name": output,
    }
    write_json(folder / "config.json", content)
    weights = {
        f"linear.{name}": value.detach().cpu().contiguous()
        for name, value in linear.named_parameters()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def write_retriever_modules(
    folder: Path, width: int, pooling: Pooling, *, shared: bool, normalize: bool
) -> None:
    """Write the module list of a SentenceTransformer: towers, Pooling, perhaps Normalize."""
    modules = [("", "Transformer" if shared else "Router"), ("1_Pooling", "Pooling")]
    write_pooling(folder / "1_Pooling", width, pooling)
    if normalize:
        modules.append(("2_Normalize", "Normalize"))
        write_json(folder / "2_Normalize" / "config.json", {})
    similarity = "cosine" if normalize else "dot"
    _write_modules(folder, modules)
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "prompts": {"query": "", "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": similarity,
        },
    )


def write_joined_module(folder: Path) -> None:
    """Write the module list of a CrossEncoder over joined inputs: one module, of this package."""
    content = [{"idx": 0, "name": "0", "path": "", "type": JOINED_PAIRS}]
    write_json(folder / "modules.json", content)
    _write_cross_encoder_settings(folder)


def write_ranker_modules(
    folder: Path, width: int, pooling: Pooling, layers: Sequence[nn.Linear]
) -> None:
    """Write the module list of a CrossEncoder: Transformer, pooling, linear layers to one logit.

    All but the last layer are followed by tanh; predictions are the sigmoid of the logit.
    """
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    write_pooling(folder / "1_Pooling", width, pooling)
    for number, layer in enumerate(layers, start=2):
        last = number == len(layers) + 1
        modules.append((f"{number}_Dense", "Dense"))
        output = "scores" if last else "sentence_embedding"
        write_dense(folder / f"{number}_Dense", layer, tanh=not last, output=output)
    _write_modules(folder, modules)
    _write_cross_encoder_settings(folder)


def _write_cross_encoder_settings(folder: Path) -> None:
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "CrossEncoder",
            "activation_fn": "torch.nn.modules.activation.Sigmoid",
            "prompts": {},
            "default_prompt_name": None,
        },
    )


def _write_modules(folder: Path, modules: Sequence[tuple[str, str]]) -> None:
    content = [
        {"idx": number, "name": str(number), "path": path, "type": f"{_MODULE}.{module}"}
        for number, (path, module) in enumerate(modules)
    ]
    write_json(folder / "modules.json", content)
