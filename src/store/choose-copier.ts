import { mkdir } from 'node:fs/promises';
import { errnoCode, ObuilderError } from '../errors.ts';
import { runCommand } from '../os/exec.ts';
import { createBtrfsCopier, isBtrfs } from './btrfs-copier.ts';
import { canClone, createCloneCopier } from './clone-copier.ts';
import { createRsyncCopier, type RsyncMode } from './rsync-copier.ts';
import { isDiskFull } from './store-space.ts';
import type { TreeCopier } from './tree-copier.ts';
import { openZfsCopier } from './zfs-copier.ts';

/** How a store's trees may be copied; `auto` is the first of btrfs, clone and rsync that works where the store is. */
export const STORE_KINDS = ['auto', 'rsync', 'clone', 'btrfs', 'zfs'] as const;
export type StoreKind = (typeof STORE_KINDS)[number];

export interface CopierChoice {
  readonly kind: StoreKind;
  /** The store's; made where missing. */
  readonly directory: string;
  readonly rsyncMode: RsyncMode;
}

/**
 * The copier of that kind, once it is known to work there.
 * @throws {ObuilderError} STORE_KIND when it does not.
 */
export async function chooseCopier(choice: CopierChoice): Promise<TreeCopier> {
  const { kind, directory } = choice;
  if (kind === 'zfs') return await openZfsCopier({ mountPoint: directory });
  if (kind === 'rsync') return createRsyncCopier(choice.rsyncMode);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  if (kind === 'auto') return await bestCopier(choice);
  // What was asked for is taken on a full disk: nothing can be copied there, but results can be removed.
  const why = kind === 'btrfs' ? await whyNoSubvolumes(directory) : await whyNoClones(directory, undefined);
  if (why !== undefined) throw wrongKind(choice, why);
  return kind === 'btrfs' ? createBtrfsCopier() : createCloneCopier();
}

async function bestCopier({ directory, rsyncMode }: CopierChoice): Promise<TreeCopier> {
  if ((await whyNoSubvolumes(directory)) === undefined) return createBtrfsCopier();
  if ((await whyNoClones(directory, 'the disk is full')) === undefined) return createCloneCopier();
  return createRsyncCopier(rsyncMode);
}

/** `ifFull` is the answer on a full disk, where it cannot be tried. */
async function whyNoClones(directory: string, ifFull: string | undefined): Promise<string | undefined> {
  try {
    return (await canClone(directory)) ? undefined : 'files cannot share their storage on this file system';
  } catch (error) {
    if (isDiskFull(error)) return ifFull;
    throw error;
  }
}

async function whyNoSubvolumes(directory: string): Promise<string | undefined> {
  if (!(await isBtrfs(directory))) return 'this file system is not btrfs';
  if (process.geteuid?.() !== 0) return 'subvolumes can be deleted by root alone';
  try {
    await runCommand(['btrfs', '--version']);
    return undefined;
  } catch (error) {
    if (errnoCode(error) === 'COMMAND_MISSING') return 'the command btrfs is missing (package btrfs-progs)';
    throw error;
  }
}

function wrongKind({ kind, directory }: CopierChoice, why: string): ObuilderError {
  const needs = kind === 'btrfs' ? 'btrfs' : 'XFS with reflink, btrfs or APFS';
  return new ObuilderError('STORE_KIND', `${kind}:${directory}: ${why}`, {
    hint: `put the store on ${needs}, or take --store=auto:${directory}, which uses what works there`,
  });
}
