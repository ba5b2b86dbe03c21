// Registers one device with the Node SDK as it comes from npm, connects it to its hub with the SDK for devices, sends a
// message, reports a property and gets the twin. Prints what register.js prints and, of the twin, desired and reported.
//
// node hub.js CASE.json, as register.js; the transport is mqtt or mqtt-ws.
'use strict';

const { createHmac } = require('node:crypto');
const { readFileSync } = require('node:fs');
const { Client, Message } = require('azure-iot-device');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const provisioning = require('azure-iot-provisioning-device-mqtt');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { X509Security } = require('azure-iot-security-x509');

const wanted = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const isWs = wanted.transport === 'mqtt-ws';
const { registrationId, groupKey, certFile, keyFile } = wanted;
const identity = groupKey === undefined && { cert: readFileSync(certFile, 'utf8'), key: readFileSync(keyFile, 'utf8') };
const deviceKey =
  groupKey && createHmac('sha256', Buffer.from(groupKey, 'base64')).update(registrationId).digest('base64');

run().then(
  (result) => print(result),
  (error) => print({ outcome: 'failed', error: `${error.name}: ${error.message}` }),
);

async function run() {
  const security = identity
    ? new X509Security(registrationId, identity)
    : new SymmetricKeySecurityClient(registrationId, deviceKey);
  const transport = isWs ? new provisioning.MqttWs() : new provisioning.Mqtt();
  const registering = ProvisioningDeviceClient.create(wanted.host, wanted.idScope, transport, security);
  const { status, deviceId, assignedHub } = await registering.register();
  const credential = identity ? 'x509=true' : `SharedAccessKey=${deviceKey}`;
  const hub = `HostName=${assignedHub};DeviceId=${deviceId};${credential}`;
  const client = Client.fromConnectionString(hub, isWs ? MqttWs : Mqtt);
  if (identity) {
    await client.setOptions(identity);
  }
  await client.open();
  const message = new Message(JSON.stringify({ temperature: 21.5 }));
  message.contentType = 'application/json';
  message.properties.add('level', 'info');
  await client.sendEvent(message);
  const twin = await client.getTwin();
  await new Promise((resolve, reject) => {
    twin.properties.reported.update({ seen: 1 }, (error) => (error ? reject(error) : resolve()));
  });
  const again = await new Promise((resolve, reject) => {
    twin.get((error, found) => (error ? reject(error) : resolve(found)));
  });
  const { desired, reported } = again.properties;
  const result = { outcome: status, deviceId, assignedHub, desired, reported: { seen: reported.seen } };
  await client.close();
  return result;
}

function print(result) {
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
}
