import { byteStringOf, type ByteString } from './byte-string.ts';
import { opSexp } from './print-spec.ts';
import { SexpInspector } from './sexp-inspector.ts';
import { escapeAtom, parseSexp, printInline, SexpError, type SexpNode, type SexpTree } from './sexp.ts';
import { specErrorOf } from './spec-error.ts';
import type { CacheMount, CopyOp, Op, Spec, User } from './spec.ts';

/**
 * Reads a spec, and checks that each build it copies from is in scope.
 * @param fileName what messages call the source.
 * @throws {SpecError} the message is one line, `FILE:LINE:COLUMN: what is wrong`, both counted from 1.
 */
export function parseSpec(source: string | Uint8Array, fileName = 'spec'): Spec {
  const bytes = byteStringOf(source);
  try {
    return new SpecReader(parseSexp(bytes)).read();
  } catch (error) {
    if (error instanceof SexpError) throw specErrorOf(error, bytes, fileName);
    throw error;
  }
}

/** A spec whose nested builds are being read. */
interface OpenStage {
  /** Of the nested build that it is; the outermost has none. */
  readonly name: ByteString | undefined;
  readonly list: SexpNode;
  readonly items: readonly SexpNode[];
  readonly builds: { name: ByteString; spec: Spec }[];
}

/** Reads the spec in a tree; a method throws SexpError for what is none. */
class SpecReader {
  readonly #tree: SexpTree;
  readonly #inspect: SexpInspector;
  readonly #scope = new Scope();

  constructor(tree: SexpTree) {
    this.#tree = tree;
    this.#inspect = new SexpInspector(tree);
  }

