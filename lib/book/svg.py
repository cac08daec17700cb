"""From a matplotlib figure to small inline SVG that serves the light and the dark theme.

Every colour of a role becomes a CSS variable with the light colour as fallback; text is stored as
outlines, shared by the two layouts (wide, and stacked for narrow screens). Ids carry a hash of the
content, so that several figures can stand in one page. Leaves out: interaction.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from lib.book import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PHONE_WIDTH, PHONE_HEIGHT = 3.5, 2.7  # inches of a panel in the layout for narrow screens
MAX_STACKED = 6  # panels; more than that would make a tower
SCREEN_SCALE = 1.42  # CSS pixels per point at full width: 10 pt becomes 14 px
_RASTER_DPI = 170

_NUMBER = re.compile(r"-?\d*\.?\d+(?:e[-+]?\d+)?")
_TOKEN = re.compile(r"[A-Za-z]|-?\d*\.?\d+(?:e[-+]?\d+)?")
_POINTS = {"M": 1, "L": 1, "Q": 2, "C": 3}  # points after each command of a path
_SHIFT = re.compile(r"translate\(([^ )]+) ([^ )]+)\)")
_TICK = re.compile(r"M[^a-z]*l-?[\d.]+ ?-?[\d.]+")  # one step, so nothing to fill
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_VARIABLES = {role.light: f"var({role.variable}, {role.light})" for role in style.ROLES.values()}


def _short(value: float) -> str:
    """Two decimals, without trailing zeros or a leading one."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    text = re.sub(r"^(-?)0\.", r"\1.", text)
    return "0" if text in ("-0", "-", "") else text


def _join(numbers: Sequence[str]) -> str:
    """Numbers with a blank only where the next has no sign of its own."""
    return "".join(n if i == 0 or n.startswith("-") else f" {n}" for i, n in enumerate(numbers))


def _short_path(d: str) -> str:
    """A path with two decimals and relative steps, about half as long.

    Steps are taken between rounded points, so rounding errors do not add up.
    """
    tokens = _TOKEN.findall(d)
    if not {token for token in tokens if token.isalpha()} <= {*_POINTS, "z", "Z"}:
        return d
    runs: list[tuple[str, list[str]]] = []  # command letter, its numbers
    here = start = (0, 0)  # hundredths
    i, command = 0, "M"
    while i < len(tokens):
        if tokens[i].isalpha():
            command = tokens[i]
            i += 1
        if command in "zZ":
            runs.append(("z", []))
            here, command = start, "M"
            continue
        count = 2 * _POINTS[command]
        ends = [round(100 * float(token)) for token in tokens[i : i + count]]
        i += count
        base = (0, 0) if command == "M" else here
        steps = [_short((v - base[k % 2]) / 100) for k, v in enumerate(ends)]
        letter = "M" if command == "M" else command.lower()
        here = (ends[-2], ends[-1])
        if command == "M":
            start, command = here, "L"
        if runs and runs[-1][0] == letter != "M":
            if set(steps) != {"0"}:  # a step of length 0 still shows a round cap, once
                runs[-1][1].extend(steps)
        else:
            runs.append((letter, steps))
    return "".join(letter + _join(numbers) for letter, numbers in runs)


def _short_transform(text: str) -> str:
    """Round translations; scales stay as they are, since a glyph's is about 0.0016."""
    return re.sub(
        r"translate\(([^)]*)\)",
        lambda m: "translate(" + " ".join(_short(float(x)) for x in _NUMBER.findall(m[1])) + ")",
        text,
    )


def _short_style(text: str) -> str:
    """CSS without blanks, numbers rounded, role colours as variables."""
    rules = []
    for rule in filter(None, (part.strip() for part in text.split(";"))):
        name, value = (part.strip() for part in rule.split(":", 1))
        value = _COLOUR.sub(lambda m: _VARIABLES.get(m[0], m[0]), value)
        if name in ("stroke-width", "stroke-dasharray", "stroke-dashoffset"):
            value = ",".join(_short(float(x)) for x in _NUMBER.findall(value)) or value
        rules.append(f"{name}:{value}")
    return ";".join(rules)


