import { errnoCode } from '../errors.ts';
import type { Fetcher } from '../fetcher/fetcher.ts';
import { parseSpec } from '../spec/parse-spec.ts';
import { createBuilder, type BuildResult } from './builder.ts';
import type { StepHost } from './step-host.ts';
import { fromStepId } from './step-id.ts';

/** `message` says what is wrong, with what the step printed after it. */
export type Health = { readonly status: 'passed' } | { readonly status: 'failed'; readonly message: string };

/**
 * Runs OBuilder's healthcheck, `echo healthcheck` by /bin/sh, as a step like any other: build user, home, mount and store all have to
 * work. Its base is an empty tree, so that it needs no image. Nothing of it stays in the store.
 */
export type Healthcheck = (signal?: AbortSignal) => Promise<Health>;

const TIMEOUT_MS = 300_000;
/** OBuilder's commands, on a base that no image has the name of. */
const SPEC = '((from obuilder-fs-healthcheck) (shell /bin/sh -c) (run (shell "echo healthcheck")))';

export function createHealthcheck(host: StepHost, timeoutMs = TIMEOUT_MS): Healthcheck {
  const builder = createBuilder({ ...host, fetcher: emptyImage });
  const spec = parseSpec(SPEC, 'healthcheck');

  async function removeResults(): Promise<void> {
    try {
      await host.store.delete(fromStepId(spec.from).id);
    } catch (error) {
      if (errnoCode(error) !== 'RESULT_BUSY') throw error; // another healthcheck is using it, and will remove it
    }
  }

  return async (signal) => {
    const timeout = AbortSignal.timeout(timeoutMs);
    await removeResults(); // a killed one's: the step must really run
    const said: Uint8Array[] = [];
    try {
      const result = await builder.build(spec, {
        sourceDirectory: '/',
        secrets: new Map(),
        emit: (event) => event.type === 'output' && said.push(event.data),
        signal: signal === undefined ? timeout : AbortSignal.any([timeout, signal]),
      });
      if (result.status === 'cancelled' && !timeout.aborted)
        return { status: 'failed', message: 'cancelled' };
      return healthOf(result, Buffer.concat(said).toString().trim());
    } finally {
      await builder.idle();
      await removeResults();
    }
  };
}

const emptyImage: Fetcher = { fetch: () => Promise.resolve([]) };

function healthOf(result: BuildResult, said: string): Health {
  switch (result.status) {
    case 'saved':
    case 'loaded':
      return said === 'healthcheck'
        ? { status: 'passed' }
        : { status: 'failed', message: `the step printed ${JSON.stringify(said)}, not "healthcheck"` };
    case 'failed':
      return { status: 'failed', message: said === '' ? result.message : `${result.message}\n${said}` };
    case 'cancelled':
      return { status: 'failed', message: 'Timeout running healthcheck' };
  }
}
