// Manages enrollments with Microsoft's Node package for the service API, as the JSON file says whose name is the only
// argument, and prints what came of each step.
'use strict';

const fs = require('fs');
const { isDeepStrictEqual } = require('util');
const { ProvisioningServiceClient } = require('azure-iot-provisioning-service');

const it = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const service = ProvisioningServiceClient.fromConnectionString(it.connectionString);
const hubs = { iotHubs: [it.hub], allocationPolicy: 'static' };
const key = { type: 'symmetricKey', symmetricKey: { primaryKey: it.key, secondaryKey: it.key } };
const x509 = (kind, file) => ({ type: 'x509', x509: { [kind]: { primary: { certificate: fs.readFileSync(file, 'utf8') } } } });
const put = async (record) => (await service.createOrUpdateIndividualEnrollment({ ...hubs, ...record })).responseBody;
const putGroup = async (record) => (await service.createOrUpdateEnrollmentGroup({ ...hubs, ...record })).responseBody;

function equal(got, wanted) {
    if (!isDeepStrictEqual(got, wanted)) {
        throw new Error(`${JSON.stringify(got)} is not ${JSON.stringify(wanted)}`);
    }
}

async function refused(promise, status) {
    const error = await promise.then(() => undefined, (error) => error);
    equal(error?.response?.statusCode, status);
}

// Every name in the pages of a query, and the size of each page.
async function pages(query, field) {
    const names = [];
    const sizes = [];
    let token;
    do {
        // Without an argument it forgets its own token.
        const page = (await query.next(token)).responseBody;
        names.push(...page.map((record) => record[field]));
        sizes.push(page.length);
        token = query.continuationToken;
    } while (token);
    return { names, sizes };
}

const make = {
    async individual() {
        equal((await put({ registrationId: it.device, attestation: key })).registrationId, it.device);
    },
    async x509() {
        const made = await put({ registrationId: it.certificateDevice, attestation: x509('clientCertificates', it.certificate) });
        equal(made.attestation.x509.clientCertificates.primary.info.version, 3);
    },
    async tpm() {
        const attestation = { type: 'tpm', tpm: { endorsementKey: it.endorsementKey } };
        equal((await put({ registrationId: 'a:tpm', attestation })).attestation.tpm.endorsementKey, it.endorsementKey);
    },
    async groups() {
        equal((await putGroup({ enrollmentGroupId: 'by-key', attestation: key })).provisioningStatus, 'enabled');
        await putGroup({ enrollmentGroupId: 'by-ca', attestation: x509('signingCertificates', it.ca) });
        equal((await service.getEnrollmentGroup('by-ca')).responseBody.iotHubs, [it.hub]);
    },
    async etags() {
        const record = (await service.getIndividualEnrollment(it.device)).responseBody;
        await put({ ...record, deviceId: it.deviceId });
        await refused(put({ ...record, deviceId: 'stale' }), 412);
        await refused(put({ registrationId: it.device, attestation: key }), 409);
        equal((await service.getIndividualEnrollment(it.device)).responseBody.deviceId, it.deviceId);
    },
    async attestation_mechanism() {
        equal((await service.getIndividualEnrollmentAttestationMechanism(it.device)).responseBody, key);
        equal((await service.getEnrollmentGroupAttestationMechanism('by-key')).responseBody, key);
    },
    async bulk() {
        const enrollments = ['bulk-1', 'bulk-2'].map((registrationId) => ({ registrationId, attestation: { type: 'symmetricKey' } }));
        // As a promise it never settles.
        const run = () => new Promise((resolve, reject) => {
            service.runBulkEnrollmentOperation({ mode: 'create', enrollments }, (error, result) => (error ? reject(error) : resolve(result)));
        });
        equal(await run(), { errors: [], isSuccessful: true });
        equal((await run()).errors.map((error) => error.registrationId), ['bulk-1', 'bulk-2']);
    },
    async query() {
        const found = await pages(service.createIndividualEnrollmentQuery({ query: '*' }, 2), 'registrationId');
        equal(found.names, ['a:tpm', 'bulk-1', 'bulk-2', it.device, it.certificateDevice].sort());
        equal(found.sizes, [2, 2, 1]);
        const groups = await pages(service.createEnrollmentGroupQuery({ query: '*' }, 10), 'enrollmentGroupId');
        equal(groups.names, ['by-ca', 'by-key']);
    },
};

const look = {
    async registration() {
        const state = (await service.getDeviceRegistrationState(it.device)).responseBody;
        equal([state.status, state.assignedHub, state.deviceId], ['assigned', it.hub, it.deviceId]);
        const query = service.createEnrollmentGroupDeviceRegistrationStateQuery({ query: '*' }, 'by-key', 10);
        equal((await pages(query, 'registrationId')).names, [it.member]);
        await service.deleteDeviceRegistrationState(state);
        await refused(service.getDeviceRegistrationState(it.device), 404);
    },
    async deleted() {
        await service.deleteIndividualEnrollment((await service.getIndividualEnrollment(it.device)).responseBody);
        await refused(service.getIndividualEnrollment(it.device), 404);
        await service.deleteEnrollmentGroup('by-key');
        await refused(service.getEnrollmentGroup('by-key'), 404);
    },
};

async function main() {
    const outcomes = {};
    for (const [name, step] of Object.entries({ make, look }[it.phase])) {
        outcomes[name] = await step().then(() => 'ok', (error) => `${error} ${error.responseBody ?? ''}`);
    }
    console.log(JSON.stringify(outcomes));
}

main();
