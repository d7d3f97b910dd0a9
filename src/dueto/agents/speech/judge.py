"""Whether what the grammar answered was really said. The grammar alone finds one of its phrases in anything."""

import math
from typing import Final

from dueto.agents.speech.evidence import Evidence

THRESHOLD: Final = 0.6
"A department is believed from here on; `docs/recognition.md` has the table this was chosen from."
FLOOR: Final = 0.2
"Below, it was more likely something else: the recogniser does not even name it."
HOPELESS_FIT: Final = -110.0
"A phrase whose average frame fits worse than this was never said: no further look is taken."

# A logistic regression, fitted by `python -m bench.recognition --fit`; measured there on other voices and phrases.
_BIAS: Final = 3.92869
_WEIGHTS: Final = {
    "keyword_fit": 0.07068,
    "worst_word": 0.03337,
    "worst_margin": 0.04092,
    "alike": 5.99008,
    "squeezed": -4.08036,
    "phones": 1.77828,
}


def confidence(evidence: Evidence) -> float:
    """Return how likely it is, from 0.0 to 1.0, that the keyword was said and not something foreign."""
    logit = _BIAS + sum(weight * getattr(evidence, name) for name, weight in _WEIGHTS.items())
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, logit))))
