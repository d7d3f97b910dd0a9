"""The command line: `dueto serve`, `check`, `dial`, `demo`, ... Heavy imports wait until a command needs them."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import dueto
from dueto.errors import SettingsError

if TYPE_CHECKING:
    from dueto.app.settings import Settings

DEFAULT_CONFIG = Path("dueto.toml")
USAGE_ERROR = 2

app = typer.Typer(
    name="dueto",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="The configuration. Without it: `dueto.toml` here, if there is one, else defaults and "
        "`DUETO_...` variables.",
        show_default=False,
    ),
]


def main() -> None:
    """Run the command line. What is wrong with a configuration is said in one sentence per problem; exit code 2."""
    try:
        app(prog_name="dueto")
    except SettingsError as error:
        for problem in str(error).splitlines():
            print(f"dueto: {problem}", file=sys.stderr)
        sys.exit(USAGE_ERROR)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"dueto {dueto.__version__}")
        raise typer.Exit


@app.callback()
def dueto_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A dual-mode voice-AI gateway for FreeSWITCH: Event Socket control and WebSocket media, joined into one call.

    Begin with `dueto demo`: telephone calls on this machine, no switch needed (`--agent echo` runs without any extra).
    """


@app.command(
    epilog="**Example**: `dueto serve --config dueto.toml --agent echo --set media.rate_hz=8000`",
    short_help="Answer calls: run the gateway.",
)
def serve(
    config: Config = None,
    agent: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The NAME of an `[agents.NAME]`, a kind (`echo`, ...) or `module:callable`."),
    ] = None,
    control_listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where the switch's `socket` application connects.")
    ] = None,
    media_listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where the audio module's WebSocket connects.")
    ] = None,
    metrics_listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help='/metrics, /healthz and /readyz; "" for none.')
    ] = None,
    log_format: Annotated[Literal["json", "console"] | None, typer.Option(help="How log lines look.")] = None,
    log_level: Annotated[Literal["debug", "info", "warning", "error"], typer.Option(help="The least to log.")] = "info",
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="So many processes behind one control socket; see `docs/workers.md`."),
    ] = None,
    worker: Annotated[str | None, typer.Option(hidden=True, help="For a worker: where it stands.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any other key of the configuration; repeatable."),
    ] = None,
) -> None:
    """Answer calls until told to stop.

    SIGTERM or SIGINT drains: no new calls, the running ones may finish within `call.drain_s`, the rest goes
    back to the dialplan. A second signal closes at once. With `--workers`, SIGHUP replaces them one by one,
    with the configuration of that moment, and no call is lost.
    """
    from dueto.app.logs import configure_logs
    from dueto.app.serve import enough_files, run_to_the_end
    from dueto.app.serve import serve as serve_until_stopped

    overrides = _overrides(set_ or [])
    for section, key, value in (
        ("agent", "use", agent),
        ("control", "listen", control_listen),
        ("media", "listen", media_listen),
        ("metrics", "listen", metrics_listen),
        ("logs", "format", log_format),
    ):
        if value is not None:
            overrides.setdefault(section, {})[key] = value
    settings = _settings(config, overrides)
    if worker is not None:
        from dueto.app.workers.worker import Post, Worker

        post = Post.parse(worker)
        configure_logs(settings.logs.format, sys.stdout, level=log_level, worker=post.name)
        run_to_the_end(Worker(settings, post).run())
        return
    configure_logs(settings.logs.format, sys.stdout, level=log_level)
    if few := enough_files(settings.control.max_calls):
        import structlog

        structlog.get_logger().warning("few_files", text=few)
    if workers is None:
        run_to_the_end(serve_until_stopped(settings))
    else:
        from dueto.app.workers.supervisor import Supervisor

        command = (sys.executable, "-m", "dueto", *sys.argv[1:])
        run_to_the_end(Supervisor(settings, workers, command).run())


