"use strict";

const { spawn } = require("node:child_process");
const { createHmac } = require("node:crypto");
const { once } = require("node:events");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const readline = require("node:readline");

/** The folders of emulators that nobody has stopped. */
const folders = new Set();
process.on("exit", () => folders.forEach(remove));

function remove(folder) {
  folders.delete(folder);
  fs.rmSync(folder, { recursive: true, force: true });
}

/** See index.d.ts. */
class Emulator {
  #child;
  #folder;

  constructor(child, folder, ready) {
    this.#child = child;
    this.#folder = folder;
    const { idScope, httpsPort, mqttPort, amqpPort, adminPort, caFile, groupKey } = ready;
    Object.assign(this, { idScope, httpsPort, mqttPort, amqpPort, adminPort, caFile, groupKey });
  }

  port(transport) {
    const { httpsPort, mqttPort, amqpPort } = this;
    const ports = { http: httpsPort, mqtt: mqttPort, "mqtt-ws": httpsPort, amqp: amqpPort, "amqp-ws": httpsPort };
    if (!Object.hasOwn(ports, transport)) {
      throw new TypeError(`${transport} is no transport; there are ${Object.keys(ports).join(", ")}`);
    }
    return ports[transport];
  }

  deriveKey(registrationId) {
    if (this.groupKey === null) {
      throw new Error("this emulator has no group key: its configuration has the enrollments");
    }
    return createHmac("sha256", Buffer.from(this.groupKey, "base64")).update(registrationId).digest("base64");
  }

  environment(registrationId, transport = "http") {
    return {
      DPS_ENDPOINT: `localhost:${this.port(transport)}`,
      DPS_TRANSPORT: transport,
      DPS_CA_FILE: this.caFile,
      DPS_ID_SCOPE: this.idScope,
      DPS_REGISTRATION_ID: registrationId,
      DPS_SYMMETRIC_KEY: this.deriveKey(registrationId),
    };
  }

  async events() {
    const lines = await this.admin("GET", "/events");
    return lines.split("\n").filter(Boolean).map((line) => JSON.parse(line));
  }

  async admin(method, path, body) {
    const content = body === undefined ? {} : { body: JSON.stringify(body) };
    const headers = { "content-type": "application/json" };
    const answer = await fetch(`http://localhost:${this.adminPort}${path}`, { method, headers, ...content });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status}: ${text.trim()}`);
    return text;
  }

  async stop() {
    await end(this.#child);
    remove(this.#folder);
  }

  // Older versions of Node have no such symbol.
  async [Symbol.asyncDispose ?? Symbol.for("nodejs.asyncDispose")]() {
    await this.stop();
  }
}

async function startEmulator(options = {}) {
  const program = options.program ?? path.join(__dirname, "bin", "dps");
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "dps-emulator-"));
  folders.add(folder);
  const flags = ["emulate", "--stop-at-eof", "--ca-out", path.join(folder, "ca.pem"), ...(options.arguments ?? [])];
  if (options.fast ?? true) flags.push("--fast");
  // Its input ends when this process does, however that happens, and then it stops.
  const child = spawn(program, flags, { stdio: ["pipe", "pipe", "pipe"] });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (said = (said + text).slice(-10_000)));
  child.stdin.on("error", () => {});
  const limit = options.startTimeout ?? 30_000;
  const timer = setTimeout(() => child.kill("SIGKILL"), limit);
  try {
    const line = await firstLine(child, `${program} ${flags.join(" ")}`, () => said.trim() || `it said nothing in ${limit} ms`);
    // It keeps this process from ending as little as a timer that was cleared: who forgets to stop it gets no test that hangs.
    for (const handle of [child, child.stdin, child.stdout, child.stderr]) handle.unref();
    return new Emulator(child, folder, JSON.parse(line));
  } catch (error) {
    remove(folder);
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

function firstLine(child, command, why) {
  return new Promise((resolve, reject) => {
    child.once("error", (error) => reject(new Error(`${command} can't be started: ${error.message}`)));
    child.once("close", (code, signal) => reject(new Error(`\`${command}\` ended with ${code ?? signal} before it served: ${why()}`)));
    // All that follows is read away: it would wait for a reader.
    readline.createInterface({ input: child.stdout }).once("line", resolve);
  });
}

async function end(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.ref();
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), 10_000);
  await ended;
  clearTimeout(timer);
}

module.exports = { startEmulator };
