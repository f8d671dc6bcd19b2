import { byteStringOf, type ByteString } from './byte-string.ts';
import { opSexp } from './print-spec.ts';
import {
  escapeAtom,
  parseSexp,
  printInline,
  SexpError,
  withoutLocations,
  type LocatedList,
  type LocatedSexp,
} from './sexp.ts';
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
    return readSpec(parseSexp(bytes));
  } catch (error) {
    if (error instanceof SexpError) throw specErrorOf(error, bytes, fileName);
    throw error;
  }
}

/** A spec whose nested builds are being read. */
interface OpenStage {
  /** Of the nested build that it is; the outermost has none. */
  readonly name: ByteString | undefined;
  readonly list: LocatedList;
  readonly builds: { name: ByteString; spec: Spec }[];
}

/** Keeps its own stack, so that no depth of nesting overflows ours. */
function readSpec(root: LocatedSexp): Spec {
  const scope = new Scope();
  const open = [openStage(undefined, root)];
  for (;;) {
    const stage = open.at(-1);
    if (stage === undefined) throw new Error('BUG: a spec without an outermost stage');
    const build = nextBuild(stage);
    if (build !== undefined) {
      open.push(openStage(build.name, build.spec));
      continue;
    }
    const spec = readStage(stage, scope);
    open.pop();
    for (const { name } of stage.builds) scope.leave(name);
    const outer = open.at(-1);
    if (outer === undefined || stage.name === undefined) return spec;
    outer.builds.push({ name: stage.name, spec });
    scope.enter(stage.name);
  }
}

function openStage(name: ByteString | undefined, sexp: LocatedSexp): OpenStage {
  if (sexp.kind === 'atom') fail(sexp, `a spec is a list, not ${excerpt(sexp)}`, STAGE_HINT);
  return { name, list: sexp, builds: [] };
}

function nextBuild(stage: OpenStage): { name: ByteString; spec: LocatedSexp } | undefined {
  const item = stage.list.items[stage.builds.length];
  if (item?.kind !== 'list') return undefined;
  const [keyword, name, spec] = item.items;
  if (!isAtom(keyword, 'build')) return undefined;
  if (item.items.length !== 3 || name?.kind !== 'atom' || spec === undefined) {
    fail(item, `${excerpt(item)} is no nested build`, 'write (build NAME ((from IMAGE) OPERATION…))');
  }
  return { name: name.text, spec };
}

function readStage(stage: OpenStage, scope: Scope): Spec {
  const [item, ...ops] = stage.list.items.slice(stage.builds.length);
  if (item === undefined) fail(stage.list, 'this spec has no (from IMAGE)', STAGE_HINT);
  const [keyword, image] = item.kind === 'list' ? item.items : [];
  if (item.kind !== 'list' || item.items.length !== 2 || !isAtom(keyword, 'from') || image?.kind !== 'atom') {
    fail(item, `${excerpt(item)} stands where (from IMAGE) is expected`, STAGE_HINT);
  }
  return { builds: stage.builds, from: image.text, ops: ops.map((op) => readOp(op, scope)) };
}

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

function readOp(sexp: LocatedSexp, scope: Scope): Op {
  const keyword = sexp.kind === 'list' ? sexp.items[0] : undefined;
  if (sexp.kind !== 'list' || keyword?.kind !== 'atom') {
    fail(sexp, `${excerpt(sexp)} is no operation`, OP_HINT);
  }
  switch (keyword.text as string) {
    case 'comment':
    case 'Comment':
      return { op: 'comment', text: onlyAtom(sexp) };
    case 'workdir':
    case 'Workdir':
      return { op: 'workdir', path: onlyAtom(sexp) };
    case 'shell':
    case 'Shell':
      return { op: 'shell', argv: sexp.items.slice(1).map(atomText) };
    case 'run':
      return readRun(sexp, sexp.items.slice(1));
    case 'Run':
      return readRun(sexp, listedFields(sexp, keyword.text));
    case 'copy':
      return readCopy(sexp, sexp.items.slice(1), scope);
    case 'Copy':
      return readCopy(sexp, listedFields(sexp, keyword.text), scope);
    case 'user':
      return { op: 'user', user: readUser(sexp, sexp.items.slice(1)) };
    case 'User':
      return { op: 'user', user: readUser(sexp, listedFields(sexp, keyword.text)) };
    case 'env':
      return readEnv(sexp, sexp.items.slice(1));
    case 'Env':
      return readEnv(sexp, listedFields(sexp, keyword.text));
    default:
      fail(keyword, `unknown operation ${excerpt(keyword)}`, OP_HINT);
  }
}

/** The fields of a capitalised operation, which has them in a list; in lower case it has them as they are. */
function listedFields(op: LocatedList, name: ByteString): readonly LocatedSexp[] {
  const [, list, ...others] = op.items;
  if (list?.kind === 'list' && others.length === 0) return list.items;
  fail(op, `${excerpt(op)} has its fields outside a list`, `write (${name.toLowerCase()} …), in lower case`);
}

