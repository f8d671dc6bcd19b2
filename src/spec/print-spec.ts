import { byteStringOf, textOf, type ByteString } from './byte-string.ts';
import { Layout } from './layout.ts';
import { escapeAtom, layoutAtom, printMach, tokensOf, type Sexp } from './sexp.ts';
import type { CacheMount, CopyOp, Op, RunOp, SecretMount, Spec, User } from './spec.ts';

/** The canonical form of a spec, on one line. */
export function printSpecMach(spec: Spec): string {
  return printMach(specSexp(spec));
}

/** A spec for people: an operation a line, the fields of a run a line each. */
export function printSpec(spec: Spec): string {
  const layout = new Layout();
  layout.text('(');
  layout.open('vertical');
  layoutLines(layout, spec);
  layout.close();
  layout.break(0);
  layout.text(')');
  return layout.finish();
}

/** An operation for people, as in a printed spec. */
export function printOp(op: Op): string {
  const layout = new Layout();
  layoutOp(layout, op);
  return layout.finish();
}

/** What the log says when `op` starts; `workdir` is the directory before it. */
export function opHeading(workdir: ByteString, op: Op): string {
  const layout = new Layout();
  layout.text(`${workdir}: `);
  layoutOp(layout, op);
  return textOf(layout.finish() as ByteString);
}

/** What the log says when a stage starts. */
export function fromHeading(image: ByteString): string {
  const layout = new Layout();
  layout.text('(from ');
  layoutAtom(layout, image);
  layout.text(')');
  return layout.finish();
}

/** What the log says when a nested build starts. */
export function buildHeading(name: ByteString): string {
  return `(build "${escapeAtom(name)}" …)`;
}

/** The S-expression of a spec: what is empty or the default is left out. */
export function specSexp(spec: Spec): Sexp {
  const root: Sexp[] = [];
  const pending: { readonly spec: Spec; readonly into: Sexp[] }[] = [{ spec, into: root }];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    for (const build of next.spec.builds) {
      const items: Sexp[] = [];
      next.into.push([bytes('build'), build.name, items]);
      pending.push({ spec: build.spec, into: items });
    }
    next.into.push([bytes('from'), next.spec.from]);
    for (const op of next.spec.ops) next.into.push(opSexp(op));
  }
  return root;
}

/** The S-expression of an operation: what is empty or the default is left out. */
export function opSexp(op: Op): readonly Sexp[] {
  switch (op.op) {
    case 'comment':
      return [bytes('comment'), op.text];
    case 'workdir':
      return [bytes('workdir'), op.path];
    case 'shell':
      return [bytes('shell'), ...op.argv];
    case 'run':
      return [bytes('run'), ...runFields(op)];
    case 'copy':
      return [bytes('copy'), ...copyFields(op)];
    case 'user':
      return [bytes('user'), ...userFields(op.user)];
    case 'env':
      return [bytes('env'), op.name, op.value];
  }
}

/** The fields of a user, as specs and ids write them. */
export function userFields(user: User): readonly Sexp[] {
  if (user.kind === 'windows') return [[bytes('name'), user.name]];
  return [
    [bytes('uid'), bytes(String(user.uid))],
    [bytes('gid'), bytes(String(user.gid))],
  ];
}

function runFields(run: RunOp): Sexp[] {
  return [
    ...listField('cache', run.cache.map(mountSexp)),
    ...listField('network', run.network),
    ...listField('secrets', run.secrets.map(mountSexp)),
    [bytes('shell'), run.shell],
  ];
}

function copyFields(copy: CopyOp): Sexp[] {
  const from: Sexp[] = copy.from.kind === 'build' ? [[bytes('from'), [bytes('build'), copy.from.name]]] : [];
  return [
    ...from,
    [bytes('src'), ...copy.src],
    [bytes('dst'), copy.dst],
    ...listField('exclude', copy.exclude),
  ];
}

function mountSexp(mount: CacheMount | SecretMount): Sexp {
  const target = [bytes('target'), mount.target];
  if (mount.buildkitOptions.length === 0) return [mount.id, target];
  return [mount.id, target, [bytes('buildkit_options'), mount.buildkitOptions]];
}

function listField(name: string, values: readonly Sexp[]): Sexp[] {
  return values.length === 0 ? [] : [[bytes(name), ...values]];
}

type Line = { readonly build: Spec['builds'][number] } | { readonly from: ByteString } | { readonly op: Op };

function* linesOf(spec: Spec): Generator<Line> {
  for (const build of spec.builds) yield { build };
  yield { from: spec.from };
  for (const op of spec.ops) yield { op };
}

/** The lines of a spec, nested builds in full. */
function layoutLines(layout: Layout, spec: Spec): void {
  const open = [linesOf(spec)];
  let isFirst = true;
  for (let stage = open.at(-1); stage !== undefined; stage = open.at(-1)) {
    const next = stage.next();
    if (next.done === true) {
      open.pop();
      if (open.length > 0) layoutBuildEnd(layout);
      continue;
    }
    if (!isFirst) layout.break(0);
    const line = next.value;
    isFirst = 'build' in line;
    if ('build' in line) {
      layoutBuildStart(layout, line.build.name);
      open.push(linesOf(line.build.spec));
    } else if ('from' in line) {
      layoutInline(layout, [bytes('from'), line.from]);
    } else {
      layoutOp(layout, line.op);
    }
  }
}

function layoutBuildStart(layout: Layout, name: ByteString): void {
  layout.text('(build ');
  layout.open('vertical');
  layoutAtom(layout, name);
  layout.break(0);
  layout.text('(');
  layout.open('vertical');
}

function layoutBuildEnd(layout: Layout): void {
  layout.close();
  layout.text(')');
  layout.close();
  layout.text(')');
}

function layoutOp(layout: Layout, op: Op): void {
  switch (op.op) {
    case 'run':
      layoutFields(layout, op.op, runFields(op));
      break;
    case 'copy':
      layoutFields(layout, op.op, copyFields(op));
      break;
    default:
      layoutInline(layout, opSexp(op));
  }
}

function layoutFields(layout: Layout, op: 'run' | 'copy', fields: readonly Sexp[]): void {
  layout.text(`(${op} `);
  layout.open(op === 'run' ? 'vertical' : 'all-or-none');
  for (const [index, field] of fields.entries()) {
    if (index > 0) layout.break(op === 'run' ? 0 : 1);
    layoutInline(layout, field);
  }
  layout.close();
  layout.text(')');
}

/** On one line however long, but for the atoms that are of several lines themselves. */
function layoutInline(layout: Layout, sexp: Sexp): void {
  layout.open('horizontal');
  let isFirst = true;
  for (const token of tokensOf(sexp)) {
    if (!isFirst && token !== ')') layout.break(1);
    if (typeof token === 'string') layout.text(token);
    else layoutAtom(layout, token.atom);
    isFirst = token === '(';
  }
  layout.close();
}

const bytes = byteStringOf;
