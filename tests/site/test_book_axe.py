"""What axe says of every page of the built book; nearly all of the time is its own."""

from __future__ import annotations

import pytest
from built import AXE, DESKTOP, PAGES, PHONE, at_rest

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LOOKS = {
    "light": {**DESKTOP, "color_scheme": "light"},
    "dark": {**DESKTOP, "color_scheme": "dark"},
    "phone": PHONE,
}
pytestmark = pytest.mark.usefixtures("site_dir")


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(new_strict_page, site_url, name, look):
    if not AXE.is_file():
        pytest.fail(f"{AXE} is missing: `make book` fetches it")
    page = new_strict_page(site_url, **LOOKS[look])
    page.open(name)
    at_rest(page)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(
        "tags => axe.run({preload: false, resultTypes: ['violations'],"
        " runOnly: {type: 'tag', values: tags}}).then(r => r.violations.map(v => v.id + ': ' +"
        " v.nodes.slice(0, 3).map(n => n.html).join(' | ')))",
        TAGS,
    )
    assert found == []
