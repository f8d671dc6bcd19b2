import type { CommandModule } from 'yargs';
import { openStore } from '../compose.ts';
import { storeOptionsOf, withStoreFlags, type StoreArguments } from '../host-options.ts';
import { idPositional } from '../stored-result.ts';

interface DeleteArguments extends StoreArguments {
  id: string;
}

export const deleteCommand: CommandModule<object, DeleteArguments> = {
  command: 'delete <id>',
  describe: 'Remove a result from the store, those made from it first',
  builder: (yargs) => withStoreFlags(yargs).positional('id', idPositional),
  handler: async (argv) => {
    const store = await openStore(storeOptionsOf(argv));
    try {
      const isThere = (await store.find(argv.id)) !== undefined;
      await store.delete(argv.id, (id) => console.log(`Removing ${id}`));
      if (!isThere) console.error(`obuilder-fs: ${argv.id}: no such result`);
    } finally {
      store.close();
    }
  },
};
