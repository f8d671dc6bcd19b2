import { lstat, mkdir, stat } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { errnoCode, ObuilderError } from '../errors.ts';
import { runCommand } from '../os/exec.ts';
import type { BuildUser } from './build-users.ts';
import {
  createMovedHome,
  ensurePlace,
  placedByNamespace,
  type HomePlacement,
  type PlacedHome,
} from './home-placement.ts';
import type { HostSystem } from './host-system.ts';
import type { OpenPrefixView, PrefixMode, PrefixView } from './prefix-view.ts';
import type { Sandbox, StepCommand, StepOutcome } from './sandbox.ts';
import { openStepCopy } from './step-copy.ts';
import type { StepLimits } from './step-limits.ts';
import { exitStatusOf, loginArguments, loginEnv, outcomeOf, quoted } from './step-login.ts';
import { openStepNamespace, type PrefixCover, type Refusal } from './step-namespace.ts';
import { runStepProcess } from './step-process.ts';
import { inTmpOf, isLocated, locateIn, placesOfOne, splitPlace, type StepPlaces } from './step-places.ts';
import { withTmpDirectory, type StepTmp } from './step-tmp.ts';
import { showTrees, type ShownTrees, type TreesToShow } from './tree-owners.ts';
import { createUserPool } from './user-pool.ts';

export interface UserSandboxOptions {
  readonly system: HostSystem;
  /** The build users; results belong to the first. */
  readonly uids: readonly [number, ...number[]];
  /** Where every step finds its home. Kept as an empty directory of root's. */
  readonly homePath: string;
  /** Where a step finds its TMPDIR, kept likewise (default: the home path with `.tmp` after it). */
  readonly tmpPath?: string;
  readonly prefix: string;
  readonly prefixMode: PrefixMode;
  /** Wanted by the modes `tree` and `shared`. */
  readonly prefixView?: PrefixView | undefined;
  /** Default: by each step's own mount namespace, or moved where the system has none, which takes one build user. */
  readonly home?: HomePlacement | undefined;
  /** For locks and temporary files; made 0700 where missing. */
  readonly stateDir: string;
  /** What each step may take (default: all that there is). */
  readonly limits?: StepLimits;
}

/**
 * Runs steps as build users, each one step at a time, also among the processes that share the state directory. On Linux each step has a
 * mount namespace of its own, where its tree is its home; on macOS the tree is moved there, or a mount shows it.
 *
 * Order of a step: claim a build user, if possible the one that the tree belongs to, end and clear what a killed run left, place the tree,
 * show it as the user's, point the prefix, run; then, whatever happened, end all of the uid's processes before anything is taken away
 * again, and give the uid back last.
 */
export function createUserSandbox(options: UserSandboxOptions): Sandbox {
  const { homePath, prefix, tmpPath = `${homePath}.tmp` } = options;
  const pool = createUserPool(options.uids, options.stateDir);
  const home = options.home ?? defaultHome(options);
  const isAlone = inNamespaces({ ...options, home });
  const secretsPath = isAlone ? '/tmp/obuilder-secrets' : `${tmpPath}.secrets`;
  const places: StepPlaces = { homePath, prefix, tmpPath, secretsPath };
  const running = new Set<Promise<StepOutcome>>();
  let areOurs: Promise<unknown> | undefined;
  let isClosed = false;

  /** Only namespaces can show each its own TMPDIR at one path. */
  function placesOf(uid: number): StepPlaces {
    return isAlone || options.uids.length === 1 ? places : placesOfOne(places, uid);
  }

  async function runInTurn(step: Step): Promise<StepOutcome> {
    await mkdir(options.stateDir, { recursive: true, mode: 0o700 });
    await (areOurs ??= refuseForeign(options));
    const { uid: preferred } = await lstat(step.rootfs);
    const claim = await pool.take({ preferred, onWait: step.command.onWait }, step.signal);
    if (claim === undefined) return cancelled;
    try {
      const host = { ...options, places: placesOf(claim.uid), home };
      const command = inPlaces(step.command, places, host.places);
      const outcome = await runClaimed(host, { ...step, command }, claim.uid);
      return step.signal.aborted ? cancelled : outcome;
    } finally {
      claim.giveUp();
    }
  }

  return {
    locate: (path) => locateIn(places, path),

    inTree: (located) => inTree(options, places, located),

    /** Set-uid bits go with the owner, all other modes stay. */
    async adopt(rootfs) {
      const { uid, gid } = await options.system.users.ensure(options.uids[0]);
      await runCommand(['chown', '-R', '-h', '-P', `${uid}:${gid}`, rootfs]);
    },

    async run(command, rootfs, output, signal) {
      if (isClosed) throw new Error('BUG: run after close');
      command.stdin?.on('error', () => undefined); // while it waits; the process that reads it tells
      const outcome = runInTurn({ command, rootfs, output, signal });
      running.add(outcome);
      try {
        return await outcome;
      } finally {
        running.delete(outcome);
        command.stdin?.destroy();
      }
    },

    async close() {
      isClosed = true;
      await Promise.allSettled(running);
    },
  };
}

