import type { CommandModule } from 'yargs';
import { openStore } from '../compose.ts';
import { storeOptionsOf, withStoreFlags, type StoreArguments } from '../host-options.ts';

/** The index counts whole seconds: what was used in this one is to go, too. */
const INDEX_RESOLUTION_MS = 1000;

export const cleanCommand: CommandModule<object, StoreArguments> = {
  command: 'clean',
  describe: 'Remove every result from the store but those that running builds use; caches stay',
  builder: (yargs) => withStoreFlags(yargs),
  handler: async (argv) => {
    const store = await openStore(storeOptionsOf(argv));
    try {
      const after = new Date(Date.now() + INDEX_RESOLUTION_MS);
      const count = await store.prune(after, Infinity, (id) => console.log(`Removing ${id}`));
      console.log(`Removed ${count} items`);
    } finally {
      store.close();
    }
  },
};