@app.command(
    epilog="**Example**: `dueto demo --out /tmp/calls && xdg-open /tmp/calls/calls.html`",
    short_help="Hear it: eight telephone calls on this machine.",
)
def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where recordings, time lines and calls.html go.")] = Path(
        "demo-out"
    ),
    agent: Annotated[
        Literal["receptionist", "echo"],
        typer.Option(help="Who answers: the offline receptionist, or one that only repeats (needs no extra)."),
    ] = "receptionist",
) -> None:
    """Run eight overlapping telephone calls through the real gateway, on loopback sockets.

    A simulated switch opens both legs of each call. The callers' speech is recorded, what becomes of each call is
    decided by what the agent hears. Ends with code 1 if a call went another way than it should.
    """
    from dueto.app.demo import run_demo

    raise typer.Exit(run_demo(out, agent))


@app.command(
    epilog="**Example**: `dueto simulate --calls 200 --rate 20 --duration 20 --config dueto.toml`",
    short_help="Load a running gateway with simulated calls.",
)
def simulate(
    calls: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many calls.")] = 10,
    rate: Annotated[float, typer.Option(min=0.01, max=1000, help="New calls per second.")] = 5.0,
    duration: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="Seconds until each caller hangs up, once its legs are there.")
    ] = 10.0,
    control: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The gateway's control listener; from the configuration.")
    ] = None,
    media: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Its media listener: `ws://HOST:PORT`, or a whole URL with "
            "`{uuid}`, `{caller}`, `{secretary}` and `{token}`.",
        ),
    ] = None,
    secret: Annotated[
        str | None, typer.Option(metavar="TEXT", help="media.secret of that gateway; better in DUETO_MEDIA__SECRET.")
    ] = None,
    media_only: Annotated[bool, typer.Option("--media-only", help="Calls without a control leg.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    config: Config = None,
) -> None:
    """Place calls from a simulated switch at a gateway that runs already, over real sockets, and judge them.

    With the echo agent (`dueto serve --agent echo`) every frame is followed there and back. Ends with code 0 if
    every call was paired and nothing was lost, 1 if not, 2 if nobody listens, 130 after Ctrl-C.
    """
    from dueto.app.simulate import Load, run_simulate, target_of

    overrides: dict[str, Any] = {"media": {"secret": secret}} if secret is not None else {}
    target = target_of(_settings(config, overrides), control=control, media=media, media_only=media_only)
    raise typer.Exit(run_simulate(target, Load(calls, rate, duration), as_json=json_))


@app.command(
    epilog="**Example**: `dueto dial sofia/gateway/trunk/5511999990000 --caller-id 551130000000 --detect 4`",
    short_help="Place a call, and tell what became of it.",
)
def dial(
    target: Annotated[
        str, typer.Argument(metavar="DIAL", help="A dial string of the switch: `user/1001`, `sofia/gateway/...`.")
    ],
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who talks to whoever answers; from the configuration.")
    ] = None,
    caller_id: Annotated[str, typer.Option(metavar="NUMBER", help="The number that is shown.")] = "",
    caller_name: Annotated[str, typer.Option(metavar="TEXT", help="The name that is shown.")] = "",
    timeout: Annotated[float, typer.Option(min=1, max=600, help="Seconds until it is given up.")] = 60.0,
    detect: Annotated[float, typer.Option(min=0, max=30, help="Seconds to tell person from machine; 0: don't.")] = 0.0,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    config: Config = None,
) -> None:
    """Place one call over the switch's own event socket (`[switch]`) and let an agent talk to whoever answers.

    It may run beside `dueto serve`. Ends with the call: code 0 if it was answered, 1 if not, 2 if it can't be placed,
    130 after Ctrl-C, which hangs up.
    """
    from dueto.app.dial import Wish, beside_a_running_gateway, run_dial
    from dueto.app.logs import configure_logs

    overrides: dict[str, Any] = {"agent": {"use": agent}} if agent is not None else {}
    settings = _settings(config, overrides)
    settings = _settings(config, overrides | beside_a_running_gateway(settings))
    configure_logs(settings.logs.format, sys.stderr, level="warning")
    wish = Wish(target, caller_id, caller_name, timeout, detect)
    raise typer.Exit(run_dial(settings, wish, as_json=json_))


