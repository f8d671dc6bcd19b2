import { accessSync, constants, lstatSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { errnoCode, ObuilderError } from '../errors.ts';
import { mountAt, OUR_FS_TYPE } from './mount-table.ts';

/** One prefix to serve and what of an entry's directory is its tree there. */
export interface PrefixRequest {
  /** Absolute. */
  readonly prefix: string;
  /** '' for the entry's directory itself. */
  readonly subdirectory: string;
}

/**
 * Reads `PREFIX[=SUBDIR]`; SUBDIR is `local` by default, `.` for the entry's directory itself.
 * @throws {ObuilderError} BAD_PREFIX for an empty one, BAD_SUBDIR for one that could lead out of the entry's directory.
 */
export function parsePrefixRequest(argument: string): PrefixRequest {
  const at = argument.lastIndexOf('=');
  const given = at < 0 ? argument : argument.slice(0, at);
  // Resolved, an empty word would be the working directory.
  if (given === '') {
    throw new ObuilderError('BAD_PREFIX', `"${argument}" names no prefix`, {
      hint: 'give PREFIX or PREFIX=SUBDIR, as in /usr/local=local',
    });
  }
  const prefix = resolve(given);
  return { prefix, subdirectory: parseSubdirectory(at < 0 ? 'local' : argument.slice(at + 1)) };
}

/** Reads SUBDIR; '' for `.`, the entry's directory itself. @throws {ObuilderError} BAD_SUBDIR */
export function parseSubdirectory(given: string): string {
  const subdirectory = given.replace(/\/+$/, '');
  if (subdirectory === '.') return '';
  const components = subdirectory.split('/');
  if (components.some((component) => component === '' || component === '.' || component === '..')) {
    throw new ObuilderError('BAD_SUBDIR', `"${given}" is not a subdirectory`, {
      hint: 'give a relative path such as local, or "." for the directory itself',
    });
  }
  return subdirectory;
}

/** The prefix as the kernel's mount table names it. Never looks into it: a dead mount there would hang or fail. */
export async function canonicalPrefix(prefix: string): Promise<string> {
  const absolute = resolve(prefix);
  if ((await mountAt(absolute)) !== undefined) return absolute;
  try {
    return realpathSync(absolute);
  } catch (error) {
    if (errnoCode(error) === 'ENOENT' || errnoCode(error) === 'ENOTDIR') return absolute;
    throw error;
  }
}

/**
 * A mount process that walks into its own mount waits for itself and cannot even be killed: nothing that it reads may lie below a
 * prefix that it serves.
 * @throws {ObuilderError} BAD_PREFIX for the root directory, PATH_INSIDE for a path at or below one of the canonical prefixes.
 */
export function checkOutside(prefixes: readonly string[], needed: ReadonlyMap<string, string>): void {
  if (prefixes.includes('/')) {
    throw new ObuilderError('BAD_PREFIX', 'prefix / would hide the whole machine', {
      hint: 'name a directory below it, such as /usr/local',
    });
  }
  for (const [what, path] of needed) {
    const real = realPathOf(path);
    const prefix = prefixes.find((one) => real === one || real.startsWith(`${one}/`));
    if (prefix === undefined) continue;
    throw new ObuilderError(
      'PATH_INSIDE',
      `${what} ${path} lies in prefix ${prefix}, which the mount hides`,
      {
        hint: 'keep it outside of what is mounted over',
      },
    );
  }
}

// What does not exist yet will lie below what exists of its path.
function realPathOf(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    if (errnoCode(error) !== 'ENOENT' || path === '/') return path;
    return join(realPathOf(dirname(path)), basename(path));
  }
}

/** @throws {ObuilderError} PREFIX_MISSING, PREFIX_BUSY: what keeps a mount from being made on a canonical prefix. */
export async function checkMountable(prefix: string): Promise<void> {
  const mounted = await mountAt(prefix);
  if (mounted !== undefined) throw prefixBusy(prefix, mounted.fsType, mounted.source);
  let isDirectory: boolean;
  try {
    isDirectory = lstatSync(prefix).isDirectory();
  } catch (cause) {
    if (errnoCode(cause) !== 'ENOENT' && errnoCode(cause) !== 'ENOTDIR') throw cause;
    throw new ObuilderError('PREFIX_MISSING', `prefix ${prefix} does not exist`, {
      hint: `make it: mkdir -p ${prefix}`,
      cause,
    });
  }
  if (!isDirectory) {
    throw new ObuilderError('PREFIX_MISSING', `prefix ${prefix} is not a directory`, {
      hint: 'name a directory',
    });
  }
}

function prefixBusy(prefix: string, fsType: string, source: string): ObuilderError {
  if (fsType === OUR_FS_TYPE) {
    return new ObuilderError(
      'PREFIX_BUSY',
      `prefix ${prefix} is already mounted by obuilder-fs (scoreboard ${source})`,
      {
        hint: `unmount it first: obuilder-fs unmount ${prefix}`,
      },
    );
  }
  return new ObuilderError(
    'PREFIX_BUSY',
    `prefix ${prefix} is already mounted by something else (${fsType}, ${source})`,
    {
      hint: `unmount it first: umount ${prefix}`,
    },
  );
}

/** @throws {ObuilderError} NO_FUSE with what to install or allow. */
export function checkFuse(): void {
  if (process.platform === 'darwin') return; // the mount itself tells
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
  } catch (cause) {
    throw new ObuilderError(
      'NO_FUSE',
      `/dev/fuse cannot be opened (${errnoCode(cause) ?? 'unknown error'})`,
      {
        hint: 'load the module with "modprobe fuse"; in a container pass the device (docker: --device /dev/fuse --cap-add SYS_ADMIN)',
        cause,
      },
    );
  }
}

/** @throws {ObuilderError} NOT_ROOT */
export function checkRoot(what: string): void {
  if (process.geteuid?.() === 0) return;
  throw new ObuilderError('NOT_ROOT', `${what} needs root`, { hint: `run it with sudo` });
}
