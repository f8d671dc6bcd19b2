import { ObuilderError } from '../errors.ts';
import { byteStringOf, textOf, type ByteString } from './byte-string.ts';
import { escapeAtom } from './sexp.ts';
import type { CacheMount, CopyOp, Op, RunOp, Spec, User } from './spec.ts';

export interface DockerfileOptions {
  /** Whether caches and secrets are written, as BuildKit's mounts; without it they are left out. */
  readonly buildkit: boolean;
  /** Whose images it is for: Windows escapes with a backquote, as its paths are full of backslashes (default: `unix`). */
  readonly style?: DockerfileStyle;
}

export type DockerfileStyle = 'unix' | 'windows';

/**
 * The Dockerfile that OBuilder makes of a spec, byte for byte: networks and excludes are left out, and names, comments and paths are
 * written as they are, so that one of several lines does not survive.
 * @throws {ObuilderError} NO_DOCKERFILE for a cache or secret of a user without a number, which BuildKit's mounts need.
 */
export function dockerfileOf(spec: Spec, { buildkit, style = 'unix' }: DockerfileOptions): ByteString {
  const writer = new Writer(buildkit, style);
  return writer.write(spec);
}

interface Stage {
  readonly name: ByteString | undefined;
  readonly spec: Spec;
  /** How many of its nested builds are written. */
  builds: number;
}

class Writer {
  readonly #lines: string[] = [];
  readonly #buildkit: boolean;
  readonly #style: DockerfileStyle;
  readonly #escape: '\\' | '`';

  constructor(buildkit: boolean, style: DockerfileStyle) {
    this.#buildkit = buildkit;
    this.#style = style;
    this.#escape = style === 'windows' ? '`' : '\\';
    if (style === 'windows') this.#lines.push('#escape=`');
  }

  /** Keeps its own stack, so that no depth of nesting overflows ours. */
  write(spec: Spec): ByteString {
    const open: Stage[] = [{ name: undefined, spec, builds: 0 }];
    for (let stage = open.at(-1); stage !== undefined; stage = open.at(-1)) {
      const build = stage.spec.builds[stage.builds++];
      if (build !== undefined) {
        open.push({ ...build, builds: 0 });
        continue;
      }
      this.#writeStage(stage);
      open.pop();
      if (open.length > 0) this.#lines.push('');
    }
    return `${this.#lines.join('\n')}\n` as ByteString;
  }

  #writeStage({ name, spec }: Stage): void {
    this.#lines.push(`FROM ${spec.from}${name === undefined ? '' : ` as ${name}`}`);
    let user: User = INITIAL_USERS[this.#style];
    for (const op of spec.ops) {
      if (op.op === 'user') user = op.user;
      this.#lines.push(this.#instruction(op, user));
    }
  }

  #instruction(op: Op, user: User): string {
    switch (op.op) {
      case 'comment':
        return `# ${op.text}`;
      case 'workdir':
        return `WORKDIR ${op.path}`;
      case 'shell':
        return `SHELL [ ${op.argv.map((word) => `"${word}"`).join(', ')} ]`;
      case 'run':
        return `RUN ${this.#mounts(op, user)}${this.#command(op)}`;
      case 'copy':
        return `COPY ${ownerOf(user)}${sourceOf(op)}${op.src.join(' ')} ${op.dst}`;
      case 'user':
        return `USER ${nameOf(op.user)}`;
      case 'env':
        return `ENV ${op.name}="${this.#quote(op.value)}"`;
    }
  }

  #mounts({ cache, secrets }: RunOp, user: User): string {
    if (!this.#buildkit) return '';
    return [
      ...secrets.map((secret) => mountOf('secret', secret, user)),
      ...cache.map((one) => mountOf('cache', one, user)),
    ].join('');
  }

  #command({ shell }: RunOp): string {
    return shell.split('\n').map(trimmed).join(` ${this.#escape}\n    `);
  }

  #quote(value: ByteString): string {
    return value.replace(this.#escape === '`' ? /["`]/g : /["\\]/g, (char) => this.#escape + char);
  }
}

const INITIAL_USERS: Readonly<Record<DockerfileStyle, User>> = {
  unix: { kind: 'unix', uid: 0, gid: 0 },
  windows: { kind: 'windows', name: byteStringOf('ContainerAdministrator') },
};

function nameOf(user: User): string {
  return user.kind === 'unix' ? `${user.uid}:${user.gid}` : user.name;
}

/** Of what is copied; Docker gives it to root by itself, and Windows has no owners to give. */
function ownerOf(user: User): string {
  const isLeftOut = user.kind === 'windows' || (user.uid === 0 && user.gid === 0);
  return isLeftOut ? '' : `--chown=${nameOf(user)} `;
}

function sourceOf({ from }: CopyOp): string {
  return from.kind === 'build' ? `--from=${from.name} ` : '';
}

function mountOf(type: 'cache' | 'secret', mount: CacheMount, user: User): string {
  if (user.kind === 'windows') {
    throw new ObuilderError(
      'NO_DOCKERFILE',
      `${type} ${escapeAtom(mount.id)}: BuildKit mounts it for a numbered user, not for ${textOf(user.name)}`,
      { hint: 'put (user (uid UID) (gid GID)) before it, or leave --buildkit out' },
    );
  }
  const options = [
    ['--mount=type', type],
    ['id', mount.id],
    ['target', mount.target],
    ['uid', String(user.uid)],
    ...mount.buildkitOptions,
  ];
  return `${options.map(([key, value]) => `${key}=${value}`).join(',')} `;
}

/** Without the blanks that OCaml's String.trim takes away: no vertical tab, and none beyond ASCII. */
function trimmed(line: string): string {
  return line.replace(/^[ \f\n\r\t]+|[ \f\n\r\t]+$/g, '');
}
