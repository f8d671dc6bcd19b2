import type { CommandModule } from 'yargs';
import { errnoCode, ObuilderError } from '../../errors.ts';
import { untilUnlocked } from '../../fs/file-lock.ts';
import { mountAt, OUR_FS_TYPE } from '../../fs/mount-table.ts';
import { native } from '../../fs/native.ts';
import { canonicalPrefix, checkRoot } from '../../fs/prefix-path.ts';
import { createRunDirectory, liveRecord, prefixFiles, removeRecord } from '../../fs/run-directory.ts';
import { stateDirOption } from '../common-options.ts';

const PATIENCE_MS = 2000;

interface UnmountArguments {
  prefix: string;
  force: boolean;
  'state-dir': string;
}

export const unmountCommand: CommandModule<object, UnmountArguments> = {
  command: 'unmount <prefix>',
  describe: 'Take a mount away, also one whose process was killed',
  builder: (yargs) =>
    yargs
      .positional('prefix', { type: 'string', demandOption: true, describe: 'What was mounted over' })
      .option('force', {
        type: 'boolean',
        default: false,
        describe: 'Even while it is used: what is under way fails',
      })
      .option('state-dir', stateDirOption)
      .example('$0 unmount /usr/local', 'take the mount away if nothing uses it')
      .example('$0 unmount --force /usr/local', 'also while it is used'),
  handler: async (argv) => {
    checkRoot('unmounting');
    const prefix = await canonicalPrefix(argv.prefix);
    await checkOurs(prefix);
    const files = prefixFiles(createRunDirectory(argv['state-dir']), prefix);
    const wasLive = liveRecord(files) !== undefined;
    unmount(prefix, argv.force || !wasLive);
    await untilReleased(files.serving, prefix);
    removeRecord(files);
    console.log(`obuilder-fs: ${prefix} is unmounted`);
  },
};

/**
 * Waits for the mount process, which ends when nothing holds the mount any more: not before, or the next mount would find it busy.
 */
async function untilReleased(serving: string, prefix: string): Promise<void> {
  const note = setTimeout(() => {
    console.error(
      `obuilder-fs: ${prefix} is out of sight, but an open file or another mount namespace still holds it; waiting for its process to end`,
    );
  }, PATIENCE_MS);
  await untilUnlocked(serving);
  clearTimeout(note);
}

async function checkOurs(prefix: string): Promise<void> {
  const mounted = await mountAt(prefix);
  if (mounted === undefined) {
    throw new ObuilderError('NOT_MOUNTED', `prefix ${prefix} is not mounted`, {
      hint: 'see: obuilder-fs status',
    });
  }
  if (mounted.fsType !== OUR_FS_TYPE) {
    throw new ObuilderError('NOT_OURS', `prefix ${prefix} is mounted by something else (${mounted.fsType})`, {
      hint: `if you mean it: umount ${prefix}`,
    });
  }
}

function unmount(prefix: string, force: boolean): void {
  try {
    native().unmount(prefix, force ? 'abort' : 'idle');
  } catch (cause) {
    if (errnoCode(cause) !== 'EBUSY') throw cause;
    throw new ObuilderError('PREFIX_IN_USE', `prefix ${prefix} is in use`, {
      hint: `end what uses it (fuser -vm ${prefix} lists it), or: obuilder-fs unmount --force ${prefix}`,
      cause,
    });
  }
}
