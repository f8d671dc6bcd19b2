import { readFileSync } from 'node:fs';
import { native } from './native.ts';

/**
 * What a mount process needs of root's powers on Linux: to mount and to open by handle, to reach every file of a tree, to make files
 * of any owner and kind, and to take on the identity of callers. Without sys_resource, quotas hold for what it writes.
 */
const NUMBERS = {
  chown: 0,
  dac_override: 1,
  dac_read_search: 2,
  fowner: 3,
  fsetid: 4,
  setgid: 6,
  setuid: 7,
  sys_admin: 21,
  mknod: 27,
  setfcap: 31,
} as const;
export const MOUNT_CAPABILITIES = Object.keys(NUMBERS);

/** Gives up all others in the calling thread, and so in the threads that will serve requests. */
export function keepMountCapabilities(): void {
  native().keepCapabilities(Object.values(NUMBERS));
}

const CAP_SETPCAP = 8n;

/**
 * The command that starts `argv` without any other capability, in any of its threads; it keeps the pid. Where this process may not
 * take capabilities away, as in some containers, and on macOS, it is `argv` itself.
 */
export function withMountCapabilities(argv: readonly string[]): string[] {
  if (process.platform !== 'linux' || !mayNarrow()) return [...argv];
  const bounds = ['-all', ...MOUNT_CAPABILITIES.map((name) => `+${name}`)].join(',');
  return ['setpriv', `--bounding-set=${bounds}`, '--inh-caps=-all', '--', ...argv];
}

function mayNarrow(): boolean {
  const effective = /^CapEff:\t([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1] ?? '0';
  return ((BigInt(`0x${effective}`) >> CAP_SETPCAP) & 1n) === 1n;
}
