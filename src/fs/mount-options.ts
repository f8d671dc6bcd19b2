import { ObuilderError } from '../errors.ts';

const DEFAULTS = ['allow_other', 'default_permissions', 'nosuid', 'nodev'];

/**
 * macFUSE ignores how long names may be cached, and would show one caller another's: with novncache it asks for every component.
 * nobrowse keeps Finder and its daemons away.
 */
const MACOS_DEFAULTS = [...DEFAULTS, 'novncache', 'nobrowse'];

/** What libfuse 3 and mount(2) take on Linux. Whatever else is refused before libfuse does, which names neither program nor remedy. */
const SWITCHES = new Set(
  (
    'allow_other allow_root default_permissions auto_unmount clone_fd debug ro rw suid nosuid dev nodev exec noexec sync async ' +
    'dirsync atime noatime diratime nodiratime relatime norelatime strictatime nostrictatime'
  ).split(' '),
);
const VALUES = new Set([
  'max_read',
  'subtype',
  'fsname',
  'context',
  'fscontext',
  'defcontext',
  'rootcontext',
]);

/**
 * The options of a mount: ours, but where what was given after -o says otherwise.
 * @param source what the mount table shows as the device.
 * @throws {ObuilderError} BAD_OPTION for one that is not known; on macOS macFUSE judges by itself.
 */
export function mountOptions(
  given: readonly string[],
  source: string,
  platform: NodeJS.Platform = process.platform,
): string[] {
  const options = given.flatMap((one) => one.split(',')).filter((option) => option !== '');
  const isMacos = platform === 'darwin';
  if (!isMacos) options.forEach(checkOption);
  const said = new Set(options.flatMap((option) => [option, opposite(option)]));
  // A comma would begin the next option.
  const fsname = `fsname=${source.replaceAll(/[\\,]/g, '\\$&')}`;
  const defaults = (isMacos ? MACOS_DEFAULTS : DEFAULTS).filter((option) => !said.has(option));
  return [...defaults, fsname, ...(isMacos ? [] : ['subtype=obuilder-fs']), ...options];
}

function opposite(option: string): string {
  return option.startsWith('no') ? option.slice(2) : `no${option}`;
}

function checkOption(option: string): void {
  const at = option.indexOf('=');
  if (at < 0 ? SWITCHES.has(option) : VALUES.has(option.slice(0, at))) return;
  throw new ObuilderError('BAD_OPTION', `unknown mount option "${option}"`, {
    hint: `-o takes ${[...SWITCHES].slice(0, 12).join(', ')} and others of mount.fuse3(8)`,
  });
}
