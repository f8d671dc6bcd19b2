import type { CommandModule } from 'yargs';
import { mountAt, OUR_FS_TYPE } from '../../fs/mount-table.ts';
import { canonicalPrefix, checkRoot } from '../../fs/prefix-path.ts';
import { openStore } from '../compose.ts';
import { EXIT_INTERRUPTED } from '../exit-codes.ts';
import { hostOptionsOf, withHostFlags, type HostArguments } from '../host-options.ts';
import { interruption } from '../interruption.ts';
import { unmountPrefix } from './unmount.ts';

export const flushCommand: CommandModule<object, HostArguments> = {
  command: 'flush',
  describe:
    'Let running steps end and no other begin, clear away what steps left in the store, unmount the prefix, and let builds go on',
  builder: (yargs) => withHostFlags(yargs),
  handler: async (argv) => {
    checkRoot('flushing');
    const { store: storeOptions, prefix, stateDir } = hostOptionsOf(argv);
    const store = await openStore(storeOptions);
    try {
      const paused = await store.pause(tellWait, interruption());
      if (paused === undefined) {
        console.error('obuilder-fs: cancelled; builds go on');
        process.exitCode = EXIT_INTERRUPTED;
        return;
      }
      try {
        const count = await paused.sweep();
        console.log(`obuilder-fs: removed ${count} leftovers`);
        if (await unmountOurs(prefix, stateDir)) console.log(`obuilder-fs: ${prefix} is unmounted`);
      } finally {
        paused.resume();
      }
    } finally {
      store.close();
    }
  },
};

function tellWait(holders: string): void {
  console.error(
    `obuilder-fs: waiting for running steps${holders === '' ? '' : ` (${holders})`}; Ctrl-C lets builds go on`,
  );
}

/** Whether there was a mount of ours. Builds that go on make it anew when a step needs it. */
async function unmountOurs(givenPrefix: string, stateDir: string): Promise<boolean> {
  const prefix = await canonicalPrefix(givenPrefix);
  if ((await mountAt(prefix))?.fsType !== OUR_FS_TYPE) return false;
  await unmountPrefix(prefix, stateDir, false);
  return true;
}
