import { join, resolve } from 'node:path';
import type { Argv, Options } from 'yargs';
import { ObuilderError } from '../errors.ts';
import type { PrefixMode } from '../sandbox/prefix-view.ts';
import type { StepLimits } from '../sandbox/step-limits.ts';
import { STORE_KINDS, type CopierChoice, type StoreKind } from '../store/choose-copier.ts';
import type { RsyncMode } from '../store/rsync-copier.ts';
import { buildUids, type BuildUids } from './build-user-options.ts';
import {
  defaultPrefix,
  defaultScoreboard,
  DEFAULT_STATE_DIR,
  onePath,
  stateDirOption,
} from './common-options.ts';
import type { HostChoices } from './host-choices.ts';
import { stepLimitChoices, stepLimits, type StepLimitArguments } from './step-limit-options.ts';

/** Where results are kept, and how. */
export type StoreOptions = CopierChoice;

/** All that a machine's builds depend on. */
export interface HostOptions {
  readonly stateDir: string;
  readonly store: StoreOptions;
  readonly uids: BuildUids;
  readonly homePath: string;
  readonly prefix: string;
  readonly prefixMode: PrefixMode;
  readonly scoreboard: string;
  readonly baseDir: string;
  readonly sandboxExec: boolean;
  readonly limits: StepLimits;
}

export const RSYNC_MODES = ['copy', 'hardlink', 'hardlink_unsafe'] as const;
export const PREFIX_MODES = ['tree', 'shared', 'bind', 'none'] as const;

const IS_MACOS = process.platform === 'darwin';
const HOMES = IS_MACOS ? '/Users' : '/home';
const DEFAULT_UID = IS_MACOS ? 1000 : 7000;

/** The one place that knows the defaults. @throws {ObuilderError} BAD_OPTION */
export function hostOptions(choices: HostChoices): HostOptions {
  const stateDir = resolve(choices.stateDir ?? process.env['OBUILDER_FS_STATE_DIR'] ?? DEFAULT_STATE_DIR);
  const uids = buildUids(String(choices.uid ?? DEFAULT_UID), choices.builders);
  return {
    stateDir,
    store: storeOptions(choices, stateDir),
    uids,
    homePath: resolve(choices.homePath ?? `${HOMES}/mac${uids[0]}`),
    prefix: resolve(choices.prefix ?? defaultPrefix()),
    prefixMode: choices.prefixMode ?? (IS_MACOS ? 'shared' : 'tree'),
    scoreboard: resolve(choices.scoreboard ?? defaultScoreboard(stateDir)),
    baseDir: resolve(choices.baseDir ?? (IS_MACOS ? HOMES : join(stateDir, 'images'))),
    sandboxExec: sandboxExecOf(choices),
    limits: stepLimits(choices),
  };
}

function sandboxExecOf({ sandboxExec = false }: HostChoices): boolean {
  if (!sandboxExec || IS_MACOS) return sandboxExec;
  throw new ObuilderError('BAD_OPTION', '--sandbox-exec: only macOS has sandbox-exec', {
    hint: 'leave it out: here each step has namespaces of its own, and they keep it from more',
  });
}

const STORE_FORMS = 'auto:DIR, rsync:DIR, clone:DIR, btrfs:DIR or zfs:POOL';

function storeOptions({ store, rsyncMode }: HostChoices, stateDir: string): StoreOptions {
  const { kind, place } =
    store === undefined ? { kind: 'auto' as const, place: join(stateDir, 'store') } : splitStore(store);
  if (rsyncMode !== undefined && kind !== 'rsync' && kind !== 'auto') {
    throw new ObuilderError(
      'BAD_OPTION',
      `--store=${store ?? ''} and --rsync-mode=${rsyncMode}: they contradict each other`,
      {
        hint: 'give --rsync-mode with --store=rsync:DIR',
      },
    );
  }
  const directory = kind === 'zfs' ? mountPointOf(place) : resolve(place);
  return { kind, directory, rsyncMode: rsyncMode ?? 'copy' };
}

function splitStore(store: string): { kind: StoreKind; place: string } {
  const [, word, place] = /^([a-z]+):(.+)$/s.exec(store) ?? [];
  const kind = STORE_KINDS.find((one) => one === word);
  if (kind !== undefined && place !== undefined) return { kind, place };
  throw new ObuilderError('BAD_OPTION', `--store=${store}: no such store`, { hint: `give ${STORE_FORMS}` });
}

/** As OBuilder has it: pools are mounted at their names, on macOS below /Volumes. A path is taken as it is. */
function mountPointOf(pool: string): string {
  return resolve(IS_MACOS ? '/Volumes' : '/', pool);
}

export interface StoreArguments {
  store: string | undefined;
  'rsync-mode': RsyncMode | undefined;
  'state-dir': string;
}

export interface HostArguments extends StoreArguments {
  uid: string;
  builders: number | undefined;
  prefix: string;
  scoreboard: string | undefined;
  'base-dir': string | undefined;
  'home-path': string | undefined;
  'prefix-mode': PrefixMode | undefined;
  'sandbox-exec': boolean;
  fallback: string | undefined;
  fuse: boolean;
}

