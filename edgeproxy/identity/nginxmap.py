"""Keys from a configuration of nginx: `map $http_x_api_key $client { "key" name; … }`.

A map of another field is one of keys if callers may show their keys there.

The syntax is that of `ngx_conf_file.c` and `ngx_http_map_module`: words with or without quotes,
comments, statements that end in `;` or a block. Blocks around the map are looked into.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from edgeproxy.identity.keyimport import Findings, Foreign, Place

SOURCE = "$http_x_api_key"
_DEEPEST = 10  # files that include one another
_MOST = 1000  # files
_ESCAPED = {"t": "\t", "r": "\r", "n": "\n", '"': '"', "'": "'", "\\": "\\"}

Include = Callable[[str, str], list[tuple[str, str]]]
"""(what `include` names, the file that says so) -> the texts of those files, by name; ValueError
says why they cannot be had."""


def read(text: str, file: str, include: Include, header: str = "") -> Findings:
    """The keys of all maps of `$http_x_api_key`, and of the field `header` that may carry them."""
    found = Findings()
    _Reader(found, include, header).take(text, file)
    return found


class _Malformed(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class _Token(NamedTuple):
    """A word, or one of `;`, `{`, `}` as `sign`."""

    line: int
    text: str
    sign: str = ""


class _Reader:
    def __init__(self, found: Findings, include: Include, header: str) -> None:
        named = "http_" + header.lower().replace("-", "_")
        self._sources = (SOURCE, "${http_x_api_key}", f"${named}", f"${{{named}}}")
        self._found = found
        self._include = include
        self._files = 0
        self._maps = 0
        self._others: list[str] = []

    def take(self, text: str, file: str) -> None:
        self._statements(text, file, inside=False, depth=0)
        if not self._maps and not self._found.problems:
            others = f"; there are maps of {', '.join(self._others)}" if self._others else ""
            named = [each.removeprefix("$http_") for each in self._others if "$http_" in each]
            for name in sorted(named, key=lambda name: "key" not in name)[:1]:
                others += (
                    "; if callers show their keys there, `auth: { api_key: { header: "
                    f"{name.replace('_', '-')} }} }}` says so"
                )
            message = f"there is no `map {SOURCE} $client {{ … }}`{others}"
            self._found.wrong(Place(file, 1), message)
        for key in self._found.keys[:1]:
            self._found.note(
                key.place,
                "nginx compares keys whatever their case, edgeproxy exactly as they stand",
            )

    def _statements(self, text: str, file: str, *, inside: bool, depth: int) -> None:
        """Everything in one file, which is `inside` of the map if that includes it."""
        words: list[_Token] = []
        blocks: list[bool] = []  # those that are open: whether each is a map of keys
        try:
            for token in _tokens(text):
                if not token.sign:
                    words.append(token)
                    continue
                within = blocks[-1] if blocks else inside
                if token.sign == "{":
                    if within:
                        raise _Malformed(token.line, "a map holds no blocks")
                    blocks.append(self._is_map(words))
                elif words and (token.sign == ";" or within):
                    if token.sign == "}":
                        raise _Malformed(words[-1].line, "a `;` is missing")
                    if within:
                        self._entry(words, file, depth)
                if token.sign == "}":
                    if not blocks:
                        raise _Malformed(token.line, "this `}` closes nothing")
                    blocks.pop()
                words = []
            if words or blocks:
                raise _Malformed(text.count("\n") + 1, "the file ends within a statement")
        except _Malformed as error:
            self._found.wrong(Place(file, error.line), f"this is not nginx's syntax: {error}")

    def _is_map(self, words: list[_Token]) -> bool:
        if len(words) != 3 or words[0].text != "map":
            return False
        if words[1].text.lower() in self._sources:
            self._maps += 1
            return True
        self._others.append(words[1].text)
        return False

    def _entry(self, words: list[_Token], file: str, depth: int) -> None:
        place = Place(file, words[0].line)
        texts = [word.text for word in words]
        if texts == ["volatile"]:
            return
        if texts == ["hostnames"]:
            self._found.wrong(place, "`hostnames` makes patterns of the keys; remove it")
        elif len(texts) != 2:
            self._found.wrong(place, 'a line of the map is a key and a name: `"key" name;`')
        elif texts[0] == "include":
            self._included(texts[1], place, depth)
        elif texts[0] in ("default", ""):
            if texts[1] not in ("", "0"):
                self._found.wrong(
                    place,
                    f"this names callers without a key {texts[1]!r}, and edgeproxy lets in none "
                    'of them; `default "";` is right',
                )
        else:
            self._key(texts[0], texts[1], place)

    def _key(self, key: str, name: str, place: Place) -> None:
        if key.startswith("~"):
            self._found.wrong(
                place, "a regular expression lets in more than one key; name each key"
            )
        elif "$" in name:
            self._found.wrong(place, "the name is made of variables; write the name itself")
        elif name in ("", "0"):
            self._found.note(
                place, "this key has no name, so that nginx lets it in as nobody: left out"
            )
        else:
            key = key.removeprefix("\\")  # it says that no special word follows
            self._found.keys.append(Foreign(place, name, key, holder=name))

    def _included(self, name: str, place: Place, depth: int) -> None:
        if depth >= _DEEPEST or self._files >= _MOST:
            self._found.wrong(place, "too many files include one another")
            return
        try:
            files = self._include(name, place.file)
        except ValueError as error:
            self._found.wrong(place, str(error))
            return
        for file, text in files:
            self._files += 1
            self._statements(text, file, inside=True, depth=depth + 1)


def _tokens(text: str) -> Iterator[_Token]:
    at, line = 0, 1
    while at < len(text):
        character = text[at]
        if character == "\n":
            line += 1
            at += 1
        elif character.isspace():
            at += 1
        elif character == "#":
            at = _end_of_line(text, at)
        elif character in ";{}":
            yield _Token(line, "", character)
            at += 1
        else:
            quoted = character in "\"'"
            word, end = _quoted(text, at, line) if quoted else _bare(text, at)
            yield _Token(line, word)
            line += text.count("\n", at, end)
            at = end


def _end_of_line(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _bare(text: str, at: int) -> tuple[str, int]:
    word = []
    while at < len(text) and not text[at].isspace() and text[at] not in ";{":
        piece, at = _piece(text, at)
        word.append(piece)
    if word and word[-1] == "$" and at < len(text) and text[at] == "{":  # ${variable}
        end = text.find("}", at)
        if end > 0:
            return "".join(word) + text[at : end + 1], end + 1
    return "".join(word), at


def _quoted(text: str, at: int, line: int) -> tuple[str, int]:
    quote = text[at]
    word: list[str] = []
    at += 1
    while at < len(text):
        if text[at] == quote:
            if at + 1 < len(text) and not (text[at + 1].isspace() or text[at + 1] in ";{)"):
                raise _Malformed(line, "a space is missing after the quotes")
            return "".join(word), at + 1
        piece, at = _piece(text, at)
        word.append(piece)
    raise _Malformed(line, "the quotes are not closed")


def _piece(text: str, at: int) -> tuple[str, int]:
    """One character, or what a backslash and the next one stand for."""
    if text[at] == "\\" and at + 1 < len(text):
        following = text[at + 1]
        return _ESCAPED.get(following, "\\" + following), at + 2
    return text[at], at + 1
