import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';
import {
  mainProgram,
  makeScratchDirectory,
  mountsBelow,
  removeScratch,
  type CommandAnswer,
} from './scratch-mount.ts';
import { removeTestUsers } from './test-users.ts';

/** Build users of the build tests' own. */
export const firstBuilder = 7727;
export const secondBuilder = 7728;

export interface RunningBuild {
  readonly pid: number;
  readonly done: Promise<CommandAnswer>;
  /** Resolves when the output so far (both streams) contains `text`. */
  untilPrinted(text: string): Promise<void>;
  kill(signal: NodeJS.Signals): void;
}

export interface BuildOptions {
  readonly uid?: number;
  readonly mode?: string;
  readonly context?: string;
  readonly more?: readonly string[];
}

/** A state directory, a base image, a prefix and home paths of a test's own, and the build command on them. */
export interface ScratchBuild {
  readonly directory: string;
  readonly prefix: string;
  readonly stateDir: string;
  path(name: string): string;
  /** What every command of a build's needs to be told. */
  hostFlags(options?: BuildOptions): string[];
  start(spec: string, options?: BuildOptions): RunningBuild;
  build(spec: string, options?: BuildOptions): Promise<CommandAnswer>;
  /** Ids of the results in the store. */
  results(): string[];
  /** What a build left: mounts, scoreboard entries, unfinished results, processes. Empty when it cleaned up. */
  leftovers(): string[];
  close(): Promise<void>;
}

/** @param users of the test's own. */
export async function createScratchBuild(
  users: readonly [number, ...number[]] = [firstBuilder, secondBuilder],
): Promise<ScratchBuild> {
  await removeTestUsers(users);
  const directory = makeScratchDirectory();
  const path = (name: string) => join(directory, name);
  const prefix = path('prefix');
  const stateDir = path('state');
  for (const made of ['prefix/lib', 'context', 'state/images/base/local/lib'])
    mkdirSync(path(made), { recursive: true });
  writeFileSync(path('prefix/host'), 'host');
  writeFileSync(path('context/hello.txt'), 'hello\n');
  writeFileSync(path('state/images/base/.obuilder_profile.sh'), `export PATH=${prefix}/bin:$PATH\n`);

  const hostFlags = ({ uid = users[0], mode = 'tree', more = [] }: BuildOptions = {}) => [
    ...[`--state-dir=${stateDir}`, `--uid=${uid}`, `--prefix=${prefix}`],
    ...[`--home-path=${path(`home${uid}`)}`, `--prefix-mode=${mode}`, ...more],
  ];

  function start(spec: string, options: BuildOptions = {}): RunningBuild {
    const child = spawn(
      process.execPath,
      [mainProgram, 'build', '-f', '-', ...hostFlags(options), options.context ?? path('context')],
      { stdio: ['pipe', 'pipe', 'pipe'] },
    );
    child.stdin.end(spec);
    let stdout = '';
    let stderr = '';
    const watchers = new Set<() => void>();
    const changed = () => watchers.forEach((watch) => watch());
    child.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk.toString();
      changed();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
      changed();
    });
    const done = once(child, 'close').then(([code]) => ({ code: code as number | null, stdout, stderr }));
    return {
      pid: child.pid ?? 0,
      done,
      kill: (signal) => child.kill(signal),
      untilPrinted: (text) =>
        new Promise((resolve, reject) => {
          const watch = () => {
            if (!stdout.includes(text) && !stderr.includes(text)) return;
            watchers.delete(watch);
            resolve();
          };
          watchers.add(watch);
          void done.then(() =>
            reject(new Error(`the build ended without printing ${text}:\n${stdout}\n${stderr}`)),
          );
          watch();
        }),
    };
  }

  return {
    directory,
    prefix,
    stateDir,
    path,
    hostFlags,
    start,
    build: (spec, options) => start(spec, options).done,
    results: () => readdirSync(path('state/store/result')),
    leftovers: () => [
      ...mountsBelow(directory).map((mount) => `mount ${mount}`),
      ...list(path('state/scoreboard')).map((entry) => `scoreboard entry ${entry}`),
      ...list(path('state/store/result-tmp')).map((entry) => `unfinished result ${entry}`),
      ...users.flatMap((uid) => processesOf(uid)).map((pid) => `process ${pid}`),
    ],
    async close() {
      await removeTestUsers(users);
      removeScratch(directory);
    },
  };
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

/** Pids of the living processes of a uid. */
export function processesOf(uid: number): string[] {
  return readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && isOf(uid, pid));
}

function isOf(uid: number, pid: string): boolean {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return !/^State:\s+[ZX]/m.test(status) && new RegExp(`^Uid:.*\\b${uid}\\b`, 'm').test(status);
  } catch {
    return false;
  }
}
