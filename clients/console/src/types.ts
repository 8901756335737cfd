// What the gateway answers, as far as the page looks at it (clients/PROTOCOL.md).

export interface Info {
  version: string;
  model_type: string;
  layers: number;
  context: number;
  max_sequences: number;
  precision: string;
  has_chat_template: boolean;
  top_k: number;
  fingerprint: string;
  notes: string[];
  modules: { name: string; version: string; enabled: boolean }[];
  epoch: number;
}

export interface LibraryState {
  isolation: string;
  state: string;
  calls: number;
  failures: number;
  restarts: number;
  last_error?: string;
}

export interface Module {
  name: string;
  version: string;
  domain: string;
  description: string;
  digest: string;
  license: string;
  kind: string;
  attach: string;
  enabled: boolean;
  bias: number;
  experts: number;
  resident_bytes: number;
  state: string;
  path?: string;
  precision?: string; // in which its experts are kept
  lambda?: Record<string, number>; // of an assembly: how much of each parent
  library?: LibraryState;
}

export interface Modules {
  modules: Module[];
  top_k?: number;
  epoch: number;
}

/** A module as a composition states it: what is its recipe's or the deployment's to say is left out. */
export interface Entry {
  path: string;
  enabled: boolean;
  bias: number;
  lambda?: Record<string, number>;
  precision?: string;
  weight?: number; // of a bundle, beside others
}

export interface EpochModule extends Entry {
  name: string;
  version: string;
}

export interface EpochRecord {
  epoch: number;
  time: string;
  composition: string;
  modules: EpochModule[];
  revoked: string[];
  top_k?: number;
}

export interface Epochs {
  live: { epoch: number; composition: string; sequences: number; current: boolean }[];
  history: EpochRecord[];
  epoch: number;
}

export interface Layer {
  layer: number;
  tokens: number;
  entropy: number;
  modules: Record<string, { share: number; experts: number[] }>;
}

export interface Routing {
  since: string;
  layers: Layer[];
}

export interface MemoryPart {
  use: string;
  name?: string;
  bytes: number;
}

export interface Stats {
  engine: Record<string, number>;
  server: Record<string, number> & { draining: boolean };
  memory: { budget_bytes: number; used_bytes: number; free_bytes: number; source: string; parts: MemoryPart[] };
}

export interface Change {
  action: string;
  module: string;
  detail: string;
}

export interface Plan {
  accepted: boolean;
  changes: Change[];
  memory_bytes: number;
  refusals: { code: string; message: string; hint: string }[];
  notes: string[];
}

/** A composition as `plan` takes it. */
export interface Composition {
  top_k?: number;
  modules: Entry[];
}
