import { lstatSync, mkdirSync, renameSync, rmSync, symlinkSync, type Stats } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { errnoCode, ObuilderError } from '../errors.ts';
import { native } from './native.ts';

/** One entry as the file system judges it: a caller whose entry is not usable gets EACCES for everything. */
export interface ScoreboardEntry {
  /** A uid in decimal, or `default`. */
  readonly name: string;
  /** What the link says, '' where the entry is no link. */
  readonly target: string;
  /** Why the entry cannot be used; undefined when it can. */
  readonly problem: string | undefined;
}

/** The uid above it, -1, is nobody's: it means "leave as it is" to chown(2) and its like. */
const UID_MAX = 0xff_ff_ff_fe;
const ENTRY_NAME = /^(0|[1-9][0-9]*|default)$/;

/**
 * @throws {ObuilderError} SCOREBOARD_MISSING, SCOREBOARD_UNSAFE when anyone but root could write it: whoever writes the
 * scoreboard decides which directory a build sees as its prefix.
 */
export function checkScoreboard(scoreboard: string): void {
  let stats: Stats;
  try {
    stats = lstatSync(scoreboard);
  } catch (cause) {
    if (errnoCode(cause) !== 'ENOENT' && errnoCode(cause) !== 'ENOTDIR') throw cause;
    throw new ObuilderError('SCOREBOARD_MISSING', `scoreboard ${scoreboard} does not exist`, {
      hint: `make it as root: install -d -m 755 ${scoreboard}`,
      cause,
    });
  }
  if (!stats.isDirectory()) {
    throw new ObuilderError('SCOREBOARD_MISSING', `scoreboard ${scoreboard} is not a directory`, {
      hint: 'name a directory of links UID -> DIRECTORY',
    });
  }
  if (stats.uid !== 0 || (stats.mode & 0o022) !== 0) {
    const why =
      stats.uid === 0 ? 'others than root can write it' : `it belongs to uid ${stats.uid}, not to root`;
    throw new ObuilderError('SCOREBOARD_UNSAFE', `scoreboard ${scoreboard} cannot be trusted: ${why}`, {
      hint: `as root: chown root ${scoreboard} && chmod 755 ${scoreboard}`,
    });
  }
}

/** Makes the scoreboard where it is missing (0755, root's). */
export function createScoreboard(scoreboard: string): void {
  mkdirSync(scoreboard, { recursive: true, mode: 0o755 });
  checkScoreboard(scoreboard);
}

/**
 * @param subdirectory of an entry's directory that is its tree, '' for the directory itself.
 * @param prefix that it serves: no entry may lead into it; '' where none is meant.
 */
export function listScoreboard(scoreboard: string, subdirectory: string, prefix = ''): ScoreboardEntry[] {
  checkScoreboard(scoreboard);
  return native()
    .readScoreboard(scoreboard, subdirectory, prefix)
    .map(({ name, target, problem }) => ({ name, target, problem: problem === '' ? undefined : problem }));
}

/** Points `name` (a uid or `default`) at a directory, in one step: a mount that serves sees the old entry or the new one. */
export function setScoreboardEntry(scoreboard: string, name: string, directory: string): void {
  checkEntryName(name);
  if (!isAbsolute(directory)) {
    throw new ObuilderError('BAD_TARGET', `scoreboard entry ${name}: ${directory} is not an absolute path`, {
      hint: 'give the directory with its whole path',
    });
  }
  checkScoreboard(scoreboard);
  const fresh = join(scoreboard, `.${name}.${process.pid}.new`);
  rmSync(fresh, { force: true });
  symlinkSync(directory, fresh);
  renameSync(fresh, join(scoreboard, name));
}

/** Removes an entry; answers whether there was one. From then on its uid sees the covered directory. */
export function clearScoreboardEntry(scoreboard: string, name: string): boolean {
  checkEntryName(name);
  checkScoreboard(scoreboard);
  try {
    rmSync(join(scoreboard, name));
    return true;
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return false;
    throw error;
  }
}

function checkEntryName(name: string): void {
  if (ENTRY_NAME.test(name) && (name === 'default' || Number(name) <= UID_MAX)) return;
  throw new ObuilderError('BAD_UID', `"${name}" is not a scoreboard entry`, {
    hint: 'give a uid in decimal, or "default"',
  });
}
