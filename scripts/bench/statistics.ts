/** The middle of some figures and the quartiles around it. */
export interface Spread {
  readonly median: number;
  readonly lower: number;
  readonly upper: number;
}

/** @throws for no figures at all. */
export function spreadOf(figures: readonly number[]): Spread {
  const sorted = [...figures].sort((one, other) => one - other);
  return { median: quantile(sorted, 0.5), lower: quantile(sorted, 0.25), upper: quantile(sorted, 0.75) };
}

export function medianOf(figures: readonly number[]): number {
  return spreadOf(figures).median;
}

/** Between two neighbours it is as far along as the quantile asks. */
function quantile(sorted: readonly number[], share: number): number {
  const position = share * (sorted.length - 1);
  const below = sorted[Math.floor(position)];
  const above = sorted[Math.ceil(position)];
  if (below === undefined || above === undefined) throw new Error('BUG: statistics of no figures');
  return below + (above - below) * (position - Math.floor(position));
}

/** The list begun at another item in each run, so that no item always follows the same one's heat. */
export function rotated<Item>(items: readonly Item[], run: number): Item[] {
  const at = items.length === 0 ? 0 : run % items.length;
  return [...items.slice(at), ...items.slice(0, at)];
}
