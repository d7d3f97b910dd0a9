"""Speech without a cloud: an ear, a mouth, and the recognisers behind them."""

from dueto.agents.speech.decoder import Understood
from dueto.agents.speech.detector import DetectorPool
from dueto.agents.speech.ear import SpeechEar
from dueto.agents.speech.endpoint import EndpointRules
from dueto.agents.speech.judge import THRESHOLD
from dueto.agents.speech.mouth import SpeechMouth, installed
from dueto.agents.speech.pool import PoolFigures, RecogniserPool
from dueto.agents.speech.vocabulary import Vocabulary, build_vocabulary

__all__ = [
    "THRESHOLD",
    "DetectorPool",
    "EndpointRules",
    "PoolFigures",
    "RecogniserPool",
    "SpeechEar",
    "SpeechMouth",
    "Understood",
    "Vocabulary",
    "build_vocabulary",
    "installed",
]
