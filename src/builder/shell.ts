import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { errnoCode } from '../errors.ts';
import { readImageEnv } from './from-step.ts';
import type { FailedStep } from './shared-builds.ts';
import type { StepHost } from './step-host.ts';
import { startAtHome, type StepStart } from './step-start.ts';

/** What to run in a tree, and who looks on. */
export interface ShellRequest {
  readonly argv: readonly string[];
  /** With this process's terminal, or else with streams. */
  readonly io: 'terminal' | { readonly stdin: Readable; readonly output: (chunk: Uint8Array) => void };
  /** Hears what is waited for. */
  readonly note: (text: string) => void;
  readonly signal: AbortSignal;
}

export type ShellEnding =
  | { readonly status: 'exited'; readonly exitStatus: number }
  /** It could not be run, or was stopped. */
  | { readonly status: 'failed'; readonly message: string }
  | { readonly status: 'cancelled' };

type Host = Pick<StepHost, 'store' | 'sandbox'>;

/**
 * Runs a command as a step is run, in a private copy of a result, or of what was kept of a failed step, which is removed afterwards. It
 * starts where the failed step did, with its variables; what the spec set before a result is not known any more, so there it starts at the
 * home with those of the image. @throws {ObuilderError} NO_SUCH_RESULT
 */
export async function lookAtResult(host: Host, id: string, request: ShellRequest): Promise<ShellEnding> {
  const { note, signal } = request;
  return await tellExit((onExit) =>
    host.store.withCopy(
      { id, onWait: (what) => note(`Waiting for ${what}`) },
      async (directory) => {
        const start =
          (await keptStart(directory)) ?? startAtHome(host.sandbox, await readImageEnv(directory));
        return await runIn(host, { directory, start, onExit }, request);
      },
      signal,
    ),
  );
}

/** As `lookAtResult`, in the tree of a failed step itself; to be called before it is discarded. */
export async function lookAtFailed(
  host: Host,
  step: FailedStep,
  request: ShellRequest,
): Promise<ShellEnding> {
  return await tellExit((onExit) => runIn(host, { ...step, onExit }, request));
}

/** Keeps the tree of a failed step for `lookAtResult`; to be called before it is discarded. As Store.keepFailed. */
export async function keepFailed(
  { store }: Host,
  { id, directory, start }: FailedStep,
): Promise<string | undefined> {
  await writeFile(join(directory, START), JSON.stringify(start), { mode: 0o600 });
  return await store.keepFailed(id);
}

interface Look {
  readonly directory: string;
  readonly start: StepStart;
  readonly onExit: (exitStatus: number) => void;
}

async function runIn({ sandbox }: Host, { directory, start, onExit }: Look, request: ShellRequest) {
  const { argv, io, note, signal } = request;
  const onWait = () => note('Waiting for a build user: all are busy with steps');
  const command = { ...start, argv, secrets: [], caches: [], onWait, onExit };
  const rootfs = join(directory, 'rootfs');
  return io === 'terminal'
    ? await sandbox.run({ ...command, onTerminal: true }, rootfs, () => undefined, signal)
    : await sandbox.run({ ...command, stdin: io.stdin }, rootfs, io.output, signal);
}

/** A command that failed by itself has been looked at; one that could not be run, or was stopped, tells no exit status. */
async function tellExit(
  run: (onExit: (exitStatus: number) => void) => ReturnType<typeof runIn>,
): Promise<ShellEnding> {
  let exitStatus: number | undefined;
  const outcome = await run((status) => (exitStatus = status));
  if (outcome.status === 'ok') return { status: 'exited', exitStatus: 0 };
  return outcome.status === 'failed' && exitStatus ? { status: 'exited', exitStatus } : outcome;
}

/** Beside the tree of a failed step: where it started. */
const START = 'start.json';

async function keptStart(directory: string): Promise<StepStart | undefined> {
  try {
    return JSON.parse(await readFile(join(directory, START), 'utf8')) as StepStart;
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}