@app.command(
    epilog="**Example**: `dueto dialplan --config dueto.toml > 00_dueto.txt`",
    short_help="Print what the switch needs: the dialplan.",
)
def dialplan(
    config: Config = None,
    media_only: Annotated[bool, typer.Option("--media-only", help="For calls without a control leg.")] = False,
    fusionpbx: Annotated[bool, typer.Option("--fusionpbx", help="Only the rows to type into FusionPBX.")] = False,
    show_secret: Annotated[bool, typer.Option("--show-secret", help="Print media.secret in clear.")] = False,
) -> None:
    """Print the FreeSWITCH dialplan, and its FusionPBX rows, that hand calls to this gateway.

    It is safe when the gateway is away: the call goes on to somebody, or hears why not.
    """
    from dueto.app.dialplan import dialplan_guide, fusionpbx_rows

    settings = _settings(config, {})
    if fusionpbx:
        print(fusionpbx_rows(settings, media_only=media_only), end="")
    else:
        print(dialplan_guide(settings, media_only=media_only, show_secret=show_secret), end="")


@app.command(
    epilog="**Example**: `dueto check --config dueto.toml`", short_help="Check a configuration: who gets which call."
)
def check(config: Config = None) -> None:
    """Read the configuration, build all its agents and tools, and say who gets which call. Opens no door, asks nobody.

    Ends with code 2, and one sentence for each problem, where `dueto serve` would not start.
    """
    from dueto.app.overview import check_overview

    print(check_overview(_settings(config, {})), end="")


@app.command(
    epilog="**Example**: `dueto agents --config dueto.toml`",
    short_help="List the agents: of this configuration, and kinds there are.",
)
def agents(config: Config = None) -> None:
    """List the kinds of agents on this machine, and the agents of the configuration."""
    from dueto.app.overview import agents_overview

    print(agents_overview(_settings(config, {})), end="")


@app.command(
    epilog="**Example**: `dueto tools --agent front --format elevenlabs`",
    short_help="Print the tools that an agent's model can call.",
)
def tools(
    config: Config = None,
    agent: Annotated[
        str, typer.Option(metavar="NAME", help="An `[agents.NAME]`; without it, that of `[agent] use`.")
    ] = "",
    format_: Annotated[
        Literal["json", "elevenlabs"],
        typer.Option("--format", help="As models are told of them, or to be pasted into ElevenLabs, tool by tool."),
    ] = "json",
) -> None:
    """Print the tools that an agent's model can call, with the destinations there are."""
    from dueto.app.overview import tools_listing

    print(tools_listing(_settings(config, {}), agent, format_), end="")


def _settings(config: Path | None, overrides: dict[str, Any]) -> "Settings":
    from dueto.agents.loading import search_beside
    from dueto.app.settings import load_settings

    if config is None and DEFAULT_CONFIG.is_file():
        config = DEFAULT_CONFIG
    if config is not None:
        search_beside(config)
    return load_settings(config, overrides, os.environ)


def _overrides(pairs: list[str]) -> dict[str, Any]:
    """Read `SECTION.KEY=VALUE` (or `destinations.NAME.KEY=VALUE`) into the shape of the file.

    The value is read as TOML, and as plain text where it is none: `8000`, `["10.0.0.0/8"]`, `echo`.
    Raises: SettingsError: no key, or no `=`.
    """
    import tomllib

    tree: dict[str, Any] = {}
    for pair in pairs:
        path, equals, text = pair.partition("=")
        keys = path.split(".")
        if not equals or len(keys) < 2 or not all(keys):
            raise SettingsError(f'--set: expected "SECTION.KEY=VALUE", not "{pair}"')
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        branch: Any = tree
        for key in keys[:-1]:
            branch = branch.setdefault(key, {})
            if not isinstance(branch, dict):
                raise SettingsError(f"--set: {path} is a key below one that has a value already")
        branch[keys[-1]] = value
    return tree