  /** Keeps its own stack, so that no depth of nesting overflows ours. */
  read(): Spec {
    const open = [this.#openStage(undefined, this.#tree.root)];
    for (;;) {
      const stage = open.at(-1);
      if (stage === undefined) throw new Error('BUG: a spec without an outermost stage');
      const build = this.#nextBuild(stage);
      if (build !== undefined) {
        open.push(this.#openStage(build.name, build.spec));
        continue;
      }
      const spec = this.#readStage(stage);
      open.pop();
      for (const { name } of stage.builds) this.#scope.leave(name);
      const outer = open.at(-1);
      if (outer === undefined || stage.name === undefined) return spec;
      outer.builds.push({ name: stage.name, spec });
      this.#scope.enter(stage.name);
    }
  }

  #openStage(name: ByteString | undefined, list: SexpNode): OpenStage {
    if (!this.#tree.isList(list)) {
      this.#inspect.fail(list, `a spec is a list, not ${this.#inspect.excerpt(list)}`, STAGE_HINT);
    }
    return { name, list, items: this.#tree.children(list), builds: [] };
  }

  #nextBuild({ items, builds }: OpenStage): { name: ByteString; spec: SexpNode } | undefined {
    const item = items[builds.length];
    if (item === undefined || !this.#isList(item, 'build')) return undefined;
    const [, name, spec, ...others] = this.#tree.children(item);
    if (name === undefined || this.#tree.isList(name) || spec === undefined || others.length > 0) {
      this.#inspect.fail(
        item,
        `${this.#inspect.excerpt(item)} is no nested build`,
        'write (build NAME ((from IMAGE) OPERATION…))',
      );
    }
    return { name: this.#tree.text(name), spec };
  }

  #readStage({ list, items, builds }: OpenStage): Spec {
    const item = items[builds.length];
    if (item === undefined) this.#inspect.fail(list, 'this spec has no (from IMAGE)', STAGE_HINT);
    const [image, ...others] = this.#isList(item, 'from') ? this.#tree.children(item, 1) : [];
    if (image === undefined || this.#tree.isList(image) || others.length > 0) {
      const there = this.#inspect.excerpt(item);
      this.#inspect.fail(item, `${there} stands where (from IMAGE) is expected`, STAGE_HINT);
    }
    const ops = items.slice(builds.length + 1).map((op) => this.#readOp(op));
    return { builds, from: this.#tree.text(image), ops };
  }

  /** Whether it is a list that starts with this word. */
  #isList(node: SexpNode, keyword: string): boolean {
    if (!this.#tree.isList(node)) return false;
    const [first] = this.#tree.children(node, 0, 1);
    return first !== undefined && this.#tree.isAtom(first, keyword);
  }

  #readOp(op: SexpNode): Op {
    const [keyword] = this.#tree.isList(op) ? this.#tree.children(op, 0, 1) : [];
    if (keyword === undefined || this.#tree.isList(keyword)) {
      this.#inspect.fail(op, `${this.#inspect.excerpt(op)} is no operation`, OP_HINT);
    }
    switch (this.#tree.text(keyword) as string) {
      case 'comment':
      case 'Comment':
        return { op: 'comment', text: this.#onlyText(op) };
      case 'workdir':
      case 'Workdir':
        return { op: 'workdir', path: this.#onlyText(op) };
      case 'shell':
      case 'Shell':
        return { op: 'shell', argv: this.#inspect.texts(this.#tree.children(op, 1)) };
      case 'run':
        return this.#readRun(op, this.#tree.children(op, 1));
      case 'Run':
        return this.#readRun(op, this.#listedFields(op));
      case 'copy':
        return this.#readCopy(op, this.#tree.children(op, 1));
      case 'Copy':
        return this.#readCopy(op, this.#listedFields(op));
      case 'user':
        return { op: 'user', user: this.#readUser(op, this.#tree.children(op, 1)) };
      case 'User':
        return { op: 'user', user: this.#readUser(op, this.#listedFields(op)) };
      case 'env':
        return this.#readEnv(op, this.#tree.children(op, 1));
      case 'Env':
        return this.#readEnv(op, this.#listedFields(op));
      default:
        this.#inspect.fail(keyword, `unknown operation ${this.#inspect.excerpt(keyword)}`, OP_HINT);
    }
  }

  /** The fields of a capitalised operation, which has them in a list; in lower case it has them as they are. */
  #listedFields(op: SexpNode): SexpNode[] {
    const [keyword, list, ...others] = this.#tree.children(op);
    if (list !== undefined && this.#tree.isList(list) && others.length === 0)
      return this.#tree.children(list);
    const name = keyword === undefined ? '' : this.#tree.text(keyword).toLowerCase();
    this.#inspect.fail(
      op,
      `${this.#inspect.excerpt(op)} has its fields outside a list`,
      `write (${name} …), in lower case`,
    );
  }

  #onlyText(op: SexpNode): ByteString {
    const [value, ...others] = this.#tree.children(op, 1);
    if (value === undefined || others.length > 0) this.#inspect.failNotOne(op);
    return this.#inspect.text(value);
  }

  #readEnv(op: SexpNode, items: readonly SexpNode[]): Op {
    const [name, value] = items;
    if (items.length !== 2 || name === undefined || value === undefined) {
      this.#inspect.fail(
        op,
        `${this.#inspect.excerpt(op)} takes a name and a value`,
        'write (env NAME VALUE), VALUE between double quotes if it has blanks',
      );
    }
    return { op: 'env', name: this.#inspect.text(name), value: this.#inspect.text(value) };
  }

  #readUser(op: SexpNode, items: readonly SexpNode[]): User {
    const fields = items.map((item) => this.#pairOf(item));
    const [first, second] = fields;
    const names = fields.map((field) => field?.[0] ?? '').join(' ');
    if (names === 'name' && first !== undefined) {
      return { kind: 'windows', name: this.#inspect.text(first[1]) };
    }
    if (names === 'uid gid' && first !== undefined && second !== undefined) {
      return { kind: 'unix', uid: this.#inspect.integer(first[1]), gid: this.#inspect.integer(second[1]) };
    }
    this.#inspect.fail(
      op,
      `${this.#inspect.excerpt(op)} names no user`,
      'write (user (uid UID) (gid GID)), in this order, or (user (name NAME))',
    );
  }

  /** A list of a name and one other thing. */
  #pairOf(node: SexpNode): readonly [name: ByteString, value: SexpNode] | undefined {
    const [name, value, ...others] = this.#tree.isList(node) ? this.#tree.children(node) : [];
    if (name === undefined || this.#tree.isList(name) || value === undefined || others.length > 0)
      return undefined;
    return [this.#tree.text(name), value];
  }

  #readRun(op: SexpNode, items: readonly SexpNode[]): Op {
    const [cache, network, secrets, shell] = this.#inspect.fields(items, RUN_FIELDS);
    return {
      op: 'run',
      cache: this.#readMounts(cache),
      network: network === undefined ? NONE : this.#inspect.texts(network),
      secrets: this.#readMounts(secrets),
      shell: this.#inspect.required(op, shell, '(shell "COMMAND")'),
    };
  }

  #readCopy(op: SexpNode, items: readonly SexpNode[]): Op {
    const [from, src, dst, exclude] = this.#inspect.fields(items, COPY_FIELDS);
    if (src === undefined) {
      this.#inspect.fail(op, `${this.#inspect.excerpt(op)} has no src`, 'add (src PATH…)');
    }
    const copy: CopyOp = {
      from: this.#readSource(from?.[0]),
      src: this.#inspect.texts(src),
      dst: this.#inspect.required(op, dst, '(dst PATH)'),
      exclude: exclude === undefined ? NONE : this.#inspect.texts(exclude),
    };
    if (copy.from.kind === 'build' && !this.#scope.has(copy.from.name)) {
      this.#failUnknownBuild(op, copy, copy.from.name);
    }
    return { op: 'copy', ...copy };
  }

  #readSource(from: SexpNode | undefined): CopyOp['from'] {
    if (from === undefined || this.#tree.isAtom(from, 'context')) return CONTEXT;
    const [keyword, name] = this.#pairOf(from) ?? [];
    if ((keyword as string | undefined) !== 'build' || name === undefined || this.#tree.isList(name)) {
      this.#inspect.fail(
        from,
        `${this.#inspect.excerpt(from)} is nothing to copy from`,
        'write (from (build NAME)) or (from context)',
      );
    }
    return { kind: 'build', name: this.#tree.text(name) };
  }

  #failUnknownBuild(op: SexpNode, copy: CopyOp, name: ByteString): never {
    const text = shortened(printInline(opSexp({ op: 'copy', ...copy, src: copy.src.slice(0, LISTED_MAX) })));
    this.#inspect.fail(
      op,
      `Unknown build ${quoted(name)} in ${text}.${questionFor(this.#scope.names())}`,
      'define it with (build NAME SPEC) before this copy, in the same spec or in one around it',
    );
  }

  /** Caches or secrets: `(ID (target PATH))`. */
  #readMounts(mounts: readonly SexpNode[] | undefined): readonly CacheMount[] {
    return mounts === undefined ? NONE : mounts.map((mount) => this.#readMount(mount));
  }

  #readMount(mount: SexpNode): CacheMount {
    const [id, ...items] = this.#tree.isList(mount) ? this.#tree.children(mount) : [];
    if (id === undefined || this.#tree.isList(id)) {
      this.#inspect.fail(
        mount,
        `${this.#inspect.excerpt(mount)} has no id and target`,
        'write (ID (target PATH))',
      );
    }
    const [target, options] = this.#inspect.fields(items, MOUNT_FIELDS);
    return {
      id: this.#tree.text(id),
      target: this.#inspect.required(mount, target, '(target PATH)'),
      buildkitOptions: options === undefined ? NONE : options.flatMap((one) => this.#readOptions(one)),
    };
  }

  #readOptions(options: SexpNode): CacheMount['buildkitOptions'] {
    if (!this.#tree.isList(options)) {
      const there = this.#inspect.excerpt(options);
      this.#inspect.fail(options, `${there} is no list of options`, OPTIONS_HINT);
    }
    return this.#tree.children(options).map((option) => {
      const [key, value, ...others] = this.#tree.children(option);
      if (key === undefined || value === undefined || others.length > 0) {
        this.#inspect.fail(option, `${this.#inspect.excerpt(option)} is no option`, OPTIONS_HINT);
      }
      return [this.#inspect.text(key), this.#inspect.text(value)] as const;
    });
  }
}

