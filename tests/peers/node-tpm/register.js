// Registers one device by its TPM with the Node SDK as it comes from npm, and prints one line of JSON:
// {"outcome": "assigned", deviceId, assignedHub, token} or {"outcome": "refused" | "failed", error}. The token is for the
// hub, signed by the key that the registration has left in the TPM.
//
// node register.js CASE.json, where the case has: transport, host, idScope, registrationId, tpmSocket and expiry. The
// server's CA comes in NODE_EXTRA_CA_CERTS.
'use strict';

const { connect } = require('node:net');
const { readFileSync } = require('node:fs');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { TpmSecurityClient } = require('azure-iot-security-tpm');
const { Tpm } = require('tss.js');

const TRANSPORTS = {
  http: () => require('azure-iot-provisioning-device-http').Http,
  amqp: () => require('azure-iot-provisioning-device-amqp').Amqp,
  'amqp-ws': () => require('azure-iot-provisioning-device-amqp').AmqpWs,
};

// The SDK opens /dev/tpm0 or Microsoft's simulator; this is a device of its TPM library for swtpm.
class SwtpmDevice {
  constructor(path) {
    this.path = path;
  }

  connect(done) {
    this.socket = connect(this.path, () => done(null));
    this.socket.once('error', done);
  }

  dispatchCommand(command, done) {
    let answer = Buffer.alloc(0);
    const take = (bytes) => {
      answer = Buffer.concat([answer, bytes]);
      if (answer.length < 10 || answer.length < answer.readUInt32BE(2)) return;
      this.socket.off('data', take);
      done(null, answer);
    };
    this.socket.on('data', take);
    this.socket.write(command);
  }

  close() {
    this.socket.end();
  }
}

const wanted = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const tpm = new Tpm(true);
tpm.device = new SwtpmDevice(wanted.tpmSocket);
const security = new TpmSecurityClient(wanted.registrationId, tpm);
const Transport = TRANSPORTS[wanted.transport]();
const client = ProvisioningDeviceClient.create(wanted.host, wanted.idScope, new Transport(), security);
client.register((error, result) => {
  if (error) return print(refusal(error));
  const { status, registrationState: { deviceId, assignedHub } } = result;
  const resource = encodeURIComponent(`${assignedHub}/devices/${deviceId}`);
  security.signWithIdentity(Buffer.from(`${resource}\n${wanted.expiry}`), (failure, signature) => {
    if (failure) return print({ outcome: 'failed', error: failure.message });
    const sig = encodeURIComponent(Buffer.from(signature).toString('base64'));
    const token = `SharedAccessSignature sr=${resource}&sig=${sig}&se=${wanted.expiry}`;
    print({ outcome: status, deviceId, assignedHub, token });
  });
});

function print(line) {
  // Some of its transports leave timers behind that keep the process.
  process.stdout.write(`${JSON.stringify(line)}\n`, () => process.exit(0));
}

function refusal(error) {
  const said = error.message ?? error.description ?? JSON.stringify(error);
  const refused = error.name === 'UnauthorizedError' || /unauthorized|authentication|401002/i.test(said);
  return { outcome: refused ? 'refused' : 'failed', error: `${error.name}: ${said}` };
}