/** A command located in `from`, as it is in the places of the build user that runs it. */
function inPlaces(command: StepCommand, from: StepPlaces, to: StepPlaces): StepCommand {
  const move = (path: string) => (isLocated(from, path) ? inTmpOf(to, path, from) : path);
  const moveTarget = <T extends { target: string }>(one: T): T => ({ ...one, target: move(one.target) });
  return {
    ...command,
    cwd: move(command.cwd),
    caches: command.caches.map(moveTarget),
    secrets: command.secrets.map(moveTarget),
  };
}

/** Before the first step, so that it does not depend on which build user is free. */
async function refuseForeign({ system, uids }: UserSandboxOptions): Promise<void> {
  await Promise.all(uids.map((uid) => system.users.find(uid)));
}

/** A step's home is the top of its tree, its prefix the tree's `local`; its TMPDIR is kept nowhere. */
function inTree(
  { homePath, prefix, prefixMode }: UserSandboxOptions,
  places: StepPlaces,
  located: string,
): string | undefined {
  const { place, rest } = splitPlace(places, located);
  if (place === homePath) return rest === '.' ? '' : rest;
  return place === prefix && prefixMode !== 'none' ? posix.join('local', rest) : undefined;
}

interface Step {
  readonly command: StepCommand;
  readonly rootfs: string;
  readonly output: (chunk: Uint8Array) => void;
  readonly signal: AbortSignal;
}

type Host = UserSandboxOptions & { readonly places: StepPlaces; readonly home: HomePlacement };

const cancelled: StepOutcome = { status: 'cancelled' };

/** With the uid claimed: nobody else starts processes of it, or points its prefix elsewhere. */
async function runClaimed(host: Host, step: Step, uid: number): Promise<StepOutcome> {
  const user = await host.system.users.ensure(uid);
  await host.system.endProcessesOf(user.uid); // a killed run's
  await host.system.clearLeftovers(user);
  const home = await host.home.place(step.rootfs, user.uid);
  try {
    const shown = await showTrees(await treesToShow(host, { ...step, user, home }));
    try {
      return await runAtHome(host, { ...step, user, home, shown });
    } finally {
      await shown.close();
    }
  } finally {
    await home.takeBack();
  }
}

function defaultHome({ system, homePath, stateDir, uids }: UserSandboxOptions): HomePlacement {
  if (system.hasNamespaces) return placedByNamespace;
  if (uids.length > 1) throw new Error('BUG: several build users without namespaces or a redirected home');
  return createMovedHome({ homePath, journal: join(stateDir, 'placed.json') });
}

/** Whether each step sees what it works on in namespaces of its own, rather than where everybody could. */
function inNamespaces({ system, home }: Pick<Host, 'system' | 'home'>): boolean {
  return system.hasNamespaces && home.kind !== 'moved';
}

