"""Wording that tells of an emergency: then the answer begins with the advice to call help, and nothing else may hold that up.

Patterns and not a model, so that everybody can read what is caught. A danger sign counts where somebody tells what is going on; asking what
a heart attack is, or telling of one ten years ago, is no emergency. Where it is unclear the advice is given: it costs little. Measured on
`data/emergencies.csv`; its figures are in the README. It will miss some: the README says that too.
"""

import re
from typing import Final

ADVICE: Final = (
    "This may be an emergency. Call your emergency number now (112 in Europe, 911 in North America, 999 in the United Kingdom). "
    "If you may harm yourself, you can also call 988 in the United States or 116 123 in the United Kingdom and Ireland. "
    "I am a program and cannot help with this."
)

_CERTAIN: Final = re.compile(
    r"""
    \b(?:kill|hurt|harm)(?:ing)?\ (?:myself|himself|herself|themsel\w+)\b | \bend(?:ing)?\ (?:my|his|her|their)\ (?:own\ )?life\b
    | \b(?:don'?t|doesn'?t|not)\ want\ to\ (?:live|be\ alive)\b | \bsuicidal\b(?!\ (?:ideation|risk|thoughts\ in))
    | \b(?:not|n't|stopped|isn'?t)\ (?:\w+\ )?breath(?:e|ing)\b | \bno\ pulse\b | \bgasping\b | \bchoking\ on\b
    | \b(?:won'?t|can'?t|cannot|not|n't|isn'?t)\ (?:\w+\ ){0,2}(?:wak(?:e|ing)|respond(?:ing)?|stop\ bleeding)\b
    | \b(?:unresponsive|unconscious|barely\ conscious|limp\ and)\b
    | \b(?:has|have|had|was|been|is|got|were)\ (?:just\ |been\ )?(?:collapsed|stabbed|shot|electrocuted)\b
    | \b(?:he|she|they|dad|mum|mom|father|mother|wife|husband|baby)\ (?:just\ |has\ )?collapsed\b
    | \b(?:turn(?:ed|ing)?|lips\ (?:are|were)|going)\ (?:\w+\ )?blue\b | \bnearly\ drowned\b | \bspurting\b
    | \b(?:took|taken|swallowed|drank|drunk|ate|eaten)\b[^.?!]{0,40}
      \b(?:too\ many|whole\ (?:bottle|pack)|bleach|cleaner|poison|antifreeze|batter(?:y|ies)|pills\ half)\b
    | \boverdosed\b | \b(?:fit|seizure|convulsion)s?\ (?:that\ has\ lasted|for|over)\ [^.?!]{0,15}minutes?\b | \bcarbon\ monoxide\ alarm\b
    | \bblood\ everywhere\b | \bcan'?t\ feel\ (?:his|her|my|their)\ (?:legs?|arms?)\b | \bthunderclap\b | \bworst\ headache\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Nobody writes this of somebody who is well."""

_SIGN: Final = re.compile(
    r"""
    \b(?:crushing|severe|tight\w*|pressure|heavy|pain\w*|band)\b[^.?!]{0,25}\bchest\b
    | \bchest\b[^.?!]{0,15}\b(?:pain\w*|pressure|tight\w*|crush\w*|heavy)\b
    | \bheart\ attack\b | \bstroke\b | \bfac(?:e|ial)\b[^.?!]{0,15}\b(?:droop|numb|paralys)\w* | \bdroop(?:s|ing|ed)?\b
    | \b(?:can'?t|cannot|unable\ to|suddenly\ can'?t)\ (?:speak|talk|move|see|breathe|swallow|get\ (?:my|his|her)\ breath)\b
    | \bslurr(?:ed|ing)\b
    | \bsudden(?:ly)?\b[^.?!]{0,20}\b(?:weak\w*|numb\w*|loss\ of\ (?:vision|speech|sight)|confus\w+|blind\w*)\b
    | \b(?:short\ of\ breath|struggling\ (?:to|for)\ breath\w*|trouble\ breathing|difficulty\ breathing)
    | \b(?:breathing\ is\ noisy|inhaler\ isn'?t\ (?:helping|working))
    | \b(?:throat|tongue|lips?|face)\b[^.?!]{0,15}\bswell\w* | \ballergic\ reaction\b | \banaphyla\w+
    | \b(?:seizures?|fit|fitting|convulsi\w+)\b
    | \b(?:bleeding|blood)\b[^.?!]{0,15}\b(?:heavily|a\ lot|won'?t\ stop)\b | \ba\ lot\ of\ blood\b
    | \b(?:cough|vomit|throw)\w*\ (?:up\ )?(?:\w+\ ){0,3}blood\b | \b(?:black|tarry)\b[^.?!]{0,10}\bstools?\b | \bbleeding\ heavily\b
    | \bstiff\ neck\b[^.?!]{0,30}\b(?:fever|rash)\b | \bfever\b[^.?!]{0,30}\bstiff\ neck\b
    | \brash\b[^.?!]{0,15}\b(?:doesn'?t|not|won'?t)\ fade\b
    | \b(?:passing|passed|passes)\ out\b | \bfaint(?:ed|ing)?\b | \bdelirious\b | \bfever\ of\ 4[1-9]\b
    | \bburn(?:ed|t)\b[^.?!]{0,15}\b(?:whole|face|chest|badly)\b | \boverdose\b | \b(?:car\ crash|car\ accident)\b | \bdeep\ cut\b
    | \b(?:newborn|(?:days?|weeks?)\ old)\b[^.?!]{0,25}\bfever\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""A danger sign: an emergency where it happens to somebody now."""

_NOW: Final = re.compile(
    r"\b(?:I|I'm|I've|im|my|we|he|she|he's|she's|they|baby|child|son|daughter|help|now|right now"
    r"|sudden(?:ly)?|just|since an hour|today|tonight|severe)\b",
    re.IGNORECASE,
)
_GENERAL: Final = re.compile(
    r"^\s*(?:what|which|how|why|when|where|who|is|are|can|could|does|do|did|should|tell me|explain)\b"
    r"(?!.*\b(?:right now|what should I do|he's|she's|I'm having)\b)",
    re.IGNORECASE,
)
_LONG_AGO: Final = re.compile(
    r"\b(?:years?|months?|weeks) ago\b|\bin (?:19|20)\d\d\b|\bas a child\b"
    r"|\blast (?:year|month)\b|\bused to\b|\byesterday but\b|\bhistory of\b",
    re.IGNORECASE,
)


def is_emergency(text: str) -> bool:
    """Whether somebody tells of an emergency."""
    if _CERTAIN.search(text):
        return True
    return any(
        _SIGN.search(part) and _NOW.search(part) and not _GENERAL.match(part) and not _LONG_AGO.search(part)
        for part in re.split(r"(?<=[.?!])\s+", text.strip())
    )
