import { readFileSync } from 'node:fs';
import { runCommand } from '../os/exec.ts';

export interface MountEntry {
  readonly mountPoint: string;
  readonly fsType: string;
  readonly source: string;
}

/** File-system type under which the kernel lists our mounts. */
export const OUR_FS_TYPE = process.platform === 'darwin' ? 'macfuse' : 'fuse.obuilder-fs';

/** The mounts of this process's namespace, oldest first; never touches one, so a dead mount does not hang it. */
export async function readMountTable(): Promise<MountEntry[]> {
  if (process.platform !== 'darwin') return parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8'));
  return parseMountOutput((await runCommand(['/sbin/mount'])).stdout);
}

/** The mount that is on top at `directory`, if that is a mount point. */
export async function mountAt(directory: string): Promise<MountEntry | undefined> {
  return (await readMountTable()).findLast((mount) => mount.mountPoint === directory);
}

/** Linux: lines of /proc/self/mountinfo, see proc(5). */
export function parseMountInfo(text: string): MountEntry[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [left = '', right = ''] = line.split(' - ');
      const [fsType = '', source = ''] = right.split(' ');
      return { mountPoint: unescapeOctal(left.split(' ')[4] ?? ''), fsType, source: unescapeOctal(source) };
    });
}

/** macOS: lines `SOURCE on DIRECTORY (TYPE, OPTION…)` of mount(8). */
export function parseMountOutput(text: string): MountEntry[] {
  const mounts: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const match = /^(.*) on (\/.*) \(([^,)]+)/.exec(line);
    if (match !== null)
      mounts.push({ source: match[1] ?? '', mountPoint: match[2] ?? '', fsType: match[3] ?? '' });
  }
  return mounts;
}

// The kernel writes blanks, tabs, newlines and backslashes as \ooo, byte by byte.
export function unescapeOctal(text: string): string {
  if (!text.includes('\\')) return text;
  const bytes = Buffer.from(text, 'utf8').toString('latin1');
  const plain = bytes.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
  return Buffer.from(plain, 'latin1').toString('utf8');
}
