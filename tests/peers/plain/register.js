// Registers one device with a general MQTT or AMQP library and nothing of Azure's, by the recipes of the public
// documents, and prints one line of JSON as ../node/register.js does. The case file and the CA come as there.
'use strict';

const { createHmac, randomUUID } = require('node:crypto');
const { readFileSync } = require('node:fs');

const API_VERSION = '2019-03-31';
const WAIT_MS = 500;

const wanted = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const ca = readFileSync(process.env.NODE_EXTRA_CA_CERTS);
const resource = `${wanted.idScope}/registrations/${wanted.registrationId}`;
const identity = wanted.certFile && {
  cert: readFileSync(wanted.certFile),
  key: readFileSync(wanted.keyFile),
};

({ mqtt: overMqtt, amqp: overAmqp })[wanted.transport]();

function finish(outcome) {
  process.stdout.write(`${JSON.stringify(outcome)}\n`, () => process.exit(0));
}

function judge(status, body) {
  const { operationId, registrationState, message } = JSON.parse(body);
  if (status === 401) return finish({ outcome: 'refused', error: message });
  if (registrationState?.assignedHub) {
    const { deviceId, assignedHub } = registrationState;
    return finish({ outcome: 'assigned', deviceId, assignedHub });
  }
  if (!operationId) return finish({ outcome: 'failed', error: body });
  return operationId;
}

function token() {
  const key = createHmac('sha256', Buffer.from(wanted.groupKey, 'base64')).update(wanted.registrationId).digest();
  const expiry = Math.floor(Date.now() / 1000) + 3600;
  const encoded = encodeURIComponent(resource);
  const signature = createHmac('sha256', key).update(`${encoded}\n${expiry}`).digest('base64');
  return `SharedAccessSignature sr=${encoded}&sig=${encodeURIComponent(signature)}&se=${expiry}&skn=registration`;
}

// https://learn.microsoft.com/azure/iot-dps/iot-dps-mqtt-support
function overMqtt() {
  const client = require('mqtt').connect(`mqtts://${wanted.host}:8883`, {
    ca,
    ...identity,
    clientId: wanted.registrationId,
    username: `${resource}/api-version=${API_VERSION}`,
    password: identity ? undefined : token(),
    protocolVersion: 4,
    reconnectPeriod: 0,
  });
  let request = 0;
  const publish = (path) => client.publish(`$dps/registrations/${path}$rid=${++request}`, ' ', { qos: 1 });
  client.on('error', ({ code, message }) => {
    finish({ outcome: code === 4 || code === 5 ? 'refused' : 'failed', error: message });
  });
  client.on('connect', () => {
    client.subscribe('$dps/registrations/res/#', { qos: 1 }, () => publish('PUT/iotdps-register/?'));
  });
  client.on('message', (topic, body) => {
    const operationId = judge(Number(topic.split('/')[3]), body.toString());
    if (!operationId) return;
    const query = `GET/iotdps-get-operationstatus/?operationId=${operationId}&`;
    setTimeout(() => publish(query), WAIT_MS);
  });
}

function overAmqp() {
  const rhea = require('rhea').create_container();
  const connection = rhea.connect({
    host: wanted.host,
    port: 5671,
    transport: 'tls',
    ca,
    ...identity,
    reconnect: false,
    ...(identity ? {} : { username: resource, password: token() }),
  });
  const properties = {
    'com.microsoft:api-version': API_VERSION,
    'com.microsoft:client-version': 'plain-amqp-client',
  };
  const receiver = connection.open_receiver({ source: resource, properties });
  const sender = connection.open_sender({ target: resource, properties });
  const send = (application_properties, body) => {
    sender.send({ correlation_id: randomUUID(), application_properties, body: rhea.message.data_section(body) });
  };
  const lost = (name) => ({ connection: { error } }) => {
    const refused = error?.condition === 'amqp:unauthorized-access' || /401/.test(error?.description ?? '');
    finish({ outcome: refused ? 'refused' : 'failed', error: `${name}: ${error}` });
  };
  rhea.message = require('rhea').message;
  rhea.once('sendable', () => {
    send({ 'iotdps-operation-type': 'iotdps-register' }, Buffer.from(JSON.stringify({ registrationId: wanted.registrationId })));
  });
  receiver.on('message', ({ message }) => {
    const body = (message.body.content ?? message.body).toString();
    const operationId = judge(200, body);
    if (!operationId) return;
    const query = { 'iotdps-operation-type': 'iotdps-get-operationstatus', 'iotdps-operation-id': operationId };
    setTimeout(() => send(query, Buffer.alloc(0)), WAIT_MS);
  });
  sender.on('rejected', ({ delivery }) => {
    const { description } = delivery.remote_state.error;
    judge(Math.floor(JSON.parse(description).errorCode / 1000), description);
  });
  rhea.on('connection_error', lost('connection'));
  rhea.on('disconnected', lost('disconnected'));
}