function onlyAtom(op: LocatedList): ByteString {
  const [keyword, value] = op.items;
  if (op.items.length !== 2 || keyword?.kind !== 'atom' || value === undefined) {
    fail(op, `${excerpt(op)} takes exactly one value`, 'put a value with blanks between double quotes');
  }
  return atomText(value);
}

function readEnv(op: LocatedList, items: readonly LocatedSexp[]): Op {
  const [name, value] = items;
  if (items.length !== 2 || name === undefined || value === undefined) {
    fail(
      op,
      `${excerpt(op)} takes a name and a value`,
      'write (env NAME VALUE), VALUE between double quotes if it has blanks',
    );
  }
  return { op: 'env', name: atomText(name), value: atomText(value) };
}

function readUser(op: LocatedList, items: readonly LocatedSexp[]): User {
  const names = items.map((item) =>
    item.kind === 'list' && item.items.length === 2 && item.items[0]?.kind === 'atom'
      ? item.items[0].text
      : '',
  );
  const values = items.map((item) => (item.kind === 'list' ? item.items[1] : undefined));
  const [first, second] = values;
  if (names.join(' ') === 'name' && first !== undefined) {
    return { kind: 'windows', name: atomText(first) };
  }
  if (names.join(' ') === 'uid gid' && first !== undefined && second !== undefined) {
    return { kind: 'unix', uid: readInteger(first), gid: readInteger(second) };
  }
  fail(
    op,
    `${excerpt(op)} names no user`,
    'write (user (uid UID) (gid GID)), in this order, or (user (name NAME))',
  );
}

const RUN_FIELDS = { cache: 'many', network: 'many', secrets: 'many', shell: 'one' } as const;

function readRun(op: LocatedList, items: readonly LocatedSexp[]): Op {
  const fields = readFields(items, RUN_FIELDS);
  return {
    op: 'run',
    cache: (fields.cache ?? []).map(readMount),
    network: (fields.network ?? []).map(atomText),
    secrets: (fields.secrets ?? []).map(readMount),
    shell: requiredAtom(op, fields, 'shell', '(shell "COMMAND")'),
  };
}

const COPY_FIELDS = { from: 'one', src: 'many', dst: 'one', exclude: 'many' } as const;

function readCopy(op: LocatedList, items: readonly LocatedSexp[], scope: Scope): Op {
  const fields = readFields(items, COPY_FIELDS);
  if (fields.src === undefined) fail(op, `${excerpt(op)} has no src`, 'add (src PATH…)');
  const from = fields.from?.[0];
  const copy: Extract<Op, { op: 'copy' }> = {
    op: 'copy',
    from: from === undefined ? { kind: 'context' } : readSource(from),
    src: fields.src.map(atomText),
    dst: requiredAtom(op, fields, 'dst', '(dst PATH)'),
    exclude: (fields.exclude ?? []).map(atomText),
  };
  if (copy.from.kind === 'build' && !scope.has(copy.from.name)) {
    failUnknownBuild(op, copy, copy.from.name, scope.names());
  }
  return copy;
}

function readSource(sexp: LocatedSexp): CopyOp['from'] {
  if (isAtom(sexp, 'context')) return { kind: 'context' };
  const [keyword, name] = sexp.kind === 'list' ? sexp.items : [];
  if (sexp.kind !== 'list' || sexp.items.length !== 2 || !isAtom(keyword, 'build') || name?.kind !== 'atom') {
    fail(sexp, `${excerpt(sexp)} is nothing to copy from`, 'write (from (build NAME)) or (from context)');
  }
  return { kind: 'build', name: name.text };
}

function failUnknownBuild(op: LocatedList, copy: Op, name: ByteString, known: readonly ByteString[]): never {
  const quoted = known.map((build) => `"${escapeAtom(build)}"`);
  const last = quoted.at(-1) ?? '';
  const others = quoted.slice(0, -1).join(', ');
  const choices = [last, `either ${others} or ${last}`][quoted.length - 1] ?? `one of ${others} or ${last}`;
  const question = quoted.length === 0 ? '' : ` Did you mean ${choices} ?`;
  const text = printInline(opSexp(copy));
  fail(
    op,
    `Unknown build "${escapeAtom(name)}" in ${text}.${question}`,
    'define it with (build NAME SPEC) before this copy, in the same spec or in one around it',
  );
}

const MOUNT_FIELDS = { target: 'one', buildkit_options: 'one' } as const;

/** A cache or a secret: `(ID (target PATH))`. */
function readMount(sexp: LocatedSexp): CacheMount {
  const id = sexp.kind === 'list' ? sexp.items[0] : undefined;
  if (sexp.kind !== 'list' || id?.kind !== 'atom')
    fail(sexp, `${excerpt(sexp)} has no id and target`, MOUNT_HINT);
  const fields = readFields(sexp.items.slice(1), MOUNT_FIELDS);
  return {
    id: id.text,
    target: requiredAtom(sexp, fields, 'target', '(target PATH)'),
    buildkitOptions: (fields.buildkit_options ?? []).flatMap(readBuildkitOptions),
  };
}

