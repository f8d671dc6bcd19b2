// Fails when a source file imports what it must not, and says why it must not.
//   node scripts/check-imports.js [ROOT]
// In src, imports point one way (cli → worker, service, image → builder → spec, store, fetcher, sandbox → fs) and never in a circle.
// In native, few files know of Node or of libfuse, so that the rest is built and tested without them.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

/** The folders of src, each with those that it may import; `os`, `errors.ts` and `log.ts` are everyone's. */
const mayImport = {
  index: ['cli', 'worker', 'service', 'image', 'builder', 'spec', 'store', 'fetcher', 'sandbox', 'fs'],
  cli: ['worker', 'service', 'image', 'builder', 'spec', 'store', 'fetcher', 'sandbox', 'fs'],
  worker: ['builder', 'spec', 'store', 'fetcher', 'sandbox', 'fs'],
  service: ['builder', 'spec', 'store', 'fetcher', 'sandbox', 'fs'],
  image: ['builder', 'spec', 'store', 'fetcher', 'sandbox', 'fs'],
  builder: ['spec', 'store', 'fetcher', 'sandbox'],
  spec: [],
  store: ['fs'],
  fetcher: ['fs'],
  sandbox: ['fs'],
  fs: [],
  os: [],
  errors: [],
  log: [],
};
const everyones = ['os', 'errors', 'log'];
/** Folders that hold an interface, in the file of their name, and implementations of it. */
const exchangeable = ['store', 'fetcher', 'sandbox'];
const seesOnlyInterfaces = ['builder', 'worker'];
const namesImplementations = 'cli/compose.ts';
const treeCopier = 'store/tree-copier.ts';

const knowNode = /^(addon\.cc|(session|js_answer|js_values)\.(h|cc))$/;
const knowLibfuse = /^((session|fuse_ops)\.(h|cc)|(kernel_io|mount|request_rings)_\w+\.cc)$/;

if (process.argv[1] === fileURLToPath(import.meta.url)) main();

function main() {
  const problems = checkImports(resolve(process.argv[2] ?? join(import.meta.dirname, '..')));
  for (const problem of problems) console.error(problem);
  const isRight = problems.length === 0;
  console.log(isRight ? 'imports: all arrows point the right way' : `imports: ${problems.length} wrong`);
  process.exitCode = isRight ? 0 : 1;
}

/** What is wrong in the source tree at `root`, a line each. */
export function checkImports(root) {
  return [...checkSource(join(root, 'src')), ...checkNative(join(root, 'native'))];
}

function checkSource(src) {
  const files = filesBelow(src, /\.ts$/);
  const imports = new Map(files.map((file) => [file, importsOf(src, file)]));
  const wrong = files.flatMap((file) =>
    imports.get(file).flatMap((one) => {
      const why = whyNotImport(file, one);
      return why === undefined ? [] : [`src/${file}:${one.line}: imports ${one.target}: ${why}`];
    }),
  );
  return [...wrong, ...cyclesOf(imports)];
}

/** Why `file` must not make this import; undefined when it may. */
function whyNotImport(file, { target, names, isTypeOnly }) {
  if (target.startsWith('../')) {
    return /^\.\.\/(test|scripts)\//.test(target)
      ? 'what is shipped must not need tests or scripts'
      : undefined;
  }
  const [from, to] = [folderOf(file), folderOf(target)];
  if (!(from in mayImport))
    return `${from} is no folder that the rules know; add it to scripts/check-imports.js`;
  if (from === to || (everyones.includes(to) && !['errors', 'log'].includes(from))) return undefined;
  if (from === 'log' && to === 'errors') return undefined;
  if (isExcepted(file, target, isTypeOnly)) return undefined;
  if (!mayImport[from].includes(to)) return whyWrongArrow(from, to);
  return exchangeable.includes(to) ? whyNotExchangeable(file, target, names) : undefined;
}

function isExcepted(file, target, isTypeOnly) {
  if (folderOf(file) === 'fetcher' && target === treeCopier) return true;
  return exchangeable.includes(folderOf(file)) && isInterface(target) && isTypeOnly; // they speak of one another's types
}

function whyWrongArrow(from, to) {
  const allowed = mayImport[from]?.concat(everyones).join(', ');
  const upwards = mayImport[to]?.includes(from) ? `${to} is built on ${from}, not the other way round; ` : '';
  return `${upwards}${from} may import only ${allowed}`;
}

function whyNotExchangeable(file, target, names) {
  if (isInterface(target) || file === namesImplementations) return undefined;
  if (seesOnlyInterfaces.includes(folderOf(file))) {
    const folder = folderOf(target);
    return `${folderOf(file)} knows only the interface, ${folder}/${folder}.ts, so that any ${folder} will do`;
  }
  const named = names.find((name) => name === '*' || /^create[A-Z]/.test(name));
  return named === undefined
    ? undefined
    : `only ${namesImplementations} names implementations (${named}), so that they are chosen in one place`;
}

function isInterface(file) {
  const folder = folderOf(file);
  return exchangeable.includes(folder) && file === `${folder}/${folder}.ts`;
}

