"use strict";
// Shows what happens to each device. Every text from outside is set as text, never as markup.

const DEVICES = 200; // As many are kept; those not heard of for longest give way.
const STEPS = 30; // As many of each.
const ASKS = {
  register: "asks to register",
  query: "asks for its status",
  lookup: "asks what has become of its last registration",
  "onboarding-update": "asks for an update before it is assigned",
  "software-update": "asks for an update",
  "update-status": "reports on an update",
  unknown: "asks for what is not known",
};
const at = (id) => document.getElementById(id);
const rows = at("rows");
const devices = new Map();
const transports = new Map();
let last = -1;
let missed = 0;
let run = null;
let frozen = false;
let ahead = 0;

// Where the port wants a token, it is opened as http://HOST:PORT/#token=TOKEN: what follows # is sent to nobody.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const headers = token ? { Authorization: `Bearer ${token}` } : {};

async function ask(method, path, body) {
  const json = body === undefined ? {} : { "Content-Type": "application/json" };
  const answer = await fetch(path, { method, headers: { ...headers, ...json }, body: body && JSON.stringify(body) });
  const text = await answer.text();
  const said = text ? JSON.parse(text) : {};
  if (!answer.ok) throw new Error(said.error ? `${said.error.field}: ${said.error.message}` : `status ${answer.status}`);
  return said;
}

function element(name, text, of = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(of)) made.dataset[key] = value;
  return made;
}

function device(id) {
  const key = id.toLowerCase();
  let known = devices.get(key);
  if (known === undefined) {
    known = { row: element("tr"), status: element("span"), steps: element("ol") };
    known.status.className = "status";
    const [name, status, steps] = [element("td", id || "(no id)"), element("td"), element("td")];
    status.append(known.status);
    steps.append(known.steps);
    known.row.append(name, status, steps);
  }
  // The newest first, in the table as in the map's last place.
  devices.delete(key);
  devices.set(key, known);
  rows.prepend(known.row);
  while (devices.size > DEVICES) {
    const [oldest, { row }] = devices.entries().next().value;
    devices.delete(oldest);
    row.remove();
  }
  return known;
}

function kind(status) {
  if (status === "assigned") return "good";
  return status === "assigning" || status === "unassigned" ? "wait" : "bad";
}

function step(event, text, bad, status) {
  const { steps, status: shown, row } = device(event.registrationId ?? event.deviceId);
  const line = element("li", undefined, { kind: bad ? "bad" : "" });
  const time = element("time", new Date(event.time).toLocaleTimeString([], { hour12: false }));
  time.dateTime = event.time;
  const transport = event.transport ?? transports.get(event.connection) ?? "";
  line.append(time, element("span", transport), element("span", text));
  steps.prepend(line);
  while (steps.children.length > STEPS) steps.lastChild.remove();
  if (status) {
    shown.textContent = status;
    shown.dataset.kind = bad ? "bad" : kind(status);
  }
  filter(row);
}

function show(event) {
  if (event.sequence !== undefined) {
    missed += event.sequence - last - 1;
    last = event.sequence;
  }
  if (transports.size > 4096) transports.clear();
  // Over WebSocket the credential comes before any request that tells the protocol.
  const by = event.event === "connected" && event.transport === "http" ? "websocket" : event.transport;
  if (by) transports.set(event.connection, by);
  switch (event.event) {
    case "request": {
      const what = ASKS[event.operation];
      step(event, event.force ? `${what}, with a forced allocation` : what, false);
      break;
    }
    case "authenticated":
      step(event, `is let in by enrollment ${event.enrollment} (${event.method})`, false);
      break;
    case "authentication-failed":
      step(event, `is refused: ${event.reason} (${event.errorCode})`, true, "refused");
      break;
    case "answer": {
      const refused = event.status >= 300;
      const bad = refused || Boolean(event.errorCode);
      const code = event.errorCode ? `, error code ${event.errorCode}` : "";
      const wait = event.retryAfter.length ? `, retry-after ${event.retryAfter.join(", ")}` : "";
      const fault = event.delivery === "whole" ? "" : `, delivered as ${JSON.stringify(event.delivery)}`;
      const word = event.registrationStatus ? ` ${event.registrationStatus}` : "";
      // What else is answered says nothing of where the device stands.
      const tells = event.operation === "register" || event.operation === "query";
      step(event, `is answered ${event.status}${word}${code}${wait}${fault}`, bad, tells && (refused ? "refused" : event.registrationStatus));
      break;
    }
    case "webhook-answered":
      step(event, event.hub ? `gets the hub ${event.hub} from the webhook` : `gets no hub: ${event.reason}`, !event.hub);
      break;
    case "hub-connected":
      step(event, `is connected to its hub ${event.hub} as ${event.deviceId}`, false);
      break;
    case "hub-refused":
      step(event, `is refused by the hub ${event.hub}: ${event.reason}`, true);
      break;
    case "telemetry":
      step(event, `sends a message of ${event.bodyBytes} bytes to its hub`, false);
      break;
    case "hub-request":
      step(event, `asks its hub for ${event.operation}, and is answered ${event.statuses.join(", ")}`, event.statuses.some((status) => status >= 300));
      break;
    case "closed":
      transports.delete(event.connection);
      break;
    case "reset":
      forget();
      clock().catch(() => {}); // The end of the stream says that the emulator is gone.
      break;
    default:
      if (event.registrationId) step(event, event.event, false);
  }
}