const RUN_FIELDS = [
  ['cache', 'many'],
  ['network', 'many'],
  ['secrets', 'many'],
  ['shell', 'one'],
] as const;

const COPY_FIELDS = [
  ['from', 'one'],
  ['src', 'many'],
  ['dst', 'one'],
  ['exclude', 'many'],
] as const;

const MOUNT_FIELDS = [
  ['target', 'one'],
  ['buildkit_options', 'one'],
] as const;

/** One for all: a large spec has many operations without a cache, a network and secrets. */
const NONE: readonly never[] = [];
const CONTEXT = { kind: 'context' } as const;

/** As OBuilder asks it, but for the names beyond those that somebody would read. */
function questionFor(known: readonly ByteString[]): string {
  const names = known.slice(0, LISTED_MAX).map(quoted);
  if (names.length < known.length) return ` Did you mean one of ${names.join(', ')}… ?`;
  const last = names.at(-1);
  if (last === undefined) return '';
  const others = names.slice(0, -1).join(', ');
  return ` Did you mean ${[last, `either ${others} or ${last}`][names.length - 1] ?? `one of ${others} or ${last}`} ?`;
}

function quoted(name: ByteString): string {
  return `"${shortened(escapeAtom(name))}"`;
}

function shortened(text: string): string {
  return text.length <= TEXT_LENGTH_MAX ? text : `${text.slice(0, TEXT_LENGTH_MAX - 1)}…`;
}

const LISTED_MAX = 50;
const TEXT_LENGTH_MAX = 500;

/** The builds that may be copied from; one that a later build of the same name hides counts twice. */
class Scope {
  readonly #counts = new Map<ByteString, number>();

  enter(name: ByteString): void {
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
  }

  leave(name: ByteString): void {
    const count = (this.#counts.get(name) ?? 0) - 1;
    if (count > 0) this.#counts.set(name, count);
    else this.#counts.delete(name);
  }

  has(name: ByteString): boolean {
    return this.#counts.has(name);
  }

  /** In byte order. */
  names(): ByteString[] {
    return [...this.#counts.keys()].sort();
  }
}

const STAGE_HINT = 'a spec is ((build NAME SPEC)… (from IMAGE) OPERATION…)';
const OP_HINT = 'an operation is a list that starts with comment, workdir, shell, run, copy, user or env';
const OPTIONS_HINT = 'write (buildkit_options ((KEY VALUE)…))';