class _Svg:
    """One drawing of a figure, reduced to what a page needs."""

    def __init__(self, fig: Figure) -> None:
        buffer = io.StringIO()
        with style.context():
            fig.savefig(
                buffer,
                format="svg",
                dpi=_RASTER_DPI,
                metadata={key: None for key in ("Date", "Creator", "Format", "Type")},
            )
        self.root = ElementTree.fromstring(buffer.getvalue())
        self._plain_names()
        self.glyphs: dict[str, ElementTree.Element] = {}
        self._clean(self.root)
        self._drop_unused_ids()
        self._slim_markers()
        box = self.root.get("viewBox", "").split()
        self.width, self.height = float(box[2]), float(box[3])

    def _plain_names(self) -> None:
        for node in self.root.iter():
            node.tag = node.tag.split("}")[-1]
            for key in [key for key in node.attrib if "}" in key]:
                node.attrib[key.split("}")[-1]] = node.attrib.pop(key)

    def _clean(self, node: ElementTree.Element) -> None:
        """Drop what isn't drawn, hoist the glyphs, shorten the rest, depth first."""
        node.text = node.tail = None
        children: list[ElementTree.Element] = []
        for child in list(node):
            if child.tag in ("metadata", "style"):
                continue
            self._clean(child)
            if child.tag == "path" and child.get("transform", "").startswith("scale(0.0"):
                self.glyphs[child.get("id", "")] = child
            elif (child.tag == "defs" and not len(child)) or (
                child.tag == "path" and child.get("style") == "fill:none"
            ):
                continue
            elif child.tag == "g" and set(child.attrib) <= {"id"}:
                children += list(child)
            else:
                children.append(child)
        node[:] = children
        for key, shorten in (
            ("d", _short_path),
            ("transform", _short_transform),
            ("style", _short_style),
        ):
            if key in node.attrib:
                node.set(key, shorten(node.attrib[key]))
        if node.tag == "use" and (shift := _SHIFT.fullmatch(node.get("transform", ""))):
            del node.attrib["transform"]
            node.attrib |= {"x": shift[1], "y": shift[2]}
        if node.tag == "use" and _NUMBER.fullmatch(node.get("y", "")) and not float(node.get("y")):
            node.attrib.pop("y")
        for key in ("x", "y", "width", "height"):
            if key in node.attrib and _NUMBER.fullmatch(node.attrib[key]):
                node.set(key, _short(float(node.attrib[key])))

    def _drop_unused_ids(self) -> None:
        used = set()
        for node in self.root.iter():
            for key in ("href", "clip-path"):
                used |= set(re.findall(r"^(?:url\()?#([^)]+)", node.get(key, "")))
        for node in self.root.iter():
            if node.get("id") not in used:
                node.attrib.pop("id", None)

    def _slim_markers(self) -> None:
        """Drop from each use of a marker what the marker says itself, and a tick's filling."""
        markers = {node.get("id"): node for node in self.root.iter("path") if node.get("id")}
        for node in self.root.iter("use"):
            marker = markers.get(node.get("href", "")[1:])
            if marker is None or "style" not in node.attrib:
                continue
            own = {rule.split(":")[0] for rule in marker.get("style", "").split(";")}
            if _TICK.fullmatch(marker.get("d", "")):
                own.add("fill")
            rules = node.attrib.pop("style").split(";")
            if kept := [rule for rule in rules if rule.split(":")[0] not in own]:
                node.set("style", ";".join(kept))

    @property
    def images(self) -> list[ElementTree.Element]:
        return [node for node in self.root.iter("image")]

    def add_dark_images(self, dark: _Svg) -> None:
        """Beside each raster image put its dark twin; CSS variables choose between the two."""
        parents = {child: parent for parent in self.root.iter() for child in parent}
        for light, other in zip(self.images, dark.images, strict=True):
            if light.get("href") == other.get("href"):
                continue
            parent = parents[light]
            twin = ElementTree.Element("image", dict(other.attrib))
            twin.attrib.pop("id", None)
            light.set("style", f"display:var(--book-light-only,inline);{light.get('style', '')}")
            twin.set("style", f"display:var(--book-dark-only,none);{twin.get('style', '')}")
            parent.insert(list(parent).index(light) + 1, twin)

    def recompress_images(self) -> None:
        for node in self.images:
            node.set("href", _webp_uri(node.get("href", "")))

    def text(self, prefix: str, names: dict[str, str], css: str) -> str:
        """Serialised; ids and references are renamed, by `names` or to `prefix` and a number."""
        names = dict(names)

        def renamed(name: str) -> str:
            return names.setdefault(name, f"{prefix}{len(names)}")

        for node in self.root.iter():
            if "id" in node.attrib:
                node.set("id", renamed(node.attrib["id"]))
            if node.get("href", "").startswith("#"):
                node.set("href", "#" + renamed(node.attrib["href"][1:]))
            if "clip-path" in node.attrib:
                node.set("clip-path", f"url(#{renamed(node.attrib['clip-path'][5:-1])})")
        inside = "".join(ElementTree.tostring(child, encoding="unicode") for child in self.root)
        return (
            f'<svg viewBox="0 0 {_short(self.width)} {_short(self.height)}" aria-hidden="true" '
            f'focusable="false" stroke-linejoin="round" stroke-linecap="butt" '
            f'style="{css}">{inside.replace(" />", "/>")}</svg>'
        )


