import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { errnoCode } from '../errors.ts';
import { unescapeOctal } from './mount-table.ts';

/** What keeps a mount from being taken away. */
export interface MountUser {
  readonly pid: number;
  readonly command: string;
  /** As the process names it. */
  readonly path: string;
}

/**
 * The processes that hold a file or directory of the mount at `prefix`, one path of each; empty where the system does not tell
 * (macOS). Never touches the mount, which may be hung.
 */
export function mountUsers(prefix: string): MountUser[] {
  if (process.platform !== 'linux') return [];
  const device = parseMounts(readFileSync('/proc/self/mountinfo', 'utf8')).findLast(
    ({ mountPoint }) => mountPoint === prefix,
  )?.device;
  if (device === undefined) return [];
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => userOf(pid, device) ?? []);
}

function userOf(pid: string, device: string): MountUser | undefined {
  try {
    const path = heldPath(join('/proc', pid), device);
    if (path === undefined) return undefined;
    return { pid: Number(pid), command: readFileSync(`/proc/${pid}/comm`, 'utf8').trim(), path };
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

function heldPath(proc: string, device: string): string | undefined {
  const mounts = parseMounts(readFileSync(join(proc, 'mountinfo'), 'utf8'));
  const ours = mounts.filter((mount) => mount.device === device);
  if (ours.length === 0) return undefined; // in another mount namespace
  const isOurs = (path: string) => isOn(path, device, mounts);
  const links = ['cwd', 'root', 'exe'].map((name) => readlinkSync(join(proc, name)));
  return links.find(isOurs) ?? openFile(proc, new Set(ours.map(({ id }) => id))) ?? mappedFile(proc, device);
}

/** The path of an open descriptor on one of the mounts. */
function openFile(proc: string, mountIds: ReadonlySet<string>): string | undefined {
  const fd = readdirSync(join(proc, 'fdinfo')).find((name) => {
    try {
      const [, id = ''] = /^mnt_id:\t(\d+)$/m.exec(readFileSync(join(proc, 'fdinfo', name), 'latin1')) ?? [];
      return mountIds.has(id);
    } catch (error) {
      if (isGone(error)) return false;
      throw error;
    }
  });
  return fd === undefined ? undefined : readlinkSync(join(proc, 'fd', fd));
}

/** Lines `ADDRESS PERMISSIONS OFFSET DEVICE INODE PATH`, the device in hexadecimal: see proc(5). */
function mappedFile(proc: string, device: string): string | undefined {
  const [major = 0, minor = 0] = device.split(':').map(Number);
  const hex = [major, minor].map((one) => one.toString(16).padStart(2, '0')).join(':');
  const line = readFileSync(join(proc, 'maps'), 'utf8')
    .split('\n')
    .find((one) => one.split(' ')[3] === hex);
  return line === undefined ? undefined : /^(?:\S+\s+){5}(.*)$/.exec(line)?.[1];
}

interface KernelMount {
  readonly id: string;
  /** MAJOR:MINOR, in decimal. */
  readonly device: string;
  readonly mountPoint: string;
}

function parseMounts(text: string): KernelMount[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [id = '', , device = '', , mountPoint = ''] = line.split(' ');
      return { id, device, mountPoint: unescapeOctal(mountPoint) };
    });
}

/** Whether a path lies on a mount of the device: the deepest mount point above it, the latest of several, decides. */
function isOn(path: string, device: string, mounts: readonly KernelMount[]): boolean {
  let deepest: KernelMount | undefined;
  for (const mount of mounts) {
    const isAbove =
      mount.mountPoint === '/' || path === mount.mountPoint || path.startsWith(`${mount.mountPoint}/`);
    if (isAbove && mount.mountPoint.length >= (deepest?.mountPoint.length ?? 0)) deepest = mount;
  }
  return deepest?.device === device;
}

// Ended meanwhile, a kernel thread, or a process that even root may not look into.
function isGone(error: unknown): boolean {
  return ['ENOENT', 'ESRCH', 'EACCES', 'EPERM', 'EINVAL'].includes(errnoCode(error) ?? '');
}
