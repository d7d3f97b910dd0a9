"""What a configuration must have before several processes may serve with it."""

import sys
from collections.abc import Iterator

from dueto.app.settings import Settings
from dueto.errors import SettingsError


def with_port(url: str, slot: int) -> str:
    """Return `ws://HOST:PORT/...` with the port of a slot. Raises: ValueError: it names no port."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    host, colon, port = authority.rpartition(":")
    if not url:
        return ""
    if not colon:
        raise ValueError(f"{url} names no port")
    return f"{scheme}://{host}:{int(port) + slot}{slash}{path}"


def share_of_ports(ports: tuple[int, int], slot: int, workers: int) -> str:
    """Return the part of `unicast_ports` that is a slot's: there are twice as many slots as workers."""
    first, last = ports
    size = (last - first + 1) // (2 * workers)
    return f"{first + slot * size}-{first + (slot + 1) * size - 1}"


def check_for_workers(settings: Settings, count: int) -> None:
    """Return if several processes may serve with `settings`. Raises: SettingsError: one line per problem."""
    media, problems = settings.media, []
    if sys.platform == "win32":
        problems.append("--workers: passing connections on needs a Unix")
    if count < 1:
        problems.append("--workers: at least 1")
    if media.dialect == "unicast":
        problems += _unicast(settings, max(count, 1))
    elif media.start != "gateway":
        problems.append(
            '--workers: a stream has to reach the process that has its call; write [media] start = "gateway" '
            "and public_url, and each worker starts the streams of its own calls"
        )
    elif media.listen_address.port == 0:
        problems.append("--workers: [media] listen needs a port: the workers use it and the ones above it")
    else:
        try:
            with_port(media.public_url, 0)
        except ValueError:
            port = media.listen_address.port
            problems.append(f"--workers: [media] public_url needs a port (ws://HOST:{port}): each worker adds its own")
    if settings.control.engine != "native":
        problems.append('--workers: [control] engine = "native" only: greenswitch accepts its connections itself')
    if problems:
        raise SettingsError("\n".join(problems))


def _unicast(settings: Settings, count: int) -> Iterator[str]:
    media, calls = settings.media, -(-settings.control.max_calls // count)
    first, last = media.unicast_range
    ports = (last - first + 1) // (2 * count)
    one_machine = media.unicast_switch_address == media.unicast_bind_address
    if ports // (2 if one_machine else 1) < calls:
        needed = 2 * count * calls * (2 if one_machine else 1)
        yield (
            f"--workers: [media] unicast_ports are shared out, twice over for a rolling restart; {count} workers with "
            f"[control] max_calls = {settings.control.max_calls} need {needed} of them"
        )
