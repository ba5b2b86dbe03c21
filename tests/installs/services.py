"""Runs the commands of a page's YAML, for a compose file or a workflow of GitHub Actions.

    services.py PAGE.yaml ROOT VARIABLE=VALUE..

The service `dps` is the program of the image at ROOT, with the variables of the image; docker is a script that copies from
there. Everything else is as the page has it, but for the name `dps`, which is localhost here, and for ports, which are free ones.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

page, root, *variables = sys.argv[1:]
image = dict(variable.split("=", 1) for variable in variables)
document = yaml.safe_load(Path(page).read_text())
jobs = list(document.get("jobs", {"": document}).values())
assert len(jobs) == 1, "one job"
services = jobs[0]["services"]
here = Path.cwd()


PORTS = {"DPS_HTTPS_PORT": "httpsPort", "DPS_MQTT_PORT": "mqttPort", "DPS_AMQP_PORT": "amqpPort"}
ready = {}


def local(text):
    """Paths, names and ports inside of a container as they are here."""
    text = text.replace("/data/", f"{root}/data/")
    endpoint = re.fullmatch(r"(?:dps|localhost):(\d+)", text)
    if endpoint:
        variable = next(variable for variable in PORTS if image[variable] == endpoint[1])
        return f"localhost:{ready[PORTS[variable]]}"
    return text


def environment(of):
    given = {**of.get("environment", {}), **of.get("env", {})}
    return {**os.environ, **{name: local(str(value)) for name, value in given.items()}}


service = services.pop("dps")
emulate = [f"{root}/dps", "emulate", *service.get("command", [])]
for mapping in service["ports"]:
    assert mapping.split(":")[-1] in [image[variable] for variable in PORTS], f"the image has no port {mapping}"
inside = {name: local(value) for name, value in image.items()}
inside.update({variable: "0" for variable in [*PORTS, "DPS_ADMIN_PORT"]})
# A new volume.
shutil.rmtree(f"{root}/data")
os.mkdir(f"{root}/data")
emulator = subprocess.Popen(emulate, env={**environment(service), **inside}, stdout=subprocess.PIPE, text=True)
try:
    ready.update(json.loads(emulator.stdout.readline()))
    docker = here / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(f'#!/bin/sh -eu\ntest "$1" = cp\nexec cp "{root}/${{2#dps:/}}" "$3"\n')
    docker.chmod(0o755)
    steps = [(step["run"], environment(step)) for step in jobs[0].get("steps", [])]
    commands = [(run.replace("${{ job.services.dps.id }}", "dps"), env) for run, env in steps]
    for other in services.values():
        files = {config["target"]: document["configs"][config["source"]] for config in other.get("configs", [])}
        words = [*other.get("entrypoint", []), *other.get("command", [])]
        for target, content in files.items():
            (here / "config").write_text(content["content"])
            words = [str(here / "config") if word == target else word for word in words]
        words[0] = f"{root}{words[0]}"
        commands.append((local(" ".join(words)), environment(other)))
    assert commands, "no command"
    for command, env in commands:
        env["PATH"] = f"{docker.parent}:{env['PATH']}"
        subprocess.run(["sh", "-eu", "-c", command], env=env, check=True, timeout=60)
finally:
    emulator.kill()
