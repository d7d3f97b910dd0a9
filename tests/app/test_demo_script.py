"""`./demo`: what it installs, when, and what it says where something is missing. Its tools are stand-ins."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "demo"
NEEDED = ("bash", "cat", "cksum", "cp", "dirname", "grep", "head", "id", "mkdir", "rm", "timeout")
PYTHON = """#!/usr/bin/env bash
echo "python $*" >>"$NOTES"
case "$1 $2" in
    "-c "*"version_info"*) exit ${PYTHON_FITS:-0} ;;
    "-c "*"import dueto"*) exit 0 ;;
    "-m venv") mkdir -p .venv/bin; cp "$HOME/bin/python3" .venv/bin/python ;;
    "-m pip") exit ${PIP_EXIT:-0} ;;
    "-c "*"ensurepip"*) exit ${ENSUREPIP:-0} ;;
esac
"""


class Machine:
    """A folder that stands for a fresh machine: nothing in its PATH but what a test puts there."""

    def __init__(self, home: Path) -> None:
        self.home, self.notes = home, home / "notes"
        self.project = home / "project"
        self.project.mkdir()
        (home / "bin").mkdir()
        shutil.copy(SCRIPT, self.project / "demo")
        (self.project / "scripts").mkdir()
        shutil.copy(SCRIPT.parent / "scripts" / "venv", self.project / "scripts" / "venv")
        (self.project / "constraints.txt").write_text("")
        (self.project / "pyproject.toml").write_text("[project]\n")
        for name in NEEDED:
            found = shutil.which(name)
            assert found is not None
            (home / "bin" / name).symlink_to(found)
        self.tool("uname", "#!/usr/bin/env bash\necho Linux ${MACHINE:-x86_64}\n")
        self.tool("flite", "#!/usr/bin/env bash\n")

    def tool(self, name: str, text: str) -> None:
        """Put a program into the PATH."""
        path = self.home / "bin" / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run `./demo ARGUMENTS` from somewhere else."""
        self.notes.write_text("")
        bash = shutil.which("bash")
        assert bash is not None
        environ = {"PATH": str(self.home / "bin"), "HOME": str(self.home), "NOTES": str(self.notes), **environment}
        return subprocess.run(
            [bash, str(self.project / "demo"), *arguments], env=environ, cwd=self.home, capture_output=True, text=True
        )

    def noted(self, what: str) -> list[str]:
        """What the stand-ins were asked to do."""
        return [line for line in self.notes.read_text().splitlines() if what in line]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.tool("python3", PYTHON)
    return machine


def test_it_installs_once_and_then_only_runs(machine: Machine) -> None:
    assert machine.run("--out", "somewhere").returncode == 0
    assert machine.noted("-m venv")
    assert machine.noted("-m pip install")[0].endswith("-e .[receptionist]")
    assert machine.noted("-m dueto demo --out somewhere")
    assert machine.run().returncode == 0
    assert not machine.noted("-m venv")
    assert not machine.noted("-m pip")
    assert machine.noted("-m dueto demo")


def test_constraints_are_obeyed_and_a_change_of_them_installs_again(machine: Machine) -> None:
    machine.run()
    (machine.project / "constraints.txt").write_text("rich==15.0.0\n")
    machine.run()
    assert "-c constraints.txt" in machine.noted("-m pip install")[0]
    (machine.project / "constraints.txt").write_text("rich==15.0.1\n")
    machine.run()
    assert machine.noted("-m pip install")
    machine.run()
    assert not machine.noted("-m pip install")


def test_uv_is_used_where_it_is(machine: Machine) -> None:
    machine.tool(
        "uv",
        "#!/usr/bin/env bash\necho uv $* >>$NOTES\n"
        'if [ "$1" = venv ]; then mkdir -p .venv/bin; cp "$HOME/bin/python3" .venv/bin/python; fi\n',
    )
    assert machine.run().returncode == 0
    assert machine.noted("uv venv")
    assert machine.noted("uv pip install")
    assert not machine.noted("-m pip")


def test_a_broken_environment_is_made_anew(machine: Machine) -> None:
    machine.run()
    (machine.project / ".venv" / "bin" / "python").write_text("#!/nowhere/python\n")
    (machine.project / ".venv" / "rest").write_text("")
    done = machine.run()
    assert done.returncode == 0
    assert "making .venv anew" in done.stderr
    assert not (machine.project / ".venv" / "rest").exists()
    assert machine.noted("-m dueto demo")


def test_no_python_is_said_with_the_way_out(machine: Machine) -> None:
    done = machine.run(PYTHON_FITS="1")
    assert done.returncode == 2
    assert done.stderr.startswith("demo: no Python 3.11, 3.12 or 3.13 here; install one")
    assert len(done.stderr.splitlines()) == 1
    assert not (machine.project / ".venv").exists()


def test_a_python_without_venv_is_said_with_the_package(machine: Machine) -> None:
    done = machine.run(ENSUREPIP="1")
    assert done.returncode == 2
    assert "apt-get install python3-venv" in done.stderr


def test_a_failed_installation_offers_the_echo_agent_and_is_tried_again(machine: Machine) -> None:
    done = machine.run(PIP_EXIT="1")
    assert done.returncode == 2
    assert "./demo --agent echo" in done.stderr
    assert not machine.noted("-m dueto demo")
    machine.run()
    assert machine.noted("-m pip install")


@pytest.mark.parametrize("arguments", [("--agent", "echo"), ("--agent=echo",)])
def test_the_echo_agent_needs_no_extra(machine: Machine, arguments: tuple[str, ...]) -> None:
    machine.run(*arguments)
    assert machine.noted("-m pip install")[0].endswith("-e .")
    assert machine.noted("-m dueto demo " + " ".join(arguments))


def test_another_machine_is_shown_the_echo_agent(machine: Machine) -> None:
    done = machine.run("--out", "x", MACHINE="aarch64")
    assert done.returncode == 0
    assert "x86-64 Linux only, not for Linux aarch64" in done.stderr
    assert machine.noted("-m pip install")[0].endswith("-e .")
    assert machine.noted("-m dueto demo --out x --agent echo")
    assert machine.run("--agent", "receptionist", MACHINE="aarch64").returncode == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may install")
def test_a_synthesiser_is_asked_for_but_not_needed(machine: Machine) -> None:
    (machine.home / "bin" / "flite").unlink()
    machine.tool("apt-get", "#!/usr/bin/env bash\necho apt-get $* >>$NOTES\nexit 1\n")
    done = machine.run()
    assert done.returncode == 0
    assert machine.noted("apt-get install -y -qq flite")
    assert "recorded prompts" in done.stderr
    machine.run(DUETO_NO_APT="1")
    assert not machine.noted("apt-get")