def _webp_uri(png: str) -> str:
    return data_uri(webp(base64.b64decode(png.split(",", 1)[1])), "image/webp")


def webp(png: bytes, *, quality: int = 82) -> bytes:
    """A PNG as WebP: lossless, or lossy where that takes less than half."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png))
    exact, lossy = io.BytesIO(), io.BytesIO()
    picture.save(exact, "WEBP", lossless=True, method=4)
    picture.save(lossy, "WEBP", quality=quality, method=4)
    return min(exact, lossy, key=lambda b: len(b.getvalue()) * (2 if b is lossy else 1)).getvalue()


def data_uri(data: bytes, kind: str) -> str:
    """``data:`` address of some bytes."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _stack(fig: Figure) -> bool:
    """Lay the figure out for a narrow screen: panels below one another, same font size.

    Returns whether that changed anything; what is narrow already, and a wall of many small
    panels, stays as it is.
    """
    placed = [ax for ax in fig.axes if ax.get_subplotspec() is not None]
    grids = {ax.get_subplotspec().get_gridspec() for ax in placed}
    width, height = fig.get_size_inches()
    if width <= PHONE_WIDTH or len(grids) != 1 or len(placed) > MAX_STACKED:
        return False
    if len(placed) == 1:
        fig.set_size_inches(PHONE_WIDTH, max(PHONE_HEIGHT, height * PHONE_WIDTH / width))
        return True
    rows = fig.add_gridspec(len(placed), 1)
    for ax, spec in zip(placed, rows, strict=True):
        ax.set_subplotspec(spec)
        # Shared axes had hidden the inner tick labels.
        ax.xaxis.set_tick_params(which="major", labelbottom=True)
        ax.yaxis.set_tick_params(which="major", labelleft=True)
    fig.set_size_inches(PHONE_WIDTH, PHONE_HEIGHT * len(placed))
    return True


def svg(fig: Figure) -> str:
    """The inline SVGs of a figure (wide, and narrow if that differs) and their glyphs, as HTML.

    Every role's colour is a CSS variable with the light colour as fallback; ids are unique to the
    content of the figure. The figure's layout is that of the narrow one afterwards.
    """
    style.adopt(fig)
    layouts = [_both_themes(fig)]
    if _stack(fig):
        layouts.append(_both_themes(fig))
    key = _key(layouts)
    names: dict[str, str] = {}
    glyphs = ""
    found = {name: node for layout in layouts for name, node in layout.glyphs.items()}
    for name, node in sorted(found.items()):
        names[name] = f"{key}-{len(names)}"
        node.set("id", names[name])
        glyphs += ElementTree.tostring(node, encoding="unicode").replace(" />", "/>")
    hidden = "position:absolute;width:0;height:0;overflow:hidden"
    show = ("display:var(--book-wide,block)", "display:var(--book-narrow,none)")
    if len(layouts) == 1:
        show = ("display:block", "")
    parts = [
        layout.text(f"{key}{letter}", names, f"{visible};{_fit(layout.width)}")
        for layout, letter, visible in zip(layouts, "wn", show, strict=False)
    ]
    return (
        f'<svg aria-hidden="true" focusable="false" style="{hidden}"><defs>{glyphs}</defs></svg>'
        + "".join(parts)
    )


def _key(layouts: Sequence[_Svg]) -> str:
    """A name for a figure made from its content, to begin its ids with."""
    content = b"".join(ElementTree.tostring(layout.root) for layout in layouts)
    return "f" + hashlib.sha256(content).hexdigest()[:8]


def _both_themes(fig: Figure) -> _Svg:
    """One drawing; only raster images need a second one in the dark colours."""
    drawing = _Svg(fig)
    if drawing.images:
        style.recolour(fig, dark=True)
        drawing.add_dark_images(_Svg(fig))
        style.recolour(fig, dark=False)
        drawing.recompress_images()
    return drawing


def _fit(width: float) -> str:
    return f"width:100%;max-width:{width * SCREEN_SCALE:.0f}px;height:auto;margin:0 auto"
