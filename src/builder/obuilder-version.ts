import { byteStringOf, type ByteString } from '../spec/byte-string.ts';

/** Whose ids are made: OBuilder's newest, or v0.5's (2022), the last that ran on macOS without ZFS. Only the rules here differ. */
export type ObuilderVersion = 'head' | 'v0.5';

/** What runs a command where a spec has no `(shell …)` before it. */
export function defaultShell(version: ObuilderVersion): readonly ByteString[] {
  const argv = version === 'head' ? ['/usr/bin/env', 'bash', '-c'] : ['/bin/bash', '-c'];
  return argv.map(byteStringOf);
}

/** The directory after `(workdir path)` in `workdir`. Nothing is normalised: ids are made of the text. */
export function joinWorkdir(version: ObuilderVersion, workdir: ByteString, path: ByteString): ByteString {
  if (path.startsWith('/')) return path;
  if (version === 'v0.5') return `${workdir}/${path}` as ByteString;
  return DRIVE.test(path) ? path : joinPath(workdir, path);
}

/** The place that `(copy … (dst DST))` names in `workdir`, in both versions. */
export function joinDestination(workdir: ByteString, dst: ByteString): ByteString {
  return dst.startsWith('/') ? dst : joinPath(workdir, dst);
}

const DRIVE = /^[A-Za-z]:[/\\]/;

function joinPath(directory: ByteString, path: ByteString): ByteString {
  const separator = directory === '' || directory.endsWith('/') ? '' : '/';
  return `${directory}${separator}${path}` as ByteString;
}
