"""What the README shows runs as it stands there."""

import re
from pathlib import Path

from dueto.app.gateway import Gateway
from dueto.app.settings import load_settings
from dueto.sim import Caller, Line, Switch

ROOT = Path(__file__).parents[2]
SECRET = "0123456789abcdef0123456789abcdef"


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


async def test_the_readmes_agent_echoes_and_hangs_up_on_pound() -> None:
    names: dict[str, object] = {}
    exec(python_blocks("README.md")[0], names)
    settings = load_settings(
        None,
        {
            "control": {"listen": "127.0.0.1:0"},
            "media": {"listen": "127.0.0.1:0", "secret": SECRET, "dialect": "audio_stream-binary"},
            "metrics": {"listen": ""},
        },
        {},
    )
    async with Gateway(settings, agent=names["echo_until_pound"]) as gateway:  # type: ignore[arg-type]
        url = f"ws://127.0.0.1:{gateway.media_port}/stream/{{secretary}}/{{uuid}}/{{caller}}?token={{token}}"

        async def script(line: Line) -> None:
            await line.say(b"\x00\x20\x00\xe0" * 2000)
            await line.hears_speech(5)
            await line.press("#")
            await line.until_hangup()

        async with Switch(f"127.0.0.1:{gateway.control_port}", url, secret=SECRET) as switch:
            call = await switch.place(Caller(script=script))
            await call.done()
    assert call.hangup_cause == "NORMAL_CLEARING"
    assert not any(happening.leg == "caller" and happening.name == "hangup" for happening in call.events)


def test_every_python_block_of_the_documentation_compiles() -> None:
    pages = ["README.md", *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
    blocks = [(page, block) for page in pages for block in python_blocks(page)]
    assert len(blocks) >= 2
    for page, block in blocks:
        compile(block, page, "exec", flags=0x2000)  # PyCF_ALLOW_TOP_LEVEL_AWAIT: snippets may await


def test_every_link_of_the_documentation_leads_somewhere() -> None:
    missing = []
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            if not (page.parent / target).exists():
                missing.append(f"{page.relative_to(ROOT)}: {target}")
    assert not missing
