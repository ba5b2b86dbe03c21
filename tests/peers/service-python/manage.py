"""Manages enrollments with Microsoft's older Python package for the service API, as the JSON file says whose name is
the only argument, and prints what came of each step."""

import json
import os
import pathlib
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "packages"))

from provisioningserviceclient import (  # noqa: E402
    BULKOP_CREATE,
    BulkEnrollmentOperation,
    ProvisioningServiceClient,
    ProvisioningServiceError,
    QuerySpecification,
)
from provisioningserviceclient.models import (  # noqa: E402
    AttestationMechanism,
    EnrollmentGroup,
    IndividualEnrollment,
)
from provisioningserviceclient.protocol.models import SymmetricKeyAttestation  # noqa: E402

it = json.loads(pathlib.Path(sys.argv[1]).read_text())
service = ProvisioningServiceClient.create_from_connection_string(it["connectionString"])


def symmetric():
    keys = SymmetricKeyAttestation(primary_key=it["key"], secondary_key=it["key"])
    return AttestationMechanism(type="symmetricKey", symmetric_key=keys)


def pem(name):
    return pathlib.Path(it[name]).read_text()


def put(kind, name, attestation):
    record = kind.create(name, attestation)
    record.iot_hubs, record.allocation_policy = [it["hub"]], "static"
    return service.create_or_update(record)


def equal(got, wanted):
    assert got == wanted, f"{got!r} is not {wanted!r}"


def refused(call, status):
    try:
        call()
    except ProvisioningServiceError as error:
        equal(error.cause.response.status_code, status)
    else:
        raise AssertionError(f"not refused with {status}")


def pages(query, field):
    found = []
    while query.has_next:
        found.append([getattr(record, field) for record in query.next()])
    return found


def individual():
    equal(put(IndividualEnrollment, it["device"], symmetric()).registration_id, it["device"])


def x509():
    attestation = AttestationMechanism.create_with_x509_client_certs(pem("certificate"))
    made = put(IndividualEnrollment, it["certificateDevice"], attestation)
    equal(made.attestation.x509.client_certificates.primary.info.version, 3)


def tpm():
    attestation = AttestationMechanism.create_with_tpm(it["endorsementKey"])
    made = put(IndividualEnrollment, "a:tpm", attestation)
    equal(made.attestation.tpm.endorsement_key, it["endorsementKey"])


def groups():
    equal(put(EnrollmentGroup, "by-key", symmetric()).provisioning_status, "enabled")
    put(EnrollmentGroup, "by-ca", AttestationMechanism.create_with_x509_signing_certs(pem("ca")))
    equal(service.get_enrollment_group("by-ca").iot_hubs, [it["hub"]])


def etags():
    record, stale = (service.get_individual_enrollment(it["device"]) for _ in range(2))
    record.device_id, stale.device_id = it["deviceId"], "stale"
    service.create_or_update(record)
    refused(lambda: service.create_or_update(stale), 412)
    refused(individual, 409)
    equal(service.get_individual_enrollment(it["device"]).device_id, it["deviceId"])


def attestation_mechanism():
    found = service.get_individual_enrollment_attestation_mechanism(it["device"])
    equal(found.symmetric_key.primary_key, it["key"])
    found = service.get_enrollment_group_attestation_mechanism("by-key")
    equal(found.symmetric_key.primary_key, it["key"])


def bulk():
    def run():
        attestation = AttestationMechanism(type="symmetricKey")
        both = [IndividualEnrollment.create(name, attestation) for name in ("bulk-1", "bulk-2")]
        return service.run_bulk_operation(BulkEnrollmentOperation(BULKOP_CREATE, both))

    equal(run().is_successful, True)
    equal([error.registration_id for error in run().errors], ["bulk-1", "bulk-2"])


def query():
    found = pages(service.create_individual_enrollment_query(QuerySpecification("*"), 2), "registration_id")
    equal(sum(found, []), sorted(["a:tpm", "bulk-1", "bulk-2", it["device"], it["certificateDevice"]]))
    equal([len(page) for page in found], [2, 2, 1])
    found = pages(service.create_enrollment_group_query(QuerySpecification("*"), 10), "enrollment_group_id")
    equal(found, [["by-ca", "by-key"]])


def registration():
    state = service.get_registration_state(it["device"])
    equal([state.status, state.assigned_hub, state.device_id], ["assigned", it["hub"], it["deviceId"]])
    service.delete(state)
    refused(lambda: service.get_registration_state(it["device"]), 404)


def deleted():
    service.delete(service.get_individual_enrollment(it["device"]))
    refused(lambda: service.get_individual_enrollment(it["device"]), 404)
    service.delete_enrollment_group_by_param("by-key")
    refused(lambda: service.get_enrollment_group("by-key"), 404)


PHASES = {
    "make": [individual, x509, tpm, groups, etags, attestation_mechanism, bulk, query],
    "look": [registration, deleted],
}


def outcome(step):
    try:
        step()
        return "ok"
    except Exception as error:  # Whatever it is, it is the outcome.
        return f"{type(error).__name__}: {error} {getattr(error, 'cause', '')}"


print(json.dumps({step.__name__: outcome(step) for step in PHASES[it["phase"]]}))
