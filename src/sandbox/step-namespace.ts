import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { dirname } from 'node:path';
import { ObuilderError } from '../errors.ts';
import type { BuildUser } from './build-users.ts';
import type { StepCommand } from './sandbox.ts';
import { isLocated, splitPlace, type StepPlaces } from './step-places.ts';
import { refusedSecrets, secretName } from './step-secrets.ts';
import { untilAborted } from '../os/until-aborted.ts';

/**
 * The namespaces of one step: mounts, processes, System V and POSIX objects, and the network unless it is the host's. A helper
 * makes them, mounts everything, and then holds them open as their first process; the step is a process of its own that enters
 * them as the build user. So the step's exit status is its own, a failed mount is never mistaken for a failed step, and no program
 * of root's is started once the step's files are in view: the helper's last mount is the one over the prefix.
 *
 * When the helper ends, for whatever reason, our own death among them, the kernel kills every process in there with it.
 */
export interface StepNamespace {
  /** The argv that runs a login shell in there as the build user, without any privilege or a way to get one. */
  enter(login: readonly string[]): string[];
  /** Ends the helper and with it every process in there; the mounts go with the last one. Idempotent. */
  endProcesses(): Promise<void>;
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
  /** The step's private directory for temporary files: its TMPDIR. */
  readonly tmpDirectory: string;
  /** An empty directory of root's; in the namespace alone a tmpfs is mounted there. */
  readonly staging: string;
  readonly caches: StepCommand['caches'];
  readonly secrets: StepCommand['secrets'];
  readonly network: StepCommand['network'];
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
 * Runs as root in the new namespaces, as their first process, which bash is for: it reaps the step's orphans. Everything variable
 * is a positional argument or on standard input (the secrets' values). Answers `ready`, or `refused WHY`, then waits for the end
 * of its input.
 *
 * The tree is hostile: a link in it must not lead a mount of root's elsewhere. So mount points are made as the build user, and a
 * mount is made only where the physical path has been seen to lie below the place it was asked for. Nothing can change in
 * between: the user's processes are gone and the step has not begun.
 *
 * All sources are bound at the staging place first, for the private places may hide where they come from. Descriptor 9 stays the
 * way there. What the machine has mounted is then made read-only: directories that everybody may write are private to the step
 * (/tmp, /var/tmp, /dev/shm) or not to be written at all. The cover of the prefix is moved there last, for from then on the
 * dynamic linker might take a library from it.
 */
export const mountScript = `
set -eu
umask 077
uid=$1 gid=$2 rootfs=$3 home=$4 tmp=$5 tmpTarget=$6 staging=$7 prefix=$8 coverKind=$9 cover=\${10} network=\${11}
shift 11

refuse() { printf 'refused %s\\n' "$*" | tr '\\n' ' '; exit 0; }
asUser() (
  umask 022
  exec setpriv --reuid "$uid" --regid "$gid" --clear-groups --inh-caps=-all -- "$@" </dev/null
)
bind() { mount -n -c -o "bind,nosuid,nodev$3" -- "$1" "$2"; }
place() { mount -n -c --move -- "/proc/self/fd/9/$1" "$2"; }

# Goes to directory $2, relative to $1, made where missing; $1 is at the staging place when it is no absolute path.
enterBelow() {
  cd /proc/self/fd/9
  cd -P -- "$1"
  top=$(pwd -P)
  said=$(asUser mkdir -p -- "./$2" 2>&1) || refuse "$said"
  cd -P -- "./$2" 2>/dev/null || refuse "$2: root cannot enter it"
  here=$(pwd -P)
  case $here/ in "$top"/*) ;; *) refuse "$2: leads to $here" ;; esac
}

isPrivate() { case $1/ in /tmp/* | /var/tmp/* | /dev/shm/*) ;; *) false ;; esac }

# It may be gone already: a mount goes from all namespaces with the directory that it is on.
takeAway() {
  local said
  said=$(umount -n -c -l -- "$1" 2>&1) || ! isMounted "$1" || { printf '%s\\n' "$said" >&2; exit 1; }
}
isMounted() {
  local point
  while read -r _ _ _ _ point _; do
    [ "$(printf '%b' "$point")" != "$1" ] || return 0
  done </proc/self/mountinfo
  return 1
}

# What the machine has mounted there, with everything below it, is made read-only or else taken out of view. Other prefixes are taken out of
# view: their mount processes would have to wait for the step to end.
makeReadOnly() {
  local point flags rest type
  while read -r _ _ _ _ point flags rest; do
    type=\${rest#*- } type=\${type%% *} point=$(printf '%b' "$point")
    case $type in
    proc | sysfs | devpts | mqueue | nsfs | autofs | cgroup | cgroup2 | bpf | *tracefs | *debugfs | securityfs | pstore | configfs | fusectl | binfmt_misc | efivarfs | rpc_pipefs) continue ;;
    esac
    if [ "$type" = fuse.obuilder-fs ] && [ "$point" != "$prefix" ] && [ "$point" != "$home" ]; then
      umount -n -c -l -- "$point" 2>/dev/null || true
      continue
    fi
    case $flags in ro | ro,*) continue ;; esac
    flags=\${flags/#rw/ro}
    mount -n -c -o "remount,bind,\${flags/,idmapped/}" -- "$point" 2>/dev/null || takeAway "$point"
  done <<<"$1"
}

machine=$(</proc/self/mountinfo)
[ "$network" = host ] || ip link set lo up

mount -n -t tmpfs -o mode=0700,nosuid,nodev,noexec obuilder-fs "$staging"
cd "$staging"
exec 9<.
mkdir home own-tmp tmp var-tmp prefix
bind "$rootfs" home ''
bind "$tmp/own" own-tmp ''
bind "$tmp/tmp" tmp ''
bind "$tmp/var-tmp" var-tmp ''

case $coverKind in
directory) bind "$cover" prefix '' ;;
local)
  # Without a usable local the prefix is closed to the step, as the mounted prefix would be.
  if [ -d home/local ] && [ ! -L home/local ]; then
    bind home/local prefix ''
  else
    mount -n -t tmpfs -o mode=0000,ro,nosuid,nodev obuilder-fs prefix
  fi
  ;;
none) if isPrivate "$prefix"; then bind "$prefix" prefix ',ro'; fi ;;
esac

caches=$1
shift
for ((i = 0; i < caches; i++)); do
  mkdir "cache-$i"
  bind "\${@:3 * i + 3:1}" "cache-$i" ''
done

makeReadOnly "$machine"
mount -n -t proc -o nosuid,nodev,noexec,hidepid=2 proc /proc
[ -L /dev/shm ] || [ ! -d /dev/shm ] || mount -n -t tmpfs -o mode=1777,nosuid,nodev obuilder-fs /dev/shm
[ ! -d /dev/mqueue ] || mount -n -t mqueue -o nosuid,nodev,noexec mqueue /dev/mqueue
[ -L /tmp ] || [ ! -d /tmp ] || place tmp /tmp
[ -L /var/tmp ] || [ ! -d /var/tmp ] || place var-tmp /var/tmp
# Mount points that the private places hide now.
for point in "$home" "$tmpTarget" "$prefix"; do
  if isPrivate "$point"; then (umask 022; mkdir -p -- "$point"); fi
done
place home "$home"
place own-tmp "$tmpTarget"

for ((i = 0; i < caches; i++)); do
  enterBelow "$1" "$2"
  [ "$here" != "$top" ] || refuse "$2: a cache cannot cover all of $1"
  place "cache-$i" .
  shift 3
done

secrets=$1 secretsDirectory=$2
shift 2
if [ "$secrets" -gt 0 ]; then
  mkdir -m 0755 "/proc/self/fd/9/secrets"
  mkdir -p -m 0755 "$secretsDirectory"
fi
for ((i = 0; i < secrets; i++)); do
  secret=/proc/self/fd/9/secrets/$3
  head -c "$4" >"$secret"
  chown "$uid:$gid" "$secret"
  chmod 0400 "$secret"
  if [ "$1" != '' ]; then
    enterBelow "$1" "$2"
    [ -e "./$3" ] || said=$(asUser touch -- "./$3" 2>&1) || refuse "$said"
    [ -f "./$3" ] && [ ! -L "./$3" ] || refuse "$3: not a regular file"
    bind "$secret" "./$3" ',ro,noexec'
  fi
  shift 4
done
[ "$secrets" = 0 ] || bind /proc/self/fd/9/secrets "$secretsDirectory" ',ro,noexec'

cd /
if [ "$coverKind" != none ] || isPrivate "$prefix"; then place prefix "$prefix"; fi
exec 9<&-
echo ready
read -r end || exit 0
`;

/**
 * Makes the namespaces of one step. Undefined when `signal` fired first; nothing is left of them then.
 * @throws {ObuilderError} NAMESPACE_FAILED when the host refuses a mount.
 */
export async function openStepNamespace(
  options: NamespaceOptions,
  signal: AbortSignal,
): Promise<StepNamespace | Refusal | undefined> {
  const refused = unsupportedNetwork(options.network) ?? refusedSecrets(options.secrets);
  if (refused !== undefined) return { refused };
  const helper = startHelper(options);
  const answer = await untilAborted(answerOf(helper), signal);
  if (answer?.stdout !== 'ready\n') await killHelper(helper);
  if (answer === undefined) return undefined;
  if (answer.stdout.startsWith('refused ')) {
    return { refused: answer.stdout.slice('refused '.length).trim() };
  }
  if (answer.stdout !== 'ready\n') throw namespaceFailed(options, answer.stderr);
  return {
    enter: (login) => enterCommand(helper.pid ?? 0, options, login),
    endProcesses: () => closeHelper(helper),
    close: () => closeHelper(helper),
  };
}

/** As OBuilder has it: without a word the step is alone with itself, `(network host)` gives it the machine's. */
function unsupportedNetwork(network: readonly string[]): string | undefined {
  return network.length === 0 || isHosts(network) ? undefined : 'Unsupported network configuration';
}

function isHosts(network: readonly string[]): boolean {
  return network.length === 1 && network[0] === 'host';
}

/**
 * nsenter and not su: it ends as the step ends, status or signal, and no session of PAM's is opened. It is started without a way
 * to new privileges, which what it becomes inherits.
 */
function enterCommand(pid: number, options: NamespaceOptions, login: readonly string[]): string[] {
  const { user, network } = options;
  const namespaces = [
    ...[`--mount=/proc/${pid}/ns/mnt`, `--pid=/proc/${pid}/ns/pid_for_children`, `--ipc=/proc/${pid}/ns/ipc`],
    ...(isHosts(network) ? [] : [`--net=/proc/${pid}/ns/net`]),
  ];
  const ids = ['--setgid', String(user.gid), '--setuid', String(user.uid)];
  const shell = ['/bin/bash', '--login', '-c', ...login];
  const withoutPrivileges = ['/usr/bin/setpriv', '--no-new-privs', '--inh-caps=-all', '--'];
  return [...withoutPrivileges, '/usr/bin/nsenter', ...namespaces, ...ids, '--', ...shell];
}

function startHelper(options: NamespaceOptions): ChildProcessWithoutNullStreams {
  const namespaces = ['--mount', '--propagation', 'slave', '--pid', '--fork', '--kill-child', '--ipc'];
  const unshare = isHosts(options.network) ? namespaces : [...namespaces, '--net'];
  const script = ['/bin/bash', '--norc', '--noprofile', '-c', mountScript, ...mountArguments(options)];
  const enter = options.startFrom === undefined ? [] : ['nsenter', `--mount=${options.startFrom}`, '--'];
  const [command = '', ...args] = [...enter, 'unshare', ...unshare, '--', ...script];
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
  const { user, places, cover, staging, network } = options;
  return [
    'obuilder-fs-mounts',
    ...[String(user.uid), String(user.gid), options.rootfs, places.homePath],
    ...[options.tmpDirectory, places.tmpPath, staging, places.prefix],
    ...[cover.kind, cover.kind === 'directory' ? cover.directory : '', isHosts(network) ? 'host' : 'private'],
    String(options.caches.length),
    ...options.caches.flatMap(({ target, directory }) => [...mountPoint(options, target), directory]),
    String(options.secrets.length),
    places.secretsPath,
    ...options.secrets.flatMap((secret) => secretArguments(options, secret)),
  ];
}

/** Where else the secret is mounted, if anywhere, what it is called among the secrets, and its size. */
function secretArguments(
  options: NamespaceOptions,
  { target, value }: StepCommand['secrets'][number],
): string[] {
  const directory = isLocated(options.places, target) ? mountPoint(options, dirname(target)) : ['', ''];
  return [...directory, secretName(target), String(value.byteLength)];
}

/** Where to make a mount point: below the prefix it is on the cover, which still waits at the staging place. */
function mountPoint({ places, cover }: NamespaceOptions, target: string): [string, string] {
  const { place, rest } = splitPlace(places, target);
  const isCovered = place === places.prefix && cover.kind !== 'none';
  return [isCovered ? 'prefix' : place, rest];
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

/** Ends the helper at whatever it is, and waits until it is gone. */
async function killHelper(helper: ChildProcessWithoutNullStreams): Promise<void> {
  if (hasEnded(helper) || helper.pid === undefined) return;
  const gone = once(helper, 'exit');
  process.kill(-helper.pid, 'SIGKILL');
  await gone;
}

/** How long the kernel may take to end what is in the namespaces; a process that hangs in it is for `endProcessesOf` to name. */
const closeMs = 5_000;

/** By the end of its input: that it has ended then says that the kernel has ended all the others. */
async function closeHelper(helper: ChildProcessWithoutNullStreams): Promise<void> {
  if (hasEnded(helper)) return;
  const gone = once(helper, 'exit');
  helper.stdin.end();
  await untilAborted(gone, AbortSignal.timeout(closeMs));
  await killHelper(helper);
}

function hasEnded({ pid, exitCode, signalCode }: ChildProcessWithoutNullStreams): boolean {
  return pid === undefined || exitCode !== null || signalCode !== null;
}

function namespaceFailed({ rootfs }: NamespaceOptions, stderr: string): ObuilderError {
  const why = stderr.trim().split('\n').slice(-3).join('; ');
  return new ObuilderError('NAMESPACE_FAILED', `${rootfs}: cannot be mounted for a step: ${why}`, {
    hint: 'run as root, where mount namespaces are allowed (in a container: with CAP_SYS_ADMIN)',
  });
}
