import { join } from 'node:path';
import { errnoCode } from '../errors.ts';
import type { StepCommand, StepOutcome, StepPath } from '../sandbox/sandbox.ts';
import { bufferOf, textOf } from '../spec/byte-string.ts';
import type { RunOp } from '../spec/spec.ts';
import { cachePlaceOf, placeOf, type BuildContext } from './build-context.ts';
import type { StoreStep } from './shared-builds.ts';
import type { StepHost } from './step-host.ts';
import { runOpId, secretsInPlace, type Secrets } from './step-id.ts';
import { stepStart } from './step-start.ts';

export type { Secrets } from './step-id.ts';

interface CacheToOpen {
  readonly name: string;
  readonly target: string;
}

/**
 * `(run …)`: a command in the tree of `base`.
 * @throws {StepRefused} when it wants a secret that there is none of.
 */
export function runStep(
  host: StepHost,
  { context, base, run, secrets }: { context: BuildContext; base: string; run: RunOp; secrets: Secrets },
): StoreStep {
  const { shell } = context;
  const mounted = secretsInPlace(run, secrets);
  const start = () => stepStart(host.sandbox, context, run.network);
  return {
    id: runOpId(context, { base, run, secrets: mounted }).id,
    base,
    start,
    prepare() {
      const step = {
        ...start(),
        argv: [...shell, run.shell].map(textOf),
        secrets: mounted.map(({ target, value }) => ({
          target: secretTarget(host, placeOf(context, target)),
          value: bufferOf(value),
        })),
      };
      const caches = run.cache.map(({ id, target }) => ({
        name: textOf(id),
        target: host.sandbox.locate(cachePlaceOf(context, target)),
      }));
      return (directory, output, signal, onWait) =>
        withCaches(host, caches, signal, (opened) =>
          host.sandbox.run({ ...step, caches: opened, onWait }, join(directory, 'rootfs'), output, signal),
        );
    },
  };
}

/** Outside of where a step works, a secret is not at its target but with the others, which every step can ask for. */
function secretTarget({ sandbox }: StepHost, path: StepPath): string {
  try {
    return sandbox.locate(path);
  } catch (error) {
    if (errnoCode(error) !== 'PATH_OUTSIDE' || path.from === 'root') throw error;
    return path.path;
  }
}

/** Gives `action` private copies of the caches. They are released however it ends: a failed step's downloads are worth keeping. */
async function withCaches(
  { store, sandbox }: StepHost,
  caches: readonly CacheToOpen[],
  signal: AbortSignal,
  action: (caches: StepCommand['caches']) => Promise<StepOutcome>,
): Promise<StepOutcome> {
  const opened: { target: string; directory: string; release(): Promise<void> }[] = [];
  try {
    for (const { name, target } of caches) {
      const cache = await store.openCache(name, undefined, signal);
      opened.push({ target, ...cache });
      // Whatever user the spec names, the step runs as the sandbox's; an earlier one's may have filled the cache.
      await sandbox.adopt(cache.directory);
    }
    return await action(opened);
  } finally {
    const releases = await Promise.allSettled(opened.map((cache) => cache.release()));
    throwFirst(releases);
  }
}

function throwFirst(settled: readonly PromiseSettledResult<void>[]): void {
  for (const result of settled) if (result.status === 'rejected') throw result.reason as Error;
}
