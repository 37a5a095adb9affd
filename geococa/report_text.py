"""Phrases of the report in English and Spanish, written so that the page can switch between them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html import escape
from typing import Any

__all__ = ["Key", "Phrases"]


_IDENTIFIERS = ("age_correction", "unseen", "historical_mean", "index_threshold", "wilson", "all")

_SYMBOLS = {
    "key.mapped": '<line class="line" x1="1" x2="25" y1="7" y2="7"/><circle class="dot" cx="13" cy="7" r="3.6"/>',
    "key.low_observed": '<circle class="dot hollow" cx="13" cy="7" r="3.6"/>',
    "key.interval": '<rect class="band" x="1" y="2" width="24" height="10"/>'
    '<line class="estimate" x1="1" x2="25" y1="7" y2="7"/>',
    "key.trend": '<path class="wedge" d="M1 12L25 1L25 10L1 14Z"/><line class="trend" x1="1" x2="25" y1="11" y2="4"/>',
    "key.truth": '<path class="truth" d="M13 1.5l5.5 5.5l-5.5 5.5l-5.5 -5.5z"/>',
    "key.reference": '<line class="reference-range" x1="13" x2="13" y1="0" y2="14"/>'
    '<rect class="reference" x="9" y="3" width="8" height="8"/>',
    "key.unobserved": '<rect class="track" x="1" y="4.5" width="24" height="5"/>'
    '<rect class="unseen" x="1" y="4.5" width="10" height="5"/>',
}


class _Markup(str):
    """Text that is HTML already; template engines take it as it is through ``__html__``."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Key:
    """An argument that is itself a phrase, so that it changes with the language."""

    name: str


class Phrases:
    """Phrases by key, in the language the page opens in.

    Every phrase is written with its key and arguments as data attributes, from which the page's script writes the
    other language. Arguments are always text: a zone's name can't become markup.

    Parameters
    ----------
    source : str
        JSON: ``{key: [English, Spanish]}``.
    language : {"en", "es"}
        Language the page opens in.

    Examples
    --------
    >>> Phrases('{"hello": ["Hello {name}", "Hola {name}"]}', "es").plain("hello", name="<Ana>")
    'Hola <Ana>'
    """

    def __init__(self, source: str, language: str) -> None:
        # a number and its unit stay on one line
        glued = source.replace(" %", "\u00a0%").replace("} ha", "}\u00a0ha")
        self.table: dict[str, list[str]] = json.loads(glued)
        self.language = language
        self._column = ("en", "es").index(language)
        said = sorted((pair[0], key) for key, pair in self.table.items() if key.startswith("say."))
        self._patterns = [(_pattern(text), key) for text, key in said]
        # the tables name these by their identifiers
        self._patterns += [(re.compile(re.escape(name)), f"say.{name}") for name in _IDENTIFIERS]

    def plain(self, key: str, **args: str | Key) -> str:
        """Phrase as plain text."""
        filled = {name: self.plain(v.name) if isinstance(v, Key) else str(v) for name, v in args.items()}
        return self.table[key][self._column].format(**filled)

    def markup(self, phrase: str, tag: str = "span", css: str = "", **args: str | Key) -> _Markup:
        """Phrase as an element that the page can rewrite in the other language."""
        style = f' class="{css}"' if css else ""
        return _Markup(f'<{tag}{style} data-t="{phrase}"{_data(args)}>{escape(self.plain(phrase, **args))}</{tag}>')

    def label(self, phrase: str, **args: str | Key) -> _Markup:
        """Phrase as an ``aria-label`` attribute that the page can rewrite in the other language."""
        return _Markup(f'aria-label="{escape(self.plain(phrase, **args))}" data-tl="{phrase}"{_data(args)}')

    def class_key(self, name: str) -> str | Key:
        """Name of a class as people read it: a phrase for the usual ones, else the name without underscores."""
        return Key(f"class.{name}") if f"class.{name}" in self.table else str(name).replace("_", " ")

    def class_markup(self, name: str) -> _Markup:
        """Name of a class as an element."""
        args: dict[str, Any] = {"class": self.class_key(name)}
        return self.markup("col.class_only", **args)

    def verdict(self, value: Any) -> _Markup:
        """Verdict of a trend test: a phrase for the usual ones, else the text as given."""
        if value is None or value != value:
            return self.markup("verdict.none")
        key = f"verdict.{str(value).replace('_', ' ')}"
        return self.markup(key) if key in self.table else _Markup(escape(str(value)))

    def said(self, text: str) -> _Markup:
        """A status, note or notice of a table: in both languages where it is one that the tables are known to say."""
        if not text:
            return _Markup("")
        sentences = [text] if self._known(text) else text.split(". ")
        return _Markup("; ".join(self._known(one) or self._unknown(one) for one in sentences))

    def _known(self, text: str) -> _Markup | None:
        for pattern, key in self._patterns:
            found = pattern.fullmatch(text)
            if found:
                args: dict[str, Any] = {name: self._argument(value) for name, value in found.groupdict().items()}
                return self.markup(key, **args)
        return None

    def _argument(self, value: str) -> str | Key:
        """Argument of a known sentence: a phrase where it is one, and a unit that reads the same in both languages."""
        key = f"say.{value.replace(' ', '_')}"
        return Key(key) if key in self.table else value.replace(" ha a year", "\u00a0ha/a")

    def _unknown(self, text: str) -> _Markup:
        """Text of a stage in English: a screen reader must not read it as Spanish."""
        return _Markup(f'<span lang="en">{escape(text)}</span>' if " " in text else escape(text))

    def chart_keys(self, kinds: set[str], with_trend: bool, share: str) -> list[tuple[_Markup, str, dict[str, str]]]:
        """Entries of the legend of the charts: symbol, phrase, arguments; only for what is drawn."""
        entries: list[tuple[bool, str, dict[str, str]]] = [
            (True, "key.mapped", {}),
            (True, "key.low_observed", {"share": share}),
            ("low" in kinds, "key.interval", {}),
            (with_trend, "key.trend", {}),
            ("truth" in kinds, "key.truth", {}),
            ("reference" in kinds, "key.reference", {}),
            (True, "key.unobserved", {}),
        ]
        return [(_Markup(_SYMBOLS[phrase]), phrase, args) for shown, phrase, args in entries if shown]


def _data(args: dict[str, str | Key]) -> str:
    literal = {name: value for name, value in args.items() if not isinstance(value, Key)}
    keys = {name: value.name for name, value in args.items() if isinstance(value, Key)}
    parts = [
        f' {attribute}="{escape(json.dumps(values, ensure_ascii=False, sort_keys=True))}"'
        for attribute, values in (("data-a", literal), ("data-k", keys))
        if values
    ]
    return "".join(parts)


def _pattern(text: str) -> re.Pattern[str]:
    """Expression that a phrase with its placeholders filled in matches."""
    plain = text.replace("\u00a0", " ")
    parts = re.split(r"\{(\w+)\}", plain)
    return re.compile(
        "".join(f"(?P<{part}>(?:(?!\\. ).)+)" if i % 2 else re.escape(part) for i, part in enumerate(parts))
    )
