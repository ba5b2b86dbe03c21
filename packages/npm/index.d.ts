/** The name of a transport, as `dps register --transport` takes it. */
export type Transport = "http" | "mqtt" | "mqtt-ws" | "amqp" | "amqp-ws";

export interface Options {
  /** Flags of `dps emulate`, like `["--config", "emulator.toml"]`. */
  arguments?: readonly string[];
  /** Whether devices are assigned at once, as without it; else with the seconds of waiting that the service takes. */
  fast?: boolean;
  /** How long it may take to start, in milliseconds; 30 000 without it. */
  startTimeout?: number;
  /** The command to run; the one of this package without it. */
  program?: string;
}

/** What happened in the emulator: a connection, an authentication, a request or an answer. */
export interface EmulatorEvent {
  event: string;
  [field: string]: unknown;
}

/** An emulator that runs until `stop`, or until this process ends. */
export interface Emulator extends AsyncDisposable {
  readonly idScope: string;
  /** For HTTPS and every WebSocket. */
  readonly httpsPort: number;
  readonly mqttPort: number;
  readonly amqpPort: number;
  readonly adminPort: number;
  /** Path of the certificate of the authority that devices must trust. */
  readonly caFile: string;
  /** The group's key in base64; null when a configuration file has enrollments of its own. */
  readonly groupKey: string | null;
  /** The port for a transport. */
  port(transport: Transport): number;
  /** The key of a device of the group, in base64. */
  deriveKey(registrationId: string): string;
  /** The variables by which `dps register` registers this device here. */
  environment(registrationId: string, transport?: Transport): Record<string, string>;
  /** What happened so far, oldest first. */
  events(): Promise<EmulatorEvent[]>;
  /** A request to the admin port, with a body as JSON; the answer's body. Rejects when it is refused. */
  admin(method: string, path: string, body?: unknown): Promise<string>;
  /** Stops it. Doing so again does nothing. */
  stop(): Promise<void>;
}

/** Starts `dps emulate` on free ports; by default every device is assigned that shows a key derived from the group key. */
export function startEmulator(options?: Options): Promise<Emulator>;
