"""Nested names in English and Chinese, written and marked by hand for this book.

Some forty sentences in each language. They are no sample of anything: they were written so that
names lie inside names, as in "University of [Oxford]", so they illustrate nesting and test code,
and no score on them says how a model does on real text. English is cut into words and marks,
Chinese into characters. `parse_markup` reads the brackets that the sentences are written with, and
takes a reader's own as well. Left out: names with gaps, kinds other than the five of `KINDS`, and
a split into halves (the sets are too small for one).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lib import _checks as check
from lib.data.ner_files import LabelledSentences

__all__ = ["KINDS", "LANGUAGES", "MarkupError", "authored_entities", "parse_markup"]

KINDS = ("person", "organisation", "place", "work", "time")
LANGUAGES = ("en", "zh")

Spans = frozenset[tuple[int, int, int]]

# "[", a kind and ":" open a span, "]" closes it; a name keeps its apostrophe only inside a word.
_PART = re.compile(r"\[\s*([^\[\]:]*):|(\[)|(\])|([^\[\]]+)")
_WORD = re.compile(r"['’]s\b|\w+(?:[-'’](?!s\b)\w+)*|[^\w\s]")

_ENGLISH = """
[person: Ada Lovelace] wrote her notes on the engine of [person: Charles Babbage] in [time: 1843].
The [organisation: University of [place: Oxford]] is older than any record of its first day.
[organisation: Imperial College [place: London]] stands in [place: South Kensington].
[person: Grace Hopper] joined the [organisation: [place: United States] Navy Reserve] in [time: December [time: 1943]].
Two stone lions guard the [organisation: [place: New York] Public Library] on [place: Fifth Avenue].
[person: Alan Turing] sent [work: On Computable Numbers] to the [organisation: [place: London] Mathematical Society] in [time: May [time: 1936]].
The [organisation: [person: Cavendish] Laboratory of the [organisation: University of [place: Cambridge]]] moved out of the town in [time: the 1970s].
[person: Marie Curie] was the first woman to teach at the [organisation: University of [place: Paris]].
The novel [work: The Hunchback of [place: Notre-Dame]] by [person: Victor Hugo] came out in [time: 1831].
[person: Thomas Mann] sends a young engineer to a sanatorium near [place: Davos] in [work: The Magic Mountain].
[work: Death in [place: Venice]] by the same author is far shorter than [work: The Magic Mountain].
[work: [person: Anna Karenina]] begins with a sentence about families.
[work: The Diary of [person: Samuel Pepys]] tells of [time: September [time: 1666]], when [place: London] burnt.
The [organisation: [place: Vienna] Philharmonic] greets each year with waltzes by [person: Johann Strauss].
[person: Mozart] took the [work: [place: Prague] Symphony] to [place: Prague] in [time: January [time: 1787]].
[person: Haydn] wrote his [work: [place: London] Symphonies] between [time: 1791] and [time: 1795].
[organisation: [person: Johns Hopkins] University] is at home in [place: Baltimore, [place: Maryland]].
The [organisation: [person: Max Planck] Institute for Mathematics] lies in the middle of [place: Bonn].
The [organisation: [place: Massachusetts] Institute of Technology] is not in [place: Boston] but in [place: Cambridge, [place: Massachusetts]].
The [organisation: Bank of [place: England]] was founded in [time: 1694], the [organisation: Bank of [place: Scotland]] a year later.
The [organisation: Royal Observatory, [place: Greenwich]] shows the clocks of [person: John Harrison].
The [place: [person: Victoria] Falls] lie between [place: Zambia] and [place: Zimbabwe].
[place: Lake [person: Victoria]] feeds the [place: White Nile].
The [place: Gulf of [place: Finland]] reaches as far east as [place: Saint Petersburg].
[place: Mount [person: Everest]] was measured again in [time: 2020] by teams from [place: China] and [place: Nepal].
[person: James Clerk Maxwell] was born in [place: [place: India] Street], [place: Edinburgh], on [time: 13 June [time: 1831]].
The [organisation: Royal Society of [place: Edinburgh]] heard a paper of [person: Maxwell]'s when he was fourteen.
[person: Emmy Noether] left the [organisation: University of [place: Göttingen]] for [organisation: [place: Bryn Mawr] College] in [time: 1933].
[person: Kurt Gödel] often walked home from the [organisation: Institute for Advanced Study] with [person: Albert Einstein].
[person: Leonhard Euler] solved the riddle of the [place: bridges of [place: Königsberg]] in [time: the 1730s].
The [organisation: Museum of Modern Art] in [place: New York] keeps [work: The Starry Night] by [person: Vincent van Gogh].
[work: View of [place: Delft]] hangs in [place: The Hague], not in [place: Delft].
[person: Katsushika Hokusai] drew the [work: Thirty-six Views of [place: Mount Fuji]] when he was about seventy.
[work: The Tale of [person: Genji]] was written by [person: Murasaki Shikibu] in what is now [place: Kyoto].
[person: Ludwig Wittgenstein] finished his [work: Tractatus] in [time: the summer of [time: 1918]].
The [organisation: Artificial Intelligence Laboratory of [organisation: [person: Stanford] University]] opened in [time: the 1960s].
The [organisation: Mathematical Laboratory of the [organisation: University of [place: Cambridge]]] ran its first program on [time: 6 May [time: 1949]].
[work: A [place: Connecticut] Yankee in [person: King Arthur]'s Court] sends its hero to [time: the sixth century].
[work: The Adventures of [person: Tom Sawyer]] came out in [time: 1876].
[person: William Shakespeare] set a part of [work: The Two Gentlemen of [place: Verona]] in [place: Milan].
Nobody has yet seen every island of the lake.
A map is worth more than a good memory when it rains.
"""  # noqa: E501

_CHINESE = """
[person:蔡元培]于[time:1917年]出任[organisation:[place:北京]大学]校长。
[organisation:[organisation:[place:北京]大学]数学科学学院]设在[place:燕园]。
[person:鲁迅]的《[work:阿Q正传]》从[time:[time:1921年]12月]起在[place:北京]连载。
[person:老舍]把《[work:骆驼[person:祥子]]》的故事放在[place:北平]。
[organisation:[place:中国]科学院]成立于[time:[time:1949年]11月]。
[organisation:[organisation:[place:中国]科学院]自动化研究所]位于[place:[place:北京]中关村]。
[person:华罗庚]曾任[organisation:[organisation:[place:中国]科学院]数学研究所]所长。
[person:陈省身]晚年回到[place:天津]，在[organisation:[place:南开]大学]创办了数学研究所。
[person:曹雪芹]生前没有写完《[work:红楼梦]》。
《[work:[place:洛阳]伽蓝记]》的作者是[person:杨衒之]。
[person:孟元老]在《[work:[place:东京]梦华录]》里追忆[place:汴梁]。
[person:沈括]晚年在[place:润州]写成《[work:[place:梦溪]笔谈]》。
《[work:清明上河图]》收藏在[organisation:[place:故宫]博物院]。
[organisation:[organisation:[place:上海]博物馆]东馆]在[time:2024年]开放。
[organisation:[place:浙江]图书馆]保存着一部《[work:四库全书]》。
[place:[place:南京][place:长江]大桥]在[time:[time:1968年]底]全线通车。
[place:[place:武汉][place:长江]大桥]比[place:[place:南京][place:长江]大桥]早通车十一年。
[place:[place:黄河]壶口瀑布]位于[place:山西]与[place:陕西]之间。
[person:竺可桢]做过[organisation:[place:浙江]大学]的校长。
[organisation:[place:浙江]大学]在[time:1940年]迁到[place:[place:贵州]湄潭]。
[organisation:[place:西南]联合大学]在[place:昆明]办了八年。
[person:杨振宁]和[person:李政道]都在[organisation:[place:西南]联合大学]读过书。
[person:钱学森]在[organisation:[place:加州]理工学院]跟随[person:冯·卡门]学习。
[person:徐志摩]为[organisation:[place:剑桥]大学]旁边的河写过《[work:再别[place:康桥]]》。
[person:丰子恺]翻译过《[work:[person:源氏]物语]》。
[person:傅雷]翻译了[person:罗曼·罗兰]的《[work:[person:约翰·克利斯朵夫]]》。
[person:朱生豪]译出了[person:莎士比亚]的《[work:[place:威尼斯]商人]》。
[person:李白]在《[work:早发[place:白帝城]]》里一天走完千里。
[person:杜甫]写《[work:登[place:岳阳楼]]》时已经年老多病。
[person:王勃]路过[place:[place:南昌][place:滕王阁]]，留下《[work:[place:滕王阁]序]》。
[organisation:[person:中山]大学]在[place:[place:广州]海珠区]有一个校区。
[place:[place:南京][place:[person:中山]陵]]建在[place:紫金山]的南坡。
[organisation:[place:香港]中文大学]的校园在[place:[place:香港]沙田区]。
[organisation:[place:敦煌]研究院]守护着[place:[place:敦煌]莫高窟]。
[person:常书鸿]是[organisation:国立[place:敦煌]艺术研究所]的第一任所长。
[person:屠呦呦]在[time:[time:2015年]10月]得知自己获奖。
[person:屠呦呦]长期在[organisation:[organisation:[place:中国]中医科学院]中药研究所]工作。
[organisation:[place:北京]天文馆]在[time:1957年]开馆。
[person:詹天佑]主持修建的[place:[place:京][place:张]铁路]在[time:1909年]通车。
[person:白居易]做过[place:杭州]刺史，常去[place:西湖]。
雨停之后，湖面比早晨更安静。
地图旧了，路还是原来的路。
"""


class MarkupError(ValueError):
    """A sentence whose brackets cannot be read."""


def authored_entities(language: str = "en") -> LabelledSentences:
    """The sentences of one language, cut and marked.

    Parameters
    ----------
    language : {"en", "zh"}
        English by words, or Chinese by characters.

    Returns
    -------
    LabelledSentences
        Its kinds are `KINDS`.
    """
    chosen = check.choice(language, "language", LANGUAGES)
    lines = (_ENGLISH if chosen == "en" else _CHINESE).strip().split("\n")
    read = [parse_markup(line, characters=chosen == "zh") for line in lines]
    return LabelledSentences(KINDS, tuple(w for w, _ in read), tuple(s for _, s in read))


def parse_markup(
    text: str, *, kinds: Sequence[str] = KINDS, characters: bool = False
) -> tuple[tuple[str, ...], Spans]:
    """Words and spans of a sentence with brackets around its names.

    Parameters
    ----------
    text : str
        Such as ``"the [organisation: University of [place: Oxford]]"``; square brackets serve for
        nothing else.
    kinds : sequence of str
        A kind's place is its number.
    characters : bool, default=False
        Each character is a word of its own; white space is none.

    Returns
    -------
    words : tuple of str
    spans : frozenset of (kind, start, end)
        The end included, words counted from 0.

    Raises
    ------
    MarkupError
        If a bracket has no partner, an unknown kind or no word inside, or marks a span twice.

    Examples
    --------
    >>> words, spans = parse_markup("the [organisation: University of [place: Oxford]]")
    >>> words
    ('the', 'University', 'of', 'Oxford')
    >>> sorted(spans)
    [(1, 1, 3), (2, 3, 3)]
    """
    if not isinstance(text, str):
        raise TypeError(f"`text` must be a str, got {type(text).__name__}")
    numbers = {kind: i for i, kind in enumerate(kinds)}
    words: list[str] = []
    spans: set[tuple[int, int, int]] = set()
    opened: list[tuple[int, int]] = []
    for kind, opens, closes, plain in _parts(text):
        if plain is not None:
            words += plain.replace(" ", "") if characters else _WORD.findall(plain)
        elif closes:
            if not opened:
                raise MarkupError(f"`text` closes a bracket that was never opened: {text!r}")
            span = (*opened.pop(), len(words) - 1)
            if span[1] == len(words):
                raise MarkupError(f"`text` marks a span without a word: {text!r}")
            if span in spans:
                raise MarkupError(f"`text` marks a span twice: {text!r}")
            spans.add(span)
        elif opens or kind.strip() not in numbers:
            got = "none" if opens else repr(kind.strip())
            raise MarkupError(
                f"`text` must name one of {', '.join(numbers)} after a bracket, got {got}: {text!r}"
            )
        else:
            opened.append((numbers[kind.strip()], len(words)))
    if opened:
        raise MarkupError(f"`text` leaves a bracket open: {text!r}")
    return tuple(words), frozenset(spans)


def _parts(text: str) -> Iterator[tuple[str | None, str | None, str | None, str | None]]:
    """Opening with its kind, opening without one, closing, or plain text; one of the four."""
    for match in _PART.finditer(text):
        yield match.groups()
