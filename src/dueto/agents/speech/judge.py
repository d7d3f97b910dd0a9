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
_BIAS: Final = 3.92709
_WEIGHTS: Final = {
    "keyword_fit": 0.07067,
    "worst_word": 0.03336,
    "worst_margin": 0.04091,
    "alike": 5.98912,
    "squeezed": -4.08006,
    "phones": 1.77841,
}


def confidence(evidence: Evidence) -> float:
    """Return how likely it is, from 0.0 to 1.0, that the keyword was said and not something foreign."""
    logit = _BIAS + sum(weight * getattr(evidence, name) for name, weight in _WEIGHTS.items())
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, logit))))
