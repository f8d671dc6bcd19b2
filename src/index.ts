/// <reference types="node" preserve="true" />
export type { BuildEvent } from './builder/build-event.ts';
export type { BuildResult } from './builder/builder.ts';
export type { Health } from './builder/healthcheck.ts';
export {
  createBuilder,
  type BuilderOptions,
  type BuildOptions,
  type EmbeddedBuilder,
  type RunningBuild,
} from './cli/embedded-builder.ts';
export { createMount, type Mount, type MountOptions } from './cli/embedded-mount.ts';
export { ObuilderError } from './errors.ts';
export { SpecError } from './spec/spec-error.ts';
export type { ResultRecord, StoreUsage } from './store/store.ts';
