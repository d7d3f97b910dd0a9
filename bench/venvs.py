"""Where the peers live: a virtual environment each, made once, so that none of them has a say in what we install."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
VENVS = HERE / ".venvs"
PACKAGES: dict[str, tuple[str, ...]] = {
    "greenswitch": ("greenswitch==0.0.19", "gevent"),
    "genesis": ("genesis",),
    "pipecat": ("pipecat-ai[websocket]", "uvicorn", "uvloop"),
    "websockets": ("websockets", "uvloop", "greenswitch==0.0.19", "gevent", "soxr", "numpy"),
    "tools": ("matplotlib", "py-spy"),
}
"What each holds; `tools` is for the plot and the profiles."


def python(name: str) -> str:
    """Return the interpreter of an environment, made where it is missing; `dueto` is the one we run in.

    Raises: subprocess.CalledProcessError: pip could not install it; its own words are on stderr.
    """
    if name == "dueto":
        return sys.executable
    home = VENVS / name
    if not (home / "complete").exists():
        print(f"installing {', '.join(PACKAGES[name])} into {home.relative_to(HERE.parent)} (once)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        pip = [home / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES[name]]
        subprocess.run(pip, check=True)
        (home / "complete").touch()
    return str(home / "bin" / "python")


def versions() -> dict[str, str]:
    """Return the version of each peer that is installed."""
    found = {}
    for name in ("greenswitch", "genesis", "pipecat", "websockets"):
        package = PACKAGES[name][0].partition("=")[0].partition("[")[0]
        for info in (VENVS / name).glob(f"lib/*/site-packages/{package.replace('-', '_')}-*.dist-info"):
            found[package] = info.name.removesuffix(".dist-info").rpartition("-")[2]
    return found
