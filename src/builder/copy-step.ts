import { join } from 'node:path';
import { ObuilderError } from '../errors.ts';
import type { StepOutcome } from '../sandbox/sandbox.ts';
import { byteStringOf, type ByteString } from '../spec/byte-string.ts';
import type { CopyOp } from '../spec/spec.ts';
import { placeOf, type BuildContext } from './build-context.ts';
import { KeptDirectories } from './kept-directories.ts';
import type { StoreStep } from './shared-builds.ts';
import { refusalOf, type StepHost } from './step-host.ts';
import { copyOpId, type CopySource } from './step-id.ts';
import { startAtHome } from './step-start.ts';
import { tarStream, type TarRequest } from './tar-stream.ts';

/** Where the tree is not ours to look into, GNU tar at least keeps the modes of directories; bsdtar does not know the option. */
const TAR = process.platform === 'linux' ? ['tar', '--no-overwrite-dir', '-xpf', '-'] : ['tar', '-xf', '-'];

/**
 * `(copy …)`: an archive of files of `sourceDirectory`, extracted in the tree of `base`. It is extracted as any step runs, so that links
 * which an earlier step planted lead nowhere that the step may not go.
 * @throws {StepRefused} when there is nothing to copy, or several items and no directory for them. {ObuilderError} BAD_SOURCE.
 */
export async function copyStep(
  host: StepHost,
  { context, base, copy, source }: { context: BuildContext; base: string; copy: CopyOp; source: CopySource },
): Promise<StoreStep> {
  const { user } = context;
  const { id, content } = await copyOpId(context, { base, copy, source });
  return {
    id,
    base,
    start: () => startAtHome(host.sandbox, context.env),
    prepare() {
      const destination = host.sandbox.locate(placeOf(context, copy.dst));
      const inTree = host.sandbox.inTree(destination);
      const archive = {
        sourceDirectory: source.directory,
        content,
        destination: byteStringOf(destination.replace(/^\/+|\/+$/g, '')),
        owner: user.kind === 'unix' ? user : { uid: 0, gid: 0 },
      };
      return async (directory, output, signal, onWait) => {
        const rootfs = join(directory, 'rootfs');
        const extract = (tar: TarRequest) =>
          sendArchive(tarStream(tar), (stdin) =>
            host.sandbox.run({ ...EXTRACT, stdin, onWait }, rootfs, output, signal),
          );
        if (inTree === undefined) return await extract(archive);
        const place = { rootfs, path: byteStringOf(inTree), archivePath: archive.destination };
        return await keepingDirectories(place, (hasDirectory) => extract({ ...archive, hasDirectory }));
      };
    },
  };
}

const EXTRACT = {
  argv: TAR,
  cwd: '/',
  env: [['PATH', '/bin:/usr/bin']],
  network: [],
  secrets: [],
  caches: [],
} as const;

/** Where a copy goes: in the step's tree, and in the archive. */
interface CopyPlace {
  readonly rootfs: string;
  readonly path: ByteString;
  readonly archivePath: ByteString;
}

/** Runs a copy that leaves the directories alone which are there: they are not in its archive, and get their times back. */
async function keepingDirectories(
  { rootfs, path, archivePath }: CopyPlace,
  extract: (hasDirectory: (name: ByteString) => Promise<boolean>) => Promise<StepOutcome>,
): Promise<StepOutcome> {
  const kept = new KeptDirectories(rootfs);
  await kept.has(path);
  const outcome = await extract((name) => kept.has(`${path}${name.slice(archivePath.length)}` as ByteString));
  if (outcome.status === 'ok') await kept.restoreTimes();
  return outcome;
}

/**
 * Runs what reads `archive`. When the archive breaks off because a source changed, the copy has failed whatever the reader made of
 * the part it got: a cut at a file's end looks to tar like the end.
 */
async function sendArchive(
  archive: ReturnType<typeof tarStream>,
  read: (archive: ReturnType<typeof tarStream>) => Promise<StepOutcome>,
): Promise<StepOutcome> {
  let broken: ObuilderError | undefined;
  archive.on('error', (error) => {
    // Other errors are the reader's that ended early; its own outcome says why.
    if (error instanceof ObuilderError) broken = error;
  });
  try {
    const outcome = await read(archive);
    return broken === undefined || outcome.status === 'cancelled' ? outcome : failureOf(broken);
  } catch (error) {
    if (broken === undefined) throw error;
    return failureOf(broken);
  } finally {
    archive.destroy();
  }
}

function failureOf(error: ObuilderError): StepOutcome {
  const refusal = refusalOf(error);
  if (refusal === undefined) throw error;
  return { status: 'failed', message: refusal.message };
}