/** The home is mapped already where a mount shows it. */
async function treesToShow(host: Host, { user, home, command }: StepAtHome): Promise<TreesToShow> {
  const isMapped = usesMount(host) ? await viewOf(host).mapsOwners() : true;
  const caches = command.caches.map(({ directory }) => directory);
  return {
    user,
    trees: home.view === undefined ? [home.tree, ...caches] : caches,
    resultOwner: () => host.system.users.ensure(host.uids[0]),
    mayMap: inNamespaces(host) && isMapped,
  };
}

async function runAtHome(host: Host, step: ShownStep): Promise<StepOutcome> {
  const { user, home, signal } = step;
  const view = await openView(host, step);
  try {
    const views = [home.view, view].filter((one) => one !== undefined);
    const stop = AbortSignal.any([signal, ...views.map(({ lost }) => lost)]);
    const [ran] = await Promise.allSettled([
      withTmpDirectory(stepTmpOf(host, user), (tmpDirectory) =>
        runPlaced(host, { ...step, tmpDirectory, view, signal: stop }),
      ),
    ]);
    const areLost = await Promise.all(views.map((one) => one.isLost()));
    if (areLost.includes(true)) return mountLost(host, step); // whatever else it says
    if (ran.status === 'rejected') throw ran.reason;
    return ran.value;
  } finally {
    await view?.close();
  }
}

function usesMount({ prefixMode }: Host): boolean {
  return prefixMode === 'tree' || prefixMode === 'shared';
}

function viewOf({ prefixMode, prefixView }: Host): PrefixView {
  if (prefixView === undefined) throw new Error(`BUG: prefix mode ${prefixMode} without a view`);
  return prefixView;
}

async function openView(host: Host, { user, home }: StepAtHome): Promise<OpenPrefixView | undefined> {
  return usesMount(host) ? viewOf(host).open(user.uid, home.tree) : undefined;
}

function mountLost({ prefix }: Host, { command }: Step): StepOutcome {
  const message = `${quoted(command.argv)} was stopped: the mount of ${prefix} was lost during the step`;
  return { status: 'failed', message };
}

/** Namespaces show it elsewhere. */
function stepTmpOf(host: Host, user: BuildUser): StepTmp {
  const forNamespace = inNamespaces(host);
  const directory = forNamespace ? join(host.stateDir, `tmp-${user.uid}`) : host.places.tmpPath;
  return { directory, user, forNamespace };
}

interface StepAtHome extends Step {
  readonly user: BuildUser;
  readonly home: PlacedHome;
}

interface ShownStep extends StepAtHome {
  readonly shown: ShownTrees;
}

interface PlacedStep extends ShownStep {
  readonly tmpDirectory: string;
  readonly view: OpenPrefixView | undefined;
}

async function runPlaced(host: Host, step: PlacedStep): Promise<StepOutcome> {
  const { command } = step;
  const refusal = refusedInSharedMode(host, command);
  if (refusal !== undefined) return notRun(command, refusal.refused);
  try {
    const files = await placeFiles(host, step);
    if (files === undefined) return cancelled;
    return 'refused' in files ? notRun(command, files.refused) : await runAmong(files, host, step);
  } catch (error) {
    const why = unrunnable.get(errnoCode(error) ?? '');
    if (why === undefined) throw error;
    return notRun(command, why);
  }
}

/** What a spec can ask for and no kernel can run, by the code that spawning it fails with. */
const unrunnable = new Map([
  ['E2BIG', 'an argument is longer than the kernel takes'],
  ['ERR_INVALID_ARG_VALUE', 'an argument holds a NUL byte'],
]);

function notRun({ argv }: StepCommand, why: string): StepOutcome {
  return { status: 'failed', message: `${quoted(argv)} was not run: ${why}` };
}

