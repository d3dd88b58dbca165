"""The page: all in one document, and nothing of what workers say can become markup."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.observer.harness import Observer


class Document(HTMLParser):
    """The elements of a page, and the text in its styles and scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline: dict[str, list[str]] = {"style": [], "script": []}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in self.inline:
            self.inline[self._inside].append(data)


def test_it_asks_nobody_else_for_anything(shared: Observer) -> None:
    page = shared.get("/").text
    assert "://" not in page
    for tag, attributes in Document(page).elements:
        assert "src" not in attributes
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        assert tag != "link" or attributes["href"] == "data:,"


def test_its_policy_allows_exactly_its_own_style_and_script(shared: Observer) -> None:
    reply = shared.get("/")
    rules = dict(rule.strip().split(" ", 1) for rule in reply.headers["content-security-policy"].split(";"))
    document = Document(reply.text)
    for kind in ("style", "script"):
        (content,) = document.inline[kind]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"


def test_its_script_makes_no_markup_of_text(shared: Observer) -> None:
    (script,) = Document(shared.get("/").text).inline["script"]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(|DOMParser", script)
    assert "</" not in script


def test_every_state_has_a_colour_in_both_schemes_and_a_symbol(shared: Observer) -> None:
    document = Document(shared.get("/").text)
    (style,), (script,) = document.inline["style"], document.inline["script"]
    for state in ("backoff", "starting", "ready", "draining", "killing"):
        assert re.search(rf"\.{state}\b", style)
        assert re.search(rf'\b{state}: "', script)
    light, dark = re.findall(r":root \{([^}]*)\}", style)
    assert set(re.findall(r"--\w+", light)) == set(re.findall(r"--\w+", dark))


def test_every_element_that_the_script_looks_for_is_there(shared: Observer) -> None:
    document = Document(shared.get("/").text)
    (script,) = document.inline["script"]
    ids = {attributes.get("id") for _, attributes in document.elements}
    wanted = set(re.findall(r'at\("([\w-]+)"\)', script))
    assert len(wanted) > 5
    assert wanted <= ids


def test_it_is_for_phones_and_for_screen_readers(shared: Observer) -> None:
    elements = Document(shared.get("/").text).elements
    assert ("html", {"lang": "en"}) in elements
    assert any(tag == "meta" and attributes.get("name") == "viewport" for tag, attributes in elements)
    assert all(attributes.get("scope") == "col" for tag, attributes in elements if tag == "th")
    assert any(attributes.get("role") == "status" for _, attributes in elements)


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        digits = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
        parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_its_colours_are_readable_on_its_backgrounds(shared: Observer) -> None:
    (style,) = Document(shared.get("/").text).inline["style"]
    schemes = re.findall(r":root \{([^}]*)\}", style)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): #(\w+);", scheme))
        for text in ("text", "soft", "good", "busy", "wait", "bad"):
            for back in ("back", "card"):
                assert contrast(colours[text], colours[back]) >= 4.5, (text, back)
