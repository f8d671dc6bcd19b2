import type { BarGroup } from '../chart.ts';
import { formatFactor, formatNs, textTable } from '../table.ts';
import type { Contender } from './contender.ts';
import type { Samples, Summary } from './summary.ts';
import type { Verdict } from './targets.ts';
import type { Workload } from './workloads.ts';

/** What there is to tell of one benchmark. */
export interface Report {
  readonly samples: Samples;
  readonly contenders: readonly Contender[];
  readonly workloads: readonly Workload[];
  readonly missing: ReadonlyMap<string, string>;
  readonly verdicts: readonly Verdict[];
}

const HEADER = ['', 'median/op', 'quartiles', '× native', '× best peer', 'daemon CPU', 'requests/op'];

export function describeReport(report: Report): string {
  const tables = report.workloads.flatMap((workload) =>
    workload.figures
      .filter((figure) => report.samples.figures().includes(figure))
      .map(
        (figure) =>
          `${figure}: ${workload.description} (for each ${workload.unit})\n${figureTable(report, figure)}\n`,
      ),
  );
  return [...tables, describeMissing(report.missing), `Targets\n${verdictTable(report.verdicts)}`]
    .filter((part) => part !== '')
    .join('\n');
}

/** Peers with caches on are what those with caches on are held against; a name tells. */
export function peersLike(contender: string, contenders: readonly Contender[]): string[] {
  const isCaching = !/-off$|^none/.test(contender);
  return contenders
    .filter(
      ({ kind, name }) => kind === 'peer' && name !== 'one-file' && !name.endsWith('-off') === isCaching,
    )
    .map(({ name }) => name);
}

function figureTable({ samples, contenders }: Report, figure: string): string {
  const rows = contenders.flatMap((contender) => {
    const summary = samples.summary(figure, contender.name);
    return summary === undefined ? [] : [row(samples, contenders, summary)];
  });
  return textTable(HEADER, rows);
}

function row(samples: Samples, contenders: readonly Contender[], summary: Summary): string[] {
  const { figure, contender, nsPerOperation, cpuUsPerOperation, tripsPerOperation } = summary;
  const best = samples.fastest(figure, peersLike(contender, contenders));
  const factor = (other: string | undefined) => {
    const ratio = other === undefined ? undefined : samples.ratio(figure, contender, other);
    return ratio === undefined ? '—' : formatFactor(ratio);
  };
  return [
    contender,
    formatNs(nsPerOperation.median),
    `${formatNs(nsPerOperation.lower)} … ${formatNs(nsPerOperation.upper)}`,
    factor('native'),
    factor(best),
    cpuUsPerOperation === undefined ? '—' : formatNs(cpuUsPerOperation * 1000),
    tripsPerOperation === undefined ? '—' : formatFactor(tripsPerOperation),
  ];
}

export function describeMissing(missing: ReadonlyMap<string, string>): string {
  if (missing.size === 0) return '';
  return `Missing\n${[...missing].map(([name, reason]) => `  ${name}: ${reason}`).join('\n')}\n`;
}

export function verdictTable(verdicts: readonly Verdict[]): string {
  const known = verdicts.filter(({ isMet }) => isMet !== undefined);
  const rows = known.map(({ target, asked, measured, against, isMet }) => [
    ...[target, asked, measured, against],
    isMet === true ? 'met' : 'NOT MET',
  ]);
  const unknown = verdicts.length - known.length;
  const table = textTable(['', 'asked', 'measured', 'against', ''], rows);
  return unknown === 0 ? table : `${table}\n${unknown} more were not measured`;
}

/** Each figure as multiples of native; of what has none, times. */
export function chartGroups({ samples, contenders, workloads }: Report): BarGroup[] {
  const figures = workloads.flatMap((workload) => workload.figures.map((figure) => ({ figure, workload })));
  return figures
    .filter(({ figure }) => samples.figures().includes(figure))
    .map(({ figure, workload }) => ({
      title: `${figure} — ${workload.description}`,
      bars: contenders.flatMap(({ name, kind }) => {
        const summary = samples.summary(figure, name);
        if (summary === undefined) return [];
        const { median, lower, upper } = summary.nsPerOperation;
        const ratio = samples.ratio(figure, name, 'native');
        const text =
          ratio === undefined ? formatNs(median) : `${formatNs(median)}, ${formatFactor(ratio)} × native`;
        return [{ label: name, kind, value: median, lower, upper, text }];
      }),
    }));
}
