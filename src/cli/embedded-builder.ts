import { join } from 'node:path';
import type { BuildEvent } from '../builder/build-event.ts';
import { savedLog } from '../builder/build-log.ts';
import type { BuildResult } from '../builder/builder.ts';
import type { Health } from '../builder/healthcheck.ts';
import type { ObuilderVersion } from '../builder/obuilder-version.ts';
import { checkRoot } from '../fs/prefix-path.ts';
import { parseSpec } from '../spec/parse-spec.ts';
import type { ResultRecord, StoreUsage } from '../store/store.ts';
import { composeBuildHost, type BuildHost } from './compose.ts';
import { EventQueue } from './event-queue.ts';
import type { HostChoices } from './host-choices.ts';
import { hostOptions } from './host-options.ts';
import { readContext } from './spec-inputs.ts';
import { directoryOfResult } from './stored-result.ts';

/** What `obuilder-fs build` takes of a machine, with the same defaults. */
export type BuilderOptions = HostChoices;

export interface BuildOptions {
  /** The directory that `(copy …)` copies from. */
  readonly context: string;
  /** The values of secrets by their ids. */
  readonly secrets?: Readonly<Record<string, string | Uint8Array>>;
  /** Whose ids name the results (default `head`). */
  readonly ids?: ObuilderVersion;
  /** Ends the build; its result is then `cancelled`. */
  readonly signal?: AbortSignal;
}

/**
 * A build under way. Iterating it gives its log events in order, from the first, to one reader; events wait in memory until they are
 * read, or until the reader stops. It ends with the build, and throws what `result` rejects with.
 */
export interface RunningBuild extends AsyncIterable<BuildEvent> {
  /**
   * A failed build is an answer; so is a cancelled one.
   * Rejects with an ObuilderError when the machine cannot build, or with a SpecError when the spec does not parse.
   */
  readonly result: Promise<BuildResult>;
}

/** What `obuilder-fs build`, `healthcheck`, `log`, `store`, `delete` and `clean` do, on one store, with its build users. */
export interface EmbeddedBuilder {
  /** Any number of builds may be under way: they share steps; those that must run take turns as the build users. */
  build(spec: string | Uint8Array, options: BuildOptions): RunningBuild;
  healthcheck(options?: { readonly signal?: AbortSignal }): Promise<Health>;
  /** Every result in the store, the longest unused first. */
  results(): ResultRecord[];
  /** What the step of a result printed. @throws {ObuilderError} NO_SUCH_RESULT */
  log(id: string, output: (chunk: Uint8Array) => void, signal?: AbortSignal): Promise<void>;
  usage(): Promise<StoreUsage>;
  /** Removes a result, those made from it first. @throws {ObuilderError} RESULT_BUSY */
  delete(id: string, removed?: (id: string) => void): Promise<void>;
  /** Removes results not used since `before`, the longest unused first; answers how many. */
  prune(before: Date, limit?: number, removed?: (id: string) => void): Promise<number>;
  /** Waits for what is under way, then gives everything back: mount, build users, store. Abort the builds first to be quick. */
  close(): Promise<void>;
}

/** @throws {ObuilderError} NOT_ROOT, and what opening the store may throw. Nothing is mounted before a step needs it. */
export async function createBuilder(options: BuilderOptions = {}): Promise<EmbeddedBuilder> {
  checkRoot('building');
  const host = await composeBuildHost(hostOptions(options));
  const { store } = host;
  const running = new Set<Promise<unknown>>();
  return {
    build(spec, buildOptions) {
      const build = startBuild(host, spec, buildOptions);
      running.add(build.result);
      const forget = () => running.delete(build.result);
      build.result.then(forget, forget);
      return build;
    },
    healthcheck: ({ signal } = {}) => host.healthcheck(signal),
    results: () => store.records(),
    async log(id, output, signal = never()) {
      await savedLog(join(await directoryOfResult(store, id), 'log'))(output, signal);
    },
    usage: () => store.usage(),
    delete: (id, removed) => store.delete(id, removed),
    prune: (before, limit = Infinity, removed) => store.prune(before, limit, removed),
    async close() {
      await Promise.allSettled(running);
      await host.close();
    },
  };
}

function startBuild(host: BuildHost, spec: string | Uint8Array, options: BuildOptions): RunningBuild {
  const events = new EventQueue<BuildEvent>();
  const result = build(host, spec, options, (event) => events.push(event));
  // Who only reads the events hears of a failure there.
  result.then(
    () => events.end(),
    (error: unknown) => events.fail(error),
  );
  return { result, [Symbol.asyncIterator]: () => events };
}

async function build(
  host: BuildHost,
  spec: string | Uint8Array,
  { context, secrets = {}, ids = 'head', signal = never() }: BuildOptions,
  emit: (event: BuildEvent) => void,
): Promise<BuildResult> {
  const values = Object.entries(secrets).map(([id, value]) => [id, Buffer.from(value)] as const);
  const request = { sourceDirectory: readContext(context), secrets: new Map(values), ids, emit, signal };
  return await host.builder.build(parseSpec(Buffer.from(spec)), request);
}

function never(): AbortSignal {
  return new AbortController().signal;
}
