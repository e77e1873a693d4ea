"""Named drawings read from the raw packages: what they show, which group, where the file is.

Three vendors may be shipped (Noto, Fluent, Openclipart); the fourth (Twitter) is read only to
measure how a model does on drawings that it never saw.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SHIPPED = ("noto", "fluent", "openclipart")
UNSEEN = "twitter"

EMOJI_GROUPS = {
    "Smileys & Emotion": "faces",
    "People & Body": "people",
    "Animals & Nature": "nature",
    "Food & Drink": "food",
    "Travel & Places": "places",
    "Activities": "activities",
    "Objects": "objects",
    "Symbols": "symbols",
    "Flags": "flags",
}
CLIPART_GROUPS = {
    "animals": "nature",
    "plants": "nature",
    "food": "food",
    "people": "people",
    "buildings": "places",
    "geography": "places",
    "transportation": "places",
    "recreation": "activities",
    "signs_and_symbols": "symbols",
    "tools": "objects",
    "office": "objects",
    "education": "objects",
    "electronics": "objects",
    "containers": "objects",
    "computer": "objects",
    "decorations": "objects",
}
# Folders of icon themes, near-duplicates, logos and national emblems: names there say little.
CLIPART_SKIPPED = (
    "computer/icons",
    "computer/buttons",
    "computer/diagrams",
    "signs_and_symbols/flags",
    "signs_and_symbols/map_symbols",
    "geography",
)
# Words that name the artist, the tool or nothing that can be seen.
CLIPART_STOP = frozenset(
    [
        "tux",
        "sexy",
        "various",
        "cliparts",
        "clipart",
        "theme",
        "svg",
        "bw",
        "print",
        "icon",
        "icons",
        "iconset",
        "symbol",
        "symbols",
        "gramastar",
        "di",
        "etiquette",
        "rollandin",
        "architetto",
        "as",
        "art",
        "one",
        "two",
        "new",
        "coloured",
        "colour",
        "stylized",
        "simple",
        "silhouette",
        "france",
    ]
)
CLIPART_PIXELS = 8_000_000
ARTICLE_VOWELS = "aeiou"


@dataclass(frozen=True)
class Drawing:
    """One drawing: `vendor` and `key` identify it, `name` is lowercase words, `path` its file."""

    vendor: str
    key: str
    name: str
    group: str
    subgroup: str
    path: Path

    @property
    def article_name(self) -> str:
        """The name with "a" or "an" in front."""
        return f"{'an' if self.name[0] in ARTICLE_VOWELS else 'a'} {self.name}"


def words_of(text: str) -> list[str]:
    """The lowercase words of `text`; apostrophes vanish, everything else separates."""
    plain = text.lower().replace("’", "").replace("'", "")
    plain = plain.replace("é", "e").replace("ô", "o").replace("ã", "a").replace("ç", "c")
    plain = plain.replace("í", "i").replace("å", "a").replace("ü", "u")
    return re.findall(r"[a-z]+", plain)


def emoji_name(entry: dict) -> str | None:
    """A short readable name of an emoji, or None where it has none (digits, ideographs).

    The official name serves where it has at most three words (flags: six); else the short name.
    """
    longest = 6 if entry["category"] == "Flags" else 3
    for source in (entry["name"] or "", entry["short_name"]):
        words = words_of(source)
        if words and words[-1] in {"sign", "symbol", "mark"}:
            words = words[:-1]
        has_digit = re.search(r"\d", source) is not None
        if 1 <= len(words) <= longest and not has_digit and max(map(len, words)) > 1:
            return " ".join(words)
    return None


def read_emoji(noto_dir: Path) -> list[dict]:
    """The entries of `emoji.json` that are kept, each with `label`, `group` and `subgroup`."""
    entries = json.loads((noto_dir / "emoji.json").read_text(encoding="utf-8"))
    kept = []
    for entry in sorted(entries, key=lambda item: item["unified"]):
        label, group = emoji_name(entry), EMOJI_GROUPS.get(entry["category"])
        if label and group:
            subgroup = entry["subcategory"]
            kept.append({**entry, "label": label, "group": group, "subgroup": subgroup})
    return kept


def emoji_drawings(vendor: str, vendor_dir: Path, noto_dir: Path) -> list[Drawing]:
    """The drawings of one emoji vendor ("noto", "fluent" or "twitter"), named by `noto_dir`."""
    drawings = []
    for entry in read_emoji(noto_dir):
        path = _emoji_path(vendor, vendor_dir, entry)
        if path is not None:
            fields = (entry["label"], entry["group"], entry["subgroup"], path)
            drawings.append(Drawing(vendor, entry["unified"].lower(), *fields))
    return drawings


def _emoji_path(vendor: str, vendor_dir: Path, entry: dict) -> Path | None:
    """The file of an emoji in a vendor's unpacked package, or None where it has none."""
    if vendor == "fluent":
        code = entry["unified"].lower()
        candidates = [vendor_dir / "assets" / f"{code}.webp"]
        candidates.append(vendor_dir / "assets" / f"{code.replace('-fe0f', '')}.webp")
    else:
        folder = "google" if vendor == "noto" else vendor
        candidates = [vendor_dir / "img" / folder / "64" / entry["image"]]
    return next((path for path in candidates if path.exists()), None)