function forget() {
  missed = 0;
  devices.clear();
  transports.clear();
  rows.replaceChildren();
}

function filter(row) {
  const wanted = at("filter").value.trim().toLowerCase();
  row.hidden = !row.textContent.toLowerCase().includes(wanted);
}

function summarize() {
  const shown = [...devices.values()].filter(({ row }) => !row.hidden).length;
  const all = devices.size === 1 ? "1 device" : `${devices.size} devices`;
  const gone = missed === 0 ? "" : `. ${missed} events are not shown: they are no longer kept.`;
  const text = (devices.size === 0 ? "No device yet." : shown === devices.size ? all : `${shown} of ${all}`) + gone;
  if (at("summary").textContent !== text) at("summary").textContent = text;
  at("empty").hidden = devices.size > 0;
  document.querySelector("table").hidden = devices.size === 0;
}

// Server-sent events by fetch, since an EventSource can show no token.
async function follow() {
  const answer = await fetch(`/events?after=${last}`.replace("after=-1", "since=0"), { headers: { ...headers, Accept: "text/event-stream" } });
  if (!answer.ok) throw new Error(answer.status === 401 ? "it wants a token: open /#token=TOKEN" : `status ${answer.status}`);
  state("live", "live");
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").find((line) => line.startsWith("data: "));
      if (data) show(JSON.parse(data.slice(6)));
    }
    summarize();
  }
}

function state(kind, text) {
  if (at("state").dataset.state === kind && at("state").textContent === text) return;
  at("state").dataset.state = kind;
  at("state").textContent = text;
}

async function stay() {
  for (;;) {
    let why = "the emulator is gone; trying again";
    try {
      const facts = await ask("GET", "/info");
      if (run !== facts.startedAt) {
        forget();
        [run, last] = [facts.startedAt, -1];
        summarize();
      }
      at("facts").textContent = `ID scope ${facts.idScope} · https ${facts.httpsPort} · mqtt ${facts.mqttPort} · amqp ${facts.amqpPort}`;
      await clock();
      await follow();
    } catch (error) {
      if (!(error instanceof TypeError)) why = error.message;
    }
    state("lost", why);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function clock(setting) {
  const reading = await ask(setting ? "PUT" : "GET", "/clock", setting);
  frozen = reading.frozen;
  ahead = Date.parse(reading.now) - Date.now();
  at("freeze").setAttribute("aria-pressed", String(frozen));
  tick(Date.parse(reading.now));
}

function tick(now) {
  const away = Math.round((now - Date.now()) / 60000);
  const off = away === 0 ? "" : ` (${away > 0 ? "+" : "−"}${Math.floor(Math.abs(away) / 60)} h ${Math.abs(away) % 60} min)`;
  at("clock").textContent = new Date(now).toISOString().slice(0, 19).replace("T", " ") + "Z" + off;
}

function on(id, act) {
  at(id).addEventListener("click", async () => {
    at("problem").hidden = true;
    try {
      await act();
    } catch (error) {
      at("problem").textContent = `That did not work: ${error.message}`;
      at("problem").hidden = false;
    }
  });
}

on("reset", () => ask("POST", "/reset", {}));
on("hour", () => clock({ advance: 3600 }));
on("freeze", () => clock({ frozen: !frozen }));
on("right", () => clock({ ahead: 0, frozen: false }));
at("controls").addEventListener("submit", (event) => event.preventDefault());
at("filter").addEventListener("input", () => {
  rows.childNodes.forEach(filter);
  summarize();
});
setInterval(() => run !== null && !frozen && tick(Date.now() + ahead), 1000);
stay();
