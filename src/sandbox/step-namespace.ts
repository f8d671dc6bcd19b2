import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { basename, dirname, join } from 'node:path';
import { ObuilderError } from '../errors.ts';
import type { BuildUser } from './build-users.ts';
import type { StepCommand } from './sandbox.ts';
import { splitPlace, type StepPlaces } from './step-places.ts';
import { untilAborted } from '../os/until-aborted.ts';

/**
 * The mount namespace of one step. A helper process makes it, mounts everything and then only holds it open; the step is a process
 * of its own that enters it as the build user. So the step's exit status is its own, a failed mount is never mistaken for a failed
 * step, and no program of root's runs once the step's files are in view: the helper's last mount is the one over the prefix.
 */
export interface StepNamespace {
  /** The argv that runs a login shell in the namespace as the build user, without any privilege. */
  enter(login: readonly string[]): string[];
  /** Lets go of the namespace; its mounts are gone when the last process in it is. */
  close(): Promise<void>;
}

/** What covers the prefix: a directory, the tree's own `local`, or nothing. */
export type PrefixCover =
  | { readonly kind: 'directory'; readonly directory: string }
  | { readonly kind: 'local' }
  | { readonly kind: 'none' };

export interface NamespaceOptions {
  readonly user: BuildUser;
  readonly rootfs: string;
  readonly places: StepPlaces;
  readonly cover: PrefixCover;
  /** The step's private directory for temporary files. */
  readonly tmpDirectory: string;
  /** An empty directory of root's; in the namespace alone a tmpfs is mounted there. */
  readonly staging: string;
  readonly caches: StepCommand['caches'];
  readonly secrets: StepCommand['secrets'];
  /** A mount namespace in which the trees are the user's, where they are not so in this one. */
  readonly startFrom: string | undefined;
}

/** A mount that the spec asked for and the tree does not allow: the step's own failure. */
export interface Refusal {
  readonly refused: string;
}

/** Only the system's directories: no program of root's is ever taken from a prefix. */
export const systemPath = '/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * Runs as root in the new namespace. Everything variable is a positional argument or on standard input (the secrets' values).
 * Answers `ready`, or `refused WHY`, then waits for the end of its input.
 *
 * The tree is hostile: a link in it must not lead a mount of root's elsewhere. So mount points are made as the build user, and a
 * mount is made only where the physical path has been seen to lie below the place it was asked for. Nothing can change in
 * between: the user's processes are gone and the step has not begun.
 *
 * The cover is put together at the staging place and moved over the prefix last, for from then on the dynamic linker might
 * take a library from there.
 */
export const mountScript = `
set -eu
umask 077
uid=$1 gid=$2 rootfs=$3 home=$4 tmp=$5 tmpTarget=$6 staging=$7 prefix=$8 coverKind=$9
shift 9
cover=$1
shift

refuse() { printf 'refused %s\\n' "$*" | tr '\\n' ' '; exit 0; }
asUser() (
  umask 022
  exec setpriv --reuid "$uid" --regid "$gid" --clear-groups --inh-caps=-all -- "$@" </dev/null
)
bind() { mount -c -o "bind,nosuid,nodev$3" -- "$1" "$2"; }

# Goes to directory $2, relative to $1, made where missing.
enterBelow() {
  cd -P -- "$1"
  top=$(pwd -P)
  said=$(asUser mkdir -p -- "./$2" 2>&1) || refuse "$said"
  cd -P -- "./$2" 2>/dev/null || refuse "$2: root cannot enter it"
  here=$(pwd -P)
  case $here/ in "$top"/*) ;; *) refuse "$2: leads to $here" ;; esac
}

mount -t tmpfs -o mode=0700,nosuid,nodev,noexec obuilder-fs "$staging"
bind "$rootfs" "$home" ''
bind "$tmp" "$tmpTarget" ''

case $coverKind in
directory)
  mkdir "$staging/prefix"
  bind "$cover" "$staging/prefix" ''
  ;;
local)
  mkdir "$staging/prefix"
  cd -P -- "$home"
  top=$(pwd -P)
  # Without a usable local the prefix is closed to the step, as the mounted prefix would be.
  if [ -d local ] && [ ! -L local ]; then
    bind "$top/local" "$staging/prefix" ''
  else
    mount -t tmpfs -o mode=0000,ro,nosuid,nodev obuilder-fs "$staging/prefix"
  fi
  ;;
esac

caches=$1
shift
while [ "$caches" -gt 0 ]; do
  enterBelow "$1" "$2"
  [ "$here" != "$top" ] || refuse "$2: a cache cannot cover all of $1"
  bind "$3" "$here" ''
  shift 3
  caches=$((caches - 1))
done

secrets=$1
shift
while [ "$secrets" -gt 0 ]; do
  enterBelow "$1" "$2"
  [ -e "$here/$3" ] || said=$(asUser touch -- "$here/$3" 2>&1) || refuse "$said"
  [ -f "$here/$3" ] && [ ! -L "$here/$3" ] || refuse "$3: not a regular file"
  secret=$staging/secret-$secrets
  head -c "$4" >"$secret"
  chown "$uid:$gid" "$secret"
  chmod 0400 "$secret"
  bind "$secret" "$here/$3" ',ro,noexec'
  shift 4
  secrets=$((secrets - 1))
done

cd /
case $coverKind in directory | local) mount --move "$staging/prefix" "$prefix" ;; esac
echo ready
read -r end || exit 0
`;

