import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { errnoCode } from '../errors.ts';
import { sizeFlag, type StepLimits } from './step-limits.ts';

/** The kernel's limits on all processes of a step together. */
export interface StepCgroup {
  /** Where a process must register: one directory, or with cgroups of version 1 one for each resource. */
  readonly directories: readonly string[];
  /** Which limits the step has met, in words for its failure; undefined when none. */
  met(): Promise<string | undefined>;
  /** Once its processes are gone. Never fails: one that is still busy is taken over by the next step of that name. */
  close(): Promise<void>;
}

/** Where a resource is limited: the version of the interface, and the directories in which a group may be made, the best first. */
export interface Hierarchy {
  readonly version: 1 | 2;
  readonly controllers: readonly Controller[];
  readonly parents: readonly string[];
}

type Controller = 'memory' | 'pids';

/**
 * Makes a group with the limits that this machine can keep: below our own group, so that a step never gets more than its build has,
 * or else at the top, where version 2 allows it. Without any to be had the answer has no directories.
 */
export async function openStepCgroup(
  name: string,
  limits: StepLimits,
  hierarchies: readonly Hierarchy[] = hierarchiesHere(),
): Promise<StepCgroup> {
  const made: { directory: string; version: 1 | 2 }[] = [];
  for (const hierarchy of hierarchies) {
    const directory = await makeGroup(name, limits, hierarchy);
    if (directory !== undefined) made.push({ directory, version: hierarchy.version });
  }
  return {
    directories: made.map(({ directory }) => directory),
    async met() {
      for (const { directory } of made) {
        const met = await metIn(directory, limits);
        if (met !== undefined) return met;
      }
      return undefined;
    },
    async close() {
      for (const { directory } of made) await removeGroup(directory);
    },
  };
}

async function makeGroup(
  name: string,
  limits: StepLimits,
  { version, controllers, parents }: Hierarchy,
): Promise<string | undefined> {
  const wanted = controllers.filter((one) => settingsOf(version, one, limits).length > 0);
  if (wanted.length === 0) return undefined;
  for (const parent of parents) {
    if (version === 2 && !(await delegate(parent, wanted))) continue;
    const directory = join(parent, name);
    try {
      await removeGroup(directory); // a killed run's, with its counts
      await mkdir(directory, { recursive: true });
      for (const controller of wanted) await write(directory, settingsOf(version, controller, limits));
      return directory;
    } catch (error) {
      if (!isRefusal(error)) throw error;
      await removeGroup(directory);
    }
  }
  return undefined;
}

/** Version 2 asks each parent to hand its controllers down, which only the top may do while it holds processes itself. */
async function delegate(parent: string, controllers: readonly Controller[]): Promise<boolean> {
  try {
    await writeFile(join(parent, 'cgroup.subtree_control'), controllers.map((one) => `+${one}`).join(' '));
    return true;
  } catch (error) {
    if (isRefusal(error)) return false;
    throw error;
  }
}

interface Setting {
  readonly file: string;
  readonly value: string;
  /** Not every kernel has it. */
  readonly isOptional?: boolean;
}

function settingsOf(version: 1 | 2, controller: Controller, limits: StepLimits): Setting[] {
  const { memoryBytesMax, processesMax } = limits;
  if (controller === 'pids') {
    return processesMax === undefined ? [] : [{ file: 'pids.max', value: String(processesMax) }];
  }
  if (memoryBytesMax === undefined) return [];
  const value = String(memoryBytesMax);
  if (version === 1) {
    return [
      { file: 'memory.limit_in_bytes', value },
      { file: 'memory.memsw.limit_in_bytes', value, isOptional: true },
    ];
  }
  return [
    { file: 'memory.max', value },
    { file: 'memory.swap.max', value: '0', isOptional: true },
    { file: 'memory.oom.group', value: '1', isOptional: true },
  ];
}

async function write(directory: string, settings: readonly Setting[]): Promise<void> {
  for (const { file, value, isOptional } of settings) {
    try {
      await writeFile(join(directory, file), value);
    } catch (error) {
      if (isOptional !== true || !isRefusal(error)) throw error;
    }
  }
}

