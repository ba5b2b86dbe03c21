// Run by `cargo xtask installs`, with the package installed.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { connect } from "node:net";
import { test } from "node:test";
import { startEmulator } from "dps-emulator";

const serves = (port) =>
  new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => resolve(true));
    socket.on("error", () => resolve(false)).unref();
  });

for (const end of ["process.kill(process.pid, 'SIGKILL')", "throw new Error('crash')", "undefined"]) {
  test(`it ends with a program that ends by ${end}`, async () => {
    const script = `require("dps-emulator").startEmulator().then((it) => { console.log(it.adminPort, it.caFile); ${end} })`;
    const ended = spawnSync(process.execPath, ["-e", script], { encoding: "utf8", timeout: 60_000 });
    const [port, caFile] = ended.stdout.trim().split(" ");
    assert.ok(Number(port) > 0, ended.stderr);
    const begin = Date.now();
    while (await serves(port)) assert.ok(Date.now() - begin < 60_000, "it still serves");
    assert.equal(existsSync(caFile), end.includes("SIGKILL"));
  });
}

test("what it said is in the error", async () => {
  const wrong = startEmulator({ arguments: ["--https-port", "none"] });
  await assert.rejects(wrong, /--https-port.*none.*give a number/);
  await assert.rejects(startEmulator({ program: "/no/dps" }), /\/no\/dps .*can't be started/);
});

test("a key is that of the command, and a transport is one of five", async (t) => {
  const emulator = await startEmulator();
  t.after(() => emulator.stop());
  const flags = ["derive-key", "--registration-id", "Pump-17", "--group-key-file", "-"];
  const key = execFileSync("node_modules/.bin/dps", flags, { encoding: "utf8", input: emulator.groupKey });
  assert.equal(emulator.deriveKey("Pump-17"), key.trim());
  assert.throws(() => emulator.environment("pump-17", "pigeon"), /pigeon.*amqp-ws/);
});

test("stopping it again does nothing, and what is refused rejects", async () => {
  const emulator = await startEmulator();
  await assert.rejects(emulator.admin("GET", "/nonsense"), /404/);
  await emulator[Symbol.asyncDispose]();
  await emulator.stop();
  assert.equal(await serves(emulator.adminPort), false);
  assert.equal(existsSync(emulator.caFile), false);
});