const storeFlags = {
  store: {
    type: 'string',
    requiresArg: true,
    describe: `Where results are kept, and how they are copied: ${STORE_FORMS} (default auto:STATE-DIR/store)`,
  },
  'rsync-mode': {
    choices: RSYNC_MODES,
    requiresArg: true,
    describe:
      'copy: each result is a whole copy (default); hardlink: files that are the same as in the result before share their storage; hardlink_unsafe: the same by size and time',
  },
  'state-dir': stateDirOption,
} as const satisfies Record<string, Options>;

function oneUid(given: string | string[]): string {
  if (typeof given === 'string') return given;
  throw new ObuilderError('BAD_OPTION', '--uid is given twice', {
    hint: 'give a range for several build users: 705-712',
  });
}

const hostFlags = {
  uid: {
    type: 'string',
    requiresArg: true,
    default: String(DEFAULT_UID),
    describe: 'The build user, or several that build at once: 705-712; made where missing',
    coerce: oneUid,
  },
  builders: {
    type: 'number',
    requiresArg: true,
    describe: 'How many build users, from --uid on (default 1)',
  },
  prefix: {
    alias: 'fuse-path',
    type: 'string',
    requiresArg: true,
    default: defaultPrefix(),
    describe: 'What steps see as their own tree',
    coerce: onePath('prefix'),
  },
  scoreboard: {
    type: 'string',
    requiresArg: true,
    describe: 'Root’s directory of links UID -> DIRECTORY (default STATE-DIR/scoreboard)',
    coerce: onePath('scoreboard'),
  },
  'base-dir': {
    type: 'string',
    requiresArg: true,
    describe: `Directory of base images, what (from NAME) names (default ${IS_MACOS ? '/Users' : 'STATE-DIR/images'})`,
    coerce: onePath('base-dir'),
  },
  'home-path': {
    type: 'string',
    requiresArg: true,
    describe: `Where steps find their home (default ${HOMES}/macUID, of the first build user)`,
    coerce: onePath('home-path'),
  },
  'prefix-mode': {
    choices: PREFIX_MODES,
    requiresArg: true,
    describe: `tree: the step’s own tree through the mount; shared: the mount as everybody meets it; bind: no mount; none: the machine’s prefix (default ${IS_MACOS ? 'shared' : 'tree'})`,
  },
  'sandbox-exec': {
    type: 'boolean',
    default: false,
    describe:
      'macOS: confine steps with sandbox-exec: they write only in their home, the prefix and their temporary directories, and have no network unless the spec asks for it',
  },
  fallback: { type: 'string', requiresArg: true, describe: 'Ignored; OBuilder v0.5 wants it' },
  fuse: {
    type: 'boolean',
    default: true,
    describe: 'OBuilder v0.5’s: --no-fuse is --prefix-mode=none',
  },
} as const satisfies Record<string, Options>;

/** For commands that run steps. */
export function withHostFlags<T>(yargs: Argv<T>): Argv<T & HostArguments> {
  yargs.options({ ...storeFlags, ...hostFlags });
  return yargs as Argv<unknown> as Argv<T & HostArguments>;
}

/** For commands that only need the store. OBuilder takes the others there too, and scripts give them: so do we. */
export function withStoreFlags<T>(yargs: Argv<T>): Argv<T & StoreArguments> {
  yargs.options(storeFlags);
  for (const [name, flag] of Object.entries<Options>(hostFlags))
    yargs.option(name, { ...flag, hidden: true });
  return yargs as Argv<unknown> as Argv<T & StoreArguments>;
}

/** Says what is ignored, on standard error. Steps have the default limits unless they are given. @throws {ObuilderError} BAD_OPTION */
export function hostOptionsOf(argv: HostArguments, limits?: StepLimitArguments): HostOptions {
  if (argv.fallback !== undefined) console.error('obuilder-fs: --fallback is not needed and ignored');
  return hostOptions({
    ...storeChoices(argv),
    uid: argv.uid,
    builders: argv.builders,
    homePath: argv['home-path'],
    prefix: argv.prefix,
    prefixMode: prefixModeOf(argv),
    scoreboard: argv.scoreboard,
    baseDir: argv['base-dir'],
    sandboxExec: argv['sandbox-exec'],
    ...(limits !== undefined && stepLimitChoices(limits)),
  });
}

export function storeOptionsOf(argv: StoreArguments): StoreOptions {
  return hostOptions(storeChoices(argv)).store;
}

function storeChoices(argv: StoreArguments): HostChoices {
  return { stateDir: argv['state-dir'], store: argv.store, rsyncMode: argv['rsync-mode'] };
}

function prefixModeOf({ fuse, 'prefix-mode': mode }: HostArguments): PrefixMode | undefined {
  if (fuse) return mode;
  if (mode === undefined || mode === 'none') return 'none';
  throw new ObuilderError('BAD_OPTION', `--no-fuse and --prefix-mode=${mode}: they contradict each other`, {
    hint: 'give one of them',
  });
}
