"""The state on disk: nothing lost, nothing else accepted."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from raysae.errors import DataError
from raysae.scoring import TopTokens, WeightSettings, read_top_tokens, write_top_tokens
from raysae.scoring.state import TOKEN_FIELDS, top_tokens_from_arrow, top_tokens_to_arrow
from tests.reference.scoring import as_batch
from tests.scoring.random_tokens import D_IN, N_FEATURES, collect, random_tokens
from tests.scoring.test_top_tokens import VARIANTS, assert_same_state


def round_trip(top: TopTokens) -> TopTokens:
    file = io.BytesIO()
    write_top_tokens(top, file)
    file.seek(0)
    return read_top_tokens(file)


@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip_and_merge(variant: WeightSettings) -> None:
    tokens = random_tokens(11)
    half = len(tokens) // 2
    first = round_trip(collect(tokens[:half], variant))
    assert_same_state(first, collect(tokens[:half], variant))
    first.merge(round_trip(collect(tokens[half:], variant)))
    assert_same_state(first, collect(tokens, variant))
    assert first.tokens_s.tolist() == collect(tokens, variant).tokens_s.tolist()


def test_empty_round_trip() -> None:
    top = round_trip(collect([], VARIANTS[0]))
    top.merge(collect(random_tokens(1), VARIANTS[0]))
    assert_same_state(top, collect(random_tokens(1), VARIANTS[0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_kept_to_the_bit(dtype: torch.dtype) -> None:
    tokens = random_tokens(2)
    codes, batch = as_batch(tokens, D_IN, range(8))
    noise = torch.randn(batch.acts_nd.shape, generator=torch.Generator().manual_seed(0))
    top = TopTokens(N_FEATURES, D_IN, VARIANTS[0])
    ordinals = np.array([token.ordinal for token in tokens])
    top.update(codes, replace(batch, acts_nd=noise.to(dtype)), ordinals)
    read = round_trip(top)
    assert read.pool.dtype == dtype
    assert torch.equal(read.pool.acts_pd(), top.pool.acts_pd())


def test_one_row_per_retained_token() -> None:
    tables = top_tokens_to_arrow(collect(random_tokens(4), VARIANTS[0]))
    assert tables.tokens.schema.names == [*(field.name for field in TOKEN_FIELDS), "activation"]
    keys = list(zip(*(tables.tokens[n].to_pylist() for n in ("ordinal", "position")), strict=True))
    assert keys == sorted(set(keys))
    assert all(tables.tokens["features"].to_pylist())


def test_refuses_something_else() -> None:
    tables = top_tokens_to_arrow(collect(random_tokens(4), VARIANTS[0]))
    with pytest.raises(DataError, match="version None"):
        top_tokens_from_arrow(tables._replace(tokens=tables.features))
    file = io.BytesIO()
    write_top_tokens(collect(random_tokens(4), VARIANTS[0]), file)
    for end in (0, 10, 2000, len(file.getvalue()) // 2):
        with pytest.raises(DataError, match="collect them again"):
            read_top_tokens(io.BytesIO(file.getvalue()[:end]))
