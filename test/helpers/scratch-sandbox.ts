import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createLinuxSystem } from '../../src/sandbox/linux-system.ts';
import type { Sandbox, StepCommand, StepOutcome } from '../../src/sandbox/sandbox.ts';
import { createUserSandbox, type UserSandboxOptions } from '../../src/sandbox/user-sandbox.ts';
import { makeScratchDirectory, removeScratch } from './scratch-mount.ts';
import { removeTestUsers } from './test-users.ts';

export interface RanStep {
  readonly outcome: StepOutcome;
  readonly output: string;
}

export interface StartedStep {
  readonly ended: Promise<RanStep>;
  /** Resolves when the step has printed `text`. */
  untilPrinted(text: string): Promise<void>;
  cancel(): void;
}

export interface StepRequest {
  readonly options?: Partial<UserSandboxOptions>;
  readonly command?: Partial<StepCommand>;
  /** A tree of its own by that name (default: one tree for all). */
  readonly tree?: string;
}

/** A directory with a home path, a prefix and trees, and steps as real build users in it, without a mount. */
export interface ScratchSandbox {
  readonly directory: string;
  readonly homePath: string;
  readonly prefix: string;
  path(...names: string[]): string;
  start(script: string, request?: StepRequest): StartedStep;
  run(script: string, request?: StepRequest): Promise<RanStep>;
  close(): Promise<void>;
}

/** @param uids of the test's own; the first is the one that runs steps by default. */
export async function createScratchSandbox(uids: readonly [number, ...number[]]): Promise<ScratchSandbox> {
  await removeTestUsers(uids);
  const directory = makeScratchDirectory();
  chmodSync(directory, 0o755);
  const path = (...names: string[]) => join(directory, ...names);
  const homePath = path('home');
  const prefix = path('prefix');
  mkdirSync(prefix);
  mkdirSync(path('store'), { mode: 0o700 });
  const started = new Set<StartedStep>();

  function sandboxOf(options: Partial<UserSandboxOptions> = {}): Sandbox {
    return createUserSandbox({
      system: createLinuxSystem({ homePath }),
      uids: [uids[0]],
      homePath,
      prefix,
      prefixMode: 'bind',
      stateDir: path('state'),
      ...options,
    });
  }

  async function treeOf(name: string, sandbox: Sandbox): Promise<string> {
    const rootfs = path('store', name, 'rootfs');
    mkdirSync(join(rootfs, 'local'), { recursive: true });
    writeFileSync(join(rootfs, '.obuilder_profile.sh'), '');
    await sandbox.adopt(rootfs);
    return rootfs;
  }

  function start(script: string, { options, command, tree = 'tree' }: StepRequest = {}): StartedStep {
    const sandbox = sandboxOf(options);
    const stop = new AbortController();
    let output = '';
    const watchers = new Set<() => void>();
    const argv = ['/usr/bin/env', 'bash', '-c', script];
    const whole = { argv, cwd: homePath, env: [], network: [], secrets: [], caches: [], ...command };
    async function runWhole(): Promise<RanStep> {
      const hear = (chunk: Uint8Array) => {
        output += Buffer.from(chunk).toString();
        watchers.forEach((watch) => watch());
      };
      try {
        const outcome = await sandbox.run(whole, await treeOf(tree, sandbox), hear, stop.signal);
        return { outcome, output };
      } finally {
        started.delete(step);
        await sandbox.close();
      }
    }
    const ended = Promise.resolve().then(runWhole);
    const step: StartedStep = {
      ended,
      cancel: () => stop.abort(),
      untilPrinted: (text) =>
        new Promise((resolve, reject) => {
          const watch = () => {
            if (!output.includes(text)) return;
            watchers.delete(watch);
            resolve();
          };
          watchers.add(watch);
          ended.then(() => reject(new Error(`the step ended without printing ${text}:\n${output}`)), reject);
          watch();
        }),
    };
    started.add(step);
    return step;
  }

  return {
    directory,
    homePath,
    prefix,
    path,
    start,
    run: (script, request) => start(script, request).ended,
    async close() {
      for (const step of started) step.cancel();
      await Promise.allSettled([...started].map(({ ended }) => ended));
      await removeTestUsers(uids);
      removeScratch(directory);
    },
  };
}
