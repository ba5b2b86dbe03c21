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
  mqtt: () => require('azure-iot-provisioning-device-mqtt').Mqtt,
  'mqtt-ws': () => require('azure-iot-provisioning-device-mqtt').MqttWs,
  amqp: () => require('azure-iot-provisioning-device-amqp').Amqp,
  'amqp-ws': () => require('azure-iot-provisioning-device-amqp').AmqpWs,
};

const wanted = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const Transport = TRANSPORTS[wanted.transport]();
const client = ProvisioningDeviceClient.create(wanted.host, wanted.idScope, new Transport(), security(wanted));
client.register((error, result) => {
  const line = JSON.stringify(error ? refusal(error) : assignment(result));
  // Some of its transports leave timers behind that keep the process.
  process.stdout.write(`${line}\n`, () => process.exit(0));
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

// What it says of a refused credential differs by transport: an error of its own over HTTP, the words of the
// MQTT library, the object of the AMQP library.
function refusal(error) {
  const said = error.message ?? error.description ?? JSON.stringify(error);
  const refused = error.name === 'UnauthorizedError' || /not authorized|authentication|401002/i.test(said);
  return { outcome: refused ? 'refused' : 'failed', error: `${error.name}: ${said}` };
}
