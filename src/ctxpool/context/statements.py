"""Who and what a text speaks of, and what it says of them: by rules, offline."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

__all__ = ["COMMON_WORDS", "Fact", "Mention", "extract_facts"]


@dataclass(frozen=True, slots=True)
class Mention:
    """Something that a text speaks of.

    Attributes
    ----------
    name : str
        As the text has it.
    kind : str
        ``"name"``, ``"identifier"``, ``"quantity"``, ``"date"``, ``"address"`` (of
        mail or the web), ``"person"``, or what an extractor calls it.
    """

    name: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """What a text says: *subject*, *predicate*, *object*.

    Attributes
    ----------
    subject, predicate, object : str
        Names; a predicate is in snake case, such as ``"lives_in"``.
    confidence : float
        From 0 to 1.
    functional : bool
        There is one object at a time: a new one takes the place of the old one.
    negated : bool
        The text says that it is so no longer.
    """

    subject: str
    predicate: str
    object: str
    confidence: float = 1.0
    functional: bool = False
    negated: bool = False


Found: TypeAlias = Fact | Mention

# --- what is spoken of ---------------------------------------------------------------

_MONTH = "(?:Jan|Feb|Mar|Apr|May|June?|July?|Aug|Sept?|Oct|Nov|Dec)[a-z]*"
_WEEKDAY = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_UNIT = (
    r"%|°C|°F|(?:ns|us|µs|ms|s|sec|seconds?|min|minutes?|h|hours?|days?|weeks?|months?"
    r"|years?|[kKMGT]i?B|bytes?|bits?|tokens?|Hz|kHz|MHz|GHz|mm|cm|m|km|miles?|kg|g|mg"
    r"|EUR|USD|GBP|euros?|dollars?|req/s|MB/s|GB/s|rps|qps|px)\b"
)
# What has none of a name's other signs and yet begins a sentence with a capital.
_WORDS = """
    a about above after again all also although always am an and another any are as
    at be because been before being below both but by can could did do does done during
    each either else even ever every everything few finally find first for from further
    get give go good had has have having he hello help hence her here hers hey hi his
    how however i if in instead into is it its just last later least let like look made
    make many may maybe me meanwhile might mine more most much must my need never next
    no nor not nothing now of off ok okay on once one only or other otherwise our out
    over own perhaps please probably put rather same see set shall she should show since
    so some something sometimes sorry still such sure take tell than thank thanks that
    the their them then there therefore these they thing things this those though
    through thus to today together tomorrow too try under until up upon us use usually
    very was we well were what whatever when where whether which while who whom whose
    why will with within without would yes yesterday yet you your
    yours"""
COMMON_WORDS = frozenset(_WORDS.split())
_SPOKEN_OF = re.compile(
    rf"""
    (?P<address> https?://[^\s<>"')\]]*[^\s<>"')\].,;:!?]
               | (?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+ )
  | (?P<date> \b\d{{4}}-\d\d-\d\d\b
            | \b\d{{1,2}}(?:st|nd|rd|th)?\s+{_MONTH}(?:\s+\d{{4}})?\b
            | \b{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s+\d{{4}})?\b )
  | (?P<quantity> (?<![\w.]) [$€£]?\d+(?:[.,]\d+){{0,4}}\s?(?:{_UNIT})
                | (?<![\w.]) [$€£]\d+(?:[.,]\d+){{0,4}} )
  | (?P<identifier> `[^`\n]{{1,80}}`
        | (?<!\w)(?:~|\.{{1,2}})?/[\w.~-]+(?:/[\w.~-]+)+
        | \b[A-Za-z_]\w*(?:(?:\.|::)[A-Za-z_]\w+)+(?:\(\))?
        | \b[A-Za-z]\w*_\w+\b(?:\(\))? | \b[A-Za-z_]\w+\(\)
        | \b[a-z]+[A-Z]\w*\b | \b[A-Z][a-z0-9]+(?:[A-Z][a-z0-9]+)+\b
        | \b[A-Za-z]+-?\d[\w.-]*\w\b | \b[A-Z]{{2,}}\d*(?:-\d+)?\b )
  | (?P<name> \b[^\W\d_a-z][^\W\d_]+(?:[-'\u2019][^\W\d_]+)*
        (?:\ (?:(?:of|de|van|von|der|la|le|da|di)\ )*[^\W\d_a-z][^\W\d_]*
           (?:[-'\u2019][^\W\d_]+)*)* )
    """,
    re.VERBOSE,
)


def _proper(word: str) -> bool:
    return word[:1].isupper() and word.lower() not in COMMON_WORDS


def _mentions(sentence: str) -> Iterator[Mention]:
    for match in _SPOKEN_OF.finditer(sentence):
        kind = match.lastgroup or ""
        name = match[0].strip("`")
        if kind == "name":
            words = [re.sub(r"['\u2019]s$", "", word) for word in name.split(" ")]
            while words and not _proper(words[0]):
                words.pop(0)
            name = " ".join(words)
        if len(name) > 1:
            yield Mention(name, kind)


# --- what is said --------------------------------------------------------------------

# Verbs of a third person, the predicate that each is, and whether one excludes another.
_VERBS: tuple[tuple[str, str, bool], ...] = (
    (r"(?:lives?|resides?) in|(?:has |have )?moved to", "lives_in", True),
    (r"works? (?:at|for)|(?:has |have )?joined", "works_at", True),
    (r"works? (?:on)", "works_on", False),
    (
        r"(?:is|are|am|was|were) (?:located|based|hosted) (?:in|at|on)",
        "located_in",
        True,
    ),
    (r"(?:is|are|was|were) written in", "written_in", False),
    (
        r"(?:is|are|was|were) (?:created|made|built|written|developed|founded) by",
        "created_by",
        False,
    ),
    (r"(?:is|are|am) called", "name", True),
    (r"(?:is|are|am) married to", "married_to", True),
    (r"(?:is|are|am|was|were) born (?:in|on)", "born", True),
    (r"(?:is|are) owned by|belongs? to", "belongs_to", True),
    (r"(?:is|are) (?:a )?part of", "part_of", False),
    (r"depends? on|relies on|rely on", "depends_on", False),
    (r"(?:runs?|is running|are running) on", "runs_on", False),
    (r"listens? on", "listens_on", True),
    (r"uses?|(?:(?:is|are|am) )?using", "uses", False),
    (r"requires?|needs?", "requires", False),
    (r"supports?", "supports", False),
    (r"(?:likes?|loves?|enjoys?)", "likes", False),
    (r"(?:hates?|dislikes?)", "dislikes", False),
    (r"prefers?", "prefers", False),
    (r"owns?", "owns", False),
    (r"manages?|leads?", "leads", False),
    (r"reports? to", "reports_to", True),
    (r"(?:speaks?)", "speaks", False),
    (r"contains?|includes?", "contains", False),
    (r"replaces?|replaced", "replaces", False),
    (r"costs?", "costs", True),
    (r"means?", "means", False),
    (r"(?:has|have)", "has", False),
    (r"(?:is|are|am|was|were)", "is", False),
)
_TAIL = r"[\w'\u2019.+/@#-]*"
_WORD = rf"[^\W_]{_TAIL}"
_NAME = rf"[^\W\d_a-z]{_TAIL}"
_THING = (  # a subject: what a mention can be, or "the" and one to three words
    rf"(?:`[^`]{{1,80}}`|(?:[Tt]he|[Oo]ur|[Tt]his) {_WORD}(?: {_WORD}){{0,2}}?"
    rf"|{_NAME}(?: {_NAME}){{0,5}}"
    rf"|[a-z]\w*(?:[._/-]\w+)+(?:\(\))?|[A-Za-z_]\w*\(\))"
)
_NOT = r"(?:does|do|is|are|am)(?:n['\u2019]t| not)|no longer|never|not"
_LITTLE = (
    r"(?:(?:any more|now|also|currently|still|really|always|usually|mainly|already|"
    r"just|will|would|only) )*"
)
_VERB = "|".join(f"(?P<v{n}>{verb})" for n, (verb, _, _) in enumerate(_VERBS))
_STATEMENT = re.compile(
    rf"(?P<subject>I|We|[Hh]e|[Ss]he|{_THING}) (?:(?P<no>{_NOT}) )?{_LITTLE}"
    rf"(?:{_VERB}) (?:(?P<not>no longer|not) |(?:now|also|still|currently) )?"
    r"(?P<object>.+)"
)
_IS = r"(?:is|are|was|were|=) (?:now )?"
_OWN = re.compile(  # "my port is 80", "Ada's port is 80"
    rf"(?:(?P<my>[Mm]y|[Oo]ur) |(?P<owner>{_THING})['\u2019]s )"
    rf"(?P<what>[a-z][\w -]{{1,40}}?) {_IS}(?P<object>.+)"
)
_OF = re.compile(  # "the port of the server is 80"
    rf"[Tt]he (?P<what>[a-z][\w-]*(?: [a-z][\w-]*)?) of "
    rf"(?P<owner>(?:the )?{_WORD}(?: {_WORD}){{0,3}}?) {_IS}(?P<object>.+)"
)
_CALL_ME = re.compile(r"[Cc]all me (?P<object>.+)")
_ASSIGNED = re.compile(r"(?P<owner>[A-Za-z_][\w.-]*) ?= ?(?P<object>[^= ].*)")

_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+|;\s+")
_CLAUSE = re.compile(
    r",? (?:but|so) |,? and (?=(?:I|my|our|he|she|it|we|the|they|you)\b)"
    r"|, and |: "
)
_OPENING = re.compile(
    r"(?:(?:actually|well|hi|hello|hey|ok|okay|so|and|but|also|yes|no|btw|by the way|"
    r"fyi|note that|remember(?: that)?|please|however|now|today|yesterday)\b[,:!]? )+",
    re.IGNORECASE,
)
_CONTRACTED = (
    (re.compile(r"\bI['\u2019]m\b"), "I am"),
    (re.compile(r"\b(I|We)['\u2019]ve\b"), r"\1 have"),
    (re.compile(r"\bWe['\u2019]re\b"), "We are"),
    (re.compile(r"\b([Hh]e|[Ss]he)['\u2019]s\b"), r"\1 is"),
)
_OBJECT_ENDS = re.compile(
    r"[,;:!?] |[,;:!?.]+$|\. | [-\u2013\u2014] | \(| (?:because|since|which|who|that|"
    r"when|while|where|if|unless|until|although|though|as well|so|but|instead|"
    r"any ?more|these days|at the moment|now|today|yesterday|last|this)\b"
    rf"| (?:in|on|from|at) (?={_MONTH}\b|\d{{4}}\b|{_WEEKDAY})"
)
_HEDGE = re.compile(
    r"\b(?:maybe|perhaps|might|(?-i:may)|could|probably|possibly|I think|I guess|"
    r"I believe|not sure|apparently|supposedly)\b,? ?",
    re.IGNORECASE,
)
_EMPTY = frozenset(
    ("it", "that", "this", "these", "those", "them", "there", "so", "one")
)
_PLACING = frozenset(
    ("to", "not", "so", "very", "in", "on", "at", "under", "with", "for", "from", "of")
)
_SAID_BY_ME, _SAID, _VAGUE, _HEDGED = 0.95, 0.8, 0.6, 0.5
_LONGEST_CLAUSE, _LONGEST_OBJECT = 400, 80  # what is longer tells a story, no fact


def _object(text: str) -> str:
    ends = _OBJECT_ENDS.search(text)
    kept = (text[: ends.start()] if ends else text).strip(" .\"'`")
    kept = re.sub(r"^(?:a|an|the) ", "", kept, flags=re.IGNORECASE)
    return "" if len(kept) > _LONGEST_OBJECT or kept.lower() in _EMPTY else kept


def _subject(text: str) -> str:
    return re.sub(r"^(?:the|this|our) ", "", text, flags=re.IGNORECASE).strip("`")


def _predicate(text: str) -> str:
    return re.sub(r"[ -]+", "_", text.strip().lower())


def _definite(text: str) -> bool:
    """Whether what something "is" is a thing or a state, and not what it is doing."""
    first, words = text.partition(" ")[0], text.count(" ") + 1
    if first.endswith("ing") or first in _PLACING:
        return False
    return words <= 3 or first in ("a", "an", "the", "my", "our") or not first.islower()


def _said(clause: str, speaker: str, third: str) -> Fact | None:
    """What *clause* says. *third*: whom "he" and "she" stand for."""
    if match := _CALL_ME.match(clause):
        return Fact(speaker, "name", _object(match["object"]), _SAID_BY_ME, True)
    if match := _OWN.match(clause):
        what, mine = _predicate(match["what"]), match["my"] is not None
        owner = speaker if mine else _subject(match["owner"])
        confidence = _SAID_BY_ME if mine else _SAID
        return Fact(owner, what, _object(match["object"]), confidence, True)
    if match := _OF.match(clause):
        owner, what = _subject(match["owner"]), _predicate(match["what"])
        return Fact(owner, what, _object(match["object"]), _SAID, True)
    if match := _ASSIGNED.fullmatch(clause):
        return Fact(match["owner"], "value", _object(match["object"]), _SAID, True)
    if match := _STATEMENT.match(clause):
        return _statement(match, speaker, third)
    return None


def _statement(match: re.Match[str], speaker: str, third: str) -> Fact | None:
    subject, thing, confidence = match["subject"], match["object"], _SAID
    if subject in ("I", "We"):
        subject, confidence = speaker, _SAID_BY_ME
    elif subject.lower() in ("he", "she"):
        subject = third
    elif subject.lower() in COMMON_WORDS:
        return None
    number = next(n for n in range(len(_VERBS)) if match[f"v{n}"] is not None)
    _, predicate, functional = _VERBS[number]
    if predicate == "is":
        if not _definite(thing):
            return None
        confidence = _VAGUE
    elif predicate in ("has", "requires") and re.match(r"(?:to|been)\b", thing):
        return None
    elif predicate == "prefers":
        thing = re.split(" (?:over|to|rather than) ", thing)[0]
    denied = bool(match["no"] or match["not"])
    return Fact(
        _subject(subject), predicate, _object(thing), confidence, functional, denied
    )


def extract_facts(text: str, speaker: str = "user") -> list[Found]:
    """What *text* speaks of, and what it says, by patterns of English.

    Found are names, identifiers, paths, addresses, dates and numbers with units; and
    statements of the kinds "X is Y", "X uses Y", "X lives in Y", "the port of X is Y",
    "X's port is Y", "my name is Y", "I prefer Y", ``X = Y``, each with its denial ("no
    longer uses"). Questions say nothing, hedged statements ("maybe") half as much.
    It knows no grammar: take it for what costs nothing, and a model for the rest.

    Parameters
    ----------
    text : str
    speaker : str
        Whom "I" and "my" stand for.

    Returns
    -------
    list of Mention or Fact
        Mentions first, each name once; in the order of the text.

    Notes
    -----
    O(length of the text), tens of microseconds a sentence. Deterministic.

    Examples
    --------
    >>> for found in extract_facts("I'm called Ada. Maybe nginx.conf uses TLS 1.3?"):
    ...     print(found)
    Mention(name='Ada', kind='name')
    Mention(name='nginx.conf', kind='identifier')
    Mention(name='TLS', kind='identifier')
    Fact(subject='user', predicate='name', object='Ada', confidence=0.95, \
functional=True, negated=False)
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be str, not {text!r}")
    mentions: dict[str, Mention] = {}
    facts: dict[Fact, None] = {}
    third = ""
    for raw in _SENTENCE.split(text):
        sentence = " ".join(raw.strip(" \t*->#").split())
        for mention in _mentions(sentence):
            mentions.setdefault(mention.name.casefold(), mention)
        if sentence.endswith("?"):
            continue
        plain = _HEDGE.sub("", sentence)
        doubt = _HEDGED if plain != sentence else 1.0
        for short, long in _CONTRACTED:
            plain = short.sub(long, plain)
        for clause in _CLAUSE.split(plain):
            if len(clause) > _LONGEST_CLAUSE:
                continue
            opening = _OPENING.match(clause)
            clause = clause[opening.end() :] if opening else clause
            fact = _said(clause, speaker, third)
            if fact is None or not fact.object or not fact.subject:
                continue
            facts[replace(fact, confidence=fact.confidence * doubt)] = None
            if fact.subject != speaker:
                third = fact.subject
            elif fact.predicate != "name":
                third = fact.object
    return [*mentions.values(), *facts]
