"""Chinese words are marked as Chinese, so that fonts and screen readers treat them as such."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

# Han characters and what stands between them: their punctuation, quotation marks and latin names,
# but no word in small letters after a space, which is English again
HAN = r"\u2e80-\u2fdf\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
BETWEEN = r"(?:[\u3000-\u303f\uff00-\uffef“”‘’ =+·-]|(?<! )\w|[A-Z0-9])"
RUN = re.compile(f"[“‘《（]?[{HAN}](?:{BETWEEN}*[{HAN}\u3000-\u303f\uff00-\uffef”’])*")
NOT_PROSE = (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw)


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Split a text into parts and say of each whether it is Chinese."""
    end = 0
    for match in RUN.finditer(text):
        yield text[end : match.start()], False
        yield match[0], True
        end = match.end()
    yield text[end:], False


class MarkChinese(SphinxPostTransform):
    """Wrap runs of Chinese in elements with a ``lang`` attribute."""

    default_priority = 900

    def run(self, **kwargs: Any) -> None:
        for text in list(self.document.findall(nodes.Text)):
            parent = text.parent
            if RUN.search(text) and not isinstance(parent, NOT_PROSE):
                # docutils turns this class into the attribute
                marked = [
                    nodes.inline("", part, classes=["language-zh-Hans"])
                    if is_chinese
                    else nodes.Text(part)
                    for part, is_chinese in pieces(text)
                    if part
                ]
                parent.replace(text, marked)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_post_transform(MarkChinese)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
