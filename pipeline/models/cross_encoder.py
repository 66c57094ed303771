"""The ranker: query and passage are read together, relevance is one logit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from pipeline.models import layout
from pipeline.models.card import Card
from pipeline.models.encoder import TensorBatch, TextEncoder, quiet
from pipeline.models.interaction import InteractionHead
from pipeline.models.pooling import Pooling, pool
from pipeline.models.title_break import write_separator

SETTINGS = "ranker.json"
HEAD = "head.safetensors"
Head = Literal["pooled_two_class", "cls_logit", "mean_logit", "interaction"]

# Where transformers' own sequence classifier of a class keeps the layers of the paper's head.
# Only classes whose classifier computes exactly: first token -> linear -> tanh -> linear.
_CLASSIFIER_LAYERS = {
    "bert": ("bert.pooler.dense", "classifier"),
    "ernie": ("ernie.pooler.dense", "classifier"),
    "roberta": ("classifier.dense", "classifier.out_proj"),
    "xlm-roberta": ("classifier.dense", "classifier.out_proj"),
}


class CrossEncoderConfig(BaseModel):
    """How a pair's states become a logit.

    Attributes:
        head: `pooled_two_class` is RocketQA's (first token -> tanh layer -> dropout -> 2 classes);
            `cls_logit` is one linear layer on the first token's state, `mean_logit` on the mean
            of all tokens' states (for bases whose first token was never trained to stand for the
            text, such as mean-pooled sentence encoders); `interaction` starts from a retriever's
            own similarities (`pipeline.models.interaction`).
        dropout: before the last layer, in training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    head: Head = "pooled_two_class"
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @property
    def pair_layout(self) -> Literal["pair", "joined"]:
        """What the head's inputs are: one of a token store's pair layouts."""
        return "joined" if self.head == "interaction" else "pair"


class JoinedInputs(BaseModel):
    """How joined inputs are cut; see `pipeline.text.template.Tokenization`.

    Attributes:
        query_max_len: tokens of the query input.
        passage_max_len: tokens of the passage input.
        title: whether a passage input is title and text.
        missing_title: what stands for a missing title.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    query_max_len: int
    passage_max_len: int
    title: bool
    missing_title: str


class Ranker(BaseModel):
    """What `ranker.json` holds: the configuration, the longest pair, how joined inputs are cut."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal[1] = 1
    config: CrossEncoderConfig
    pair_max_len: int
    joined: JoinedInputs | None = None

    @classmethod
    def read(cls, folder: Path) -> Ranker:
        """Read a ranker's settings from its folder.

        Raises:
            FileNotFoundError: the folder holds no ranker of this project.
            ValueError: the settings are not of a known format.
        """
        path = folder / SETTINGS
        if not path.exists():
            raise FileNotFoundError(f"{path}: not found; {folder} is no ranker of this project")
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as error:
            raise ValueError(f"{path}: {error}") from error


