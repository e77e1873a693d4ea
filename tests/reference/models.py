"""Slow twins of raysae.models: loops over pixels and patches, one rule at a time."""

from __future__ import annotations

import math

Box = tuple[float, float, float, float]


def best_grid(height: int, width: int, pinpoints: list[list[int]]) -> list[int]:
    """Most pixels kept wins; of those, least canvas wasted; of those, the first."""
    best, best_kept, best_wasted = pinpoints[0], -1, 0
    for grid in pinpoints:
        scale = min(grid[1] / width, grid[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        wasted = grid[0] * grid[1] - kept
        if kept > best_kept or (kept == best_kept and wasted < best_wasted):
            best, best_kept, best_wasted = grid, kept, wasted
    return best


def shown_span(pixel: int, scaled: int, canvas: int) -> tuple[float, float] | None:
    """Which part [from, to] of the image a pixel line of the padded canvas shows; None: padding."""
    left = (canvas - scaled) // 2
    if not left <= pixel < left + scaled:
        return None
    return (pixel - left) / scaled, (pixel - left + 1) / scaled


def lines_of_patches(scaled: int, canvas: int, patch: int) -> list[tuple[float, float]]:
    """Per row (or column) of patches, the part of the image that its pixel lines show."""
    spans = []
    for first in range(0, canvas, patch):
        shown = [shown_span(pixel, scaled, canvas) for pixel in range(first, first + patch)]
        inside = [span for span in shown if span is not None]
        # A line of nothing but padding shrinks to the edge that it lies beyond.
        beyond = (0.0, 0.0) if first < canvas / 2 else (1.0, 1.0)
        spans.append((inside[0][0], inside[-1][1]) if inside else beyond)
    return spans


def drop_padding(spans: list[tuple[float, float]], wanted: float) -> list[tuple[float, float]]:
    """Take a line from both ends while at least two are too many."""
    kept = list(spans)
    while len(kept) - int(round(wanted, 7)) >= 2:
        kept = kept[1:-1]
    return kept


def image_tokens(
    height: int, width: int, pinpoints: list[list[int]], tile: int, patch: int
) -> list[Box | None]:
    """The box of each of an image's tokens; None for a newline."""
    grid_height, grid_width = best_grid(height, width, pinpoints)
    if grid_width / width < grid_height / height:
        scaled_width = grid_width
        scaled_height = min(math.ceil(height * (grid_width / width)), grid_height)
    else:
        scaled_height = grid_height
        scaled_width = min(math.ceil(width * (grid_height / height)), grid_width)
    rows = lines_of_patches(scaled_height, grid_height, patch)
    columns = lines_of_patches(scaled_width, grid_width, patch)
    if width / height > len(columns) / len(rows):
        rows = drop_padding(rows, height * (len(columns) / width))
    else:
        columns = drop_padding(columns, width * (len(rows) / height))

    tokens: list[Box | None] = []
    side = tile // patch
    for row in range(side):
        top, bottom = row / side, (row + 1) / side
        tokens += [(column / side, top, (column + 1) / side, bottom) for column in range(side)]
    for top, bottom in rows:
        tokens += [(left, top, right, bottom) for left, right in columns]
        tokens.append(None)
    return tokens


def square_tokens(
    height: int, width: int, *, edge: int, crop: int, patch: int, padded: bool
) -> list[Box]:
    """The box of each patch of LLaVA-1.5's square, back through crop, scale and padding."""
    canvas_height = canvas_width = max(height, width)
    if not padded:
        canvas_height, canvas_width = height, width
    shorter = min(canvas_height, canvas_width)
    scaled_height = int(edge * canvas_height / shorter)
    scaled_width = int(edge * canvas_width / shorter)

    def image_edge(line: int, scaled: int, canvas: int, length: int) -> float:
        """The part of the image that lies before a pixel line of the square."""
        on_scaled = (scaled - crop) // 2 + line
        on_canvas = on_scaled * canvas / scaled
        on_image = on_canvas - (canvas - length) // 2
        return min(max(on_image / length, 0.0), 1.0)

    tokens = []
    for top in range(0, crop, patch):
        for left in range(0, crop, patch):
            box = (
                image_edge(left, scaled_width, canvas_width, width),
                image_edge(top, scaled_height, canvas_height, height),
                image_edge(left + patch, scaled_width, canvas_width, width),
                image_edge(top + patch, scaled_height, canvas_height, height),
            )
            tokens.append(box)
    return tokens


def padded_and_used(lengths: list[int], batches: list[list[int]]) -> tuple[int, int]:
    """Count the cells of every batch's rectangle, and those that hold a token."""
    padded = used = 0
    for batch in batches:
        width = max(lengths[index] for index in batch)
        for index in batch:
            for column in range(width):
                padded += 1
                used += column < lengths[index]
    return padded, used
