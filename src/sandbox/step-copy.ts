import { chmod, chown, mkdir, realpath, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { runCommand } from '../os/exec.ts';
import type { BuildUser } from './build-users.ts';
import { copyBackCommand, copyCommand } from './home-placement.ts';
import type { HostSystem } from './host-system.ts';
import type { StepCommand } from './sandbox.ts';
import type { Refusal } from './step-namespace.ts';
import { isLocated, splitPlace, type StepPlaces } from './step-places.ts';
import { refusedSecrets, secretName } from './step-secrets.ts';

/**
 * A step's files where there are no mount namespaces (macOS): its tree has been placed; caches and secrets are copied to where the step sees
 * them, and caches back; what the step left on the machine is cleared. Only processes of the build user could interfere, and none is
 * alive at either time.
 */
export interface StepCopy {
  enter(login: readonly string[]): string[];
  close(): Promise<void>;
}

export interface CopyOptions {
  readonly system: HostSystem;
  readonly user: BuildUser;
  /** Where the step's tree is for root, who may see another one at the home path. */
  readonly tree: string;
  /** Where what the step finds at the prefix is for root. */
  readonly prefixTree: string;
  readonly places: StepPlaces;
  readonly caches: StepCommand['caches'];
  readonly secrets: StepCommand['secrets'];
  readonly network: StepCommand['network'];
}

export async function openStepCopy(options: CopyOptions): Promise<StepCopy | Refusal> {
  const refused = refusedSecrets(options.secrets);
  if (refused !== undefined) return { refused };
  /** What takes things away again, the last first, so that the home goes back without them. */
  const undo: (() => Promise<unknown>)[] = [];
  const close = async () => {
    for (let step = undo.pop(); step !== undefined; step = undo.pop()) await step();
  };
  try {
    undo.push(() => options.system.clearLeftovers(options.user));
    for (const cache of options.caches) undo.push(await copyCacheIn(options, cache));
    undo.push(() => rm(options.places.secretsPath, { recursive: true, force: true }));
    await writeSecrets(options);
    for (const secret of options.secrets) {
      if (isLocated(options.places, secret.target)) undo.push(await showSecret(options, secret));
    }
    return { enter: await options.system.entry(options.user, options), close };
  } catch (error) {
    await close();
    if (error instanceof LeadsOutside) return { refused: error.message };
    throw error;
  }
}

class LeadsOutside extends Error {}

/** Nothing of the operator's, in which a shell could be told to read files. */
const plainEnv = { PATH: '/usr/bin:/bin' };

async function copyCacheIn(
  options: CopyOptions,
  { target, directory }: StepCommand['caches'][number],
): Promise<() => Promise<unknown>> {
  const physical = await directoryOfUser(options, target);
  await runCommand(copyCommand(directory, physical));
  return async () => {
    const left = await directoryOfUser(options, target); // looked at again: the step may have put a link there
    await runCommand(copyBackCommand(left, directory));
    await rm(left, { recursive: true, force: true });
    await directoryOfUser(options, target); // the mount point stays in the result, empty
  };
}

/** What a killed run left is removed first. */
async function writeSecrets({ places, secrets, user }: CopyOptions): Promise<void> {
  const directory = places.secretsPath;
  await rm(directory, { recursive: true, force: true });
  if (secrets.length === 0) return;
  await mkdir(directory, { mode: 0o700 });
  for (const { target, value } of secrets)
    await writeSecret(join(directory, secretName(target)), value, user);
  await chown(directory, user.uid, user.gid);
}

async function showSecret(
  options: CopyOptions,
  { target, value }: StepCommand['secrets'][number],
): Promise<() => Promise<unknown>> {
  const file = join(await directoryOfUser(options, dirname(target)), basename(target));
  await rm(file, { force: true });
  await writeSecret(file, value, options.user);
  return () => rm(file, { force: true });
}

async function writeSecret(file: string, value: Uint8Array, { uid, gid }: BuildUser): Promise<void> {
  await writeFile(file, value, { flag: 'wx', mode: 0o600 });
  await chown(file, uid, gid);
  await chmod(file, 0o400);
}

/** Makes a directory as the build user and answers its physical path, which must lie in the place that was meant. */
async function directoryOfUser(options: CopyOptions, target: string): Promise<string> {
  await runCommand(options.system.asUser(options.user, ['mkdir', '-p', '--', target]), { env: plainEnv });
  const { place } = splitPlace(options.places, target);
  const [physical, top] = [await realpath(inTree(options, target)), await realpath(inTree(options, place))];
  if (physical !== top && !physical.startsWith(`${top}/`))
    throw new LeadsOutside(`${target}: leads to ${physical}`);
  return physical;
}

/** Where root finds what the step finds at a located path. */
function inTree({ tree, prefixTree, places }: CopyOptions, located: string): string {
  const { place, rest } = splitPlace(places, located);
  if (place === places.homePath) return join(tree, rest);
  return place === places.prefix ? join(prefixTree, rest) : located;
}