class RankerHead(nn.Module):
    """From a pair's pooled state to class logits [batch, 2] or one logit [batch, 1]."""

    def __init__(self, config: CrossEncoderConfig, width: int, initializer_range: float) -> None:
        super().__init__()
        two_class = config.head == "pooled_two_class"
        self.pooler = nn.Linear(width, width) if two_class else None
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(width, 2 if two_class else 1)
        for layer in (self.pooler, self.classifier):
            if layer is not None:
                nn.init.normal_(layer.weight, std=initializer_range)
                nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits of [batch, width] float32 states."""
        if self.pooler is not None:
            pooled = torch.tanh(self.pooler(pooled))
        return cast(Tensor, self.classifier(self.dropout(pooled)))

    def folded(self) -> list[nn.Linear]:
        """The layers up to one logit, tanh between them, that give P(1) by the sigmoid.

        Softmax over (z0, z1) gives P(1) = sigmoid(z1 - z0): the two rows become their difference.
        """
        if self.pooler is None:
            return [self.classifier]
        weight, bias = self.classifier.weight.detach(), self.classifier.bias.detach()
        # Made on the meta device, where no random weights are drawn for it.
        logit = nn.Linear(self.classifier.in_features, 1, device="meta")
        logit.weight = nn.Parameter(weight[1:] - weight[:1])
        logit.bias = nn.Parameter(bias[1:] - bias[:1])
        return [self.pooler, logit]


class CrossEncoder(nn.Module):
    """A Hugging Face encoder over pairs with a ranking head."""

    def __init__(self, encoder: TextEncoder, config: CrossEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.head: RankerHead | InteractionHead
        if config.head == "interaction":
            self.head = InteractionHead(encoder.width, encoder.layers, config.dropout)
        else:
            self.head = RankerHead(config, encoder.width, encoder.initializer_range)

    @classmethod
    def from_base(cls, folder: Path, config: CrossEncoderConfig) -> CrossEncoder:
        """Start from a base model's folder (or a retriever's tower).

        The tanh layer starts from the base's pooler where it has one. Fresh weights are drawn from
        torch's global generator: seed it first.
        """
        model = cls(TextEncoder.load(folder), config)
        pooler = model.head.pooler if isinstance(model.head, RankerHead) else None
        found = _pooler_weights(folder) if pooler is not None else None
        if pooler is not None and found is not None:
            pooler.load_state_dict(found)
        return model

    @classmethod
    def load(cls, folder: Path) -> CrossEncoder:
        """Load what `save` wrote, in float32, with the head as it was trained."""
        model = cls(TextEncoder.load(folder), Ranker.read(folder).config)
        model.head.load_state_dict(load_file(folder / HEAD))
        return model

    def forward(self, batch: TensorBatch) -> Tensor:
        """One logit a pair: [batch], float32; the probability of relevance is its sigmoid."""
        if isinstance(self.head, InteractionHead):
            return cast(Tensor, self.head(self.encoder, batch))
        logits = self._head(batch)
        if self.head.pooler is None:
            return logits.squeeze(-1)
        return logits[:, 1] - logits[:, 0]

    def class_logits(self, batch: TensorBatch) -> Tensor:
        """Logits [batch, 2] of (not relevant, relevant), float32, of the two-class head.

        Raises:
            TypeError: the head has one logit.
        """
        if self.config.head != "pooled_two_class":
            raise TypeError(f"the head {self.config.head!r} has one logit, not two classes")
        return self._head(batch)

    def _head(self, batch: TensorBatch) -> Tensor:
        pooled = pool(self.encoder(batch), batch.attention_mask, self.pooling)
        # float32 also inside autocast: bfloat16 logits would tie.
        with torch.autocast(pooled.device.type, enabled=False):
            return cast(Tensor, self.head(pooled))

    @property
    def pooling(self) -> Pooling:
        """How the head's input is made of the token states."""
        return "mean" if self.config.head == "mean_logit" else "cls"

    @property
    def pair_layout(self) -> Literal["pair", "joined"]:
        """What its inputs are: one of a token store's pair layouts."""
        return self.config.pair_layout

    def save(
        self,
        folder: Path,
        *,
        tokenizer: Path,
        pair_max_len: int,
        joined: JoinedInputs | None = None,
        card: Card | None = None,
    ) -> None:
        """Write a folder that `load` and sentence-transformers' CrossEncoder read.

        `predict` there returns the probability of relevance. The two-class head is folded into a
        one-label `AutoModelForSequenceClassification` where transformers' classifier of that class
        computes the same; all else is written as Transformer + Pooling + Dense, since transformers'
        classifiers put a layer with an activation before their last one. The interaction head
        needs this package there: see `pipeline.models.joined_pairs`. What stands between title and
        text there is on the card: see `pipeline.models.title_break`.

        Args:
            folder: where; created.
            tokenizer: folder of the tokenizer the model was trained with.
            pair_max_len: longest pair in tokens, special tokens included.
            joined: how the inputs of the interaction head are cut.
            card: for README.md.
        """
        folder.mkdir(parents=True, exist_ok=True)
        names = _CLASSIFIER_LAYERS.get(self.encoder.model.config.model_type)
        if isinstance(self.head, InteractionHead):
            if joined is None:
                raise ValueError(
                    "the interaction head is saved with how its inputs are cut: joined"
                )
            pair_max_len = joined.query_max_len + joined.passage_max_len
            layout.write_tower(folder, self.encoder, tokenizer, pair_max_len)
            layout.write_joined_module(folder)
        elif self.head.pooler is not None and names is not None:
            _save_classifier(folder, self.encoder.model, names, self.head.folded())
            layout.export_tokenizer(tokenizer, folder, self.encoder, pair_max_len)
        else:
            layout.write_tower(folder, self.encoder, tokenizer, pair_max_len)
            layout.write_ranker_modules(
                folder, self.encoder.width, self.pooling, self.head.folded()
            )
        head = {name: value.cpu().contiguous() for name, value in self.head.state_dict().items()}
        save_file(head, folder / HEAD, metadata={"format": "pt"})
        settings = Ranker(config=self.config, pair_max_len=pair_max_len, joined=joined)
        layout.write_json(folder / SETTINGS, settings.model_dump())
        card = card or Card("Re-ranker")
        if self.pair_layout == "joined":
            card.write(folder, "joined_ranker")
        else:
            card.write(folder, "ranker", write_separator(folder))


def _pooler_weights(folder: Path) -> dict[str, Tensor] | None:
    """Weight and bias of the pooler in a checkpoint's files, whatever prefix they carry."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        if path.name == HEAD:
            continue
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - the handle is no mapping
                for part in ("weight", "bias"):
                    if name.endswith(f"pooler.dense.{part}"):
                        found[part] = tensors.get_tensor(name).float()
    return found if len(found) == 2 else None


def _save_classifier(
    folder: Path, encoder: Any, names: tuple[str, str], layers: list[nn.Linear]
) -> None:
    """Write a one-label sequence classifier: the encoder's weights and two layers as `names`."""
    known = encoder.config.to_dict()
    for labels in ("id2label", "label2id"):
        known.pop(labels, None)
    config = type(encoder.config)(**known, num_labels=1)
    config.sentence_transformers = {"activation_fn": "torch.nn.modules.activation.Sigmoid"}
    # On the meta device nothing is drawn: saving leaves the random state of training alone.
    with torch.device("meta"):
        classifier = AutoModelForSequenceClassification.from_config(config)
    prefix = classifier.base_model_prefix
    state = {f"{prefix}.{name}": value for name, value in encoder.state_dict().items()}
    for name, layer in zip(names, layers, strict=True):
        state |= {f"{name}.{part}": value for part, value in layer.state_dict().items()}
    classifier.load_state_dict(
        {name: value.detach().cpu() for name, value in state.items()}, strict=True, assign=True
    )
    with quiet():
        classifier.save_pretrained(folder)
