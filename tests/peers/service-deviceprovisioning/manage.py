"""Manages enrollments with Microsoft's newer Python package for the service API, as the JSON file says whose name is
the only argument, and prints what came of each step."""

import json
import os
import pathlib
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "packages"))

from azure.core.exceptions import HttpResponseError  # noqa: E402
from azure.iot.deviceprovisioning import DeviceProvisioningClient  # noqa: E402

it = json.loads(pathlib.Path(sys.argv[1]).read_text())
service = DeviceProvisioningClient.from_connection_string(it["connectionString"])
QUERY = {"query": "SELECT * FROM enrollments"}
KEYS = {"primaryKey": it["key"], "secondaryKey": it["key"]}
SYMMETRIC = {"type": "symmetricKey", "symmetricKey": KEYS}
HUBS = {"iotHubs": [it["hub"]], "allocationPolicy": "static"}


def x509(kind, name):
    certificate = {"certificate": pathlib.Path(it[name]).read_text()}
    return {"type": "x509", "x509": {kind: {"primary": certificate}}}


def put(name, attestation):
    record = {"registrationId": name, "attestation": attestation, **HUBS}
    return service.enrollment.create_or_update(name, record)


def put_group(name, attestation):
    record = {"enrollmentGroupId": name, "attestation": attestation, **HUBS}
    return service.enrollment_group.create_or_update(name, record)


def equal(got, wanted):
    assert got == wanted, f"{got!r} is not {wanted!r}"


def refused(call, status):
    try:
        call()
    except HttpResponseError as error:
        equal(error.status_code, status)
    else:
        raise AssertionError(f"not refused with {status}")


def pages(found, field):
    return [[record[field] for record in page] for page in found.by_page()]


def individual():
    equal(put(it["device"], SYMMETRIC)["registrationId"], it["device"])


def by_certificate():
    made = put(it["certificateDevice"], x509("clientCertificates", "certificate"))
    equal(made["attestation"]["x509"]["clientCertificates"]["primary"]["info"]["version"], 3)


def tpm():
    made = put("a:tpm", {"type": "tpm", "tpm": {"endorsementKey": it["endorsementKey"]}})
    equal(made["attestation"]["tpm"]["endorsementKey"], it["endorsementKey"])


def groups():
    equal(put_group("by-key", SYMMETRIC)["provisioningStatus"], "enabled")
    put_group("by-ca", x509("signingCertificates", "ca"))
    equal(service.enrollment_group.get("by-ca")["iotHubs"], [it["hub"]])


def etags():
    name = it["device"]
    record = service.enrollment.get(name)
    etag = record["etag"]
    record["deviceId"] = it["deviceId"]
    service.enrollment.create_or_update(name, record, if_match=etag)
    refused(lambda: service.enrollment.create_or_update(name, record, if_match=etag), 412)
    refused(individual, 409)
    equal(service.enrollment.get(name)["deviceId"], it["deviceId"])


def attestation_mechanism():
    equal(service.enrollment.get_attestation_mechanism(it["device"]), SYMMETRIC)
    equal(service.enrollment_group.get_attestation_mechanism("by-key"), SYMMETRIC)


def bulk():
    names = ["bulk-1", "bulk-2"]
    both = [{"registrationId": name, "attestation": {"type": "symmetricKey"}} for name in names]
    request = {"mode": "create", "enrollments": both}
    equal(service.enrollment.run_bulk_operation(request)["isSuccessful"], True)
    errors = service.enrollment.run_bulk_operation(request)["errors"]
    equal([error["registrationId"] for error in errors], names)


def query():
    found = pages(service.enrollment.query(QUERY, top=2), "registrationId")
    equal(sum(found, []), sorted(["a:tpm", "bulk-1", "bulk-2", it["device"], it["certificateDevice"]]))
    equal([len(page) for page in found], [2, 2, 1])
    found = pages(service.enrollment_group.query({"query": "*"}, top=10), "enrollmentGroupId")
    equal(found, [["by-ca", "by-key"]])


def registration():
    state = service.device_registration_state.get(it["device"])
    equal([state["status"], state["assignedHub"], state["deviceId"]], ["assigned", it["hub"], it["deviceId"]])
    equal([found["registrationId"] for found in service.device_registration_state.query("by-key")], [it["member"]])
    service.device_registration_state.delete(it["device"], if_match=state["etag"])
    refused(lambda: service.device_registration_state.get(it["device"]), 404)


def deleted():
    etag = service.enrollment.get(it["device"])["etag"]
    service.enrollment.delete(it["device"], if_match=etag)
    refused(lambda: service.enrollment.get(it["device"]), 404)
    service.enrollment_group.delete("by-key")
    refused(lambda: service.enrollment_group.get("by-key"), 404)


PHASES = {
    "make": [individual, by_certificate, tpm, groups, etags, attestation_mechanism, bulk, query],
    "look": [registration, deleted],
}


def outcome(step):
    try:
        step()
        return "ok"
    except Exception as error:  # Whatever it is, it is the outcome.
        return f"{type(error).__name__}: {error}"


print(json.dumps({step.__name__: outcome(step) for step in PHASES[it["phase"]]}))
