import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ObuilderError } from '../../../src/errors.ts';
import { createBtrfsCopier } from '../../../src/store/btrfs-copier.ts';
import { createCloneCopier } from '../../../src/store/clone-copier.ts';
import { createDirectoryStore } from '../../../src/store/directory-store.ts';
import { createRsyncCopier } from '../../../src/store/rsync-copier.ts';
import type { Store } from '../../../src/store/store.ts';
import type { TreeCopier } from '../../../src/store/tree-copier.ts';
import type { ContenderHost, StepContender } from './contender.ts';
import { quieten, usedBytes, type DiskKind } from './loop-disk.ts';
import { changeOneFile, writeTree } from './tree.ts';

interface Copier {
  readonly diskKind: DiskKind;
  readonly create: () => TreeCopier;
  /** Whether copies share storage with their originals. */
  readonly shares: boolean;
}

const COPIERS = {
  rsync: { diskKind: 'ext4', create: () => createRsyncCopier(), shares: false },
  clone: { diskKind: 'xfs', create: createCloneCopier, shares: true },
  btrfs: { diskKind: 'btrfs', create: createBtrfsCopier, shares: true },
} as const satisfies Record<string, Copier>;

/** Our store with that copier. Everything that a build asks of a store for a step is in the step's time. */
export async function openStore(name: keyof typeof COPIERS, host: ContenderHost): Promise<StepContender> {
  const { diskKind, create, shares } = COPIERS[name];
  const { disk, sync } = host;
  const store = await createDirectoryStore({ root: join(disk, 'store'), copier: create(), sync });
  await quieten(disk, diskKind);
  const emptyBytes = usedBytes(disk);
  await save(store, host, { name: 'base', fill: (rootfs) => writeTree(rootfs, host.size, host.signal) });
  await quieten(disk, diskKind);
  const baseBytes = usedBytes(disk) - emptyBytes;
  const step = (turn: number, base = 'base') =>
    save(store, host, {
      name: `step${turn}`,
      base,
      fill: (rootfs) => changeOneFile(rootfs, host.size, turn),
    });
  const diskAfter = async (steps: number) => {
    const usedBefore = usedBytes(disk);
    for (let turn = 0; turn < steps; turn++) await step(turn, turn === 0 ? 'base' : `step${turn - 1}`);
    await quieten(disk, diskKind);
    return 1 + (usedBytes(disk) - usedBefore) / baseBytes;
  };
  return {
    name,
    step: (turn) => step(turn),
    async undo(turn) {
      await store.delete(idOf(`step${turn}`));
      await quieten(disk, diskKind);
    },
    ...(shares ? { diskAfter } : {}),
    close: () => store.close(),
  };
}

interface Result {
  readonly name: string;
  readonly base?: string;
  readonly fill: (rootfs: string) => Promise<void>;
}

async function save(store: Store, { signal }: ContenderHost, { name, base, fill }: Result): Promise<void> {
  const request = { id: idOf(name), base: base === undefined ? undefined : idOf(base) };
  const outcome = await store.build(
    request,
    async (directory) => {
      await fill(join(directory, 'rootfs'));
      await writeFile(join(directory, 'log'), 'changed\n');
      return { status: 'ok' };
    },
    signal,
  );
  signal.throwIfAborted();
  if (outcome.status === 'ok') return;
  throw new ObuilderError('BUILD_FAILED', `${name} was not saved: ${JSON.stringify(outcome)}`);
}

function idOf(name: string): string {
  return createHash('sha256').update(name).digest('hex');
}
