import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

const script = join(import.meta.dirname, '../../scripts/check-imports.js');
const { checkImports } = (await import(script)) as { checkImports: (root: string) => string[] };

let root: string;
beforeEach(() => (root = mkdtempSync(join(tmpdir(), 'check-imports-'))));
afterEach(() => rmSync(root, { recursive: true }));

/** What the check says of a source tree with these files. */
function check(files: Record<string, string>): string[] {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return checkImports(root);
}

const right: [what: string, file: string, text: string][] = [
  [
    'the command line composes',
    'src/cli/compose.ts',
    `import { createStore } from '../store/directory-store.ts';`,
  ],
  ['the worker uses the builder', 'src/worker/job.ts', `import { build } from '../builder/builder.ts';`],
  ['the builder knows the interface', 'src/builder/b.ts', `import type { Store } from '../store/store.ts';`],
  ['the builder reads specs', 'src/builder/b.ts', `import { parse } from '../spec/parse-spec.ts';`],
  ['everyone has errors', 'src/spec/sexp.ts', `import { ObuilderError } from '../errors.ts';`],
  ['the store locks files', 'src/store/directory-store.ts', `import { lockFile } from '../fs/file-lock.ts';`],
  [
    'a fetcher copies trees',
    'src/fetcher/d.ts',
    `import type { TreeCopier } from '../store/tree-copier.ts';`,
  ],
  [
    'interfaces share types',
    'src/store/store.ts',
    `import type { StepOutcome } from '../sandbox/sandbox.ts';`,
  ],
  [
    'a service asks for a helper',
    'src/service/doctor.ts',
    `import { find } from '../sandbox/build-users.ts';`,
  ],
  [
    'a comment is no import',
    'src/fs/mount.ts',
    `// import '../cli/main.ts'\nconst text = "import '../cli/main.ts'";`,
  ],
  ['the session knows both', 'native/session.cc', '#include <napi.h>\n#include <fuse_lowlevel.h>'],
  ['fuse_ops.h is ours', 'native/session.cc', '#include "fuse_ops.h"'],
];

test.each(right)('%s: right', (_, file, text) => {
  expect(check({ 'native/fuse_ops.h': '', [file]: text })).toEqual([]);
});

const wrong: [what: string, file: string, text: string, why: string][] = [
  [
    'an arrow upwards',
    'src/fs/mount.ts',
    `import '../cli/main.ts';`,
    'cli is built on fs, not the other way round',
  ],
  [
    'a sideways arrow',
    'src/store/s.ts',
    `import { x } from '../fetcher/d.ts';`,
    'store may import only fs, os',
  ],
  [
    'a value of an interface',
    'src/store/s.ts',
    `import { x } from '../sandbox/sandbox.ts';`,
    'store may import only',
  ],
  ['an impure spec', 'src/spec/spec.ts', `import { run } from '../fs/native.ts';`, 'fs'],
  [
    'a builder that knows its store',
    'src/builder/b.ts',
    `import type { X } from '../store/directory-store.ts';`,
    'builder knows only the interface, store/store.ts',
  ],
  [
    'a command that makes its own sandbox',
    'src/cli/commands/build.ts',
    `import { createUserSandbox } from '../../sandbox/user-sandbox.ts';`,
    'only cli/compose.ts names implementations (createUserSandbox)',
  ],
  ['a re-export', 'src/fs/mount.ts', `export * from '../cli/main.ts';`, 'not the other way round'],
  ['an import at run time', 'src/fs/mount.ts', `await import('../cli/main.ts');`, 'not the other way round'],
  ['a type', 'src/fs/mount.ts', `let x: import('../cli/main.ts').X;`, 'not the other way round'],
  ['errors on something', 'src/errors.ts', `import '../src/os/exec.ts';`, 'errors may import only'],
  ['source on tests', 'src/fs/mount.ts', `import '../../test/helpers/x.ts';`, 'must not need tests'],
  ['an unknown folder', 'src/util/x.ts', `import '../errors.ts';`, 'util is no folder that the rules know'],
  [
    'Node in the core',
    'native/inode_table.cc',
    '#include <napi.h>',
    'only addon.cc, session, js_answer and js_values',
  ],
  [
    'libfuse in the core',
    'native/tree.h',
    '#  include <fuse3/fuse.h>',
    'only session, fuse_ops, kernel_io, mount_* and request_rings',
  ],
  [
    'libfuse in a test',
    'native/test/tree_test.cc',
    '#include "../tree.h"',
    'it brings in fuse_ops.h → fuse.h',
  ],
];

test.each(wrong)('%s: wrong, and it says where and why', (_, file, text, why) => {
  const helpers = { 'native/fuse_ops.h': '#include <fuse.h>', 'native/tree.h': '#include "fuse_ops.h"' };
  const said = check({ ...helpers, [file]: `\n${text}` }).filter((line) => line.startsWith(`${file}:`));
  expect(said).toEqual([expect.stringContaining(`${file}:2: `)]);
  expect(said[0]).toContain(why);
});

describe('circles', () => {
  test('a circle is shown from end to end', () => {
    const said = check({
      'src/fs/a.ts': `import './b.ts';`,
      'src/fs/b.ts': `import type { C } from './c.ts';`,
      'src/fs/c.ts': `export { a } from './a.ts';`,
      'src/fs/d.ts': `import './a.ts'; import './b.ts';`,
    });
    expect(said).toEqual([
      'src: a circle of imports: fs/a.ts → fs/b.ts → fs/c.ts → fs/a.ts: move what both need below them',
    ]);
  });

  test('two ways to one file are none', () => {
    const files = { 'src/fs/a.ts': `import './b.ts'; import './c.ts';`, 'src/fs/b.ts': `import './c.ts';` };
    expect(check({ ...files, 'src/fs/c.ts': '' })).toEqual([]);
  });
});

test('as a program it says on stderr what is wrong and fails', () => {
  check({ 'src/fs/a.ts': `import './b.ts';`, 'src/fs/b.ts': `import './a.ts';` });
  const run = spawnSync(process.execPath, [script, root], { encoding: 'utf8' });
  expect(run.status).toBe(1);
  expect(run.stderr).toContain('fs/a.ts → fs/b.ts → fs/a.ts');
});
