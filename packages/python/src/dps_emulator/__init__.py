"""The Azure IoT Device Provisioning Service on loopback: `dps emulate` as an object."""

import base64
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sysconfig
import tempfile
import threading
import urllib.request
from pathlib import Path
from typing import Any, Dict, List, Optional

__all__ = ["Emulator", "EmulatorError"]


class EmulatorError(Exception):
    """The emulator did not start; the message has what it said."""


class Emulator:
    """An emulator that runs until `stop`, the end of a `with` block, or the end of this process.

    `arguments` are flags of `dps emulate`, like `"--config", "emulator.toml"`. By default it takes free ports and assigns
    every device that shows a key derived from its group key, at once when it is `fast`; else with the seconds of waiting
    that the service takes. `start_timeout` is in seconds.

    `ca_file` has the certificate of the authority that devices must trust. `group_key` is the group's key in base64, or
    None when a configuration file has enrollments of its own.
    """

    id_scope: str
    https_port: int
    mqtt_port: int
    amqp_port: int
    admin_port: int
    ca_file: Path
    group_key: Optional[str]

    def __init__(
        self, *arguments: str, fast: bool = True, program: Optional[str] = None, start_timeout: float = 30
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dps-emulator-")
        self.ca_file = Path(self._folder.name, "ca.pem")
        command = [program or _program(), "emulate", "--stop-at-eof", "--ca-out", str(self.ca_file), *arguments]
        if fast:
            command.append("--fast")
        # It writes there rarely; nobody would empty a pipe.
        with tempfile.TemporaryFile() as said:
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said
                )
            except OSError as error:
                self._folder.cleanup()
                raise EmulatorError(f"{command[0]} can't be started: {error}") from error
            try:
                # When the time is over it is ended, and with it the line that is waited for.
                timer = threading.Timer(start_timeout, self._process.kill)
                timer.start()
                line = self._process.stdout.readline()
                timer.cancel()
                if not line:
                    code = self._process.wait()
                    said.seek(0)
                    text = said.read().decode(errors="replace").strip() or f"it said nothing in {start_timeout} s"
                    raise EmulatorError(f"`{' '.join(command)}` ended with {code} before it served: {text}")
            except BaseException:
                self.stop()
                raise
        # What it writes from now on, like events, is read away: it would wait for a reader.
        threading.Thread(target=lambda: any(False for _ in self._process.stdout), daemon=True).start()
        ready = json.loads(line)
        self.id_scope = ready["idScope"]
        self.https_port = ready["httpsPort"]
        self.mqtt_port = ready["mqttPort"]
        self.amqp_port = ready["amqpPort"]
        self.admin_port = ready["adminPort"]
        self.group_key = ready["groupKey"]

    def port(self, transport: str) -> int:
        """The port for a transport: http, mqtt, mqtt-ws, amqp or amqp-ws."""
        return {
            "http": self.https_port,
            "mqtt": self.mqtt_port,
            "mqtt-ws": self.https_port,
            "amqp": self.amqp_port,
            "amqp-ws": self.https_port,
        }[transport]

    def derive_key(self, registration_id: str) -> str:
        """The key of a device of the group, in base64."""
        if self.group_key is None:
            raise ValueError("this emulator has no group key: its configuration has the enrollments")
        key = base64.b64decode(self.group_key)
        return base64.b64encode(hmac.digest(key, registration_id.encode(), hashlib.sha256)).decode()

    def environment(self, registration_id: str, transport: str = "http") -> Dict[str, str]:
        """The variables by which `dps register` registers this device here."""
        return {
            "DPS_ENDPOINT": f"localhost:{self.port(transport)}",
            "DPS_TRANSPORT": transport,
            "DPS_CA_FILE": str(self.ca_file),
            "DPS_ID_SCOPE": self.id_scope,
            "DPS_REGISTRATION_ID": registration_id,
            "DPS_SYMMETRIC_KEY": self.derive_key(registration_id),
        }

    def events(self) -> List[Dict[str, Any]]:
        """What happened so far, oldest first: connections, authentications, requests and answers."""
        return [json.loads(line) for line in self.admin("GET", "/events").splitlines()]

    def admin(self, method: str, path: str, body: Any = None) -> str:
        """A request to the admin port, with a body as JSON; the answer's body. Raises `urllib.error.HTTPError`."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://localhost:{self.admin_port}{path}",
            data,
            {"Content-Type": "application/json"},
            method=method,
        )
        # Whatever proxy the environment names, this is on loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return answer.read().decode()

    def stop(self) -> None:
        """Stops it. Doing so again does nothing."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdin.close()
        self._folder.cleanup()

    def __enter__(self) -> "Emulator":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _program() -> str:
    """The command that was installed with this package, or else the one of the search path."""
    installed = Path(sysconfig.get_path("scripts"), "dps")
    found = str(installed) if os.access(installed, os.X_OK) else shutil.which("dps")
    if found is None:
        raise EmulatorError(f"there is no command dps, neither {installed} nor in PATH: install the wheel again")
    return found