/** `store` for store/store.ts, `errors` for errors.ts. */
function folderOf(file) {
  return file.split('/')[0].replace(/\.ts$/, '');
}

/** The relative imports of a file: target (below src), names, line, and whether only types are taken. */
function importsOf(src, file) {
  const source = ts.createSourceFile(file, readFileSync(join(src, file), 'utf8'), ts.ScriptTarget.Latest);
  const found = [];
  const add = (specifier, names, isTypeOnly) => {
    if (!ts.isStringLiteralLike(specifier) || !specifier.text.startsWith('.')) return;
    const target = relative(src, resolve(src, dirname(file), specifier.text));
    const line = source.getLineAndCharacterOfPosition(specifier.getStart(source)).line + 1;
    found.push({ target, names, isTypeOnly, line });
  };
  const visit = (node) => {
    if (ts.isImportDeclaration(node)) add(node.moduleSpecifier, ...namesOfImport(node.importClause));
    else if (ts.isExportDeclaration(node) && node.moduleSpecifier)
      add(node.moduleSpecifier, ...namesOfExport(node));
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword)
      add(node.arguments[0], ['*'], false);
    else if (ts.isImportTypeNode(node)) add(node.argument.literal, [], true);
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

function namesOfImport(clause) {
  if (clause === undefined) return [['*'], false];
  return namesOfBindings(clause.namedBindings, clause.isTypeOnly);
}

function namesOfExport(node) {
  return namesOfBindings(node.exportClause, node.isTypeOnly);
}

function namesOfBindings(bindings, isTypeOnly) {
  if (bindings?.elements === undefined) return [['*'], isTypeOnly];
  const names = bindings.elements.map((element) => (element.propertyName ?? element.name).text);
  return [names, isTypeOnly || bindings.elements.every((element) => element.isTypeOnly)];
}

/** One line for each file that a walk along the imports comes back to. */
function cyclesOf(imports) {
  const state = new Map();
  const found = [];
  const walk = (file, path) => {
    if (state.get(file) === 'done' || !imports.has(file)) return;
    if (state.get(file) === 'open') {
      found.push(
        `src: a circle of imports: ${[...path.slice(path.indexOf(file)), file].join(' → ')}: move what both need below them`,
      );
      return;
    }
    state.set(file, 'open');
    for (const target of new Set(imports.get(file).map((one) => one.target))) walk(target, [...path, file]);
    state.set(file, 'done');
  };
  for (const file of imports.keys()) walk(file, []);
  return found;
}

function checkNative(native) {
  const files = filesBelow(native, /\.(cc|h)$/).filter((file) => !file.startsWith('build'));
  const includes = new Map(files.map((file) => [file, includesOf(native, file)]));
  return files.flatMap((file) =>
    includes.get(file).flatMap(({ header, line }) => {
      const why = whyNotInclude(file, header, includes);
      return why === undefined ? [] : [`native/${file}:${line}: includes ${header}: ${why}`];
    }),
  );
}

function whyNotInclude(file, header, includes) {
  if (isNodes(header) && !knowNode.test(file)) {
    return 'only addon.cc, session, js_answer and js_values know of Node; the rest is tested without it';
  }
  if (isLibfuses(header, includes) && !knowLibfuse.test(file)) {
    return 'only session, fuse_ops, kernel_io, mount_* and request_rings know of libfuse; the rest is tested without it';
  }
  if (knowNode.test(file) || knowLibfuse.test(file)) return undefined;
  const chain = chainToForeign(header, includes, []);
  return chain && `it brings in ${chain.join(' → ')}, and the core is tested without Node and libfuse`;
}

/** The way from a header of ours to one of Node's or libfuse's. */
function chainToForeign(header, includes, path) {
  if (path.includes(header)) return undefined;
  if (isNodes(header) || isLibfuses(header, includes)) return [...path, header].slice(1);
  for (const next of includes.get(header) ?? []) {
    const chain = chainToForeign(next.header, includes, [...path, header]);
    if (chain !== undefined) return chain;
  }
  return undefined;
}

function isNodes(header) {
  return /^(napi(-inl)?|node_api(_types)?|js_native_api(_types)?|node|uv|v8)\.h$/.test(header);
}

/** Also below fuse/ or fuse3/; not our own fuse_ops.h. */
function isLibfuses(header, includes) {
  return !includes.has(header) && (/^(osx)?fuse3?\//.test(header) || /^fuse(_\w+)?\.h$/.test(header));
}

function includesOf(native, file) {
  const lines = readFileSync(join(native, file), 'utf8').split('\n');
  return lines.flatMap((text, index) => {
    const header = /^\s*#\s*include\s*[<"]([^>"]+)[>"]/.exec(text)?.[1];
    return header === undefined ? [] : [{ header: header.replace(/^(\.\.?\/)+/, ''), line: index + 1 }];
  });
}

function filesBelow(directory, pattern) {
  if (!existsSync(directory)) return [];
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && pattern.test(basename(entry.name)))
    .map((entry) => relative(directory, join(entry.parentPath, entry.name)))
    .sort();
}