/** What the kernel answers where a group, a controller or a setting is not to be had. */
function isRefusal(error: unknown): boolean {
  const refusals = [
    'EACCES',
    'EPERM',
    'EROFS',
    'EBUSY',
    'ENOENT',
    'EINVAL',
    'EOPNOTSUPP',
    'ENOSPC',
    'EEXIST',
  ];
  return refusals.includes(errnoCode(error) ?? '');
}

/** Names of counts and what one above zero says. */
async function metIn(directory: string, limits: StepLimits): Promise<string | undefined> {
  const { memoryBytesMax = 0, processesMax = 0 } = limits;
  const counts = [
    ['memory.events', 'oom_kill', `it needed more memory than --memory=${sizeFlag(memoryBytesMax)}`],
    ['memory.oom_control', 'oom_kill', `it needed more memory than --memory=${sizeFlag(memoryBytesMax)}`],
    ['pids.events', 'max', `it needed more processes than --processes=${processesMax}`],
  ] as const;
  for (const [file, count, words] of counts) {
    const text = await readFile(join(directory, file), 'utf8').catch(() => '');
    if (Number(new RegExp(`^${count} (\\d+)$`, 'm').exec(text)?.[1] ?? 0) > 0) return words;
  }
  return undefined;
}

/** A killed process takes a moment to leave its group. */
async function removeGroup(directory: string, triesMax = 100): Promise<void> {
  for (let tries = 0; tries < triesMax; tries++) {
    try {
      await rmdir(directory);
      return;
    } catch (error) {
      if (errnoCode(error) !== 'EBUSY') return;
      await delay(10);
    }
  }
}

function hierarchiesHere(): Hierarchy[] {
  if (process.platform !== 'linux') return [];
  const hierarchies = findHierarchies(
    readFileSync('/proc/self/mountinfo', 'utf8'),
    readFileSync('/proc/self/cgroup', 'utf8'),
  );
  return hierarchies.flatMap((one) => {
    const parents = one.parents.filter((parent) => existsSync(parent));
    const controllers = one.version === 1 ? one.controllers : handedTo(parents, one.controllers);
    return controllers.length > 0 && parents.length > 0 ? [{ ...one, controllers, parents }] : [];
  });
}

/** Version 2 leaves out the controllers that version 1 has, on machines with both. */
function handedTo(parents: readonly string[], controllers: readonly Controller[]): Controller[] {
  const top = parents.at(-1);
  if (top === undefined) return [];
  const handed = readFileSync(join(top, 'cgroup.controllers'), 'utf8').trim().split(' ');
  return controllers.filter((one) => handed.includes(one));
}

/** The mounted hierarchies that limit memory or processes, and our place in each, from /proc/self/{mountinfo,cgroup}. */
export function findHierarchies(mountinfo: string, cgroup: string): Hierarchy[] {
  const ours = new Map(
    cgroup.split('\n').flatMap((line) => {
      const [, names, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
      return names === undefined || path === undefined
        ? []
        : names.split(',').map((name) => [name, path] as const);
    }),
  );
  return mountinfo.split('\n').flatMap((line) => {
    const [, root, point, type, options] =
      /^\d+ \d+ \S+ (\S+) (\S+) .* - (cgroup2?) \S+ (\S+)$/.exec(line) ?? [];
    if (root === undefined || point === undefined || options === undefined) return [];
    const all: Controller[] = ['memory', 'pids'];
    const isUnified = type === 'cgroup2';
    const controllers = isUnified ? all : all.filter((one) => options.split(',').includes(one));
    const path = ours.get(isUnified ? '' : (controllers[0] ?? ''));
    if (path === undefined) return [];
    const below =
      path === root ? '' : path.startsWith(`${root}/`) ? path.slice(root.length) : root === '/' ? path : '';
    const own = join(point, below);
    return [{ version: isUnified ? 2 : 1, controllers, parents: own === point ? [point] : [own, point] }];
  });
}
