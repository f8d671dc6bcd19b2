import type { CommandModule } from 'yargs';
import { errnoCode, ObuilderError } from '../../errors.ts';
import { lockFile, untilUnlocked } from '../../fs/file-lock.ts';
import { mountAt, OUR_FS_TYPE } from '../../fs/mount-table.ts';
import { mountUsers, type MountUser } from '../../fs/mount-users.ts';
import { native } from '../../fs/native.ts';
import { canonicalPrefix, checkRoot } from '../../fs/prefix-path.ts';
import {
  createRunDirectory,
  liveRecord,
  prefixFiles,
  removeRecord,
  signalServing,
  type PrefixFiles,
} from '../../fs/run-directory.ts';
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
    await unmountPrefix(prefix, argv['state-dir'], argv.force);
    console.log(`obuilder-fs: ${prefix} is unmounted`);
  },
};

/**
 * Takes our mount on `prefix` away, and answers when its process has ended.
 * @throws {ObuilderError} NOT_MOUNTED, NOT_OURS; PREFIX_IN_USE unless by force.
 */
export async function unmountPrefix(prefix: string, stateDir: string, force: boolean): Promise<void> {
  await checkOurs(prefix);
  const files = prefixFiles(createRunDirectory(stateDir), prefix);
  // Who holds a lease on the mount makes it anew once this is over, not before.
  const change = await lockFile(files.change, 'exclusive');
  try {
    await takeAway(prefix, files, force);
  } finally {
    change.release();
  }
}

async function takeAway(prefix: string, files: PrefixFiles, force: boolean): Promise<void> {
  const record = liveRecord(files);
  unmount(prefix, force || record === undefined);
  // Without its mount a process that answers ends at once.
  const hung =
    force && record !== undefined
      ? setTimeout(() => signalServing(record, files, 'SIGKILL'), PATIENCE_MS)
      : undefined;
  await untilReleased(files.serving, prefix);
  clearTimeout(hung);
  removeRecord(files);
}

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
    throw prefixInUse(prefix, mountUsers(prefix), cause);
  }
}

const USERS_MAX = 10;

function prefixInUse(prefix: string, users: readonly MountUser[], cause: unknown): ObuilderError {
  for (const { pid, command, path } of users.slice(0, USERS_MAX))
    console.error(`obuilder-fs: pid ${pid} (${command}) holds ${path}`);
  if (users.length > USERS_MAX) console.error(`obuilder-fs: and ${users.length - USERS_MAX} more`);
  const end =
    users.length > 0
      ? 'end what holds it'
      : `end what uses it, such as a mount below it or "fuser -c ${prefix}"`;
  return new ObuilderError('PREFIX_IN_USE', `prefix ${prefix} is in use`, {
    hint: `${end}, or: obuilder-fs unmount --force ${prefix}`,
    cause,
  });
}
