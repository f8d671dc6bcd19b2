import { posix } from 'node:path';
import type { StepPath } from '../sandbox/sandbox.ts';
import { textOf, type ByteString } from '../spec/byte-string.ts';
import type { Op, User } from '../spec/spec.ts';
import { defaultShell, joinWorkdir, type ObuilderVersion } from './obuilder-version.ts';

export type Env = readonly (readonly [name: ByteString, value: ByteString])[];

/** What the operations of a stage have set so far. Each stage starts anew: neither nested builds nor their parents see the other's. */
export interface BuildContext {
  readonly ids: ObuilderVersion;
  /** The variables that the spec set, the last one first, then the image's. */
  readonly env: Env;
  readonly user: User;
  readonly shell: readonly ByteString[];
  /** As OBuilder writes it, for ids and headings. */
  readonly workdir: ByteString;
  /** Where that is in a step's file system. */
  readonly place: StepPath;
}

export function initialContext(ids: ObuilderVersion, imageEnv: Env): BuildContext {
  return {
    ids,
    env: imageEnv,
    user: { kind: 'unix', uid: 0, gid: 0 },
    shell: defaultShell(ids),
    workdir: '/' as ByteString,
    place: ROOT,
  };
}

/** For the operations after `op`, which makes no result itself. */
export function afterOp(context: BuildContext, op: Exclude<Op, { op: 'run' | 'copy' }>): BuildContext {
  switch (op.op) {
    case 'comment':
      return context;
    case 'workdir':
      return withWorkdir(context, op.path);
    case 'shell':
      return { ...context, shell: op.argv };
    case 'user':
      return { ...context, user: op.user };
    case 'env':
      return withEnv(context, op.name, op.value);
  }
}

export function withWorkdir(context: BuildContext, path: ByteString): BuildContext {
  return {
    ...context,
    workdir: joinWorkdir(context.ids, context.workdir, path),
    place: placeOf(context, path),
  };
}

/** Like OBuilder, replaces only the first variable of that name: a duplicate that an image brings stays, and counts. */
export function withEnv(context: BuildContext, name: ByteString, value: ByteString): BuildContext {
  const old = context.env.findIndex(([other]) => other === name);
  return { ...context, env: [[name, value], ...context.env.filter((_, i) => i !== old)] };
}

const ROOT: StepPath = { from: 'root', path: '' };
const DRIVE = /^[A-Za-z]:[/\\]/;

/** Where the spec's `path` is for a step in `context`. */
export function placeOf({ ids, place }: BuildContext, path: ByteString): StepPath {
  const text = textOf(path);
  if (text.startsWith('/')) return posix.normalize(text) === '/' ? ROOT : { from: 'absolute', path: text };
  if (ids === 'head' && DRIVE.test(text)) return { from: 'absolute', path: text };
  return { from: place.from, path: posix.join(place.path, text) };
}

/** As placeOf, for the targets of caches: in them `~/` is the root, which is the user's home. */
export function cachePlaceOf(context: BuildContext, target: ByteString): StepPath {
  return target.startsWith('~/') ? { from: 'root', path: textOf(target).slice(2) } : placeOf(context, target);
}