def clipart_drawings(clipart_dir: Path, known_words: set[str]) -> list[Drawing]:
    """Openclipart's public-domain drawings whose titles are one to three known words.

    Known: among `known_words` or in the titles of at least two drawings, which leaves out
    most names of artists and most titles that are not English.
    """
    titled = [
        (path, *_clipart_title(path)) for path in sorted((clipart_dir / "svg").rglob("*.svg"))
    ]
    titles = Counter(title for _, title, _ in titled)
    counts = Counter(word for title in titles for word in title.split())
    known = known_words | {word for word, count in counts.items() if count > 1}
    drawings = []
    for path, title, free in titled:
        relative = path.relative_to(clipart_dir / "svg").with_suffix("")
        png = clipart_dir / "png" / relative.with_suffix(".png")
        group = CLIPART_GROUPS.get(relative.parts[0])
        words = title.split()
        named = 1 <= len(words) <= 3 and set(words) <= known and titles[title] <= 4
        skipped = relative.as_posix().startswith(CLIPART_SKIPPED) or CLIPART_STOP & set(words)
        if group and free and named and not skipped and _is_handy(png):
            subgroup = " ".join(relative.parts[:-1])
            drawings.append(
                Drawing("openclipart", relative.as_posix(), title, group, subgroup, png)
            )
    return drawings


def _is_handy(png: Path) -> bool:
    """Whether the picture exists and has a size that is quickly read; a few have 600 megapixels.

    The header is read by hand, since Pillow refuses to open pictures of that size.
    """
    if not png.exists():
        return False
    with png.open("rb") as file:
        header = file.read(24)
    width, height = (int.from_bytes(header[at : at + 4], "big") for at in (16, 20))
    return width * height <= CLIPART_PIXELS


def _clipart_title(path: Path) -> tuple[str, bool]:
    """Title (lowercase words; "" if odd) of an SVG and whether it says public domain."""
    text = path.read_text(encoding="utf-8", errors="replace")
    title = re.search(r"<dc:title>\s*(.*?)\s*</dc:title>", text, re.DOTALL)
    licences = re.findall(r'license\s+rdf:resource="([^"]+)"', text)
    free = bool(licences) and all("publicdomain" in item.lower() for item in licences)
    plain = title is not None and re.fullmatch(r"[A-Za-z][A-Za-z \-_]{2,30}", title.group(1))
    words = words_of(title.group(1)) if title and plain else []
    return " ".join(word for word in words if len(word) > 1), free


def shipped_drawings(noto_dir: Path, fluent_dir: Path, clipart_dir: Path) -> list[Drawing]:
    """All drawings that may be shipped and trained on, in a fixed order."""
    noto = emoji_drawings("noto", noto_dir, noto_dir)
    fluent = emoji_drawings("fluent", fluent_dir, noto_dir)
    known = {word for drawing in noto for word in drawing.name.split()}
    return noto + fluent + clipart_drawings(clipart_dir, known)


def load_rgba(drawing: Drawing, size: int) -> np.ndarray:
    """The drawing as RGBA uint8 (size, size, 4), aspect kept, centred on transparency."""
    with Image.open(drawing.path) as image:
        rgba = image.convert("RGBA")
    if rgba.getbbox() is not None:
        rgba = rgba.crop(rgba.getbbox())
    scale = size / max(rgba.size)
    fitted = (max(1, round(rgba.width * scale)), max(1, round(rgba.height * scale)))
    # Premultiplied resampling: colours of transparent pixels must not bleed into the edges.
    rgba = rgba.convert("RGBa").resize(fitted, Image.Resampling.LANCZOS).convert("RGBA")
    canvas = Image.new("RGBA", (size, size))
    canvas.paste(rgba, ((size - fitted[0]) // 2, (size - fitted[1]) // 2))
    return np.asarray(canvas)


COLOUR_HUES = (  # upper bound of the hue in degrees, name
    (14, "red"),
    (42, "orange"),
    (68, "yellow"),
    (165, "green"),
    (260, "blue"),
    (290, "purple"),
    (342, "pink"),
    (361, "red"),
)


def main_colour(rgba: np.ndarray) -> str | None:
    """The colour of at least 40 % of a drawing's opaque pixels, or None if there is none."""
    opaque = rgba[rgba[..., 3] > 127][:, :3].astype(np.float32) / 255
    if len(opaque) < 16:
        return None
    high, low = opaque.max(1), opaque.min(1)
    spread = high - low
    hue = _hue_degrees(opaque, high, spread)
    bounds = np.array([bound for bound, _ in COLOUR_HUES])
    names = np.array([name for _, name in COLOUR_HUES], dtype=object)[
        np.searchsorted(bounds, hue, side="right").clip(max=len(bounds) - 1)
    ]
    names[(hue >= 14) & (hue < 42) & (high < 0.7)] = "brown"
    saturation = spread / np.maximum(high, 1e-6)
    grey = saturation < 0.18
    names[grey] = "grey"
    names[grey & (high > 0.85)] = "white"
    names[high < 0.22] = "black"
    colour, count = Counter(names.tolist()).most_common(1)[0]
    return colour if count >= 0.4 * len(opaque) else None


def _hue_degrees(rgb: np.ndarray, high: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """HSV hue in degrees of (n, 3) colours in [0, 1]; 0 for greys."""
    red, green, blue = rgb.T
    safe = np.maximum(spread, 1e-6)
    hue = np.where(
        high == red,
        (green - blue) / safe % 6,
        np.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    return np.where(spread < 1e-6, 0.0, hue * 60)
