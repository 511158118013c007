"""How large a page's tree would be, from one pass over its bytes, before anything parses it.

A parser of HTML is compiled code that nothing can interrupt, and some of its steps are quadratic in how deeply
elements nest or in how many attributes a tag has. The scan follows the HTML standard's tree builder as far as it
bears on what is open; `tests/text/test_text_extract.py` holds it to a real parser's tree on tag soup. It is no proof:
a page built against a rule that is missing here could still keep the parser busy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rein.compiled import compiled

TOO_MANY_TAGS, TOO_DEEP, TOO_MANY_ATTRIBUTES = (
    "page has too many tags",
    "page nests too deep",
    "page has too many attributes",
)
_REASONS = (None, TOO_MANY_TAGS, TOO_DEEP, TOO_MANY_ATTRIBUTES)
_FINE, _TAGS, _DEPTH, _ATTRIBUTES = range(len(_REASONS))

# How the HTML standard's tree builder treats an element, as far as it bears on what is open.
_VOID = 1  # has no content
_RAW = 2  # its content is no markup
_SCOPE = 4  # an end tag inside does not close what is outside
_SPECIAL = 8  # an end tag of an ordinary element does not reach across it
_FORMAT = 16  # left open, it is opened again in the next block
_SINGLE = 32  # its start tag closes an open one of its name
_PART = 64  # of a table: only the table bounds how far its tags reach
_ROOT = 128  # later ones only add attributes to the first
_FOREIGN = 256  # SVG and MathML, where nothing is raw and a slash closes
_LIST = 512  # bounds how far `_SINGLE` reaches
_MARKER = 1024  # formatting elements left open inside are not opened again outside
_HTML = 4096  # HTML again inside SVG
_BREAKS = 8192  # cannot be in SVG, and closes it
_INLINE = 2048  # opens them again, although it is `_SPECIAL`

_KINDS: dict[str, int] = {}
for _flags, _names in (
    (_VOID, "area base br col embed hr img input keygen link meta param source track wbr basefont bgsound frame"),
    (_RAW, "script style textarea title xmp iframe noembed noframes plaintext"),
    (_SCOPE, "applet caption html table td th marquee object template button select foreignobject desc"),
    (
        _SPECIAL,
        "address applet article aside blockquote body button caption center colgroup dd details dir div dl dt fieldset "
        "figcaption figure footer form frameset h1 h2 h3 h4 h5 h6 head header hgroup html iframe li listing main "
        "marquee menu nav noembed noframes noscript object ol p plaintext pre script search section select style "
        "summary table tbody td template textarea tfoot th thead title tr ul xmp foreignobject desc",
    ),
    (_FORMAT, "a b big code em font i nobr s small strike strong tt u"),
    (_SINGLE, "p li dt dd option optgroup rb rt rtc rp a nobr button td th tr tbody thead tfoot caption colgroup"),
    (_PART, "table tbody thead tfoot tr td th caption colgroup"),
    (_ROOT, "html body"),
    (_FOREIGN, "svg math"),
    (_INLINE, "applet button marquee object select xmp"),
    (_HTML, "foreignobject desc"),
    (
        _BREAKS,
        "b big blockquote body br center code dd div dl dt em embed h1 h2 h3 h4 h5 h6 head hr i img li listing menu "
        "meta nobr ol p pre ruby s small span strong strike sub sup table tt u ul var",
    ),
    (_MARKER, "applet object marquee template td th caption"),
    (_LIST, "ul ol dl menu dir select ruby"),
):
    for _element in _names.split():
        _KINDS[_element] = _KINDS.get(_element, 0) | _flags


def _name_hash(name: str) -> int:
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


_SORTED = sorted((_name_hash(name), kind) for name, kind in _KINDS.items())
_HASHES = np.array([value for value, _ in _SORTED], dtype=np.uint64)
_FLAGS = np.array([kind for _, kind in _SORTED], dtype=np.int64)
_SCRIPT = np.uint64(_name_hash("script"))
_P, _LI = np.uint64(_name_hash("p")), np.uint64(_name_hash("li"))
_SELECT = np.uint64(_name_hash("select"))
_DT, _DD = np.uint64(_name_hash("dt")), np.uint64(_name_hash("dd"))
_TABLE = np.uint64(_name_hash("table"))
_TEMPLATE = np.uint64(_name_hash("template"))


def measure(page: bytes, max_depth: int, max_tags: int, max_attributes: int) -> str | None:
    """Which of the limits a page breaks, or None.

    Example  >>> measure(b"<p>One<p>Two", 10, 10, 10), measure(b"<i>" * 11, 10, 99, 10)
             (None, 'page nests too deep')
    """
    return _REASONS[_scan(np.frombuffer(page, dtype=np.uint8), max_depth, max_tags, max_attributes)]


@compiled()
def _space(byte: int) -> bool:
    return byte == 32 or (9 <= byte <= 13 and byte != 11)


@compiled()
def _letter(byte: int) -> bool:
    return 97 <= (byte | 32) <= 122


@compiled()
def _name(page: npt.NDArray[np.uint8], at: int) -> tuple[np.uint64, int]:
    """The hash of the tag name that begins at `at`, in lower case, and where it ends."""
    value = np.uint64(0xCBF29CE484222325)
    while at < len(page) and not _space(page[at]) and page[at] != 47 and page[at] != 62:
        byte = page[at]
        if 65 <= byte <= 90:
            byte = byte | np.uint8(32)
        value = (value ^ np.uint64(byte)) * np.uint64(0x100000001B3)
        at += 1
    return value, at


@compiled()
def _after_comment(page: npt.NDArray[np.uint8], at: int) -> int:
    """Where a comment ends whose "<!--" is before `at`."""
    n = len(page)
    if at < n and page[at] == 62:
        return at + 1
    if at + 1 < n and page[at] == 45 and page[at + 1] == 62:
        return at + 2
    while at + 2 < n:
        if page[at] == 45 and page[at + 1] == 45:
            if page[at + 2] == 62:
                return at + 3
            if page[at + 2] == 33 and at + 3 < n and page[at + 3] == 62:
                return at + 4
        at += 1
    return n


@compiled()
def _after_attributes(page: npt.NDArray[np.uint8], at: int) -> tuple[int, int, bool]:
    """Where the tag ends whose name ends at `at`, how many attributes it has, and whether a slash closes it."""
    n, count, slash = len(page), 0, False
    while at < n:
        byte = page[at]
        if byte == 62:
            return at + 1, count, slash
        if byte == 47 or _space(byte):
            slash = byte == 47
            at += 1
            continue
        count, slash = count + 1, False
        at += 1
        while at < n and page[at] != 61 and page[at] != 62 and page[at] != 47 and not _space(page[at]):
            at += 1
        while at < n and _space(page[at]):
            at += 1
        if at >= n or page[at] != 61:
            continue
        at += 1
        while at < n and _space(page[at]):
            at += 1
        if at < n and (page[at] == 34 or page[at] == 39):
            quote = page[at]
            at += 1
            while at < n and page[at] != quote:
                at += 1
            at += 1
        else:
            while at < n and page[at] != 62 and not _space(page[at]):
                at += 1
    return n, count, slash


@compiled()
def _end_of_raw(page: npt.NDArray[np.uint8], at: int, name: np.uint64) -> int:
    """Where the end tag of a raw element begins; in scripts, "<!-- <script" hides one."""
    n, escaped, twice = len(page), False, False
    while at < n:
        if page[at] == 45 and escaped and at + 2 < n and page[at + 1] == 45 and page[at + 2] == 62:
            escaped = twice = False
        elif page[at] == 60 and at + 1 < n:
            if page[at + 1] == 47:
                found, _ = _name(page, at + 2)
                if found == name:
                    if not twice:
                        return at
                    twice = False
            elif name == _SCRIPT:
                if page[at + 1] == 33 and at + 3 < n and page[at + 2] == 45 and page[at + 3] == 45:
                    escaped = True
                    at += 2  # its dashes may already be those of "-->"
                    continue
                elif escaped and (page[at + 1] | 32) == 115:
                    found, _ = _name(page, at + 1)
                    twice = twice or found == name
        at += 1
    return n


@compiled()
def _reopen(
    names: npt.NDArray[np.uint64],
    kinds: npt.NDArray[np.int64],
    bare: npt.NDArray[np.bool_],
    ghosts_before: npt.NDArray[np.int64],
    depth: int,
    ghost_names: npt.NDArray[np.uint64],
    ghost_bare: npt.NDArray[np.bool_],
    ghosts: int,
) -> None:
    """Puts the formatting elements that were left open on the stack again."""
    for k in range(ghosts):
        names[depth + k], kinds[depth + k], bare[depth + k] = ghost_names[k], _FORMAT, ghost_bare[k]
        ghosts_before[depth + k] = 0


@compiled()
def _scan(page: npt.NDArray[np.uint8], max_depth: int, max_tags: int, max_attributes: int) -> int:
    """Follows the tags of a page as a tree builder would, with a stack of names in place of a tree.

    In doubt an element is not taken for closed. It is no proof: the standard has more rules than these, and a page
    made to exploit the difference can nest deeper than it is found to. Formatting
    elements that were left open in a block are kept as `ghosts`; the next text or inline element opens them again.
    """
    n = len(page)
    names = np.empty(max_depth + 1, dtype=np.uint64)
    kinds = np.empty(max_depth + 1, dtype=np.int64)
    bare = np.empty(max_depth + 1, dtype=np.bool_)  # without attributes
    ghosts_before = np.empty(max_depth + 1, dtype=np.int64)
    foreign_before = np.zeros(max_depth + 1, dtype=np.bool_)  # whether it was opened in SVG
    foreign = False
    ghost_names = np.empty(max_depth + 1, dtype=np.uint64)
    ghost_bare = np.empty(max_depth + 1, dtype=np.bool_)
    depth = ghosts = tags = root_attributes = at = last_end = 0
    while at < n:
        if page[at] != 60:
            at += 1
            continue
        has_text = at > last_end
        at += 1
        if at >= n:
            break
        closing = page[at] == 47
        if closing:
            at += 1
        if at >= n or not _letter(page[at]):
            if not closing and at + 2 < n and page[at] == 33 and page[at + 1] == 45 and page[at + 2] == 45:
                at = _after_comment(page, at + 3)
            elif closing or (at < n and (page[at] == 33 or page[at] == 63)):
                while at < n and page[at] != 62:  # "<!", "<?" and "</" before anything else: up to ">"
                    at += 1
                at += 1
            if not has_text:
                last_end = at
            continue
        name, at = _name(page, at)
        at, attributes, slash = _after_attributes(page, at)
        last_end = at
        if name == _DT:
            name = _DD  # each closes the other
        place = np.searchsorted(_HASHES, name)
        kind = _FLAGS[place] if place < len(_HASHES) and _HASHES[place] == name else 0
        if attributes > max_attributes:
            return _ATTRIBUTES
        if ghosts and has_text:
            if depth + ghosts > max_depth:
                return _DEPTH
            _reopen(names, kinds, bare, ghosts_before, depth, ghost_names, ghost_bare, ghosts)
            foreign_before[depth : depth + ghosts] = foreign
            depth, tags, ghosts = depth + ghosts, tags + ghosts, 0
        tags += not closing
        if tags > max_tags:
            return _TAGS
        if kind & _ROOT:
            root_attributes += attributes
            if root_attributes > max_attributes:
                return _ATTRIBUTES
            continue

        if foreign and kind & _BREAKS and not closing:
            while foreign:
                depth -= 1
                foreign = foreign_before[depth]
        if name == _SELECT and not closing and not foreign:
            k = depth - 1
            while k >= 0 and not kinds[k] & _SCOPE:
                k -= 1
            closing = k >= 0 and names[k] == _SELECT  # inside another it is that one's end tag

        # The open element that this tag closes.
        top = depth
        if closing or (kind & _SINGLE and not foreign):
            while top > 0 and names[top - 1] != name:
                passed = kinds[top - 1]
                if kind & _PART:
                    stop = names[top - 1] == _TABLE or names[top - 1] == _TEMPLATE
                elif not closing or kind & _RAW or name == _P:
                    stop = (passed & _SPECIAL) != 0 and names[top - 1] != _P
                elif kind & _SPECIAL or kind & _FORMAT:
                    stop = (passed & _SCOPE) != 0
                else:
                    stop = (passed & _SPECIAL) != 0
                if stop or (passed & _LIST and not kind & _PART and (not closing or name == _LI)):
                    break
                top -= 1
            if top == 0 and kind & _PART and not closing:
                continue  # a part of no table
            if top > 0 and names[top - 1] != name:
                top = 0
            if top > 0 and kind & _FORMAT:
                # Only itself: what it holds stays open.
                for k in range(top, depth):
                    names[k - 1], kinds[k - 1], bare[k - 1] = names[k], kinds[k], bare[k]
                    ghosts_before[k - 1], foreign_before[k - 1] = ghosts_before[k], foreign_before[k]
                depth -= 1
            elif top > 0:
                while depth >= top:
                    depth -= 1
                    passed = kinds[depth]
                    if passed & _FORMAT:
                        equal = 0
                        for k in range(ghosts):
                            equal += ghost_bare[k] and bare[depth] and ghost_names[k] == names[depth]
                        if equal < 3:  # more than three equal ones are not opened again
                            if ghosts >= max_depth:
                                return _DEPTH
                            ghost_names[ghosts], ghost_bare[ghosts] = names[depth], bare[depth]
                            ghosts += 1
                    if passed & _MARKER:
                        ghosts = min(ghosts, ghosts_before[depth])
                    foreign = foreign_before[depth]
            elif closing and kind & _FORMAT:
                k = ghosts - 1
                while k >= 0 and ghost_names[k] != name:
                    k -= 1
                if k >= 0:
                    ghost_names[k : ghosts - 1] = ghost_names[k + 1 : ghosts].copy()
                    ghost_bare[k : ghosts - 1] = ghost_bare[k + 1 : ghosts].copy()
                    ghosts -= 1
        if ghosts and not closing and (kind & _INLINE or not kind & _SPECIAL):
            if depth + ghosts > max_depth:
                return _DEPTH
            _reopen(names, kinds, bare, ghosts_before, depth, ghost_names, ghost_bare, ghosts)
            foreign_before[depth : depth + ghosts] = foreign
            depth, tags, ghosts = depth + ghosts, tags + ghosts, 0
        if closing or kind & _VOID or (foreign and slash):
            continue

        if kind & _RAW and not foreign:
            at = _end_of_raw(page, at, name)
            at = last_end = _after_attributes(page, _name(page, at + 2)[1])[0] if at < n else n
            continue
        if depth >= max_depth:
            return _DEPTH
        names[depth], kinds[depth], bare[depth], ghosts_before[depth] = name, kind, attributes == 0, ghosts
        foreign_before[depth] = foreign
        depth += 1
        if kind & (_FOREIGN | _HTML):
            foreign = (kind & _FOREIGN) != 0
    return _FINE
