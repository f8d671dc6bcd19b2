import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';

const script = join(import.meta.dirname, '../../scripts/count-tests.js');

let directory: string;
beforeEach(() => (directory = mkdtempSync(join(tmpdir(), 'count-tests-'))));
afterEach(() => rmSync(directory, { recursive: true }));

function count(...reports: string[]): { status: number | null; lastLine: string | undefined } {
  const paths = reports.map((text, index) => {
    const path = join(directory, String(index));
    writeFileSync(path, text);
    return path;
  });
  const { status, stdout } = spawnSync(process.execPath, [script, ...paths], { encoding: 'utf8' });
  return { status, lastLine: stdout.trimEnd().split('\n').at(-1) };
}

/** A vitest report of one file whose tests ended so. */
function vitest(...statuses: string[]): string {
  const status = statuses.includes('failed') ? 'failed' : 'passed';
  return JSON.stringify({
    testResults: [{ status, assertionResults: statuses.map((one) => ({ status: one })) }],
  });
}

const ctest = `<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="Linux" tests="4" failures="1" disabled="1" skipped="1">
  <testcase name="a &gt; b" classname="a" time="0.1" status="run"><system-out>&lt;failure&gt;</system-out></testcase>
  <testcase name="b" classname="b" time="0.1" status="fail"><failure message="Failed"/><system-out/></testcase>
  <testcase name="c" classname="c" time="0" status="notrun"><skipped message="SKIP"/></testcase>
  <testcase name="d" classname="d" time="0" status="disabled"/>
</testsuite>`;

test.each([
  ['all passed', [vitest('passed', 'passed')], 0, '2 passed, 0 failed'],
  ['one failed', [vitest('passed', 'failed')], 1, '1 passed, 1 failed'],
  ['some skipped', [vitest('passed', 'pending', 'todo')], 0, '1 passed, 0 failed, 2 skipped'],
  ['nothing ran', [vitest()], 1, '0 passed, 0 failed'],
  ['all skipped', [vitest('pending')], 1, '0 passed, 0 failed, 1 skipped'],
  ['a C++ report', [ctest], 1, '1 passed, 1 failed, 2 skipped'],
  ['both kinds', [vitest('passed'), ctest], 1, '2 passed, 1 failed, 2 skipped'],
  ['a report that broke off', [vitest('passed'), '{"testRes'], 1, '1 passed, 0 failed'],
])('%s', (_, reports, status, lastLine) => {
  expect(count(...reports)).toEqual({ status, lastLine });
});

test('a test file that does not load is a failure', () => {
  const report = JSON.stringify({ testResults: [{ status: 'failed', assertionResults: [] }] });
  expect(count(vitest('passed'), report)).toEqual({ status: 1, lastLine: '1 passed, 1 failed' });
});