function readBuildkitOptions(sexp: LocatedSexp): CacheMount['buildkitOptions'] {
  const hint = 'write (buildkit_options ((KEY VALUE)…))';
  if (sexp.kind !== 'list') fail(sexp, `${excerpt(sexp)} is no list of options`, hint);
  return sexp.items.map((option) => {
    const [key, value] = option.kind === 'list' ? option.items : [];
    if (option.kind !== 'list' || option.items.length !== 2 || key === undefined || value === undefined) {
      fail(option, `${excerpt(option)} is no option`, hint);
    }
    return [atomText(key), atomText(value)] as const;
  });
}

/** Whether a field has exactly one value, as in `(dst PATH)`, or any number, as in `(src PATH…)`. */
type Arity = 'one' | 'many';

/** The values of each field that is there. */
type Fields<Name extends string> = { [name in Name]?: readonly LocatedSexp[] };

function readFields<Name extends string>(
  items: readonly LocatedSexp[],
  known: Readonly<Record<Name, Arity>>,
): Fields<Name> {
  const fields: Fields<Name> = {};
  for (const item of items) {
    const name = fieldName(item, known);
    if (fields[name] !== undefined) fail(item, `a second field ${name}`, 'keep one of them');
    const values = item.kind === 'list' ? item.items.slice(1) : [];
    if (known[name] === 'one' && values.length !== 1) {
      fail(item, `${excerpt(item)} takes exactly one value`, 'put a value with blanks between double quotes');
    }
    fields[name] = values;
  }
  return fields;
}

function fieldName<Name extends string>(item: LocatedSexp, known: Readonly<Record<Name, Arity>>): Name {
  const keyword = item.kind === 'list' ? item.items[0] : undefined;
  if (keyword?.kind !== 'atom') {
    fail(item, `${excerpt(item)} is no field`, `a field is a list that starts with ${namesOf(known)}`);
  }
  if (Object.hasOwn(known, keyword.text)) return keyword.text as string as Name;
  fail(keyword, `unknown field ${excerpt(keyword)}`, `known here: ${namesOf(known)}`);
}

function namesOf(known: object): string {
  return Object.keys(known).join(', ');
}

function requiredAtom<Name extends string>(
  owner: LocatedSexp,
  fields: Fields<Name>,
  name: Name,
  example: string,
): ByteString {
  const value = fields[name]?.[0];
  if (value === undefined) fail(owner, `${excerpt(owner)} has no ${name}`, `add ${example}`);
  return atomText(value);
}

function atomText(sexp: LocatedSexp): ByteString {
  if (sexp.kind === 'list')
    fail(sexp, `${excerpt(sexp)} is a list, where one value is expected`, 'remove its parentheses');
  return sexp.text;
}

function isAtom(sexp: LocatedSexp | undefined, text: string): boolean {
  return sexp?.kind === 'atom' && (sexp.text as string) === text;
}

/** An integer as OCaml writes them (63 bits); one that does not fit a double is refused. */
function readInteger(sexp: LocatedSexp): number {
  const value = integerOf(atomText(sexp));
  if (value === undefined || !Number.isSafeInteger(value)) {
    fail(sexp, `${excerpt(sexp)} is no integer`, 'write a decimal number, such as 1000');
  }
  return value;
}

const INTEGER = /^([-+]?)(0[xob]|0u|)0*([0-9a-f][0-9a-f_]*)$/i;
const DIGITS: Readonly<Record<string, RegExp>> = {
  '': /^[0-9]{1,20}$/,
  '0u': /^[0-9]{1,20}$/,
  '0x': /^[0-9a-f]{1,16}$/,
  '0o': /^[0-7]{1,21}$/,
  '0b': /^[01]{1,63}$/,
};

function integerOf(text: ByteString): number | undefined {
  const [, sign, prefix = '', body = ''] = INTEGER.exec(text.toLowerCase()) ?? [];
  const digits = body.replaceAll('_', '');
  if (DIGITS[prefix]?.test(digits) !== true) return undefined;
  const magnitude = BigInt((prefix === '0u' ? '' : prefix) + digits);
  const value = sign === '-' ? -magnitude : magnitude;
  // After a prefix come 63 bits without sign, which then wrap around; without a prefix the sign counts.
  const isInRange = prefix === '' ? BigInt.asIntN(63, value) === value : magnitude < 1n << 63n;
  return isInRange ? Number(BigInt.asIntN(63, value)) : undefined;
}

const EXCERPT_LENGTH_MAX = 60;

/** A piece of the source for a message: on one line, and not too long. */
function excerpt(sexp: LocatedSexp): string {
  const text = printInline(withoutLocations(sexp, EXCERPT_LENGTH_MAX + 1));
  return text.length <= EXCERPT_LENGTH_MAX ? text : `${text.slice(0, EXCERPT_LENGTH_MAX - 1)}…`;
}

const STAGE_HINT = 'a spec is ((build NAME SPEC)… (from IMAGE) OPERATION…)';
const OP_HINT = 'an operation is a list that starts with comment, workdir, shell, run, copy, user or env';
const MOUNT_HINT = 'write (ID (target PATH))';

function fail(at: LocatedSexp, message: string, hint: string): never {
  throw new SexpError(at.offset, message, hint, 'sexp');
}
