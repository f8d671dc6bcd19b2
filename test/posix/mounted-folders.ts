import { chmodSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setIoUring } from '../../scripts/bench/fs/io-uring.ts';
import { createScratchMount, mainProgram, type ScratchMount } from '../helpers/scratch-mount.ts';

/** A way of serving a prefix. */
export interface Serving {
  readonly backing: 'handles' | 'paths' | 'descriptors';
  readonly cache: 'auto' | 'none';
  /** Whether requests come by io_uring, where the kernel has that. */
  readonly byIoUring: boolean;
}

/** Short runs take each backing, each cache and each way of the requests once. */
export const servings: readonly Serving[] =
  process.env['OBUILDER_FS_LONG'] === '1'
    ? (['handles', 'paths'] as const).flatMap((backing) =>
        (['auto', 'none'] as const).flatMap((cache) =>
          [true, false].map((byIoUring) => ({ backing, cache, byIoUring })),
        ),
      )
    : [
        { backing: 'handles', cache: 'auto', byIoUring: true },
        { backing: 'paths', cache: 'none', byIoUring: false },
      ];

/** A served folder of root's and everybody's (entries `0` and `default`), empty and open to all, with devices. */
export interface MountedFolder {
  readonly scratch: ScratchMount;
  readonly folder: string;
  /** A folder below the prefix, for what must not be the mount's root. */
  readonly below: string;
  /** The command that sees the tree by its own root. */
  readonly asTreeRoot: (argv: string[]) => string[];
}

export function mountFolder({ backing, cache, byIoUring }: Serving): MountedFolder {
  const scratch = createScratchMount();
  const tree = scratch.path('everybody');
  for (const made of [tree, join(tree, 'local')]) mkdirSync(made);
  chmodSync(join(tree, 'local'), 0o777);
  for (const entry of [0, 'default']) scratch.point(entry, tree);
  const ioUring = setIoUring(byIoUring);
  try {
    scratch.mount(
      ...[`--backing=${backing}`, `--cache=${cache}`],
      ...['-o', 'allow_other,default_permissions,dev'],
    );
  } finally {
    ioUring.setBack();
  }
  return {
    scratch,
    folder: scratch.prefix,
    below: join(scratch.prefix, 'below'),
    asTreeRoot: (argv) => [
      process.execPath,
      mainProgram,
      'exec',
      `--state-dir=${scratch.stateDir}`,
      ...['--uid=0', '--prefix-mode=tree', scratch.prefix, '--', ...argv],
    ],
  };
}
