"""Record what the callers of the demo say: `python -m bench.make_demo_callers` (needs flite)."""

import subprocess
from pathlib import Path

import dueto.app

CALLERS = {
    "sales": ("slt", "Sales, please."),
    "support": ("rms", "Could I speak to support, please?"),
    "billing": ("awb", "Billing, please."),
    "hello": ("rms", "Hello, good morning."),
    "pizza": ("awb", "I would like to order a pizza with mushrooms."),
    "yes": ("slt", "Yes, please."),
    "no": ("rms", "No."),
    "goodbye": ("slt", "Thank you, goodbye."),
    "story": (
        "kal16",
        "Well, you see, I bought a lawn mower from you last spring, and my neighbour, who has two dogs, says that",
    ),
}


def main() -> None:
    """Write one WAV a caller: 16 bits, mono, 16 kHz (kal16 too)."""
    folder = Path(dueto.app.__file__).parent / "demo_callers"
    folder.mkdir(exist_ok=True)
    for name, (voice, text) in CALLERS.items():
        subprocess.run(
            ["flite", "-voice", voice, "-t", text, "-o", str(folder / f"{name}.wav")], check=True, timeout=20
        )
        print(f"{name}.wav: {voice} says {text!r}")


if __name__ == "__main__":
    main()
