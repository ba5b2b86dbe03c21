// Registers one device with the Node SDK as it comes from npm, and prints one line of JSON:
// {"outcome": "assigned", deviceId, assignedHub} or {"outcome": "refused" | "failed", error}.
//
// node register.js CASE.json, where the case has: transport, host, idScope, registrationId and either groupKey or
// certFile and keyFile. The server's CA comes in NODE_EXTRA_CA_CERTS.
'use strict';

const { createHmac } = require('node:crypto');
const { readFileSync } = require('node:fs');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { X509Security } = require('azure-iot-security-x509');

const TRANSPORTS = {
  http: () => require('azure-iot-provisioning-device-http').Http,
};

const wanted = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const Transport = TRANSPORTS[wanted.transport]();
const client = ProvisioningDeviceClient.create(wanted.host, wanted.idScope, new Transport(), security(wanted));
client.register((error, result) => {
  console.log(JSON.stringify(error ? refusal(error) : assignment(result)));
});

function security({ registrationId, groupKey, certFile, keyFile }) {
  if (groupKey === undefined) {
    const identity = { cert: readFileSync(certFile, 'utf8'), key: readFileSync(keyFile, 'utf8') };
    return new X509Security(registrationId, identity);
  }
  const deviceKey = createHmac('sha256', Buffer.from(groupKey, 'base64')).update(registrationId).digest('base64');
  return new SymmetricKeySecurityClient(registrationId, deviceKey);
}

function assignment({ status, deviceId, assignedHub }) {
  return { outcome: status, deviceId, assignedHub };
}

function refusal({ name, message }) {
  return { outcome: name === 'UnauthorizedError' ? 'refused' : 'failed', error: `${name}: ${message}` };
}
