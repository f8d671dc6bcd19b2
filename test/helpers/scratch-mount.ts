import { execFileSync, spawn, spawnSync, type ChildProcessByStdio } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';

/** Uids of the mount tests' own; they need no accounts. */
export const anna = 7731;
export const bert = 7732;
/** Has no scoreboard entry. */
export const carl = 7733;
/** Has a broken one. */
export const dora = 7734;
export const callers = [anna, bert, carl, dora] as const;

const root = fileURLToPath(new URL('../..', import.meta.url));
export const mainProgram = join(root, 'dist/cli/main.js');
export const obuilderfsProgram = join(root, 'dist/cli/obuilderfs.js');

const SCRATCH_PARENT = '/var/tmp';
const SCRATCH_NAME = 'obuilder-fs-test';
/** Guards against hangs; nothing here takes a tenth of it. */
const HANG_MS = 60_000;

export const whyNoMounts: string | undefined =
  process.platform !== 'linux'
    ? 'real mounts are tested on Linux'
    : process.getuid?.() !== 0
      ? 'mounting takes root'
      : !existsSync('/dev/fuse')
        ? 'there is no /dev/fuse'
        : undefined;

export interface CommandAnswer {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A directory of a test's own: a scoreboard, two callers' directories, a prefix with content of its own, a state directory. */
export interface ScratchMount {
  readonly directory: string;
  readonly prefix: string;
  readonly scoreboard: string;
  readonly stateDir: string;
  path(name: string): string;
  /** Runs obuilder-fs with this state directory. */
  run(args: readonly string[]): CommandAnswer;
  /** Mounts the prefix in the background. */
  mount(...options: string[]): void;
  /** The pid of the process that serves the prefix. */
  servingPid(): number;
  point(entry: string | number, target: string): void;
  makeTree(name: string, uid: number): string;
  /** Takes away every mount below the directory, then the directory. */
  close(): void;
}

export function createScratchMount(): ScratchMount {
  const directory = makeScratchDirectory();
  const path = (name: string) => join(directory, name);
  const [prefix, scoreboard, stateDir] = [path('prefix'), path('scoreboard'), path('state')];
  for (const made of [prefix, scoreboard, stateDir]) mkdirSync(made, { mode: 0o755 });
  mkdirSync(join(prefix, 'lib'));
  writeFileSync(join(prefix, 'who'), 'covered');
  const scratch: ScratchMount = {
    directory,
    prefix,
    scoreboard,
    stateDir,
    path,
    run: ([command = '', ...args]) =>
      runProgram([process.execPath, mainProgram, command, `--state-dir=${stateDir}`, ...args]),
    mount(...options) {
      const answer = scratch.run(['mount', prefix, `--scoreboard=${scoreboard}`, '--daemon', ...options]);
      if (answer.code !== 0) throw new Error(`mount failed: ${answer.stderr}`);
    },
    servingPid() {
      const status = JSON.parse(scratch.run(['status', '--json']).stdout) as {
        mounts: { prefix: string; pid?: number }[];
      };
      const pid = status.mounts.find((mount) => mount.prefix === prefix)?.pid;
      if (pid === undefined) throw new Error('nothing serves the prefix');
      return pid;
    },
    point(entry, target) {
      const link = join(scoreboard, '.new');
      rmSync(link, { force: true });
      execFileSync('ln', ['-s', target, link]);
      execFileSync('mv', ['-T', link, join(scoreboard, String(entry))]);
    },
    makeTree(name, uid) {
      const tree = path(name);
      for (const made of [tree, join(tree, 'local'), join(tree, 'local/lib')]) {
        mkdirSync(made);
        chownSync(made, uid, uid);
      }
      writeFileSync(join(tree, 'local/who'), name);
      chownSync(join(tree, 'local/who'), uid, uid);
      return tree;
    },
    close: () => removeScratch(directory),
  };
  scratch.point(anna, scratch.makeTree('anna', anna));
  scratch.point(bert, scratch.makeTree('bert', bert));
  scratch.point(dora, '/nowhere');
  return scratch;
}

/** Runs a command to its end, with a hang guard. */
export function runProgram(argv: readonly string[], input?: string): CommandAnswer {
  const [command = '', ...args] = argv;
  const options = { encoding: 'utf8', timeout: HANG_MS, ...(input !== undefined && { input }) } as const;
  const done = spawnSync(command, args, options);
  return { code: done.status, stdout: done.stdout, stderr: done.stderr };
}

/** The command that runs another as a uid without groups or capabilities. */
export function asUid(uid: number, argv: readonly string[]): string[] {
  return ['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--', ...argv];
}

/** As `asUid`, for a program of this checkout: the uid may not otherwise be able to read where it lies. */
export function asUidReadingAll(uid: number, argv: readonly string[]): string[] {
  const [setpriv = '', ...ids] = asUid(uid, argv);
  return [setpriv, '--inh-caps=+dac_read_search', '--ambient-caps=+dac_read_search', ...ids];
}

export function runAs(uid: number, argv: readonly string[]): CommandAnswer {
  return runProgram(asUid(uid, argv));
}

/** Mount points at or below a directory. */
export function mountsBelow(directory: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((point) => point === directory || point.startsWith(`${directory}/`));
}

/** A directory of this process's own, world-searchable; its name tells whose it is. What killed tests left is taken away first. */
export function makeScratchDirectory(): string {
  sweepScratchDirectories();
  const directory = mkdtempSync(join(SCRATCH_PARENT, `${SCRATCH_NAME}.${process.pid}.`));
  chmodSync(directory, 0o755);
  return directory;
}

function sweepScratchDirectories(): void {
  for (const name of readdirSync(SCRATCH_PARENT)) {
    const [kind, pid] = name.split('.');
    if (kind === SCRATCH_NAME && pid !== undefined && !existsSync(`/proc/${pid}`))
      removeScratch(join(SCRATCH_PARENT, name));
  }
}

/** Takes away every mount below a scratch directory, then the directory. */
export function removeScratch(directory: string): void {
  for (const point of mountsBelow(directory).reverse()) unmountHard(point);
  rmSync(directory, { recursive: true, force: true });
}

function unmountHard(point: string): void {
  spawnSync('umount', ['-f', point]);
  spawnSync('umount', ['-l', point], { stdio: 'ignore' });
}

/**
 * A process of a uid that does what it is told, one thing at a time: tests must never touch a mount from a process that could be
 * serving it, nor be killed with it.
 */
export interface CallerProcess {
  readonly pid: number;
  /** Runs the body of a function (with `fs` and `args`) there and answers what it returns; throws Error {code} as it did. */
  call(body: string, ...args: unknown[]): Promise<unknown>;
  /** As `call`, and answers 'CODE' when it throws an error with a code. */
  attempt(body: string, ...args: unknown[]): Promise<unknown>;
  close(): void;
}

const CALLER_PROGRAM = `
const fs = require('node:fs'), path = require('node:path'), child_process = require('node:child_process');
require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const { body, args } = JSON.parse(line);
  let answer;
  try {
    answer = { value: new Function('fs', 'path', 'child_process', 'args', body)(fs, path, child_process, args) };
  } catch (error) {
    answer = { code: error.code, message: String(error.stack) };
  }
  process.stdout.write(JSON.stringify(answer) + '\\n');
});`;

export function startCaller(
  uid: number,
  wrap: (argv: string[]) => string[] = (argv) => asUid(uid, argv),
): CallerProcess {
  const [command = '', ...args] = wrap([process.execPath, '-e', CALLER_PROGRAM]);
  const child: ChildProcessByStdio<Writable, Readable, null> = spawn(command, args, {
    stdio: ['pipe', 'pipe', 'inherit'],
    cwd: '/',
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const call = async (body: string, ...given: unknown[]) => {
    child.stdin.write(`${JSON.stringify({ body, args: given })}\n`);
    const line = await lines.next();
    if (line.done === true) throw new Error(`caller ${uid} ended: ${child.exitCode} ${child.signalCode}`);
    const answer = JSON.parse(line.value) as { value?: unknown; code?: string; message?: string };
    if (answer.message === undefined) return answer.value;
    throw Object.assign(new Error(answer.message), { code: answer.code });
  };
  return {
    pid: child.pid ?? 0,
    call,
    async attempt(body, ...given) {
      try {
        return await call(body, ...given);
      } catch (error) {
        const { code } = error as { code?: string };
        if (code === undefined) throw error;
        return code;
      }
    },
    close: () => child.kill('SIGKILL'),
  };
}