/**
 * Makes the namespace of one step. Undefined when `signal` fired first; nothing is left of it then.
 * @throws {ObuilderError} NAMESPACE_FAILED when the host refuses a mount.
 */
export async function openStepNamespace(
  options: NamespaceOptions,
  signal: AbortSignal,
): Promise<StepNamespace | Refusal | undefined> {
  const helper = startHelper(options);
  const answer = await untilAborted(answerOf(helper), signal);
  if (answer === undefined) {
    await closeHelper(helper);
    return undefined;
  }
  if (answer.stdout.startsWith('refused ')) {
    await closeHelper(helper);
    return { refused: answer.stdout.slice('refused '.length).trim() };
  }
  if (answer.stdout !== 'ready\n') throw namespaceFailed(options, answer.stderr);
  return {
    enter: (login) => enterCommand(helper.pid ?? 0, options.user, login),
    close: () => closeHelper(helper),
  };
}

/** nsenter and not su: it becomes the step itself, so how the step ends is seen exactly, and no session of PAM's is opened. */
function enterCommand(pid: number, user: BuildUser, login: readonly string[]): string[] {
  const ids = ['--setgid', String(user.gid), '--setuid', String(user.uid)];
  const shell = ['/bin/bash', '--login', '-c', ...login];
  return ['/usr/bin/nsenter', `--mount=/proc/${pid}/ns/mnt`, ...ids, '--', ...shell];
}

function startHelper(options: NamespaceOptions): ChildProcessWithoutNullStreams {
  const unshare = ['--mount', '--propagation', 'private', '--'];
  const enter = options.startFrom === undefined ? [] : ['nsenter', `--mount=${options.startFrom}`, '--'];
  const script = ['/bin/sh', '-c', mountScript, ...mountArguments(options)];
  const [command = '', ...args] = [...enter, 'unshare', ...unshare, ...script];
  const helper = spawn(command, args, {
    cwd: '/',
    detached: true, // a group of its own, to be killed as one
    env: { PATH: systemPath, LC_ALL: 'C' },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  helper.stdin.on('error', () => undefined); // it may end before it has read its input
  helper.stdin.write(Buffer.concat(options.secrets.map(({ value }) => value)));
  return helper;
}

/** `$0` and the positional arguments of `mountScript`. */
export function mountArguments(options: NamespaceOptions): string[] {
  const { user, places, cover, staging } = options;
  return [
    'obuilder-fs-mounts',
    ...[
      String(user.uid),
      String(user.gid),
      options.rootfs,
      places.homePath,
      options.tmpDirectory,
      places.tmpPath,
    ],
    ...[staging, places.prefix, cover.kind, cover.kind === 'directory' ? cover.directory : ''],
    String(options.caches.length),
    ...options.caches.flatMap(({ target, directory }) => [...mountPoint(options, target), directory]),
    String(options.secrets.length),
    ...options.secrets.flatMap(({ target, value }) => [
      ...mountPoint(options, dirname(target)),
      basename(target),
      String(value.byteLength),
    ]),
  ];
}

/** Where to make a mount point: below the prefix it is on the cover, while that still waits at the staging place. */
function mountPoint({ places, cover, staging }: NamespaceOptions, target: string): [string, string] {
  const { place, rest } = splitPlace(places, target);
  const isCovered = place === places.prefix && cover.kind !== 'none';
  return [isCovered ? join(staging, 'prefix') : place, rest];
}

interface Answer {
  readonly stdout: string;
  readonly stderr: string;
}

/** What the helper says once its mounts are made, or once it has ended without. */
async function answerOf(helper: ChildProcessWithoutNullStreams): Promise<Answer> {
  let stdout = '';
  let stderr = '';
  helper.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  await new Promise<void>((resolve, reject) => {
    helper.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk.toString();
      if (stdout === 'ready\n') resolve();
    });
    helper.on('close', () => resolve());
    helper.on('error', reject);
  });
  return { stdout, stderr };
}

/** Ends the helper, at whatever it is, and waits until it is gone. */
async function closeHelper(helper: ChildProcessWithoutNullStreams): Promise<void> {
  if (helper.pid === undefined || helper.exitCode !== null || helper.signalCode !== null) return;
  const gone = once(helper, 'exit');
  process.kill(-helper.pid, 'SIGKILL');
  await gone;
}

function namespaceFailed({ rootfs }: NamespaceOptions, stderr: string): ObuilderError {
  const why = stderr.trim().split('\n').slice(-3).join('; ');
  return new ObuilderError('NAMESPACE_FAILED', `${rootfs}: cannot be mounted for a step: ${why}`, {
    hint: 'run as root, where mount namespaces are allowed (in a container: with CAP_SYS_ADMIN)',
  });
}
