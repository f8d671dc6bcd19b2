import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';

/** Never below a tmpfs: what is measured is a disk's file system. */
const PARENT = '/var/tmp';
const NAME = 'obuilder-fs-bench';

/** A directory of this process's own below which everything is made, mounts included; others may enter it. */
export interface Scratch {
  readonly directory: string;
  path(name: string): string;
  /** Makes a directory in it, with those above. */
  make(name: string): string;
  /** Takes away every mount below it, then the directory. */
  sweep(): void;
}

/** Also sweeps what killed benchmarks have left. */
export function createScratch(): Scratch {
  for (const name of readdirSync(PARENT)) {
    const [kind, pid = ''] = name.split('.');
    if (kind === NAME && !existsSync(`/proc/${pid}`)) sweepDirectory(join(PARENT, name));
  }
  const directory = mkdtempSync(join(PARENT, `${NAME}.${process.pid}.`));
  chmodSync(directory, 0o755);
  const path = (name: string) => join(directory, name);
  return {
    directory,
    path,
    make(name) {
      mkdirSync(path(name), { recursive: true, mode: 0o755 });
      return path(name);
    },
    sweep: () => sweepDirectory(directory),
  };
}

function sweepDirectory(directory: string): void {
  for (const point of mountPointsBelow(directory).reverse()) unmountNow(point);
  rmSync(directory, { recursive: true, force: true });
}

/** Lazily where the mount is in use: it must be out of sight before files are removed. */
export function unmountNow(point: string): void {
  if (spawnSync('umount', [point], { stdio: 'ignore' }).status === 0) return;
  spawnSync('umount', ['-l', point], { stdio: 'ignore' });
}

export function isMounted(point: string): boolean {
  return mountPointsBelow(point).includes(point);
}

function mountPointsBelow(directory: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((point) => point === directory || point.startsWith(`${directory}/`));
}
