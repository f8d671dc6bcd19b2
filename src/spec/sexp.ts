import type { ByteString } from './byte-string.ts';
import { Layout } from './layout.ts';
import type { SexpNode, SexpTree } from './sexp-tree.ts';

export { SexpError } from './sexp-error.ts';
export { parseSexp } from './sexp-reader.ts';
export type { SexpNode, SexpTree } from './sexp-tree.ts';

/**
 * S-expressions as OBuilder reads and writes them. An atom is bytes. Nothing here recurses, so depth is bounded by memory only.
 */
export type Sexp = ByteString | readonly Sexp[];

/** A node without its places; of a large one, where asked, only the first atoms and lists. */
export function sexpOf(tree: SexpTree, node: SexpNode = tree.root, countMax = Infinity): Sexp {
  const root: Sexp[] = [];
  const pending: { node: SexpNode; into: Sexp[] }[] = [{ node, into: root }];
  let left = countMax;
  for (let next = pending.pop(); next !== undefined && left-- > 0; next = pending.pop()) {
    if (!tree.isList(next.node)) {
      next.into.push(tree.text(next.node));
      continue;
    }
    const items: Sexp[] = [];
    next.into.push(items);
    for (const child of tree.children(next.node, 0, countMax).reverse())
      pending.push({ node: child, into: items });
  }
  return root[0] ?? [];
}

/** Whether an atom must be written between quotes to be read back as it is. */
export function needsQuotes(atom: ByteString): boolean {
  return atom === '' || /[\x00-\x20"();\\\x7f-\xff]|#\||\|#/.test(atom);
}

/** The bytes of an atom as they stand between quotes. */
export function escapeAtom(atom: string): string {
  return atom.replace(/[\x00-\x1f"\\\x7f-\xff]/g, (char) => NAMED_ESCAPES[char] ?? decimalEscape(char));
}

const NAMED_ESCAPES: Readonly<Record<string, string>> = {
  '"': '\\"',
  '\\': '\\\\',
  '\n': '\\n',
  '\t': '\\t',
  '\r': '\\r',
  '\b': '\\b',
};

function decimalEscape(char: string): string {
  return `\\${String(char.charCodeAt(0)).padStart(3, '0')}`;
}

/** The canonical form that ids are made of: a space only between two unquoted atoms. ASCII. */
export function printMach(sexp: Sexp): string {
  const parts: string[] = [];
  let afterBareAtom = false;
  for (const token of tokensOf(sexp)) {
    if (typeof token === 'string') {
      parts.push(token);
      afterBareAtom = false;
    } else if (needsQuotes(token.atom)) {
      parts.push(`"${escapeAtom(token.atom)}"`);
      afterBareAtom = false;
    } else {
      parts.push(afterBareAtom ? ' ' : '', token.atom);
      afterBareAtom = true;
    }
  }
  return parts.join('');
}

/** On one line, with a space between any two items. ASCII. */
export function printInline(sexp: Sexp): string {
  const parts: string[] = [];
  let isFirst = true;
  for (const token of tokensOf(sexp)) {
    if (!isFirst && token !== ')') parts.push(' ');
    if (typeof token === 'string') parts.push(token);
    else parts.push(needsQuotes(token.atom) ? `"${escapeAtom(token.atom)}"` : token.atom);
    isFirst = token === '(';
  }
  return parts.join('');
}

/** The form for people: lines of at most 78 bytes where the atoms allow it, one more space of indentation for each list. ASCII. */
export function printHum(sexp: Sexp): string {
  const layout = new Layout();
  let isFirst = true;
  for (const token of tokensOf(sexp)) {
    if (token === ')') {
      layout.text(')');
      layout.close();
      isFirst = false;
      continue;
    }
    if (!isFirst) layout.break(1);
    if (token === '(') layout.open('packed', 1);
    if (typeof token === 'string') layout.text(token);
    else layoutAtom(layout, token.atom);
    isFirst = token === '(';
  }
  return layout.finish();
}

/**
 * One atom as people read it: an atom of several lines goes over several lines, each starting under the first. A newline that only
 * ends the atom does not make it one of several lines.
 */
export function layoutAtom(layout: Layout, atom: ByteString): void {
  if (!needsQuotes(atom)) {
    layout.text(atom);
    return;
  }
  const firstNewline = atom.indexOf('\n');
  if (firstNewline === -1 || firstNewline === atom.length - 1) {
    layout.text(`"${escapeAtom(atom)}"`);
    return;
  }
  layout.open('packed', 0);
  layout.text(' "');
  for (const [index, line] of atom.split('\n').entries()) {
    if (index > 0) {
      layout.text('\\');
      layout.newline();
      layout.text('\\n');
    }
    layout.text(escapeAtom(line));
  }
  layout.text('"');
  layout.close();
}

type Token = '(' | ')' | '()' | { readonly atom: ByteString };

/** The tokens of a printed S-expression, in order. */
export function* tokensOf(sexp: Sexp): Generator<Token> {
  const open: Iterator<Sexp>[] = [[sexp].values()];
  for (let top = open.at(-1); top !== undefined; top = open.at(-1)) {
    const next = top.next();
    if (next.done === true) {
      open.pop();
      if (open.length > 0) yield ')';
    } else if (typeof next.value === 'string') {
      yield { atom: next.value };
    } else if (next.value.length === 0) {
      yield '()';
    } else {
      yield '(';
      open.push(next.value.values());
    }
  }
}
