import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { MountRecord } from './run-directory.ts';

/**
 * A path at which root finds the tree of a uid by itself, with full caching: bind it over the prefix in a mount namespace, and
 * there no other caller disturbs it. The name is new each time: the kernel remembers what an earlier one led to.
 */
export function treeDoor(record: MountRecord, uid: number, gid: number): string {
  return join(record.prefix, record.doorsName, `${uid}.${gid}.${randomBytes(8).toString('hex')}`);
}
