// Sums up test reports for those who read only the last line: "N passed, N failed", and ", N skipped" when there are any.
//   node scripts/count-tests.js REPORT...      (vitest's JSON, ctest's JUnit XML)
// Exits 1 when a test failed, a report is missing or broken, or nothing ran.
import { readFileSync } from 'node:fs';

const reports = process.argv.slice(2);
if (reports.length === 0) {
  console.error('usage: node scripts/count-tests.js REPORT...');
  process.exit(1);
}

const total = { passed: 0, failed: 0, skipped: 0 };
let isBroken = false;
for (const path of reports) add(path);
const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : '';
console.log(`${total.passed} passed, ${total.failed} failed${skipped}`);
process.exitCode = isBroken || total.failed > 0 || total.passed === 0 ? 1 : 0;

function add(path) {
  try {
    const text = readFileSync(path, 'utf8');
    const counts = text.trimStart().startsWith('<') ? countJunit(text) : countVitest(JSON.parse(text));
    for (const key of Object.keys(total)) total[key] += counts[key];
  } catch (error) {
    console.error(`${path}: no report of tests: ${error.message}`);
    isBroken = true;
  }
}

/** A file that failed without a failed test (it did not load, say) counts as one. */
function countVitest(report) {
  if (!Array.isArray(report.testResults)) throw new Error('it has no testResults');
  const counts = { passed: 0, failed: 0, skipped: 0 };
  for (const file of report.testResults) {
    const failedBefore = counts.failed;
    for (const { status } of file.assertionResults) counts[kindOf(status)]++;
    if (file.status === 'failed' && counts.failed === failedBefore) counts.failed++;
  }
  return counts;
}

function kindOf(status) {
  if (status === 'passed' || status === 'failed') return status;
  return 'skipped'; // pending, todo, disabled
}

function countJunit(xml) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  if (!/<testsuites?\b/.test(xml)) throw new Error('it has no testsuite');
  for (const [, attributes, body] of xml.matchAll(
    /<testcase\b((?:[^>"]|"[^"]*")*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g,
  )) {
    const status = /\bstatus="([^"]*)"/.exec(attributes)?.[1];
    if (status === 'fail' || /<(failure|error)\b/.test(body ?? '')) counts.failed++;
    else if (status === 'notrun' || status === 'disabled' || /<skipped\b/.test(body ?? '')) counts.skipped++;
    else counts.passed++;
  }
  return counts;
}
