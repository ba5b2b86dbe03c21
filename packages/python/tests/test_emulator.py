"""Run by `cargo xtask installs`, with the wheel installed."""

import os
import socket
import subprocess
import sys
import time

import pytest

from dps_emulator import Emulator, EmulatorError


def serves(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
        return True
    except OSError:
        return False


def test_it_ends_with_a_program_that_crashes():
    script = "import dps_emulator, os; it = dps_emulator.Emulator(); print(it.admin_port, flush=True); os.kill(os.getpid(), 9)"
    crashed = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert crashed.returncode == -9
    begin = time.monotonic()
    while serves(int(crashed.stdout)):
        assert time.monotonic() - begin < 60, "it still serves"


def test_what_it_said_is_in_the_error(tmp_path):
    with pytest.raises(EmulatorError, match="--https-port.*none.*give a number"):
        Emulator("--https-port", "none")
    with pytest.raises(EmulatorError, match="/no/dps can't be started"):
        Emulator(program="/no/dps")
    with pytest.raises(EmulatorError, match="it said nothing in 0.5 s"):
        silent = tmp_path / "dps"
        silent.write_text("#!/bin/sh\nexec sleep 600\n")
        silent.chmod(0o755)
        Emulator(program=str(silent), start_timeout=0.5)


def test_a_key_is_that_of_the_command(dps_emulator):
    key = subprocess.run(
        ["dps", "derive-key", "--registration-id", "Pump-17", "--group-key-file", "-"],
        input=dps_emulator.group_key,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert dps_emulator.derive_key("Pump-17") == key.stdout.strip()


def test_one_of_a_session_is_reset_by_its_admin_port(dps_emulator_session):
    env = dps_emulator_session.environment("pump-17", "amqp")
    subprocess.run(["dps", "register", "--quiet"], env={**os.environ, **env}, check=True)
    assert "pump-17" in dps_emulator_session.admin("GET", "/devices")
    dps_emulator_session.admin("POST", "/reset")
    assert "pump-17" not in dps_emulator_session.admin("GET", "/devices")


def test_stopping_it_again_does_nothing():
    emulator = Emulator()
    folder = emulator.ca_file.parent
    emulator.stop()
    emulator.stop()
    assert not serves(emulator.admin_port) and not folder.exists()
