import { chmod, chown, realpath, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { runCommand } from '../os/exec.ts';
import type { BuildUser } from './build-users.ts';
import { placeByCopy } from './home-placement.ts';
import type { StepCommand } from './sandbox.ts';
import type { Refusal } from './step-namespace.ts';
import { splitPlace, type StepPlaces } from './step-places.ts';

/**
 * A step's files where there are no mount namespaces (macOS): tree, caches and secrets are copied to where the step sees them, and
 * tree and caches back. Only processes of the build user could interfere, and none is alive at either time.
 */
export interface StepCopy {
  enter(login: readonly string[]): string[];
  close(): Promise<void>;
}

export interface CopyOptions {
  readonly user: BuildUser;
  readonly rootfs: string;
  readonly places: StepPlaces;
  readonly caches: StepCommand['caches'];
  readonly secrets: StepCommand['secrets'];
}

export async function openStepCopy(options: CopyOptions): Promise<StepCopy | Refusal> {
  const home = await placeByCopy(options.rootfs, options.places.homePath);
  /** What takes things away again, the last first, so that the home goes back without them. */
  const undo: (() => Promise<unknown>)[] = [() => home.takeBack()];
  const close = async () => {
    for (let step = undo.pop(); step !== undefined; step = undo.pop()) await step();
  };
  try {
    for (const cache of options.caches) undo.push(await copyCacheIn(options, cache));
    for (const secret of options.secrets) undo.push(await writeSecret(options, secret));
  } catch (error) {
    await close();
    if (error instanceof LeadsOutside) return { refused: error.message };
    throw error;
  }
  return { enter: (login) => ['su', '-l', options.user.name, '-c', '--', ...login], close };
}

class LeadsOutside extends Error {}

async function copyCacheIn(
  options: CopyOptions,
  { target, directory }: StepCommand['caches'][number],
): Promise<() => Promise<unknown>> {
  const physical = await directoryOfUser(options, target);
  const copy = (from: string, to: string) =>
    runCommand(['rsync', '-aHq', '--delete', '--', `${from}/`, `${to}/`]);
  await copy(directory, physical);
  return async () => {
    await copy(await directoryOfUser(options, target), directory); // looked at again: the step may have put a link there
    await rm(target, { recursive: true, force: true });
    await directoryOfUser(options, target); // the mount point stays in the result, empty
  };
}

async function writeSecret(
  options: CopyOptions,
  { target, value }: StepCommand['secrets'][number],
): Promise<() => Promise<unknown>> {
  const file = join(await directoryOfUser(options, dirname(target)), basename(target));
  await rm(file, { force: true });
  await writeFile(file, value, { flag: 'wx', mode: 0o600 });
  await chown(file, options.user.uid, options.user.gid);
  await chmod(file, 0o400);
  return () => rm(file, { force: true });
}

/** Makes a directory as the build user and answers its physical path, which must lie in the place that was meant. */
async function directoryOfUser({ user, places }: CopyOptions, target: string): Promise<string> {
  const { place } = splitPlace(places, target);
  await runCommand(['su', '-l', user.name, '-c', '--', 'mkdir -p -- "$1"', 'obuilder-fs-mkdir', target]);
  const [physical, top] = [await realpath(target), await realpath(place)];
  if (physical !== top && !physical.startsWith(`${top}/`))
    throw new LeadsOutside(`${target}: leads to ${physical}`);
  return physical;
}
