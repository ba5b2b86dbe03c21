"""Registers one device with the Python SDK as it comes from PyPI, connects it to its hub, sends a message, reports a
property and gets the twin. Prints what ../node/hub.js prints; the case comes as there."""

import json
import os
import sys

sys.path.insert(0, "packages")
from azure.iot.device import X509, IoTHubDeviceClient, Message  # noqa: E402

from register import client, device_key  # noqa: E402


def run(wanted):
    registered = client(wanted).register()
    state = registered.registration_state
    with open(os.environ["PEER_CA"], encoding="ascii") as file:
        common = {
            "hostname": state.assigned_hub,
            "device_id": state.device_id,
            "websockets": wanted["transport"] == "mqtt-ws",
            "server_verification_cert": file.read(),
        }
    if "groupKey" in wanted:
        device = IoTHubDeviceClient.create_from_symmetric_key(symmetric_key=device_key(wanted), **common)
    else:
        identity = X509(cert_file=wanted["certFile"], key_file=wanted["keyFile"])
        device = IoTHubDeviceClient.create_from_x509_certificate(x509=identity, **common)
    device.connect()
    message = Message(json.dumps({"temperature": 21.5}), content_type="application/json")
    message.custom_properties["level"] = "info"
    device.send_message(message)
    device.patch_twin_reported_properties({"seen": 1})
    twin = device.get_twin()
    device.shutdown()
    return {
        "outcome": registered.status,
        "deviceId": state.device_id,
        "assignedHub": state.assigned_hub,
        "desired": twin["desired"],
        "reported": {"seen": twin["reported"].get("seen")},
    }


with open(sys.argv[1], encoding="utf-8") as case:
    wanted = json.load(case)
try:
    result = run(wanted)
except Exception as error:  # whatever it comes to is printed
    result = {"outcome": "failed", "error": f"{type(error).__name__}: {error}: {error.__cause__}"}
print(json.dumps(result), flush=True)
# Its threads may outlive a failure.
os._exit(0)
