import { spawn } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { ObuilderError } from '../../src/errors.ts';
import type { Sandbox, StepCommand, StepOutcome } from '../../src/sandbox/sandbox.ts';

export interface MockSandbox extends Sandbox {
  /** Every command that was run, in order. */
  readonly commands: StepCommand[];
  readonly adopted: string[];
  /** The signals that they got. */
  readonly signals: AbortSignal[];
  readonly isClosed: boolean;
  /** Makes an empty file in the tree of the command with that index (-1: the last). */
  write(command: number, path: string): void;
  /** What `run` throws from now on, before it runs anything. */
  breakWith(error: Error | undefined): void;
  /** Called with each command before it runs. */
  onRun(listener: (command: StepCommand) => void): void;
}

/**
 * Runs steps without any isolation, as the golden data was made: a spec's `/` is the tree's top, `$ROOTFS` names the tree,
 * a command starts at its cwd in the tree, if there is one. Cancelling sends SIGTERM and waits. Absolute paths below `/outside` are refused.
 */
export function createMockSandbox(): MockSandbox {
  const commands: StepCommand[] = [];
  const adopted: string[] = [];
  const signals: AbortSignal[] = [];
  const trees: string[] = [];
  let broken: Error | undefined;
  let listener: (command: StepCommand) => void = () => undefined;
  let isClosed = false;
  return {
    commands,
    adopted,
    signals,
    write(command, path) {
      writeFileSync(join(trees.at(command) ?? '/nonexistent', path), '');
    },
    breakWith(error) {
      broken = error;
    },
    onRun(newListener) {
      listener = newListener;
    },
    get isClosed() {
      return isClosed;
    },
    locate({ from, path }) {
      if (path.startsWith('/outside')) {
        throw new ObuilderError('PATH_OUTSIDE', `${path}: lies outside of what a step may use: /`);
      }
      return from === 'root' ? posix.join('/', path) : path;
    },
    inTree: (located) => posix.relative('/', located),
    adopt(rootfs) {
      adopted.push(rootfs);
      return Promise.resolve();
    },
    async run(command, rootfs, output, signal) {
      if (broken !== undefined) throw broken;
      commands.push(command);
      signals.push(signal);
      trees.push(rootfs);
      listener(command);
      return await runInTree(command, rootfs, output, signal);
    },
    close() {
      isClosed = true;
      return Promise.resolve();
    },
  };
}

async function runInTree(
  command: StepCommand,
  rootfs: string,
  output: (chunk: Uint8Array) => void,
  signal: AbortSignal,
): Promise<StepOutcome> {
  const cwd = existsSync(join(rootfs, command.cwd)) ? join(rootfs, command.cwd) : rootfs;
  const [file = '', ...args] = command.argv;
  const env = Object.fromEntries([...command.env, ['ROOTFS', rootfs]]) as NodeJS.ProcessEnv;
  // The end of the line may leave sleepers behind that hold the pipes: kill the whole group, as sandboxes do.
  // Without input: no pipe, which Node makes a socket, for which bash takes itself to be remote and reads ~/.bashrc.
  const stdin = command.stdin === undefined ? 'ignore' : 'pipe';
  const child = spawn(file, args, { cwd, env, stdio: [stdin, 'pipe', 'pipe'], detached: true });
  const ended = new Promise<{ code: number | null; by: NodeJS.Signals | null }>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, by) => resolve({ code, by }));
  });
  child.stdout?.on('data', output);
  child.stderr?.on('data', output);
  // A failing source closes the pipe; the step that sends it knows why.
  if (command.stdin !== undefined && child.stdin !== null) {
    pipeline(command.stdin, child.stdin).catch(() => undefined);
  }
  const stop = () => {
    if (child.pid !== undefined) process.kill(-child.pid, 'SIGTERM');
  };
  signal.addEventListener('abort', stop);
  const { code, by } = await ended;
  signal.removeEventListener('abort', stop);
  if (signal.aborted) return { status: 'cancelled' };
  if (code === 0) return { status: 'ok' };
  const how = by === null ? `exit status ${code ?? -1}` : `signal ${by}`;
  return {
    status: 'failed',
    message: `${command.argv.map((arg) => `"${arg}"`).join(' ')} failed with ${how}`,
  };
}