/** Root, who mounts, sees another tree at a shared prefix than the step does, and at a home that is one. */
function refusedInSharedMode(host: Host, command: StepCommand): Refusal | undefined {
  if (!inNamespaces(host)) return undefined;
  const { prefixMode, home, places } = host;
  const shared = [
    ...(prefixMode === 'shared' ? [places.prefix] : []),
    ...(home.kind === 'redirected' ? [places.homePath] : []),
  ];
  const targets = [...command.caches, ...command.secrets].map(({ target }) => target);
  const located = targets.filter((target) => isLocated(places, target));
  const refused = located.find((target) => shared.includes(splitPlace(places, target).place));
  return refused === undefined
    ? undefined
    : { refused: `${refused}: nothing can be mounted below a shared prefix` };
}

/** A step's files where it sees them. */
interface PlacedFiles {
  /** The argv that gives these login arguments to the user's login shell among the files. */
  enter(login: readonly string[]): string[];
  /** A quick end for all processes among them, where there is one. */
  endProcesses?(): Promise<void>;
  close(): Promise<void>;
}

async function placeFiles(host: Host, step: PlacedStep): Promise<PlacedFiles | Refusal | undefined> {
  const { places, system } = host;
  const { user, home, tmpDirectory, command } = step;
  if (!inNamespaces(host)) {
    const prefixTree = usesMount(host) ? join(home.tree, 'local') : places.prefix;
    return openStepCopy({ ...command, system, user, tree: home.tree, prefixTree, places });
  }
  await ensurePlace(places.homePath);
  await ensurePlace(places.tmpPath);
  await refuseMissingPrefix(host);
  const staging = join(host.stateDir, 'staging');
  await mkdir(staging, { recursive: true, mode: 0o700 });
  const cover = coverOf(host, step.view);
  const startFrom = step.shown.namespace;
  const rootfs = host.home.kind === 'redirected' ? places.homePath : home.tree;
  const options = { ...command, user, rootfs, places, tmpDirectory, cover, staging, startFrom };
  return openStepNamespace(options, step.signal).finally(() => step.shown.letGo());
}

function coverOf({ prefix, prefixMode }: Host, view: OpenPrefixView | undefined): PrefixCover {
  if (prefixMode === 'bind') return { kind: 'local' };
  if (prefixMode === 'none') return { kind: 'none' };
  if (prefixMode === 'shared') return { kind: 'directory', directory: prefix };
  if (view?.treeDoor === undefined) throw new Error('BUG: prefix mode tree without a tree door');
  return { kind: 'directory', directory: view.treeDoor };
}

async function refuseMissingPrefix({ prefix, prefixMode }: Host): Promise<void> {
  if (prefixMode !== 'bind') return; // the others need none, or have mounted it
  try {
    if ((await stat(prefix)).isDirectory()) return;
  } catch (error) {
    if (errnoCode(error) !== 'ENOENT') throw error;
  }
  throw new ObuilderError('PREFIX_MISSING', `${prefix}: the prefix is not a directory`, {
    hint: `make it (mkdir -p ${prefix}), or choose another --prefix`,
  });
}

async function runAmong(files: PlacedFiles, host: Host, step: PlacedStep): Promise<StepOutcome> {
  const { system, stateDir, places, limits = {} } = host;
  const { user, command, output, signal } = step;
  try {
    const argv = files.enter(loginArguments(command, places));
    const env = loginEnv(user, places, await system.loginPath());
    const { stdin, onTerminal } = command;
    const process = {
      system,
      argv,
      env,
      user,
      stdin,
      onTerminal,
      output,
      pipeDirectory: stateDir,
      files,
      limits,
    };
    const ending = await runStepProcess(process, signal);
    if (ending === undefined) return cancelled;
    if (!('stopped' in ending)) command.onExit?.(exitStatusOf(ending));
    return outcomeOf(command.argv, ending);
  } finally {
    await files.close();
  }
}
