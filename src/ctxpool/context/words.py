"""English words that tell of a sentence's weight; elsewhere frequency must do."""

__all__ = ["ABBREVIATIONS", "CUES", "FILLERS", "PHRASES", "SMALL_TALK", "STOP"]


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


STOP = _words(
    """
    a about above after again all also am an and any are as at be because been
    before being below between both but by can could did do does doing down during
    each few for from further get got had has have having he her here hers him his
    how i if in into is it its itself just like me more most my no nor not now of
    off on once only or other our ours out over own same she should so some such
    than that the their theirs them then there these they this those through to too
    under until up us very was we were what when where which while who whom why will
    with would you your yours i'm i've i'll it's we're we've we'll that's there's
    let's don't you're they're one two
    """
)
"""Carry next to nothing."""

FILLERS = _words(
    """
    actually basically literally honestly obviously clearly simply really quite
    pretty perhaps maybe probably hi hello hey thanks thank please sorry welcome
    yeah yep yes ok okay sure great nice cool awesome lol haha hmm um uh well anyway
    btw fyi imo afaik cheers regards morning everyone folks guys stuff thing things
    kind sort bit lot think guess know mean happy glad hope feel
    """
)
"""Make a sentence likely to be small talk."""

CUES = _words(
    """
    decided decision decide agreed action must never always required requires error
    errors fail failed fails failure fatal critical warning warn warned exception
    traceback root cause caused because fix fixed deadline due owner assigned
    blocker blocked blocking breaking deprecated removed rollback rolled increased
    decreased dropped raised limit threshold default timeout important note
    conclusion result results resolved impact migrate deploy deployed launch
    approved rejected budget denied refused exceeded
    """
)
"""Make a sentence likely to say what matters."""

ABBREVIATIONS = _words(
    """
    dr mr mrs ms prof st vs etc al eg ie e.g i.e cf fig figs no nr approx ca inc ltd
    co corp dept est jan feb mar apr jun jul aug sep sept oct nov dec resp incl vol
    pp ed eq sec ch
    """
)
"""After these a full stop ends no sentence."""

SMALL_TALK = _words(
    """
    hi hello hey thanks thank welcome morning cheers regards bye lol haha hahaha hmm um
    uh wow yay worries
    """
)
"""One of these, and for the rest stop words and fillers, and it is no statement."""

PHRASES = tuple(
    """
    as a matter of fact|as we all know|as you can see|as you know|as you may know
    at the end of the day|at this point in time|actually|basically|by the way
    for what it is worth|for what it's worth|honestly|i believe that|i guess
    i have to say|i hope that helps|i just wanted to say that|i just wanted to say
    i mean|i must say|i think that|i think|i was wondering|i would like to say that
    i would like to mention that|i would like to point out that|i'd say|if i may say so
    if you know what i mean|in my opinion|in my humble opinion|in fact
    it goes without saying that|it is important to note that|it is worth noting that
    it should be noted that|just to be clear|kind of|let me just say that|literally
    needless to say|obviously|of course|please note that|pretty much|quite|really
    simply put|so to speak|sort of|thanks in advance|to be fair|to be honest
    to make a long story short|to tell the truth|very|you know|you see
    """.strip()
    .replace("\n", "|")
    .split("|")
)
"""Without them a sentence says the same."""
