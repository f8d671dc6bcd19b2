import { medianOf, spreadOf, type Spread } from '../statistics.ts';

/** What one contender took for one figure in one run. */
export interface Sample {
  readonly run: number;
  readonly figure: string;
  readonly contender: string;
  readonly nsPerOperation: number;
  /** Of the process that serves the contender; undefined where there is none. */
  readonly cpuUsPerOperation?: number | undefined;
  /** Requests that the process answered, where it counts them. */
  readonly tripsPerOperation?: number | undefined;
}

/** All runs of one contender for one figure. */
export interface Summary {
  readonly figure: string;
  readonly contender: string;
  readonly nsPerOperation: Spread;
  readonly cpuUsPerOperation: number | undefined;
  readonly tripsPerOperation: number | undefined;
}

/** The samples of a benchmark, and what follows from them. All ratios are medians of ratios taken within one run each. */
export class Samples {
  readonly #samples: readonly Sample[];

  constructor(samples: readonly Sample[]) {
    this.#samples = samples;
  }

  figures(): string[] {
    return [...new Set(this.#samples.map(({ figure }) => figure))];
  }

  contenders(figure: string): string[] {
    return [...new Set(this.#of(figure).map(({ contender }) => contender))];
  }

  summary(figure: string, contender: string): Summary | undefined {
    const samples = this.#of(figure, contender);
    if (samples.length === 0) return undefined;
    return {
      figure,
      contender,
      nsPerOperation: spreadOf(samples.map(({ nsPerOperation }) => nsPerOperation)),
      cpuUsPerOperation: medianOfKnown(samples.map(({ cpuUsPerOperation }) => cpuUsPerOperation)),
      tripsPerOperation: medianOfKnown(samples.map(({ tripsPerOperation }) => tripsPerOperation)),
    };
  }

  /** How many times as long as `other` the contender took; undefined when no run has both. */
  ratio(figure: string, contender: string, other: string): number | undefined {
    return this.ratioOfFigures({ figure, contender }, { figure, contender: other });
  }

  ratioOfFigures(one: FigureOf, other: FigureOf): number | undefined {
    const others = new Map(
      this.#of(other.figure, other.contender).map(({ run, nsPerOperation }) => [run, nsPerOperation]),
    );
    const ratios = this.#of(one.figure, one.contender).flatMap(({ run, nsPerOperation }) => {
      const base = others.get(run);
      return base === undefined ? [] : [nsPerOperation / base];
    });
    return ratios.length === 0 ? undefined : medianOf(ratios);
  }

  /** Of those contenders, the one with the lowest median; undefined when none was measured. */
  fastest(figure: string, contenders: readonly string[]): string | undefined {
    const medians = contenders.flatMap((contender) => {
      const summary = this.summary(figure, contender);
      return summary === undefined ? [] : [{ contender, median: summary.nsPerOperation.median }];
    });
    medians.sort((one, other) => one.median - other.median);
    return medians[0]?.contender;
  }

  #of(figure: string, contender?: string): Sample[] {
    return this.#samples.filter(
      (sample) => sample.figure === figure && (contender === undefined || sample.contender === contender),
    );
  }
}

export interface FigureOf {
  readonly figure: string;
  readonly contender: string;
}

function medianOfKnown(figures: readonly (number | undefined)[]): number | undefined {
  const known = figures.filter((figure) => figure !== undefined);
  return known.length === 0 ? undefined : medianOf(known);
}
