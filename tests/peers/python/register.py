"""Registers one device with the Python SDK as it comes from PyPI, and prints one line of JSON as
../node/register.js does. The case file comes as there; the file with the server's CA in PEER_CA."""

import base64
import hashlib
import hmac
import json
import os
import sys

sys.path.insert(0, "packages")
from azure.iot.device import X509, ProvisioningDeviceClient  # noqa: E402
from azure.iot.device import exceptions  # noqa: E402


def device_key(wanted):
    key = base64.b64decode(wanted["groupKey"])
    digest = hmac.new(key, wanted["registrationId"].encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def client(wanted):
    with open(os.environ["PEER_CA"], encoding="ascii") as file:
        server_ca = file.read()
    common = {
        "provisioning_host": wanted["host"],
        "registration_id": wanted["registrationId"],
        "id_scope": wanted["idScope"],
        "websockets": wanted["transport"] == "mqtt-ws",
        "server_verification_cert": server_ca,
    }
    if "groupKey" in wanted:
        return ProvisioningDeviceClient.create_from_symmetric_key(symmetric_key=device_key(wanted), **common)
    identity = X509(cert_file=wanted["certFile"], key_file=wanted["keyFile"])
    return ProvisioningDeviceClient.create_from_x509_certificate(x509=identity, **common)


def register(wanted):
    try:
        result = client(wanted).register()
    except exceptions.CredentialError as error:
        return {"outcome": "refused", "error": str(error)}
    except Exception as error:  # whatever else it comes to is printed
        return {"outcome": "failed", "error": f"{type(error).__name__}: {error}: {error.__cause__}"}
    state = result.registration_state
    return {"outcome": result.status, "deviceId": state.device_id, "assignedHub": state.assigned_hub}


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as case:
        print(json.dumps(register(json.load(case))), flush=True)
    # Its threads may outlive a failure.
    os._exit(0)
