"""The model with its fast training passes; the same numbers as transformers' own forward."""

from __future__ import annotations

import copy
import math

import torch
from torch.nn import functional
from transformers import LlavaNextForConditionalGeneration, PreTrainedTokenizerFast

from builtin_llava.dialogues import Batch, dialogue_mask
from builtin_llava.model import modality_direction, patch_embeddings
from builtin_llava.tokens import PATCH, TILE

SIDE = TILE // PATCH
EMA_DECAY = 0.99


class Names:
    """All names as bags of words, for the contrast of pictures with names."""

    def __init__(self, names: list[str], tokenizer: PreTrainedTokenizerFast) -> None:
        self.names = sorted(set(names))
        self.index = {name: place for place, name in enumerate(self.names)}
        ids = [tokenizer(name, add_special_tokens=False).input_ids for name in self.names]
        self._flat = torch.tensor([token for row in ids for token in row])
        lengths = torch.tensor([0, *[len(row) for row in ids[:-1]]])
        self._offsets = lengths.cumsum(0)

    def embed(self, weight: torch.Tensor) -> torch.Tensor:
        """Mean word embedding of each name (names, d)."""
        return functional.embedding_bag(self._flat, weight, self._offsets, mode="mean")


class Learner:
    """A model, the names that it contrasts pictures with, and a slow average of its weights."""

    def __init__(self, model: LlavaNextForConditionalGeneration, names: Names) -> None:
        self.model = model
        self.names = names
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(10.0)))
        self.average = copy.deepcopy(model).eval()

    def contrast(self, patches: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of telling each picture's name among all names; patches (b, p, d), labels (b,)."""
        means = patches.float().mean(1) - modality_direction()
        pictures = functional.normalize(means, dim=-1)
        names = functional.normalize(
            self.names.embed(self.model.get_input_embeddings().weight), dim=-1
        )
        logits = self.log_scale.exp().clamp(max=40.0) * pictures @ names.T
        return functional.cross_entropy(logits, labels, label_smoothing=0.05)

    def pack(self, patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """Image tokens (b, t, d) of patches (b, 1 + tiles, p, d), as LLaVA-NeXT orders them.

        First the squeezed picture, then the tiles' patches row by row, a newline after each row.
        """
        count, _, _, width = patches.shape
        grid = patches[:, 1:].reshape(count, rows, columns, SIDE, SIDE, width)
        grid = grid.permute(0, 1, 3, 2, 4, 5).reshape(count, rows * SIDE, columns * SIDE, width)
        newline = self.model.model.image_newline.to(patches.dtype)
        newline = newline.expand(count, rows * SIDE, 1, width)
        return torch.cat([patches[:, 0], torch.cat([grid, newline], 2).flatten(1, 2)], 1)

    def patches(self, tiles: torch.Tensor) -> torch.Tensor:
        """Projected patches (b, n, p, d) of tiles (b, n, 3, 64, 64)."""
        if tiles.shape[1] == 2:  # a picture of one tile: both are the same, compute it once
            return patch_embeddings(self.model, tiles[:, 0])[:, None].expand(-1, 2, -1, -1)
        flat = patch_embeddings(self.model, tiles.flatten(0, 1))
        return flat.unflatten(0, tiles.shape[:2])

    def answers(
        self, image_tokens: torch.Tensor, batch: Batch, prefix: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Losses (m,) and weights (m,) of the text tokens that weigh anything.

        The first token of a question is left out: it would be predicted from another question.
        """
        embedding = self.model.get_input_embeddings()
        count = len(batch.ids_bt)
        start = len(prefix) + image_tokens.shape[1]
        head = embedding(torch.tensor(prefix)).expand(count, -1, -1)
        inputs = torch.cat([head, image_tokens.float(), embedding(batch.ids_bt)], 1)
        positions = torch.cat([torch.arange(start).expand(count, -1), start + batch.place_bt], 1)
        hidden = self.model.model.language_model(
            inputs_embeds=inputs,
            attention_mask=torch.where(dialogue_mask(batch.asked_bt, start), 0.0, -1e9),
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state
        row, column = ((batch.weight_bt > 0) & (batch.place_bt > 0)).nonzero(as_tuple=True)
        logits = self.model.lm_head(hidden[row, start + column - 1])
        losses = functional.cross_entropy(
            logits.float(), batch.ids_bt[row, column], reduction="none"
        )
        return losses, batch.weight_bt[row, column]

    @torch.no_grad()
    def match_norms(self, tiles: torch.Tensor) -> None:
        """Centre the projected patches and scale them to the length of word embeddings.

        Without it they are some forty times as long, and share one large direction. A small one is
        given to all of them, see `modality_direction`.
        """
        patches = patch_embeddings(self.model, tiles)
        embedding = self.model.get_input_embeddings().weight
        last = self.model.model.multi_modal_projector.linear_2
        last.bias -= patches.mean((0, 1))
        lengths = (patches - patches.mean((0, 1))).norm(dim=-1).mean()
        factor = embedding.norm(dim=-1).mean() / lengths
        last.weight *= factor
        last.bias *= factor
        last.bias += modality_direction()

    @torch.no_grad()
    def follow(self) -> None:
        """Move the average towards the weights."""
        slow, fast = list(self.average.parameters()), list(self.model.parameters())
        torch._foreach_lerp_(slow, fast, 1 - EMA_DECAY)
